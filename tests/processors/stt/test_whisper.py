"""Whisper as a processor: the real packages in a real process, virtual time, and models that the tests make."""

import json
import os
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from voxline.pipeline import (
    InputEndedFrame,
    InterimTranscriptionFrame,
    MissingExtraError,
    SettingsError,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.testing import Bench, BenchFailure, Harness
from voxline.pipeline.testing.material import chunks, noise
from voxline.processors.stt.whisper import WhisperSTT
from voxline.processors.stt.whisper_child import SegmentThresholds, check_folder
from voxline.processors.subprocess.child import Refused
from voxline.tests.processors.stt.whisper_file import WORD_STARTS_MS, write_whisper

pytest.importorskip("faster_whisper")


async def bench_of(harness: Harness, stt: WhisperSTT) -> Bench:
    return await harness(stt, patience_s=60)


async def say(bench: Bench, ms: float = 2_000) -> None:
    """Audio of this length; its content does not matter to the test models."""
    await bench.send(UserStartedSpeakingFrame(0))
    for frame in chunks(noise(ms), ms=100):
        await bench.send(frame)
    await bench.send(UserStoppedSpeakingFrame(200))


def transcripts(bench: Bench) -> list[TranscriptionFrame]:
    return [frame for frame in bench.down if isinstance(frame, TranscriptionFrame)]


def texts(bench: Bench) -> list[str]:
    return [frame.text for frame in transcripts(bench)]


def pid_of(stt: WhisperSTT) -> int:
    """The number of its process."""
    assert stt._process is not None
    assert stt._process.pid is not None
    return stt._process.pid


# --- hearing ---------------------------------------------------------------------------------------------------------


async def test_an_utterance_is_one_transcript_with_the_times_of_its_words(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, WhisperSTT(write_whisper(tmp_path)))
    await say(bench)
    (told,) = transcripts(bench)
    assert (told.text, told.audio_ms, told.failed) == ("go west", 2_000, False)
    assert [word.text for word in told.words] == ["go", "west"]
    assert told.words[0].start_ms == WORD_STARTS_MS[0]
    # Between the place of the first and that of the second it is one to the alignment.
    assert WORD_STARTS_MS[1] / 2 <= told.words[1].start_ms <= WORD_STARTS_MS[1]
    assert told.words[0].end_ms <= told.words[1].start_ms <= told.words[1].end_ms <= 2_000
    assert not [frame for frame in bench.down if isinstance(frame, InterimTranscriptionFrame)]
    assert bench.now_ms == 0


async def test_without_the_times_of_words_it_is_the_same_text(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, WhisperSTT(write_whisper(tmp_path), word_times=False, beam_size=1, language="en"))
    await say(bench)
    assert transcripts(bench) == [TranscriptionFrame("go west", 2_000.0, 0.0)]


async def test_each_utterance_has_its_transcription(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, WhisperSTT(write_whisper(tmp_path)))
    for _ in range(3):
        await say(bench, 1_000)
    assert texts(bench) == ["go west"] * 3


async def test_a_click_is_not_asked_about(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, WhisperSTT(write_whisper(tmp_path)))
    await say(bench, 80)
    assert texts(bench) == [""]


async def test_a_segment_of_silence_has_no_text(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, WhisperSTT(write_whisper(tmp_path, sure=False, silence=True)))
    await say(bench)
    assert texts(bench) == [""]


async def test_a_certain_segment_is_text_even_if_it_may_be_silence(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, WhisperSTT(write_whisper(tmp_path, silence=True)))
    await say(bench)
    assert texts(bench) == ["go west"]


async def test_a_loop_is_no_text(harness: Harness, tmp_path: Path):
    stt = WhisperSTT(write_whisper(tmp_path, loop=True), word_times=False)
    bench = await bench_of(harness, stt)
    await say(bench)
    assert texts(bench) == [""]
    stt.update(compression_ratio_threshold=1_000.0)
    await say(bench)
    assert texts(bench)[1].startswith("go go go go")


async def test_pieces_of_a_long_utterance_have_times_from_its_start(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, WhisperSTT(write_whisper(tmp_path), piece_ms=5_000))
    await say(bench, 12_000)
    told = transcripts(bench)
    assert [frame.text for frame in told] == ["go west"] * len(told)
    assert [frame.more for frame in told] == [True] * (len(told) - 1) + [False]
    assert 3 <= len(told) <= 4
    assert sum(frame.audio_ms for frame in told) == pytest.approx(12_000)
    begins = [sum(frame.audio_ms for frame in told[:at]) for at in range(len(told))]
    assert [frame.words[0].start_ms for frame in told] == pytest.approx(begins)


async def test_a_caller_who_hangs_up_in_mid_speech_is_understood(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, WhisperSTT(write_whisper(tmp_path)))
    await bench.send(UserStartedSpeakingFrame(0), *chunks(noise(1_000)), InputEndedFrame())
    assert texts(bench) == ["go west"]


async def test_a_process_that_dies_in_mid_speech_is_made_anew_and_hears_it_again(harness: Harness, tmp_path: Path):
    stt = WhisperSTT(write_whisper(tmp_path))
    bench = await bench_of(harness, stt)
    await bench.send(UserStartedSpeakingFrame(0), *chunks(noise(1_000)))
    pid = pid_of(stt)
    os.kill(pid, signal.SIGKILL)
    await bench.send(*chunks(noise(1_000)), UserStoppedSpeakingFrame(200))
    await bench.advance(ms=3_000)
    assert [(frame.text, frame.failed, frame.audio_ms) for frame in transcripts(bench)] == [("go west", False, 2_000)]
    assert pid_of(stt) != pid


@dataclass
class Segment:
    """As faster-whisper's, as far as it is judged."""

    no_speech_prob: float
    avg_logprob: float
    compression_ratio: float = 1.2
    text: str = ""
    words: None = None


@pytest.mark.parametrize(
    ("segment", "accepted"),
    [
        (Segment(0.0, -0.2), True),
        (Segment(0.9, -0.2), True),
        (Segment(0.1, -3.0), True),
        (Segment(0.9, -1.1), False),
        (Segment(0.0, 0.0, 9.0), False),
    ],
)
def test_segments_are_accepted_by_the_thresholds_of_whispers_authors(segment: Segment, accepted: bool):
    assert SegmentThresholds(0.6, -1.0, 2.4).accept(segment) is accepted


# --- files that are no model -----------------------------------------------------------------------------------------


def write(name: str, content: bytes | str) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def cut(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).write_bytes((folder / name).read_bytes()[:-1_000])


def without(name: str) -> Callable[[Path], object]:
    return lambda folder: (folder / name).unlink()


def for_pytorch(folder: Path) -> None:
    (folder / "model.bin").rename(folder / "model.safetensors")


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no model": (without("model.bin"), r"there is no file .*model.bin"),
    "for PyTorch": (for_pytorch, "has a Whisper model for PyTorch.*ct2-transformers-converter"),
    "empty": (write("model.bin", b""), "model.bin is empty"),
    "lfs": (write("model.bin", "version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    "no tokenizer": (without("tokenizer.json"), r"there is no file .*tokenizer.json"),
    "no settings": (write("config.json", "hello"), "config.json is not a JSON object"),
    "no vocabulary": (without("vocabulary.json"), r"there is no file .*vocabulary.json"),
}
UNLOADABLE: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tokenizer": WRONG["no tokenizer"],
    "noise": (write("model.bin", bytes(range(256)) * 40), "CTranslate2 says"),
    "cut off": (cut("model.bin"), "CTranslate2 says"),
    "another tokenizer": (write("tokenizer.json", "{}"), "CTranslate2 says"),
    "other features": (
        write("preprocessor_config.json", json.dumps({"feature_size": 128})),
        "a first second failed with .*128",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_model_is_refused_with_one_sentence(tmp_path: Path, case: str):
    spoil, message = WRONG[case]
    folder = write_whisper(tmp_path)
    spoil(folder)
    with pytest.raises(Refused, match=message) as caught:
        check_folder(folder)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", UNLOADABLE)
async def test_a_wrong_model_fails_the_start_and_leaves_no_process(harness: Harness, tmp_path: Path, case: str):
    spoil, message = UNLOADABLE[case]
    folder = write_whisper(tmp_path)
    spoil(folder)
    stt = WhisperSTT(folder)
    with pytest.raises(BenchFailure, match=f"BadRequestError: WhisperSTT: .*{message}"):
        await bench_of(harness, stt)
    assert not stt.alive()


@pytest.mark.parametrize("name", ["tiny", "large-v3", "someone/whisper"])
async def test_a_name_is_no_path_and_nothing_is_downloaded(
    harness: Harness, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BenchFailure, match=r"there is no folder .*Nothing is downloaded"):
        await bench_of(harness, WhisperSTT(name))


async def test_an_unknown_language_is_refused(harness: Harness, tmp_path: Path):
    with pytest.raises(BenchFailure, match="does not know the language 'de'; it knows en"):
        await bench_of(harness, WhisperSTT(write_whisper(tmp_path), language="de"))


@pytest.mark.parametrize("settings", [{"beam_size": 0}, {"temperatures": ()}, {"piece_ms": 40_000}, {"device": "tpu"}])
def test_settings_out_of_range_raise(settings: dict[str, Any]):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        WhisperSTT("model", **settings)


def test_without_the_package_the_error_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", nothing_is_installed)
    with pytest.raises(MissingExtraError, match=r"faster-whisper.*pip install .*\[whisper\]"):
        WhisperSTT("model")


def nothing_is_installed(name: str) -> None:
    """Replacement of `importlib.util.find_spec`."""

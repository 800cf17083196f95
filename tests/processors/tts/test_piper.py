"""Piper as a processor: the real package in a real process, virtual time, and voices that the tests make."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import pytest
from voxline.pipeline import (
    Frame,
    FrameProcessor,
    MissingExtraError,
    OutputAudioFrame,
    ResponseEndFrame,
    SettingsError,
    TextFrame,
    handles,
)
from voxline.pipeline.clock import SystemClock
from voxline.pipeline.testing import Bench, BenchFailure, Harness
from voxline.pipeline.testing.material import join
from voxline.processors.subprocess.child import Refused, Request
from voxline.processors.subprocess.model_process import ModelProcess
from voxline.processors.subprocess.wire import WireMessage
from voxline.processors.tts.piper import PiperTTS
from voxline.processors.tts.piper_child import PiperSynthesiser
from voxline.tests.processors.subprocess.onnx_file import mean_model
from voxline.tests.processors.tts.piper_file import (
    PHONEME_SAMPLES,
    SAMPLE_RATE,
    phonemes_of,
    voice_config,
    voice_model,
    write_voice,
)

pytest.importorskip("piper")


@pytest.fixture(autouse=True)
def unaligned(monkeypatch: pytest.MonkeyPatch) -> None:
    """The voices of these tests are tones, in which nobody finds words."""
    monkeypatch.setattr(PiperTTS, "align_words", False)


async def bench_of(harness: Harness, *processors: FrameProcessor) -> Bench:
    return await harness([*processors], patience_s=60)


def spoken(bench: Bench) -> list[OutputAudioFrame]:
    return [frame for frame in bench.down if isinstance(frame, OutputAudioFrame)]


def samples_of(text: str, length: float = 1.0) -> int:
    return phonemes_of(text) * int(PHONEME_SAMPLES * length)


def pid_of(tts: PiperTTS) -> int:
    """The number of its process."""
    assert tts._process is not None
    assert tts._process.pid is not None
    return tts._process.pid


# --- speaking --------------------------------------------------------------------------------------------------------


async def test_a_text_is_speech_in_small_frames_at_the_rate_of_the_voice(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, PiperTTS(write_voice(tmp_path)))
    await bench.send(TextFrame("going forward."), ResponseEndFrame())
    assert bench.down[-1] == ResponseEndFrame()
    frames = spoken(bench)
    assert len(frames) == len(bench.down) - 1
    assert all(frame.sample_rate == SAMPLE_RATE and frame.channels == 1 for frame in frames)
    assert all(frame.duration_ms == 100 for frame in frames[:-1])
    heard = join(frames)
    assert len(heard) == samples_of("going forward.")
    levels = heard[::PHONEME_SAMPLES]
    # The "d" is the letter before the last; a sentence's loudest sample is as loud as can be.
    ids = voice_config()["phoneme_id_map"]
    assert levels[2 * len("going forwar") + 2] == pytest.approx(32_767 * ids["d"][0] / ids["."][0], abs=2)
    assert levels.max() == 32_767
    assert [word.text for frame in frames for word in frame.words] == ["going forward."]
    assert bench.now_ms == 0


async def test_one_text_after_another_keeps_its_order(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, PiperTTS(write_voice(tmp_path)))
    texts = ["one.", "two, three.", "and four"]
    await bench.send(*(TextFrame(text) for text in texts))
    assert len(join(spoken(bench))) == sum(samples_of(text) for text in texts)
    assert [word.text for frame in spoken(bench) for word in frame.words] == texts


async def test_with_espeak_phonemes_a_long_text_is_spoken_sentence_by_sentence(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, PiperTTS(write_voice(tmp_path, phoneme_type="espeak")))
    await bench.send(TextFrame("No. No. No."))
    heard = join(spoken(bench))
    thirds = np.split(heard, 3)
    assert np.array_equal(thirds[0], thirds[1])
    assert np.array_equal(thirds[1], thirds[2])


@pytest.mark.parametrize("text", ["😀!", "[[x]] is no phoneme", "a\x00\x07b", "«…»"])
async def test_odd_texts_are_spoken_too(harness: Harness, tmp_path: Path, text: str):
    bench = await bench_of(harness, PiperTTS(write_voice(tmp_path, phoneme_type="espeak")))
    await bench.send(TextFrame(text), TextFrame("no"))
    assert "no" in [word.text for frame in spoken(bench) for word in frame.words]


@pytest.mark.parametrize(
    ("settings", "factor"), [({"length_scale": 1.5}, 1.5), ({"speaker": 1}, 2), ({"speaker": "speaker 1"}, 2)]
)
async def test_options_change_the_speech(harness: Harness, tmp_path: Path, settings: dict[str, Any], factor: float):
    bench = await bench_of(harness, PiperTTS(write_voice(tmp_path, speakers=2), **settings))
    await bench.send(TextFrame("hello"))
    assert len(join(spoken(bench))) == samples_of("hello", factor)


async def test_settings_change_between_two_texts_in_the_same_process(harness: Harness, tmp_path: Path):
    tts = PiperTTS(write_voice(tmp_path))
    bench = await bench_of(harness, tts)
    pid = pid_of(tts)
    tts.update(length_scale=2.0, volume=0.5)
    await bench.send(TextFrame("hello"))
    assert len(join(spoken(bench))) == samples_of("hello", 2)
    assert join(spoken(bench)).max() == 16_383
    assert pid_of(tts) == pid


async def test_another_voice_is_another_process(harness: Harness, tmp_path: Path):
    (tmp_path / "other").mkdir()
    other = write_voice(tmp_path / "other", audio={"sample_rate": 22_050})
    tts = PiperTTS(write_voice(tmp_path))
    bench = await bench_of(harness, tts)
    pid = pid_of(tts)
    tts.update(model_path=str(other))
    await bench.send(TextFrame("hello"))
    await bench.advance(ms=1_000)
    assert {frame.sample_rate for frame in spoken(bench)} == {22_050}
    assert pid_of(tts) != pid


# --- stopping and dying ----------------------------------------------------------------------------------------------


class Impatient(FrameProcessor):
    """Interrupts at a frame."""

    def __init__(self, frames: int) -> None:
        self.frames = frames

    @handles(OutputAudioFrame)
    async def listen(self, frame: Frame) -> None:
        self.frames -= 1
        await self.push(frame)
        if self.frames == 0:
            self.interrupt()


@pytest.mark.parametrize("frames", [1, 2, 7])
async def test_an_interruption_stops_it_and_the_next_text_is_heard_alone(harness: Harness, tmp_path: Path, frames: int):
    listener = Impatient(frames)
    bench = await bench_of(harness, PiperTTS(write_voice(tmp_path)), listener)
    for response in (1, 3, 5):
        listener.frames = frames
        bench.clear()
        await bench.send(TextFrame("a long story. " * 100), ResponseEndFrame(), response=response)
        assert len(spoken(bench)) <= frames
        listener.frames = 0
        bench.clear()
        await bench.send(TextFrame("stop now"), ResponseEndFrame(), response=response + 1)
        assert len(join(spoken(bench))) == samples_of("stop now")


async def test_a_sentence_that_is_being_made_is_stopped_in_its_middle(tmp_path: Path):
    model = ModelProcess("PiperTTS", "voxline.processors.tts.piper_child", sleep=SystemClock().sleep)
    await model.start(str(write_voice(tmp_path, busy=5_000)), {"threads": 1})
    try:
        assert model.pid is not None
        process = psutil.Process(model.pid)
        begun_s = process.cpu_times().user
        thinking = model.ask("speak", {"text": "a long story. " * 14})
        while process.cpu_times().user < begun_s + 0.3:  # it is deep in the model now
            await SystemClock().sleep(0.01)
        thinking.close()
        with model.ask("speak", {"text": "a"}) as replies:
            heard = b"".join([message.payload async for message in replies])
        assert len(heard) == 2 * samples_of("a")
        # The whole would have taken a minute.
        assert process.cpu_times().user < begun_s + 10
    finally:
        await model.close()


async def test_a_process_that_dies_is_made_anew_and_the_text_is_spoken(harness: Harness, tmp_path: Path):
    tts = PiperTTS(write_voice(tmp_path))
    bench = await bench_of(harness, tts)
    pid = pid_of(tts)
    os.kill(pid, signal.SIGKILL)
    await bench.send(TextFrame("back again"))
    await bench.advance(ms=3_000)
    assert len(join(spoken(bench))) == samples_of("back again")
    assert pid_of(tts) != pid


async def test_two_voices_in_one_pipeline_have_a_process_each(harness: Harness, tmp_path: Path):
    path = write_voice(tmp_path)
    one, two = PiperTTS(path), PiperTTS(path)
    await bench_of(harness, one, two)
    assert pid_of(one) != pid_of(two)


# --- files that are no voice -----------------------------------------------------------------------------------------


def config(path: Path, **changes: Any) -> None:
    Path(f"{path}.json").write_text(json.dumps(voice_config(**changes)))


def without(key: str) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        made = voice_config()
        del made[key]
        Path(f"{path}.json").write_text(json.dumps(made))

    return write


WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda path: path.unlink(), "there is no file .*voice.onnx; it should be the"),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "is a folder; it should be the .onnx"),
    "empty": (lambda path: path.write_bytes(b""), "is empty"),
    "a text": (lambda path: path.write_text("hello\n" * 10), "is a text"),
    "a web page": (lambda path: path.write_text("\n<!DOCTYPE html><html>"), "is a web page"),
    "lfs": (lambda path: path.write_text("version https://git-lfs.github.com/spec/v1\n"), "git lfs pull"),
    "noise": (lambda path: path.write_bytes(bytes(range(256)) * 9), "is not an ONNX file"),
    "cut off": (lambda path: path.write_bytes(voice_model()[:-40]), "is truncated"),
    "another model": (lambda path: path.write_bytes(mean_model()), "has no input 'input' .it has input_features"),
    "another graph": (
        lambda path: path.write_bytes(mean_model("input")),
        "has no input 'input_lengths'",
    ),
    "no config": (lambda path: Path(f"{path}.json").unlink(), "there is no file .*voice.onnx.json"),
    "config is a text": (lambda path: Path(f"{path}.json").write_text("hello"), "is not a JSON object"),
    "config is a list": (lambda path: Path(f"{path}.json").write_text("[1]"), "is not a JSON object"),
    "config of another kind": (lambda path: Path(f"{path}.json").write_text("{}"), "its audio.sample_rate is None"),
    "no voice": (without("espeak"), "its espeak.voice is None"),
    "no map": (without("phoneme_id_map"), "its phoneme_id_map is missing"),
    "no number": (without("num_symbols"), "num_symbols or num_speakers is missing"),
    "several speakers": (lambda path: config(path, speakers=2), "2 speakers, and the model one"),
    "one speaker": (lambda path: path.write_bytes(voice_model(speakers=2)), "1 speakers, and the model several"),
    "an unknown type": (lambda path: config(path, phoneme_type="runes"), "runes"),
    "Chinese": (lambda path: config(path, phoneme_type="pinyin"), "Piper would download another model"),
}  # fmt: skip


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_voice_is_refused_with_one_sentence(tmp_path: Path, case: str):
    spoil, message = WRONG[case]
    spoil(write_voice(tmp_path))
    request = Request(cast(Any, None), WireMessage({"model": str(tmp_path / "voice.onnx")}, b""))
    with pytest.raises(Refused, match=message) as caught:
        PiperSynthesiser().start(request)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300
    assert "\n" not in str(caught.value)


def another_language(path: Path) -> None:
    config(path, phoneme_type="espeak", espeak={"voice": "qqq"})


STARTS: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": WRONG["missing"],
    "another model": WRONG["another model"],
    # piper-tts 1.3.0 crashes here.
    "no such language": (another_language, "(do not fit each other: a first sound failed|library ended the process)"),
}


@pytest.mark.parametrize("case", STARTS)
async def test_a_wrong_model_fails_the_start_and_leaves_no_process(harness: Harness, tmp_path: Path, case: str):
    spoil, message = STARTS[case]
    spoil(write_voice(tmp_path))
    tts = PiperTTS(tmp_path / "voice.onnx")
    with pytest.raises(BenchFailure, match=f"BadRequestError: PiperTTS: .*{message}"):
        await bench_of(harness, tts)
    assert not tts.alive()


@pytest.mark.parametrize("speaker", [2, -1, "nobody"])
async def test_the_error_for_an_unknown_speaker_lists_the_speakers(
    harness: Harness, tmp_path: Path, speaker: int | str
):
    tts = PiperTTS(write_voice(tmp_path, speakers=2), speaker=speaker)
    with pytest.raises(BenchFailure, match=r"has no speaker .*; there are 0 to 1, or by name: speaker 0, speaker 1"):
        await bench_of(harness, tts)


@pytest.mark.parametrize("settings", [{"length_scale": 0}, {"volume": 2.0}, {"threads": 0}, {"connect_timeout_s": 0}])
def test_settings_out_of_range_raise(settings: dict[str, Any]):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        PiperTTS("voice.onnx", **settings)


def test_without_the_package_the_error_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", nothing_is_installed)
    with pytest.raises(MissingExtraError, match=r"piper-tts.*pip install .*\[piper\]"):
        PiperTTS("voice.onnx")


def nothing_is_installed(name: str) -> None:
    """Replacement of `importlib.util.find_spec`."""

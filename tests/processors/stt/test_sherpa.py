"""sherpa-onnx as a processor: the real package in a real process, virtual time, and models that the tests make."""

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import (
    HeardWord,
    InputAudioFrame,
    InputEndedFrame,
    InterimTranscriptionFrame,
    MissingExtraError,
    SettingsError,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.frames import Samples
from voxline.pipeline.testing import Bench, BenchFailure, Harness
from voxline.pipeline.testing.material import chunks
from voxline.processors.stt.sherpa import SherpaSTT
from voxline.processors.stt.sherpa_child import find_model, words_of
from voxline.processors.subprocess.child import Refused
from voxline.tests.processors.stt.sherpa_file import (
    ENCODER_NOTES,
    decoder,
    encoder,
    joiner,
    nemo_ctc,
    sound,
    write_transducer,
)
from voxline.tests.processors.subprocess.onnx_file import mean_model

pytest.importorskip("sherpa_onnx")


async def bench_of(harness: Harness, stt: SherpaSTT) -> Bench:
    return await harness(stt, patience_s=60)


async def say(bench: Bench, samples: Samples, *, onset_ms: float = 0) -> None:
    """Half a second of silence, then this."""
    await bench.send(*chunks(sound("silence", ms=500)))
    await bench.send(UserStartedSpeakingFrame(onset_ms))
    for frame in chunks(samples):
        await bench.send(frame)
    await bench.send(UserStoppedSpeakingFrame(200))


def transcripts(bench: Bench) -> list[TranscriptionFrame]:
    return [frame for frame in bench.down if isinstance(frame, TranscriptionFrame)]


def texts(bench: Bench) -> list[str]:
    return [frame.text for frame in transcripts(bench)]


def interims(bench: Bench) -> list[str]:
    return [frame.text for frame in bench.down if isinstance(frame, InterimTranscriptionFrame)]


def pid_of(stt: SherpaSTT) -> int:
    """The number of its process."""
    assert stt._process is not None
    assert stt._process.pid is not None
    return stt._process.pid


# --- hearing ---------------------------------------------------------------------------------------------------------


async def test_an_utterance_is_one_transcript_with_the_times_of_its_words(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, SherpaSTT(write_transducer(tmp_path)))
    await say(bench, sound("low", "high", "silence", "low"))
    (told,) = transcripts(bench)
    assert told.text == "low higher low"
    assert told.audio_ms == 1_600 + 300
    assert [word.text for word in told.words] == ["low", "higher", "low"]
    # 300 ms from before the start are heard with it; the model's frames are 40 ms.
    assert [word.start_ms for word in told.words] == pytest.approx([300, 700, 1_500], abs=60)
    for word in told.words:
        assert 0 < word.end_ms - word.start_ms <= 200
    assert bench.now_ms == 0


async def test_interim_texts_are_pushed_while_the_user_speaks(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, SherpaSTT(write_transducer(tmp_path), interim_ms=200))
    await say(bench, sound("low", "high", "low"))
    assert interims(bench) == ["low", "low higher", "low higher low"]
    assert texts(bench) == ["low higher low"]


async def test_it_can_be_silent_until_the_end(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, SherpaSTT(write_transducer(tmp_path), interim_ms=0))
    await say(bench, sound("low", "high"))
    assert interims(bench) == []
    assert texts(bench) == ["low higher"]


async def test_a_word_that_ends_with_the_utterance_is_not_lost(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, SherpaSTT(write_transducer(tmp_path)))
    await say(bench, sound("low", ms=400)[: 16 * 90])
    assert texts(bench) == ["low"]


async def test_one_utterance_after_the_other_begins_anew(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, SherpaSTT(write_transducer(tmp_path)))
    for _ in range(3):
        await say(bench, sound("low", "high"))
        await say(bench, sound("silence"))
    assert texts(bench) == ["low higher", ""] * 3


async def test_pieces_of_a_long_utterance_have_times_from_its_start(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, SherpaSTT(write_transducer(tmp_path), piece_ms=1_500, interim_ms=0))
    await say(bench, sound("low", "silence", "high", "silence", "low", "silence", "high", "silence"))
    told = transcripts(bench)
    assert [frame.more for frame in told] == [True] * (len(told) - 1) + [False]
    assert len(told) > 1
    assert " ".join(filter(None, texts(bench))) == "low higher low higher"
    words: list[HeardWord] = [word for frame in told for word in frame.words]
    assert [word.start_ms for word in words] == pytest.approx([300, 1_100, 1_900, 2_700], abs=60)
    assert sum(frame.audio_ms for frame in told) == 8 * 400 + 300


async def test_a_caller_who_hangs_up_in_mid_speech_is_understood(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, SherpaSTT(write_transducer(tmp_path)))
    await bench.send(UserStartedSpeakingFrame(0), *chunks(sound("low")), InputEndedFrame())
    assert texts(bench) == ["low"]


async def test_a_ctc_model_is_heard_too(harness: Harness, tmp_path: Path):
    bench = await bench_of(harness, SherpaSTT(nemo_ctc(tmp_path)))
    await say(bench, sound("low", "silence", "low"))
    assert texts(bench) == ["low low"]


async def test_of_two_models_in_a_folder_the_one_with_8_bits_is_taken(harness: Harness, tmp_path: Path):
    folder = write_transducer(tmp_path)
    (folder / "encoder-epoch-1.int8.onnx").write_bytes(encoder())
    (folder / "encoder-epoch-1.onnx").write_text("nobody reads this")
    bench = await bench_of(harness, SherpaSTT(folder))
    await say(bench, sound("low"))
    assert texts(bench) == ["low"]


async def test_a_process_that_dies_in_mid_speech_is_made_anew_and_hears_it_again(harness: Harness, tmp_path: Path):
    stt = SherpaSTT(write_transducer(tmp_path), interim_ms=0)
    bench = await bench_of(harness, stt)
    await bench.send(UserStartedSpeakingFrame(0), *chunks(sound("low", "high")))
    pid = pid_of(stt)
    os.kill(pid, signal.SIGKILL)
    await bench.send(*chunks(sound("low")))
    await bench.advance(ms=2_000)
    await bench.send(UserStoppedSpeakingFrame(200))
    await bench.advance(ms=2_000)
    assert texts(bench) == ["low higher low"]
    assert not transcripts(bench)[0].failed
    assert pid_of(stt) != pid


# --- files that are no model -----------------------------------------------------------------------------------------


def write(name: str, content: bytes | str) -> Callable[[Path], object]:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: (folder / name).write_bytes(data)


def alone(content: bytes) -> Callable[[Path], object]:
    """Only one model in the folder."""

    def spoil(folder: Path) -> None:
        for file in folder.glob("*.onnx"):
            file.unlink()
        (folder / "model.onnx").write_bytes(content)

    return spoil


E, D, J = "encoder-epoch-1.onnx", "decoder-epoch-1.onnx", "joiner-epoch-1.onnx"
WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "no tokens": (lambda folder: (folder / "tokens.txt").unlink(), r"there is no file .*tokens.txt"),
    "other tokens": (write("tokens.txt", "hello\nworld x\n"), "a line is not a token with a number"),
    "few tokens": (write("tokens.txt", "<blk> 0\n"), "it has 5 tokens, and tokens.txt has 1"),
    "no joiner": (lambda folder: (folder / J).unlink(), "has encoder, decoder, but no joiner"),
    "two models": (write("encoder-epoch-2.onnx", encoder()), "several models .encoder-epoch-1.onnx, encoder-epoch-2"),
    "cut off": (write(E, encoder()[:-30]), "is truncated"),
    "a text": (write(E, "hello"), "is a text"),
    "lfs": (write(J, "version https://git-lfs.github.com/spec/v1"), "git lfs pull"),
    "another model": (write(E, mean_model()), "it has no model_type, not one of"),
    "another type": (write(E, encoder({"model_type": "whisper"})), "its model_type is 'whisper', not one of"),
    "not streaming": (write(E, encoder({"model_type": "zipformer2"})), "it is not made for streaming"),
    "another decoder": (write(D, mean_model()), "it has no vocab_size or context_size"),
    "another joiner": (write(J, mean_model()), "it takes 1 input"),
    "no model": (lambda folder: [file.unlink() for file in folder.glob("*.onnx")], "has no .onnx file"),
    "no CTC model": (alone(joiner()), "it has no model_type"),
}  # fmt: skip


DEADLY: dict[str, tuple[Callable[[Path], object], str]] = {
    "another size": (write(D, decoder(4)), "does not fit: sherpa-onnx says Got invalid dimensions"),
    "notes missing": (
        write(E, encoder({key: value for key, value in ENCODER_NOTES.items() if key != "d_model"})),
        "its library ended the process, saying: .*'d_model' does not exist in the metadata",
    ),
    "cut off": WRONG["cut off"],
}
"""Models that sherpa-onnx refuses or exits on, and one that never reaches it."""


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_model_is_refused_with_one_sentence(tmp_path: Path, case: str):
    spoil, message = WRONG[case]
    folder = write_transducer(tmp_path)
    spoil(folder)
    with pytest.raises(Refused, match=message) as caught:
        find_model(folder, int8=True)
    assert len(str(caught.value).replace(str(tmp_path), "")) < 300
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("case", DEADLY)
async def test_a_wrong_model_fails_the_start_and_leaves_no_process(harness: Harness, tmp_path: Path, case: str):
    spoil, message = DEADLY[case]
    folder = write_transducer(tmp_path)
    spoil(folder)
    stt = SherpaSTT(folder)
    with pytest.raises(BenchFailure, match=f"BadRequestError: SherpaSTT: .*{message}"):
        await bench_of(harness, stt)
    assert not stt.alive()


@pytest.mark.parametrize(
    ("name", "message"), [("nowhere", "there is no folder"), ("transducer/tokens.txt", "is a file; it should")]
)
async def test_a_path_that_is_not_a_folder_is_refused(harness: Harness, tmp_path: Path, name: str, message: str):
    write_transducer(tmp_path)
    with pytest.raises(BenchFailure, match=message):
        await bench_of(harness, SherpaSTT(tmp_path / name))


@pytest.mark.parametrize("settings", [{"method": "best"}, {"piece_ms": 10}, {"threads": 0}, {"interim_ms": -1}])
def test_settings_out_of_range_raise(settings: dict[str, Any]):
    with pytest.raises(SettingsError, match=next(iter(settings))):
        SherpaSTT("model", **settings)


def test_without_the_package_the_error_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", nothing_is_installed)
    with pytest.raises(MissingExtraError, match=r"sherpa-onnx.*pip install .*\[sherpa\]"):
        SherpaSTT("model")


def nothing_is_installed(name: str) -> None:
    """Replacement of `importlib.util.find_spec`."""


# --- words from tokens -----------------------------------------------------------------------------------------------


def test_tokens_become_words_with_their_times():
    words = words_of("HELLO WORLD", [" HE", "LLO", " WORLD"], [0.4, 0.48, 1.0], 1_050)
    assert words == [("HELLO", 400, 560), ("WORLD", 1_000, 1_050)]


def test_a_word_ends_where_the_next_begins():
    assert words_of("a b", ["▁a", "▁b"], [0.0, 0.04], 500) == [("a", 0, 40), ("b", 40, 120)]


def test_without_spaces_each_token_is_a_word():
    assert [word for word, _, _ in words_of("昨天是 café", ["昨天", "是", " caf", "é"], [0, 1, 2, 3], 9_000)] == [
        "昨天",
        "是",
        "café",
    ]


@pytest.mark.parametrize("tokens", [["<0xE6>", "<0x98>"], ["▁hel"], []])
def test_tokens_that_are_not_the_text_give_no_words(tokens: list[str]):
    assert words_of("hello", tokens, [0.0] * len(tokens), 100) == []


def test_the_sounds_of_these_tests_are_what_they_say():
    low = np.abs(np.fft.rfft(sound("low").astype(float)))
    assert low[: len(low) // 4].sum() > 20 * low[len(low) // 3 :].sum()
    assert isinstance(chunks(sound("high"))[0], InputAudioFrame)

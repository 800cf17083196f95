"""eSpeak NG as a processor: a real process, virtual time."""

import os
import signal
from itertools import pairwise

import numpy as np
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
from voxline.pipeline.testing import Bench, BenchFailure, Harness
from voxline.processors import EspeakTTS

pytest.importorskip("espeakng_loader")

LONG = "This is a very long story about a rover that went to the moon. " * 200


async def bench_of(harness: Harness, *processors: EspeakTTS) -> Bench:
    return await harness([*processors], patience_s=60)


def spoken(bench: Bench) -> list[OutputAudioFrame]:
    return [frame for frame in bench.down if isinstance(frame, OutputAudioFrame)]


def text_of(frames: list[OutputAudioFrame]) -> str:
    return " ".join(word.text for frame in frames for word in frame.words)


async def test_a_text_is_speech_in_small_frames(harness: Harness):
    bench = await bench_of(harness, EspeakTTS())
    await bench.send(TextFrame("Going forward ten meters."), ResponseEndFrame())
    assert bench.down[-1] == ResponseEndFrame()
    frames = spoken(bench)
    assert len(frames) == len(bench.down) - 1
    assert all(0 < frame.duration_ms <= 100 for frame in frames)
    assert all(frame.sample_rate == 22_050 and frame.channels == 1 for frame in frames)
    assert 800 < sum(frame.duration_ms for frame in frames) < 3_000
    assert max(int(np.abs(frame.samples.astype(np.int32)).max()) for frame in frames) > 3_000
    assert bench.now_ms == 0


@pytest.mark.parametrize(
    "text",
    [
        "Hello.",
        "I am 10 meters north of my start, facing west.",
        "Here I am.",
        "Forty-two is the answer - is it not?",
        "“Where are you?” she said… 3.5 m away!",
        "one",
        "Ten \n past   two",
        "... and so on ...",
        "¿Qué? 😀",
    ],
)
async def test_joined_with_spaces_the_words_are_the_text(harness: Harness, text: str):
    bench = await bench_of(harness, EspeakTTS())
    await bench.send(TextFrame(text))
    assert text_of(spoken(bench)) == " ".join(text.split())


async def test_a_word_stands_in_the_frame_in_which_it_begins(harness: Harness):
    bench = await bench_of(harness, EspeakTTS())
    await bench.send(TextFrame("One two three four. Five six, seven!"))
    at = 0.0
    starts: list[float] = []
    for frame in spoken(bench):
        for word in frame.words:
            assert 0 <= word.start_ms < frame.duration_ms
            starts.append(at + word.start_ms)
        at += frame.duration_ms
    assert starts == sorted(starts)
    assert len(starts) == 7
    assert starts[0] < 100
    assert min(after - before for before, after in pairwise(starts)) > 80


class Impatient(FrameProcessor):
    """Interrupts what is longer than ``frames`` frames, at that frame."""

    def __init__(self, frames: int) -> None:
        self.frames = frames
        self._count = 0

    @handles(OutputAudioFrame, ResponseEndFrame)
    async def listen(self, frame: Frame) -> None:
        self._count = 0 if isinstance(frame, ResponseEndFrame) else self._count + 1
        await self.push(frame)
        if self._count == self.frames:
            self._count = 0
            self.interrupt()


@pytest.mark.parametrize("frames", [1, 2, 3, 40])
async def test_an_interruption_stops_it_and_the_next_text_is_heard_alone(harness: Harness, frames: int):
    bench = await harness([EspeakTTS(), listener := Impatient(10_000)], patience_s=60)
    await bench.send(TextFrame("Stop now."), ResponseEndFrame(), response=1)
    alone_ms = sum(frame.duration_ms for frame in spoken(bench))
    for response in (2, 4, 6):
        listener.frames = frames
        bench.clear()
        await bench.send(TextFrame(LONG), ResponseEndFrame(), response=response)
        assert len(spoken(bench)) <= frames
        listener.frames = 10_000
        bench.clear()
        await bench.send(TextFrame("Stop now."), ResponseEndFrame(), response=response + 1)
        assert text_of(spoken(bench)) == "Stop now."
        # The same text is never twice the same sound.
        assert sum(frame.duration_ms for frame in spoken(bench)) == pytest.approx(alone_ms, rel=0.05)


async def test_an_empty_text_is_silence_and_no_error(harness: Harness):
    bench = await bench_of(harness, EspeakTTS())
    await bench.send(TextFrame(""), TextFrame("  "), ResponseEndFrame())
    assert bench.down[-1] == ResponseEndFrame()


def pid(tts: EspeakTTS) -> int:
    assert tts._process is not None
    assert tts._process.pid is not None
    return tts._process.pid


async def test_a_voice_that_dies_in_mid_sentence_is_started_again_and_every_word_is_said_once(harness: Harness):
    tts = EspeakTTS()

    class Killer(FrameProcessor):
        heard = 0

        @handles(OutputAudioFrame)
        async def count(self, frame: OutputAudioFrame) -> None:
            self.heard += 1
            if self.heard == 20:
                os.kill(pid(tts), signal.SIGKILL)
            await self.push(frame)

    bench = await harness([tts, Killer()], patience_s=60)
    first = pid(tts)
    await bench.send(TextFrame(LONG))
    await bench.advance(1_000)
    assert text_of(spoken(bench)) == " ".join(LONG.split())
    assert pid(tts) != first


async def test_a_voice_that_died_in_the_silence_is_started_again_before_the_next_text(harness: Harness):
    tts = EspeakTTS()
    bench = await bench_of(harness, tts)
    os.kill(pid(tts), signal.SIGKILL)
    while tts.alive():
        await bench.settle()
    await bench.send(TextFrame("Back again."))
    assert text_of(spoken(bench)) == "Back again."
    assert bench.now_ms == 0


async def test_another_voice_while_it_runs_is_heard_from_the_next_text_on(harness: Harness):
    tts = EspeakTTS()
    bench = await bench_of(harness, tts)
    first = pid(tts)
    tts.update(rate_wpm=400)
    await bench.send(TextFrame(LONG))
    await bench.advance(1_000)
    assert pid(tts) != first
    fast = sum(frame.duration_ms for frame in spoken(bench))
    bench.clear()
    tts.update(rate_wpm=100)
    await bench.send(TextFrame(LONG))
    await bench.advance(1_000)
    assert sum(frame.duration_ms for frame in spoken(bench)) > 2 * fast
    with pytest.raises(SettingsError, match="pitch is 100, and should be less than or equal to 99"):
        tts.update(pitch=100)


async def test_two_voices_in_one_pipeline_have_a_process_each(harness: Harness):
    one, two = EspeakTTS(), EspeakTTS("de", rate_wpm=250)
    await bench_of(harness, one, two)
    assert pid(one) != pid(two)


async def test_an_unknown_voice_ends_the_start_with_some_that_there_are(harness: Harness):
    with pytest.raises(BenchFailure, match=r"EspeakTTS.*no voice 'en-uss'. There are \d+, such as: en-us"):
        await bench_of(harness, EspeakTTS("en-uss"))


@pytest.mark.parametrize(("rate_wpm", "pitch"), [(20, 50), (175, 200)])
def test_settings_out_of_range_raise(rate_wpm: int, pitch: int):
    with pytest.raises(ValueError, match=r"and should be (greater|less)"):
        EspeakTTS(rate_wpm=rate_wpm, pitch=pitch)


def nothing_is_installed(name: str) -> None:
    """Replacement of `importlib.util.find_spec`."""


def test_without_the_package_the_error_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", nothing_is_installed)
    with pytest.raises(MissingExtraError, match=r"espeakng-loader.*pip install .*\[speech\]"):
        EspeakTTS()

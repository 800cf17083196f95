"""Resampler and Gain."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import (
    AudioFormat,
    FormatError,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    InputEndedFrame,
    OutputAudioFrame,
    Pipeline,
    ProcessorError,
    ResponseEndFrame,
    SpokenWord,
    handles,
    source,
)
from voxline.processors.audio.resampler import Gain, Resampler

NS_PER_MS = 1_000_000


def silence(ms: float, rate: int) -> Any:
    return np.zeros(round(ms * rate / 1000), np.int16)


async def test_the_callers_audio_comes_at_the_rate_that_is_wanted(harness: Any):
    bench = await harness(Resampler(16_000))
    for index in range(50):
        await bench.send(InputAudioFrame(silence(20, 48_000), 48_000, 20 * index * NS_PER_MS))
    await bench.send(InputEndedFrame())
    *frames, ended = bench.down
    assert ended == InputEndedFrame()
    assert {frame.sample_rate for frame in frames} == {16_000}
    assert sum(len(frame.samples) for frame in frames) == 16_000


async def test_the_time_of_the_first_sample_stays_right(harness: Any):
    bench = await harness(Resampler(16_000))
    for index in range(5):
        await bench.send(InputAudioFrame(silence(20, 48_000), 48_000, 20 * index * NS_PER_MS))
    await bench.send(InputEndedFrame())
    position = 0
    for frame in bench.down[:-1]:
        assert frame.pts_ns == pytest.approx(position * 1e9 / 16_000, abs=2)
        position += len(frame.samples)


async def test_a_frame_at_the_rate_passes_by_identity(harness: Any):
    bench = await harness(Resampler(16_000))
    heard, said = InputAudioFrame(silence(20, 16_000), 16_000), OutputAudioFrame(silence(20, 16_000), 16_000)
    await bench.send(heard, said)
    assert bench.down[0] is heard
    assert bench.down[1] is said


async def test_the_bots_audio_ends_before_the_end_of_the_response(harness: Any):
    bench = await harness(Resampler(24_000))
    await bench.send(OutputAudioFrame(silence(100, 22_050), 22_050), ResponseEndFrame(), response=1)
    *frames, ended = bench.down
    assert ended == ResponseEndFrame()
    assert sum(len(frame.samples) for frame in frames) == 2_400


async def test_words_keep_their_time(harness: Any):
    bench = await harness(Resampler(24_000))
    for index in range(20):
        word = SpokenWord(f"w{index}", 5.0)
        await bench.send(OutputAudioFrame(silence(20, 16_000), 16_000, (word,)), response=1)
    position = 0
    for index, frame in enumerate(bench.down):
        assert position / 24 + frame.words[0].start_ms == pytest.approx(20 * index + 5)
        position += len(frame.samples)


async def test_a_response_that_is_cut_leaves_nothing_to_the_next(harness: Any):
    bench = await harness(Resampler(24_000))
    await bench.send(OutputAudioFrame(np.full(1_600, 20_000, np.int16), 16_000), response=1)
    await bench.interrupt()
    bench.clear()
    await bench.send(OutputAudioFrame(silence(100, 16_000), 16_000), ResponseEndFrame(), response=2)
    *frames, _ = bench.down
    assert sum(len(frame.samples) for frame in frames) == 2_400
    assert not any(frame.samples.any() for frame in frames)


async def test_a_change_of_rate_loses_nothing(harness: Any):
    bench = await harness(Resampler(16_000))
    await bench.send(InputAudioFrame(silence(100, 48_000), 48_000))
    await bench.send(InputAudioFrame(silence(100, 16_000), 16_000))
    await bench.send(InputAudioFrame(silence(100, 8_000), 8_000), InputEndedFrame())
    assert sum(len(frame.samples) for frame in bench.down[:-1]) == 4_800


def test_a_rate_of_nothing_is_refused():
    with pytest.raises(ProcessorError, match="a rate above 0 Hz"):
        Resampler(0)


class Microphone(FrameProcessor):
    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {InputAudioFrame: AudioFormat((48_000,), (1,))}

    @source
    async def listen(self) -> AsyncIterator[Frame]:
        yield InputEndedFrame()


class Recogniser(FrameProcessor):
    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        return {InputAudioFrame: AudioFormat((16_000,), (1,))}

    @handles(InputAudioFrame)
    async def hear(self, frame: InputAudioFrame) -> None:
        pass


def test_it_stands_where_formats_do_not_meet():
    with pytest.raises(FormatError, match=r"Put a Resampler\(16000\) between them"):
        Pipeline([Microphone(), Recogniser()])
    Pipeline([Microphone(), Resampler(16_000), Recogniser()])


async def test_gain_is_in_decibels(harness: Any):
    bench = await harness(Gain(20.0))
    await bench.send(InputAudioFrame(np.array([10, -5_000], np.int16), 16_000, 7))
    assert bench.down == [InputAudioFrame(np.array([100, -32_768], np.int16), 16_000, 7)]


async def test_no_gain_passes_the_very_frame(harness: Any):
    bench = await harness(Gain(0))
    frame = OutputAudioFrame(silence(20, 16_000), 16_000)
    await bench.send(frame)
    assert bench.down[0] is frame

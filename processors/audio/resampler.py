"""Processors that change only the sound: resampling and gain."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from ...pipeline.audio import StreamResampler, gain, load_resampler
from ...pipeline.clock import NS_PER_MS
from ...pipeline.errors import ProcessorError
from ...pipeline.frames import (
    CancelFrame,
    Frame,
    InputAudioFrame,
    InputEndedFrame,
    OutputAudioFrame,
    ResponseEndFrame,
    SpokenWord,
)
from ...pipeline.processor import AudioFormat, FrameProcessor, handles


class Resampler(FrameProcessor):
    """Converts audio of both directions to ``sample_rate`` (Hz); a frame that has it already passes by identity.

    It holds back about a millisecond, which is pushed before the `InputEndedFrame` or the `ResponseEndFrame`. Times
    (``pts_ns``, the words' ``start_ms``) stay correct. One or two channels; their number stays.
    """

    converts_audio: ClassVar[bool] = True
    """True: for the check of formats, it makes audio only if it gets some."""

    def __init__(self, sample_rate: int) -> None:
        if sample_rate <= 0:
            raise ProcessorError(f"Resampler takes a rate above 0 Hz, as in Resampler(16000), not {sample_rate}.")
        load_resampler()
        self.sample_rate = sample_rate
        self._input: tuple[StreamResampler, int] | None = None
        """Stream of the user, and capture time of the next input sample, in ns."""
        self._output: tuple[StreamResampler, int] | None = None
        """Stream of the bot, and its response."""

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Audio at `sample_rate`, in both directions."""
        made = AudioFormat((self.sample_rate,))
        return {InputAudioFrame: made, OutputAudioFrame: made}

    @handles(InputAudioFrame)
    async def hear(self, frame: InputAudioFrame) -> None:
        """Resample the user's audio."""
        resampler = self._input[0] if self._input is not None else None
        if resampler is None or not _continues(resampler, frame):
            await self._end_input()
            if frame.sample_rate == self.sample_rate:
                await self.push(frame)
                return
            resampler = StreamResampler(frame.sample_rate, self.sample_rate, frame.channels)
        pts_ns = frame.pts_ns
        if pts_ns is not None:
            pts_ns -= round(resampler.held_ms * NS_PER_MS)
        samples = resampler.push(frame.samples)
        end_ns = (frame.pts_ns or 0) + round(frame.duration_ms * NS_PER_MS)
        self._input = resampler, end_ns
        await self.push(InputAudioFrame(samples, self.sample_rate, pts_ns))

    @handles(InputEndedFrame)
    async def end_hearing(self, frame: InputEndedFrame) -> None:
        """Push the rest of the audio."""
        await self._end_input()
        await self.push(frame)

    @handles(OutputAudioFrame)
    async def speak(self, frame: OutputAudioFrame) -> None:
        """Resample the bot's audio."""
        resampler, response = self._output or (None, 0)
        if resampler is None or response != self.response or not _continues(resampler, frame):
            await self._end_output()
            if frame.sample_rate == self.sample_rate:
                await self.push(frame)
                return
            resampler = StreamResampler(frame.sample_rate, self.sample_rate, frame.channels)
            self._output = resampler, self.response
        # Samples that the resampler still holds precede those of this frame.
        late_ms = resampler.held_ms
        words = tuple(SpokenWord(word.text, word.start_ms + late_ms, word.glued) for word in frame.words)
        await self.push(OutputAudioFrame(resampler.push(frame.samples), self.sample_rate, words))

    @handles(ResponseEndFrame)
    async def end_speaking(self, frame: ResponseEndFrame) -> None:
        """Push the rest of the audio."""
        await self._end_output()
        await self.push(frame)

    @handles(CancelFrame)
    async def drop(self, frame: CancelFrame) -> None:
        """Drop the rest of a cancelled response."""
        if self._output is not None and self._output[1] <= frame.response:
            self._output = None

    async def _end_input(self) -> None:
        if self._input is not None:
            (resampler, end_ns), self._input = self._input, None
            begin_ns = end_ns - round(resampler.held_ms * NS_PER_MS)
            if len(rest := resampler.flush()):
                await self.push(InputAudioFrame(rest, self.sample_rate, begin_ns))

    async def _end_output(self) -> None:
        if self._output is not None:
            (resampler, response), self._output = self._output, None
            if len(rest := resampler.flush()):
                await self.push(OutputAudioFrame(rest, self.sample_rate), response=response or None)


class Gain(FrameProcessor):
    """Amplifies audio of both directions by ``decibels``, or attenuates it below 0; clipped at full scale."""

    def __init__(self, decibels: float) -> None:
        self.decibels = decibels

    @handles(InputAudioFrame, OutputAudioFrame)
    async def amplify(self, frame: InputAudioFrame | OutputAudioFrame) -> None:
        """Amplify a frame; at 0 dB it passes by identity."""
        if self.decibels == 0:
            await self.push(frame)
            return
        await self.push(frame.with_samples(gain(frame.samples, 10 ** (self.decibels / 20))))


def _continues(resampler: StreamResampler, frame: InputAudioFrame | OutputAudioFrame) -> bool:
    return resampler.in_rate == frame.sample_rate and resampler.channels == frame.channels

"""`InputTransport`, the first processor of a pipeline: emits the user's audio at one rate, in chunks of 20 ms."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import ClassVar, Protocol

import numpy as np

from ..pipeline.audio import SILENCE_DBFS, StreamResampler, load_resampler, mono, rms_dbfs
from ..pipeline.clock import NS_PER_S
from ..pipeline.frames import Frame, InputAudioFrame, InputEndedFrame, InputFrame, Samples
from ..pipeline.processor import AudioFormat, FrameProcessor, handles, source
from .transport_api import samples_in_chunk


class InputOwner(Protocol):
    """Interface of the transport, as far as its input uses it."""

    async def processor_started(self) -> None:
        """Note that one of the two processors starts."""
        ...

    async def processor_stopped(self) -> None:
        """Note that one of the two processors has stopped."""
        ...

    def received_frames(self) -> AsyncIterator[Frame]:
        """Yield the frames of `TransportApi.receive`."""
        ...


@dataclass(frozen=True, slots=True)
class MuteFrame(InputFrame):
    """Mute the user from here on, or unmute. Internal to the input."""

    on: bool


class InputChunker:
    """Turns audio of any rate, length and channel count into seamless mono chunks of 20 ms at one rate.

    Holds back less than one chunk, plus the resampler's delay of about 1 ms.
    """

    def __init__(self, sample_rate: int) -> None:
        load_resampler()
        self.sample_rate = sample_rate
        self.chunk_samples = samples_in_chunk(sample_rate)
        self._rest = np.zeros(0, np.int16)
        self._resampler: StreamResampler | None = None

    def __call__(self, frame: InputAudioFrame) -> list[InputAudioFrame]:
        """Add a frame; return the chunks that are complete."""
        chunk = self.chunk_samples
        if len(frame.samples) == chunk and frame.samples.ndim == 1 and self._fits(frame) and not len(self._rest):
            return [frame]
        if self._resampler is not None and self._resampler.in_rate != frame.sample_rate:
            self._rest = np.concatenate([self._rest, self._resampler.flush()])
            self._resampler = None
        pts_ns = None if frame.pts_ns is None else frame.pts_ns - self._held_ns()
        samples = self._resampled(frame)
        if len(self._rest):
            samples = np.concatenate([self._rest, samples])
        end = len(samples) - len(samples) % chunk
        self._rest = samples[end:]
        return [self._frame(samples[at : at + chunk], at, pts_ns) for at in range(0, end, chunk)]

    def flush(self) -> list[InputAudioFrame]:
        """Return the remaining audio, padded with silence to whole chunks."""
        samples, self._rest = self._rest, np.zeros(0, np.int16)
        if self._resampler is not None:
            samples = np.concatenate([samples, self._resampler.flush()])
            self._resampler = None
        if not len(samples):
            return []
        chunk = self.chunk_samples
        samples = np.concatenate([samples, np.zeros(-len(samples) % chunk, np.int16)])
        return [self._frame(samples[at : at + chunk], at, None) for at in range(0, len(samples), chunk)]

    def _frame(self, samples: Samples, at: int, pts_ns: int | None) -> InputAudioFrame:
        return InputAudioFrame(
            samples, self.sample_rate, None if pts_ns is None else pts_ns + at * NS_PER_S // self.sample_rate
        )

    def _fits(self, frame: InputAudioFrame) -> bool:
        return frame.sample_rate == self.sample_rate and self._resampler is None

    def _held_ns(self) -> int:
        """Age of the oldest sample held back, relative to the first sample of the new frame."""
        held = len(self._rest) * NS_PER_S // self.sample_rate
        if self._resampler is not None:
            held += round(self._resampler.held_ms * 1e6)
        return held

    def _resampled(self, frame: InputAudioFrame) -> Samples:
        if frame.sample_rate == self.sample_rate:
            return mono(frame.samples)
        if self._resampler is None:
            self._resampler = StreamResampler(frame.sample_rate, self.sample_rate)
        return self._resampler.push(mono(frame.samples))


class InputTransport(FrameProcessor):
    """Emits the user's audio as mono `InputAudioFrame` of 20 ms at ``sample_rate``. Made by `Transport.input`."""

    is_transport_input: ClassVar[bool] = True
    """A pipeline has exactly one such processor."""

    def __init__(self, transport: InputOwner, name: str, *, sample_rate: int = 16_000) -> None:
        self.name = name
        self.sample_rate = sample_rate
        self._transport = transport
        self._chunker = InputChunker(sample_rate)
        self.muted = False
        self._newest: Samples | None = None

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Return the output format: the user's audio, mono."""
        return {InputAudioFrame: AudioFormat((self.sample_rate,), (1,))}

    async def start(self) -> None:
        """Open the transport, with no audio left over from an earlier run."""
        self._chunker = InputChunker(self.sample_rate)
        await self._transport.processor_started()

    async def stop(self) -> None:
        """Close the transport, once the output has stopped too."""
        await self._transport.processor_stopped()

    @property
    def level_dbfs(self) -> float:
        """Level of the newest 20 ms before muting, in dB of full scale; see `rms_dbfs`."""
        return SILENCE_DBFS if self._newest is None else rms_dbfs(self._newest)

    @source
    async def listen(self) -> AsyncIterator[Frame]:
        """Yield the frames of the transport until `receive` ends."""
        chunker = InputChunker(self.sample_rate)
        async for frame in self._transport.received_frames():
            if isinstance(frame, InputAudioFrame):
                for chunk in chunker(frame):
                    yield self._heard(chunk)
            else:
                yield frame
        for chunk in chunker.flush():
            yield self._heard(chunk)
        yield InputEndedFrame()

    @handles(InputAudioFrame)
    async def take(self, frame: InputAudioFrame) -> None:
        """Push audio that a callback delivered."""
        for chunk in self._chunker(frame):
            await self.push(self._heard(chunk))

    @handles(MuteFrame)
    async def mute(self, frame: MuteFrame) -> None:
        """Mute or unmute."""
        self.muted = frame.on

    def _heard(self, frame: InputAudioFrame) -> InputAudioFrame:
        self._newest = frame.samples
        return frame.with_samples(np.zeros_like(frame.samples)) if self.muted else frame

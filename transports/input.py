"""The head of a pipeline: what came from the user, at one rate, in chunks of 20 ms."""

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
    """The transport, as its input uses it."""

    async def processor_started(self) -> None:
        """One of the two ends starts."""
        ...

    async def processor_stopped(self) -> None:
        """One of the two ends has stopped."""
        ...

    def received_frames(self) -> AsyncIterator[Frame]:
        """Yield the frames of `TransportApi.receive`."""
        ...


@dataclass(frozen=True, slots=True)
class MuteFrame(InputFrame):
    """The input's own: from here on the user is not heard, or heard again."""

    on: bool


class InputChunker:
    """Makes of whatever audio comes one stream: mono, at one rate, in chunks of 20 ms, with no seam.

    Holds back less than a chunk, and the millisecond of the resampler.
    """

    def __init__(self, sample_rate: int) -> None:
        load_resampler()
        self.sample_rate = sample_rate
        self.chunk_samples = samples_in_chunk(sample_rate)
        self._rest = np.zeros(0, np.int16)
        self._resampler: StreamResampler | None = None

    def __call__(self, frame: InputAudioFrame) -> list[InputAudioFrame]:
        """Take a frame; return the chunks that are complete."""
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
        """The last of it, filled up with silence."""
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
        """How much older than the frame's first sample the first one is that is not out yet."""
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
    """Head of a pipeline: yields the user's audio as `InputAudioFrame` s of 20 ms, mono, at ``sample_rate``."""

    is_transport_input: ClassVar[bool] = True
    """A pipeline has one of these."""

    def __init__(self, transport: InputOwner, name: str, *, sample_rate: int = 16_000) -> None:
        self.name = name
        self.sample_rate = sample_rate
        self._transport = transport
        self._shape = InputChunker(sample_rate)
        self.muted = False
        self._newest: Samples | None = None

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono audio of the user."""
        return {InputAudioFrame: AudioFormat((self.sample_rate,), (1,))}

    async def start(self) -> None:
        """Open the transport. Nothing is left of who was heard in a run before."""
        self._shape = InputChunker(self.sample_rate)
        await self._transport.processor_started()

    async def stop(self) -> None:
        """Close the transport, where the other end is done with it too."""
        await self._transport.processor_stopped()

    @property
    def level_dbfs(self) -> float:
        """How loud the newest 20 ms were, muted or not; see `rms_dbfs`."""
        return SILENCE_DBFS if self._newest is None else rms_dbfs(self._newest)

    @source
    async def listen(self) -> AsyncIterator[Frame]:
        """Yield the user's frames until the end of the input."""
        shape = InputChunker(self.sample_rate)
        async for frame in self._transport.received_frames():
            if isinstance(frame, InputAudioFrame):
                for chunk in shape(frame):
                    yield self._heard(chunk)
            else:
                yield frame
        for chunk in shape.flush():
            yield self._heard(chunk)
        yield InputEndedFrame()

    @handles(InputAudioFrame)
    async def take(self, frame: InputAudioFrame) -> None:
        """Audio that a callback has delivered."""
        for chunk in self._shape(frame):
            await self.push(self._heard(chunk))

    @handles(MuteFrame)
    async def mute(self, frame: MuteFrame) -> None:
        """Hear silence from here on, or the user."""
        self.muted = frame.on

    def _heard(self, frame: InputAudioFrame) -> InputAudioFrame:
        self._newest = frame.samples
        return frame.with_samples(np.zeros_like(frame.samples)) if self.muted else frame

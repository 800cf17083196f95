"""Noise suppression: remove noise from the microphone's audio.

Place `NoiseSuppressor` first, before the voice detector. Its model (a `NoiseModel`; by default `WebRTCNoise`) cleans
chunks of audio and delays them a little. The times of the frames (``pts_ns``) stay those of their samples, no sample is
lost or doubled, and if the model fails, audio passes unchanged.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Protocol

import numpy as np

from ...pipeline.clock import NS_PER_MS, NS_PER_S
from ...pipeline.errors import FrameError, ServiceError, SettingsError
from ...pipeline.frames import UPSTREAM, Frame, InputAudioFrame, InputEndedFrame, Samples
from ...pipeline.processor import AudioFormat, FrameProcessor, handles
from ..service.chain import LateAnswerFrame, ModelChain
from .noise_webrtc import WebRTCNoise

WARM_MS = 500
"""Past audio for a model that takes over, so that it knows the noise: 2 ms of work."""


class NoiseModel(Protocol):
    """Removes noise from one stream, chunk by chunk. One object per stream, because it keeps state.

    Called in the event loop: 10 ms of audio should take well below a millisecond.
    """

    sample_rate: int
    """Sample rate in Hz."""
    chunk_samples: int
    """Length of a chunk."""
    delay_samples: int
    """Delay of the output."""

    def clean(self, chunk: Samples) -> Samples:
        """Clean the next chunk: int16, shape ``(chunk_samples,)``, in and out. Any exception is a failure."""
        ...

    def reset(self) -> None:
        """Forget the stream: another one begins."""
        ...


class NoiseSuppressor(FrameProcessor):
    """Removes noise from the microphone's audio. Mono at ``sample_rate`` (8,000, 16,000, 32,000 or 48,000 Hz).

    With a ``model`` of your own, its rate applies. Samples that the model holds back (its delay, and an incomplete
    chunk) are pushed before `InputEndedFrame`; the first frame of a stream is shorter by as many.

    A model that fails, or that takes longer than 20 ms three times in a row, rests, at first for a second; meanwhile
    audio passes unchanged, and one `ErrorFrame` is pushed. `FallbackNoise` has further models for that case.

    Raises `MissingExtraError` without the package of `WebRTCNoise`.
    """

    converts_audio: ClassVar[bool] = True
    """True: for the check of formats, it makes audio only if it gets some."""

    def __init__(self, model: NoiseModel | None = None, *, sample_rate: int = 16_000) -> None:
        self.use_models([model or WebRTCNoise(sample_rate)])

    def use_models(self, models: Sequence[NoiseModel]) -> None:
        """Use these models, the best first. For the constructor of a subclass."""
        self.models = tuple(models)
        self._chain = ModelChain([type(model).__name__ for model in models], "The microphone's noise stays in.")
        self.sample_rate = self.models[0].sample_rate
        for model in models:
            if model.sample_rate != self.sample_rate:
                raise SettingsError(
                    f"All models of a FallbackNoise take the same rate; {type(models[0]).__name__} takes "
                    f"{self.sample_rate} Hz and {type(model).__name__} {model.sample_rate} Hz."
                )
            if model.chunk_samples < 1 or model.delay_samples < 0:
                raise SettingsError(f"{type(model).__name__}: chunk_samples is at least 1, delay_samples at least 0.")
        self._start_stream()

    def _start_stream(self) -> None:
        """Start a stream. Positions are in samples from its start."""
        self._active = -1
        """Index of the model in use; -1: none, so the next one gets the past audio first."""
        self._raw: Samples = np.zeros(0, np.int16)
        """Latest input: all that is not pushed yet, and `WARM_MS` before it."""
        self._in = 0
        """Position at the end of the input."""
        self._fed = 0
        """Position up to which the active model was fed."""
        self._out = 0
        """Position up to which audio was pushed."""
        self._in_pts_ns: int | None = None
        """Time of position `_in`."""

    @staticmethod
    def warm() -> None:
        """Load the library of `WebRTCNoise`, which takes 0.1 s. For a server, before the first call."""
        WebRTCNoise(16_000)

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono audio at `sample_rate`."""
        return {InputAudioFrame: AudioFormat((self.sample_rate,), (1,))}

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono audio at `sample_rate`."""
        return {InputAudioFrame: AudioFormat((self.sample_rate,), (1,))}

    @handles(InputAudioFrame)
    async def hear(self, frame: InputAudioFrame) -> None:
        """Push the audio that is clean."""
        if frame.sample_rate != self.sample_rate or frame.samples.ndim != 1:
            raise FrameError(
                f"{self.path} takes mono at {self.sample_rate} Hz, and got {frame!r}. "
                f"Put a Resampler({self.sample_rate}) in front of it."
            )
        begin, before = self._in, self._out
        self._take(frame.samples)
        self._in_pts_ns = None if frame.pts_ns is None else frame.pts_ns + round(frame.duration_ms * NS_PER_MS)
        samples = await self._clean(frame)
        if self._active < 0 and before == begin:
            await self.push(frame)  # the very same frame, because no model has changed it
        elif len(samples):
            await self.push(InputAudioFrame(samples, self.sample_rate, self._pts_ns(before)))

    @handles(InputEndedFrame)
    async def end_hearing(self, frame: InputEndedFrame) -> None:
        """Push the rest of the audio."""
        before, rest = self._out, self._in - self._out
        if rest:
            pts_ns = self._pts_ns(before)
            longest = max(model.delay_samples + model.chunk_samples for model in self.models)
            self._take(np.zeros(longest, np.int16))
            samples = (await self._clean(frame))[:rest]
            await self.push(InputAudioFrame(samples, self.sample_rate, pts_ns))
        self._start_stream()
        await self.push(frame)

    @handles(LateAnswerFrame)
    async def give_up(self, frame: LateAnswerFrame) -> None:
        """Fail the model that has blocked the event loop too often."""
        self._chain.late(self, frame)
        self._active = -1

    def _take(self, samples: Samples) -> None:
        kept = self._in - self._out + WARM_MS * self.sample_rate // 1000
        self._raw = np.concatenate([self._raw[-kept:], samples])
        self._in += len(samples)

    def _pts_ns(self, position: int) -> int | None:
        if self._in_pts_ns is None:
            return None
        return self._in_pts_ns - round((self._in - position) * NS_PER_S / self.sample_rate)

    async def _clean(self, frame: Frame) -> Samples:
        """Clean as much audio as possible; if no model works, return it unchanged."""
        out: list[Samples] = []
        if self._chain.first_answer(self, lambda index: self._feed(index, out)) is None:
            out.append(self._since(self._out))
            self._out = self._in
            self._active = -1
            if error := self._chain.error_frame(self, type(frame).__name__):
                await self.push(error, UPSTREAM)
        return out[0] if len(out) == 1 else np.concatenate([np.zeros(0, np.int16), *out])

    def _since(self, position: int) -> Samples:
        return self._raw[len(self._raw) - (self._in - position) :]

    def _feed(self, index: int, out: list[Samples]) -> bool:
        """Feed a model with all new audio. ``out`` receives the result, even if the model fails later on."""
        model = self.models[index]
        if index != self._active:
            self._active = -1
            model.reset()
            warm = WARM_MS * self.sample_rate // 1000
            self._fed = max(self._out - warm, self._in - len(self._raw))
        waiting = self._since(self._fed)
        size = model.chunk_samples
        for at in range(0, len(waiting) - size + 1, size):
            clean = model.clean(waiting[at : at + size])
            if clean.shape != (size,) or clean.dtype != np.int16:
                raise ServiceError(f"it returned {clean.dtype} of shape {clean.shape}, not int16 of shape {(size,)}.")
            self._fed += size
            # The output ends `delay_samples` before the input. Skip the part that was pushed already.
            behind = self._fed - model.delay_samples - self._out
            if behind > 0:
                out.append(clean[size - behind :])
                self._out += behind
        self._active = index
        return True

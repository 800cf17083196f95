"""Noise suppression: what is not the user's voice, taken out of the microphone's audio.

`NoiseSuppressor` stands at the head, before the voice detector. Its model (a `NoiseModel`; `WebRTCNoise`, if you bring
none) takes chunks and gives them back cleaner, and a little later. The times of the frames (``pts_ns``) stay those of
the samples in them, no sample is lost or doubled, and where the model fails, audio passes as it is.
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
"""How much of the past a model hears when it takes over, so that it knows the noise: 2 ms of work."""


class NoiseModel(Protocol):
    """Takes noise out of one stream, chunk by chunk. One object hears one stream, and keeps its state.

    It is called in the event loop: 10 ms of audio should take it well below a millisecond.
    """

    sample_rate: int
    """In Hz."""
    chunk_samples: int
    """How many samples it takes at a time."""
    delay_samples: int
    """How many samples later than it goes in, audio comes out."""

    def clean(self, chunk: Samples) -> Samples:
        """The next chunk: int16, shape ``(chunk_samples,)``, in and out. Raises what it likes, if it fails."""
        ...

    def reset(self) -> None:
        """Forget what was heard: another stream begins."""
        ...


class NoiseSuppressor(FrameProcessor):
    """Takes noise out of what the microphone hears. Mono at ``sample_rate`` (8,000, 16,000, 32,000 or 48,000 Hz).

    With a ``model`` of your own, the rate is the model's. What the model holds back (its delay, and what is no whole
    chunk) comes out before `InputEndedFrame`; so the first frame of a stream is shorter by that.

    A model that fails, or that takes longer than 20 ms three times in a row, rests, at first for a second; meanwhile
    audio passes as it came, and one `ErrorFrame` says so. `FallbackNoise` has further models for that case.

    Raises `MissingExtraError` where the package of `WebRTCNoise` is missing.
    """

    converts_audio: ClassVar[bool] = True
    """It makes audio only where it gets some, which is what the check of formats asks."""

    def __init__(self, model: NoiseModel | None = None, *, sample_rate: int = 16_000) -> None:
        self._set_up([model or WebRTCNoise(sample_rate)])

    def _set_up(self, models: Sequence[NoiseModel]) -> None:
        self._models = tuple(models)
        self._chain = ModelChain([type(model).__name__ for model in models], "The microphone's noise stays in.")
        self.sample_rate = self._models[0].sample_rate
        for model in models:
            if model.sample_rate != self.sample_rate:
                raise SettingsError(
                    f"All models of a FallbackNoise take the same rate; {type(models[0]).__name__} takes "
                    f"{self.sample_rate} Hz and {type(model).__name__} {model.sample_rate} Hz."
                )
            if model.chunk_samples < 1 or model.delay_samples < 0:
                raise SettingsError(f"{type(model).__name__}: chunk_samples is at least 1, and delay_samples 0.")
        self._begin()

    def _begin(self) -> None:
        """Nothing was heard yet. Positions are counted in samples of the stream."""
        self._active = -1
        """Which model works; -1: none, and whoever begins has to hear the past first."""
        self._raw: Samples = np.zeros(0, np.int16)
        """What came in last: all that is not out yet, and `WARM_MS` before that."""
        self._in = 0
        """How far it came in."""
        self._fed = 0
        """How far the active model has heard."""
        self._out = 0
        """How far it is out."""
        self._in_pts_ns: int | None = None
        """The time of position `_in`."""

    @staticmethod
    def warm() -> None:
        """Load the library of `WebRTCNoise`, which takes 0.1 s. For a server, before the first call."""
        WebRTCNoise(16_000)

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono, at its rate."""
        return {InputAudioFrame: AudioFormat((self.sample_rate,), (1,))}

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """The same."""
        return {InputAudioFrame: AudioFormat((self.sample_rate,), (1,))}

    @handles(InputAudioFrame)
    async def hear(self, frame: InputAudioFrame) -> None:
        """Hand on what is clean of it."""
        if frame.sample_rate != self.sample_rate or frame.samples.ndim != 1:
            raise FrameError(
                f"{self.path} takes mono at {self.sample_rate} Hz, and got {frame!r}. "
                f"Put a Resampler({self.sample_rate}) before it."
            )
        begin, before = self._in, self._out
        self._take(frame.samples)
        self._in_pts_ns = None if frame.pts_ns is None else frame.pts_ns + round(frame.duration_ms * NS_PER_MS)
        samples = await self._clean(frame)
        if self._active < 0 and before == begin:
            await self.push(frame)  # nobody has touched it
        elif len(samples):
            await self.push(InputAudioFrame(samples, self.sample_rate, self._pts_ns(before)))

    @handles(InputEndedFrame)
    async def end_hearing(self, frame: InputEndedFrame) -> None:
        """The last of it."""
        before, rest = self._out, self._in - self._out
        if rest:
            pts_ns = self._pts_ns(before)
            longest = max(model.delay_samples + model.chunk_samples for model in self._models)
            self._take(np.zeros(longest, np.int16))
            samples = (await self._clean(frame))[:rest]
            await self.push(InputAudioFrame(samples, self.sample_rate, pts_ns))
        self._begin()
        await self.push(frame)

    @handles(LateAnswerFrame)
    async def give_up(self, frame: LateAnswerFrame) -> None:
        """A model has held the event loop up too often."""
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
        """All that can come out now."""
        out: list[Samples] = []
        if self._chain.first_answer(self, lambda index: self._through(index, out)) is None:
            out.append(self._since(self._out))
            self._out = self._in
            self._active = -1
            if error := self._chain.error_frame(self, type(frame).__name__):
                await self.push(error, UPSTREAM)
        return out[0] if len(out) == 1 else np.concatenate([np.zeros(0, np.int16), *out])

    def _since(self, position: int) -> Samples:
        return self._raw[len(self._raw) - (self._in - position) :]

    def _through(self, index: int, out: list[Samples]) -> bool:
        """Feed a model with all that it has not heard. ``out`` gets what comes of it, also when it fails later on."""
        model = self._models[index]
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
                raise ServiceError(f"it gave {clean.dtype} of shape {clean.shape}, not int16 of shape {(size,)}.")
            self._fed += size
            # What came out ends `delay_samples` before what went in; what is out already is not wanted again.
            behind = self._fed - model.delay_samples - self._out
            if behind > 0:
                out.append(clean[size - behind :])
                self._out += behind
        self._active = index
        return True

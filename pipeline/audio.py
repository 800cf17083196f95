"""The mathematics of audio: PCM as numpy arrays, and a resampler for streams.

Everywhere in a pipeline, audio is int16 (`Samples`: shape ``(n,)`` for mono, ``(n, channels)`` otherwise).
Floats are float32 in [-1, 1); full scale is 32768, so that int16 -> float32 -> int16 gives back every bit.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from .errors import FrameError
from .frames import Samples

Floats = npt.NDArray[np.float32]
"""Audio in [-1, 1): shape ``(n,)`` or ``(n, channels)``, dtype float32."""

FULL_SCALE = 32_768.0
SILENCE_DBFS = -120.0
"""Result of `rms_dbfs` for digital silence. The quietest signal that is not silent, all ones, is at -90.3."""


def to_int16(samples: npt.ArrayLike) -> Samples:
    """Floats in [-1, 1] as int16 of the same shape. Clipped; what is no number is silence."""
    scaled = np.nan_to_num(np.asarray(samples, np.float32), nan=0.0, posinf=1.0, neginf=-1.0) * FULL_SCALE
    return np.clip(np.rint(scaled), -32_768, 32_767).astype(np.int16)


def to_float32(samples: Samples) -> Floats:
    """int16 as float32 in [-1, 1), same shape."""
    return samples.astype(np.float32) / np.float32(FULL_SCALE)


def gain(samples: Samples, factor: float) -> Samples:
    """``factor`` times as loud (2.0 is +6 dB), clipped at full scale; the very same array for 1."""
    if factor == 1.0:
        return samples
    return np.clip(np.rint(samples * np.float32(factor)), -32_768, 32_767).astype(np.int16)


def rms_dbfs(samples: Samples) -> float:
    """How loud it is, in dB: 0 for a full-scale square, -3.01 for a sine, `SILENCE_DBFS` for nothing."""
    if not samples.size:
        return SILENCE_DBFS
    power = float(np.mean(np.square(samples, dtype=np.float64)))
    return max(SILENCE_DBFS, 20 * math.log10(math.sqrt(power) / FULL_SCALE)) if power else SILENCE_DBFS


def mono(samples: Samples) -> Samples:
    """The mean of all channels, shape ``(n,)``. What is mono already is given back as it is."""
    if samples.ndim == 1:
        return samples
    if samples.shape[1] == 1:
        return samples[:, 0]
    return np.rint(samples.mean(axis=1, dtype=np.float32)).astype(np.int16)


def mix(first: Samples, second: Samples) -> Samples:
    """Both at once, as long as the longer one, clipped at full scale. Both have as many channels."""
    if first.shape[1:] != second.shape[1:]:
        raise FrameError(
            f"mix() takes two sounds with as many channels, not of shapes {first.shape} and {second.shape}. "
            "mono() makes one channel of many."
        )
    longer, shorter = (first, second) if len(first) >= len(second) else (second, first)
    total = longer.astype(np.int32)
    total[: len(shorter)] += shorter
    return np.clip(total, -32_768, 32_767).astype(np.int16)


@cache
def load_resampler() -> None:
    """Load FFmpeg's resampler now: 100 ms that the first `StreamResampler.push` would hold a running event loop up for.

    Whoever may resample while frames flow calls this when it is made.
    """
    StreamResampler(16_000, 24_000).push(np.zeros(160, np.int16))


class StreamResampler:
    """Changes the rate of a stream, chunk by chunk, with no seam between chunks.

    FFmpeg's resampler through PyAV: it holds back about a millisecond (and never answers 20 ms with nothing),
    damps aliases by 84-106 dB, and costs about 20 µs for 20 ms. After `flush` the whole has exactly ``round(n
    * out_rate / in_rate)`` samples, give or take one.

    With equal rates, what comes in goes out: the very same array.
    """

    def __init__(self, in_rate: int, out_rate: int, channels: int = 1) -> None:
        if min(in_rate, out_rate) <= 0 or channels not in (1, 2):
            raise FrameError(
                f"StreamResampler takes rates above 0 Hz and 1 or 2 channels, not {in_rate} -> {out_rate} Hz "
                f"with {channels} channels. voxline.pipeline.audio.mono() makes one channel of many."
            )
        self.in_rate = in_rate
        self.out_rate = out_rate
        self.channels = channels
        self._layout = "mono" if channels == 1 else "stereo"
        self._av: Any = None
        self._taken = 0
        self._given = 0

    @property
    def held_ms(self) -> float:
        """How much of what came in is not out yet, in ms."""
        return (self._taken / self.in_rate - self._given / self.out_rate) * 1000.0

    def push(self, samples: Samples) -> Samples:
        """The next chunk; gives what is ready. Shape ``(n,)`` for one channel, ``(n, 2)`` for two."""
        if self.in_rate == self.out_rate:
            return samples
        if samples.shape[1:] != (() if self.channels == 1 else (self.channels,)):
            raise FrameError(f"StreamResampler for {self.channels} channels got samples of shape {samples.shape}.")
        if not len(samples):
            return samples
        import av

        if self._av is None:
            self._av = av.AudioResampler("s16", self._layout, self.out_rate)
        # Packed int16 is one row of interleaved samples.
        frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples).reshape(1, -1), "s16", self._layout)
        frame.sample_rate = self.in_rate
        self._taken += len(samples)
        return self._collect(self._av.resample(frame))

    def flush(self) -> Samples:
        """Return the samples held back. The next `push` starts a new stream."""
        if self._av is None:
            return self._collect([])
        rest = self._collect(self._av.resample(None))
        self._av = None
        self._taken = self._given = 0
        return rest

    def _collect(self, frames: list[Any]) -> Samples:
        parts: list[Samples] = [frame.to_ndarray().reshape(-1) for frame in frames]
        flat = parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.int16), *parts])
        self._given += len(flat) // self.channels
        return flat if self.channels == 1 else flat.reshape(-1, self.channels)

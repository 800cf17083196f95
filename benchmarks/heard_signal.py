# pyright: basic
"""Finds things in recordings: sound and silence, and where a piece of audio stands."""

from __future__ import annotations

from typing import Any

import numpy as np

RATE = 48_000
WINDOW = RATE // 200
"""5 ms."""
AUDIBLE = 10 ** (-50 / 20) * 32768
"""RMS of a window that is heard: -50 dBFS."""
STUMBLE_MS = 8
"""More than the clocks drift apart in some seconds."""
COARSE = 3
"""Correlation is done at 16 kHz: what is sent has nothing above 8 kHz."""


def audible(samples: Any) -> Any:
    """For each window of 5 ms whether there is sound in it."""
    frames = samples[: len(samples) // WINDOW * WINDOW].astype(np.float64).reshape(-1, WINDOW)
    return np.sqrt((frames**2).mean(axis=1)) > AUDIBLE


def first_sound(mask: Any, begin: int, end: int) -> int | None:
    """The sample where sound begins, between two samples."""
    found = np.flatnonzero(mask[begin // WINDOW : end // WINDOW])
    return None if not len(found) else (begin // WINDOW + int(found[0])) * WINDOW


def silence_from(mask: Any, begin: int, quiet_ms: int, end: int) -> int | None:
    """The sample after the last sound before a stretch of ``quiet_ms`` without any, searched from ``begin`` on."""
    need, last = quiet_ms // 5, None
    for at in range(begin // WINDOW, min(end // WINDOW, len(mask))):
        if mask[at]:
            last = at
        elif at - (begin // WINDOW if last is None else last) >= need:
            break
    return begin if last is None else (last + 1) * WINDOW


def to_rate(samples: Any, rate: int, wanted: int) -> Any:
    """int16 at another rate."""
    from voxline.pipeline.audio import StreamResampler

    resampler = StreamResampler(rate, wanted)
    return np.concatenate([resampler.push(np.ascontiguousarray(samples)), resampler.flush()])


def coarse(samples: Any) -> Any:
    """float at 16 kHz, of int16 at 48 kHz."""
    return to_rate(samples, RATE, RATE // COARSE).astype(np.float64)


def locate(piece: Any, inside: Any) -> tuple[int, float]:
    """Where in ``inside`` a ``piece`` stands best, and how alike they are there (0 to 1)."""
    if len(piece) > len(inside):
        return 0, 0.0
    size = 1 << (len(inside) + len(piece) - 1).bit_length()
    spectrum = np.fft.rfft(inside, size) * np.conj(np.fft.rfft(piece, size))
    products = np.fft.irfft(spectrum, size)[: len(inside) - len(piece) + 1]
    sums = np.concatenate([[0.0], np.cumsum(inside**2)])
    power = np.sqrt(np.maximum(sums[len(piece) :] - sums[: -len(piece)], 1.0) * max(float((piece**2).sum()), 1.0))
    alike = products / power
    at = int(np.argmax(alike))
    return at, float(alike[at])


class PageClock:
    """Samples of the page's recording, as times of the server's clock in ms."""

    def __init__(self, told: dict[str, Any]) -> None:
        pairs = np.array(told["clocks"], np.float64)
        behind = pairs[:, 0] - pairs[:, 1] / (RATE / 1000)
        # A pair is read some time after the samples were made; the lowest of each second is closest to it.
        bins = ((pairs[:, 0] - pairs[0, 0]) // 1_000).astype(int)
        self._at = np.array([pairs[bins == n, 1].mean() for n in range(bins[-1] + 1) if (bins == n).any()])
        self._offset = np.array([behind[bins == n].min() for n in range(bins[-1] + 1) if (bins == n).any()])
        self._first = told["firstFrame"]
        self._server = told["time"]["server"] - told["time"]["page"]
        self.uncertain_ms = told["time"]["took"] / 2
        self.drift_ms = float(self._offset.max() - self._offset.min())

    def ms(self, sample: float) -> float:
        """When a sample of the recording was made."""
        frame = self._first + sample
        return float(np.interp(frame, self._at, self._offset)) + frame / (RATE / 1000) + self._server

    def stumbles(self, begin: int, end: int) -> bool:
        """Return True where the page's audio stalled near these samples, so that times are not exact to a few ms."""
        near = (self._at > self._first + begin - RATE) & (self._at < self._first + end + RATE)
        return bool(near.any()) and float(np.ptp(self._offset[near])) > STUMBLE_MS

    def sample(self, ms: float) -> int:
        """The sample that was made then."""
        guess = (ms - self._server - float(self._offset[0])) * (RATE / 1000) - self._first
        for _ in range(3):
            guess += (ms - self.ms(guess)) * (RATE / 1000)
        return int(guess)

"""A linear echo canceller: what comes back of the loudspeaker is learnt and subtracted, and nothing else touched.

WebRTC's canceller behind it turns bands down in which there may be echo, and the first sounds of who speaks over the
bot with them. With most of the echo gone before, it has little to turn down.

The method is the Kalman filter in the frequency domain, in partitions: F. Kuech, E. Mabande, G. Enzner, "State-space
architecture of the partitioned-block-based acoustic echo controller", ICASSP 2014. Who speaks over the bot makes what
is left loud and so the steps small: it needs no detector of double talk.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

TAIL_MS = 400
"""The latest echo that is found: delay and reverb together."""
FORGETTING = 0.9995
"""How little the room changes from block to block (the paper's A; 1: not at all)."""
BEGINNING = 0.1
"""How uncertain the room is at first, as a power."""
SMOOTHING = 0.8
FLOOR = 1e-10

Array = npt.NDArray[Any]


class AdaptiveFilter:
    """Subtracts from blocks of ``size`` samples what can be made of the reference by a filter of `TAIL_MS`.

    ``sample_rate`` in Hz. Costs 0.3 ms for 20 ms at 16 kHz while something is played, and nothing while it is silent.
    """

    def __init__(self, sample_rate: int, size: int) -> None:
        parts = -(-sample_rate * TAIL_MS // 1000 // size)
        self._size = size
        self._past: Array = np.zeros(size)
        self._played: Array = np.zeros((parts, size + 1), np.complex128)
        self._room: Array = np.zeros((parts, size + 1), np.complex128)
        self._doubt: Array = np.full((parts, size + 1), BEGINNING)
        self._left: Array = np.full(size + 1, 1e-3)
        """The power of what is no echo, for each frequency."""
        self._silent = parts
        """For how many blocks nothing was played."""

    def subtract(self, heard: Array, played: Array) -> Array:
        """A block of the microphone and one of the reference, in [-1, 1]; what is left of the former."""
        size = self._size
        self._silent = 0 if played.any() else self._silent + 1
        if self._silent > len(self._played):
            return heard
        self._played[1:] = self._played[:-1].copy()
        self._played[0] = np.fft.rfft(np.concatenate([self._past, played]))
        self._past = played
        echo = np.fft.irfft((self._room * self._played).sum(axis=0))[size:]
        left = heard - echo
        self._learn(np.fft.rfft(np.concatenate([np.zeros(size), left])))
        return left

    def _learn(self, left: Array) -> None:
        power = np.abs(self._played) ** 2
        doubt = FORGETTING**2 * self._doubt + (1 - FORGETTING**2) * np.abs(self._room) ** 2
        self._left = SMOOTHING * self._left + (1 - SMOOTHING) * np.abs(left) ** 2
        # Half, as a block is half of its transform.
        step = doubt / (0.5 * (doubt * power).sum(axis=0) + self._left + FLOOR)
        # What wraps around is not a part of the filter.
        change = np.fft.irfft(step * np.conj(self._played) * left, axis=1)
        change[:, self._size :] = 0
        self._room = FORGETTING * self._room + np.fft.rfft(change, axis=1)
        self._doubt = np.maximum(doubt * (1 - 0.5 * step * power), FLOOR)

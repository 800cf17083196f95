"""Split a long utterance at its quietest place, so that no word is cut in two."""

from __future__ import annotations

from collections import deque

import numpy as np

from ...pipeline.frames import Samples

SEARCH_MS = 2_000
"""Length of the search for a quiet place before the bound; half of the piece, if that is less."""
WINDOW_HOPS = 10
"""The cut is the middle of the quietest 100 ms: shorter is the closure of a "t", longer misses fast speakers' gaps."""
HOP_MS = 10


class Segmenter:
    """Takes audio and returns the parts to decode: each sample once, in order, with a mark at the end of each piece.

    Up to `SEARCH_MS` before the bound, all audio is returned at once. After that only the audio before the quietest
    place so far: the rest may belong to the next piece. So a recogniser never gets a sample of the next piece, and an
    utterance that ends within the search leaves it at most `SEARCH_MS` to decode.

    ``piece_ms``: the bound. 0: no bound, all audio passes by identity.
    """

    def __init__(self, piece_ms: float, sample_rate: int) -> None:
        self._hop = HOP_MS * sample_rate // 1000
        self._piece = round(piece_ms * sample_rate / 1000)
        self._search_from = self._piece - min(SEARCH_MS * sample_rate // 1000, self._piece // 2)
        self._begin(0)

    def _begin(self, length: int) -> None:
        """Start a piece, of which ``length`` samples are already returned."""
        self._length = length
        self._held: Samples = np.zeros(0, np.int16)
        """Audio that may not be decoded yet."""
        self._returned = self._search_from
        """Position in the piece at which `_held` begins."""
        self._measured = self._search_from
        self._energies: deque[float] = deque(maxlen=WINDOW_HOPS)
        self._quietest = float("inf")
        self._place = self._search_from

    def add(self, samples: Samples) -> list[Samples | None]:
        """Add audio. Returns the parts to decode now, with None at the end of a piece."""
        if not self._piece:
            return [samples]
        out: list[Samples | None] = []
        while len(samples):
            room = (self._search_from if self._length < self._search_from else self._piece) - self._length
            taken, samples = samples[:room], samples[room:]
            searching = self._length >= self._search_from
            self._length += len(taken)
            if not searching:
                out.append(taken)
                continue
            self._held = np.concatenate([self._held, taken])
            self._look()
            free = self._place - self._returned
            if free:
                out.append(self._held[:free])
                self._held, self._returned = self._held[free:], self._place
            if self._length == self._piece:
                # The held audio is shorter than a piece before its search, so it may be returned at once.
                rest = self._held
                out += [None, rest]
                self._begin(len(rest))
        return out

    def _look(self) -> None:
        """Measure new audio, hop by hop. Of two equally quiet places the later one wins: less is held."""
        while self._measured + self._hop <= self._length:
            at = self._measured - self._returned
            hop = self._held[at : at + self._hop].astype(np.float64)
            self._energies.append(float(hop @ hop))
            self._measured += self._hop
            energy = sum(self._energies)
            if len(self._energies) == WINDOW_HOPS and energy <= self._quietest:
                self._quietest = energy
                self._place = self._measured - WINDOW_HOPS // 2 * self._hop

    def end(self) -> Samples:
        """End the utterance: return the held audio. The next `add` starts another utterance."""
        held = self._held
        self._begin(0)
        return held

"""Where a long utterance is cut in two: at its quietest place, so that no word is."""

from __future__ import annotations

from collections import deque

import numpy as np

from ...pipeline.frames import Samples

SEARCH_MS = 2_000
"""How far before the bound a quiet place is looked for; half of the piece, where that is less."""
WINDOW_HOPS = 10
"""A quiet place is the middle of 100 ms: shorter is the closure of a "t", longer misses the gaps of quick speakers."""
HOP_MS = 10


class Cutter:
    """Audio of an utterance in, what may be decoded out: each sample once, in order, and a mark where a piece ends.

    Up to `SEARCH_MS` before the bound everything may be decoded at once. From there on only what comes before the
    quietest place so far: what follows it may belong to the next piece. So a recogniser is never fed a sample too
    many, and has up to `SEARCH_MS` to catch up with where an utterance ends just there.

    ``piece_ms`` is the bound; 0: there is none, and all passes by identity.
    """

    def __init__(self, piece_ms: float, sample_rate: int) -> None:
        self._hop = HOP_MS * sample_rate // 1000
        self._piece = round(piece_ms * sample_rate / 1000)
        self._search_from = self._piece - min(SEARCH_MS * sample_rate // 1000, self._piece // 2)
        self._begin(0)

    def _begin(self, length: int) -> None:
        """A new piece, of which ``length`` samples are given out already."""
        self._length = length
        self._held: Samples = np.zeros(0, np.int16)
        """What may not be decoded yet."""
        self._given = self._search_from
        """Where in the piece that begins."""
        self._measured = self._search_from
        self._energies: deque[float] = deque(maxlen=WINDOW_HOPS)
        self._quietest = float("inf")
        self._place = self._search_from

    def add(self, samples: Samples) -> list[Samples | None]:
        """The next audio; returns what may be decoded now, with None where a piece ends."""
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
            free = self._place - self._given
            if free:
                out.append(self._held[:free])
                self._held, self._given = self._held[free:], self._place
            if self._length == self._piece:
                # What is held is shorter than what a piece has before its search, so it can be given out at once.
                rest = self._held
                out += [None, rest]
                self._begin(len(rest))
        return out

    def _look(self) -> None:
        """Measure what has come, hop by hop. Of two places that are as quiet, the later one: less is held."""
        while self._measured + self._hop <= self._length:
            at = self._measured - self._given
            hop = self._held[at : at + self._hop].astype(np.float64)
            self._energies.append(float(hop @ hop))
            self._measured += self._hop
            energy = sum(self._energies)
            if len(self._energies) == WINDOW_HOPS and energy <= self._quietest:
                self._quietest = energy
                self._place = self._measured - WINDOW_HOPS // 2 * self._hop

    def end(self) -> Samples:
        """The utterance has ended: what was held. The next `add` begins another one."""
        held = self._held
        self._begin(0)
        return held

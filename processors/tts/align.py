"""When the words of a text begin in its sound: forced alignment with a reference, as the sound comes.

The reference is the same text in another voice, of which it is known when its words begin. Both are turned into
features every 10 ms, and dynamic time warping finds which moment of the one is which of the other (H. Sakoe and S.
Chiba, Dynamic Programming Algorithm Optimization for Spoken Word Recognition, IEEE Trans. ASSP 26, 1978; with a
synthesiser as the reference, as in the program aeneas). Pure: arrays in, times out. See `docs/design/playout.md`.
"""

from __future__ import annotations

from functools import cache

import numpy as np
import numpy.typing as npt

from ...pipeline.frames import Samples

Floats = npt.NDArray[np.float32]
Flags = npt.NDArray[np.bool_]

HOP_MS = 10
WINDOW_MS = 25
BANDS = 26
LOW_HZ, HIGH_HZ = 100.0, 5_500.0
"""With 4,000 Hz as the end, words were 30 % more often off. A voice for the telephone lacks the upper bands."""
CEPSTRA = 12
"""Without the 0th, which is how loud it is (S. Davis and P. Mermelstein, IEEE Trans. ASSP 28, 1980)."""
SLOPE_FRAMES = 4
"""Over so many frames it is looked how the features change."""
_FALLING = np.exp(-0.2 * np.arange(CEPSTRA))
WEIGHTS = np.concatenate([_FALLING, [1.0], _FALLING, [1.0]]).astype(np.float32)
"""Of the cepstra, the level, and the change of both: the higher cepstra are more the speaker's than the sound's."""
QUIET_DB = 40.0
"""So much below the loudest so far, it is silence."""
LOUD_DB = -25.0
"""Of full scale: how loud the loudest is at least taken to be. Before the first sound, that is all there is."""
KEPT_QUIET = 5
"""Frames of a silence that are compared; the rest of it is left out, for voices pause in different places."""
USUAL = 100
"""Of how many frames' weight the reference's mean is, while there is not yet much sound to have one of."""
STRAY = 0.3
"""What it costs that one voice is slower here than the other. Two frames that have nothing in common are at 1.4."""
REACH = 200
"""How far from the best path others are looked at, in frames: Sakoe and Chiba's band, around the path so far."""
BLOCK = 5
"""So many frames are compared at a time, however they come."""
HASTE = 5
"""How many frames have to follow where the word may be heard already."""
LOOK_AHEAD_MS = 400
"""How much sound has to follow on the beginning of a word before it counts as found. A pause is no sound."""


class Features:
    """What a sound is like, 100 times a second, as it comes: cepstra, how loud it is, and how both change."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._size = round(sample_rate * WINDOW_MS / 1000)
        self._rest = np.zeros(0, np.float32)
        self._dropped = 0
        """How many samples are not in `_rest` any more."""
        self._made = 0
        self._loudest_db = LOUD_DB
        self._before: Floats | None = None
        """The last frames, without their change."""

    def push(self, samples: Samples) -> tuple[Floats, Flags]:
        """The frames that are complete now: shape (n, len(WEIGHTS)); and which of them are silence."""
        pieces = self._cut(samples)
        if not len(pieces):
            return np.zeros((0, len(WEIGHTS)), np.float32), np.zeros(0, np.bool_)
        # What high frequencies lack, they get: 6 dB an octave. The rumble of a voice is gone with that, too.
        rising = pieces[:, 1:] - np.float32(0.97) * pieces[:, :-1]
        points = _quick(self._size)
        bank, window, cosine = _tables(self._rate, self._size, points)
        spectrum = np.fft.rfft(rising * window, points, axis=1)[:, : len(bank)]
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) / self._size
        cepstra = np.log(power @ bank + np.float32(1e-8)) @ cosine
        level = 10 * np.log10((rising**2).mean(axis=1) + np.float32(1e-12))
        loudest = np.maximum.accumulate(np.maximum(level, self._loudest_db))
        self._loudest_db = float(loudest[-1])
        below = np.maximum(level - loudest, -QUIET_DB)
        now = np.concatenate([cepstra, below[:, None]], axis=1).astype(np.float32)
        before = self._before if self._before is not None else np.repeat(now[:1], SLOPE_FRAMES, axis=0)
        known = np.concatenate([before, now])
        self._before = known[-SLOPE_FRAMES:]
        return np.concatenate([now, now - known[: len(now)]], axis=1), below <= -QUIET_DB

    def _cut(self, samples: Samples) -> Floats:
        """The windows that are complete, each with the sample before it."""
        self._rest = np.concatenate([self._rest, samples.astype(np.float32) / np.float32(32_768)])
        whole = self._dropped + len(self._rest) - self._size - 1
        count = max(0, whole * 1000 // (HOP_MS * self._rate) + 1 - self._made)
        starts = np.arange(self._made, self._made + count) * HOP_MS * self._rate // 1000 - self._dropped
        pieces = self._rest[starts[:, None] + np.arange(self._size + 1)]
        self._made += count
        done = min(self._made * HOP_MS * self._rate // 1000 - self._dropped, len(self._rest))
        self._rest, self._dropped = self._rest[done:], self._dropped + done
        return pieces


@cache
def _quick(size: int) -> int:
    """The next length of which a Fourier transform is quick: a product of 2, 3 and 5."""
    while 30**10 % size:
        size += 1
    return size


@cache
def _tables(rate: int, size: int, points: int) -> tuple[Floats, Floats, Floats]:
    """Triangles on the mel scale, a row for each frequency up to the last; the window; the cosines of the cepstra."""
    mels = np.linspace(_mel(LOW_HZ), _mel(HIGH_HZ), BANDS + 2)
    edges = 700 * (10 ** (mels / 2595) - 1)
    hz = np.arange(min(points // 2 + 1, round(HIGH_HZ * points / rate) + 1))[:, None] * rate / points
    low, middle, high = edges[:-2], edges[1:-1], edges[2:]
    bank = np.maximum(0, np.minimum((hz - low) / (middle - low), (high - hz) / (high - middle)))
    cosine = np.cos(np.pi / BANDS * np.outer(np.arange(BANDS) + 0.5, np.arange(1, CEPSTRA + 1)))
    window = np.hanning(size + 2)[1:-1]
    return bank.astype(np.float32), window.astype(np.float32), cosine.astype(np.float32)


def _mel(hz: float) -> float:
    return 2595 * float(np.log10(1 + hz / 700))


class _Pauses:
    """Which frames are compared: of a silence, the first ones."""

    def __init__(self) -> None:
        self._quiet_for = 0

    def kept(self, quiet: Flags) -> list[int]:
        found: list[int] = []
        for index, is_quiet in enumerate(quiet.tolist()):
            self._quiet_for = self._quiet_for + 1 if is_quiet else 0
            if self._quiet_for <= KEPT_QUIET:
                found.append(index)
        return found


class Reference:
    """A text as another voice says it: its features, not empty, and when its words begin, in ms, in their order."""

    def __init__(self, frames: Floats, quiet: Flags, words_ms: list[float]) -> None:
        kept = _Pauses().kept(quiet)
        heard = frames[kept]
        self.mean, self.spread = heard.mean(axis=0), heard.std(axis=0) + np.float32(1e-3)
        self.frames = (heard - self.mean) / self.spread * WEIGHTS
        self.squares = (self.frames**2).sum(axis=1)
        at = np.searchsorted(kept, np.round(np.array(words_ms) / HOP_MS))
        self.words: list[int] = np.minimum(at, len(kept) - 1).tolist()


class Aligner:
    """Follows a sound through its reference: frames in, words out, each once and in order, as soon as it is found."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._pauses = _Pauses()
        self._rest = reference.frames[:0], np.zeros(0, np.bool_)
        """What came of the block that is not complete."""
        self._seen = 0
        """How many frames were taken."""
        self._times: list[int] = []
        self._quiet: list[bool] = []
        """Of each frame that was compared: which it was of those that came, and whether it was silence."""
        self._steps: list[tuple[int, Flags, Flags]] = []
        """And from where the best path came to the frames of the reference: the first that was looked at; whether it
        came from the one before; whether from the one before that. Else it stayed.
        """
        # Two more in front, from where no path comes.
        self._costs = np.full(len(reference.frames) + 2, np.inf, np.float32)
        self._costs[2 : 3 + KEPT_QUIET] = 0
        self._best = 0
        """Where the best path is."""
        self._sum = reference.mean * USUAL
        self._count = USUAL
        self._next = 0
        """The first word that is not told yet."""
        self._last = 0
        """The frame, of those that were compared, with which the last that was told began."""

    def push(self, frames: Floats, quiet: Flags, heard_ms: float = 0.0) -> list[tuple[int, float]]:
        """More of the sound. Returns the words that are found: which, and when in ms of the sound.

        ``heard_ms``: so much of it may have been heard. Of a word in that, nobody waits to be surer.
        """
        frames, quiet = np.concatenate([self._rest[0], frames]), np.concatenate([self._rest[1], quiet])
        whole = len(frames) // BLOCK * BLOCK
        self._rest = frames[whole:], quiet[whole:]
        found: list[tuple[int, float]] = []
        for at in range(0, whole, BLOCK):
            self._take(frames[at : at + BLOCK], quiet[at : at + BLOCK])
            found += self._found(len(self._times) - LOOK_AHEAD_MS // HOP_MS, heard_ms)
        return found

    def end(self, *, broken: bool = False) -> list[tuple[int, float]]:
        """The sound is over: the words that were not told yet. ``broken``: in the middle of the text, so those alone
        that have begun.
        """
        self._take(*self._rest)
        self._rest = self._rest[0][:0], self._rest[1][:0]
        if broken:
            return self._found(len(self._times))
        last = len(self._reference.frames) - 1
        if self._steps and np.isfinite(self._costs[last + 2]):
            self._best = last
        found = self._found(len(self._times))
        # The sound is shorter than the text: no path came so far.
        left = range(self._next, len(self._reference.words))
        self._next = len(self._reference.words)
        return found + [(word, float(self._seen * HOP_MS)) for word in left]

    def _take(self, frames: Floats, quiet: Flags) -> None:
        kept = self._pauses.kept(quiet)
        self._times += [self._seen + index for index in kept]
        self._quiet += quiet[kept].tolist()
        self._seen += len(frames)
        if kept:
            sums = self._sum + np.cumsum(frames[kept], axis=0)
            counts = self._count + np.arange(1, len(kept) + 1, dtype=np.float32)
            self._sum, self._count = sums[-1], self._count + len(kept)
            self._walk((frames[kept] - sums / counts[:, None]) / self._reference.spread * WEIGHTS)

    def _walk(self, frames: Floats) -> None:
        """One step for each frame: the reference stays, goes on by one, or by two."""
        lowest = max(0, self._best - REACH)
        highest = min(len(self._reference.frames), self._best + REACH + 2 * len(frames))
        near = self._reference.frames[lowest:highest]
        squares = (frames**2).sum(axis=1)[:, None] + self._reference.squares[lowest:highest] - 2 * (frames @ near.T)
        distances = np.sqrt(np.maximum(squares, 0) / (WEIGHTS**2).sum())
        self._costs[: lowest + 2] = np.inf
        self._costs[highest + 2 :] = np.inf
        costs = self._costs[lowest : highest + 2]
        for distance in distances:
            strayed = costs + np.float32(STRAY)
            best = np.minimum(strayed[2:], costs[1:-1])
            np.minimum(best, strayed[:-2], out=best)
            self._steps.append((lowest, best == costs[1:-1], best == strayed[:-2]))
            np.add(best, distance, out=costs[2:])
        self._best = lowest + int(np.argmin(costs[2:]))

    def _found(self, before: int, heard_ms: float = 0.0) -> list[tuple[int, float]]:
        """The next words, as far as they begin before a frame (of those that were compared) on the best path."""
        words = self._reference.words
        if self._next == len(words) or not self._steps:
            return []
        place = self._best
        word = int(np.searchsorted(words, place, side="right")) - 1
        starts: dict[int, int] = {}
        for index in range(len(self._steps) - 1, self._last - 1, -1):
            if word < self._next:
                break
            lowest, by_one, by_two = self._steps[index]
            came_from = place - (1 if by_one[place - lowest] else 2 if by_two[place - lowest] else 0)
            while word >= self._next and (came_from < words[word] or index == self._last):
                starts[word] = index
                word -= 1
            place = came_from
        found: list[tuple[int, float]] = []
        while (start := starts.get(self._next)) is not None:
            begin_ms = float(self._begin(start) * HOP_MS)
            if start >= before and (begin_ms >= heard_ms or start >= len(self._times) - HASTE or self._quiet[-1]):
                break
            found.append((self._next, begin_ms))
            self._last = start
            self._next += 1
        return found

    def _begin(self, index: int) -> int:
        """Which frame that is of those that came. In a pause of which some was left out, that is where it ends."""
        later = index
        while self._quiet[later] and later + 1 < len(self._quiet):
            later += 1
        pause = self._times[later] - self._times[index] > later - index
        return self._times[later if pause else index]

"""Find when the words of a text begin in its sound: streaming forced alignment with a reference.

The reference is the same text in another voice, whose word times are known. Both are converted to features every 10 ms,
and dynamic time warping maps the times of one to the other (H. Sakoe and S. Chiba, Dynamic Programming Algorithm
Optimization for Spoken Word Recognition, IEEE Trans. ASSP 26, 1978; with a synthesiser as the reference, as in the
program aeneas). Pure: arrays in, times out. See `docs/design/playout.md`.
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
"""With an upper limit of 4,000 Hz, 30 % more words were off. A telephone voice lacks the upper bands."""
CEPSTRA = 12
"""Mel cepstra (S. Davis and P. Mermelstein, IEEE Trans. ASSP 28, 1980), without the 0th, which is the level."""
SLOPE_FRAMES = 4
"""Distance in frames over which the change of the features is measured."""
_FALLING = np.exp(-0.2 * np.arange(CEPSTRA))
WEIGHTS = np.concatenate([_FALLING, [1.0], _FALLING, [1.0]]).astype(np.float32)
"""Weights of cepstra, level, and the change of both. High cepstra depend more on the speaker than on the sound."""
SILENCE_DB = 40.0
"""A frame so much below the loudest so far is silence."""
LOUDEST_DB = -25.0
"""Assumed level of the loudest frame before the first sound, relative to full scale."""
KEPT_SILENCE = 5
"""Compared frames of a silence; the rest is skipped, because voices pause in different places."""
PRIOR_FRAMES = 100
"""Weight of the reference's mean, in frames, in the mean of a sound that is still short."""
TEMPO_COST = 0.3
"""Cost of a step at which one voice is slower than the other. Two unrelated frames have a distance of 1.4."""
BAND_FRAMES = 200
"""Half the width of Sakoe and Chiba's band around the best path so far, in frames."""
BLOCK = 5
"""Frames compared at a time, whatever the size of the chunks."""
AUDIBLE_LOOK_AHEAD = 5
"""Frames that must follow a word that may already be heard."""
LOOK_AHEAD_MS = 400
"""Sound that must follow the start of a word before the word counts as found. Pauses do not count."""


class Features:
    """Streaming features of a sound, 100 per second: cepstra, level, and the change of both."""

    def __init__(self, sample_rate: int) -> None:
        self._rate = sample_rate
        self._size = round(sample_rate * WINDOW_MS / 1000)
        self._rest = np.zeros(0, np.float32)
        self._dropped = 0
        """Number of samples that were removed from `_rest`."""
        self._made = 0
        self._loudest_db = LOUDEST_DB
        self._before: Floats | None = None
        """The last frames, without the change features."""

    def push(self, samples: Samples) -> tuple[Floats, Flags]:
        """Add samples. Returns the complete frames, shape (n, len(WEIGHTS)), and flags for silence."""
        pieces = self._cut(samples)
        if not len(pieces):
            return np.zeros((0, len(WEIGHTS)), np.float32), np.zeros(0, np.bool_)
        # Pre-emphasis of 6 dB per octave; it also removes rumble.
        rising = pieces[:, 1:] - np.float32(0.97) * pieces[:, :-1]
        points = _fft_length(self._size)
        bank, window, cosine = _tables(self._rate, self._size, points)
        spectrum = np.fft.rfft(rising * window, points, axis=1)[:, : len(bank)]
        power = (spectrum.real**2 + spectrum.imag**2).astype(np.float32) / self._size
        cepstra = np.log(power @ bank + np.float32(1e-8)) @ cosine
        level = 10 * np.log10((rising**2).mean(axis=1) + np.float32(1e-12))
        loudest = np.maximum.accumulate(np.maximum(level, self._loudest_db))
        self._loudest_db = float(loudest[-1])
        below = np.maximum(level - loudest, -SILENCE_DB)
        now = np.concatenate([cepstra, below[:, None]], axis=1).astype(np.float32)
        before = self._before if self._before is not None else np.repeat(now[:1], SLOPE_FRAMES, axis=0)
        known = np.concatenate([before, now])
        self._before = known[-SLOPE_FRAMES:]
        return np.concatenate([now, now - known[: len(now)]], axis=1), below <= -SILENCE_DB

    def _cut(self, samples: Samples) -> Floats:
        """Cut the complete windows, each with the sample before it."""
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
def _fft_length(size: int) -> int:
    """Find the next length with a fast Fourier transform: a product of 2, 3 and 5."""
    while 30**10 % size:
        size += 1
    return size


@cache
def _tables(rate: int, size: int, points: int) -> tuple[Floats, Floats, Floats]:
    """Mel triangles (a row for each frequency bin), window, and cosines of the cepstra."""
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


class _SilenceFilter:
    """Selects the frames to compare: of a silence, only the first ones."""

    def __init__(self) -> None:
        self._silent_frames = 0

    def kept(self, quiet: Flags) -> list[int]:
        found: list[int] = []
        for index, is_quiet in enumerate(quiet.tolist()):
            self._silent_frames = self._silent_frames + 1 if is_quiet else 0
            if self._silent_frames <= KEPT_SILENCE:
                found.append(index)
        return found


class Reference:
    """A text in another voice: its features, not empty, and the starts of its words in ms, in order."""

    def __init__(self, frames: Floats, quiet: Flags, words_ms: list[float]) -> None:
        kept = _SilenceFilter().kept(quiet)
        heard = frames[kept]
        self.mean, self.spread = heard.mean(axis=0), heard.std(axis=0) + np.float32(1e-3)
        self.frames = (heard - self.mean) / self.spread * WEIGHTS
        self.squares = (self.frames**2).sum(axis=1)
        at = np.searchsorted(kept, np.round(np.array(words_ms) / HOP_MS))
        self.words: list[int] = np.minimum(at, len(kept) - 1).tolist()


class Aligner:
    """Follows a sound through its reference: frames in, words out, each once, in order, once it is found."""

    def __init__(self, reference: Reference) -> None:
        self._reference = reference
        self._silence_filter = _SilenceFilter()
        self._rest = reference.frames[:0], np.zeros(0, np.bool_)
        """Frames of the incomplete block."""
        self._seen = 0
        """Number of frames so far."""
        self._times: list[int] = []
        self._quiet: list[bool] = []
        """For each compared frame: its number among all frames, and a flag for silence."""
        self._steps: list[tuple[int, Flags, Flags]] = []
        """For each compared frame, the steps of the best paths: first reference frame of the band; flags for a step of
        one; flags for a step of two. Otherwise the path stayed.
        """
        # Two extra entries in front, which no path can come from.
        self._costs = np.full(len(reference.frames) + 2, np.inf, np.float32)
        self._costs[2 : 3 + KEPT_SILENCE] = 0
        self._best = 0
        """Reference frame at the end of the best path."""
        self._sum = reference.mean * PRIOR_FRAMES
        self._count = PRIOR_FRAMES
        self._next = 0
        """First word that is not found yet."""
        self._last = 0
        """Compared frame at which the last found word began."""

    def push(self, frames: Floats, quiet: Flags, heard_ms: float = 0.0) -> list[tuple[int, float]]:
        """Add frames. Returns the found words: index, and start in ms of the sound.

        ``heard_ms``: the part of the sound that may already be heard. A word in it is returned with less certainty.
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
        """End the sound. Returns the remaining words; if ``broken`` (ended in the middle of the text), only those that
        have begun.
        """
        self._take(*self._rest)
        self._rest = self._rest[0][:0], self._rest[1][:0]
        if broken:
            return self._found(len(self._times))
        last = len(self._reference.frames) - 1
        if self._steps and np.isfinite(self._costs[last + 2]):
            self._best = last
        found = self._found(len(self._times))
        # The sound is shorter than the text: no path reached these words.
        left = range(self._next, len(self._reference.words))
        self._next = len(self._reference.words)
        return found + [(word, float(self._seen * HOP_MS)) for word in left]

    def _take(self, frames: Floats, quiet: Flags) -> None:
        kept = self._silence_filter.kept(quiet)
        self._times += [self._seen + index for index in kept]
        self._quiet += quiet[kept].tolist()
        self._seen += len(frames)
        if kept:
            sums = self._sum + np.cumsum(frames[kept], axis=0)
            counts = self._count + np.arange(1, len(kept) + 1, dtype=np.float32)
            self._sum, self._count = sums[-1], self._count + len(kept)
            self._walk((frames[kept] - sums / counts[:, None]) / self._reference.spread * WEIGHTS)

    def _walk(self, frames: Floats) -> None:
        """Extend the paths by each frame: the reference stays, advances by one, or by two."""
        lowest = max(0, self._best - BAND_FRAMES)
        highest = min(len(self._reference.frames), self._best + BAND_FRAMES + 2 * len(frames))
        near = self._reference.frames[lowest:highest]
        squares = (frames**2).sum(axis=1)[:, None] + self._reference.squares[lowest:highest] - 2 * (frames @ near.T)
        distances = np.sqrt(np.maximum(squares, 0) / (WEIGHTS**2).sum())
        self._costs[: lowest + 2] = np.inf
        self._costs[highest + 2 :] = np.inf
        costs = self._costs[lowest : highest + 2]
        for distance in distances:
            with_cost = costs + np.float32(TEMPO_COST)
            best = np.minimum(with_cost[2:], costs[1:-1])
            np.minimum(best, with_cost[:-2], out=best)
            self._steps.append((lowest, best == costs[1:-1], best == with_cost[:-2]))
            np.add(best, distance, out=costs[2:])
        self._best = lowest + int(np.argmin(costs[2:]))

    def _found(self, before: int, heard_ms: float = 0.0) -> list[tuple[int, float]]:
        """Trace the best path back, and return the next words that begin before a compared frame."""
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
            if start >= before and (
                begin_ms >= heard_ms or start >= len(self._times) - AUDIBLE_LOOK_AHEAD or self._quiet[-1]
            ):
                break
            found.append((self._next, begin_ms))
            self._last = start
            self._next += 1
        return found

    def _begin(self, index: int) -> int:
        """Number of a compared frame among all frames. In a shortened silence, the frame that ends it."""
        later = index
        while self._quiet[later] and later + 1 < len(self._quiet):
            later += 1
        pause = self._times[later] - self._times[index] > later - index
        return self._times[later if pause else index]

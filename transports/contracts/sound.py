"""Sounds of which it can be said what of them came, also after a codec, and the saying of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...pipeline.audio import rms_dbfs
from ...pipeline.clock import NS_PER_MS, NS_PER_S
from ...pipeline.frames import Samples
from ..memory import HeardAudio

PITCHES = (503, 1_409, 809, 2_309, 601, 1_801, 1_009)
"""In Hz. Telephones carry 300 to 3400 Hz; neighbours in the list are far apart. No two chunks of 20 ms are alike."""
TONE_MS = 200
LOUD_DBFS = -30.0
"""Between the tones (-12) and what a codec makes of silence."""
_AMPLITUDE = 11_600
_WINDOW_MS = 40


def tones(ms: float, rate: int, *, first: int = 0) -> Samples:
    """Tones of `TONE_MS`, one after another, -12 dBFS; mono at ``rate``. No sample is 0."""
    count = round(ms * rate / 1000)
    at = np.arange(count)
    pitches = np.array([pitch for pitch in PITCHES if pitch < rate / 2.5])
    pitch = pitches[(at // (rate * TONE_MS // 1000) + first) % len(pitches)]
    sound = np.rint(_AMPLITUDE * np.sin(2 * np.pi * pitch * at / rate)).astype(np.int16)
    sound[sound == 0] = 1
    return sound


def pitches_in(samples: Samples, rate: int) -> list[int]:
    """The pitches of `PITCHES` that sound in it, in order; what is none of them is left out."""
    size = rate * _WINDOW_MS // 1000
    window = np.hanning(size)
    found: list[int] = []
    before = 0
    for start in range(0, len(samples) - size + 1, size // 2):
        piece = samples[start : start + size]
        if rms_dbfs(piece) < LOUD_DBFS:
            before = 0
            continue
        peak = float(np.argmax(np.abs(np.fft.rfft(piece * window)))) * rate / size
        nearest = min(PITCHES, key=lambda pitch: abs(pitch - peak))
        # Twice in a row: a window across two tones has anything in it.
        if abs(nearest - peak) < 0.06 * nearest and nearest == before and (not found or found[-1] != nearest):
            found.append(nearest)
        before = nearest
    return found


@dataclass(frozen=True, slots=True)
class LoudPiece:
    """A piece that was heard and is no silence."""

    at_ns: int
    end_ns: int
    samples: Samples
    position_ms: float
    """How much was heard since the first such piece began, holes among it."""


class Take:
    """Heard audio, compared exactly (no sample of the sounds is 0) or by its loudness."""

    def __init__(self, heard: Sequence[HeardAudio], rate: int, *, exact: bool) -> None:
        self.rate = rate
        self.exact = exact
        self.loud: list[LoudPiece] = []
        count = 0
        for piece in heard:
            if self._is_loud(piece.samples):
                end_ns = piece.at_ns + len(piece.samples) * NS_PER_S // rate
                self.loud.append(LoudPiece(piece.at_ns, end_ns, piece.samples, self._ms(count)))
            if self.loud:
                count += len(piece.samples)
        joined = np.concatenate([np.zeros(0, np.int16), *(piece.samples for piece in heard)])
        self.joined: Samples = joined
        self.sound: Samples = joined[joined != 0] if exact else joined

    def _is_loud(self, samples: Samples) -> bool:
        return bool(samples.any()) if self.exact else rms_dbfs(samples) > LOUD_DBFS

    def _ms(self, samples: int) -> float:
        return samples * 1000.0 / self.rate

    @property
    def ms(self) -> float:
        """How much sound there was, in ms."""
        if self.exact:
            return self._ms(len(self.sound))
        return self._ms(sum(len(piece.samples) for piece in self.loud))

    @property
    def hole_ms(self) -> float:
        """How much silence there was between the first sound and the last, where silence is heard too."""
        if not self.loud:
            return 0.0
        return self.loud[-1].position_ms - self._ms(sum(len(piece.samples) for piece in self.loud[:-1]))

    @property
    def begun_ns(self) -> int:
        """When the first sound began; 0 where there was none."""
        return self.loud[0].at_ns if self.loud else 0

    @property
    def ended_ns(self) -> int:
        """When the last sound was over; 0 where there was none."""
        return self.loud[-1].end_ns if self.loud else 0

    @property
    def pitches(self) -> list[int]:
        """See `pitches_in`."""
        return pitches_in(self.joined, self.rate)

    def lateness_ms(self) -> list[tuple[int, float]]:
        """When each piece was heard, and how much later that is than the first one and the sound between them say."""
        base_ns = self.begun_ns
        return [(one.at_ns, (one.at_ns - base_ns) / NS_PER_MS - one.position_ms) for one in self.loud]

    def since(self, at_ns: int) -> Take:
        """Return the sounds that began at a time or later."""
        pieces = [HeardAudio(one.at_ns, one.samples) for one in self.loud if one.at_ns >= at_ns]
        return Take(pieces, self.rate, exact=self.exact)

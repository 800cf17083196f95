"""What the caller's own pauses teach: how long to wait before a silence is the end of their turn."""

from __future__ import annotations

from dataclasses import dataclass

GAIN, DEVIATION_GAIN, SPREAD = 1 / 8, 1 / 4, 4
"""How quickly mean and deviation follow, and how many deviations are waited beyond the mean: the estimator of RFC 6298
(section 2), made for the same question, how long to wait for something that usually comes sooner.
"""


@dataclass(frozen=True, slots=True)
class Pauses:
    """The pauses that a caller makes within a turn."""

    count: int = 0
    mean_ms: float = 0.0
    deviation_ms: float = 0.0

    def plus(self, pause_ms: float) -> Pauses:
        """With one more pause, after which the caller went on."""
        if not self.count:
            return Pauses(1, pause_ms, pause_ms / 2)
        off = pause_ms - self.mean_ms
        deviation = (1 - DEVIATION_GAIN) * self.deviation_ms + DEVIATION_GAIN * abs(off)
        return Pauses(self.count + 1, self.mean_ms + GAIN * off, deviation)

    def delay_ms(self, floor_ms: float, ceiling_ms: float) -> float:
        """How long to wait: the floor until something is known, and between floor and ceiling always."""
        wanted = self.mean_ms + SPREAD * self.deviation_ms if self.count else floor_ms
        return min(max(wanted, floor_ms), max(floor_ms, ceiling_ms))

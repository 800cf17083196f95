"""Estimate from a caller's own pauses how long a silence must last to end the turn."""

from __future__ import annotations

from dataclasses import dataclass

GAIN, DEVIATION_GAIN, SPREAD = 1 / 8, 1 / 4, 4
"""Gains for mean and deviation, and the number of deviations above the mean: the estimator of RFC 6298 (section 2). It
answers the same question: how long to wait for something that usually comes sooner.
"""


@dataclass(frozen=True, slots=True)
class PauseEstimator:
    """Mean and deviation of the pauses that a caller makes within a turn."""

    count: int = 0
    mean_ms: float = 0.0
    deviation_ms: float = 0.0

    def plus(self, pause_ms: float) -> PauseEstimator:
        """Return a copy with one more pause."""
        if not self.count:
            return PauseEstimator(1, pause_ms, pause_ms / 2)
        off = pause_ms - self.mean_ms
        deviation = (1 - DEVIATION_GAIN) * self.deviation_ms + DEVIATION_GAIN * abs(off)
        return PauseEstimator(self.count + 1, self.mean_ms + GAIN * off, deviation)

    def delay_ms(self, floor_ms: float, ceiling_ms: float) -> float:
        """Return the delay, between floor and ceiling; the floor before the first pause."""
        wanted = self.mean_ms + SPREAD * self.deviation_ms if self.count else floor_ms
        return min(max(wanted, floor_ms), max(floor_ms, ceiling_ms))

"""Which of several members is to be asked: those that work, in the given order, and the failed ones again later.

Pure: whoever asks brings the time (``now_ns``, of the worker's clock).
"""

from __future__ import annotations

import math

from ...pipeline.clock import NS_PER_S
from ...pipeline.errors import SettingsError

MOST_SAID_S = 3_600.0
"""A service that asks for a longer pause is asked again after this."""


class Health:
    """The health of ``count`` members, the first of them the one that is wanted.

    Who has failed rests for ``first_s`` seconds, after a second failure in a row for twice that, and so on up to
    ``max_s``. When its rest is over it counts as healthy, in its old place; only `worked` makes the next rest short
    again. Raises `SettingsError` for no member at all, or for lengths that cannot be.
    """

    def __init__(self, count: int, first_s: float = 1.0, max_s: float = 60.0) -> None:
        if count < 1:
            raise SettingsError("There is no member. Give at least one, the best first.")
        if not 0 < first_s <= max_s < math.inf:
            raise SettingsError(f"Rests are lengths, the first the shortest, not {first_s} s and {max_s} s.")
        self._first_s = first_s
        self._max_s = max_s
        self._failures = [0] * count
        self._rests_until_ns = [0] * count

    def healthy(self, now_ns: int) -> list[int]:
        """Who does not rest, in the given order. Empty where all do."""
        return [n for n, failures in enumerate(self._failures) if not failures or self._rests_until_ns[n] <= now_ns]

    def order(self, now_ns: int) -> list[int]:
        """Whom to ask, one after the other: the healthy ones, or where all rest, the one whose rest is over first."""
        return self.healthy(now_ns) or [self._rests_until_ns.index(self.recovers_ns())]

    def recovers_ns(self) -> int:
        """When the first of them is healthy, if no more fail; in the past where one is."""
        members = zip(self._failures, self._rests_until_ns, strict=True)
        return min(until if failures else 0 for failures, until in members)

    def failed(self, index: int, now_ns: int, wait_s: float | None = None) -> None:
        """It did not do what it was asked. ``wait_s``: how long the service itself wants to be left alone."""
        self._failures[index] += 1
        # The exponent has a bound of its own: 2.0 ** 1024 is an error.
        rest_s = min(self._max_s, self._first_s * 2.0 ** min(self._failures[index] - 1, 64))
        if wait_s is not None and math.isfinite(wait_s):
            rest_s = min(max(0.0, wait_s), MOST_SAID_S)
        self._rests_until_ns[index] = now_ns + round(rest_s * NS_PER_S)

    def worked(self, index: int) -> None:
        """It did what it was asked."""
        self._failures[index] = 0
        self._rests_until_ns[index] = 0

"""Health of several members: working ones are asked in their order, failed ones again after a rest.

Pure: the caller passes the time (``now_ns``, from the worker's clock).
"""

from __future__ import annotations

import math

from ...pipeline.clock import NS_PER_S
from ...pipeline.errors import SettingsError

MAX_REQUESTED_REST_S = 3_600.0
"""Upper bound of the rest that a service itself may ask for."""


class Health:
    """Health of ``count`` members, in the order of preference.

    A failed member rests for ``first_s`` seconds, after a second failure in a row for twice that, and so on up to
    ``max_s``. After its rest it counts as healthy, in its old place; only `worked` makes the next rest short again.
    Raises `SettingsError` for a count of 0 and for impossible durations.
    """

    def __init__(self, count: int, first_s: float = 1.0, max_s: float = 60.0) -> None:
        if count < 1:
            raise SettingsError("There is no member. Pass at least one, the best first.")
        if not 0 < first_s <= max_s < math.inf:
            raise SettingsError(f"Rests are durations with first_s <= max_s, not {first_s} s and {max_s} s.")
        self._first_s = first_s
        self._max_s = max_s
        self._failures = [0] * count
        self._rests_until_ns = [0] * count

    def healthy(self, now_ns: int) -> list[int]:
        """Indices of the members that do not rest, in order."""
        return [n for n, failures in enumerate(self._failures) if not failures or self._rests_until_ns[n] <= now_ns]

    def order(self, now_ns: int) -> list[int]:
        """Indices of the members to ask: all healthy ones, or else the one whose rest ends first."""
        return self.healthy(now_ns) or [self._rests_until_ns.index(self.recovers_ns())]

    def recovers_ns(self) -> int:
        """Time at which the first member is healthy; in the past if one is now."""
        members = zip(self._failures, self._rests_until_ns, strict=True)
        return min(until if failures else 0 for failures, until in members)

    def failed(self, index: int, now_ns: int, wait_s: float | None = None) -> None:
        """Record a failure. ``wait_s``: the rest that the service itself asked for, if any."""
        self._failures[index] += 1
        # The exponent is capped, because 2.0 ** 1024 raises OverflowError.
        rest_s = min(self._max_s, self._first_s * 2.0 ** min(self._failures[index] - 1, 64))
        if wait_s is not None and math.isfinite(wait_s):
            rest_s = min(max(0.0, wait_s), MAX_REQUESTED_REST_S)
        self._rests_until_ns[index] = now_ns + round(rest_s * NS_PER_S)

    def worked(self, index: int) -> None:
        """Record a success: the next rest is the shortest again."""
        self._failures[index] = 0
        self._rests_until_ns[index] = 0

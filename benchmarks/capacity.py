"""How many conversations one core holds: the most whose frames still come out in time."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from measure import percentile
from schedule import HOPELESS_NS, NEVER_NS, Lateness, call
from sides.base import Chain, Shape, Side

WARM_S = 0.5


class Load:
    """Conversations in one process, of which the first K are called."""

    def __init__(self, side: Side, lane: str, vad: str | None, bound_ms: float, seconds: float) -> None:
        self._side, self._lane, self._seconds, self._bound = side, lane, seconds, bound_ms * 1e6
        self._lateness = Lateness(side)
        self._shape = Shape(vad=vad, on_last=self._lateness)
        self._chains: list[Chain] = []
        self.probes: list[tuple[int, float]] = []

    async def _probe(self, conversations: int) -> float:
        """The 99th percentile of lateness in ns, with this many conversations."""
        while len(self._chains) < conversations:
            chain = self._side.chain(self._shape)
            await chain.start()
            self._chains.append(chain)
        lateness = self._lateness
        lateness.late, lateness.count = [], 0
        lateness.since_ns = time.perf_counter_ns() + int(WARM_S * 1e9)
        sent = await call(self._side, self._lane, self._chains[:conversations], WARM_S + self._seconds)
        given_up = time.perf_counter() + 5.0
        while lateness.count < (sent or 0) and time.perf_counter() < given_up:  # noqa: ASYNC110  (counted, not signalled)
            await asyncio.sleep(0.01)
        lateness.since_ns = NEVER_NS
        if sent is None:
            await asyncio.sleep(2.0)  # what it left behind must not be the next probe's burden
        all_out = sent is not None and lateness.count >= sent
        result = percentile(lateness.late, 0.99) if all_out else HOPELESS_NS
        self.probes.append((conversations, round(result / 1e6, 2)))
        return result

    async def holds(self, conversations: int) -> bool:
        """Decide whether the bound holds: one probe in a clear case, otherwise two of three."""
        first = await self._probe(conversations)
        if first <= self._bound / 3 or first >= self._bound * 6:
            return first <= self._bound
        verdicts = [first <= self._bound, await self._probe(conversations) <= self._bound]
        if verdicts[0] != verdicts[1]:
            verdicts.append(await self._probe(conversations) <= self._bound)
        return sum(verdicts) * 2 > len(verdicts)


async def capacity(
    side: Side,
    lane: str,
    vad: str | None = None,
    bound_ms: float = 20.0,
    seconds: float = 1.0,
    start: int = 10,
    most: int = 4000,
    resolution: float = 0.06,
) -> dict[str, Any]:
    """Step up by a third until the bound breaks, then halve the gap until it is within `resolution`."""
    load = Load(side, lane, vad, bound_ms, seconds)
    good, bad = 0, start
    while bad <= most and await load.holds(bad):
        good, bad = bad, bad + max(1, bad // 3)
    while bad - good > max(1, good * resolution):
        middle = (good + bad) // 2
        if await load.holds(middle):
            good = middle
        else:
            bad = middle
    at_best = [late for tried, late in load.probes if tried == good]
    return {"conversations": good, "p99_ms": min(at_best, default=0.0), "probes": load.probes}

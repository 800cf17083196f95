"""The callers: conversations that each get one frame every 20 ms, on a schedule nobody can push back."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence

from sides.base import Chain, Side

PERIOD_NS = 20_000_000
NEVER_NS = 1 << 63
HOPELESS_NS = 1_000_000_000  # so far behind its schedule, a probe need not go on


class Lateness:
    """The far end of many chains: how long after its due time each frame came out."""

    def __init__(self, side: Side) -> None:
        self._stamp: Callable[[object], int] = side.stamp
        self.late: list[int] = []
        """In ns; of the frames that were due after `since_ns`."""
        self.count = 0
        self.since_ns = NEVER_NS

    def __call__(self, frame: object) -> None:
        self.count += 1
        due = self._stamp(frame)
        if due >= self.since_ns:
            self.late.append(time.perf_counter_ns() - due)


async def call(side: Side, lane: str, chains: Sequence[Chain], seconds: float) -> int | None:
    """Send each chain one frame every 20 ms, the chains spread evenly over them; says how many were sent.

    None when the sender itself fell hopelessly behind.

    A frame carries the time it was due, so a sender that comes late makes it late: nothing is forgiven.
    """
    step = PERIOD_NS / len(chains)
    began = time.perf_counter_ns() + 5_000_000
    number, total = 0, int(seconds * 1e9 / step)
    while number < total:
        now = time.perf_counter_ns()
        if now - (began + number * step) > HOPELESS_NS:
            return None
        while number < total and (due := began + int(number * step)) <= now:
            await chains[number % len(chains)].send(side.frame(lane, due))
            number += 1
        await asyncio.sleep(max(0.0, (began + number * step - time.perf_counter_ns()) / 1e9))
    return number

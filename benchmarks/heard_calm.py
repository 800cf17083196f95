# pyright: basic
"""Short calls, of which those alone count in which the machine was ours: the host of a virtual machine gives its time
to others, and what is heard then is what the host does. It is looked at how much was taken, not at what came out.
"""

from __future__ import annotations

import statistics
from collections.abc import Awaitable, Callable
from typing import Any

from heard_call import compose
from heard_recording import Script
from measure import processor_ticks

TAKEN = 0.03
"""Share of the processors' time that others may have had in a call that counts."""
TURNS, INTERRUPTIONS = 4, 6
"""In a call; and one more turn, that asks for a long story."""
CALLS = 4
"""That count, of each kind."""
MOST = 12
"""After so many, what has been disturbed counts too, and it is said."""


async def collect(kinds: dict[str, Callable[[Script], Awaitable[dict[str, Any]]]]) -> dict[str, dict[str, Any]]:
    """Calls of some kinds, in turns; the figures of each, together."""
    kept: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    left_out: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    for number in range(MOST):
        for name, call in kinds.items():
            if len(kept[name]) >= CALLS:
                continue
            before = processor_ticks()
            figures = await call(Script(*compose(TURNS, INTERRUPTIONS, seed=number)))
            spent = [now - then for now, then in zip(processor_ticks(), before, strict=True)]
            share = spent[-1] / max(1, sum(spent))
            counts = share <= TAKEN
            (kept if counts else left_out)[name].append(figures)
            print(f"  {name}, call {number}: others had {share:.0%}{'' if counts else '; does not count'}", flush=True)
    together: dict[str, dict[str, Any]] = {}
    for name, calls in kept.items():
        missing = CALLS - len(calls)
        together[name] = merged([*calls, *left_out[name][-missing:]] if missing else calls)
        together[name]["disturbed"] = f"{max(0, missing)} of {CALLS} (and {len(left_out[name])} left out)"
    return together


def merged(calls: list[dict[str, Any]]) -> dict[str, Any]:
    """The figures of several calls, as those of one."""
    first = dict(calls[0])
    for name, value in first.items():
        if isinstance(value, list):
            first[name] = [one for figures in calls for one in figures[name]]
    for name in ("buffer", "target"):
        first["page"] = {**first["page"], name: statistics.mean(figures["page"][name] for figures in calls)}
    if "interruptions" in first:
        first["interruptions"] = sum(figures["interruptions"] for figures in calls)
    return first

# pyright: basic
"""Short calls, of which those alone count in which the machine was ours: the host of a virtual machine gives its time
to others, and what is heard then is what the host does. It is looked at how much was taken, not at what came out.
"""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from calls import BUILD
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
KEPT = BUILD / "heard_kept.json"
"""The calls that counted, for a run that is gone on with."""
_BURN = "import time; end = time.monotonic() + 1\nwhile time.monotonic() < end: pass"


class Calm:
    """Waits for the machine to be ours, for so many minutes in all."""

    def __init__(self, minutes: float) -> None:
        self._until = time.monotonic() + minutes * 60

    async def wait(self) -> None:
        """Return when both cores can be had, or when there has been enough waiting."""
        while time.monotonic() < self._until:
            before = processor_ticks()
            burning = [
                await asyncio.create_subprocess_exec(sys.executable, "-c", _BURN) for _ in range(os.cpu_count() or 1)
            ]
            for process in burning:
                await process.wait()
            if _taken(before) <= TAKEN:
                return
            await asyncio.sleep(15)


def _taken(before: list[int]) -> float:
    spent = [now - then for now, then in zip(processor_ticks(), before, strict=True)]
    return spent[-1] / max(1, sum(spent))


async def collect(
    kinds: dict[str, Callable[[Script], Awaitable[dict[str, Any]]]], calm: Calm
) -> dict[str, dict[str, Any]]:
    """Calls of some kinds, in turns; the figures of each, together."""
    all_kept: dict[str, list[dict[str, Any]]] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    kept = {name: all_kept.setdefault(name, []) for name in kinds}
    left_out: dict[str, list[dict[str, Any]]] = {name: [] for name in kinds}
    for number in range(MOST):
        for name, call in kinds.items():
            if len(kept[name]) >= CALLS:
                continue
            await calm.wait()
            before = processor_ticks()
            figures = await call(Script(*compose(TURNS, INTERRUPTIONS, seed=number)))
            share = _taken(before)
            counts = share <= TAKEN
            (kept if counts else left_out)[name].append(figures)
            print(f"  {name}, call {number}: others had {share:.0%}{'' if counts else '; does not count'}", flush=True)
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            KEPT.write_text(json.dumps(all_kept), encoding="utf-8")
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

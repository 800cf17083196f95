# pyright: basic
"""Calls, of which those turns and interruptions are timed in which the machine was ours: the host of a virtual machine
gives its time to others, and what is heard then is what the host does. It is looked at how much was taken, not at what
came out.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import statistics
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

from calls import BUILD
from gaps import Gaps, watch
from heard_call import compose
from heard_recording import Script
from measure import processor_ticks

BEFORE_S = 5
"""So long before it, the machine has to have been ours as well: a page plays later for that long when packets were."""
GAP_MS = 50
"""No core may have been gone for longer at a time,"""
SHARE = 0.03
"""nor for a larger share of the time."""
TURNS, INTERRUPTIONS = 4, 6
"""In a call; and one more turn, that asks for a long story."""
ENOUGH = (16, 20)
"""Turns and interruptions that are timed, of each kind."""
MOST = 12
"""Calls of each kind."""
KEPT = BUILD / "heard_kept.json"
"""The calls so far, for a run that is gone on with."""
_BURN = "import time; end = time.monotonic() + 1\nwhile time.monotonic() < end: pass"


class Calm:
    """Waits for the machine to be ours, until so many minutes from now."""

    def __init__(self, minutes: float) -> None:
        self._until = time.monotonic() + minutes * 60

    async def comes(self) -> bool:
        """Return when both cores can be had. False: time is up."""
        while time.monotonic() < self._until:
            before = processor_ticks()
            burning = [
                await asyncio.create_subprocess_exec(sys.executable, "-c", _BURN) for _ in range(os.cpu_count() or 1)
            ]
            for process in burning:
                await process.wait()
            spent = [now - then for now, then in zip(processor_ticks(), before, strict=True)]
            if spent[-1] <= SHARE * sum(spent):
                return True
            await asyncio.sleep(10)
        return False


def _mark(events: list[dict[str, Any]], cores: list[Gaps]) -> None:
    """Which of them are timed."""
    for event in events:
        from_ns, until_ns = int((event["from_ms"] - BEFORE_S * 1e3) * 1e6), int(event["until_ms"] * 1e6)
        gaps = [core.between(from_ns, until_ns) for core in cores]
        event["gap_ms"] = max(max(one, default=0) for one in gaps) / 1e6
        event["gone"] = max(sum(one) for one in gaps) / max(1, until_ns - from_ns)
        # What is heard before it can be was not found: where all stands still, the caller is not where they should be.
        found = event["until_ms"] > event["from_ms"]
        event["sure"] = event["sure"] and found and event["gap_ms"] <= GAP_MS and event["gone"] <= SHARE


def _timed(calls: list[dict[str, Any]]) -> tuple[int, int]:
    turns, cuts = (sum(event["sure"] for call in calls for event in call[kind]) for kind in ("turns", "cuts"))
    return turns, cuts


async def collect(
    kinds: dict[str, Callable[[Script], Awaitable[dict[str, Any]]]], calm: Calm
) -> dict[str, dict[str, Any]]:
    """Calls of some kinds, in turns; the figures of each, together. One in which nothing could be timed is left out."""
    kept: dict[str, dict[str, Any]] = json.loads(KEPT.read_text(encoding="utf-8")) if KEPT.exists() else {}
    for number in range(MOST):
        for name, call in kinds.items():
            kind = kept.setdefault(name, {"calls": [], "left_out": 0})
            calls: list[dict[str, Any]] = kind["calls"]
            enough = all(count >= wanted for count, wanted in zip(_timed(calls), ENOUGH, strict=True))
            if len(calls) + kind["left_out"] > number or enough or (calls and not await calm.comes()):
                continue
            async with contextlib.AsyncExitStack() as stack:
                cores = [await stack.enter_async_context(watch(core)) for core in range(os.cpu_count() or 1)]
                figures = await call(Script(*compose(TURNS, INTERRUPTIONS, seed=number)))
            for events in (figures["turns"], figures["cuts"]):
                _mark(events, cores)
            if sum(_timed([figures])) or not calls:
                calls.append(figures)
            else:
                kind["left_out"] += 1
            gone = ", ".join(f"{core.share:.0%}" for core in cores)
            print(f"  {name}, call {number}: {_timed([figures])} timed; the cores were gone for {gone}", flush=True)
            KEPT.parent.mkdir(parents=True, exist_ok=True)
            KEPT.write_text(json.dumps(kept), encoding="utf-8")
    return {name: merged(**kept[name]) for name in kinds}


def merged(calls: list[dict[str, Any]], left_out: int) -> dict[str, Any]:
    """The figures of several calls, as those of one."""
    if len(calls) > 1 and not sum(_timed(calls[:1])):
        # It was there so that there is something.
        calls, left_out = calls[1:], left_out + 1
    first = dict(calls[0])
    for name, value in first.items():
        if isinstance(value, list):
            first[name] = [one for figures in calls for one in figures[name]]
    for name in ("buffer", "target"):
        first["page"] = {**first["page"], name: statistics.mean(figures["page"][name] for figures in calls)}
    if "interruptions" in first:
        first["interruptions"] = sum(figures["interruptions"] for figures in calls)
    first["calls"] = f"{len(calls)}, and {left_out} in which nothing could be timed"
    return first

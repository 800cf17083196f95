"""The measured scenarios, written once for all sides. Each returns the numbers of one repeat."""

from __future__ import annotations

import asyncio
import statistics
import time
import tracemalloc
from collections.abc import Awaitable, Callable
from typing import Any

from measure import Arrivals, Stopwatch, rss_bytes
from schedule import Lateness, call
from sides.base import Chain, Shape, Side

Numbers = dict[str, Any]
Scenario = Callable[..., Awaitable[Numbers]]


async def burst(
    side: Side,
    lane: str,
    frames: int = 8_000,
    depth: int = 500,
    processors: int = 10,
    ignoring: bool = False,
) -> Numbers:
    """`frames` frames in bursts of `depth`: each burst is queued whole, and the next waits for its end."""
    arrivals = Arrivals()
    chain = side.chain(Shape(processors, ignoring=ignoring, on_last=arrivals))
    await chain.start()
    watch = Stopwatch()
    warm = max(1, frames // depth // 10)
    for round_ in range(warm + frames // depth):
        made = [side.frame(lane, 0) for _ in range(depth)]
        goal = arrivals.count + depth
        if round_ < warm:
            await chain.send_all(made)
            await arrivals.reach(goal)
            continue
        with watch:
            await chain.send_all(made)
            await arrivals.reach(goal)
    return _per_frame(watch, frames // depth * depth)


async def single(side: Side, lane: str, frames: int = 3_000, generators: list[int] | None = None) -> Numbers:
    """One frame under way at a time: the next is sent when the last processor has seen the one before."""
    arrivals = Arrivals()
    chain = side.chain(Shape(on_last=arrivals, generators=tuple(generators or ())))
    await chain.start()
    watch = Stopwatch()
    warm = frames // 10
    made = [side.frame(lane, 0) for _ in range(warm + frames)]
    for place, frame in enumerate(made[:warm], 1):
        await chain.send(frame)
        await arrivals.reach(place)
    with watch:
        for place, frame in enumerate(made[warm:], warm + 1):
            await chain.send(frame)
            await arrivals.reach(place)
    return _per_frame(watch, frames)


def _per_frame(watch: Stopwatch, frames: int) -> Numbers:
    return {"cpu_us": watch.cpu_ns / 1e3 / frames, "wall_us": watch.wall_ns / 1e3 / frames, "frames": frames}


async def idle(side: Side, conversations: int = 200, trace: bool = False) -> Numbers:
    """Measure the cost of an idle conversation: time to make and start it, tasks, memory.

    With `trace`, Python's own allocations are counted instead; that slows everything down, so times are left out.
    """
    await side.chain(Shape()).start()  # what is paid once is paid here
    tasks = len(asyncio.all_tasks())
    if trace:
        tracemalloc.start()
        held = tracemalloc.get_traced_memory()[0]
    else:
        held = rss_bytes()
    chains: list[Chain] = []
    made_ms: list[float] = []
    start_ms: list[float] = []
    for _ in range(conversations):
        began = time.perf_counter_ns()
        chain = side.chain(Shape())
        made = time.perf_counter_ns()
        await chain.start()
        chains.append(chain)
        made_ms.append((made - began) / 1e6)
        start_ms.append((time.perf_counter_ns() - made) / 1e6)
        await asyncio.sleep(0)
    await asyncio.sleep(0.2)
    grown = (tracemalloc.get_traced_memory()[0] if trace else rss_bytes()) - held
    numbers: Numbers = {
        "tasks": (len(asyncio.all_tasks()) - tasks) / conversations,
        "traced_kib" if trace else "rss_kib": grown / 1024 / conversations,
    }
    if not trace:
        numbers["made_ms"] = statistics.median(made_ms)
        numbers["start_ms"] = statistics.median(start_ms)
        numbers["ready_ms"] = statistics.median(a + b for a, b in zip(made_ms, start_ms, strict=True))
    return numbers


OLD, NEW = 1, 2


class Ends:
    """Both ends of the interrupted chain: when the cancel was there, and what came out after it."""

    def __init__(self, side: Side) -> None:
        self._stamp: Callable[[Any], int] = side.stamp
        self.before = 0
        self.survivors = 0
        self.head = self.tail = self.first_new = 0.0
        self.cancelled = asyncio.Event()
        self.done = asyncio.Event()

    def at_head(self, frame: object) -> None:
        self.head = self.head or time.perf_counter()
        self._both()

    def at_tail(self, frame: object) -> None:
        self.tail = self.tail or time.perf_counter()
        self._both()

    def _both(self) -> None:
        if self.head and self.tail:
            self.cancelled.set()

    def out(self, frame: object) -> None:
        if self._stamp(frame) == NEW:
            self.first_new = self.first_new or time.perf_counter()
            self.done.set()
        elif self.tail:
            self.survivors += 1
        else:
            self.before += 1


async def interruption(
    side: Side, settle_s: float, slow_s: float, frames: int = 2_000, others: int = 80, rounds: int = 5
) -> Numbers:
    """Interrupt a conversation that has `frames` frames queued before a slow processor, while others talk.

    They have had `settle_s` to find their places; with 0 they and the interruption come in one step.
    """
    lateness = Lateness(side)
    chains = [side.chain(Shape(on_last=lateness)) for _ in range(others)]
    for chain in chains:
        await chain.start()
    calls = asyncio.create_task(call(side, "input", chains, 3600.0))
    await asyncio.sleep(0.5)
    took: list[float] = []
    first_new: list[float] = []
    survivors: list[int] = []
    for _ in range(rounds):
        ends = Ends(side)
        chain = side.chain(
            Shape(
                slow=5,
                slow_s=slow_s,
                on_last=ends.out,
                on_cancel_head=ends.at_head,
                on_cancel_tail=ends.at_tail,
            )
        )
        await chain.start()
        await asyncio.sleep(0.1)
        await chain.send_all([side.frame("output", OLD) for _ in range(frames)])
        if settle_s:
            await asyncio.sleep(settle_s)
        began = time.perf_counter()
        await chain.interrupt()
        await asyncio.wait_for(ends.cancelled.wait(), 60.0)
        new = time.perf_counter()
        await chain.send(side.frame("output", NEW))
        await asyncio.wait_for(ends.done.wait(), 60.0)
        took.append((max(ends.head, ends.tail) - began) * 1e3)
        first_new.append((ends.first_new - new) * 1e3)
        survivors.append(ends.survivors)
    overloaded = calls.done()
    calls.cancel()
    return {
        "ms": statistics.median(took),
        "worst_ms": max(took),
        "survivors": statistics.median(survivors),
        "first_new_ms": statistics.median(first_new),
        "others_overloaded": overloaded,
        "rounds": rounds,
    }

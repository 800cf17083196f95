"""Tools of every measured process: pinning to a core, percentiles, one JSON line of output."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def pin(core: int | None) -> int | None:
    """Keep this process on one core; None where the system cannot."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        return None
    os.sched_setaffinity(0, {core})
    return core


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` (0..1) of the values lie, by the nearest rank."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def summary(values: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and extremes of some repeats."""
    ordered = sorted(values)
    return {
        "median": statistics.median(ordered),
        "low": percentile(ordered, 0.25),
        "high": percentile(ordered, 0.75),
        "min": ordered[0],
        "max": ordered[-1],
    }


def rss_bytes() -> int:
    """Resident memory of this process (Linux), or 0 where it cannot be read."""
    try:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def processor_ticks(core: int | None = None) -> list[int]:
    """So far, of a core or of all of them: user, nice, system, idle, iowait, irq, softirq, and steal, which is what the
    host of a virtual machine took for others (Linux, in 1 / SC_CLK_TCK s; else zeros).
    """
    name = "cpu" if core is None else f"cpu{core}"
    try:
        for line in Path("/proc/stat").read_text(encoding="ascii").splitlines():
            words = line.split()
            if words[0] == name:
                return [int(word) for word in words[1:9]]
    except OSError:
        pass
    return [0] * 8


def emit(**numbers: Any) -> None:
    """Hand the numbers to the parent: one JSON line on standard output."""
    sys.stdout.write(json.dumps(numbers) + "\n")
    sys.stdout.flush()


class Stopwatch:
    """CPU and wall time of a block."""

    cpu_ns: int = 0
    wall_ns: int = 0

    def __enter__(self) -> Stopwatch:
        self._cpu = time.process_time_ns()
        self._wall = time.perf_counter_ns()
        return self

    def __exit__(self, *_: object) -> None:
        self.cpu_ns += time.process_time_ns() - self._cpu
        self.wall_ns += time.perf_counter_ns() - self._wall


class Arrivals:
    """The far end of a chain: counts frames and wakes whoever waits for the n-th."""

    def __init__(self) -> None:
        self.count = 0
        self._target = 0
        self._waiter: asyncio.Future[None] | None = None

    def __call__(self, frame: object) -> None:
        self.count += 1
        if self.count == self._target and self._waiter is not None:
            self._waiter.set_result(None)
            self._waiter = None

    async def reach(self, target: int) -> None:
        """Wait until `target` frames have arrived since the beginning."""
        if self.count >= target:
            return
        self._target = target
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter

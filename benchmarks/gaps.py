"""When a core of this machine was not ours: the host of a virtual machine gives its time to others.

A process of its own, before all others in its turn, wakes every millisecond. Where it wakes late, nothing of ours kept
it waiting: nothing here comes before it.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import json
import os
import sys
import threading
import time
from bisect import bisect_left
from collections.abc import AsyncGenerator
from pathlib import Path

TICK_MS = 1
GAP_MS = 1
"""So late, it was held up: waking itself takes a fifth of that at most."""
PRIORITY = 20
"""Priority for SCHED_FIFO, which needs Linux and root. Without it, a busy core causes gaps too."""

Gap = tuple[int, int]
"""From when to when, on the monotonic clock, in ns."""


class Gaps:
    """The gaps of one core, once the watch is over."""

    def __init__(self) -> None:
        self.found: list[Gap] = []
        self.sure = False
        """True where the watch ran at a priority above all others."""
        self.watched_ns = 0

    def between(self, from_ns: int, until_ns: int) -> list[int]:
        """How long each is of which a part is between two moments, in ns."""
        # They are in order, and none overlaps the next.
        found: list[int] = []
        at = bisect_left(self.found, from_ns, key=lambda gap: gap[1])
        while at < len(self.found) and self.found[at][0] < until_ns:
            found.append(self.found[at][1] - self.found[at][0])
            at += 1
        return found

    @property
    def share(self) -> float:
        """How much of the time they are."""
        return sum(end - begin for begin, end in self.found) / max(1, self.watched_ns)


@contextlib.asynccontextmanager
async def watch(core: int) -> AsyncGenerator[Gaps]:
    """Watch a core within the block; the gaps are known after it."""
    gaps = Gaps()
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__)),
        str(core),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 26,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        gaps.sure = json.loads(await process.stdout.readline())
        begun_ns = time.monotonic_ns()
        yield gaps
        gaps.watched_ns = time.monotonic_ns() - begun_ns
    finally:
        process.stdin.close()
        gaps.found = [(begin, end) for begin, end in json.loads(await process.stdout.readline())]
        await process.wait()


def _watch(core: int) -> None:
    sure = True
    try:
        os.sched_setaffinity(0, {core})
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
    except (AttributeError, PermissionError):
        sure = False
    over = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), over.set()), daemon=True).start()
    gc.disable()
    print(json.dumps(sure), flush=True)
    gaps: list[Gap] = []
    before = time.monotonic_ns()
    while not over.is_set():
        time.sleep(TICK_MS / 1_000)
        now = time.monotonic_ns()
        if now - before > (TICK_MS + GAP_MS) * 1_000_000:
            gaps.append((before + TICK_MS * 1_000_000, now))
        before = now
    print(json.dumps(gaps), flush=True)


if __name__ == "__main__":
    _watch(int(sys.argv[1]))

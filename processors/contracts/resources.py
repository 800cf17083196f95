"""Resources of a process: open files and sockets, child processes, threads, tasks."""

from __future__ import annotations

import asyncio
import gc
import os
import threading
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from ...pipeline.clock import NS_PER_S, SystemClock, VirtualClock, Wait

_FILES = Path("/proc/self/fd")
_THREADS = Path("/proc/self/task")
GRACE_S = 1.0
"""Real seconds in which what was given back has to be gone: a process ends, a socket is closed by the event loop."""


@dataclass(frozen=True)
class Resources:
    """Resources held at one time, by kind. Files and processes are found on Linux only."""

    files: Counter[str]
    processes: frozenset[int]
    threads: frozenset[str]
    tasks: frozenset[str]

    def beyond(self, before: Resources) -> list[str]:
        """Describe the resources that were not there before."""
        # By kind: a number of its own has each socket and each pipe.
        files = Counter({_kind(name): 0 for name in self.files})
        for name, count in self.files.items():
            files[_kind(name)] += count
        for name, count in before.files.items():
            files[_kind(name)] -= count
        found = [f"{count} open {kind}" for kind, count in sorted(files.items()) if count > 0]
        found += [f"process {pid}" for pid in sorted(self.processes - before.processes)]
        found += [f"thread {name}" for name in sorted(self.threads - before.threads)]
        found += [f"task {name}" for name in sorted(self.tasks - before.tasks)]
        return found


def _kind(name: str) -> str:
    return name.partition(":")[0] if ":[" in name else name


def held() -> Resources:
    """Collect garbage and count the resources held; takes a second in a large process."""
    gc.collect()
    return seen()


def seen() -> Resources:
    """As `held`, with what garbage still holds."""
    current = asyncio.current_task()
    return Resources(
        Counter(filter(None, map(_target, _names(_FILES)))),
        frozenset(pid for task in _names(_THREADS) for pid in _children(task)),
        frozenset(f"{thread.name} ({thread.ident})" for thread in threading.enumerate()),
        frozenset(f"{task.get_name()} {id(task)}" for task in asyncio.all_tasks() if task is not current),
    )


def _names(folder: Path) -> list[Path]:
    try:
        return [*folder.iterdir()]
    except OSError:
        return []


def _target(file: Path) -> str:
    try:
        return os.readlink(file)
    except OSError:
        return ""  # of the list itself: closed by now


def _children(task: Path) -> list[int]:
    try:
        return [int(number) for number in (task / "children").read_text().split()]
    except OSError:
        return []


async def settled(before: Resources) -> list[str]:
    """Wait until nothing is held that was not ``before``, for `GRACE_S` at most. What still is, in words."""
    real, until = VirtualClock(), SystemClock().now_ns() + round(GRACE_S * NS_PER_S)
    while seen().beyond(before) and SystemClock().now_ns() < until:
        waiting = Wait()
        real.patience(0.01, waiting.wake)
        await waiting
    return held().beyond(before)

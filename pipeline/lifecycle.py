"""Hooks that run together, each with its own deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from .clock import NS_PER_MS, Activity, Clock, TimerHandle, Wait, current_activity
from .crew import spawn

GRACE_MS = 1_000
"""How long a hook that has passed its deadline may take to end once it is cancelled."""


@dataclass(frozen=True, slots=True)
class Hook:
    """Something to call: ``what`` names it in errors."""

    what: str
    call: Callable[[], Coroutine[Any, Any, None]]
    timeout_ms: float


@dataclass(frozen=True, slots=True)
class HookError:
    """What went wrong in a hook: a sentence, and the exception where there is one."""

    message: str
    error: BaseException | None = None


async def run_hooks(
    clock: Clock, hooks: Iterable[Hook], ending: Callable[[Wait], None] | None = None
) -> list[HookError]:
    """Run hooks together; returns what failed. ``ending`` gets what to wake to give all of them up."""
    errors: list[HookError] = []
    tasks: dict[asyncio.Task[None], Hook] = {}
    timers: list[TimerHandle | None] = []
    for hook in hooks:
        task = spawn(_run(clock, hook), hook.what)
        tasks[task] = hook
        timers.append(_deadline(clock, hook, task, errors))
    if tasks:
        try:
            await _all_done(list(tasks), ending)
        finally:
            for timer in timers:
                if timer is not None:
                    timer.cancel()
            for task in tasks:
                task.cancel()
        await wait_for_tasks(clock, list(tasks), GRACE_MS)
    for task, hook in tasks.items():
        if not task.done():
            errors.append(
                HookError(
                    f"{hook.what} did not end within {GRACE_MS} ms of being cancelled; it is left behind."
                )
            )
        elif not task.cancelled() and (error := task.exception()) is not None:
            errors.append(HookError(f"{hook.what} failed: {type(error).__name__}: {error}", error))
    return errors


async def _run(clock: Clock, hook: Hook) -> None:
    activity = Activity(clock) if clock.counts else None
    if activity is not None:
        activity.patience(hook.timeout_ms / 1000)
    current_activity.set(activity)
    try:
        await hook.call()
    finally:
        if activity is not None:
            activity.finish()


def _deadline(clock: Clock, hook: Hook, task: asyncio.Task[None], errors: list[HookError]) -> TimerHandle:
    def overdue() -> None:
        if not task.done():
            errors.append(
                HookError(f"{hook.what} did not return within {hook.timeout_ms:g} ms, its deadline.")
            )
            task.cancel()

    return clock.call_at(clock.now_ns() + round(hook.timeout_ms * NS_PER_MS), overdue)


async def _all_done(tasks: list[asyncio.Task[None]], ending: Callable[[Wait], None] | None = None) -> None:
    waiting = Wait()
    left = len(tasks)

    def done(_: asyncio.Task[None]) -> None:
        nonlocal left
        left -= 1
        if left == 0:
            waiting.wake()

    for task in tasks:
        task.add_done_callback(done)
    if ending is not None:
        ending(waiting)
    await waiting


async def wait_for_tasks(clock: Clock, tasks: list[asyncio.Task[None]], timeout_ms: float) -> bool:
    """Wait until tasks that were cancelled have ended; False where some have not in time."""
    tasks = [task for task in tasks if not task.done()]
    if not tasks:
        return True
    timers: list[TimerHandle | None] = []

    def limit(waiting: Wait) -> None:
        timers.append(clock.call_at(clock.now_ns() + round(timeout_ms * NS_PER_MS), waiting.wake))
        timers.append(clock.patience(timeout_ms / 1000, waiting.wake))

    try:
        await _all_done(tasks, limit)
    finally:
        for timer in timers:
            if timer is not None:
                timer.cancel()
    return all(task.done() for task in tasks)

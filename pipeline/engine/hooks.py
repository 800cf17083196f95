"""Hooks that run together, each with its own deadline."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import dataclass
from typing import Any

from ..clock import NS_PER_MS, Activity, Clock, TimerHandle, Wait, current_activity
from ..tasks import spawn

GRACE_MS = 1_000
"""Milliseconds that a cancelled hook has to end."""


@dataclass(frozen=True, slots=True)
class Hook:
    """A coroutine function to call; ``name`` names it in errors."""

    name: str
    call: Callable[[], Coroutine[Any, Any, None]]
    timeout_ms: float


@dataclass(frozen=True, slots=True)
class HookError:
    """The failure of a hook: a sentence, and the exception where there is one."""

    message: str
    error: BaseException | None = None


class HookRun:
    """Running hooks: `wait` returns when each has ended or was given up, `wake` gives up all that are left."""

    def __init__(self, clock: Clock, hooks: Iterable[Hook]) -> None:
        self._clock = clock
        self._errors: list[HookError] = []
        self._hooks: dict[asyncio.Task[None], Hook] = {}
        self._left: set[asyncio.Task[None]] = set()
        self._cancelled: set[asyncio.Task[None]] = set()
        """Tasks that were cancelled here. A task that somebody else cancelled has failed."""
        self._waiting = Wait()
        for hook in hooks:
            # Busy from now on, not from when the task first runs: a virtual clock must not jump in between.
            activity = Activity(clock) if clock.counts else None
            task = spawn(_run(hook, activity), hook.name)
            self._hooks[task] = hook
            self._left.add(task)
            timer = self._after(hook.timeout_ms, self._overdue, task)
            task.add_done_callback(self._when_done(timer, activity))

    @property
    def unfinished(self) -> list[str]:
        """The names of hooks that have not ended yet."""
        return [hook.name for task, hook in self._hooks.items() if not task.done()]

    def wake(self) -> None:
        """Give up all hooks that are left: `wait` cancels them."""
        self._waiting.wake()

    async def wait(self) -> list[HookError]:
        """Wait for the end of all hooks; after `wake`, cancel those that are left. Returns the failures."""
        try:
            await self._waiting
        finally:
            for task in self._left:
                self._cancel(task)
            await wait_for_tasks(self._clock, [*self._left], GRACE_MS)
        for task, hook in self._hooks.items():
            if not task.done():
                message = f"{hook.name} ignores that it was cancelled, and is left behind."
                self._errors.append(HookError(message))
            elif task.cancelled():
                if task not in self._cancelled:
                    message = f"{hook.name} failed: CancelledError: what it waited for was cancelled."
                    self._errors.append(HookError(message))
            elif (error := task.exception()) is not None:
                self._errors.append(HookError(f"{hook.name} failed: {type(error).__name__}: {error}", error))
        return self._errors

    def _after(
        self, delay_ms: float, call: Callable[[asyncio.Task[None]], None], task: asyncio.Task[None]
    ) -> TimerHandle:
        return self._clock.call_at(self._clock.now_ns() + round(delay_ms * NS_PER_MS), lambda: call(task))

    def _when_done(self, timer: TimerHandle, activity: Activity | None) -> Callable[[asyncio.Task[None]], None]:
        def done(task: asyncio.Task[None]) -> None:
            timer.cancel()
            self._no_more(task)
            # Last: the waiting task is busy again by now, so a virtual clock finds no moment to jump in.
            if activity is not None:
                activity.finish()

        return done

    def _no_more(self, task: asyncio.Task[None]) -> None:
        """Stop waiting for a hook that has ended, or is left behind."""
        self._left.discard(task)
        if not self._left:
            self._waiting.wake()

    def _cancel(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            self._cancelled.add(task)
            task.cancel()

    def _overdue(self, task: asyncio.Task[None]) -> None:
        if not task.done():
            hook = self._hooks[task]
            message = f"{hook.name} did not return within {hook.timeout_ms:g} ms, its deadline."
            self._errors.append(HookError(message))
            self._cancel(task)
            timer = self._after(GRACE_MS, self._no_more, task)
            task.add_done_callback(lambda _: timer.cancel())


async def run_hooks(
    clock: Clock, hooks: Iterable[Hook], started: Callable[[HookRun], None] | None = None
) -> list[HookError]:
    """Run hooks together, each with its own deadline. Returns the failures. ``started`` is called with the run."""
    hooks = list(hooks)
    if not hooks:
        return []
    run = HookRun(clock, hooks)
    if started is not None:
        started(run)
    return await run.wait()


async def _run(hook: Hook, activity: Activity | None) -> None:
    if activity is not None:
        activity.patience(hook.timeout_ms / 1000)
    current_activity.set(activity)
    await hook.call()


async def wait_for_tasks(clock: Clock, tasks: list[asyncio.Task[None]], timeout_ms: float) -> bool:
    """Wait until cancelled tasks have ended. Returns False where some have not in time.

    Virtual time stands still meanwhile, so with a virtual clock the time-out counts real milliseconds.
    """
    left = [task for task in tasks if not task.done()]
    if not left:
        return True
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def end() -> None:
        if not future.done():
            future.set_result(None)

    def done(_: asyncio.Task[None]) -> None:
        if all(task.done() for task in left):
            end()

    for task in left:
        task.add_done_callback(done)
    timer = clock.patience(timeout_ms / 1000, end)
    if timer is None:
        timer = clock.call_at(clock.now_ns() + round(timeout_ms * NS_PER_MS), end)
    try:
        await future
    finally:
        timer.cancel()
    return all(task.done() for task in left)

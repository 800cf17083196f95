"""The task around the kernel: it sleeps when there is nothing to do, and watches handlers that wait.

A plain handler that never waits costs nothing here: the slices of the kernel are run by hand, so a handler that waits
is noticed because the slice hands out the future it waits for. Only then are timers set.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any

from .clock import NS_PER_MS, Activity, TimerHandle, Wait, current_activity
from .errors import HandlerTimeout
from .frames import Frame
from .host import Hop
from .kernel import CLOSED, Kernel

log = logging.getLogger("voxline")

PATIENCE_S = 0.25
"""Real seconds that a plain handler may wait for the outside before virtual time goes on regardless."""


class Drive:
    """Runs a kernel until `end` is called. While `draining`, ``on_quiet`` is called when nothing is left to do."""

    def __init__(
        self, kernel: Kernel, *, slow_ms: float, timeout_ms: float, on_quiet: Callable[[], None]
    ) -> None:
        self._kernel = kernel
        self._slow_ms = slow_ms
        self._timeout_ms = timeout_ms
        self._on_quiet = on_quiet
        self.draining = False
        """Whether ``on_quiet`` is to be called."""
        self._ended = False
        self._task: asyncio.Task[Any] | None = None
        self._activity: Activity | None = None
        self._expired = False
        self._waiting_handler = False

    def end(self) -> None:
        """End now: the step under way is the last. A handler that waits is cancelled."""
        self._ended = True
        self._kernel.wake()
        if self._waiting_handler and self._task is not None:
            self._task.cancel()

    async def run(self) -> None:
        """Drive, until `end`."""
        self._task = self._kernel.crew.caller = asyncio.current_task()
        clock = self._kernel.clock
        self._activity = Activity(clock) if clock.counts else None
        token = current_activity.set(self._activity)
        try:
            await self._run()
        finally:
            current_activity.reset(token)
            if self._activity is not None:
                self._activity.finish()
            self._kernel.next = CLOSED

    @coroutine
    def _run(self) -> Generator[Any, None, None]:
        kernel = self._kernel
        inbox = kernel.inbox
        while not self._ended:
            work = kernel.slice()
            kernel.next = None
            try:
                waiting = work.send(None)
            except StopIteration:
                kernel.next = CLOSED
            else:
                yield from self._slow(work, waiting)
            if kernel.stack or inbox.urgent or inbox.input or inbox.output:
                yield
                continue
            if self.draining:
                self._on_quiet()
                if self._ended or len(inbox):
                    continue
            if self._activity is None:
                future = kernel.loop.create_future()
                kernel.sleeper = future.set_result
                yield from future
            else:
                sleeper = Wait()
                kernel.sleeper = sleeper.wake
                yield from sleeper.__await__()

    def _slow(self, work: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, None, None]:
        """A slice whose handler waits: for ``waiting``, to begin with."""
        kernel = self._kernel
        raised: BaseException | None = None
        while True:
            pushed, kernel.next = kernel.next, CLOSED
            where = inspect.getcoroutinelocals(work)
            if self._expired:
                self._abandon(work, where["hop"], where["frame"], pushed)
                return
            timers = self._watch(where["hop"], where["frame"])
            raised = None
            try:
                yield waiting
            except BaseException as error:
                raised = error
            self._unwatch(timers)
            kernel.next = pushed
            try:
                waiting = work.send(None) if raised is None else work.throw(raised)
            except StopIteration:
                kernel.next = CLOSED
                return
            except asyncio.CancelledError as error:
                self._cancelled(error)
                return

    # --- a handler waits --------------------------------------------------------------------------------------------

    def _watch(self, hop: Hop, frame: Frame) -> list[TimerHandle]:
        clock = self._kernel.clock
        now = clock.now_ns()
        name = f"{hop.processor} has been handling {type(frame).__name__} for {{:g}} ms"

        def slow() -> None:
            log.warning(
                "%s, and holds everything else up. Work that waits belongs into a job: use `yield` in the handler.",
                name.format(self._slow_ms),
            )

        def expire() -> None:
            self._expired = True
            self._stuck = (hop, frame, name.format(self._timeout_ms))
            if self._task is not None:
                self._task.cancel()

        self._waiting_handler = True
        timers = [
            clock.call_at(now + round(self._slow_ms * NS_PER_MS), slow),
            clock.call_at(now + round(self._timeout_ms * NS_PER_MS), expire),
        ]
        patience = clock.patience(PATIENCE_S, self._lose_patience)
        return timers if patience is None else [*timers, patience]

    def _lose_patience(self) -> None:
        self._impatient = True
        if self._activity is not None:
            self._activity.park()

    _impatient = False

    def _unwatch(self, timers: list[TimerHandle]) -> None:
        for timer in timers:
            timer.cancel()
        self._waiting_handler = False
        if self._impatient and self._activity is not None:
            self._impatient = False
            self._activity.unpark()

    _stuck: tuple[Hop, Frame, str]

    def _cancelled(self, error: asyncio.CancelledError) -> None:
        """The handler under way was cancelled: by its deadline, by `end`, or by who cancelled the whole task."""
        if self._expired:
            self._give_up("It was cancelled.")
        elif self._ended:
            if self._task is not None:
                self._task.uncancel()
        else:
            raise error

    def _abandon(self, work: Coroutine[Any, Any, None], hop: Hop, frame: Frame, pushed: Hop | None) -> None:
        """The handler swallowed its cancellation and waits again: leave it behind."""
        try:
            work.close()
        except RuntimeError:
            log.warning("%s refuses to end its handling of %s", hop.processor, type(frame).__name__)
        self._kernel.next = pushed
        self._give_up("It ignored its cancellation, and was left behind.")

    def _give_up(self, how: str) -> None:
        self._expired = False
        if self._task is not None:
            self._task.uncancel()
        hop, frame, what = self._stuck
        kernel = self._kernel
        if kernel.next is CLOSED:
            kernel.next = None
        advice = "Work that waits belongs into a job: use `yield` in the handler."
        kernel.failed(hop.place, frame, HandlerTimeout(f"{what}, its deadline. {how} {advice}"))
        kernel.unfold()

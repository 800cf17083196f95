"""The kernel's loop: the task of a running pipeline. It runs slices, sleeps when there is nothing to do, and watches
plain handlers that wait.

A plain handler that never waits costs nothing here. The loop runs the kernel's slices by hand, so a handler that waits
is noticed because the slice yields the future it waits for. Only then are timers set.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Coroutine, Generator
from types import coroutine
from typing import Any

from ..clock import NS_PER_MS, Activity, TimerHandle, Wait, current_activity
from ..errors import HandlerTimeout
from .kernel import NO_HANDLER, Kernel
from .waiting import WaitingHandler

log = logging.getLogger("voxline")

PATIENCE_S = 0.25
"""Real seconds that a plain handler may wait for the outside before virtual time goes on regardless."""
CLOSING_ATTEMPTS = 3
"""Number of times that a handler which ignores its cancellation is closed."""
ADVICE = "Work that waits belongs into a job: use `yield` in the handler."


class KernelLoop:
    """Runs a kernel until `end` is called. While `draining`, calls ``on_idle`` when nothing is left to do."""

    def __init__(self, kernel: Kernel, *, slow_ms: float, timeout_ms: float, on_idle: Callable[[], None]) -> None:
        self._kernel = kernel
        self._slow_ms = slow_ms
        self._timeout_ms = timeout_ms
        self._on_idle = on_idle
        self.draining = False
        """True to have ``on_idle`` called."""
        self._ended = False
        self._task: asyncio.Task[Any] | None = None
        self._activity: Activity | None = None
        self._sleep: asyncio.Future[None] | None = None
        self._wait: Wait | None = None
        """Takes the place of `_sleep` in virtual time."""
        self._cancelled_to_end = False
        self._refusing: list[Coroutine[Any, Any, None]] = []
        """Slices whose handler refused to close. Kept, since a forgotten coroutine would be closed once more, and
        go on."""

    def end(self) -> None:
        """End now: the current step is the last. A handler that waits is cancelled."""
        self._ended = True
        inbox, handler = self._kernel.inbox, self._kernel.waiting_handler
        for queue in (inbox.urgent, inbox.input, inbox.output):
            queue.clear()
        self._kernel.wake()
        if handler is not None and handler.waiting and self._task is not None:
            self._cancelled_to_end = True
            self._task.cancel()

    async def run(self) -> None:
        """Run the kernel until `end`, as the caller's task and activity."""
        self._task = self._kernel.job_runner.caller = asyncio.current_task()
        self._activity = current_activity.get()
        try:
            await self._run()
        finally:
            self._kernel.next_hop = NO_HANDLER

    @coroutine
    def _run(self) -> Generator[Any, None, None]:
        kernel, event_loop = self._kernel, asyncio.get_running_loop()
        inbox = kernel.inbox
        while not self._ended:
            work = kernel.run_slice()
            kernel.next_hop = None
            try:
                waiting = work.send(None)
            except StopIteration:
                kernel.next_hop = NO_HANDLER
            except asyncio.CancelledError as error:
                self._handler_cancelled(error)
            else:
                yield from self._finish_slice(work, waiting)
            if kernel.stack or inbox.urgent or inbox.input or inbox.output:
                yield
                continue
            if self._ended:
                return
            if self.draining:
                self._on_idle()
                if self._ended or len(inbox):
                    continue
            if self._activity is None:
                self._sleep = event_loop.create_future()
                kernel.wake_loop = self._wake
                yield from self._sleep
            else:
                self._wait = Wait()
                kernel.wake_loop = self._wake_activity
                yield from self._wait.__await__()

    def _wake(self) -> None:
        self._kernel.wake_loop = None
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    def _wake_activity(self) -> None:
        self._kernel.wake_loop = None
        if self._wait is not None:
            self._wait.wake()

    # --- a handler waits --------------------------------------------------------------------------------------------

    def _finish_slice(self, work: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, None, None]:
        """Run the rest of a slice whose handler waits; ``waiting`` is the first future that it waits for."""
        kernel, task = self._kernel, self._task
        assert task is not None
        raised: BaseException | None = None
        while True:
            handler = self._watch(work)
            if handler.expired:
                self._abandon(work, handler)
                return
            pushed, kernel.next_hop = kernel.next_hop, NO_HANDLER
            handler.waiting = True
            patience = kernel.clock.patience(PATIENCE_S, self._lose_patience)
            raised = None
            try:
                yield waiting
            except BaseException as error:
                raised = error
            handler.waiting = False
            self._end_patience(handler, patience)
            kernel.next_hop = pushed
            if self._cancelled_to_end:
                self._cancelled_to_end = False
                task.uncancel()
            elif isinstance(raised, asyncio.CancelledError) and not handler.expired and task.cancelling():
                handler.cancelled = raised
            try:
                waiting = work.send(None) if raised is None else work.throw(raised)
            except StopIteration:
                self._unwatch()
                kernel.schedule_pushed()
                return
            except asyncio.CancelledError as error:
                self._waiting_handler_cancelled(error)
                return
            except BaseException:
                self._unwatch()
                raise

    def _watch(self, work: Coroutine[Any, Any, None]) -> WaitingHandler:
        """Return the watch over the handler that waits in a slice. A handler that waits again keeps its watch."""
        kernel = self._kernel
        # A public attribute of every coroutine: the handler that the slice awaits.
        call = getattr(work, "cr_await", None)
        if kernel.waiting_handler is not None:
            if kernel.waiting_handler.call is call:
                return kernel.waiting_handler
            self._unwatch()
        clock = kernel.clock
        handler = kernel.waiting_handler = WaitingHandler(call, kernel.hop, kernel.frame, clock.now_ns())

        def slow() -> None:
            log.warning(
                "%s has been handling %s for %g ms, and holds everything else up. %s",
                handler.hop.processor, type(handler.frame).__name__, self._slow_ms, ADVICE,
            )  # fmt: skip

        def expire() -> None:
            handler.expired = True
            if self._task is not None:
                self._task.cancel()

        handler.timers = [
            clock.call_at(handler.since_ns + round(self._slow_ms * NS_PER_MS), slow),
            clock.call_at(handler.since_ns + round(self._timeout_ms * NS_PER_MS), expire),
        ]
        return handler

    def _unwatch(self) -> None:
        """End the watch: the handler has ended."""
        handler, self._kernel.waiting_handler = self._kernel.waiting_handler, None
        if handler is None:
            return
        handler.cancel_timers()
        if handler.expired:
            # The handler was cancelled at its deadline, caught that, and ended all the same.
            assert self._task is not None
            self._task.uncancel()
            if handler.failures_before == handler.failures:
                self._report_timeout(handler, "It was cancelled.")
        elif handler.cancelled is not None and self._task is not None and self._task.cancelling():
            # The handler caught the cancellation of the whole task.
            raise handler.cancelled

    def _lose_patience(self) -> None:
        if self._kernel.waiting_handler is not None:
            self._kernel.waiting_handler.patience_lost = True
        if self._activity is not None:
            self._activity.park()

    def _end_patience(self, handler: WaitingHandler, patience: TimerHandle | None) -> None:
        if patience is not None:
            patience.cancel()
        if handler.patience_lost and self._activity is not None:
            handler.patience_lost = False
            self._activity.unpark()

    def _waiting_handler_cancelled(self, error: asyncio.CancelledError) -> None:
        """Deal with a handler's cancellation: by its deadline, by `end`, or of the whole task."""
        handler, self._kernel.waiting_handler = self._kernel.waiting_handler, None
        if handler is None:
            self._handler_cancelled(error)
            return
        handler.cancel_timers()
        if handler.expired:
            assert self._task is not None
            self._task.uncancel()
            self._report_timeout(handler, "It was cancelled.")
            self._kernel.schedule_pushed()
        elif not self._ended:
            self._handler_cancelled(error)

    def _handler_cancelled(self, error: asyncio.CancelledError) -> None:
        """Deal with a handler's `CancelledError`: what it waited for was cancelled, or the whole task is."""
        if self._task is not None and self._task.cancelling():
            raise error
        kernel = self._kernel
        if kernel.next_hop is NO_HANDLER:
            kernel.next_hop = None
        kernel.handler_failed(kernel.hop, kernel.frame, error)
        kernel.schedule_pushed()

    def _abandon(self, work: Coroutine[Any, Any, None], handler: WaitingHandler) -> None:
        """Leave behind a handler that swallowed its cancellation and waits again."""
        kernel = self._kernel
        pushed, kernel.next_hop = kernel.next_hop, NO_HANDLER
        if _closed(handler.call):
            work.close()
        else:
            log.warning("%s refuses to end its handling of %s", handler.hop.processor, type(handler.frame).__name__)
            self._refusing.append(work)
        kernel.next_hop = pushed
        kernel.waiting_handler = None
        handler.cancel_timers()
        assert self._task is not None
        self._task.uncancel()
        self._report_timeout(handler, "It ignored its cancellation, and was left behind.")
        kernel.schedule_pushed()

    def _report_timeout(self, handler: WaitingHandler, consequence: str) -> None:
        kernel, hop, frame = self._kernel, handler.hop, handler.frame
        if kernel.next_hop is NO_HANDLER:
            kernel.next_hop = None
        late = f"{hop.processor} has been handling {type(frame).__name__} for {self._timeout_ms:g} ms, its deadline."
        kernel.handler_failed(hop, frame, HandlerTimeout(f"{late} {consequence} {ADVICE}"))


def _closed(call: Any) -> bool:
    """Close a handler; False where it refuses.

    Not through the slice: the slice would take a refusal for an error, and deliver the next frame.
    """
    for _ in range(CLOSING_ATTEMPTS):
        try:
            call.close()
        except RuntimeError:
            continue
        return True
    return False

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

from ..clock import NS_PER_MS, Activity, TimerHandle, Wait, current_activity
from ..errors import HandlerTimeout
from ..frames import Frame
from ..processor import Hop
from .core import CLOSED
from .kernel import Kernel

log = logging.getLogger("voxline")

PATIENCE_S = 0.25
"""Real seconds that a plain handler may wait for the outside before virtual time goes on regardless."""

CLOSINGS = 3
"""How often a handler that ignores its cancellation is asked to close."""
ADVICE = "Work that waits belongs into a job: use `yield` in the handler."


class Drive:
    """Runs a kernel until `end` is called. While `draining`, ``on_quiet`` is called when nothing is left to do."""

    def __init__(self, kernel: Kernel, *, slow_ms: float, timeout_ms: float, on_quiet: Callable[[], None]) -> None:
        self._kernel = kernel
        self._slow_ms = slow_ms
        self._timeout_ms = timeout_ms
        self._on_quiet = on_quiet
        self.draining = False
        """Whether ``on_quiet`` is to be called."""
        self._ended = False
        self._task: asyncio.Task[Any] | None = None
        self._activity: Activity | None = None
        self._sleep: asyncio.Future[None] | None = None
        self._watched: _Watched | None = None
        """The handler that waits."""
        self._cancelled_to_end = False
        self._impatient = False
        self._refusing: list[Coroutine[Any, Any, None]] = []
        """What would not be closed. Kept, since it would be closed once more, and go on, where it is forgotten."""

    @property
    def doing(self) -> str:
        """What the handler that waits does, and for how long; empty where none waits."""
        watched = self._watched
        return "" if watched is None else watched.doing(self._kernel.clock.now_ns())

    def end(self) -> None:
        """End now: the step under way is the last. A handler that waits is cancelled."""
        self._ended = True
        inbox = self._kernel.inbox
        for queue in (inbox.urgent, inbox.input, inbox.output):
            queue.clear()
        self._kernel.wake()
        if self._watched is not None and self._watched.waiting and self._task is not None:
            self._cancelled_to_end = True
            self._task.cancel()

    async def run(self) -> None:
        """Drive, until `end`. Runs as the caller's activity."""
        self._task = self._kernel.crew.caller = asyncio.current_task()
        self._activity = current_activity.get()
        try:
            await self._run()
        finally:
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
            except asyncio.CancelledError as error:
                self._failed(error)
            else:
                yield from self._slow(work, waiting)
            if kernel.stack or inbox.urgent or inbox.input or inbox.output:
                yield
                continue
            if self._ended:
                return
            if self.draining:
                self._on_quiet()
                if self._ended or len(inbox):
                    continue
            if self._activity is None:
                self._sleep = kernel.loop.create_future()
                kernel.sleeper = self._wake
                yield from self._sleep
            else:
                sleeper = Wait()
                kernel.sleeper = sleeper.wake
                yield from sleeper.__await__()

    def _wake(self, _: object) -> None:
        if self._sleep is not None and not self._sleep.done():
            self._sleep.set_result(None)

    # --- a handler waits --------------------------------------------------------------------------------------------

    def _slow(self, work: Coroutine[Any, Any, None], waiting: Any) -> Generator[Any, None, None]:
        """A slice whose handler waits: for ``waiting``, to begin with."""
        kernel, task = self._kernel, self._task
        assert task is not None
        raised: BaseException | None = None
        while True:
            watched = self._watch(work)
            if watched.expired:
                self._abandon(work, watched)
                return
            pushed, kernel.next = kernel.next, CLOSED
            watched.waiting = True
            patience = kernel.clock.patience(PATIENCE_S, self._lose_patience)
            raised = None
            try:
                yield waiting
            except BaseException as error:
                raised = error
            watched.waiting = False
            self._calm(patience)
            kernel.next = pushed
            if self._cancelled_to_end:
                self._cancelled_to_end = False
                task.uncancel()
            elif isinstance(raised, asyncio.CancelledError) and not watched.expired and task.cancelling():
                watched.cancelled = raised
            try:
                waiting = work.send(None) if raised is None else work.throw(raised)
            except StopIteration:
                self._unwatch()
                kernel.unfold()
                return
            except asyncio.CancelledError as error:
                self._cancelled(error)
                return
            except BaseException:
                self._unwatch()
                raise

    def _watch(self, work: Coroutine[Any, Any, None]) -> _Watched:
        """The watch over the handler that waits in a slice; it goes on where that waits once more."""
        call = getattr(work, "cr_await", None)
        if self._watched is not None:
            if self._watched.call is call:
                return self._watched
            self._unwatch()
        where = inspect.getcoroutinelocals(work)
        clock = self._kernel.clock
        watched = self._watched = _Watched(call, where["hop"], where["frame"], clock.now_ns())

        def slow() -> None:
            log.warning(
                "%s has been handling %s for %g ms, and holds everything else up. %s",
                watched.hop.processor, type(watched.frame).__name__, self._slow_ms, ADVICE,
            )  # fmt: skip

        def expire() -> None:
            watched.expired = True
            if self._task is not None:
                self._task.cancel()

        watched.timers = [
            clock.call_at(watched.since_ns + round(self._slow_ms * NS_PER_MS), slow),
            clock.call_at(watched.since_ns + round(self._timeout_ms * NS_PER_MS), expire),
        ]
        return watched

    def _unwatch(self) -> None:
        """The handler has ended."""
        watched, self._watched = self._watched, None
        if watched is None:
            return
        for timer in watched.timers:
            timer.cancel()
        if watched.expired:
            # It was cancelled at its deadline, caught that, and came to an end all the same.
            assert self._task is not None
            self._task.uncancel()
            if watched.failures == watched.errors():
                self._report(watched, "It was cancelled.")
        elif watched.cancelled is not None and self._task is not None and self._task.cancelling():
            # It caught what was meant for the whole task.
            raise watched.cancelled

    def _lose_patience(self) -> None:
        self._impatient = True
        if self._activity is not None:
            self._activity.park()

    def _calm(self, patience: TimerHandle | None) -> None:
        if patience is not None:
            patience.cancel()
        if self._impatient and self._activity is not None:
            self._impatient = False
            self._activity.unpark()

    def _cancelled(self, error: asyncio.CancelledError) -> None:
        """The handler under way was cancelled: by its deadline, by `end`, or by who cancelled the whole task."""
        watched, self._watched = self._watched, None
        if watched is None:
            self._failed(error)
            return
        for timer in watched.timers:
            timer.cancel()
        if watched.expired:
            assert self._task is not None
            self._task.uncancel()
            self._report(watched, "It was cancelled.")
            self._kernel.unfold()
        elif not self._ended:
            self._failed(error)

    def _failed(self, error: asyncio.CancelledError) -> None:
        """A handler raised `CancelledError`: what it waited for was cancelled, or the whole task is."""
        if self._task is not None and self._task.cancelling():
            raise error
        hop, frame = _where(error)
        if self._kernel.next is CLOSED:
            self._kernel.next = None
        self._kernel.failed(hop, frame, error)
        self._kernel.unfold()

    def _abandon(self, work: Coroutine[Any, Any, None], watched: _Watched) -> None:
        """The handler swallowed its cancellation and waits again: leave it behind."""
        kernel = self._kernel
        pushed, kernel.next = kernel.next, CLOSED
        if _closed(watched.call):
            work.close()
        else:
            log.warning("%s refuses to end its handling of %s", watched.hop.processor, type(watched.frame).__name__)
            self._refusing.append(work)
        kernel.next = pushed
        self._watched = None
        for timer in watched.timers:
            timer.cancel()
        assert self._task is not None
        self._task.uncancel()
        self._report(watched, "It ignored its cancellation, and was left behind.")
        kernel.unfold()

    def _report(self, watched: _Watched, how: str) -> None:
        kernel, hop, frame = self._kernel, watched.hop, watched.frame
        if kernel.next is CLOSED:
            kernel.next = None
        what = f"{hop.processor} has been handling {type(frame).__name__} for {self._timeout_ms:g} ms, its deadline."
        kernel.failed(hop, frame, HandlerTimeout(f"{what} {how} {ADVICE}"))


class _Watched:
    """A handler that has waited: since when, and what has become of it."""

    __slots__ = ("call", "cancelled", "expired", "failures", "frame", "hop", "since_ns", "timers", "waiting")

    def __init__(self, call: object, hop: Hop, frame: Frame, since_ns: int) -> None:
        self.call = call
        self.hop = hop
        self.frame = frame
        self.since_ns = since_ns
        self.timers: list[TimerHandle] = []
        self.waiting = False
        self.expired = False
        self.cancelled: asyncio.CancelledError | None = None
        """What cancelled the task of the whole while it waited."""
        self.failures = self.errors()

    def errors(self) -> int:
        """How many errors in a row its processor has had."""
        return getattr(self.hop.place, "failures", 0)

    def doing(self, now_ns: int) -> str:
        """For an error: who, what, for how long."""
        seconds = (now_ns - self.since_ns) / 1e9
        return f"{self.hop.processor}: its handler of {type(self.frame).__name__} waits, for {seconds:.1f} s"


def _closed(call: Any) -> bool:
    """Close a handler. Not by way of the slice: that would take a refusal for an error, and deliver the next frame."""
    for _ in range(CLOSINGS):
        try:
            call.close()
        except RuntimeError:
            continue
        return True
    return False


def _where(error: BaseException) -> tuple[Hop, Frame]:
    """What the slice that an error came out of was delivering."""
    trace = error.__traceback__
    while trace is not None and trace.tb_frame.f_code is not Kernel.slice.__code__:
        trace = trace.tb_next
    assert trace is not None
    return trace.tb_frame.f_locals["hop"], trace.tb_frame.f_locals["frame"]

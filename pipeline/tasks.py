"""Tasks, deadlines and threads for code that runs beside the engine.

`spawn` makes a task, `Deadline` limits a wait by the worker's clock, and `THREADS` runs functions that block.

Blocking functions are usually the tools of a language model: functions of the user that ask a database or a service.
A thread cannot be cancelled. A caller may stop waiting for it (a deadline, an interruption); the thread is then *left
behind*: it works on, nobody waits for it, and it occupies one place until it ends. When such threads occupy all
places, no call can start, and `Threads.run` raises an error.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from .clock import NS_PER_S, Clock, TimerHandle
from .errors import QueueOverflowError


def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Make a task. The caller keeps it, and ends it."""
    return asyncio.get_running_loop().create_task(work, name=name)


AGAIN_S = 0.5
"""Cancellation is repeated every 0.5 s until the block ends."""


class Deadline:
    """A time limit for a block: at the deadline ``error()`` is raised where the block waits.

    ::

        with Deadline(self.clock, 2.0, lambda: ServiceTimeout("No answer came within 2 s.")):
            await client.answer()

    ``seconds``: None for no limit. `pause` stops the count, `resume` starts it again from the full time; `fail` ends
    the wait at once, from outside. Deadlines nest. A job that is being closed is closed, deadline or not.
    """

    def __init__(self, clock: Clock, seconds: float | None, error: Callable[[], Exception]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._error: Callable[[], Exception] = error
        self._task: asyncio.Task[object] | None = None
        self._timer: TimerHandle | None = None
        self._fired = 0
        """Number of cancellations by this deadline."""
        self._cancelling = 0

    def __enter__(self) -> Self:
        self._task = asyncio.current_task()
        assert self._task is not None
        self._fired = 0
        self._cancelling = self._task.cancelling()
        self.resume()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, raised: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.pause()
        task, self._task = self._task, None
        if not self._fired or task is None:
            return
        # As in asyncio.timeout: once these cancellations are taken back, is another one left?
        left = [task.uncancel() for _ in range(self._fired)][-1]
        if left <= self._cancelling and isinstance(raised, asyncio.CancelledError):
            raise self._error() from raised

    def pause(self) -> None:
        """Stop the count."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        """Start the count from the full time."""
        self.pause()
        if self._seconds is not None:
            self._set(self._seconds)

    def _set(self, seconds: float) -> None:
        if self._task is not None:
            self._timer = self._clock.call_at(self._clock.now_ns() + round(seconds * NS_PER_S), self._fire)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Raise this error in the block now. Has no effect outside of a block."""
        if self._task is not None and not self._fired:
            self._error = error
            self.pause()
            self._fire()

    def _fire(self) -> None:
        self._timer = None
        if self._task is not None:
            self._fired += 1
            self._task.cancel()
            self._set(AGAIN_S)


T = TypeVar("T")
Late = Callable[[T | None, BaseException | None], None]


class _Work(Generic[T]):
    """One call for a thread, and the future that its caller waits for."""

    __slots__ = ("call", "context", "ended", "given_up", "late", "loop", "taken", "waiting")

    def __init__(self, call: Callable[[], T], late: Late[T] | None) -> None:
        self.call = call
        self.late = late
        self.context: Context = copy_context()
        self.loop = asyncio.get_running_loop()
        self.waiting: asyncio.Future[T] = self.loop.create_future()
        self.taken = False
        """True once a thread has it."""
        self.ended = False
        self.given_up = False

    def carry_out(self) -> Callable[[], None]:
        """Call the function, in the thread. Returns a function that the event loop calls with the result."""
        try:
            result = self.context.run(self.call)
        except BaseException as raised:
            error = raised
            return lambda: self._failed(error)
        return lambda: self._succeeded(result)

    def _succeeded(self, result: T) -> None:
        if not self.waiting.done():
            self.waiting.set_result(result)
        elif self.late is not None:
            self.late(result, None)

    def _failed(self, error: BaseException) -> None:
        if self.waiting.done():
            if self.late is not None:
                self.late(None, error)
        elif isinstance(error, StopIteration):
            # A future does not take it.
            self.waiting.set_exception(RuntimeError("the function raised StopIteration"))
        else:
            self.waiting.set_exception(error)


class Threads:
    """Runs functions in at most ``most`` threads at a time; ``most_waiting`` calls may wait for a free one.

    A thread ends when nothing waits. They are daemons: one that hangs does not keep the process from ending. One
    pool may serve the event loops of several threads.
    """

    def __init__(self, most: int = 32, most_waiting: int = 1_000) -> None:
        self.most = most
        self.most_waiting = most_waiting
        self._lock = threading.Lock()
        # bound: `most_waiting`, then run() raises
        self._waiting: deque[_Work[Any]] = deque()
        self._running = 0
        self._left = 0

    @property
    def running(self) -> int:
        """The number of threads, including those left behind."""
        return self._running

    @property
    def left_behind(self) -> int:
        """The number of threads whose caller no longer waits."""
        return self._left

    async def run(self, call: Callable[[], T], late: Late[T] | None = None) -> T:
        """Call a function in a thread, and wait for its result or exception.

        Where this is cancelled, ``late`` is called once, in the event loop: with the function's result or exception in
        the end, or at once with a `CancelledError` where the call had not started, and never will. Raises
        `QueueOverflowError` where all threads are busy and too many wait, or all are left behind.
        """
        work = _Work(call, late)
        with self._lock:
            begins = work.taken = self._running < self.most
            if begins:
                self._running += 1
            elif self._left >= self._running or len(self._waiting) >= self.most_waiting:
                raise QueueOverflowError(
                    f"All {self._running} threads are busy, {self._left} of them with calls that nobody waits for any "
                    f"more, and {len(self._waiting)} calls wait. Give what the functions ask time-outs of their own, "
                    "or raise THREADS.most in voxline.pipeline.tasks."
                )
            else:
                self._waiting.append(work)
        if begins:
            self._begin(work)
        try:
            return await work.waiting
        except asyncio.CancelledError as error:
            if work.waiting.done() and not work.waiting.cancelled():
                # It came in the same turn of the event loop as the cancellation.
                failure = work.waiting.exception()
                if late is not None:
                    late(None if failure is not None else work.waiting.result(), failure)
            elif not self._left_running(work) and late is not None:
                late(None, error)
            raise

    def _begin(self, work: _Work[Any]) -> None:
        try:
            threading.Thread(target=self._work, args=(work,), name="voxline-thread", daemon=True).start()
        except BaseException:
            with self._lock:
                self._running -= 1
            raise

    def _left_running(self, work: _Work[Any]) -> bool:
        """Note that the caller no longer waits. Returns True where a thread has the call, and is left behind."""
        with self._lock:
            if not work.taken:
                self._waiting.remove(work)
                return False
            if not work.ended:
                work.given_up = True
                self._left += 1
            return True

    def _work(self, first: _Work[Any]) -> None:
        """Run in a thread: make one call after another, while calls wait."""
        work: _Work[Any] | None = first
        while work is not None:
            notify, loop = work.carry_out(), work.loop
            with self._lock:
                work.ended = True
                self._left -= work.given_up
                work = self._waiting.popleft() if self._waiting else None
                if work is not None:
                    work.taken = True
                else:
                    self._running -= 1
            # The loop may be closed by now: then no caller is left.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(notify)
            # Free the result now, and not only after the next call.
            del notify


THREADS = Threads()
"""The threads of this process, for all its conversations."""

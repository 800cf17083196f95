"""Threads for ordinary functions that may block: the one place that makes them.

The tools of a language model are the case that this is for: functions of the user's, which ask a database or a
service in the way that blocks. An event loop cannot do that beside anything else, a process of its own would not
have the function's world, and the function cannot be made to yield.

A thread cannot be cancelled. Whoever waits for one may go (a deadline, an interruption); the thread is then *left
behind*: it works on, nobody waits for it, and it takes one of the places until it ends. When all places are taken by
such, nothing runs any more, and `Threads.run` says so.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable
from contextvars import Context, copy_context
from typing import Any, Generic, TypeVar

from .errors import QueueOverflowError

T = TypeVar("T")
Late = Callable[[T | None, BaseException | None], None]


class _Work(Generic[T]):
    """One call: what is to be called, and who waits for it."""

    __slots__ = ("call", "context", "ended", "given_up", "late", "loop", "taken", "waiting")

    def __init__(self, call: Callable[[], T], late: Late[T] | None) -> None:
        self.call = call
        self.late = late
        self.context: Context = copy_context()
        self.loop = asyncio.get_running_loop()
        self.waiting: asyncio.Future[T] = self.loop.create_future()
        self.taken = False
        """A thread has it."""
        self.ended = False
        self.given_up = False

    def carry_out(self) -> Callable[[], None]:
        """In the thread: call it. Returns what the event loop is to do about it."""
        try:
            result = self.context.run(self.call)
        except BaseException as raised:
            error = raised
            return lambda: self._failed(error)
        return lambda: self._gave(result)

    def _gave(self, result: T) -> None:
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
        """How many threads there are, those that were left behind among them."""
        return self._running

    @property
    def left_behind(self) -> int:
        """How many threads work for nobody, because whoever waited has gone."""
        return self._left

    async def run(self, call: Callable[[], T], late: Late[T] | None = None) -> T:
        """Call a function in a thread, and wait for what it gives or raises.

        Where this is cancelled, ``late`` is called once, in the event loop: with what the function gave or raised in
        the end, or at once with a `CancelledError` where it had not begun, and never will. Raises
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
                    "or raise THREADS.most in voxline.pipeline.threads."
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
        """Nobody waits for it any more. Whether it runs, and is left behind."""
        with self._lock:
            if not work.taken:
                self._waiting.remove(work)
                return False
            if not work.ended:
                work.given_up = True
                self._left += 1
            return True

    def _work(self, first: _Work[Any]) -> None:
        """What a thread does: one call after another, while there are any."""
        work: _Work[Any] | None = first
        while work is not None:
            tell, loop = work.carry_out(), work.loop
            with self._lock:
                work.ended = True
                self._left -= work.given_up
                work = self._waiting.popleft() if self._waiting else None
                if work is not None:
                    work.taken = True
                else:
                    self._running -= 1
            # The loop may be closed by now: then there is nobody to be told.
            with contextlib.suppress(RuntimeError):
                loop.call_soon_threadsafe(tell)
            # What the function gave is not kept for as long as the next one takes.
            del tell


THREADS = Threads()
"""The threads of this process, for all its conversations."""

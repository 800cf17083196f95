"""The clock: the only place that reads time or sleeps.

A worker has one clock. `SystemClock` is the machine's monotonic clock. `VirtualClock` stands still while anything is
being done and jumps to the next timer when nothing is left to do, so an hour of silence costs nothing and every run
is the same run.

How does a virtual clock know that nothing is left to do? Whatever does something - the kernel while it delivers, a job
while it works - is an `Activity`, and *parks* while it waits for the clock or for a frame. A job that waits for
anything else (a process, a socket, a thread) is busy, and time stands still for it: a model that needs 300 ms of real
time needs none of virtual time, and gives the same run each time.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable, Generator
from contextvars import ContextVar
from typing import Any, ClassVar, Protocol

NS_PER_MS = 1_000_000
NS_PER_S = 1_000_000_000

current_activity: ContextVar[Activity | None] = ContextVar("voxline_activity", default=None)


class TimerHandle(Protocol):
    """Handle of a timer, returned by `Clock.call_at`."""

    def cancel(self) -> None:
        """Forget the call. Harmless when it was made already."""
        ...


class Clock:
    """Tells the time and wakes up. Take it from the worker; never read the machine's clock beside it."""

    counts: ClassVar[bool] = False
    """True if the clock must be notified of work that starts and ends."""

    def now_ns(self) -> int:
        """Nanoseconds since some fixed moment; never goes back."""
        raise NotImplementedError

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` when the clock shows ``when_ns``."""
        raise NotImplementedError

    def begin(self) -> None:
        """An activity got busy."""

    def end(self) -> None:
        """An activity parked or ended."""

    def patience(self, real_seconds: float, callback: Callable[[], None]) -> TimerHandle | None:
        """Call ``callback`` after real seconds, whatever this clock shows. Only virtual time needs that."""
        return None

    async def sleep(self, seconds: float) -> None:
        """Wait for ``seconds`` of this clock."""
        waiting = Wait()
        timer = self.call_at(self.now_ns() + round(seconds * NS_PER_S), waiting.wake)
        try:
            await waiting
        finally:
            timer.cancel()


class Activity:
    """Something that can be busy or parked; a virtual clock moves only when all are parked."""

    __slots__ = ("_clock", "_ended", "_parks", "_patience", "_pinned")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._parks = 0
        self._pinned = False
        self._ended = False
        self._patience: TimerHandle | None = None
        clock.begin()

    @property
    def parked(self) -> bool:
        """True while it waits for the clock or for a frame."""
        return self._parks > 0 and not self._pinned

    def park(self) -> None:
        """It waits now. Calls nest."""
        self._parks += 1
        if self._parks == 1 and not self._pinned and not self._ended:
            self._clock.end()

    def unpark(self) -> None:
        """It goes on. Call this where the waiting ends, not when its task runs again: time must not jump between."""
        self._parks -= 1
        if self._parks == 0 and not self._pinned and not self._ended:
            self._clock.begin()

    def pin(self) -> None:
        """Busy from now to its end, whatever it waits for: it is being closed."""
        if not self._pinned and not self._ended:
            if self._parks > 0:
                self._clock.begin()
            self._pinned = True

    def patience(self, real_seconds: float) -> None:
        """Give it that many real seconds; then virtual time goes on without it."""
        self._patience = self._clock.patience(real_seconds, self.finish)

    def finish(self) -> None:
        """It has ended."""
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
        if not self._ended:
            self._ended = True
            if self._parks == 0 or self._pinned:
                self._clock.end()


class Wait:
    """One wait of the current activity that somebody else ends with `wake`. ``await`` it once."""

    __slots__ = ("_activity", "_future")

    def __init__(self) -> None:
        self._future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._activity = current_activity.get()
        if self._activity is not None:
            self._activity.park()

    def wake(self, _: object = None) -> None:
        """End the wait. Harmless the second time."""
        if not self._future.done():
            self._unpark()
            self._future.set_result(None)

    def _unpark(self) -> None:
        if self._activity is not None:
            self._activity.unpark()
            self._activity = None

    def __await__(self) -> Generator[Any, None, None]:
        try:
            yield from self._future
        finally:
            self._unpark()


class SystemClock(Clock):
    """The machine's monotonic clock."""

    # Not a method around it: the kernel reads the clock for every frame.
    now_ns = staticmethod(time.monotonic_ns)  # pyright: ignore[reportAssignmentType]

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` when the clock shows ``when_ns``; as late as the event loop is busy."""
        delay = (when_ns - time.monotonic_ns()) / NS_PER_S
        return asyncio.get_running_loop().call_later(max(0.0, delay), callback)


class _VirtualTimer:
    __slots__ = ("callback", "cancelled")

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback = callback
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class VirtualClock(Clock):
    """Time that passes only when nothing is left to do. Starts at 0.

    With ``autojump=False`` it moves only in `advance`, which is what a test harness wants.
    """

    counts: ClassVar[bool] = True

    def __init__(self, *, autojump: bool = True, start_ns: int = 0) -> None:
        self._now = start_ns
        self._limit: int | None = None if autojump else start_ns
        self._timers: list[tuple[int, int, _VirtualTimer]] = []
        self._count = itertools.count()
        self._busy = 0
        self._jumping = False
        self._settled: list[Wait] = []

    @property
    def idle(self) -> bool:
        """True while no work is running."""
        return self._busy == 0

    @property
    def jumps(self) -> bool:
        """True if time advances by itself when no work is running."""
        return self._limit is None

    @property
    def next_ns(self) -> int | None:
        """When the next timer is due; None where there is none."""
        while self._timers and self._timers[0][2].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0][0] if self._timers else None

    @property
    def pending(self) -> list[Callable[[], None]]:
        """Callbacks of the pending timers, in no order."""
        return [timer.callback for _, _, timer in self._timers if not timer.cancelled]

    def now_ns(self) -> int:
        """Virtual nanoseconds."""
        return self._now

    def call_at(self, when_ns: int, callback: Callable[[], None]) -> TimerHandle:
        """Call ``callback`` when the clock shows ``when_ns``. Timers of one instant run in the order they were set."""
        timer = _VirtualTimer(callback)
        heapq.heappush(self._timers, (max(when_ns, self._now), next(self._count), timer))
        self._consider()
        return timer

    def begin(self) -> None:
        """An activity got busy."""
        self._busy += 1

    def end(self) -> None:
        """An activity parked or ended."""
        self._busy -= 1
        self._consider()

    def patience(self, real_seconds: float, callback: Callable[[], None]) -> TimerHandle | None:
        """Call ``callback`` after *real* seconds: what hangs on the outside would stop virtual time for ever."""
        return asyncio.get_running_loop().call_later(real_seconds, callback)

    def set(self, when_ns: int) -> None:
        """Put the hand to ``when_ns``, running no timer. For a replay, whose times are the recording's."""
        self._now = max(self._now, when_ns)

    async def advance(self, seconds: float) -> None:
        """Let ``seconds`` of virtual time pass, running what falls due, and return when nothing is left to do."""
        if self._limit is None:
            raise ValueError("This VirtualClock jumps by itself; advance() is for VirtualClock(autojump=False).")
        self._limit = self._now + round(seconds * NS_PER_S)
        await self.settle()
        self._now = self._limit

    async def settle(self) -> None:
        """Return when nothing is left to do up to the moment that the clock may reach."""
        waiting = Wait()
        self._settled.append(waiting)
        self._consider()
        try:
            await waiting
        finally:
            if waiting in self._settled:
                self._settled.remove(waiting)

    def _consider(self) -> None:
        if self._busy == 0 and not self._jumping and (self._timers or self._settled):
            self._jumping = True
            asyncio.get_running_loop().call_soon(self._jump)

    def _jump(self) -> None:
        self._jumping = False
        while self._busy == 0 and self._timers:
            when, _, timer = self._timers[0]
            if timer.cancelled:
                heapq.heappop(self._timers)
                continue
            if self._limit is not None and when > self._limit:
                break
            heapq.heappop(self._timers)
            self._now = max(self._now, when)
            timer.callback()
            # One at a time: what this timer set off comes before the next one, even of the same instant.
            self._consider()
            return
        if self._busy == 0 and not self._timers_due():
            settled, self._settled = self._settled, []
            for waiting in settled:
                waiting.wake()

    def _timers_due(self) -> bool:
        return bool(self._timers) and (self._limit is None or self._timers[0][0] <= self._limit)


def wall_s() -> float:
    """The time of day, in seconds since 1970: for what two machines have to agree on, as when a credential expires.

    Somebody may set it, back or forth. How long something takes is told by a `Clock`.
    """
    return time.time()

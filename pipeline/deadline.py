"""Deadlines of whatever waits, by a clock of ours.

`asyncio.timeout` would go by the machine's clock, and a virtual one would never know of it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from types import TracebackType
from typing import Self

from .clock import NS_PER_S, Clock, TimerHandle

AGAIN_S = 0.5
"""Who has been told that it is too late, and waits for something else first, is told again after so long."""


class Deadline:
    """Within it, whoever waits too long gets ``error()`` raised, at its wait.

    ::

        with Deadline(self.clock, 2.0, lambda: ServiceTimeout("No answer came within 2 s.")):
            await client.answer()

    ``seconds``: None for none. `pause` stops it while somebody else is waited for, `resume` gives the whole time anew;
    `fail` ends the wait at once, from outside. Deadlines may stand inside one another. A job that is being closed is
    closed, whatever the deadline says.
    """

    def __init__(self, clock: Clock, seconds: float | None, error: Callable[[], Exception]) -> None:
        self._clock = clock
        self._seconds = seconds
        self._error: Callable[[], Exception] = error
        self._task: asyncio.Task[object] | None = None
        self._timer: TimerHandle | None = None
        self._fired = 0
        """How often it has cancelled."""
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
        # As asyncio.timeout does: with these cancellations taken back, is anybody else's left?
        left = [task.uncancel() for _ in range(self._fired)][-1]
        if left <= self._cancelling and isinstance(raised, asyncio.CancelledError):
            raise self._error() from raised

    def pause(self) -> None:
        """Count no longer."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def resume(self) -> None:
        """Count, from the beginning."""
        self.pause()
        if self._seconds is not None:
            self._set(self._seconds)

    def _set(self, seconds: float) -> None:
        if self._task is not None:
            self._timer = self._clock.call_at(self._clock.now_ns() + round(seconds * NS_PER_S), self._fire)

    def fail(self, error: Callable[[], Exception]) -> None:
        """Let whoever is within it have this error now. Nothing happens where nobody is."""
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

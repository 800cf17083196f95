"""The port between `Session`, which code outside of the pipeline holds, and the controller inside."""

from __future__ import annotations

from collections.abc import Callable

from ...pipeline.clock import NS_PER_S, Clock, TimerHandle, Wait
from ...pipeline.errors import SessionError
from ...pipeline.frames import Frame
from .commands import InterruptCommandFrame
from .data import SessionData, SpeechOutcome
from .events import SessionEvent
from .listeners import Cleanup, EventStream, Hooks, run_cleanups
from .speech_handle import SpeechHandle
from .states import OVER

MAX_EARLY_COMMANDS = 1_000
"""Limit for commands that wait until the pipeline runs."""


class SessionPort:
    """The session's data, its listeners, its waiting handles, and the way into the pipeline's inbox."""

    def __init__(self, data: SessionData) -> None:
        self.data = data
        self.clock: Clock | None = None
        """The worker's clock; None before the pipeline runs."""
        self.hooks = Hooks()
        self.streams: list[EventStream] = []
        self.cleanups: list[Cleanup] = []
        self._handles: dict[int, SpeechHandle] = {}
        self._numbers = 0
        self._post: Callable[[Frame], None] | None = None
        self._early: list[Frame] = []
        self._early_timers: list[Callable[[Clock], None]] = []
        self._waiting: list[Wait] = []

    @property
    def over(self) -> bool:
        """True after the end of the session."""
        return self.data.state in OVER

    def send(self, command: Frame) -> None:
        """Put a command into the inbox. It waits until the pipeline runs; too many of them raise `SessionError`."""
        if self._post is not None:
            self._post(command)
        elif not self.over:
            if len(self._early) >= MAX_EARLY_COMMANDS:
                raise SessionError(
                    f"{MAX_EARLY_COMMANDS} commands wait for the session's pipeline to run, the limit. Run it first."
                )
            self._early.append(command)

    def handle(self) -> tuple[int, SpeechHandle]:
        """Make a handle. Returns its number and the handle."""
        self._numbers += 1
        number = self._numbers
        handle = SpeechHandle(number, lambda number: self.send(InterruptCommandFrame(handle=number)))
        if self.over:
            handle.resolve(SpeechOutcome.DROPPED, "")
        else:
            self._handles[number] = handle
        return number, handle

    async def until(self, reached: Callable[[], bool], aim: str, timeout_s: float | None) -> None:
        """Wait for a condition. ``aim`` completes the message "Waited 2 s for the session ...".

        Raises `TimeoutError`, and `SessionError` if the session ends first.
        """
        late: list[bool] = []
        timers: list[TimerHandle] = []

        def set_timer(clock: Clock) -> None:
            timers.append(clock.call_at(clock.now_ns() + round((timeout_s or 0) * NS_PER_S), expire))

        def expire() -> None:
            late.append(True)
            self.changed()

        if timeout_s is not None:
            if self.clock is not None:
                set_timer(self.clock)
            else:
                self._early_timers.append(set_timer)
        try:
            while not reached():
                state = self.data.state.name
                if self.over:
                    raise SessionError(f"The session is {state}; waited {aim}, which will not happen.")
                if late:
                    raise TimeoutError(f"Waited {timeout_s:g} s for the session {aim}; it is {state}.")
                waiting = Wait()
                self._waiting.append(waiting)
                try:
                    await waiting
                finally:
                    if waiting in self._waiting:
                        self._waiting.remove(waiting)
        finally:
            if set_timer in self._early_timers:
                self._early_timers.remove(set_timer)
            for timer in timers:
                timer.cancel()

    # --- for the controller -------------------------------------------------------------------------------------------

    def open(self, clock: Clock, post: Callable[[Frame], None]) -> None:
        """Connect the port to a pipeline that is about to run."""
        self.clock, self._post = clock, post

    def flush(self) -> None:
        """Send the early commands, behind the start of the session."""
        assert self.clock is not None
        early, self._early = self._early, []
        timers, self._early_timers = self._early_timers, []
        for set_timer in timers:
            set_timer(self.clock)
        for command in early:
            self.send(command)

    def publish(self, event: SessionEvent) -> bool:
        """Pass an event to streams and hooks. Returns True if a hook wants it."""
        for stream in [*self.streams]:
            stream.put(event)
        return self.hooks.put(event)

    def changed(self) -> None:
        """Wake every `until`: the data may have changed."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.wake()

    def resolve(self, number: int, outcome: SpeechOutcome, heard: str) -> None:
        """Set the outcome of a handle."""
        handle = self._handles.pop(number, None)
        if handle is not None:
            handle.resolve(outcome, heard)

    async def close(self) -> None:
        """Disconnect from the ended pipeline: resolve handles, end streams, run remaining hooks, then clean-ups."""
        self._post = None
        self._early.clear()
        for number in [*self._handles]:
            self.resolve(number, SpeechOutcome.DROPPED, "")
        self.changed()
        for stream in [*self.streams]:
            stream.end()
        await self.hooks.run()
        cleanups, self.cleanups = self.cleanups, []
        await run_cleanups(cleanups)

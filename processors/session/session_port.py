"""The link between the session that code outside of the pipeline holds, and the controller inside."""

from __future__ import annotations

from collections.abc import Callable

from ...pipeline.clock import NS_PER_S, Clock, TimerHandle, Wait
from ...pipeline.errors import SessionError
from ...pipeline.frames import Frame
from .commands import InterruptOrderFrame
from .data import SessionData, SpeechOutcome
from .events import SessionEvent
from .listeners import Cleanup, EventStream, Hooks, run_cleanups
from .speech_handle import SpeechHandle
from .states import OVER

EARLY = 1_000
"""How many orders may wait for the pipeline to run."""


class Link:
    """What a session knows, who listens to it, who waits for it, and the way into the pipeline's inbox."""

    def __init__(self, data: SessionData) -> None:
        self.data = data
        self.clock: Clock | None = None
        """The worker's; None before the pipeline runs."""
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
        """Whether the session is over."""
        return self.data.state in OVER

    def order(self, order: Frame) -> None:
        """Put an order into the inbox; before the pipeline runs, it waits. Raises `SessionError` for too many."""
        if self._post is not None:
            self._post(order)
        elif not self.over:
            if len(self._early) >= EARLY:
                raise SessionError(f"{EARLY} orders wait for the session's pipeline to run, the bound. Run it first.")
            self._early.append(order)

    def handle(self) -> tuple[int, SpeechHandle]:
        """A new handle, and its number."""
        self._numbers += 1
        number = self._numbers
        handle = SpeechHandle(number, lambda number: self.order(InterruptOrderFrame(handle=number)))
        if self.over:
            handle.resolve(SpeechOutcome.DROPPED, "")
        else:
            self._handles[number] = handle
        return number, handle

    async def until(self, there: Callable[[], bool], what: str, timeout_s: float | None) -> None:
        """Wait for something. Raises `TimeoutError`, and `SessionError` where it will not happen."""
        late: list[bool] = []
        timers: list[TimerHandle] = []

        def begin(clock: Clock) -> None:
            timers.append(clock.call_at(clock.now_ns() + round((timeout_s or 0) * NS_PER_S), expire))

        def expire() -> None:
            late.append(True)
            self.changed()

        if timeout_s is not None:
            if self.clock is not None:
                begin(self.clock)
            else:
                self._early_timers.append(begin)
        try:
            while not there():
                state = self.data.state.name
                if self.over:
                    raise SessionError(f"The session is {state}; waited {what}, which will not happen.")
                if late:
                    raise TimeoutError(f"Waited {timeout_s:g} s for the session {what}; it is {state}.")
                waiting = Wait()
                self._waiting.append(waiting)
                try:
                    await waiting
                finally:
                    if waiting in self._waiting:
                        self._waiting.remove(waiting)
        finally:
            if begin in self._early_timers:
                self._early_timers.remove(begin)
            for timer in timers:
                timer.cancel()

    # --- for the controller -------------------------------------------------------------------------------------------

    def running(self, clock: Clock, post: Callable[[Frame], None]) -> None:
        """The pipeline is about to run."""
        self.clock, self._post = clock, post

    def flush(self) -> None:
        """Post what was asked before, behind the start of the session."""
        assert self.clock is not None
        early, self._early = self._early, []
        timers, self._early_timers = self._early_timers, []
        for begin in timers:
            begin(self.clock)
        for order in early:
            self.order(order)

    def tell(self, event: SessionEvent) -> bool:
        """Something happened. Whether there is a hook that wants to know."""
        for stream in [*self.streams]:
            stream.put(event)
        return self.hooks.put(event)

    def changed(self) -> None:
        """Something may be as somebody waits for it to be."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            one.wake()

    def resolve(self, number: int, outcome: SpeechOutcome, heard: str) -> None:
        """It is known what became of a speech."""
        handle = self._handles.pop(number, None)
        if handle is not None:
            handle.resolve(outcome, heard)

    async def ended(self) -> None:
        """The pipeline has ended: whoever waits is told, hooks run for what they have not heard of, and then the
        clean-up.
        """
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

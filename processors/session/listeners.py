"""Listeners of a session: hooks, event streams, and clean-ups at the end."""

from __future__ import annotations

import inspect
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

from ...pipeline.clock import Wait
from ...pipeline.errors import SessionError
from .events import EventsLost, SessionClosed, SessionEvent, StateChanged
from .states import State

log = logging.getLogger("voxline")

Hook = Callable[..., object | Awaitable[object]]
Cleanup = Callable[[], object | Awaitable[object]]
Trigger = State | tuple[State, State] | type[SessionEvent]
"""The occasion for a hook: a state that is entered, a transition (before, after), or a class of events."""

MAX_HOOK_CALLS = 10_000
"""Limit for waiting hook calls. At the limit the oldest call is dropped, and an error is logged."""


class Hooks:
    """Registered hooks, and the queue of their calls."""

    def __init__(self) -> None:
        self._hooks: list[tuple[Trigger, Hook, bool]] = []
        self._watchers: list[Callable[[SessionEvent], object]] = []
        self._calls: deque[tuple[Hook, SessionEvent]] = deque()  # bound: MAX_HOOK_CALLS, then the oldest goes

    def add(self, trigger: Trigger, hook: Hook, *, once: bool) -> Callable[[], None]:
        """Register a hook. Returns a function that removes it. Raises `SessionError` for an unknown trigger."""
        if not _is_trigger(trigger):
            raise SessionError(
                f"on() takes a State, a pair of them (before, after) or a class of SessionEvent, not {trigger!r}."
            )
        entry = (trigger, hook, once)
        self._hooks.append(entry)

        def remove() -> None:
            if entry in self._hooks:
                self._hooks.remove(entry)

        return remove

    def watch(self, watcher: Callable[[SessionEvent], object]) -> Callable[[], None]:
        """Call ``watcher`` synchronously for every event. Returns a function that removes it."""
        self._watchers.append(watcher)

        def remove() -> None:
            self._watchers.remove(watcher)

        return remove

    def put(self, event: SessionEvent) -> bool:
        """Queue the hook calls for an event. Returns True if there are any."""
        for watcher in [*self._watchers]:
            watcher(event)
        wanted = [entry for entry in self._hooks if _wants(entry[0], event)]
        for entry in wanted:
            if len(self._calls) >= MAX_HOOK_CALLS:
                self._calls.popleft()
                log.error("%d calls wait for the hooks of a session; the oldest is dropped", MAX_HOOK_CALLS)
            self._calls.append((entry[1], event))
            if entry[2]:
                self._hooks.remove(entry)
        return bool(wanted)

    async def run(self) -> None:
        """Make the queued calls, one after another."""
        while self._calls:
            hook, event = self._calls.popleft()
            await _call(f"A hook for {type(event).__name__}", lambda hook=hook, event=event: hook(event))


def _is_trigger(trigger: object) -> bool:
    match trigger:
        case State() | (State(), State()):
            return True
        case _:
            return isinstance(trigger, type) and issubclass(trigger, SessionEvent)


def _wants(trigger: Trigger, event: SessionEvent) -> bool:
    if isinstance(trigger, State):
        return isinstance(event, StateChanged) and event.after is trigger
    if isinstance(trigger, tuple):
        return isinstance(event, StateChanged) and (event.before, event.after) == trigger
    return isinstance(event, trigger)


class EventStream(AsyncIterator[SessionEvent]):
    """The events of a session, until its end. Call `close` to stop reading earlier."""

    def __init__(self, bound: int, streams: list[EventStream]) -> None:
        self._events: deque[SessionEvent] = deque()  # bound: `bound` events, then the oldest goes and is counted
        self._bound = bound
        self._streams = streams
        self._waiting: Wait | None = None
        self._ended = False
        self._lost = 0
        streams.append(self)

    def put(self, event: SessionEvent) -> None:
        """Add an event. At the bound the oldest event is dropped."""
        if len(self._events) >= self._bound:
            self._events.popleft()
            self._lost += 1
        self._events.append(event)
        self._wake()
        if isinstance(event, SessionClosed):
            self.end()

    def end(self) -> None:
        """End the stream after the events that it holds."""
        self._ended = True
        if self in self._streams:
            self._streams.remove(self)
        self._wake()

    close = end

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.wake()
            self._waiting = None

    def __aiter__(self) -> EventStream:
        return self

    async def __anext__(self) -> SessionEvent:
        while not self._events:
            if self._ended:
                raise StopAsyncIteration
            self._waiting = Wait()
            await self._waiting
        if self._lost:
            lost, self._lost = self._lost, 0
            return EventsLost(self._events[0].at_ns, lost)
        return self._events.popleft()


async def run_cleanups(cleanups: Sequence[Cleanup]) -> None:
    """Call every clean-up, the last registered first. An exception is logged, and the rest are called."""
    for cleanup in reversed(cleanups):
        await _call("A clean-up of a session", cleanup)


async def _call(name: str, function: Cleanup) -> None:
    try:
        result = function()
        if inspect.isawaitable(result):
            await result
    except Exception as error:
        # The exception's message may contain the user's words: only the debug level shows it.
        log.error("%s raised %s", name, type(error).__name__)
        log.debug("%s raised", name, exc_info=error)

"""Those who listen to a session: hooks, streams of events, and what is called at the end."""

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
What = State | tuple[State, State] | type[SessionEvent]

HOOK_BOUND = 10_000
"""How many calls may wait for a hook that takes its time. Then the oldest is not made, and an error is logged."""


class Hooks:
    """Hooks, and the calls that are to be made."""

    def __init__(self) -> None:
        self._hooks: list[tuple[What, Hook, bool]] = []
        self._watchers: list[Callable[[SessionEvent], object]] = []
        self._calls: deque[tuple[Hook, SessionEvent]] = deque()  # bound: HOOK_BOUND, then the oldest goes

    def add(self, what: What, hook: Hook, *, once: bool) -> Callable[[], None]:
        """Register a hook; returns what takes it back. Raises `SessionError` for what nobody can wait for."""
        if not _can_be_wanted(what):
            raise SessionError(
                f"on() takes a State, a pair of them (before, after) or a class of SessionEvent, not {what!r}."
            )
        entry = (what, hook, once)
        self._hooks.append(entry)

        def take_back() -> None:
            if entry in self._hooks:
                self._hooks.remove(entry)

        return take_back

    def watch(self, watcher: Callable[[SessionEvent], object]) -> Callable[[], None]:
        """Call ``watcher`` at once for every event: the session's own. Returns what ends that."""
        self._watchers.append(watcher)

        def take_back() -> None:
            self._watchers.remove(watcher)

        return take_back

    def put(self, event: SessionEvent) -> bool:
        """Something happened. Whether a hook is to be called for it."""
        for watcher in [*self._watchers]:
            watcher(event)
        wanted = [entry for entry in self._hooks if _wants(entry[0], event)]
        for entry in wanted:
            if len(self._calls) >= HOOK_BOUND:
                self._calls.popleft()
                log.error("%d calls wait for the hooks of a session; the oldest is not made", HOOK_BOUND)
            self._calls.append((entry[1], event))
            if entry[2]:
                self._hooks.remove(entry)
        return bool(wanted)

    async def run(self) -> None:
        """Make the calls, one after another."""
        while self._calls:
            hook, event = self._calls.popleft()
            await _call(f"A hook for {type(event).__name__}", lambda hook=hook, event=event: hook(event))


def _can_be_wanted(what: object) -> bool:
    match what:
        case State() | (State(), State()):
            return True
        case _:
            return isinstance(what, type) and issubclass(what, SessionEvent)


def _wants(what: What, event: SessionEvent) -> bool:
    if isinstance(what, State):
        return isinstance(event, StateChanged) and event.after is what
    if isinstance(what, tuple):
        return isinstance(event, StateChanged) and (event.before, event.after) == what
    return isinstance(event, what)


class EventStream(AsyncIterator[SessionEvent]):
    """The events of a session, one after another, until it is over. `close` it where you stop reading before."""

    def __init__(self, bound: int, streams: list[EventStream]) -> None:
        self._events: deque[SessionEvent] = deque()  # bound: `bound` events, then the oldest goes and is counted
        self._bound = bound
        self._streams = streams
        self._waiting: Wait | None = None
        self._ended = False
        self._lost = 0
        streams.append(self)

    def put(self, event: SessionEvent) -> None:
        """Something happened."""
        if len(self._events) >= self._bound:
            self._events.popleft()
            self._lost += 1
        self._events.append(event)
        self._wake()
        if isinstance(event, SessionClosed):
            self.end()

    def end(self) -> None:
        """Nothing more happens."""
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
    """Call all, the last first. One that raises is logged, and the others are called."""
    for cleanup in reversed(cleanups):
        await _call("A clean-up of a session", cleanup)


async def _call(what: str, function: Cleanup) -> None:
    try:
        result = function()
        if inspect.isawaitable(result):
            await result
    except Exception as error:
        # What was said may stand in the message: that is for `debug` only.
        log.error("%s raised %s", what, type(error).__name__)
        log.debug("%s raised", what, exc_info=error)

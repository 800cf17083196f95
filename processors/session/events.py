"""The typed events of `Session.events` and `Session.on`."""

from __future__ import annotations

from dataclasses import dataclass

from .data import Interruption, Turn
from .states import State


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """The base of all events. ``at_ns``: time of the event, on the worker's clock."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class StateChanged(SessionEvent):
    """The session's state changed."""

    before: State
    after: State


@dataclass(frozen=True, slots=True)
class UserSaid(SessionEvent):
    """The user's turn ended. A second event with the same ``turn.id``: the turn continued, and ended again."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class BotSaid(SessionEvent):
    """The bot's turn ended; ``turn.text`` is the text that was heard."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Interrupted(SessionEvent):
    """A response was cut. One event for each interrupted response."""

    interruption: Interruption


@dataclass(frozen=True, slots=True)
class InterruptionDismissed(SessionEvent):
    """A tentative interruption was dismissed: the bot continues after ``silent_ms`` of pause."""

    silent_ms: float


@dataclass(frozen=True, slots=True)
class SpeechIgnored(SessionEvent):
    """Words of the user were ignored: a backchannel, too few words, or speech while muted."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class ToolCalled(SessionEvent):
    """A tool was called; ``turn.text`` is its name and its arguments."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class ToolReturned(SessionEvent):
    """A tool returned ``turn.text``."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class SessionErrorReported(SessionEvent):
    """An error occurred; the session continues."""

    message: str
    source: str
    """Path of the processor, or ``session``."""


@dataclass(frozen=True, slots=True)
class SessionClosed(SessionEvent):
    """The session ended. The last event."""

    reason: str
    failed: bool


@dataclass(frozen=True, slots=True)
class EventsLost(SessionEvent):
    """The reader of an event stream was too slow, and the oldest events were dropped."""

    count: int

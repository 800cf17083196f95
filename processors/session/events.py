"""What a session tells: the typed events of `Session.events` and `Session.on`."""

from __future__ import annotations

from dataclasses import dataclass

from .data import Interruption, Turn
from .states import State


@dataclass(frozen=True, slots=True)
class SessionEvent:
    """The base of all events. ``at_ns``: when, on the worker's clock."""

    at_ns: int


@dataclass(frozen=True, slots=True)
class StateChanged(SessionEvent):
    """The session stands in another state."""

    before: State
    after: State


@dataclass(frozen=True, slots=True)
class UserSaid(SessionEvent):
    """The user's turn is over. The same ``turn.id`` once more: it was not, and went on."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class BotSaid(SessionEvent):
    """The bot's turn is over; ``turn.text`` is what was heard of it."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class Interrupted(SessionEvent):
    """A response was cut. Comes once for each."""

    interruption: Interruption


@dataclass(frozen=True, slots=True)
class InterruptionDismissed(SessionEvent):
    """What silenced the bot was no interruption: it goes on where it was silenced."""

    silent_ms: float


@dataclass(frozen=True, slots=True)
class SpeechIgnored(SessionEvent):
    """Words of the user were not taken: a backchannel, too few, or said while muted."""

    text: str
    why: str


@dataclass(frozen=True, slots=True)
class ToolCalled(SessionEvent):
    """A tool runs; ``turn.text`` is its name and its arguments."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class ToolReturned(SessionEvent):
    """A tool has ended, with ``turn.text``."""

    turn: Turn


@dataclass(frozen=True, slots=True)
class SessionErrorTold(SessionEvent):
    """Something went wrong; the session goes on."""

    message: str
    source: str
    """The path of the processor, or ``session``."""


@dataclass(frozen=True, slots=True)
class SessionClosed(SessionEvent):
    """It is over; nothing follows."""

    reason: str
    failed: bool


@dataclass(frozen=True, slots=True)
class EventsLost(SessionEvent):
    """Who reads events was too slow, and the oldest are gone."""

    count: int

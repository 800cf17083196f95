"""What of a session outlives its process: enough for another one to go on, and nothing that is under way."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ...pipeline.clock import NS_PER_MS
from ...pipeline.errors import SessionError
from . import limits
from .data import Counts, Interruption, SessionData, Turn
from .pause_estimator import Pauses
from .settings import SessionSettings

VERSION = 1


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """A session's records and settings. Times are of the clock that it ran with; what was under way is not in it."""

    version: Literal[1]
    settings: SessionSettings
    turns: tuple[Turn, ...]
    interruptions: tuple[Interruption, ...]
    counts: Counts
    next_turn: int
    pauses: Pauses

    def to_json(self) -> str:
        """As one object, for a file or a database. It holds what was said: keep it as such."""
        return _adapter().dump_json(self).decode()

    @staticmethod
    def from_json(text: str | bytes) -> SessionSnapshot:
        """What `to_json` has written. Raises `SessionError` where it is none, and says where."""
        try:
            return _adapter().validate_json(text)
        except ValidationError as error:
            first = error.errors()[0]
            where = ".".join(str(part) for part in first["loc"]) or "the whole"
            raise SessionError(f"This is no snapshot of a session: {where}: {first['msg']}.") from None


@cache
def _adapter() -> TypeAdapter[SessionSnapshot]:
    # Made when first needed: it takes some milliseconds.
    return TypeAdapter(SessionSnapshot)


def snapshot_of(data: SessionData) -> SessionSnapshot:
    """The records of a session."""
    return SessionSnapshot(
        VERSION, data.settings, data.turns, data.interruptions, data.counts, data.next_turn, data.pauses
    )


def restored(snapshot: SessionSnapshot, data: SessionData) -> SessionData:
    """A session that begins where another ended: its history, its counts, what it knows of the caller's pauses."""
    data.turns, data.interruptions = snapshot.turns, snapshot.interruptions
    data.counts, data.next_turn, data.pauses = snapshot.counts, snapshot.next_turn, snapshot.pauses
    return data


def diagnostics_of(data: SessionData, now_ns: int) -> dict[str, Any]:
    """What a session is doing, and what it waits for: plain values, without a word of what was said."""
    response = data.response
    return {
        "state": data.state.value,
        "in_state_ms": (now_ns - data.since_ns) / NS_PER_MS,
        "connected": data.connected,
        "listening": data.listening,
        "muted": data.muted,
        "user_speaking": data.user_speaking,
        "words_awaited": len(data.utterances),
        "turn_words": len(data.turn.text.split()),
        "response": None if response is None else response.number,
        "playing": response is not None and response.playing,
        "playout_paused": data.playout_paused,
        "queue": len(data.queue),
        "tools": len(data.tools),
        "due_ms": {due.value: (at - now_ns) / NS_PER_MS for at, due in sorted(limits.deadlines(data), key=_time)},
        "last_transitions": [
            f"{(one.at_ns - now_ns) / NS_PER_MS:.0f} ms: {one.before.name} -> {one.after.name} ({one.event})"
            for one in data.transitions[-5:]
        ],
        "errors": data.counts.errors,
    }


def _time(entry: tuple[int, limits.Due]) -> int:
    return entry[0]

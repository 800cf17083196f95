"""Snapshots, with which another process continues a session, and diagnostics for logs."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

from pydantic import TypeAdapter, ValidationError

from ...pipeline.clock import NS_PER_MS
from ...pipeline.errors import SessionError
from ...pipeline.settings import explain
from . import limits
from .data import Counts, Interruption, SessionData, Turn
from .pause_estimator import PauseEstimator
from .settings import SessionSettings

VERSION = 1


@dataclass(frozen=True, slots=True)
class SessionSnapshot:
    """The history and settings of a session, without current speech and responses. Times are of the session's clock."""

    version: Literal[1]
    settings: SessionSettings
    turns: tuple[Turn, ...]
    interruptions: tuple[Interruption, ...]
    counts: Counts
    next_turn: int
    pauses: PauseEstimator

    def to_json(self) -> str:
        """Return a JSON object for a file or a database. It contains the words of both sides: protect it."""
        return _adapter().dump_json(self).decode()

    @staticmethod
    def from_json(text: str | bytes) -> SessionSnapshot:
        """Read the result of `to_json`. Raises `SessionError`, which names the first invalid field."""
        try:
            return _adapter().validate_json(text)
        except ValidationError as error:
            raise SessionError(
                f"This is no snapshot of a session: {explain(error, whole='the whole', values=False)}."
            ) from None


@cache
def _adapter() -> TypeAdapter[SessionSnapshot]:
    # Made on first use: it takes some milliseconds.
    return TypeAdapter(SessionSnapshot)


def snapshot_of(data: SessionData) -> SessionSnapshot:
    """Make a snapshot."""
    history = data.history
    return SessionSnapshot(
        VERSION, data.settings, history.turns, history.interruptions, history.counts, history.next_turn,
        data.user.pauses,
    )  # fmt: skip


def restored(snapshot: SessionSnapshot, data: SessionData) -> SessionData:
    """Continue a snapshot in new data: its history, its counters, and the caller's pauses."""
    history = data.history
    history.turns, history.interruptions = snapshot.turns, snapshot.interruptions
    history.counts, history.next_turn = snapshot.counts, snapshot.next_turn
    data.user.pauses = snapshot.pauses
    return data


def diagnostics_of(data: SessionData, now_ns: int) -> dict[str, Any]:
    """Describe the current state, deadlines and transitions, without any words of the conversation."""
    response = data.bot.response
    return {
        "state": data.state.value,
        "in_state_ms": (now_ns - data.state_since_ns) / NS_PER_MS,
        "connected": data.lifecycle.connected,
        "listening": data.lifecycle.listening,
        "muted": data.muted,
        "user_speaking": data.user.speaking,
        "words_awaited": len(data.user.utterances),
        "turn_words": len(data.user.turn.text.split()),
        "response": None if response is None else response.number,
        "playing": response is not None and response.playing,
        "playout_paused": data.bot.playout_paused,
        "queue": len(data.bot.queue),
        "tools": len(data.bot.tools),
        "due_ms": {due.value: (at - now_ns) / NS_PER_MS for at, due in sorted(limits.deadlines(data), key=_time)},
        "last_transitions": [
            f"{(one.at_ns - now_ns) / NS_PER_MS:.0f} ms: {one.before.name} -> {one.after.name} ({one.event})"
            for one in data.history.transitions[-5:]
        ],
        "errors": data.history.counts.errors,
    }


def _time(entry: tuple[int, limits.Due]) -> int:
    return entry[0]

"""The states of a session, and the table of its state transitions.

EVERY state transition must be listed in `ALLOWED`: `step` raises for any other one. The diagram in
`docs/design/session.md` is drawn from it, and a test fails when that is stale.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from ...pipeline.errors import ProcessorError


class State(enum.Enum):
    """The state of a session."""

    IDLE = "idle"
    """The session exists; its pipeline does not run yet."""
    CONNECTING = "connecting"
    """The pipeline runs; the client has not connected, or has disconnected."""
    LISTENING = "listening"
    """The bot has nothing to say; the user may speak, or does."""
    WAITING_FOR_INPUT = "waiting_for_input"
    """The same with the microphone off: text, buttons and code work."""
    PROCESSING = "processing"
    """An answer is being made; nothing of it is audible at the moment."""
    SPEAKING = "speaking"
    """Samples of the bot are being played."""
    INTERRUPTED = "interrupted"
    """The bot was paused because the user seems to speak; the bot will be cut, or continue."""
    PAUSED = "paused"
    """Both sides wait for `Session.resume`."""
    CLOSING = "closing"
    """Current speech is played to its end, then a goodbye; nothing new starts."""
    CLOSED = "closed"
    """The session ended normally."""
    FAILED = "failed"
    """The session ended because of a failure."""


_ENDS = frozenset({State.CLOSING, State.CLOSED, State.FAILED})
_BREAKS = frozenset({State.CONNECTING, State.PAUSED}) | _ENDS

ALLOWED: Mapping[State, frozenset[State]] = {
    State.IDLE: frozenset({State.CONNECTING, State.CLOSED, State.FAILED}),
    # INTERRUPTED: the client was away so briefly that the ledger has not reported the heard part of a cut.
    State.CONNECTING: frozenset({State.LISTENING, State.WAITING_FOR_INPUT, State.PAUSED, State.INTERRUPTED}) | _ENDS,
    State.LISTENING: frozenset({State.WAITING_FOR_INPUT, State.PROCESSING}) | _BREAKS,
    State.WAITING_FOR_INPUT: frozenset({State.LISTENING, State.PROCESSING}) | _BREAKS,
    State.PROCESSING: frozenset({State.SPEAKING, State.INTERRUPTED, State.LISTENING, State.WAITING_FOR_INPUT})
    | _BREAKS,
    State.SPEAKING: frozenset({State.PROCESSING, State.INTERRUPTED, State.LISTENING, State.WAITING_FOR_INPUT})
    | _BREAKS,
    State.INTERRUPTED: frozenset({State.PROCESSING, State.LISTENING, State.WAITING_FOR_INPUT}) | _BREAKS,
    State.PAUSED: frozenset(
        {State.CONNECTING, State.LISTENING, State.WAITING_FOR_INPUT, State.PROCESSING, State.INTERRUPTED}
    )
    | _ENDS,
    State.CLOSING: frozenset({State.CLOSED, State.FAILED}),
    State.CLOSED: frozenset(),
    State.FAILED: frozenset(),
}
"""The states that may follow each state."""

OVER = frozenset({State.CLOSED, State.FAILED})
"""Final states."""
ACTIVE = frozenset(
    {State.LISTENING, State.WAITING_FOR_INPUT, State.PROCESSING, State.SPEAKING, State.INTERRUPTED, State.PAUSED}
)
"""States of a running conversation."""
OPEN = ACTIVE - {State.PAUSED}
"""States in which the session takes the user's speech and text."""


def check_transition(before: State, after: State) -> None:
    """Raise `ProcessorError` for a transition that `ALLOWED` does not list."""
    if after not in ALLOWED[before]:
        possible = ", ".join(sorted(state.name for state in ALLOWED[before])) or "nowhere"
        raise ProcessorError(
            f"A session cannot go from {before.name} to {after.name}; from {before.name} it goes to: {possible}."
        )


def diagram() -> str:
    """Return `ALLOWED` as a Mermaid state diagram, as the documentation shows it."""
    lines = ["stateDiagram-v2", "    [*] --> IDLE"]
    for state, following in ALLOWED.items():
        lines += [f"    {state.name} --> {after.name}" for after in State if after in following]
    lines += [f"    {state.name} --> [*]" for state in State if state in OVER]
    return "\n".join(lines)

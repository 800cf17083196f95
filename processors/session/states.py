"""The states of a session, and the one table of what may follow what.

EVERYTHING that may follow a state must stand in `ALLOWED`: `step` raises for a transition that is not there, the
diagram in `docs/design/session.md` is drawn from it, and a test fails when that is stale.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping

from ...pipeline.errors import ProcessorError


class State(enum.Enum):
    """Where a session stands."""

    IDLE = "idle"
    """It is made; its pipeline does not run yet."""
    CONNECTING = "connecting"
    """The pipeline runs, and the user's client is not there (or is away)."""
    LISTENING = "listening"
    """The bot has nothing to say; the user may speak, or does."""
    WAITING_FOR_INPUT = "waiting_for_input"
    """The same, but nobody listens to the microphone: text, a button or code goes on."""
    PROCESSING = "processing"
    """An answer is being made; nothing of it is heard at the moment."""
    SPEAKING = "speaking"
    """Samples of the bot are being played."""
    INTERRUPTED = "interrupted"
    """The bot was silenced because the user seems to speak; it is cut, or goes on."""
    PAUSED = "paused"
    """Both sides wait for `Session.resume`."""
    CLOSING = "closing"
    """What is being said is played to its end, then a goodbye; nothing new begins."""
    CLOSED = "closed"
    """It is over, as it should be."""
    FAILED = "failed"
    """It is over, as it should not be."""


_ENDS = frozenset({State.CLOSING, State.CLOSED, State.FAILED})
_BREAKS = frozenset({State.CONNECTING, State.PAUSED}) | _ENDS

ALLOWED: Mapping[State, frozenset[State]] = {
    State.IDLE: frozenset({State.CONNECTING, State.CLOSED, State.FAILED}),
    # INTERRUPTED: the client was away for so short that what was heard of a cut is not told yet.
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
"""What may follow each state."""

OVER = frozenset({State.CLOSED, State.FAILED})
"""Nothing follows these."""
ACTIVE = frozenset(
    {State.LISTENING, State.WAITING_FOR_INPUT, State.PROCESSING, State.SPEAKING, State.INTERRUPTED, State.PAUSED}
)
"""A conversation is going on."""
OPEN = ACTIVE - {State.PAUSED}
"""What the user says or types is taken."""


def check_transition(before: State, after: State) -> None:
    """Raise `ProcessorError` where `ALLOWED` does not have it."""
    if after not in ALLOWED[before]:
        possible = ", ".join(sorted(state.name for state in ALLOWED[before])) or "nowhere"
        raise ProcessorError(
            f"A session cannot go from {before.name} to {after.name}; from {before.name} it goes to: {possible}."
        )


def diagram() -> str:
    """`ALLOWED` as a Mermaid state diagram: what the documentation shows."""
    lines = ["stateDiagram-v2", "    [*] --> IDLE"]
    for state, following in ALLOWED.items():
        lines += [f"    {state.name} --> {after.name}" for after in State if after in following]
    lines += [f"    {state.name} --> [*]" for state in State if state in OVER]
    return "\n".join(lines)

"""A transition: the next session data while `step` computes it, and the effects that the controller carries out."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ...pipeline.clock import NS_PER_MS
from ...pipeline.frames import Message
from .data import KEPT_TRANSITIONS, SessionData, Speech, SpeechOutcome, StateTransition, Turn
from .events import SessionErrorReported, SessionEvent, StateChanged
from .states import OPEN, State, check_transition

# --- effects ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cut the bot's responses up to ``response``."""

    response: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Open ``response``, and ask the model for the bot's answer."""

    response: int
    messages: tuple[Message, ...]
    speculative: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    """Open ``response``, and say a text. ``recorded``: an audio file to play instead of a synthesised voice."""

    response: int
    text: str
    recorded: Path | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """Release a guessed response: the guess was right."""

    response: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Pause the output (``on``), or resume it."""

    on: bool


@dataclass(frozen=True, slots=True)
class Listen:
    """Turn the input's microphone on or off."""

    on: bool


@dataclass(frozen=True, slots=True)
class Button:
    """Pass the state of the talk button to the input."""

    pressed: bool


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Send a `KeepAliveFrame` in both directions, so that idle connections stay open."""


@dataclass(frozen=True, slots=True)
class Resolve:
    """Set the outcome of a `SpeechHandle`."""

    handle: int
    outcome: SpeechOutcome
    heard: str = ""


@dataclass(frozen=True, slots=True)
class Tell:
    """Publish an event to the session's hooks and event streams."""

    event: SessionEvent


@dataclass(frozen=True, slots=True)
class EndPipeline:
    """End the pipeline."""

    reason: str


Effect = Cancel | Ask | Say | Commit | Pause | Listen | Button | KeepAlive | Resolve | Tell | EndPipeline


class Transition:
    """One call of `step`: ``data`` is a copy that rules may change, ``effects`` are to be carried out in order.

    ``next_response`` is the number of the next response that the kernel opens. ``event`` is the name that a
    `StateTransition` records.
    """

    def __init__(self, data: SessionData, now_ns: int, event: str, next_response: int) -> None:
        self.data = copy.copy(data)
        self.data.user = copy.copy(data.user)
        self.data.bot = copy.copy(data.bot)
        self.data.lifecycle = copy.copy(data.lifecycle)
        self.data.history = copy.copy(data.history)
        self.now = now_ns
        self.event = event
        self.effects: list[Effect] = []
        self._next_response = next_response

    def open_response(self) -> int:
        """Take the number of the next response. Each number needs one `Ask` or `Say`, in the same order."""
        number = self._next_response
        self._next_response += 1
        return number

    def do(self, effect: Effect) -> None:
        """Add an effect."""
        self.effects.append(effect)

    def tell(self, event: SessionEvent) -> None:
        """Add the effect that publishes an event."""
        self.effects.append(Tell(event))

    def error(self, message: str, source: str = "session") -> None:
        """Count and publish an error after which the session continues."""
        history = self.data.history
        history.counts = replace(history.counts, errors=history.counts.errors + 1)
        self.tell(SessionErrorReported(self.now, message, source))

    def resolve(self, handles: Iterable[int], outcome: SpeechOutcome, heard: str = "") -> None:
        """Set the outcome of speech handles. A handle of 0 is none."""
        for handle in handles:
            if handle:
                self.do(Resolve(handle, outcome, heard))

    def record_turn(self, turn: Turn) -> Turn:
        """Append a turn to the history. A turn with the id 0 receives the next id."""
        history = self.data.history
        if not turn.id:
            turn = replace(turn, id=history.next_turn)
            history.next_turn += 1
        history.turns = (*history.turns, turn)[-self.data.settings.history_turns :]
        history.counts = history.counts.plus_turn(turn.kind)
        return turn

    def note_activity(self) -> None:
        """Record that a person did or heard something now."""
        self.data.lifecycle.active_ns = self.now

    def restart_idle_time(self) -> None:
        """Count the silence of both sides from now."""
        self.data.lifecycle.idle_ns = self.now

    def ms_since(self, ns: int) -> float:
        """Return the time since ``ns``, in ms."""
        return (self.now - ns) / NS_PER_MS

    def drop_queue(self, *, everything: bool = False) -> None:
        """Drop the queued speech that may be interrupted, or all of it."""
        kept: list[Speech] = []
        for speech in self.data.bot.queue:
            if speech.interruptible or everything:
                self.resolve((speech.handle,), SpeechOutcome.DROPPED)
            else:
                kept.append(speech)
        self.data.bot.queue = tuple(kept)

    # --- the state ----------------------------------------------------------------------------------------------------

    def update_state(self) -> None:
        """Derive the state from the facts. Raises `ProcessorError` for a change that `ALLOWED` does not list."""
        data = self.data
        after = state_of(data)
        if after is data.state:
            return
        check_transition(data.state, after)
        change = StateTransition(self.now, data.state, after, self.event)
        data.history.transitions = (*data.history.transitions, change)[-KEPT_TRANSITIONS:]
        self.tell(StateChanged(self.now, data.state, after))
        data.state, data.state_since_ns = after, self.now
        if data.lifecycle.ready_ns is None and after in OPEN:
            data.lifecycle.ready_ns = self.now

    def pace_output(self) -> None:
        """Pause the output while an interruption or a guess is undecided, and resume it afterwards."""
        bot, lifecycle = self.data.bot, self.data.lifecycle
        undecided = bot.tentative is not None or bot.guess is not None
        wanted = lifecycle.closed_ns is None and (lifecycle.paused_ns is not None or undecided)
        if bot.cut is not None and not wanted:
            # The output is silent anyway. Its answer to the cut comes first, and may lead to a guess.
            return
        if wanted is not bot.playout_paused:
            bot.playout_paused = wanted
            self.do(Pause(wanted))


def state_of(data: SessionData) -> State:
    """Return the state that the facts imply."""
    user, bot, lifecycle = data.user, data.bot, data.lifecycle
    if lifecycle.closed_ns is not None:
        return State.FAILED if lifecycle.ending is not None and lifecycle.ending.failed else State.CLOSED
    if lifecycle.started_ns is None:
        return State.IDLE
    if lifecycle.ending is not None:
        return State.CLOSING
    if not lifecycle.connected:
        return State.CONNECTING
    if lifecycle.paused_ns is not None:
        return State.PAUSED
    if bot.tentative is not None or user.barged_in or (bot.cut is not None and bot.cut.kind is not None):
        return State.INTERRUPTED
    if bot.answer is not None:
        # A remote output reports its silence late: `playout_paused` is already true.
        return State.SPEAKING if bot.answer.playing and not bot.playout_paused else State.PROCESSING
    return State.LISTENING if data.hears else State.WAITING_FOR_INPUT

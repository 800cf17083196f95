"""A step under way: the session as it becomes, and what is to be done. The rules are in the modules beside it."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from ...pipeline.clock import NS_PER_MS
from ...pipeline.frames import Message
from .data import KEPT_TRANSITIONS, SessionData, Speech, SpeechOutcome, Transition, Turn
from .events import SessionErrorTold, SessionEvent, StateChanged
from .states import OPEN, State, check_transition

# --- effects: what the controller is to do ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Cancel:
    """Cut the bot's responses up to ``response``."""

    response: int
    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Open a response, and ask for the bot's answer."""

    messages: tuple[Message, ...]
    speculative: bool = False


@dataclass(frozen=True, slots=True)
class Say:
    """Open a response, and say this. ``recorded``: a file that is played in the place of a voice."""

    text: str
    recorded: Path | None = None


@dataclass(frozen=True, slots=True)
class Commit:
    """A guess was right: the response is wanted."""

    response: int


@dataclass(frozen=True, slots=True)
class Pause:
    """Silence the output, or let it go on."""

    on: bool


@dataclass(frozen=True, slots=True)
class Listen:
    """Let the input listen, or not."""

    on: bool


@dataclass(frozen=True, slots=True)
class Button:
    """Tell the input of the button to talk."""

    pressed: bool


@dataclass(frozen=True, slots=True)
class KeepAlive:
    """Let connections know that somebody is there."""


@dataclass(frozen=True, slots=True)
class Resolve:
    """What a `SpeechHandle` waits for is known."""

    handle: int
    outcome: SpeechOutcome
    heard: str = ""


@dataclass(frozen=True, slots=True)
class Tell:
    """Tell those who listen to the session."""

    event: SessionEvent


@dataclass(frozen=True, slots=True)
class End:
    """End the pipeline."""

    reason: str


Effect = Cancel | Ask | Say | Commit | Pause | Listen | Button | KeepAlive | Resolve | Tell | End


class Step:
    """One step: ``s`` is the session, a copy that may be changed; ``effects`` is what is to be done, in order."""

    def __init__(self, data: SessionData, now_ns: int, event: str) -> None:
        self.s = copy.copy(data)
        self.now = now_ns
        self.event = event
        self.effects: list[Effect] = []

    def do(self, effect: Effect) -> None:
        """To be done."""
        self.effects.append(effect)

    def tell(self, event: SessionEvent) -> None:
        """To be told."""
        self.effects.append(Tell(event))

    def error(self, message: str, source: str = "session") -> None:
        """Something is wrong, and the session goes on."""
        self.s.counts = replace(self.s.counts, errors=self.s.counts.errors + 1)
        self.tell(SessionErrorTold(self.now, message, source))

    def resolve(self, handles: Iterable[int], outcome: SpeechOutcome, heard: str = "") -> None:
        """Those who wait for a speech need not wait longer."""
        for handle in handles:
            if handle:
                self.do(Resolve(handle, outcome, heard))

    def write(self, turn: Turn) -> Turn:
        """Write a turn down; gives it its number where it has none."""
        s = self.s
        if not turn.id:
            turn = replace(turn, id=s.next_turn)
            s.next_turn += 1
        s.turns = (*s.turns, turn)[-s.settings.history_turns :]
        s.counts = s.counts.plus_turn(turn.kind)
        return turn

    def active(self) -> None:
        """A person did or heard something."""
        self.s.active_ns = self.now

    def quiet(self) -> None:
        """From now on, both sides are silent."""
        self.s.idle_ns = self.now

    def ms_since(self, ns: int) -> float:
        """How long ago that was."""
        return (self.now - ns) / NS_PER_MS

    def drop_queue(self, *, all_of_it: bool = False) -> None:
        """What waits to be said is not said, but for what may not be interrupted."""
        kept: list[Speech] = []
        for speech in self.s.queue:
            if speech.interruptible or all_of_it:
                self.resolve((speech.handle,), SpeechOutcome.DROPPED)
            else:
                kept.append(speech)
        self.s.queue = tuple(kept)

    # --- the state ----------------------------------------------------------------------------------------------------

    def move(self) -> None:
        """Let the state be what the facts make it. Raises `ProcessorError` where the table does not have that."""
        s = self.s
        after = _state(s)
        if after is s.state:
            return
        check_transition(s.state, after)
        transition = Transition(self.now, s.state, after, self.event)
        s.transitions = (*s.transitions, transition)[-KEPT_TRANSITIONS:]
        self.tell(StateChanged(self.now, s.state, after))
        s.state, s.since_ns = after, self.now
        if s.ready_ns is None and after in OPEN:
            s.ready_ns = self.now

    def pace_output(self) -> None:
        """Silence the output while something is undecided, and let it go on afterwards."""
        s = self.s
        undecided = s.tentative is not None or s.guessed is not None
        wanted = s.closed_ns is None and (s.paused_ns is not None or undecided)
        if s.cut is not None and not wanted:
            # It is silent as it is. What its answer to the cut leads to is done before the rest of this step.
            return
        if wanted is not s.playout_paused:
            s.playout_paused = wanted
            self.do(Pause(wanted))


def _state(s: SessionData) -> State:
    """The state that the facts make."""
    if s.closed_ns is not None:
        return State.FAILED if s.ending is not None and s.ending.failed else State.CLOSED
    if s.started_ns is None:
        return State.IDLE
    if s.ending is not None:
        return State.CLOSING
    if not s.connected:
        return State.CONNECTING
    if s.paused_ns is not None:
        return State.PAUSED
    if s.tentative is not None or s.barged_in or (s.cut is not None and s.cut.kind is not None):
        return State.INTERRUPTED
    if s.answer is not None:
        # An output that is further away says later that it is silent.
        return State.SPEAKING if s.answer.playing and not s.playout_paused else State.PROCESSING
    return State.LISTENING if s.hears else State.WAITING_FOR_INPUT

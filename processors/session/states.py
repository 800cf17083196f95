"""What the session does about what happens: all of it, as a pure function over one table.

EVERYTHING that decides whose turn it is, when a turn has ended, whether speech is an interruption, what
enters the history and when the session is over must live in this file. `SessionController` only carries
events in and effects out.

::

    LISTENING ----- the user's turn has ended -----> PROCESSING
        ^                                              |     |
        |                              samples play    |     | the user speaks
        |                                              v     v
        +------------ played to its end ---------- SPEAKING  INTERRUPTED
        |                                              |         ^   |
        |                                              +---------+   | the user's turn has ended: PROCESSING
        +------------------------ no words ------------------------- +

Events are the frames themselves, which state facts. History is made of facts alone: the user's transcripts,
and of the bot what the playout ledger says was heard.
"""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from ...pipeline.errors import ProcessorError
from ...pipeline.frames import (
    BotStartedSpeakingFrame,
    Frame,
    InputFrame,
    Message,
    ResponseCutFrame,
    ResponsePlayedFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)


class State(enum.Enum):
    """Where the session stands."""

    LISTENING = "listening"
    """The bot has nothing to say; the user may speak."""
    PROCESSING = "processing"
    """An answer is being made; nothing of it is heard yet."""
    SPEAKING = "speaking"
    """Samples of the bot are being played."""
    INTERRUPTED = "interrupted"
    """The bot was cut, and the user's words for it are still to come."""
    CLOSED = "closed"
    """It is over; what still happens changes nothing."""


ALLOWED: Mapping[State, frozenset[State]] = {
    State.LISTENING: frozenset({State.PROCESSING}),
    State.PROCESSING: frozenset({State.SPEAKING, State.LISTENING, State.INTERRUPTED, State.CLOSED}),
    State.SPEAKING: frozenset({State.LISTENING, State.INTERRUPTED, State.CLOSED}),
    State.INTERRUPTED: frozenset({State.PROCESSING, State.LISTENING}),
    State.CLOSED: frozenset(),
}


@dataclass(frozen=True, slots=True)
class SessionStartedFrame(InputFrame):
    """The session has begun: the controller's own, where it has a greeting to give."""


@dataclass(frozen=True, slots=True)
class Settings:
    """What a session is asked to do; see `SessionController`."""

    instructions: str = ""
    greeting: str = ""
    farewells: frozenset[str] = frozenset()
    answer_unclear: bool = False
    history_turns: int = 100


@dataclass(frozen=True, slots=True)
class Turn:
    """What the user said, and what they heard of the answer."""

    user: str | None
    """None where the bot spoke unasked: a greeting."""
    at_ns: int
    """When the user's turn ended."""
    response: int = 0
    """The number of the answer."""
    heard: str = ""
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Session:
    """All that a session knows."""

    settings: Settings = field(default_factory=Settings)
    state: State = State.LISTENING
    user_speaking: bool = False
    unheard: int = 0
    """How many utterances have begun whose words are still to come."""
    words: tuple[str, ...] = ()
    """What the user has said in the turn that is going on."""
    turns: tuple[Turn, ...] = ()
    """The turns that have ended, and their answers; the newest ``history_turns`` of them."""

    @property
    def response(self) -> int:
        """The number of the newest answer; 0 before the first."""
        return self.turns[-1].response if self.turns else 0

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history. An answer of which nothing was heard is not in it: the user does not know it."""
        found: list[Message] = []
        if self.settings.instructions:
            found.append(Message("system", self.settings.instructions))
        for turn in self.turns:
            if turn.user is not None:
                found.append(Message("user", turn.user))
            if turn.heard:
                found.append(Message("assistant", turn.heard, cut=turn.cut))
        return tuple(found)


# --- effects: what the controller is to do ------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Cut what the bot says or is about to say."""

    reason: str


@dataclass(frozen=True, slots=True)
class Ask:
    """Open a response, and ask for the bot's answer."""

    messages: tuple[Message, ...]


@dataclass(frozen=True, slots=True)
class Say:
    """Open a response, and say this."""

    text: str


@dataclass(frozen=True, slots=True)
class Close:
    """End the session."""

    reason: str


Effect = Interrupt | Ask | Say | Close


@dataclass(frozen=True, slots=True)
class Opened:
    """The event that answers `Ask` and `Say`: the response has this number."""

    response: int


Step = tuple[Session, tuple[Effect, ...]]


def step(session: Session, event: Frame | Opened, now_ns: int) -> Step:
    """What ``event`` makes of the session at ``now_ns``, and what is to be done about it.

    Raises `ProcessorError` where that is a transition which `ALLOWED` does not have: a mistake in this file.
    """
    if session.state is State.CLOSED:
        return session, ()
    match event:
        case UserStartedSpeakingFrame():
            return _user_started(session)
        case UserStoppedSpeakingFrame():
            session = replace(session, user_speaking=False)
            return _end_turn(session, now_ns) if session.words and not session.unheard else (session, ())
        case TranscriptionFrame():
            return _understood(session, event.text, now_ns)
        case BotStartedSpeakingFrame():
            if event.response == session.response and session.state is State.PROCESSING:
                return _to(session, State.SPEAKING), ()
        case ResponsePlayedFrame():
            session = _heard(session, event.response, event.heard_text, cut=False)
            return _over(session, event.response, now_ns, cut=False)
        case ResponseCutFrame():
            session = _heard(session, event.response, event.heard_text, cut=True)
            return _over(session, event.response, now_ns, cut=True)
        case Opened():
            newest = replace(session.turns[-1], response=event.response)
            return replace(session, turns=(*session.turns[:-1], newest)), ()
        case SessionStartedFrame():
            return _open(session, Turn(None, now_ns)), (Say(session.settings.greeting),)
        case _:
            raise ProcessorError(f"A session knows nothing of {type(event).__name__}.")
    return session, ()


# --- the user -----------------------------------------------------------------------------------------------


def _user_started(session: Session) -> Step:
    session = replace(session, user_speaking=True, unheard=session.unheard + 1)
    if session.state in (State.PROCESSING, State.SPEAKING):
        return _to(session, State.INTERRUPTED), (Interrupt("the user spoke"),)
    return session, ()


def _understood(session: Session, text: str, now_ns: int) -> Step:
    session = replace(session, unheard=max(0, session.unheard - 1))
    if text and session.state is State.SPEAKING:
        # Said over the bot, with no start of speech before it. What was heard of the bot belongs before it in
        # the history, so the turn ends when the ledger has answered.
        session = replace(_to(session, State.INTERRUPTED), words=(*session.words, text))
        return session, (Interrupt("the user spoke"),)
    if text and session.state is State.PROCESSING:
        # Late: it belongs to the turn whose answer is under way, which is not the answer to all of it.
        session = _reopen(session)
        session, effects = _end_turn(replace(session, words=(*session.words, text)), now_ns)
        return session, (Interrupt("the turn went on"), *effects)
    if text:
        session = replace(session, words=(*session.words, text))
    if session.user_speaking or session.state in (State.PROCESSING, State.SPEAKING):
        return session, ()
    if session.words or session.settings.answer_unclear:
        return _end_turn(session, now_ns)
    return (_to(session, State.LISTENING) if session.state is State.INTERRUPTED else session), ()


def _end_turn(session: Session, now_ns: int) -> Step:
    """The user's turn has ended: ask for an answer."""
    turn = Turn(" ".join(session.words), now_ns)
    session = replace(_open(session, turn), words=())
    return session, (Ask(session.messages),)


def _open(session: Session, turn: Turn) -> Session:
    turns = (*session.turns, turn)[-session.settings.history_turns :]
    return replace(_to(session, State.PROCESSING), turns=turns)


def _reopen(session: Session) -> Session:
    """The newest turn has not ended after all: its words are to be said with those that follow.

    Its place in the history stays, for what may have been heard of the answer before it could be cut.
    """
    *before, newest = session.turns
    words = (newest.user,) if newest.user else ()
    turns = (*before, replace(newest, user=None))
    return replace(_to(session, State.INTERRUPTED), turns=turns, words=words)


# --- the bot ------------------------------------------------------------------------------------------------


def _heard(session: Session, response: int, text: str, *, cut: bool) -> Session:
    """Write down what was heard of an answer, at its place."""
    turns = tuple(replace(turn, heard=text, cut=cut) if turn.response == response else turn for turn in session.turns)
    return replace(session, turns=turns)


def _over(session: Session, response: int, now_ns: int, *, cut: bool) -> Step:
    """Nothing more will be heard of a response."""
    if response != session.response:
        return session, ()
    if session.state is State.INTERRUPTED and session.words and not session.user_speaking:
        return _end_turn(session, now_ns)
    if session.state not in (State.PROCESSING, State.SPEAKING):
        return session, ()
    if not cut and session.turns[-1].user in session.settings.farewells:
        return _to(session, State.CLOSED), (Close("the user said good bye"),)
    # Where it was cut in these states, it was by somebody else: a button, a test.
    return _to(session, State.LISTENING), ()


def _to(session: Session, state: State) -> Session:
    if state not in ALLOWED[session.state]:
        possible = ", ".join(sorted(other.name for other in ALLOWED[session.state])) or "nowhere"
        raise ProcessorError(
            f"A session cannot go from {session.state.name} to {state.name}; from there it goes to: {possible}."
        )
    return replace(session, state=state)

"""What a session knows: its records, and everything between two events as one value, `SessionData`.

Times are nanoseconds of the worker's clock. Records are immutable. `step` makes a copy of a `SessionData` and changes
that, so for everybody else it is a value, too.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ...pipeline.frames import Message, ToolCall
from .endpointing import Endpointing
from .pause_estimator import Pauses
from .settings import SessionSettings
from .states import State

KEPT_TRANSITIONS = 1_000
"""Of the transitions and interruptions, the newest are kept; what is counted counts all."""


# --- records ---------------------------------------------------------------------------------------------------------


class TurnKind(enum.Enum):
    """Whose turn, and how."""

    USER_AUDIO = "user_audio"
    USER_TEXT = "user_text"
    ASSISTANT = "assistant"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"


@dataclass(frozen=True, slots=True)
class Turn:
    """What was said by one side, or a tool's part."""

    id: int
    kind: TurnKind
    start_ns: int
    end_ns: int
    text: str
    """Of the bot: what was heard of it."""
    audio_ms: float = 0.0
    interrupted: bool = False
    response: int = 0
    """The number of the bot's response that it is, or is answered by."""
    latency_ms: float | None = None
    """Of the bot: from the end of the user's turn to its first sample."""
    call_id: str = ""
    """Of a tool's turns."""


class InterruptionKind(enum.Enum):
    """What an interruption was."""

    SPEECH = "speech"
    """The user spoke."""
    REQUEST = "request"
    """The user said "stop", or one of its like."""
    MANUAL = "manual"
    """A client's button, a typed message, code."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """One response that was cut, and where."""

    kind: InterruptionKind
    at_ns: int
    """When the bot was silenced."""
    response: int
    heard_ms: float
    heard_chars: int
    user_text: str = ""
    """What the user said over it; empty until they are done."""


@dataclass(frozen=True, slots=True)
class Transition:
    """One change of state."""

    at_ns: int
    before: State
    after: State
    event: str
    """What led to it: the name of a frame, or of a time-out."""


class SpeechOutcome(enum.Enum):
    """What became of something that was to be said."""

    PLAYED = "played"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    """A service failed, or nothing was heard of it in time."""
    DROPPED = "dropped"
    """It never began: the session was closed, or what was waiting was interrupted."""


# --- what is going on ------------------------------------------------------------------------------------------------


class SpeechKind(enum.Enum):
    """Why the bot says something that no model made."""

    SAY = "say"
    GREETING = "greeting"
    PROMPT = "prompt"
    APOLOGY = "apology"
    GOODBYE = "goodbye"


@dataclass(frozen=True, slots=True)
class Speech:
    """Something to be said."""

    kind: SpeechKind
    text: str
    handle: int = 0
    interruptible: bool = True


@dataclass(frozen=True, slots=True)
class Response:
    """A response of the bot that is under way."""

    number: int
    """0 until it is opened, in the same step."""
    since_ns: int
    """Since when nothing is heard of it."""
    speech: Speech | None = None
    """None: the model's answer."""
    handles: tuple[int, ...] = ()
    interruptible: bool = True
    asked_ns: int | None = None
    """End of the user's turn that it answers."""
    begun_ns: int | None = None
    """When its first sample was played."""
    playing: bool = False
    failed: bool = False
    """An error was told of while it was made."""
    guess: str | None = None
    """What the user will have said, if the response is a guess."""
    tools: int = 0
    """How many tools were called for it."""


@dataclass(frozen=True, slots=True)
class Tentative:
    """The bot is silenced, and whether it is cut is to be seen."""

    response: int
    since_ns: int
    onset_ns: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A response was cut; what was heard of it is to be told by the ledger."""

    response: Response
    kind: InterruptionKind | None
    """None: the session gave it up, which is no interruption."""
    decided_ns: int
    silent_ns: int
    """When the output was silenced for it: then or before."""
    user_text: str
    outcome: SpeechOutcome


class Fate(enum.Enum):
    """What becomes of the words of an utterance."""

    KEPT = "kept"
    MUTED = "muted"
    """Begun while the user is not listened to: kept only if that is over before the utterance is."""
    DROPPED = "dropped"
    LATE = "late"
    """Their turn was ended without them."""


@dataclass(frozen=True, slots=True)
class Utterance:
    """A stretch of the user's speech whose words are still to come."""

    fate: Fate
    onset_ns: int
    stopped_ns: int | None = None
    late_ns: int | None = None
    """When its turn was ended without its words."""
    words_ns: int | None = None
    """When a piece of it came while it went on."""


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """The user's turn that is not over."""

    words: tuple[str, ...] = ()
    start_ns: int | None = None
    audio_ms: float = 0.0
    unclear: bool = False
    """An utterance in it was not understood."""
    typed: bool = False
    """Text came from a keyboard: the turn is over as soon as the bot is free."""
    forced: bool = False
    """It has gone on for too long, and is over."""
    handles: tuple[int, ...] = ()
    again: Turn | None = None
    """The turn that this one goes on."""
    tries: int = 0
    """How many guesses were made of it."""

    @property
    def text(self) -> str:
        """All of its words."""
        return " ".join(self.words)

    def __bool__(self) -> bool:
        return bool(self.words) or self.unclear


@dataclass(frozen=True, slots=True)
class Ending:
    """The session is about to end."""

    reason: str
    since_ns: int
    goodbye: str = ""
    """What is still to be said."""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Everything that is counted. Sums are over all turns, also those that are not kept any more."""

    turns: tuple[tuple[TurnKind, int], ...] = tuple((kind, 0) for kind in TurnKind)
    interruptions: tuple[tuple[InterruptionKind, int], ...] = tuple((kind, 0) for kind in InterruptionKind)
    answers_cut: int = 0
    heard_ms_at_cut: float = 0.0
    false_interruptions: int = 0
    ignored: int = 0
    """Utterances that were not taken: backchannels, speech while muted."""
    latency_ms: float = 0.0
    latencies: int = 0
    user_audio_ms: float = 0.0
    bot_audio_ms: float = 0.0
    user_chars: int = 0
    bot_chars: int = 0
    input_tokens: int = 0
    output_tokens: int = 0
    errors: int = 0
    guesses: int = 0
    guesses_played: int = 0

    def of(self, kind: TurnKind) -> int:
        """How many turns of a kind."""
        return dict(self.turns)[kind]

    def interrupted(self, kind: InterruptionKind | None = None) -> int:
        """How many interruptions, of a kind or in all."""
        return sum(count for which, count in self.interruptions if kind in (None, which))

    @property
    def messages(self) -> int:
        """Turns of the user and of the bot."""
        return self.of(TurnKind.USER_AUDIO) + self.of(TurnKind.USER_TEXT) + self.of(TurnKind.ASSISTANT)

    def plus_turn(self, kind: TurnKind, count: int = 1) -> Counts:
        """With one more turn."""
        return replace(self, turns=tuple((which, n + count * (which is kind)) for which, n in self.turns))

    def plus_interruption(self, kind: InterruptionKind) -> Counts:
        """With one more interruption."""
        return replace(self, interruptions=tuple((which, n + (which is kind)) for which, n in self.interruptions))


@dataclass(slots=True)
class SessionData:
    """Everything that a session knows between two events."""

    settings: SessionSettings = field(default_factory=SessionSettings)
    mutes: tuple[Callable[[SessionData], bool], ...] = ()
    """Mute strategies of the user's own, beside those that `SessionSettings.mute` names."""
    endpointing: Endpointing | None = None
    """An endpointing strategy of the user's own, in the place of that which the settings name."""
    state: State = State.IDLE
    since_ns: int = 0
    """Since when it is in that state."""

    # Its life.
    created_ns: int = 0
    started_ns: int | None = None
    connected_ns: int | None = None
    """When the client was there for the first time."""
    ready_ns: int | None = None
    """When the user was first listened to."""
    active_ns: int = 0
    """When something last happened that a person did or heard."""
    idle_ns: int = 0
    """Since when both sides are silent."""
    idle_step: int = 0
    """How far up the ladder it is."""
    kept_alive_ns: int = 0
    closed_ns: int | None = None
    connected: bool = False
    announced: bool = False
    """A `ClientConnectedFrame` came: of this transport, a client that has gone may come back."""
    away_ns: int = 0
    """Since when it waits for the client."""
    paused_ns: int | None = None
    listening: bool = True
    input_ended: bool = False
    ending: Ending | None = None
    bot_spoke: bool = False
    """The bot's first speech is over."""

    # The user.
    user_speaking: bool = False
    utterances: tuple[Utterance, ...] = ()
    turn: OpenTurn = field(default_factory=OpenTurn)
    pieces: tuple[tuple[str, float], ...] = ()
    """What was said over the bot while it is not decided what that means: texts, with their length in ms."""
    barged_in: bool = False
    """The bot was cut, and the words for it are not complete."""
    interim: str = ""
    interim_ns: int = 0
    """Since when that has not changed."""
    speech_end_ns: int | None = None
    """When the user's speech ended; None while they speak."""
    final_ns: int | None = None
    """When the newest transcript came."""
    probability: float | None = None
    """What the turn model thinks: is the turn over?"""
    pauses: Pauses = field(default_factory=Pauses)

    # The bot.
    response: Response | None = None
    queue: tuple[Speech, ...] = ()
    """What is to be said when the bot is free."""
    tentative: Tentative | None = None
    cut: Cut | None = None
    tools: tuple[str, ...] = ()
    """Those that run."""
    playout_paused: bool = False

    # Records.
    turns: tuple[Turn, ...] = ()
    next_turn: int = 1
    interruptions: tuple[Interruption, ...] = ()
    transitions: tuple[Transition, ...] = ()
    counts: Counts = field(default_factory=Counts)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history, as a model is told it: what was said, of the bot what was heard, and what tools gave."""
        found = [Message("system", self.settings.instructions)] if self.settings.instructions else []
        for turn in self.turns:
            if turn.kind in (TurnKind.USER_AUDIO, TurnKind.USER_TEXT):
                found.append(Message("user", turn.text))
            elif turn.kind is TurnKind.ASSISTANT and turn.text:
                found.append(Message("assistant", turn.text, cut=turn.interrupted))
            elif turn.kind is TurnKind.TOOL_CALL:
                name, _, arguments = turn.text.partition(" ")
                found.append(Message("assistant", "", calls=(ToolCall(turn.call_id, name, arguments),)))
            elif turn.kind is TurnKind.TOOL_RESULT:
                found.append(Message("tool", turn.text, call_id=turn.call_id))
        return tuple(found)

    @property
    def answer(self) -> Response | None:
        """The response under way, if it is meant to be heard."""
        return None if self.response is None or self.response.guess is not None else self.response

    @property
    def guessed(self) -> Response | None:
        """The response under way, if it is a guess."""
        return None if self.response is None or self.response.guess is None else self.response

    @property
    def muted(self) -> bool:
        """Whether the user is not listened to, by a mute strategy or because the bot may not be interrupted."""
        response = self.response
        mute = self.settings.mute
        return (
            self._uninterruptible
            or ("first_speech" in mute and not self.bot_spoke)
            or ("tools" in mute and bool(self.tools))
            or ("speaking" in mute and response is not None and response.begun_ns is not None)
            or any(strategy(self) for strategy in self.mutes)
        )

    @property
    def _uninterruptible(self) -> bool:
        """Whether something is said that may not be interrupted."""
        response = self.answer
        if response is None or response.interruptible:
            return False
        # As long as nothing is heard of an answer, the user does not interrupt it: their turn goes on.
        return response.speech is not None or response.begun_ns is not None

    @property
    def hears(self) -> bool:
        """Whether what the user says is for the session at all."""
        return (
            self.connected
            and self.listening
            and self.paused_ns is None
            and self.ending is None
            and self.settings.endpointing.strategy != "text"
        )

    @property
    def awaited(self) -> bool:
        """Whether words of the user are still to come that count."""
        return any(utterance.fate is Fate.KEPT for utterance in self.utterances)

    @property
    def free(self) -> bool:
        """Whether the bot may begin to say something."""
        return self.response is None and self.cut is None and self.tentative is None

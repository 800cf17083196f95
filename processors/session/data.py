"""The data of a session: the settings and four records (user, bot, lifecycle, history) that `step` maps to the next.

Times are nanoseconds of the worker's clock. `step` copies a `SessionData` and its four records, and changes the copies;
everything inside of the records is immutable. Other code treats a `SessionData` as a value.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass, field, replace

from ...pipeline.frames import Message, ToolCall
from .endpointing import Endpointing
from .pause_estimator import PauseEstimator
from .settings import SessionSettings
from .states import State

KEPT_TRANSITIONS = 1_000
"""Limit for the kept state transitions and for the kept interruptions: the newest stay. Counters count all."""


# --- entries of the history ------------------------------------------------------------------------------------------


class TurnKind(enum.Enum):
    """The side that a turn belongs to, and its medium."""

    USER_AUDIO = "user_audio"
    USER_TEXT = "user_text"
    ASSISTANT = "assistant"
    TOOL_CALL = "tool_call"
    TOOL_RESULT = "tool_result"


@dataclass(frozen=True, slots=True)
class Turn:
    """A turn of the user or the bot, a tool call, or a tool result."""

    id: int
    kind: TurnKind
    start_ns: int
    end_ns: int
    text: str
    """A turn of the bot contains only the text that was heard."""
    audio_ms: float = 0.0
    interrupted: bool = False
    response: int = 0
    """The number of the bot's response: the turn itself, or the response that answers it."""
    latency_ms: float | None = None
    """For a turn of the bot: time from the end of the user's turn to the bot's first sample."""
    call_id: str = ""
    """For a tool call and its result: the id of the call."""


class InterruptionKind(enum.Enum):
    """The cause of an interruption."""

    SPEECH = "speech"
    """The user spoke."""
    REQUEST = "request"
    """The user said a keyword, such as "stop"."""
    MANUAL = "manual"
    """A client's button, a typed message, or code."""


@dataclass(frozen=True, slots=True)
class Interruption:
    """A response that was cut, and the part of it that was heard."""

    kind: InterruptionKind
    at_ns: int
    """The time at which the bot fell silent."""
    response: int
    heard_ms: float
    heard_chars: int
    user_text: str = ""
    """The user's words over the bot; empty until their turn ends."""


@dataclass(frozen=True, slots=True)
class StateTransition:
    """A change of the session's state."""

    at_ns: int
    before: State
    after: State
    event: str
    """The cause: the name of a frame's class, or of a time-out."""


class SpeechOutcome(enum.Enum):
    """The outcome of a speech or an answer."""

    PLAYED = "played"
    INTERRUPTED = "interrupted"
    FAILED = "failed"
    """A service failed, or nothing was heard in time."""
    DROPPED = "dropped"
    """Playback never started: the session closed, or an interruption dropped the queue."""


# --- parts of the four records ---------------------------------------------------------------------------------------


class SpeechKind(enum.Enum):
    """The purpose of a speech that no model made."""

    SAY = "say"
    GREETING = "greeting"
    PROMPT = "prompt"
    APOLOGY = "apology"
    GOODBYE = "goodbye"


@dataclass(frozen=True, slots=True)
class Speech:
    """A text for the bot to say."""

    kind: SpeechKind
    text: str
    handle: int = 0
    interruptible: bool = True


@dataclass(frozen=True, slots=True)
class Response:
    """The bot's current response."""

    number: int
    since_ns: int
    """Start of the time in which nothing of the response was heard."""
    speech: Speech | None = None
    """None for the model's answer."""
    handles: tuple[int, ...] = ()
    interruptible: bool = True
    asked_ns: int | None = None
    """End of the user's turn that the response answers."""
    first_sample_ns: int | None = None
    """Time at which the first sample was played."""
    playing: bool = False
    failed: bool = False
    """An `ErrorFrame` named this response."""
    guess: str | None = None
    """For a preemptive response: the user's words as they were guessed."""
    tools: int = 0
    """Number of tools that were called for the response."""


@dataclass(frozen=True, slots=True)
class Tentative:
    """A tentative interruption: the output is paused until words or a time-out decide."""

    response: int
    since_ns: int
    onset_ns: int


@dataclass(frozen=True, slots=True)
class Cut:
    """A cut response whose heard part the playout ledger has not reported yet."""

    response: Response
    kind: InterruptionKind | None
    """None: the session gave the response up, which is no interruption."""
    decided_ns: int
    silent_ns: int
    """Time at which the output was paused or cut, whichever came first."""
    user_text: str
    outcome: SpeechOutcome


class Fate(enum.Enum):
    """The treatment of an utterance's transcript."""

    KEPT = "kept"
    MUTED = "muted"
    """The utterance started while muted. Its words count only if the mute ends before the utterance."""
    DROPPED = "dropped"
    LATE = "late"
    """The turn ended without these words."""


@dataclass(frozen=True, slots=True)
class PendingUtterance:
    """A stretch of the user's speech whose final transcript has not come yet."""

    fate: Fate
    onset_ns: int
    stopped_ns: int | None = None
    late_ns: int | None = None
    """Time at which its turn ended without its words."""
    words_ns: int | None = None
    """Time of the newest partial transcript that came during the utterance."""


@dataclass(frozen=True, slots=True)
class OpenTurn:
    """The user's current turn."""

    words: tuple[str, ...] = ()
    start_ns: int | None = None
    audio_ms: float = 0.0
    unclear: bool = False
    """The turn contains an utterance without an intelligible word."""
    typed: bool = False
    """The turn contains typed text: it ends as soon as the bot is free."""
    forced: bool = False
    """The watchdog ended the turn."""
    handles: tuple[int, ...] = ()
    reopened: Turn | None = None
    """The recorded turn that this one continues."""
    tries: int = 0
    """Number of guesses made during the turn."""

    @property
    def text(self) -> str:
        """All of its words."""
        return " ".join(self.words)

    def __bool__(self) -> bool:
        return bool(self.words) or self.unclear


@dataclass(frozen=True, slots=True)
class Ending:
    """The reason and the remaining steps of a session that is closing."""

    reason: str
    since_ns: int
    goodbye: str = ""
    """The goodbye that is still to be said."""
    failed: bool = False


@dataclass(frozen=True, slots=True)
class Counts:
    """Counters and sums over all turns, including turns that the history no longer keeps."""

    turns: tuple[tuple[TurnKind, int], ...] = tuple((kind, 0) for kind in TurnKind)
    interruptions: tuple[tuple[InterruptionKind, int], ...] = tuple((kind, 0) for kind in InterruptionKind)
    answers_cut: int = 0
    heard_ms_at_cut: float = 0.0
    false_interruptions: int = 0
    ignored: int = 0
    """Utterances that were ignored: backchannels, speech while muted."""
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
        """Return the number of turns of a kind."""
        return dict(self.turns)[kind]

    def interrupted(self, kind: InterruptionKind | None = None) -> int:
        """Return the number of interruptions of a kind, or of all kinds."""
        return sum(count for which, count in self.interruptions if kind in (None, which))

    @property
    def messages(self) -> int:
        """Number of turns of the user and of the bot."""
        return self.of(TurnKind.USER_AUDIO) + self.of(TurnKind.USER_TEXT) + self.of(TurnKind.ASSISTANT)

    def plus_turn(self, kind: TurnKind, count: int = 1) -> Counts:
        """Return a copy with one more turn."""
        return replace(self, turns=tuple((which, n + count * (which is kind)) for which, n in self.turns))

    def plus_interruption(self, kind: InterruptionKind) -> Counts:
        """Return a copy with one more interruption."""
        return replace(self, interruptions=tuple((which, n + (which is kind)) for which, n in self.interruptions))


# --- the four records ------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class UserData:
    """The user's side: their speech, their words, and their current turn."""

    speaking: bool = False
    utterances: tuple[PendingUtterance, ...] = ()
    turn: OpenTurn = field(default_factory=OpenTurn)
    overlap: tuple[tuple[str, float], ...] = ()
    """Words over the bot before the interruption is decided: texts, each with its length in ms."""
    barged_in: bool = False
    """The user's speech cut the bot, and their turn is not complete."""
    interim: str = ""
    interim_ns: int = 0
    """Time of the newest change of ``interim``."""
    speech_end_ns: int | None = None
    """End of the user's speech; None while they speak."""
    final_ns: int | None = None
    """Time of the newest final transcript."""
    turn_probability: float | None = None
    """The turn model's probability that the turn has ended."""
    pauses: PauseEstimator = field(default_factory=PauseEstimator)

    @property
    def words_awaited(self) -> bool:
        """True while a final transcript that counts is still to come."""
        return any(utterance.fate is Fate.KEPT for utterance in self.utterances)


@dataclass(slots=True)
class BotData:
    """The bot's side: its response, its queue, and the state of its output."""

    response: Response | None = None
    queue: tuple[Speech, ...] = ()
    """Speech that waits until the bot is free."""
    tentative: Tentative | None = None
    cut: Cut | None = None
    tools: tuple[str, ...] = ()
    """Ids of the running tool calls."""
    playout_paused: bool = False
    has_spoken: bool = False
    """The bot's first speech has ended."""

    @property
    def answer(self) -> Response | None:
        """The current response, unless it is a guess."""
        return None if self.response is None or self.response.guess is not None else self.response

    @property
    def guess(self) -> Response | None:
        """The current response, if it is a guess."""
        return None if self.response is None or self.response.guess is None else self.response

    @property
    def free(self) -> bool:
        """True while no response, no cut and no tentative interruption keeps the bot from speaking."""
        return self.response is None and self.cut is None and self.tentative is None

    @property
    def uninterruptible(self) -> bool:
        """True while the bot says something that the user may not interrupt.

        Before the first sample of an answer is heard, the user does not interrupt it: their turn continues.
        """
        response = self.answer
        if response is None or response.interruptible:
            return False
        return response.speech is not None or response.first_sample_ns is not None


@dataclass(slots=True)
class LifecycleData:
    """Start, connection, pause and end of the session, and the times that its limits count from."""

    created_ns: int = 0
    started_ns: int | None = None
    connected_ns: int | None = None
    """Time of the first connection."""
    ready_ns: int | None = None
    """Time from which the user was first heard."""
    active_ns: int = 0
    """Time of the newest thing that a person did or heard."""
    idle_ns: int = 0
    """Start of the silence of both sides."""
    idle_step: int = 0
    """Number of steps of the idle ladder that were said."""
    kept_alive_ns: int = 0
    closed_ns: int | None = None
    connected: bool = False
    announced: bool = False
    """A `ClientConnectedFrame` came, so a client of this transport may return after it left."""
    away_ns: int = 0
    """Start of the wait for the client."""
    paused_ns: int | None = None
    listening: bool = True
    input_ended: bool = False
    ending: Ending | None = None


@dataclass(slots=True)
class HistoryData:
    """Turns, interruptions, state transitions and counters."""

    turns: tuple[Turn, ...] = ()
    next_turn: int = 1
    interruptions: tuple[Interruption, ...] = ()
    transitions: tuple[StateTransition, ...] = ()
    counts: Counts = field(default_factory=Counts)


@dataclass(slots=True)
class SessionData:
    """The complete data of a session between two events: settings, state and four records."""

    settings: SessionSettings = field(default_factory=SessionSettings)
    mutes: tuple[Callable[[SessionData], bool], ...] = ()
    """Custom mute strategies, beside those that `SessionSettings.mute` names."""
    endpointing: Endpointing | None = None
    """A custom endpointing strategy; None for the one that the settings name."""
    state: State = State.IDLE
    state_since_ns: int = 0
    """Time of the newest change of ``state``."""
    user: UserData = field(default_factory=UserData)
    bot: BotData = field(default_factory=BotData)
    lifecycle: LifecycleData = field(default_factory=LifecycleData)
    history: HistoryData = field(default_factory=HistoryData)

    @property
    def messages(self) -> tuple[Message, ...]:
        """The history as messages for a model: the user's words, the heard words of the bot, tool calls and results."""
        found = [Message("system", self.settings.instructions)] if self.settings.instructions else []
        for turn in self.history.turns:
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
    def muted(self) -> bool:
        """True while a mute strategy applies or the bot may not be interrupted."""
        bot, mute = self.bot, self.settings.mute
        return (
            bot.uninterruptible
            or ("first_speech" in mute and not bot.has_spoken)
            or ("tools" in mute and bool(bot.tools))
            or ("speaking" in mute and bot.response is not None and bot.response.first_sample_ns is not None)
            or any(strategy(self) for strategy in self.mutes)
        )

    @property
    def hears(self) -> bool:
        """True while the session takes the user's speech at all."""
        lifecycle = self.lifecycle
        return (
            lifecycle.connected
            and lifecycle.listening
            and lifecycle.paused_ns is None
            and lifecycle.ending is None
            and self.settings.endpointing.strategy != "text"
        )

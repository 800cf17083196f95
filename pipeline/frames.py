"""Frames: what flows through a pipeline.

A frame is a small immutable value. Two frames are equal when they carry the same, so a test can compare them.
Who made a frame, when, and for which response of the bot is not in it: the kernel knows that.

Each class says three things about itself:

``lane``
    Within a lane nothing ever reorders. `UrgentFrame` overtakes everything; `InputFrame` is what the user's side
    produced (audio, words, facts about what was heard); `OutputFrame` is what the bot's side produced.
``survives``
    An interruption drops the queued output of the response that it cuts. A class with ``survives = True`` is kept:
    the result of a tool, for example.
``at_bound``
    What happens where a queue is full: `AtBound.HOLD` makes whoever fills it wait (and is an error where nobody
    can wait), `AtBound.DROP_OLDEST` forgets the oldest of its kind, which is right for a microphone.

Your own frame is a frozen, slotted dataclass with one of the three as its base::

    @dataclass(frozen=True, slots=True)
    class MoodFrame(OutputFrame):
        mood: str
"""

from __future__ import annotations

import enum
from dataclasses import fields, replace
from typing import Any, ClassVar, Self, cast

import numpy as np
import numpy.typing as npt

from .errors import FrameError
from .frozen import Frozen, frozen

Samples = npt.NDArray[np.int16]
"""PCM: shape ``(n,)`` for mono, ``(n, channels)`` otherwise, dtype int16."""


class Lane(enum.Enum):
    """Which queue a class of frames waits in. See `docs/design/frames.md`."""

    URGENT = "urgent"
    INPUT = "input"
    OUTPUT = "output"


class Direction(enum.Enum):
    """Which way a frame travels."""

    DOWNSTREAM = "down"
    UPSTREAM = "up"


DOWNSTREAM = Direction.DOWNSTREAM
UPSTREAM = Direction.UPSTREAM


class AtBound(enum.Enum):
    """What a full queue does with one more frame of a class."""

    HOLD = "hold"
    DROP_OLDEST = "drop oldest"


@frozen
class Frame(Frozen):
    """The base of all frames. Derive from `InputFrame`, `OutputFrame` or `UrgentFrame`."""

    lane: ClassVar[Lane] = Lane.OUTPUT
    survives: ClassVar[bool] = False
    at_bound: ClassVar[AtBound] = AtBound.HOLD

    @property
    def queue_ms(self) -> float:
        """How much of a queue that is bounded in time this frame takes, in ms; 0 for what has no length."""
        return 0.0


@frozen
class UrgentFrame(Frame):
    """Overtakes everything: cancel and error."""

    lane: ClassVar[Lane] = Lane.URGENT
    survives: ClassVar[bool] = True


@frozen
class InputFrame(Frame):
    """What the user's side produced, and facts about what the user heard. No interruption drops it."""

    lane: ClassVar[Lane] = Lane.INPUT
    survives: ClassVar[bool] = True


@frozen
class OutputFrame(Frame):
    """What the bot's side produced. It belongs to a response, and goes when that is interrupted."""

    lane: ClassVar[Lane] = Lane.OUTPUT


class _Audio:
    """What `InputAudioFrame` and `OutputAudioFrame` have in common."""

    __slots__ = ()
    samples: Samples
    sample_rate: int

    def _check(self) -> None:
        samples = cast(Any, self.samples)
        if not (isinstance(samples, np.ndarray) and self.samples.dtype == np.int16 and self.samples.ndim in (1, 2)):
            what = getattr(cast(Any, samples), "dtype", type(self.samples).__name__)
            raise FrameError(
                f"{type(self).__name__}: samples must be a numpy array of int16 with shape (n,) or (n, channels), "
                f"not {what} with shape {getattr(self.samples, 'shape', None)}. "
                "Floats in [-1, 1] are turned into it by voxline.pipeline.audio.to_int16()."
            )
        if self.sample_rate <= 0:
            raise FrameError(f"{type(self).__name__}: sample_rate must be > 0 Hz, not {self.sample_rate}.")

    @property
    def channels(self) -> int:
        """Number of channels."""
        return 1 if self.samples.ndim == 1 else self.samples.shape[1]

    @property
    def duration_ms(self) -> float:
        """Length in ms."""
        return len(self.samples) * 1000.0 / self.sample_rate

    @property
    def queue_ms(self) -> float:
        """Its length: audio queues are bounded in time."""
        return self.duration_ms

    def with_samples(self, samples: Samples, sample_rate: int | None = None) -> Self:
        """The same frame with other samples (and, if given, another rate in Hz)."""
        rate = self.sample_rate if sample_rate is None else sample_rate
        return replace(self, samples=samples, sample_rate=rate)  # type: ignore[type-var]  # the dataclasses below

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(
            np.array_equal(self.samples, cast(Self, other).samples)
            if field.name == "samples"
            else getattr(self, field.name) == getattr(other, field.name)
            for field in fields(cast(Any, self))
        )

    def __hash__(self) -> int:
        return hash((type(self), self.sample_rate, self.samples.tobytes()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.duration_ms:g} ms, {self.sample_rate} Hz, {self.channels} ch)"


# --- urgent ----------------------------------------------------------------------------------------------------------


@frozen
class CancelFrame(UrgentFrame):
    """Everything of the responses up to ``response`` is cut: drop what you hold of it.

    The kernel delivers it, exactly once, to every processor that names it; it is not pushed on. See
    `FrameProcessor.interrupt`.
    """

    response: int
    reason: str = "interrupted"


@frozen
class ErrorFrame(UrgentFrame):
    """Something went wrong in one processor; the conversation goes on. Travels upstream.

    ``processor`` is the path of the one that failed, ``frame`` the name of the class of frame that it had.
    """

    message: str
    processor: str = ""
    frame: str = ""
    error: str = ""
    """The class name of the exception."""


@frozen
class PausePlayoutFrame(UrgentFrame):
    """Be silent at once, and keep what is not played yet. The session's order to the output; travels downstream."""


@frozen
class ResumePlayoutFrame(UrgentFrame):
    """Go on where the playout was paused. Travels downstream."""


@frozen
class ResponseCommittedFrame(UrgentFrame):
    """A response that was begun on a guess is wanted after all: tools may run for it now. Travels downstream."""

    response: int


@frozen
class KeepAliveFrame(UrgentFrame):
    """Nothing has happened for a while, and connections are to stay open. Travels both ways, from the session."""


@frozen
class ListenFrame(UrgentFrame):
    """Listen to the user, or do not: the session's order to what hears. Travels upstream."""

    on: bool


# --- input -----------------------------------------------------------------------------------------------------------


@frozen
class ClientConnectedFrame(InputFrame):
    """The user's client is there: audio can go both ways."""


@frozen
class ClientDisconnectedFrame(InputFrame):
    """The user's client is gone; it may come back."""

    reason: str = ""


@frozen
class TalkButtonFrame(InputFrame):
    """The user pressed the button to talk, or let it go."""

    pressed: bool


@frozen
class TurnProbabilityFrame(InputFrame):
    """How likely it is, after what the user said last, that their turn is over: 0 to 1. From a turn model."""

    probability: float


@frozen
class InputAudioFrame(_Audio, InputFrame):
    """Audio from the user. ``pts_ns``: when its first sample was captured, in ns on the transport's stream clock."""

    at_bound: ClassVar[AtBound] = AtBound.DROP_OLDEST

    samples: Samples
    sample_rate: int
    pts_ns: int | None = None

    def __post_init__(self) -> None:
        self._check()


@frozen
class InputTextFrame(InputFrame):
    """Text that the user typed. ``interrupt``: the bot is cut for it, or it waits until the bot is silent."""

    text: str
    interrupt: bool = True


@frozen
class UserStartedSpeakingFrame(InputFrame):
    """The user began to speak, ``onset_ms`` before this frame was made (what the detector waited to be sure)."""

    onset_ms: float = 0.0


@frozen
class UserStoppedSpeakingFrame(InputFrame):
    """The user stopped, ``silence_ms`` before this frame was made."""

    silence_ms: float = 0.0


@frozen
class InterimTranscriptionFrame(InputFrame):
    """What the user seems to be saying; it may change."""

    text: str


@frozen
class HeardWord(Frozen):
    """A word that the user said, in ms from the beginning of the audio that it was understood from."""

    text: str
    start_ms: float
    end_ms: float


@frozen
class TranscriptionFrame(InputFrame):
    """What the user said. An empty text says that speech was heard and no word understood."""

    text: str
    audio_ms: float = 0.0
    """Length of the speech it was made from."""
    decode_ms: float = 0.0
    """How long the recogniser worked after it had all of the audio."""
    more: bool = False
    """A piece of a long utterance, of which there is more to come."""
    words: tuple[HeardWord, ...] = ()
    """When they were said, where the recogniser tells."""
    failed: bool = False
    """No recogniser could be asked: the words, if there were any, are lost."""


@frozen
class InputEndedFrame(InputFrame):
    """Nothing more will come from the user: the file is read, the caller has hung up."""


@frozen
class BotStartedSpeakingFrame(InputFrame):
    """The first sample of a response is being played. A fact from the output; travels upstream."""

    response: int


@frozen
class BotStoppedSpeakingFrame(InputFrame):
    """Nothing of a response is being played any more. A fact from the output; travels upstream."""

    response: int


@frozen
class ResponsePlayedFrame(InputFrame):
    """A response was played to its end. From the playout ledger; travels upstream."""

    response: int
    heard_ms: float
    heard_text: str


@frozen
class ResponseCutFrame(InputFrame):
    """A response was cut after ``heard_ms`` of its audio; ``heard_text`` is what the user heard of its words.

    The playout ledger's answer to a cancel; travels upstream, once for each response that was cut.
    """

    response: int
    heard_ms: float
    heard_text: str
    reason: str = "interrupted"


@frozen
class ToolCallFrame(InputFrame):
    """A tool has begun to run. A fact from the language model's side; travels upstream."""

    call_id: str
    name: str
    arguments: str = "{}"
    """As JSON."""


@frozen
class ToolResultFrame(InputFrame):
    """A tool has ended, with ``text``; travels upstream. There is one for each `ToolCallFrame`."""

    call_id: str
    text: str


@frozen
class UsageFrame(InputFrame):
    """What a language model has counted for one request; travels upstream."""

    input_tokens: int
    output_tokens: int


@frozen
class ServiceMetricsFrame(InputFrame):
    """How one request to a service went; travels upstream. Of those that were interrupted there is none."""

    service: str
    """Which one gave the answer: the name of an STT, LLM or TTS; empty where none did."""
    kind: str
    """stt, llm or tts."""
    response: int
    """For which response; 0 for what the user said."""
    first_ms: float | None
    """From the question (of an STT: from the end of the speech) to the first of the answer. None: there was none."""
    total_ms: float
    """To the last of it; an output that is full holds it up."""
    amount: float
    """STT: ms of audio heard. LLM: characters written. TTS: characters spoken."""
    errors: tuple[str, ...] = ()
    """Class names of the errors on the way, in order: so many attempts were in vain."""


# --- output ----------------------------------------------------------------------------------------------------------


@frozen
class ToolCall(Frozen):
    """A language model wants a tool to run. ``arguments`` is JSON."""

    call_id: str
    name: str
    arguments: str = "{}"


@frozen
class Message(Frozen):
    """One entry of a conversation's history: who (``user``, ``assistant``, ``system``, ``tool``) and what."""

    role: str
    text: str
    cut: bool = False
    """True where the bot was interrupted: ``text`` is then what was heard."""
    calls: tuple[ToolCall, ...] = ()
    """Of an assistant: the tools that it wanted to run."""
    call_id: str = ""
    """Of a tool: the call that ``text`` is the result of."""


@frozen
class LLMRequestFrame(OutputFrame):
    """Asks for the bot's answer to a conversation."""

    messages: tuple[Message, ...]
    speculative: bool = False
    """The user may not be done: it is not heard, and no tool runs, before `ResponseCommittedFrame` says so."""


@frozen
class TextFrame(OutputFrame):
    """Text of the bot, on its way to be spoken."""

    text: str


@frozen
class ResponseEndFrame(OutputFrame):
    """The last frame of a response: nothing of it follows."""


@frozen
class SpokenWord(Frozen):
    """A word in an `OutputAudioFrame`: it begins ``start_ms`` after the frame's first sample. Below 0: so long before.

    Joined with spaces, the words of a response are its text; one that is ``glued`` follows the one before it without
    a space, as in languages that write none. Of a voice that does not tell when its words begin, each is told when it
    was found in the sound, which may be in a later frame; or all of a sentence as one, and what was heard of that is
    interpolated.
    """

    text: str
    start_ms: float
    glued: bool = False


@frozen
class OutputAudioFrame(_Audio, OutputFrame):
    """Audio of the bot, on its way to be played, and the words that begin in it."""

    samples: Samples
    sample_rate: int
    words: tuple[SpokenWord, ...] = ()

    def __post_init__(self) -> None:
        self._check()

"""Frames: the values that flow through a pipeline.

A frame is a small immutable value. Frames of one class with equal fields are equal, so tests compare them.
The kernel keeps the maker of a frame, its time and its response; the frame does not contain them.

Each class has three attributes:

``lane``
    Frames of one lane are never reordered. `UrgentFrame` overtakes the other lanes; `InputFrame` comes from the user's
    side (audio, words, facts about playout); `OutputFrame` comes from the bot's side.
``survives``
    An interruption drops the queued output of the response that it cuts. A class with ``survives = True`` is kept:
    the result of a tool, for example.
``at_bound``
    Policy of a full queue. `AtBound.HOLD` makes the producer wait, or raises if it cannot wait. `AtBound.DROP_OLDEST`
    drops the oldest frame of the class, which is right for a microphone.

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
    """Queue in which a class of frames waits. See `docs/design/frames.md`."""

    URGENT = "urgent"
    INPUT = "input"
    OUTPUT = "output"


class Direction(enum.Enum):
    """Direction in which a frame travels."""

    DOWNSTREAM = "down"
    UPSTREAM = "up"


DOWNSTREAM = Direction.DOWNSTREAM
UPSTREAM = Direction.UPSTREAM


class AtBound(enum.Enum):
    """Policy of a full queue for one more frame of a class."""

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
        """Length that counts in a queue bounded by time, in ms; 0 for a frame without a length."""
        return 0.0


@frozen
class UrgentFrame(Frame):
    """Frame that overtakes the other lanes: cancel, error, orders to transports."""

    lane: ClassVar[Lane] = Lane.URGENT
    survives: ClassVar[bool] = True


@frozen
class InputFrame(Frame):
    """Frame from the user's side, or a fact about playout. No interruption drops it."""

    lane: ClassVar[Lane] = Lane.INPUT
    survives: ClassVar[bool] = True


@frozen
class OutputFrame(Frame):
    """Frame from the bot's side. It belongs to a response, and an interruption of that response drops it."""

    lane: ClassVar[Lane] = Lane.OUTPUT


class _Audio:
    """Shared part of `InputAudioFrame` and `OutputAudioFrame`."""

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
        """Length in ms: audio queues are bounded by time."""
        return self.duration_ms

    def with_samples(self, samples: Samples, sample_rate: int | None = None) -> Self:
        """Return a copy of the frame with other samples and, if given, another rate in Hz."""
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
    """All responses up to ``response`` are cut: drop their data.

    The kernel delivers it, exactly once, to every processor that names it; it is not pushed on. See
    `FrameProcessor.interrupt`.
    """

    response: int
    reason: str = "interrupted"


@frozen
class ErrorFrame(UrgentFrame):
    """A processor failed; the conversation continues. Travels upstream.

    ``processor`` is the path of the processor, ``frame`` the class name of the frame that it handled.
    """

    message: str
    processor: str = ""
    frame: str = ""
    error: str = ""
    """The class name of the exception."""


@frozen
class PausePlayoutFrame(UrgentFrame):
    """Stop playing at once and keep the rest of the audio. Sent by the session to the output; travels downstream."""


@frozen
class ResumePlayoutFrame(UrgentFrame):
    """Resume the paused playout. Travels downstream."""


@frozen
class ResponseCommittedFrame(UrgentFrame):
    """A speculative response is accepted: its tools may run now. Travels downstream."""

    response: int


@frozen
class KeepAliveFrame(UrgentFrame):
    """The conversation has been silent: services keep their connections open. Sent by the session both ways."""


@frozen
class ListenFrame(UrgentFrame):
    """Start or stop listening to the user. Sent by the session; travels upstream."""

    on: bool


# --- input -----------------------------------------------------------------------------------------------------------


@frozen
class ClientConnectedFrame(InputFrame):
    """The user's client is connected: audio can flow both ways."""


@frozen
class ClientDisconnectedFrame(InputFrame):
    """The user's client has disconnected; it may reconnect."""

    reason: str = ""


@frozen
class TalkButtonFrame(InputFrame):
    """The user pressed or released the talk button."""

    pressed: bool


@frozen
class TurnProbabilityFrame(InputFrame):
    """Probability that the user's turn is over, 0 to 1. From a turn model."""

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
    """Text that the user typed. ``interrupt``: cut the bot, or wait until the bot is silent."""

    text: str
    interrupt: bool = True


@frozen
class UserStartedSpeakingFrame(InputFrame):
    """The user started to speak, ``onset_ms`` before this frame: the time that the detector needs to be sure."""

    onset_ms: float = 0.0


@frozen
class UserStoppedSpeakingFrame(InputFrame):
    """The user stopped speaking, ``silence_ms`` before this frame."""

    silence_ms: float = 0.0


@frozen
class InterimTranscriptionFrame(InputFrame):
    """Preliminary transcript; it may change."""

    text: str


@frozen
class HeardWord(Frozen):
    """One word of the user. Times in ms from the start of the audio that it was recognised in."""

    text: str
    start_ms: float
    end_ms: float


@frozen
class TranscriptionFrame(InputFrame):
    """Final transcript. An empty text means that speech was heard and no word understood."""

    text: str
    audio_ms: float = 0.0
    """Length of the speech."""
    decode_ms: float = 0.0
    """Time that the recogniser needed after the last audio."""
    more: bool = False
    """True for a part of a long utterance that continues."""
    words: tuple[HeardWord, ...] = ()
    """Word times, if the recogniser reports them."""
    failed: bool = False
    """True if recognition failed: words of the user may be lost."""


@frozen
class InputEndedFrame(InputFrame):
    """No further input: the file was read, or the caller hung up."""


@frozen
class BotStartedSpeakingFrame(InputFrame):
    """The first sample of a response is played. Sent by the output; travels upstream."""

    response: int


@frozen
class BotStoppedSpeakingFrame(InputFrame):
    """Playout of a response has stopped. Sent by the output; travels upstream."""

    response: int


@frozen
class ResponsePlayedFrame(InputFrame):
    """A response was played to its end. From the playout ledger; travels upstream."""

    response: int
    heard_ms: float
    heard_text: str


@frozen
class ResponseCutFrame(InputFrame):
    """A response was cut after ``heard_ms`` of its audio; ``heard_text`` are the words that the user heard.

    Sent by the playout ledger after a cancel, once for each cut response; travels upstream.
    """

    response: int
    heard_ms: float
    heard_text: str
    reason: str = "interrupted"


@frozen
class ToolCallFrame(InputFrame):
    """A tool has started. Sent by the language model; travels upstream."""

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
    """Token counts of one request to a language model; travels upstream."""

    input_tokens: int
    output_tokens: int


@frozen
class ServiceMetricsFrame(InputFrame):
    """Metrics of one request to a service; travels upstream. An interrupted request has none."""

    service: str
    """Name of the STT, LLM or TTS that answered; empty if none did."""
    kind: str
    """stt, llm or tts."""
    response: int
    """Response that the request belongs to; 0 for a transcript."""
    first_ms: float | None
    """Time from the request (STT: from the end of the speech) to the first result. None if there was none."""
    total_ms: float
    """Time to the last result; a full output makes it longer."""
    amount: float
    """STT: ms of audio heard. LLM: characters written. TTS: characters spoken."""
    errors: tuple[str, ...] = ()
    """Class names of the errors, in order: one for each failed attempt."""


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
    """True if the bot was interrupted: ``text`` is the part that was heard."""
    calls: tuple[ToolCall, ...] = ()
    """Tools that the assistant wants to run."""
    call_id: str = ""
    """Tool call that ``text`` is the result of."""


@frozen
class LLMRequestFrame(OutputFrame):
    """Request for the bot's response to a conversation."""

    messages: tuple[Message, ...]
    speculative: bool = False
    """The user may continue: no audio is played and no tool runs before `ResponseCommittedFrame`."""


@frozen
class TextFrame(OutputFrame):
    """Text of the bot, to be spoken."""

    text: str


@frozen
class ResponseEndFrame(OutputFrame):
    """Last frame of a response."""


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
    """Audio of the bot, to be played, and the words that start in it."""

    samples: Samples
    sample_rate: int
    words: tuple[SpokenWord, ...] = ()

    def __post_init__(self) -> None:
        self._check()

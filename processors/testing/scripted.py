"""Stand-ins for services: the real interfaces, from a script, with delays and faults as arguments.

They are adapters like any other (`STT`, `LLM`, `TTS`), so attempts, deadlines, metrics, settings and `Fallback` are the
real ones. By themselves they are asked once and may take for ever, so that a scripted fault shows at once and as it
is; what a real service has is had by saying so: ``ScriptedTTS(attempts=3, first_timeout_s=8)``.

An entry that is an exception is raised in its place, and told with its own name and message. A number is a wait in
ms. `HANG` gives nothing more, and no end. Waits are of the worker's clock, so a virtual clock skips them.
"""

from __future__ import annotations

import math
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, Final, TypeVar, Unpack, cast

import numpy as np

from ...pipeline.clock import Wait
from ...pipeline.errors import ServiceError
from ...pipeline.frames import (
    UPSTREAM,
    Frame,
    LLMRequestFrame,
    Message,
    OutputAudioFrame,
    Samples,
    ToolCall,
    ToolCallFrame,
    ToolResultFrame,
)
from ...pipeline.processor import AudioFormat, handles
from ..llm.base import LLM, LLMLimits, LLMSettings, ToolSpec, Usage
from ..llm.base import Piece as AnswerPiece
from ..service.base import Limits, Service, ServiceSettings, settings_of
from ..stt.base import STT, STTLimits, STTSettings
from ..stt.utterance import Transcript
from ..tools.tool import ToolLike
from ..tts.base import TTS
from ..tts.word_timing import SpeechChunk, WordStart

T = TypeVar("T")
CHUNK_MS = 20
HANG: Final = "(hangs)"
"""In a script: nothing more comes, and no end."""
NEVER_S = 86_400.0
"""The deadlines of what is asked only once: longer than any test."""

Fault = Exception | float | str
"""An exception to be raised, a wait in ms, or `HANG`."""

NOTHING: Final[tuple[Any, ...]] = ()

_ONCE: Final[Limits] = {"attempts": 1, "first_timeout_s": NEVER_S, "between_timeout_s": NEVER_S}


class Scripted(Service[Any]):
    """Base of the scripted services: a scripted connection, and errors that keep their names."""

    connects: Iterator[Fault] = iter(())

    async def connect(self) -> None:
        """Do what the next entry of ``connects`` says; when it is over, connecting works at once."""
        await self._suffer(next(self.connects, 0.0))

    def service_error(self, error: Exception) -> ServiceError:
        """The error as it is: whoever wrote the script has written its message, too."""
        if isinstance(error, ServiceError):
            return error
        return type(type(error).__name__, (ServiceError,), {"__doc__": type(error).__doc__})(str(error))

    async def _suffer(self, fault: Fault) -> None:
        if isinstance(fault, Exception):
            raise fault
        if isinstance(fault, str):
            await Wait()
        else:
            await self.clock.sleep(fault / 1000)


# --- ears -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Heard:
    """In an utterance of `ScriptedSTT`: go on when ``ms`` of its audio have been heard, or all of it."""

    ms: float


HeardPiece = str | Transcript | Heard | Fault
"""Elements of an utterance of `ScriptedSTT`."""


class ScriptedSTT(Scripted, STT[STTSettings]):
    """Understands the next of ``texts`` each time that the user has stopped, after ``delay_ms``; then nothing more.

    An entry may be a sequence, for what comes while the user speaks: a `Heard` waits for so much of the audio, a
    `Transcript` is told at once, a text when the user has stopped. ``connects``: what connecting does, each time.
    """

    def __init__(
        self,
        texts: Sequence[HeardPiece | Sequence[HeardPiece]],
        *,
        delay_ms: float = 0,
        sample_rate: int = 16_000,
        connects: Iterable[Fault] = (),
        **limits: Unpack[STTLimits],
    ) -> None:
        self.settings = settings_of("ScriptedSTT", STTSettings, **{**_ONCE, **limits})
        self.sample_rate = sample_rate  # pyright: ignore[reportAttributeAccessIssue]
        self.connects = iter(connects)
        self._texts = iter(texts)
        self._delay_ms = delay_ms

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """Hear an utterance, and understand what the script says."""
        entry = next(self._texts, "")
        heard_ms = 0.0
        for step in self._steps(_sequence(entry), whole=_is_sequence(entry)):
            if isinstance(step, Heard):
                while heard_ms < step.ms and (samples := await anext(audio, None)) is not None:
                    heard_ms += len(samples) * 1000 / self.sample_rate
            elif isinstance(step, Transcript):
                yield step
            else:
                await self._suffer(step)

    def _steps(self, pieces: Sequence[HeardPiece], *, whole: bool) -> Iterator[Heard | Transcript | Fault]:
        """Yield the steps in order. A text, and an element that is not in a sequence, wait for the end of speech."""
        for piece in pieces:
            text = isinstance(piece, str) and piece != HANG
            if text or not whole:
                yield Heard(math.inf)
                yield self._delay_ms
            yield Transcript(piece) if isinstance(piece, str) and text else piece


# --- models -----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ScriptedTool:
    """In an answer of `ScriptedLLM`: a tool that runs for ``takes_ms`` before the answer goes on."""

    name: str
    result: str = "done"
    takes_ms: float = 0.0
    arguments: str = "{}"


Piece = str | ScriptedTool | ToolCall | Fault
"""Elements of an answer of `ScriptedLLM`."""


class ScriptedLLM(Scripted, LLM[LLMSettings]):
    """Gives the next of ``answers`` to each request; a sequence is streamed piece by piece.

    ``delay_ms`` until the first piece, ``between_ms`` until each further one. A piece may be a `ScriptedTool`, which
    only seems to run; a `ToolCall` of one of ``tools``, which does (the next answer is then what is said with its
    result); an exception, a wait in ms, or `HANG`. ``usage``: input and output tokens that it counts for each
    request. Each piece of text is a frame of its own; with ``sentences`` they are put together, as those of a real
    model. When the script is over, answers are empty.

    ``requests`` keeps what was asked; ``asked`` what the model was told, each time: with results of tools, and with
    what an attempt before it had said.
    """

    def __init__(
        self,
        answers: Sequence[Piece | Sequence[Piece]],
        *,
        delay_ms: float = 0,
        between_ms: float = 0,
        usage: tuple[int, int] | None = None,
        sentences: bool = False,
        tools: Iterable[ToolLike] = (),
        connects: Iterable[Fault] = (),
        **limits: Unpack[LLMLimits],
    ) -> None:
        self.settings = settings_of("ScriptedLLM", LLMSettings, **{**_ONCE, **limits})
        self.sentences = sentences
        self.use_tools(tools)
        self.connects = iter(connects)
        self._answers = iter(answers)
        self._usage = usage
        self._called = 0
        self._delay_ms, self._between_ms = delay_ms, between_ms
        self.requests: list[LLMRequestFrame] = []
        self.asked: list[tuple[Message, ...]] = []

    @handles(LLMRequestFrame)
    async def respond(self, frame: LLMRequestFrame) -> AsyncIterator[Frame]:
        """Answer a request."""
        self.requests.append(frame)
        async with aclosing(cast("AsyncGenerator[Frame]", super().respond(frame))) as frames:
            async for told in frames:
                yield told

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[AnswerPiece]:
        """Give the next answer."""
        self.asked.append(tuple(messages))
        await self.clock.sleep(self._delay_ms / 1000)
        waits = False
        answer: Sequence[Piece] = _sequence(next(self._answers, NOTHING))
        for piece in answer:
            if isinstance(piece, float | int):
                await self._suffer(piece)
                continue
            if waits:
                await self.clock.sleep(self._between_ms / 1000)
            waits = True
            if isinstance(piece, ScriptedTool):
                await self._pretend(piece)
            elif isinstance(piece, Exception) or piece == HANG:
                await self._suffer(cast("Fault", piece))
            else:
                yield piece
        if self._usage is not None:
            yield Usage(*self._usage)

    async def _pretend(self, tool: ScriptedTool) -> None:
        if self.requests:
            await self.committed(self.requests[-1])
        self._called += 1
        call = f"call-{self._called}"
        result = "cancelled"
        await self.push(ToolCallFrame(call, tool.name, tool.arguments), UPSTREAM)
        try:
            await self.clock.sleep(tool.takes_ms / 1000)
            result = tool.result
        finally:
            # Whatever becomes of the answer, each call has its result; what a closed job pushes is not taken.
            self.post(ToolResultFrame(call, result))


# --- voices -----------------------------------------------------------------------------------------------------------


class ScriptedTTS(Scripted, TTS):
    """Says every text as a tone of ``word_ms`` for each word, in chunks of 20 ms, ``delay_ms`` after the text came.

    All of it comes at once, as far as it is taken; with ``between_ms``, a chunk each so many ms. ``faults``: the n-th
    time that it is asked (from 0), this happens after its first word. ``timed=False``: it does not tell when words
    begin. ``asked`` keeps the texts.
    """

    def __init__(
        self,
        *,
        word_ms: float = 200,
        delay_ms: float = 0,
        between_ms: float = 0,
        sample_rate: int = 16_000,
        faults: Mapping[int, Fault] | None = None,
        timed: bool = True,
        connects: Iterable[Fault] = (),
        **limits: Unpack[Limits],
    ) -> None:
        self.settings = settings_of("ScriptedTTS", ServiceSettings, **{**_ONCE, **limits})
        self.connects = iter(connects)
        self.reports_words = timed  # pyright: ignore[reportAttributeAccessIssue]
        self._chunks = max(1, round(word_ms / CHUNK_MS))
        self._delay_ms, self._between_ms = delay_ms, between_ms
        self._rate = sample_rate
        self._faults = dict(faults or {})
        self.asked: list[str] = []
        at = np.arange(sample_rate * CHUNK_MS // 1000) / sample_rate
        # 500 Hz: whole waves in 20 ms, so that chunks join without a click.
        self._tone = (8000 * np.sin(2 * np.pi * 500 * at)).astype(np.int16)

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono, at its rate."""
        return {OutputAudioFrame: AudioFormat((self._rate,), (1,))}

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        """Say a text."""
        fault = self._faults.get(len(self.asked))
        self.asked.append(text)
        await self.clock.sleep(self._delay_ms / 1000)
        for word in re.finditer(r"\S+", text):
            for number in range(self._chunks):
                words = () if number or not self.reports_words else (WordStart(word.start(), 0.0),)
                yield SpeechChunk(self._tone, self._rate, words)
                if self._between_ms:
                    await self.clock.sleep(self._between_ms / 1000)
            if fault is not None:
                await self._suffer(fault)
                fault = None


def _is_sequence(entry: object) -> bool:
    return isinstance(entry, Sequence) and not isinstance(entry, str)


def _sequence(entry: T | Sequence[T]) -> Sequence[T]:
    return cast("Sequence[T]", entry if _is_sequence(entry) else (entry,))

"""Stand-ins for services: the real interface, from a script, with delays and faults as arguments.

An entry that is an exception is raised in its place. Delays are of the worker's clock, so a virtual clock
skips them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from ..pipeline.clock import Wait
from ..pipeline.frames import (
    UPSTREAM,
    Frame,
    LLMRequestFrame,
    OutputAudioFrame,
    ResponseEndFrame,
    SpokenWord,
    TextFrame,
    ToolCallFrame,
    ToolResultFrame,
    TranscriptionFrame,
    UsageFrame,
    UserStoppedSpeakingFrame,
)
from ..pipeline.jobs import Stream
from ..pipeline.processor import AudioFormat, FrameProcessor, handles, streams
from .commitment import AwaitsCommitment

T = TypeVar("T")
CHUNK_MS = 20
HANG: Final = "(hangs)"
"""In a script: nothing more comes, and no end."""


class ScriptedSTT(FrameProcessor):
    """Understands the next of ``texts`` each time that the user has stopped, after ``delay_ms``; then nothing
    more.
    """

    def __init__(self, texts: Sequence[str | Exception], *, delay_ms: float = 0) -> None:
        self._texts = iter(texts)
        self._delay_ms = delay_ms

    @streams(UserStoppedSpeakingFrame)
    async def listen(self, frames: Stream[UserStoppedSpeakingFrame]) -> AsyncIterator[Frame]:
        """Read along."""
        async for _ in frames:
            await self.clock.sleep(self._delay_ms / 1000)
            yield TranscriptionFrame(_next(self._texts, ""), decode_ms=self._delay_ms)


@dataclass(frozen=True, slots=True)
class ScriptedTool:
    """In an answer of `ScriptedLLM`: a tool that runs for ``takes_ms`` before the answer goes on."""

    name: str
    result: str = "done"
    takes_ms: float = 0.0
    arguments: str = "{}"


Piece = str | ScriptedTool | Exception
"""What an answer of `ScriptedLLM` is made of."""


class ScriptedLLM(AwaitsCommitment):
    """Gives the next of ``answers`` to each request; a sequence is streamed piece by piece.

    ``delay_ms`` until the first piece, ``between_ms`` until each further one. A piece may be a `ScriptedTool`, an
    exception, or `HANG`. ``usage``: input and output tokens that it counts for each request. ``requests`` keeps what
    was asked. When the script is over, answers are empty.
    """

    def __init__(
        self,
        answers: Sequence[Piece | Sequence[Piece]],
        *,
        delay_ms: float = 0,
        between_ms: float = 0,
        usage: tuple[int, int] | None = None,
    ) -> None:
        self._answers = iter(answers)
        self._usage = usage
        self._calls = 0
        self._delay_ms, self._between_ms = delay_ms, between_ms
        self.requests: list[LLMRequestFrame] = []

    @handles(LLMRequestFrame)
    async def respond(self, frame: LLMRequestFrame) -> AsyncIterator[Frame]:
        """Answer a request."""
        self.requests.append(frame)
        await self.clock.sleep(self._delay_ms / 1000)
        answer = _next(self._answers, ())
        pieces = answer if isinstance(answer, Sequence) and not isinstance(answer, str) else (answer,)
        for number, piece in enumerate(pieces):
            if number:
                await self.clock.sleep(self._between_ms / 1000)
            if isinstance(piece, ScriptedTool):
                await self.committed(frame)
                await self._run(piece)
            elif piece is HANG:
                await Wait()
            else:
                yield TextFrame(str(_next(iter([piece]), "")))
        if self._usage is not None:
            await self.push(UsageFrame(*self._usage), UPSTREAM)
        yield ResponseEndFrame()

    async def _run(self, tool: ScriptedTool) -> None:
        self._calls += 1
        call = f"call-{self._calls}"
        result = "cancelled"
        await self.push(ToolCallFrame(call, tool.name, tool.arguments), UPSTREAM)
        try:
            await self.clock.sleep(tool.takes_ms / 1000)
            result = tool.result
        finally:
            # Whatever becomes of the answer, each call has its result; what a closed job pushes is not taken.
            self.post(ToolResultFrame(call, result))

    @handles(ToolResultFrame)
    async def tell_result(self, frame: ToolResultFrame) -> None:
        """A tool has ended."""
        await self.push(frame, UPSTREAM)


class ScriptedTTS(FrameProcessor):
    """Says every text as a tone of ``word_ms`` for each word, in frames of 20 ms, ``delay_ms`` after the text
    came.

    ``faults``: the n-th text (from 0) raises this, after its first word.
    """

    def __init__(
        self,
        *,
        word_ms: float = 200,
        delay_ms: float = 0,
        sample_rate: int = 16_000,
        faults: Mapping[int, Exception] | None = None,
    ) -> None:
        self._chunks = max(1, round(word_ms / CHUNK_MS))
        self._delay_ms = delay_ms
        self._rate = sample_rate
        self._faults = dict(faults or {})
        self._count = 0
        at = np.arange(sample_rate * CHUNK_MS // 1000) / sample_rate
        # 500 Hz: whole waves in 20 ms, so that chunks join without a click.
        self._tone = (8000 * np.sin(2 * np.pi * 500 * at)).astype(np.int16)

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono, at its rate."""
        return {OutputAudioFrame: AudioFormat((self._rate,), (1,))}

    @handles(TextFrame)
    async def speak(self, frame: TextFrame) -> AsyncIterator[Frame]:
        """Say a text."""
        fault = self._faults.get(self._count)
        self._count += 1
        await self.clock.sleep(self._delay_ms / 1000)
        for word in frame.text.split():
            for number in range(self._chunks):
                words = () if number else (SpokenWord(word, 0.0),)
                yield OutputAudioFrame(self._tone, self._rate, words)
            if fault is not None:
                raise fault


def _next(script: Iterator[T | Exception], default: T) -> T:
    entry = next(script, default)
    if isinstance(entry, Exception):
        raise entry
    return entry

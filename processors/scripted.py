"""Stand-ins for services: the real interface, from a script, with delays and faults as arguments.

An entry that is an exception is raised in its place. Delays are of the worker's clock, so a virtual clock
skips them.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import TypeVar

import numpy as np

from ..pipeline.frames import (
    Frame,
    LLMRequestFrame,
    OutputAudioFrame,
    ResponseEndFrame,
    SpokenWord,
    TextFrame,
    TranscriptionFrame,
    UserStoppedSpeakingFrame,
)
from ..pipeline.jobs import Stream
from ..pipeline.processor import AudioFormat, FrameProcessor, handles, streams

T = TypeVar("T")
CHUNK_MS = 20


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


class ScriptedLLM(FrameProcessor):
    """Gives the next of ``answers`` to each request; a sequence is streamed piece by piece.

    ``delay_ms`` until the first piece, ``between_ms`` until each further one. ``requests`` keeps what was
    asked. When the script is over, answers are empty.
    """

    def __init__(
        self,
        answers: Sequence[str | Sequence[str | Exception] | Exception],
        *,
        delay_ms: float = 0,
        between_ms: float = 0,
    ) -> None:
        self._answers = iter(answers)
        self._delay_ms, self._between_ms = delay_ms, between_ms
        self.requests: list[LLMRequestFrame] = []

    @handles(LLMRequestFrame)
    async def respond(self, frame: LLMRequestFrame) -> AsyncIterator[Frame]:
        """Answer a request."""
        self.requests.append(frame)
        await self.clock.sleep(self._delay_ms / 1000)
        answer = _next(self._answers, ())
        pieces = (answer,) if isinstance(answer, str) else answer
        for number, piece in enumerate(pieces):
            if number:
                await self.clock.sleep(self._between_ms / 1000)
            yield TextFrame(_next(iter([piece]), ""))
        yield ResponseEndFrame()


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

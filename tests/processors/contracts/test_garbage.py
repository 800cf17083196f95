"""Services that answer what nobody understands, or whose libraries cancel their own work: an attempt in vain."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import (
    LLMRequestFrame,
    Message,
    OutputAudioFrame,
    ResponseEndFrame,
    Samples,
    ServiceMetricsFrame,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.testing import Bench, Harness
from voxline.processors import LLM, STT, TTS, SpeechChunk, ToolSpec, Transcript

GOOD = np.full(1_600, 7, np.int16)


def vain(bench: Bench) -> tuple[str, ...]:
    """The attempts in vain."""
    (metrics,) = [frame for frame in bench.up if isinstance(frame, ServiceMetricsFrame)]
    return metrics.errors


class Voice(TTS):
    def __init__(self, *answers: Sequence[Any]) -> None:
        self.answers = iter(answers)

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        for chunk in next(self.answers):
            if isinstance(chunk, BaseException):
                raise chunk
            yield chunk


class Ears(STT):
    def __init__(self, *answers: Any) -> None:
        self.answers = iter(answers)

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        async for _ in audio:
            pass
        answer = next(self.answers)
        if isinstance(answer, BaseException):
            raise answer
        yield answer


class Model(LLM):
    def __init__(self, *answers: Sequence[Any]) -> None:
        self.answers = iter(answers)

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Any]:
        for piece in next(self.answers):
            if isinstance(piece, BaseException):
                raise piece
            yield piece


@pytest.mark.parametrize(
    ("second", "error"),
    [
        (SpeechChunk(GOOD.astype(np.float32), 16_000), "BadAnswerError"),  # type: ignore[arg-type]
        (None, "BadAnswerError"),
        (b"\x00\x00", "BadAnswerError"),
        (asyncio.CancelledError(), "ServiceError"),
    ],
)
async def test_a_chunk_that_is_none_behind_a_good_one_costs_an_attempt(harness: Harness, second: Any, error: str):
    bench = await harness(Voice([SpeechChunk(GOOD, 16_000), second], [SpeechChunk(GOOD, 16_000)]))
    await bench.send(TextFrame("Ten meters."), ResponseEndFrame())
    await bench.advance(1_000)
    assert vain(bench) == (error,)
    audio = [frame for frame in bench.down if isinstance(frame, OutputAudioFrame)]
    assert [word.text for frame in audio for word in frame.words] == ["Ten meters."]
    assert bench.down[-1] == ResponseEndFrame()


@pytest.mark.parametrize(
    ("garbage", "error"),
    [
        (None, "BadAnswerError"),
        ("stop", "BadAnswerError"),
        (Transcript(None), "BadAnswerError"),  # type: ignore[arg-type]
        (Transcript("stop", end_ms=float("nan")), "BadAnswerError"),
        (asyncio.CancelledError(), "ServiceError"),
    ],
)
async def test_a_transcript_that_is_none_costs_an_attempt(harness: Harness, garbage: Any, error: str):
    bench = await harness(Ears(garbage, Transcript("stop"), Transcript("go")))
    for _ in range(2):
        await bench.send(UserStartedSpeakingFrame(0), UserStoppedSpeakingFrame(0))
        await bench.advance(1_000)
    heard = [frame for frame in bench.down if isinstance(frame, TranscriptionFrame)]
    assert [(frame.text, frame.failed) for frame in heard] == [("stop", False), ("go", False)]
    metrics = [frame for frame in bench.up if isinstance(frame, ServiceMetricsFrame)]
    assert metrics[0].errors == (error,)


@pytest.mark.parametrize(
    ("garbage", "error"),
    [
        (None, "BadAnswerError"),
        (7, "BadAnswerError"),
        (b"x", "BadAnswerError"),
        (asyncio.CancelledError(), "ServiceError"),
    ],
)
async def test_a_piece_that_is_none_costs_half_a_sentence(harness: Harness, garbage: Any, error: str):
    bench = await harness(Model(["Hello. Half a sen", garbage], ["And the rest."]))
    await bench.send(LLMRequestFrame((Message("user", "hi"),)))
    await bench.advance(1_000)
    assert vain(bench) == (error,)
    assert [frame for frame in bench.down if isinstance(frame, TextFrame | ResponseEndFrame)] == [
        TextFrame("Hello. "),
        TextFrame("And the rest."),
        ResponseEndFrame(),
    ]

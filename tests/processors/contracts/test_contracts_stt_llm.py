"""The contract suites: good recognisers and models pass, and each rule catches one that breaks it."""

import os
import signal
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import (
    Frame,
    LLMRequestFrame,
    ResponseEndFrame,
    TranscriptionFrame,
    handles,
)
from voxline.pipeline.errors import ServiceDownError, ServiceError
from voxline.pipeline.frames import HeardWord, Message, Samples, ToolCall
from voxline.pipeline.testing.material import speech
from voxline.processors import PocketSphinxSTT, ScriptedLLM
from voxline.processors.contracts import (
    ContractFailure,
    check_llm,
    check_stt,
)
from voxline.processors.llm.base import LLM, ToolSpec, Usage
from voxline.processors.stt.base import STT
from voxline.processors.stt.utterance import Transcript
from voxline.tests.places import CALLER
from voxline.tests.processors.contracts.contract_checks import AGAIN, ODD, WORDS, break_it, caught

# --- recognisers ------------------------------------------------------------------------------------------------------

SPEECH = np.tile(np.array([900, -900], np.int16), 500)
"""1 s at 1,000 Hz: each 250 ms of it is a word."""


class Ears(STT):
    """A recogniser that keeps the contract: a word for each 250 ms of loud square wave, none for anything else."""

    sample_rate = 1_000
    broken = False
    loud_ms = 0

    async def connect(self) -> None:
        self.broken = False

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        self.loud_ms = 0
        async for samples in audio:
            if self.broken:
                raise ServiceDownError("It is away.")
            self.loud_ms += int((np.abs(samples.astype(int)) == 900).sum())
        await self.clock.sleep(0.02)
        yield self.told(self.loud_ms // 250)

    def told(self, count: int) -> Transcript:
        words = tuple(HeardWord("go", 250.0 * n, 250.0 * (n + 1)) for n in range(count))
        return Transcript(" ".join(["Go"] * count), words=words, end_ms=250.0 * count)


async def test_good_ears_pass():
    await check_stt(Ears, audio=SPEECH, text="go, go, go, go!", break_=break_it)


async def test_pocketsphinx_keeps_the_contract():
    pytest.importorskip("pocketsphinx")

    def kill(stt: PocketSphinxSTT) -> None:
        assert stt._process is not None
        assert stt._process.pid is not None
        os.kill(stt._process.pid, signal.SIGKILL)

    caller = CALLER
    audio = speech(caller, 16_000, start_ms=6_600, ms=1_300)
    await check_stt(PocketSphinxSTT, audio=audio, break_=kill, patience_s=60)


class HearsOtherThings(Ears):
    def told(self, count: int) -> Transcript:
        return Transcript(" ".join(["stop"] * count))


class NeverSure(Ears):
    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        async for one in super().transcribe(audio):
            yield one
            yield Transcript("go", final=False)


class NoTranscript(Ears):
    def told(self, count: int) -> Any:
        return TranscriptionFrame(" ".join(["go"] * count)) if count else Transcript("")


class CoversTooMuch(Ears):
    def told(self, count: int) -> Transcript:
        return Transcript(" ".join(["go"] * count), end_ms=5_000)


class CoversBackwards(Ears):
    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        async for one in super().transcribe(audio):
            yield Transcript(one.text, end_ms=500)
            yield Transcript("", end_ms=100)


class WordsLate(Ears):
    def told(self, count: int) -> Transcript:
        words = tuple(HeardWord("go", 2_000, 3_000) for _ in range(count))
        return Transcript(" ".join(["go"] * count), words=words)


class WordsMixedUp(Ears):
    def told(self, count: int) -> Transcript:
        words = tuple(HeardWord("go", 900.0 - 250 * n, 950.0) for n in range(count))
        return Transcript(" ".join(["go"] * count), words=words)


class NeedsChunks(Ears):
    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        async def checked() -> AsyncIterator[Samples]:
            async for samples in audio:
                if len(samples) < 5:
                    raise ServiceError("It wants 20 ms.")
                yield samples

        async for one in super().transcribe(checked()):
            yield one


class NeedsAudio(Ears):
    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        first = await anext(audio)

        async def again() -> AsyncIterator[Samples]:
            yield first
            async for samples in audio:
                yield samples

        async for one in super().transcribe(again()):
            yield one


class Remembers(Ears):
    """What it heard before it was closed, it hears in the next utterance, too."""

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        async for samples in audio:
            await self.clock.sleep(0.001)
            if self.broken:
                raise ServiceDownError("It is away.")
            self.loud_ms += int((np.abs(samples.astype(int)) == 900).sum())
        await self.clock.sleep(0.02)
        count, self.loud_ms = self.loud_ms // 250, 0
        yield self.told(count)


class TwoEnds(Ears):
    async def listen(self, frames: Any) -> AsyncIterator[Frame]:
        async for told in super().listen(frames):
            yield told
            yield told


HEARD = "what is said is understood"
COVERS = "transcripts cover the audio in order"


@pytest.mark.parametrize(
    ("kind", "rule", "came"),
    [
        (HearsOtherThings, HEARD, "others"),
        (NoTranscript, AGAIN, "TranscriptionFrame"),
        (NeverSure, "the last transcript of an utterance is final", "none"),
        (CoversTooMuch, COVERS, "5000"),
        (CoversBackwards, COVERS, "100"),
        (WordsLate, WORDS, "3000"),
        (WordsMixedUp, WORDS, "do not fall"),
        (NeedsChunks, "chunks of 0.1 ms", "It wants 20 ms."),
        (NeedsAudio, "no audio at all", "RuntimeError"),
        (TwoEnds, "in a pipeline, an utterance has one last transcription", "2"),
    ],
)
async def test_broken_ears_are_caught_by_their_rule(kind: type[Ears], rule: str, came: str):
    await caught(check_stt(kind, audio=SPEECH, text="go go go go"), rule, kind.__name__, came)


async def test_ears_that_remember_what_was_cut_are_caught():
    with pytest.raises(ContractFailure, match=r"(what was heard before is forgotten|after an interruption)"):
        await check_stt(Remembers, audio=SPEECH)


# --- models -----------------------------------------------------------------------------------------------------------


class Mind(LLM):
    """A model that keeps the contract."""

    broken = False

    async def connect(self) -> None:
        self.broken = False

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Any]:
        if self.broken:
            raise ServiceDownError("It is away.")
        if tools:
            yield self.call()
        for word in ("One. ", "Two. ", "Three. "):
            await self.clock.sleep(0.01)
            yield word
        yield Usage(3, 3)

    def call(self) -> ToolCall:
        return ToolCall("1", "get_weather", '{"town": "Ulm"}')


async def test_a_good_model_passes():
    await check_llm(Mind, tool_question="How is the weather in Ulm?", break_=break_it)


async def test_the_scripted_model_passes():
    await check_llm(lambda: ScriptedLLM([["One. ", "Two. ", "Three."]] * 100, delay_ms=20), question="Count.")


class Dreams(Mind):
    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Any]:
        async for piece in super().complete(messages, tools):
            yield piece
        yield b"and so on"


class CountsTwice(Mind):
    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Any]:
        async for piece in super().complete(messages, tools):
            yield piece
        yield Usage(1, 1)


class CountsBackwards(Mind):
    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Any]:
        async for piece in super().complete(messages, tools):
            yield Usage(-1, 1) if isinstance(piece, Usage) else piece


class CallsUnasked(Mind):
    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Any]:
        yield self.call()
        async for piece in super().complete(messages, ()):
            yield piece


class CallsNothing(Mind):
    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Any]:
        async for piece in super().complete(messages, ()):
            yield piece


class CallsAnother(Mind):
    def call(self) -> ToolCall:
        return ToolCall("1", "set_weather", "{}")


class CallsWithoutId(Mind):
    def call(self) -> ToolCall:
        return ToolCall("", "get_weather", "{}")


class CallsInWords(Mind):
    def call(self) -> ToolCall:
        return ToolCall("1", "get_weather", "Ulm")


class CallsWithAList(Mind):
    def call(self) -> ToolCall:
        return ToolCall("1", "get_weather", '["Ulm"]')


class WantsTheUserLast(Mind):
    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Any]:
        assert messages[-1].role == "user"
        async for piece in super().complete(messages, tools):
            yield piece


class EndsTwice(Mind):
    @handles(LLMRequestFrame)
    async def respond(self, frame: LLMRequestFrame) -> AsyncIterator[Frame]:
        async for one in super().respond(frame):
            yield one
        yield ResponseEndFrame()


PIECES = "an answer is text, whole calls, and at most one Usage"
CALLS = "a call is one of the given tools"


@pytest.mark.parametrize(
    ("kind", "rule", "came"),
    [
        (Dreams, AGAIN, "bytes"),
        (CountsTwice, PIECES, "2"),
        (CountsBackwards, PIECES, "-1"),
        (CallsUnasked, "without tools, none is called", "one"),
        (CallsNothing, CALLS, "none"),
        (CallsAnother, CALLS, "set_weather"),
        (CallsWithoutId, CALLS, "ids"),
        (CallsInWords, CALLS, "Ulm"),
        (CallsWithAList, CALLS, '["Ulm"]'),
        (WantsTheUserLast, ODD, "AssertionError"),
        (EndsTwice, "in a pipeline, a request has text and one end", "2"),
    ],
)
async def test_a_broken_model_is_caught_by_its_rule(kind: type[Mind], rule: str, came: str):
    await caught(check_llm(kind, tool_question="How is the weather in Ulm?"), rule, kind.__name__, came)

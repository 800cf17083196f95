"""Services that fail in every way, by a seed: real adapters on the real bases, with nothing behind them.

What they give can be told apart afterwards. Each turn of the user has a number, which is in the samples of its audio:
the recogniser reads it there, and sees whether some of it is missing. The model's answer to a turn is words with
numbers (`Plan`), and the voice speaks each of them with a sample value that no other has. So what was heard is read
from the output, word by word.
"""

from __future__ import annotations

import asyncio
import random
import re
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from voxline.pipeline.clock import Wait
from voxline.pipeline.errors import (
    AuthenticationError,
    BadAnswerError,
    BadRequestError,
    RateLimitError,
    ServiceDownError,
    ServiceError,
    ServiceTimeout,
)
from voxline.pipeline.frames import Frame, Message, OutputAudioFrame, Samples, ToolCall
from voxline.pipeline.processor import AudioFormat
from voxline.processors.llm.base import LLM, LLMSettings, Piece, ToolSpec, Usage
from voxline.processors.service.base import Service, ServiceSettings
from voxline.processors.stt.base import STT, STTSettings
from voxline.processors.stt.utterance import Transcript
from voxline.processors.tools.tool import Tool, ToolError
from voxline.processors.tts.base import TTS
from voxline.processors.tts.word_timing import SpeechChunk, WordStart

RATE = 8_000
"""Of the bot's audio, in Hz."""
MIC_RATE = 16_000
CHARACTERS_PER_S = 15
SORRY = -9_000
"""The value of the apology's samples."""
TOOL_TIMEOUT_S = 2.0
STUBBORN = 2
"""How often a stubborn service goes on when it is told to stop."""


@dataclass(frozen=True, slots=True)
class Plan:
    """The answer to a turn: sentences of words, and after which of them a tool is called (None: none is)."""

    sentences: tuple[tuple[str, ...], ...]
    tool_after: int | None

    @property
    def words(self) -> tuple[str, ...]:
        """All of them."""
        return tuple(word for sentence in self.sentences for word in sentence)


@dataclass(frozen=True, slots=True)
class Spoken:
    """What a sample value stands for: a word, of which response, by which attempt of which voice."""

    word: str
    response: int
    attempt: int
    timed: bool
    samples: int
    """Its length."""


@dataclass
class Book:
    """What is said, and what was done about it."""

    dice: random.Random
    plans: dict[int, Plan] = field(default_factory=dict[int, Plan])
    spoken: dict[int, Spoken] = field(default_factory=dict[int, Spoken])
    half: dict[int, int] = field(default_factory=dict[int, int])
    """How many samples each half of a turn's audio has."""
    runs: Counter[int] = field(default_factory=Counter[int])
    """How often a turn's tool ran."""
    open: Counter[str] = field(default_factory=Counter[str])
    """Answers that are under way, by service."""
    connections: Counter[str] = field(default_factory=Counter[str])
    """Those that are open, by service."""
    faults: Counter[str] = field(default_factory=Counter[str])
    """What went wrong, by kind."""
    gaps: int = 0
    """Utterances of which a recogniser got too little."""
    weather: dict[str, float] = field(default_factory=dict[str, float])
    """How likely it is that an attempt fails, by kind of service."""
    value: int = 0
    attempts: int = 0

    def plan(self, key: int) -> Plan:
        """The answer to a turn, the same each time."""
        if key not in self.plans:
            dice = random.Random(self.dice.random())
            sentences: list[tuple[str, ...]] = []
            count = 0
            for _ in range(dice.choice([1, 1, 2, 3])):
                words = [f"k{key}w{count + n}" for n in range(dice.choice([1, 2, 3, 5]))]
                count += len(words)
                words[0], words[-1] = (
                    words[0].capitalize(),
                    f"{words[-1].capitalize() if len(words) == 1 else words[-1]}.",
                )
                sentences.append(tuple(words))
            tool = dice.randrange(-1, len(sentences)) if dice.random() < 0.3 else None
            self.plans[key] = Plan(tuple(sentences), tool)
        return self.plans[key]

    def next_value(self) -> int:
        """A sample value that no other word has just now."""
        self.value = self.value % 30_000 + 1
        return self.value

    def forget(self) -> None:
        """The turns so far were judged."""
        self.plans.clear()
        self.spoken.clear()
        self.half.clear()
        self.runs.clear()


KEY = re.compile(r"[ab](\d+)")
WORD = re.compile(r"(?i)k(\d+)w(\d+)")


def number_of(word: str) -> tuple[int, int] | None:
    """Of which turn a word is, and its place; None where it is none of them."""
    found = WORD.search(word)
    return None if found is None else (int(found[1]), int(found[2]))


# --- faults ----------------------------------------------------------------------------------------------------------


class LibraryError(Exception):
    """What a library raises that nobody knows."""


ERRORS: Sequence[Callable[[random.Random], BaseException]] = (
    lambda dice: RateLimitError("Too many requests.", dice.choice([None, 0.2, 1.0, 30.0])),
    lambda _: AuthenticationError("The key is not accepted."),
    lambda _: ServiceTimeout("The service says that it timed out."),
    lambda _: BadRequestError("There is no such model."),
    lambda _: ServiceDownError("The service is down."),
    lambda _: BadAnswerError("Nobody understands that."),
    lambda _: ServiceError("Something went wrong."),
    lambda _: LibraryError("inside"),
    lambda _: ValueError("inside"),
    lambda _: KeyError("choices"),
    lambda _: AttributeError("inside"),
    lambda _: ConnectionResetError("inside"),
    lambda _: TimeoutError("inside"),
    lambda _: StopIteration("inside"),
    lambda _: asyncio.CancelledError("inside"),
)


class Lot:
    """What happens in one attempt: at which piece, and what."""

    def __init__(self, book: Book, dice: random.Random, kind: str, *, stubborn: float) -> None:
        self.what = ""
        self.at = 0
        if dice.random() < book.weather.get(kind, 0.0):
            kinds = ["error", "error", "late", "hang", "garbage", "lost"]
            self.what = "stubborn" if dice.random() < stubborn else dice.choice(kinds)
            self.at = dice.choice([0, 0, 1, 2, 3])
            book.faults[f"{kind} {self.what}"] += 1


class Faulty(Service[Any]):
    """What the services have in common. ``stubborn``: the share of faults in which one does not end when it should."""

    book: Book
    dice: random.Random
    stubborn: float = 0.0
    lost = False
    first = True

    def set_up(self, book: Book, dice: random.Random, name: str, stubborn: float) -> None:
        """Instead of a constructor, as that is the bases'."""
        self.book, self.dice, self.name, self.stubborn = book, dice, name, stubborn

    async def connect(self) -> None:
        """Fail as often as everything else, but for the first time."""
        first, self.first = self.first, False
        if not first and self.dice.random() < self.book.weather.get(self.kind, 0.0) / 2:
            what = self.dice.choice(["error", "hang", "late"])
            self.book.faults[f"{self.kind} connect {what}"] += 1
            await self._suffer(what)
        self.lost = False
        self.book.connections[self.name] += 1

    async def disconnect(self) -> None:
        """Give the connection back; sometimes that goes wrong, too."""
        self.book.connections[self.name] = 0
        if self.dice.random() < self.book.weather.get(self.kind, 0.0) / 4:
            await self._suffer(self.dice.choice(["error", "late"]))

    def alive(self) -> bool:
        """Whether the connection is there."""
        return not self.lost

    def lot(self) -> Lot:
        """What happens in this attempt."""
        return Lot(self.book, self.dice, self.kind, stubborn=self.stubborn)

    @contextmanager
    def answering(self) -> Generator[None]:
        """An answer is under way."""
        self.book.open[self.name] += 1
        try:
            yield
        finally:
            self.book.open[self.name] -= 1

    async def _suffer(self, what: str) -> None:
        if what == "late":
            await self.clock.sleep(self.settings.first_timeout_s * self.dice.uniform(0.3, 1.5))
        elif what == "hang":
            await Wait()
        elif what == "stubborn":
            for _ in range(STUBBORN):
                try:
                    await Wait()
                except asyncio.CancelledError:
                    self.book.faults["went on"] += 1
            raise LibraryError("inside")
        else:
            self.lost = what == "lost"
            error = self.dice.choice(ERRORS)(self.dice)
            self.book.faults[type(error).__name__] += 1
            raise error

    async def suffer(self, lot: Lot, junk: Sequence[Any]) -> AsyncGenerator[Any]:
        """What happens: an async generator, because garbage is given, and then nothing more that is any good."""
        if lot.what == "garbage":
            yield self.dice.choice(junk)
            if self.dice.random() < 0.5:
                await self._suffer("error")
        else:
            await self._suffer(lot.what)


# --- ears ------------------------------------------------------------------------------------------------------------

HEARD_JUNK: Sequence[Any] = (
    None, "a text", 17, b"\xff", Transcript(None), Transcript("", True, float("nan")), Transcript(3, False),  # type: ignore[arg-type]
)  # fmt: skip


class FaultySTT(Faulty, STT[STTSettings]):
    """Reads from the samples what was said: two words, one in each half."""

    def __init__(self, book: Book, dice: random.Random, name: str, settings: STTSettings, stubborn: float) -> None:
        self.set_up(book, dice, name, stubborn)
        self.settings = settings

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        with self.answering():
            lot, dice = self.lot(), self.dice
            pieces = 0
            heard: Counter[int] = Counter()
            read = 0
            told, begun = False, None
            async for samples in audio:
                if lot.what and pieces == lot.at:
                    async for junk in self.suffer(lot, HEARD_JUNK):
                        yield junk
                pieces += 1
                values, counts = np.unique(samples, return_counts=True)
                first = next((int(v) for v in values if v and v % 2 == 0), None)
                second = next((int(v) for v in values if v % 2), None)
                heard.update(dict(zip(values.tolist(), counts.tolist(), strict=True)))
                if second is not None and begun is None:
                    begun = read + int(np.argmax(samples == second))
                if second is not None and begun is not None and not told and dice.random() < 0.1:
                    told = True
                    if heard.get(second - 1):
                        yield Transcript(self._word(heard, second - 1), end_ms=begun * 1000 / MIC_RATE)
                        heard.pop(second - 1)
                elif first is not None and dice.random() < 0.05:
                    yield Transcript(f"a{first // 2}", final=False)
                read += len(samples)
            if lot.what and lot.at >= pieces:
                async for junk in self.suffer(lot, HEARD_JUNK):
                    yield junk
            await self.clock.sleep(dice.choice([0.0, 0.02, 0.1]))
            values = sorted(value for value in heard if value)
            yield Transcript(" ".join(self._word(heard, value) for value in values))

    def _word(self, heard: Counter[int], value: int) -> str:
        key = value // 2
        if heard[value] < self.book.half.get(key, 0):
            self.book.gaps += 1
        return f"{'ab'[value % 2]}{key}"


# --- models ----------------------------------------------------------------------------------------------------------

WRITTEN_JUNK: Sequence[Any] = (None, 17, b"bytes", 3.5, ["a", "list"])


class FaultyLLM(Faulty, LLM[LLMSettings]):
    """Answers a turn by its plan, and goes on with that where another one has stopped."""

    def __init__(self, book: Book, dice: random.Random, name: str, settings: LLMSettings, stubborn: float) -> None:
        self.set_up(book, dice, name, stubborn)
        self.settings = settings
        self.use_tools([Tool(self.note, timeout_s=TOOL_TIMEOUT_S)])

    async def note(self, turn: int) -> str:
        """Note something.

        Args:
            turn: The number of the turn.
        """
        self.book.runs[turn] += 1
        await self.clock.sleep(self.dice.choice([0.0, 0.1, 1.0, 5.0]))
        if self.dice.random() < 0.2:
            raise self.dice.choice([ToolError("It is closed."), ValueError("inside")])
        return f"noted {turn}"

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        with self.answering():
            lot, dice = self.lot(), self.dice
            pieces = [*self._pieces(messages)]
            await self.clock.sleep(dice.choice([0.0, 0.05, 0.2]))
            for number, piece in enumerate(pieces):
                if lot.what and number == min(lot.at, len(pieces) - 1):
                    async for junk in self.suffer(lot, WRITTEN_JUNK):
                        yield junk
                if isinstance(piece, ToolCall) and dice.random() < 0.1:
                    piece = dice.choice([ToolCall("", "", "{"), ToolCall("x", "y"), ToolCall("x", "note", "no JSON")])
                yield piece
                if isinstance(piece, ToolCall) and dice.random() < 0.1:
                    yield piece  # some servers send it twice
                await self.clock.sleep(dice.choice([0.0, 0.0, 0.02]))
            if not pieces and lot.what:
                async for junk in self.suffer(lot, WRITTEN_JUNK):
                    yield junk
            yield Usage(10, len(pieces))

    def _pieces(self, messages: Sequence[Message]) -> Iterator[Piece]:
        """The rest of the answer, in pieces of any length."""
        last = max(n for n, message in enumerate(messages) if message.role == "user")
        key = int(KEY.findall(messages[last].text)[-1])
        plan = self.book.plan(key)
        said = [
            number_of(word)
            for message in messages[last:]
            if message.role == "assistant"
            for word in message.text.split()
        ]
        given = sum(one is not None and one[0] == key for one in said)
        # Also before: its turn may have gone on after that.
        called = any(f'"turn": {key}}}' in call.arguments for message in messages for call in message.calls)
        count = 0
        for number, sentence in enumerate([(), *plan.sentences], -1):
            rest = sentence[max(0, given - count) :]
            count += len(sentence)
            yield from self._cut(" ".join(rest) + " " if rest else "")
            if number == plan.tool_after and not called:
                yield ToolCall(f"c{key}", "note", f'{{"turn": {key}}}')
                return

    def _cut(self, text: str) -> Iterator[str]:
        while text:
            size = self.dice.choice([2, 5, 9, 40])
            yield text[:size]
            text = text[size:]


# --- voices ----------------------------------------------------------------------------------------------------------

_QUIET = np.zeros(80, np.int16)
SPOKEN_JUNK: Sequence[Any] = (
    None, b"\x00\x01", "a text",
    SpeechChunk(np.zeros(80, np.float32), RATE), SpeechChunk(np.zeros((80, 2), np.int16), RATE),  # type: ignore[arg-type]
    SpeechChunk(_QUIET, 0), SpeechChunk(None, RATE), SpeechChunk(_QUIET, -1), SpeechChunk(_QUIET, None),  # type: ignore[arg-type]
)  # fmt: skip


class FaultyTTS(Faulty, TTS):
    """Speaks each word with a value of its own."""

    def __init__(
        self, book: Book, dice: random.Random, name: str, settings: ServiceSettings, stubborn: float, *, timed: bool
    ) -> None:
        self.set_up(book, dice, name, stubborn)
        self.settings = settings
        self.reports_words = timed  # type: ignore[misc]  # pyright: ignore[reportAttributeAccessIssue]

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((RATE,), (1,))}

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        with self.answering():
            lot, dice, book = self.lot(), self.dice, self.book
            book.attempts += 1
            attempt = book.attempts
            await self.clock.sleep(dice.choice([0.0, 0.02, 0.1]))
            pieces = 0
            for word in re.finditer(r"\S+", text):
                value = book.next_value()
                # A voice that does not tell when words begin is taken to speak at this speed.
                speed = CHARACTERS_PER_S * (3 if self.reports_words else 1)
                samples = np.full(round((len(word[0]) + 1) / speed * RATE), value, np.int16)
                book.spoken[value] = Spoken(word[0], self.response, attempt, self.reports_words, len(samples))
                at = 0
                while at < len(samples):
                    if lot.what and pieces == lot.at:
                        async for junk in self.suffer(lot, SPOKEN_JUNK):
                            yield junk
                    pieces += 1
                    size = dice.choice([200, 400, 1_600])
                    words = (WordStart(word.start(), 0.0),) if at == 0 and self.reports_words else ()
                    yield SpeechChunk(samples[at : at + size], RATE, words)
                    at += size
                    await self.clock.sleep(dice.choice([0.0, 0.0, 0.02]))
            if lot.what and lot.at >= pieces:
                async for junk in self.suffer(lot, SPOKEN_JUNK):
                    yield junk

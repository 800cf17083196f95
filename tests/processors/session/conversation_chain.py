"""A whole bot of random parts: each word has a sample value of its own, so what was heard is read from the output."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from voxline.pipeline.clock import NS_PER_MS, NS_PER_S, VirtualClock
from voxline.pipeline.frames import (
    UPSTREAM,
    CancelFrame,
    Frame,
    InputTextFrame,
    InterimTranscriptionFrame,
    LLMRequestFrame,
    OutputAudioFrame,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    Samples,
    SpokenWord,
    TextFrame,
    ToolCallFrame,
    ToolResultFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.graph import Pipeline
from voxline.pipeline.processor import AudioFormat, FrameProcessor, Hop, handles
from voxline.pipeline.taps import Tap
from voxline.pipeline.worker import ErrorPolicy, PipelineWorker
from voxline.processors.session.controller import SessionController
from voxline.processors.session.data import TurnKind
from voxline.processors.session.events import Interrupted, SessionEvent
from voxline.processors.session.speech_handle import SpeechHandle
from voxline.processors.session.states import OVER
from voxline.transports.memory import MemoryTransport

RATE = 8_000
CHARACTERS_PER_S = 15
"""How fast the voice speaks, on average."""


@dataclass
class Said:
    """What the voice made of one response."""

    words: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """The value of its samples, and the word."""
    samples: list[Samples] = field(default_factory=list[Samples])
    failed: bool = False
    """The voice broke off, in the middle of a text."""


@dataclass
class Book:
    """What happened, as the ends of the pipeline saw it."""

    said: dict[int, Said] = field(default_factory=dict[int, Said])
    cut_at: dict[int, int] = field(default_factory=dict[int, int])
    """How many chunks were written when a response was cut; by the number up to which all are."""
    records: list[ResponseCutFrame | ResponsePlayedFrame] = field(
        default_factory=list[ResponseCutFrame | ResponsePlayedFrame]
    )
    values: int = 0


class RandomLLM(FrameProcessor):
    """Answers at random: soon or late, in pieces or at once, with tools, not to the end, or never."""

    def __init__(self, dice: random.Random, faults: float) -> None:
        self.dice = dice
        self.faults = faults
        self.words = 0

    def sentence(self) -> str:
        """Words of different lengths, each with a number."""
        dice = self.dice
        made: list[str] = []
        for _ in range(dice.choice([1, 2, 3, 5, 8])):
            self.words += 1
            made.append(f"{'abcdefgh'[: dice.randrange(1, 8)]}{self.words}")
        return " ".join(made)

    @handles(LLMRequestFrame)
    async def answer(self, frame: LLMRequestFrame) -> AsyncIterator[Frame]:
        dice = self.dice
        await self.clock.sleep(dice.choice([0.0, 0.05, 0.3, 0.8]))
        fault = dice.choice(["raise", "hang", "empty"]) if dice.random() < self.faults else ""
        pieces = 0 if fault == "empty" else dice.choice([1, 1, 2, 4])
        stop = dice.randrange(pieces + 1) if fault else pieces
        for _ in range(stop):
            if dice.random() < 0.1:
                await self.push(ToolCallFrame(str(self.words), "weather"), UPSTREAM)
                await self.clock.sleep(dice.choice([0.0, 0.4]))
                await self.push(ToolResultFrame(str(self.words), "rain"), UPSTREAM)
            yield TextFrame(self.sentence())
            await self.clock.sleep(dice.choice([0.0, 0.0, 0.1, 0.7]))
        if fault == "raise":
            raise ValueError("the model is gone")
        if fault == "hang":
            await self.clock.sleep(1_000)
        yield ResponseEndFrame()


class RandomTTS(FrameProcessor):
    """A voice of random speed. ``timed``: it says when each word begins; otherwise a sentence is one word."""

    def __init__(self, dice: random.Random, book: Book, faults: float, *, timed: bool) -> None:
        self.dice = dice
        self.book = book
        self.faults = faults
        self.timed = timed
        self.pace = dice.choice([0.0, 0.3, 0.3, 0.9, 1.3])
        """Seconds that it works for a second of sound."""

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((RATE,), (1,))}

    @handles(TextFrame)
    async def speak(self, frame: TextFrame) -> AsyncIterator[Frame]:
        dice, number = self.dice, self.response
        await self.clock.sleep(dice.choice([0.0, 0.02, 0.15]))
        words = frame.text.split()
        fails_at = dice.randrange(len(words)) if dice.random() < self.faults else None
        for index, word in enumerate(words):
            samples = self._word(word)
            at = 0
            while at < len(samples):
                size = dice.choice([80, 160, 161, 400, 1_000])
                spoken = (SpokenWord(word, 0.0),) if self.timed else (SpokenWord(frame.text, 0.0),)
                begins = at == 0 and (self.timed or index == 0)
                part = samples[at : at + size]
                at += size
                said = self.book.said.setdefault(number, Said())
                if begins or at == size:
                    said.words.append((int(part[0]), word))
                said.samples.append(part)
                yield OutputAudioFrame(part, RATE, spoken if begins else ())
                if index == fails_at and at >= len(samples) // 2:
                    said.failed = True
                    raise ValueError("the voice is gone")
                await self.clock.sleep(len(part) / RATE * self.pace)

    def _word(self, word: str) -> Samples:
        """A value that no other word has, for as long as the word takes."""
        self.book.values += 1
        length = (len(word) + 1) / CHARACTERS_PER_S * self.dice.uniform(0.95, 1.05)
        return np.full(round(length * RATE), self.book.values, np.int16)


class Ends(Tap):
    """Notes what the output is told, and what it tells."""

    def __init__(self, book: Book, transport: MemoryTransport, output: str) -> None:
        self.book = book
        self.transport = transport
        self.output = output
        self.seen: set[int] = set()

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        if isinstance(frame, CancelFrame) and hop.processor.endswith(self.output):
            self.book.cut_at[frame.response] = len(self.transport.heard)
        elif isinstance(frame, ResponseCutFrame | ResponsePlayedFrame) and frame.response not in self.seen:
            self.seen.add(frame.response)
            self.book.records.append(frame)


Action = Callable[[], object]


class Chain:
    """A bot of random parts, and who talks to it."""

    def __init__(self, seed: int, *, seconds: float = 60) -> None:
        dice = self.dice = random.Random(seed)
        self.seconds = seconds
        self.book = Book()
        self.clock = VirtualClock(autojump=False)
        self.transport = MemoryTransport(output_rate=RATE, buffer_ms=dice.choice([200, 2_000]))
        self.timed = dice.random() < 0.5
        faults = dice.choice([0.0, 0.05, 0.3])
        self.controller = SessionController(**self.settings())
        self.session = self.controller.session
        self.tts = RandomTTS(dice, self.book, faults, timed=self.timed)
        pipeline = Pipeline(
            [
                self.transport.input(),
                self.controller,
                RandomLLM(dice, faults),
                self.tts,
                self.transport.output(),
            ]
        )
        self.worker = PipelineWorker(
            pipeline, clock=self.clock, seed=seed, errors=ErrorPolicy(max_in_a_row=1_000_000), drain_timeout_ms=60_000
        )
        self.worker.add_tap(Ends(self.book, self.transport, "MemoryOutput"))
        self.events: list[SessionEvent] = []
        self.session.on(SessionEvent, self.events.append)
        self.handles: list[SpeechHandle] = []
        self.did: list[str] = []
        self.plan: list[tuple[float, str, Action]] = []

    def settings(self) -> dict[str, Any]:
        dice = self.dice
        choices: dict[str, list[Any]] = {
            "greeting": ["", "hello number zero"],
            "response_timeout_s": [3],
            "apology": ["", "sorry about that"],
            "idle_timeout_s": [300, 8],
            "idle_ladder": [(), ({"after_s": 3, "say": "are you there"},)],
            "max_messages": [None],
            "farewells": [(), ("goodbye",)],
            "mute": [(), (), (), ("first_speech",), ("tools",), ("speaking",)],
            "interruption": [{}, {}, {"min_words": 0}, {"min_words": 2}, {"grace_ms": 0}, {"allow": False}],
            "endpointing": [{}, {"strategy": "transcript"}, {"strategy": "dynamic"}, {"min_delay_ms": 700}],
            "preemptive": [{}, {"enabled": True}, {"enabled": True, "stable_ms": 50, "agreement": 0.6}],
            "closing_timeout_s": [5],
        }
        return {name: dice.choice(values) for name, values in choices.items()}

    # --- what may happen --------------------------------------------------------------------------------------------

    def at(self, when_s: float, name: str, action: Action) -> None:
        """To be done."""
        self.plan.append((when_s, name, action))

    def posts(self, when_s: float, frame: Frame) -> None:
        """A fact of the user's side."""
        self.at(when_s, repr(frame), lambda: self.worker.post(frame))

    def utterance(self, at_s: float) -> None:
        """The user says something, and the recogniser understands it, or not, sooner or later."""
        dice = self.dice
        text = dice.choice(["tell me a story", "yes but what about the other one", "yeah", "stop", "", "", "goodbye"])
        length_s = dice.choice([0.25, 0.5, 0.8, 1.4, 3.0])
        self.posts(at_s + 0.2, UserStartedSpeakingFrame(200))
        words = text.split()
        for n in range(1, len(words)):
            if dice.random() < 0.5:
                self.posts(at_s + 0.2 + length_s * n / len(words), InterimTranscriptionFrame(" ".join(words[:n])))
        stopped_s = at_s + 0.2 + length_s
        if dice.random() < 0.5:
            self.posts(stopped_s - 0.001, InterimTranscriptionFrame(text))
        self.posts(stopped_s, UserStoppedSpeakingFrame(dice.choice([100, 500])))
        if dice.random() < 0.9:
            self.posts(stopped_s + dice.choice([0.0, 0.05, 0.4, 2.0]), TranscriptionFrame(text, length_s * 1_000))

    def says(self, at_s: float) -> None:
        dice = self.dice

        def say() -> None:
            for n in range(dice.choice([1, 1, 2])):
                self.handles.append(self.session.say(f"word {n} of mine", allow_interruptions=dice.random() < 0.8))

        self.at(at_s, "say", say)

    def types(self, at_s: float) -> None:
        dice = self.dice

        def send() -> None:
            self.handles.append(self.session.send_message("what now", interrupt=dice.random() < 0.5))

        self.at(at_s, "message", send)
        if dice.random() < 0.3:
            self.posts(at_s, InputTextFrame("and this"))

    def interrupts(self, at_s: float) -> None:
        """Once, or twice within a millisecond, or somebody else does."""
        dice = self.dice
        kind = dice.randrange(4)
        if kind == 3:
            self.at(at_s, "take back", lambda: self.handles and self.handles[-1].interrupt())
            return
        self.at(at_s, "interrupt", lambda: self.session.interrupt())
        if kind == 1:
            self.at(at_s + dice.choice([0.0, 0.0005]), "interrupt", lambda: self.session.interrupt())
        elif kind == 2:
            self.at(at_s, "elsewhere", lambda: self.worker.interrupt("elsewhere"))

    def pauses(self, at_s: float) -> None:
        self.at(at_s, "pause", self.session.pause)
        self.at(at_s + self.dice.choice([0.0, 0.01, 0.5, 3.0]), "resume", self.session.resume)

    def listens(self, at_s: float) -> None:
        self.at(at_s, "stop listening", self.session.stop_listening)
        self.at(at_s + self.dice.choice([0.1, 2.0]), "listen", self.session.start_listening)

    # --- from beginning to end --------------------------------------------------------------------------------------

    async def run(self) -> None:
        """The whole conversation."""
        dice = self.dice
        before = asyncio.all_tasks()
        running = asyncio.ensure_future(self.worker.run())
        await self.clock.settle()
        kinds = [self.utterance] * 5 + [self.says, self.types, self.interrupts, self.pauses, self.listens]
        at_s = dice.random()
        while at_s < self.seconds:
            dice.choice(kinds)(at_s)
            at_s += dice.choice([0.0, 0.3, 1.0, 2.0, 4.0]) * (0.5 + dice.random())
        for when_s, name, action in sorted(self.plan, key=lambda one: one[0]):
            if self.session.state in OVER or running.done():
                break
            await self.clock.advance(max(0.0, when_s - self.clock.now_ns() / NS_PER_S))
            self.did.append(f"{when_s:.3f} {name}")
            action()
        await self._end()
        await running
        for _ in range(4):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - before - {running, asyncio.current_task()}
        assert not left, left
        self._check_leaks()

    async def _end(self) -> None:
        dice = self.dice
        how = dice.choice(["close", "close now", "hang up", "stop", "cancel", "hang up and cancel"])
        self.did.append(how)
        if "close" in how:
            self.session.close("enough", goodbye=dice.choice([None, "good bye then"]), now="now" in how)
        if "hang up" in how:
            self.transport.hang_up()
        if "cancel" in how:
            await self.clock.advance(dice.choice([0.0, 0.1]))
            self.worker.cancel()
        ending = asyncio.ensure_future(self.worker.stop() if how == "stop" else self.worker.finished())
        for _ in range(3_000):
            if ending.done():
                break
            await self.clock.advance(0.1)
        else:
            self.worker.cancel()
            await ending
            raise AssertionError(f"it did not end: {how}, {self.session.data}")
        outcome = await ending
        assert outcome.errors == (), outcome.errors

    def _check_leaks(self) -> None:
        assert self.session.state in OVER
        for call in self.clock.pending:
            assert "processors" not in getattr(call, "__module__", ""), call

    # --- what was heard ---------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Compare what the output wrote with what the voice made, and with what the session says of it."""
        book, session = self.book, self.session
        chunks = [chunk.samples for chunk in self.transport.heard]
        heard = np.concatenate([np.zeros(0, np.int16), *chunks])
        of_value = np.zeros(book.values + 1, np.int64)
        for number, said in book.said.items():
            for value, _ in said.words:
                of_value[value] = number
        numbers = of_value[heard]
        voiced = numbers[numbers > 0]
        assert bool(np.all(np.diff(voiced) >= 0)), "an older response was heard after a newer"
        starts = np.cumsum([0, *(len(chunk) for chunk in chunks)])
        for through, index in book.cut_at.items():
            later = numbers[starts[index] :]
            assert not np.any((later > 0) & (later <= through)), f"{through} was heard after it was cut"
        times = [chunk.at_ns for chunk in self.transport.heard]
        # A cut takes back what was written and is not over yet; then what follows may begin at once.
        early = [n for n in range(1, len(times)) if times[n] - times[n - 1] < 20 * NS_PER_MS]
        assert set(early) <= set(book.cut_at.values()), "two chunks at a time"

        turns = {turn.response: turn for turn in session.turns if turn.kind is TurnKind.ASSISTANT}
        assert len(turns) == sum(turn.kind is TurnKind.ASSISTANT for turn in session.turns)
        records = {record.response: record for record in book.records}
        assert len(records) == len(book.records)
        for number, said in book.said.items():
            self._check_response(number, said, heard[numbers == number], records.get(number), turns.get(number))

        told = [event.interruption.response for event in self.events if isinstance(event, Interrupted)]
        assert len(told) == len(set(told)), f"two records: {told}"
        assert told == [record.response for record in session.interruptions]
        assert all(handle.done for handle in self.handles)

    def _check_response(
        self,
        number: int,
        said: Said,
        heard: Samples,
        record: ResponseCutFrame | ResponsePlayedFrame | None,
        turn: Any,
    ) -> None:
        made = np.concatenate(said.samples)
        assert np.array_equal(heard, made[: len(heard)]), f"response {number} lost something, or had it twice"
        if record is None:
            return
        heard_ms = len(heard) * 1_000 / RATE
        assert abs(record.heard_ms - heard_ms) <= 20, f"{record}: {heard_ms} ms were heard"
        if isinstance(record, ResponsePlayedFrame):
            # The voice may have failed: what it made until then is all there is.
            assert len(heard) == len(made), f"{record}: {len(made) - len(heard)} samples of it were not heard"
        if not record.heard_ms:
            return
        assert turn is not None, f"there is no turn for {record}"
        assert abs(turn.audio_ms - heard_ms) <= 20
        words = self._words(said, heard)
        found = turn.text.split()
        assert found == [word for _, word in said.words][: len(found)] or not self.timed, f"{turn}: {said.words}"
        if self.timed:
            sure = self._words(said, heard[: max(0, len(heard) - RATE * 40 // 1_000)])
            assert len(sure) <= len(found) <= len(words) + 1, f"{turn}: heard {words}"
            if len(found) != len(words):
                assert abs(len(found) - len(words)) == 1
        elif isinstance(record, ResponseCutFrame) and not said.failed:
            # A voice that tells no times and breaks off has not told how much of its text was made.
            assert abs(len(found) - len(words)) <= 1, f"{turn}: heard {words}"

    def _words(self, said: Said, heard: Samples) -> list[str]:
        values = set(np.unique(heard).tolist())
        return [word for value, word in said.words if value in values]


async def converse(seed: int, *, seconds: float = 60) -> Chain:
    """One conversation, and all that has to be true of it."""
    chain = Chain(seed, seconds=seconds)
    await chain.run()
    chain.check()
    return chain

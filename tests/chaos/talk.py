"""A long conversation with services that fail, in virtual time; each turn is judged by what was heard of it."""

from __future__ import annotations

import asyncio
import atexit
import gc
import random
import tempfile
import traceback
import tracemalloc
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from voxline.pipeline.clock import NS_PER_MS, NS_PER_S, VirtualClock
from voxline.pipeline.frames import (
    Direction,
    Frame,
    InputTextFrame,
    Samples,
    ServiceMetricsFrame,
    ToolCallFrame,
    ToolResultFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.graph import Pipeline
from voxline.pipeline.processor import Hop
from voxline.pipeline.taps import Tap
from voxline.pipeline.worker import PipelineWorker
from voxline.processors.fallback.fallback import Fallback
from voxline.processors.llm.base import LLMSettings
from voxline.processors.service.base import Service, ServiceSettings
from voxline.processors.session import limits
from voxline.processors.session.controller import SessionController
from voxline.processors.session.data import TurnKind
from voxline.processors.session.limits import Due
from voxline.processors.session.settings import SessionSettings
from voxline.processors.stt.base import STTSettings
from voxline.tests.chaos.faults import (
    KEY,
    MIC_RATE,
    RATE,
    SORRY,
    STUBBORN,
    TOOL_TIMEOUT_S,
    Book,
    FaultyLLM,
    FaultySTT,
    FaultyTTS,
    number_of,
)
from voxline.tests.chaos.promise import Load, promised_s
from voxline.transports.memory import MemoryTransport

APOLOGY = "Sorry, that was lost."
SORRY_NS = 200 * NS_PER_MS
"""How long the recording of it is."""
USER = (TurnKind.USER_AUDIO, TurnKind.USER_TEXT)
START_MS, STOP_MS = 100, 100
"""How long the detector of speech takes."""
WEATHERS: Sequence[dict[str, float]] = (
    {}, {}, {},
    {"stt": 0.2, "llm": 0.2, "tts": 0.2}, {"stt": 0.5, "llm": 0.5, "tts": 0.5}, {"stt": 0.5, "llm": 0.5, "tts": 0.5},
    {"stt": 1.0}, {"llm": 1.0}, {"tts": 1.0}, {"llm": 0.7, "tts": 0.7}, {"stt": 1.0, "llm": 1.0, "tts": 1.0},
)  # fmt: skip


@cache
def apology_file() -> Path:
    """A WAV in which the apology is said: 200 ms."""
    folder = tempfile.TemporaryDirectory(prefix="voxline-chaos-")
    atexit.register(folder.cleanup)
    path = Path(folder.name) / "sorry.wav"
    soundfile.write(path, np.full(RATE * SORRY_NS // NS_PER_S, SORRY, np.int16), RATE, subtype="PCM_16")
    return path


@dataclass(frozen=True, slots=True)
class Asked:
    """A turn of the user. ``end_ns``: when the pipeline was told that it is over."""

    key: int
    end_ns: int
    typed: bool
    pressed: int
    """How often the user had interrupted in this round by then."""


@dataclass(frozen=True, slots=True)
class Run:
    """A stretch of one sample value that was heard."""

    at_ns: int
    value: int
    samples: int

    @property
    def end_ns(self) -> int:
        return self.at_ns + self.samples * NS_PER_S // RATE


@dataclass
class Tally:
    """What came of the turns."""

    turns: int = 0
    answered: int = 0
    """In full."""
    apologies: int = 0
    broken_off: int = 0
    """By the user, who went on or interrupted."""
    partly: int = 0
    """Of a turn in several parts, one was lost, and the others were answered."""
    needless: int = 0
    """Apologies for an answer that was heard in full."""
    worst: float = 0.0
    """The longest wait, as a share of what was promised."""
    worst_s: float = 0.0
    faults: Counter[str] = field(default_factory=Counter[str])
    retries: int = 0
    switched: int = 0
    bytes_per_turn: float = 0.0
    """By which memory grew in the second half; 0 where nobody measured."""

    def add(self, other: Tally) -> None:
        """Both."""
        for name in ("turns", "answered", "apologies", "broken_off", "partly", "needless", "retries", "switched"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.worst, self.worst_s = max(self.worst, other.worst), max(self.worst_s, other.worst_s)
        self.faults += other.faults
        self.bytes_per_turn = max(self.bytes_per_turn, other.bytes_per_turn)


class Watch(Tap):
    """Notes what the controller is told."""

    def __init__(self, note: Callable[[str], None]) -> None:
        self.note = note
        self.transcripts = 0
        self.failed_transcripts = 0
        self.calls: Counter[str] = Counter()
        self.results: Counter[str] = Counter()
        self.metrics: list[ServiceMetricsFrame] = []

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        if not hop.processor.endswith("SessionController"):
            return
        if isinstance(frame, TranscriptionFrame) and not frame.more:
            self.transcripts += 1
            self.failed_transcripts += frame.failed
        elif isinstance(frame, ToolCallFrame):
            self.calls[frame.call_id] += 1
        elif isinstance(frame, ToolResultFrame):
            self.results[frame.call_id] += 1

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        if isinstance(frame, ServiceMetricsFrame):
            self.metrics.append(frame)

    def failed(self, t_ns: int, processor: str, error: BaseException) -> None:
        place = traceback.extract_tb(error.__traceback__)[-1:]
        where = ", ".join(f"{one.filename.rpartition('/')[2]}:{one.lineno}" for one in place)
        self.note(f"{processor} raised {type(error).__name__}: {error} ({where})")


class Talk:
    """One conversation. ``stubborn``: see `Faulty`."""

    def __init__(self, seed: int, turns: int, *, stubborn: float = 0.0) -> None:
        dice = self.dice = random.Random(seed)
        self.turns = turns
        self.tally = Tally()
        self.story: list[str] = []
        self.book = Book(random.Random(dice.random()))
        self.clock = VirtualClock(autojump=False)
        self.transport = MemoryTransport(sample_rate=MIC_RATE, output_rate=RATE, buffer_ms=dice.choice([200, 2_000]))
        self.rules = SessionSettings(
            apology=APOLOGY,
            apology_file=apology_file(),
            response_timeout_s=dice.choice([4.0, 8.0, 30.0]),
            error_timeout_s=dice.choice([1.0, 3.0]),
            idle_timeout_s=None, max_duration_s=None, max_messages=None, history_turns=20, keep_alive_s=None,
            endpointing={"min_delay_ms": dice.choice([100, 500])},
            interruption={"grace_ms": 0, "min_speech_ms": 0},
            preemptive={"enabled": dice.random() < 0.2},
        )  # fmt: skip
        self.controller = SessionController(self.rules)
        self.session = self.controller.session
        self.services = [self._service(kind, stubborn) for kind in ("stt", "llm", "tts")]
        stt, llm, tts = self.services
        self.worker = PipelineWorker(
            Pipeline([self.transport.input(), stt, self.controller, llm, tts, self.transport.output()]),
            clock=self.clock, seed=seed,
        )  # fmt: skip
        self.watch = Watch(self.note)
        self.worker.add_tap(self.watch)
        self.asked: list[Asked] = []
        """Of this round."""
        self.pressed_ns: list[int] = []
        """When the user interrupted, with a button or by beginning to speak."""
        self._weights: list[tuple[int, int]] = []
        self.key = 0
        self.utterances = 0

    # --- the services -----------------------------------------------------------------------------------------------

    def _service(self, kind: str, stubborn: float) -> Service[Any]:
        dice = self.dice
        count = dice.choice([1, 2, 3])
        members: list[Any] = []
        for n in range(count):
            common: dict[str, Any] = {
                "connect_timeout_s": dice.choice([0.5, 2.0]),
                "first_timeout_s": dice.choice([0.3, 1.0]),
                "between_timeout_s": dice.choice([0.3, 1.0]),
                "attempts": dice.choice([1, 2, 3]),
                "backoff_s": 0.1,
                "backoff_max_s": dice.choice([0.2, 1.0]),
            }
            own = random.Random(dice.random())
            name = f"{kind}{n}"
            if kind == "stt":
                members.append(FaultySTT(self.book, own, name, STTSettings(**common), stubborn))
            elif kind == "llm":
                members.append(FaultyLLM(self.book, own, name, LLMSettings(**common), stubborn))
            else:
                timed = dice.random() < 0.7
                members.append(FaultyTTS(self.book, own, name, ServiceSettings(**common), stubborn, timed=timed))
        return members[0] if count == 1 else Fallback(members)

    def promised_s(self, asked: Asked) -> float:
        """The bound for one turn."""
        plan = self.book.plan(asked.key)
        tools = int(plan.tool_after is not None)
        load = Load(
            pieces=len(" ".join(plan.words)) // 2 + 3, sentences=len(plan.sentences), tools=tools, stubborn=STUBBORN
        )
        stt, llm, tts = ([member.settings for member in service.members()] for service in self.services)
        return promised_s(self.rules, [] if asked.typed else stt, llm, tts, load, TOOL_TIMEOUT_S)

    # --- the user ---------------------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        return self.clock.now_ns()

    def note(self, what: str) -> None:
        """For the story that a failure tells."""
        self.story.append(f"{self.now_ns / NS_PER_S:10.3f} s  {what}")

    async def speaks(self) -> None:
        """Say the next turn: two words, with silence before and after."""
        self.key += 1
        key, dice = self.key, self.dice
        half = round(dice.choice([0.1, 0.14, 0.2]) * MIC_RATE)
        self.book.half[key] = half
        words = [np.full(half, 2 * key, np.int16), np.full(half, 2 * key + 1, np.int16)]
        pause: Samples = np.zeros(round(0.4 * MIC_RATE), np.int16)
        self.transport.say(np.concatenate([pause, *words, np.zeros(MIC_RATE * STOP_MS // 1000, np.int16)]))
        await self.clock.advance(0.4 + START_MS / 1000)
        self.pressed_ns.append(self.now_ns - START_MS * NS_PER_MS)
        self.note(f"the user begins turn {key}")
        self.worker.post(UserStartedSpeakingFrame(START_MS))
        await self.clock.advance(2 * half / MIC_RATE + (STOP_MS - START_MS) / 1000)
        self.utterances += 1
        self.worker.post(UserStoppedSpeakingFrame(STOP_MS))
        self.asked.append(Asked(key, self.now_ns, False, len(self.pressed_ns)))
        self.note("... and ends it")
        await self.clock.settle()

    async def types(self) -> None:
        """Type the next turn."""
        self.key += 1
        self.note(f"the user types turn {self.key}")
        self.pressed_ns.append(self.now_ns)
        self.worker.post(InputTextFrame(f"a{self.key} b{self.key}"))
        self.asked.append(Asked(self.key, self.now_ns, True, len(self.pressed_ns)))
        await self.clock.settle()

    async def interrupts(self) -> None:
        """Press the button."""
        self.note("the user interrupts")
        self.pressed_ns.append(self.now_ns)
        self.session.interrupt()
        await self.clock.settle()

    # --- from beginning to end --------------------------------------------------------------------------------------

    async def run(self) -> Tally:
        """The whole conversation. Raises AssertionError, with the story, for whatever is not as promised."""
        before = asyncio.all_tasks()
        running = asyncio.ensure_future(self.worker.run())
        try:
            await self.clock.settle()
            while self.key < self.turns:
                await self.round()
                self._weigh()
                assert not running.done(), f"the worker has ended: {running.result()}"
            self.book.weather = {}
            await self.clock.advance(5)
        except BaseException as error:
            error.add_note("\n".join(self.story[-60:]))
            self.worker.cancel()
            await self.clock.advance(20)
            await running
            raise
        stopping = asyncio.ensure_future(self.worker.stop(10_000))
        await self.clock.advance(20)
        outcome = await stopping
        await running
        assert outcome.reason == "stopped", outcome
        for _ in range(4):
            await asyncio.sleep(0)
        assert not outcome.errors, outcome.errors
        left = asyncio.all_tasks() - before - {running, stopping, asyncio.current_task()}
        assert not left, left
        assert not self.clock.pending, self.clock.pending
        assert not +self.book.open, self.book.open
        assert not +self.book.connections, self.book.connections
        self.tally.faults = +self.book.faults
        return self.tally

    def _weigh(self) -> None:
        """Note, in the middle and at the end, how much memory is in use; where tracemalloc runs."""
        if tracemalloc.is_tracing() and self.key >= self.turns * (len(self._weights) + 1) // 2:
            self.story.clear()
            gc.collect()
            self._weights.append((self.key, tracemalloc.get_traced_memory()[0]))
            if len(self._weights) > 1:
                (turn, size), (last, weight) = self._weights[0], self._weights[-1]
                self.tally.bytes_per_turn = (weight - size) / max(1, last - turn)

    async def round(self) -> None:
        """Some turns, until nobody says anything any more."""
        dice = self.dice
        self.book.weather = dice.choice(WEATHERS)
        self.note(f"the weather: {self.book.weather}")
        for n in range(dice.choice([1, 1, 1, 1, 2, 3])):
            if n:
                await self.clock.advance(dice.choice([0.0, 0.1, 0.5, 1.0, 2.0, 4.0]) * (0.5 + dice.random()))
                if dice.random() < 0.15:
                    await self.interrupts()
                    continue
            await (self.types() if dice.random() < 0.3 else self.speaks())
        await self.rest()
        self.judge()
        self.asked.clear()
        self.pressed_ns.clear()
        self.transport.heard.clear()
        self.watch.metrics.clear()
        self.watch.failed_transcripts = 0
        self.book.forget()
        await self.clock.advance(dice.choice([0.0, 1.0, 5.0, 20.0]))

    async def rest(self) -> None:
        """Wait until nothing more is to be expected. Fails where that is never."""
        limit_ns = self.now_ns + round(3 * (30 + sum(self.promised_s(one) for one in self.asked)) * NS_PER_S)
        quiet = 0
        while quiet < 3:
            await self.clock.advance(0.1)
            quiet = quiet + 1 if self.resting else 0
            assert self.now_ns < limit_ns, f"it comes to no rest: {self._state()}"
        self.note("rest")

    def _state(self) -> str:
        data = self.session.data
        words = f"{self.watch.transcripts} transcripts of {self.utterances} utterances"
        return f"{data.state}, {words}, {data.bot}, {data.user}"

    @property
    def resting(self) -> bool:
        data = self.session.data
        busy = {due for _, due in limits.deadlines(data)} - {Due.IDLE}
        spoken = self.watch.transcripts >= self.utterances
        silent = (
            data.bot.free
            and not data.user.turn
            and not data.bot.queue
            and not data.user.words_awaited
            and not data.user.speaking
        )
        tools = self.watch.calls == self.watch.results
        return spoken and silent and tools and not busy

    # --- judging ----------------------------------------------------------------------------------------------------

    def heard(self) -> list[Run]:
        """What was heard in this round."""
        runs: list[Run] = []
        for chunk in self.transport.heard:
            samples = chunk.samples
            edges = [0, *(np.flatnonzero(np.diff(samples)) + 1).tolist(), len(samples)]
            for start, end in pairwise(edges):
                value, at_ns = int(samples[start]), chunk.at_ns + start * NS_PER_S // RATE
                last = runs[-1] if runs else None
                if last is not None and last.value == value and at_ns <= last.end_ns + NS_PER_MS:
                    runs[-1] = Run(last.at_ns, value, last.samples + end - start)
                elif value:
                    runs.append(Run(at_ns, value, end - start))
        return runs

    def judge(self) -> None:
        """What came of the turns of this round."""
        runs = self.heard()
        assert not self.book.gaps, "a recogniser has heard only a part of what was said"
        for run in runs:
            spoken = self.book.spoken.get(run.value)
            word = "sorry" if run.value == SORRY else f"{spoken}"
            self.story.append(f"{run.at_ns / NS_PER_S:10.3f} s  heard {run.samples / RATE * 1000:.0f} ms of {word}")
        self.story += [f"              {one}" for one in self.watch.metrics if one.errors]
        self._judge_words(runs)
        self._judge_tools(runs)
        for n, asked in enumerate(self.asked):
            self._judge_turn(asked, runs, last=n == len(self.asked) - 1)
        self.tally.retries += sum(len(one.errors) for one in self.watch.metrics)
        self.tally.switched += sum(
            bool(one.errors and one.service and not one.service.endswith("0")) for one in self.watch.metrics
        )

    def _judge_turn(self, asked: Asked, runs: Sequence[Run], *, last: bool) -> None:
        tally = self.tally
        tally.turns += 1
        words = [(run, spoken.word) for run in runs if (spoken := self.book.spoken.get(run.value)) is not None]
        answer = self._answered_as(asked.key)
        whole = self.book.plan(answer).words
        mine = [(run, word) for run, word in words if (number := number_of(word)) and number[0] == answer]
        after = self.pressed_ns[asked.pressed :]
        # From its beginning to its end; two of them may follow one another without a pause.
        sorry = [
            Run(max(run.at_ns, asked.end_ns), SORRY, 0)
            for run in runs
            if run.value == SORRY and run.end_ns - max(run.at_ns, asked.end_ns) >= SORRY_NS - NS_PER_MS
        ]
        complete = {number_of(word) for _, word in mine} == {number_of(word) for word in whole}
        promised_s = self.promised_s(asked)
        first_ns = min([run.at_ns for run, _ in mine] + [run.at_ns for run in sorry], default=None)
        if self._cut(asked.key) and not complete:
            # What the user had said before came late, and cut it; or what they did next.
            tally.broken_off += 1
            return
        if after and (first_ns is None or first_ns > after[0]):
            waited_s = (after[0] - asked.end_ns) / NS_PER_S
            busy = [run for run in runs if asked.end_ns <= run.end_ns <= after[0]]
            assert busy or waited_s <= promised_s, (
                f"turn {asked.key}: nothing for {waited_s} s, {promised_s} s promised"
            )
            tally.broken_off += 1
            return
        if first_ns is None and self.watch.failed_transcripts and any(run.at_ns >= asked.end_ns for run in runs):
            # The rest of a turn was lost whose beginning was understood, and is answered.
            tally.partly += 1
            return
        assert first_ns is not None, f"turn {asked.key} had neither an answer nor an apology"
        # What was being said already is said first.
        others = [run.end_ns for run in runs if asked.end_ns <= run.end_ns and run.at_ns < first_ns]
        waited_s = (first_ns - max([asked.end_ns, *others])) / NS_PER_S
        assert waited_s <= promised_s, f"turn {asked.key}: silence for {waited_s} s, {promised_s} s promised"
        if waited_s / promised_s > tally.worst:
            tally.worst = waited_s / promised_s
        tally.worst_s = max(tally.worst_s, waited_s)
        broken_off = any(at >= first_ns for at in after)
        if complete:
            if not (sorry or after or self._cut(asked.key)):
                self._judge_whole(mine)
            tally.answered += 1
            tally.needless += bool(sorry) and last and len(self.asked) == 1
        elif broken_off or self._went_on(answer):
            tally.broken_off += 1
        else:
            assert sorry, f"turn {asked.key}: the answer is not whole, and nobody says sorry"
        tally.apologies += bool(sorry)

    def _judge_whole(self, mine: Sequence[tuple[Run, str]]) -> None:
        """Each word was heard from its beginning to its end: one that broke off was said again."""
        heard: Counter[int] = Counter()
        for run, _ in mine:
            heard[run.value] += run.samples
        last = {self.book.spoken[run.value].word: run.value for run, _ in mine}
        for word, value in last.items():
            spoken = self.book.spoken[value]
            # Where a voice tells no times, the word that it goes on with is a guess.
            assert heard[value] == spoken.samples or not spoken.timed, f"{word}: {heard[value]} samples of {spoken}"

    def _answered_as(self, key: int) -> int:
        """By whose plan a turn is answered: what was said in one go is one turn, and has the answer of its end."""
        for turn in reversed(self.session.turns):
            keys = [int(found) for found in KEY.findall(turn.text)]
            if turn.kind in USER and key in keys:
                return keys[-1]
        return key

    def _went_on(self, key: int) -> bool:
        """Whether the words of another turn came after those of this one: then nobody says sorry for the older."""
        keys = [KEY.findall(turn.text) for turn in self.session.turns if turn.kind in USER]
        place = max((n for n, found in enumerate(keys) if str(key) in found), default=len(keys))
        return place < len(keys) - 1

    def _cut(self, key: int) -> bool:
        """Whether the answer to a turn was cut by the user: so the session says."""
        cut = {one.response for one in self.session.interruptions}
        found = [one for one in self.session.turns if one.kind in USER and str(key) in KEY.findall(one.text)]
        return any(one.response in cut for one in found)

    def _judge_words(self, runs: Sequence[Run]) -> None:
        """Each word is heard once, in order, by one response; but one that was under way is said again."""
        of: dict[int, int] = {}
        cut = {one.response for one in self.session.interruptions}
        before: tuple[int, int] | None = None
        attempt, response = 0, 0
        for run in runs:
            spoken = self.book.spoken.get(run.value)
            if run.value == SORRY:
                before = None
                continue
            assert spoken is not None, f"{run} is no word"
            number = number_of(spoken.word)
            assert number is not None, spoken
            # An answer that the user cut may be begun again: the rest of what they had said came late.
            twice = of.get(number[0], spoken.response) not in (spoken.response, *cut)
            assert not twice, f"{spoken}: heard in two responses"
            if of.get(number[0]) != spoken.response:
                before = None
            of[number[0]] = spoken.response
            assert spoken.response >= response, f"{spoken}: of an older response than before"
            if before is not None and before[0] == number[0]:
                new = spoken.attempt != attempt
                # A voice that tells no times is asked to go on with the word that it should have reached.
                slack = 0 if spoken.timed else 1
                least = before[1] + 1 - (1 + slack if new else 0)
                same = number == before and not new
                assert same or number[1] >= least, f"{spoken} after {before}: twice"
            before, attempt, response = number, spoken.attempt, spoken.response

    def _judge_tools(self, runs: Sequence[Run]) -> None:
        for key, count in self.book.runs.items():
            assert count == 1, f"the tool of turn {key} ran {count} times"
        assert self.watch.calls == self.watch.results, f"{self.watch.calls} {self.watch.results}"
        assert all(count == 1 for count in self.watch.calls.values()), self.watch.calls
        self.watch.calls.clear()
        self.watch.results.clear()
        heard = [number_of(spoken.word) for run in runs if (spoken := self.book.spoken.get(run.value)) is not None]
        for number in heard:
            plan = None if number is None else self.book.plan(number[0])
            if plan is not None and number is not None and plan.tool_after is not None:
                before = sum(map(len, plan.sentences[: plan.tool_after + 1]))
                assert number[1] < before or self.book.runs[number[0]] == 1, f"no tool ran before {number}"
        self._judge_history()

    def _judge_history(self) -> None:
        whole = [one for one in self.session.turns if one.kind is TurnKind.ASSISTANT and not one.interrupted]
        said = [word for turn in whole for word in turn.text.split()]
        numbers = [number for word in said if (number := number_of(word)) is not None]
        assert len(numbers) == len(set(numbers)), f"history has a word twice: {numbers}"


async def converse(seed: int, turns: int = 200, *, stubborn: float = 0.0) -> Tally:
    """One conversation, and all that has to be true of it."""
    talk = Talk(seed, turns, stubborn=stubborn)
    try:
        return await talk.run()
    except BaseException as error:
        error.add_note(f"seed {seed}, {turns} turns")
        raise

"""The same in real time, with real HTTP and real processes: a faulty server, and children that are killed.

`OpenAISTT`, `OpenAILLM` and `OpenAITTS` ask a server on this machine that fails at random; PocketSphinx, a small model
and eSpeak NG step in. The processes of the first and the last are killed at random moments.
"""

from __future__ import annotations

import asyncio
import gc
import os
import random
import re
import signal
import tracemalloc
import wave
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import psutil
from voxline.pipeline.clock import NS_PER_S, SystemClock
from voxline.pipeline.errors import ServiceDownError
from voxline.pipeline.frames import (
    BotStartedSpeakingFrame,
    Direction,
    Frame,
    InputTextFrame,
    Message,
    ServiceMetricsFrame,
    ToolCall,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.graph import Pipeline
from voxline.pipeline.processor import Hop
from voxline.pipeline.taps import Tap
from voxline.pipeline.worker import PipelineWorker
from voxline.processors.fallback.fallback import Fallback
from voxline.processors.llm.base import LLM, LLMSettings, Piece, ToolSpec
from voxline.processors.openai import OpenAILLM, OpenAISTT, OpenAITTS
from voxline.processors.service.health import Health
from voxline.processors.session import limits
from voxline.processors.session.controller import SessionController
from voxline.processors.session.data import Turn, TurnKind
from voxline.processors.session.limits import Due
from voxline.processors.session.settings import SessionSettings
from voxline.processors.stt.pocketsphinx import PocketSphinxSTT
from voxline.processors.tts.espeak_tts import EspeakTTS
from voxline.tests.chaos.promise import Load, promised_s
from voxline.tests.chaos.talk import APOLOGY, apology_file
from voxline.tests.places import CALLER
from voxline.tests.processors.openai.server import (
    CHAT,
    MODELS,
    SPEECH,
    FakeOpenAI,
    Reply,
    Request,
    speech,
)
from voxline.transports.memory import MemoryTransport

MIC_RATE = 16_000
QUICK: dict[str, Any] = {
    "connect_timeout_s": 0.5, "first_timeout_s": 0.2, "between_timeout_s": 0.2, "backoff_s": 0.05, "backoff_max_s": 0.1,
}  # fmt: skip
"""For what asks the server."""
SLOWER: dict[str, Any] = {**QUICK, "connect_timeout_s": 3.0, "first_timeout_s": 1.5, "between_timeout_s": 1.0}
"""For what has to start a process."""
TOOL_TIMEOUT_S = 10.0
SLACK_S = 0.3
"""How late a loaded machine may be."""


# --- what is answered ------------------------------------------------------------------------------------------------


def answer(key: int) -> str:
    """What a model says to a turn."""
    return f"Answer {key}. That is all."


def rest_of(messages: Sequence[tuple[str, str]], *, tools: bool) -> tuple[str, int]:
    """What is left to be said, and the number of the turn whose tool is to be called first, or -1.

    ``messages``: role and text.
    """
    last = max(n for n, (role, _) in enumerate(messages) if role == "user")
    found = re.findall(r"turn (\d+)", messages[last][1])
    key = int(found[-1]) if found else 0
    said = " ".join(text for role, text in messages[last:] if role == "assistant").split()
    whole = answer(key).split()
    called = any(role == "tool" for role, _ in messages[last:])
    if tools and key and key % 5 == 0 and not called:
        return "", key
    return " ".join(whole[len(said) :]), -1


class ChaosServer(FakeOpenAI):
    """Fails as often as ``weather`` says."""

    def __init__(self, dice: random.Random) -> None:
        super().__init__(["parrot", "whisper-1", "tts"])
        self.dice = dice
        self.weather = 0.0
        self.faults: Counter[str] = Counter()

    def _sound(self, request: Request) -> Reply:
        reply = self._answer_to(request)
        if self.dice.random() >= self.weather:
            return reply
        made = sum(map(len, reply.pieces))
        cut = self.dice.randrange(made) | 1 if made > 1 else 0
        faults: dict[str, Callable[[], Reply]] = {
            "429": lambda: Reply.error(
                429, "rate_limit_exceeded", headers={"retry-after": self.dice.choice(["0.1", "30"])}
            ),
            "500": lambda: Reply.error(500),
            "503": lambda: Reply((b"upstream is gone",), 503, "text/plain"),
            "401": lambda: Reply.error(401, "invalid_api_key"),
            "cut": lambda: _with(reply, cut_after=cut),
            "hang": lambda: _with(reply, hang_after=self.dice.choice([-1, 0, 1])),
            "late": lambda: _with(reply, delay_s=self.dice.uniform(0.05, 0.4)),
            "page": lambda: Reply((b"<!doctype html><p>Welcome",), 200, "text/html"),
            "garbage": lambda: _with(reply, pieces=(self.dice.randbytes(200),)),
            "nothing": lambda: _with(reply, pieces=()),
        }
        name = self.dice.choice([*faults])
        self.faults[f"{request.path} {name}"] += 1
        return faults[name]()

    def _answer_to(self, request: Request) -> Reply:
        if request.path == CHAT:
            messages = [(str(one["role"]), str(one.get("content") or "")) for one in request.body["messages"]]
            text, tool = rest_of(messages, tools=bool(request.body.get("tools")))
            if tool >= 0:
                call = {"name": "note", "arguments": f'{{"turn": {tool}}}'}
                return Reply.calls({"index": 0, "id": f"call{tool}", "type": "function", "function": call})
            return Reply.chat(*re.findall(r"\S{1,4}\s*", text))
        if request.path == SPEECH:
            # Four times as fast as the server speaks by itself.
            return Reply((speech(request.body["input"])[::4].tobytes(),), content_type="application/octet-stream")
        if request.path == MODELS and not self.models:
            return Reply.json({"object": "list", "data": []})
        return super()._sound(request)


def _with(reply: Reply, **changes: Any) -> Reply:
    return Reply(**{**{name: getattr(reply, name) for name in reply.__dataclass_fields__}, **changes})


class SmallLLM(LLM[LLMSettings]):
    """The same answers without a server; down as often as ``weather`` says."""

    def __init__(self, dice: random.Random) -> None:
        self.settings = LLMSettings(**QUICK)
        self.dice = dice
        self.weather = 0.0

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        text, tool = rest_of([(one.role, one.text) for one in messages], tools=bool(tools))
        if tool >= 0:
            yield ToolCall(f"own{tool}", "note", f'{{"turn": {tool}}}')
            return
        fails = self.dice.random() < self.weather
        for piece in re.findall(r"\S{1,6}\s*", text):
            yield piece
            if fails:
                raise ServiceDownError("The small model is down.")


# --- the conversation ------------------------------------------------------------------------------------------------


@dataclass
class Report:
    """What came of it."""

    turns: int = 0
    answers: int = 0
    apologies: int = 0
    interrupted: int = 0
    unclear: int = 0
    """Spoken turns in which the recogniser understood no word, and said so."""
    broken: list[str] = field(default_factory=list[str])
    """What was not as promised."""
    metrics: list[ServiceMetricsFrame] = field(default_factory=list[ServiceMetricsFrame])
    worst: tuple[float, float] = (0.0, 1.0)
    """The longest wait, in s, as a share of its bound: that and the bound."""
    worst_s: float = 0.0
    killed: int = 0
    took_s: float = 0.0
    left: dict[str, int] = field(default_factory=dict[str, int])
    """Tasks, processes, file descriptors and sockets."""
    bytes_per_turn: float = 0.0
    faults: Counter[str] = field(default_factory=Counter[str])

    def switched(self) -> int:
        """How many questions the fall-back answered."""
        return sum(bool(one.service and not one.service.startswith("OpenAI")) for one in self.metrics)

    def failures(self) -> int:
        """How many attempts were in vain."""
        return sum(len(one.errors) for one in self.metrics)

    def rows(self) -> Iterator[tuple[str, str]]:
        """As a table."""
        yield "turns", f"{self.turns} in {self.took_s:.0f} s"
        yield "answers", f"{self.answers}"
        yield "apologies", f"{self.apologies}"
        yield "broken off by the user", f"{self.interrupted}"
        yield "not understood", f"{self.unclear}"
        yield "neither (or too late)", f"{len(self.broken)}"
        yield "questions", f"{len(self.metrics)}, answered by the fall-back: {self.switched()}"
        yield "attempts in vain", f"{self.failures()}"
        yield "processes killed", f"{self.killed}"
        yield (
            "worst time to first sound",
            f"{self.worst_s:.2f} s; against its bound {self.worst[0]:.2f} of {self.worst[1]:.2f} s",
        )
        yield "left", ", ".join(f"{count} {what}" for what, count in self.left.items())
        yield "memory", f"{self.bytes_per_turn:.0f} bytes a turn"


class Watch(Tap):
    """Notes when the bot begins to speak, and how questions went."""

    def __init__(self) -> None:
        self.started: list[tuple[int, int]] = []
        self.transcripts = 0
        self.metrics: list[ServiceMetricsFrame] = []

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        if hop.processor.endswith("SessionController"):
            if isinstance(frame, BotStartedSpeakingFrame):
                self.started.append((t_ns, frame.response))
            elif isinstance(frame, TranscriptionFrame) and not frame.more:
                self.transcripts += 1

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        if isinstance(frame, ServiceMetricsFrame):
            self.metrics.append(frame)


def resources() -> dict[str, int]:
    """What this process has open."""
    process = psutil.Process()
    return {
        "tasks": len(asyncio.all_tasks()),
        "processes": len(process.children(recursive=True)),
        "descriptors": process.num_fds(),
        "sockets": len(process.net_connections("all")),
    }


class LiveTalk:
    """One conversation. ``say`` is told how far it is."""

    def __init__(self, seed: int, turns: int, server: ChaosServer, say: Callable[[str], None]) -> None:
        self.dice = random.Random(seed)
        self.turns, self.server, self.say = turns, server, say
        self.report = Report()
        self.runs: Counter[int] = Counter()
        self.clock = SystemClock()
        self.small = SmallLLM(self.dice)
        self.sphinx = PocketSphinxSTT(**SLOWER)
        self.espeak = EspeakTTS(rate_wpm=450, **SLOWER)
        url = server.url
        self.llm = Fallback([OpenAILLM("parrot", base_url=url, **QUICK), self.small])
        self.llm.use_tools([self.note])
        self.stt = Fallback([OpenAISTT("whisper-1", base_url=url, **QUICK), self.sphinx])
        self.tts = Fallback([OpenAITTS("tts", base_url=url, **QUICK), self.espeak])
        self.rules = SessionSettings(
            apology=APOLOGY, apology_file=apology_file(), response_timeout_s=8, error_timeout_s=1,
            idle_timeout_s=None, max_duration_s=None, max_messages=None, history_turns=20,
            interruption={"grace_ms": 0},
        )  # fmt: skip
        self.controller = SessionController(self.rules)
        self.session = self.controller.session
        self.transport = MemoryTransport(sample_rate=MIC_RATE)
        self.watch = Watch()
        pipeline = [self.transport.input(), self.stt, self.controller, self.llm, self.tts, self.transport.output()]
        self.worker = PipelineWorker(Pipeline(pipeline), seed=seed)
        self.worker.add_tap(self.watch)
        self.judged = 0
        """The newest turn of the history that was judged."""
        self.utterances = 0
        self.asked: list[tuple[int, int, bool]] = []
        """Number, end in ns, and whether it was spoken, of the turns of this round."""
        with wave.open(str(CALLER)) as recording:
            self.speech = np.frombuffer(recording.readframes(recording.getnframes()), np.int16)
        self.places = (1.0, 2.2)
        """Where somebody speaks in it, in s."""

    async def note(self, turn: int) -> str:
        """Note something.

        Args:
            turn: The number of the turn.
        """
        self.runs[turn] += 1
        return "noted"

    def bound_s(self, spoken: bool) -> float:
        """The promise, for the longest answer that there is."""
        stt, llm, tts = ([one.settings for one in service.members()] for service in (self.stt, self.llm, self.tts))
        load = Load(pieces=15, sentences=2, tools=1)
        return promised_s(self.rules, stt if spoken else [], llm, tts, load, TOOL_TIMEOUT_S) + SLACK_S

    # --- what happens -----------------------------------------------------------------------------------------------

    async def until(self, happened: Callable[[], bool], within_s: float) -> bool:
        """Wait until something is so; False where it is not by then."""
        limit_ns = self.clock.now_ns() + round(within_s * NS_PER_S)
        while not happened():
            if self.clock.now_ns() > limit_ns:
                return False
            await self.clock.sleep(0.01)
        return True

    async def types(self, key: int) -> None:
        """A typed turn."""
        await self.worker.send(InputTextFrame(f"please answer turn {key}"))
        self.asked.append((key, self.clock.now_ns(), False))

    async def speaks(self, key: int) -> None:
        """A turn from a recording: the server hears how long it is, PocketSphinx what is said."""
        begin, end = (round(place * MIC_RATE) for place in self.places)
        pause = np.zeros(MIC_RATE * 3 // 10, np.int16)
        self.transport.say(np.concatenate([pause, self.speech[begin:end], pause]))
        await self.clock.sleep(0.3 + 0.2)
        self.worker.post(UserStartedSpeakingFrame(200))
        await self.clock.sleep((end - begin) / MIC_RATE)
        self.utterances += 1
        await self.worker.send(UserStoppedSpeakingFrame(200))
        self.asked.append((key, self.clock.now_ns(), True))

    def kills(self) -> None:
        """One of the processes dies, some time in this turn."""
        found = [self.sphinx._process, self.espeak._process]  # pyright: ignore[reportPrivateUsage]
        pids = [one.pid for one in found if one is not None and one.pid is not None]
        if pids:
            pid = self.dice.choice(pids)
            asyncio.get_running_loop().call_later(self.dice.uniform(0, 0.5), self._kill, pid)

    def _kill(self, pid: int) -> None:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        self.report.killed += 1

    @property
    def resting(self) -> bool:
        """Whether nothing more is to be expected."""
        data = self.session.data
        busy = {due for _, due in limits.deadlines(data)} - {Due.IDLE, Due.KEEP_ALIVE}
        silent = (
            data.bot.free
            and not data.user.turn
            and not data.bot.queue
            and not data.user.words_awaited
            and not data.user.speaking
        )
        said = " ".join([*(turn.text for turn in data.history.turns if turn.kind is TurnKind.USER_TEXT), ""])
        taken = all(spoken or f"turn {key} " in said for key, _, spoken in self.asked)
        return taken and silent and not busy and self.watch.transcripts >= self.utterances

    async def run(self) -> Report:
        """The whole conversation."""
        running = asyncio.ensure_future(self.worker.run())
        began_ns = self.clock.now_ns()
        assert await self.until(lambda: self.worker.running or running.done(), 20)
        for service in (self.stt, self.llm, self.tts):
            # Rests of up to a minute would spare the server most of it.
            service.health = Health(2, 0.1, 0.5)
        sizes: list[int] = []
        key = told = 0
        while key < self.turns:
            key = await self._round(key)
            if key // 20 > told or key >= self.turns:
                told = key // 20
                self.say(f"turn {key}: {self.report.answers} answers, {self.report.apologies} apologies")
            if tracemalloc.is_tracing() and len(sizes) < 2 and key >= self.turns // (2 - len(sizes)):
                gc.collect()
                sizes.append(tracemalloc.get_traced_memory()[0])
        outcome = await self.worker.stop(10_000)
        await running
        if outcome.errors:
            self.report.broken += outcome.errors
        self.report.took_s = (self.clock.now_ns() - began_ns) / NS_PER_S
        self.report.faults = self.server.faults
        if len(sizes) == 2:
            self.report.bytes_per_turn = (sizes[1] - sizes[0]) / (self.turns / 2)
        return self.report

    async def _round(self, key: int) -> int:
        dice = self.dice
        self.server.weather = dice.choice([0.0, 0.2, 0.5, 1.0])
        self.small.weather = dice.choice([0.0, 0.0, 0.5])
        if dice.random() < 0.3:
            self.kills()
        for n in range(dice.choice([1, 1, 1, 2])):
            if n:
                await self.clock.sleep(dice.uniform(0, 1.0))
            key += 1
            if dice.random() < 0.15:
                await self.speaks(key)
            else:
                await self.types(key)
        limit_s = 20 + sum(self.bound_s(spoken) for _, _, spoken in self.asked)
        if not await self.until(lambda: self.resting, limit_s):
            self.report.broken.append(f"turn {key}: no rest within {limit_s:.0f} s")
        self._judge()
        return key

    # --- judging ----------------------------------------------------------------------------------------------------

    def _judge(self) -> None:
        report = self.report
        cut = {one.response for one in self.session.interruptions}
        said = [one for one in self.session.turns if one.kind is TurnKind.ASSISTANT and one.id > self.judged]
        self.judged = max(one.id for one in self.session.turns)
        sorry = [turn for turn in said if turn.text == APOLOGY]
        for n, (key, end_ns, spoken) in enumerate(self.asked):
            report.turns += 1
            last = n == len(self.asked) - 1
            mine = [turn for turn in said if turn not in sorry and self._answers(turn, key, spoken)]
            after = [turn for turn in sorry if turn.end_ns > end_ns]
            sounds = [turn.start_ns for turn in [*mine, *after]]
            if sounds:
                others = [turn.end_ns for turn in said if turn.end_ns > end_ns and turn.start_ns < min(sounds)]
                waited_s = (min(sounds) - max([end_ns, *others])) / NS_PER_S
                bound_s = self.bound_s(spoken)
                report.worst_s = max(report.worst_s, waited_s)
                if waited_s / bound_s > report.worst[0] / report.worst[1]:
                    report.worst = (waited_s, bound_s)
                if waited_s > bound_s:
                    report.broken.append(f"turn {key}: silence for {waited_s:.2f} s, {bound_s:.2f} s promised")
            whole = [turn for turn in mine if spoken or turn.text == answer(key)]
            if whole:
                report.answers += 1
            elif after:
                report.apologies += 1
            elif not last or any(turn.response in cut for turn in mine):
                report.interrupted += 1
            elif spoken and not any(
                one.kind is TurnKind.USER_AUDIO and one.end_ns >= end_ns - NS_PER_S for one in self.session.turns
            ):
                report.unclear += 1
            else:
                report.broken.append(f"turn {key} had neither an answer nor an apology: {[turn.text for turn in said]}")
                self.say(report.broken[-1])
        report.broken += [
            f"the tool of turn {turn} ran {count} times" for turn, count in self.runs.items() if count > 1
        ]
        report.metrics += self.watch.metrics
        for one in (
            self.asked,
            self.runs,
            self.server.requests,
            self.transport.heard,
            self.watch.metrics,
            self.watch.started,
        ):
            one.clear()

    def _answers(self, turn: Turn, key: int, spoken: bool) -> bool:
        """Whether it is the answer to a turn."""
        # What was said has no number that anybody understands; and what was cut may have only the first word.
        begin = answer(0 if spoken else key)[: len("Answer 0") if spoken else -len(" That is all.")]
        return turn.text.startswith(begin[: len(turn.text)])


async def converse_live(seed: int, turns: int, say: Callable[[str], None] = lambda _: None) -> Report:
    """One conversation, with a server of its own. The report says what is left when all of it has ended."""
    before = resources()
    async with ChaosServer(random.Random(seed)) as server:
        report = await LiveTalk(seed, turns, server, say).run()
    gc.collect()
    await SystemClock().sleep(0.1)
    after = resources()
    report.left = {what: after[what] - count for what, count in before.items()}
    return report

"""The framework's share of a turn, measured with real parts in real time. Run by `benchmarks/run.py`."""

from __future__ import annotations

import asyncio
import logging
import statistics
import tempfile
import time
from asyncio import events
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from sides.base import Side
from voxline.examples.rover import GRAMMAR, Rover
from voxline.pipeline import (
    BotStartedSpeakingFrame,
    Frame,
    FrameProcessor,
    LLMRequestFrame,
    Message,
    OutputAudioFrame,
    Pipeline,
    PipelineRunner,
    PipelineWorker,
    Samples,
    Tap,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    handles,
)
from voxline.pipeline.processor import Hop
from voxline.processors.conversation_pipeline import conversation
from voxline.processors.llm.base import LLM, Piece, ToolSpec
from voxline.processors.session.controller import SessionController
from voxline.processors.stt.base import STT
from voxline.processors.stt.pocketsphinx import PocketSphinxSTT
from voxline.processors.stt.utterance import Transcript
from voxline.processors.text.sentences import SentenceCutter
from voxline.processors.tts.base import TTS
from voxline.processors.tts.espeak_tts import EspeakTTS
from voxline.processors.tts.word_timing import SpeechChunk
from voxline.transports.file import FileTransport
from voxline.transports.memory import MemoryTransport

Numbers = dict[str, Any]
NS_PER_MS = 1_000_000
CALLER = Path(__file__).parents[1] / "examples" / "audio" / "caller.wav"
SENTENCES = (
    "I am ten meters north of where I started, facing west.",
    "Dr. Smith has paid 3.50 dollars for that, I think!",
    "Turning left.",
    "What else can I do for you today?",
)


def now_ms() -> float:
    """The machine's clock, in ms."""
    return time.monotonic_ns() / NS_PER_MS


# --- the first sound of an answer ------------------------------------------------------------------------------------


class _Streams(LLM):
    """Writes a token of four characters each 15 ms, and notes when its first sentence was complete."""

    def __init__(self) -> None:
        self.sentence = ""
        self.complete_ms = 0.0

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        """The sentence, and another one."""
        text = f"{self.sentence} And this is what comes after it."
        cutter, self.complete_ms = SentenceCutter(), 0.0
        for at in range(0, len(text), 4):
            await self.clock.sleep(0.015)
            if cutter.add(text[at : at + 4]) and not self.complete_ms:
                # Nobody could have known before: the blank behind a full stop is there, so it is no "3.5".
                self.complete_ms = now_ms()
            yield text[at : at + 4]


class _First(FrameProcessor):
    """Notes when the first audio left the voice."""

    first_ms = 0.0

    @handles(OutputAudioFrame)
    async def note(self, frame: OutputAudioFrame) -> None:
        """The first only."""
        if not self.first_ms:
            self.first_ms = now_ms()


async def first_audio(side: Side, answers: int = 40) -> Numbers:
    """From the token that completes the first sentence to the first audio behind eSpeak, in ms."""
    model, first = _Streams(), _First()
    worker = PipelineWorker(Pipeline([model, EspeakTTS(), first]))
    running = asyncio.ensure_future(worker.run())
    await asyncio.sleep(1.5)
    took: list[float] = []
    for number in range(answers):
        model.sentence, first.first_ms = SENTENCES[number % len(SENTENCES)], 0.0
        worker.post(LLMRequestFrame((Message("user", "go on"),)), response=number + 1)
        await asyncio.sleep(0.015 * len(model.sentence) / 4 + 0.7)
        took.append(first.first_ms - model.complete_ms)
    await worker.stop()
    await running
    return {"median_ms": statistics.median(took), "worst_ms": max(took), "answers": answers}


# --- the framework's own share of a turn -----------------------------------------------------------------------------


class _Spent:
    """How long the services of a turn took by themselves, in ms."""

    def __init__(self) -> None:
        self.ms = 0.0

    async def work(self, sleep: Callable[[float], Any], ms: float) -> None:
        """Work for so long."""
        began = now_ms()
        await sleep(ms / 1000)
        self.ms += now_ms() - began


class _Ears(STT):
    def __init__(self, spent: _Spent) -> None:
        self.spent = spent

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """After 50 ms."""
        async for _ in audio:
            pass
        await self.spent.work(self.clock.sleep, 50)
        yield Transcript("where are you")


class _Model(LLM):
    def __init__(self, spent: _Spent) -> None:
        self.spent = spent

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        """After 200 ms."""
        await self.spent.work(self.clock.sleep, 200)
        yield "Here I am. "


class _Voice(TTS):
    def __init__(self, spent: _Spent) -> None:
        self.spent = spent

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        """After 80 ms."""
        await self.spent.work(self.clock.sleep, 80)
        yield SpeechChunk(np.full(3_200, 1_000, np.int16), 16_000)


class _Begun(Tap):
    at_ms = 0.0

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        """The first sample of the bot is played."""
        if isinstance(frame, BotStartedSpeakingFrame):
            self.at_ms = now_ms()


async def share(side: Side, turns: int = 100) -> Numbers:
    """From the end of the user's speech to the bot's first sample, less what the services took by themselves."""
    spent, begun, transport = _Spent(), _Begun(), MemoryTransport()
    talk = conversation(
        transport, vad=_First(), stt=_Ears(spent), llm=_Model(spent), tts=_Voice(spent),
        endpointing={"min_delay_ms": 0}, max_messages=None,
    )  # fmt: skip
    worker = PipelineWorker(talk)
    worker.add_tap(begun)
    running = asyncio.ensure_future(worker.run())
    await asyncio.sleep(0.2)
    took: list[float] = []
    for _ in range(turns):
        worker.post(UserStartedSpeakingFrame(0))
        await asyncio.sleep(0.05)
        spent.ms, begun.at_ms, ended_ms = 0.0, 0.0, now_ms()
        worker.post(UserStoppedSpeakingFrame(0))
        await asyncio.sleep(0.8)
        took.append(begun.at_ms - ended_ms - spent.ms)
    await worker.stop()
    await running
    quantiles = statistics.quantiles(took, n=20)
    return {"median_ms": statistics.median(took), "p95_ms": quantiles[-1], "worst_ms": max(took), "turns": turns}


# --- how long the event loop is held ---------------------------------------------------------------------------------


class _Probe:
    """The longest callback of the event loop: by the clock, and by this thread's own CPU time, which a busy machine
    does not add to.
    """

    def __init__(self) -> None:
        self.wall_ms: list[float] = []
        self.cpu_ms: list[float] = []
        self.who = ""
        self._run = events.Handle._run

    def __enter__(self) -> _Probe:
        run, probe = self._run, self

        def timed(handle: events.Handle) -> None:
            wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
            run(handle)
            cpu_ms = (time.thread_time_ns() - cpu) / NS_PER_MS
            wall_ms = (time.perf_counter_ns() - wall) / NS_PER_MS
            if wall_ms > 1:
                if not probe.cpu_ms or cpu_ms > max(probe.cpu_ms):
                    probe.who = repr(handle)[:160]
                probe.wall_ms.append(wall_ms)
                probe.cpu_ms.append(cpu_ms)

        events.Handle._run = timed  # type: ignore[method-assign]
        return self

    def __exit__(self, *_: object) -> None:
        events.Handle._run = self._run  # type: ignore[method-assign]


async def held(side: Side, minutes: float = 10) -> Numbers:
    """A conversation with the real parts, in real time: the longest time for which nothing else could run."""
    logging.disable(logging.CRITICAL)
    samples, rate = soundfile.read(CALLER, dtype="int16")
    times = max(1, round(minutes * 60 * rate / len(samples)))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "caller.wav"
        soundfile.write(path, np.tile(samples, times), rate)
        talk = conversation(
            FileTransport(input=path, output=Path(folder) / "talk.wav"),
            llm=Rover().reply, stt=PocketSphinxSTT(GRAMMAR, interim_ms=200),
            session=SessionController(answer_unclear=True, max_messages=None),
        )  # fmt: skip
        worker = PipelineWorker(talk)
        probe: _Probe | None = None

        class Begun(Tap):
            """The parts have started: from here on frames flow."""

            def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
                nonlocal probe
                if probe is None:
                    probe = _Probe().__enter__()

        worker.add_tap(Begun())
        (outcome,) = await PipelineRunner(handle_signals=False).run(worker)
        assert probe is not None
        probe.__exit__()
    return {
        "cpu_ms": max(probe.cpu_ms, default=0.0), "wall_ms": max(probe.wall_ms, default=0.0),
        "over_5": sum(ms > 5 for ms in probe.cpu_ms), "minutes": len(samples) * times / rate / 60,
        "turns": len(talk.session.turns), "who": probe.who, "reason": outcome.reason,
    }  # fmt: skip

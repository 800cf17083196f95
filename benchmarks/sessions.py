"""Claims about sessions, in virtual time: thousands of random conversations, a day of calls, and what a guess gains.

Run by `benchmarks/run.py` like the rest; by itself (`python benchmarks/sessions.py`) it prints the table of guesses.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import statistics
import time
import tracemalloc
from typing import Any

from sides.base import Side
from voxline.pipeline import (
    Frame,
    InterimTranscriptionFrame,
    Pipeline,
    PipelineWorker,
    Tap,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VirtualClock,
)
from voxline.pipeline.processor import Hop
from voxline.processors.session.controller import SessionController
from voxline.processors.session.data import TurnKind
from voxline.processors.testing.scripted import ScriptedLLM, ScriptedTTS
from voxline.processors.testing.session_bench import ScriptedPlayout
from voxline.tests.processors.session.conversation_chain import converse
from voxline.tests.processors.session.conversation_day import ANSWER, call
from voxline.transports.memory import MemoryTransport

Numbers = dict[str, Any]
NS_PER_MS = 1_000_000


async def conversations(side: Side, rounds: int = 5_000, seed: int = 100_000) -> Numbers:
    """Random conversations of a minute each, with faults: how many do not keep every promise."""
    logging.disable(logging.CRITICAL)  # the faults are wanted
    broken: list[int] = []
    interruptions = minutes = heard_s = 0.0
    for number in range(seed, seed + rounds):
        try:
            chain = await converse(number)
        except AssertionError:
            broken.append(number)
            continue
        interruptions += len(chain.session.interruptions)
        heard_s += chain.session.statistics.bot_audio_ms / 1_000
        minutes += chain.clock.now_ns() / 60e9
    logging.disable(logging.NOTSET)
    return {
        "broken": len(broken), "seeds": broken[:10], "conversations": rounds, "interruptions": int(interruptions),
        "minutes": round(minutes), "heard_minutes": round(heard_s / 60),
    }  # fmt: skip


# --- a day -----------------------------------------------------------------------------------------------------------


async def day(side: Side, sessions: int = 1_000) -> Numbers:
    """A day of calls with time-outs: wall time, and (in a second pass, which is slower) what is left of each."""
    tasks = len(asyncio.all_tasks())
    began = time.perf_counter()
    virtual_s, reasons = 0.0, dict[str, int]()
    for seed in range(sessions):
        took_s, reason = await call(seed)
        virtual_s += took_s
        reasons[reason] = reasons.get(reason, 0) + 1
    wall_s = time.perf_counter() - began

    sizes: list[tuple[int, int]] = []
    second = max(40, sessions // 2)
    tracemalloc.start()
    for seed in range(second):
        await call(seed)
        if seed in (second // 2, second - 1):
            gc.collect()
            sizes.append((tracemalloc.get_traced_memory()[0], len(gc.get_objects())))
    tracemalloc.stop()
    half = second - 1 - second // 2
    return {
        "wall_s": wall_s, "hours": virtual_s / 3_600, "left": len(asyncio.all_tasks()) - tasks,
        "bytes_each": (sizes[1][0] - sizes[0][0]) / half, "objects_each": (sizes[1][1] - sizes[0][1]) / half,
        "reasons": reasons,
    }  # fmt: skip


# --- what a guess gains ----------------------------------------------------------------------------------------------


async def _latencies(guess: bool, delay_ms: float, model_ms: float, turns: int) -> list[float]:
    """From the end of the caller's speech to the bot's first sample, in ms, of each turn."""
    dice = random.Random(1)
    controller = SessionController(
        preemptive={"enabled": guess}, endpointing={"min_delay_ms": delay_ms}, max_messages=None
    )
    model = ScriptedLLM([ANSWER] * 3 * turns, delay_ms=model_ms)
    clock = VirtualClock()
    worker = PipelineWorker(Pipeline([controller, model, ScriptedPlayout(word_ms=50)]), clock=clock, seed=1)
    running = asyncio.ensure_future(worker.run())
    await asyncio.sleep(0)
    text = ["when", "is", "the", "next", "train", "to", "the", "city", "please"]
    for _ in range(turns):
        await clock.sleep(4)
        worker.post(UserStartedSpeakingFrame(200))
        for n in range(1, len(text) + 1):
            # A recogniser that streams: words come 200 ms after they were said.
            await clock.sleep(dice.uniform(0.1, 0.3))
            worker.post(InterimTranscriptionFrame(" ".join(text[:n])))
        # All of the words were there 200 ms after the end; the detector needs 300 ms of silence.
        await clock.sleep(0.1)
        worker.post(UserStoppedSpeakingFrame(300))
        await clock.sleep(0.1)
        worker.post(TranscriptionFrame(" ".join(text)))
    await clock.sleep(10)
    await worker.stop()
    await running
    found = [turn.latency_ms for turn in controller.session.turns if turn.kind is TurnKind.ASSISTANT]
    return [latency for latency in found if latency is not None]


async def guesses(side: Side | None, delay_ms: float = 700, model_ms: float = 500, turns: int = 50) -> Numbers:
    """Median voice-to-voice with guesses and without."""
    wait = statistics.median(await _latencies(False, delay_ms, model_ms, turns))
    gain = statistics.median(await _latencies(True, delay_ms, model_ms, turns))
    return {"with_ms": gain, "without_ms": wait, "gain_ms": wait - gain}


# --- from speech to silence ------------------------------------------------------------------------------------------


class _Taken(Tap):
    """Notes when the controller took the start of speech, and how much was written by then."""

    def __init__(self, transport: MemoryTransport) -> None:
        self.transport = transport
        self.at: list[tuple[int, int]] = []

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        if isinstance(frame, UserStartedSpeakingFrame) and hop.processor.endswith("SessionController"):
            self.at.append((t_ns, len(self.transport.heard)))


async def silence(side: Side, rounds: int = 200) -> Numbers:
    """How much of the bot is still heard after the start of speech was detected, at random moments."""
    left_ms: list[float] = []
    for seed in range(rounds):
        dice = random.Random(seed)
        transport = MemoryTransport()
        controller = SessionController(greeting=ANSWER)
        taken = _Taken(transport)
        clock = VirtualClock()
        chain = [transport.input(), controller, ScriptedTTS(word_ms=200), transport.output()]
        worker = PipelineWorker(Pipeline(chain), clock=clock, seed=seed)
        worker.add_tap(taken)
        running = asyncio.ensure_future(worker.run())
        await asyncio.sleep(0)
        await clock.sleep(dice.uniform(0.5, 2.0))
        worker.post(UserStartedSpeakingFrame(200))
        await clock.sleep(0.4)
        worker.cancel()
        await running
        ((at_ns, written),) = taken.at
        last = transport.heard[written - 1]
        rest_ns = max(0, last.at_ns + 20 * NS_PER_MS - at_ns)
        left_ms.append(rest_ns / NS_PER_MS + 20 * (len(transport.heard) - written))
    return {"median_ms": statistics.median(left_ms), "worst_ms": max(left_ms), "runs": rounds}


async def table() -> None:
    """The gain for some delays and models."""
    print("median ms from the end of speech to the first sample: without guesses -> with")
    models = (200, 500, 1_000, 2_000)
    print("endpointing |" + "".join(f"{f'model {model} ms':>18}" for model in models))
    for delay in (500, 700, 1_000):
        cells: list[str] = []
        for model in models:
            numbers = await guesses(None, delay, model, 20)
            cells.append(f"{numbers['without_ms']:.0f} -> {numbers['with_ms']:.0f}")
        print(f"{delay:>8} ms |" + "".join(f"{cell:>18}" for cell in cells))


if __name__ == "__main__":
    asyncio.run(table())

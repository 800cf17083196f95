"""Claims about ours alone: 10,000 interruptions, 1,000 starts and stops, an hour of conversation."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import os
import random
import re
import sys
import tempfile
import time
import tracemalloc
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import measure
from sides.base import Side
from voxline.pipeline import (
    CancelFrame,
    Frame,
    FrameProcessor,
    InputFrame,
    OutputFrame,
    Pipeline,
    PipelineWorker,
    TextFrame,
    VirtualClock,
    handles,
)

Numbers = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Say(InputFrame):
    """The user says something: a new answer, or an interruption."""

    words: int
    cut: bool = False


@dataclass(frozen=True, slots=True)
class Piece(OutputFrame):
    """A piece of an answer, and the answer that it is of."""

    answer: int
    number: int


@dataclass(frozen=True, slots=True)
class Idle(InputFrame):
    """Nothing has been said for a while."""

    round: int


class Controller(FrameProcessor):
    """Answers, interrupts, and asks again after 30 s of silence."""

    idle_ms = 30_000

    def __init__(self) -> None:
        self.cuts = 0
        self.idles = 0
        self._round = 0

    @handles(Say)
    async def hear(self, frame: Say) -> None:
        self._round += 1
        self.post_after(self.idle_ms, Idle(self._round))
        if frame.cut:
            self.cuts += self.interrupt("cut")
        if frame.words:
            number = self.new_response()
            for word in range(frame.words):
                await self.push(Piece(number, word), response=number)

    @handles(Idle)
    async def wait(self, frame: Idle) -> None:
        if frame.round == self._round:
            self.idles += 1
            await self.push(TextFrame("are you there?"), response=self.new_response())


class Voice(FrameProcessor):
    """Makes five pieces of each, slowly."""

    queue_frames = 10_000

    @handles(Piece, TextFrame)
    async def speak(self, frame: Frame) -> AsyncIterator[Frame]:
        for _ in range(5):
            await self.clock.sleep(0.02)
            yield frame


class Passing(FrameProcessor):
    """One more step on the way."""

    @handles(Piece)
    async def pass_on(self, frame: Piece) -> None:
        await self.push(frame)


class Ear(FrameProcessor):
    """Hears; counts what should not be heard, and remembers everything in a digest."""

    def __init__(self) -> None:
        self.heard = 0
        self.stale = 0
        self.cancels = 0
        self._cut = 0
        self.digest = hashlib.sha256()

    @handles(Piece)
    async def hear(self, frame: Piece) -> None:
        self.heard += 1
        self.stale += frame.answer <= self._cut
        self.digest.update(f"{self.now_ns} {frame}".encode())

    @handles(CancelFrame)
    async def cut(self, frame: CancelFrame) -> None:
        self.cancels += 1
        self._cut = frame.response


def _conversation() -> tuple[Controller, Ear, PipelineWorker]:
    controller, ear = Controller(), Ear()
    pipeline = Pipeline([controller, *[Passing() for _ in range(4)], Voice(), *[Passing() for _ in range(3)], ear])
    return controller, ear, PipelineWorker(pipeline, clock=VirtualClock(), seed=1)


async def _talk(worker: PipelineWorker, turns: int, seed: int, pause_s: float) -> None:
    choose, clock = random.Random(seed), worker.clock
    for _ in range(turns):
        worker.post(Say(choose.randrange(8), cut=choose.random() < 0.7))
        await clock.sleep(choose.random() * pause_s)


async def interruptions(side: Side, rounds: int = 10_000) -> Numbers:
    """Random interruptions at random moments: how many old pieces are heard after their cancel frame."""
    controller, ear, worker = _conversation()
    running = asyncio.ensure_future(worker.run())
    await asyncio.sleep(0)
    seed = 0
    while controller.cuts < rounds:
        seed += 1
        await _talk(worker, 500, seed, 0.3)
    await worker.stop()
    await running
    return {"stale": ear.stale, "cuts": controller.cuts, "cancels": ear.cancels, "heard": ear.heard}


async def starts(side: Side, rounds: int = 1_000) -> Numbers:
    """Start and stop, with something said in between: what is left of it."""
    tasks, files = len(asyncio.all_tasks()), len(os.listdir("/proc/self/fd"))
    tracemalloc.start()
    sizes: list[int] = []
    began = time.perf_counter()
    for number in range(rounds):
        _, _, worker = _conversation()
        running = asyncio.ensure_future(worker.run())
        worker.post(Say(3))
        await asyncio.sleep(0)
        await worker.stop()
        await running
        if number in (rounds // 2, rounds - 1):
            gc.collect()
            sizes.append(tracemalloc.get_traced_memory()[0])
    return {
        "left": len(asyncio.all_tasks()) - tasks + len(os.listdir("/proc/self/fd")) - files,
        "bytes_each": (sizes[1] - sizes[0]) / (rounds / 2),
        "ms_each": (time.perf_counter() - began) * 1000 / rounds,
    }


async def voice(side: Side) -> Numbers:
    """The demo's eight turns in real time: medians, as it prints them."""
    with tempfile.TemporaryDirectory() as out:
        command = [str(Path(sys.executable).with_name("voxline")), "demo", "--out", out]
        running = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
        said = (await running.communicate())[0].decode()
    found = re.search(r"(\d+) answers.*voice to voice (\d+) ms, (\d+) ms without the silence", said)
    if found is None:
        raise RuntimeError(f"the demo did not end as it should:\n{said}")
    answers, whole_ms, rest_ms = map(int, found.groups())
    return {"voice_ms": rest_ms, "whole_ms": whole_ms, "answers": answers}


async def hour(side: Side, minutes: int = 60) -> Numbers:
    """Conversation with idle time-outs, twice; how long that takes, and whether both were the same."""
    seen: list[tuple[str, int]] = []
    watch = measure.Stopwatch()
    for _ in range(2):
        controller, ear, worker = _conversation()
        running = asyncio.ensure_future(worker.run())
        await asyncio.sleep(0)
        began = time.perf_counter()
        seed = 0
        while worker.clock.now_ns() < minutes * 60e9:
            seed += 1
            await _talk(worker, 10, seed, 90)
        await worker.stop()
        await running
        watch.wall_ns = int((time.perf_counter() - began) * 1e9)
        seen.append((ear.digest.hexdigest(), controller.idles))
    return {"wall_s": watch.wall_ns / 1e9, "different": int(seen[0] != seen[1]), "idles": seen[0][1]}

"""voxline, with everything on (`tapped`), or without a tap (`plain`)."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from importlib.metadata import version as installed
from typing import Any, cast

import numpy as np
from voxline.pipeline import (
    UPSTREAM,
    CancelFrame,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    InputFrame,
    InputTextFrame,
    Outcome,
    Pipeline,
    PipelineWorker,
    Tap,
    TextFrame,
    handles,
)
from voxline.pipeline.processor import Hop

from sides.base import Shape

CONFIGS = ("tapped", "plain")
CHUNK_20_MS = np.frombuffer(random.Random(1).randbytes(640), dtype=np.int16)
RATE = 16_000


@dataclass(frozen=True, slots=True)
class StampedText(TextFrame):
    """Text that carries a number."""

    stamp: int = 0


@dataclass(frozen=True, slots=True)
class ReadyFrame(InputFrame):
    """Sent through once, to know that the conversation takes frames."""


class PassOn(FrameProcessor):
    """Handles every frame by pushing it on."""

    @handles(TextFrame, InputAudioFrame)
    async def pass_on(self, frame: Frame) -> None:
        await self.push(frame)


class Unconcerned(FrameProcessor):
    """Names another class."""

    @handles(InputTextFrame)
    async def read(self, frame: InputTextFrame) -> None:
        await self.push(frame)


class Generates(FrameProcessor):
    """A job that yields the frame."""

    @handles(TextFrame, InputAudioFrame)
    async def generate(self, frame: Frame) -> AsyncIterator[Frame]:
        yield frame


class Slow(FrameProcessor):
    """A job that waits for each frame."""

    queue_frames = 4_000  # the backlog of the benchmark is meant to stand here

    def __init__(self, wait_s: float) -> None:
        self._wait_s = wait_s

    @handles(TextFrame, InputAudioFrame)
    async def wait(self, frame: Frame) -> AsyncIterator[Frame]:
        await asyncio.sleep(self._wait_s)
        yield frame


class Decides(PassOn):
    """Opens the bot's response, and interrupts it."""

    opened = 0

    @handles(ReadyFrame)
    async def open(self, frame: ReadyFrame) -> None:
        self.opened = self.new_response()
        await self.push(frame)


class First(PassOn):
    """The head: sees a cancel on its way upstream."""

    def __init__(self, shape: Shape) -> None:
        self._on_cancel = shape.on_cancel_head

    @handles(CancelFrame, direction=UPSTREAM)
    async def cancelled(self, frame: CancelFrame) -> None:
        self._on_cancel(frame)


class Last(FrameProcessor):
    """The tail: counts what comes out."""

    def __init__(self, shape: Shape) -> None:
        self._on_last = shape.on_last
        self._on_cancel = shape.on_cancel_tail
        self.ready = asyncio.Event()

    @handles(TextFrame, InputAudioFrame)
    async def pass_on(self, frame: Frame) -> None:
        await self.push(frame)
        self._on_last(frame)

    @handles(ReadyFrame)
    async def started(self, frame: ReadyFrame) -> None:
        self.ready.set()

    @handles(CancelFrame)
    async def cancelled(self, frame: CancelFrame) -> None:
        self._on_cancel(frame)


class Attached(Tap):
    """A tap that is called for every delivery. What it would do with that is its own cost, not the engine's."""

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        pass


class OurChain:
    """One conversation: a `PipelineWorker`."""

    def __init__(self, side: Ours, shape: Shape) -> None:
        self._runs = side.runs
        self._last = Last(shape)
        self._decides: Decides | None = None
        self._worker = PipelineWorker(Pipeline([*self._before(shape), self._last]))
        if side.config == "tapped":
            self._worker.add_tap(Attached())

    def _before(self, shape: Shape) -> list[FrameProcessor]:
        if shape.ignoring:
            return [Unconcerned() for _ in range(shape.processors)]
        made: list[FrameProcessor] = []
        for place in range(shape.processors - 1):
            if place == 0 and shape.vad is not None:
                from sides.ours_vad import vad_processor

                made.append(vad_processor(shape.vad))
            elif place == 0:
                made.append(First(shape))
            elif shape.slow is not None and place == shape.slow - 1:
                self._decides = Decides()
                made.append(self._decides)
            elif place == shape.slow:
                made.append(Slow(shape.slow_s))
            elif place in shape.generators:
                made.append(Generates())
            else:
                made.append(PassOn())
        return made

    async def start(self) -> None:
        self._runs.append(asyncio.create_task(self._worker.run()))
        self._worker.post(ReadyFrame())
        await self._last.ready.wait()

    async def send(self, frame: Frame) -> None:
        self._worker.post(frame)

    async def send_all(self, frames: Sequence[Frame]) -> None:
        post = self._worker.post
        response = self._decides.opened if self._decides is not None else 0
        for frame in frames:
            post(frame, response=response)

    async def interrupt(self) -> None:
        assert self._decides is not None
        self._decides.interrupt("the user spoke")


class Ours:
    """voxline in one of its configurations."""

    lanes = {"output": "TextFrame (output)", "input": "InputAudioFrame (input)"}  # noqa: RUF012

    def __init__(self, config: str) -> None:
        if config not in CONFIGS:
            raise SystemExit(f"voxline has the configurations {', '.join(CONFIGS)}, not {config!r}")
        self.config = config
        self.runs: list[asyncio.Task[Outcome]] = []
        self.version = installed("voxline")

    async def open(self) -> None: ...

    def frame(self, lane: str, stamp: int) -> Frame:
        if lane == "output":
            return StampedText("one", stamp)
        return InputAudioFrame(CHUNK_20_MS, RATE, stamp)

    def stamp(self, frame: Any) -> int:
        return cast(int, frame.stamp if isinstance(frame, StampedText) else frame.pts_ns)

    def chain(self, shape: Shape) -> OurChain:
        return OurChain(self, shape)


def side(config: str) -> Ours:
    return Ours(config)

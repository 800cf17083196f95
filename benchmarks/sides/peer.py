# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false, reportAttributeAccessIssue=false
# The peer lives in an environment of its own, which a type checker of ours does not see.
"""pipecat-ai, in four configurations.

- `documented`: what its project generator writes (`PipelineWorker` with metrics on, RTVI, turn tracking and
  idle detection as they are by default), frames entering by `worker.queue_frame()`, as its reference shows.
- `documented-first`: the same, frames entering at the first processor, as they do from a transport.
- `leanest`: everything optional off, frames entering at the first processor.
- `direct`: `leanest`, and every processor in direct mode (no queues, no tasks, and nothing to interrupt).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from importlib.metadata import version as installed
from typing import Any

from loguru import logger

logger.remove()

from pipecat.frames.frames import (  # noqa: E402
    Frame,
    InputAudioRawFrame,
    InterruptionFrame,
    StartFrame,
    TextFrame,
)
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineParams, PipelineWorker  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402

from sides.base import Shape  # noqa: E402

CONFIGS = ("documented", "documented-first", "leanest", "direct")
MEASURED = (TextFrame, InputAudioRawFrame)
CHUNK_20_MS = random.Random(1).randbytes(640)


class PassOn(FrameProcessor):
    """Handles every frame by pushing it on."""

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)


class Generates(FrameProcessor):
    """The way its services do their work: an async generator, each of whose frames is pushed."""

    async def run(self, frame: Frame) -> AsyncGenerator[Frame, None]:
        yield frame

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, MEASURED):
            async for made in self.run(frame):
                await self.push_frame(made)
        else:
            await self.push_frame(frame, direction)


class Slow(FrameProcessor):
    """Waits for each frame."""

    def __init__(self, wait_s: float, **options: Any) -> None:
        super().__init__(**options)
        self._wait_s = wait_s

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, MEASURED):
            await asyncio.sleep(self._wait_s)
        await self.push_frame(frame, direction)


class First(PassOn):
    """The head: sees an interruption on its way upstream."""

    def __init__(self, shape: Shape, **options: Any) -> None:
        super().__init__(**options)
        self._on_cancel = shape.on_cancel_head

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InterruptionFrame) and direction is FrameDirection.UPSTREAM:
            self._on_cancel(frame)


class Last(PassOn):
    """The tail: counts what comes out."""

    def __init__(self, shape: Shape, started: asyncio.Event, **options: Any) -> None:
        super().__init__(**options)
        self._started = started
        self._on_last = shape.on_last
        self._on_cancel = shape.on_cancel_tail

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, MEASURED):
            self._on_last(frame)
        elif isinstance(frame, StartFrame):
            self._started.set()
        elif isinstance(frame, InterruptionFrame) and direction is FrameDirection.DOWNSTREAM:
            self._on_cancel(frame)


class PeerChain:
    """One conversation: a `PipelineWorker` on the common `WorkerRunner`."""

    def __init__(self, side: Peer, shape: Shape) -> None:
        self._runner = side.runner
        self._started = asyncio.Event()
        options = {"enable_direct_mode": True} if side.config == "direct" else {}
        processors: list[FrameProcessor] = []
        for place in range(shape.processors):
            if place == shape.processors - 1:
                made: FrameProcessor = Last(shape, self._started, **options)
            elif place == 0 and shape.vad is not None:
                from sides.peer_vad import vad_processor

                made = vad_processor(shape.vad, options)
            elif place == 0:
                made = First(shape, **options)
            elif place == shape.slow:
                made = Slow(shape.slow_s, **options)
            elif place in shape.generators:
                made = Generates(**options)
            else:
                made = PassOn(**options)
            processors.append(made)
        self._decides = processors[(shape.slow or 1) - 1]
        pipeline = Pipeline(processors)
        if side.config.startswith("documented"):
            self._worker = PipelineWorker(
                pipeline, params=PipelineParams(enable_metrics=True, enable_usage_metrics=True)
            )
        else:
            self._worker = PipelineWorker(
                pipeline,
                params=PipelineParams(),  # no heartbeats, no metrics
                enable_rtvi=False,
                enable_turn_tracking=False,
                enable_tracing=False,
                idle_timeout_secs=None,
                check_dangling_tasks=False,
            )
        self.send = self._worker.queue_frame if side.config == "documented" else processors[0].queue_frame

    async def start(self) -> None:
        await self._runner.add_workers(self._worker)
        await self._started.wait()

    async def send_all(self, frames: Sequence[Any]) -> None:
        send = self.send
        for frame in frames:
            await send(frame)

    async def interrupt(self) -> None:
        await self._decides.broadcast_interruption()


class Peer:
    """pipecat-ai in one of its configurations."""

    lanes = {"output": "TextFrame (a data frame)", "input": "InputAudioRawFrame (a system frame)"}  # noqa: RUF012

    def __init__(self, config: str) -> None:
        if config not in CONFIGS:
            raise SystemExit(f"the peer has the configurations {', '.join(CONFIGS)}, not {config!r}")
        self.config = config
        self.version = installed("pipecat-ai")

    async def open(self) -> None:
        self.runner = WorkerRunner(handle_sigint=False, check_dangling_tasks=False)
        self._running = asyncio.create_task(self.runner.run(auto_end=False))
        await asyncio.sleep(0.05)

    def frame(self, lane: str, stamp: int) -> Frame:
        made = (
            TextFrame("one")
            if lane == "output"
            else InputAudioRawFrame(audio=CHUNK_20_MS, sample_rate=16_000, num_channels=1)
        )
        made.pts = stamp
        return made

    def stamp(self, frame: Any) -> int:
        return frame.pts

    def chain(self, shape: Shape) -> PeerChain:
        return PeerChain(self, shape)


def side(config: str) -> Peer:
    return Peer(config)

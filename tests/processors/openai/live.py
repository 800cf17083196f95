"""Pipeline on the real clock: virtual time stops while a job waits for a socket, so a hang would never time out."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self

from voxline.pipeline import (
    UPSTREAM,
    ErrorFrame,
    Frame,
    FrameProcessor,
    InputFrame,
    Outcome,
    Pipeline,
    PipelineWorker,
    SystemClock,
    TextFrame,
    handles,
)
from voxline.processors.service.base import Limits

PATIENCE_S = 20.0
"""Time limit in s for one wait of a test."""
IMPATIENT = Limits(first_timeout_s=0.15, between_timeout_s=0.15, attempts=40, backoff_s=0.01, backoff_max_s=0.01)
"""Short deadlines for hanging servers, with many retries, because a loaded machine may miss a short deadline too."""


@dataclass(frozen=True, slots=True)
class Interrupt(InputFrame):
    """The user interrupts."""


class Head(FrameProcessor):
    """Interrupts, and keeps what travels upstream."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []

    @handles(Interrupt)
    async def cut(self, frame: Interrupt) -> None:
        self.interrupt("barge-in")

    @handles(Frame, direction=UPSTREAM)
    async def keep(self, frame: Frame) -> None:
        self.frames.append(frame)


class Tail(FrameProcessor):
    """Keeps what comes out."""

    def __init__(self) -> None:
        self.frames: list[Frame] = []
        self.changed = asyncio.Event()

    @handles(Frame)
    async def keep(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.changed.set()


class Live:
    """``async with Live(processor) as live:`` runs it."""

    def __init__(self, processor: FrameProcessor) -> None:
        self._head, self._tail = Head(), Tail()
        self.worker = PipelineWorker(Pipeline([self._head, processor, self._tail]), clock=SystemClock())
        self._run: asyncio.Task[Outcome] | None = None

    @property
    def down(self) -> list[Frame]:
        """Frames that came out of the pipeline."""
        return self._tail.frames

    @property
    def texts(self) -> list[str]:
        """Texts that came out of the pipeline."""
        return [frame.text.strip() for frame in self.down if isinstance(frame, TextFrame)]

    @property
    def errors(self) -> list[str]:
        """Class names of the errors that travelled upstream."""
        return [frame.error for frame in self._head.frames if isinstance(frame, ErrorFrame)]

    async def __aenter__(self) -> Self:
        self._run = asyncio.create_task(self.worker.run())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._run is not None
        self.worker.cancel()
        await asyncio.wait([self._run])

    async def ended(self) -> None:
        """Wait for the end of the run. Raises the error that ended it."""
        assert self._run is not None
        await asyncio.shield(self._run)

    def send(self, *frames: Frame, response: int = 0) -> None:
        """Put frames into the head of the pipeline."""
        for frame in frames:
            self.worker.post(frame, response=response)

    async def interrupt(self) -> None:
        """Cut what the bot is saying."""
        self.worker.post(Interrupt())

    async def until(self, happened: Callable[[], bool]) -> None:
        """Wait until a condition holds; checked after each frame that comes out."""
        async with asyncio.timeout(PATIENCE_S):
            while not happened():
                self._tail.changed.clear()
                await self._tail.changed.wait()

    async def out(self, kind: type[Frame]) -> None:
        """Wait until a frame of this class comes out."""
        await self.until(lambda: any(isinstance(frame, kind) for frame in self.down))

"""A rig for the engine's own tests: a worker in a task, a clock that the test moves, and what everybody saw.

It stands lower than the shipped harness, which has opinions (an error nobody looked at fails the test); here a test
wants to see the engine with nothing in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any, ClassVar, Self

import numpy as np
from voxline.pipeline import (
    DOWNSTREAM,
    UPSTREAM,
    CancelFrame,
    Clock,
    Direction,
    ErrorFrame,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    InputFrame,
    Outcome,
    OutputFrame,
    ParallelPipeline,
    Pipeline,
    PipelineWorker,
    UrgentFrame,
    VirtualClock,
    handles,
)

PATIENCE_S = 30.0
"""Real seconds after which a test that hangs fails."""


@dataclass(frozen=True, slots=True)
class Say(OutputFrame):
    """Something of the bot's."""

    what: str


@dataclass(frozen=True, slots=True)
class Other(OutputFrame):
    """Something of the bot's that most processors here do not name."""

    what: str


@dataclass(frozen=True, slots=True)
class Keep(OutputFrame):
    """Something of the bot's that no interruption drops."""

    survives: ClassVar[bool] = True

    what: str


@dataclass(frozen=True, slots=True)
class Hear(InputFrame):
    """Something of the user's."""

    what: str


@dataclass(frozen=True, slots=True)
class Alarm(UrgentFrame):
    """Overtakes everything."""

    what: str


def mic(number: int = 0) -> InputAudioFrame:
    """20 ms of a silent microphone; ``number`` is its pts."""
    return InputAudioFrame(np.zeros(320, np.int16), 16_000, number)


class Seen(FrameProcessor):
    """Writes down every frame that comes by, with the response it belongs to, and passes it on."""

    def __init__(self, name: str = "seen") -> None:
        self.name = name
        self.frames: list[Frame] = []
        self.responses: list[int] = []
        self.upstream: list[Frame] = []

    @handles(Frame)
    async def down(self, frame: Frame) -> None:
        self.frames.append(frame)
        self.responses.append(self.response)
        await self.push(frame)

    @handles(Frame, direction=UPSTREAM)
    async def up(self, frame: Frame) -> None:
        self.upstream.append(frame)
        await self.push(frame, UPSTREAM)

    @property
    def said(self) -> list[str]:
        """The words of the frames that came down."""
        return [getattr(frame, "what", type(frame).__name__) for frame in self.frames]

    @property
    def cancels(self) -> list[CancelFrame]:
        """The cancel frames."""
        return [frame for frame in self.frames if isinstance(frame, CancelFrame)]

    @property
    def errors(self) -> list[ErrorFrame]:
        """The errors that came up."""
        return [frame for frame in self.upstream if isinstance(frame, ErrorFrame)]


class On(FrameProcessor):
    """Calls ``call(self, frame)`` for each `Hear` (or what ``kinds`` says), and passes nothing on by itself."""

    def __init__(self, call: Callable[[Any, Any], Awaitable[None]], name: str = "on") -> None:
        self.name = name
        self._call = call

    @handles(Hear)
    async def on_hear(self, frame: Hear) -> None:
        await self._call(self, frame)


class Rig:
    """``async with Rig(a, b) as rig:`` runs a pipeline; at the end it is cancelled, and must leave no task."""

    running: ClassVar[int] = 0
    """How many there are; whose task is whose cannot be told."""

    def __init__(
        self,
        *processors: FrameProcessor | Pipeline | ParallelPipeline,
        clock: Clock | None = None,
        **options: Any,
    ) -> None:
        self.clock: Clock = clock or VirtualClock(autojump=False)
        settings: dict[str, Any] = {"seed": 1, "name": "bot", **options}
        self.worker = PipelineWorker(Pipeline(list(processors)), clock=self.clock, **settings)
        self._run: asyncio.Task[Outcome] | None = None

    async def __aenter__(self) -> Self:
        Rig.running += 1
        self._before = asyncio.all_tasks()
        self._run = asyncio.create_task(self.worker.run())
        await self.settle()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        Rig.running -= 1
        self.worker.cancel()
        await self.ended()
        if kind is None and not Rig.running:
            await self.no_task_left()

    @property
    def run(self) -> asyncio.Task[Outcome]:
        """The task in which the worker runs."""
        assert self._run is not None
        return self._run

    def post(self, *frames: Frame, direction: Direction = DOWNSTREAM, response: int = 0) -> None:
        """Put frames in at the head, or at the tail."""
        for frame in frames:
            self.worker.post(frame, direction, response=response)

    async def send(self, *frames: Frame, direction: Direction = DOWNSTREAM, response: int = 0) -> None:
        """The same, and wait until nothing is left to do."""
        self.post(*frames, direction=direction, response=response)
        await self.settle()

    async def settle(self) -> None:
        """Wait until nothing is left to do at this moment."""
        if not isinstance(self.clock, VirtualClock):
            for _ in range(20):
                await asyncio.sleep(0)
            return
        async with asyncio.timeout(PATIENCE_S):
            await self.clock.settle()

    async def advance(self, seconds: float) -> None:
        """Let time pass."""
        if not isinstance(self.clock, VirtualClock):
            await asyncio.sleep(min(seconds, 0.05))
            return
        async with asyncio.timeout(PATIENCE_S):
            await self.clock.advance(seconds)

    async def ended(self) -> Outcome:
        """Let time pass until the worker has ended."""
        for _ in range(200):
            if self.run.done():
                break
            await self.advance(1.0)
        assert self.run.done(), "the worker does not end"
        return self.run.result()

    async def no_task_left(self) -> None:
        """Fail for a task that this run has left behind."""
        for _ in range(5):
            await asyncio.sleep(0)
        left = asyncio.all_tasks() - self._before
        assert not left, f"left behind: {left}"


async def until(condition: Callable[[], bool], turns: int = 1_000) -> None:
    """Let the event loop turn until a condition holds."""
    for _ in range(turns):
        if condition():
            return
        await asyncio.sleep(0)
    raise AssertionError("it never came to that")


class Controller(FrameProcessor):
    """`Hear("new")` opens a response and says a, b, c; `Hear("cut")` interrupts; other words are said as they are."""

    def __init__(self) -> None:
        self.cancels: list[CancelFrame] = []

    @handles(Hear)
    async def decide(self, frame: Hear) -> None:
        if frame.what == "cut":
            self.interrupt("heard it")
        elif frame.what.startswith("new"):
            number = self.new_response()
            for word in frame.what.split()[1:] or ["a", "b", "c"]:
                await self.push(Say(word), response=number)
        else:
            await self.push(Say(frame.what))

    @handles(CancelFrame)
    async def cancelled(self, frame: CancelFrame) -> None:
        self.cancels.append(frame)


class Speaker(FrameProcessor):
    """A job: each word takes a second, and comes out in two halves."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.closed: list[str] = []

    @handles(Say)
    async def speak(self, frame: Say) -> AsyncIterator[Frame]:
        self.begun.append(frame.what)
        try:
            await self.clock.sleep(0.5)
            yield Other(frame.what + "1")
            await self.clock.sleep(0.5)
            yield Other(frame.what + "2")
        finally:
            self.closed.append(frame.what)


class Hooks(FrameProcessor):
    """Writes down that it was started and stopped, and takes its time for both."""

    def __init__(self, log: list[str], name: str = "hooks", start_s: float = 0, stop_s: float = 0) -> None:
        self.name = name
        self.log = log
        self.start_s, self.stop_s = start_s, stop_s

    async def start(self) -> None:
        self.log.append(f"{self.name} starting")
        await self.clock.sleep(self.start_s)
        self.log.append(f"{self.name} started")

    async def stop(self) -> None:
        self.log.append(f"{self.name} stopping")
        await self.clock.sleep(self.stop_s)
        self.log.append(f"{self.name} stopped")


class StuckJob(FrameProcessor):
    @handles(Say)
    async def work(self, frame: Say) -> AsyncIterator[Frame]:
        await asyncio.get_running_loop().create_future()
        yield frame


class NeverIdle(FrameProcessor):
    def idle(self) -> bool:
        return False


class StuckHandler(FrameProcessor):
    @handles(Say)
    async def wait(self, frame: Say) -> None:
        await self.clock.sleep(1_000)


class Slow(FrameProcessor):
    """A job of a second for each `Say`."""

    def __init__(self) -> None:
        self.running = 0
        self.most = 0

    @handles(Say)
    async def work(self, frame: Say) -> AsyncIterator[Frame]:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self.clock.sleep(1)
            yield Say(frame.what + "!")
        finally:
            self.running -= 1

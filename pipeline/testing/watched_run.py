"""Run processors under test and detect a hang, an endless loop, and tasks or timers that outlive the run."""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Sequence
from os import PathLike
from typing import Any

from ..clock import NS_PER_S, VirtualClock, Wait
from ..errors import LifecycleError
from ..frames import Direction, Frame
from ..graph import ParallelPipeline, Pipeline
from ..processor import FrameProcessor, Hop
from ..recording.recording import Recorder
from ..taps import Tap
from ..tasks import spawn
from ..worker import Outcome, PipelineWorker
from .diagnosis import EventLog, TaskWatch, owner, waits_for
from .failures import BenchFailure

PATIENCE_S = 1.0
"""Real seconds without progress that count as a hang."""
START_PATIENCE_S = 20.0
"""The same while processors start: they may load models or start processes, on a busy machine."""
RESTLESS = 100_000
"""Deliveries at one instant that count as an endless loop."""
GRACE_S = 0.05
"""Real seconds that tasks which were cancelled in stop() may take to end."""

_ENGINE = __name__.removesuffix("testing.watched_run")
_HANDLER = "A plain handler hangs, and holds everything else up."

Processors = FrameProcessor | Pipeline | Sequence[FrameProcessor | Pipeline | ParallelPipeline]


class _RunTap(Tap):
    """Tap that counts and logs the deliveries of a run."""

    def __init__(self, run: WatchedRun) -> None:
        self._run = run

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        self._run.moves += 1
        self._run.event_log.delivered(t_ns, hop.origin, hop.processor, hop.direction, frame)

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        self._run.moves += 1
        self._run.event_log.left(t_ns, direction, frame)
        self._run.came_out(frame, direction)

    def failed(self, t_ns: int, processor: str, error: BaseException) -> None:
        self._run.raised.append(error)
        self._run.event_log.note(t_ns, f"! {processor} raised {type(error).__name__}")


class WatchedRun:
    """Processors that run in virtual time, which only the test advances. Base of `Bench`."""

    def __init__(
        self,
        processors: Processors,
        *,
        clock: VirtualClock | None = None,
        patience_s: float | None = None,
        record: str | PathLike[str] | None = None,
        **worker: Any,
    ) -> None:
        if isinstance(processors, FrameProcessor):
            processors = [processors]
        pipeline = processors if isinstance(processors, Pipeline) else Pipeline(processors)
        self.clock = VirtualClock(autojump=False) if clock is None else clock
        if self.clock.jumps:
            raise BenchFailure("A bench moves its clock by hand: give it a VirtualClock(autojump=False).")
        settings: dict[str, Any] = {"seed": 0, "name": "bench", **worker}
        self.worker = PipelineWorker(pipeline, clock=self.clock, **settings)
        self.event_log = EventLog()
        self.moves = 0
        """Number of deliveries and exits."""
        self.raised: list[BaseException] = []
        """Exceptions of handlers and jobs, in order."""
        self.outcome: Outcome | None = None
        """Outcome of the run; None while it runs."""
        self._patience_s = START_PATIENCE_S if patience_s is None else patience_s
        self._patience_then_s = PATIENCE_S if patience_s is None else patience_s
        self._tasks = TaskWatch()
        self._run: asyncio.Task[None] | None = None
        self._start_error: LifecycleError | None = None
        self._broken = False
        self._closed = False
        self._timers_before = [*self.clock.pending]
        self.worker.add_tap(_RunTap(self))
        if record is not None:
            self.worker.add_tap(Recorder(record))

    def came_out(self, frame: Frame, direction: Direction) -> None:
        """Take a frame that left the pipeline."""

    # --- opening and closing ----------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the processors and wait for them. Time advances for a start() that waits for the clock."""
        __tracebackhide__ = True
        self._tasks.install()
        token = owner.set(self._tasks)
        try:
            run = self._run = spawn(self._work(), "bench")
        finally:
            owner.reset(token)
        try:
            await self._pump(lambda: self.worker.running or run.done(), "start()")
            if self._start_error is not None:
                self._closed = True
                raise BenchFailure(f"The processors did not start. {self._start_error}") from self._start_error
            await self.guard(self.clock.settle())
        finally:
            self._patience_s = self._patience_then_s

    async def _work(self) -> None:
        try:
            self.outcome = await self.worker.run()
        except LifecycleError as error:
            self._start_error = error

    async def stop(self) -> list[str]:
        """Stop the processors. Return the faults found, one sentence each."""
        failures: list[str] = []
        run = self._run
        if run is not None and not run.done():
            self.worker.cancel()
            try:
                await self._pump(run.done, "stop()")
            except BenchFailure as failure:
                failures.append(failure.args[0].partition("\n\n")[0])
                run.cancel()
                await self._patience(run.done)
        failures += await self._leaks()
        if self.outcome is not None:
            failures += [error for error in self.outcome.errors if "times in a row" not in error]
        return failures

    async def _pump(self, done: Callable[[], bool], what: str) -> None:
        """Advance time from timer to timer until ``done``."""
        __tracebackhide__ = True
        for _ in range(3):
            if not done():
                await self.guard(self.clock.settle())
        while not done():
            due = self.clock.next_ns
            if due is not None:
                await self.advance_to(due)
            elif not await self._patience(done):
                raise self.breaks(f"{what} hangs.\n{self._at_work()}")

    async def advance_to(self, when_ns: int) -> None:
        """Advance time up to ``when_ns``."""
        __tracebackhide__ = True
        await self.guard(self.clock.advance((when_ns - self.clock.now_ns()) / NS_PER_S))

    async def _leaks(self) -> list[str]:
        """Report the tasks and timers that outlive the run, and cancel the tasks."""
        await self._patience(lambda: not self._tasks.alive(), GRACE_S)
        tasks = [task for task in self._tasks.alive() if task is not self._run]
        leaks = [f"A task outlives its processor: {self._tasks.describe(task)}." for task in tasks]
        for task in tasks:
            task.cancel()
        await self._patience(lambda: not self._tasks.alive(), 0.5)
        for call in self.clock.pending:
            # The engine's own timers are dead when the run is over.
            module = getattr(call, "__module__", "")
            if call not in self._timers_before and not module.startswith(_ENGINE):
                name = getattr(call, "__qualname__", repr(call))
                leaks.append(
                    f"A timer outlives its processor: it will call {name}(). Cancel it in stop(), or use "
                    "self.post_after(), which ends with the pipeline."
                )
        return leaks

    # --- failing ----------------------------------------------------------------------------------------------------

    def failure(self, message: str) -> BenchFailure:
        """Return a failure with the event log."""
        return BenchFailure(f"{message}\n\n{self.event_log}")

    def breaks(self, message: str) -> BenchFailure:
        """Return a failure after which the run can only be closed."""
        self._broken = True
        return self.failure(message)

    def cause(self) -> BaseException | None:
        """Return the last exception of a handler or job."""
        return self.raised[-1] if self.raised else None

    def busy(self) -> bool:
        """Return True while a handler or job runs or a frame is queued."""
        kernel = self.worker.kernel
        return kernel is not None and kernel.busy

    def _at_work(self) -> str:
        """List the running handler, tasks and jobs, line by line."""
        lines: list[str] = []
        if self._run is not None and self._handler_waits(at_all=True):
            lines.append(f"- the handler {waits_for(self._run.get_coro())}")
        lines += [f"- {self._tasks.describe(task)}" for task in self._tasks.alive() if task is not self._run]
        kernel = self.worker.kernel
        if kernel is not None:
            now = self.clock.now_ns()
            lines += [f"- job of {job.doing(now)}" for job in kernel.jobs.values()]
        return "\n".join(lines)

    # --- the guard --------------------------------------------------------------------------------------------------

    async def guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Await work that ends when the pipeline is idle; fail on a hang and on an endless loop."""
        __tracebackhide__ = True
        task = spawn(work, "bench call")
        began = self.moves
        seen = (-1, -1)
        while not task.done():
            now = (self.moves, self.clock.now_ns())
            if now[1] != seen[1]:
                began = self.moves
            if now == seen or self.moves - began > RESTLESS:
                task.cancel()
                await self._patience(task.done)
                if now == seen and self._handler_waits(at_all=True):
                    raise self.breaks(f"{_HANDLER}\n{self._at_work()}")
                if now == seen:
                    raise self.breaks(
                        f"Something hangs: nothing moved for {self._patience_s:g} s of real time.\n{self._at_work()}"
                    )
                raise self.breaks(f"It does not come to rest: {self.moves - began} deliveries at one instant.")
            seen = now
            await self._end_of(task)
        task.result()
        if self._handler_waits() and not await self._patience(lambda: not self._handler_waits()):
            raise self.breaks(f"{_HANDLER}\n{self._at_work()}")

    def _handler_waits(self, *, at_all: bool = False) -> bool:
        """Return True if a plain handler has long been waiting for something other than this clock."""
        kernel = self.worker.kernel
        handler = None if kernel is None else kernel.waiting_handler
        return handler is not None and (at_all or handler.patience_lost)

    async def _end_of(self, task: asyncio.Task[None]) -> None:
        """Wait for the end of a task, at most `_patience_s`."""
        waiting = Wait()
        task.add_done_callback(lambda _: waiting.wake())
        timer = self.clock.patience(self._patience_s, waiting.wake)
        await waiting
        if timer is not None:
            timer.cancel()

    async def _patience(self, done: Callable[[], bool], real_s: float | None = None) -> bool:
        """Wait until ``done``, at most ``real_s`` real seconds. Return the last result of ``done``."""
        left = self._patience_s if real_s is None else real_s
        while not done() and left > 0:
            waiting = Wait()
            self.clock.patience(0.005, waiting.wake)
            await waiting
            left -= 0.005
        return done()


def traceback_of(error: BaseException | None) -> str:
    """Format the traceback of an exception of the run."""
    return "" if error is None else "\n\n" + "".join(traceback.format_exception(error)).rstrip()

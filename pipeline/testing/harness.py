"""A bench for processors: frames in at the ends, frames out at the ends, and time that the test moves.

::

                      virtual time: `await bench.advance(ms=200)`
                .----------------------------------------------------.
                |                                                    |
     send() --> | head -->  your processor, or several in order --> tail | --> bench.down
                |                                                    |
    bench.up <- | head <--                                      <-- tail | <-- send(..., UPSTREAM)
                |                                                    |
                '----------------------------------------------------'
                      `bench.interrupt()`     `bench.errors`

A test needs no sleep and no mock library::

    async def test_doubles_the_microphone(harness):
        bench = await harness(Louder())
        await bench.send(InputAudioFrame(samples, 16_000))
        assert bench.down == [InputAudioFrame(samples * 2, 16_000)]

What is in the box is what runs in production: the same kernel, hooks, jobs and timers. Only the clock is another one; it
stands still until `Bench.advance` moves it. Each call returns when nothing is left to do, so there is nothing to poll.

A processor that hangs, raises, leaks or swallows frames fails the test at once, with a timeline of what happened:

hangs
    Nothing moved for ``patience_s`` real seconds while something was at work. The failure names the method and the line
    where it stands, and what it waits for there.
raises
    An `ErrorFrame` that reaches the head goes to `Bench.errors`. The next use of the bench (and the end of the test)
    fails with it, unless `Bench.expect_error` or a look at `Bench.errors` came first.
leaks
    A job, a task or a timer of its own that is still there when the processor has been stopped.
swallows
    With ``passes=[TextFrame]`` each frame of that class which is sent must come out at the other end, once nothing is
    left to do. (No default: to take a frame and keep it is what sinks and aggregators are for.)
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Callable, Coroutine, Sequence
from os import PathLike
from typing import Any, TypeVar

from ..clock import NS_PER_MS, VirtualClock, Wait
from ..crew import spawn
from ..errors import LifecycleError
from ..frames import DOWNSTREAM, CancelFrame, Direction, ErrorFrame, Frame
from ..graph import ParallelPipeline, Pipeline
from ..host import Hop
from ..processor import FrameProcessor
from ..taps import Tap
from ..worker import Outcome, PipelineWorker
from .diagnosis import TaskWatch, Timeline, owner, short, waits_for

PATIENCE_S = 1.0
"""Real seconds without any progress after which something hangs."""
RESTLESS = 100_000
"""Deliveries within one call after which a pipeline does not come to rest."""
T = TypeVar("T")


class BenchFailure(AssertionError):
    """A bench found something wrong. Its message is for people."""


class _Watcher(Tap):
    """The tap through which a bench sees what happens in the box."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        bench = self._bench
        bench.moved()
        bench.timeline.delivered(t_ns, hop.origin, hop.processor, hop.direction, frame)

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        self._bench.moved()
        self._bench.timeline.left(t_ns, direction, frame)
        self._bench.came_out(frame, direction)

    def failed(self, t_ns: int, processor: str, error: BaseException) -> None:
        self._bench.raised.append(error)
        self._bench.timeline.note(t_ns, f"! {processor} raised {type(error).__name__}")


class Bench:
    """Processors on a bench. Made by the ``harness`` fixture, which also closes it.

    ``patience_s``: real seconds without progress that count as hanging; ``passes``: classes of frames that have to come
    out again. Everything else goes to the `PipelineWorker`.
    """

    def __init__(
        self,
        processors: FrameProcessor | Pipeline | Sequence[FrameProcessor | Pipeline | ParallelPipeline],
        *,
        clock: VirtualClock | None = None,
        patience_s: float = PATIENCE_S,
        passes: Sequence[type[Frame]] = (),
        record: str | PathLike[str] | None = None,
        **worker: Any,
    ) -> None:
        if isinstance(processors, FrameProcessor):
            processors = [processors]
        pipeline = processors if isinstance(processors, Pipeline) else Pipeline(processors)
        self.clock = VirtualClock(autojump=False) if clock is None else clock
        self.worker = PipelineWorker(pipeline, clock=self.clock, **{"seed": 0, **worker})
        self.timeline = Timeline()
        self.raised: list[BaseException] = []
        """What handlers and jobs raised, as it was raised."""
        self.outcome: Outcome | None = None
        """How the run ended; None while it runs."""
        self._patience_s = patience_s
        self._passes = tuple(passes)
        self._record = record
        self._down: list[Frame] = []
        self._up: list[Frame] = []
        self._errors: list[ErrorFrame] = []
        self._unseen: list[ErrorFrame] = []
        self._sent: list[Frame] = []
        self._owed: list[tuple[Frame, Direction]] = []
        self._moves = 0
        self._tasks = TaskWatch()
        self._run: asyncio.Task[None] | None = None
        self._start_error: LifecycleError | None = None
        self._broken = False
        self._closed = False
        self._timers_before = [*self.clock.pending]
        self.worker.add_tap(_Watcher(self))

    # --- what came out ----------------------------------------------------------------------------------------------

    @property
    def down(self) -> list[Frame]:
        """All frames that have left at the tail, in order."""
        __tracebackhide__ = True
        self._check()
        return self._down

    @property
    def up(self) -> list[Frame]:
        """All frames that have left at the head, in order; errors are in `errors`."""
        __tracebackhide__ = True
        self._check()
        return self._up

    @property
    def errors(self) -> list[ErrorFrame]:
        """All errors that have left at the head. Who looks at them has dealt with them."""
        self._unseen.clear()
        return self._errors

    @property
    def processor(self) -> FrameProcessor:
        """The first processor in the box."""
        return next(iter(self.worker.pipeline.processors()))

    @property
    def now_ms(self) -> float:
        """Virtual milliseconds since the bench was made."""
        return self.clock.now_ns() / NS_PER_MS

    def clear(self) -> None:
        """Forget what has come out so far."""
        self._down.clear()
        self._up.clear()

    # --- pushing ----------------------------------------------------------------------------------------------------

    async def send(
        self, *frames: Frame, direction: Direction = DOWNSTREAM, response: int = 0
    ) -> None:
        """Put frames in at the head (or, upstream, at the tail), and return when nothing is left to do.

        ``response``: the number of the response that they belong to; one that is new is opened.
        """
        __tracebackhide__ = True
        self._check()
        for frame in frames:
            if isinstance(frame, CancelFrame):
                raise BenchFailure("A CancelFrame is not sent: the kernel delivers it. Use `await bench.interrupt()`.")
            self.timeline.note(self.clock.now_ns(), f"{'v' if direction is DOWNSTREAM else '^'} sent", frame)
            self._sent.append(frame)
            if isinstance(frame, self._passes):
                self._owed.append((frame, direction))
            self.worker.post(frame, direction, response=response)
        await self._guard(self.clock.settle())
        self._check_owed(finally_=False)

    async def settle(self) -> None:
        """Return when nothing is left to do at this moment: after something outside has acted on the processor."""
        __tracebackhide__ = True
        self._check()
        await self._guard(self.clock.settle())
        self._check_owed(finally_=False)

    async def advance(self, ms: float) -> None:
        """Let virtual time pass, running what falls due."""
        __tracebackhide__ = True
        self._check()
        await self._guard(self.clock.advance(ms / 1000))
        self._check_owed(finally_=False)

    async def interrupt(self, reason: str = "interrupted") -> None:
        """Cut what the bot is saying, as the bot's own controller would; the cancel frame enters at the head."""
        __tracebackhide__ = True
        self._check()
        self.timeline.note(self.clock.now_ns(), f"interrupt: {reason}")
        self.worker.interrupt(reason)
        await self._guard(self.clock.settle())

    # --- from the box -----------------------------------------------------------------------------------------------

    def moved(self) -> None:
        """Something was delivered."""
        self._moves += 1

    def came_out(self, frame: Frame, direction: Direction) -> None:
        """A frame has left the box."""
        for index, (owed, way) in enumerate(self._owed):
            if way is direction and (owed is frame or owed == frame):
                del self._owed[index]
                break
        if isinstance(frame, ErrorFrame) and not any(frame is sent for sent in self._sent):
            self._errors.append(frame)
            self._unseen.append(frame)
        else:
            (self._down if direction is DOWNSTREAM else self._up).append(frame)

    # --- opening and closing ----------------------------------------------------------------------------------------

    async def open(self) -> Bench:
        """Start the processors, and return when they have started."""
        __tracebackhide__ = True
        self._tasks.install()
        token = owner.set(self._tasks)
        try:
            self._run = spawn(self._work(), "bench")
        finally:
            owner.reset(token)
        run = self._run
        await self._pump(lambda: self.worker.running or run.done(), "start")
        if self._start_error is not None:
            raise BenchFailure(f"The processors did not start. {self._start_error}") from self._start_error
        await self._guard(self.clock.settle())
        return self

    async def _work(self) -> None:
        try:
            self.outcome = await self.worker.run()
        except LifecycleError as error:
            self._start_error = error

    async def close(self) -> None:
        """Stop the processors, and fail for errors that nobody looked at, frames that are owed, and leaks.

        The fixture does it when the test has ended.
        """
        __tracebackhide__ = True
        if self._closed:
            return
        self._closed = True
        failures: list[str] = []
        if not self._broken:
            try:
                await self._guard(self.clock.settle())
                self._check_owed(finally_=True)
            except BenchFailure as failure:
                failures.append(str(failure))
        run = self._run
        if run is not None and not run.done():
            self.worker.cancel()
            try:
                await self._pump(run.done, "stop")
            except BenchFailure as failure:
                failures.append(str(failure))
                run.cancel()
                await self._patience(run.done)
        failures += await self._leaks()
        if self.outcome is not None:
            failures += [error for error in self.outcome.errors if "times in a row" not in error]
        unseen = self._error_message()
        if unseen:
            failures.insert(0, unseen)
        if failures and not self._broken:
            raise self._failure("\n".join(failures)) from self._cause()

    async def _pump(self, done: Callable[[], bool], what: str) -> None:
        """Let time pass until ``done``, from timer to timer."""
        __tracebackhide__ = True
        for _ in range(3):
            await self._guard(self.clock.settle())
        while not done():
            due = self.clock.next_ns
            if due is None:
                if not await self._patience(done):
                    raise self._failure(f"{what}() hangs.\n{self._at_work()}")
            else:
                await self._guard(self.clock.advance((due - self.clock.now_ns()) / 1e9))

    async def _leaks(self) -> list[str]:
        """Tasks and timers that are still there; the tasks are ended."""
        await self._patience(lambda: not self._tasks.alive(), 0.05)
        tasks = [task for task in self._tasks.alive() if task is not self._run]
        leaks = [f"A task outlives its processor: {self._tasks.describe(task)}." for task in tasks]
        for task in tasks:
            task.cancel()
        if tasks:
            await self._patience(lambda: not self._tasks.alive(), 0.5)
        for call in self.clock.pending:
            module = getattr(call, "__module__", "")
            if call not in self._timers_before and not module.startswith("voxline.pipeline."):
                name = getattr(call, "__qualname__", repr(call))
                leaks.append(
                    f"A timer outlives its processor: it will call {name}(). Cancel it in stop(), or use "
                    "self.post_after(), which the worker cancels."
                )
        return leaks

    # --- failing ----------------------------------------------------------------------------------------------------

    def _failure(self, message: str) -> BenchFailure:
        return BenchFailure(f"{message}\n\n{self.timeline}")

    def _break(self, message: str) -> BenchFailure:
        """A failure after which the bench is good for nothing but to be closed."""
        self._broken = True
        return self._failure(message)

    def _check(self) -> None:
        """Fail for an error that nobody looked at."""
        __tracebackhide__ = True
        message = self._error_message()
        if message:
            self._unseen.clear()
            raise self._failure(message) from self._cause()
        if self._run is not None and self._run.done() and not self._closed:
            raise self._failure(f"The pipeline has ended: {self.outcome}.")

    def _error_message(self) -> str:
        return "\n".join(
            f"{error.processor} failed with {error.error} while it had {error.frame or 'no frame'}: {error.message}"
            for error in self._unseen
        )

    def _cause(self) -> BaseException | None:
        return self.raised[-1] if self.raised else None

    def _check_owed(self, *, finally_: bool) -> None:
        __tracebackhide__ = True
        if not self._owed or (not finally_ and self._busy()):
            return
        owed, self._owed = self._owed, []
        lines: list[str] = []
        for frame, direction in owed:
            end = "tail" if direction is DOWNSTREAM else "head"
            taker = self.timeline.last_taker(frame)
            by = f" {taker} took it and let nothing out." if taker else ""
            lines.append(f"{short(frame)} was swallowed: it was sent and did not come out at the {end}.{by}")
        raise self._failure("\n".join(lines)) from self._cause()

    def _busy(self) -> bool:
        kernel = self.worker._kernel
        return kernel is not None and any(
            station.running or station.waiting or station.long_jobs for station in kernel.stations.values()
        )

    # --- the guard --------------------------------------------------------------------------------------------------

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Await something that ends when nothing is left to do, and fail where nothing moves or nothing rests."""
        __tracebackhide__ = True
        task = spawn(work, "bench call")
        began = self._moves
        seen = (-1, -1)
        while not task.done():
            now = (self._moves, self.clock.now_ns())
            if now == seen or self._moves - began > RESTLESS:
                task.cancel()
                await self._patience(task.done)
                if now == seen:
                    raise self._break(f"Something hangs: nothing moved for {self._patience_s:g} s.\n{self._at_work()}")
                raise self._break(f"It does not come to rest: {self._moves - began} deliveries in one call.")
            seen = now
            await self._patience(task.done, watch=task)
        task.result()
        if self._handler_waits() and not await self._patience(lambda: not self._handler_waits()):
            raise self._break(f"A plain handler hangs, and holds everything else up.\n{self._at_work()}")

    def _handler_waits(self) -> bool:
        """Whether a plain handler waits for something that is not this clock."""
        drive = self.worker._drive
        return drive is not None and drive._impatient

    async def _patience(
        self, done: Callable[[], bool], real_s: float | None = None, watch: asyncio.Task[None] | None = None
    ) -> bool:
        """Wait until ``done``, for real seconds at most. Whether it came to that."""
        left = self._patience_s if real_s is None else real_s
        step = left if watch is not None else 0.005
        while not done() and left > 0:
            waiting = Wait()
            if watch is not None:
                watch.add_done_callback(lambda _, waiting=waiting: waiting.wake())
            timer = self.clock.patience(step, waiting.wake)
            await waiting
            if timer is not None:
                timer.cancel()
            left -= step
        return done()

    def _at_work(self) -> str:
        """What is at work, line by line."""
        kernel = self.worker._kernel
        lines = [
            f"- {self._tasks.describe(task)}" for task in self._tasks.alive() if task is not self._run
        ]
        if self._run is not None and self._handler_waits():
            lines.insert(0, f"- the handler {waits_for(self._run.get_coro())}")
        if kernel is not None:
            now = self.clock.now_ns()
            lines += [f"- job {job.doing(now)}" for job in kernel.crew.jobs.values()]
        return "\n".join(lines)


class Harness:
    """Makes benches, and closes them. What the ``harness`` fixture gives."""

    def __init__(self) -> None:
        self._benches: list[Bench] = []

    async def __call__(
        self,
        processors: FrameProcessor | Pipeline | Sequence[FrameProcessor | Pipeline | ParallelPipeline],
        **options: Any,
    ) -> Bench:
        """Put processors on a bench, and start them. The options are `Bench`'s."""
        __tracebackhide__ = True
        bench = Bench(processors, **options)
        self._benches.append(bench)
        return await bench.open()

    async def close(self, failure: BaseException | None = None) -> None:
        """Close all benches. What they find is added to ``failure`` as a note, where the test has failed already."""
        __tracebackhide__ = True
        found: list[BenchFailure] = []
        for bench in self._benches:
            try:
                await bench.close()
            except BenchFailure as problem:
                found.append(problem)
        for problem in found:
            if failure is None:
                raise problem
            failure.add_note(f"When the bench was closed: {problem}")

"""A worker runs one pipeline: one conversation, one task."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from .clock import NS_PER_MS, Activity, Clock, SystemClock, TimerHandle, Wait, current_activity
from .engine.hooks import Hook, HookRun, run_hooks, wait_for_tasks
from .engine.kernel import Kernel
from .engine.loop import KernelLoop
from .engine.node import Node
from .errors import LifecycleError, PipelineError, QueueOverflowError
from .frames import DOWNSTREAM, Direction, Frame
from .graph import Graph, Pipeline
from .jobs import FROM_OUTSIDE, OUTSIDE, Job
from .processor import FrameProcessor
from .taps import Run, Tap

log = logging.getLogger("voxline")


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """Number of errors in a row of one processor after which the worker ends, with reason ``failed``."""

    max_in_a_row: int = 20


@dataclass(frozen=True, slots=True)
class Outcome:
    """The end of a run.

    ``reason``: ``ended`` (its sources had nothing more, or a processor asked for it), ``stopped``, ``cancelled`` or
    ``failed``. ``errors``: failures of the end, in sentences: which processor passed which deadline, and at what work.
    """

    reason: str
    errors: tuple[str, ...] = ()


@dataclass(slots=True)
class _PendingOutcome:
    reason: str = ""
    errors: list[str] = field(default_factory=list)


class PipelineWorker:
    """Runs one pipeline, once.

    ``clock``: a `VirtualClock` makes time jump. ``seed``: of `FrameProcessor.random`; drawn if not given.
    ``handler_slow_ms`` / ``handler_timeout_ms``: when a plain handler that waits is reported / cancelled.
    ``drain_timeout_ms``: the time that `stop` has for queued frames, jobs and playout.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        *,
        clock: Clock | None = None,
        seed: int | None = None,
        handler_slow_ms: float = 50,
        handler_timeout_ms: float = 1_000,
        drain_timeout_ms: float = 60_000,
        inbox_frames: int = 10_000,
        errors: ErrorPolicy | None = None,
        replaying: bool = False,
        name: str = "",
    ) -> None:
        if not isinstance(pipeline, Pipeline):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise PipelineError(f"PipelineWorker runs a Pipeline: write PipelineWorker(Pipeline({pipeline!r})).")
        self.pipeline = pipeline
        self.name = name or pipeline.name or "worker"
        self.clock = clock or SystemClock()
        self.seed = random.SystemRandom().getrandbits(32) if seed is None else seed
        self.drain_timeout_ms = drain_timeout_ms
        self.errors = errors or ErrorPolicy()
        self._slow_ms, self._timeout_ms = handler_slow_ms, handler_timeout_ms
        self._inbox_frames = inbox_frames
        self._replaying = replaying
        self._graph = Graph(pipeline)
        self._kernel: Kernel | None = None
        self._kernel_loop: KernelLoop | None = None
        self._ending = _PendingOutcome()
        self._draining = False
        self._drain_reason = "ended"
        self._stop_requested = False
        self._drain_timers: list[TimerHandle] = []
        self._start_hooks: HookRun | None = None
        self._start_waits: list[Wait] = []
        self._finish_waits: list[Wait] = []
        self._outcome: Outcome | None = None
        self._senders: set[Job] = set()
        self._before_run: list[Callable[[], object]] = []
        self._running = False
        self._was_running = False
        """True once it has run."""
        self._feed: Callable[[Kernel], bool] | None = None

    # --- running ----------------------------------------------------------------------------------------------------

    async def run(self) -> Outcome:
        """Start the processors, run the pipeline to its end, stop them.

        Ends by itself when all sources have ended and all that followed from them is delivered and played. Raises
        `LifecycleError` where a processor does not start.
        """
        if self._kernel is not None or self._outcome is not None:
            raise PipelineError(f"{self.name} has run already. A worker runs once: make another PipelineWorker.")
        if self._ending.reason:
            # Stopped or cancelled before it ran: nothing is started.
            return self._finish()
        activity = Activity(self.clock) if self.clock.counts else None
        token = current_activity.set(activity)
        try:
            return await self._run()
        finally:
            with contextlib.suppress(ValueError):  # another context: the loop was closed under a pending run
                current_activity.reset(token)
            if activity is not None:
                activity.finish()

    async def _run(self) -> Outcome:
        kernel = self._kernel = Kernel(
            self._graph,
            self.clock,
            seed=self.seed,
            inbox_frames=self._inbox_frames,
            replaying=self._replaying,
        )
        kernel.on_failure, kernel.on_end = self._on_failure, self._on_end
        kernel.on_sources_ended = self._on_sources_ended
        self._kernel_loop = KernelLoop(
            kernel, slow_ms=self._slow_ms, timeout_ms=self._timeout_ms, on_idle=self._on_idle
        )
        try:
            for call in self._before_run:
                call()
            await self._start()
            if not self._ending.reason:
                kernel.job_runner.begin_sources([*kernel.nodes.values()])
                if self._draining:
                    self._start_drain(kernel)
                self._running = self._was_running = True
                self._wake(self._start_waits)
                self._kernel_loop.draining = self._kernel_loop.draining or self._feed is not None
                await self._kernel_loop.run()
        except asyncio.CancelledError:
            self._ending.reason = "cancelled"
            raise
        except BaseException:
            self._ending.reason = self._ending.reason or "failed"
            raise
        finally:
            self._running = False
            await self._close(kernel)
        return self._outcome or Outcome("ended")

    async def replay(self, feed: Callable[[Kernel], bool]) -> Outcome:
        """`run`, with the entries of a recording as its inbox.

        ``feed`` is called when nothing is left to do: it puts the next entry in (`Kernel.feed`), or returns False at
        the end. For a worker made with ``replaying=True``; see `voxline.pipeline.recording.replay`.
        """
        if not self._replaying:
            raise PipelineError(f"{self.name} cannot replay: make it with PipelineWorker(..., replaying=True).")
        self._feed = feed
        return await self.run()

    async def stop(self, timeout_ms: float | None = None) -> Outcome:
        """Drain and end: queued frames are delivered, jobs finish, playout ends. Always returns, at the deadline at
        the latest (``drain_timeout_ms``); then the outcome names the stuck processors, their work, and for how long.
        """
        if self._kernel is None:
            self._ending.reason = self._ending.reason or "stopped"
            return Outcome(self._ending.reason)
        if timeout_ms is not None:
            self.drain_timeout_ms = timeout_ms
        requested, self._stop_requested = self._stop_requested, True
        if self._draining and self._outcome is None and (timeout_ms is not None or not requested):
            self._limit_drain()
        self._drain("stopped")
        return await self.finished()

    def cancel(self) -> None:
        """End now. Queued frames are dropped, jobs are closed."""
        self._end("cancelled")

    async def finished(self) -> Outcome:
        """Wait for the end of the run."""
        if self._outcome is None:
            waiting = Wait()
            self._finish_waits.append(waiting)
            await waiting
        assert self._outcome is not None
        return self._outcome

    async def started(self) -> bool:
        """Wait until the processors have started and frames flow. Returns False where the run ended before that."""
        if not self._was_running and self._outcome is None:
            waiting = Wait()
            self._start_waits.append(waiting)
            await waiting
        return self._was_running

    # --- from outside the pipeline ----------------------------------------------------------------------------------

    def post(self, frame: Frame, direction: Direction = DOWNSTREAM, *, response: int = 0) -> None:
        """Put a frame into the inbox, to travel from the head down (or from the tail up).

        Before `run` the frame is kept until then; after the end it is ignored. Raises `QueueOverflowError` when the
        inbox is full; `send` waits instead.
        """
        if self._outcome is not None:
            return
        if self._kernel is None:
            if len(self._before_run) >= self._inbox_frames:
                raise QueueOverflowError(
                    f"{len(self._before_run)} frames wait for {self.name} to run, its bound; {type(frame).__name__} "
                    "does not fit. Call run() first, or make the worker with a larger inbox_frames."
                )
            self._before_run.append(lambda: self.post(frame, direction, response=response))
            return
        kernel = self._kernel
        routes = kernel.head_routes if direction is DOWNSTREAM else kernel.tail_routes
        # With the origin, the kernel notes a new response when it takes the frame, and not before.
        kernel.enter_inbox(routes[type(frame)], frame, response, FROM_OUTSIDE if response else None)

    async def send(self, frame: Frame, direction: Direction = DOWNSTREAM, *, response: int = 0) -> None:
        """`post`, then wait until the frame is delivered, and while a place that it went to is full."""
        kernel = self._kernel
        if kernel is None:
            raise PipelineError(f"{self.name} does not run yet; send() waits for a delivery. Use post() before run().")
        routes = kernel.head_routes if direction is DOWNSTREAM else kernel.tail_routes
        sender = Job(OUTSIDE, "(outside)", "send", type(frame).__name__, frame.lane, response, self.clock.now_ns())
        kernel.enter_inbox(routes[type(frame)], frame, response, sender)
        self._senders.add(sender)
        try:
            await sender.ready()
        finally:
            self._senders.discard(sender)

    def interrupt(self, reason: str = "interrupted") -> None:
        """Cut the bot's current responses, as a processor's `interrupt` does; the cancel frame starts at the head."""
        if self._kernel is not None and self._outcome is None:
            self._kernel.interrupt(self, reason, None)

    def add_tap(self, tap: Tap) -> Callable[[], None]:
        """Attach a tap. Returns a function that detaches it."""
        if self._kernel is None:
            removed: list[Callable[[], None]] = []

            def attach() -> None:
                removed.append(self.add_tap(tap))

            def remove() -> None:
                if attach in self._before_run:
                    self._before_run.remove(attach)
                while removed:
                    removed.pop()()

            self._before_run.append(attach)
            return remove
        kernel = self._kernel
        tap.opened(Run(self.name, self.seed, self.paths, self.clock.now_ns(), self._running, lambda: kernel.response))
        return kernel.taps.add(tap)

    @property
    def running(self) -> bool:
        """True while the processors have started and frames flow."""
        return self._running

    @property
    def paths(self) -> tuple[str, ...]:
        """The paths of all processors, in order."""
        return tuple(node.path for node in self._graph.nodes)

    @property
    def kernel(self) -> Kernel | None:
        """The engine of the run, for recordings and test benches; None before `run`."""
        return self._kernel

    @property
    def responses(self) -> int:
        """The number of the newest response."""
        return 0 if self._kernel is None else self._kernel.responses

    @property
    def refused(self) -> int:
        """The number of frames that came too late, for a response that had been cut."""
        return 0 if self._kernel is None else self._kernel.inbox.refused

    # --- starting and ending ----------------------------------------------------------------------------------------

    async def _start(self) -> None:
        if self._replaying:
            return
        hooks = self._hooks("start")
        if not hooks:
            return

        def starting(run: HookRun) -> None:
            self._start_hooks = run

        try:
            errors = await run_hooks(self.clock, hooks, starting)
        finally:
            self._start_hooks = None
        if errors and not self._ending.reason:
            self._ending.reason = "failed"
            self._ending.errors += [error.message for error in errors]
            cause = next((error.error for error in errors if error.error is not None), None)
            raise LifecycleError(" ".join(error.message for error in errors)) from cause

    def _hooks(self, which: str) -> list[Hook]:
        return [
            Hook(
                f"{node.path}.{which}()",
                getattr(node.processor, which),
                _timeout(node.processor, which),
            )
            for node in self._nodes()
            if getattr(type(node.processor), which) is not getattr(FrameProcessor, which)
        ]

    def _nodes(self) -> list[Node]:
        return [] if self._kernel is None else list(self._kernel.nodes.values())

    def _drain(self, reason: str) -> None:
        """Start to drain: no more input; the end comes when nothing is left to do, or at the deadline."""
        if self._draining or self._outcome is not None:
            return
        self._draining, self._drain_reason = True, reason
        if self._kernel is not None and not self._replaying:
            self._limit_drain()
            if self._start_hooks is None:
                self._start_drain(self._kernel)

    def _start_drain(self, kernel: Kernel) -> None:
        kernel.job_runner.close_all(self._nodes(), only_sources=True)
        if self._kernel_loop is not None:
            self._kernel_loop.draining = True
        kernel.wake()

    def _limit_drain(self) -> None:
        """Set the deadline of a drain. Without a call of `stop` it is extended as long as the kernel makes steps: an
        answer may take longer to be played than `stop` would wait for it.
        """
        seen = self._kernel.step_ns if self._kernel is not None else 0

        def overdue() -> None:
            if self._outcome is None:
                if not self._stop_requested and self._kernel is not None and self._kernel.step_ns != seen:
                    self._limit_drain()
                    return
                self._ending.errors += self._stuck()
                log.error("%s did not drain within %g ms: %s", self.name, self.drain_timeout_ms, self._ending.errors)
                self._end(self._drain_reason)

        deadline = self.clock.now_ns() + round(self.drain_timeout_ms * NS_PER_MS)
        self._drain_timers.append(self.clock.call_at(deadline, overdue))
        patience = self.clock.patience(self.drain_timeout_ms / 1000, overdue)
        if patience is not None:
            self._drain_timers.append(patience)

    def _stuck(self) -> list[str]:
        kernel = self._kernel
        if kernel is None:
            return []
        now = self.clock.now_ns()
        starting = [] if self._start_hooks is None else [f"{what} is not done" for what in self._start_hooks.unfinished]
        handler = [] if kernel.waiting_handler is None else [kernel.waiting_handler.doing(now)]
        jobs = [
            f"{job.doing(now)}" for job in kernel.job_runner.jobs.values() if job.stream is None or job.stream.closed
        ]
        busy = [f"{s.path} {why}" for s in self._nodes() if (why := _busy(s))]
        waiting = [f"{s.path}: {s.waiting} frames wait behind its job" for s in self._nodes() if s.waiting]
        stuck = [*starting, *handler, *jobs, *busy, *waiting]
        return stuck or ["Nothing hangs, but frames kept coming in: something posts without end."]

    def _on_idle(self) -> None:
        """End a drain where nothing is left to do at all. Called when the inbox is empty."""
        kernel, kernel_loop = self._kernel, self._kernel_loop
        assert kernel is not None
        assert kernel_loop is not None
        if self._feed is not None:
            if not self._feed(kernel):
                kernel_loop.end()
            return
        nodes = self._nodes()
        if any(node.running or _busy(node) for node in nodes):
            return
        if kernel.job_runner.close_next_stream(nodes) or kernel.job_runner.jobs:
            return
        self._ending.reason = self._drain_reason
        kernel_loop.end()

    def _on_end(self, reason: str) -> None:
        """Drain: a processor has asked for the end."""
        log.debug("%s ends: %s", self.name, reason)
        if not self._replaying:
            self._drain("ended")

    def _on_sources_ended(self) -> None:
        """Drain: all sources have ended."""
        self._drain("ended")

    def _on_failure(self, node: Node) -> None:
        node.failures += 1
        if node.failures > self.errors.max_in_a_row and not self._replaying:
            self._ending.errors.append(f"{node.path} failed {node.failures} times in a row.")
            self._end("failed")

    def _end(self, reason: str) -> None:
        if self._outcome is None:
            self._ending.reason = self._ending.reason or reason
            if self._start_hooks is not None:
                self._start_hooks.wake()
            if self._kernel_loop is not None:
                self._kernel_loop.end()

    async def _close(self, kernel: Kernel) -> None:
        """Close the jobs, stop the processors, release everything; also where the task is cancelled meanwhile."""
        for timer in self._drain_timers:
            timer.cancel()
        kernel.job_runner.close_all(self._nodes())
        cancelled: asyncio.CancelledError | None = None
        try:
            if not await wait_for_tasks(self.clock, kernel.job_runner.tasks(), 1_000):
                self._ending.errors += [
                    f"{job.doing(self.clock.now_ns())}: it ignores that it was cancelled, and is left behind."
                    for job in kernel.job_runner.jobs.values()
                    if job.cancel is not None
                ]
        except asyncio.CancelledError as error:
            cancelled = error
        try:
            if not self._replaying:
                kernel.ending = self._ending.reason or "ended"
                errors = await run_hooks(self.clock, self._hooks("stop"))
                self._ending.errors += [error.message for error in errors]
        except asyncio.CancelledError as error:
            cancelled = error
        kernel.taps.closed()
        kernel.dissolve()
        for sender in self._senders:
            sender.stop_waiting()
        self._finish()
        if cancelled is not None:
            raise cancelled

    def _finish(self) -> Outcome:
        self._outcome = Outcome(self._ending.reason or "ended", tuple(dict.fromkeys(self._ending.errors)))
        self._wake(self._start_waits)
        self._wake(self._finish_waits)
        return self._outcome

    def _wake(self, waits: list[Wait]) -> None:
        for waiting in waits:
            waiting.wake()
        waits.clear()


def _busy(node: Node) -> str:
    """Say why a processor keeps the worker from ending; empty where it does not."""
    try:
        return "" if node.processor.idle() else "still has something to do (idle() is False)"
    except Exception as error:
        return f"cannot say whether it is done (idle() raised {type(error).__name__}: {error})"


def _timeout(processor: FrameProcessor, which: str) -> float:
    return processor.start_timeout_ms if which == "start" else processor.stop_timeout_ms

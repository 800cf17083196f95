"""The job runner: starts the jobs of a running pipeline, passes on their frames, and sees them end.

Tasks are made here and in `pipeline/tasks.py`, nowhere else. `docs/design/jobs.md` draws the life of a job.
"""

from __future__ import annotations

import asyncio
import sys
from asyncio import _enter_task, _leave_task  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator, Iterable
from contextvars import copy_context
from types import coroutine
from typing import Any, Protocol, cast

from ..clock import NS_PER_S, Activity, Clock, current_activity
from ..errors import ProcessorError, QueueOverflowError
from ..frames import DOWNSTREAM, Frame, Lane
from ..jobs import CLOSING_S, Job, JobEndedFrame, Stream, current_job
from ..processor import Hop, Part
from .node import Node


class KernelPort(Protocol):
    """The part of the kernel that the job runner uses."""

    clock: Clock
    replaying: bool
    response: int
    step_ns: int

    def now_ns(self) -> int:
        """Return the time."""
        ...

    def enter_inbox(self, hop: Hop, frame: Frame, response: int = 0, origin: Job | None = None) -> None:
        """Put an entry into the inbox."""
        ...

    def ended_hop(self, node: Node) -> Hop:
        """Return the hop of a node's `JobEndedFrame`s."""
        ...

    def sources_ended(self) -> None:
        """Note that no source is left."""
        ...

    def job_failed(self, node: Node, error: BaseException) -> None:
        """Log a job's exception."""
        ...

    def overflowed(self, node: Node, frame: Frame, error: QueueOverflowError) -> None:
        """Report that the inbox is full."""
        ...


class WarmTask:
    """A task that runs jobs one after another, and waits for the next job when it has none.

    Most of a short job's cost would be its task and the turns of the event loop until that task runs. So the first
    part of a job, up to where it first waits, runs at once in the kernel's step, with the warm task as the current
    one (asyncio's documented calls for that: "Extending", _enter_task and _leave_task) and in its context. A job that
    never waits runs to its end there; only a job that waits is handed over to the task.
    """

    __slots__ = ("_cancelled", "_event_loop", "_job_runner", "_next", "_parked", "_started", "context", "task")

    def __init__(self, job_runner: JobRunner, work: Coroutine[Any, Any, None], name: str) -> None:
        self._job_runner = job_runner
        self._next: tuple[Coroutine[Any, Any, None], Any] | None = None
        """A job that was handed over, and the future that it waits for."""
        self._parked: asyncio.Future[None] | None = None
        self._started = False
        self._cancelled = False
        self.context = copy_context()
        self._event_loop = asyncio.get_running_loop()
        self.task = self._event_loop.create_task(self._run(work), name=name, context=self.context)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._started = True
        await work
        while self._job_runner.spare is None and not self._job_runner.closing:
            self._job_runner.spare = self
            self._parked = self._event_loop.create_future()
            try:
                await self._parked
            except asyncio.CancelledError:
                # A time-out of the job's own, before this task had its turn: the job has to get it.
                if self._next is None:
                    raise
                self._cancelled = True
            finally:
                if self._job_runner.spare is self:
                    self._job_runner.spare = None
            if self._next is not None:
                (work, waiting), self._next = self._next, None
                cancelled, self._cancelled = self._cancelled, False
                await _continue(work, waiting, cancelled)

    def cancel(self) -> None:
        """Cancel the job that it runs, at the job's own wait."""
        if self._next is not None:
            # The job was handed over, and this task has not had its turn yet: cancelling the task would lose the job.
            self._cancelled = True
        elif self._started:
            # A task that is cancelled before it starts would never run its job. Such a job sees `closing` instead.
            self.task.cancel()

    def run_first_part(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run a job up to its first wait. Returns True where it waits: it then belongs to this task."""
        event_loop, caller = self._event_loop, self._job_runner.caller
        if caller is not None:
            _leave_task(event_loop, caller)
        _enter_task(event_loop, self.task)
        try:
            waiting = self.context.run(work.send, None)
        except StopIteration:
            return False
        finally:
            _leave_task(event_loop, self.task)
            if caller is not None:
                _enter_task(event_loop, caller)
        self._next = (work, waiting)
        self._job_runner.spare = None
        assert self._parked is not None
        if not self._parked.done():
            self._parked.set_result(None)
        return True


@coroutine
def _continue(work: Coroutine[Any, Any, None], waiting: Any, cancelled: bool) -> Generator[Any, Any, None]:
    """Run the rest of a coroutine that has started already, and waits for ``waiting``."""
    while True:
        raised: BaseException | None = None
        try:
            if cancelled:
                cancelled = False
                if isinstance(waiting, asyncio.Future):
                    cast("asyncio.Future[Any]", waiting).cancel()
                raise asyncio.CancelledError
            yield waiting
        except BaseException as error:
            raised = error
        try:
            waiting = work.send(None) if raised is None else work.throw(raised)
        except StopIteration:
            return


@coroutine
def _turn() -> Generator[None, None, None]:
    """Let the event loop run once."""
    yield


class JobRunner:
    """Starts jobs, passes on the frames that they yield, and sees them end."""

    def __init__(self, kernel: KernelPort) -> None:
        self._kernel = kernel
        self.started = 0
        """The number of the newest job."""
        self.jobs: dict[int, Job] = {}
        """All jobs that have not ended."""
        self.warm_tasks: set[WarmTask] = set()
        """The tasks of all jobs, also of those that ignore their cancellation."""
        self.caller: asyncio.Task[Any] | None = None
        """The kernel's task, in which the first part of a job runs."""
        self.closing = False
        self.spare: WarmTask | None = None
        """The warm task that waits for the next job."""
        self.sources: set[Job] = set()
        self._asyncgen_hooks = sys.get_asyncgen_hooks()
        """The event loop's hooks. They stay the same while it runs, and to ask for them takes 0.15 µs."""

    # --- starting ---------------------------------------------------------------------------------------------------

    def begin(self, node: Node, part: Part, frame: Frame) -> Job:
        """Start a job that answers a frame."""
        lane = frame.lane
        job = self._job(node, part, type(frame).__name__, lane, self._kernel.step_ns)
        if lane is not Lane.INPUT:
            job.response = self._kernel.response
            if frame.survives:
                job.survives = True
        node.running.append(job)
        self._start(job, node, part, frame)
        return job

    def stream(self, node: Node, part: Part) -> Stream[Frame]:
        """Return the stream of a processor's long job; start the job where it does not run."""
        job = node.long_jobs.get(part.method)
        if job is None:
            job = self._job(node, part, "", Lane.INPUT, self._kernel.now_ns())
            job.stream = Stream(self._kernel.clock, part.bound)
            node.long_jobs = {**node.long_jobs, part.method: job}
            self._start(job, node, part, job.stream)
        assert job.stream is not None
        return job.stream

    def begin_sources(self, nodes: Iterable[Node]) -> None:
        """Start all sources."""
        for node in nodes:
            for part in node.graph_node.sources:
                job = self._job(node, part, "", Lane.INPUT, self._kernel.now_ns())
                node.long_jobs = {**node.long_jobs, part.method: job}
                self.sources.add(job)
                self._start(job, node, part)

    def _job(self, node: Node, part: Part, frame: str, lane: Lane, since_ns: int) -> Job:
        self.started = number = self.started + 1
        job = Job(number, node.path, part.method, frame, lane, 0, since_ns)
        self.jobs[number] = job
        return job

    def _start(self, job: Job, node: Node, part: Part, *arguments: object) -> None:
        frames = getattr(node.processor, part.method)(*arguments)
        if self._kernel.replaying:
            return
        if self._kernel.clock.counts:
            job.activity = Activity(self._kernel.clock)
        work = self._run(job, node, frames)
        warm_task = self.spare
        if warm_task is None:
            warm_task = WarmTask(self, work, job.path)
            job.cancel = warm_task.cancel
            self.warm_tasks.add(warm_task)
            warm_task.task.add_done_callback(lambda _: self.warm_tasks.discard(warm_task))
        elif warm_task.run_first_part(work):
            job.cancel = warm_task.cancel

    # --- running ----------------------------------------------------------------------------------------------------

    async def _run(self, job: Job, node: Node, frames: AsyncGenerator[Frame, None]) -> None:
        current_job.set(job)
        if current_activity.get() is not job.activity:
            current_activity.set(job.activity)
        if job.closing:
            self._ended(job, node, None)
            return
        error: BaseException | None = None
        routes, enter_inbox = node.routes(DOWNSTREAM), self._kernel.enter_inbox
        step = self._first_step(frames)
        try:
            while True:
                frame = await step
                if job.closing:
                    break
                if not isinstance(frame, Frame):  # pyright: ignore[reportUnnecessaryIsInstance]
                    raise ProcessorError(
                        f"{job.path}.{job.method} yielded {type(frame).__name__}, which is no frame: yield frames, "
                        "as in `yield TextFrame(text)`."
                    )
                if job.undelivered or job.held_by:
                    await job.ready()
                if not job.dead or frame.survives:
                    enter_inbox(routes[type(frame)], frame, job.current_response, job)
                if not job.undelivered:
                    # Refused. A job that never waits otherwise would keep all others from running.
                    await _turn()
                step = frames.__anext__()
        except StopAsyncIteration:
            if not job.closing:
                # The usual end, written out: nothing of what `_ended` looks at can be set.
                job.cancel = None
                self._report_end(job, node, "", "")
                if job.activity is not None:
                    job.activity.finish()
                return
        except asyncio.CancelledError as cancelled:
            # An error only where the job was not closed: then somebody else cancelled what it waited for.
            error = None if job.closing or self.closing else cancelled
        except Exception as raised:
            error = raised
        if job.closing and (task := asyncio.current_task()) is not None:
            task.uncancel()
        try:
            await frames.aclose()
        except (asyncio.CancelledError, Exception) as raised:
            error = error or (raised if isinstance(raised, Exception) else None)
        self._ended(job, node, error)

    def _first_step(self, frames: AsyncGenerator[Frame, None]) -> Awaitable[Frame]:
        """Begin the first step of a generator, without the event loop's registration of it.

        The event loop keeps a list of generators that nobody closes. The job runner closes its own.
        """
        sys.set_asyncgen_hooks(None, None)
        try:
            return frames.__anext__()
        finally:
            sys.set_asyncgen_hooks(*self._asyncgen_hooks)

    async def push(self, job: Job, hop: Hop, frame: Frame, response: int | None) -> None:
        """Push a frame from a job: like a ``yield``, but in either direction."""
        await job.ready()
        if response is None:
            response = job.current_response
        if not job.dead or frame.survives:
            self._kernel.enter_inbox(hop, frame, response, job)

    def _ended(self, job: Job, node: Node, error: BaseException | None) -> None:
        job.cancel = None
        if job.overdue is not None:
            job.overdue.cancel()
        if error is not None:
            self._kernel.job_failed(node, error)
        if not job.abandoned:
            self._report_end(job, node, type(error).__name__ if error else "", str(error or ""))
        if job.activity is not None:
            job.activity.finish()

    def _report_end(self, job: Job, node: Node, error: str, message: str) -> None:
        frame = JobEndedFrame(job.number, error, message or error)
        try:
            self._kernel.enter_inbox(self._kernel.ended_hop(node), frame)
        except QueueOverflowError as overflow:
            self._kernel.overflowed(node, frame, overflow)

    # --- ending -----------------------------------------------------------------------------------------------------

    def dismiss(self, node: Node, number: int) -> Job | None:
        """Forget a job that has ended, as the inbox says. Returns it."""
        job = self.jobs.pop(number, None)
        if job is not None:
            if job in node.running:
                node.running.remove(job)
            elif node.long_jobs.get(job.method) is job:
                node.long_jobs = {name: other for name, other in node.long_jobs.items() if other is not job}
                if job in self.sources:
                    self.sources.discard(job)
                    if not self.sources:
                        self._kernel.sources_ended()
        return job

    def close(self, through: int, nodes: Iterable[Node]) -> None:
        """Close the jobs of responses up to ``through``, and drop such frames from streams."""
        for node in nodes:
            for job in node.running:
                if 0 < job.response <= through and not job.survives:
                    self.close_job(job, node)
            for job in node.long_jobs.values():
                if job.stream is not None:
                    job.stream.drop(through)

    def close_job(self, job: Job, node: Node) -> None:
        """Cancel a job. One that does not end within `CLOSING_S` is abandoned, and reported."""
        if job.closing:
            return
        job.close()
        if job.cancel is None:
            return

        def overdue() -> None:
            if job.cancel is not None:
                job.abandoned = True
                name = f"{job.path}.{job.method}"
                message = f"{name} was closed and did not end within {CLOSING_S:g} s; it is left behind."
                self._report_end(job, node, "JobTimeout", message)

        clock = self._kernel.clock
        job.overdue = clock.call_at(clock.now_ns() + round(CLOSING_S * NS_PER_S), overdue)

    def close_next_stream(self, nodes: Iterable[Node]) -> bool:
        """End the input of the first open stream, from the head on. Returns False where none is open."""
        for node in nodes:
            for job in node.long_jobs.values():
                if job.stream is not None and not job.stream.closed:
                    job.stream.close()
                    return True
        return False

    def tasks(self) -> list[asyncio.Task[None]]:
        """Return the tasks of all jobs, at the end of the run. No task waits for a next job from here on."""
        self.closing = True
        if self.spare is not None:
            self.spare.task.cancel()
        return [warm_task.task for warm_task in self.warm_tasks]

    def close_all(self, nodes: Iterable[Node], *, only_sources: bool = False) -> None:
        """Close every job."""
        for node in nodes:
            for job in [*node.long_jobs.values(), *([] if only_sources else node.running)]:
                if not only_sources or job.stream is None:
                    self.close_job(job, node)

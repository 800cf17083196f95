"""The crew: the jobs of a running pipeline. The only place where tasks are made."""

from __future__ import annotations

import asyncio
import sys
from asyncio import _enter_task, _leave_task  # pyright: ignore[reportPrivateUsage, reportAttributeAccessIssue]
from collections.abc import AsyncGenerator, Awaitable, Coroutine, Generator
from contextvars import copy_context
from types import coroutine
from typing import Any, Protocol, cast

from ..clock import NS_PER_S, Activity, Clock, current_activity
from ..errors import ProcessorError, QueueOverflowError
from ..frames import DOWNSTREAM, Frame, Lane
from ..jobs import CLOSING_S, Job, JobEndedFrame, Stream, current_job
from ..processor import Hop, Part
from .node import Station


class Boss(Protocol):
    """What the crew needs of the kernel."""

    clock: Clock
    replaying: bool
    response: int

    def now_ns(self) -> int:
        """The time."""
        ...

    def put(self, hop: Hop, frame: Frame, response: int = 0, origin: Job | None = None) -> None:
        """Into the inbox."""
        ...

    def ended_hop(self, station: Station) -> Hop:
        """The way of the news that a job has ended."""
        ...

    def sources_ended(self) -> None:
        """No source is left."""
        ...

    def raised(self, station: Station, error: BaseException) -> None:
        """A job raised."""
        ...

    def overflowed(self, station: Station, frame: Frame, error: QueueOverflowError) -> None:
        """The inbox is full."""
        ...


class Hand:
    """A task that runs jobs one after another, and is kept for the next one when there is nothing to do.

    Most of a short job's cost would be its task and the turns of the event loop until that runs. So the first part of
    a job, up to where it first waits, runs at once, with a hand's task as the current one (asyncio's documented calls
    for that: "Extending", _enter_task and _leave_task) and in its context; only a job that waits is then handed over.
    """

    __slots__ = ("_cancelled", "_crew", "_loop", "_next", "_parked", "_started", "context", "task")

    def __init__(self, crew: Crew, work: Coroutine[Any, Any, None], name: str) -> None:
        self._crew = crew
        self._next: tuple[Coroutine[Any, Any, None], Any] | None = None
        self._parked: asyncio.Future[None] | None = None
        self._started = False
        self._cancelled = False
        self.context = copy_context()
        self._loop = loop = asyncio.get_running_loop()
        self.task = loop.create_task(self._run(work), name=name, context=self.context)

    async def _run(self, work: Coroutine[Any, Any, None]) -> None:
        self._started = True
        await work
        while self._crew.spare is None and not self._crew.closing:
            self._crew.spare = self
            self._parked = asyncio.get_running_loop().create_future()
            try:
                await self._parked
            except asyncio.CancelledError:
                # By a time-out of the job's own, before this task had its turn: the job has to hear of it.
                if self._next is None:
                    raise
                self._cancelled = True
            finally:
                if self._crew.spare is self:
                    self._crew.spare = None
            if self._next is not None:
                (work, waiting), self._next = self._next, None
                cancelled, self._cancelled = self._cancelled, False
                await _go_on(work, waiting, cancelled)

    def cancel(self) -> None:
        """Cancel the job that it runs, at the job's own wait."""
        if self._next is not None:
            # It was handed over, and this task has not had its turn yet: cancelling the task would lose the job.
            self._cancelled = True
        elif self._started:
            # One that has not begun finds out when it does; a task that is cancelled before would never run it.
            self.task.cancel()

    def begin(self, work: Coroutine[Any, Any, None]) -> bool:
        """Run a job up to its first wait. True where there was one: then this hand has it, and is no longer spare."""
        loop, caller = self._loop, self._crew.caller
        if caller is not None:
            _leave_task(loop, caller)
        _enter_task(loop, self.task)
        try:
            waiting = self.context.run(work.send, None)
        except StopIteration:
            return False
        finally:
            _leave_task(loop, self.task)
            if caller is not None:
                _enter_task(loop, caller)
        self._next = (work, waiting)
        self._crew.spare = None
        assert self._parked is not None
        if not self._parked.done():
            self._parked.set_result(None)
        return True


@coroutine
def _go_on(work: Coroutine[Any, Any, None], waiting: Any, cancelled: bool) -> Generator[Any, Any, None]:
    """Drive a coroutine on that is under way already, and waits for ``waiting``."""
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


def _begin_untracked(frames: AsyncGenerator[Frame, None]) -> Awaitable[Frame]:
    """The first step of a generator, spared the book that the event loop keeps of those nobody closes: we do."""
    hooks = sys.get_asyncgen_hooks()
    sys.set_asyncgen_hooks(None, None)
    try:
        return frames.__anext__()
    finally:
        sys.set_asyncgen_hooks(*hooks)


class Crew:
    """Starts jobs, passes on what they yield, and sees them end."""

    def __init__(self, boss: Boss) -> None:
        self._boss = boss
        self._count = 0
        self.jobs: dict[int, Job] = {}
        """All that have not ended."""
        self.hands: set[Hand] = set()
        """Whoever runs them, those of jobs that would not end among them."""
        self.caller: asyncio.Task[Any] | None = None
        """The task of the kernel, in which jobs are begun."""
        self.closing = False
        self.spare: Hand | None = None
        """Waits for the next job."""
        self.sources: set[Job] = set()

    # --- beginning --------------------------------------------------------------------------------------------------

    def begin(self, station: Station, part: Part, frame: Frame) -> Job:
        """Start the job with which a processor answers a frame."""
        response = 0 if frame.lane is Lane.INPUT else self._boss.response
        job = self._job(station, part, type(frame).__name__, frame.lane, response)
        if frame.survives and frame.lane is not Lane.INPUT:
            job.survives = True
        station.running.append(job)
        self._start(job, station, part, frame)
        return job

    def stream(self, station: Station, part: Part) -> Stream[Frame]:
        """The stream of a processor's long job, which is started where it is not running."""
        job = station.long_jobs.get(part.method)
        if job is None:
            job = self._job(station, part, "", Lane.INPUT, 0)
            job.stream = Stream(self._boss.clock, part.bound)
            station.long_jobs = {**station.long_jobs, part.method: job}
            self._start(job, station, part, job.stream)
        assert job.stream is not None
        return job.stream

    def begin_sources(self, stations: list[Station]) -> None:
        """Start all sources."""
        for station in stations:
            for part in station.spot.sources:
                job = self._job(station, part, "", Lane.INPUT, 0)
                station.long_jobs = {**station.long_jobs, part.method: job}
                self.sources.add(job)
                self._start(job, station, part)

    def _job(self, station: Station, part: Part, frame: str, lane: Lane, response: int) -> Job:
        self._count = number = self._count + 1
        job = Job(number, station.path, part.method, frame, lane, response, self._boss.now_ns())
        self.jobs[number] = job
        return job

    def _start(self, job: Job, station: Station, part: Part, *arguments: object) -> None:
        frames = getattr(station.processor, part.method)(*arguments)
        if self._boss.replaying:
            return
        if self._boss.clock.counts:
            job.activity = Activity(self._boss.clock)
        work = self._run(job, station, frames)
        hand = self.spare
        if hand is None:
            hand = Hand(self, work, job.path)
            job.cancel = hand.cancel
            self.hands.add(hand)
            hand.task.add_done_callback(lambda _: self.hands.discard(hand))
        elif hand.begin(work):
            job.cancel = hand.cancel

    # --- running ----------------------------------------------------------------------------------------------------

    async def _run(self, job: Job, station: Station, frames: AsyncGenerator[Frame, None]) -> None:
        current_job.set(job)
        current_activity.set(job.activity)
        if job.closing:
            self._ended(job, station, None)
            return
        error: BaseException | None = None
        routes = station.routes(DOWNSTREAM)
        step = _begin_untracked(frames)
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
                self._put(job, routes[type(frame)], frame)
                if not job.undelivered:
                    # Refused. A job that only its listener paces would never again let anybody else run.
                    await _turn()
                step = frames.__anext__()
        except StopAsyncIteration:
            if not job.closing:
                self._ended(job, station, None)
                return
        except asyncio.CancelledError as cancelled:
            # Closed, which is no error; or what it waited for was cancelled by somebody else, which is one.
            error = None if job.closing or self.closing else cancelled
        except Exception as raised:
            error = raised
        if job.closing and (task := asyncio.current_task()) is not None:
            task.uncancel()
        try:
            await frames.aclose()
        except (asyncio.CancelledError, Exception) as raised:
            error = error or (raised if isinstance(raised, Exception) else None)
        self._ended(job, station, error)

    async def push(self, job: Job, hop: Hop, frame: Frame, response: int | None) -> None:
        """A job's push: as a ``yield``, but in either direction."""
        await job.ready()
        self._put(job, hop, frame, response)

    def _put(self, job: Job, hop: Hop, frame: Frame, response: int | None = None) -> None:
        if response is None:
            response = job.stream.response if job.stream is not None else job.response
        if not job.dead or frame.survives:
            self._boss.put(hop, frame, response, job)

    def _ended(self, job: Job, station: Station, error: BaseException | None) -> None:
        job.cancel = None
        if job.overdue is not None:
            job.overdue.cancel()
        if error is not None:
            self._boss.raised(station, error)
        if not job.abandoned:
            self._report(job, station, type(error).__name__ if error else "", str(error or ""))
        if job.activity is not None:
            job.activity.finish()

    def _report(self, job: Job, station: Station, error: str, message: str) -> None:
        frame = JobEndedFrame(job.number, error, message or error)
        try:
            self._boss.put(self._boss.ended_hop(station), frame)
        except QueueOverflowError as overflow:
            self._boss.overflowed(station, frame, overflow)

    # --- ending -----------------------------------------------------------------------------------------------------

    def dismiss(self, station: Station, number: int) -> Job | None:
        """A job has ended, as the inbox says. Returns it."""
        job = self.jobs.pop(number, None)
        if job is not None:
            if job in station.running:
                station.running.remove(job)
            elif station.long_jobs.get(job.method) is job:
                station.long_jobs = {name: other for name, other in station.long_jobs.items() if other is not job}
                if job in self.sources:
                    self.sources.discard(job)
                    if not self.sources:
                        self._boss.sources_ended()
        return job

    def close(self, through: int, stations: dict[Any, Station]) -> None:
        """Close the jobs of responses up to ``through``, and drop what streams hold of them."""
        for station in stations.values():
            for job in station.running:
                if 0 < job.response <= through and not job.survives:
                    self.close_job(job, station)
            for job in station.long_jobs.values():
                if job.stream is not None:
                    job.stream.drop(through)

    def close_job(self, job: Job, station: Station) -> None:
        """Cancel a job; one that will not end within `CLOSING_S` is abandoned, and said so."""
        if job.closing:
            return
        job.close()
        if job.cancel is None:
            return

        def overdue() -> None:
            if job.cancel is not None:
                job.abandoned = True
                what = f"{job.path}.{job.method}"
                message = f"{what} was closed and did not end within {CLOSING_S:g} s; it is left behind."
                self._report(job, station, "JobTimeout", message)

        clock = self._boss.clock
        job.overdue = clock.call_at(clock.now_ns() + round(CLOSING_S * NS_PER_S), overdue)

    def close_next_stream(self, stations: list[Station]) -> bool:
        """End the input of the first stream that is still open, from the head on. False where none is."""
        for station in stations:
            for job in station.long_jobs.values():
                if job.stream is not None and not job.stream.closed:
                    job.stream.close()
                    return True
        return False

    def tasks(self) -> list[asyncio.Task[None]]:
        """The tasks of all jobs, at the end: none is kept for a next one any more."""
        self.closing = True
        if self.spare is not None:
            self.spare.task.cancel()
        return [hand.task for hand in self.hands]

    def close_all(self, stations: list[Station], *, only_sources: bool = False) -> None:
        """Close every job."""
        for station in stations:
            for job in [*station.long_jobs.values(), *([] if only_sources else station.running)]:
                if not only_sources or job.stream is None:
                    self.close_job(job, station)

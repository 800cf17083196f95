"""The crew: the jobs of a running pipeline. The only place where tasks are made."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Protocol

from .clock import NS_PER_S, Activity, Clock, current_activity
from .errors import ProcessorError, QueueOverflowError
from .frames import DOWNSTREAM, Frame, Lane
from .host import Hop
from .jobs import CLOSING_S, Job, JobEndedFrame, Stream, current_job
from .processor import Part
from .station import Station


class Boss(Protocol):
    """What the crew needs of the kernel."""

    clock: Clock
    replaying: bool
    response: int

    def put(self, hop: Hop, frame: Frame, response: int = 0, origin: Job | None = None) -> None:
        """Into the inbox."""
        ...

    def ended_hop(self, station: Station) -> Hop:
        """The way of the news that a job has ended."""
        ...

    def overflowed(self, station: Station, frame: Frame, error: QueueOverflowError) -> None:
        """The inbox is full."""
        ...


def spawn(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """Make a task. Whoever asks keeps it, and ends it."""
    return asyncio.get_running_loop().create_task(work, name=name)


class Crew:
    """Starts jobs, passes on what they yield, and sees them end."""

    def __init__(self, boss: Boss) -> None:
        self._boss = boss
        self._count = 0
        self.jobs: dict[int, Job] = {}
        """All that have not ended."""
        self.tasks: set[asyncio.Task[None]] = set()
        """Theirs, and those of jobs that would not end."""
        self.sources: set[Job] = set()
        self.had_sources = False
        self.last_frame = ""
        """The class name of the frame that the job dismissed last had."""

    # --- beginning --------------------------------------------------------------------------------------------------

    def begin(self, station: Station, part: Part, frame: Frame) -> Job:
        """Start the job with which a processor answers a frame."""
        response = 0 if frame.lane is Lane.INPUT else self._boss.response
        job = self._job(station, part, type(frame).__name__, frame.lane, response)
        job.survives = frame.survives
        station.running.append(job)
        self._start(job, station, part, frame)
        return job

    def stream(self, station: Station, part: Part) -> Stream[Frame]:
        """The stream of a processor's long job, which is started where it is not running."""
        job = station.long_jobs.get(part.method)
        if job is None:
            job = self._job(station, part, "", Lane.INPUT, 0)
            job.stream = Stream(self._boss.clock, part.bound)
            station.long_jobs[part.method] = job
            self._start(job, station, part, job.stream)
        assert job.stream is not None
        return job.stream

    def begin_sources(self, stations: list[Station]) -> None:
        """Start all sources."""
        for station in stations:
            for part in station.spot.sources:
                job = self._job(station, part, "", Lane.INPUT, 0)
                station.long_jobs[part.method] = job
                self.sources.add(job)
                self.had_sources = True
                self._start(job, station, part)

    def _job(self, station: Station, part: Part, frame: str, lane: Lane, response: int) -> Job:
        self._count += 1
        job = Job(self._count, station.path, part.method, frame, lane, response)
        job.since_ns = self._boss.clock.now_ns()
        self.jobs[job.number] = job
        return job

    def _start(self, job: Job, station: Station, part: Part, *arguments: object) -> None:
        if self._boss.replaying:
            return
        if self._boss.clock.counts:
            job.activity = Activity(self._boss.clock)
        frames = getattr(station.processor, part.method)(*arguments)
        job.task = spawn(self._run(job, station, frames), job.path)
        self.tasks.add(job.task)
        job.task.add_done_callback(self.tasks.discard)

    # --- running ----------------------------------------------------------------------------------------------------

    async def _run(self, job: Job, station: Station, frames: AsyncGenerator[Frame, None]) -> None:
        current_job.set(job)
        current_activity.set(job.activity)
        error: BaseException | None = None
        routes = station.routes(DOWNSTREAM)
        try:
            async for frame in frames:
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
        except asyncio.CancelledError:
            pass
        except Exception as raised:
            error = raised
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

    def dismiss(self, station: Station, number: int) -> None:
        """A job has ended, as the inbox says."""
        job = self.jobs.pop(number, None)
        if job is not None:
            self.last_frame = job.frame
            self.sources.discard(job)
            if job in station.running:
                station.running.remove(job)
            elif station.long_jobs.get(job.method) is job:
                del station.long_jobs[job.method]

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
        if job.task is None:
            return

        def overdue() -> None:
            if job.number in self.jobs and job.task is not None and not job.task.done():
                job.abandoned = True
                message = f"{job.path}.{job.method} was closed and did not end within {CLOSING_S:g} s; it is left behind."
                self._report(job, station, "JobTimeout", message)

        clock = self._boss.clock
        timer = clock.call_at(clock.now_ns() + round(CLOSING_S * NS_PER_S), overdue)
        job.task.add_done_callback(lambda _: timer.cancel())

    def close_next_stream(self, stations: list[Station]) -> bool:
        """End the input of the first stream that is still open, from the head on. False where none is."""
        for station in stations:
            for job in station.long_jobs.values():
                if job.stream is not None and not job.stream.closed:
                    job.stream.close()
                    return True
        return False

    def close_all(self, stations: list[Station], *, only_sources: bool = False) -> None:
        """Close every job."""
        for station in stations:
            for job in [*station.long_jobs.values(), *([] if only_sources else station.running)]:
                if not only_sources or job.stream is None:
                    self.close_job(job, station)

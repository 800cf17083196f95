"""The kernel: one task, one inbox, one delivery at a time.

Everything that happens to a conversation is an entry of the inbox. The kernel takes one (a *step*) and runs the
handlers that it leads to, one after another: what a handler pushes is delivered when that handler has ended, before
anything else (run to completion). So nothing inside a conversation races, an interruption is one step, and the inbox,
written down, replays.

Slow work runs beside it, as jobs. See `docs/design/kernel.md`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..clock import Clock
from ..errors import ProcessorError, QueueOverflowError
from ..frames import DOWNSTREAM, UPSTREAM, Direction, ErrorFrame, Frame
from ..graph import Graph
from ..jobs import Job, JobEndedFrame, Origin, Timer
from ..processor import NOT_RUNNING, Hop, Part
from .core import CLOSED, DROP_OLDEST, MORE, OUTPUT, RELEASE, log_error
from .desk import Desk
from .job_runner import Crew
from .node import Station
from .router import Router, Routes

SLICE_STEPS = 32
"""Steps between two turns of the event loop, so that a burst in one conversation does not starve the others."""
SLICE_TURNS = 1_000
"""The same within one step: two processors that answer each other for ever stop nobody else."""
WAITING_FACTOR = 4
"""A queue behind a job that is held at its bound may still get what one frame became on its way: up to this factor."""


class Kernel(Desk):
    """Runs one pipeline. The worker drives it; `drive.py` is the task around it."""

    __slots__ = ("head_routes", "on_sources_ended", "tail_routes")

    def __init__(
        self, graph: Graph, clock: Clock, *, seed: int, inbox_frames: int = 10_000, replaying: bool = False
    ) -> None:
        super().__init__(graph, clock, seed=seed, inbox_frames=inbox_frames, replaying=replaying)
        self.on_sources_ended: Callable[[], None] | None = None
        self.router = Router(graph, self.stations, self)
        self.head_routes = Routes(self.router, graph.head, DOWNSTREAM)
        self.tail_routes = Routes(self.router, graph.tail, UPSTREAM)
        self.crew = Crew(self)
        for station in self.stations.values():
            if station.processor._host is not NOT_RUNNING:
                raise ProcessorError(
                    f"{station.path} belongs to another pipeline that is running. A processor has one place: make a "
                    f"second {type(station.processor).__name__}(...)."
                )
        for station in self.stations.values():
            self._adopt(station)
        self.taps.changed = self._forget_routes

    def _adopt(self, station: Station) -> None:
        processor = station.processor
        station.bind(Routes(self.router, station.spot, DOWNSTREAM), Routes(self.router, station.spot, UPSTREAM))
        self._stations_of[id(processor)] = station
        processor._host = self
        processor._down = {}

    def dissolve(self) -> None:
        """Give the processors back: they can run again, in another pipeline."""
        for station in self.stations.values():
            station.processor._host = NOT_RUNNING
        for timer in list(self._timers):
            timer.cancel()

    def _forget_routes(self) -> None:
        """Somebody may want to see now what leaves the pipeline."""
        for station in self.stations.values():
            station.processor._down.clear()

    # --- the loop ---------------------------------------------------------------------------------------------------

    async def slice(self) -> None:
        """Take and deliver until nothing is left, or for `SLICE_STEPS` steps.

        This is the hot path. It is written for CPython: locals, no call that is not needed.
        """
        stack, inbox, taps, now, more = self.stack, self.inbox, self.taps, self._now, MORE
        steps = turns = 0
        while True:
            if stack:
                turns += 1
                if turns == SLICE_TURNS:
                    return
                hop, frame, self.response, self.origin = stack.pop()
            else:
                if steps == SLICE_STEPS:
                    return
                steps += 1
                if inbox.urgent:
                    hop, frame, response, origin = inbox.urgent.popleft()
                elif inbox.input:
                    hop, frame, response, origin = inbox.input.popleft()
                    if hop.of_microphone:
                        inbox.microphone_ms -= frame.queue_ms
                elif inbox.output:
                    hop, frame, response, origin = inbox.output.popleft()
                else:
                    return
                self.step_ns = now()
                self.response, self.origin = response, origin
                if origin is not None or taps.taken is not None:
                    if not self._taken(hop, frame):
                        continue
                elif not response and hop.numbered:
                    self.response = self.responses if self.responses > self.cancelled else self.new_response()
            delivered, step_ns = taps.delivered, self.step_ns
            while True:
                try:
                    if delivered is not None and hop.shown:
                        delivered(step_ns, hop, frame)
                    call = hop.call
                    await call(frame)
                except Exception as error:
                    self.failed(hop, frame, error)
                next_hop = self.next
                if next_hop is None:
                    break
                self.next = None
                if next_hop is more:
                    stack.extend(reversed(self._more))
                    self._more = []
                    break
                hop, frame = next_hop, self.next_frame

    def _taken(self, hop: Hop, frame: Frame) -> bool:
        """What is rarely needed when an entry is taken. False where it is not wanted any more."""
        origin = self.origin
        if origin is not None:
            if origin.dead and (isinstance(origin, Timer) or not frame.survives):
                self.inbox.refused += 1
                return False
            if self.response > self.responses:
                self.responses = self.response
            if isinstance(origin, Job):
                origin.undelivered -= 1
                if origin.waiting is not None:
                    origin.nudge()
        if not self.response and frame.lane is OUTPUT and not frame.survives:
            self.open_response()
            if isinstance(origin, Job) and origin.frame:
                origin.response = self.response
        if self.taps.taken is not None:
            job = origin.number if isinstance(origin, Job) else 0
            self.taps.taken(self.step_ns, hop, frame, self.response, job)
        return True

    def feed(self, hop: Hop, frame: Frame, response: int, origin: Origin) -> None:
        """Put an entry of a recording into the inbox. It was accepted and numbered when it was taken."""
        if response > self.responses:
            self.responses = response
        self.inbox.output.append((hop, frame, response, origin))
        if isinstance(origin, Job):
            origin.undelivered += 1

    def sources_ended(self) -> None:
        """No source is left: nothing more comes from outside."""
        if self.on_sources_ended is not None:
            self.on_sources_ended()

    # --- what hops and jobs need ------------------------------------------------------------------------------------

    def enter(self, station: Station, inner: Hop, frame: Frame) -> None:
        """Deliver next, or let it wait behind the station's jobs."""
        if not station.must_wait(inner, frame.lane):
            self.go(inner, frame)
            return
        if frame.lane is OUTPUT and not frame.survives:
            self.open_response()
        bound = station.processor.queue_frames
        waiting = station.waiting_in(frame.lane)
        if waiting >= bound:
            if frame.at_bound is DROP_OLDEST and station.drop_oldest(frame.lane):
                self.inbox.dropped += 1
            elif (
                self.origin in station.running
                or not self._hold(station.queue_hold)
                or waiting >= bound * WAITING_FACTOR
            ):
                raise QueueOverflowError(
                    f"{waiting} frames wait behind a job of {station.path}, its bound is {bound}, and who sends more "
                    f"cannot be made to wait; {type(frame).__name__} does not fit. Send it from a job (a generator is "
                    f"held) or with `await worker.send(frame)`, or set {station.path}.queue_frames."
                )
        elif waiting + 1 == bound and self.origin not in station.running:
            self._hold(station.queue_hold)
        station.wait((inner, frame, self.response, self.origin), frame.lane)

    def begin_job(self, station: Station, part: Part, frame: Frame) -> Job:
        """Start a job for a frame."""
        if frame.lane is OUTPUT and not frame.survives:
            self.open_response()
        pushed, self.next = self.next, CLOSED
        try:
            return self.crew.begin(station, part, frame)
        finally:
            self.next = pushed

    def read_along(self, station: Station, part: Part, frame: Frame) -> None:
        """Give a frame to a stream; (re)start its job where it is not running."""
        pushed, self.next = self.next, CLOSED
        try:
            stream = self.crew.stream(station, part)
        finally:
            self.next = pushed
        if self.replaying:
            return  # nobody reads, and that it was too slow is in the recording
        if not stream.put(frame, self.response) and stream.dropped & (stream.dropped - 1) == 0:
            # Reported at 1, 2, 4, 8 ... lost frames: said early, and not once per frame.
            error = QueueOverflowError(
                f"{station.path}.{part.method} is {len(stream)} frames behind, its bound is {part.bound}; "
                f"{stream.dropped} were lost so far. It reads slower than the audio comes."
            )
            # How far behind a reader is, is a fact from outside, so it comes in by the inbox.
            self.overflowed(station, frame, error)

    def left(self, frame: Frame, direction: Direction) -> None:
        """A frame has left the pipeline at an end."""
        if self.taps.left is not None:
            self.taps.left(self.step_ns, frame, direction, self.response)

    def raised(self, station: Station, error: BaseException) -> None:
        """A job raised. That it ended comes by the inbox; this is for those who look on."""
        log_error(station.path, error, "")
        self.taps.failed(self._now(), station.path, error)

    def job_ended(self, station: Station, frame: JobEndedFrame) -> None:
        """A job has ended: what waited behind it goes on."""
        job = self.crew.dismiss(station, frame.job)
        if frame.error:
            had, response = ("", 0) if job is None else (job.frame, job.response)
            self._failed(station, ErrorFrame(frame.message, station.path, had, frame.error), response)
            # What waits goes on when the error has been dealt with, and not before what comes of that.
            self._push_more((self._release_hop(station), RELEASE, 0, None))
        else:
            station.failures = 0
            self.release_waiting(station)

    def release_waiting(self, station: Station) -> None:
        """Deliver what waits behind a station's jobs, as far as it need not wait any longer."""
        entry = station.next_waiting()
        if entry is not None:
            self._push_more(entry)
            if station.waiting:
                self._push_more((self._release_hop(station), RELEASE, 0, None))
        self._make_room(station)

    def _release_hop(self, station: Station) -> Hop:
        if station.release_hop is None:

            async def release(frame: Frame) -> None:
                self.release_waiting(station)

            station.release_hop = Hop(station.path, station, DOWNSTREAM, release)
        return station.release_hop

    def ended_hop(self, station: Station) -> Hop:
        """The way of the news that a job of a station has ended."""
        if station.ended_hop is None:

            async def ended(frame: JobEndedFrame) -> None:
                self.job_ended(station, frame)

            station.ended_hop = Hop(station.path, station, DOWNSTREAM, ended).of(JobEndedFrame)
        return station.ended_hop

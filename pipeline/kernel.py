"""The kernel: one task, one inbox, one delivery at a time.

Everything that happens to a conversation is an entry of the inbox. The kernel takes one (a *step*) and runs the
handlers that it leads to, one after another: what a handler pushes is delivered when that handler has ended, before
anything else (run to completion). So nothing inside a conversation races, an interruption is one step, and the inbox,
written down, replays.

Slow work runs beside it, as jobs. See `docs/design/kernel.md`.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Awaitable, Callable, Generator
from dataclasses import dataclass
from types import coroutine
from typing import Any, cast

from .clock import Clock, TimerHandle
from .crew import Crew
from .errors import ProcessorError, QueueOverflowError
from .frames import (
    DOWNSTREAM,
    UPSTREAM,
    AtBound,
    CancelFrame,
    Direction,
    ErrorFrame,
    Frame,
    Lane,
    UrgentFrame,
)
from .graph import End, Graph, Spot
from .host import Hop, Host
from .inbox import MICROPHONE_FRAMES, Inbox
from .jobs import Hold, Job, JobEndedFrame, Origin, Timer, current_job
from .processor import NOT_RUNNING, Part
from .router import Router, Routes
from .station import Entry, JobHop, Station, split
from .taps import Taps

log = logging.getLogger("voxline")

SLICE_STEPS = 32
"""Steps between two turns of the event loop, so that a burst in one conversation does not starve the others."""
SLICE_TURNS = 1_000
"""The same within one step: two processors that answer each other for ever stop nobody else."""
WAITING_FACTOR = 4
"""A queue behind a job that is held at its bound may still get what one frame became on its way: up to this factor."""


@dataclass(frozen=True, slots=True)
class InterruptFrame(UrgentFrame):
    """The kernel's own: somebody outside of a handler asks for an interruption. An entry like any other."""

    reason: str
    response: int
    origin: str = ""


async def _nothing(frame: Frame) -> None:
    raise AssertionError("a marker is not delivered")  # pragma: no cover


@coroutine
def _done() -> Generator[Any, None, None]:
    return
    yield


DONE = _done()
"""What a push in a plain handler returns. An exhausted generator: of all that can be awaited more than once, the one
that returns soonest (a third of a finished future's time)."""
next(cast(Generator[Any, None, None], DONE), None)

_NOWHERE = Spot("(kernel)")
OUTPUT, DROP_OLDEST = Lane.OUTPUT, AtBound.DROP_OLDEST
MORE = Hop("", _NOWHERE, DOWNSTREAM, _nothing)
"""In `Host.next`: the pushes of the running handler are in the list."""
CLOSED = Hop("", _NOWHERE, DOWNSTREAM, _nothing)
"""In `Host.next`: no handler is running, so a push comes from a job or from outside."""


_RELEASE = JobEndedFrame(0)
"""Goes with the hop that looks after a queue once more. It survives an interruption, as the queue does."""


class Kernel(Host):
    """Runs one pipeline. The worker drives it; `drive.py` is the task around it."""

    __slots__ = (
        "_more",
        "_now",
        "_random",
        "_random_outside",
        "_stations_of",
        "_timers",
        "cancelled",
        "crew",
        "graph",
        "head_routes",
        "inbox",
        "loop",
        "on_end",
        "on_failure",
        "on_sources_ended",
        "origin",
        "replaying",
        "response",
        "responses",
        "router",
        "seed",
        "sleeper",
        "stack",
        "stations",
        "step_ns",
        "tail_routes",
        "taps",
    )  # fmt: skip

    def __init__(
        self, graph: Graph, clock: Clock, *, seed: int, inbox_frames: int = 10_000, replaying: bool = False
    ) -> None:
        self.graph = graph
        self.clock = clock
        self.seed = seed
        self.replaying = replaying
        self.inbox = Inbox(inbox_frames)
        self.taps = Taps()
        self.stack: list[Entry] = []
        """What is to be delivered before the next entry is taken, the next one last."""
        self.response = 0
        """The response that the delivery under way belongs to."""
        self.origin: Origin | None = None
        self.responses = 0
        """The newest response."""
        self.cancelled = 0
        """All responses up to this one are cut."""
        self.step_ns = clock.now_ns()
        self.sleeper: Callable[[None], object] | None = None
        """Wakes the task that sleeps because the inbox is empty."""
        self.on_failure: Callable[[Station], None] | None = None
        self.on_end: Callable[[str], None] | None = None
        self.on_sources_ended: Callable[[], None] | None = None
        self.next = CLOSED
        self.loop = asyncio.get_running_loop()
        self.done = DONE
        self._more: list[Entry] = []
        self._now = clock.now_ns
        self._timers: set[Timer] = set()
        """Those that are not due yet. A conversation that ends takes them along."""
        self._random: random.Random | None = None
        self._random_outside: random.Random | None = None
        self.stations: dict[Spot, Station] = {spot: Station(spot) for spot in graph.spots}
        self._stations_of: dict[int, Station] = {}
        """By the identity of the processor: some compare as equal."""
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
        station.bind(
            Routes(self.router, station.spot, DOWNSTREAM), Routes(self.router, station.spot, UPSTREAM)
        )
        self._stations_of[id(processor)] = station
        processor._host = self
        processor._down = {}

    def dissolve(self) -> None:
        """Give the processors back: they can run again, in another pipeline."""
        for station in self.stations.values():
            station.processor._host = NOT_RUNNING
        for timer in list(self._timers):
            timer.cancel()

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
                        inbox.microphone -= 1
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

    def wake(self) -> None:
        """Something is in the inbox."""
        if self.sleeper is not None:
            sleeper, self.sleeper = self.sleeper, None
            sleeper(None)

    def put(self, hop: Hop, frame: Frame, response: int = 0, origin: Origin | None = None) -> None:
        """Put an entry into the inbox; what belongs to a response that is cut is refused.

        Raises `QueueOverflowError` where the lane is full.
        """
        inbox = self.inbox
        if hop.quick:
            queue = inbox.output
            if len(queue) >= inbox.bound:
                inbox.make_room(queue, hop, frame)
        elif hop.of_microphone:
            queue = inbox.input
            inbox.microphone += 1
            if inbox.microphone > MICROPHONE_FRAMES:
                inbox.drop_oldest(queue)
        else:
            queue = inbox.queue(frame.lane)
            if len(queue) >= inbox.bound:
                inbox.make_room(queue, hop, frame)
        if response:
            if frame.lane is not OUTPUT:
                response = 0
            elif response <= self.cancelled:
                if not frame.survives:
                    inbox.refused += 1
                    return
                response = 0
        queue.append((hop, frame, response, origin))
        if origin is not None and isinstance(origin, Job):
            origin.undelivered += 1
        if self.sleeper is not None:
            self.wake()

    def sources_ended(self) -> None:
        """No source is left: nothing more comes from outside."""
        if self.on_sources_ended is not None:
            self.on_sources_ended()

    def feed(self, hop: Hop, frame: Frame, response: int, origin: Origin) -> None:
        """Put an entry of a recording into the inbox. It was accepted and numbered when it was taken."""
        if response > self.responses:
            self.responses = response
        self.inbox.output.append((hop, frame, response, origin))
        if isinstance(origin, Job):
            origin.undelivered += 1

    # --- what hops need (router.Runner) -----------------------------------------------------------------------------

    def go(self, hop: Hop, frame: Frame) -> None:
        """Deliver a frame next."""
        if self.next is None:
            self.next, self.next_frame = hop, frame
        else:
            self._push_more((hop, frame, self.response, self.origin))

    def fan_out(self, hops: list[Hop], frame: Frame) -> None:
        """Deliver a frame along each hop."""
        for hop in hops:
            self.go(hop, frame)

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
            elif self.origin in station.running or not self._hold(station.queue_hold) or waiting >= bound * WAITING_FACTOR:
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
        self.taps.failed(self._now(), station.path, error)

    def job_ended(self, station: Station, frame: JobEndedFrame) -> None:
        """A job has ended: what waited behind it goes on."""
        self.crew.dismiss(station, frame.job)
        if frame.error:
            self._failed(station, ErrorFrame(frame.message, station.path, self.crew.last_frame, frame.error))
            # What waits goes on when the error has been dealt with, and not before what comes of that.
            self._push_more((self._release_hop(station), _RELEASE, 0, None))
        else:
            station.failures = 0
            self.release_waiting(station)

    def release_waiting(self, station: Station) -> None:
        """Deliver what waits behind a station's jobs, as far as it need not wait any longer."""
        entry = station.next_waiting()
        if entry is not None:
            self._push_more(entry)
            if station.waiting:
                self._push_more((self._release_hop(station), _RELEASE, 0, None))
        self._make_room(station)

    def _make_room(self, station: Station) -> None:
        if station.queue_hold and station.waiting < station.processor.queue_frames:
            station.queue_hold.let_go()

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

    def _check_thread(self, what: str) -> None:
        if asyncio._get_running_loop() is not self.loop:
            raise ProcessorError(
                f"{what}() was called from another thread, and may be called in the event loop only: use "
                "post_threadsafe(), whose frame comes to the processor's own handler."
            )

    def _station(self, who: object) -> Station:
        return self._stations_of[id(who)]

    # --- what processors need (Host) --------------------------------------------------------------------------------

    def route(self, who: object, frame_type: type[Frame]) -> Hop | None:
        """Where frames of a class go, downstream of ``who``; None where they leave the pipeline unseen."""
        hop = self._station(who).routes(DOWNSTREAM)[frame_type]
        return None if isinstance(hop.place, End) and self.taps.left is None else hop

    def _forget_routes(self) -> None:
        """Somebody may want to see now what leaves the pipeline."""
        for station in self.stations.values():
            station.processor._down.clear()

    def push(self, who: object, frame: Frame, direction: Direction, response: int | None) -> Awaitable[None]:
        """The slow way of a push."""
        hop = self._station(who).routes(direction)[type(frame)]
        if self.next is CLOSED:
            self._check_thread("push")
            job = current_job.get()
            if job is not None:
                return self.crew.push(job, hop, frame, response)
            self.put(hop, frame, response or 0)
            return self.done
        number = self._checked(response) if response is not None else self.response
        if frame.lane is Lane.INPUT:
            number = 0
        if 0 < number <= self.cancelled and not frame.survives:
            self.inbox.refused += 1
        else:
            self._push_more((hop, frame, number, self.origin))
        return self.done

    def post(self, who: object, frame: Frame, response: int | None) -> None:
        """Put a frame into the inbox for ``who``."""
        if not self.replaying:
            self._check_thread("post")
            number = self.current_response() if response is None else response
            self.put(self._at(who, frame), frame, number)

    def post_threadsafe(self, who: object, frame: Frame, response: int | None) -> None:
        """The same from another thread."""
        if not self.replaying:
            self.loop.call_soon_threadsafe(self.post, who, frame, response or 0)

    def post_at(self, who: object, when_ns: int, frame: Frame) -> TimerHandle:
        """The same at a time."""
        timer = Timer()
        if not self.replaying:
            hop, response = self._at(who, frame), self.current_response()

            def fire() -> None:
                self._timers.discard(timer)
                try:
                    self.put(hop, frame, response, timer)
                except QueueOverflowError as error:
                    self.overflowed(self._station(who), frame, error)

            timer.handle = self.clock.call_at(when_ns, fire)
            timer.book = self._timers
            self._timers.add(timer)
        return timer

    def interrupt(self, who: object, reason: str, response: int | None) -> bool:
        """Cut all responses up to ``response``: one step."""
        through = self.responses if response is None else self._checked(response)
        if through <= self.cancelled:
            return False
        station = self._stations_of.get(id(who))
        if self.next is CLOSED:
            origin = station.path if station is not None else ""
            if not self.replaying:
                self.put(self._command_hop(station), InterruptFrame(reason, through, origin))
            return True
        self._cut(station, CancelFrame(through, reason))
        return True

    def new_response(self) -> int:
        """Open the next response."""
        if self.next is CLOSED:
            raise ProcessorError(
                "new_response() works in a plain handler only: what a job changed, a replay would not know. "
                "Open the response in the handler, and push the job's request with it."
            )
        self.responses += 1
        return self.responses

    def current_response(self) -> int:
        """The response that is being worked for, or 0."""
        if self.next is CLOSED:
            job = current_job.get()
            return 0 if job is None else job.stream.response if job.stream is not None else job.response
        return self.response

    def open_response(self) -> int:
        """The current one; where there is none, the newest that is not cut, or a new one."""
        if self.next is CLOSED:
            return self.current_response()
        if not self.response:
            self.response = self.responses if self.responses > self.cancelled else self.new_response()
        return self.response

    def now_ns(self) -> int:
        """The moment of the step; the clock's time outside of one."""
        return self._now() if self.next is CLOSED and not self.replaying else self.step_ns

    @property
    def random(self) -> random.Random:
        """The worker's random numbers, seeded. Made when first asked for: it takes 2.5 KB.

        Handlers have a sequence of their own: a replay, where nothing else runs, draws the same.
        """
        if self.next is CLOSED:
            if self._random_outside is None:
                self._random_outside = random.Random(f"{self.seed} outside")
            return self._random_outside
        if self._random is None:
            self._random = random.Random(self.seed)
        return self._random

    def hold(self, who: object) -> bool:
        """Make the job that fills ``who`` wait."""
        return self._hold(self._station(who).hold)

    def release(self, who: object) -> None:
        """Let those go on that were held for ``who``."""
        self._station(who).hold.let_go()

    def path(self, who: object) -> str:
        """The path of ``who``."""
        return self._station(who).path

    def end(self, who: object, reason: str) -> None:
        """Ask the worker to drain and end."""
        if self.on_end is not None:
            self.on_end(reason)

    # --- interruption -----------------------------------------------------------------------------------------------

    def _cut(self, station: Station | None, cancel: CancelFrame) -> None:
        """(a) close jobs, (b) drop queued frames, (c) refuse later ones, (d) send the cancel frames."""
        through = self.cancelled = cancel.response
        for _, _, _, origin in self.inbox.drop(through):
            if isinstance(origin, Job):
                origin.undelivered -= 1
                if origin.response == 0 and origin.frame:
                    # Its frames had no number yet; they belonged to what is cut here, and so does the rest of them.
                    origin.response = through
                origin.nudge()
        kept, _ = split(self._pending(), through)
        self.stack[:], _ = split(self.stack, through)
        for other in self.stations.values():
            other.drop(through)
            self._make_room(other)
        self.crew.close(through, self.stations)
        # From here on the push of the handler that is running goes the slow way, which refuses what is cut.
        self._more = [*((hop, cancel, 0, None) for hop in self.router.everyone(station, cancel)), *kept]
        self.next = MORE

    def _pending(self) -> list[Entry]:
        """What the running handler has pushed so far."""
        if self.next is None:
            return []
        if self.next is MORE:
            return self._more
        return [(self.next, self.next_frame, self.response, self.origin)]

    def unfold(self) -> None:
        """What was pushed is to be delivered next."""
        self.stack.extend(reversed(self._pending()))
        self._more = []
        self.next = CLOSED

    def _push_more(self, entry: Entry) -> None:
        if self.next is not MORE:
            self._more = self._pending()
            self.next = MORE
        self._more.append(entry)

    def _checked(self, response: int) -> int:
        if not 0 < response <= self.responses:
            raise ProcessorError(
                f"There is no response {response}: the newest is {self.responses}. new_response() opens the next one."
            )
        return response

    def _hold(self, hold: Hold) -> bool:
        if isinstance(self.origin, Job):
            hold.add(self.origin)
            return True
        return False

    def _at(self, who: object, frame: Frame) -> Hop:
        station = self._station(who)
        return self.router.at(station.spot, type(frame), DOWNSTREAM)

    def _command_hop(self, station: Station | None) -> Hop:
        async def interrupt(frame: InterruptFrame) -> None:
            if frame.response > self.cancelled:
                self.responses = max(self.responses, frame.response)
                self._cut(station, CancelFrame(frame.response, frame.reason))

        place = self.graph.head if station is None else station
        return Hop(place.path, place, DOWNSTREAM, interrupt).of(InterruptFrame)

    # --- errors -----------------------------------------------------------------------------------------------------

    def failed(self, hop: Hop, frame: Frame, error: BaseException) -> None:
        """A handler raised: the error goes upstream from there, and the conversation goes on."""
        if isinstance(hop.place, Station):
            self._watch_for_success(hop, hop.place)
            self.report(hop.place, frame, error)
        else:
            log.error("an error at %s: %s", hop.place.path, type(error).__name__, exc_info=error)

    def _watch_for_success(self, hop: Hop, station: Station) -> None:
        """End the row of errors with the next success. Only a hop that has failed pays for that."""
        if isinstance(hop, JobHop) or not hop.shown or hop in station.watched:
            return
        call = hop.call

        async def watched(frame: Frame) -> None:
            await call(frame)
            hop.call = call
            station.watched.discard(hop)
            station.failures = 0

        station.watched.add(hop)
        hop.call = watched

    def report(self, station: Station, frame: Frame, error: BaseException) -> None:
        """Send an `ErrorFrame` upstream from a station."""
        log.debug("%s failed", station.path, exc_info=error)
        self.taps.failed(self.step_ns, station.path, error)
        self._failed(
            station,
            ErrorFrame(
                str(error) or type(error).__name__, station.path, type(frame).__name__, type(error).__name__
            ),
        )

    def overflowed(self, station: Station, frame: Frame, error: QueueOverflowError) -> None:
        """The inbox is full, and who found out is nobody's handler."""
        log.error("%s", error)
        if not self.inbox.urgent:
            message = ErrorFrame(str(error), station.path, type(frame).__name__, type(error).__name__)
            self.put(station.routes(UPSTREAM)[ErrorFrame], message)

    def _failed(self, station: Station, error: ErrorFrame) -> None:
        # What was said may stand in the message, so that goes no further than `debug`.
        log.warning("%s failed with %s while it had %s", station.path, error.error, error.frame or "no frame")
        hop = station.routes(UPSTREAM)[ErrorFrame]
        self._more = [(hop, error, 0, None), *self._pending()]
        self.next = MORE
        if self.on_failure is not None:
            self.on_failure(station)

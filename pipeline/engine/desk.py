"""The desk: what processors may ask of the kernel, an interruption among it."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from ..clock import Clock, TimerHandle
from ..errors import ProcessorError
from ..frames import DOWNSTREAM, CancelFrame, Direction, Frame, Lane, UrgentFrame
from ..graph import End, Graph
from ..jobs import Job, Timer, current_job
from ..processor import Hop
from .core import CLOSED, MORE, Core
from .node import Station, kept


@dataclass(frozen=True, slots=True)
class InterruptFrame(UrgentFrame):
    """The kernel's own: somebody outside of a handler asks for an interruption. An entry like any other."""

    reason: str
    response: int
    origin: str = ""


class Desk(Core):
    """`Host`, as processors know it."""

    __slots__ = ("_now", "_random", "_random_outside", "_timers", "on_end", "seed")

    def __init__(self, graph: Graph, clock: Clock, *, seed: int, inbox_frames: int, replaying: bool) -> None:
        super().__init__(graph, clock, inbox_frames=inbox_frames, replaying=replaying)
        self.seed = seed
        self.on_end: Callable[[str], None] | None = None
        self._now = clock.now_ns
        self._timers: set[Timer] = set()
        """Those that are not due yet. A conversation that ends takes them along."""
        self._random: random.Random | None = None
        self._random_outside: random.Random | None = None

    # --- pushing and posting ----------------------------------------------------------------------------------------

    def route(self, who: object, frame_type: type[Frame]) -> Hop | None:
        """Where frames of a class go, downstream of ``who``; None where they leave the pipeline unseen."""
        hop = self._station(who).routes(DOWNSTREAM)[frame_type]
        return None if isinstance(hop.place, End) and self.taps.left is None else hop

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
        """The same at a time. It gets into a full inbox, too: what keeps itself going by a timer goes on."""
        timer = Timer()
        if not self.replaying:
            hop, response = self._at(who, frame), self.current_response()

            def fire() -> None:
                self._timers.discard(timer)
                self.put(hop, frame, response, timer)

            timer.handle = self.clock.call_at(when_ns, fire)
            timer.book = self._timers
            self._timers.add(timer)
        return timer

    def _at(self, who: object, frame: Frame) -> Hop:
        station = self._station(who)
        return self.router.at(station.spot, type(frame), DOWNSTREAM)

    def _check_thread(self, what: str) -> None:
        if asyncio._get_running_loop() is not self.loop:
            raise ProcessorError(
                f"{what}() was called from another thread, and may be called in the event loop only: use "
                "post_threadsafe(), whose frame comes to the processor's own handler."
            )

    # --- responses, and their interruption --------------------------------------------------------------------------

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

    def _checked(self, response: int) -> int:
        if not 0 < response <= self.responses:
            raise ProcessorError(
                f"There is no response {response}: the newest is {self.responses}. new_response() opens the next one."
            )
        return response

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

    def _command_hop(self, station: Station | None) -> Hop:
        async def interrupt(frame: InterruptFrame) -> None:
            if frame.response > self.cancelled:
                self.responses = max(self.responses, frame.response)
                self._cut(station, CancelFrame(frame.response, frame.reason))

        place = self.graph.head if station is None else station
        return Hop(place.path, place, DOWNSTREAM, interrupt).of(InterruptFrame)

    def _cut(self, station: Station | None, cancel: CancelFrame) -> None:
        """(a) close jobs, (b) drop queued frames, (c) refuse later ones, (d) send the cancel frames."""
        through = self.cancelled = cancel.response
        old = [self.inbox.output]
        for origin in self.inbox.drop(through):
            if isinstance(origin, Job):
                origin.undelivered -= 1
                if origin.response == 0 and origin.frame:
                    # Its frames had no number yet; they belonged to what is cut here, and so does the rest of them.
                    origin.response = through
                origin.nudge()
        pushed = kept(self._pending(), through)
        self.stack[:] = kept(self.stack, through)
        for other in self.stations.values():
            old += other.drop(through)
            self._make_room(other)
        # To free thousands of frames takes longer than all else here, and can wait until the cancel frames are out.
        self.loop.call_soon(old.clear)
        self.crew.close(through, self.stations)
        # From here on the push of the handler that is running goes the slow way, which refuses what is cut.
        self._more = [*((hop, cancel, 0, None) for hop in self.router.everyone(station, cancel)), *pushed]
        self.next = MORE

    # --- the rest ---------------------------------------------------------------------------------------------------

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

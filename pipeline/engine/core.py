"""What the kernel is made on: its state, the way into its inbox, what a handler has pushed, and errors.

`Core` is the data and what changes it; `desk.py` adds what processors may ask for, `kernel.py` the loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Generator
from pathlib import Path
from types import coroutine
from typing import Any, cast

from ..clock import Clock
from ..errors import QueueOverflowError
from ..frames import DOWNSTREAM, UPSTREAM, AtBound, ErrorFrame, Frame, Lane
from ..graph import Graph, Spot
from ..jobs import Hold, Job, JobEndedFrame, Origin
from ..processor import Hop, Host
from ..taps import Taps
from .inbox import Inbox
from .job_runner import Crew
from .node import Entry, JobHop, Station
from .router import Router

log = logging.getLogger("voxline")


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
INPUT, OUTPUT, DROP_OLDEST = Lane.INPUT, Lane.OUTPUT, AtBound.DROP_OLDEST
MORE = Hop("", _NOWHERE, DOWNSTREAM, _nothing)
"""In `Host.next`: the pushes of the running handler are in the list."""
CLOSED = Hop("", _NOWHERE, DOWNSTREAM, _nothing)
"""In `Host.next`: no handler is running, so a push comes from a job or from outside."""


RELEASE = JobEndedFrame(0)
"""Goes with the hop that looks after a queue once more. It survives an interruption, as the queue does."""


def log_error(path: str, error: BaseException, frame: str) -> None:
    """Log what went wrong, and where in the code. What was said may stand in the message: that is for `debug` only."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    where = f" ({Path(trace.tb_frame.f_code.co_filename).name}, line {trace.tb_lineno})" if trace is not None else ""
    log.warning("%s failed with %s while it had %s%s", path, type(error).__name__, frame or "no frame", where)
    log.debug("%s failed", path, exc_info=error)


class Core(Host):
    """The state of a running pipeline."""

    __slots__ = (
        "_more",
        "_stations_of",
        "cancelled",
        "crew",
        "graph",
        "inbox",
        "loop",
        "on_failure",
        "origin",
        "replaying",
        "response",
        "responses",
        "router",
        "sleeper",
        "stack",
        "stations",
        "step_ns",
        "taps",
    )

    crew: Crew
    router: Router

    def __init__(self, graph: Graph, clock: Clock, *, inbox_frames: int, replaying: bool) -> None:
        self.graph = graph
        self.clock = clock
        self.replaying = replaying
        self.inbox = Inbox(inbox_frames)
        self.taps = Taps()
        self.stack: list[Entry] = []
        """What is to be delivered before the next entry is taken, the next one last."""
        self.response = 0
        """The response that the delivery under way belongs to."""
        self.origin: Origin | None = None
        self.responses: int = 0
        """The newest response."""
        self.cancelled = 0
        """All responses up to this one are cut."""
        self.step_ns = clock.now_ns()
        self.sleeper: Callable[[None], object] | None = None
        """Wakes the task that sleeps because the inbox is empty."""
        self.on_failure: Callable[[Station], None] | None = None
        self.next = CLOSED
        self.loop = asyncio.get_running_loop()
        self.done = DONE
        self.ending = ""
        self._more: list[Entry] = []
        self.stations: dict[Spot, Station] = {spot: Station(spot) for spot in graph.spots}
        self._stations_of: dict[int, Station] = {}
        """By the identity of the processor: some compare as equal."""

    # --- the inbox --------------------------------------------------------------------------------------------------

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
                inbox.make_room(queue, hop, frame, origin)
        elif hop.of_microphone:
            queue = inbox.input
            inbox.hear(frame)
        else:
            queue = inbox.queue(frame.lane)
            if len(queue) >= inbox.bound:
                inbox.make_room(queue, hop, frame, origin)
        if response:
            if frame.lane is INPUT:
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

    # --- what a handler has pushed ------------------------------------------------------------------------------------

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

    def _station(self, who: object) -> Station:
        return self._stations_of[id(who)]

    def _hold(self, hold: Hold) -> bool:
        if isinstance(self.origin, Job):
            hold.add(self.origin)
            return True
        return False

    def _make_room(self, station: Station) -> None:
        if station.queue_hold and station.waiting < station.processor.queue_frames:
            station.queue_hold.let_go()

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
            station.watched -= {hop}
            station.failures = 0

        station.watched |= {hop}
        hop.call = watched

    def report(self, station: Station, frame: Frame, error: BaseException) -> None:
        """Send an `ErrorFrame` upstream from a station."""
        log_error(station.path, error, type(frame).__name__)
        self.taps.failed(self.step_ns, station.path, error)
        self._failed(
            station,
            ErrorFrame(str(error) or type(error).__name__, station.path, type(frame).__name__, type(error).__name__),
            self.response,
        )

    def overflowed(self, station: Station, frame: Frame, error: QueueOverflowError) -> None:
        """The inbox is full, and who found out is nobody's handler."""
        log.error("%s", error)
        if not self.inbox.urgent:
            message = ErrorFrame(str(error), station.path, type(frame).__name__, type(error).__name__)
            self.put(station.routes(UPSTREAM)[ErrorFrame], message)

    def _failed(self, station: Station, error: ErrorFrame, response: int) -> None:
        hop = station.routes(UPSTREAM)[ErrorFrame]
        self._more = [(hop, error, response, None), *self._pending()]
        self.next = MORE
        if self.on_failure is not None:
            self.on_failure(station)

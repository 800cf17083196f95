"""Routes: for each place and class of frame, the next hop, made when it is first needed."""

from __future__ import annotations

from typing import Protocol

from ..frames import DOWNSTREAM, CancelFrame, Direction, Frame, Lane
from ..graph import Fork, Graph, ProcessorSpot, Spot, entered
from ..jobs import Job
from ..processor import Deliver, Hop, Kind, Part
from .node import JobHop, Station


class Routes(dict[type[Frame], Hop]):
    """The next hop by class of frame, from one place in one direction."""

    __slots__ = ("_direction", "_router", "_spot")

    def __init__(self, router: Router, spot: Spot, direction: Direction) -> None:
        super().__init__()
        self._router = router
        self._spot = spot
        self._direction = direction

    def __missing__(self, frame_type: type[Frame]) -> Hop:
        hop = self._router.leaving(self._spot, frame_type, self._direction)
        self[frame_type] = hop
        return hop


class Runner(Protocol):
    """What hops need of the kernel."""

    def go(self, hop: Hop, frame: Frame) -> None:
        """Deliver a frame next."""
        ...

    def fan_out(self, hops: list[Hop], frame: Frame) -> None:
        """Deliver a frame along each of the hops, in order."""
        ...

    def enter(self, station: Station, inner: Hop, frame: Frame) -> None:
        """Deliver next, or let it wait behind the station's jobs."""
        ...

    def begin_job(self, station: Station, part: Part, frame: Frame) -> Job:
        """Start a job for a frame."""
        ...

    def read_along(self, station: Station, part: Part, frame: Frame) -> None:
        """Give a frame to a stream."""
        ...

    def left(self, frame: Frame, direction: Direction) -> None:
        """A frame has left the pipeline at an end."""
        ...


class Router:
    """Makes hops for a graph."""

    REMEMBERED = 64
    """Of how many frames a join knows that it has let them out already."""

    def __init__(self, graph: Graph, stations: dict[Spot, Station], runner: Runner) -> None:
        self._graph = graph
        self._stations = stations
        self._runner = runner
        self._joins: dict[tuple[Fork, Direction], dict[int, Frame]] = {}

    def leaving(self, spot: Spot, frame_type: type[Frame], direction: Direction) -> Hop:
        """The hop for frames of a class that leave a place."""
        if issubclass(frame_type, CancelFrame):
            # The kernel delivers it itself, to each processor once: what somebody pushes on goes nowhere.
            return Hop(spot.path, spot, direction, _nowhere)
        return self._hop(spot, frame_type, direction).of(frame_type)

    def at(self, spot: ProcessorSpot, frame_type: type[Frame], direction: Direction, origin: str = "") -> Hop:
        """The hop for frames that begin their way *at* a processor: its own timers and facts."""
        if spot.names(frame_type, direction):
            return self._to_processor(origin or spot.path, spot, frame_type, direction).of(frame_type)
        return self.leaving(spot, frame_type, direction)

    def everyone(self, station: Station | None, cancel: CancelFrame) -> list[Hop]:
        """The hops of a cancel frame: from a station up to the head and down to the tail, or all the way down."""
        spots, kind = self._graph.spots, type(cancel)
        place = -1 if station is None else spots.index(station.spot)
        path = self._graph.head.path if station is None else station.path
        hops: list[Hop] = []
        for direction, side, end in [
            (Direction.UPSTREAM, spots[: max(place, 0)][::-1], self._graph.head),
            (Direction.DOWNSTREAM, spots[place + 1 :], self._graph.tail),
        ]:
            for spot in side:
                named = spot.cancel_taker(kind)
                hop = None if named is None else self._inner(path, self._stations[spot], named, direction)
                for reader in spot.readers(kind, DOWNSTREAM):
                    nowhere = Hop(spot.path, spot, direction, _nowhere)
                    hop = self._reading(path, self._stations[spot], reader, hop or nowhere, direction)
                if hop is not None:
                    hops.append(hop)
            hops.append(self._to(path, end, kind, direction))
        return hops

    def _hop(self, spot: Spot, frame_type: type[Frame], direction: Direction) -> Hop:
        """The hop for frames that leave a place."""
        origin, targets = spot.path, self._graph.targets(spot, frame_type, direction)
        hops = [self._to(origin, target, frame_type, direction) for target in targets]
        forks = entered(spot.beside(direction), frame_type, direction)
        if len(hops) == 1 and not forks:
            return hops[0]
        runner = self._runner
        rounds = [self._seen(fork, direction) for fork in forks]

        async def fan_out(frame: Frame) -> None:
            for seen in rounds:
                # The very object may come by again, and is then let out again.
                seen.pop(id(frame), None)
            runner.fan_out(hops, frame)

        return Hop(origin, targets[0], direction, fan_out)

    def _seen(self, fork: Fork, direction: Direction) -> dict[int, Frame]:
        return self._joins.setdefault((fork, direction), {})

    def _to(self, origin: str, target: Spot, frame_type: type[Frame], direction: Direction) -> Hop:
        if isinstance(target, ProcessorSpot):
            return self._to_processor(origin, target, frame_type, direction)
        if isinstance(target, Fork):
            return Hop(origin, target, direction, self._join(target, frame_type, direction))
        runner = self._runner

        async def leave(frame: Frame) -> None:
            runner.left(frame, direction)

        return Hop(origin, target, direction, leave)

    def _join(self, fork: Fork, frame_type: type[Frame], direction: Direction) -> Deliver:
        beyond = self._hop(fork, frame_type, direction)
        seen = self._seen(fork, direction)
        runner = self._runner

        async def join(frame: Frame) -> None:
            if id(frame) not in seen:
                # bound: REMEMBERED frames, the oldest is forgotten. They are kept, so that no id is used again.
                seen[id(frame)] = frame
                if len(seen) > self.REMEMBERED:
                    del seen[next(iter(seen))]
                runner.go(beyond, frame)

        return join

    def _to_processor(self, origin: str, spot: ProcessorSpot, frame_type: type[Frame], direction: Direction) -> Hop:
        station, runner = self._stations[spot], self._runner
        part = spot.taker(frame_type, direction)
        hop = self._inner(origin, station, part, direction)
        for reader in reversed(spot.readers(frame_type, direction)):
            hop = self._reading(origin, station, reader, hop, direction)
        if frame_type.lane is Lane.URGENT or not spot.keeps_order(frame_type, direction):
            return hop
        inner = hop

        async def enter(frame: Frame) -> None:
            runner.enter(station, inner, frame)

        return Hop(origin, station, direction, enter)

    def _inner(self, origin: str, station: Station, part: Part | None, direction: Direction) -> Hop:
        runner = self._runner
        if part is None:
            routes = station.routes(direction)

            async def pass_on(frame: Frame) -> None:
                runner.go(routes[type(frame)], frame)

            return Hop(origin, station, direction, pass_on)
        if part.kind is Kind.JOB:
            job_part = part

            async def begin(frame: Frame) -> None:
                runner.begin_job(station, job_part, frame)

            return JobHop(origin, station, direction, begin, shown=True)
        return Hop(origin, station, direction, getattr(station.processor, part.method), shown=True)

    def _reading(self, origin: str, station: Station, reader: Part, then: Hop, direction: Direction) -> Hop:
        runner = self._runner

        async def read(frame: Frame) -> None:
            runner.read_along(station, reader, frame)
            runner.go(then, frame)

        kind = JobHop if isinstance(then, JobHop) else Hop
        return kind(origin, station, direction, read, shown=not then.shown)


async def _nowhere(frame: Frame) -> None:
    pass

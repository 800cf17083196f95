"""The router makes hops: for each place and class of frame, the next hop, on first use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from ..frames import DOWNSTREAM, UPSTREAM, CancelFrame, Direction, Frame, Lane
from ..graph import Fork, Graph, GraphNode, ProcessorNode, entered
from ..jobs import Job
from ..processor import Deliver, Hop, Part, PartKind
from .node import JobHop, Node

REMEMBERED = 64
"""The number of frames that a join remembers to have let out already."""

Observer = Callable[[Frame, Direction], None]


class Routes(dict[type[Frame], Hop]):
    """The next hop by class of frame, from one place in one direction."""

    __slots__ = ("_direction", "_graph_node", "_router")

    def __init__(self, router: Router, graph_node: GraphNode, direction: Direction) -> None:
        super().__init__()
        self._router = router
        self._graph_node = graph_node
        self._direction = direction

    def __missing__(self, frame_type: type[Frame]) -> Hop:
        hop = self._router.leaving(self._graph_node, frame_type, self._direction)
        self[frame_type] = hop
        return hop


class ObservedRoutes(dict[type[Frame], Hop]):
    """Other routes, with a call to ``observer`` before each delivery."""

    __slots__ = ("_observer", "_routes")

    def __init__(self, routes: dict[type[Frame], Hop], observer: Observer) -> None:
        super().__init__()
        self._routes = routes
        self._observer = observer

    def __missing__(self, frame_type: type[Frame]) -> Hop:
        hop = self[frame_type] = _observed(self._routes[frame_type], frame_type, self._observer)
        return hop


class DeliveryPort(Protocol):
    """The part of the kernel that hops use."""

    def deliver_next(self, hop: Hop, frame: Frame) -> None:
        """Deliver a frame when the running handler has ended."""
        ...

    def fan_out(self, hops: list[Hop], frame: Frame) -> None:
        """Deliver a frame along each hop, in order."""
        ...

    def enter_node(self, node: Node, inner: Hop, frame: Frame) -> None:
        """Deliver a frame next, or let it wait behind the node's jobs."""
        ...

    def begin_job(self, node: Node, part: Part, frame: Frame) -> Job:
        """Start a job for a frame."""
        ...

    def read_along(self, node: Node, part: Part, frame: Frame) -> None:
        """Add a frame to a stream."""
        ...

    def leave(self, frame: Frame, direction: Direction) -> None:
        """Note that a frame has left the pipeline at an end."""
        ...


class Router:
    """Makes hops for a graph. A hop's `call` is the handler itself where nothing has to be done before it."""

    def __init__(self, graph: Graph, nodes: dict[GraphNode, Node], port: DeliveryPort) -> None:
        self._graph = graph
        self._nodes = nodes
        self._port = port
        self._joins: dict[tuple[Fork, Direction], dict[int, Frame]] = {}
        self._observers: dict[GraphNode, Observer] = {}

    def leaving(self, graph_node: GraphNode, frame_type: type[Frame], direction: Direction) -> Hop:
        """Return the hop for frames of a class that leave a place."""
        if issubclass(frame_type, CancelFrame):
            # The kernel itself delivers a cancel frame to each processor, once: one that is pushed on goes nowhere.
            return Hop(graph_node.path, graph_node, direction, _nowhere)
        return self._hop(graph_node, frame_type, direction).of(frame_type)

    def at(self, graph_node: ProcessorNode, frame_type: type[Frame], direction: Direction) -> Hop:
        """Return the hop for frames that begin their way *at* a processor: its timers and posted facts."""
        if graph_node.names(frame_type, direction):
            return self._to_processor(graph_node.path, graph_node, frame_type, direction)
        return self.leaving(graph_node, frame_type, direction)

    def everyone(self, node: Node | None, cancel: CancelFrame) -> list[Hop]:
        """Return the hops of a cancel frame: from a node up to the head and down to the tail; for None, all down."""
        graph_nodes, frame_type = self._graph.nodes, type(cancel)
        place = -1 if node is None else graph_nodes.index(node.graph_node)
        path = self._graph.head.path if node is None else node.path
        hops: list[Hop] = []
        for direction, side, end in [
            (UPSTREAM, graph_nodes[: max(place, 0)][::-1], self._graph.head),
            (DOWNSTREAM, graph_nodes[place + 1 :], self._graph.tail),
        ]:
            for graph_node in side:
                named = graph_node.cancel_taker(frame_type)
                hop = None if named is None else self._inner(path, self._nodes[graph_node], named, direction)
                for reader in graph_node.readers(frame_type, DOWNSTREAM):
                    nowhere = Hop(graph_node.path, graph_node, direction, _nowhere)
                    hop = self._reading(path, self._nodes[graph_node], reader, hop or nowhere, direction)
                if hop is not None:
                    hops.append(hop)
            hops.append(self._to(path, end, frame_type, direction))
        return hops

    def observe(self, graph_node: GraphNode, observer: Observer) -> None:
        """Call ``observer`` for each frame that comes to a processor from elsewhere."""
        self._observers[graph_node] = observer

    def _hop(self, graph_node: GraphNode, frame_type: type[Frame], direction: Direction) -> Hop:
        origin, targets = graph_node.path, self._graph.targets(graph_node, frame_type, direction)
        hops = [self._to(origin, target, frame_type, direction) for target in targets]
        forks = entered(graph_node.beside(direction), frame_type, direction)
        if len(hops) == 1 and not forks:
            return hops[0]
        port = self._port
        rounds = [self._seen(fork, direction) for fork in forks]

        async def fan_out(frame: Frame) -> None:
            for seen in rounds:
                # The same object may come by again; then it is let out again.
                seen.pop(id(frame), None)
            port.fan_out(hops, frame)

        return Hop(origin, targets[0], direction, fan_out)

    def _seen(self, fork: Fork, direction: Direction) -> dict[int, Frame]:
        return self._joins.setdefault((fork, direction), {})

    def _to(self, origin: str, target: GraphNode, frame_type: type[Frame], direction: Direction) -> Hop:
        if isinstance(target, ProcessorNode):
            return self._to_processor(origin, target, frame_type, direction)
        if isinstance(target, Fork):
            return Hop(origin, target, direction, self._join(target, frame_type, direction)).of(frame_type)
        port = self._port

        async def leave(frame: Frame) -> None:
            port.leave(frame, direction)

        return Hop(origin, target, direction, leave).of(frame_type)

    def _join(self, fork: Fork, frame_type: type[Frame], direction: Direction) -> Deliver:
        beyond = self._hop(fork, frame_type, direction).of(frame_type)
        seen = self._seen(fork, direction)
        port = self._port

        async def join(frame: Frame) -> None:
            if id(frame) not in seen:
                # bound: REMEMBERED frames, the oldest is forgotten. Frames are kept, so that no id is used again.
                seen[id(frame)] = frame
                if len(seen) > REMEMBERED:
                    del seen[next(iter(seen))]
                port.deliver_next(beyond, frame)

        return join

    def _to_processor(
        self, origin: str, graph_node: ProcessorNode, frame_type: type[Frame], direction: Direction
    ) -> Hop:
        node, port = self._nodes[graph_node], self._port
        part = graph_node.taker(frame_type, direction)
        hop = self._inner(origin, node, part, direction)
        for reader in reversed(graph_node.readers(frame_type, direction)):
            hop = self._reading(origin, node, reader, hop, direction)
        if frame_type.lane is not Lane.URGENT and graph_node.keeps_order(frame_type, direction):
            inner = hop.of(frame_type)

            async def enter(frame: Frame) -> None:
                port.enter_node(node, inner, frame)

            hop = Hop(origin, node, direction, enter)
        observer = self._observers.get(graph_node)
        if observer is not None and origin != node.path:
            return _observed(hop, frame_type, observer)
        return hop.of(frame_type)

    def _inner(self, origin: str, node: Node, part: Part | None, direction: Direction) -> Hop:
        port = self._port
        if part is None:
            routes = node.routes(direction)

            async def pass_on(frame: Frame) -> None:
                port.deliver_next(routes[type(frame)], frame)

            return Hop(origin, node, direction, pass_on)
        if part.kind is PartKind.JOB:
            job_part = part

            async def begin(frame: Frame) -> None:
                port.begin_job(node, job_part, frame)

            return JobHop(origin, node, direction, begin, shown=True)
        return Hop(origin, node, direction, getattr(node.processor, part.method), shown=True)

    def _reading(self, origin: str, node: Node, reader: Part, then: Hop, direction: Direction) -> Hop:
        port = self._port

        async def read(frame: Frame) -> None:
            port.read_along(node, reader, frame)
            port.deliver_next(then, frame)

        hop_type = JobHop if isinstance(then, JobHop) else Hop
        return hop_type(origin, node, direction, read, shown=not then.shown)


def _observed(hop: Hop, frame_type: type[Frame], observer: Observer) -> Hop:
    async def call(frame: Frame) -> None:
        observer(frame, hop.direction)
        await hop.call(frame)

    return type(hop)(hop.origin, hop.place, hop.direction, call, shown=hop.shown).of(frame_type)


async def _nowhere(frame: Frame) -> None:
    pass

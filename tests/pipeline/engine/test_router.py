"""The router by itself: which hop a frame of a class takes, without a kernel."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from voxline.pipeline import (
    DOWNSTREAM,
    UPSTREAM,
    CancelFrame,
    Direction,
    Frame,
    FrameProcessor,
    ParallelPipeline,
    Pipeline,
    Stream,
    handles,
    streams,
)
from voxline.pipeline.engine.node import JobHop, Node
from voxline.pipeline.engine.router import REMEMBERED, ObservedRoutes, Router, Routes
from voxline.pipeline.graph import Graph, GraphNode
from voxline.pipeline.jobs import Job
from voxline.pipeline.processor import Hop, Part
from voxline.tests.pipeline.engine.rig import Alarm, Hear, Other, Say


class Passes(FrameProcessor):
    def __init__(self, name: str) -> None:
        self.name = name
        self.frames: list[Frame] = []

    @handles(Say)
    async def take(self, frame: Say) -> None:
        self.frames.append(frame)


class Voice(FrameProcessor):
    @handles(Say, Alarm)
    async def speak(self, frame: Frame) -> AsyncIterator[Frame]:
        yield frame


class Reader(FrameProcessor):
    @streams(Hear)
    async def read(self, frames: Stream[Hear]) -> AsyncIterator[Frame]:
        async for frame in frames:
            yield frame


class Cancels(FrameProcessor):
    def __init__(self, name: str) -> None:
        self.name = name

    @handles(CancelFrame)
    async def cancelled(self, frame: CancelFrame) -> None: ...


class Port:
    """Notes the calls of hops."""

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []

    def deliver_next(self, hop: Hop, frame: Frame) -> None:
        self.calls.append(("deliver_next", hop.processor, frame))

    def fan_out(self, hops: list[Hop], frame: Frame) -> None:
        self.calls.append(("fan_out", [hop.processor for hop in hops], frame))

    def enter_node(self, node: Node, inner: Hop, frame: Frame) -> None:
        self.calls.append(("enter_node", node.path, type(inner), frame))

    def begin_job(self, node: Node, part: Part, frame: Frame) -> Job:
        self.calls.append(("begin_job", part.method, frame))
        return Job(1, node.path, part.method, "", frame.lane, 0, 0)

    def read_along(self, node: Node, part: Part, frame: Frame) -> None:
        self.calls.append(("read_along", part.method, frame))

    def leave(self, frame: Frame, direction: Direction) -> None:
        self.calls.append(("leave", direction, frame))


class Bed:
    """A router with the nodes of a pipeline."""

    def __init__(self, *processors: FrameProcessor | ParallelPipeline) -> None:
        self.graph = Graph(Pipeline(list(processors)))
        self.port = Port()
        self.nodes: dict[GraphNode, Node] = {one: Node(one) for one in self.graph.nodes}
        self.router = Router(self.graph, self.nodes, self.port)
        for one, node in self.nodes.items():
            node.bind(Routes(self.router, one, DOWNSTREAM), Routes(self.router, one, UPSTREAM))
        self.from_head = Routes(self.router, self.graph.head, DOWNSTREAM)

    def node(self, number: int) -> Node:
        return self.nodes[self.graph.nodes[number]]


def paths(hops: Sequence[Hop]) -> list[tuple[str, Direction]]:
    return [(hop.processor, hop.direction) for hop in hops]


async def test_the_hop_of_a_plain_handler_calls_it_directly() -> None:
    first = Passes("first")
    bed = Bed(first)
    hop = bed.from_head[Say]
    assert (hop.origin, hop.processor, hop.shown) == ("(head)", "first", True)
    assert hop.call == first.take
    assert bed.port.calls == []


def test_a_hop_is_made_once_and_knows_its_class_of_frame() -> None:
    bed = Bed(Passes("first"))
    hop = bed.from_head[Say]
    assert bed.from_head[Say] is hop
    assert (hop.quick, hop.numbered, hop.survives, hop.of_microphone) == (True, True, False, False)


async def test_a_frame_that_nobody_names_leaves_at_the_tail() -> None:
    bed = Bed(Passes("first"), Passes("second"))
    frame = Other("x")
    await bed.from_head[Other].call(frame)
    assert bed.port.calls == [("leave", DOWNSTREAM, frame)]


async def test_a_frame_for_a_job_enters_the_node_and_an_urgent_one_begins_the_job_at_once() -> None:
    bed = Bed(Voice())
    say, alarm = Say("x"), Alarm("x")
    await bed.from_head[Say].call(say)
    await bed.from_head[Alarm].call(alarm)
    assert bed.port.calls == [("enter_node", "Voice", JobHop, say), ("begin_job", "speak", alarm)]


async def test_a_frame_of_a_jobs_lane_that_the_processor_does_not_name_enters_too_and_passes_on() -> None:
    bed = Bed(Voice(), Passes("after"))
    frame = Other("x")
    await bed.from_head[Other].call(frame)
    assert bed.port.calls == [("enter_node", "Voice", Hop, frame)]


async def test_a_stream_reads_along_and_the_frame_passes() -> None:
    bed = Bed(Reader())
    frame = Hear("x")
    await bed.from_head[Hear].call(frame)
    assert bed.port.calls == [("read_along", "read", frame), ("deliver_next", "Reader", frame)]


async def test_branches_fan_out_and_are_joined_once_for_each_frame() -> None:
    bed = Bed(ParallelPipeline([Passes("a")], [Passes("b")]), Passes("after"))
    frame = Say("x")
    await bed.from_head[Say].call(frame)
    assert [call[0] for call in bed.port.calls] == ["fan_out"]
    bed.port.calls.clear()
    for number in (0, 1):
        await bed.node(number).routes(DOWNSTREAM)[Say].call(frame)
    assert bed.port.calls == [("deliver_next", "after", frame)]
    for number in range(REMEMBERED):
        await bed.node(0).routes(DOWNSTREAM)[Say].call(Say(str(number)))
    await bed.node(1).routes(DOWNSTREAM)[Say].call(frame)
    assert bed.port.calls[-1] == ("deliver_next", "after", frame), "the join remembers a bounded number of frames"


async def test_a_cancel_frame_that_is_pushed_on_goes_nowhere() -> None:
    bed = Bed(Passes("first"))
    await bed.from_head[CancelFrame].call(CancelFrame(1, "x"))
    assert bed.port.calls == []


def test_a_cancel_frame_goes_up_to_the_head_and_down_to_the_tail_past_all_who_name_it() -> None:
    bed = Bed(Cancels("a"), Passes("b"), Cancels("c"), Cancels("d"))
    hops = bed.router.everyone(bed.node(2), CancelFrame(1, "x"))
    assert paths(hops) == [("a", UPSTREAM), ("(head)", UPSTREAM), ("d", DOWNSTREAM), ("(tail)", DOWNSTREAM)]
    outside = bed.router.everyone(None, CancelFrame(1, "x"))
    assert [path for path, direction in paths(outside) if direction is DOWNSTREAM] == ["a", "c", "d", "(tail)"]


def test_a_posted_fact_begins_at_the_processor_where_that_names_it_and_behind_it_where_not() -> None:
    bed = Bed(Passes("first"), Passes("second"))
    assert bed.router.at(bed.graph.nodes[0], Say, DOWNSTREAM).processor == "first"
    assert bed.router.at(bed.graph.nodes[0], Other, DOWNSTREAM).processor == "(tail)"


async def test_an_observer_sees_frames_from_elsewhere_and_observed_routes_those_that_leave() -> None:
    first, second = Passes("first"), Passes("second")
    bed = Bed(first, second)
    seen: list[tuple[str, Frame]] = []
    bed.router.observe(bed.graph.nodes[1], lambda frame, _: seen.append(("arrives", frame)))
    leaving = ObservedRoutes(bed.node(0).routes(DOWNSTREAM), lambda frame, _: seen.append(("leaves", frame)))
    frame = Say("x")
    await leaving[Say].call(frame)
    assert seen == [("leaves", frame), ("arrives", frame)]
    assert second.frames == [frame]

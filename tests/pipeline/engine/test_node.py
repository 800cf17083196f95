"""A node by itself: the frames that wait behind its jobs."""

from __future__ import annotations

from collections.abc import AsyncIterator

from voxline.pipeline import DOWNSTREAM, UPSTREAM, Frame, FrameProcessor, InputAudioFrame, handles
from voxline.pipeline.engine.inbox import Entry
from voxline.pipeline.engine.node import JobHop, Node
from voxline.pipeline.frames import Lane
from voxline.pipeline.graph import ProcessorNode
from voxline.pipeline.jobs import Job
from voxline.pipeline.processor import Hop
from voxline.tests.pipeline.engine.rig import Hear, Keep, Say, mic


class Voice(FrameProcessor):
    @handles(Say, Hear, InputAudioFrame)
    async def speak(self, frame: Frame) -> AsyncIterator[Frame]:
        yield frame


async def deliver(frame: Frame) -> None:
    raise AssertionError("a node delivers nothing")


def make() -> Node:
    return Node(ProcessorNode("voice", Voice()))


def job(lane: Lane = Lane.OUTPUT) -> Job:
    return Job(1, "voice", "speak", "Say", lane, 1, 0)


def hop(node: Node, frame: Frame, kind: type[Hop] = Hop) -> Hop:
    return kind("head", node, DOWNSTREAM, deliver).of(type(frame))


def entry(node: Node, frame: Frame, response: int = 1, kind: type[Hop] = Hop) -> Entry:
    return hop(node, frame, kind), frame, response, None


def test_a_frame_waits_behind_a_job_of_its_lane_only() -> None:
    node = make()
    assert not node.must_wait(hop(node, Say("a")), Lane.OUTPUT)
    node.running.append(job())
    assert node.must_wait(hop(node, Say("a")), Lane.OUTPUT)
    assert not node.must_wait(hop(node, Hear("a")), Lane.INPUT)


def test_a_frame_that_begins_a_job_waits_behind_any_but_an_urgent_one() -> None:
    node = make()
    node.running.append(job(Lane.URGENT))
    assert not node.must_wait(hop(node, Say("a"), JobHop), Lane.OUTPUT)
    node.running.append(job(Lane.INPUT))
    assert node.must_wait(hop(node, Say("a"), JobHop), Lane.OUTPUT)


def test_a_frame_waits_behind_frames_that_wait() -> None:
    node = make()
    node.wait(entry(node, Say("a")), Lane.OUTPUT)
    assert node.must_wait(hop(node, Say("b")), Lane.OUTPUT)


def test_waiting_frames_go_on_input_before_output_and_none_while_its_lane_is_blocked() -> None:
    node = make()
    node.wait(entry(node, Say("out")), Lane.OUTPUT)
    node.wait(entry(node, Hear("in")), Lane.INPUT)
    node.running.append(job())
    assert (node.waiting, node.waiting_in(Lane.INPUT)) == (2, 1)
    first = node.next_waiting()
    assert first is not None
    assert first[1] == Hear("in")
    assert node.next_waiting() is None, "a job of the output lane runs"
    node.running.clear()
    second = node.next_waiting()
    assert second is not None
    assert second[1] == Say("out")


def test_a_drop_takes_out_what_is_cut_and_returns_the_old_queues() -> None:
    node = make()
    for frame, response in ((Say("old"), 1), (Keep("kept"), 1), (Say("new"), 2)):
        node.wait(entry(node, frame, response), Lane.OUTPUT)
    old = node.drop(1)
    assert [len(queue) for queue in old] == [3]
    assert node.waiting == 2


def test_only_a_frame_whose_class_allows_it_is_dropped_as_the_oldest() -> None:
    node = make()
    assert not node.drop_oldest(Lane.INPUT)
    node.wait(entry(node, Hear("kept"), 0), Lane.INPUT)
    node.wait(entry(node, mic(1), 0), Lane.INPUT)
    assert node.drop_oldest(Lane.INPUT)
    assert node.waiting == 1
    assert not node.drop_oldest(Lane.INPUT)


def test_routes_are_those_that_were_bound() -> None:
    node = make()
    down: dict[type[Frame], Hop] = {}
    up: dict[type[Frame], Hop] = {}
    node.bind(down, up)
    assert node.routes(DOWNSTREAM) is down
    assert node.routes(UPSTREAM) is up

"""The kernel by itself, run slice by slice: entries, steps, and its interface for recordings and benches."""

from __future__ import annotations

import asyncio

import pytest
from voxline.pipeline import DOWNSTREAM, UPSTREAM, Direction, Frame, FrameProcessor, Pipeline, VirtualClock
from voxline.pipeline.engine.inbox import InterruptFrame
from voxline.pipeline.engine.kernel import NO_HANDLER, Kernel
from voxline.pipeline.errors import ProcessorError
from voxline.pipeline.graph import Graph
from voxline.pipeline.jobs import FROM_OUTSIDE, JobEndedFrame
from voxline.pipeline.processor import NOT_RUNNING, Host
from voxline.tests.pipeline.engine.rig import Alarm, Hear, Keep, Say, Seen


def kernel_of(*processors: FrameProcessor) -> Kernel:
    return Kernel(Graph(Pipeline(list(processors))), VirtualClock(autojump=False), seed=1)


async def run(kernel: Kernel) -> None:
    """Run slices as `KernelLoop` does, for handlers that do not wait."""
    while kernel.stack or len(kernel.inbox):
        kernel.next_hop = None
        await kernel.run_slice()
        kernel.next_hop = NO_HANDLER


def enter(kernel: Kernel, *frames: Frame, response: int = 0) -> None:
    for frame in frames:
        kernel.enter_inbox(kernel.head_routes[type(frame)], frame, response, FROM_OUTSIDE if response else None)


async def test_steps_take_urgent_before_input_before_output() -> None:
    seen = Seen()
    kernel = kernel_of(seen)
    enter(kernel, Say("output"), Hear("input"), Alarm("urgent"))
    await run(kernel)
    assert seen.said == ["urgent", "input", "output"]


async def test_output_without_a_number_belongs_to_the_newest_response_and_input_to_none() -> None:
    seen = Seen()
    kernel = kernel_of(seen)
    enter(kernel, Hear("x"), Say("y"))
    await run(kernel)
    assert seen.responses == [0, 1]


async def test_an_entry_of_a_cut_response_is_refused_unless_it_survives() -> None:
    seen = Seen()
    kernel = kernel_of(seen)
    enter(kernel, Say("queued"), response=3)
    kernel.interrupt_from_outside("barge-in", 3)
    await run(kernel)
    enter(kernel, Say("late"), Keep("kept"), response=3)
    await run(kernel)
    assert [what for what in seen.said if what != "CancelFrame"] == ["kept"]
    assert (kernel.cancelled, kernel.inbox.refused) == (3, 1)


async def test_an_entry_wakes_the_loop_that_sleeps() -> None:
    kernel = kernel_of(Seen())
    woken: list[bool] = []

    def wake() -> None:
        kernel.wake_loop = None
        woken.append(True)

    kernel.wake_loop = wake
    enter(kernel, Say("a"), Say("b"))
    assert woken == [True]


async def test_a_processor_is_given_back() -> None:
    seen = Seen()
    kernel = kernel_of(seen)
    with pytest.raises(ProcessorError, match="belongs to another pipeline that is running"):
        kernel_of(seen)
    kernel.dissolve()
    assert seen._host is NOT_RUNNING
    kernel_of(seen).dissolve()


async def test_the_hops_of_recorded_entries() -> None:
    kernel = kernel_of(Seen("a"), Seen("b"))

    def processor(origin: str, frame_type: type[Frame], direction: Direction, *, begins_here: bool = False) -> str:
        hop = kernel.recorded_hop(origin, frame_type, direction, begins_here=begins_here)
        return "" if hop is None else hop.processor

    assert processor("(head)", Say, DOWNSTREAM) == "a"
    assert processor("(tail)", Say, UPSTREAM) == "b"
    assert processor("a", Say, DOWNSTREAM) == "b"
    assert processor("a", Say, DOWNSTREAM, begins_here=True) == "a"
    assert processor("a", JobEndedFrame, DOWNSTREAM, begins_here=True) == "a"
    assert processor("b", InterruptFrame, DOWNSTREAM, begins_here=True) == "b"
    assert processor("nobody", Say, DOWNSTREAM) == ""


async def test_a_fed_entry_is_taken_without_a_check() -> None:
    seen = Seen()
    kernel = kernel_of(seen)
    kernel.cancelled = kernel.responses = 5
    kernel.feed(kernel.head_routes[Say], Say("recorded"), 4, FROM_OUTSIDE)
    await run(kernel)
    assert (seen.said, seen.responses) == (["recorded"], [4])


async def test_an_observed_node_shows_what_comes_in_and_what_goes_out() -> None:
    kernel = kernel_of(Seen("a"), Seen("b"))
    notes: list[tuple[str, Frame, Direction]] = []
    kernel.observe_node(
        "b",
        lambda frame, direction: notes.append(("in", frame, direction)),
        lambda frame, direction: notes.append(("out", frame, direction)),
    )
    frame = Say("x")
    enter(kernel, frame)
    await run(kernel)
    assert notes == [("in", frame, DOWNSTREAM), ("out", frame, DOWNSTREAM)]
    assert not kernel.busy
    assert (kernel.jobs, kernel.jobs_started) == ({}, 0)


async def test_the_kernel_knows_which_delivery_it_is_at() -> None:
    seen = Seen()
    kernel = kernel_of(seen)
    enter(kernel, Hear("x"))
    await run(kernel)
    assert kernel.frame == Hear("x")


async def test_a_processor_without_a_pipeline_says_so_for_every_call_of_a_host() -> None:
    alone = Seen("alone")
    assert alone.path == "alone"
    calls = {
        "push": lambda: alone.push(Say("x")),
        "post": lambda: alone.post(Say("x")),
        "post_threadsafe": lambda: alone.post_threadsafe(Say("x")),
        "post_at": lambda: alone.post_at(0, Say("x")),
        "now_ns": lambda: alone.post_after(1, Say("x")),
        "interrupt": alone.interrupt,
        "new_response": alone.new_response,
        "response": lambda: alone.response,
        "open_response": alone.open_response,
        "hold": alone.hold,
        "release": alone.release,
        "end": alone.end,
        "ending": lambda: alone.ending,
        "clock": lambda: alone.clock,
        "random": lambda: alone.random,
    }
    for name, call in calls.items():
        with pytest.raises(ProcessorError, match=rf"FrameProcessor\.{name} works only while the pipeline runs"):
            call()
    own = {name for name in vars(type(NOT_RUNNING)) if not name.startswith("_")}
    assert own >= Host.__abstractmethods__


async def test_a_push_from_another_thread_is_an_error() -> None:
    seen = Seen()
    kernel_of(seen)
    with pytest.raises(ProcessorError, match="another thread"):
        await asyncio.get_running_loop().run_in_executor(None, lambda: seen.push(Say("x")))

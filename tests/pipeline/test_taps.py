"""A tap sees every delivery and every entry of the inbox, and can fail a delivery; it changes nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from voxline.pipeline import (
    UPSTREAM,
    CancelFrame,
    Frame,
    FrameProcessor,
    InjectedFault,
    ParallelPipeline,
    Pipeline,
    PipelineWorker,
    Tap,
    VirtualClock,
    handles,
)
from voxline.pipeline.processor import Hop
from voxline.tests.pipeline.engine.rig import Hear, On, Other, Rig, Say, Seen


class Lines(Tap):
    """Writes down what it sees."""

    def __init__(self) -> None:
        self.deliveries: list[str] = []
        self.entries: list[str] = []

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        self.deliveries.append(f"{t_ns} {hop.origin} -{hop.direction.value}> {hop.processor}: {name(frame)}")

    def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
        self.entries.append(f"{t_ns} {hop.origin}: {name(frame)} r{response} j{job}")


def name(frame: Frame) -> str:
    """A frame in a word."""
    return getattr(frame, "what", type(frame).__name__)


class Job(FrameProcessor):
    """Waits a second."""

    @handles(Say)
    async def work(self, frame: Say) -> AsyncIterator[Frame]:
        await self.clock.sleep(1)
        yield Other(frame.what + "!")


async def test_a_tap_sees_every_delivery_with_its_origin_direction_and_time() -> None:
    async def talk(self: FrameProcessor, frame: Hear) -> None:
        await self.push(Say("a"), response=self.new_response())
        await self.push(Hear("back"), UPSTREAM)

    lines, head = Lines(), Seen("head")
    async with Rig(head, On(talk), Job(), Seen("tail")) as rig:
        rig.worker.add_tap(lines)
        await rig.send(Hear("x"))
        await rig.advance(2)
    assert lines.deliveries == [
        "0 (head) -down> head: x",
        "0 head -down> on: x",
        "0 on -down> Job: a",
        "0 on -up> head: back",
        "1000000000 Job -down> tail: a!",
    ]
    assert lines.entries[:2] == ["0 (head): x r0 j0", "1000000000 Job: a! r1 j1"]


async def test_each_delivery_is_shown_once_also_in_branches_and_behind_jobs() -> None:
    lines = Lines()
    async with Rig(ParallelPipeline([Seen("1")], [Seen("2")]), Job(), Seen("tail")) as rig:
        rig.worker.add_tap(lines)
        await rig.send(Say("a"), Other("b"))
        await rig.advance(3)
    shown = [line.split(" ", 1)[1] for line in lines.deliveries]
    assert len(shown) == len(set(shown))
    assert [line for line in shown if line.endswith(": b") and "tail" in line] != []


async def test_a_fault_that_a_tap_injects_is_an_error_of_that_processor() -> None:
    class Faults(Tap):
        def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
            if hop.processor == "second" and frame == Say("b"):
                raise InjectedFault("broken on purpose")

    head, seen = Seen("head"), Seen("tail")
    async with Rig(head, Seen("second"), seen) as rig:
        remove = rig.worker.add_tap(Faults())
        await rig.send(Say("a"), Say("b"), Say("c"))
        remove()
        remove()
        await rig.send(Say("b"))
    assert seen.said == ["a", "c", "b"]
    assert [(error.processor, error.error) for error in head.errors] == [("second", "InjectedFault")]


async def test_a_tap_may_be_added_and_removed_before_the_run() -> None:
    kept, removed = Lines(), Lines()
    worker = PipelineWorker(Pipeline([Seen()]), clock=VirtualClock())
    worker.add_tap(kept)
    remove = worker.add_tap(removed)
    remove()
    worker.post(Hear("x"))
    run = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    await worker.stop()
    await run
    assert kept.deliveries
    assert removed.deliveries == []


async def test_a_tap_sees_cancel_frames_and_that_a_tap_is_attached_changes_nothing() -> None:
    async def talk(self: FrameProcessor, frame: Hear) -> None:
        if frame.what == "cut":
            self.interrupt()
        else:
            await self.push(Say("a"), response=self.new_response())

    async def play(*taps: Tap) -> list[Frame]:
        seen = Seen()
        async with Rig(On(talk), Job(), seen) as rig:
            for tap in taps:
                rig.worker.add_tap(tap)
            await rig.send(Hear("x"))
            await rig.advance(0.5)
            await rig.send(Hear("cut"), Hear("y"))
            await rig.advance(3)
        return seen.frames

    lines, more = Lines(), Lines()
    assert await play() == await play(lines, more) == [CancelFrame(1), Other("a!")]
    assert lines.deliveries == more.deliveries
    assert any("CancelFrame" in line for line in lines.deliveries)

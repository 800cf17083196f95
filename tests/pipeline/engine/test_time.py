"""One clock, injected: time stands still in a handler, jumps when nothing is left to do, and every run is the same."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest
from voxline.pipeline import (
    Frame,
    FrameProcessor,
    Outcome,
    Pipeline,
    PipelineWorker,
    SystemClock,
    Tap,
    VirtualClock,
    handles,
    source,
)
from voxline.pipeline.processor import Hop
from voxline.tests.pipeline.engine.rig import Hear, On, Other, Rig, Say, Seen

SECOND = 1_000_000_000


async def test_a_timer_posts_to_the_processors_own_handler_when_it_is_due() -> None:
    times: list[tuple[str, float]] = []

    class Timed(FrameProcessor):
        @handles(Hear)
        async def hear(self, frame: Hear) -> None:
            times.append((frame.what, self.now_ns / SECOND))
            if frame.what == "go":
                self.post_after(1_500, Hear("after"))
                self.post_at(3 * SECOND, Hear("at"))
                self.post_at(0, Hear("past"))

    seen = Seen()
    async with Rig(Timed(), seen) as rig:
        await rig.advance(1)
        await rig.send(Hear("go"))
        await rig.advance(10)
    assert times == [("go", 1.0), ("past", 1.0), ("after", 2.5), ("at", 3.0)]
    assert seen.frames == []


async def test_cancelling_a_timer_holds_until_its_frame_is_taken() -> None:
    class Timed(FrameProcessor):
        def __init__(self) -> None:
            self.got: list[str] = []

        @handles(Hear)
        async def hear(self, frame: Hear) -> None:
            self.got.append(frame.what)
            if frame.what == "go":
                self.timer = self.post_after(1_000, Hear("tick"))
            if frame.what == "cancel":
                self.timer.cancel()
                self.timer.cancel()

    timed = Timed()
    async with Rig(timed) as rig:
        await rig.send(Hear("go"))
        rig.clock.call_at(SECOND, lambda: rig.post(Hear("after")))
        # Due, and in the inbox, when the handler of what came before it cancels it.
        rig.clock.call_at(SECOND - 1, lambda: rig.post(Hear("cancel")))
        await rig.advance(2)
        await rig.send(Hear("go"))
        await rig.advance(2)
    assert timed.got == ["go", "cancel", "after", "go", "tick"]


async def test_time_stands_still_while_a_handler_runs() -> None:
    times: list[int] = []

    async def wait(self: FrameProcessor, frame: Hear) -> None:
        times.append(self.now_ns)
        await self.clock.sleep(0.02)
        times.append(self.now_ns)
        assert self.clock.now_ns() == times[0] + 20_000_000

    async with Rig(On(wait), Seen()) as rig:
        rig.post(Hear("x"))
        await rig.advance(1)
    assert times[0] == times[1]


async def test_a_job_sees_the_clock_go_on() -> None:
    times: list[float] = []

    class Job(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            for _ in range(3):
                times.append(self.now_ns / SECOND)
                await self.clock.sleep(0.5)
            yield frame

    async with Rig(Job(), Seen()) as rig:
        await rig.send(Say("x"))
        await rig.advance(5)
    assert times == [0.0, 0.5, 1.0]


async def test_an_hour_jumps_by_and_a_real_wait_takes_no_virtual_time() -> None:
    class Model(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            await asyncio.get_running_loop().run_in_executor(None, time.sleep, 0.02)
            yield Other(f"{self.now_ns / SECOND}")

    class Caller(FrameProcessor):
        @source
        async def call(self) -> AsyncIterator[Frame]:
            yield Say("a")
            await self.clock.sleep(3_600)
            yield Say("b")

    seen = Seen()
    worker = PipelineWorker(Pipeline([Caller(), Model(), seen]), clock=VirtualClock())
    assert await worker.run() == Outcome("ended")
    assert seen.said == ["0.0", "3600.0"]


async def test_the_machines_clock_works_too() -> None:
    class Caller(FrameProcessor):
        @source
        async def call(self) -> AsyncIterator[Frame]:
            for number in range(3):
                await self.clock.sleep(0.002)
                yield Say(str(number))

    seen = Seen()
    worker = PipelineWorker(Pipeline([Caller(), seen]), clock=SystemClock())
    assert await worker.run() == Outcome("ended")
    assert seen.said == ["0", "1", "2"]


async def test_advance_is_for_a_clock_that_does_not_jump_by_itself() -> None:
    with pytest.raises(ValueError, match="autojump=False"):
        await VirtualClock().advance(1)


async def test_random_numbers_are_the_workers_and_come_from_its_seed() -> None:
    async def numbers(seed: int) -> list[float]:
        drawn: list[float] = []

        async def draw(self: FrameProcessor, frame: Hear) -> None:
            drawn.append(self.random.random())

        async with Rig(On(draw), seed=seed) as rig:
            await rig.send(Hear("a"), Hear("b"))
        return drawn

    assert await numbers(1) == await numbers(1)
    assert await numbers(1) != await numbers(2)


# --- an hour of conversation -----------------------------------------------------------------------------------------


class Everything(Tap):
    """Writes down every delivery."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        self.lines.append(f"{t_ns} {hop.origin} {hop.processor} {hop.direction.value} {frame!r}")


class Caller(FrameProcessor):
    """Speaks now and then for an hour; silent for long at times."""

    @source
    async def call(self) -> AsyncIterator[Frame]:
        for number in range(400):
            await self.clock.sleep(self.random.choice([0.2, 1, 3, 7, 20, 25]))
            yield Hear(f"utterance {number}")


class Controller(FrameProcessor):
    """Answers, is interrupted by the next utterance, and asks after 15 s of silence whether anybody is there."""

    def __init__(self) -> None:
        self.idle_asked = 0
        self.timer = None

    @handles(Hear)
    async def hear(self, frame: Hear) -> None:
        if frame.what == "idle":
            self.idle_asked += 1
        else:
            self.interrupt("spoke")
        if self.timer is not None:
            self.timer.cancel()
        self.timer = self.post_after(15_000, Hear("idle"))
        number = self.new_response()
        for word in range(self.random.randrange(1, 6)):
            await self.push(Say(f"{frame.what} {word}"), response=number)


class Voice(FrameProcessor):
    """A job of some hundred milliseconds for each word."""

    @handles(Say)
    async def speak(self, frame: Say) -> AsyncIterator[Frame]:
        for part in range(3):
            await self.clock.sleep(0.1 + self.random.random() / 2)
            yield Other(f"{frame.what}.{part}")


async def hour() -> tuple[list[str], int, float]:
    tap, controller, clock = Everything(), Controller(), VirtualClock()
    worker = PipelineWorker(Pipeline([Caller(), controller, Voice(), Seen()]), clock=clock, seed=7)
    worker.add_tap(tap)
    await worker.run()
    return tap.lines, controller.idle_asked, clock.now_ns() / SECOND


async def test_an_hour_of_conversation_with_idle_time_outs_is_the_same_each_time() -> None:
    began = time.process_time()
    lines, asked, seconds = await hour()
    took = time.process_time() - began
    assert seconds > 3_500
    assert asked > 50
    assert len(lines) > 4_000
    assert (lines, asked, seconds) == await hour()
    assert took < 10, "two seconds is the figure; here it only must not be absurd"

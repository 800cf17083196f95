"""Generators are jobs: beside the pipeline, in order, one at a time, and held where the place downstream is full."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import ClassVar

from voxline.pipeline import (
    UPSTREAM,
    ErrorFrame,
    Frame,
    FrameProcessor,
    handles,
    source,
)
from voxline.tests.pipeline.engine.rig import Hear, Keep, Other, Rig, Say, Seen, Slow


class SlowTwo(Slow):
    """The same, two at a time."""

    max_jobs: ClassVar[int] = 2


async def test_what_follows_waits_behind_the_job_also_where_the_processor_does_not_name_it() -> None:
    seen = Seen()
    async with Rig(Slow(), seen) as rig:
        await rig.send(Say("a"), Other("b"), Keep("c"), Say("d"), Other("e"))
        assert seen.frames == []
        await rig.advance(1)
        assert seen.said == ["a!", "b", "c"]
        await rig.advance(1)
        assert seen.said == ["a!", "b", "c", "d!", "e"]


async def test_jobs_of_one_processor_run_one_after_another() -> None:
    slow, seen = Slow(), Seen()
    async with Rig(slow, seen) as rig:
        await rig.send(*(Say(str(number)) for number in range(5)))
        await rig.advance(10)
    assert slow.most == 1
    assert seen.said == [f"{number}!" for number in range(5)]


async def test_the_other_lane_does_not_wait() -> None:
    """UserStartedSpeaking and the like are input: they overtake what the bot has still to say, never each other."""
    seen = Seen()
    async with Rig(Slow(), seen) as rig:
        await rig.send(Say("a"), Hear("1"), Say("b"), Hear("2"))
        assert seen.said == ["1", "2"]
        await rig.advance(5)
    assert seen.said == ["1", "2", "a!", "b!"]


async def test_two_jobs_at_a_time_keep_the_order_of_what_passes() -> None:
    two, seen = SlowTwo(), Seen()
    async with Rig(two, seen) as rig:
        await rig.send(Say("a"), Say("b"), Other("after a and b"), Say("c"), Other("after c"))
        await rig.advance(0.9)
        assert seen.frames == []
        await rig.advance(10)
    assert two.most == 2
    assert seen.said == ["a!", "b!", "after a and b", "c!", "after c"]


async def test_a_job_that_raises_half_way_says_so_and_what_waits_goes_on() -> None:
    class Half(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            yield Other(frame.what + "1")
            await self.clock.sleep(1)
            if frame.what == "b":
                raise ValueError("no more")
            yield Other(frame.what + "2")

    head, seen = Seen("head"), Seen()
    async with Rig(head, Half(), seen) as rig:
        await rig.send(Say("a"), Say("b"), Say("c"))
        await rig.advance(10)
    assert seen.said == ["a1", "a2", "b1", "c1", "c2"]
    assert head.errors == [ErrorFrame("no more", "Half", "Say", "ValueError")]


async def test_an_error_handler_that_speaks_does_not_overtake_what_waits_and_starts_no_second_job() -> None:
    """The job fails; somebody upstream says sorry; b was there before."""

    class Fails(Slow):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            self.running += 1
            self.most = max(self.most, self.running)
            await self.clock.sleep(1)
            self.running -= 1
            if frame.what == "a":
                raise ValueError(frame.what)
            yield Say(frame.what)

    class Sorry(FrameProcessor):
        @handles(ErrorFrame, direction=UPSTREAM)
        async def sorry(self, frame: ErrorFrame) -> None:
            await self.push(Say("sorry"))

    fails, seen = Fails(), Seen()
    async with Rig(Sorry(), fails, seen) as rig:
        await rig.send(Say("a"), Say("b"))
        await rig.advance(10)
    assert fails.most == 1
    assert seen.said == ["b", "sorry"]


async def test_a_job_that_never_yields() -> None:
    class Quiet(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            await self.clock.sleep(0.1)
            return
            yield  # pyright: ignore[reportUnreachable]

    seen = Seen()
    async with Rig(Quiet(), seen) as rig:
        await rig.send(Say("a"), Other("b"), Say("c"), Other("d"))
        await rig.advance(1)
    assert seen.said == ["b", "d"]


async def test_a_job_that_ends_at_once() -> None:
    class Nothing(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            if frame.what == "now":
                yield Say("yes")

    seen = Seen()
    async with Rig(Nothing(), seen) as rig:
        await rig.send(Say("a"), Other("b"), Say("now"), Other("d"), Say("e"), Other("f"))
    assert seen.said == ["b", "yes", "d", "f"]


async def test_what_is_no_frame_cannot_be_yielded() -> None:
    class Wrong(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            yield "text"  # type: ignore[misc]

    head = Seen("head")
    async with Rig(head, Wrong()) as rig:
        await rig.send(Say("a"))
    assert head.errors[0].error == "ProcessorError"
    assert "yielded str" in head.errors[0].message
    assert "yield TextFrame(text)" in head.errors[0].message


async def test_a_burst_from_one_job_is_taken_frame_by_frame() -> None:
    """A job has one frame in the inbox at a time, so it cannot fill it."""

    class Burst(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            for number in range(500):
                yield Other(str(number))

    seen = Seen()
    async with Rig(Burst(), seen, inbox_frames=10) as rig:
        await rig.send(Say("a"))
    assert seen.said == [str(number) for number in range(500)]


async def test_a_job_pushes_upstream_in_order_with_what_it_yields() -> None:
    class Up(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            for number in range(3):
                await self.push(Hear(f"up {number}"), UPSTREAM)
                yield Other(f"down {number}")

    order: list[str] = []

    class Head(FrameProcessor):
        @handles(Hear, direction=UPSTREAM)
        async def up(self, frame: Hear) -> None:
            order.append(frame.what)

    class Tail(FrameProcessor):
        @handles(Other)
        async def down(self, frame: Other) -> None:
            order.append(frame.what)

    async with Rig(Head(), Up(), Tail()) as rig:
        await rig.send(Say("a"))
    assert order == ["up 0", "down 0", "up 1", "down 1", "up 2", "down 2"]


async def test_a_full_queue_behind_a_job_holds_the_generator_that_fills_it() -> None:
    class Maker(FrameProcessor):
        def __init__(self) -> None:
            self.made = 0

        @source
        async def make(self) -> AsyncIterator[Frame]:
            for number in range(100):
                self.made += 1
                yield Say(str(number))

    maker, slow, seen = Maker(), Slow(), Seen()
    slow.queue_frames = 5
    async with Rig(maker, slow, seen) as rig:
        await rig.settle()
        assert maker.made <= 1 + 5 + 2, "one at work, five behind it, one in the inbox, one in its warm_task"
        await rig.advance(200)
        assert seen.said == [f"{number}!" for number in range(100)]
    assert maker.made == 100


async def test_a_queue_behind_a_job_that_nobody_can_hold_says_so() -> None:
    head, slow, seen = Seen("head"), Slow(), Seen()
    slow.queue_frames = 3
    async with Rig(head, slow, seen) as rig:
        await rig.send(*(Say(str(number)) for number in range(10)))
        await rig.advance(20)
    assert seen.said == ["0!", "1!", "2!", "3!"]
    assert len(head.errors) == 6
    message = head.errors[0].message
    assert head.errors[0].error == "QueueOverflowError"
    assert "3 frames wait behind a job of Slow, its bound is 3" in message
    assert "queue_frames" in message


async def test_a_microphone_behind_a_job_loses_its_oldest() -> None:
    from voxline.tests.pipeline.engine.rig import mic

    class Stt(FrameProcessor):
        queue_frames = 3

        @handles(Hear)
        async def work(self, frame: Hear) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            yield frame

    head, seen = Seen("head"), Seen()
    async with Rig(head, Stt(), seen) as rig:
        await rig.send(Hear("x"), *(mic(number) for number in range(10)), Hear("y"))
        await rig.advance(5)
    assert head.errors == [] or all(error.error == "QueueOverflowError" for error in head.errors)
    assert seen.frames[0] == Hear("x")
    assert [frame.pts_ns for frame in seen.frames[1:4]] == [7, 8, 9]  # type: ignore[attr-defined]


async def test_a_job_that_fills_the_queue_behind_itself_does_not_wait_for_itself() -> None:
    """Its frames go up, and come down again, behind it. Nobody but itself could make room."""

    class Loop(FrameProcessor):
        queue_frames = 2

        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            for number in range(6):
                await self.push(Other(str(number)), UPSTREAM)
            yield Keep("done")

    class Mirror(FrameProcessor):
        @handles(Other, direction=UPSTREAM)
        async def back(self, frame: Other) -> None:
            await self.push(frame)

    head, seen = Seen("head"), Seen()
    async with Rig(head, Mirror(), Loop(), seen) as rig:
        await rig.send(Say("go"))
        await rig.advance(1)
    assert "done" in seen.said
    assert all(error.error == "QueueOverflowError" for error in head.errors)


async def test_hold_and_release() -> None:
    class Output(FrameProcessor):
        def __init__(self) -> None:
            self.got: list[str] = []
            self.answers: list[bool] = []

        @handles(Other)
        async def take(self, frame: Other) -> None:
            self.got.append(frame.what)
            self.answers.append(self.hold())

        @handles(Hear)
        async def go(self, frame: Hear) -> None:
            self.release()

    class Maker(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            for number in range(4):
                yield Other(str(number))

    output = Output()
    async with Rig(Maker(), output) as rig:
        await rig.send(Say("go"))
        for count in (1, 2, 3, 4, 4):
            assert len(output.got) == count
            await rig.send(Hear("release"))
        await rig.send(Other("from nobody who can wait"))
    assert output.answers == [True] * 4 + [False]


async def test_a_hold_reaches_through_plain_handlers_to_the_job() -> None:
    class Maker(FrameProcessor):
        made = 0

        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            for number in range(4):
                self.made += 1
                yield Other(str(number))

    class Doubles(FrameProcessor):
        @handles(Other)
        async def double(self, frame: Other) -> None:
            await self.push(Keep(frame.what))
            await self.push(Keep(frame.what))

    class Output(FrameProcessor):
        @handles(Keep)
        async def take(self, frame: Keep) -> None:
            self.hold()

    maker = Maker()
    async with Rig(maker, Doubles(), Output()) as rig:
        await rig.send(Say("go"))
        assert maker.made == 2


# --- cancellation ----------------------------------------------------------------------------------------------------


async def test_timeouts_inside_of_jobs_work() -> None:
    class Impatient(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                yield Other("gave up")
            try:
                await asyncio.wait_for(asyncio.get_running_loop().create_future(), 0.001)
            except TimeoutError:
                yield Other("again")

    seen = Seen()
    async with Rig(Impatient(), seen) as rig:
        for _ in range(3):
            await rig.send(Say("a"))
    assert seen.said == ["gave up", "again"] * 3


async def test_a_timeout_of_zero_in_a_job() -> None:
    """The timeout falls before the job's task has had its first turn."""

    class Impatient(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            try:
                async with asyncio.timeout(0):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                yield Other(frame.what)

    seen = Seen()
    async with Rig(Impatient(), seen) as rig:
        for word in "abc":
            await rig.send(Say(word))
    assert seen.said == ["a", "b", "c"]


async def test_a_job_whose_future_was_cancelled_by_somebody_else_has_failed() -> None:
    """A connection is lost, its futures are cancelled: that is an error of this job and of nothing else."""
    futures: list[asyncio.Future[None]] = []

    class Asks(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            future = asyncio.get_running_loop().create_future()
            futures.append(future)
            await future
            yield frame

    head, seen = Seen("head"), Seen()
    async with Rig(head, Asks(), seen) as rig:
        for round_ in range(2):
            rig.post(Say("a"), Other("b"))
            for _ in range(10):
                await asyncio.sleep(0)
            futures[-1].cancel()
            await rig.settle()
            assert seen.said == ["b"] * (round_ + 1)
    assert [error.error for error in head.errors] == ["CancelledError"] * 2


async def test_a_job_that_swallows_its_cancellation_is_abandoned_after_a_second_and_the_rest_goes_on() -> None:
    class Stubborn(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            for _ in range(3):
                try:
                    await self.clock.sleep(100 if frame.what == "a" else 0)
                except asyncio.CancelledError:
                    continue
            yield Other(frame.what)

    head, seen = Seen("head"), Seen()
    async with Rig(head, Stubborn(), seen) as rig:
        await rig.send(Say("a"))
        rig.worker.interrupt()
        await rig.settle()
        rig.post(Say("b"))
        await rig.advance(1.5)
        assert [error.error for error in head.errors] == ["JobTimeout"]
        assert "Stubborn.work" in head.errors[0].message
        await rig.advance(0.1)
        assert seen.said == ["CancelFrame", "b"]
        await rig.advance(300)


async def test_closing_a_job_runs_its_finally_also_at_a_yield_and_lets_it_wait_there() -> None:
    class Tidy(FrameProcessor):
        def __init__(self) -> None:
            self.tidied: list[str] = []

        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            try:
                while True:
                    yield Other("x")
            finally:
                await asyncio.sleep(0)
                await self.clock.sleep(0)
                self.tidied.append(frame.what)

    class Full(FrameProcessor):
        @handles(Other)
        async def take(self, frame: Other) -> None:
            self.hold()

    tidy = Tidy()
    async with Rig(tidy, Full()) as rig:
        await rig.send(Say("a"))
        rig.worker.interrupt()
        await rig.settle()
        await rig.advance(0.1)
        assert tidy.tidied == ["a"]


async def test_a_job_that_raises_while_it_is_closed_is_reported_once() -> None:
    class Bad(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            try:
                await self.clock.sleep(100)
                yield frame
            finally:
                raise ValueError("while closing")

    head, seen = Seen("head"), Seen()
    async with Rig(head, Bad(), seen) as rig:
        await rig.send(Say("a"))
        rig.worker.interrupt()
        await rig.advance(2)
        await rig.send(Other("goes on"))
        assert [error.message for error in head.errors] == ["while closing"]
        assert seen.said[-1] == "goes on"


async def test_a_job_may_push_from_several_tasks_of_its_own() -> None:
    class Many(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            await asyncio.gather(*(self.push(Hear(str(number)), UPSTREAM) for number in range(5)))
            yield Other("done")

    head, seen = Seen("head"), Seen()
    async with Rig(head, Many(), seen) as rig:
        await rig.send(Say("a"))
        assert sorted(frame.what for frame in head.upstream if isinstance(frame, Hear)) == list("01234")
        assert seen.said == ["done"]

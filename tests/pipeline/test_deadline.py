"""Deadlines of jobs, in virtual time."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress

import pytest
from voxline.pipeline import Frame, FrameProcessor, TextFrame, handles
from voxline.pipeline.clock import Clock, Wait
from voxline.pipeline.tasks import Deadline
from voxline.pipeline.testing import Bench, Harness


class Late(Exception):
    """A deadline has passed."""


class Other(Exception):
    """Another one has."""


Work = Callable[[Clock], Awaitable[str]]


class Worker(FrameProcessor):
    """Runs ``work`` in a job for each text, and tells what came of it and when."""

    def __init__(self, work: Work) -> None:
        self.work = work
        self.closed = False

    @handles(TextFrame)
    async def do(self, frame: TextFrame) -> AsyncIterator[Frame]:
        try:
            told = await self.work(self.clock)
        except (Late, Other) as error:
            told = type(error).__name__
        except GeneratorExit:
            raise
        finally:
            self.closed = True
        yield TextFrame(f"{told} at {self.now_ns / 1e6:g}")


async def outcome(harness: Harness, work: Work, ms: float = 10_000) -> str:
    """What comes of it."""
    bench = await harness(Worker(work))
    await bench.send(TextFrame("go"))
    await bench.advance(ms)
    (told,) = bench.down
    assert isinstance(told, TextFrame)
    return told.text


async def test_whoever_waits_too_long_gets_the_error(harness: Harness):
    async def work(clock: Clock) -> str:
        with Deadline(clock, 0.2, Late):
            await clock.sleep(1)
        return "done"

    assert await outcome(harness, work) == "Late at 200"


async def test_whoever_is_in_time_hears_nothing_of_it(harness: Harness):
    async def work(clock: Clock) -> str:
        with Deadline(clock, 0.2, Late):
            await clock.sleep(0.199)
        await clock.sleep(1)
        return "done"

    assert await outcome(harness, work) == "done at 1199"


async def test_none_is_no_deadline(harness: Harness):
    async def work(clock: Clock) -> str:
        with Deadline(clock, None, Late):
            await clock.sleep(9)
        return "done"

    assert await outcome(harness, work) == "done at 9000"


async def test_no_wait_no_deadline(harness: Harness):
    async def work(clock: Clock) -> str:
        with Deadline(clock, 0, Late):
            return "done"

    assert await outcome(harness, work) == "done at 0"


@pytest.mark.parametrize(
    ("outer_s", "inner_s", "told"), [(0.3, 0.1, "Other at 100"), (0.1, 0.3, "Late at 100"), (0.1, 0.1, "Late at 100")]
)
async def test_of_two_the_earlier_counts_and_of_one_instant_the_outer(
    harness: Harness, outer_s: float, inner_s: float, told: str
):
    async def work(clock: Clock) -> str:
        with Deadline(clock, outer_s, Late), Deadline(clock, inner_s, Other):
            await clock.sleep(1)
        return "done"

    assert await outcome(harness, work) == told


async def test_who_catches_the_inner_error_is_still_within_the_outer_one(harness: Harness):
    async def work(clock: Clock) -> str:
        with Deadline(clock, 0.3, Late):
            try:
                with Deadline(clock, 0.1, Other):
                    await clock.sleep(1)
            except Other:
                await clock.sleep(1)
        return "done"

    assert await outcome(harness, work) == "Late at 300"


async def test_an_error_of_the_work_is_that_error(harness: Harness):
    async def work(clock: Clock) -> str:
        with Deadline(clock, 0.3, Late):
            raise Other

    assert await outcome(harness, work) == "Other at 0"


async def test_an_error_while_it_is_cancelled_is_that_error_and_the_job_lives(harness: Harness):
    async def work(clock: Clock) -> str:
        try:
            with Deadline(clock, 0.1, Late):
                try:
                    await clock.sleep(1)
                finally:
                    raise Other
        except Other:
            await clock.sleep(0.5)
        return "done"

    assert await outcome(harness, work) == "done at 600"


async def test_who_swallows_it_has_ended_in_time_and_the_job_lives(harness: Harness):
    async def work(clock: Clock) -> str:
        with Deadline(clock, 0.1, Late), suppress(BaseException):
            await clock.sleep(1)
        await clock.sleep(0.5)
        return "done"

    assert await outcome(harness, work) == "done at 600"


@pytest.mark.parametrize(("before", "told"), [(True, "done at 200"), (False, "Late at 200")])
async def test_at_one_instant_what_was_set_first_comes_first(harness: Harness, before: bool, told: str):
    """The result and the deadline at the same virtual time: what is there is not thrown away."""

    async def work(clock: Clock) -> str:
        result = Wait()
        timers = [clock.call_at(200_000_000, result.wake)] if before else []
        with Deadline(clock, 0.2, Late):
            if not before:
                timers.append(clock.call_at(200_000_000, result.wake))
            await result
        await clock.sleep(0)
        return "done"

    assert await outcome(harness, work) == told


async def test_a_deadline_of_the_same_instant_does_not_hit_what_comes_after_it(harness: Harness):
    """It fires when the result has been set and the job has not run yet: a deadline that has ended is over."""

    async def work(clock: Clock) -> str:
        result = Wait()
        deadline = Deadline(clock, 5, Late)

        def both() -> None:
            result.wake()
            deadline.fail(Late)

        clock.call_at(200_000_000, both)
        try:
            with deadline:
                await result
        except Late:
            pass
        await clock.sleep(1)
        return "done"

    assert await outcome(harness, work) == "done at 1200"


async def test_a_pause_counts_for_nothing_and_after_it_the_whole_time_is_given(harness: Harness):
    async def work(clock: Clock) -> str:
        with Deadline(clock, 0.2, Late) as deadline:
            await clock.sleep(0.19)
            deadline.pause()
            await clock.sleep(5)
            deadline.resume()
            await clock.sleep(0.19)
            deadline.resume()
            await clock.sleep(0.5)
        return "done"

    assert await outcome(harness, work) == "Late at 5580"


async def test_what_is_over_is_not_resumed(harness: Harness):
    async def work(clock: Clock) -> str:
        with Deadline(clock, 0.2, Late) as deadline:
            pass
        deadline.resume()
        deadline.fail(Other)
        await clock.sleep(1)
        return "done"

    assert await outcome(harness, work) == "done at 1000"


async def test_it_can_be_made_to_fail_from_outside(harness: Harness):
    async def work(clock: Clock) -> str:
        with Deadline(clock, 2, Late) as deadline:
            clock.call_at(50_000_000, lambda: deadline.fail(Other))
            clock.call_at(50_000_000, lambda: deadline.fail(Late))
            await clock.sleep(1)
        return "done"

    assert await outcome(harness, work) == "Other at 50"


async def test_one_deadline_can_be_used_again(harness: Harness):
    async def work(clock: Clock) -> str:
        deadline = Deadline(clock, 0.1, Late)
        for _ in range(3):
            try:
                with deadline:
                    await clock.sleep(1)
            except Late:
                pass
        with deadline:
            await clock.sleep(0.05)
        return "done"

    assert await outcome(harness, work) == "done at 350"


async def closed(bench: Bench) -> bool:
    processor = bench.processor
    assert isinstance(processor, Worker)
    return processor.closed


async def test_a_job_that_is_closed_meanwhile_is_closed(harness: Harness):
    async def work(clock: Clock) -> str:
        with Deadline(clock, 0.2, Late):
            await clock.sleep(1)
        return "done"

    bench = await harness(Worker(work))
    await bench.send(TextFrame("go"), response=1)
    await bench.advance(100)
    await bench.interrupt()
    assert await closed(bench)
    await bench.advance(1_000)
    assert not [frame for frame in bench.down if isinstance(frame, TextFrame)]


async def test_a_job_that_is_closed_at_the_instant_of_its_deadline_is_closed(harness: Harness):
    """Both cancel the same wait: whichever comes first, the job ends, and the deadline's error is nobody's."""

    async def work(clock: Clock) -> str:
        with Deadline(clock, 0.2, Late) as deadline:
            deadlines.append(deadline)
            await clock.sleep(1)
        return "done"

    deadlines: list[Deadline] = []
    bench = await harness(Worker(work))
    await bench.send(TextFrame("go"), response=1)
    await bench.advance(100)
    deadlines[0].fail(Late)
    bench.worker.interrupt()
    await bench.settle()
    assert await closed(bench)
    assert not [frame for frame in bench.down if isinstance(frame, TextFrame)]
    assert bench.errors == []
    await bench.send(TextFrame("go"), response=3)
    await bench.advance(1_000)
    assert bench.down[-1] == TextFrame("Late at 300")

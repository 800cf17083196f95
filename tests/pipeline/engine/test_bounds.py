"""Every queue has a bound and a policy: what overflows is said, by name, with what to do; control is never dropped."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest
from voxline.pipeline import (
    AtBound,
    ErrorPolicy,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    OutputFrame,
    Pipeline,
    PipelineWorker,
    QueueOverflowError,
    VirtualClock,
    handles,
    source,
)
from voxline.pipeline.engine.inbox import MICROPHONE_MS
from voxline.tests.pipeline.engine.rig import Alarm, Hear, Keep, Other, Rig, Say, Seen, mic

MICROPHONE_FRAMES = MICROPHONE_MS // 20


@dataclass(frozen=True, slots=True)
class Video(OutputFrame):
    """A frame of the bot's face: the newest counts."""

    at_bound: ClassVar[AtBound] = AtBound.DROP_OLDEST

    number: int


@pytest.mark.parametrize("kind", [Say, Hear, Alarm])
async def test_a_full_lane_of_the_inbox_is_an_error_to_who_posts(kind: type[Say]) -> None:
    seen = Seen()
    async with Rig(seen, inbox_frames=10) as rig:
        for number in range(10):
            rig.post(kind(str(number)))
        with pytest.raises(QueueOverflowError, match=r"holds 10 \w+ frames, its bound") as caught:
            rig.post(kind("too much"))
        assert "worker.send" in str(caught.value)
        await rig.settle()
        await rig.send(kind("room again"))
    assert seen.said == [*map(str, range(10)), "room again"]


async def test_send_waits_until_the_frame_is_delivered() -> None:
    seen = Seen()
    async with Rig(seen, inbox_frames=3) as rig:
        for number in range(50):
            await rig.worker.send(Say(str(number)))
    assert seen.said == [str(number) for number in range(50)]


async def test_the_end_of_a_job_gets_through_a_full_inbox() -> None:
    """It is control: were it lost, everything behind the job would wait for ever."""

    class Job(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            await gate
            if False:
                yield frame

    gate: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    seen = Seen()
    async with Rig(Job(), seen, inbox_frames=5) as rig:
        rig.post(Say("a"), Other("behind"))
        for _ in range(5):
            await asyncio.sleep(0)
        gate.set_result(None)
        for number in range(5):
            rig.post(Keep(str(number)))
        await rig.settle()
        await rig.send(Other("after"))
    assert seen.said == ["behind", "0", "1", "2", "3", "4", "after"]


async def test_a_microphone_that_is_not_listened_to_loses_its_oldest_and_nothing_else() -> None:
    seen = Seen()
    async with Rig(seen) as rig:
        rig.post(Hear("first"))
        for number in range(MICROPHONE_FRAMES + 50):
            rig.post(mic(number))
            if number % 50 == 0:
                rig.post(Hear(str(number)))
        assert rig.worker._kernel is not None
        assert rig.worker._kernel.inbox.dropped == 50
        await rig.settle()
    assert [frame.what for frame in seen.frames if isinstance(frame, Hear)] == ["first", "0", "50", "100"]
    audio = [frame.pts_ns for frame in seen.frames if isinstance(frame, InputAudioFrame)]
    assert audio == list(range(50, MICROPHONE_FRAMES + 50))


@pytest.mark.parametrize("chunk_ms", [5, 10, 20, 40, 500, 1_000])
async def test_of_a_microphone_so_much_time_may_wait_in_chunks_of_any_length(chunk_ms: int) -> None:
    seen = Seen()
    async with Rig(seen) as rig:
        for number in range(5 * MICROPHONE_MS // chunk_ms):
            rig.post(InputAudioFrame(np.zeros(16 * chunk_ms, np.int16), 16_000, number))
        await rig.settle()
    audio = [frame for frame in seen.frames if isinstance(frame, InputAudioFrame)]
    assert sum(frame.duration_ms for frame in audio) == MICROPHONE_MS
    assert audio[-1].pts_ns == 5 * MICROPHONE_MS // chunk_ms - 1


async def test_a_chunk_of_a_microphone_that_is_longer_than_may_wait_is_heard() -> None:
    seen = Seen()
    async with Rig(seen) as rig:
        for number in range(3):
            rig.post(InputAudioFrame(np.zeros(16 * (MICROPHONE_MS + 20), np.int16), 16_000, number))
        await rig.settle()
        rig.post(*(mic(number) for number in range(MICROPHONE_FRAMES)))
        await rig.settle()
    pts = [frame.pts_ns for frame in seen.frames if isinstance(frame, InputAudioFrame)]
    assert pts == [2, *range(MICROPHONE_FRAMES)]


async def test_a_microphone_of_no_length_is_bounded_as_the_lane_is() -> None:
    seen = Seen()
    async with Rig(seen, inbox_frames=10) as rig:
        rig.post(*(InputAudioFrame(np.zeros(0, np.int16), 16_000, number) for number in range(50)))
        assert rig.worker._kernel is not None
        assert len(rig.worker._kernel.inbox) == 10
        await rig.settle()


async def test_a_microphone_that_keeps_up_loses_nothing_however_long_it_runs() -> None:
    seen = Seen()
    async with Rig(seen) as rig:
        for number in range(0, 1_000, 10):
            rig.post(*(mic(number + offset) for offset in range(10)))
            await rig.settle()
    assert len(seen.frames) == 1_000


async def test_output_whose_oldest_may_be_dropped_loses_nothing_either_where_it_is_taken() -> None:
    seen = Seen()
    async with Rig(seen) as rig:
        for number in range(0, 1_000, 10):
            rig.post(*(Video(number + offset) for offset in range(10)))
            await rig.settle()
        assert len(seen.frames) == 1_000
        for number in range(0, 500, 10):
            rig.post(*(Video(number + offset) for offset in range(10)))
            rig.worker.interrupt()
            await rig.settle()
        rig.post(*(Video(number) for number in range(20)))
        await rig.settle()
        assert [frame.number for frame in seen.frames[-20:] if isinstance(frame, Video)] == list(range(20))


async def test_a_source_whose_frame_was_dropped_goes_on() -> None:
    class Mic(FrameProcessor):
        @source
        async def listen(self) -> AsyncIterator[Frame]:
            for number in range(3):
                await self.clock.sleep(1)
                yield mic(1_000 + number)

    seen = Seen()
    async with Rig(Mic(), seen) as rig:
        await rig.advance(0.9)
        for _ in range(2):
            wait = asyncio.create_task(rig.clock.sleep(0.2))
            await rig.advance(0.1)
            rig.post(*(mic(number) for number in range(MICROPHONE_FRAMES + 5)))
            await rig.advance(0.9)
            await wait
        await rig.advance(5)
    assert [frame.pts_ns for frame in seen.frames if isinstance(frame, InputAudioFrame)][-1] == 1_002


async def test_posts_before_the_run_are_kept_in_order_and_bounded() -> None:
    seen = Seen()
    worker = PipelineWorker(Pipeline([seen]), clock=VirtualClock(), inbox_frames=5)
    for number in range(5):
        worker.post(Say(str(number)))
    with pytest.raises(QueueOverflowError, match="wait for worker to run"):
        worker.post(Say("too much"))
    run = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    await worker.stop()
    await run
    assert seen.said == ["0", "1", "2", "3", "4"]


@pytest.mark.parametrize("kind", [Say, Hear, Alarm])
async def test_a_timer_gets_through_a_full_inbox(kind: type[Say]) -> None:
    """Who goes on from tick to tick would stop for ever: nobody else posts the next one."""

    class Slow(FrameProcessor):
        @handles(Other)
        async def wait(self, frame: Other) -> None:
            await self.clock.sleep(0.5)

    class Ticks(FrameProcessor):
        def __init__(self) -> None:
            self.said: list[str] = []

        @handles(kind)
        async def take(self, frame: Say) -> None:
            self.said.append(frame.what)
            if frame.what == "go":
                self.post_after(200, kind("tick"))

    head, ticks = Seen("head"), Ticks()
    async with Rig(head, Slow(), ticks, inbox_frames=3) as rig:
        await rig.send(kind("go"))
        await rig.send(Other("now everything waits for 500 ms"))
        rig.post(*(kind("full") for _ in range(3)))
        with pytest.raises(QueueOverflowError):
            rig.post(kind("too much"))
        await rig.advance(0.4)
        assert ticks.said == ["go"]
        await rig.advance(0.2)
    assert ticks.said == ["go", "full", "full", "full", "tick"]
    assert head.errors == []


async def test_a_queue_behind_a_job_is_bounded_in_each_lane_by_itself() -> None:
    class Job(FrameProcessor):
        queue_frames = 2

        @handles(Say)
        async def say(self, frame: Say) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            yield frame

        @handles(Hear)
        async def hear(self, frame: Hear) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            yield frame

    class Two(Job):
        max_jobs: ClassVar[int] = 2

    head, seen = Seen("head"), Seen()
    async with Rig(head, Two(), seen) as rig:
        await rig.send(Hear("1"), Hear("2"), Hear("3"), Hear("4"), Say("1"), Say("2"))
        assert head.errors == []
        await rig.advance(10)
    assert len(seen.frames) == 6


async def test_one_frame_that_becomes_many_may_overrun_a_held_queue_only_so_far() -> None:
    class Splits(FrameProcessor):
        @handles(Keep)
        async def split(self, frame: Keep) -> None:
            for number in range(100):
                await self.push(Say(str(number)))

    class Maker(FrameProcessor):
        @source
        async def make(self) -> AsyncIterator[Frame]:
            yield Keep("go")
            yield Keep("again")

    class Slow(FrameProcessor):
        queue_frames = 5

        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            yield frame

    head, seen = Seen("head"), Seen()
    async with Rig(head, Maker(), Splits(), Slow(), seen, errors=ErrorPolicy(max_in_a_row=1_000)) as rig:
        await rig.advance(300)
    assert 5 < len(seen.frames) <= 2 * (1 + 5 * 4)
    assert {error.error for error in head.errors} == {"QueueOverflowError"}

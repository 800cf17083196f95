"""Streams and sources: the long jobs, which read along and make frames of their own."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from voxline.pipeline import (
    Frame,
    FrameProcessor,
    Stream,
    handles,
    source,
    streams,
)
from voxline.tests.pipeline.engine.rig import Hear, On, Rig, Say, Seen, Slow

# --- streams and sources ---------------------------------------------------------------------------------------------


class Reader(FrameProcessor):
    """Reads along, and needs ``delay_s`` for each frame."""

    def __init__(self, delay_s: float = 0) -> None:
        self.read: list[str] = []
        self.begun = 0
        self.ended = 0
        self.delay_s = delay_s

    @streams(Hear, bound_frames=4)
    async def listen(self, frames: Stream[Hear]) -> AsyncIterator[Frame]:
        self.begun += 1
        async for frame in frames:
            self.read.append(frame.what)
            if self.delay_s:
                await self.clock.sleep(self.delay_s)
            if frame.what == "raise":
                raise ValueError("cannot read this")
            if frame.what == "return":
                return
            yield Say("read " + frame.what)
        self.ended += 1


async def test_a_stream_holds_nothing_back() -> None:
    reader, seen = Reader(delay_s=1), Seen()
    async with Rig(reader, seen) as rig:
        await rig.send(Hear("1"), Hear("2"), Hear("3"))
        assert seen.said == ["1", "2", "3"]
        await rig.advance(10)
    assert seen.said == ["1", "2", "3", "read 1", "read 2", "read 3"]
    assert reader.begun == 1


async def test_a_stream_that_fails_or_returns_begins_anew_with_the_next_frame() -> None:
    head, reader = Seen("head"), Reader()
    async with Rig(head, reader) as rig:
        for word in ("a", "raise", "b", "return", "c"):
            await rig.send(Hear(word))
    assert reader.read == ["a", "raise", "b", "return", "c"]
    assert reader.begun == 3
    assert [error.error for error in head.errors] == ["ValueError"]
    assert head.errors[0].processor == "Reader"


async def test_a_stream_ends_when_the_worker_drains() -> None:
    reader, seen = Reader(), Seen()
    async with Rig(reader, seen) as rig:
        await rig.send(Hear("1"))
        outcome = await rig.worker.stop()
    assert reader.ended == 1
    assert outcome.reason == "stopped"
    assert outcome.errors == ()


async def test_a_reader_that_is_too_far_behind_loses_the_oldest_of_a_microphone() -> None:
    from voxline.pipeline import InputAudioFrame
    from voxline.tests.pipeline.engine.rig import mic

    class Stt(FrameProcessor):
        def __init__(self) -> None:
            self.read: list[int | None] = []

        @streams(InputAudioFrame, bound_frames=4)
        async def listen(self, frames: Stream[InputAudioFrame]) -> AsyncIterator[Frame]:
            async for frame in frames:
                self.read.append(frame.pts_ns)
                await self.clock.sleep(1)
            yield Say("end")

    head, stt, seen = Seen("head"), Stt(), Seen()
    async with Rig(head, stt, seen) as rig:
        await rig.send(mic(0))
        await rig.send(*(mic(number) for number in range(1, 21)))
        await rig.advance(30)
    assert stt.read == [0, 17, 18, 19, 20]
    assert len(seen.frames) == 21, "reading along holds nothing back and takes nothing"
    assert [error.error for error in head.errors] == ["QueueOverflowError"] * 5, "1, 2, 4, 8, 16 lost"
    assert "16 were lost so far" in head.errors[-1].message


async def test_a_reader_that_is_too_far_behind_keeps_what_is_no_microphone_up_to_four_times_the_bound() -> None:
    head, reader = Seen("head"), Reader(delay_s=1)
    async with Rig(head, reader) as rig:
        await rig.send(Hear("0"))
        await rig.send(*(Hear(str(number)) for number in range(1, 101)))
        await rig.advance(200)
    assert reader.read == [str(number) for number in range(17)]
    assert {error.error for error in head.errors} == {"QueueOverflowError"}
    assert len(head.errors) == 7, "84 lost: said at 1, 2, 4, ... 64"
    assert "64 were lost so far" in head.errors[-1].message


async def test_a_worker_ends_by_itself_when_its_sources_have_and_all_is_done() -> None:
    class Words(FrameProcessor):
        @source
        async def speak(self) -> AsyncIterator[Frame]:
            for word in "abc":
                yield Say(word)

    seen = Seen()
    async with Rig(Words(), Slow(), seen) as rig:
        outcome = await rig.ended()
    assert outcome.reason == "ended"
    assert seen.said == ["a!", "b!", "c!"]


async def test_two_sources_in_one_processor() -> None:
    class Two(FrameProcessor):
        @source
        async def a(self) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            yield Hear("a")

        @source
        async def b(self) -> AsyncIterator[Frame]:
            await self.clock.sleep(2)
            yield Hear("b")

    seen = Seen()
    async with Rig(Two(), seen) as rig:
        outcome = await rig.ended()
    assert seen.said == ["a", "b"]
    assert outcome.reason == "ended"


async def test_a_job_may_post_facts_to_its_own_handler() -> None:
    class Device(FrameProcessor):
        def __init__(self) -> None:
            self.facts: list[str] = []

        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            self.post(Hear("from the job"))
            await self.clock.sleep(1)
            yield frame

        @handles(Hear)
        async def fact(self, frame: Hear) -> None:
            self.facts.append(frame.what)

    before, device, after = Seen("before"), Device(), Seen("after")
    async with Rig(before, device, after) as rig:
        await rig.send(Say("a"))
        assert device.facts == ["from the job"]
        await rig.advance(2)
    assert Hear("from the job") not in before.frames + before.upstream + after.frames


@pytest.mark.parametrize("count", [1, 3])
async def test_jobs_leave_no_task_behind(count: int) -> None:
    async with Rig(*(Slow() for _ in range(count)), Seen()) as rig:
        await rig.send(*(Say(str(number)) for number in range(20)))
        await rig.advance(100)
        busy = len(asyncio.all_tasks())
        assert busy <= 3, "the test, the worker, and at most one that waits for the next job"


async def test_the_on_helper_passes_nothing_on() -> None:
    async def nothing(self: FrameProcessor, frame: Hear) -> None:
        pass

    seen = Seen()
    async with Rig(On(nothing), seen) as rig:
        await rig.send(Hear("x"), Say("y"))
    assert seen.said == ["y"]

"""Interruption is one step: wherever a frame waits, none of a response that was cut is delivered after it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from voxline.pipeline import (
    UPSTREAM,
    CancelFrame,
    Frame,
    FrameProcessor,
    Stream,
    handles,
    streams,
)
from voxline.tests.pipeline.engine.rig import Controller, Hear, Keep, On, Other, Rig, Say, Seen, Speaker


async def test_frames_in_the_inbox_are_dropped() -> None:
    seen = Seen()
    async with Rig(Controller(), seen) as rig:
        await rig.send(Hear("new x"))
        rig.post(Say("queued 1"), Say("queued 2"), response=1)
        rig.worker.interrupt("stop it")
        await rig.settle()
    assert seen.frames == [Say("x"), CancelFrame(1, "stop it")]


async def test_frames_behind_a_job_are_dropped_and_the_job_is_closed() -> None:
    speaker, seen = Speaker(), Seen()
    async with Rig(Controller(), speaker, seen) as rig:
        await rig.send(Hear("new"))
        await rig.advance(0.6)
        await rig.send(Hear("cut"))
        assert speaker.closed == ["a"]
        await rig.advance(10)
    assert speaker.begun == ["a"]
    assert seen.frames == [Other("a1"), CancelFrame(1, "heard it")]


async def test_a_job_that_was_only_just_begun_is_closed() -> None:
    """Begun and cut in the same slice of the kernel, before the event loop has turned once."""
    speaker, seen = Speaker(), Seen()
    async with Rig(Controller(), speaker, seen) as rig:
        rig.post(Hear("new"), Hear("cut"), Hear("new d"))
        await rig.settle()
        await rig.advance(1.5)
    assert seen.said == ["CancelFrame", "d1", "d2"]


async def test_a_second_job_cut_before_it_first_waits_is_closed_too() -> None:
    speaker, seen = Speaker(), Seen()
    async with Rig(Controller(), speaker, seen) as rig:
        await rig.send(Hear("new a"))
        await rig.advance(5)
        rig.post(Hear("new b"), Hear("cut"), Hear("new c"))
        await rig.settle()
        await rig.advance(5)
    assert seen.said == ["a1", "a2", "CancelFrame", "c1", "c2"]
    assert sorted(speaker.begun) == sorted(speaker.closed)


async def test_a_frame_just_yielded_is_dropped() -> None:
    """The job's frame is in the inbox, and something urgent overtakes it."""

    class Quick(FrameProcessor):
        @handles(Say)
        async def speak(self, frame: Say) -> AsyncIterator[Frame]:
            for number in range(100):
                yield Other(f"{frame.what}{number}")

    class Cutter(FrameProcessor):
        @handles(Other)
        async def cut_at_five(self, frame: Other) -> None:
            await self.push(frame)
            if frame.what == "a5":
                self.interrupt("at five")

    seen = Seen()
    async with Rig(Controller(), Quick(), Cutter(), seen) as rig:
        await rig.send(Hear("new a"))
        await rig.send(Hear("new b"))
    assert seen.said == [
        "a0", "a1", "a2", "a3", "a4", "CancelFrame", *(f"b{number}" for number in range(100)),
    ]  # fmt: skip


async def test_what_the_cutting_handler_pushed_before_is_dropped_and_what_it_pushes_after_is_refused() -> None:
    async def cut(self: FrameProcessor, frame: Hear) -> None:
        number = self.new_response()
        await self.push(Say("before"), response=number)
        await self.push(Keep("kept"), response=number)
        assert self.interrupt("now")
        await self.push(Say("after"), response=number)
        await self.push(Say("next"), response=self.new_response())

    seen = Seen()
    async with Rig(On(cut), seen) as rig:
        await rig.send(Hear("go"))
    assert seen.said == ["CancelFrame", "kept", "next"]
    assert rig.worker.refused == 1


async def test_frames_on_the_stack_are_dropped() -> None:
    """One handler pushed a, b and c; the first of them makes somebody downstream interrupt."""

    class Cutter(FrameProcessor):
        @handles(Say)
        async def cut(self, frame: Say) -> None:
            if frame.what == "b":
                self.interrupt("at b")
            await self.push(frame)

    first, seen = Seen("first"), Seen()
    async with Rig(Controller(), first, Cutter(), seen) as rig:
        await rig.send(Hear("new"))
        await rig.send(Hear("new d e"))
    assert first.said == ["a", "b", "CancelFrame", "d", "e"]
    assert seen.said == ["a", "CancelFrame", "d", "e"]


async def test_a_frame_held_at_a_full_output_is_dropped_and_its_maker_closed() -> None:
    class Full(FrameProcessor):
        """Takes two frames, then is full until it hears otherwise."""

        def __init__(self) -> None:
            self.buffer: list[str] = []

        @handles(Other)
        async def take(self, frame: Other) -> None:
            self.buffer.append(frame.what)
            if len(self.buffer) >= 2:
                assert self.hold()

        @handles(CancelFrame)
        async def cancelled(self, frame: CancelFrame) -> None:
            self.buffer.clear()
            self.release()

    class Talker(FrameProcessor):
        def __init__(self) -> None:
            self.made = 0

        @handles(Say)
        async def speak(self, frame: Say) -> AsyncIterator[Frame]:
            for number in range(100):
                self.made += 1
                yield Other(f"{frame.what}{number}")

    talker, full = Talker(), Full()
    async with Rig(Controller(), talker, full) as rig:
        await rig.send(Hear("new a"))
        assert full.buffer == ["a0", "a1"]
        assert talker.made == 3, "it stands at its next yield, with one frame in its warm_task"
        await rig.send(Hear("cut"))
        assert full.buffer == []
        await rig.send(Hear("new b"))
        assert full.buffer == ["b0", "b1"]


async def test_frames_in_a_stream_are_dropped() -> None:
    class Reader(FrameProcessor):
        def __init__(self) -> None:
            self.read: list[str] = []

        @streams(Say)
        async def listen(self, frames: Stream[Say]) -> AsyncIterator[Frame]:
            async for frame in frames:
                self.read.append(frame.what)
                await self.clock.sleep(1)
                yield Other(frame.what)

    reader, seen = Reader(), Seen()
    async with Rig(Controller(), reader, seen) as rig:
        await rig.send(Hear("new"))
        await rig.advance(0.5)
        await rig.send(Hear("cut"), Hear("new d"))
        await rig.advance(10)
    assert reader.read == ["a", "d"]
    assert seen.said == ["a", "b", "c", "CancelFrame", "d", "d"], "what was read of a cut response makes nothing more"


async def test_frames_of_an_old_response_that_come_late_are_refused() -> None:
    seen = Seen()
    async with Rig(Controller(), seen) as rig:
        await rig.send(Hear("new"))
        await rig.send(Hear("cut"))
        await rig.send(Say("late"), response=1)
        await rig.send(Hear("new d"))
        await rig.send(Say("later"), response=1)
        await rig.send(Say("in time"), response=2)
        assert rig.worker.refused == 2
    assert seen.said == ["a", "b", "c", "CancelFrame", "d", "in time"]


async def test_a_job_that_ignores_its_cancellation_gets_nothing_through() -> None:
    class Stubborn(FrameProcessor):
        @handles(Say)
        async def speak(self, frame: Say) -> AsyncIterator[Frame]:
            try:
                await self.clock.sleep(10)
            except asyncio.CancelledError:
                yield Other("too late")
            await self.push(Other("upstream, too late"), UPSTREAM)

    seen = Seen()
    head = Seen("head")
    async with Rig(head, Controller(), Stubborn(), seen) as rig:
        await rig.send(Hear("new a"))
        await rig.send(Hear("cut"))
        await rig.advance(20)
    assert seen.said == ["CancelFrame"]
    assert head.said == ["new a", "cut", "CancelFrame"]
    assert head.upstream == []

"""A burst in one conversation does not starve the others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from voxline.pipeline import Frame, FrameProcessor, handles
from voxline.pipeline.engine.kernel import SLICE_STEPS
from voxline.tests.pipeline.engine.rig import Hear, Other, Rig, Say, Seen, until


async def test_the_kernel_gives_the_event_loop_its_turn_after_each_slice() -> None:
    seen = Seen()
    async with Rig(seen, name="busy") as rig:
        rig.post(*(Say(str(number)) for number in range(2_000)))
        before, turns = 0, 0
        while len(seen.frames) < 2_000:
            await asyncio.sleep(0)
            assert len(seen.frames) - before <= SLICE_STEPS
            before, turns = len(seen.frames), turns + 1
        assert turns >= 2_000 // SLICE_STEPS


async def test_a_burst_in_one_conversation_delays_the_other_by_slices_only() -> None:
    busy, quiet = Seen("busy"), Seen("quiet")
    async with Rig(busy) as one, Rig(quiet) as two:
        one.post(*(Say(str(number)) for number in range(5_000)))
        await asyncio.sleep(0)
        done = len(busy.frames)
        two.post(Hear("x"))
        await until(lambda: bool(quiet.frames))
        assert len(busy.frames) - done <= 3 * SLICE_STEPS


async def test_a_job_that_never_waits_does_not_starve_the_others() -> None:
    class Burst(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            for number in range(5_000):
                yield Other(str(number))

    busy, quiet = Seen("busy"), Seen("quiet")
    async with Rig(Burst(), busy) as one, Rig(quiet) as two:
        one.post(Say("go"))
        for _ in range(3):
            await asyncio.sleep(0)
        done = len(busy.frames)
        two.post(Hear("x"))
        await until(lambda: bool(quiet.frames))
        assert len(busy.frames) - done <= 3 * SLICE_STEPS
        await one.settle()
        assert len(busy.frames) == 5_000


async def test_a_long_queue_behind_a_job_is_let_go_with_turns_in_between_or_in_bounds() -> None:
    """What waits behind a job is bounded, so that letting it go is too."""

    class Slow(FrameProcessor):
        queue_frames = 256

        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            yield frame

    head, seen = Seen("head"), Seen()
    async with Rig(head, Slow(), seen) as rig:
        await rig.send(Say("x"), *(Other(str(number)) for number in range(256)))
        assert head.errors == []
        await rig.advance(1.1)
        assert len(seen.frames) == 257

"""Errors stay where they happen, say what and where, and the conversation goes on."""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator

import pytest
from voxline.pipeline import (
    UPSTREAM,
    ErrorFrame,
    ErrorPolicy,
    Frame,
    FrameProcessor,
    Pipeline,
    PipelineWorker,
    ProcessorError,
    SystemClock,
    VirtualClock,
    handles,
    source,
)
from voxline.pipeline.processor import Hop
from voxline.tests.pipeline.engine.rig import Hear, Keep, On, Other, Rig, Say, Seen


class Fails(FrameProcessor):
    """Raises for "bad", lets everything else through."""

    @handles(Say)
    async def take(self, frame: Say) -> None:
        await self.push(Other("before " + frame.what))
        if frame.what == "bad":
            raise ValueError("it is bad")
        await self.push(frame)


async def test_a_handler_that_raises_becomes_an_error_frame_upstream() -> None:
    head, between, seen = Seen("head"), Seen("between"), Seen()
    async with Rig(head, between, Fails(), seen) as rig:
        await rig.send(Say("good"), Say("bad"), Say("good again"))
    error = ErrorFrame("it is bad", "Fails", "Say", "ValueError")
    assert head.upstream == [error]
    assert between.upstream == [error]
    assert seen.said == ["before good", "good", "before bad", "before good again", "good again"]


async def test_the_path_names_the_place_also_in_nested_and_parallel_pipelines() -> None:
    from voxline.pipeline import ParallelPipeline

    head = Seen("head")
    nested = Pipeline([Fails(), Pipeline([Fails()], name="inner")], name="outer")
    async with Rig(head, nested, ParallelPipeline([Fails()], [Fails()], name="fork")) as rig:
        paths = [node.path for node in rig.worker._nodes()]
        assert paths == ["head", "outer/Fails", "outer/inner/Fails", "fork.1/Fails", "fork.2/Fails"]
        await rig.send(Say("bad"))
        assert [error.processor for error in head.errors] == ["outer/Fails"]


async def test_an_error_handler_that_raises_does_not_loop() -> None:
    class BadHandler(FrameProcessor):
        @handles(ErrorFrame, direction=UPSTREAM)
        async def on_error(self, frame: ErrorFrame) -> None:
            raise RuntimeError(f"and again: {frame.error}")

    head = Seen("head")
    async with Rig(head, BadHandler(), BadHandler(), Fails()) as rig:
        await rig.send(Say("bad"))
    assert [error.message for error in head.errors] == ["and again: RuntimeError"]


async def test_an_error_comes_before_what_else_is_queued() -> None:
    head = Seen("head")
    async with Rig(head, Fails(), Seen()) as rig:
        rig.post(Say("bad"), *(Hear(str(number)) for number in range(50)))
        await rig.settle()
    assert len(head.errors) == 1


async def test_so_many_errors_in_a_row_end_the_worker_and_say_who() -> None:
    seen = Seen()
    async with Rig(Fails(), seen, errors=ErrorPolicy(max_in_a_row=3)) as rig:
        await rig.send(*(Say("bad") for _ in range(4)), Say("never"))
        outcome = await rig.ended()
    assert outcome.reason == "failed"
    assert outcome.errors == ("Fails failed 4 times in a row.",)
    assert "never" not in seen.said


async def test_a_success_in_between_breaks_the_row() -> None:
    seen = Seen()
    async with Rig(Fails(), seen, errors=ErrorPolicy(max_in_a_row=3)) as rig:
        for _ in range(5):
            await rig.send(Say("bad"), Say("bad"), Say("good"))
        assert not rig.run.done()


async def test_a_success_of_a_job_breaks_the_row() -> None:
    class Job(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            if frame.what == "bad":
                raise ValueError("bad")
            yield Other(frame.what)

    async with Rig(Job(), Seen(), errors=ErrorPolicy(max_in_a_row=2)) as rig:
        for _ in range(5):
            await rig.send(Say("bad"), Say("bad"), Say("good"))
        assert not rig.run.done()
        await rig.send(Say("bad"), Say("bad"), Say("bad"))
        assert (await rig.ended()).reason == "failed"


async def test_a_source_that_fails_is_named_in_the_outcome() -> None:
    class Mic(FrameProcessor):
        @source
        async def listen(self) -> AsyncIterator[Frame]:
            yield Hear("a")
            raise OSError("unplugged")

    head = Seen("head")
    async with Rig(head, Mic(), Seen()) as rig:
        outcome = await rig.ended()
    assert [error.error for error in head.errors] == ["OSError"]
    assert outcome.reason in ("ended", "failed")


# --- handlers that wait ----------------------------------------------------------------------------------------------


class Waits(FrameProcessor):
    """Waits ``ms`` of the clock."""

    def __init__(self, ms: float) -> None:
        self.ms = ms

    @handles(Say)
    async def wait(self, frame: Say) -> None:
        await self.push(Other("before"))
        await self.clock.sleep(self.ms / 1000)
        await self.push(frame)


async def test_a_handler_that_waits_briefly_is_fine(caplog: pytest.LogCaptureFixture) -> None:
    head, seen = Seen("head"), Seen()
    async with Rig(head, Waits(20), seen) as rig:
        await rig.send(Say("a"), Say("b"))
        await rig.advance(1)
    assert seen.said == ["before", "a", "before", "b"]
    assert head.errors == []
    assert caplog.records == []


async def test_a_handler_that_waits_longer_is_reported_by_name(caplog: pytest.LogCaptureFixture) -> None:
    seen = Seen()
    async with Rig(Waits(100), seen) as rig:
        await rig.send(Say("a"))
        await rig.advance(1)
    assert seen.said == ["before", "a"]
    [record] = caplog.records
    assert record.levelno == logging.WARNING
    assert "Waits has been handling Say for 50 ms" in record.message
    assert "yield" in record.message


async def test_a_handler_at_its_deadline_is_cancelled_and_what_it_pushed_before_is_delivered() -> None:
    head, seen = Seen("head"), Seen()
    async with Rig(head, Waits(5_000), seen) as rig:
        rig.post(Say("a"), Other("next"))
        await rig.advance(1.5)
        assert seen.said == ["before", "next"]
        assert rig.run.cancelling() == 0
    [error] = head.errors
    assert error.error == "HandlerTimeout"
    assert "Waits has been handling Say for 1000 ms, its deadline" in error.message
    assert "yield" in error.message


async def test_the_deadline_is_for_the_handler_and_not_for_each_of_its_waits() -> None:
    class Sips(FrameProcessor):
        @handles(Say)
        async def wait(self, frame: Say) -> None:
            for _ in range(1_000):
                await self.clock.sleep(0.01)

    head, seen = Seen("head"), Seen()
    async with Rig(head, Sips(), seen) as rig:
        rig.post(Say("a"), Other("next"))
        await rig.advance(1.5)
        assert seen.said == ["next"]
    assert [error.error for error in head.errors] == ["HandlerTimeout"]


@pytest.mark.parametrize("how", ["return", "raise", "wait"])
async def test_a_handler_that_catches_its_cancellation_harms_only_itself(how: str) -> None:
    class Catches(FrameProcessor):
        @handles(Say)
        async def wait(self, frame: Say) -> None:
            try:
                await self.clock.sleep(5)
            except asyncio.CancelledError:
                if how == "raise":
                    raise ValueError("instead") from None
                if how == "wait":
                    await self.clock.sleep(5)

    class Innocent(FrameProcessor):
        @handles(Other)
        async def wait(self, frame: Other) -> None:
            await self.clock.sleep(0.01)
            await self.push(frame)

    head, seen = Seen("head"), Seen()
    async with Rig(head, Catches(), Innocent(), seen) as rig:
        rig.post(Say("a"), Other("1"), Other("2"))
        await rig.advance(3)
        assert seen.said == ["1", "2"]
        assert rig.run.cancelling() == 0
    assert [(error.processor, error.error) for error in head.errors] == [
        ("Catches", "ValueError" if how == "raise" else "HandlerTimeout")
    ]


async def test_a_handler_that_refuses_even_to_be_closed_is_left_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class Refuses(FrameProcessor):
        done = False

        @handles(Say)
        async def wait(self, frame: Say) -> None:
            while not self.done:
                try:
                    await self.clock.sleep(5)
                except BaseException:
                    continue

    refuses, head, seen = Refuses(), Seen("head"), Seen()
    async with Rig(head, refuses, seen) as rig:
        rig.post(Say("a"), Other("next"))
        await rig.advance(3)
        assert seen.said == ["next"]
        refuses.done = True
    assert [error.error for error in head.errors] == ["HandlerTimeout"]
    assert "refuses to end" in caplog.text


async def test_timeouts_inside_of_a_handler_work() -> None:
    class Impatient(FrameProcessor):
        @handles(Say)
        async def wait(self, frame: Say) -> None:
            try:
                async with asyncio.timeout(0.001):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                await self.push(Other("gave up"))
            try:
                async with asyncio.timeout(0):
                    await asyncio.get_running_loop().create_future()
            except TimeoutError:
                await self.push(frame)

    seen = Seen()
    async with Rig(Impatient(), seen) as rig:
        await rig.send(Say("a"), Say("b"))
        assert rig.run.cancelling() == 0
    assert seen.said == ["gave up", "a", "gave up", "b"]


@pytest.mark.parametrize("already", [True, False])
async def test_a_handler_whose_future_somebody_else_cancels_has_failed_and_nothing_else(already: bool) -> None:
    class Asks(FrameProcessor):
        @handles(Say)
        async def ask(self, frame: Say) -> None:
            await self.push(Other("before"))
            future = asyncio.get_running_loop().create_future()
            if already:
                future.cancel()
            else:
                asyncio.get_running_loop().call_soon(future.cancel)
            await future

    head, seen = Seen("head"), Seen()
    async with Rig(head, Asks(), seen) as rig:
        rig.post(Say("a"), Keep("next"))
        await rig.settle()
        await rig.send(Keep("and on"))
        assert not rig.run.done()
    assert [(error.processor, error.error) for error in head.errors] == [("Asks", "CancelledError")]
    assert seen.said == ["before", "next", "and on"]


async def test_a_handler_that_swallows_the_cancelling_of_the_whole_task_does_not_keep_it_alive() -> None:
    class Swallows(FrameProcessor):
        @handles(Say)
        async def wait(self, frame: Say) -> None:
            with contextlib.suppress(asyncio.CancelledError):
                await self.clock.sleep(0.5)

    async with Rig(Swallows(), Seen()) as rig:
        rig.post(Say("a"), Say("b"))
        for _ in range(5):
            await asyncio.sleep(0)
        rig.run.cancel()
        for _ in range(10):
            await asyncio.sleep(0)
        assert rig.run.done()
        assert rig.run.cancelled()
        rig._run = asyncio.create_task(rig.worker.finished())


async def test_everything_waits_while_a_handler_does_and_nothing_is_lost() -> None:
    seen = Seen()
    async with Rig(Waits(30), seen, clock=SystemClock()) as rig:
        rig.post(Say("a"), Hear("x"), Say("b"))
        await asyncio.sleep(0.2)
        rig.post(Hear("y"))
        await rig.settle()
    assert seen.said == ["x", "before", "a", "before", "b", "y"]


async def test_what_is_posted_while_a_handler_waits_belongs_to_nobody() -> None:
    """A callback posts while a handler of response 1 waits: that is not the handler's."""

    class Waiter(FrameProcessor):
        @handles(Say)
        async def wait(self, frame: Say) -> None:
            await self.clock.sleep(0.01)
            await self.push(Other(f"of {self.response}"))

        @handles(Hear)
        async def hear(self, frame: Hear) -> None:
            await self.push(Keep(f"{frame.what} of {self.response}"))

    async def talk(self: FrameProcessor, frame: Hear) -> None:
        await self.push(Say("a"), response=self.new_response())

    waiter, seen = Waiter(), Seen()
    async with Rig(On(talk), waiter, seen) as rig:
        rig.post(Hear("go"))
        for _ in range(5):
            await asyncio.sleep(0)
        waiter.post(Hear("fact"))
        await rig.advance(1)
    assert seen.said == ["of 1", "fact of 0"]


# --- pushes from where none belongs ----------------------------------------------------------------------------------


async def test_a_push_from_a_callback_is_an_entry_of_the_inbox() -> None:
    class Calls(FrameProcessor):
        @handles(Hear)
        async def hear(self, frame: Hear) -> None:
            asyncio.get_running_loop().call_soon(lambda: self.push(Say("from a callback")))
            await self.push(Say("from the handler"))

    seen = Seen()
    async with Rig(Calls(), seen) as rig:
        await rig.send(Hear("x"))
        for _ in range(3):
            await asyncio.sleep(0)
        await rig.settle()
    assert seen.said == ["from the handler", "from a callback"]


async def test_a_thread_posts_threadsafe() -> None:
    class Device(FrameProcessor):
        @handles(Hear)
        async def hear(self, frame: Hear) -> None:
            await self.push(Say(frame.what))

    device, seen = Device(), Seen()
    async with Rig(device, seen, clock=SystemClock()) as rig:

        def work() -> None:
            for number in range(100):
                device.post_threadsafe(Hear(str(number)))

        await asyncio.get_running_loop().run_in_executor(None, work)
        await rig.settle()
        assert seen.said == [str(number) for number in range(100)]


async def test_a_push_from_another_thread_is_an_error_that_names_post_threadsafe() -> None:
    class Device(FrameProcessor):
        pass

    device, seen = Device(), Seen()
    async with Rig(device, seen, clock=SystemClock()) as rig:
        for call in (device.push, device.post):
            with pytest.raises(ProcessorError, match="post_threadsafe"):
                await asyncio.get_running_loop().run_in_executor(None, call, Say("x"))
        await rig.settle()
    assert seen.frames == []


# --- taps that raise -------------------------------------------------------------------------------------------------


async def test_nothing_said_is_logged_above_debug(caplog: pytest.LogCaptureFixture) -> None:
    class Leaks(FrameProcessor):
        @handles(Say)
        async def take(self, frame: Say) -> None:
            raise ValueError(f"cannot say {frame.what}")

        @handles(Other)
        async def work(self, frame: Other) -> AsyncIterator[Frame]:
            raise ValueError(f"cannot do {frame.what}")
            yield frame

    with caplog.at_level(logging.INFO, logger="voxline"):
        async with Rig(Leaks()) as rig:
            await rig.send(Say("my secret"), Other("my secret"))
    assert caplog.records
    assert "secret" not in caplog.text


async def test_a_run_that_breaks_from_inside_says_failed() -> None:
    from voxline.pipeline import Tap

    class Broken(Tap):
        def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
            raise ValueError("a broken tap")

    seen = Seen()
    worker = PipelineWorker(Pipeline([seen]), clock=VirtualClock())
    worker.add_tap(Broken())
    worker.post(Say("x"))
    run = asyncio.create_task(worker.run())
    async with asyncio.timeout(30):
        await asyncio.wait([run])
        outcome = await worker.finished()
    assert isinstance(run.exception(), ValueError)
    assert outcome.reason == "failed"

"""Starting, draining and ending: both ways out always return, and name who was in the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from voxline.pipeline import (
    UPSTREAM,
    Frame,
    FrameProcessor,
    LifecycleError,
    Outcome,
    Pipeline,
    PipelineWorker,
    SystemClock,
    VirtualClock,
    handles,
    source,
)
from voxline.tests.pipeline.engine.rig import (
    Hear,
    Hooks,
    Keep,
    NeverIdle,
    On,
    Other,
    Rig,
    Say,
    Seen,
    StuckHandler,
    StuckJob,
)

# --- starting --------------------------------------------------------------------------------------------------------


async def test_all_processors_start_at_once_before_the_first_frame_flows_and_stop_at_once() -> None:
    log: list[str] = []

    class First(FrameProcessor):
        @source
        async def speak(self) -> AsyncIterator[Frame]:
            log.append("source")
            yield Hear("x")

    async with Rig(First(), Hooks(log, "a", 1, 1), Hooks(log, "b", 2, 1)) as rig:
        await rig.advance(1.5)
        assert log == ["a starting", "b starting", "a started"]
        await rig.advance(1)
        assert log[3:5] == ["b started", "source"]
        rig.worker.cancel()
        began = rig.clock.now_ns()
        await rig.advance(1)
        assert rig.run.done()
        assert rig.clock.now_ns() - began == 1_000_000_000
    assert log[5:] == ["a stopping", "b stopping", "a stopped", "b stopped"]


async def test_what_a_start_hook_pushes_is_delivered_when_all_have_started() -> None:
    class Early(FrameProcessor):
        async def start(self) -> None:
            await self.push(Say("early"))
            await self.push(Hear("up"), UPSTREAM)
            self.post(Hear("to itself"))

        @handles(Hear)
        async def own(self, frame: Hear) -> None:
            await self.push(Keep(frame.what))

    log: list[str] = []
    head, seen = Seen("head"), Seen()
    async with Rig(head, Early(), Hooks(log, "slow", start_s=3), seen) as rig:
        assert seen.frames == []
        await rig.advance(4)
        assert sorted(seen.said) == ["early", "to itself"]
        assert head.upstream == [Hear("up")]


async def test_a_start_that_fails_is_named_and_everybody_is_stopped() -> None:
    class Fails(FrameProcessor):
        async def start(self) -> None:
            raise ValueError("no key")

    log: list[str] = []
    clock = VirtualClock()
    worker = PipelineWorker(Pipeline([Hooks(log, "a"), Fails()]), clock=clock)
    with pytest.raises(LifecycleError, match=r"Fails.start\(\) failed: ValueError: no key") as caught:
        await worker.run()
    assert isinstance(caught.value.__cause__, ValueError)
    assert log[-1] == "a stopped"
    outcome = await worker.finished()
    assert outcome.reason == "failed"


async def test_a_start_that_hangs_is_given_up_at_its_deadline() -> None:
    class Hangs(FrameProcessor):
        start_timeout_ms = 300

        async def start(self) -> None:
            await self.clock.sleep(1_000)

    clock = VirtualClock()
    worker = PipelineWorker(Pipeline([Hangs()]), clock=clock)
    with pytest.raises(LifecycleError, match=r"Hangs.start\(\) did not return within 300 ms"):
        await worker.run()
    assert clock.now_ns() == 300_000_000


async def test_a_start_whose_future_somebody_cancels_has_failed() -> None:
    class Lost(FrameProcessor):
        async def start(self) -> None:
            future = asyncio.get_running_loop().create_future()
            asyncio.get_running_loop().call_soon(future.cancel)
            await future

    worker = PipelineWorker(Pipeline([Lost()]), clock=VirtualClock())
    with pytest.raises(LifecycleError, match=r"Lost.start\(\)"):
        await worker.run()


class Deaf(FrameProcessor):
    """Ignores being cancelled, in the hook that is named."""

    start_timeout_ms = stop_timeout_ms = 200

    def __init__(self, hook: str) -> None:
        self.hook = hook
        self.done = False

    async def _hang(self) -> None:
        while not self.done:
            try:
                await self.clock.sleep(100)
            except asyncio.CancelledError:
                continue

    async def start(self) -> None:
        if self.hook == "start":
            await self._hang()

    async def stop(self) -> None:
        if self.hook == "stop":
            await self._hang()


async def test_a_start_that_ignores_its_cancellation_is_left_behind_and_named() -> None:
    deaf = Deaf("start")
    worker = PipelineWorker(Pipeline([deaf]), clock=VirtualClock())
    async with asyncio.timeout(30):
        with pytest.raises(LifecycleError, match=r"Deaf.start\(\)"):
            await worker.run()
    deaf.done = True
    await asyncio.sleep(0)


async def test_a_stop_that_ignores_its_cancellation_is_left_behind_and_named() -> None:
    deaf = Deaf("stop")
    async with Rig(deaf, Seen()) as rig:
        rig.worker.cancel()
        outcome = await rig.ended()
        assert any("Deaf.stop() did not return within 200 ms" in error for error in outcome.errors)
        deaf.done = True
        for _ in range(3):
            await rig.advance(200)


async def test_a_stop_that_raises_or_hangs_is_named_and_keeps_nobody_else_from_stopping() -> None:
    class Raises(FrameProcessor):
        async def stop(self) -> None:
            raise ValueError("broken pipe")

    class Hangs(FrameProcessor):
        stop_timeout_ms = 100

        async def stop(self) -> None:
            await self.clock.sleep(1_000)

    log: list[str] = []
    async with Rig(Raises(), Hangs(), Hooks(log, "a")) as rig:
        rig.worker.cancel()
        outcome = await rig.ended()
    assert outcome.reason == "cancelled"
    assert any("Raises.stop() failed: ValueError: broken pipe" in error for error in outcome.errors)
    assert any("Hangs.stop() did not return within 100 ms" in error for error in outcome.errors)
    assert log[-1] == "a stopped"


# --- a stuck processor and stop() ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("stuck", "named"),
    [(StuckJob(), r"StuckJob: work(Say), for "), (StuckHandler(), "StuckHandler"), (NeverIdle(), "NeverIdle")],
    ids=["job", "handler", "idle"],
)
async def test_stop_returns_at_its_deadline_and_names_who_was_stuck(stuck: FrameProcessor, named: str) -> None:
    async with Rig(stuck, clock=SystemClock(), handler_timeout_ms=60_000) as rig:
        pass_ = asyncio.get_running_loop().time()
        rig.post(Say("x"))
        await asyncio.sleep(0)
        async with asyncio.timeout(30):
            outcome = await rig.worker.stop(timeout_ms=50)
        assert asyncio.get_running_loop().time() - pass_ >= 0.045
        assert outcome.reason == "stopped"
        assert any(named in error for error in outcome.errors), outcome.errors


async def test_stop_names_the_stuck_under_the_virtual_clock_too() -> None:
    async with Rig(NeverIdle()) as rig:
        stopping = asyncio.create_task(rig.worker.stop(timeout_ms=5_000))
        await rig.advance(4.9)
        assert not stopping.done()
        await rig.advance(0.2)
        outcome = await stopping
    assert outcome == Outcome("stopped", ("NeverIdle still has something to do (idle() is False)",))


async def test_stop_while_a_start_hook_hangs_keeps_its_own_deadline_and_names_it() -> None:
    log: list[str] = []
    async with Rig(Hooks(log, "slow", start_s=9)) as rig:
        stopping = asyncio.create_task(rig.worker.stop(timeout_ms=500))
        await rig.advance(0.6)
        assert stopping.done()
        outcome = await stopping
        assert outcome.reason == "stopped"
        assert any("slow" in error for error in outcome.errors)


async def test_stop_while_the_processors_start_lets_them_start_and_drains() -> None:
    log: list[str] = []
    seen = Seen()
    async with Rig(Hooks(log, "slow", start_s=2), seen) as rig:
        rig.post(Say("early"))
        stopping = asyncio.create_task(rig.worker.stop())
        await rig.advance(3)
        outcome = await stopping
    assert outcome == Outcome("stopped")
    assert seen.frames == [Say("early")]
    assert log == ["slow starting", "slow started", "slow stopping", "slow stopped"]


async def test_an_idle_that_raises_does_not_hang_the_end() -> None:
    class Broken(FrameProcessor):
        def idle(self) -> bool:
            raise ValueError("who knows")

    async with Rig(Broken(), Seen()) as rig:
        stopping = asyncio.create_task(rig.worker.stop(timeout_ms=500))
        await rig.advance(1)
        assert stopping.done()
        outcome = await stopping
        assert any("Broken" in error for error in outcome.errors)
        assert rig.run.exception() is None


async def test_a_conversation_that_never_rests_is_named_at_the_deadline() -> None:
    class Restless(FrameProcessor):
        @handles(Hear)
        async def again(self, frame: Hear) -> None:
            self.post_after(10, frame)

        def idle(self) -> bool:
            return True

    class Spinner(FrameProcessor):
        @handles(Hear)
        async def again(self, frame: Hear) -> None:
            self.post(frame)
            await asyncio.sleep(0)

    async with Rig(Restless()) as rig:
        await rig.send(Hear("x"))
        outcome = await rig.worker.stop(timeout_ms=500)
        assert outcome == Outcome("stopped"), "a timer keeps nobody from ending"
    async with Rig(Spinner(), clock=SystemClock()) as rig:
        rig.post(Hear("x"))
        async with asyncio.timeout(30):
            outcome = await rig.worker.stop(timeout_ms=50)
        assert outcome.reason == "stopped"
        assert outcome.errors, "it has to say why it did not drain"


async def test_stop_while_frames_keep_being_posted_returns() -> None:
    seen = Seen()
    async with Rig(seen, clock=SystemClock()) as rig:
        posted = 0

        def post() -> None:
            nonlocal posted
            posted += 1
            rig.post(Say(str(posted)))
            timer[0] = asyncio.get_running_loop().call_soon(post)

        timer = [asyncio.get_running_loop().call_soon(post)]
        await asyncio.sleep(0.01)
        async with asyncio.timeout(30):
            outcome = await rig.worker.stop(timeout_ms=100)
        timer[0].cancel()
        assert outcome.reason == "stopped"
        assert posted > 1


async def test_posting_after_the_end_is_ignored_and_kept_nowhere() -> None:
    seen = Seen()
    async with Rig(seen) as rig:
        await rig.worker.stop()
        for number in range(20_000):
            rig.post(Say(str(number)))
        rig.worker.interrupt()
    assert seen.frames == []


# --- draining --------------------------------------------------------------------------------------------------------


async def test_stop_delivers_what_is_queued_and_lets_jobs_finish_and_playout_end() -> None:
    class Job(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            yield Other(frame.what)

    class Plays(FrameProcessor):
        def __init__(self) -> None:
            self.playing = 0
            self.played: list[str] = []

        @handles(Other)
        async def play(self, frame: Other) -> None:
            self.playing += 1
            self.post_after(700, Hear(frame.what))

        @handles(Hear)
        async def at_end(self, frame: Hear) -> None:
            self.playing -= 1
            self.played.append(frame.what)

        def idle(self) -> bool:
            return self.playing == 0

    plays = Plays()
    async with Rig(Job(), plays) as rig:
        rig.post(Say("a"), Say("b"))
        stopping = asyncio.create_task(rig.worker.stop())
        await rig.advance(10)
        outcome = await stopping
    assert plays.played == ["a", "b"]
    assert outcome == Outcome("stopped")


async def test_stop_closes_sources_first() -> None:
    class Mic(FrameProcessor):
        closed = False

        @source
        async def listen(self) -> AsyncIterator[Frame]:
            try:
                while True:
                    await self.clock.sleep(0.02)
                    yield Hear("x")
            finally:
                self.closed = True

    mic, seen = Mic(), Seen()
    async with Rig(mic, seen) as rig:
        await rig.advance(0.1)
        outcome = await rig.worker.stop()
    assert mic.closed
    assert outcome == Outcome("stopped")


async def test_a_processor_may_ask_for_the_end() -> None:
    async def bye(self: FrameProcessor, frame: Hear) -> None:
        await self.push(Say("bye"))
        self.end("said goodbye")
        await self.push(Say("bye again"))

    seen = Seen()
    async with Rig(On(bye), seen) as rig:
        await rig.send(Hear("bye"))
        outcome = await rig.ended()
    assert outcome == Outcome("ended")
    assert seen.said == ["bye", "bye again"]


async def test_stop_twice_and_from_two_tasks_gives_the_same_outcome() -> None:
    async with Rig(NeverIdle()) as rig:
        one = asyncio.create_task(rig.worker.stop(timeout_ms=60_000))
        await rig.settle()
        two = asyncio.create_task(rig.worker.stop(timeout_ms=500))
        await rig.advance(1)
        assert one.done(), "the sooner deadline counts"
        assert two.done()
        assert await one is await two
        assert await rig.worker.stop() is await one


async def test_a_deadline_given_while_a_processor_already_asked_for_the_end_counts() -> None:
    async def bye(self: FrameProcessor, frame: Hear) -> None:
        self.end()

    async with Rig(On(bye), NeverIdle()) as rig:
        await rig.send(Hear("bye"))
        stopping = asyncio.create_task(rig.worker.stop(timeout_ms=500))
        await rig.advance(1)
        assert stopping.done()
        assert (await stopping).errors


class Plays(FrameProcessor):
    """Plays for ever, a tick every 20 ms."""

    @handles(Hear)
    async def tick(self, frame: Hear) -> None:
        self.post_after(20, frame)
        if frame.what == "bye":
            self.end()

    def idle(self) -> bool:
        return False


async def test_an_end_that_nobody_asked_for_has_time_as_long_as_something_happens() -> None:
    async with Rig(Plays(), drain_timeout_ms=1_000) as rig:
        await rig.send(Hear("bye"))
        await rig.advance(100)
        assert not rig.run.done()


@pytest.mark.parametrize("timeout_ms", [500, None])
async def test_a_stop_has_its_deadline_also_where_the_end_had_begun_by_itself(timeout_ms: float | None) -> None:
    async with Rig(Plays(), drain_timeout_ms=1_000) as rig:
        await rig.send(Hear("bye"))
        await rig.advance(10)
        stopping = asyncio.create_task(rig.worker.stop(timeout_ms))
        await rig.advance(1.1)
        assert stopping.done()
        assert (await stopping).errors == ("Plays still has something to do (idle() is False)",)


async def test_an_end_that_nobody_asked_for_does_not_wait_for_what_hangs() -> None:
    async with Rig(Plays(), StuckHandler(), NeverIdle(), drain_timeout_ms=1_000) as rig:
        await rig.send(Say("x"))
    async with Rig(NeverIdle(), drain_timeout_ms=1_000) as rig:
        rig.worker._on_end("at once")
        await rig.advance(3)
        assert rig.run.done()
        assert rig.run.result().errors == ("NeverIdle still has something to do (idle() is False)",)

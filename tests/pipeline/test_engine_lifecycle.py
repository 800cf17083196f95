"""Starting, draining and ending: both ways out always return, and name who was in the way."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest

from voxline.pipeline import (
    UPSTREAM,
    Frame,
    FrameProcessor,
    LifecycleError,
    Outcome,
    Pipeline,
    PipelineError,
    PipelineWorker,
    ProcessorError,
    SystemClock,
    VirtualClock,
    handles,
    source,
)
from voxline.tests.pipeline.rig import Hear, Keep, On, Other, Rig, Say, Seen, until


class Hooks(FrameProcessor):
    """Writes down that it was started and stopped, and takes its time for both."""

    def __init__(self, log: list[str], name: str = "hooks", start_s: float = 0, stop_s: float = 0) -> None:
        self.name = name
        self.log = log
        self.start_s, self.stop_s = start_s, stop_s

    async def start(self) -> None:
        self.log.append(f"{self.name} starting")
        await self.clock.sleep(self.start_s)
        self.log.append(f"{self.name} started")

    async def stop(self) -> None:
        self.log.append(f"{self.name} stopping")
        await self.clock.sleep(self.stop_s)
        self.log.append(f"{self.name} stopped")


class StuckJob(FrameProcessor):
    @handles(Say)
    async def work(self, frame: Say) -> AsyncIterator[Frame]:
        await asyncio.get_running_loop().create_future()
        yield frame


class NeverIdle(FrameProcessor):
    def idle(self) -> bool:
        return False


class StuckHandler(FrameProcessor):
    @handles(Say)
    async def wait(self, frame: Say) -> None:
        await self.clock.sleep(1_000)


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
    async with asyncio.timeout(5):
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
        async with asyncio.timeout(3):
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
        async with asyncio.timeout(3):
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
        async with asyncio.timeout(3):
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
        async def end(self, frame: Hear) -> None:
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


# --- cancelling ------------------------------------------------------------------------------------------------------


async def test_cancel_drops_what_is_queued_and_closes_jobs() -> None:
    closed: list[str] = []

    class Job(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            try:
                await self.clock.sleep(10)
                yield frame
            finally:
                closed.append(frame.what)

    seen = Seen()
    async with Rig(Job(), seen) as rig:
        await rig.send(Say("a"))
        rig.post(*(Keep(str(number)) for number in range(50)))
        rig.worker.cancel()
        outcome = await rig.ended()
    assert outcome == Outcome("cancelled")
    assert closed == ["a"]
    assert seen.frames == []


async def test_cancel_from_within_a_handler_ends_with_that_step() -> None:
    rigs: list[Rig] = []

    async def stop(self: FrameProcessor, frame: Hear) -> None:
        rigs[0].worker.cancel()

    seen = Seen()
    async with Rig(seen, On(stop)) as rig:
        rigs.append(rig)
        rig.post(Hear("stop"), *(Say(str(number)) for number in range(10)))
        await rig.ended()
    assert seen.said == ["stop"]


async def test_cancel_during_start() -> None:
    log: list[str] = []
    async with Rig(Hooks(log, "slow", start_s=9)) as rig:
        rig.worker.cancel()
        await rig.advance(0.1)
        assert rig.run.done()
        assert rig.run.result() == Outcome("cancelled")
    assert log == ["slow starting", "slow stopping", "slow stopped"]


async def test_cancel_during_stop() -> None:
    async with Rig(NeverIdle()) as rig:
        stopping = asyncio.create_task(rig.worker.stop())
        await rig.advance(1)
        rig.worker.cancel()
        await rig.settle()
        assert stopping.done()
        assert (await stopping).reason == "cancelled"


async def test_cancel_twice_and_stop_after_cancel_keep_the_reason() -> None:
    log: list[str] = []
    async with Rig(Hooks(log, "slow", stop_s=1)) as rig:
        rig.worker.cancel()
        rig.worker.cancel()
        await rig.settle()
        stopping = asyncio.create_task(rig.worker.stop())
        await rig.settle()
        rig.worker.cancel()
        await rig.advance(2)
        assert await stopping == Outcome("cancelled")
    assert log.count("slow stopping") == 1


async def test_cancel_while_a_handler_waits_cancels_the_handler() -> None:
    async with Rig(StuckHandler(), Seen()) as rig:
        rig.post(Say("x"))
        for _ in range(5):
            await asyncio.sleep(0)
        rig.worker.cancel()
        await rig.settle()
        assert rig.run.done()
        assert rig.run.cancelling() == 0
        assert rig.run.result() == Outcome("cancelled")


async def test_cancel_while_a_handler_ignores_being_cancelled_returns() -> None:
    class DeafHandler(FrameProcessor):
        @handles(Say)
        async def wait(self, frame: Say) -> None:
            while True:
                try:
                    await self.clock.sleep(5)
                except asyncio.CancelledError:
                    continue

    async with Rig(DeafHandler(), Seen()) as rig:
        rig.post(Say("x"))
        for _ in range(5):
            await asyncio.sleep(0)
        rig.worker.cancel()
        await rig.advance(3)
        assert rig.run.done()


async def test_a_job_that_ignores_being_cancelled_is_named_in_the_outcome() -> None:
    class DeafJob(FrameProcessor):
        done = False

        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            while not self.done:
                try:
                    await self.clock.sleep(5)
                except asyncio.CancelledError:
                    continue
            yield frame

    deaf = DeafJob()
    async with Rig(deaf, Seen()) as rig:
        await rig.send(Say("x"))
        rig.worker.cancel()
        outcome = await rig.ended()
        assert any("DeafJob" in error for error in outcome.errors), outcome
        deaf.done = True
        await rig.advance(10)


# --- the task of run() is cancelled from outside ---------------------------------------------------------------------


async def test_cancelling_the_task_of_run_stops_the_processors_and_is_passed_on() -> None:
    log: list[str] = []
    async with Rig(Hooks(log, "a"), StuckJob(), Seen()) as rig:
        await rig.send(Hear("x"))
        rig.run.cancel()
        await rig.settle()
        assert rig.run.cancelled()
        assert log[-1] == "a stopped"
        assert (await rig.worker.finished()).reason == "cancelled"
        rig._run = asyncio.create_task(rig.worker.finished())


@pytest.mark.parametrize("turns", range(12))
async def test_cancelling_the_task_of_run_at_any_moment_leaves_nothing_behind(turns: int) -> None:
    log: list[str] = []

    class Job(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            await asyncio.sleep(0)
            yield Other(frame.what)

    before = asyncio.all_tasks()
    processors = [Hooks(log, "a"), Job(), Seen()]
    worker = PipelineWorker(Pipeline(processors), clock=VirtualClock())
    worker.post(Say("x"))
    run = asyncio.create_task(worker.run())
    for _ in range(turns):
        await asyncio.sleep(0)
    run.cancel()
    async with asyncio.timeout(3):
        await asyncio.wait([run])
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    assert all(repr(processor) in ("<a>", "<Job>", "<seen>") for processor in processors)
    assert turns < 2 or log[-1] == "a stopped"


async def test_cancelling_the_task_of_run_again_while_it_stops_gives_the_processors_back() -> None:
    log: list[str] = []
    hooks, seen = Hooks(log, "slow", stop_s=50), Seen()
    before = asyncio.all_tasks()
    clock = VirtualClock(autojump=False)
    worker = PipelineWorker(Pipeline([hooks, seen]), clock=clock)
    run = asyncio.create_task(worker.run())
    await clock.settle()
    waiting = asyncio.create_task(worker.finished())
    run.cancel()
    await until(lambda: "slow stopping" in log)
    run.cancel()
    async with asyncio.timeout(3):
        await asyncio.wait([run, waiting])
    assert run.cancelled()
    assert waiting.result().reason == "cancelled"
    for _ in range(5):
        await asyncio.sleep(0)
    assert asyncio.all_tasks() == before
    async with Rig(seen) as rig:
        await rig.send(Say("again"))
    assert seen.said == ["again"]


# --- once, twice, and again ------------------------------------------------------------------------------------------


async def test_a_worker_runs_once() -> None:
    async with Rig(Seen()) as rig:
        with pytest.raises(PipelineError, match="make another PipelineWorker"):
            await rig.worker.run()
        await rig.worker.stop()
        with pytest.raises(PipelineError, match="runs once"):
            await rig.worker.run()


async def test_a_processor_in_two_running_workers_is_an_error_and_harms_neither() -> None:
    shared, fresh = Seen("shared"), Seen("fresh")
    async with Rig(shared) as rig:
        other = PipelineWorker(Pipeline([fresh, shared]), clock=VirtualClock())
        with pytest.raises(ProcessorError, match=r"shared belongs to another pipeline.*make a second Seen"):
            await other.run()
        await rig.send(Say("still here"))
        assert shared.said == ["still here"]
        async with Rig(fresh) as second:
            await second.send(Say("free again"))
    assert fresh.said == ["free again"]


async def test_processors_run_again_in_another_worker_when_the_first_has_ended() -> None:
    seen, job = Seen(), StuckJob()
    for word in ("one", "two", "three"):
        async with Rig(job, seen) as rig:
            await rig.send(Other(word))
    assert seen.said == ["one", "two", "three"]


async def test_stop_before_run_means_that_nothing_is_started() -> None:
    log: list[str] = []
    worker = PipelineWorker(Pipeline([Hooks(log)]), clock=VirtualClock())
    assert await worker.stop() == Outcome("stopped")
    assert await worker.run() == Outcome("stopped")
    assert "hooks started" not in log


async def test_cancel_before_run_means_that_nothing_is_started() -> None:
    log: list[str] = []
    worker = PipelineWorker(Pipeline([Hooks(log)]), clock=VirtualClock())
    worker.cancel()
    assert await worker.run() == Outcome("cancelled")
    assert "hooks started" not in log


async def test_outside_of_a_run_a_processor_says_that_it_does_not_run() -> None:
    class Asks(FrameProcessor):
        pass

    processor = Asks()
    for call in (
        lambda: processor.push(Say("x")),
        lambda: processor.post(Say("x")),
        lambda: processor.interrupt(),
        lambda: processor.new_response(),
        lambda: processor.now_ns,
        lambda: processor.clock,
    ):
        with pytest.raises(ProcessorError, match="works only while the pipeline runs"):
            call()
    async with Rig(processor) as rig:
        await rig.worker.stop()
    with pytest.raises(ProcessorError, match="works only while the pipeline runs"):
        processor.post(Say("x"))


async def test_init_need_not_call_super() -> None:
    class Bare(FrameProcessor):
        def __init__(self, word: str) -> None:
            self.word = word

        @handles(Hear)
        async def hear(self, frame: Hear) -> None:
            await self.push(Say(self.word))

    seen = Seen()
    async with Rig(Bare("x"), seen) as rig:
        await rig.send(Hear("?"))
    assert seen.said == ["x"]


async def test_timers_do_not_outlive_the_worker() -> None:
    """A worker with an idle time-out of an hour ends now: nothing may keep it in memory until then."""

    class Idle(FrameProcessor):
        @handles(Hear)
        async def hear(self, frame: Hear) -> None:
            self.post_after(3_600_000, Hear("idle"))

    async def converse() -> weakref.ref[PipelineWorker]:
        worker = PipelineWorker(Pipeline([Idle()]))
        worker.post(Hear("x"))
        run = asyncio.create_task(worker.run())
        await asyncio.sleep(0)
        await worker.stop()
        await run
        return weakref.ref(worker)

    worker = await converse()
    await asyncio.sleep(0)
    gc.collect()
    assert worker() is None


async def test_a_thousand_starts_and_stops_leave_nothing_behind() -> None:
    class Job(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            yield Other(frame.what)

    class Mic(FrameProcessor):
        @source
        async def listen(self) -> AsyncIterator[Frame]:
            yield Say("a")
            await self.clock.sleep(0.01)
            yield Say("b")

    log: list[str] = []

    async def once(number: int) -> None:
        worker = PipelineWorker(Pipeline([Mic(), Hooks(log), Job(), Seen()]), clock=VirtualClock(), seed=1)
        if number % 3 == 0:
            assert (await worker.run()).reason == "ended"
            return
        run = asyncio.create_task(worker.run())
        for _ in range(number % 7):
            await asyncio.sleep(0)
        if number % 3 == 1:
            worker.cancel()
        else:
            await worker.stop()
        await run

    before = asyncio.all_tasks()
    for number in range(100):
        await once(number)
    log.clear()
    gc.collect()
    count = len(gc.get_objects())
    for number in range(1_000):
        await once(number)
    log.clear()
    gc.collect()
    assert asyncio.all_tasks() == before
    # Nothing that grows with the number of conversations: a thousand of them would leave thousands of objects.
    assert len(gc.get_objects()) - count < 500

"""Cancelling, being cancelled, and what can be used again: no way out leaves anything behind."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator

import pytest
from voxline.pipeline import (
    Frame,
    FrameProcessor,
    Outcome,
    Pipeline,
    PipelineError,
    PipelineWorker,
    ProcessorError,
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
    until,
)

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
    async with asyncio.timeout(30):
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
    async with asyncio.timeout(30):
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

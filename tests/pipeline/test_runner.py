"""The runner: one worker or many, and signals: the first drains, the second cancels."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import subprocess
import sys
import textwrap
import types
from collections.abc import AsyncIterator

import pytest
from voxline.pipeline import (
    Frame,
    FrameProcessor,
    LifecycleError,
    Outcome,
    Pipeline,
    PipelineRunner,
    PipelineWorker,
    SystemClock,
    TextFrame,
    VirtualClock,
    handles,
    run,
    source,
)
from voxline.tests.pipeline.engine.rig import Say, Seen


class Words(FrameProcessor):
    """Says so many words, one a second."""

    def __init__(self, count: int) -> None:
        self.count = count

    @source
    async def speak(self) -> AsyncIterator[Frame]:
        for number in range(self.count):
            await self.clock.sleep(1)
            yield Say(str(number))


class NotIdle(FrameProcessor):
    """Never has enough."""

    def idle(self) -> bool:
        return False


def worker(*processors: FrameProcessor, real: bool = False) -> PipelineWorker:
    return PipelineWorker(Pipeline(list(processors)), clock=SystemClock() if real else VirtualClock())


async def test_one_worker() -> None:
    seen = Seen()
    assert await PipelineRunner().run(worker(Words(3), seen)) == [Outcome("ended")]
    assert seen.said == ["0", "1", "2"]


async def test_many_workers_side_by_side() -> None:
    sinks = [Seen() for _ in range(5)]
    workers = [worker(Words(number), sink) for number, sink in enumerate(sinks)]
    assert await PipelineRunner().run(*workers) == [Outcome("ended")] * 5
    assert [len(sink.frames) for sink in sinks] == [0, 1, 2, 3, 4]


async def test_no_worker() -> None:
    assert await PipelineRunner().run() == []


async def test_a_worker_that_does_not_start_is_an_error_after_the_others_have_ended() -> None:
    class Fails(FrameProcessor):
        async def start(self) -> None:
            raise ValueError("no key")

    seen = Seen()
    with pytest.raises(LifecycleError, match="no key"):
        await PipelineRunner().run(worker(Fails()), worker(Words(2), seen))
    assert len(seen.frames) == 2


async def test_the_first_signal_drains_and_the_second_cancels() -> None:
    runner = PipelineRunner(handle_signals=False)
    one, two = worker(NotIdle(), real=True), worker(Seen(), real=True)
    run = asyncio.create_task(runner.run(one, two))
    await asyncio.sleep(0.01)
    runner.signalled()
    assert (await two.finished()).reason == "stopped"
    await asyncio.sleep(0.01)
    assert not run.done()
    runner.signalled()
    assert [outcome.reason for outcome in await run] == ["cancelled", "stopped"]
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(asyncio.all_tasks()) == 1


async def test_a_runner_that_runs_again_begins_anew() -> None:
    runner = PipelineRunner(handle_signals=False)
    for _ in range(2):
        seen = Seen()
        one = worker(seen, real=True)
        run = asyncio.create_task(runner.run(one))
        await asyncio.sleep(0.01)
        runner.signalled()
        assert [outcome.reason for outcome in await run] == ["stopped"]


async def test_cancelling_the_runner_cancels_its_workers_and_waits_for_them() -> None:
    log: list[str] = []

    class Stops(FrameProcessor):
        async def stop(self) -> None:
            await asyncio.sleep(0)
            log.append("stopped")

    for count in (1, 3):
        log.clear()
        workers = [worker(Stops(), real=True) for _ in range(count)]
        run = asyncio.create_task(PipelineRunner().run(*workers))
        await asyncio.sleep(0.01)
        run.cancel()
        await asyncio.wait([run])
        assert run.cancelled()
        assert log == ["stopped"] * count
        assert len(asyncio.all_tasks()) == 1


BOT = """
import asyncio, logging, sys
from voxline.pipeline import FrameProcessor, Pipeline, PipelineRunner, PipelineWorker, source, TextFrame, handles

logging.basicConfig(level=logging.INFO, stream=sys.stdout, format="%(message)s")

class Bot(FrameProcessor):
    @source
    async def listen(self):
        print("running", flush=True)
        while True:
            await self.clock.sleep(3600)
            yield TextFrame("x")

    async def stop(self):
        print("processor stopped", flush=True)

    def idle(self):
        return {idle}

outcomes = asyncio.run(PipelineRunner().run(*(PipelineWorker(Pipeline([Bot()])) for _ in range({count}))))
print([outcome.reason for outcome in outcomes], flush=True)
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of POSIX")
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize(("idle", "signals", "count"), [(True, 1, 1), (False, 2, 1), (False, 2, 2)])
def test_a_real_signal(number: signal.Signals, idle: bool, signals: int, count: int) -> None:
    script = textwrap.dedent(BOT).format(idle=idle, count=count)
    command = [sys.executable, "-c", script]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        try:
            assert process.stdout is not None
            for _ in range(count):
                assert process.stdout.readline() == "running\n"
            process.send_signal(number)
            assert process.stdout.readline() == "draining; once more to cancel\n"
            if signals == 2:
                process.send_signal(number)
                assert process.stdout.readline() == "cancelling\n"
            # Not communicate(), which would lose what readline() has read ahead.
            out = process.stdout.read()
            process.wait(10)
        finally:
            process.kill()
    reason = "stopped" if idle else "cancelled"
    assert out.splitlines() == ["processor stopped"] * count + [str([reason] * count)]
    assert process.returncode == 0


async def test_while_it_runs_what_was_there_before_is_no_work_for_the_garbage_collector():
    frozen: list[int] = []

    class Look(FrameProcessor):
        @handles(TextFrame)
        async def look(self, frame: TextFrame) -> None:
            frozen.append(gc.get_freeze_count())

    for wanted in (True, False):
        worker = PipelineWorker(Pipeline([Look()]), clock=VirtualClock())
        worker.post(TextFrame("now"))
        running = asyncio.ensure_future(PipelineRunner(handle_signals=False, freeze_garbage=wanted).run(worker))
        await asyncio.sleep(0)
        await worker.stop()
        await running
    assert frozen[0] > 1_000
    assert frozen[1] == 0
    assert gc.get_freeze_count() == 0


def test_run_returns_the_result_and_uses_uvloop_where_it_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    async def loop_of_the_run() -> asyncio.AbstractEventLoop:
        return asyncio.get_running_loop()

    class Loop(asyncio.SelectorEventLoop):
        """Stands in for uvloop's."""

    module = types.ModuleType("uvloop")
    vars(module)["new_event_loop"] = Loop
    monkeypatch.setitem(sys.modules, "uvloop", module)
    assert isinstance(run(loop_of_the_run()), Loop)
    monkeypatch.setitem(sys.modules, "uvloop", None)
    assert not isinstance(run(loop_of_the_run()), Loop)

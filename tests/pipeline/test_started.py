"""`PipelineWorker.started`: whoever waits learns that frames flow, or that they never will."""

from __future__ import annotations

import asyncio

import pytest
from voxline.pipeline import (
    Frame,
    FrameProcessor,
    LifecycleError,
    Pipeline,
    PipelineWorker,
    TextFrame,
    VirtualClock,
    handles,
)


class Slow(FrameProcessor):
    """Takes two seconds to start, or does not."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails

    async def start(self) -> None:
        await self.clock.sleep(2)
        if self.fails:
            raise RuntimeError("no model")

    @handles(TextFrame)
    async def take(self, frame: Frame) -> None: ...


async def test_it_is_true_once_frames_flow_and_stays_so() -> None:
    clock = VirtualClock()
    worker = PipelineWorker(Pipeline([Slow()]), clock=clock)
    waiting = asyncio.create_task(worker.started())
    running = asyncio.create_task(worker.run())
    assert await waiting
    assert clock.now_ns() == 2_000_000_000
    worker.cancel()
    await running
    assert await worker.started()


async def test_it_is_false_where_a_processor_does_not_start() -> None:
    worker = PipelineWorker(Pipeline([Slow(fails=True)]), clock=VirtualClock())
    waiting = asyncio.create_task(worker.started())
    with pytest.raises(LifecycleError):
        await worker.run()
    assert not await waiting


@pytest.mark.parametrize("before", [True, False])
async def test_it_is_false_where_it_is_cancelled_first(before: bool) -> None:
    worker = PipelineWorker(Pipeline([Slow()]), clock=VirtualClock())
    waiting = asyncio.create_task(worker.started())
    if before:
        worker.cancel()
    running = asyncio.create_task(worker.run())
    await asyncio.sleep(0)
    worker.cancel()
    await running
    assert not await waiting

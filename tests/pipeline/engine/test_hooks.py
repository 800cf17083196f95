"""Hooks by themselves: they run together, each has a deadline, and a failure is a sentence."""

from __future__ import annotations

import asyncio

from voxline.pipeline import VirtualClock
from voxline.pipeline.engine.hooks import GRACE_MS, Hook, HookRun, run_hooks, wait_for_tasks
from voxline.pipeline.tasks import spawn


async def forever() -> None:
    await asyncio.get_running_loop().create_future()


async def test_no_hooks_end_at_once() -> None:
    assert await run_hooks(VirtualClock(), []) == []


async def test_hooks_run_together() -> None:
    clock = VirtualClock()

    async def sleep() -> None:
        await clock.sleep(1)

    assert await run_hooks(clock, [Hook(f"{name}.start()", sleep, 2_000) for name in "ab"]) == []
    assert clock.now_ns() == 1_000_000_000


async def test_a_failure_is_named_with_its_exception_and_the_others_end() -> None:
    clock = VirtualClock()
    ended: list[int] = []

    async def fail() -> None:
        raise ValueError("no")

    async def sleep() -> None:
        await clock.sleep(1)
        ended.append(clock.now_ns())

    errors = await run_hooks(clock, [Hook("a.start()", fail, 100), Hook("b.start()", sleep, 2_000)])
    assert [error.message for error in errors] == ["a.start() failed: ValueError: no"]
    assert isinstance(errors[0].error, ValueError)
    assert ended == [1_000_000_000]


async def test_a_hook_is_cancelled_at_its_deadline() -> None:
    clock = VirtualClock()

    async def late() -> None:
        await clock.sleep(10)

    errors = await run_hooks(clock, [Hook("a.stop()", late, 100)])
    assert [error.message for error in errors] == ["a.stop() did not return within 100 ms, its deadline."]
    assert clock.now_ns() == 100_000_000


async def test_a_hook_that_ignores_its_cancellation_is_left_behind() -> None:
    clock, release = VirtualClock(), asyncio.Event()

    async def stubborn() -> None:
        while not release.is_set():
            try:
                await clock.sleep(3_600)
            except asyncio.CancelledError:
                continue

    runs: list[HookRun] = []
    errors = await run_hooks(clock, [Hook("a.stop()", stubborn, 100)], runs.append)
    assert [error.message for error in errors] == [
        "a.stop() did not return within 100 ms, its deadline.",
        "a.stop() ignores that it was cancelled, and is left behind.",
    ]
    assert runs[0].unfinished == ["a.stop()"]
    release.set()
    await clock.sleep(7_200)
    assert runs[0].unfinished == []


async def test_waking_a_run_cancels_the_hooks_that_are_left() -> None:
    clock = VirtualClock()

    def wake_soon(run: HookRun) -> None:
        asyncio.get_running_loop().call_soon(run.wake)

    errors = await run_hooks(clock, [Hook("a.start()", forever, 1_000)], wake_soon)
    assert errors == [], "a hook that was given up on request has not failed"


async def test_waiting_for_tasks_says_whether_all_have_ended() -> None:
    clock = VirtualClock()
    ends = spawn(clock.sleep(0), "ends")
    assert await wait_for_tasks(clock, [ends], GRACE_MS)
    hangs = spawn(forever(), "hangs")
    assert not await wait_for_tasks(clock, [hangs], 1)
    hangs.cancel()
    assert await wait_for_tasks(clock, [hangs], GRACE_MS)

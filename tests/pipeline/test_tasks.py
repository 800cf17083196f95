"""Threads for functions that block: a bound, a line before it, and what is left behind."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any

import pytest
from voxline.pipeline.errors import QueueOverflowError
from voxline.pipeline.tasks import Threads

PATIENCE_S = 30.0


class Gate:
    """A function that blocks until it is let through."""

    def __init__(self) -> None:
        self.entered = threading.Semaphore(0)
        self._open = threading.Event()
        self.calls = 0

    def __call__(self) -> str:
        self.calls += 1
        self.entered.release()
        assert self._open.wait(PATIENCE_S)
        return "through"

    def open(self) -> None:
        self._open.set()

    async def is_entered(self, times: int = 1) -> None:
        """Waits in the default executor: the loop goes on meanwhile."""
        for _ in range(times):
            assert await asyncio.get_running_loop().run_in_executor(None, self.entered.acquire, True, PATIENCE_S)


async def ended(threads: Threads) -> None:
    """No thread is left."""
    for thread in threading.enumerate():
        if thread.name == "voxline-thread":
            await asyncio.get_running_loop().run_in_executor(None, thread.join, PATIENCE_S)
    assert threads.running == 0
    assert threads.left_behind == 0


async def test_a_function_runs_in_another_thread_and_gives_its_result():
    threads = Threads()
    mine: ContextVar[str] = ContextVar("mine", default="")
    mine.set("here")
    here = threading.get_ident()
    assert await threads.run(lambda: (threading.get_ident() != here, mine.get())) == (True, "here")
    await ended(threads)


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), SystemExit(3)])
async def test_what_it_raises_is_raised(error: BaseException):
    def fail() -> None:
        raise error

    threads = Threads()
    with pytest.raises(type(error)):
        await threads.run(fail)
    await ended(threads)


async def test_a_stop_iteration_does_not_get_lost():
    threads = Threads()
    with pytest.raises(RuntimeError, match="StopIteration"):
        await threads.run(lambda: next(iter(())))
    await ended(threads)


async def test_no_more_run_than_the_bound_says_and_the_others_wait_in_order():
    threads, gate, done = Threads(most=2), Gate(), list[int]()

    def work(number: int) -> Callable[[], None]:
        def call() -> None:
            gate()
            done.append(number)

        return call

    tasks = [asyncio.ensure_future(threads.run(work(number))) for number in range(6)]
    await gate.is_entered(2)
    assert (threads.running, gate.calls) == (2, 2)
    gate.open()
    await asyncio.gather(*tasks)
    assert sorted(done) == list(range(6))
    await ended(threads)


async def test_a_line_that_is_too_long_is_refused():
    threads, gate = Threads(most=1, most_waiting=1), Gate()
    tasks = [asyncio.ensure_future(threads.run(gate)) for _ in range(2)]
    await gate.is_entered()
    with pytest.raises(QueueOverflowError, match=r"All 1 threads are busy, 0 .* and 1 calls wait"):
        await threads.run(gate)
    gate.open()
    await asyncio.gather(*tasks)
    await ended(threads)


async def cancelled(task: asyncio.Future[Any]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


Told = tuple[str | None, BaseException | None]


def teller() -> tuple[asyncio.Future[Told], Callable[[str | None, BaseException | None], None]]:
    """What `late` is told, when it is."""
    told: asyncio.Future[Told] = asyncio.get_running_loop().create_future()

    def tell(result: str | None, error: BaseException | None) -> None:
        told.set_result((result, error))

    return told, tell


async def test_a_thread_that_nobody_waits_for_is_counted_and_tells_its_result_in_the_end():
    threads, gate = Threads(most=1), Gate()
    told, tell = teller()
    task = asyncio.ensure_future(threads.run(gate, tell))
    await gate.is_entered()
    await cancelled(task)
    assert (threads.running, threads.left_behind) == (1, 1)
    with pytest.raises(QueueOverflowError, match="1 of them with calls that nobody waits for"):
        await threads.run(gate)
    gate.open()
    assert await told == ("through", None)
    await ended(threads)
    assert await threads.run(lambda: 1) == 1
    await ended(threads)


async def test_the_error_of_one_that_was_left_behind_is_told_too():
    threads, gate = Threads(), Gate()
    told, tell = teller()

    def fail() -> str:
        gate()
        raise ValueError("late")

    task = asyncio.ensure_future(threads.run(fail, tell))
    await gate.is_entered()
    await cancelled(task)
    gate.open()
    result, error = await told
    assert result is None
    assert isinstance(error, ValueError)
    await ended(threads)


async def test_one_that_is_cancelled_in_the_line_never_runs():
    threads, gate, other = Threads(most=1), Gate(), Gate()
    told, tell = teller()
    first = asyncio.ensure_future(threads.run(gate))
    await gate.is_entered()
    second = asyncio.ensure_future(threads.run(other, tell))
    await asyncio.sleep(0)
    await cancelled(second)
    assert threads.left_behind == 0
    assert isinstance((await told)[1], asyncio.CancelledError)
    gate.open()
    assert await first == "through"
    await ended(threads)
    assert other.calls == 0


def test_a_loop_that_is_closed_meanwhile_is_not_told():
    threads, gate = Threads(), Gate()

    async def main() -> None:
        task = asyncio.ensure_future(threads.run(gate))
        await gate.is_entered()
        await cancelled(task)

    asyncio.run(main())
    gate.open()
    for thread in threading.enumerate():
        if thread.name == "voxline-thread":
            thread.join(PATIENCE_S)
    assert (threads.running, threads.left_behind) == (0, 0)


def test_several_event_loops_share_a_pool():
    threads, results = Threads(most=3), list[int]()

    async def many(first: int) -> None:
        async def one(number: int) -> int:
            return await threads.run(lambda: number * 2)

        results.extend(await asyncio.gather(*(one(number) for number in range(first, first + 200))))

    def loop(first: int) -> None:
        asyncio.run(many(first))

    loops = [threading.Thread(target=loop, args=(first,)) for first in (0, 1_000, 2_000)]
    for thread in loops:
        thread.start()
    for thread in loops:
        thread.join(PATIENCE_S)
    assert sorted(results) == sorted(2 * (first + n) for first in (0, 1_000, 2_000) for n in range(200))
    for thread in threading.enumerate():
        if thread.name == "voxline-thread":
            thread.join(PATIENCE_S)
    assert threads.running == 0


async def test_a_result_that_comes_in_the_turn_of_the_cancellation_is_not_lost():
    threads, gate, late = Threads(), Gate(), list[tuple[str | None, BaseException | None]]()
    running = asyncio.ensure_future(threads.run(gate, lambda given, error: late.append((given, error))))
    await gate.is_entered()
    gate.open()
    for thread in threading.enumerate():
        if thread.name == "voxline-thread":
            # The loop stands still meanwhile: the result is in its queue when the next line is.
            thread.join(PATIENCE_S)
    asyncio.get_running_loop().call_soon(running.cancel)
    with pytest.raises(asyncio.CancelledError):
        await running
    assert late == [("through", None)]
    await ended(threads)

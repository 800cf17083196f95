"""A deadline for something a request waits for, by the server's clock."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from ...pipeline.clock import NS_PER_S, Clock

T = TypeVar("T")


async def within(clock: Clock, seconds: float, work: Awaitable[T]) -> T:
    """Wait for ``work``, for ``seconds`` at most. Raises `TimeoutError`; the work is cancelled then."""
    task = asyncio.current_task()
    assert task is not None
    before = task.cancelling()
    fired = False

    def late() -> None:
        nonlocal fired
        fired = True
        task.cancel()

    timer = clock.call_at(clock.now_ns() + round(seconds * NS_PER_S), late)
    try:
        return await work
    except asyncio.CancelledError:
        # As asyncio.timeout does: with our cancellation taken back, is anybody else's left?
        if fired and task.uncancel() <= before:
            raise TimeoutError from None
        raise
    finally:
        timer.cancel()

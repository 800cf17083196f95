"""The pytest plugin: the fixtures ``harness`` and ``virtual_clock``. Installed by entry point with the package.

A bench is closed as the last thing of the test itself, so that what it finds then *fails* the test (what is found when
fixtures are torn down is only an "error" to pytest).
"""

from __future__ import annotations

import inspect
from collections.abc import AsyncIterator, Generator
from functools import wraps
from typing import Any

import pytest
import pytest_asyncio

from ..clock import VirtualClock
from .harness import Bench, Harness

_HARNESS = pytest.StashKey[Harness]()


@pytest_asyncio.fixture
async def harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """Puts processors on a bench: ``bench = await harness(Louder())``. See `voxline.pipeline.testing.harness`."""
    benches = Harness()
    request.node.stash[_HARNESS] = benches
    yield benches
    await benches.close()


@pytest.fixture
def virtual_clock() -> VirtualClock:
    """A clock that jumps to the next timer when nothing is left to do: ``PipelineWorker(..., clock=virtual_clock)``."""
    return VirtualClock()


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Close the benches of a test as its last act."""
    benches = item.stash.get(_HARNESS, None)
    if benches is not None and isinstance(item, pytest.Function) and inspect.iscoroutinefunction(item.obj):
        item.obj = _closing(item.obj, benches)
    return (yield)


def _closing(test: Any, benches: Harness) -> Any:
    @wraps(test)
    async def run(*args: Any, **kwargs: Any) -> None:
        __tracebackhide__ = True
        try:
            await test(*args, **kwargs)
        except BaseException as failure:
            await benches.close(failure)
            raise
        await benches.close()

    return run


__all__ = ["Bench", "Harness", "harness", "virtual_clock"]

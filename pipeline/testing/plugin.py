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

try:
    import pytest_asyncio
except ImportError:
    # Loaded in every session of pytest where the package is installed: without it, only the fixture is missing.
    pytest_asyncio = None

from ..clock import VirtualClock
from ..errors import MissingExtraError
from ..recording.schema import is_list
from .failures import BenchFailure
from .fixtures import Output
from .harness import Harness
from .matchers import ListMatcher, concerns_frames, explain
from .watched_run import traceback_of

_HARNESS = pytest.StashKey[Harness]()


async def _harness(request: pytest.FixtureRequest) -> AsyncIterator[Harness]:
    """Puts processors on a bench: ``bench = await harness(Louder())``. See `voxline.pipeline.testing.harness`."""
    benches = Harness()
    request.node.stash[_HARNESS] = benches
    yield benches
    await benches.close()


def _missing() -> Harness:
    """Needs pytest-asyncio, which is not installed."""
    raise MissingExtraError("The fixture `harness`", "pytest-asyncio", "test")


if pytest_asyncio is None:
    harness = pytest.fixture(name="harness")(_missing)
else:
    harness = pytest_asyncio.fixture(name="harness")(_harness)


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
        message = ""
        try:
            await benches.close()
        except BenchFailure as failure:
            message = f"{failure}{traceback_of(failure.__cause__)}"
        if message:
            # No line of the test is to blame, so there is nothing to show but the message and what was raised.
            pytest.fail(message, pytrace=False)

    return run


def pytest_assertrepr_compare(op: str, left: object, right: object) -> list[str] | None:
    """Explain why lists of frames, and outputs of fixtures, are not equal."""
    if op != "==":
        return None
    if isinstance(left, Output) and isinstance(right, Output):
        lines = ["what came out is not what was expected:"]
        for end in ("down", "up", "errors"):
            actual, wanted = getattr(left, end), getattr(right, end)
            if actual != wanted:
                lines += [f"{end}:", *explain(actual, wanted)]
        return lines
    if isinstance(left, ListMatcher):
        left, right = right, left
    if isinstance(right, ListMatcher):
        return [f"{left!r} == {right!r}", right.mismatch(left)]
    if is_list(left) and is_list(right) and (concerns_frames(left) or concerns_frames(right)):
        return [f"{len(left)} frames == {len(right)} frames", *explain(left, right)]
    return None

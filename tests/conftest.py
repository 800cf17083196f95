"""What all tests share."""

from __future__ import annotations

import gc
import sys
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings

pytest_plugins = ["pytester"]

# Speed is measured in benchmarks: on a busy machine any example may take long.
settings.register_profile("voxline", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("voxline")

STARVED = 0.1
"""Of the processors' time: what a virtual machine's host took for others."""
_STAT = Path("/proc/stat")
_begun = pytest.StashKey[tuple[int, int]]()
_excused = pytest.StashKey[bool]()


def _times() -> tuple[int, int]:
    """All of the processors' time so far, and what of it was stolen; zeros where nobody tells."""
    if not _STAT.exists():
        return 0, 0
    times = [int(number) for number in _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return sum(times), times[7]


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_begun] = _times()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """A test in real time that fails while the host runs other machines in our place shows nothing: it is skipped, and
    says so. What we ourselves take too long for is no excuse, and is not counted.
    """
    report = yield
    if report.failed and item.get_closest_marker("realtime") is not None:
        before, now = item.stash.get(_begun, (0, 0)), _times()
        share = (now[1] - before[1]) / max(1, now[0] - before[0])
        if share > STARVED:
            item.stash[_excused] = True
            report.outcome = "skipped"
            path, line, _ = item.location
            said = f"Skipped: {share:.0%} of this machine's time was given to others while it ran, and it failed"
            report.longrepr = cast(Any, (path, line or 0, said))
    return report


def _said_to_nobody(_: Any) -> None:
    pass


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """What such a test had open where it failed is no error of the tests after it."""
    result = yield
    if item.stash.get(_excused, False):
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            if hasattr(sys, name):
                delattr(sys, name)
        before, sys.unraisablehook = sys.unraisablehook, _said_to_nobody
        try:
            gc.collect()
        finally:
            sys.unraisablehook = before
    return result

"""Settings of all tests: Hypothesis profiles, real-time tests, and the summary of skipped tests.

Tests marked ``realtime`` need sound, a browser or a network in real time. `make test` runs them last and one by one. A
failed one is repeated once, and the run says so.
"""

from __future__ import annotations

import gc
import sys
from collections import Counter
from collections.abc import Generator
from pathlib import Path
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from voxline.tests.needs import PREFIX, REQUIRED, explain
from voxline.tests.scale import LONG

pytest_plugins = ["pytester"]

# Speed is measured in benchmarks: on a busy machine any example may take long.
# A hundred examples in `make test-long`; tests that ask for another number say so with `examples`.
settings.register_profile(
    "voxline", deadline=None, max_examples=100 if LONG else 40, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("voxline")

STOLEN = 0.1
"""Share of the processors' time that a virtual machine's host may give to others while a real-time test runs."""
_STAT = Path("/proc/stat")
_times_before = pytest.StashKey[tuple[int, int]]()
_excused = pytest.StashKey[bool]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Repeat each failed real-time test once (pytest-rerunfailures prints an R)."""
    for item in items:
        if item.get_closest_marker("realtime") is not None:
            item.add_marker(pytest.mark.flaky(reruns=1))


# --- real-time tests on a machine whose host runs other machines --------------------------------------------------


def _times() -> tuple[int, int]:
    """Read all of the processors' time so far, and the stolen part of it; zeros on systems without ``/proc/stat``."""
    if not _STAT.exists():
        return 0, 0
    times = [int(number) for number in _STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]]
    return sum(times), times[7]


def pytest_runtest_setup(item: pytest.Item) -> None:
    item.stash[_times_before] = _times()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Skip a real-time test that fails while the host gives more than `STOLEN` of the time to other machines.

    Only stolen time is an excuse. Time that this machine's own programs take is not.
    """
    report = yield
    if report.failed and item.get_closest_marker("realtime") is not None:
        before, now = item.stash.get(_times_before, (0, 0)), _times()
        share = (now[1] - before[1]) / max(1, now[0] - before[0])
        if share > STOLEN:
            item.stash[_excused] = True
            report.outcome = "skipped"
            path, line, _ = item.location
            said = f"Skipped: {share:.0%} of this machine's time was given to others while it ran, and it failed"
            report.longrepr = cast(Any, (path, line or 0, said))
    return report


def _ignore_unraisable(_: Any) -> None:
    pass


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """Collect the open files and sockets of an excused test, so that their warnings do not fail the next test."""
    result = yield
    if item.stash.get(_excused, False):
        for name in ("last_type", "last_value", "last_traceback", "last_exc"):
            if hasattr(sys, name):
                delattr(sys, name)
        before, sys.unraisablehook = sys.unraisablehook, _ignore_unraisable
        try:
            gc.collect()
        finally:
            sys.unraisablehook = before
    return result


# --- the summary ----------------------------------------------------------------------------------------------------


def _skip_reasons(config: pytest.Config) -> Counter[str]:
    """Count the skipped tests by reason. A module that is skipped as a whole counts as one."""
    reporter: Any = config.pluginmanager.get_plugin("terminalreporter")
    reasons: Counter[str] = Counter()
    skipped: list[Any] = reporter.stats.get("skipped", []) if reporter is not None else []
    for report in skipped:
        where: object = report.longrepr
        reasons[explain(cast("tuple[str, int, str]", where)[2] if isinstance(where, tuple) else str(where))] += 1
    return reasons


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail the run where ``VOXLINE_REQUIRE=1`` and a test was skipped because the machine lacks something."""
    if REQUIRED and not hasattr(session.config, "workerinput"):
        missing = [reason for reason in _skip_reasons(session.config) if reason.startswith(PREFIX)]
        if missing and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    """Print how many tests were skipped and why, and which were repeated."""
    reasons = _skip_reasons(config)
    if reasons:
        terminalreporter.section(f"{reasons.total()} skipped")
        for reason, count in sorted(reasons.items()):
            terminalreporter.line(f"{count:4d}  {reason}")
        if REQUIRED and any(reason.startswith(PREFIX) for reason in reasons):
            terminalreporter.line(f'VOXLINE_REQUIRE is set, so "{PREFIX.rstrip(": ")}" fails the run.', red=True)
    repeated = sorted({report.nodeid for report in terminalreporter.stats.get("rerun", [])})
    if repeated:
        terminalreporter.section(f"{len(repeated)} repeated once")
        for nodeid in repeated:
            terminalreporter.line(f"      {nodeid}")

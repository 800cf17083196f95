"""The rules of tests/conftest.py: excused and repeated real-time tests, and skips that fail continuous integration."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from voxline.tests.needs import EXTRAS, explain
from voxline.tests.places import ROOT

CONFTEST = Path(__file__).parent / "conftest.py"
PLAIN = ("-p", "no:voxline", "-p", "no:asyncio")
TESTS = """
import pytest

@pytest.mark.realtime
def test_marked(): assert False

def test_not_marked(): assert False
"""
FAILS_ONCE = """
import pytest

calls = []

@pytest.mark.realtime
def test_marked():
    calls.append(1)
    assert len(calls) == 2
"""
LACKS = """
from voxline.tests import needs

def test_of_a_program():
    needs.NEEDS["chromium"] = needs.Need("Chromium", "apt-get install chromium", lambda: False)
    needs.need("chromium")

def test_else(): pass
"""


def configure(pytester: pytest.Pytester, stolen: int, ini: str = "") -> None:
    """Use our conftest.py with a machine whose host gives ``stolen`` of 100 to others."""
    source = CONFTEST.read_text(encoding="utf-8").replace('pytest_plugins = ["pytester"]', "")
    reading = f"calls = []\ndef _times():\n    calls.append(1)\n    return 100 * len(calls), {stolen} * len(calls)\n"
    pytester.makeconftest(source + reading)
    pytester.makeini(f"[pytest]\nmarkers = realtime\n{ini}")


@pytest.mark.parametrize(
    ("stolen", "outcomes"), [(50, {"skipped": 1, "failed": 1}), (5, {"failed": 2, "rerun": 1})], ids=["starved", "fed"]
)
def test_a_failure_is_excused_only_where_the_host_took_the_time(
    pytester: pytest.Pytester, stolen: int, outcomes: dict[str, int]
) -> None:
    configure(pytester, stolen)
    pytester.makepyfile(TESTS)
    found = pytester.runpytest(*PLAIN).parseoutcomes()
    assert found == outcomes


def test_what_an_excused_test_had_open_is_no_error_of_the_next_one(pytester: pytest.Pytester) -> None:
    configure(pytester, 50, "filterwarnings = error")
    pytester.makepyfile("""
        import gc, socket
        import pytest

        @pytest.mark.realtime
        def test_marked():
            opened = [socket.socket()]
            opened.append(opened)
            assert False

        def test_next():
            gc.collect()
    """)
    result = pytester.runpytest_subprocess(*PLAIN)
    result.assert_outcomes(skipped=1, passed=1)
    assert result.ret == 0


def test_a_real_time_test_is_repeated_once_and_the_run_says_so(pytester: pytest.Pytester) -> None:
    configure(pytester, 0)
    pytester.makepyfile(FAILS_ONCE)
    result = pytester.runpytest(*PLAIN)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*1 repeated once*", "*::test_marked", "*1 passed, 1 rerun*"])


@pytest.mark.parametrize("parallel", [(), ("-n", "1")], ids=["serial", "parallel"])
@pytest.mark.parametrize("required", [False, True])
def test_a_skip_for_a_missing_program_fails_where_all_are_required(
    pytester: pytest.Pytester, monkeypatch: pytest.MonkeyPatch, required: bool, parallel: tuple[str, ...]
) -> None:
    monkeypatch.setenv("VOXLINE_REQUIRE", "1" if required else "0")
    configure(pytester, 0)
    pytester.makepyfile(LACKS)
    result = pytester.runpytest_subprocess(*PLAIN, *parallel)
    result.assert_outcomes(skipped=1, passed=1)
    result.stdout.fnmatch_lines(["*1 skipped*", "   1  not installed: Chromium: apt-get install chromium"])
    assert result.ret == (1 if required else 0)


def test_a_missing_package_is_explained_by_its_extra() -> None:
    reason = "Skipped: could not import 'aiortc.rtp': No module named 'aiortc'"
    assert explain(reason) == "not installed: aiortc: pip install -e '.[webrtc]'"
    assert explain("Skipped: could not import 'audioop': No module") == "could not import 'audioop': No module"
    assert explain("Skipped: signals of POSIX") == "signals of POSIX"


def test_every_package_that_tests_may_skip_has_an_extra() -> None:

    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    assert set(EXTRAS.values()) <= set(extras)
    named = {
        name
        for file in (ROOT / "tests").rglob("*.py")
        for name in re.findall(r'importorskip\("(\w+)', file.read_text(encoding="utf-8"))
    }
    assert named - {"audioop"} <= set(EXTRAS)

"""The excuse of tests in real time, which must excuse nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest

CONFTEST = Path(__file__).parent / "conftest.py"
TESTS = """
import pytest

@pytest.mark.realtime
def test_marked(): assert False

def test_not_marked(): assert False
"""


@pytest.mark.parametrize(("stolen", "outcomes"), [(50, {"skipped": 1, "failed": 1}), (5, {"failed": 2})])
def test_a_failure_is_excused_only_where_the_host_took_the_time(
    pytester: pytest.Pytester, stolen: int, outcomes: dict[str, int]
) -> None:
    source = CONFTEST.read_text(encoding="utf-8").replace('pytest_plugins = ["pytester"]', "")
    reading = f"calls = []\ndef _times():\n    calls.append(1)\n    return 100 * len(calls), {stolen} * len(calls)\n"
    pytester.makeconftest(source + reading)
    pytester.makeini("[pytest]\nmarkers = realtime")
    pytester.makepyfile(TESTS)
    pytester.runpytest("-p", "no:voxline", "-p", "no:asyncio").assert_outcomes(**outcomes)


def test_what_an_excused_test_had_open_is_no_error_of_the_next_one(pytester: pytest.Pytester) -> None:
    source = CONFTEST.read_text(encoding="utf-8").replace('pytest_plugins = ["pytester"]', "")
    reading = "calls = []\ndef _times():\n    calls.append(1)\n    return 100 * len(calls), 50 * len(calls)\n"
    pytester.makeconftest(source + reading)
    pytester.makeini("[pytest]\nmarkers = realtime\nfilterwarnings = error")
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
    result = pytester.runpytest_subprocess("-p", "no:voxline", "-p", "no:asyncio")
    result.assert_outcomes(skipped=1, passed=1)
    assert result.ret == 0

"""Laws 3 and 4: one place reads time or sleeps, and one place makes tasks."""

from __future__ import annotations

import re
import tomllib

from voxline.tests.laws.source import ROOT, modules, uses

CLOCK = "pipeline/clock.py"
ENGINE = ("pipeline/engine/job_runner.py", "pipeline/tasks.py")
TIME = re.compile(
    r"time\.\w+|datetime\.datetime\.(now|utcnow|today)|datetime\.date\.today|"
    r"asyncio\.(sleep|wait_for|timeout|timeout_at|tasks\.sleep)|(threading|sched)\.(Timer|scheduler)|select\.\w+|"
    r".*loop(\(\))?\.(time|call_later|call_at)|.*\(\)\.(time|call_later)"
)
TASKS = re.compile(
    r"asyncio\.(create_task|ensure_future|gather|as_completed|shield|TaskGroup|to_thread|Runner|run|"
    r"run_coroutine_threadsafe)|"
    r".*\.(create_task|run_in_executor|set_default_executor)|threading\.(Thread|Timer)|_thread\.start_new_thread|"
    r"concurrent\.futures\.\w+|multiprocessing(\.\w+)*"
)
CHILD = "processors/subprocess/child.py"
"""Runs in a process of its own, that has no event loop: it reads its pipe in a thread."""
THREADS = "pipeline/tasks.py"
"""Runs the user's ordinary functions, which may block and cannot be made to yield: a bounded pool, and the only one."""
ENTRANCE = "pipeline/runner.py"
"""Runs the event loop."""


def test_nobody_but_the_clock_reads_time_or_sleeps() -> None:
    broken = [
        f"{module.line(node)} uses {name}: take the worker's clock (self.clock, self.now_ns)"
        for module in modules().values()
        if module.path != CLOCK
        for name, node in uses(module)
        if TIME.fullmatch(name) and not name.startswith(("self.clock.", "time.struct_time"))
    ]
    assert broken == []


def test_the_lint_rule_bans_the_same() -> None:
    config = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    banned = config["tool"]["ruff"]["lint"]["flake8-tidy-imports"]["banned-api"]
    assert {"time.monotonic", "time.sleep", "asyncio.sleep", "asyncio.wait_for", "datetime.datetime.now"} <= set(banned)
    assert {"asyncio.create_task", "asyncio.gather", "threading.Thread"} <= set(banned)


def test_nobody_but_the_engine_makes_tasks_or_threads() -> None:
    broken = [
        f"{module.line(node)} uses {name}: yield in a handler (a job), or ask pipeline/tasks.py"
        for module in modules().values()
        for name, node in uses(module)
        if TASKS.fullmatch(name)
        and module.path not in ENGINE
        and not (module.path in (CHILD, THREADS) and name == "threading.Thread")
        and not (module.path == ENTRANCE and name == "asyncio.Runner")
    ]
    assert broken == []


def test_the_scan_finds_what_it_is_for() -> None:
    """A law that cannot fail is none."""
    for name in ("time.monotonic", "asyncio.sleep", "().call_later", "loop.time", "asyncio.timeout"):
        assert TIME.fullmatch(name), name
    for name in ("asyncio.create_task", "loop.create_task", "().create_task", "asyncio.gather", "threading.Thread"):
        assert TASKS.fullmatch(name), name
    clock = modules()["voxline.pipeline.clock"]
    assert any(TIME.fullmatch(name) for name, _ in uses(clock))
    assert any(TASKS.fullmatch(name) for name, _ in uses(modules()["voxline.pipeline.engine.job_runner"]))

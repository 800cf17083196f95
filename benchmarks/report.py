"""Turns the numbers into tables, verdicts and RESULTS.md."""

from __future__ import annotations

import platform
import subprocess
import time
from pathlib import Path
from typing import Any

from measure import summary
from specs import OURS, Bench, Row, Target

Rounds = list[dict[str, dict[str, Any]]]
Results = dict[str, Rounds]

FAIRNESS = Path(__file__).with_name("FAIRNESS.md")


def _figures(rounds: Rounds, label: str, key: str) -> list[float]:
    return [float(said[label][key]) for said in rounds if label in said and key in said[label]]


def _ratios(bench: Bench, rounds: Rounds, label: str) -> list[float]:
    """How many times better ours is than the row, in each repeat that has both."""
    made: list[float] = []
    mine = next((row.against for row in bench.rows if row.label == label), OURS)
    for said in rounds:
        if mine in said and label in said:
            ours, other = float(said[mine][bench.figure]), float(said[label][bench.figure])
            above, below = (ours, other) if bench.more_is_better else (other, ours)
            if below > 0:
                made.append(above / below)
    return made


def _number(value: float) -> str:
    if value == int(value) and abs(value) < 1e6:
        return f"{int(value):,}"
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def _spread(values: list[float]) -> str:
    """Median, and the extremes in brackets where there are several."""
    if not values:
        return "-"
    said = summary(values)
    if len(values) == 1 or said["min"] == said["max"]:
        return _number(said["median"])
    return f"{_number(said['median'])} ({_number(said['min'])} to {_number(said['max'])})"


def _rows(bench: Bench, rounds: Rounds) -> list[Row]:
    return [row for row in bench.rows if any(row.label in said for said in rounds)]


def table(bench: Bench, rounds: Rounds) -> str:
    """The benchmark's table, in Markdown."""
    better = "more is better" if bench.more_is_better else "less is better"
    name = {"cpu_us": "CPU", "conversations": "conversations", "ms": "time"}.get(
        bench.figure, bench.figure.split("_")[0]
    )
    heading = f"{name}, {bench.unit}" if bench.unit else name
    head = ["", f"{heading} ({better})", "voxline is better by", *(text for _, text in bench.more)]
    lines = [head, ["---", *["---:"] * (len(head) - 1)]]
    for row in _rows(bench, rounds):
        ratios = [] if row.label in (OURS, row.against) else _ratios(bench, rounds, row.label)
        times = f"{_spread(ratios)} x" if ratios else ""
        figures = _figures(rounds, row.label, bench.figure)
        lines.append(
            [
                row.label,
                _spread(figures),
                times,
                *(_spread(_figures(rounds, row.label, key)) for key, _ in bench.more),
            ]
        )
    if not any(line[2] for line in lines[2:]):
        # Nothing stands beside ours.
        lines = [line[:2] + line[3:] for line in lines]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _verdict(bench: Bench, target: Target, rounds: Rounds) -> tuple[str, str, str]:
    """Return the target, the measured value and the verdict."""
    if target.kind == "ratio":
        values = _ratios(bench, rounds, target.row)
        wanted = f"at least {_number(target.bound)} x better than {target.row}"
        good = bool(values) and summary(values)["median"] >= target.bound
    elif target.kind == "within":
        values = [1 / ratio for ratio in _ratios(bench, rounds, target.row)]
        wanted = f"at most {_number(target.bound)} x {target.row}"
        good = bool(values) and summary(values)["median"] <= target.bound
    else:
        key = target.figure or bench.figure
        values = _figures(rounds, target.row, key)
        heading = dict(bench.more).get(key, "") if target.figure else bench.unit
        wanted = f"at most {_number(target.bound)} {heading}".rstrip()
        good = bool(values) and summary(values)["median"] <= target.bound
    if not values:
        return wanted, "-", "not measured"
    return wanted, _spread(values), "met" if good else "**not met**"


def verdicts(benches: list[Bench], results: Results) -> str:
    """All targets in one table."""
    lines = [["figure", "target", "measured", ""], ["---", "---", "---:", "---"]]
    for bench in benches:
        rounds = results.get(bench.name, [])
        lines.extend([bench.title, *_verdict(bench, target, rounds)] for target in bench.targets)
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def _machine() -> str:
    model = platform.processor() or platform.machine()
    try:
        for line in Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                model = line.split(":", 1)[1].strip()
                break
    except OSError:
        pass
    return f"{model}, {platform.system()} {platform.machine()}"


def _commit() -> str:
    done = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parent,
    )
    return done.stdout.strip() if done.returncode == 0 else "uncommitted"


def _versions(results: Results) -> str:
    found: dict[str, str] = {}
    for rounds in results.values():
        for said in rounds:
            for numbers in said.values():
                if "version" in numbers:
                    found[{"peer": "pipecat-ai", "ours": "voxline"}.get(numbers["side"], "")] = numbers["version"]
    found.pop("", None)
    return ", ".join([*(f"{name} {version}" for name, version in found.items()), f"Python {platform.python_version()}"])


def write(
    where: Path,
    benches: list[Bench],
    results: Results,
    *,
    repeats: int,
    core: int | None,
    took_s: float,
    whole: bool,
) -> None:
    """The page for people."""
    kept = "one core each" if core is not None else "no core of their own (this system cannot pin)"
    beside = any(row.side != "ours" for bench in benches for row in bench.rows)
    parts = [
        "# Benchmarks\n",
        "voxline beside pipecat-ai, the framework most people know, and beside a bare chain of awaited "
        "calls. Made by `make bench`, in one run.\n"
        if beside
        else "What voxline promises by itself, measured. Made by `make bench`.\n",
        "Others: [transports](RESULTS-transports.md), [sessions](RESULTS-sessions.md), "
        "[services](RESULTS-services.md), [recognition](RESULTS-recognition.md).\n",
        *(["> Only a part, or a quick look: not a result.\n"] if not whole else []),
        f"- machine: {_machine()}; measured processes had {kept}\n"
        f"- versions: {_versions(results)}; commit {_commit()}\n"
        f"- {time.strftime('%Y-%m-%d')}; {repeats} interleaved repeats; {took_s / 60:.0f} minutes\n",
        "A figure is the median of the repeats, with the least and the greatest in brackets."
        + (" *voxline is better by* is the ratio within each repeat, again with its extremes." * beside)
        + "\n",
        "## What was to be reached\n",
        verdicts(benches, results) + "\n",
        *(["## How it was made fair\n", FAIRNESS.read_text(encoding="utf-8")] if beside else []),
    ]
    for bench in benches:
        if bench.name in results:
            parts += [f"## {bench.title}\n", bench.text + "\n", table(bench, results[bench.name]) + "\n"]
    where.write_text("\n".join(parts), encoding="utf-8")

"""`make bench`: measures voxline beside a bare chain of calls and beside pipecat-ai, and writes the RESULTS pages.

    python benchmarks/run.py [--only NAME] [--repeats N] [--quick] [--no-peer] [--core N]

Each row of each benchmark is a process of its own on one core; rows are interleaved, in alternating order.
A page in `benchmarks/` is written by a run of all that stands on it (`--only` can name just that); a part, or a
quick look, writes to `build/bench/`.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from peer_env import ROOT, peer_python
from report import Results, table, write
from specs import BENCHES, Bench, Row

HERE = Path(__file__).resolve().parent
LEAST_REPEATS = 5
RECOGNITION = "recognition"


def measured(
    row: Row, bench: Bench, python: Path, core: int | None, parameters: dict[str, Any]
) -> dict[str, Any] | None:
    """Run one row once; None, with the reason on the terminal, when it failed."""
    if bench.scenario == "import":
        command = [str(python), "imports.py", "-" if core is None else str(core), *row.config.split()]
    else:
        command = [str(python), "side.py", row.side, row.config, bench.scenario, json.dumps(parameters)]
        if core is not None:
            command.append(str(core))
    try:
        done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=bench.timeout_s, check=False)
    except subprocess.TimeoutExpired:
        print(f"    {row.label}: no answer within {bench.timeout_s:g} s", flush=True)
        return None
    lines = done.stdout.strip().splitlines()
    if done.returncode or not lines:
        print(f"    {row.label}: failed\n{done.stderr[-2000:]}", flush=True)
        return None
    return json.loads(lines[-1])


def run_bench(
    bench: Bench, rows: list[Row], pythons: dict[str, Path], core: int | None, repeats: int, quick: bool
) -> list[dict[str, dict[str, Any]]]:
    """The repeats, each with what every row said."""
    rounds: list[dict[str, dict[str, Any]]] = []
    begin: dict[str, int] = {}
    for number in range(repeats):
        said: dict[str, dict[str, Any]] = {}
        for row in rows if number % 2 == 0 else reversed(rows):
            began = time.perf_counter()
            parameters = {**bench.parameters, **row.parameters, **(bench.quick if quick else {})}
            if row.label in begin:
                parameters[bench.carries] = begin[row.label]
            numbers = measured(row, bench, pythons[row.side], core, parameters)
            if numbers is None:
                continue
            said[row.label] = numbers
            if bench.carries:
                begin[row.label] = max(4, int(numbers[bench.figure] * 0.8))
            figure = f"{numbers[bench.figure]:.4g} {bench.unit}".rstrip()
            took = time.perf_counter() - began
            print(f"  {number + 1}/{repeats} {row.label:52s} {figure:>12s}   ({took:.0f} s)", flush=True)
        rounds.append(said)
    return rounds


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Measure voxline beside pipecat-ai and bare calls.")
    names = ", ".join([*(bench.name for bench in BENCHES), RECOGNITION])
    parser.add_argument("--only", action="append", default=[], metavar="NAME", help=f"one of: {names} (or a beginning)")
    parser.add_argument("--repeats", type=int, default=LEAST_REPEATS, help="interleaved repeats (5)")
    parser.add_argument("--quick", action="store_true", help="one short repeat of everything: a look, not a result")
    parser.add_argument("--no-peer", action="store_true", help="our side and the bare chain only")
    parser.add_argument("--no-ours", action="store_true", help="the peer and the bare chain only")
    parser.add_argument("--core", type=int, help="the core to keep to (the last one allowed)")
    return parser.parse_args()


def recognition(quick: bool) -> None:
    """How well the offline rover understands: not a figure of repeats, but a list, so it has its own page."""
    from recognition import bench

    where = (ROOT / "build" / "bench" if quick else HERE) / "RESULTS-recognition.md"
    where.parent.mkdir(parents=True, exist_ok=True)
    print(f"\n{RECOGNITION}: how well the offline rover understands", flush=True)
    bench(where, quick=quick)
    print(f"\nwritten: {where.relative_to(ROOT)}", flush=True)


def main() -> None:
    asked = arguments()
    chosen = [bench for bench in BENCHES if not asked.only or any(bench.name.startswith(name) for name in asked.only)]
    recognises = not asked.only or any(RECOGNITION.startswith(name) for name in asked.only)
    if not chosen and not recognises:
        raise SystemExit(f"no benchmark begins with {asked.only}; there are {[bench.name for bench in BENCHES]}")
    if recognises and not asked.no_ours:
        recognition(asked.quick)
    if not chosen:
        return
    repeats = 1 if asked.quick else asked.repeats
    core: int | None = asked.core
    if core is None and hasattr(os, "sched_getaffinity"):
        core = max(os.sched_getaffinity(0))
    pythons = {"ours": Path(sys.executable), "bare": Path(sys.executable)}
    if not asked.no_peer:
        pythons["peer"] = peer_python()
    left_out = {side for side, out in (("peer", asked.no_peer), ("ours", asked.no_ours)) if out}
    began = time.time()
    results: Results = {}
    for place, bench in enumerate(chosen, 1):
        rows = [row for row in bench.rows if row.side not in left_out]
        if not rows:
            continue
        print(f"\n[{place}/{len(chosen)}] {bench.name}: {bench.title}", flush=True)
        most = repeats if bench.repeats is None else min(repeats, bench.repeats)
        results[bench.name] = run_bench(bench, rows, pythons, core, most, asked.quick)
        print(table(bench, results[bench.name]), flush=True)
    build = ROOT / "build" / "bench"
    build.mkdir(parents=True, exist_ok=True)
    (build / "raw.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    for page in dict.fromkeys(bench.page for bench in chosen):
        benches = [bench for bench in chosen if bench.page == page]
        rows = {row.side for bench in benches for row in bench.rows}
        all_of_it = benches == [bench for bench in BENCHES if bench.page == page] and not rows & left_out
        whole = all_of_it and not asked.quick and repeats >= LEAST_REPEATS
        where = (HERE if whole else build) / page
        write(where, benches, results, repeats=repeats, core=core, took_s=time.time() - began, whole=whole)
        print(f"\nwritten: {where.relative_to(ROOT)} (every number: build/bench/raw.json)")


if __name__ == "__main__":
    main()

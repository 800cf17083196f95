"""Conversations with services that fail, in virtual and in real time: `python benchmarks/chaos.py`.

In virtual time, conversations of 200 turns with random faulty services, each judged by what was heard; then 200 turns
in real time against a faulty server on this machine, with processes that are killed. Prints a table for each.
``--conversations`` and ``--turns`` say how many, ``--seed`` which.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import time
import tracemalloc

from voxline.tests.chaos.live import converse_live
from voxline.tests.chaos.talk import Tally, converse

TURNS = 200


def table(title: str, rows: list[tuple[str, str]]) -> None:
    """Print it."""
    print(f"\n{title}")
    for name, value in rows:
        print(f"  {name:28} {value}")


async def virtual(conversations: int, seed: int) -> None:
    """Many, in virtual time."""
    total, broken = Tally(), list[int]()
    began = time.perf_counter()
    for number in range(seed, seed + conversations):
        try:
            total.add(await converse(number, TURNS))
        except AssertionError as error:
            broken.append(number)
            print(f"  seed {number}: {error}")
        if (number - seed) % 10 == 9:
            print(f"  {number - seed + 1} conversations, {time.perf_counter() - began:.0f} s", flush=True)
    gc.collect()
    tracemalloc.start()
    weighed = await converse(seed, TURNS)
    tracemalloc.stop()
    table(
        f"{conversations} conversations of {TURNS} turns in virtual time, {time.perf_counter() - began:.0f} s",
        [
            ("turns", f"{total.turns}"),
            ("answered in full", f"{total.answered}"),
            ("apologies", f"{total.apologies}, needless: {total.needless}"),
            ("broken off by the user", f"{total.broken_off}"),
            ("answered in part", f"{total.partly}"),
            ("faults", f"{total.faults.total()}"),
            ("attempts in vain", f"{total.retries}"),
            ("switched to the fall-back", f"{total.switched}"),
            ("longest wait", f"{total.worst_s:.2f} s; {total.worst:.0%} of what is promised at most"),
            ("conversations broken", f"{len(broken)} {broken[:10]}"),
            ("memory", f"{weighed.bytes_per_turn:.0f} bytes a turn, of the second {TURNS // 2}"),
        ],
    )


async def real(turns: int, seed: int) -> None:
    """One, in real time."""
    tracemalloc.start()
    report = await converse_live(seed, turns, lambda line: print(f"  {line}", flush=True))
    table("In real time, with HTTP and processes", [*report.rows()])
    print(f"  faults: {dict(report.faults.most_common())}")


def main() -> None:
    """Both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--conversations", type=int, default=25, help="in virtual time; 0: none")
    parser.add_argument("--turns", type=int, default=200, help="in real time; 0: none")
    parser.add_argument("--seed", type=int, default=100_000)
    wanted = parser.parse_args()
    logging.disable(logging.CRITICAL)  # the faults are wanted
    if wanted.conversations:
        asyncio.run(virtual(wanted.conversations, wanted.seed))
    if wanted.turns:
        asyncio.run(real(wanted.turns, wanted.seed))


if __name__ == "__main__":
    main()

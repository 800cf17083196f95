"""Long conversations with services that fail: every turn ends in an answer or in an apology that is heard.

`chaos/faults.py` has the services, `chaos/talk.py` what is judged after each round, and `chaos/promise.py` how long a
turn may take at most, by the settings. `benchmarks/chaos.py` runs thousands of them, and 200 turns in real time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import tracemalloc
from collections.abc import Iterator

import pytest
from voxline.processors.service.base import ServiceSettings
from voxline.processors.session.settings import SessionSettings
from voxline.tests.chaos.promise import Load, promised_s, service_s
from voxline.tests.chaos.talk import WEATHERS, Talk, Tally, converse
from voxline.tests.scale import examples

CONVERSATIONS = int(os.environ.get("VOXLINE_CHAOS", examples(20, 10)))
"""Of 30 turns each."""
BLOCK = 5
BYTES_PER_TURN = 2_000
"""What lists that have a bound may still grow by in the second hundred turns: measured 500 to 900."""


@pytest.fixture(autouse=True)
def _no_log() -> Iterator[None]:
    """The faults are wanted, and what pytest keeps of a log is no leak."""
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


@pytest.mark.parametrize("block", range(CONVERSATIONS // BLOCK))
async def test_every_turn_ends_in_an_answer_or_an_apology(block: int) -> None:
    total = Tally()
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        total.add(await converse(seed, 30))
    assert total.answered > total.turns / 4, f"nearly nothing works: {total}"
    assert total.apologies > total.turns / 8, f"nearly nothing fails: {total}"
    assert total.retries > total.turns / 4


async def test_services_that_do_not_end_when_they_should() -> None:
    """They go on when they are cancelled. Few, for each that is closed meanwhile costs a second of real time."""
    tally = await converse(7, 30, stubborn=0.1)
    assert tally.faults["went on"]


async def test_a_long_conversation_leaves_nothing_behind() -> None:
    await converse(1, 30)
    tracemalloc.start()
    try:
        tally = await converse(5, 200)
    finally:
        tracemalloc.stop()
    assert tally.turns >= 200
    assert 0 < tally.bytes_per_turn < BYTES_PER_TURN


async def test_the_same_seed_gives_the_same_conversation() -> None:
    one, other = Talk(11, 20), Talk(11, 20)
    assert await one.run() == await other.run()
    assert one.clock.now_ns() == other.clock.now_ns()


async def test_when_nothing_works_every_turn_has_its_apology() -> None:
    talk = Talk(3, 1)
    before = asyncio.all_tasks()
    running = asyncio.ensure_future(talk.worker.run())
    await talk.clock.settle()
    talk.book.weather = WEATHERS[-1]
    for turn in range(10):
        await (talk.types() if turn % 2 else talk.speaks())
        await talk.rest()
        talk.judge()
        talk.asked.clear()
        talk.pressed_ns.clear()
        talk.transport.heard.clear()
    # What is late may be there by its deadline.
    assert talk.tally.apologies + talk.tally.answered >= 10
    assert talk.tally.apologies >= 8
    talk.worker.cancel()
    await talk.clock.advance(20)
    await running
    assert asyncio.all_tasks() <= before | {running}


# --- the promise -----------------------------------------------------------------------------------------------------


def test_the_promise_of_one_service_is_its_attempts_and_its_waits() -> None:
    rules = ServiceSettings(connect_timeout_s=1, first_timeout_s=2, between_timeout_s=3, attempts=3, backoff_max_s=4)
    assert service_s([rules], Load(pieces=2)) == 3 * (1 + 2 + 2 * 3 + 0.5) + 2 * 4


def test_the_promise_of_several_is_one_attempt_of_each() -> None:
    rules = ServiceSettings(connect_timeout_s=1, first_timeout_s=2, between_timeout_s=3, attempts=3)
    assert service_s([rules, rules], Load(pieces=1)) == 2 * (1 + 2 + 3 + 0.5)


def test_no_answer_takes_longer_than_the_patience_of_the_session() -> None:
    rules = [ServiceSettings()]
    patient = SessionSettings(response_timeout_s=None)
    hasty = SessionSettings(response_timeout_s=5, error_timeout_s=1)
    assert promised_s(hasty, [], rules, rules, Load()) == pytest.approx(5 + 2 * 1 + 0.04)
    assert promised_s(patient, [], rules, rules, Load()) == pytest.approx(2 * service_s(rules, Load()) + 0.04)
    assert promised_s(hasty, rules, rules, rules, Load()) > promised_s(hasty, [], rules, rules, Load())


# --- real time -------------------------------------------------------------------------------------------------------


async def test_real_services_and_real_processes() -> None:
    """A faulty server on this machine, and processes that are killed: some seconds, by the machine's clock."""
    for package in ("openai", "aiohttp", "pocketsphinx", "espeakng_loader", "psutil"):
        pytest.importorskip(package)
    from voxline.tests.chaos.live import converse_live

    report = await converse_live(2, 14)
    assert not report.broken, report.broken
    assert report.answers + report.apologies + report.interrupted + report.unclear == report.turns
    assert report.left == dict.fromkeys(report.left, 0)

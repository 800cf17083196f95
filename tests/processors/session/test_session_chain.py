"""The whole chain in virtual time: random conversations with random faults, checked by what was heard.

See `conversation_chain.py` for the bot, and for what is checked: no sample of a response after its cut, no older one
after a newer, nothing lost or doubled by a pause, the history equal to what was heard, one record for each
interruption, every handle resolved, nothing left behind.
"""

from __future__ import annotations

import asyncio
import gc
import os

import pytest
from voxline.tests.processors.session.conversation_chain import converse
from voxline.tests.processors.session.conversation_day import call
from voxline.tests.scale import examples

CONVERSATIONS = int(os.environ.get("VOXLINE_CONVERSATIONS", examples(240, 80)))
"""Of a virtual minute each. `benchmarks/sessions.py` has thousands."""
BLOCK = 20


@pytest.mark.parametrize("block", range(CONVERSATIONS // BLOCK))
async def test_random_conversations(block: int):
    interruptions = 0
    for seed in range(block * BLOCK, (block + 1) * BLOCK):
        try:
            chain = await converse(seed)
        except BaseException as error:
            error.add_note(f"the conversation with the seed {seed}")
            raise
        interruptions += len(chain.session.interruptions)
    assert interruptions > BLOCK, "nearly nobody interrupts"


@pytest.mark.parametrize("seed", [3004, 3050])
async def test_a_guess_that_somebody_else_cuts_is_not_heard(seed: int):
    """Found among thousands: playout was to go on before the output had seen the cancel frame."""
    await converse(seed)


async def test_the_same_seed_gives_the_same_conversation():
    one, other = await converse(11), await converse(11)
    assert one.session.transitions == other.session.transitions
    assert one.session.turns == other.session.turns
    assert [chunk.at_ns for chunk in one.transport.heard] == [chunk.at_ns for chunk in other.transport.heard]


async def test_calls_that_end_by_time_outs_leave_nothing_behind():
    """A small part of the day that `benchmarks/sessions.py` measures."""
    tasks = asyncio.all_tasks()
    reasons = [(await call(seed))[1] for seed in range(30)]
    assert {"idle", "hung up"} <= set(reasons)
    gc.collect()
    before = len(gc.get_objects())
    for seed in range(30, 60):
        await call(seed)
    gc.collect()
    assert len(gc.get_objects()) - before < 30, "something is left of each call"
    assert asyncio.all_tasks() == tasks

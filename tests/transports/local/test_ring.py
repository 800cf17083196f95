"""The ring before the sound card: in time, to the sample, and so for hours, though the card's clock is another one."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline import Samples
from voxline.transports.local.ring import HELD_MS, LATE_NS, PlayoutRing

RATE = 24_000
BLOCK = 480
BLOCK_NS = 20_000_000
MS = 1_000_000


def ramp(first: int, count: int = BLOCK) -> Samples:
    """Samples that are known by their values; none is 0."""
    return ((np.arange(first, first + count)) % 30_000 + 1).astype(np.int16)


def filled(blocks: int, due_ns: int = 0) -> PlayoutRing:
    ring = PlayoutRing(RATE)
    for number in range(blocks):
        ring.put(ramp(number * BLOCK), due_ns + number * BLOCK_NS)
    return ring


def test_nothing_is_silence() -> None:
    assert not PlayoutRing(RATE).take(BLOCK, 0).any()


def test_a_sound_begins_when_it_is_due_to_the_sample() -> None:
    ring = filled(2, due_ns=25 * MS)
    first, second, third, fourth = (ring.take(BLOCK, number * BLOCK_NS) for number in range(4))
    assert not first.any()
    assert not second[: 5 * 24].any()
    sound = np.concatenate([second[5 * 24 :], third, fourth[: 5 * 24]])
    assert (sound == ramp(0, 2 * BLOCK)).all()
    assert not fourth[5 * 24 :].any()
    assert ring.underruns == 0


def test_what_comes_late_is_played_at_once_and_whole() -> None:
    ring = filled(3)
    played = np.concatenate([ring.take(BLOCK, 7 * MS + number * BLOCK_NS) for number in range(3)])
    assert (played == ramp(0, 3 * BLOCK)).all()


def test_two_sounds_keep_the_pause_between_them() -> None:
    ring = filled(1)
    ring.put(ramp(BLOCK), 50 * MS)
    played = np.concatenate([ring.take(BLOCK, number * BLOCK_NS) for number in range(4)])
    assert (played[:BLOCK] == ramp(0)).all()
    assert not played[BLOCK : 50 * 24].any()
    assert (played[50 * 24 : 70 * 24] == ramp(BLOCK)).all()
    assert ring.underruns == 0


def test_cleared_is_silent_at_once_and_begins_anew() -> None:
    ring = filled(3)
    ring.take(100, 0)
    ring.clear()
    assert ring.held_ms == 0
    assert not ring.take(BLOCK, 5 * MS).any()
    ring.put(ramp(7), 30 * MS)
    assert ring.underruns == 0
    assert (ring.take(BLOCK, 30 * MS) == ramp(7)).all()


def test_a_pause_loses_nothing() -> None:
    ring = filled(3)
    before = ring.take(BLOCK, 0)
    ring.pause()
    assert not ring.take(BLOCK, BLOCK_NS).any()
    assert ring.held_ms == 40
    ring.resume(3_000 * MS)
    after = [ring.take(BLOCK, 3_000 * MS + number * BLOCK_NS) for number in range(2)]
    assert (np.concatenate([before, *after]) == ramp(0, 3 * BLOCK)).all()
    assert ring.skipped == 0


def test_a_hole_in_a_sound_is_counted() -> None:
    ring = filled(1)
    ring.take(BLOCK, 0)
    assert not ring.take(BLOCK, BLOCK_NS).any()
    ring.put(ramp(BLOCK), BLOCK_NS)
    assert ring.underruns == 1
    assert (ring.take(BLOCK, 2 * BLOCK_NS) == ramp(BLOCK)).all()


def test_a_card_that_does_not_ask_costs_the_oldest() -> None:
    ring = filled(2 * HELD_MS // 20)
    assert ring.held_ms == HELD_MS
    assert ring.skipped == HELD_MS * RATE // 1000


def test_after_a_stall_of_the_card_old_sound_is_skipped_and_not_played_late() -> None:
    ring = filled(1)
    ring.take(BLOCK, 0)
    for number in range(1, 50):
        ring.put(ramp(number * BLOCK), number * BLOCK_NS)
    stalled_ns = 600 * MS
    heard = ring.take(BLOCK, stalled_ns)
    at = (int(heard[0]) - 1) / 24
    assert abs(at - 600) <= 250
    assert ring.skipped > 0


@pytest.mark.parametrize("ppm", [-200, 200])
def test_an_hour_of_one_sound_stays_in_time_though_the_card_runs_beside_the_clock(ppm: int) -> None:
    """200 ppm are 0.7 s in an hour: without care it runs dry 12 times, or over."""
    ring = PlayoutRing(RATE)
    sound, now_ns, lead_ns = ramp(0), 0, 3 * BLOCK_NS
    put = 0
    held: list[float] = []
    for asked in range(3_600 * 50):
        now_ns = asked * BLOCK_NS - asked * BLOCK_NS * ppm // 1_000_000
        while put * BLOCK_NS - lead_ns <= now_ns:
            ring.put(sound, put * BLOCK_NS)
            put += 1
        ring.take(BLOCK, now_ns)
        held.append(ring.held_ms)
    assert ring.underruns == 0
    assert ring.skipped == 0
    # The lead, less the block that was taken, and what comes each 20 ms; early or late by what is borne.
    assert max(held) <= 60 + LATE_NS / MS + 5
    assert min(held) >= 20 - LATE_NS / MS - 5


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("put"), st.integers(1, 960), st.integers(0, 60)),
            st.tuples(st.just("take"), st.integers(1, 960), st.integers(0, 60)),
            st.tuples(st.just("clear"), st.just(0), st.just(0)),
            st.tuples(st.just("halt"), st.just(0), st.just(0)),
            st.tuples(st.just("go on"), st.just(0), st.integers(0, 3_000)),
        ),
        max_size=60,
    )
)
def test_whatever_happens_order_is_kept_and_nothing_is_played_twice(steps: list[tuple[str, int, int]]) -> None:
    ring = PlayoutRing(RATE)
    now_ns, due_ns, value = 0, 0, 0
    last = 0
    for what, count, ms in steps:
        if what == "put":
            value += 1
            due_ns = max(due_ns, now_ns) + ms * MS
            ring.put(np.full(count, value, np.int16), due_ns)
            due_ns += count * 1_000_000_000 // RATE
        elif what == "take":
            now_ns += ms * MS
            played = ring.take(count, now_ns)
            assert len(played) == count
            heard = played[played > 0]
            assert (np.diff(heard) >= 0).all()
            if len(heard):
                assert heard[0] >= last
                last = int(heard[-1])
        elif what == "clear":
            ring.clear()
            last = value
        elif what == "halt":
            ring.pause()
        else:
            now_ns += ms * MS
            ring.resume(now_ns)
        assert 0 <= ring.held_ms <= HELD_MS

"""Rate limits: token buckets in a table with a bound."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline import VirtualClock
from voxline.transports.server.limits import Buckets, key_of

NS_PER_S = 1_000_000_000


def buckets(clock: VirtualClock, *, per_minute: float = 60, burst: int = 5, keys: int = 100) -> Buckets:
    return Buckets(clock, per_minute=per_minute, burst=burst, keys=keys)


def test_a_burst_passes_and_then_one_for_each_token_that_comes() -> None:
    clock = VirtualClock(autojump=False)
    bucket = buckets(clock)
    assert [bucket.take("a") for _ in range(5)] == [0.0] * 5
    assert bucket.take("a") == pytest.approx(1.0)
    assert bucket.take("b") == 0.0, "another address has a bucket of its own"
    clock.set(round(0.6 * NS_PER_S))
    assert bucket.take("a") == pytest.approx(0.4)
    clock.set(1 * NS_PER_S)
    assert bucket.take("a") == 0.0
    assert bucket.take("a") == pytest.approx(1.0)


def test_a_bucket_does_not_fill_beyond_its_size() -> None:
    clock = VirtualClock(autojump=False)
    bucket = buckets(clock)
    bucket.take("a")
    clock.set(3_600 * NS_PER_S)
    assert [bucket.take("a") == 0.0 for _ in range(6)] == [True] * 5 + [False]


@given(st.lists(st.tuples(st.floats(0, 5), st.sampled_from("abcd")), max_size=200))
def test_nobody_gets_more_than_the_burst_and_the_rate_whatever_the_times(asked: list[tuple[float, str]]) -> None:
    clock = VirtualClock(autojump=False)
    bucket = buckets(clock)
    got: dict[str, list[int]] = {}
    for after_s, key in asked:
        clock.set(clock.now_ns() + round(after_s * NS_PER_S))
        wait_s = bucket.take(key)
        assert 0.0 <= wait_s <= 1.0 + 1e-9
        if wait_s == 0.0:
            got.setdefault(key, []).append(clock.now_ns())
    for times in got.values():
        for first, since in enumerate(times):
            for last in range(first, len(times)):
                allowed = 5 + (times[last] - since) / NS_PER_S
                assert last - first + 1 <= allowed + 1e-6


def test_the_table_is_bounded_and_the_one_quiet_longest_is_forgotten() -> None:
    bucket = buckets(VirtualClock(autojump=False), burst=1, keys=3)
    for key in "abc":
        bucket.take(key)
    assert bucket.take("a") > 0
    bucket.take("d")
    assert len(bucket) == 3
    assert bucket.take("a") > 0, "it was asked for lately"
    assert bucket.take("b") == 0.0


@pytest.mark.parametrize(
    ("address", "key"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::"),
        ("2001:db8:1:2:ffff::1", "2001:db8:1:2::"),
        ("fe80::1%eth0", "fe80::"),
        ("", ""),
        ("x" * 1_000, "x" * 64),
    ],
)
def test_ipv6_is_counted_by_network(address: str, key: str) -> None:
    assert key_of(address) == key

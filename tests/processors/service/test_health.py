"""Health: order of the members, and rests after failures."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline import SettingsError
from voxline.processors.service.health import MAX_REQUESTED_REST_S, Health

S = 1_000_000_000


def test_all_are_healthy_at_first_in_the_given_order():
    assert Health(3).order(0) == Health(3).healthy(5 * S) == [0, 1, 2]


def test_a_failed_member_rests_for_a_second_and_returns_to_its_place():
    health = Health(3)
    health.failed(0, 10 * S)
    assert health.order(10 * S) == health.order(11 * S - 1) == [1, 2]
    assert health.order(11 * S) == [0, 1, 2]


def test_each_failure_in_a_row_doubles_the_rest_up_to_a_minute():
    health, now, rests = Health(2), 0, list[int]()
    for _ in range(2_000):
        health.failed(0, now)
        rest = next(n for n in range(1, 100) if health.order(now + n * S) == [0, 1])
        rests.append(rest)
        now += rest * S
    assert rests[:7] == [1, 2, 4, 8, 16, 32, 60]
    assert set(rests[7:]) == {60}
    health.worked(0)
    assert health.order(now) == [0, 1]
    health.failed(0, now)
    assert health.order(now + S) == [0, 1]


def test_if_all_rest_the_first_to_recover_is_asked():
    health = Health(3)
    health.failed(2, 1 * S)
    health.failed(1, 0)
    health.failed(1, 0)
    health.failed(0, 1 * S, wait_s=20)
    assert health.healthy(S) == []
    assert health.order(S) == [1]
    assert health.recovers_ns() == 2 * S
    assert health.order(2 * S) == [1, 2]
    assert health.order(21 * S) == [0, 1, 2]


@pytest.mark.parametrize(
    ("said", "rest_s"),
    [(7.5, 7.5), (0, 0), (-3, 0), (90, 90), (1e9, MAX_REQUESTED_REST_S), (math.nan, 1), (math.inf, 1)],
)
def test_a_requested_rest_is_kept_up_to_a_bound(said: float, rest_s: float):
    health = Health(2)
    health.failed(0, S, wait_s=said)
    assert health.healthy(S + round(rest_s * S)) == [0, 1]
    assert health.healthy(S + round(rest_s * S) - 1) == [1]


@pytest.mark.parametrize(
    "settings", [(0, 1, 60), (-1, 1, 60), (1, 0, 60), (1, 61, 60), (1, 1, math.inf), (1, math.nan, 60)]
)
def test_impossible_settings_raise(settings: tuple[int, float, float]):
    with pytest.raises(SettingsError):
        Health(*settings)


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["failed", "worked"]), st.integers(0, 5 * S))))
def test_one_member_is_always_asked_none_twice_and_none_rests_longer_than_a_minute(
    happened: list[tuple[int, str, int]],
):
    health, now = Health(4), 0
    for index, what, passed in happened:
        now += passed
        if what == "failed":
            health.failed(index, now)
            assert index not in health.healthy(now)
        else:
            health.worked(index)
            assert index in health.order(now)
        order = health.order(now)
        assert order
        assert order == sorted(set(order))
        assert health.order(now + 60 * S) == [0, 1, 2, 3]

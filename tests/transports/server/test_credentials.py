"""Tokens, signed credentials, and what is remembered of them."""

from __future__ import annotations

import string

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.transports.server import Refusal, make_credential
from voxline.transports.server.credentials import Grant, TokenCheck

SECRET = "a secret that nobody guesses"
TOKEN = "a token that nobody guesses"
NOW_S = 1_700_000_000.0


class Time:
    def __init__(self) -> None:
        self.now_s = NOW_S

    def __call__(self) -> float:
        return self.now_s


def tokens(
    time: Time | None = None, *, token: str | None = None, secret: str | None = SECRET, nonces: int = 100
) -> TokenCheck:
    return TokenCheck(token=token, secret=secret, max_nonces=nonces, longest_s=3_600, now_s=time or Time())


def credential(valid_s: float = 60, subject: str = "ann", secret: str = SECRET) -> str:
    return make_credential(secret, subject=subject, valid_s=valid_s, now_s=NOW_S)


def status_of(refusal: pytest.ExceptionInfo[Refusal]) -> int:
    return refusal.value.status


@given(st.text(max_size=40))
def test_a_credential_lets_its_subject_in_once(subject: str) -> None:
    checks = tokens()
    presented = credential(subject=subject)
    assert checks.admit(presented).subject == subject
    with pytest.raises(Refusal, match="used before") as refused:
        checks.admit(presented)
    assert status_of(refused) == 401


@given(st.integers(0, 200), st.sampled_from(string.printable))
def test_a_credential_with_any_character_changed_is_wrong(at: int, letter: str) -> None:
    presented = credential()
    at %= len(presented)
    changed = presented[:at] + letter + presented[at + 1 :]
    if changed != presented:
        with pytest.raises(Refusal) as refused:
            tokens().admit(changed)
        assert status_of(refused) == 401


@given(st.text(max_size=100))
def test_whatever_is_presented_is_refused_or_let_in_and_nothing_else(presented: str) -> None:
    with pytest.raises(Refusal) as refused:
        tokens(token=TOKEN).admit(presented)
    assert status_of(refused) == 401


def test_of_another_secret_it_is_wrong() -> None:
    with pytest.raises(Refusal, match="wrong"):
        tokens().admit(credential(secret="another secret altogether"))


def test_expired_it_is_refused_and_one_that_is_valid_too_long_is_too() -> None:
    time = Time()
    checks = tokens(time)
    presented = credential(valid_s=60)
    time.now_s += 60
    with pytest.raises(Refusal, match="expired"):
        checks.admit(presented)
    with pytest.raises(Refusal, match="3600 s"):
        checks.admit(credential(valid_s=86_400))


def test_it_is_good_for_the_conversation_that_it_began_also_when_expired_and_for_no_other() -> None:
    time = Time()
    checks = tokens(time)
    mine, other = credential(), credential()
    begun, others = checks.admit(mine), checks.admit(other)
    time.now_s += 10_000
    assert checks.known(mine, begun) == begun
    for presented, of in ((mine, others), (other, begun)):
        with pytest.raises(Refusal, match="not the one") as refused:
            checks.known(presented, of)
        assert status_of(refused) == 401


def test_used_ones_are_forgotten_when_they_expire_and_not_before() -> None:
    time = Time()
    checks = tokens(time, nonces=2)
    checks.admit(credential(valid_s=10))
    checks.admit(credential(valid_s=100))
    with pytest.raises(Refusal, match="Too many") as refused:
        checks.admit(credential())
    assert (status_of(refused), refused.value.headers["Retry-After"]) == (503, "10")
    time.now_s += 11
    checks.admit(make_credential(SECRET, now_s=time.now_s))
    assert checks.remembered == 2


def test_one_that_came_to_nothing_may_be_used_again() -> None:
    checks = tokens()
    presented = credential()
    checks.give_back(checks.admit(presented))
    checks.admit(presented)
    with pytest.raises(Refusal):
        checks.admit(presented)


def test_one_that_comes_to_nothing_again_and_again_is_remembered_once() -> None:
    checks, others = tokens(), [credential() for _ in range(3)]
    for presented in others:
        checks.admit(presented)
    presented = credential()
    for _ in range(100):
        checks.give_back(checks.admit(presented))
    assert (checks.remembered, len(checks._expiring)) == (3, 3)
    for known in others:
        with pytest.raises(Refusal):
            checks.admit(known)


def test_a_token_lets_in_any_number_of_times_and_a_wrong_one_never() -> None:
    checks = tokens(token=TOKEN, secret=None)
    assert checks.admit(TOKEN) == checks.admit(TOKEN) == Grant()
    for wrong in ("", TOKEN[:-1], TOKEN + " ", TOKEN.upper(), "é" * 20, "x" * 100_000):
        with pytest.raises(Refusal) as refused:
            checks.admit(wrong)
        assert status_of(refused) == 401
        assert refused.value.headers["WWW-Authenticate"].startswith("Bearer")


def test_with_neither_everybody_is_let_in() -> None:
    assert tokens(secret=None).admit("") == Grant()


def test_nothing_secret_is_in_what_is_printed() -> None:
    grant = tokens().admit(credential())
    assert grant.nonce not in repr(grant)

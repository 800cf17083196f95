"""Ledger of calls: each call ends exactly once, in any order of events."""

from __future__ import annotations

from typing import Any, cast

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, precondition, rule
from voxline.pipeline.errors import ProcessorError
from voxline.pipeline.frames import ToolCall
from voxline.processors.tools.ledger import KEPT_CALLS, Call, CallLedger, ToolOutcome
from voxline.tests.scale import examples

S = 1_000_000_000


def wanted(call_id: str = "c", name: str = "work") -> ToolCall:
    return ToolCall(call_id, name)


def test_a_call_is_asked_for_runs_and_ends():
    ledger = CallLedger()
    call, begins = ledger.add(wanted(), 1, 5)
    assert begins
    assert ledger.open == [call]
    assert ledger.run_ended(call.run, ToolOutcome.DONE, "fine", 9) == [call]
    assert (call.outcome, call.text, call.requested_ns, call.ended_ns) == (ToolOutcome.DONE, "fine", 5, 9)
    assert (ledger.open, ledger.running) == ([], 0)
    with pytest.raises(ProcessorError, match=f"No tool run {call.run}"):
        ledger.run_ended(call.run, ToolOutcome.DONE, "twice", 10)


def test_a_call_that_is_refused_never_runs():
    ledger = CallLedger()
    call, begins = ledger.add(wanted(), 1, 0, refused="no such tool")
    assert not begins
    assert (call.outcome, call.text, ledger.running) == (ToolOutcome.REFUSED, "no such tool", 0)


def test_ids_are_unique_whatever_servers_give():
    ledger = CallLedger()
    ids = [ledger.add(wanted(call_id), 1, 0, taken={"old"})[0].call_id for call_id in ("", "", "c", "c", "c", "old")]
    assert len(set(ids)) == 6
    assert ids[2] == "c"
    assert all(ids)
    assert "old" not in ids


def test_a_call_past_its_deadline_ends_once_and_its_late_result_is_remembered():
    ledger = CallLedger()
    call, _ = ledger.add(wanted(), 1, 0, key="k")
    assert ledger.give_up(call.call_id, ToolOutcome.TIMED_OUT, "too long", 1) is call
    assert ledger.give_up(call.call_id, ToolOutcome.CANCELLED, "cut", 2) is None
    assert ledger.waiting_for(call.run) == []
    # It still runs, so another one waits for the same.
    again, begins = ledger.add(wanted(), 2, 3, key="k")
    assert (begins, again.run) == (False, call.run)
    assert ledger.give_up(again.call_id, ToolOutcome.TIMED_OUT, "too long", 4) is again
    assert ledger.run_ended(call.run, ToolOutcome.DONE, "booked", 5) == []
    assert ledger.late_results == 1
    third, begins = ledger.add(wanted(), 3, 6, key="k")
    assert (begins, third.outcome, third.text) == (False, ToolOutcome.DONE, "booked")
    assert call.text == "too long"


def test_spoken_texts_are_recorded_while_the_call_runs():
    ledger = CallLedger()
    call, _ = ledger.add(wanted(), 1, 0)
    assert ledger.speak(call.call_id, "One moment.")
    ledger.give_up(call.call_id, ToolOutcome.CANCELLED, "cut", 1)
    assert not ledger.speak(call.call_id, "Still at it.")
    assert call.said == ["One moment."]
    assert not ledger.speak("nobody", "Hello?")


def test_the_oldest_calls_that_have_ended_are_forgotten_and_no_open_one_is():
    ledger = CallLedger()
    first, _ = ledger.add(wanted(), 1, 0, key="first")
    for number in range(KEPT_CALLS + 10):
        call, begins = ledger.add(wanted(), 1, 0, key=str(number))
        assert begins
        ledger.run_ended(call.run, ToolOutcome.DONE, "", 0)
    assert len(ledger.calls) == KEPT_CALLS
    assert ledger.open == [first]
    assert ledger.get(first.call_id) is first
    assert ledger.get("c#1") is None
    # So are the results of keys.
    assert ledger.add(wanted(), 1, 0, key="0")[1]
    assert not ledger.add(wanted(), 1, 0, key=str(KEPT_CALLS + 9))[1]


KEYS = st.sampled_from([None, "a", "b"])


class Calls(RuleBasedStateMachine):
    """Calls with and without keys, interruptions, deadlines, retries, late and lost results."""

    runs: Bundle[int] = Bundle("runs")

    def __init__(self) -> None:
        super().__init__()
        self.ledger = CallLedger()
        self.now = 0
        self.ended: dict[str, int] = {}
        """Number of times that the ledger returned each call as ended."""
        self.asked: list[Call] = []
        self.remember_s: dict[int, float | None] = {}
        self.under_way: dict[int, str | None] = {}
        self.known: dict[str, tuple[str, int | None]] = {}

    def note(self, calls: list[Call]) -> None:
        for call in calls:
            assert not call.open
            assert call.ended_ns == self.now
            self.ended[call.call_id] = self.ended.get(call.call_id, 0) + 1

    @rule(target=runs, call_id=st.sampled_from(["", "c", "d"]), response=st.integers(1, 4), key=KEYS,
          remember_s=st.sampled_from([None, 1.0]), refused=st.sampled_from([None, None, None, "no"]))  # fmt: skip
    def ask(self, call_id: str, response: int, key: str | None, remember_s: float | None, refused: str | None) -> Any:
        call, begins = self.ledger.add(
            ToolCall(call_id, "t"), response, self.now, key=key, remember_s=remember_s, refused=refused
        )
        assert call.call_id not in {other.call_id for other in self.asked}
        self.asked.append(call)
        known = None if key is None else self.known.get(key)
        remembered = known is not None and (known[1] is None or self.now < known[1])
        same = [number for number, other in self.under_way.items() if key is not None and other == key]
        if refused is not None:
            assert (begins, call.outcome, call.text) == (False, ToolOutcome.REFUSED, refused)
        elif remembered:
            assert known is not None
            assert (begins, call.outcome, call.text) == (False, ToolOutcome.DONE, known[0])
        elif same:
            assert (begins, call.open, [call.run]) == (False, True, same)
        else:
            assert begins
            assert call.open
            self.under_way[call.run] = key
            self.remember_s[call.run] = remember_s
            return call.run
        if not call.open:
            self.note([call])
        return cast(Any, multiple())

    @rule(
        run=consumes(runs),
        outcome=st.sampled_from([ToolOutcome.DONE, ToolOutcome.DONE, ToolOutcome.FAILED, ToolOutcome.CANCELLED]),
    )
    def end(self, run: int, outcome: ToolOutcome):
        waiting = [call for call in self.asked if call.open and call.run == run]
        text = f"{run} {outcome.value}"
        ended = self.ledger.run_ended(run, outcome, text, self.now)
        assert ended == waiting
        assert all(call.text == text for call in ended)
        self.note(ended)
        key = self.under_way.pop(run)
        if key is not None and outcome is ToolOutcome.DONE:
            keep_s = self.remember_s[run]
            self.known[key] = (text, None if keep_s is None else self.now + round(keep_s * S))

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0), outcome=st.sampled_from([ToolOutcome.TIMED_OUT, ToolOutcome.CANCELLED]))
    def give_up(self, which: int, outcome: ToolOutcome):
        call = self.asked[which % len(self.asked)]
        was_open, before = call.open, (call.outcome, call.text)
        ended = self.ledger.give_up(call.call_id, outcome, "given up", self.now)
        assert (ended is call) == was_open
        if ended is not None:
            self.note([ended])
        else:
            assert (call.outcome, call.text) == before

    @rule(through=st.integers(1, 4))
    def interrupt(self, through: int):
        for call in self.ledger.open:
            if call.response <= through:
                ended = self.ledger.give_up(call.call_id, ToolOutcome.CANCELLED, "cut", self.now)
                assert ended is not None
                assert ended is call
                self.note([ended])

    @precondition(lambda self: self.asked)
    @rule(which=st.integers(0))
    def speak(self, which: int):
        call = self.asked[which % len(self.asked)]
        assert self.ledger.speak(call.call_id, "One moment.") == call.open

    @rule(ms=st.integers(1, 1_500))
    def wait(self, ms: int):
        self.now += ms * 1_000_000

    @invariant()
    def none_is_lost_and_none_is_doubled(self):
        assert self.ledger.calls == self.asked
        for call in self.asked:
            assert self.ended.get(call.call_id, 0) == (0 if call.open else 1)
            # Whoever waits, waits for something that runs.
            assert not call.open or call.run in self.under_way

    @invariant()
    def a_key_runs_once_at_a_time(self):
        keys = [key for key in self.under_way.values() if key is not None]
        assert len(keys) == len(set(keys))
        assert self.ledger.running == len(self.under_way)

    def teardown(self):
        for run in list(self.under_way):
            self.note(self.ledger.run_ended(run, ToolOutcome.CANCELLED, "the end", self.now))
        assert self.ledger.open == []
        assert all(self.ended[call.call_id] == 1 for call in self.asked)


TestCalls = Calls.TestCase
TestCalls.settings = settings(max_examples=examples(150), stateful_step_count=40)

"""Context of a request: results follow calls, old messages are dropped, cuts are noted."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline.frames import Message, ToolCall
from voxline.processors.llm.context import (
    STILL_RUNNING,
    Bounds,
    Summary,
    estimate_tokens,
    repaired,
    trimmed,
    with_cut_notes,
    with_summary,
)

A, B = ToolCall("a", "look"), ToolCall("b", "look")


def user(text: str = "hello") -> Message:
    return Message("user", text)


def bot(text: str = "hi", *calls: ToolCall, cut: bool = False) -> Message:
    return Message("assistant", text, cut=cut, calls=calls)


def result(call_id: str, text: str = "done") -> Message:
    return Message("tool", text, call_id=call_id)


# --- repairs ----------------------------------------------------------------------------------------------------------


def test_ordered_messages_stay_unchanged():
    messages = [Message("system", "be kind"), user(), bot("", A, B), result("a"), result("b"), bot(), user()]
    assert repaired(messages) == messages


def test_calls_of_a_history_of_facts_are_one_message_and_results_are_in_order():
    facts = [user(), bot("", A), bot("", B), result("b"), result("a"), bot("Both.")]
    assert repaired(facts) == [user(), bot("", A, B), result("a"), result("b"), bot("Both.")]


def test_a_result_that_came_later_is_moved_to_its_call():
    facts = [user(), bot("", A), bot("Let me", cut=True), user("never mind"), result("a"), bot("Fine.")]
    assert repaired(facts) == [
        user(), bot("", A), result("a"), bot("Let me", cut=True), user("never mind"), bot("Fine."),
    ]  # fmt: skip


def test_a_call_without_a_result_still_runs():
    assert repaired([user(), bot("", A), user("and?")]) == [
        user(),
        bot("", A),
        result("a", STILL_RUNNING),
        user("and?"),
    ]


def test_results_without_a_call_and_second_ones_are_dropped():
    assert repaired([result("x"), user(), bot("", A), result("a", "1"), result("a", "2")]) == [
        user(), bot("", A), result("a", "1"),
    ]  # fmt: skip
    assert repaired([bot("", A), result("a"), bot("", A)]) == [bot("", A), result("a")]
    assert repaired([bot("", A), result("a"), bot("Again.", A)]) == [bot("", A), result("a"), bot("Again.")]


@pytest.mark.parametrize("arguments", ["", "{", "[]", '"x"', "null"])
def test_arguments_that_are_no_object_are_told_as_none(arguments: str):
    assert repaired([bot("", ToolCall("a", "look", arguments)), result("a")])[0].calls[0].arguments == "{}"


def _calling(text: str, ids: list[str], cut: bool) -> Message:
    return Message("assistant", text, cut, tuple(ToolCall(one, "t") for one in ids))


IDS = st.sampled_from("abcdef")
MESSAGES = st.lists(
    st.one_of(
        st.builds(Message, st.sampled_from(["user", "assistant", "system"]), st.text(max_size=5)),
        st.builds(
            _calling, st.sampled_from(["", "", "said"]), st.lists(IDS, min_size=1, max_size=3), st.booleans()
        ),
        st.builds(result, IDS, st.text(max_size=5)),
    ),
    max_size=30,
)  # fmt: skip


def sound(messages: Sequence[Message]) -> None:
    """Every call is followed by its results, in order, and nothing else is a result; no call is there twice."""
    seen: list[str] = []
    owed: list[str] = []
    for message in messages:
        if message.role == "tool":
            assert owed, message
            assert owed.pop(0) == message.call_id
        else:
            assert not owed
            owed = [call.call_id for call in message.calls]
            seen += owed
    assert not owed
    assert len(seen) == len(set(seen))


@given(MESSAGES)
def test_whatever_the_history_is_a_model_can_read_it(messages: list[Message]):
    told = repaired(messages)
    sound(told)
    assert repaired(told) == told
    assert [one.text for one in told if one.role == "user"] == [one.text for one in messages if one.role == "user"]
    assert {call.call_id for one in told for call in one.calls} == {call.call_id for m in messages for call in m.calls}
    # A result that is there is told.
    given_ = {one.call_id: one.text for one in reversed(messages) if one.role == "tool"}
    assert all(one.text == given_.get(one.call_id, STILL_RUNNING) for one in told if one.role == "tool")


# --- bounds -----------------------------------------------------------------------------------------------------------


def turns(count: int) -> list[Message]:
    return [message for number in range(count) for message in (user(f"question {number}"), bot(f"answer {number}"))]


def test_nothing_is_left_out_without_a_bound():
    assert trimmed(turns(50), Bounds()) == (turns(50), [])


def test_the_newest_messages_are_kept_from_a_users_one_on():
    kept, dropped = trimmed([*turns(5), user("now")], Bounds(messages=4))
    assert kept == [user("question 4"), bot("answer 4"), user("now")]
    assert dropped == turns(4)


def test_system_messages_are_kept():
    system = Message("system", "be kind")
    kept, dropped = trimmed([system, *turns(3), system, user("now")], Bounds(messages=1))
    assert kept == [system, system, user("now")]
    assert dropped == turns(3)


def test_the_newest_turn_is_kept_whole():
    newest = [user("x" * 1_000), bot("", A), result("a", "y" * 1_000)]
    assert trimmed([*turns(3), *newest], Bounds(messages=1, tokens=10))[0] == newest


def words(text: str) -> int:
    return len(text.split())


def test_tokens_are_counted_by_the_given_counter():
    # "question 4", "answer 4" and "now" are 5 words, and 4 tokens more each.
    kept, _ = trimmed([*turns(5), user("now")], Bounds(tokens=17, count_tokens=words))
    assert kept == [user("question 4"), bot("answer 4"), user("now")]
    kept, _ = trimmed([*turns(5), user("now")], Bounds(tokens=16, count_tokens=words))
    assert kept == [user("now")]


@given(MESSAGES, st.none() | st.integers(1, 12), st.none() | st.integers(1, 60))
def test_trimming_never_parts_a_call_from_its_results(messages: list[Message], most: int | None, tokens: int | None):
    told = repaired(messages)
    bounds = Bounds(most, tokens)
    kept, dropped = trimmed(told, bounds)
    sound(kept)
    sound(dropped)
    # What is left out is the oldest, and nothing of the system's.
    others = [one for one in told if one.role != "system"]
    assert [*dropped, *(one for one in kept if one.role != "system")] == others
    assert [one for one in kept if one.role == "system"] == [one for one in told if one.role == "system"]
    newest = max((at for at, one in enumerate(others) if one.role == "user"), default=None)
    if newest is not None:
        assert len(dropped) <= newest
        rest = others[len(dropped) :]
        if len(dropped) < newest:
            assert most is None or len(rest) <= most
            assert tokens is None or sum(map(bounds.tokens_of, kept)) <= tokens
        # One that begins later than it had to begins with the user.
        assert not dropped or rest[0].role == "user"


def test_an_estimate_of_tokens_is_near_to_what_tokenizers_count():
    assert estimate_tokens("") == 0
    # 10 words, 44 characters: 10 tokens with most tokenizers.
    assert 9 <= estimate_tokens("The quick brown fox jumps over the lazy dog.") <= 12
    assert 4 <= estimate_tokens("你好，世界") <= 6
    assert estimate_tokens("\ud800") == 1


# --- cuts -------------------------------------------------------------------------------------------------------------


def test_a_cut_is_told_as_a_note_of_the_system():
    messages = [user(), bot("Once upon", cut=True), user("stop"), bot("Fine.")]
    note = Message("system", "cut here")
    assert with_cut_notes(messages, "cut here") == [messages[0], messages[1], note, *messages[2:]]
    assert with_cut_notes(messages, "") == messages


# --- summaries --------------------------------------------------------------------------------------------------------

SYSTEM = Message("system", "be kind")


def test_a_summary_stands_for_what_it_covers():
    history = [SYSTEM, *turns(3)]
    told, covered = with_summary(history, Summary("They met.", tuple(turns(2))), "Before: ")
    assert told == [SYSTEM, Message("system", "Before: They met."), *turns(3)[4:]]
    assert covered == turns(2)


def test_a_summary_still_holds_when_the_history_has_lost_its_oldest():
    told, covered = with_summary(turns(4)[2:], Summary("They met.", tuple(turns(2))), "")
    assert told == [Message("system", "They met."), *turns(4)[4:]]
    assert covered == turns(2)[2:]


def test_a_summary_of_another_conversation_is_left_out():
    other = [user("who are you"), bot("A bot.")]
    assert with_summary(other, Summary("They met.", tuple(turns(2))), "") == (other, [])
    assert with_summary(other, None, "") == (other, [])


@given(st.integers(1, 8), st.integers(0, 8), st.integers(0, 8))
def test_a_summary_and_the_rest_are_the_whole(total: int, covers: int, lost: int):
    history = turns(total)
    covered_part = tuple(history[: min(covers, total) * 2])
    left = history[min(lost, total) * 2 :]
    told, covered = with_summary(left, Summary("S", covered_part), "")
    rest = [message for message in told if message.role != "system"]
    assert [*covered, *rest] == left
    assert (len(told) - len(rest) == 1) == bool(covered)

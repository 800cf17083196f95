"""The playout ledger, which is pure: what was played of what was given, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    ResponseCutFrame,
    ResponsePlayedFrame,
    Samples,
    SpokenWord,
)
from voxline.tests.scale import examples
from voxline.transports.playout import Facts, PlayoutLedger

RATE = 1_000
"""A sample a millisecond, so that the numbers in these tests are both."""


def sound(count: int, value: int = 1) -> Samples:
    return np.full(count, value, np.int16)


@pytest.fixture
def ledger() -> PlayoutLedger:
    return PlayoutLedger(RATE)


def test_plays_what_was_appended_in_order(ledger: PlayoutLedger):
    ledger.append(1, sound(3, 1))
    ledger.append(1, sound(3, 2))
    first, facts = ledger.take(4)
    assert first.tolist() == [1, 1, 1, 2]
    assert facts == [BotStartedSpeakingFrame(1)]
    assert ledger.buffered == 2


def test_a_chunk_is_filled_up_with_silence(ledger: PlayoutLedger):
    ledger.append(1, sound(3, 7))
    assert ledger.take(5)[0].tolist() == [7, 7, 7, 0, 0]


def test_a_response_is_over_with_the_take_after_its_last_sample(ledger: PlayoutLedger):
    ledger.append(1, sound(20), [SpokenWord("hello", 0.0)])
    ledger.end(1)
    assert ledger.take(20)[1] == [BotStartedSpeakingFrame(1)]
    assert ledger.take(20)[1] == [ResponsePlayedFrame(1, 20.0, "hello"), BotStoppedSpeakingFrame(1)]
    assert not ledger


def test_the_next_response_goes_on_in_the_same_chunk(ledger: PlayoutLedger):
    ledger.append(1, sound(3, 1))
    ledger.end(1)
    ledger.append(2, sound(9, 2))
    samples, facts = ledger.take(5)
    assert samples.tolist() == [1, 1, 1, 2, 2]
    assert facts == [
        BotStartedSpeakingFrame(1),
        ResponsePlayedFrame(1, 3.0, ""),
        BotStoppedSpeakingFrame(1),
        BotStartedSpeakingFrame(2),
    ]


def test_words_are_heard_from_their_first_sample(ledger: PlayoutLedger):
    words = [SpokenWord("a", 0.0), SpokenWord("b", 19.0), SpokenWord("c", 20.0)]
    ledger.append(1, sound(50), words)
    ledger.take(20)
    assert ledger.cut(1) == [ResponseCutFrame(1, 20.0, "a b"), BotStoppedSpeakingFrame(1)]


def test_a_word_stands_where_its_own_frame_stands(ledger: PlayoutLedger):
    ledger.append(1, sound(30), [SpokenWord("one", 0.0)])
    ledger.append(1, sound(30), [SpokenWord("two", 10.0)])
    ledger.take(40)
    assert ledger.cut(1)[0] == ResponseCutFrame(1, 40.0, "one")


def test_a_word_that_is_told_late_stands_where_it_began(ledger: PlayoutLedger):
    ledger.append(1, sound(30))
    ledger.append(1, sound(30), [SpokenWord("one", -25.0), SpokenWord("two", -5.0), SpokenWord("three", 10.0)])
    ledger.take(30)
    assert ledger.cut(1)[0] == ResponseCutFrame(1, 30.0, "one two")


def test_also_where_it_was_played_long_ago(ledger: PlayoutLedger):
    ledger.append(1, sound(30))
    ledger.take(30)
    ledger.append(1, sound(1), [SpokenWord("one", -25.0), SpokenWord("two", 0.0)])
    assert ledger.cut(1)[0] == ResponseCutFrame(1, 30.0, "one")


def test_a_response_that_was_played_has_all_its_words(ledger: PlayoutLedger):
    """Also the one that a voice has announced for a moment after its last sample."""
    ledger.append(1, sound(20), [SpokenWord("one", 0.0), SpokenWord("two", 25.0)])
    ledger.end(1)
    ledger.take(20)
    assert ledger.settle()[0] == ResponsePlayedFrame(1, 20.0, "one two")


def test_a_response_without_a_sound_is_recorded_too(ledger: PlayoutLedger):
    ledger.end(1)
    assert ledger.settle() == [ResponsePlayedFrame(1, 0.0, "")]


def test_a_response_that_waits_to_be_played_is_cut_with_nothing_heard(ledger: PlayoutLedger):
    ledger.append(1, sound(30), [SpokenWord("one", 0.0)])
    ledger.append(2, sound(30), [SpokenWord("two", 0.0)])
    ledger.take(10)
    assert ledger.cut(2, "button") == [
        ResponseCutFrame(1, 10.0, "one", "button"),
        BotStoppedSpeakingFrame(1),
        ResponseCutFrame(2, 0.0, "", "button"),
    ]
    assert ledger.buffered == 0


def test_the_second_cut_does_nothing(ledger: PlayoutLedger):
    ledger.append(1, sound(30))
    assert ledger.cut(1)
    assert ledger.cut(1) == []


def test_a_cut_leaves_newer_responses(ledger: PlayoutLedger):
    ledger.append(1, sound(30, 1))
    ledger.append(2, sound(30, 2))
    ledger.cut(1)
    assert ledger.take(2)[0].tolist() == [2, 2]


def test_audio_of_a_response_that_was_cut_is_refused(ledger: PlayoutLedger):
    ledger.cut(3)
    assert not ledger.append(3, sound(10))
    assert ledger.append(4, sound(10))


def test_audio_of_an_older_response_is_refused_once_a_newer_has_begun(ledger: PlayoutLedger):
    ledger.append(1, sound(10))
    ledger.append(2, sound(10))
    assert not ledger.append(1, sound(10))
    assert ledger.buffered == 20


def test_sound_after_the_end_is_heard_and_not_recorded_twice(ledger: PlayoutLedger):
    """A jingle that nobody gave a number to belongs to the newest response, which may be long over."""
    ledger.append(1, sound(10))
    ledger.end(1)
    ledger.take(10)
    ledger.settle()
    assert ledger.append(1, sound(10, 5))
    samples, facts = ledger.take(10)
    assert samples.tolist() == [5] * 10
    assert facts == [BotStartedSpeakingFrame(1)]
    assert ledger.cut(1) == [BotStoppedSpeakingFrame(1)]


def test_a_gap_that_counts_as_silence_ends_and_begins_speech(ledger: PlayoutLedger):
    ledger.append(1, sound(10))
    ledger.take(10)
    assert ledger.stall() == [BotStoppedSpeakingFrame(1)]
    assert ledger.stall() == []
    ledger.append(1, sound(10))
    assert ledger.take(10)[1] == [BotStartedSpeakingFrame(1)]


def test_a_pause_is_the_end_of_what_is_heard_and_of_what_is_over(ledger: PlayoutLedger):
    ledger.append(1, sound(10))
    ledger.end(1)
    ledger.append(2, sound(10))
    ledger.take(10)
    assert ledger.pause() == [ResponsePlayedFrame(1, 10.0, ""), BotStoppedSpeakingFrame(1)]
    assert ledger.pause() == []
    assert ledger.take(5)[1] == [BotStartedSpeakingFrame(2)]
    assert ledger.pause() == [BotStoppedSpeakingFrame(2)]
    assert ledger.buffered == 5
    assert ledger.cut(2) == [ResponseCutFrame(2, 5.0, "")]


def test_it_knows_what_it_has_no_record_of(ledger: PlayoutLedger):
    ledger.append(2, sound(10))
    assert (ledger.has(1), ledger.has(2), ledger.has(3)) == (False, True, True)
    ledger.cut(2)
    assert not ledger.has(3)


# --- words without times ------------------------------------------------------------------------------------


def heard(ledger: PlayoutLedger, count: int) -> str:
    """What was heard when ``count`` samples were played."""
    ledger.take(count)
    (cut, _) = ledger.cut(9)
    assert isinstance(cut, ResponseCutFrame)
    return cut.heard_text


TEN = "it is now a quarter past two in the afternoon"
"""Ten words in 45 characters."""


@pytest.mark.parametrize(
    ("played", "says"),
    [
        (1, "it"),
        (60, "it"),
        (61, "it is"),
        (120, "it is"),
        (121, "it is now"),
        (720, "it is now a quarter past two in the"),
        (721, TEN),
    ],
)
def test_several_words_without_times_share_their_time_by_characters(played: int, says: str):
    """20 ms each: "is" begins after three, so at 60, and "afternoon" after 36."""
    ledger = PlayoutLedger(RATE)
    ledger.append(1, sound(900), [SpokenWord(TEN, 0.0)])
    ledger.end(1)
    assert heard(ledger, played) == says


def test_they_last_until_the_next_word_begins(ledger: PlayoutLedger):
    ledger.append(1, sound(1_000), [SpokenWord("one two", 100.0), SpokenWord("three", 800.0)])
    assert heard(ledger, 500) == "one"


def test_they_last_until_the_next_word_begins_also_in_a_later_frame(ledger: PlayoutLedger):
    ledger.append(1, sound(500), [SpokenWord("one two", 0.0)])
    ledger.append(1, sound(500))
    ledger.append(1, sound(500), [SpokenWord("three four", 400.0)])
    assert heard(ledger, 800) == "one", "the second begins at 4/7 of 1400"


def test_they_last_until_the_end_of_the_audio(ledger: PlayoutLedger):
    ledger.append(1, sound(500), [SpokenWord("one two", 0.0)])
    ledger.append(1, sound(500))
    ledger.end(1)
    assert heard(ledger, 571) == "one"


def test_they_last_until_the_end_of_the_audio_and_no_longer(ledger: PlayoutLedger):
    ledger.append(1, sound(100), [SpokenWord("one two", 0.0)])
    ledger.end(1)
    assert heard(ledger, 58) == "one two"


def test_where_audio_is_still_coming_their_length_is_estimated(ledger: PlayoutLedger):
    """Thirty characters, so two seconds at 15 a second."""
    ledger.append(1, sound(600), [SpokenWord("aaaa bbbb cccc dddd eeee ffffff", 0.0)])
    assert heard(ledger, 600) == "aaaa bbbb"


def test_where_more_audio_is_there_than_estimated_it_counts(ledger: PlayoutLedger):
    ledger.append(1, sound(7_000), [SpokenWord("one two", 0.0)])
    assert heard(ledger, 4_000) == "one"


def test_a_newer_response_ends_the_audio(ledger: PlayoutLedger):
    ledger.append(1, sound(100), [SpokenWord("one two", 0.0)])
    ledger.append(2, sound(100))
    ledger.take(60)
    cut = ledger.cut(1)[0]
    assert cut == ResponseCutFrame(1, 60.0, "one two")


def test_of_several_words_nothing_is_heard_before_they_begin(ledger: PlayoutLedger):
    ledger.append(1, sound(1_000), [SpokenWord("one", 0.0), SpokenWord("two three", 500.0)])
    assert heard(ledger, 500) == "one"


def test_spaces_are_kept_as_they_came(ledger: PlayoutLedger):
    ledger.append(1, sound(600), [SpokenWord("  one  two\nthree ", 0.0)])
    ledger.append(1, sound(600), [SpokenWord("  four  five", 0.0)])
    assert heard(ledger, 601) == "  one  two\nthree    four", "a beginning of the text that a played response has"


def test_of_a_response_that_was_played_all_words_count(ledger: PlayoutLedger):
    ledger.append(1, sound(10), [SpokenWord("one two three", 0.0), SpokenWord("four five", 30.0)])
    ledger.end(1)
    ledger.take(10)
    assert ledger.settle()[0] == ResponsePlayedFrame(1, 10.0, "one two three four five")


SPANS = st.lists(
    st.tuples(st.lists(st.text("ab", min_size=1, max_size=9), min_size=1, max_size=6), st.integers(0, 3_000)),
    min_size=1,
    max_size=4,
)


@given(SPANS, st.integers(0, 12_000), st.integers(0, 12_000), st.booleans())
@settings(max_examples=examples(300))
def test_more_is_heard_the_longer_it_is_played(spans: list[tuple[list[str], int]], one: int, other: int, ended: bool):
    """Always the first so many words; none of them before its span has begun."""
    texts: list[str] = []
    for played in sorted([one, other]):
        ledger, starts, at = PlayoutLedger(RATE), list[tuple[int, int]](), 0
        for words, count in spans:
            ledger.append(1, sound(count), [SpokenWord(" ".join(words), 0.0)])
            starts.append((at, len(words)))
            at += count
        ledger.append(1, sound(1))
        if ended:
            ledger.end(1)
        ledger.take(max(1, min(played, at)))
        cut = ledger.cut(1)[0]
        assert isinstance(cut, ResponseCutFrame)
        texts.append(cut.heard_text)
        most = sum(count for start, count in starts if start < cut.heard_ms)
        done = sum(count for index, (_, count) in enumerate(starts[:-1]) if starts[index + 1][0] < cut.heard_ms)
        assert done <= len(cut.heard_text.split()) <= most
    whole = " ".join(word for words, _ in spans for word in words)
    assert whole.startswith(texts[1])
    assert texts[1].startswith(texts[0])


# --- whatever happens ---------------------------------------------------------------------------------------


@dataclass
class Model:
    """The account that the ledger has to agree with, kept in the plainest way."""

    given: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    words: dict[int, list[tuple[int, str]]] = field(default_factory=dict[int, list[tuple[int, str]]])
    begun: set[int] = field(default_factory=set[int])
    played: list[tuple[int, int]] = field(default_factory=list[tuple[int, int]])
    facts: Facts = field(default_factory=Facts)

    def heard(self, response: int) -> int:
        return sum(number == response for number, _ in self.played)


STEPS = st.one_of(
    st.tuples(
        st.just("append"), st.integers(-1, 2), st.integers(0, 40), st.lists(st.integers(0, 50), max_size=3).map(tuple)
    ),
    st.tuples(st.just("end"), st.integers(-1, 1)),
    st.tuples(st.just("take"), st.integers(1, 40)),
    st.tuples(st.just("cut"), st.integers(-1, 0)),
    st.tuples(st.just("stall")),
    st.tuples(st.just("settle")),
    st.tuples(st.just("pause")),
)


def value_of(response: int, index: int) -> int:
    return response * 1_000 + index % 999 + 1


@given(st.lists(STEPS, max_size=60))
@settings(max_examples=examples(500))
def test_whatever_happens_the_account_is_right(steps: list[tuple[object, ...]]):
    ledger, model, newest = PlayoutLedger(RATE), Model(), 1
    for step in steps:
        newest = run(ledger, model, newest, step)
    run(ledger, model, newest, ("end", 0))
    while ledger:
        play(ledger, model, 17)
        for response in sorted(model.begun):
            ledger.end(response)
    check(model)
    assert ledger.buffered == 0
    assert ledger.speaking == 0


def run(ledger: PlayoutLedger, model: Model, newest: int, step: tuple[object, ...]) -> int:
    match step:
        case ("append", int(offset), int(count), starts):
            response = min(max(1, newest + offset), 30)
            given = model.given.setdefault(response, [])
            samples = [value_of(response, len(given) + index) for index in range(count)]
            words = [SpokenWord(f"w{start}", start) for start in sorted(cast(tuple[int, ...], starts))]
            if ledger.append(response, np.array(samples, np.int16), words):
                model.begun.add(response)
                model.words.setdefault(response, []).extend(
                    (len(given) + int(word.start_ms), word.text) for word in words
                )
                given.extend(samples)
            return max(newest, response)
        case ("end", int(offset)):
            response = min(max(1, newest + offset), 30)
            if ledger.end(response):
                model.begun.add(response)
            return max(newest, response)
        case ("take", int(count)):
            play(ledger, model, count)
        case ("cut", int(offset)):
            model.facts += ledger.cut(max(1, newest + offset))
        case ("stall",):
            model.facts += ledger.stall()
        case ("settle",):
            model.facts += ledger.settle()
        case ("pause",):
            model.facts += ledger.pause()
            assert ledger.speaking == 0
        case _:
            raise AssertionError(step)
    return newest


def play(ledger: PlayoutLedger, model: Model, count: int) -> None:
    before = ledger.buffered
    samples, facts = ledger.take(count)
    assert len(samples) == count
    assert before - ledger.buffered == np.count_nonzero(samples)
    model.played += [(value // 1_000, value) for value in samples.tolist() if value]
    model.facts += facts


def check(model: Model) -> None:
    order = [response for response, _ in model.played]
    assert order == sorted(order), "an older response was played after a newer"
    records = [fact for fact in model.facts if isinstance(fact, ResponsePlayedFrame | ResponseCutFrame)]
    assert sorted(record.response for record in records) == sorted(model.begun), "one record for each"
    for response in model.begun:
        played = [value for number, value in model.played if number == response]
        assert played == model.given.get(response, [])[: len(played)], "what is played is a prefix of what came"
    for record in records:
        # What came after its end (nobody gave it a number) is heard and is in no record.
        assert record.heard_ms <= model.heard(record.response)
    for record in records:
        if isinstance(record, ResponseCutFrame):
            heard = [text for start, text in model.words.get(record.response, []) if start < record.heard_ms]
            assert record.heard_text == " ".join(heard)
            assert model.heard(record.response) == record.heard_ms, "after a cut nothing is heard"
    check_speaking(model)


def check_speaking(model: Model) -> None:
    """Started and stopped alternate, and a record comes before "stopped"."""
    speaking = 0
    for fact in model.facts:
        if isinstance(fact, BotStartedSpeakingFrame):
            assert speaking == 0
            speaking = fact.response
        elif isinstance(fact, BotStoppedSpeakingFrame):
            assert speaking == fact.response
            speaking = 0
    assert speaking == 0

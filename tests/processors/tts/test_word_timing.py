"""Words in their places: joined they are what was written, whatever a voice tells of them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline import SpokenWord
from voxline.processors.text.speakable import speakable
from voxline.processors.tts.word_timing import CHARACTERS_PER_S, SpeechChunk, WordStart, WordTiming

RATE = 1_000
"""One sample is one ms."""


def chunk(ms: int, *words: tuple[int, float]) -> SpeechChunk:
    return SpeechChunk(np.zeros(ms, np.int16), RATE, tuple(WordStart(offset, at) for offset, at in words))


def script(written: str, *, timed: bool = True) -> WordTiming:
    made = WordTiming(speakable(written))
    assert made.start_attempt(timed=timed) == 0
    return made


def joined(words: list[SpokenWord] | tuple[SpokenWord, ...]) -> str:
    text = ""
    for word in words:
        text += word.text if word.glued or not text else f" {word.text}"
    return text


def test_a_word_belongs_to_the_chunk_in_which_it_begins():
    one = script("Ten meters on.")
    assert one.words_of(chunk(100, (0, 10.0))) == (SpokenWord("Ten", 10.0),)
    assert one.words_of(chunk(100)) == ()
    assert one.words_of(chunk(100, (4, 50.0), (11, 99.0))) == (SpokenWord("meters", 50.0), SpokenWord("on.", 99.0))
    assert one.rest(100) == ()


def test_a_word_reported_early_waits_for_its_chunk():
    one = script("Ten meters on.")
    assert one.words_of(chunk(0, (0, 10.0), (4, 150.0), (11, 200.0))) == ()
    assert one.words_of(chunk(100)) == (SpokenWord("Ten", 10.0),)
    assert one.words_of(chunk(100)) == (SpokenWord("meters", 50.0),)
    assert one.words_of(chunk(100)) == (SpokenWord("on.", 0.0),)


def test_a_word_reported_late_is_returned_at_once_with_its_start():
    one = script("Ten meters on.")
    one.words_of(chunk(100, (0, 0.0)))
    assert one.words_of(chunk(100, (4, -60.0))) == (SpokenWord("meters", -60.0),)
    assert one.words_of(chunk(100, (11, -900.0))) == (SpokenWord("on.", -200.0),), "not before the first sound"


def test_a_chunk_without_sound_carries_no_words_and_the_next_one_has_them():
    one = script("Ten meters on.")
    one.words_of(chunk(100, (0, 0.0)))
    assert one.words_of(chunk(0, (4, -60.0))) == ()
    assert one.words_of(chunk(100)) == (SpokenWord("meters", -60.0),)
    assert one.rest(1.0) == (SpokenWord("on.", 0.0),)


def test_untimed_makes_the_text_one_word_from_the_beginning():
    one = script("Ten meters on.")
    one.words_of(chunk(100))
    one.untimed()
    assert one.words_of(chunk(100)) == (SpokenWord("Ten meters on.", -100.0),)
    assert one.words_of(chunk(100)) == ()
    assert one.rest(1.0) == ()


def test_an_unreported_word_is_added_to_the_next_one():
    one = script("Here I am now.")
    assert one.words_of(chunk(100, (0, 0.0), (5, 40.0))) == (SpokenWord("Here", 0.0), SpokenWord("I", 40.0))
    assert one.words_of(chunk(100, (10, 0.0))) == (SpokenWord("am now.", 0.0),)


def test_a_word_in_two_parts_is_returned_once():
    one = script("Twenty-one of them.")
    assert one.words_of(chunk(100, (0, 0.0), (7, 50.0))) == (SpokenWord("Twenty-one", 0.0),)
    assert one.words_of(chunk(100, (11, 0.0))) == (SpokenWord("of", 0.0),)


def test_remaining_words_are_at_the_end_of_the_last_chunk():
    one = script("Ten meters on.")
    one.words_of(chunk(100, (0, 0.0)))
    assert one.rest(100) == (SpokenWord("meters on.", 99.0),)


def test_words_are_those_that_were_written():
    one = script("**Turn** [left](https://example.com) 😀 now")
    said = speakable("**Turn** [left](https://example.com) 😀 now").text
    words = [*one.words_of(chunk(100, *((said.index(word), 10.0) for word in ("Turn", "left", "now"))))]
    words += one.rest(100)
    assert joined(words) == "**Turn** [left](https://example.com) 😀 now"
    assert words[0].text.strip("*") == "Turn"


def test_scripts_without_spaces_have_a_word_for_each_character_and_they_are_glued():
    one = script("你好，世界")
    words = one.words_of(chunk(100, (0, 0.0), (1, 20.0), (3, 40.0), (4, 60.0)))
    assert joined([SpokenWord("...", 0), *words]) == "...你好，世界"
    assert all(word.glued for word in words)


def test_a_voice_that_tells_nothing_gives_all_at_the_first_sound():
    one = script("Ten meters on.", timed=False)
    assert one.words_of(chunk(0)) == ()
    assert one.words_of(chunk(100)) == (SpokenWord("Ten meters on.", 0.0),)
    assert one.words_of(chunk(100)) == ()
    assert one.rest(100) == ()


def test_after_a_failure_it_goes_on_with_the_word_that_was_under_way_and_tells_it_once():
    text = "One two three four."
    one = script(text)
    words = [*one.words_of(chunk(100, (0, 0.0), (4, 50.0), (8, 170.0)))]
    assert text[one.start_attempt(timed=True) :] == "two three four."
    words += one.words_of(chunk(100, (0, 0.0), (4, 80.0)))
    assert text[one.start_attempt(timed=True) :] == "three four."
    words += one.words_of(chunk(100, (0, 0.0), (6, 10.0)))
    words += one.rest(100)
    assert [word.text for word in words] == ["One", "two", "three", "four."]


def test_a_failure_before_the_first_sound_costs_nothing():
    one = script("One two.")
    one.words_of(chunk(0, (0, 0.0), (4, 100.0)))
    assert one.start_attempt(timed=True) == 0
    assert one.spoken_chars == 0
    assert one.words_of(chunk(200, (0, 0.0), (4, 100.0))) == (SpokenWord("One", 0.0), SpokenWord("two.", 100.0))


def test_of_a_voice_that_tells_nothing_it_is_reckoned_how_far_it_came():
    text = "One two three four."
    one = script(text, timed=False)
    one.words_of(chunk(round(6 * 1000 / CHARACTERS_PER_S)))
    assert text[one.start_attempt(timed=True) :] == "two three four."
    assert one.words_of(chunk(300, (0, 0.0), (4, 100.0))) == ()
    assert text[one.start_attempt(timed=False) :] == "three four."


TEXTS = st.one_of(
    st.text(max_size=60),
    st.lists(
        st.sampled_from(
            [
                "one",
                "two.",
                "**three**",
                "`four`",
                "😀",
                "\n",
                "  ",
                "- ",
                "你好",
                "。",
                "[a](http://b.c)",
                "x@y.z",
                "#",
                "1,5",
            ]
        ),
        max_size=12,
    ).map(" ".join),
    st.lists(st.sampled_from(["一", "二", " ", "three", "，", "ไ", "\n\n", "**"]), max_size=15).map("".join),
)


@pytest.mark.parametrize("timed", [True, False])
@given(written=TEXTS, data=st.data())
def test_joined_the_words_are_the_text_whatever_a_voice_tells_and_however_often_it_fails(
    timed: bool, written: str, data: st.DataObject
):
    said = speakable(written)
    if not said.text.strip():
        return
    one = WordTiming(said)
    words: list[SpokenWord] = []
    last_ms = 0
    for _ in range(data.draw(st.integers(1, 3))):
        begin = one.start_attempt(timed=data.draw(st.booleans()) if data.draw(st.booleans()) else timed)
        made_ms = 0
        assert 0 <= begin < len(said.text)
        assert begin == 0 or not said.text[begin].isspace()
        for _ in range(data.draw(st.integers(0, 4))):
            told = data.draw(st.lists(st.tuples(st.integers(-3, len(said.text) + 3), st.floats(-50, 400)), max_size=3))
            ms = data.draw(st.sampled_from([0, 1, 100]))
            found = one.words_of(chunk(ms, *told))
            assert [word.start_ms for word in found] == sorted(word.start_ms for word in found)
            assert all(-made_ms <= word.start_ms < ms for word in found)
            made_ms += ms
            assert 0 <= one.spoken_chars <= len(said.text)
            words += found
            last_ms = ms or last_ms
    words += one.rest(last_ms)
    if any(word.text != word.text.strip() or not word.text for word in words):
        raise AssertionError(words)
    assert joined(words).replace(" ", "") == "".join(written.split())
    if not any(letter >= "\u0e00" for letter in written):
        assert joined(words) == " ".join(written.split())

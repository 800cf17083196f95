"""RTVI: how far a text has been spoken, for any text, any voice and any cut."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline import SpokenWord
from voxline.transports.rtvi.spoken import Progress, SpokenProgress

WORDS = st.lists(
    st.sampled_from(["a", "an", "I", "it", "It", "sea,", "the", "end.", "naïve", "日本"]), min_size=1, max_size=12
)
ANSWER = st.lists(WORDS, min_size=1, max_size=4)


def spoken(answer: list[list[str]], *, timed: bool, known: bool = True) -> SpokenProgress:
    """An answer of some sentences, of which a word takes 100 ms; a voice without times tells a sentence as one."""
    made = SpokenProgress()
    for number, words in enumerate(answer):
        if known:
            made.add(number, " ".join(words))
    for words in answer:
        times = [SpokenWord(word, 100.0 * at) for at, word in enumerate(words)]
        made.hear(100.0 * len(words), tuple(times) if timed else (SpokenWord(" ".join(words), 0.0),))
    return made


def joined(news: list[Progress]) -> str:
    return " ".join(one.word for one in news if one.word)


@given(ANSWER, st.booleans(), st.lists(st.floats(0, 100), max_size=30))
def test_what_was_told_is_always_a_beginning_of_the_text_and_grows(
    answer: list[list[str]], timed: bool, steps: list[float]
) -> None:
    made = spoken(answer, timed=timed)
    whole = " ".join(" ".join(words) for words in answer)
    news: list[Progress] = []
    played = 0.0
    for step in steps:
        played += step
        news += made.played(played)
        assert whole.startswith(joined(news))
    news += made.finish()
    assert joined(news) == whole
    assert [one.segment.id for one in news if one.done] == [*range(len(answer))]
    assert all(segment.spoken == len(segment.text) for segment in made.segments)


@given(ANSWER, st.floats(0, 5_000))
def test_a_word_is_told_when_it_has_begun(answer: list[list[str]], played_ms: float) -> None:
    made = spoken(answer, timed=True)
    words = [word for sentence in answer for word in sentence]
    begun = [word for at, word in enumerate(words) if at * 100 < played_ms]
    assert joined(list(made.played(played_ms))) == " ".join(begun)


@given(ANSWER, st.booleans(), st.floats(0, 3_000), st.integers(0, 30))
def test_a_cut_ends_with_what_was_heard_and_completes_nothing_beyond(
    answer: list[list[str]], timed: bool, played_ms: float, heard: int
) -> None:
    made = spoken(answer, timed=timed)
    words = [word for sentence in answer for word in sentence]
    before = joined(list(made.played(played_ms))).split()
    text = " ".join(words[: max(heard, len(before))])
    news = [*made.cut(text)]
    assert " ".join(filter(None, [" ".join(before), joined(news)])) == text
    complete = 0
    for number, sentence in enumerate(answer):
        complete += len(sentence)
        if complete > len(text.split()):
            assert not made.segments[number].done


@given(ANSWER, st.floats(0, 5_000))
def test_words_that_are_not_in_the_text_stop_nothing(answer: list[list[str]], played_ms: float) -> None:
    made = SpokenProgress()
    made.add(1, "Something else was written.")
    for words in answer:
        made.hear(100.0 * len(words), tuple(SpokenWord(f"<{word}>", 100.0 * at) for at, word in enumerate(words)))
    assert [*made.played(played_ms)] == []
    assert joined(list(made.finish())) == "Something else was written."


def test_words_without_spaces_between_them_are_found() -> None:
    made = SpokenProgress()
    made.add(1, "日本語です。")
    made.hear(300, (SpokenWord("日本", 0), SpokenWord("語", 100, glued=True), SpokenWord("です。", 200, glued=True)))
    assert [one.word for one in made.played(150)] == ["日本", "語"]


def test_a_short_word_is_not_found_inside_a_longer_one() -> None:
    made = SpokenProgress()
    made.add(1, "It is I.")
    made.hear(300, (SpokenWord("It", 0), SpokenWord("is", 100), SpokenWord("I.", 200)))
    assert [one.word for one in made.played(250)] == ["It", "is", "I."]


def test_an_answer_without_any_text_has_no_progress() -> None:
    made = SpokenProgress()
    made.hear(100, ())
    assert [*made.played(50), *made.cut("what?"), *made.finish()] == []


def test_a_word_that_is_told_after_it_has_begun_is_news_then() -> None:
    made = SpokenProgress()
    made.add(0, "It is now.")
    made.hear(300, ())
    assert list(made.played(250)) == []
    made.hear(300, (SpokenWord("It", -300), SpokenWord("is", -100), SpokenWord("now.", 100)))
    assert joined(list(made.played(350))) == "It is"
    assert joined(list(made.played(450))) == "now."

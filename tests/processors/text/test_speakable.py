"""What a voice gets for what was written, and how far the written text has been said."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from voxline.processors.text.speakable import Spoken, speakable
from voxline.processors.text.words import words_of
from voxline.tests.scale import examples

SAID = [
    # Emphasis, whole, cut off, and none at all.
    ("**Hello** there, *you* and ***me***", "Hello there, you and me"),
    ("__Hello__ _there_ ~~old~~ un*frig*able", "Hello there old unfrigable"),
    ("**Hello there. ", "Hello there. "),
    ("and more** ok", "and more ok"),
    ("***Note:** this is* it", "Note: this is it"),
    (r"\*not\* \_this\_ \# \[x\]", "*not* _this_ # [x]"),
    # Lines.
    ("# Title\nText", "Title.\nText"),
    ("### What?\nText", "What?\nText"),
    ("- milk\n- [x] eggs.\n  * **tea**\n", "milk.\neggs.\ntea.\n"),
    ("1. One\n2) Two\n", "1. One.\n2) Two.\n"),
    ("- 牛奶\n", "牛奶。\n"),
    ("> quoted\n> text\n", "quoted\ntext\n"),
    ("a\n\n---\nb\n* * *\nTitle\n===\nc", "a\n\nb\nTitle\nc"),
    ("| a | b |\n|---|:-:|\n| 1 | **2** |\nx | y", "a, b.\n1, 2.\nx | y"),
    # Code.
    ("Use `a*b*c` and ``x ` y``", "Use a*b*c and x ` y"),
    ("Use `open(", "Use open("),
    ("See\n```py\n**x** = 1\n```\nOk", "See\nThe code is not read aloud.\nOk"),
    ("~~~\nx", "The code is not read aloud."),
    ("```\n```\n", ""),
    # Links and addresses.
    ("See [the *docs*](https://a.b/c_(d) \"e\"), [x][1], [y][]", "See the docs, x, y"),
    ("![a cat](https://a.b/c.png) and [cut](https://a.b", "a cat and cut"),
    ("Said.[^1]\n[^1]: A note\n[1]: https://a.b\n", "Said.\nA note\n"),
    ("At https://www.example.com/a?b=c#d. Or (http://me:pw@x.org:80), www.foo.de!",
     "At example dot com. Or (x dot org), foo dot de!"),
    ("<https://a.b/c> <j.doe@x.org> me@x.org", "a dot b j dot doe at x dot org me at x dot org"),
    # HTML.
    ("a<br/>b <b class='x'>c</b> <!-- no -->d &amp; &lt;e&gt; &#39;f&#39; &nope;", "a\nb c d & <e> 'f' &nope;"),
    # Emoji.
    ("Hi 😀 there 👩‍👩‍👧👍🏽! 🇩🇪 ❤️ 1️⃣ One", "Hi there ! One"),
    ("So😀what", "So what"),
    # Signs.
    ("Tom & Ann at AT&T", "Tom and Ann at AT&T"),
    ("Settings → Privacy • Off", "Settings, Privacy, Off"),
]  # fmt: skip

PLAIN = [
    "3 * 4 * 5 = 60, 2*3*4, 2**8 and 2 ** 8",
    "snake_case, _private, C#, F# and #1",
    "5 > 3 and 3 < 5, so List<String> it is",
    "Dashes - and – and — “quotes” ‘so’ \"and\" 'so', don't",
    "It costs $3.50 (or 20% off) at 5 p.m. [sic] [1]",
    "A 5* hotel: ~5 km, 20 °C, x^2, a/b, C:\\new, R&D; a|b",
    "Zeile eins\nZeile zwei\n\n-5 Grad\tund\u00a0mehr  ",
    "क्\u200dष می\u200cخواهم 你好。",
    "",
]


@pytest.mark.parametrize(("written", "text"), SAID)
def test_markup_is_not_said(written: str, text: str):
    assert speakable(written).text == text


@pytest.mark.parametrize("plain", PLAIN)
def test_plain_prose_is_left_alone(plain: str):
    spoken = speakable(plain)
    assert spoken.text == spoken.written == plain
    assert [spoken.written_end(at) for at in range(len(plain) + 1)] == list(range(len(plain) + 1))


def heard(written: str, text: str) -> str:
    """What was written of what has been heard."""
    spoken = speakable(written)
    assert spoken.text.startswith(text)
    return written[: spoken.written_end(len(text))]


def test_markup_counts_with_its_word():
    written = "**Hello** there, see [the docs](https://a.b/c) or `x` 😀 now"
    assert heard(written, "") == ""
    assert heard(written, "H") == "**H"
    assert heard(written, "Hello") == "**Hello**"
    assert heard(written, "Hello ") == "**Hello** "
    assert heard(written, "Hello there, see the") == "**Hello** there, see [the"
    assert heard(written, "Hello there, see the docs") == "**Hello** there, see [the docs](https://a.b/c)"
    assert heard(written, "Hello there, see the docs or x") == "**Hello** there, see [the docs](https://a.b/c) or `x`"
    assert heard(written, "Hello there, see the docs or x ").endswith("😀 ")


def test_what_is_replaced_has_been_said_at_its_end():
    assert heard("At https://a.b/c now", "At a dot") == "At "
    assert heard("At https://a.b/c now", "At a dot b") == "At https://a.b/c"
    code = "So:\n```\nx = 1\n```\nOk"
    assert heard(code, "So:\nThe code is not read") == "So:\n"
    assert heard(code, "So:\nThe code is not read aloud.\n") == "So:\n```\nx = 1\n```\n"


def test_where_nothing_is_to_be_said_all_has_been():
    spoken = speakable("😀")
    assert spoken.text == ""
    assert spoken.written_end(0) == len(spoken.written)


def test_offsets_out_of_range_count_as_the_nearest():
    for written in ("**Hello**", "Hello"):
        spoken = speakable(written)
        assert spoken.written_end(-1) == 0
        assert spoken.written_end(99) == len(written)


def test_the_few_words_are_of_the_language():
    assert speakable("a@b.de & c", language="de-AT").text == "a ät b Punkt de und c"
    assert speakable("```\nx\n```", language="fr_FR").text == "Le code n'est pas lu à voix haute."
    assert words_of("xx") == words_of("en")


def test_what_is_said_for_code_can_be_set():
    assert speakable("```\nx\n```\nOk", code="Code.").text == "Code.\nOk"
    assert speakable("```\nx\n```\nOk", code="").text == "Ok"


def test_emoji_can_be_kept():
    assert speakable("**Hi** 👩‍👧 &#128512;", emoji=True).text == "Hi 👩‍👧 😀"


def test_it_can_be_kept_and_compared():
    assert speakable("**a**") == speakable("**a**")
    assert len({speakable("**a**"), speakable("**a**"), speakable("a")}) == 2


BITS = [
    *"*_~`[]()!<>|#-+=&;:@.\\/\"'\n \t\rax1é你。→•^",
    *("**", "](", "```", "\n```\n", "https://a.b/", "www.a.b", "me@a.bc", "&amp;", "&#0;", "<b>", "</b>", "<br>"),
    *("<!--", "-->", "\n- ", "\n| ", " | ", "[^1]", "😀", "\u200d", "\ufe0f", "1️⃣", "🇩🇪", "\ud83d"),
]
texts = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(BITS), max_size=80).map("".join),
    st.lists(st.sampled_from([written for written, _ in SAID]), max_size=5).map("\n".join),
)


def check(spoken: Spoken) -> None:
    """The law of every offset."""
    ends = [spoken.written_end(at) for at in range(len(spoken.text) + 1)]
    assert ends == sorted(ends)
    assert ends[-1] == len(spoken.written)
    assert ends[0] == (0 if spoken.text else len(spoken.written))


@settings(max_examples=examples(500))
@given(
    written=texts, language=st.sampled_from(["en", "ar", "xx"]), emoji=st.booleans(), code=st.sampled_from([None, ""])
)
@example(written="*", language="en", emoji=False, code=None)
def test_offsets_never_fall_and_end_at_the_end(written: str, language: str, emoji: bool, code: str | None):
    spoken = speakable(written, language=language, emoji=emoji, code=code)
    assert spoken.written == written
    check(spoken)


@settings(max_examples=examples(300))
@given(
    st.lists(st.text("abcdeéж你א0123", min_size=1, max_size=8), max_size=30), st.sampled_from([" ", ", ", ". ", " - "])
)
def test_words_and_their_stops_are_left_alone(words: list[str], between: str):
    plain = between.join(words)
    assert speakable(plain).text == plain


@settings(max_examples=examples(200))
@given(written=texts, cut=st.integers(0, 200))
def test_a_piece_that_was_cut_anywhere_can_be_said(written: str, cut: int):
    check(speakable(written[:cut]))
    check(speakable(written[cut:]))

"""Where an answer that streams in is cut, and how early. In the cases "|" marks the cuts."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from voxline.processors.text.graphemes import breaks_between
from voxline.processors.text.sentences import SentenceCutter
from voxline.tests.scale import examples


def cut(text: str, cutter: SentenceCutter | None = None) -> list[str]:
    """All pieces of a text that comes in character by character."""
    cutter = cutter or SentenceCutter(first_chars=None)
    return [piece for char in text for piece in cutter.add(char)] + cutter.end()


ENGLISH = [
    "Hello there. |How are you? |Fine!",
    "Dr. Smith is here. |He came at 5 p.m. |We left.",
    "We meet at 5 p.m. on Monday. |Bye.",
    "We met J. R. R. Tolkien. |So did I. |He wrote.",
    "It is 3.14, not 3. |It costs $3.50. |Cheap!",
    "Use version 2.0.1 of example.com. |Then mail me@example.com. |Thanks.",
    'He said "Stop." |Then he left.',
    '"Stop!" he said. |"Go!" |She went.',
    "Well... maybe. |Hmm… |Then yes. |Wait...what? |Ok.",
    "What?! |No way!!! |Really.",
    "No. |I do not. |See No. 5 for it.",
    "Fruits, e.g. apples, i.e. red ones, etc. are good. |They are, etc. |Buy Acme Inc. stocks.",
    "The U.S. economy grew. |It was in the U.S. |Then it fell.",
    "That was fun (really.) |Then (e.g. here) it ended.",
    "It is so.[1] |Next one [2]. |And.[3](https://a.b) |SentenceEnd.",
    "Great! |😀 How are you?",
    "Great!😀 |How are you?",
    "Meet Mr. and Mrs. Jones vs. Prof. Li of St. Ives. |Ok.",
    "Fig. 3 shows it. |Sept. 5 was nice. |It was Sept. |Then.",
    "Chapter II. was long. |Chapter II. |Then.",
    "Line one\nis wrapped. |Two.",
    "He is 25. |They are 30. |Ok.",
]
OTHERS = [
    "Am 3. Oktober war es so. |Ich bin 25. |Und du? |Der 2. war es.",
    "Das ist z. B. gut. |Hr. Müller kam bzw. ging usw. |Ja, d.h. nein.",
    "„Halt!“, rief er. |»Geh!« |Dann ging er.",
    "M. Dupont est là. |« Stop ! » dit-il. |« Va. » |Puis il part.",
    "Bonjour ! |Ça va ? |Oui\u00a0!",
    "El Sr. Pérez llegó. |¿Cómo está Ud. hoy? |¡Bien!",
    "Il sig. Rossi è qui. |Come sta il dott. Bianchi? |Bene.",
    "O Sr. Silva chegou. |A Dra. Lima tem 3,5 anos. |Ok.",
    "Привет. |Это А. С. Пушкин. |Да!",
    "你好。|今天怎么样？！|很好！|「止まれ。」|と言った。",
    "他说**很好！**|再见。",
    "नमस्ते।| आप कैसे हैं? |ठीक॥",
    "مرحبا! |كيف حالك؟ |نعم؛ أنا بخير۔| جيد",
    "ආයුබෝවන්. |Ναι. |Γεια!",
]
MARKUP = [
    "**Important.** |Then _so._ |And ~~this.~~ |Then.",
    "Use `a. b` now. |And [x. y](http://a.b/c. d) or ``a ` b. c`` too. |Ok.",
    "Visit https://x.com/a.b?c=d. |Then www.x.org! |Ok.",
    "See ![a. b](https://x.y/z) and [a. b][c]. |Ok.",
    "1. Do this.\n|2. Do that\n|10. Then\n|\nDone.",
    "a) One\n|b) Two",
    "Here:\n|- one. |Or two\n|- two\n|  * three\n|\nEnd",
    "It is\n|- one\n|- two",
    "# Title\n|Some text. |More\n\n|New paragraph\n|**1. Title**\n|Text",
    "### 1. Title\n|> a quote\n|Text",
    "See:\n|```python\nprint('a. b')\n\nx = 1\n```\n|After. |More",
    "See\n|~~~\na. b\n``` no\n~~~\n|- ```\n  a. b\n  ```\n|Ok",
    "```a. b``` is inline. |Yes.",
    "!!! 😀 Hello! |😀 You",
    "---\n\n***\nHello. |You",
    "A lone ` tick. Not closed\n\n|In this. |Paragraph",
]


@pytest.mark.parametrize("case", [*ENGLISH, *OTHERS])
def test_prose_is_cut_behind_its_sentences(case: str):
    assert cut(case.replace("|", "")) == case.split("|")


@pytest.mark.parametrize("case", MARKUP)
def test_markup_is_not_cut_inside(case: str):
    assert cut(case.replace("|", "")) == case.split("|")


def test_a_row_of_a_table_is_a_piece_and_the_line_under_its_head_goes_with_the_next():
    table = "Table:\n| a. b | c |\n| --- | --- |\n| 1 | 2 |\nText"
    assert cut(table) == ["Table:\n", "| a. b | c |\n", "| --- | --- |\n| 1 | 2 |\n", "Text"]


@pytest.mark.parametrize(
    ("text", "first"),
    [
        ("Hello there. ", "Hello there. "),
        ("Yes!\n", "Yes!\n"),
        ("好。", "好。"),
        ("ठीक।", "ठीक।"),
        ("「好。」と", "「好。」"),
        ("好！很", "好！"),
        ("جيد؟ ", "جيد؟ "),
        ("At 5 p.m. T", "At 5 p.m. "),
        ("Well... T", "Well... "),
        ('"Go!" S', '"Go!" '),
        ("I am 25. T", ""),  # "Tag" is one of the words that follow an ordinal
        ("I am 25. Th", "I am 25. "),
        ("I am 25. S", ""),
        ("I am 25. W", ""),
        ("I am 25. H", "I am 25. "),
        ("Here:\n", "Here:\n"),
        ("- one\n", "- one\n"),
        ("One\n-", "One\n"),
        ("One\n\n", "One\n\n"),
        ("One\n`", "One\n"),
        ("```\na\n```\n", "```\na\n```\n"),
    ],
)
def test_a_piece_is_given_out_with_the_character_that_completes_it(text: str, first: str):
    cutter = SentenceCutter()
    assert cutter.add(text[:-1]) == []
    assert cutter.add(text[-1]) == ([first] if first else [])


def test_a_long_first_sentence_begins_with_its_first_clause():
    text = "Well, of course I can help you with all of that and, if you like, with more. Then, we go on, and on."
    cutter = SentenceCutter(first_chars=40)
    assert cutter.add("Well, of course I can help you with all of that and,") == []
    assert cutter.add(" ") == ["Well, of course I can help you with all of that and, "]
    assert cutter.add(text[53:] + " ") == [
        "if you like, with more. ",
        "Then, we go on, and on. ",
    ]


def test_the_clause_may_lie_behind_where_that_is_not_too_short():
    cutter = SentenceCutter(first_chars=40)
    assert cutter.add("I would like to say this, with all respe") == []
    assert cutter.add("c") == ["I would like to say this, "]


@pytest.mark.parametrize("mark", [", ", "; ", ": ", " - ", " – ", "—", "، ", "؛ ", "，", "、", "；", "："])
def test_clauses_have_many_marks(mark: str):
    cutter = SentenceCutter(first_chars=5)
    assert "".join(cutter.add(f"abc def{mark}ghi")).strip() == f"abc def{mark}".strip()


def test_a_syllable_in_one_character_counts_more():
    assert cut("你好今天天气怎么样呢我想知道，谢谢你告诉我。", SentenceCutter(first_chars=40))[0].endswith("，")
    assert cut("你好，今天。", SentenceCutter(first_chars=40)) == ["你好，今天。"]


def test_without_first_chars_a_sentence_stays_whole():
    text = "One, two, three, four, five, six, seven, eight, nine, ten, eleven, twelve."
    assert cut(text, SentenceCutter(first_chars=None)) == [text]


def test_the_first_clause_of_all_is_enough_if_so_set():
    assert cut("One, two, three.", SentenceCutter(first_chars=0)) == ["One, ", "two, three."]


def test_a_piece_that_is_too_long_is_cut_at_the_best_place():
    def first(text: str) -> str:
        return cut(text, SentenceCutter(first_chars=None, max_chars=20))[0]

    assert first("one two three, four five six") == "one two three, "
    assert first("a, two three four five six") == "a, two three four "
    assert first("abcdefghijklmnopqrstuvwxyz") == "abcdefghijklmnopqrst"
    # The accent stays with its letter, a family together, and so do the halves of a surrogate pair.
    assert first("abcdefghijklmnopqrse\u0301fg") == "abcdefghijklmnopqrse\u0301"
    assert first("abcdefghijklmnopqr👩\u200d👩\u200d👧xyz") == "abcdefghijklmnopqr👩\u200d👩\u200d👧"
    assert first("abcdefghijklmnopqrs\ud83d\ude00xyz") == "abcdefghijklmnopqrs\ud83d\ude00"


def test_addresses_and_links_may_be_longer_than_a_piece():
    url = "https://example.com/" + "a" * 60

    def small() -> SentenceCutter:
        return SentenceCutter(first_chars=None, max_chars=30)

    assert cut(f"See {url} here", small()) == ["See ", f"{url} ", "here"]
    assert cut(f"See the [docs]({url}) here", small()) == ["See the ", f"[docs]({url}) ", "here"]


def test_what_is_never_closed_holds_nothing_back_for_long():
    for mark in ("`", "[", "[a](", '"', "« ", "**"):
        pieces = cut(f"Here {mark}x and. Then " + "more words. " * 40, SentenceCutter(max_chars=60))
        assert all(len(piece) <= 61 for piece in pieces)
        assert "more words. " in pieces


def test_code_is_bounded_too():
    pieces = cut("```\n" + "a = 1\n" * 100, SentenceCutter(max_chars=50, code_chars=200))
    assert [len(piece) for piece in pieces] == [200, 200, 200, 4]


@pytest.mark.parametrize("silence", [" ", "\n", "!", "😀", '"。', "e\u0301"[1:], "|", "- ", "` ", "🇩"])
def test_even_what_cannot_be_said_is_bounded(silence: str):
    cutter = SentenceCutter(max_chars=20, code_chars=100)
    longest = max(map(len, cutter.add(silence * 1_000)), default=0)
    assert 0 < longest <= 200
    assert len("".join(cutter.end())) <= 200


def test_the_next_answer_begins_anew():
    cutter = SentenceCutter(first_chars=5)
    for _ in range(2):
        assert cutter.add("[a `b one two, three. ") == []
        assert cutter.end() == ["[a `b one two, three. "]
        assert cutter.add("One two, three. ") == ["One two, ", "three. "]
        assert cutter.end() == []


@pytest.mark.parametrize("wrong", [{"first_chars": -1}, {"max_chars": 0}, {"max_chars": 10, "code_chars": 9}])
def test_settings_that_cannot_be_are_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="_chars is"):
        SentenceCutter(**wrong)


BITS = [
    *".!?…,;:-—\"'()[]`*_~#|<>«»“”„\n \t\r/\\@&1aAéI。！，「」।؟你",
    *("नी", "x", "dr.", "p.m. ", "25. ", "Okto", "etc. ", "\n\n", "```", "\n```\n", "~~~", "](", "https://a.b/"),
    *("www.", "- ", "1. ", "😀", "👩\u200d👧", "🇩🇪", "e\u0301", "\ud83d", "\ude00"),
]
CASES = [case.replace("|", "") for case in [*ENGLISH, *OTHERS, *MARKUP]]
texts = st.one_of(
    st.text(max_size=200),
    st.lists(st.sampled_from(BITS), max_size=80).map("".join),
    st.lists(st.sampled_from(CASES), max_size=4).map("".join),
)
cutters = st.builds(
    dict[str, int | None],
    first_chars=st.sampled_from([None, 0, 5, 40]),
    max_chars=st.sampled_from([1, 10, 30]),
    code_chars=st.sampled_from([30, 300, 20_000]),
)


@settings(max_examples=examples(400))
@given(text=texts, sizes=st.lists(st.integers(0, 50), min_size=1, max_size=8), config=cutters)
@example(text="a. \n\n`", sizes=[1], config={})
@example(text="0000000000！*", sizes=[1], config={"max_chars": 11})
def test_nothing_is_lost_and_how_it_is_chunked_does_not_matter(text: str, sizes: list[int], config: dict[str, int]):
    pieces = cut(text, SentenceCutter(**config))
    assert "".join(pieces) == text
    assert all(pieces)
    cutter = SentenceCutter(**config)
    chunked: list[str] = []
    at = number = 0
    while at < len(text):
        size = sizes[number % len(sizes)] or number % 3
        chunked += cutter.add(text[at : at + size])
        at, number = at + size, number + 1
    assert chunked + cutter.end() == pieces


@settings(max_examples=examples(300))
@given(text=texts, config=cutters)
def test_all_but_the_last_piece_have_something_to_say_and_no_grapheme_is_cut(text: str, config: dict[str, int]):
    pieces = cut(text, SentenceCutter(**{**config, "code_chars": 20_000}))
    assert all(any(char.isalnum() for char in piece) for piece in pieces[:-1])
    for piece, following in pairwise(pieces):
        # Behind a mark of markup or a stop anything may follow, even what would join it.
        if piece[-1].isalnum():
            assert breaks_between(piece[-1], following[0])


@settings(max_examples=examples(200))
@given(text=st.text(alphabet="ab ,.;\n-!?\"'*“”é你。，", max_size=400), max_chars=st.integers(5, 60))
def test_what_is_held_back_is_bounded(text: str, max_chars: int):
    cutter = SentenceCutter(first_chars=None, max_chars=max_chars)
    held = ""
    for char in text:
        held += char
        held = held[sum(map(len, cutter.add(char))) :]
        if any(letter.isalnum() for letter in held[:max_chars]):
            assert len(held) <= max_chars

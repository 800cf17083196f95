"""Which of a grammar's sentences are believed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.processors.stt.phone_similarity import accepts_grammar, phone_similarity

STOP = "S T AA P"
TURN_LEFT = "T ER N L EH F T"
SIXTY = "G OW F AO R W ER D S IH K S T IY M IY T ER Z"
SPOKEN = st.lists(st.sampled_from(["AA", "IY", "S", "T", "M", "NG", "W", "+SPN+"]), max_size=12)


@pytest.mark.parametrize(
    ("ours", "theirs", "share"),
    [
        ("M IY T ER Z", "M IY T ER Z", 1.0),
        ("M IY T ER Z", "L IY T ER Z", 0.8),
        ("M IY T ER Z", "N IY T ER Z", 0.9),
        ("M IY T ER Z", "IY T ER", 0.6),
        (STOP, "", 0.0),
        ("", "", 1.0),
    ],
)
def test_similarity_is_the_share_that_needs_no_edit(ours: str, theirs: str, share: float):
    assert phone_similarity(ours.split(), theirs.split()) == pytest.approx(share)


@given(SPOKEN, SPOKEN)
def test_similarity_is_symmetric_and_1_only_for_equal_sequences(one: list[str], other: list[str]):
    share = phone_similarity(one, other)
    assert 0 <= share <= 1
    assert share == phone_similarity(other, one)
    assert (share == 1) == (one == other)


@pytest.mark.parametrize(
    ("grammar", "lm", "believed"),
    [
        (STOP, STOP, True),
        # "stop it please"; "where have you been" for "where are you"
        (STOP, "S T AA P IH T P L IY Z", False),
        ("W EH R AA R Y UW", "W EH R HH AE V Y UW B IH N", False),
        # "turn last"
        (TURN_LEFT, "T ER N L AE S T", True),
        (TURN_LEFT, "T ER N AO F DH AH R EY D IY OW", False),
        # "go forward city leaders"
        (SIXTY, "G OW F AO R W ER D S IH T IY L IY D ER Z", True),
        (SIXTY, "W AH T AH L AH V L IY D EY IH T IH Z T AH D EY", False),
        (STOP, "", False),
        ("", "", False),
        ("", STOP, False),
    ],
)
def test_which_sentence_is_believed(grammar: str, lm: str, believed: bool):
    assert accepts_grammar(grammar.split(), lm.split()) is believed

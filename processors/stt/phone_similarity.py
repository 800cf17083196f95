"""Decide whether to accept a grammar's sentence: it must sound like the language model's result.

A grammar decoder finds one of its sentences in any audio. The language model's decoder, which chooses among all words,
returns "go forward city leaders" for "go forward sixty meters" in noise: few of the words, and most of the sounds. So
the sounds are compared (the dictionary's phones), and a long sentence needs less similarity than a short one, because
a short one matches more easily by chance.
"""

from collections.abc import Sequence

BASE_SIMILARITY = 0.71
SIMILARITY_PER_PHONE = 0.02
LEAST_SIMILARITY = 0.48
"""A sentence of n phones needs `BASE_SIMILARITY` - n * `SIMILARITY_PER_PHONE`, and at least `LEAST_SIMILARITY`.

"Stop" (four phones) needs 0.63, "turn left" (seven) 0.57, "go back ten meters" (thirteen) 0.48. The first two are
chosen on 392 sentences in three synthetic voices, quiet and in noise (the set `tuning` of benchmarks/speech). With
them all commands are accepted without noise, 75 to 91 % in noise at 15 dB, and 5 % of the sentences that are not
commands. The last is higher than these sentences require, because of a person: "four queen of clubs" has 0.45 with
"go forward twenty four meters". A rover that asks again is better than one that drives off.
"""

_CLASSES = (
    "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW W Y R L",
    "B P D T G K JH CH",
    "F TH S SH HH V DH Z ZH CH",
    "M N NG",
)
"""Phones (ARPAbet, as in the CMU dictionary) that noise confuses: vowels and glides, stops, fricatives, nasals."""
_CLASSES_OF = {
    phone: frozenset(number for number, phones in enumerate(_CLASSES) if phone in phones.split())
    for phone in " ".join(_CLASSES).split()
}
_NONE: frozenset[int] = frozenset()


def phone_similarity(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """Similarity of two phone sequences, 0 to 1: the share of the longer one that needs no edit.

    An edit (Levenshtein) inserts, deletes or replaces one phone; a replacement within a class counts half.
    """
    longer = max(len(ours), len(theirs))
    if not longer:
        return 1.0
    edits = [float(column) for column in range(len(theirs) + 1)]
    for row, one in enumerate(ours, 1):
        last, edits[0] = edits[0], float(row)
        for column, other in enumerate(theirs, 1):
            changed = last + _change(one, other)
            last, edits[column] = edits[column], min(edits[column] + 1, edits[column - 1] + 1, changed)
    return 1 - edits[-1] / longer


def _change(one: str, other: str) -> float:
    if one == other:
        return 0.0
    return 0.5 if _CLASSES_OF.get(one, _NONE) & _CLASSES_OF.get(other, _NONE) else 1.0


def accepts_grammar(grammar_phones: Sequence[str], lm_phones: Sequence[str]) -> bool:
    """Accept the grammar's sentence if its phones are similar enough to those of the language model's text."""
    if not grammar_phones:
        return False
    needed = max(BASE_SIMILARITY - SIMILARITY_PER_PHONE * len(grammar_phones), LEAST_SIMILARITY)
    return phone_similarity(grammar_phones, lm_phones) >= needed

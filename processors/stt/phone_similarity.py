"""Whether a grammar's sentence is believed: it must sound like what a recogniser without a grammar heard.

A grammar decoder hears one of its sentences in everything. The language model's decoder, which chooses among all
words, hears "go forward city leaders" for "go forward sixty meters" in noise: few of its words, and most of its
sounds. So sounds are compared (the dictionary's phones), and a long sentence needs less likeness than a short one,
because chance makes a short one more easily.
"""

from collections.abc import Sequence

LIKENESS = 0.71
LIKENESS_A_PHONE = 0.02
LEAST_LIKENESS = 0.48
"""What a sentence of n phones needs: `LIKENESS` less n times `LIKENESS_A_PHONE`, and `LEAST_LIKENESS` at the least.

"Stop" (four phones) needs 0.63, "turn left" (seven) 0.57, "go back ten meters" (thirteen) 0.48. The first two are
chosen on 392 sentences in three synthetic voices, quiet and in noise (the set `tuning` of benchmarks/speech). There
all commands are believed where it is quiet, 75 to 91 % in noise at 15 dB, and 5 % of what is no command. The last is
higher than they ask for, because of a person: "four queen of clubs" is 0.45 like "go forward twenty four meters".
A rover that asks again is better than one that drives off.
"""

_CLASSES = (
    "AA AE AH AO AW AY EH ER EY IH IY OW OY UH UW W Y R L",
    "B P D T G K JH CH",
    "F TH S SH HH V DH Z ZH CH",
    "M N NG",
)
"""Phones (ARPAbet, as the CMU dictionary has them) that noise makes of each other: voices, stops, hisses, nasals."""
_CLASSES_OF = {
    phone: frozenset(number for number, phones in enumerate(_CLASSES) if phone in phones.split())
    for phone in " ".join(_CLASSES).split()
}
_NONE: frozenset[int] = frozenset()


def likeness(ours: Sequence[str], theirs: Sequence[str]) -> float:
    """How alike two sequences of phones sound, 0 to 1: the share of the longer one that needs no edit.

    An edit (Levenshtein) puts in, takes out or changes one phone; a change within a class counts half.
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


def is_believed(grammar_phones: Sequence[str], lm_phones: Sequence[str]) -> bool:
    """Whether the grammar's sentence, pronounced so, was said where the language model's words are pronounced so."""
    if not grammar_phones:
        return False
    needed = max(LIKENESS - LIKENESS_A_PHONE * len(grammar_phones), LEAST_LIKENESS)
    return likeness(grammar_phones, lm_phones) >= needed

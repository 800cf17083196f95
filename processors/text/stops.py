"""Ends of sentences and clauses: the marks, and the abbreviations whose stop is not an end.

One table for all languages: a cutter need not know which one is written. The words are those that assistants and
encyclopaedias write most; those that are also words at the end of a sentence ("art.", "es.", "no.") are left out, or
stand among those for which the next character decides. All are compared in lower case, without their last stop.
"""

from __future__ import annotations

import re
from enum import Enum

STOPS = frozenset(".!?…‼⁇⁈⁉")
"""End a sentence where a blank follows."""
WIDE_STOPS = frozenset("。｡।॥۔።။។།")
"""End a sentence with nothing behind them."""
WIDE_MARKS = frozenset("！？؟")
"""End a sentence with nothing behind them; but "！？" is common, so one character more is seen."""
CLOSERS = frozenset("\"'”’»«›‹“‘)]}*_~`）」』】》〉］｝＂＇")
"""May stand between a stop and its blank: quotes, brackets and markup (“ and « close in German)."""
QUOTES = frozenset("\"'”’»«›‹“‘)]}）」』】》〉")
"""The closers after which a sentence may go on: "Stop!" he said."""
OPENERS = frozenset("\"'“‘«‹„‚»›(*_~¿¡「『（")
"""May stand before the first letter of a sentence (» opens in German)."""
WIDE_OPENERS = frozenset("「『（“【《")
WIDE_CLOSERS = frozenset("」』）”】》")
CLAUSES = frozenset(",;:،؛")
"""End a clause where a blank follows."""
WIDE_CLAUSES = frozenset("，、；：､")
"""End a clause with nothing behind them."""
DASHES = frozenset("-–—―")
"""End a clause between blanks; the last two anywhere."""
BLANKS = frozenset(" \t\n\r\f\v\u2028\u2029\u3000\u2002\u2003\u2009")
"""Not those that glue: before a French "!" stands U+00A0 or U+202F."""


SPEECH_QUOTES = frozenset('"”»«“')
"""Behind a stop, the end of what somebody said."""
ITEM = re.compile(r"(?:[-+*•‣◦▪●○■□·–]|#{1,6}|[*_]{0,3}(?:\d{1,9}|[A-Za-z])[.)])[ \t]|[|>]")
ITEM_SO_FAR = re.compile(r"[-+•‣◦▪●○■□·–]|#{1,6}|[*_]{1,3}|[*_]{0,3}(?:\d{1,9}|[A-Za-z])[.)]?")
LINE_MARKUP = frozenset("#>|-*+`~_•‣◦▪●○■□·–—")
"""Where a line begins so, the one before it was whole."""
REFERENCE = re.compile(r"\[\^?\d{1,4}\]")


class SentenceEnd(Enum):
    """Meaning of a single stop and a blank after a word."""

    YES = "the sentence ends"
    NO = "it goes on"
    CASE = "it goes on if a small letter or a digit follows"
    DIGIT = "it goes on if a digit follows"
    ORDINAL = "it goes on as with CASE, or if a German month or the like follows"
    CLOSER = "the sentence ends, here or behind the » that follows"


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_NEVER = _words("""
dr mr mrs mx prof st mt sgt lt capt cmdr maj supt messrs mmes
e.g i.e eg ie vs viz cf approx dept figs eqs misc incl excl
hr frl dipl bzw evtl ggf inkl zzgl bspw vgl sog ca z.b d.h u.a u.u o.ä i.d.r z.t u.v.m s.o s.u tel geb gest bzgl
mme mlle mgr env p.ex c.-à-d càd
sr sra srta sres dra drs ud uds vd vds núm pág págs p.ej aprox avda dña exmo exma ilmo profa
sig sigg dott avv pag pagg mons p.es
""")
"""English, German, French, Spanish and Portuguese, Italian."""
_NEVER_AS_WRITTEN = _words("Fr Str Ing Ms Rep Col Gen Sen Rev Hon Pres Gov Arch Geom Eng Arq")
"""Frau, Straße, titles; but "50 ms.", "one more rep."."""
_CASE = _words("""
etc al jr inc ltd corp llc bros ave blvd rd ph usw chr ecc cie cia ltda ee.uu tsd mio mrd std sek hrs ft
""")
_DIGIT = _words("""
no nr nos núms nº n.º n° vol ch sec pp pg art abb kap ziff apt fig eq chap
jan feb mar apr jun jul aug sep sept oct okt nov dec dez
""")
_MONTHS = _words("""
Januar Jänner Februar März April Mai Juni Juli August September Oktober November Dezember Jahrhundert Jahrestag
Geburtstag Weltkrieg Klasse Stock Etage Platz Tag Kapitel Auflage
""")
"""Words that usually follow a German ordinal. "Am 3. Oktober", but "Ich bin 3. Und du?"."""
_ACRONYM = re.compile(r"(?:[^\W\d_]{1,2}\.)+-?[^\W\d_]{1,2}")
_ROMAN = re.compile(r"[IVXL]{2,}")
_AROUND = "*_~`\"'“”‘’«»‹›„‚([{¿¡"


def after_word(word: str) -> SentenceEnd:
    """Return the meaning of a single "." and a blank after a word (with the markup and brackets before it)."""
    word = word.strip(_AROUND)
    if len(word) == 1 and word.isalpha():
        # Initials, "z. B."; but "So do I." Letters without case are words (CJK).
        if word in "IЯ" or word.lower() == word.upper():
            return SentenceEnd.YES
        return SentenceEnd.NO
    if word.isdecimal():
        return SentenceEnd.ORDINAL if len(word) <= 2 else SentenceEnd.YES
    last = word.rsplit("-", 1)[-1]
    if last in _NEVER_AS_WRITTEN:
        return SentenceEnd.NO
    for one in (word.lower(), last.lower()):
        if one in _NEVER:
            return SentenceEnd.NO
        if one in _CASE:
            return SentenceEnd.CASE
        if one in _DIGIT:
            return SentenceEnd.DIGIT
    if _ACRONYM.fullmatch(word) or _ROMAN.fullmatch(word):
        return SentenceEnd.CASE
    return SentenceEnd.YES


def goes_on(end: SentenceEnd, seen: str) -> bool | None:
    """Decide by the text after the blank whether the sentence continues; None: one more sign is needed."""
    first = seen[0]
    if first in DASHES or first in CLAUSES:
        return True
    if end is SentenceEnd.DIGIT:
        return first.isdecimal()
    if first.islower() or first.isdecimal():
        return True
    if end is not SentenceEnd.ORDINAL or not first.isupper():
        return False
    if seen in _MONTHS:
        return True
    return None if any(month.startswith(seen) for month in _MONTHS) else False


def ends_clause(chars: list[str]) -> bool:
    """Return True where the last character, a blank, follows a clause."""
    mark, before = (chars[-2:-1] or " ")[0], (chars[-3:-2] or " ")[0]
    if mark in CLAUSES or mark in DASHES:
        return mark in CLAUSES or mark in "—―" or before in BLANKS
    return mark in CLOSERS and before in CLAUSES

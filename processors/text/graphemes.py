"""Where a text may be cut between two characters without taking a letter or an emoji apart."""

from __future__ import annotations

import unicodedata

_JOINER = "\u200d"


def breaks_between(before: str, after: str) -> bool:
    """Return True where a grapheme may end between two code points.

    A careful short form of Unicode's rules (UAX 29): it never allows a cut that they forbid, and forbids a few that
    they allow (flags are never told apart; behind a virama there is no cut). Lone surrogates are kept in pairs.
    """
    if before < "\u0300" and after < "\u0300":
        return not (before == "\r" and after == "\n")
    if after == _JOINER or before == _JOINER or "\ud800" <= before <= "\udbff":
        return False
    if "\U0001f3fb" <= after <= "\U0001f3ff" or "\U000e0020" <= after <= "\U000e007f":
        return False
    if "\U0001f1e6" <= before <= "\U0001f1ff" and "\U0001f1e6" <= after <= "\U0001f1ff":
        return False
    if "\u1100" <= before <= "\ud7fb" and ("\u1100" <= after <= "\u11ff" or "\ud7b0" <= after <= "\ud7fb"):
        return False
    if "\u1100" <= before <= "\u115f" and "\uac00" <= after <= "\ud7a3":
        return False
    if after in "\u0e33\u0eb3\u200c\uff9e\uff9f" or unicodedata.category(after) in ("Mn", "Mc", "Me"):
        return False
    # Signs that stand before their letter, and viramas, which join two.
    return unicodedata.combining(before) != 9 and unicodedata.category(before) != "Cf"

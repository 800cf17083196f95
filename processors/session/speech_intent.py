"""What words over the bot mean: do they want the turn, or only say that somebody listens?"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from functools import lru_cache

from .settings import InterruptionSettings

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class Gate(enum.Enum):
    """What is said over the bot is one of these."""

    REQUEST = "request"
    """A keyword: it always interrupts."""
    SPEECH = "speech"
    """Enough words to interrupt."""
    BACKCHANNEL = "a backchannel"
    SHORT = "too short"
    FEW = "too few words"
    NOTHING = "no words"


def words_of(text: str) -> list[str]:
    """The words of a text, in small letters, without punctuation: "Mm-hm, I'm there!" has mm, hm, i'm and there."""
    return _WORD.findall(text.casefold())


def judge(settings: InterruptionSettings, text: str, speech_ms: float | None) -> Gate:
    """What ``text`` means, said over the bot in speech of that length (None: nobody measured it)."""
    words = words_of(text)
    if not words:
        return Gate.NOTHING
    if _holds(words, _phrases(settings.keywords)):
        return Gate.REQUEST
    if _made_of(words, _phrases(settings.backchannels)):
        return Gate.BACKCHANNEL
    if speech_ms is not None and speech_ms < settings.min_speech_ms:
        return Gate.SHORT
    return Gate.SPEECH if len(words) >= settings.min_words else Gate.FEW


@lru_cache(maxsize=64)
def _phrases(texts: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(words_of(text)) for text in texts) - {()}


def _holds(words: list[str], phrases: Iterable[tuple[str, ...]]) -> bool:
    """Whether one of the phrases stands in the words."""
    return any(
        tuple(words[at : at + len(phrase)]) == phrase for phrase in phrases for at in range(len(words))
    )  # fmt: skip


def _made_of(words: list[str], phrases: frozenset[tuple[str, ...]]) -> bool:
    """Whether the words are phrases, one after another, and nothing else."""
    reached = {0}
    for at in range(len(words)):
        if at in reached:
            reached |= {at + len(phrase) for phrase in phrases if tuple(words[at : at + len(phrase)]) == phrase}
    return len(words) in reached


def agreement(one: str, other: str) -> float:
    """How alike two texts are: 1 less the word error rate of one against the longer, 1.0 for the same words.

    The edit distance over words (Levenshtein, 1966), as word error rates are counted.
    """
    left, right = words_of(one), words_of(other)
    if not left and not right:
        return 1.0
    row = list(range(len(right) + 1))
    for n, word in enumerate(left, 1):
        before, row[0] = row[0], n
        for m, against in enumerate(right, 1):
            before, row[m] = row[m], min(row[m] + 1, row[m - 1] + 1, before + (word != against))
    return 1 - row[-1] / max(len(left), len(right))

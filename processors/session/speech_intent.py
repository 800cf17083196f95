"""Classify words that the user says over the bot: an interruption, a backchannel, or too little to decide."""

from __future__ import annotations

import enum
import re
from collections.abc import Iterable
from functools import lru_cache

from .settings import InterruptionSettings

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


class SpeechIntent(enum.Enum):
    """The intent of words over the bot."""

    REQUEST = "request"
    """A keyword: it always interrupts."""
    SPEECH = "speech"
    """Enough words to interrupt."""
    BACKCHANNEL = "a backchannel"
    SHORT = "too short"
    FEW = "too few words"
    NOTHING = "no words"


def words_of(text: str) -> list[str]:
    """Split a text into casefolded words without punctuation: "Mm-hm, I'm there!" becomes mm, hm, i'm, there."""
    return _WORD.findall(text.casefold())


def classify(settings: InterruptionSettings, text: str, speech_ms: float | None) -> SpeechIntent:
    """Classify ``text``, said over the bot in speech of ``speech_ms`` (None: not measured)."""
    words = words_of(text)
    if not words:
        return SpeechIntent.NOTHING
    if _contains_phrase(words, _phrases(settings.keywords)):
        return SpeechIntent.REQUEST
    if _consists_of(words, _phrases(settings.backchannels)):
        return SpeechIntent.BACKCHANNEL
    if speech_ms is not None and speech_ms < settings.min_speech_ms:
        return SpeechIntent.SHORT
    return SpeechIntent.SPEECH if len(words) >= settings.min_words else SpeechIntent.FEW


@lru_cache(maxsize=64)
def _phrases(texts: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    return frozenset(tuple(words_of(text)) for text in texts) - {()}


def _contains_phrase(words: list[str], phrases: Iterable[tuple[str, ...]]) -> bool:
    return any(
        tuple(words[at : at + len(phrase)]) == phrase for phrase in phrases for at in range(len(words))
    )  # fmt: skip


def _consists_of(words: list[str], phrases: frozenset[tuple[str, ...]]) -> bool:
    """Tell if the words are a sequence of phrases, without a word left over."""
    reached = {0}
    for at in range(len(words)):
        if at in reached:
            reached |= {at + len(phrase) for phrase in phrases if tuple(words[at : at + len(phrase)]) == phrase}
    return len(words) in reached


def agreement(one: str, other: str) -> float:
    """Compare two texts: 1 minus the word error rate against the longer text; 1.0 for the same words.

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

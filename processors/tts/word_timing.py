"""Place the written words of a text in its speech, to know how far it has been spoken.

Pure: chunks of speech in, words out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...pipeline.frames import Samples, SpokenWord
from ..text.speakable import Spoken

CHARACTERS_PER_S = 15
"""Assumed speed of a voice without word times: 175 words per minute."""

_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Scripts without spaces between words: Thai, Lao, kana, Chinese. There, each character is a word."""
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_GLUED = re.compile(rf"[{_UNSPACED}\u3000-\u303f\uff00-\uffef]")


def tokens(text: str) -> list[tuple[int, int]]:
    """Find the words of a text: start and end offsets."""
    return [match.span() for match in _TOKEN.finditer(text)]


@dataclass(frozen=True, slots=True)
class WordStart:
    """A word at ``char_offset`` of the text, which begins ``start_ms`` after the first sample of its chunk.

    A negative ``start_ms``: it began in an earlier chunk of the same text.
    """

    char_offset: int
    start_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class SpeechChunk:
    """A piece of speech: ``samples`` int16, shape (n,), mono, at ``sample_rate`` Hz, and the words that begin in it.

    A word may be reported before the chunk in which it begins, with a ``start_ms`` beyond the end of the chunk. A chunk
    may have no samples, only words.
    """

    samples: Samples
    sample_rate: int
    words: tuple[WordStart, ...] = ()

    @property
    def duration_ms(self) -> float:
        """Length in ms."""
        return len(self.samples) * 1000.0 / self.sample_rate


class WordTiming:
    """Places the words of a text in its sound. Joined as `SpokenWord` says, they are the written text.

    A voice may speak two words as one ("I am"), and a word with a hyphen as two. An unreported word is added to the
    next reported one, because too late is better than too early. If a voice fails, `start_attempt` returns the start
    of the next attempt: the last word that began.
    """

    def __init__(self, text: Spoken) -> None:
        self._text = text
        self._tokens = tokens(text.text)
        self._next = 0
        """First token that was not returned yet."""
        self._written = 0
        """Length of the written text that was returned as words."""
        self._timed = True
        self._start = 0
        """Offset in the spoken text at which this attempt started."""
        self._audio_ms = 0.0
        """Length of this attempt's audio so far."""
        self._last_word_ms = 0.0
        """Start of the last word of this attempt that was returned."""
        self._waiting: list[tuple[float, int]] = []
        """Reported words that have not begun: start in ms of this attempt, and offset."""
        self._reached = 0
        """Offset of the last word that has begun."""

    @property
    def spoken_chars(self) -> int:
        """Number of characters up to the last word that has begun."""
        return self._reached if self._audio_ms or self._start else 0

    def start_attempt(self, *, timed: bool) -> int:
        """Start another attempt. Returns its offset in the text. ``timed``: its voice reports when words begin."""
        if self._audio_ms and not self._timed:
            reached = self._start + self._audio_ms * CHARACTERS_PER_S / 1000
            self._reached = max((start for start, _ in self._tokens if start <= reached), default=self._start)
        self._start, self._timed = self._reached, timed
        self._audio_ms = self._last_word_ms = 0.0
        self._waiting = []
        return self._start

    def untimed(self) -> None:
        """Expect no more words of this attempt: the remaining text lasts as long as its sound."""
        self._timed = False

    def words_of(self, chunk: SpeechChunk) -> tuple[SpokenWord, ...]:
        """Return the words for this attempt's next chunk: they begin in it or before."""
        begin_ms = self._audio_ms
        self._audio_ms += chunk.duration_ms
        if not self._timed:
            return self._all(self._last_word_ms - begin_ms) if len(chunk.samples) else ()
        self._waiting += [(max(0.0, begin_ms + word.start_ms), self._start + word.char_offset) for word in chunk.words]
        found: list[SpokenWord] = []
        if not len(chunk.samples):
            # A chunk without samples cannot carry words.
            return ()
        for start_ms, offset in sorted(self._waiting):
            if start_ms < self._audio_ms:
                self._reached = max(self._reached, self._token_start(offset))
                self._last_word_ms = start_ms
                found += self._upto(offset, start_ms - begin_ms)
        self._waiting = [word for word in self._waiting if word[0] >= self._audio_ms]
        return tuple(found)

    def rest(self, duration_ms: float) -> tuple[SpokenWord, ...]:
        """End the text: return the remaining words, at the end of a last chunk of ``duration_ms``."""
        return self._all(max(0.0, duration_ms - 1))

    def _token_start(self, offset: int) -> int:
        return max((start for start, _ in self._tokens if start <= offset), default=0)

    def _upto(self, offset: int, start_ms: float) -> list[SpokenWord]:
        """Return the written text up to the end of the token at ``offset``, unless it was returned already."""
        end = 0
        while self._next < len(self._tokens) and self._tokens[self._next][0] <= offset:
            end = self._tokens[self._next][1]
            self._next += 1
        return self._take_words(self._text.written_end(end), start_ms) if end else []

    def _all(self, start_ms: float) -> tuple[SpokenWord, ...]:
        self._next = len(self._tokens)
        return tuple(self._take_words(len(self._text.written), start_ms))

    def _take_words(self, end: int, start_ms: float) -> list[SpokenWord]:
        begin, self._written = self._written, max(self._written, end)
        written = self._text.written[begin : self._written]
        word = " ".join(written.split())
        if not word:
            # Blanks belong to the next word.
            self._written = begin
            return []
        spaced = written[0].isspace() or (begin > 0 and self._text.written[begin - 1].isspace())
        glued = not spaced if begin else bool(_GLUED.match(word))
        return [SpokenWord(word, start_ms, glued)]

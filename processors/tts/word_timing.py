"""How far a text has been spoken: when its words begin in the sound, told as they were written.

Pure: chunks of speech in, words out.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ...pipeline.frames import Samples, SpokenWord
from ..text.speakable import Spoken

CHARACTERS_PER_S = 15
"""How fast a voice speaks that does not tell: 175 words a minute."""

_UNSPACED = "\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
"""Scripts that write no spaces between words: Thai, Lao, kana, Chinese. There, each character is a word."""
_TOKEN = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")
_GLUED = re.compile(rf"[{_UNSPACED}\u3000-\u303f\uff00-\uffef]")


def tokens(text: str) -> list[tuple[int, int]]:
    """Where the words of a text are: first character, and the one behind the last."""
    return [match.span() for match in _TOKEN.finditer(text)]


@dataclass(frozen=True, slots=True)
class WordStart:
    """A word of the text begins at ``char_offset`` in it, and ``start_ms`` after the first sample of its chunk.

    Below 0: it began so long before, in an earlier chunk of the same text.
    """

    char_offset: int
    start_ms: float


@dataclass(frozen=True, slots=True, eq=False)
class SpeechChunk:
    """A piece of speech: ``samples`` int16, shape (n,), mono, at ``sample_rate`` Hz, and the words that begin in it.

    A word may be told in an earlier chunk than it begins in, with a ``start_ms`` beyond its end; and a chunk may have
    no samples, only words.
    """

    samples: Samples
    sample_rate: int
    words: tuple[WordStart, ...] = ()

    @property
    def duration_ms(self) -> float:
        """Length in ms."""
        return len(self.samples) * 1000.0 / self.sample_rate


class Script:
    """Places the words of a text in its sound, so that, joined as `SpokenWord` says, they are what was written.

    A voice may say some words together ("I am") and one with a hyphen in two parts. A word that it does not tell of
    is counted with the next that it does: rather heard too late than too early. Where a voice fails, `go_on` says
    where the next one begins: with the last word that was begun.
    """

    def __init__(self, said: Spoken) -> None:
        self._said = said
        self._tokens = tokens(said.text)
        self._next = 0
        """The first token of which nothing is told yet."""
        self._written = 0
        """How much of the written text the words had that were given out."""
        self._timed = True
        self._start = 0
        """Where in the spoken text this attempt began."""
        self._audio_ms = 0.0
        """How much audio this attempt has given."""
        self._told_ms = 0.0
        """When the last word of this attempt began that was given out."""
        self._waiting: list[tuple[float, int]] = []
        """Words that were told of and have not begun: when they will, in ms of this attempt, and where they are."""
        self._begun = 0
        """Where in the spoken text the last word is that has begun."""

    @property
    def spoken_chars(self) -> int:
        """How much of the spoken text has begun to sound, in characters."""
        return self._begun if self._audio_ms or self._start else 0

    def go_on(self, *, timed: bool) -> int:
        """Begin another attempt. Returns where in the spoken text. ``timed``: its voice tells when words begin."""
        if self._audio_ms and not self._timed:
            reached = self._start + self._audio_ms * CHARACTERS_PER_S / 1000
            self._begun = max((start for start, _ in self._tokens if start <= reached), default=self._start)
        self._start, self._timed = self._begun, timed
        self._audio_ms = self._told_ms = 0.0
        self._waiting = []
        return self._start

    def untimed(self) -> None:
        """No words will be told of this attempt after all: what is left of the text lasts as long as its sound."""
        self._timed = False

    def words_of(self, chunk: SpeechChunk) -> tuple[SpokenWord, ...]:
        """The words that are told with a chunk, the next of this attempt: they begin in it, or have begun before."""
        begin_ms = self._audio_ms
        self._audio_ms += chunk.duration_ms
        if not self._timed:
            return self._all(self._told_ms - begin_ms) if len(chunk.samples) else ()
        self._waiting += [(max(0.0, begin_ms + word.start_ms), self._start + word.char_offset) for word in chunk.words]
        found: list[SpokenWord] = []
        if not len(chunk.samples):
            # There is nothing that could carry them.
            return ()
        for start_ms, offset in sorted(self._waiting):
            if start_ms < self._audio_ms:
                self._begun = max(self._begun, self._token_start(offset))
                self._told_ms = start_ms
                found += self._upto(offset, start_ms - begin_ms)
        self._waiting = [word for word in self._waiting if word[0] >= self._audio_ms]
        return tuple(found)

    def rest(self, duration_ms: float) -> tuple[SpokenWord, ...]:
        """The text is spoken: what no chunk told of, at the end of the last, which is ``duration_ms`` long."""
        return self._all(max(0.0, duration_ms - 1))

    def _token_start(self, offset: int) -> int:
        return max((start for start, _ in self._tokens if start <= offset), default=0)

    def _upto(self, offset: int, start_ms: float) -> list[SpokenWord]:
        """The written text up to the end of the token at ``offset`` that was not given out yet."""
        end = 0
        while self._next < len(self._tokens) and self._tokens[self._next][0] <= offset:
            end = self._tokens[self._next][1]
            self._next += 1
        return self._give_out(self._said.written_end(end), start_ms) if end else []

    def _all(self, start_ms: float) -> tuple[SpokenWord, ...]:
        self._next = len(self._tokens)
        return tuple(self._give_out(len(self._said.written), start_ms))

    def _give_out(self, end: int, start_ms: float) -> list[SpokenWord]:
        begin, self._written = self._written, max(self._written, end)
        written = self._said.written[begin : self._written]
        text = " ".join(written.split())
        if not text:
            # Blanks wait for the word after them.
            self._written = begin
            return []
        spaced = written[0].isspace() or (begin > 0 and self._said.written[begin - 1].isspace())
        glued = not spaced if begin else bool(_GLUED.match(text))
        return [SpokenWord(text, start_ms, glued)]

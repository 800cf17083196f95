"""Progress of the spoken text: matches pieces of text with the words of the audio and the time played.

Pure. A voice without word times sends several words as one; within it, the time is shared in proportion to characters,
as in the playout ledger.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field

from ...pipeline.frames import SpokenWord
from ..playout import CHARACTERS_PER_S, started_words


@dataclass(slots=True)
class Segment:
    """A piece of text generated as one, usually a sentence."""

    id: int
    text: str
    spoken: int = 0
    """Number of characters heard."""
    done: bool = False


@dataclass(frozen=True, slots=True)
class Progress:
    """``word`` has started to sound; or the segment is finished, and ``word`` is the rest of it."""

    segment: Segment
    word: str
    done: bool


@dataclass(frozen=True, slots=True)
class _TimedWord:
    at_ms: float
    text: str
    segment: int
    """Index of its segment."""
    begin: int
    end: int


@dataclass(slots=True)
class SpokenProgress:
    """Progress of one response."""

    segments: list[Segment] = field(default_factory=list[Segment])
    made_ms: float = 0.0
    """Length of the audio generated so far."""
    _words: list[_TimedWord] = field(default_factory=list[_TimedWord])
    _reported: int = 0
    """Number of words reported."""
    _at: tuple[int, int] = (0, 0)
    """Segment and character at which the search for the next word starts."""
    _open: int = 0
    """Index of the current segment."""

    def add(self, id: int, text: str) -> Segment:
        """Append a piece of text."""
        self.segments.append(Segment(id, text))
        return self.segments[-1]

    def hear(self, duration_ms: float, words: tuple[SpokenWord, ...]) -> None:
        """Add audio and the words that start in it. Words missing from the text are skipped."""
        for word in words:
            place = self._find(word.text.strip())
            if place is not None:
                index, begin = place
                end = begin + len(word.text.strip())
                self._at = (index, end)
                self._words.append(_TimedWord(self.made_ms + word.start_ms, word.text.strip(), index, begin, end))
        self.made_ms += duration_ms

    def _find(self, text: str) -> tuple[int, int] | None:
        index, start = self._at
        if not text:
            return None
        while index < len(self.segments):
            begin = self.segments[index].text.find(text, start)
            if begin >= 0:
                return index, begin
            index, start = index + 1, 0
        return None

    def played(self, played_ms: float) -> Iterator[Progress]:
        """Yield the progress after ``played_ms`` of audio."""
        words = self._words
        while self._reported < len(words) and words[self._reported].at_ms < played_ms:
            word = words[self._reported]
            self._reported += 1
            if self._reported > 1:
                yield from self._reach(words[self._reported - 2].segment, words[self._reported - 2].end)
            yield from self._reach(word.segment, word.begin + _first(word.text))
        if self._reported:
            yield from self._share(self._reported - 1, played_ms)

    def _share(self, number: int, played_ms: float) -> Iterator[Progress]:
        word = self._words[number]
        if " " not in word.text:
            return
        if number + 1 < len(self._words):
            end_ms = self._words[number + 1].at_ms
        else:
            end_ms = max(self.made_ms, word.at_ms + len(word.text) * 1000 / CHARACTERS_PER_S)
        for piece in re.finditer(
            r"\S+", started_words(word.text, played_ms - word.at_ms, max(1.0, end_ms - word.at_ms))
        ):
            yield from self._reach(word.segment, word.begin + piece.end())

    def cut(self, heard_text: str) -> Iterator[Progress]:
        """Yield the progress up to the text that the ledger reports as heard."""
        characters = len("".join(heard_text.split()))
        for index, segment in enumerate(self.segments):
            for piece in re.finditer(r"\S+", segment.text):
                characters -= len(piece.group())
                if characters < 0:
                    return
                yield from self._reach(index, piece.end())

    def finish(self) -> Iterator[Progress]:
        """Yield the progress up to the end of the text."""
        if self.segments:
            yield from self._reach(len(self.segments) - 1, len(self.segments[-1].text))
            yield from self._end(len(self.segments))

    def _reach(self, index: int, character: int) -> Iterator[Progress]:
        """Yield the progress up to a character of a segment; earlier segments are finished."""
        yield from self._end(index)
        segment = self.segments[index]
        if character > segment.spoken:
            word = segment.text[segment.spoken : character].strip()
            segment.spoken = character
            if word:
                yield Progress(segment, word, done=False)

    def _end(self, before: int) -> Iterator[Progress]:
        while self._open < before:
            segment = self.segments[self._open]
            self._open += 1
            if not segment.done:
                rest, segment.spoken, segment.done = segment.text[segment.spoken :], len(segment.text), True
                yield Progress(segment, rest.strip(), done=True)


def _first(text: str) -> int:
    """Return the end of the first word."""
    found = re.search(r"\S+", text)
    return found.end() if found else len(text)

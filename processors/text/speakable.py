"""Speakable text from written text: markdown, emoji, links and code become plain words.

    spoken = speakable("**Hello**, see [the docs](https://example.com) 😀")
    spoken.text                 # 'Hello, see the docs '
    spoken.written_end(5)       # 9: when "Hello" has been said, so has "**Hello**"

The text may be any piece of an answer, with markup that was cut off or never closed. docs/design/text.md has the rules.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from .markup import Kind, Token, tokens
from .words import Words, words_of

_ENDS_LINE = frozenset(")]\"'”’»%°")
_WIDE = "\u2e80"


@dataclass(frozen=True, slots=True)
class Spoken:
    """A text for a voice, and how it lies over what was written. Offsets are in code points."""

    text: str
    """Text for the voice."""
    written: str
    """The written text."""
    _ends: Sequence[int] = field(repr=False)
    """Per character of `text`: how much of `written` has been said with it."""

    def written_end(self, spoken_offset: int) -> int:
        """How much of `written` has been said when all before `spoken_offset` in `text` has. O(1), never falls.

        0 at 0, and all at the end; where there is nothing to say, all has been said from the start. Markup counts
        with the word that it stands at; what is replaced (an address, code), with the last character of what is
        said for it. Offsets out of range count as the nearest one.
        """
        if not self.text:
            return len(self.written)
        return self._ends[min(spoken_offset, len(self.text)) - 1] if spoken_offset > 0 else 0


def speakable(written: str, *, language: str = "en", code: str | None = None, emoji: bool = False) -> Spoken:
    """Convert written text for a voice. Plain prose stays as it is, character by character.

    `language` ("en", "de-DE") is that of the few words that are put in ("example dot com"; see words.py); English
    for one that is not known. `code` is said instead of a block of code; None is a short sentence in the language, ""
    is nothing. With `emoji` they stay in, for a voice that makes something of them. Never raises.
    """
    found = tokens(written)
    if not found:
        return Spoken(written, written, range(1, len(written) + 1))
    words = words_of(language)
    voice = _Voice(written)
    for token in found:
        _say(voice, token, words, words.code if code is None else code, emoji)
    voice.keep(len(written))
    return voice.spoken()


def _say(voice: _Voice, token: Token, words: Words, code: str, emoji: bool) -> None:
    voice.keep(token.start)
    match token.kind:
        case Kind.OPENS:
            voice.skip(token.end)
        case Kind.LINE:
            voice.skip(token.end)
            voice.in_item = True
        case Kind.CLOSES | Kind.GONE:
            voice.drop(token.end)
        case Kind.EMOJI if emoji:
            voice.say(token.text or voice.written[token.start : token.end], token.end)
        case Kind.EMOJI:
            voice.leave_out(token.end)
        case Kind.TEXT:
            voice.say(token.text, token.end)
        case Kind.PAUSE:
            voice.pause(token.end)
        case Kind.CODE:
            voice.block(code if token.text.strip() else "", token.end)
        case Kind.BREAK:
            voice.say("\n", token.end)
        case Kind.AND:
            voice.say(words.and_, token.end)
        case Kind.ADDRESS:
            said = token.text.replace(".", f" {words.dot} ").replace("@", f" {words.at} ")
            voice.say(said, token.end)


class _Voice:
    """Puts the spoken text together. `at` is how far the written one has been read."""

    def __init__(self, written: str) -> None:
        self.written = written
        self.at = 0
        self.in_item = False
        self._parts: list[str] = []
        self._ends: list[int] = []
        self._swallow = False
        """Blanks that come next are left out: what stood between them and others is gone."""

    @property
    def _last(self) -> str:
        return self._parts[-1][-1] if self._parts else ""

    def keep(self, end: int) -> None:
        """Say what is written up to there, as it stands."""
        if self._swallow and self.at < end:
            start = self.at
            while start < end and self.written[start] in " \t":
                start += 1
            self._swallow = start == end
            self.drop(start)
        if self.at >= end:
            return
        text = self.written[self.at : end]
        if self.in_item and "\n" in text:
            line, _, _ = text.partition("\n")
            self._identity(self.at + len(line))
            self._end_item()
        self._identity(end)

    def _identity(self, end: int) -> None:
        if self.at < end:
            self._parts.append(self.written[self.at : end])
            self._ends.extend(range(self.at + 1, end + 1))
            self.at = end

    def _end_item(self) -> None:
        """A line of a list has no stop, but a voice needs one."""
        last = self._last
        self.in_item = False
        if last.isalnum() or last in _ENDS_LINE:
            self._put("。" if _WIDE <= last <= "\uffdc" else ".", self.at)

    def skip(self, end: int) -> None:
        """Leave out what counts with what follows."""
        self.at = end

    def drop(self, end: int) -> None:
        """Leave out what counts with what went before."""
        if self._ends:
            self._ends[-1] = end
        self.at = end

    def leave_out(self, end: int) -> None:
        """Leave out what stood between blanks or words; one blank is enough then."""
        last, follows = self._last, self.written[end : end + 1]
        if last.isalnum() and follows.isalnum():
            self.say(" ", end)
            return
        self._swallow = not last or last.isspace()
        self.drop(end)

    def say(self, text: str, end: int) -> None:
        """Say this for what is written up to there."""
        self._swallow = False
        if text:
            self._put(text, end)
        self.at = end

    def pause(self, end: int) -> None:
        """A comma, unless there is one."""
        blank = not self._parts or self._last in ",，" or self._last.isspace()
        self.say("" if blank else ", ", end)
        if blank:
            self.drop(end)
        self._swallow = True

    def block(self, text: str, end: int) -> None:
        """Say this for a block of lines."""
        if text and self.written[end - 1 : end] == "\n":
            text += "\n"
        self.say(text, end)
        if not text:
            self.drop(end)

    def _put(self, text: str, end: int) -> None:
        self._parts.append(text)
        self._ends.extend([self._ends[-1] if self._ends else 0] * (len(text) - 1))
        self._ends.append(end)

    def spoken(self) -> Spoken:
        if self._ends:
            self._ends[-1] = len(self.written)
        return Spoken("".join(self._parts), self.written, tuple(self._ends))

"""Cuts written text that streams in into pieces that a voice can speak, each as early as it is known to be whole.

::

    cutter = SentenceCutter()
    for delta in ("Hello the", "re. How are", " you?"):
        for piece in cutter.add(delta):
            print(repr(piece))          # 'Hello there. '
    print(cutter.end())                 # ['How are you?']

The text may be markdown, in any language; it need not be well made. It is read once, character by character: what
is given out does not depend on how the text was chunked. docs/design/text.md says what is waited for, and why.
"""

from __future__ import annotations

from enum import Enum, auto

from .graphemes import breaks_between
from .marks import OpenMarks
from .stops import (
    BLANKS,
    CLOSERS,
    ITEM,
    ITEM_SO_FAR,
    LINE_MARKUP,
    OPENERS,
    QUOTES,
    REFERENCE,
    SPEECH_QUOTES,
    STOPS,
    WIDE_CLAUSES,
    WIDE_CLOSERS,
    WIDE_MARKS,
    WIDE_OPENERS,
    WIDE_STOPS,
    SentenceEnd,
    after_word,
    ends_clause,
    goes_on,
)

_WIDE = "\u2e80"
"""From here on a letter is a syllable or more."""
_WIDE_EXTRA = 2
"""So much more than a Latin letter does a wide one count for `first_chars`: some 5 of them are said in a second,
and some 15 Latin ones."""


class _Mode(Enum):
    """Where in the markup the next character stands."""

    TEXT = auto()
    TICKS = auto()
    """In the run of ` or ~ that opens code."""
    CODE = auto()
    LABEL = auto()
    """In [...]."""
    LABELLED = auto()
    """Behind it."""
    TARGET = auto()
    """In its (...)."""
    FENCE_HEAD = auto()
    FENCE = auto()


class SentenceCutter:
    """Cuts one answer into pieces. Joined, they are exactly what came in; blanks stand at the end of a piece.

    A piece is a sentence, a line (of a list, a table, a heading), a paragraph's end, or a block of code. It has a
    letter or a digit: "!!!" and an emoji go with what follows. Only the last one, from `end()`, may have none: what
    follows the last sentence. Blanks beyond the first behind a sentence begin the next piece.

    `first_chars`: an answer's first piece that is longer ends at a clause (a comma, a colon, a dash), so that
    something is heard early; None is never, 0 is the first clause that comes. A Chinese, Japanese or Korean letter
    counts three. `max_chars`: no piece is longer; it is cut behind a clause in its second half, else behind its last
    blank, else between two graphemes. Only code, links and addresses may be longer, up to `code_chars`; inline code
    and link texts that are not closed within `max_chars` are taken for none. All in code points, and bounds of what
    is held back too.

    Raises ValueError unless 0 <= first_chars, 1 <= max_chars <= code_chars.
    """

    def __init__(self, *, first_chars: int | None = 40, max_chars: int = 300, code_chars: int = 20_000) -> None:
        if first_chars is not None and first_chars < 0:
            raise ValueError(f"first_chars is {first_chars}: it is a length, or None for never")
        if not 1 <= max_chars <= code_chars:
            raise ValueError(f"max_chars is {max_chars}: it takes 1 to code_chars, which is {code_chars}")
        self._first_chars = first_chars
        self._max_chars = max_chars
        self._code_chars = code_chars
        self._pieces: list[str] = []
        self._reset()

    def add(self, delta: str) -> list[str]:
        """Take the next part of the text, of any length; give the pieces that are complete now."""
        for char in delta:
            self._step(char)
        pieces, self._pieces = self._pieces, []
        return pieces

    def end(self) -> list[str]:
        """The text is over: give what is left, if anything. The next `add` begins another answer."""
        rest = "".join(self._chars)
        self._reset()
        return [rest] if rest else []

    def _reset(self) -> None:
        # bound: max_chars of text, code_chars of code; what is longer is cut
        self._chars: list[str] = []  # what has not been given out. All places below are in it; -1 is none
        self._mode = _Mode.TEXT
        self._said = -1  # its first letter or digit
        self._word = 0  # where the word begins that is being read
        self._url = False
        self._stop = -1  # the first of the stops behind the word, until it is known what they mean
        self._wait: SentenceEnd | None = None  # the stops and a blank have been read; what follows decides
        self._wait_at = -1  # where it would be cut
        self._seen = ""  # what of the next word has been seen
        self._wide = False  # a wide stop has been read; a closer or another one may follow
        self._soft = -1  # behind a newline that ends the piece if the next line is one of its own
        self._lead: str | None = ""
        """Possible list marker at the begin of a line; None once decided."""
        self._item = False  # the line is one of a list or a table, or a heading
        self._clause = -1  # behind the last clause
        self._blank = -1  # behind the last blank
        self._guillemet = 0  # 1 behind «, 2 where a blank followed it: the French way, with blanks inside
        self._quoted = 0  # wide quotes that are open
        self._open = OpenMarks()
        self._span = 0  # where the code or link begins that is being read
        self._tick = "`"
        self._ticks = 0
        self._run = 0
        """Ticks in a row, inside of code; -1 on a line that cannot close a fence. 1 behind a blank in a target."""
        self._depth = 0
        self._eager = self._first_chars == 0  # the first piece is long enough to end at a clause
        self._first = self._first_chars is not None
        self._limit = min(self._first_chars or self._max_chars, self._max_chars)

    # One character of text.

    def _step(self, char: str) -> None:
        if len(self._chars) >= self._limit:
            self._full(char)
        if self._mode is not _Mode.TEXT:
            if self._said < 0 and char.isalnum():
                self._said = len(self._chars)
            if _IN_MODE[self._mode](self, char):
                return
        if char.isalnum():
            self._letter(char)
        elif char in BLANKS:
            self._read_blank(char)
        else:
            self._other(char)

    def _letter(self, char: str) -> None:
        if self._wide:
            self._wide = False
            self._cut(len(self._chars))
        if self._wait is not None:
            self._decide(char)
        if self._soft >= 0:
            if char.isdigit():
                self._cut(self._soft)
            self._soft = -1
        if self._lead is not None:
            self._read_lead(char)
        self._stop = -1
        if self._said < 0:
            self._said = len(self._chars)
        self._chars.append(char)
        if char >= _WIDE and self._first and not self._eager:
            self._limit -= _WIDE_EXTRA

    def _read_blank(self, char: str) -> None:
        if self._lead is not None and char != "\n":
            self._read_lead(char)
        chars = self._chars
        chars.append(char)
        here = len(chars)
        if self._wide:
            self._wide = False
            self._cut(here)
        elif self._wait is not None:
            self._wait_longer(here)
        elif self._stop >= 0:
            self._stopped(here)
        self._word, self._url = len(chars), False
        if self._guillemet == 1:
            self._guillemet = 2
        if char == "\n":
            self._newline()
        if chars:
            self._blank = len(chars)
            if ends_clause(chars):
                self._clause_ends(len(chars))

    def _other(self, char: str) -> None:
        chars = self._chars
        if self._wide and not self._closes_wide(char):
            self._wide = False
            self._cut(len(chars))
        if self._wait is not None and (self._seen or self._wait is SentenceEnd.CLOSER or char not in OPENERS):
            self._decide(char)
        if self._soft >= 0:
            if char in LINE_MARKUP:
                self._cut(self._soft)
            self._soft = -1
        opens_code = char == "`" or (char == "~" and self._lead == "")
        if self._lead is not None and not opens_code:
            self._read_lead(char)
        here = len(chars)
        chars.append(char)
        if char in STOPS:
            self._stop = here if self._stop < 0 else self._stop
            if char == "." and here - self._word == 3 and "".join(chars[here - 3 : here]) == "www":
                self._url = True
        elif opens_code:
            self._mode, self._tick, self._ticks, self._span, self._stop = _Mode.TICKS, char, 1, here, -1
        elif char == "[":
            self._mode, self._depth, self._span = _Mode.LABEL, 1, here
        elif char in WIDE_STOPS or char in WIDE_MARKS:
            self._wide_stop(char)
        elif char not in CLOSERS and char < "\u2190":
            # Symbols and emoji may stand between a stop and its blank.
            self._stop = -1
        self._other_marks(char)

    def _other_marks(self, char: str) -> None:
        if char == "/" and self._chars[-3:-1] == [":", "/"]:
            self._url = True
        elif char in WIDE_OPENERS:
            self._quoted += 1
        elif char in WIDE_CLOSERS:
            self._quoted = max(0, self._quoted - 1)
        elif char in "«»":
            # »So!« ends with the one that «so» begins with.
            self._guillemet = 1 if char == "«" and (self._chars[-2:-1] or " ")[0] in BLANKS else 0
        elif char in '"*_':
            self._open.read(char, (self._chars[-2:-1] or " ")[0])
        elif char in WIDE_CLAUSES or (char in "—―" and not self._url):
            self._clause_ends(len(self._chars))

    # What ends a sentence.

    def _stopped(self, here: int) -> None:
        """A blank stands behind stops: they end a sentence, or not, or what follows tells."""
        behind = self._chars[self._stop : here - 1]
        marks = "".join(char for char in behind if char in STOPS)
        if marks == ".":
            spoken = not SPEECH_QUOTES.isdisjoint(behind)
            end = SentenceEnd.YES if spoken else after_word("".join(self._chars[self._word : self._stop]))
        elif "!" in marks or "?" in marks:
            end = SentenceEnd.YES if QUOTES.isdisjoint(behind) else SentenceEnd.CASE
        else:
            end = SentenceEnd.CASE
        if end is SentenceEnd.YES and self._guillemet == 2:
            end = SentenceEnd.CLOSER
        if end is SentenceEnd.YES:
            self._cut(here)
        elif end is not SentenceEnd.NO:
            self._wait, self._wait_at, self._seen = end, here, ""
        if end is not SentenceEnd.CLOSER:
            self._stop = -1

    def _decide(self, char: str) -> None:
        """Decide by the sign after the blank: has the sentence ended?"""
        if self._wait is SentenceEnd.CLOSER:
            self._wait = None
            if char != "»":
                self._stop = -1
                self._cut(self._wait_at)
            return
        assert self._wait is not None
        self._seen += char
        goes = goes_on(self._wait, self._seen)
        if goes is None:
            return
        self._wait = None
        if not goes:
            self._cut(self._wait_at)

    def _wait_longer(self, here: int) -> None:
        if self._seen:
            # A word that only began like a month.
            self._wait = None
            self._cut(self._wait_at)
        elif self._wait_at == here - 1:
            self._wait_at = here

    def _wide_stop(self, char: str) -> None:
        self._stop, self._word, self._url, self._wide = -1, len(self._chars), False, True
        if char in WIDE_STOPS and not self._quoted and not self._open:
            self._wide = False
            self._cut(len(self._chars))

    def _closes_wide(self, char: str) -> bool:
        if char in STOPS or char in WIDE_STOPS or char in WIDE_MARKS or char in WIDE_CLOSERS:
            return True
        return char in "’»)" or (char in '*_"' and (bool(self._open) or char == self._chars[-1]))

    def _newline(self) -> None:
        chars = self._chars
        whole = self._soft >= 0 or self._item or "".join(chars[-3:]).rstrip().endswith((":", "："))
        self._soft, self._lead, self._item = -1, "", False
        if chars and not (whole and self._cut(len(chars))):
            self._soft = len(chars)

    def _read_lead(self, char: str) -> None:
        """Find out what kind of line this is."""
        lead = (self._lead or "") + char
        if not lead.strip():
            return
        if ITEM.fullmatch(lead):
            # "### 1. Title": a number may follow.
            self._item, self._lead, self._stop = True, None if lead[-2:-1] in (".", ")") else "", -1
        else:
            self._lead = lead if ITEM_SO_FAR.fullmatch(lead) else None

    # Code and links: nothing in them ends a sentence. Each gives whether it took the character.

    def _in_ticks(self, char: str) -> bool:
        at_line = self._lead == "" and self._ticks >= 3
        if char == self._tick:
            self._ticks += 1
            self._chars.append(char)
            if self._ticks == 3 and self._lead == "":
                self._cut(self._span)
            return True
        self._run = 0
        if at_line:
            self._mode = _Mode.FENCE_HEAD
            return self._in_fence_head(char)
        self._lead = None
        self._mode = _Mode.CODE if self._tick == "`" else _Mode.TEXT
        return self._tick == "`" and self._in_code(char)

    def _in_fence_head(self, char: str) -> bool:
        self._chars.append(char)
        if char == "\n":
            self._mode = _Mode.FENCE
        elif char == self._tick == "`":
            self._mode, self._run, self._lead = _Mode.CODE, 1, None
        return True

    def _in_fence(self, char: str) -> bool:
        self._chars.append(char)
        if char == "\n":
            if self._run >= self._ticks:
                self._mode, self._lead, self._item = _Mode.TEXT, "", False
                self._word = len(self._chars)
                self._cut(self._word)
            self._run = 0
        elif self._run >= 0 and char not in " \t\r":
            self._run = self._run + 1 if char == self._tick else -1
        return True

    def _in_code(self, char: str) -> bool:
        chars = self._chars
        if char == "`":
            self._run += 1
        elif self._run == self._ticks:
            return self._text_again()
        elif len(chars) >= self._max_chars:
            return self._give_up()
        elif char == "\n" and chars[-1:] == ["\n"]:
            self._soft = len(chars)
            return self._give_up()
        else:
            self._run = 0
        chars.append(char)
        return True

    def _in_label(self, char: str) -> bool:
        if char == "\n" or len(self._chars) >= self._max_chars:
            return self._give_up()
        self._chars.append(char)
        self._depth += (char == "[") - (char == "]")
        if not self._depth:
            self._mode = _Mode.LABELLED
            # "It is so.[1] And" ends where it would without.
            if self._stop >= 0 and not REFERENCE.fullmatch("".join(self._chars[self._span :])):
                self._stop = -1
        return True

    def _in_labelled(self, char: str) -> bool:
        if char not in "([":
            return self._text_again()
        self._mode = _Mode.TARGET if char == "(" else _Mode.LABEL
        self._depth, self._run = 1, 0
        self._chars.append(char)
        return True

    def _in_target(self, char: str) -> bool:
        # An address has no blank; a title behind it has.
        self._run |= char == " "
        if char == "\n" or (self._run and len(self._chars) >= self._max_chars):
            return self._give_up()
        self._chars.append(char)
        self._depth += (char == "(") - (char == ")")
        if not self._depth:
            self._text_again()
        return True

    def _text_again(self) -> bool:
        self._mode = _Mode.TEXT
        if self._stop < 0:
            self._word = len(self._chars)
        self._lead = None
        return False

    def _give_up(self) -> bool:
        """It was never closed: read on as text, which may be cut at its blanks."""
        chars = self._chars
        self._blank = next((at for at in range(len(chars), 0, -1) if chars[at - 1] in BLANKS), self._blank)
        self._stop = -1
        return self._text_again()

    # Cutting.

    def _clause_ends(self, place: int) -> None:
        self._clause = place
        if self._first and self._eager:
            self._cut(place)

    def _full(self, char: str) -> None:
        """The text is as long as it may be; `char` comes next."""
        count = len(self._chars)
        if self._first and not self._eager:
            self._eager, self._limit = True, self._max_chars
            if self._clause * 2 >= (self._first_chars or 0) and self._cut(self._clause):
                return
        if count < self._max_chars:
            return
        if self._clause * 2 >= self._max_chars and self._cut(self._clause):
            return
        if self._cut(self._blank):
            return
        whole = breaks_between(self._chars[-1], char)
        # Behind an address that is too long the blank belongs to it.
        anywhere = (
            whole and self._mode is _Mode.TEXT and not self._url and (count == self._max_chars or char not in BLANKS)
        )
        if anywhere and self._cut(count):
            return
        if self._mode is not _Mode.TEXT and self._cut(self._span):
            return
        if count >= self._code_chars and (whole or count >= 2 * self._code_chars):
            self._cut(count, silent=True)

    def _cut(self, place: int, *, silent: bool = False) -> bool:
        """Give out what stands before this place, if there is anything to say in it."""
        if place <= 0 or not (0 <= self._said < place or silent):
            return False
        chars = self._chars
        self._pieces.append("".join(chars[:place]))
        del chars[:place]
        self._first, self._limit = False, self._max_chars
        self._said = next((at for at, char in enumerate(chars) if char.isalnum()), -1)
        self._word = max(0, self._word - place)
        self._span = max(0, self._span - place)
        self._stop = max(-1, self._stop - place)
        self._soft = self._soft - place if self._soft > place else -1
        self._clause = self._clause - place if self._clause > place else -1
        self._blank = self._blank - place if self._blank > place else -1
        if self._wait is not None:
            self._wait_at -= place
            if self._wait_at <= 0:
                self._wait = None
        self._open.restart(chars)
        if not chars:
            self._guillemet = self._quoted = 0
            self._wide = False
        return True


_IN_MODE = {
    _Mode.TICKS: SentenceCutter._in_ticks,
    _Mode.CODE: SentenceCutter._in_code,
    _Mode.LABEL: SentenceCutter._in_label,
    _Mode.LABELLED: SentenceCutter._in_labelled,
    _Mode.TARGET: SentenceCutter._in_target,
    _Mode.FENCE_HEAD: SentenceCutter._in_fence_head,
    _Mode.FENCE: SentenceCutter._in_fence,
}

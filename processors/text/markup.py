"""Finds the markup in a text: markdown, HTML, addresses, emoji. Positions are kept; what is well formed is not asked.

One pass of one regular expression, in time that grows with the text, and a second one over the runs of * _ ~ that
tells emphasis from arithmetic.
"""

from __future__ import annotations

import html
import re
from dataclasses import dataclass
from enum import Enum, auto


class Kind(Enum):
    """Treatment of a stretch of text."""

    OPENS = auto()
    """Left out; counts with what follows."""
    CLOSES = auto()
    """Left out; counts with what went before."""
    LINE = auto()
    """As OPENS; what follows is a line of a list, a table or a heading."""
    GONE = auto()
    """Left out, with nothing in its place."""
    EMOJI = auto()
    TEXT = auto()
    """`text` is said."""
    PAUSE = auto()
    CODE = auto()
    """A block; `text` is what stands in it."""
    BREAK = auto()
    """A new line is said."""
    AND = auto()
    ADDRESS = auto()
    """`text` is a host or an e-mail address."""


@dataclass(frozen=True, slots=True)
class Token:
    """A stretch of the written text that is not said as it stands."""

    kind: Kind
    start: int
    end: int
    text: str = ""


_PICTURE = (
    "[\U0001f000-\U0001faff\u2600-\u27bf\u2b50\u2b55\u2b1b\u2b1c\u231a\u231b\u2328\u23cf\u23e9-\u23fa\u25b6\u25c0"
    "\u25fb-\u25fe\u2934\u2935\u2b05-\u2b07\u3030\u303d\u3297\u3299]"
)
_EMOJI = (
    rf"(?:[0-9#*]\ufe0f?\u20e3|(?:{_PICTURE}|[\u00a9\u00ae\u203c\u2049\u2122\u2139\u2194-\u21aa]\ufe0f)"
    rf"[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff\u20e3\U000e0020-\U000e007f]*"
    rf"(?:\u200d(?:{_PICTURE}|[\u2190-\u2bff])[\ufe0e\ufe0f\U0001f3fb-\U0001f3ff]*)*)"
)
_TAGS = (
    "a|abbr|b|big|blockquote|br|center|cite|code|dd|del|details|div|dl|dt|em|font|h1|h2|h3|h4|h5|h6|hr|i|img|ins|kbd|li|"
    "mark|ol|p|pre|q|s|samp|small|span|strike|strong|sub|summary|sup|table|tbody|td|tfoot|th|thead|tr|u|ul|var"
)
_MARKUP = re.compile(
    r"""
    (?P<fence>^[ \t>]*(?P<ticks>`{3,}|~{3,})[^\n`]*
        (?:\n(?P<block>[\s\S]*?)(?:^[ \t>]*(?P=ticks)[`~]*[ \t]*(?:\n|\Z)|\Z)|\Z))
    |(?P<rule>^[ \t]*(?:(?P<dash>[-*_=])(?:[ \t]*(?P=dash)){2,}[ \t]*
        |(?:\|[ \t]*)?:?-+:?[ \t]*(?:\|[ \t]*:?-+:?[ \t]*)+(?:\|[ \t]*)?|\|[ \t]*:?-+:?[ \t]*\|[ \t]*)(?:\n|\Z))
    |(?P<definition>^[ ]{0,3}\[[^\]\n^]{1,80}\]:[ \t]+<?(?:https?://|/|\#|mailto:)\S*[^\n]*(?:\n|\Z))
    |(?P<row>^[ \t]*\|[ \t]*)
    |(?P<line>^[ \t]*(?:>[ \t]?)*
        (?:(?:[-+*•‣◦▪●○■□][ \t]+|\d{1,9}[.)][ \t]+(?=\[[ xX]\][ \t]))(?:\[[ xX]\][ \t]+)?
        |\#{1,6}[ \t]+|(?<=>[ ])|(?<=>)))
    |(?P<number>^[ \t]*(?=\d{1,9}[.)][ \t]))
    |(?P<escape>\\[!-/:-@\[-`{-~])
    |(?P<code>(?<!`)(?P<tick>`+)(?!`)(?P<inside>(?:[^\n]|\n(?!\n)){1,1000}?)(?<!`)(?P=tick)(?!`))
    |(?P<stray>`+)
    |(?P<comment><!--[\s\S]{0,2000}?-->)
    |(?P<auto><(?:https?://[^\s<>]{1,2000}|(?:mailto:)?[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24})>)
    |(?P<tag></?(?:"""
    + _TAGS
    + r""")(?:\s[^<>]{0,1000})?/?>)
    |(?P<entity>&(?:\#\d{1,7}|\#[xX][0-9a-fA-F]{1,6}|[a-zA-Z][a-zA-Z0-9]{1,31});)
    |(?P<note>^[ ]{0,3}\[\^[^\]\s]{1,40}\]:[ \t]*)
    |(?P<foot>\[\^[^\]\s]{1,40}\])
    |(?P<image>!\[(?=[^\]\n]{0,500}\]\())
    |(?P<label>\[(?:[ xX]\][ \t])?(?=(?:[^\[\]\n]|\[[^\[\]\n]{0,100}\]){1,500}\](?:\(|\[[^\[\]\n]{0,100}\])))
    |(?P<close>\](?:\((?:[^()\n]|\([^()\n]{0,500}\)){0,2000}(?:\)|\Z)|\[[^\[\]\n]{0,100}\]))
    |(?P<mail>(?<![\w.+-])[\w.+-]{1,64}@(?:[\w-]{1,63}\.){1,8}[^\W\d_]{2,24}\b)
    |(?P<url>\bhttps?://[^\s<>"“”«»。，、！？）」』`]+|\bwww\.[^\s<>"“”«»。，、！？）」』`]+\.[^\s<>"“”«»。，、！？）」』`]+)
    |(?P<emoji>"""
    + _EMOJI
    + r""")
    |(?P<arrow>[ \t]{0,4}[→⇒⟶⟹➜➔•][ \t]{0,4})
    |(?P<pipe>[ \t]{0,4}\|[ \t]{0,4})
    |(?P<and>(?<=[ ])&(?=[ ]))
    |(?P<run>\*+|_+|~~+)
    """,
    re.MULTILINE | re.VERBOSE,
)


def tokens(written: str) -> list[Token]:
    """The markup of a text in order, without overlap; empty for plain prose."""
    found: list[Token] = []
    runs: list[_MarkupRun] = []
    row_end = -1
    for match in _MARKUP.finditer(written):
        name, (start, end) = match.lastgroup, match.span()
        if name == "run":
            runs.append(_MarkupRun(written, start, end))
        elif name == "pipe":
            if end <= row_end:
                found.append(Token(Kind.PAUSE if end < row_end else Kind.CLOSES, start, end))
        elif name in _PLAIN:
            if name == "row":
                row_end = written.find("\n", start)
                row_end = len(written) if row_end < 0 else row_end
            found.append(Token(_PLAIN[name], start, end))
        elif name is not None:
            found.extend(_READ[name](match))
    found.extend(_emphasis(runs))
    found.sort(key=lambda token: token.start)
    return found


_PLAIN = {
    "rule": Kind.GONE,
    "definition": Kind.GONE,
    "row": Kind.LINE,
    "comment": Kind.GONE,
    "note": Kind.OPENS,
    "foot": Kind.CLOSES,
    "image": Kind.OPENS,
    "label": Kind.OPENS,
    "close": Kind.CLOSES,
    "emoji": Kind.EMOJI,
    "arrow": Kind.PAUSE,
    "and": Kind.AND,
}


def _fence(match: re.Match[str]) -> list[Token]:
    return [Token(Kind.CODE, match.start(), match.end(), match["block"] or "")]


def _line(match: re.Match[str]) -> list[Token]:
    # The lines of a quotation are one text.
    kind = Kind.LINE if match["line"].strip(" \t>") else Kind.OPENS
    return [Token(kind, match.start(), match.end())]


def _number(match: re.Match[str]) -> list[Token]:
    return [Token(Kind.LINE, match.end(), match.end())]


def _escape(match: re.Match[str]) -> list[Token]:
    return [Token(Kind.OPENS, match.start(), match.start() + 1)]


def _code(match: re.Match[str]) -> list[Token]:
    start, end = match.span("inside")
    return [Token(Kind.OPENS, match.start(), start), Token(Kind.CLOSES, end, match.end())]


def _stray(match: re.Match[str]) -> list[Token]:
    """Ticks of code that was cut off; but one inside of a word is an apostrophe."""
    start, end = match.span()
    before, after = match.string[start - 1 : start] if start else "", match.string[end : end + 1]
    if before.isalnum() and after.isalnum():
        return []
    return [Token(Kind.OPENS if after.strip() else Kind.CLOSES, start, end)]


def _tag(match: re.Match[str]) -> list[Token]:
    start, end = match.span()
    text = match["tag"].strip("</> ").lower()
    if text.split()[0] in ("br", "hr", "p", "div", "li", "td", "tr"):
        return [Token(Kind.BREAK, start, end)]
    return [Token(Kind.CLOSES if match["tag"][1] == "/" else Kind.OPENS, start, end)]


def _entity(match: re.Match[str]) -> list[Token]:
    text = html.unescape(match["entity"])
    if text == match["entity"]:
        return []
    kind = Kind.EMOJI if re.fullmatch(_EMOJI, text) else Kind.TEXT
    return [Token(kind, match.start(), match.end(), text)]


def _mail(match: re.Match[str]) -> list[Token]:
    return [Token(Kind.ADDRESS, match.start(), match.end(), match["mail"])]


def _auto(match: re.Match[str]) -> list[Token]:
    _, scheme, address = match["auto"].strip("<>").rpartition("://")
    text = _host(address) if scheme else address.removeprefix("mailto:")
    return [Token(Kind.ADDRESS, match.start(), match.end(), text)]


def _url(match: re.Match[str]) -> list[Token]:
    text = match["url"].rstrip(".,;:!?*_~'’|")
    while text.endswith((")", "]")) and text.count(")") + text.count("]") > text.count("(") + text.count("["):
        text = text[:-1].rstrip(".,;:!?*_~'’|")
    host = _host(text.partition("://")[2] or text)
    if not host:
        return []
    return [Token(Kind.ADDRESS, match.start(), match.start() + len(text), host)]


def _host(address: str) -> str:
    """The host of an address without its scheme; neither a password nor a port, nor "www."."""
    host = re.split(r"[/?#\\]", address, maxsplit=1)[0].rpartition("@")[2]
    return re.sub(r":\d*$", "", host).removeprefix("www.").strip(".")


_READ = {
    "fence": _fence,
    "line": _line,
    "number": _number,
    "escape": _escape,
    "code": _code,
    "stray": _stray,
    "tag": _tag,
    "entity": _entity,
    "mail": _mail,
    "auto": _auto,
    "url": _url,
}


class _MarkupRun:
    """Some * or _ or ~ in a row. `left` is how many of them no other run has matched."""

    def __init__(self, written: str, start: int, end: int) -> None:
        before, after = written[start - 1] if start else " ", written[end] if end < len(written) else " "
        self.mark = written[start]
        self.start, self.end, self.left = start, end, end - start
        self.inside = before.isalnum() and after.isalnum()
        """Inside of a word: arithmetic or a name, unless two of them match."""
        self.after_blank, self.before_blank = before.isspace(), after.isspace()
        self.after_digit = before.isdecimal()
        self.can_open = not self.before_blank
        self.can_close = not self.after_blank
        if self.inside and (self.mark == "_" or before.isdecimal() or after.isdecimal()):
            self.can_open = self.can_close = False

    @property
    def is_markup(self) -> bool:
        """True for an unmatched sign that is cut-off markup and not a sign of its own."""
        if self.inside or self.mark == "_" or (self.after_blank and self.before_blank):
            return False
        return self.end - self.start > 1 or not self.after_digit

    def token(self) -> Token:
        closes = self.can_close and not (self.can_open and self.after_blank)
        return Token(Kind.CLOSES if closes else Kind.OPENS, self.start, self.end)


def _emphasis(runs: list[_MarkupRun]) -> list[Token]:
    """The runs that are markup. Which one matches which does not matter: nobody asks what is bold."""
    waiting: dict[str, list[_MarkupRun]] = {"*": [], "_": [], "~": []}
    matched: set[int] = set()
    for run in runs:
        before = waiting[run.mark]
        while run.can_close and run.left and before:
            other = before[-1]
            many = min(run.left, other.left)
            run.left, other.left = run.left - many, other.left - many
            matched |= {run.start, other.start}
            if not other.left:
                before.pop()
        if run.can_open and run.left:
            before.append(run)
    return [run.token() for run in runs if run.start in matched or run.is_markup]

"""Check a JSGF grammar before a decoder sees it (JSpeech Grammar Format, W3C note of 5 June 2000).

PocketSphinx accepts many wrong grammars silently and then recognises nothing, and the line numbers of its syntax
errors are unreliable. So this module checks what PocketSphinx fails on: syntax, rules that are undefined, defined
twice or recursive, no public rule or more than one (it would use any one of them).

People write grammars by hand, so every error names the line, the text there and what was expected.
"""

import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from ...pipeline.errors import VoxlineError

_TOKEN = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/)
      | (?P<header>\#JSGF[^;\n]*;)
      | (?P<rule><[^<>\n]*>)
      | (?P<tag>\{(?:\\.|[^{}\\])*\})
      | (?P<weight>/\s*[0-9.]+\s*/)
      | (?P<sign>[;=|()\[\]*+])
      | (?P<word>[^\s;=|()\[\]*+<>{}/"\\]+)""",
    re.VERBOSE | re.DOTALL,
)
_SPECIAL = ("NULL", "VOID")


class GrammarError(VoxlineError, ValueError):
    """The grammar is wrong; the text names the line and the mistake."""


class Word(NamedTuple):
    """A word of the grammar, and the line (from 1) of its first use."""

    text: str
    line: int


class Grammar(NamedTuple):
    """A checked grammar: its public rule's name, and each word once, in the order of the text."""

    public_rule: str
    words: tuple[Word, ...]


def check_grammar(text: str) -> Grammar:
    """Check a grammar. Raises `GrammarError` for a wrong one."""
    return _Parser(text).parse()


class _Token(NamedTuple):
    kind: str
    text: str
    line: int


class _Rule(NamedTuple):
    line: int
    public: bool
    refers: list[_Token]


def _tokens(text: str) -> Iterator[_Token]:
    at, line = 0, 1
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            found = text[at]
            hint = " Write the words without quotation marks." if found == '"' else ""
            raise GrammarError(f"line {line} of the grammar: {found!r} has no meaning here.{hint}")
        kind = match.lastgroup or ""
        if kind != "space":
            yield _Token(kind, match[0], line)
        line += match[0].count("\n")
        at = match.end()
    yield _Token("end", "the end of the grammar", line)


class _Parser:
    """Recursive descent over the tokens; one method for each rule of the format."""

    def __init__(self, text: str) -> None:
        self._tokens = _tokens(text)
        self._token = next(self._tokens)
        self._name = ""
        self._rules: dict[str, _Rule] = {}
        self._words: dict[str, int] = {}

    def parse(self) -> Grammar:
        if self._token.kind != "header":
            self._expected("the header '#JSGF V1.0;'")
        self._next()
        self._keyword("grammar")
        self._name = self._take("word", "the grammar's name").text
        self._sign(";")
        while not self._at_end():
            self._rule()
        return Grammar(self._public_rule(), tuple(Word(word, line) for word, line in self._words.items()))

    def _rule(self) -> None:
        line = self._token.line
        if self._token.text == "import":
            self._fail(line, "'import' is not supported: a grammar is one text")
        public = self._token.text == "public"
        if public:
            self._next()
        name = self._rule_name(self._take("rule", "a rule such as '<command> = ...;'"))
        if name in self._rules:
            self._fail(line, f"<{name}> is defined twice, first in line {self._rules[name].line}")
        if name in _SPECIAL:
            self._fail(line, f"<{name}> is predefined and cannot be defined")
        self._sign("=")
        refers: list[_Token] = []
        self._alternatives(refers)
        self._sign(";", "';' or '|' or another word")
        self._rules[name] = _Rule(line, public, refers)

    def _alternatives(self, refers: list[_Token]) -> None:
        self._sequence(refers)
        while self._token.text == "|":
            self._next()
            self._sequence(refers)

    def _sequence(self, refers: list[_Token]) -> None:
        if self._token.kind == "weight":
            self._next()
        self._item(refers)
        while self._token.kind in ("word", "rule") or self._token.text in ("(", "["):
            self._item(refers)

    def _item(self, refers: list[_Token]) -> None:
        token = self._token
        if token.kind == "word":
            self._words.setdefault(token.text, token.line)
        elif token.kind == "rule":
            refers.append(token)
        elif token.text not in ("(", "["):
            self._expected("a word, a <rule> or a group in brackets")
        self._next()
        if token.text in ("(", "["):
            self._alternatives(refers)
            closing = ")" if token.text == "(" else "]"
            self._sign(closing, f"the '{closing}' for the '{token.text}' of line {token.line}")
        if self._token.text in ("*", "+"):
            self._next()
        while self._token.kind == "tag":
            self._next()

    def _public_rule(self) -> str:
        for name, rule in self._rules.items():
            for token in rule.refers:
                target = self._rule_name(token)
                if target not in self._rules and target not in _SPECIAL:
                    known = ", ".join(f"<{known}>" for known in self._rules)
                    self._fail(token.line, f"there is no rule <{target}>. There are: {known}")
            self._refuse_recursion(name, (name,))
        public = [name for name, rule in self._rules.items() if rule.public]
        if not public:
            raise GrammarError("the grammar has no public rule: write 'public' before one")
        if len(public) > 1:
            line = self._rules[public[1]].line
            both = " | ".join(f"<{name}>" for name in public)
            self._fail(line, f"a second public rule; only one would be recognised. Write one that names them: {both}")
        return public[0]

    def _refuse_recursion(self, name: str, path: tuple[str, ...]) -> None:
        for token in self._rules[name].refers:
            target = self._rule_name(token)
            if target == path[0]:
                self._fail(token.line, f"<{target}> refers to itself. To repeat, write * or + after a group")
            if target in self._rules and target not in path:
                self._refuse_recursion(target, (*path, target))

    def _rule_name(self, token: _Token) -> str:
        name = token.text[1:-1].strip().removeprefix(f"{self._name}.")
        if not name:
            self._fail(token.line, "'<>' has no name in it")
        return name

    def _at_end(self) -> bool:
        return self._token.kind == "end"

    def _next(self) -> None:
        self._token = next(self._tokens)

    def _take(self, kind: str, what: str) -> _Token:
        token = self._token
        if token.kind != kind:
            self._expected(what)
        self._next()
        return token

    def _keyword(self, word: str) -> None:
        if self._token.text != word:
            self._expected(f"'{word}'")
        self._next()

    def _sign(self, sign: str, what: str = "") -> None:
        if self._token.text != sign:
            self._expected(what or f"'{sign}'")
        self._next()

    def _expected(self, what: str) -> NoReturn:
        found = self._token.text if self._at_end() else repr(self._token.text)
        self._fail(self._token.line, f"expected {what}, found {found}")

    def _fail(self, line: int, text: str) -> NoReturn:
        raise GrammarError(f"line {line} of the grammar: {text}")

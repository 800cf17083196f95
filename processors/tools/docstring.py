"""What a docstring says of a function and of its parameters: Google's, NumPy's and Sphinx's way of writing it."""

from __future__ import annotations

import inspect
import re

_GOOGLE = re.compile(
    r"(?P<title>Args|Arguments|Parameters|Params|Keyword Args|Keyword Arguments|Other Parameters|Returns?|Yields?|"
    r"Raises|Examples?|Notes?|Warnings?|See Also|Todo|References|Attributes):\s*"
)
_NUMPY = re.compile(
    r"(?P<title>Parameters|Other Parameters|Returns|Yields|Receives|Raises|Warns|Warnings|Examples|Notes|See Also|"
    r"References|Attributes|Methods)\s*"
)
_RULE = re.compile(r"-{3,}\s*")
_SPHINX = re.compile(r":(?P<what>[a-z]+)(?:\s+(?P<about>[^:]*))?:\s*(?P<text>.*)")
_PARAMETERS = {"Args", "Arguments", "Parameters", "Params", "Keyword Args", "Keyword Arguments", "Other Parameters"}
_GOOGLE_ENTRY = re.compile(r"\*{0,2}(?P<name>\w+)\s*(?:\([^)]*\))?\s*:\s*(?P<text>.*)")
_NUMPY_ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?")
_SPHINX_PARAMETERS = {"param", "parameter", "arg", "argument", "key", "keyword"}


def read_docstring(text: str | None) -> tuple[str, dict[str, str]]:
    """What the function does, and what each parameter is. Both empty where nothing is said.

    The first is all that comes before the first section; paragraphs stay apart, lines of one are joined.
    """
    lines = inspect.cleandoc(text or "").splitlines()
    about: list[str] = []
    parameters: dict[str, str] = {}
    section, at = "", 0
    while at < len(lines):
        line = lines[at]
        title, length = _section(lines, at)
        if title:
            section, at = title, at + length
            continue
        sphinx = _SPHINX.fullmatch(line)
        if sphinx is not None:
            section = "sphinx"
            block, at = _indented(lines, at + 1)
            words = (sphinx["about"] or "").split()
            if sphinx["what"] in _SPHINX_PARAMETERS and words:
                parameters[words[-1].lstrip("*")] = _joined([sphinx["text"], *block])
            continue
        if not section:
            about.append(line)
        elif section in _PARAMETERS:
            at = _entry(lines, at, parameters)
            continue
        at += 1
    return _paragraphs(about), {name: said for name, said in parameters.items() if said}


def _section(lines: list[str], at: int) -> tuple[str, int]:
    """The title of the section that begins at a line, and how many lines that takes; empty where none does."""
    google = _GOOGLE.fullmatch(lines[at])
    if google is not None:
        return google["title"], 1
    numpy = _NUMPY.fullmatch(lines[at])
    if numpy is not None and at + 1 < len(lines) and _RULE.fullmatch(lines[at + 1]):
        return numpy["title"], 2
    return "", 0


def _entry(lines: list[str], at: int, parameters: dict[str, str]) -> int:
    """Read a parameter, and return where the next one is."""
    line = lines[at]
    depth = _depth(line)
    block, after = _indented(lines, at + 1, depth)
    # Google's entries are indented below their title; NumPy's are not, and say what they mean in the next lines.
    if depth:
        google = _GOOGLE_ENTRY.fullmatch(line.strip())
        if google is not None:
            parameters[google["name"]] = _joined([google["text"], *block])
        return after
    numpy = _NUMPY_ENTRY.fullmatch(line)
    if numpy is not None:
        for name in numpy["names"].split(","):
            parameters[name.strip().lstrip("*")] = _joined(block)
    return after


def _indented(lines: list[str], at: int, depth: int = 0) -> tuple[list[str], int]:
    """The lines from ``at`` on that are indented deeper, and where they end. Blank lines may stand between."""
    end = at
    for number in range(at, len(lines)):
        if lines[number].strip():
            if _depth(lines[number]) <= depth:
                break
            end = number + 1
    return lines[at:end], end


def _depth(line: str) -> int:
    return len(line) - len(line.lstrip())


def _joined(lines: list[str]) -> str:
    return " ".join(" ".join(lines).split())


def _paragraphs(lines: list[str]) -> str:
    paragraphs = re.split(r"\n\s*\n", "\n".join(lines).strip())
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)

"""Parser of docstrings in the styles of Google, NumPy and Sphinx: description of a function and its parameters."""

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
    """Return the description of the function and that of each parameter. Both may be empty.

    The function's description is the text before the first section. Paragraphs stay separate; the lines of a paragraph
    are joined.
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
    """Return title and number of title lines of the section that starts at a line; ("", 0) if none does."""
    google = _GOOGLE.fullmatch(lines[at])
    if google is not None:
        return google["title"], 1
    numpy = _NUMPY.fullmatch(lines[at])
    if numpy is not None and at + 1 < len(lines) and _RULE.fullmatch(lines[at + 1]):
        return numpy["title"], 2
    return "", 0


def _entry(lines: list[str], at: int, parameters: dict[str, str]) -> int:
    """Read one parameter and return the index of the next line."""
    line = lines[at]
    depth = _depth(line)
    block, after = _indented(lines, at + 1, depth)
    # Google indents entries below the section title. NumPy does not, and describes a parameter on the next lines.
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
    """Return the lines from ``at`` on that are indented deeper than ``depth``, and the index after them.

    Blank lines between them are included.
    """
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

"""Law 8: no class name is defined twice in shipped code, and no docstring opens with a word that makes it a riddle."""

from __future__ import annotations

import ast
import re
from collections import Counter, defaultdict
from collections.abc import Iterator

import pytest
from voxline.tests.laws.source import ROOT, modules

OPENER = re.compile(r"(What|Whether|Who|Whose|Of)\b")
"""Docstrings open with an imperative verb or a plain noun."""


def opener(text: str) -> str:
    """Return the banned word that a docstring opens with, or an empty string."""
    found = OPENER.match(text.strip())
    return found.group() if found else ""


def docstrings(tree: ast.AST) -> Iterator[tuple[str, int]]:
    """Yield every bare string with its line: docstrings of modules, classes, functions and attributes."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            yield node.value.value, node.lineno


def banned_openers() -> dict[str, list[str]]:
    """Return the docstrings with a banned opener, as ``path:line opener``, by folder at the root."""
    found: dict[str, list[str]] = defaultdict(list)
    for path, tree in trees():
        for text, line in docstrings(tree):
            if word := opener(text):
                found[path.split("/")[0]].append(f"{path}:{line} {word}")
    return found


def trees() -> Iterator[tuple[str, ast.AST]]:
    """Yield the path and the tree of each module that is shipped, and of examples and benchmarks."""
    for module in modules().values():
        yield module.path, module.tree
    for folder in ("benchmarks", "examples"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            yield file.relative_to(ROOT).as_posix(), ast.parse(file.read_text(encoding="utf-8"))


def classes_twice() -> dict[str, list[str]]:
    """Return the class names that several modules define, with the places."""
    places: dict[str, list[str]] = defaultdict(list)
    for module in modules().values():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef):
                places[node.name].append(module.line(node))
    return {name: where for name, where in places.items() if len({line.split(":")[0] for line in where}) > 1}


def test_no_class_name_is_defined_twice() -> None:
    assert classes_twice() == {}


def test_no_docstring_opens_with_a_banned_word() -> None:
    assert banned_openers() == {}


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("What it is.", "What"),
        ("  Whether.", "Whether"),
        ("Offline speech.", ""),
        ("Whose is it", "Whose"),
        ("Of", "Of"),
    ],
)
def test_an_opener_is_a_whole_word(text: str, word: str) -> None:
    assert opener(text) == word


def test_the_scan_finds_docstrings_of_every_sort() -> None:
    tree = ast.parse(
        '"""m"""\nx = 1\n"""x"""\nclass A:\n    """A"""\n    y = 2\n    """y"""\n    def f(self):\n        """f"""\n'
    )
    assert Counter(text for text, _ in docstrings(tree)) == Counter(["m", "x", "A", "y", "f"])

"""The package as the laws see it: its modules, parsed."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

from voxline.tests.places import ROOT

FOLDERS = ("pipeline", "processors", "transports")


@dataclass(frozen=True)
class Module:
    """One module of the package."""

    path: str
    """Below the root, as in ``pipeline/clock.py``."""
    name: str
    """As it is imported, as in ``voxline.pipeline.clock``."""
    text: str
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """Whether it is the face of a folder."""
        return self.path.endswith("__init__.py")

    @property
    def top(self) -> str:
        """The folder at the root that it stands in; empty for `cli.py`."""
        return self.path.split("/")[0] if "/" in self.path else ""

    def line(self, node: ast.AST) -> str:
        """Where something stands, for a message."""
        return f"{self.path}:{getattr(node, 'lineno', 0)}"


@cache
def modules() -> dict[str, Module]:
    """All modules that are shipped, by name."""
    files = [ROOT / "__init__.py", ROOT / "cli.py"]
    for folder in FOLDERS:
        files += sorted((ROOT / folder).rglob("*.py"))
    found: dict[str, Module] = {}
    for file in files:
        path = file.relative_to(ROOT).as_posix()
        parts = ["voxline", *path.removesuffix(".py").split("/")]
        name = ".".join(parts[:-1] if parts[-1] == "__init__" else parts)
        text = file.read_text(encoding="utf-8")
        found[name] = Module(path, name, text, ast.parse(text, path))
    return found


def imports(module: Module) -> Iterator[tuple[str, ast.AST]]:
    """The modules that it imports, anywhere in it, by full name, and where."""
    known = modules()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield alias.name, node
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                parts = module.name.split(".")
                parts = parts if module.is_package else parts[:-1]
                parts = parts[: len(parts) - (node.level - 1)]
                base = ".".join([*parts, base] if base else parts)
            for alias in node.names:
                full = f"{base}.{alias.name}"
                yield (full if full in known else base), node


def dotted(node: ast.AST) -> str:
    """``a.b.c`` of an expression; ``().c`` where something is called on the way; empty for what is none."""
    if isinstance(node, ast.Name):
        return node.id
    if isinstance(node, ast.Attribute):
        return f"{dotted(node.value)}.{node.attr}"
    if isinstance(node, ast.Call):
        return "()"
    return ""


def names_of(module: Module) -> dict[str, str]:
    """What a name in the module stands for: ``{"sleep": "asyncio.sleep", "aio": "asyncio"}``."""
    names: dict[str, str] = {}
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.asname:
                    names[alias.asname] = alias.name
                else:
                    names[alias.name.split(".")[0]] = alias.name.split(".")[0]
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def uses(module: Module) -> Iterator[tuple[str, ast.AST]]:
    """Every name and attribute that the module uses, with imported names resolved: ``asyncio.sleep``."""
    names = names_of(module)
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Name | ast.Attribute):
            name = dotted(node)
            first, _, rest = name.partition(".")
            if first in names:
                name = ".".join(filter(None, [names[first], rest]))
            yield name, node

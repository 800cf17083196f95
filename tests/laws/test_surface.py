"""Law 7: the public surface is written down in docs/reference/surface.txt.

It fails when something public was added, removed or changed. If that is meant, renew the file and read the difference::

    python tests/laws/test_surface.py
"""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import Any

import pytest
from pydantic import BaseModel
from voxline.tests.places import ROOT

SURFACE = ROOT / "docs" / "reference" / "surface.txt"
PUBLIC = [
    "voxline.pipeline",
    "voxline.pipeline.recording",
    "voxline.pipeline.testing",
    "voxline.pipeline.timeline",
    "voxline.processors",
    "voxline.processors.contracts",
    "voxline.processors.session",
    "voxline.processors.testing",
    "voxline.transports",
    "voxline.transports.contracts",
    "voxline.transports.local",
    "voxline.transports.rtvi",
    "voxline.transports.server",
    "voxline.transports.webrtc",
    "voxline.transports.websocket",
]
"""The modules that users import from."""
RENEW = "python tests/laws/test_surface.py"


def signature(thing: Any) -> str:
    """A signature as it was written; empty where there is none."""
    try:
        text = str(inspect.signature(thing))
    except (ValueError, TypeError):
        return ""
    text = re.sub(r" at 0x[0-9a-f]+", "", text)
    return re.sub(r"<factory>", "...", text)


def _fields(model: type[BaseModel]) -> list[tuple[str, Any]]:
    """The fields of a model; a section's own stand with the section."""
    return [
        (name, field)
        for name, field in model.model_fields.items()
        if not (inspect.isclass(field.annotation) and issubclass(field.annotation, BaseModel))
    ]


def _default(field: Any) -> str:
    return "(required)" if field.is_required() else repr(field.get_default(call_default_factory=True))


def members(kind: Any) -> list[str]:
    """The public members of a class that it defines itself (or its private bases do)."""
    lines: list[str] = []
    bases: list[type] = [base for base in kind.__mro__ if base is kind or base.__name__.startswith("_")]
    own_fields = [field.name for field in fields(kind)] if is_dataclass(kind) else []
    names: set[str] = set()
    if inspect.isclass(kind) and issubclass(kind, BaseModel):
        lines += [f"    {name}: {field.annotation} = {_default(field)}" for name, field in _fields(kind)]
        bases.clear()
    for base in bases:
        names.update(vars(base))
    for name in sorted(names):
        member: Any = inspect.getattr_static(kind, name)
        if name.startswith("_") or name in own_fields or inspect.ismemberdescriptor(member):
            continue
        if isinstance(member, property):
            lines.append(f"    {name} (property)")
        elif type(member) in (classmethod, staticmethod):
            lines.append(f"    {name}{signature(member.__func__)} ({type(member).__name__})")
        elif inspect.isfunction(member):
            prefix = "async " if inspect.iscoroutinefunction(member) else ""
            lines.append(f"    {prefix}{name}{signature(member)}")
        else:
            lines.append(f"    {name}")
    return lines


def describe(name: str, thing: Any) -> list[str]:
    """A public name, in lines."""
    if inspect.isclass(thing):
        bases = ", ".join(base.__name__ for base in thing.__bases__ if base is not object)
        made = "" if issubclass(thing, Enum | BaseModel) else signature(thing)
        return [f"class {name}({bases}){' : ' + made if made else ''}", *members(thing)]
    if callable(thing) and hasattr(thing, "__name__"):
        return [f"{'async ' if inspect.iscoroutinefunction(thing) else ''}def {name}{signature(thing)}"]
    return [f"{name}: {type(thing).__name__}"]


def surface() -> str:
    """The whole, as text."""
    lines: list[str] = []
    for name in PUBLIC:
        module = importlib.import_module(name)
        lines += [f"# {name}", ""]
        for public in sorted(module.__all__, key=lambda one: (one.lower(), one)):
            lines += describe(public, getattr(module, public))
        lines.append("")
    return "\n".join(lines)


@pytest.mark.skipif(sys.version_info[:2] != (3, 11), reason="other Pythons print some signatures in other words")
def test_the_public_surface_is_what_is_written_down() -> None:
    written = SURFACE.read_text(encoding="utf-8")
    now = surface()
    gone = [line for line in written.splitlines() if line not in now.splitlines()]
    new = [line for line in now.splitlines() if line not in written.splitlines()]
    assert now == written, (
        "The public surface has changed. If that is meant, write it down, and into the changelog:\n"
        f"    {RENEW}\ngone or changed:\n" + "\n".join(gone) + "\nnew:\n" + "\n".join(new)
    )


def silent(kind: type) -> list[str]:
    """The public methods of a class without a docstring; what overrides one of a base may leave it to the base."""
    found: list[str] = []
    for name, member in vars(kind).items():
        function = getattr(member, "fget", None) or getattr(member, "__func__", None) or member
        inherited = any(hasattr(base, name) for base in kind.__mro__[1:])
        if not (name.startswith("_") or inherited) and inspect.isfunction(function) and not inspect.getdoc(function):
            found.append(name)
    return found


def test_every_public_thing_has_a_docstring() -> None:
    broken: list[str] = []
    for name in PUBLIC:
        module = importlib.import_module(name)
        assert module.__doc__
        for public in module.__all__:
            thing = getattr(module, public)
            if inspect.isclass(thing):
                broken += [f"{name}.{public}.{member}" for member in silent(thing)]
                if not vars(thing).get("__doc__"):
                    broken.append(f"{name}.{public}")
            elif inspect.isfunction(thing) and not inspect.getdoc(thing):
                broken.append(f"{name}.{public}")
    assert broken == []


def test_what_is_public_is_sorted_and_there() -> None:
    for name in PUBLIC:
        module = importlib.import_module(name)
        assert len(set(module.__all__)) == len(module.__all__)
        assert [public for public in module.__all__ if not hasattr(module, public)] == []


if __name__ == "__main__":
    SURFACE.parent.mkdir(parents=True, exist_ok=True)
    SURFACE.write_text(surface(), encoding="utf-8")
    sys.stdout.write(f"{SURFACE}: {len(surface().splitlines())} lines\n")

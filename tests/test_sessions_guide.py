"""The table of settings in the guide to sessions says what the model has: every field, its default, what is allowed."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt, MinLen
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from voxline.processors.session import SessionSettings
from voxline.tests.places import ROOT

GUIDE = ROOT / "docs" / "guide" / "sessions.md"
UNITS = {"_ms": " ms", "_s": " s"}
LONG = 5
"""A list with more entries than this is counted, and not written out."""


def rows(model: type[BaseModel] = SessionSettings, before: str = "") -> Iterator[tuple[str, str, str]]:
    """Name, default and what is allowed of every setting, as the table has them. Sections come where they stand."""
    for name, field in model.model_fields.items():
        section, listed = _section(field.annotation)
        if section is None or listed:
            yield before + name, _default(name, field), _allowed(field, section)
        if section is not None:
            yield from rows(section, f"{before}{name}{'[]' if listed else ''}.")


def _section(kind: Any) -> tuple[type[BaseModel] | None, bool]:
    """The model that a field holds, and whether it is a list of them."""
    if get_origin(kind) is tuple and _section(get_args(kind)[0])[0] is not None:
        return get_args(kind)[0], True
    return (kind, False) if isinstance(kind, type) and issubclass(kind, BaseModel) else (None, False)


def _default(name: str, field: FieldInfo) -> str:
    if field.is_required():
        return "has to be given"
    value = field.get_default(call_default_factory=True)
    match value:
        case None:
            return "none"
        case bool():
            return str(value)
        case int() | float():
            return f"{value:,g}" + next((unit for end, unit in UNITS.items() if name.endswith(end)), "")
        case str():
            return f'`"{value}"`' if value else "empty"
        case _ if len(value) > LONG:
            return f"{len(value)} texts"
        case _:
            return ", ".join(f'`"{one}"`' for one in value) or "empty"


def _allowed(field: FieldInfo, section: type[BaseModel] | None) -> str:
    kind, none = field.annotation, ""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = (one for one in get_args(kind) if one is not type(None))
        none = ", or none"
    bounds: list[str] = []
    for one in field.metadata:
        match one:
            case Ge(ge=bound):
                bounds.append(f"≥ {bound}")
            case Gt(gt=bound):
                bounds.append(f"> {bound}")
            case Le(le=bound):
                bounds.append(f"≤ {bound}")
            case Lt(lt=bound):
                bounds.append(f"< {bound}")
            case MinLen():
                bounds.append("not empty")
            case _:
                raise AssertionError(f"The table cannot say {one!r} yet.")
    return (", ".join(bounds) or _kind(kind, section)) + none


def _kind(kind: Any, section: type[BaseModel] | None) -> str:
    """What a field without bounds takes."""
    if section is not None:
        return "tables"
    if kind is bool:
        return "True, False"
    match get_origin(kind):
        case origin if origin is Literal:
            return ", ".join(f'`"{one}"`' for one in get_args(kind))
        case origin if origin is tuple and get_origin(get_args(kind)[0]) is Literal:
            return f"some of {_kind(get_args(kind)[0], None)}"
        case origin if origin is tuple:
            return "texts"
        case origin if origin is dict:
            return "texts by reason"
        case _:
            return {str: "text", Path: "a file"}.get(kind, "any number")


def table() -> list[list[str]]:
    """The cells of the guide's table."""
    text = GUIDE.read_text(encoding="utf-8").split("\n## All settings\n")[1]
    lines = re.findall(r"^\| (`.*) \|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split(" | ")] for line in lines]


@pytest.mark.parametrize("expected", list(rows()), ids=lambda row: row[0])
def test_a_setting_stands_in_the_table_as_it_is(expected: tuple[str, str, str]) -> None:
    found = {cells[0].strip("`"): cells for cells in table()}
    name, default, allowed = expected
    assert name in found, f"Add: | `{name}` | {default} | {allowed} | what it is for |"
    assert found[name][1:3] == [default, allowed]
    assert found[name][3:] != [""], f"{name} is not explained."


def test_the_table_has_no_setting_that_is_not_there_and_the_order_of_the_model() -> None:
    assert [cells[0].strip("`") for cells in table()] == [name for name, _, _ in rows()]

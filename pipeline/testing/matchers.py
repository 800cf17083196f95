"""Matchers: what a frame, or a list of frames, has to look like. They compare with ``==``.

::

    assert bench.down == [frame(TextFrame, text=contains("go")), frame(ResponseEndFrame)]      # these, and nothing else
    assert bench.down == in_order(frame(TextFrame), frame(ResponseEndFrame))                   # others may be between
    assert bench.down == in_order(frame(TextFrame), frame(ResponseEndFrame), nothing_else)     # ... and none after it
    assert bench.up == eventually(frame(ResponseCutFrame, heard_ms=approx(240, abs=20)))       # it is among them
    text = await bench.until(frame(TextFrame), within_ms=500)

A field is compared with a value, another matcher, or a function that says whether it will do.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..frames import Frame
from ..recording.schema import is_array
from .diagnosis import short


class Matcher:
    """Equal to what it matches."""

    __hash__ = None  # type: ignore[assignment]

    def mismatch(self, actual: Any) -> str:
        """Why something does not match; empty where it does."""
        raise NotImplementedError

    def __eq__(self, other: object) -> bool:
        return not self.mismatch(other)


class _Frame(Matcher):
    def __init__(self, cls: type[Frame], fields: dict[str, Any]) -> None:
        self._cls, self._fields = cls, fields
        for name in fields:
            if not hasattr(cls, name) and name not in {field.name for field in dataclasses.fields(cls)}:
                names = ", ".join(field.name for field in dataclasses.fields(cls)) or "none"
                raise TypeError(f"{cls.__name__} has no field {name!r}; its fields are: {names}.")

    def mismatch(self, actual: Any) -> str:
        if not isinstance(actual, self._cls):
            return f"it is a {type(actual).__name__}"
        for name, wanted in self._fields.items():
            value = getattr(actual, name)
            why = _field_mismatch(value, wanted)
            if why:
                return f"{name} {why}"
        return ""

    def __repr__(self) -> str:
        fields = [f"{name}={_name(wanted)}" for name, wanted in self._fields.items()]
        return f"frame({', '.join([self._cls.__name__, *fields])})"


def frame(cls: type[Frame], **fields: Any) -> Any:
    """A frame of a class (or one derived from it) with these fields; properties, as ``duration_ms``, count too."""
    return _Frame(cls, fields)


def _field_mismatch(value: Any, wanted: Any) -> str:
    if isinstance(wanted, Matcher):
        return wanted.mismatch(value)
    if _is_test(wanted):
        return "" if wanted(value) else f"is {short(value)}, and {_name(wanted)} says no"
    equal = np.array_equal(wanted, value) if is_array(wanted) or is_array(value) else wanted == value
    return "" if equal else f"is {short(value)}"


def _is_test(wanted: Any) -> bool:
    return callable(wanted) and not isinstance(wanted, type | Matcher)


def _name(wanted: Any) -> str:
    if _is_test(wanted):
        return getattr(wanted, "__name__", repr(wanted))
    return short(wanted)


class _Test(Matcher):
    def __init__(self, name: str, test: Callable[[Any], bool]) -> None:
        self._name, self._test = name, test

    def mismatch(self, actual: Any) -> str:
        try:
            return "" if self._test(actual) else f"is {short(actual)}"
        except TypeError:
            return f"is {short(actual)}, a {type(actual).__name__}"

    def __repr__(self) -> str:
        return self._name


any_: Any = _Test("any_", lambda _: True)
"""Equal to everything."""


def contains(part: Any) -> Any:
    """Text, or anything else that can be searched, with ``part`` in it."""
    return _Test(f"contains({part!r})", lambda actual: part in actual)


def matches(pattern: str, flags: int = 0) -> Any:
    """Text in which a regular expression is found."""
    return _Test(f"matches({pattern!r})", lambda actual: re.search(pattern, actual, flags) is not None)


def approx(value: float, *, abs: float = 0.0, rel: float = 1e-6) -> Any:
    """A number near ``value``: within ``abs``, or within ``rel`` of it."""
    margin = max(abs, rel * (value if value >= 0 else -value))
    return _Test(f"approx({value:g} ± {margin:g})", lambda actual: -margin <= actual - value <= margin)


def one_of(*values: Any) -> Any:
    """One of several values or matchers."""
    return _Test(f"one_of({', '.join(map(repr, values))})", lambda actual: any(value == actual for value in values))


# --- lists -----------------------------------------------------------------------------------------------------------


class ListMatcher(Matcher):
    """Equal to lists of frames."""


class _NothingElse:
    def __repr__(self) -> str:
        return "nothing_else"


nothing_else = _NothingElse()
"""At the end of `in_order`: no frame stands behind the last one."""


class _InOrder(ListMatcher):
    def __init__(self, wanted: Sequence[Any], name: str) -> None:
        self._ends = bool(wanted) and wanted[-1] is nothing_else
        self._wanted = list(wanted[:-1] if self._ends else wanted)
        self._name = name
        if any(one is nothing_else for one in self._wanted):
            raise TypeError("nothing_else stands last, as in in_order(frame(TextFrame), nothing_else).")

    def mismatch(self, actual: Any) -> str:
        if not isinstance(actual, Sequence):
            return f"it is a {type(actual).__name__}, and no list"
        frames: list[Any] = list(actual)  # pyright: ignore[reportUnknownArgumentType, reportUnknownVariableType]
        place = 0
        for wanted in self._wanted[:-1] if self._ends else self._wanted:
            found = next((at for at in range(place, len(frames)) if wanted == frames[at]), None)
            if found is None:
                return f"there is no {wanted!r} {f'after index {place - 1}' if place else 'in it'}"
            place = found + 1
        if self._ends and len(frames) < place + bool(self._wanted):
            return f"there is no {self._wanted[-1]!r} after index {place - 1}"
        if self._ends and not self._wanted and frames:
            return f"it has {len(frames)} frames"
        if self._ends and self._wanted and self._wanted[-1] != frames[-1]:
            return f"its last is {short(frames[-1])}, not {self._wanted[-1]!r}"
        return ""

    def __repr__(self) -> str:
        shown = [*self._wanted, *([nothing_else] if self._ends else [])]
        return f"{self._name}({', '.join(map(repr, shown))})"


def in_order(*wanted: Any) -> Any:
    """A list with these frames in this order; others may stand before, between and (without `nothing_else`) behind."""
    return _InOrder(wanted, "in_order")


def eventually(wanted: Any) -> Any:
    """A list in which this frame stands somewhere. To wait for one, use ``await bench.until(...)``."""
    return _InOrder([wanted], "eventually")


# --- explaining ------------------------------------------------------------------------------------------------------


def explain(actual: Sequence[Any], wanted: Sequence[Any]) -> list[str]:
    """Two lists side by side, for people: what differs is marked ``!``, and said why."""
    lines: list[str] = []
    for index in range(max(len(actual), len(wanted))):
        if index >= len(actual):
            lines.append(f"! {index}: missing: {_name(wanted[index])}")
        elif index >= len(wanted):
            lines.append(f"! {index}: not expected: {short(actual[index], 200)}")
        elif wanted[index] == actual[index]:
            lines.append(f"  {index}: {short(actual[index])}")
        else:
            lines.append(f"! {index}: {short(actual[index], 200)}")
            why = wanted[index].mismatch(actual[index]) if isinstance(wanted[index], Matcher) else ""
            lines.append(f"     wanted {_name(wanted[index])}{f': {why}' if why else ''}")
    return lines


def concerns_frames(values: Iterable[Any]) -> bool:
    """Return True for a list of frames or matchers."""
    return any(isinstance(value, Frame | Matcher) for value in values)

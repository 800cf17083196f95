"""Shapes: how the fields of a frame are written as plain values and read again, by their annotations.

The codec's table: for each annotation a pair of functions, made once for each class.
"""

from __future__ import annotations

import base64
import dataclasses
import enum
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, TypeGuard, Union, cast
from weakref import WeakKeyDictionary

import numpy as np
import numpy.typing as npt

from ..errors import RecordingError
from ..frames import Frame
from .names import frame_class, name_of

Plain = dict[str, Any]
"""A JSON object."""


def is_object(value: object) -> TypeGuard[Plain]:
    """Return True for a JSON object."""
    return isinstance(value, dict)


def is_list(value: object) -> TypeGuard[list[Any]]:
    """Return True for a list."""
    return isinstance(value, list)


def is_array(value: object) -> TypeGuard[npt.NDArray[Any]]:
    """Return True for a numpy array."""
    return isinstance(value, np.ndarray)


def _is(value: Any, *classes: Any) -> bool:
    # isinstance() that does not narrow: a type checker would infer list[Unknown] and Mapping[Unknown, Unknown].
    return isinstance(value, classes)


# --- fields: one pair of functions for each annotation ---------------------------------------------------------------


@dataclasses.dataclass(frozen=True, slots=True)
class ValueType:
    """Writer and reader for the values of an annotation. Both raise `ValueError` for an invalid value."""

    wants: str
    write: Callable[[Any], Any]
    read: Callable[[Any], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class FieldSchema:
    """A field of a dataclass."""

    name: str
    type: ValueType
    required: bool
    default: Any

    def has_default(self, value: object) -> bool:
        """Return True for the default, which is left out of the line."""
        return not self.required and type(value) is type(self.default) and _same(value, self.default)


def _same(one: Any, other: Any) -> bool:
    try:
        return bool(one == other) and not (isinstance(one, float) and math.copysign(1, one) != math.copysign(1, other))
    except ValueError:
        return False


_schemas: WeakKeyDictionary[type[Any], tuple[FieldSchema, ...]] = WeakKeyDictionary()


def schema_of(cls: type[Any]) -> tuple[FieldSchema, ...]:
    """Return the fields of a dataclass that its constructor takes."""
    shape = _schemas.get(cls)
    if shape is None:
        shape = _schemas[cls] = _schema(cls)
    return shape


def _schema(cls: type[Any]) -> tuple[FieldSchema, ...]:
    try:
        hints = typing.get_type_hints(cls)
    except NameError:
        # The annotation names a local of a function: its values are written as they are.
        hints = {}
    fields: list[FieldSchema] = []
    for field in dataclasses.fields(cls):
        if not field.init:
            continue
        default: Any = dataclasses.MISSING
        if field.default is not dataclasses.MISSING:
            default = field.default
        elif field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        required = default is dataclasses.MISSING
        fields.append(FieldSchema(field.name, value_type(hints.get(field.name, Any)), required, default))
    return tuple(fields)


def checked(name: str, call: Callable[[Any], Any], value: Any) -> Any:
    """Call a reader or writer of a field; an error then names the field."""
    try:
        return call(value)
    except RecordingError as error:
        raise type(error)(f"field {name!r}: {error}") from error
    except ValueError as error:
        raise RecordingError(f"field {name!r}: {error}") from error


def show(value: object) -> str:
    """Shorten the repr of a value for an error message."""
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _no(wants: str, value: object) -> ValueError:
    return ValueError(f"wants {wants}, not {show(value)}")


def _exactly(wants: str, *allowed: type) -> ValueType:
    def check(value: Any) -> Any:
        if type(value) not in allowed:
            raise _no(wants, value)
        return value

    return ValueType(wants, check, check)


def _float() -> ValueType:
    def write(value: Any) -> Any:
        # JSON cannot write numpy's numbers.
        if _is(value, bool, np.bool_) or not _is(value, int, float, np.floating, np.integer):
            raise _no("a number", value)
        return value.item() if _is(value, np.generic) else value

    def read(value: Any) -> Any:
        if type(value) not in (int, float):
            raise _no("a number", value)
        return value

    return ValueType("a number", write, read)


def _int() -> ValueType:
    def write(value: Any) -> Any:
        if _is(value, bool, np.bool_) or not _is(value, int, np.integer):
            raise _no("a whole number", value)
        return int(value)

    return ValueType("a whole number", write, _exactly("a whole number", int).read)


def _text() -> ValueType:
    def write(value: Any) -> Any:
        if not isinstance(value, str):
            raise _no("text", value)
        return str(value)

    return ValueType("text", write, _exactly("text", str).read)


def _bytes() -> ValueType:
    def read(value: Any) -> bytes:
        try:
            return base64.b64decode(value, validate=True)
        except (TypeError, ValueError):
            raise _no("base64", value) from None

    return ValueType("bytes as base64", lambda value: base64.b64encode(value).decode(), read)


def _any_write(value: Any) -> Any:
    """Write a value without a known annotation: JSON's own types, frames and arrays."""
    if value is None or type(value) in (bool, int, float, str):
        return value
    if is_list(value):
        return [_any_write(item) for item in value]
    if is_object(value) and all(type(key) is str for key in value):
        return {key: _any_write(item) for key, item in value.items()}
    if _is(value, Frame):
        return _frame().write(value)
    if is_array(value):
        return _array().write(value)
    raise ValueError(f"{show(value)} is a {type(value).__name__}, and the annotation does not say how to write it")


def _any_read(value: Any) -> Any:
    if is_object(value) and value.keys() == {"array", "dtype", "shape"}:
        return _array().read(value)
    if is_list(value):
        return [_any_read(item) for item in value]
    return value


def _array() -> ValueType:
    wants = "an array as {array: base64, dtype, shape}"

    def write(value: Any) -> Plain:
        if not is_array(value) or value.dtype.hasobject:
            raise _no("an array of numbers", value)
        raw = base64.b64encode(np.ascontiguousarray(value).tobytes()).decode()
        return {"array": raw, "dtype": value.dtype.str, "shape": list(value.shape)}

    def read(value: Any) -> Any:
        try:
            raw = base64.b64decode(value["array"], validate=True)
            return np.frombuffer(raw, np.dtype(value["dtype"])).reshape(value["shape"]).copy()
        except (TypeError, KeyError, ValueError):
            raise _no(wants, value) from None

    return ValueType(wants, write, read)


def _dataclass(cls: type[Any]) -> ValueType:
    wants = f"an object with the fields of {cls.__name__}"

    def write(value: Any) -> Plain:
        if type(value) is not cls:
            raise _no(f"a {cls.__name__}", value)
        return write_fields(value)

    def read(value: Any) -> Any:
        if not is_object(value):
            raise _no(wants, value)
        return read_fields(cls, value)

    return ValueType(wants, write, read)


def write_fields(value: Any) -> Plain:
    """Return the fields of a dataclass, without those that have their default."""
    plain: Plain = {}
    for field in schema_of(value.__class__):
        item = getattr(value, field.name)
        if not field.has_default(item):
            plain[field.name] = checked(field.name, field.type.write, item)
    return plain


def read_fields(cls: type[Any], plain: Mapping[str, Any]) -> Any:
    """Make a dataclass from its fields."""
    fields = schema_of(cls)
    names = [field.name for field in fields]
    for key in plain:
        if key not in names:
            raise RecordingError(f"{cls.__name__} has no field {key!r}; its fields are: {', '.join(names) or 'none'}")
    values: dict[str, Any] = {}
    for field in fields:
        if field.name in plain:
            values[field.name] = checked(field.name, field.type.read, plain[field.name])
        elif field.required:
            raise RecordingError(f"field {field.name!r} of {cls.__name__} is missing; it wants {field.type.wants}")
    try:
        return cls(**values)
    except (TypeError, ValueError) as error:
        raise RecordingError(f"no {cls.__name__} can be made of it: {error}") from error


def _frame() -> ValueType:
    def write(value: Any) -> Plain:
        if not _is(value, Frame):
            raise _no("a frame", value)
        return {"type": name_of(value.__class__), **write_fields(value)}

    def read(value: Any) -> Frame:
        if not is_object(value) or not isinstance(value.get("type"), str):
            raise _no("a frame", value)
        plain = dict(value)
        return read_fields(frame_class(plain.pop("type")), plain)

    return ValueType("a frame", write, read)


def _enum(cls: type[enum.Enum]) -> ValueType:
    names = ", ".join(cls.__members__)
    wants = f"one of {names}"

    def write(value: Any) -> str:
        if not isinstance(value, cls):
            raise _no(f"a {cls.__name__}", value)
        return value.name

    def read(value: Any) -> enum.Enum:
        if value not in cls.__members__:
            raise _no(wants, value)
        return cls[value]

    return ValueType(wants, write, read)


def _literal(*allowed: Any) -> ValueType:
    wants = "one of " + ", ".join(map(repr, allowed))

    def check(value: Any) -> Any:
        if not any(type(value) is type(one) and value == one for one in allowed):
            raise _no(wants, value)
        return value

    return ValueType(wants, check, check)


def _many(make: Callable[[list[Any]], Any], takes: type | tuple[type, ...], item: ValueType) -> ValueType:
    wants = f"a list, of {item.wants} each"

    def write(value: Any) -> list[Any]:
        if not _is(value, takes):
            raise _no(wants, value)
        items: Any = sorted(value) if _is(value, AbstractSet) else value
        return [checked(str(index), item.write, one) for index, one in enumerate(items)]

    def read(value: Any) -> Any:
        if not is_list(value):
            raise _no(wants, value)
        return make([checked(str(index), item.read, one) for index, one in enumerate(value)])

    return ValueType(wants, write, read)


def _row(items: Sequence[ValueType]) -> ValueType:
    wants = f"a list of {len(items)}: {', '.join(item.wants for item in items)}"

    def apply(value: Any, takes: type, how: str) -> list[Any]:
        if not isinstance(value, takes) or len(value) != len(items):  # pyright: ignore[reportUnknownArgumentType]
            raise _no(wants, value)
        pairs: Any = zip(items, value, strict=True)
        return [checked(str(index), getattr(item, how), one) for index, (item, one) in enumerate(pairs)]

    return ValueType(wants, lambda value: apply(value, tuple, "write"), lambda value: tuple(apply(value, list, "read")))


def _mapping(item: ValueType) -> ValueType:
    wants = f"an object, with {item.wants} for each name"

    def apply(value: Any, how: str) -> Plain:
        if not _is(value, Mapping) or any(type(key) is not str for key in value):
            raise _no(wants, value)
        return {key: checked(key, getattr(item, how), value[key]) for key in value}

    return ValueType(wants, lambda value: apply(value, "write"), lambda value: apply(value, "read"))


def _union(kinds: Sequence[ValueType]) -> ValueType:
    wants = " or ".join(kind.wants for kind in kinds)

    def attempt(value: Any, how: str) -> Any:
        for kind in kinds:
            try:
                return getattr(kind, how)(value)
            except (RecordingError, ValueError, TypeError, AttributeError):
                continue
        raise _no(wants, value)

    return ValueType(wants, lambda value: attempt(value, "write"), lambda value: attempt(value, "read"))


_PLAIN: dict[Any, Callable[[], ValueType]] = {
    str: _text,
    int: _int,
    float: _float,
    bool: lambda: _exactly("true or false", bool),
    bytes: _bytes,
    type(None): lambda: _exactly("null", type(None)),
    np.ndarray: _array,
}


def value_type(hint: Any) -> ValueType:
    """Return the writer and reader for an annotation; an unknown one takes any JSON value."""
    if hint in _PLAIN:
        return _PLAIN[hint]()
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return value_type(arguments[0])
    if origin in (Union, types.UnionType):
        # The exact ones first: a number must not be read as whatever also takes it.
        return _union([value_type(argument) for argument in sorted(arguments, key=lambda one: one is float)])
    if origin is Literal:
        return _literal(*arguments)
    if origin is np.ndarray:
        return _array()
    if origin is tuple and not (len(arguments) == 2 and arguments[1] is Ellipsis):
        return _row([value_type(argument) for argument in arguments])
    if origin is not None and arguments and isinstance(origin, type):
        item = value_type(arguments[-1] if origin is not tuple else arguments[0])
        if issubclass(origin, Mapping):
            return _mapping(item) if arguments[0] is str else _ANY
        for base, make, takes in _MANY:
            if origin is base or (origin.__module__ == "collections.abc" and issubclass(base, origin)):
                return _many(make, takes, item)
    if isinstance(hint, type):
        if issubclass(hint, enum.Enum):
            return _enum(hint)
        if issubclass(hint, Frame):
            return _frame()
    if isinstance(hint, type) and dataclasses.is_dataclass(cast(Any, hint)):
        return _dataclass(cast(Any, hint))
    return _ANY


_ANY = ValueType("what JSON can hold", _any_write, _any_read)
_MANY: list[tuple[type, Callable[[list[Any]], Any], type | tuple[type, ...]]] = [
    (tuple, tuple, (tuple, list)),
    (list, list, list),
    (frozenset, frozenset, frozenset),
    (set, set, set),
]

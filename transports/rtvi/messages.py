"""RTVI messages as text: read with every bound, and written. Pure.

A message is a JSON object ``{"label": "rtvi-ai", "type": ..., "id": ..., "data": ...}``. The types and their fields are
those of the RTVI standard 2.1.0, as the published JavaScript client 1.13 has them.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any, NoReturn, cast

from ...pipeline.errors import TransportError

LABEL = "rtvi-ai"
VERSION = "2.1.0"
"""Of the standard, that a client of version 2 is answered with."""
OLD_VERSION = "1.4.0"
"""The same for a client of version 1: the last in which ``bot-output`` has a flag ``spoken`` and no progress."""

MAX_CHARACTERS = 65_536
"""Of one message, either way: what every implementation of data channels carries at least is 64 KiB."""
MAX_DEPTH = 32
"""Of objects and lists in each other."""
MAX_NAME = 128
"""Characters of a type, an id, or the type of an app's own message."""


class BadMessageError(TransportError):
    """A client's message that cannot be taken. Its text may be sent back: it quotes nothing."""


@dataclass(frozen=True, slots=True)
class RTVIMessage:
    """What a client sent."""

    type: str
    id: str
    data: dict[str, Any]


def read(text: str) -> RTVIMessage | None:
    """A client's message; None for what belongs to the connection and not to RTVI (``ping: ...``, signalling).

    Raises `BadMessageError`.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadMessageError(f"A message may have {MAX_CHARACTERS} characters.")
    if text.startswith("ping"):
        return None
    try:
        told: Any = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadMessageError("A message is a JSON object, and this one is none.") from None
    if not isinstance(told, dict):
        raise BadMessageError("A message is a JSON object, and this one is none.")
    message = cast("dict[str, Any]", told)
    if message.get("label") != LABEL:
        if message.get("type") == "signalling":
            return None
        raise BadMessageError(f'A message has the label "{LABEL}".')
    _check(message, MAX_DEPTH)
    data: Any = message.get("data")
    if data is not None and not isinstance(data, dict):
        raise BadMessageError("The data of a message is an object.")
    return RTVIMessage(name(message, "type"), name(message, "id", ""), cast("dict[str, Any]", data or {}))


def name(message: dict[str, Any], key: str, default: str | None = None) -> str:
    """A short text in an object. Raises `BadMessageError` where it is none, or is missing without a default."""
    value = message.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or len(value) > MAX_NAME or not (value or default is not None):
        raise BadMessageError(f'"{key}" is a text of 1 to {MAX_NAME} characters.')
    return value


def write(kind: str, id: str, data: Any = None) -> str:
    """A message as text. Raises `ValueError` or `TypeError` for what is no JSON."""
    return json.dumps({"label": LABEL, "type": kind, "id": id, "data": data}, separators=(",", ":"), allow_nan=False)


def major(version: object) -> int:
    """The first number of a client's version; 1 where it says none that can be read."""
    first = version.split(".")[0] if isinstance(version, str) else ""
    return int(first) if first.isascii() and first.isdigit() and len(first) < 4 else 1


def _check(value: Any, depth: int) -> None:
    """Bound the nesting, and refuse half of a surrogate pair, which no text may have and which breaks far away."""
    if isinstance(value, str):
        if not value.isascii():
            try:
                value.encode()
            except UnicodeEncodeError:
                raise BadMessageError("A text in the message has half a surrogate pair.") from None
        return
    if not isinstance(value, dict | list):
        return
    if depth == 0:
        raise BadMessageError(f"A message may be nested {MAX_DEPTH} deep.")
    within = cast("dict[str, Any] | list[Any]", value)
    if isinstance(within, dict):
        for key, inner in within.items():
            _check(key, depth)
            _check(inner, depth - 1)
    else:
        for inner in within:
            _check(inner, depth - 1)


def _no_number(_: str) -> NoReturn:
    raise ValueError

"""Reads and writes RTVI messages as text, with bounds on size and nesting. Pure.

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
"""Version of the standard that is announced to clients of version 2."""
OLD_VERSION = "1.4.0"
"""Version announced to clients of version 1: the last in which ``bot-output`` has a flag ``spoken`` and no progress."""

MAX_CHARACTERS = 65_536
"""Bound on one message, either way: every data channel implementation carries at least 64 KiB."""
MAX_DEPTH = 32
"""Bound on nested objects and lists."""
MAX_NAME = 128
"""Bound on the characters of a type, an id, or the type of an app message."""


class BadMessageError(TransportError):
    """An invalid message of a client. The text may be sent back: it quotes no input."""


@dataclass(frozen=True, slots=True)
class RTVIMessage:
    """A message of a client."""

    type: str
    id: str
    data: dict[str, Any]


def read(text: str) -> RTVIMessage | None:
    """Parse a client's message; None for messages of the connection and not of RTVI (``ping: ...``, signalling).

    Raises `BadMessageError`.
    """
    if len(text) > MAX_CHARACTERS:
        raise BadMessageError(f"A message may have {MAX_CHARACTERS} characters.")
    if text.startswith("ping"):
        return None
    try:
        parsed: Any = json.loads(text, parse_constant=_no_number)
    except (ValueError, RecursionError):
        raise BadMessageError("A message must be a JSON object.") from None
    if not isinstance(parsed, dict):
        raise BadMessageError("A message must be a JSON object.")
    message = cast("dict[str, Any]", parsed)
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
    """Return a short text field. Raises `BadMessageError` if it is not a text, or missing without a default."""
    value = message.get(key, default)
    if value is None and default is not None:
        return default
    if not isinstance(value, str) or len(value) > MAX_NAME or not (value or default is not None):
        raise BadMessageError(f'"{key}" is a text of 1 to {MAX_NAME} characters.')
    return value


def write(kind: str, id: str, data: Any = None) -> str:
    """Write a message as text. Raises `ValueError` or `TypeError` for data that is not JSON."""
    return json.dumps({"label": LABEL, "type": kind, "id": id, "data": data}, separators=(",", ":"), allow_nan=False)


def major(version: object) -> int:
    """Return the major number of a client's version; 1 if it is missing or unreadable."""
    first = version.split(".")[0] if isinstance(version, str) else ""
    return int(first) if first.isascii() and first.isdigit() and len(first) < 4 else 1


def _check(value: Any, depth: int) -> None:
    """Bound the nesting, and refuse lone surrogates, which would fail later when encoded."""
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

"""The protocol between a parent and its child process. Both sides use this file.

A message is a fixed head (two little-endian uint32: the header's and the payload's length in bytes), a header
(a JSON object, UTF-8) and a payload (raw bytes). This module does no I/O, so it is tested without a process, and it
imports little, so that a child starts quickly.

Headers, parent to child: `{"id": 7, "op": "speak", ...}` is a question, answered under the same number; number 0
asks for no answer; `{"cancel": 7}` withdraws every question up to 7. Child to parent: `{"id": 7, ...}`; the
last answer to a question has `"end": true`, and `"error": "..."` if the child refused it.
"""

import json
import struct
from collections.abc import Mapping
from typing import NamedTuple, cast

MAX_HEADER = 1 << 20
"""Longest header in bytes: many times a grammar or a text to speak."""

MAX_PAYLOAD = 1 << 24
"""Longest payload in bytes: 16 MiB, several minutes of audio in one message."""

_HEAD = struct.Struct("<II")


class WireError(Exception):
    """The bytes are not a message: something printed into the pipe, or a length is absurd."""


class WireMessage(NamedTuple):
    """One message: ``header`` is the JSON object, ``payload`` the raw bytes after it, or empty."""

    header: dict[str, object]
    payload: bytes

    def text(self, key: str, default: str = "") -> str:
        """Return the string under ``key``, or ``default`` if it is missing. Raises `WireError` for another type."""
        value = self.header.get(key, default)
        if not isinstance(value, str):
            raise WireError(f"{key!r} should be a string and is {value!r}")
        return value

    def number(self, key: str, default: float = 0.0) -> float:
        """Return the number under ``key``, or ``default`` if it is missing. Raises `WireError` for another type."""
        value = self.header.get(key, default)
        if not isinstance(value, (int, float)):
            raise WireError(f"{key!r} should be a number and is {value!r}")
        return value

    def items(self, key: str) -> list[object]:
        """Return the list under ``key``, empty if it is missing. Raises `WireError` for another type."""
        value = self.header.get(key, [])
        if not isinstance(value, list):
            raise WireError(f"{key!r} should be a list and is {value!r}")
        return cast(list[object], value)


def encode(header: Mapping[str, object], payload: bytes | memoryview = b"") -> bytes:
    """Encode a message. Raises `WireError` if it is longer than the other side accepts."""
    head = json.dumps(header, separators=(",", ":")).encode()
    if len(head) > MAX_HEADER or len(payload) > MAX_PAYLOAD:
        raise WireError(f"a message of {len(head)} + {len(payload)} bytes is too long")
    return b"".join((_HEAD.pack(len(head), len(payload)), head, payload))


class MessageReader:
    """Splits a stream of bytes, in pieces of any size, into messages."""

    def __init__(self) -> None:
        self._buffer = bytearray()

    def feed(self, data: bytes) -> list[WireMessage]:
        """Return the messages that ``data`` completes, oldest first. Raises `WireError` for other bytes."""
        buffer = self._buffer
        buffer += data
        messages: list[WireMessage] = []
        start = 0
        while len(buffer) - start >= _HEAD.size:
            header_length, payload_length = cast(tuple[int, int], _HEAD.unpack_from(buffer, start))
            if header_length > MAX_HEADER or payload_length > MAX_PAYLOAD:
                raise WireError(f"not a message: {bytes(buffer[start : start + 40])!r}")
            body = start + _HEAD.size
            end = body + header_length + payload_length
            if len(buffer) < end:
                break
            header = _parse_header(bytes(buffer[body : body + header_length]))
            messages.append(WireMessage(header, bytes(buffer[body + header_length : end])))
            start = end
        del buffer[:start]
        return messages


def _parse_header(data: bytes) -> dict[str, object]:
    try:
        header: object = json.loads(data)
    except ValueError:
        header = None
    if not isinstance(header, dict):
        raise WireError(f"not a message header: {data[:40]!r}")
    return cast(dict[str, object], header)

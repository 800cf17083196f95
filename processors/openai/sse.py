"""Parser of server-sent events: bytes in, events out, whatever the boundaries of the chunks.

Follows the HTML standard (section 9.2.6, "Interpreting an event stream"): lines end with CR, LF or both, and an event
without an empty line after it is incomplete and dropped. Everything but `events` is free of I/O.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from ...pipeline.errors import BadAnswerError

MAX_EVENT_BYTES = 1 << 20
"""Upper bound for one event. Events of this protocol are far smaller, so a larger one is not an event stream."""

_END_OF_LINE = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """A server-sent event. ``name`` is empty if the stream names none; LF joins the lines of ``data``."""

    name: bytes
    data: bytes


class EventDecoder:
    """Splits a stream of bytes into events. The bytes are not decoded, so a chunk may end inside a character."""

    def __init__(self) -> None:
        self._rest = bytearray()
        """Incomplete line, at most `MAX_EVENT_BYTES`; more is an error."""
        self._after_cr = False
        self._started = False
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """Add bytes and return the events that they complete. Raises `BadAnswerError` for an event that is too long."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        self._rest += chunk
        self._size += len(chunk)
        if not self._started:
            if len(self._rest) < len(_BOM) and _BOM.startswith(bytes(self._rest)):
                return []
            self._started = True
            if self._rest.startswith(_BOM):
                del self._rest[: len(_BOM)]
        *lines, rest = _END_OF_LINE.split(bytes(self._rest))
        self._rest = bytearray(rest)
        found = [event for line in lines if (event := self._line(line)) is not None]
        if self._size > MAX_EVENT_BYTES:
            raise BadAnswerError(f"The server sent an event that does not end within {MAX_EVENT_BYTES >> 20} MiB.")
        return found

    def _line(self, line: bytes) -> Event | None:
        if not line:
            event = Event(self._name, b"\n".join(self._data)) if self._data else None
            self._name, self._data, self._size = b"", [], len(self._rest)
            return event
        field, _, value = line.partition(b":")
        value = value.removeprefix(b" ")
        if field == b"data":
            self._data.append(value)
        elif field == b"event":
            self._name = value
        return None


async def events(body: AsyncGenerator[bytes]) -> AsyncGenerator[Event]:
    """Yield the events of a response up to ``[DONE]``, then read the rest, so that the connection can be reused."""
    decoder = EventDecoder()
    done = False
    async with aclosing(body):
        async for chunk in body:
            for event in decoder.feed(b"" if done else chunk):
                done = done or event.data.strip() == b"[DONE]"
                if not done:
                    yield event

"""Server-sent events: bytes in, events out, however the bytes are cut.

Pure but for `events`. As the HTML standard says (section 9.2.6, "Interpreting an event stream"): lines end with CR, LF
or both, and an event that is not followed by an empty line is not complete, so it is dropped.
"""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import NamedTuple

from ...pipeline.errors import BadAnswerError

MAX_EVENT_BYTES = 1 << 20
"""No event of this protocol is near it: what does not end by then is no event stream."""

_END_OF_LINE = re.compile(rb"\r\n|\n|\r")
_BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One event. ``name`` is empty where the stream gives none; the lines of ``data`` are joined with LF."""

    name: bytes
    data: bytes


class EventDecoder:
    """Takes a stream apart. A character that is cut in two by the network stays whole: nothing is decoded here."""

    def __init__(self) -> None:
        self._rest = bytearray()
        """A line that is not complete; `MAX_EVENT_BYTES` at most, more is an error."""
        self._after_cr = False
        self._begun = False
        self._name = b""
        self._data: list[bytes] = []
        self._size = 0

    def feed(self, chunk: bytes) -> list[Event]:
        """The events that are complete now. Raises `BadAnswerError` for one that does not end."""
        if self._after_cr and chunk.startswith(b"\n"):
            chunk = chunk[1:]
            self._after_cr = False
        if not chunk:
            return []
        self._after_cr = chunk.endswith(b"\r")
        self._rest += chunk
        self._size += len(chunk)
        if not self._begun:
            if len(self._rest) < len(_BOM) and _BOM.startswith(bytes(self._rest)):
                return []
            self._begun = True
            if self._rest.startswith(_BOM):
                del self._rest[: len(_BOM)]
        *lines, rest = _END_OF_LINE.split(bytes(self._rest))
        self._rest = bytearray(rest)
        found = [event for line in lines if (event := self._line(line)) is not None]
        if self._size > MAX_EVENT_BYTES:
            raise BadAnswerError(f"The server sends an event that does not end within {MAX_EVENT_BYTES >> 20} MiB.")
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
    """The events of an answer, up to its end, so that the connection can be used again; ``[DONE]`` is not one."""
    decoder = EventDecoder()
    done = False
    async with aclosing(body):
        async for chunk in body:
            for event in decoder.feed(b"" if done else chunk):
                done = done or event.data.strip() == b"[DONE]"
                if not done:
                    yield event

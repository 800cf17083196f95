"""`Channel`: sends messages to the client once it is ready, and drops those it cannot take."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from .messages import MAX_CHARACTERS, OLD_VERSION, VERSION, write

WAITING = 500
"""Bound on messages kept for a client that is not ready yet, or away; beyond it the oldest is dropped."""

log = logging.getLogger("voxline")


class Channel:
    """Writes messages. ``send`` receives the text of each; if it returns False (the client is away or does not keep
    up), the message is kept and sent again later. Exceptions of ``send`` are logged and not raised.
    """

    def __init__(self, send: Callable[[str], object], *, keep: bool = True) -> None:
        self._send = send
        self._keep = keep
        self._waiting: deque[tuple[str, Any, str]] = deque()  # bound: WAITING, then the oldest is dropped and counted
        self._count = 0
        self.ready = False
        self.major = 2
        """Major RTVI version of the client."""
        self.dropped = 0
        """Messages that were not sent: too many waiting, too long, or an error."""

    def open(self, major: int, about: dict[str, Any]) -> None:
        """Greet a client that is ready, and send the waiting messages. May be called again."""
        self.major = 1 if major < 2 else 2
        self.ready = True
        self._write("bot-ready", {"version": VERSION if self.major == 2 else OLD_VERSION, "about": about})
        self.flush()

    def flush(self) -> bool:
        """Send waiting messages until one is refused; True if none is left. Call it when the client is active."""
        while self.ready and self._waiting and self._write(*self._waiting[0]):
            self._waiting.popleft()
        return not self._waiting

    def tell(self, kind: str, data: Any = None, id: str = "") -> None:
        """Send a message, or keep it if the client is not ready yet, or away."""
        if self.ready and self.flush() and self._write(kind, data, id):
            return
        if self.ready or self._keep:
            if len(self._waiting) == WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append((kind, data, id))

    def answer(self, kind: str, id: str, data: Any) -> None:
        """Send an answer, also to a client that is not ready."""
        if self.ready:
            self.tell(kind, data, id)
        else:
            self._write(kind, data, id)

    def fault(self, why: str, *, fatal: bool = False) -> None:
        """Report a mistake of the client. Older clients read the field ``message``."""
        self._write("error", {"error": why, "message": why, "fatal": fatal})

    def server_message(self, data: str) -> None:
        """Send a message of the app, given as JSON."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            self._lose("server-message", "its data is not JSON; use json.dumps()")
            return
        self.tell("server-message", value)

    def _write(self, kind: str, data: Any = None, id: str = "") -> bool:
        """Send a message; False if it must be sent again."""
        try:
            text = write(kind, id or f"v{self._count + 1}", data)
        except (ValueError, TypeError, RecursionError):
            self._lose(kind, "its data is not JSON")
            return True
        if len(text) > MAX_CHARACTERS:
            self._lose(kind, f"it has {len(text)} characters; the limit is {MAX_CHARACTERS}")
            return True
        try:
            if self._send(text) is False:
                return False
        except Exception as error:
            # The engine calls taps: an error here must not become an error of the conversation.
            self._lose(kind, f"send() raised {type(error).__name__}")
        self._count += 1
        return True

    def _lose(self, kind: str, why: str) -> None:
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:
            # At 1, 2, 4, 8 ...: early, and not once per message.
            log.warning("RTVI: a message %s was not sent, %d in all: %s", kind, self.dropped, why)

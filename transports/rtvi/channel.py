"""The way to the client: nothing before it is ready, and nothing that it cannot take."""

from __future__ import annotations

import json
import logging
from collections import deque
from collections.abc import Callable
from typing import Any

from .messages import MAX_CHARACTERS, OLD_VERSION, VERSION, write

WAITING = 500
"""Messages that are kept for a client that is not ready yet, or away; then the oldest is forgotten."""

log = logging.getLogger("voxline")


class Channel:
    """Writes messages. ``send`` gets the text of each; where it returns False (the client is away, or does not keep
    up), the message is kept and sent again later. What it raises goes no further.
    """

    def __init__(self, send: Callable[[str], object], *, keep: bool = True) -> None:
        self._send = send
        self._keep = keep
        self._waiting: deque[tuple[str, Any, str]] = deque()  # bound: WAITING, then the oldest is dropped and counted
        self._count = 0
        self.ready = False
        self.major = 2
        """The version that the client speaks."""
        self.dropped = 0
        """Messages that were not sent: there were too many before them, they were too long, or there was an error."""

    def open(self, major: int, about: dict[str, Any]) -> None:
        """The client is ready: greet it, and send what has waited. It may say so again."""
        self.major = 1 if major < 2 else 2
        self.ready = True
        self._write("bot-ready", {"version": VERSION if self.major == 2 else OLD_VERSION, "about": about})
        self.flush()

    def flush(self) -> bool:
        """Send what waits, as far as it is taken; True where nothing waits any more. Call it when a client is heard."""
        while self.ready and self._waiting and self._write(*self._waiting[0]):
            self._waiting.popleft()
        return not self._waiting

    def tell(self, kind: str, data: Any = None, id: str = "") -> None:
        """Send a message; keep it, where the client is not ready yet, or away."""
        if self.ready and self.flush() and self._write(kind, data, id):
            return
        if self.ready or self._keep:
            if len(self._waiting) == WAITING:
                self._waiting.popleft()
                self.dropped += 1
            self._waiting.append((kind, data, id))

    def answer(self, kind: str, id: str, data: Any) -> None:
        """Send an answer, also to one who is not ready."""
        if self.ready:
            self.tell(kind, data, id)
        else:
            self._write(kind, data, id)

    def fault(self, why: str, *, fatal: bool = False) -> None:
        """Tell that something is wrong with what the client does. Older clients read ``message``."""
        self._write("error", {"error": why, "message": why, "fatal": fatal})

    def server_message(self, data: str) -> None:
        """A message of the app's own, as JSON."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            self._lose("server-message", "its data is no JSON; make it with json.dumps()")
            return
        self.tell("server-message", value)

    def _write(self, kind: str, data: Any = None, id: str = "") -> bool:
        """False where it is to be sent again."""
        try:
            text = write(kind, id or f"v{self._count + 1}", data)
        except (ValueError, TypeError, RecursionError):
            self._lose(kind, "its data is no JSON")
            return True
        if len(text) > MAX_CHARACTERS:
            self._lose(kind, f"it has {len(text)} characters, and {MAX_CHARACTERS} are carried")
            return True
        try:
            if self._send(text) is False:
                return False
        except Exception as error:
            # A tap's caller is the engine: what goes wrong here must not be a conversation's error.
            self._lose(kind, f"send() raised {type(error).__name__}")
        self._count += 1
        return True

    def _lose(self, kind: str, why: str) -> None:
        self.dropped += 1
        if self.dropped & (self.dropped - 1) == 0:
            # At 1, 2, 4, 8 ...: said early, and not once per message.
            log.warning("RTVI: a message %s was not sent, %d in all: %s", kind, self.dropped, why)

"""The child's side of a service in a process of its own (`parent.py` is the other side).

`ChildHost().serve({"speak": speak, ...})` is all that a service's `main` has to do. A reader thread takes
messages from the parent, so that a cancel is noticed while an operation runs; the operations run one at a
time on the main thread. When the parent ends, its end of stdin closes, and the reader thread ends the process,
whatever the main thread does.
"""

import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from typing import NoReturn

from .wire import MessageReader, WireError, WireMessage, encode

_READ_SIZE = 1 << 16
_BACKLOG = 256
"""Requests that may wait. At the bound the reader stops reading, and the parent sees a full pipe."""


class Refused(Exception):
    """An operation refuses the request; the text is for the caller, and the service continues.

    ``facts``: further fields of the answer, for a parent that acts on the reason.
    """

    def __init__(self, text: str, **facts: object) -> None:
        super().__init__(text)
        self.facts = facts


class Request:
    """One request, as an operation gets it."""

    def __init__(self, host: "ChildHost", message: WireMessage) -> None:
        self.message = message
        self.id = int(message.number("id"))
        self._host = host

    @property
    def cancelled(self) -> bool:
        """True once the parent has withdrawn the request: return soon, further answers are dropped."""
        return 0 < self.id <= self._host.cancelled_up_to

    def reply(self, fields: Mapping[str, object], payload: bytes | memoryview = b"") -> None:
        """Send one of several answers. Waits while the parent does not read."""
        self._host.send({"id": self.id, **fields}, payload)


Operation = Callable[[Request], Mapping[str, object] | None]
"""Handles one request and returns the fields of the last answer. Raises `Refused` with a text for the caller."""


class ChildHost:
    """Owner of the process's pipes. Make it before importing a library that prints.

    The real stdout is reserved for the protocol; output of a library goes to stderr instead. SIGINT is ignored:
    Ctrl-C in a terminal reaches the whole process group, and the parent still wants answers while it drains.
    """

    def __init__(self) -> None:
        self.cancelled_up_to = 0
        self.on_cancel: Callable[[], None] | None = None
        """Called in the reader's thread after each cancel and before a newer request starts, to stop a library."""
        self._input = os.dup(0)
        self._output = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._requests: queue.Queue[WireMessage] = queue.Queue(_BACKLOG)
        self._refusal: Refused | None = None

    def serve(self, operations: Mapping[str, Operation]) -> NoReturn:
        """Handle requests until the parent is gone."""
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        while True:
            self._do(Request(self, self._requests.get()), operations)

    def send(self, header: Mapping[str, object], payload: bytes | memoryview = b"") -> None:
        """Write one message completely. Ends the process if the pipe is closed."""
        rest = memoryview(encode(header, payload))
        try:
            while rest:
                rest = rest[os.write(self._output, rest) :]
        except BrokenPipeError:
            os._exit(0)

    def _do(self, request: Request, operations: Mapping[str, Operation]) -> None:
        if request.cancelled:
            return
        refusal, self._refusal = self._refusal if request.id else None, None if request.id else self._refusal
        fields: Mapping[str, object] | None = None
        if refusal is None:
            try:
                fields = operations[request.message.text("op")](request)
            except Refused as error:
                refusal = error
        if request.id == 0:
            # A request without an answer: its refusal answers the next question instead. The first one wins.
            self._refusal = self._refusal or refusal
        elif refusal is not None:
            self.send({"id": request.id, "end": True, "error": str(refusal), **refusal.facts})
        else:
            self.send({"id": request.id, "end": True, **(fields or {})})

    def _read(self) -> None:
        reader = MessageReader()
        while data := os.read(self._input, _READ_SIZE):
            try:
                messages = reader.feed(data)
            except WireError:
                os._exit(70)
            for message in messages:
                if "cancel" in message.header:
                    self.cancelled_up_to = max(self.cancelled_up_to, int(message.number("cancel")))
                    if self.on_cancel is not None:
                        self.on_cancel()
                else:
                    self._requests.put(message)
        # The parent closed the pipe or is gone. There is nothing to save, and the main thread may be deep in
        # C code or blocked on a full pipe, so this thread ends the process.
        os._exit(0)

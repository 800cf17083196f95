"""The child's side of a service in a process of its own (`child.py` is the parent's).

`ChildHost().serve({"speak": speak, ...})` is all that a service's `main` has to do. A reader thread takes
messages from the parent, so that a cancel is noticed while an operation runs; the operations run one at a
time on the main thread. The process ends when its parent does: the end of its stdin is the sign, whatever it
is doing.
"""

import os
import queue
import signal
import threading
from collections.abc import Callable, Mapping
from typing import NoReturn

from .wire import Message, MessageReader, WireError, encode

_READ_SIZE = 1 << 16
_BACKLOG = 256
"""Requests that may wait. At the bound the reader stops reading, and the parent feels it as a full pipe."""


class Refused(Exception):
    """The request cannot be done; the text is for whoever asked, and the service goes on."""


class Request:
    """One request, as an operation sees it."""

    def __init__(self, host: "ChildHost", message: Message) -> None:
        self.message = message
        self.id = int(message.number("id"))
        self._host = host

    @property
    def cancelled(self) -> bool:
        """Whether the parent has lost interest: return soon, what is said now is dropped."""
        return 0 < self.id <= self._host.cancelled_up_to

    def reply(self, fields: Mapping[str, object], payload: bytes | memoryview = b"") -> None:
        """Send one of many answers; waits while the parent does not read."""
        self._host.send({"id": self.id, **fields}, payload)


Operation = Callable[[Request], Mapping[str, object] | None]
"""Does one request and returns the last answer's fields. Raises Refused with a text for the caller."""


class ChildHost:
    """Owns the process's pipes. Make it before importing a library that prints.

    The real stdout is kept for the protocol alone; what a library prints there goes to stderr. SIGINT is
    ignored: Ctrl-C in a terminal reaches the whole process group, and the parent still wants answers while it
    drains.
    """

    def __init__(self) -> None:
        self.cancelled_up_to = 0
        self.on_cancel: Callable[[], None] | None = None
        """Called in the reader's thread after each cancel, and before a newer request is begun: to stop a library."""
        self._input = os.dup(0)
        self._output = os.dup(1)
        null = os.open(os.devnull, os.O_RDONLY)
        os.dup2(null, 0)
        os.close(null)
        os.dup2(2, 1)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        self._requests: queue.Queue[Message] = queue.Queue(_BACKLOG)
        self._refusal: str | None = None

    def serve(self, operations: Mapping[str, Operation]) -> NoReturn:
        """Do the parent's requests until it goes away."""
        threading.Thread(target=self._read, name="requests", daemon=True).start()
        while True:
            self._do(Request(self, self._requests.get()), operations)

    def send(self, header: Mapping[str, object], payload: bytes | memoryview = b"") -> None:
        """Write one message whole; ends the process if there is nobody to read it."""
        rest = memoryview(encode(header, payload))
        try:
            while rest:
                rest = rest[os.write(self._output, rest) :]
        except BrokenPipeError:
            os._exit(0)

    def _do(self, request: Request, operations: Mapping[str, Operation]) -> None:
        if request.cancelled:
            return
        error, self._refusal = self._refusal if request.id else None, None if request.id else self._refusal
        fields: Mapping[str, object] | None = None
        if error is None:
            try:
                fields = operations[request.message.text("op")](request)
            except Refused as refused:
                error = str(refused)
        if request.id == 0:
            # Nobody waits for an answer: the first refusal is told to the next question.
            self._refusal = self._refusal or error
        elif error is not None:
            self.send({"id": request.id, "end": True, "error": error})
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
        # The parent closed the pipe or is gone. Nothing here is worth saving, and the main thread may be deep
        # in C code or waiting on a full pipe, so that this thread ends the process.
        os._exit(0)

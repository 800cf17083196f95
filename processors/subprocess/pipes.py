"""The pipes of one child process, as callbacks of the event loop."""

import asyncio
import os
import signal
from collections import deque
from contextlib import suppress
from typing import cast

from .wire import MessageReader, WireError, WireMessage

_UNREAD_LIMIT = 1 << 17
"""Bytes of answers that may wait unread. Beyond that the pipe is not read, and the child blocks on it."""

_STDERR_LIMIT = 4096
"""Bytes kept of the end of the child's stderr."""


class ChildPipes(asyncio.SubprocessProtocol):
    """stdin, stdout and stderr of one child process, its exit code, and the answers that wait to be read.

    The event loop holds this object. It must not refer to the `ChildProcess`, which could then never be collected.
    """

    def __init__(self) -> None:
        self.pid = 0
        self.exit_code: int | None = None
        self.lost = False
        self.closing = False
        self.stdin_closed = False
        self.fault: str | None = None
        self.expected = 0
        self.replies: deque[WireMessage] = deque()  # bound: _UNREAD_LIMIT bytes, then the pipe is not read any further
        self.reading: asyncio.Future[None] | None = None
        self.stderr = bytearray()
        self._transport: asyncio.SubprocessTransport | None = None
        self._reader = MessageReader()
        self._unread = 0
        self._paused = False
        self._writable = True
        self._waiters: set[asyncio.Future[None]] = set()

    # Callbacks of the event loop.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.SubprocessTransport, transport)
        self.pid = self._transport.get_pid()

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        if fd == 2:
            self.stderr += data
            del self.stderr[:-_STDERR_LIMIT]
            return
        if self.fault is not None:
            return
        try:
            messages = self._reader.feed(data)
        except WireError as error:
            self.fault = str(error)
            self.kill(signal.SIGKILL)
            return
        for message in messages:
            if self.expected and message.header.get("id") == self.expected:
                self.replies.append(message)
                self._unread += len(message.payload)
        if self._unread > _UNREAD_LIMIT and not self._paused:
            self._paused = True
            self._stdout().pause_reading()
        self._wake()

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        if fd == 0:
            self.stdin_closed = self._writable = True
            self._wake()

    def process_exited(self) -> None:
        self.exit_code = self._transport.get_returncode() if self._transport else None
        self._resume()  # the end of a paused pipe would never be seen

    def connection_lost(self, exc: Exception | None) -> None:
        # Called once the process has exited *and* all its pipes have ended, so its stderr is complete.
        self.lost = True
        if self._transport is not None:
            self._transport.close()  # a no-op by now, but without it a ResourceWarning is raised
        self._wake()

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._wake()

    # Interface of `ChildProcess`.

    def expect(self, number: int) -> None:
        """Take only answers to this question from now on (0: none), and drop all unread ones."""
        self.expected = number
        self.replies.clear()
        self._unread = 0
        self._resume()
        self._wake()

    async def next_reply(self, number: int) -> WireMessage | None:
        """Wait for the next answer to question ``number``. None if it is not expected or the process is gone."""
        while self.expected != number or not self.replies:
            if self.lost or self.expected != number:
                return None
            self.reading = asyncio.get_running_loop().create_future()
            try:
                await self._changed(self.reading)
            finally:
                self.reading = None
        message = self.replies.popleft()
        self._unread -= len(message.payload)
        if self._unread <= _UNREAD_LIMIT // 2:
            self._resume()
        return message

    async def writable(self) -> None:
        """Wait until the pipe to the child has room."""
        while not self._writable and not self.lost:
            await self._changed(asyncio.get_running_loop().create_future())

    async def gone(self) -> None:
        """Wait until the process and its pipes are gone."""
        while not self.lost:
            await self._changed(asyncio.get_running_loop().create_future())

    def write(self, data: bytes) -> None:
        if not self.lost and not self.stdin_closed:
            self._stdin().write(data)

    def close_stdin(self) -> None:
        self.closing = self.stdin_closed = True
        if not self.lost:
            self._stdin().close()

    def kill(self, signal_number: int) -> None:
        # Not the transport's kill(): before Python 3.13 that may reap the process behind the child watcher's
        # back, which then reports exit code 255.
        if self.exit_code is None and self.pid:
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal_number)

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._stdout().resume_reading()

    def _stdin(self) -> asyncio.WriteTransport:
        assert self._transport is not None
        return cast(asyncio.WriteTransport, self._transport.get_pipe_transport(0))

    def _stdout(self) -> asyncio.ReadTransport:
        assert self._transport is not None
        return cast(asyncio.ReadTransport, self._transport.get_pipe_transport(1))

    async def _changed(self, waiter: asyncio.Future[None]) -> None:
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    def _wake(self) -> None:
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

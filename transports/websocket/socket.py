"""`PeerSocket`: an aiohttp WebSocket (server or client side) that can be written without waiting."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Coroutine
from typing import Any, Protocol, cast

from aiohttp import WSMsgType

from ...pipeline.clock import NS_PER_S, Clock

CLOSE_S = 2.0
"""Time for a peer to answer a close, in s. Then the connection is aborted."""
UNSENT_BYTES = 16_384
"""Bound on unsent bytes in the kernel's send buffer; the rest waits in the process, where it is counted."""
NEVER = 1 << 30
"""Write buffer limit that is never reached: aiohttp must not wait for room, the transport checks for it."""
GOODBYE_CODES = (0, 1000)
"""Close codes of a peer that is finished: none, and "normal closure". (1001: the page was left or reloaded.)"""
REASON_BYTES = 123
"""Bound on a close reason: a close frame has 125 bytes, two of them for the code (RFC 6455, section 5.5)."""


class AiohttpSocket(Protocol):
    """Common interface of aiohttp's ``web.WebSocketResponse`` and ``ClientWebSocketResponse``, as used here."""

    async def receive(self) -> Any:
        """Wait for the next message."""
        ...

    async def send_str(self, data: str) -> None:
        """Send text."""
        ...

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes."""
        ...

    async def close(self, *, code: int = 1000, message: bytes = b"") -> Any:
        """Close the connection."""
        ...


class PeerSocket:
    """Connection to one peer. `write` sends without waiting; `waiting_bytes` counts the bytes not sent yet."""

    def __init__(self, socket: AiohttpSocket) -> None:
        self._socket = socket
        self._wire = _wire_of(socket)
        self.goodbye = False
        """True if the peer closed the connection on purpose."""
        self.reason = "the connection was lost"
        """Reason for the end of the connection."""
        if self._wire is not None:
            self._wire.set_write_buffer_limits(high=NEVER)
            _limit_send_buffer(self._wire.get_extra_info("socket"))

    @property
    def waiting_bytes(self) -> int:
        """Bytes written and not yet passed to the kernel."""
        return 0 if self._wire is None else self._wire.get_write_buffer_size()

    def write(self, message: str | bytes) -> None:
        """Send a message. Does nothing if the connection is lost: `receive` reports that."""
        sending: Coroutine[Any, Any, None]
        if isinstance(message, str):
            sending = self._socket.send_str(message)
        else:
            sending = self._socket.send_bytes(message)
        # aiohttp writes a message before it waits (for room): one step of the coroutine sends it.
        try:
            sending.send(None)
        except (StopIteration, ConnectionError):
            pass
        finally:
            sending.close()

    async def receive(self) -> str | bytes | None:
        """Wait for the next message; None at the end of the connection."""
        message = await self._socket.receive()
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            return cast("str | bytes", message.data)
        if message.type == WSMsgType.CLOSE:
            self.goodbye = message.data in GOODBYE_CODES
            self.reason = "the client closed the connection"
        return None

    async def close(self, code: int, reason: str, clock: Clock | None = None) -> None:
        """Close the connection; abort it if the peer does not answer within `CLOSE_S`."""
        timer = None
        if clock is not None:
            timer = clock.call_at(clock.now_ns() + round(CLOSE_S * NS_PER_S), self._abort)
        try:
            with contextlib.suppress(ConnectionError):
                await self._socket.close(code=code, message=reason.encode()[:REASON_BYTES])
        finally:
            if timer is not None:
                timer.cancel()
            self.discard_unsent()

    def discard_unsent(self) -> None:
        """Drop bytes that a peer has not read from a closed connection."""
        if self.waiting_bytes:
            self._abort()

    def _abort(self) -> None:
        if self._wire is not None:
            self._wire.abort()


def _wire_of(socket: AiohttpSocket) -> Any:
    """Return the underlying asyncio transport, private to aiohttp (seen in 3.10 to 3.14); None if absent."""
    return getattr(getattr(socket, "_writer", None), "transport", None)


def _limit_send_buffer(connection: Any) -> None:
    """Limit the kernel's send buffer: bytes in it can be neither counted nor taken back."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None and connection is not None:
        with contextlib.suppress(OSError):  # not TCP, say a Unix socket of a local proxy
            connection.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)

"""The line to one peer: a WebSocket of aiohttp, of a server or of a client, that can be written to without waiting."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Coroutine
from typing import Any, Protocol, cast

from aiohttp import WSMsgType

from ...pipeline.clock import NS_PER_S, Clock

CLOSE_S = 2.0
"""How long a peer may take to answer a close. Then the connection is cut."""
UNSENT_BYTES = 16_384
"""How much the system may hold of what is not on its way yet; the rest waits with us, where it is counted."""
NEVER = 1 << 30
"""More bytes than ever wait: aiohttp is not to wait for room, we look for it ourselves."""
GOOD_BYE = (0, 1000)
"""Close codes of a peer that is done: none, and "normal closure"; 1001 is a page that was left or loaded again."""
REASON_BYTES = 123
"""RFC 6455, section 5.5: a close frame has 125 bytes, two of them for the code."""


class AiohttpSocket(Protocol):
    """The methods in use of aiohttp's ``web.WebSocketResponse`` and ``ClientWebSocketResponse``."""

    async def receive(self) -> Any:
        """The next message."""
        ...

    async def send_str(self, data: str) -> None:
        """Send text."""
        ...

    async def send_bytes(self, data: bytes) -> None:
        """Send bytes."""
        ...

    async def close(self, *, code: int = 1000, message: bytes = b"") -> Any:
        """Close."""
        ...


class PeerSocket:
    """One peer. `write` puts a message on its way at once; `waiting_bytes` says how many have not left yet."""

    def __init__(self, socket: AiohttpSocket) -> None:
        self._socket = socket
        self._wire = _wire_of(socket)
        self.goodbye = False
        """The peer has closed the connection, and not only lost it."""
        self.why = "the connection was lost"
        """Why nothing more comes."""
        if self._wire is not None:
            self._wire.set_write_buffer_limits(high=NEVER)
            _hold_little(self._wire.get_extra_info("socket"))

    @property
    def waiting_bytes(self) -> int:
        """How much was written and is not taken by the system yet."""
        return 0 if self._wire is None else self._wire.get_write_buffer_size()

    def write(self, message: str | bytes) -> None:
        """Send a message. Where the connection is lost, nothing happens: `receive` tells of that."""
        sending: Coroutine[Any, Any, None]
        if isinstance(message, str):
            sending = self._socket.send_str(message)
        else:
            sending = self._socket.send_bytes(message)
        # aiohttp writes a message before it waits, and it waits for room only: one step sends it.
        try:
            sending.send(None)
        except (StopIteration, ConnectionError):
            pass
        finally:
            sending.close()

    async def receive(self) -> str | bytes | None:
        """The next message; None where no more come."""
        message = await self._socket.receive()
        if message.type in (WSMsgType.TEXT, WSMsgType.BINARY):
            return cast("str | bytes", message.data)
        if message.type == WSMsgType.CLOSE:
            self.goodbye = message.data in GOOD_BYE
            self.why = "the client closed the connection"
        return None

    async def close(self, code: int, reason: str, clock: Clock | None = None) -> None:
        """Close it. A peer that does not take the news is cut off by the clock."""
        timer = None
        if clock is not None:
            timer = clock.call_at(clock.now_ns() + round(CLOSE_S * NS_PER_S), self._cut)
        try:
            with contextlib.suppress(ConnectionError):
                await self._socket.close(code=code, message=reason.encode()[:REASON_BYTES])
        finally:
            if timer is not None:
                timer.cancel()
            self.let_go()

    def let_go(self) -> None:
        """It is closed: do not keep what a peer that does not read has left."""
        if self.waiting_bytes:
            self._cut()

    def _cut(self) -> None:
        if self._wire is not None:
            self._wire.abort()


def _wire_of(socket: AiohttpSocket) -> Any:
    """The asyncio transport below. aiohttp keeps it to itself (seen in 3.10 to 3.14); None: there is none."""
    return getattr(getattr(socket, "_writer", None), "transport", None)


def _hold_little(connection: Any) -> None:
    """Ask the system to take no more than it can send soon: what it holds nobody can count, or take back."""
    option = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if option is not None and connection is not None:
        with contextlib.suppress(OSError):  # no TCP, a socket of a local proxy
            connection.setsockopt(socket.IPPROTO_TCP, option, UNSENT_BYTES)

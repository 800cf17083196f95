"""No datagram comes or goes in this process while it is cut off: what a broken network does to a call."""

from __future__ import annotations

from asyncio import selector_events
from contextlib import suppress
from typing import Any, cast

_transport: Any = cast("Any", selector_events)._SelectorDatagramTransport
_read, _send = _transport._read_ready, _transport.sendto


_cut = False


def _read_ready(transport: Any) -> None:
    if not _cut:
        _read(transport)
        return
    with suppress(OSError):
        transport._sock.recvfrom(65_536)


def _sendto(transport: Any, data: Any, addr: Any = None) -> None:
    """Where it is lost, it was sent as far as the sender knows."""
    if not _cut:
        _send(transport, data, addr)


# Here and not when it is cut: an event loop keeps the method that it found when the socket was opened.
_transport._read_ready, _transport.sendto = _read_ready, _sendto


def cut() -> None:
    """Lose all datagrams of all event loops."""
    global _cut
    _cut = True


def mend() -> None:
    """They pass again."""
    global _cut
    _cut = False

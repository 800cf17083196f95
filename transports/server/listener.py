"""TCP connections: a limited number, each with limits on its data and its idle time."""

from __future__ import annotations

import asyncio
import logging
import ssl
from typing import Any

from aiohttp import web

from ...pipeline.clock import NS_PER_S, Clock, TimerHandle
from .guard import SENTENCES, Handler, answer
from .settings import ServerSettings

log = logging.getLogger("voxline.server")

LINGERING_S = 2.0
"""Time for a client to finish sending a body that was answered before it was read."""
SHUTDOWN_S = 5.0
"""Time for handlers to end when the server stops."""


class HttpConnection(web.RequestHandler):
    """One connection. Malformed requests get this server's error responses in place of aiohttp's, and are not logged: a
    malformed line may hold a token.
    """

    __slots__ = ("_clock", "_timer", "asked")

    def __init__(self, server: web.Server, clock: Clock, limits: dict[str, Any]) -> None:
        super().__init__(server, loop=asyncio.get_running_loop(), **limits)
        self._clock = clock
        self._timer: TimerHandle | None = None
        self.asked = False
        """True after the first request."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close the connection without a first request; aiohttp before 3.14 would wait for ever."""
        super().connection_made(transport)
        due_ns = self._clock.now_ns() + round(self.keepalive_timeout * NS_PER_S)
        self._timer = self._clock.call_at(due_ns, self._look)

    def connection_lost(self, exc: BaseException | None) -> None:
        """Stop the timer."""
        super().connection_lost(exc)
        if self._timer is not None:
            self._timer.cancel()

    def _look(self) -> None:
        if not self.asked:
            self.force_close()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,
        exc: BaseException | None = None,
        message: str | None = None,
    ) -> web.StreamResponse:
        """Make the response to malformed HTTP, or to an error outside of our own handlers."""
        self.log_exception("a request failed", exc_info=exc)
        if request.writer.output_size > 0:
            raise ConnectionError("The response has begun already.")
        headers = {"Server": "voxline", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
        response = answer(request, status, SENTENCES.get(status, SENTENCES[500]), headers)
        response.force_close()
        return response

    def log_exception(self, *args: Any, **kw: Any) -> None:
        """Log the kind of an error without its text."""
        error = kw.get("exc_info")
        log.debug("%s: %s", args[0] if args else "error", type(error).__name__)


@web.middleware
async def noted(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Note, as the outermost middleware, that the connection has sent a request."""
    if isinstance(request.protocol, HttpConnection):
        request.protocol.asked = True
    return await handler(request)


class _RejectedConnection(asyncio.Protocol):
    """A connection beyond the limit."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Close the connection before anything is read."""
        assert isinstance(transport, asyncio.Transport)
        transport.abort()


class Listener:
    """Serves an application at an address."""

    def __init__(
        self, app: web.Application, settings: ServerSettings, tls: ssl.SSLContext | None, clock: Clock
    ) -> None:
        self._clock = clock
        self._settings = settings
        self._tls = tls
        self._limits: dict[str, Any] = {
            "access_log": None,
            "keepalive_timeout": settings.idle_timeout_s,
            "lingering_time": LINGERING_S,
            "max_line_size": settings.max_line_bytes,
            "max_field_size": settings.max_line_bytes,
            "max_headers": settings.max_headers,
            "auto_decompress": False,
            "logger": log,
        }
        self._runner = web.AppRunner(
            app, handle_signals=False, shutdown_timeout=SHUTDOWN_S, handler_cancellation=False, **self._limits
        )
        self._server: asyncio.Server | None = None

    async def open(self) -> int:
        """Start to listen, and return the port. Raises OSError."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        try:
            self._server = await loop.create_server(
                self._connected, self._settings.host, self._settings.port, ssl=self._tls, backlog=128
            )
        except BaseException:
            await self._runner.cleanup()
            raise
        return int(self._server.sockets[0].getsockname()[1])

    async def close(self) -> None:
        """Refuse new connections, and end the current ones."""
        if self._server is not None:
            self._server.close()
            self._server = None
        await self._runner.cleanup()

    @property
    def connections(self) -> int:
        """Number of connections."""
        return 0 if self._runner.server is None else len(self._runner.server.connections)

    def _connected(self) -> asyncio.Protocol:
        server = self._runner.server
        if server is None or len(server.connections) >= self._settings.max_sockets:
            return _RejectedConnection()
        return HttpConnection(server, self._clock, self._limits)

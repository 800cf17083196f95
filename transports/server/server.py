"""A server for voice bots: one pipeline per connection, behind HTTP.

::

    client --POST offer--> guard --> signaling --> your make_pipeline(transport)
           <---answer-----                               |
           <===voice, messages (WebRTC, WebSocket)===> worker

`serve` runs a `Server` until a signal stops it. Use: `docs/guide/serving.md`; design: `docs/design/server.md`.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import Any

from aiohttp import web

from ...pipeline.clock import Clock, SystemClock, wall_s
from ...pipeline.errors import TransportError
from ...pipeline.tasks import spawn
from .bodies import Bodies
from .conversations import Conversations, MakePipeline, OnWorker, ServedConversation
from .credentials import TokenCheck
from .guard import Guard
from .listener import Listener, noted
from .pages import Pages
from .settings import ServerSettings, described

log = logging.getLogger("voxline.server")


class Server:
    """Serves a bot. ``async with Server(make_pipeline, settings) as server: ...`` listens inside of the block.

    ``make_pipeline``: makes the pipeline of one conversation; may be async. Its client gets a 500 where it raises.
    ``on_worker``: called with each worker before it runs, to attach taps and recorders. ``make_transport``: makes the
    `WebRTCTransport` of each conversation in place of the settings. ``tls``: serve https. ``now_s``: the wall clock,
    for credentials.

    Raises `TransportError` where it cannot listen, `MissingExtraError` where a package is missing.
    """

    def __init__(
        self,
        make_pipeline: MakePipeline,
        settings: ServerSettings | None = None,
        *,
        on_worker: OnWorker | None = None,
        make_transport: Callable[[], Any] | None = None,
        tls: ssl.SSLContext | None = None,
        clock: Clock | None = None,
        now_s: Callable[[], float] = wall_s,
    ) -> None:
        self.settings = settings = settings or ServerSettings()
        self.clock = clock or SystemClock()
        self.port = settings.port
        """The port that it listens at, from `start` on."""
        self._conversations = Conversations(
            make_pipeline,
            clock=self.clock,
            limit=settings.max_connections,
            per_address=settings.connections_per_address,
            factory_timeout_s=settings.factory_timeout_s,
            on_worker=on_worker,
        )
        tokens = TokenCheck(
            token=settings.token,
            secret=settings.secret,
            max_nonces=settings.max_nonces,
            longest_s=settings.longest_credential_s,
            now_s=now_s,
        )
        self._guard = Guard(settings, tokens, self.clock)
        self._bodies = Bodies(settings, self.clock)
        self._make_transport = make_transport
        self._tls = tls
        self._listener: Listener | None = None
        self._closers: list[Callable[[], Any]] = []
        self._stopping: asyncio.Task[None] | None = None
        self.app = self._application()
        """The aiohttp application. Add your own routes before `start`."""

    # --- running ---------------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Server:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.cancel()
        await self.stop()

    async def start(self) -> None:
        """Start to listen. Raises `TransportError`."""
        listener = Listener(self.app, self.settings, self._tls, self.clock)
        try:
            self.port = await listener.open()
        except OSError as error:
            raise TransportError(
                f"The server cannot listen at {self.settings.host} port {self.settings.port}: {error.strerror}. "
                "Is another server running? Set another port, or 0 for any free one."
            ) from error
        self._listener = listener
        if not self.settings.local and not self.settings.guarded and not self.settings.only_signed:
            log.warning(
                "%s can be reached from other machines, by anyone: set a token (ServerSettings(token=...)).",
                self.url,
            )

    async def stop(self) -> None:
        """Refuse new conversations, wait for the current ones to end (`ServerSettings.drain_s`), and stop.

        Returns when all have ended.
        """
        if self._stopping is None:
            self._stopping = spawn(self._stop(), "stop the server")
        await asyncio.wait([self._stopping])
        self._stopping.result()

    def cancel(self) -> None:
        """Cancel all conversations now, also while `stop` waits for them."""
        self._conversations.cancel()

    async def _stop(self) -> None:
        log.info("draining: %d conversations", len(self._conversations))
        await self._conversations.drain(self.settings.drain_s, self.settings.stop_s)
        for close in self._closers:
            await close()
        if self._listener is not None:
            await self._listener.close()
            self._listener = None

    # --- to look at --------------------------------------------------------------------------------------------------

    @property
    def url(self) -> str:
        """The server's address for a browser on this machine."""
        host = self.settings.host
        if host in ("0.0.0.0", "::", ""):
            host = "localhost"
        elif ":" in host:
            host = f"[{host}]"
        return f"http{'s' if self._tls else ''}://{host}:{self.port}/"

    @property
    def conversations(self) -> list[ServedConversation]:
        """Running conversations."""
        return self._conversations.running

    @property
    def places_taken(self) -> int:
        """Number of conversations that run or are being made."""
        return len(self._conversations)

    @property
    def sockets(self) -> int:
        """Number of TCP connections."""
        return 0 if self._listener is None else self._listener.connections

    @property
    def ready(self) -> bool:
        """True where a conversation can begin."""
        return not self._conversations.draining and not self._conversations.full

    # --- the application ---------------------------------------------------------------------------------------------

    def _application(self) -> web.Application:
        settings = self.settings
        app = web.Application(middlewares=[noted, self._guard.middleware], client_max_size=settings.max_body_bytes)
        app.on_response_prepare.append(self._guard.prepare)
        app.router.add_get("/healthz", self._health)
        app.router.add_get("/readyz", self._readiness)
        app.router.add_get("/config.json", self._config)
        if settings.webrtc:
            self._add_webrtc(app)
        if settings.websocket or settings.twilio:
            self._add_websockets(app)
        if settings.page is not None:
            pages = Pages(settings.page, settings.page_policy)
            app.router.add_get("/", pages.get)
            # Below /whip all other methods are 405 (RFC 9725), which they are where no other route matches.
            app.router.add_get("/{path:(?!whip(?:/|$)).+}", pages.get)
        return app

    def _add_webrtc(self, app: web.Application) -> None:
        from .offers import Offers
        from .whip import Whip

        offers = Offers(self.settings, self._guard, self._bodies, self._conversations, self.clock, self._make_transport)
        app.router.add_routes(offers.routes())
        app.router.add_routes(Whip(self.settings, self._guard, self._bodies, offers).routes())
        self._closers.append(offers.close)

    def _add_websockets(self, app: web.Application) -> None:
        from .sockets import Sockets

        app.router.add_routes(Sockets(self.settings, self._guard, self._conversations).routes())

    async def _health(self, request: web.Request) -> web.Response:
        """Report that the event loop runs."""
        return web.json_response({"status": "ok"})

    async def _readiness(self, request: web.Request) -> web.Response:
        """Report readiness for new conversations."""
        self._conversations.check()
        return web.json_response({"status": "ready"})

    async def _config(self, request: web.Request) -> web.Response:
        """Return the page's configuration, with TURN passwords for admitted clients only."""
        trusted = self._guard.trusts(request)
        servers = [described(server) for server in self.settings.ice() if trusted or not server.credential]
        return web.json_response({"name": self.settings.name, "token": self.settings.guarded, "ice_servers": servers})

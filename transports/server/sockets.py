"""Conversations over WebSockets: ``/ws`` for your own pages and apps, ``/twilio`` for phone calls."""

from __future__ import annotations

from aiohttp import web

from ...pipeline.worker import PipelineWorker
from ..caller import Caller
from ..rtvi.rtvi import attach_rtvi
from ..websocket.serializers import RawSerializer, Serializer
from ..websocket.transport import WebSocketTransport
from ..websocket.twilio import TwilioSerializer, signed_by_twilio
from .conversations import Conversations
from .credentials import NOBODY
from .guard import Guard
from .refusals import Refusal
from .settings import ServerSettings

ARRIVE_S = 10.0
"""Time limit of the WebSocket handshake."""


class Sockets:
    """The endpoints. One WebSocket is one conversation: when it is lost, the conversation ends."""

    def __init__(self, settings: ServerSettings, guard: Guard, conversations: Conversations) -> None:
        self._settings = settings
        self._guard = guard
        self._conversations = conversations

    def routes(self) -> list[web.RouteDef]:
        """Return the endpoints that the settings enable."""
        routes: list[web.RouteDef] = []
        if self._settings.websocket:
            routes.append(web.get("/ws", self._raw))
        if self._settings.twilio:
            # Twilio sends neither headers of ours nor a query: a token stands in the path, unless calls are signed.
            routes += [web.get("/twilio", self._twilio), web.get("/twilio/{token}", self._twilio)]
        return routes

    async def _raw(self, request: web.Request) -> web.StreamResponse:
        # A browser cannot set a header of a WebSocket's request.
        return await self._converse(request, RawSerializer(), request.query.get("token", ""))

    async def _twilio(self, request: web.Request) -> web.StreamResponse:
        token = self._settings.twilio_auth_token
        if token is None:
            return await self._converse(request, TwilioSerializer(), request.match_info.get("token", ""))
        self._check_signature(request, token)
        return await self._converse(request, TwilioSerializer(), signed=True)

    def _check_signature(self, request: web.Request, auth_token: str) -> None:
        """Check Twilio's signature. Raises `Refusal`: 403, 429."""
        path, mark, query = request.raw_path.partition("?")
        # Twilio calls wss only, and signs the address as it was given; its slash at the end may get lost on the way.
        urls = [
            f"wss://{host}{end}{mark}{query}"
            for host in self._guard.hosts(request)
            for end in (path, path.removesuffix("/") + "/")
        ]
        signature = request.headers.get("X-Twilio-Signature", "")
        matches = [signed_by_twilio(auth_token, signature, url) for url in urls]
        if not any(matches):
            self._guard.count(request)
            raise Refusal(403, "This endpoint is for Twilio only, and Twilio has not signed this request.")

    async def _converse(
        self, request: web.Request, serializer: Serializer, token: str = "", *, signed: bool = False
    ) -> web.StreamResponse:
        # All calls come from a few addresses of Twilio's, so addresses neither count nor limit them.
        grant = NOBODY if signed else self._guard.begin(request, token=token)
        if not web.WebSocketResponse().can_prepare(request).ok:
            self._guard.give_back(grant)
            raise Refusal(426, "This endpoint is for WebSockets only.", {"Upgrade": "websocket"})
        caller = Caller(grant.subject, self._guard.address(request), shared=signed)
        transport = WebSocketTransport(
            serializer, reconnect_s=ARRIVE_S, max_message_bytes=self._settings.max_message_bytes
        )
        try:
            with self._conversations.reserve(caller, grant) as place:
                await self._conversations.begin(transport, place, lambda worker: self._prepare(worker, transport))
        except Refusal:
            self._guard.give_back(grant)
            raise
        if self._conversations.of(transport) is None:
            # Nobody would ever close the socket.
            raise Refusal(503, "The conversation ended at once.")
        try:
            return await transport.accept(request)
        finally:
            transport.hang_up()

    def _prepare(self, worker: PipelineWorker, transport: WebSocketTransport) -> None:
        # A telephone has no program to read RTVI messages.
        if self._settings.rtvi and isinstance(transport.serializer, RawSerializer):
            attach_rtvi(transport, worker, only_if_asked=True)

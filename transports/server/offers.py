"""Offers as JSON, as the published RTVI clients and the page send them.

``POST /api/offer`` ``{sdp, type: "offer", pc_id, restart_pc, requestData}`` is answered with ``{sdp, type, pc_id}``;
with the ``pc_id`` of a session it renegotiates. ``PATCH`` there brings candidates. ``POST /start`` may come first; then
both are at ``/sessions/{sessionId}/api/offer``.
"""

from __future__ import annotations

import json
import secrets
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from aiohttp import web

from ...pipeline.clock import NS_PER_S, Clock
from ...pipeline.worker import PipelineWorker
from ..caller import Caller
from ..rtvi.rtvi import attach_rtvi
from ..webrtc.transport import WebRTCTransport
from .bodies import Bodies
from .conversations import Conversations, ReservedPlace
from .credentials import Grant
from .guard import Guard
from .refusals import Refusal, busy
from .settings import ServerSettings, described
from .signaling import Candidate, SessionAnswer, Signaling

MakeTransport = Callable[[], WebRTCTransport]
JSON_OBJECT = dict[str, Any]


@dataclass
class _StartedSession:
    """A session that ``/start`` announced and whose offer is to follow."""

    grant: Grant
    data: str
    until_ns: int
    pc_id: str = ""
    answering: bool = False
    """True while its offer is being answered: another offer would begin a second conversation."""
    tried: bool = False
    """True after the first offer, answered or refused: a further one costs as much as a new conversation."""


class Offers:
    """WebRTC sessions and their JSON endpoints. WHIP (whip.py) uses the same sessions."""

    def __init__(
        self,
        settings: ServerSettings,
        guard: Guard,
        bodies: Bodies,
        conversations: Conversations,
        clock: Clock,
        make_transport: MakeTransport | None = None,
    ) -> None:
        self._settings = settings
        self._guard = guard
        self._bodies = bodies
        self._conversations = conversations
        self._clock = clock
        self.signaling = Signaling(
            self._start,
            make_transport or self._make_transport,
            max_sdp_bytes=settings.max_sdp_bytes,
        )
        self._started: OrderedDict[str, _StartedSession] = OrderedDict()

    def routes(self) -> list[web.RouteDef]:
        """Return the endpoints."""
        return [
            web.post("/api/offer", self._offer),
            web.patch("/api/offer", self._candidates),
            web.post("/start", self._announce),
            web.post("/sessions/{id}/api/offer", self._announced_offer),
            web.patch("/sessions/{id}/api/offer", self._candidates),
        ]

    async def close(self) -> None:
        """End all sessions."""
        await self.signaling.close()

    # --- for WHIP too ----------------------------------------------------------------------------------------------

    async def begin(self, caller: Caller, grant: Grant, sdp: str, *, give_back: bool = True) -> SessionAnswer:
        """Begin a session. Raises `Refusal`.

        ``give_back``: after a refusal that is no fault of the caller, the credential may be used again.
        """
        try:
            with self._conversations.reserve(caller, grant) as place:
                return await self.signaling.offer(sdp, place=place)
        except Refusal as error:
            if (error.status >= 500 or error.status == 429) and give_back:
                self._guard.give_back(grant)
            raise

    def check(self, request: web.Request, pc_id: str) -> None:
        """Check that a request may use a session. Raises `Refusal`: 401, 404."""
        transport = self.signaling.sessions.get(pc_id)
        conversation = None if transport is None else self._conversations.of(transport)
        # Same reply as for an unknown id, so that callers cannot probe ids.
        self._guard.go_on(request, None if conversation is None else conversation.grant)
        if conversation is None:
            raise Refusal(404, "There is no such session, or it is over. Begin a new one.")

    def _make_transport(self) -> WebRTCTransport:
        settings = self._settings
        return WebRTCTransport(
            ice_servers=cast("Any", settings.ice()),
            loopback=settings.local,
            max_message_bytes=settings.max_message_bytes,
        )

    async def _start(self, transport: WebRTCTransport, place: ReservedPlace | None) -> None:
        """Start the conversation of a new session, whose offer has been answered."""
        assert place is not None
        await self._conversations.begin(transport, place, lambda worker: self._prepare(worker, transport))

    def _prepare(self, worker: PipelineWorker, transport: WebRTCTransport) -> None:
        if self._settings.rtvi:
            attach_rtvi(transport, worker)

    # --- the endpoints -----------------------------------------------------------------------------------------------

    async def _offer(self, request: web.Request) -> web.Response:
        body = await self._bodies.json(request)
        sdp, pc_id, restart = _offer_of(body)
        if pc_id is None:
            grant = self._guard.begin(request)
            caller = self._caller(request, grant, body.get("requestData"))
            return _answered(await self.begin(caller, grant, sdp))
        self.check(request, pc_id)
        return _answered(await self.signaling.offer(sdp, pc_id, restart=restart))

    async def _candidates(self, request: web.Request) -> web.Response:
        body = await self._bodies.json(request)
        pc_id = body.get("pc_id")
        if not isinstance(pc_id, str):
            raise Refusal(400, "pc_id is missing: it is in the answer to the offer.")
        self.check(request, pc_id)
        await self.signaling.candidates(pc_id, _candidates_of(body))
        return web.json_response({"status": "success"})

    async def _announce(self, request: web.Request) -> web.Response:
        body = await self._bodies.json(request)
        self._conversations.check()
        grant = self._guard.begin(request)
        self._forget_expired()
        servers = [described(server) for server in self._settings.ice()]
        if len(self._started) >= self._settings.max_started:
            self._guard.give_back(grant)
            raise busy("Too many started sessions wait for their offers.", self._settings.started_s)
        session = secrets.token_urlsafe(18)
        until_ns = self._clock.now_ns() + round(self._settings.started_s * NS_PER_S)
        self._started[session] = _StartedSession(grant, json.dumps(body.get("body")), until_ns)
        return web.json_response({"sessionId": session, "iceConfig": {"iceServers": servers}})

    async def _announced_offer(self, request: web.Request) -> web.Response:
        body = await self._bodies.json(request)
        sdp, pc_id, restart = _offer_of(body)
        started = self._started.get(request.match_info["id"])
        if started is not None and not self._current(started):
            started = None
        self._guard.go_on(request, None if started is None else started.grant)
        if started is None:
            raise Refusal(404, "There is no such session, or it is over. Begin a new one.")
        if pc_id is None and started.pc_id in self.signaling.sessions:
            # The answer was lost on its way, and the client repeats its offer.
            pc_id, restart = started.pc_id, True
        if pc_id is None:
            data = body.get("requestData")
            caller = self._caller(request, started.grant, json.loads(started.data) if data is None else data)
            return _answered(await self._begin_started(request, started, caller, sdp))
        if pc_id != started.pc_id:
            raise Refusal(404, "This is another session's pc_id.")
        return _answered(await self.signaling.offer(sdp, pc_id, restart=restart))

    async def _begin_started(
        self, request: web.Request, started: _StartedSession, caller: Caller, sdp: str
    ) -> SessionAnswer:
        if started.answering:
            raise busy("An offer of this session is being answered.", 1)
        if started.pc_id:
            # The first conversation of this session is over: another one is counted, and uses up a credential.
            self._guard.begin(request)
        elif started.tried:
            # The first offer failed. Each attempt makes a peer and a bot, so it counts like any other.
            self._guard.count(request)
        started.answering = started.tried = True
        try:
            # Not given back: the session may be tried again, and with both there could be two conversations.
            answer = await self.begin(caller, started.grant, sdp, give_back=False)
        finally:
            started.answering = False
        started.pc_id = answer.pc_id
        return answer

    def _caller(self, request: web.Request, grant: Grant, data: Any) -> Caller:
        return Caller(grant.subject, self._guard.address(request), json.dumps(data))

    def _current(self, started: _StartedSession) -> bool:
        return self._clock.now_ns() < started.until_ns or started.pc_id in self.signaling.sessions

    def _forget_expired(self) -> None:
        sessions = self.signaling.sessions
        now_ns = self._clock.now_ns()
        for session, started in list(self._started.items()):
            if started.until_ns <= now_ns and started.pc_id not in sessions:
                del self._started[session]


def _answered(answer: SessionAnswer) -> web.Response:
    return web.json_response({"sdp": answer.sdp, "type": "answer", "pc_id": answer.pc_id})


def _offer_of(body: JSON_OBJECT) -> tuple[str, str | None, bool]:
    sdp, kind, pc_id, restart = (body.get(name) for name in ("sdp", "type", "pc_id", "restart_pc"))
    if not isinstance(sdp, str) or kind != "offer":
        raise Refusal(400, 'An offer is {"sdp": "...", "type": "offer"}.')
    if pc_id is not None and not isinstance(pc_id, str):
        raise Refusal(400, "pc_id is a string, or null.")
    if restart is not None and not isinstance(restart, bool):
        raise Refusal(400, "restart_pc is true or false.")
    return sdp, pc_id or None, bool(restart)


def _candidates_of(body: JSON_OBJECT) -> list[Candidate]:
    items = body.get("candidates")
    if not isinstance(items, list):
        raise Refusal(400, "candidates is a list.")
    found: list[Candidate] = []
    for item in cast("list[Any]", items):
        if not isinstance(item, dict):
            raise Refusal(400, "A candidate is an object.")
        entry = cast(JSON_OBJECT, item)
        text, mid, index = entry.get("candidate"), entry.get("sdp_mid"), entry.get("sdp_mline_index")
        if not isinstance(text, str) or not isinstance(mid, str | None) or not isinstance(index, int | None):
            raise Refusal(400, 'A candidate is {"candidate": "...", "sdp_mid": "...", "sdp_mline_index": 0}.')
        found.append(Candidate(text, mid, index))
    return found

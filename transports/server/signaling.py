"""Signaling, apart from any server: sessions by id, offers and candidates in, answers out.

A server gives each request's body to one of the verbs, and each `SignalingError`'s status and message back:

- The small RTVI endpoint: POST ``{sdp, pc_id, restart_pc}`` is `Signaling.offer`; PATCH ``{pc_id, candidates}`` is
  `Signaling.candidates`.
- WHIP (RFC 9725): POST is `Signaling.offer`, PATCH with ``application/trickle-ice-sdpfrag`` is `Signaling.fragment`,
  DELETE is `Signaling.end`; `Signaling.ice_tag` is the ETag.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ...pipeline.errors import TransportError
from ..webrtc.sdp import NothingSpoken, Offer, SDPError, check_ice, parse_offer, sections_of
from ..webrtc.transport import WebRTCTransport

logger = logging.getLogger(__name__)

MAX_CANDIDATE = 1_000
"""Characters of one candidate."""


class SignalingError(TransportError):
    """A request that cannot be served: ``status`` as in HTTP, and a message that may be shown to whoever asked."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Answer:
    """The answer to an offer, and the id of the session for the next requests."""

    sdp: str
    pc_id: str


@dataclass(frozen=True)
class Candidate:
    """One way to the client: ``candidate`` as in ``a=candidate:``; empty: there are no more."""

    candidate: str
    mid: str | None = None
    index: int | None = None


@dataclass(frozen=True)
class Fragment:
    """What a trickle-ice-sdpfrag says (RFC 8840, section 9)."""

    ufrag: str
    pwd: str
    candidates: tuple[Candidate, ...]
    complete: bool


def parse_fragment(text: str) -> Fragment:
    """Read a trickle-ice-sdpfrag. Raises `SDPError`."""
    session, sections = sections_of([line.rstrip("\r") for line in text.split("\n") if line.strip()])
    ufrag, pwd, complete = session.get("ice-ufrag") or "", session.get("ice-pwd") or "", False
    candidates: list[Candidate] = []
    for index, section in enumerate([session, *sections]):
        ufrag, pwd = ufrag or section.get("ice-ufrag") or "", pwd or section.get("ice-pwd") or ""
        complete = complete or section.get("end-of-candidates") is not None
        at = index - 1 if index else None
        candidates += [Candidate(value, section.mid or None, at) for value in section.all("candidate")]
    if ufrag or pwd:
        check_ice(ufrag, pwd)
    return Fragment(ufrag, pwd, tuple(candidates), complete)


def write_fragment(ufrag: str, pwd: str, candidates: Sequence[str], *, mid: str = "") -> str:
    """Our side of an ICE restart, as an answer to one (RFC 9725, section 4.3.2)."""
    lines = [f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{pwd}", "m=audio 9 UDP/TLS/RTP/SAVPF 0"]
    lines += [f"a=mid:{mid}"] if mid else []
    lines += [*(f"a=candidate:{candidate}" for candidate in candidates), "a=end-of-candidates"]
    return "\r\n".join(lines) + "\r\n"


@dataclass
class _Session:
    transport: WebRTCTransport
    client_ufrag: str
    mid: str


class Signaling:
    """Sessions, begun by offers.

    ``start`` gets the transport of each new session, and returns when its conversation is under way (its worker
    runs, in a task of the caller's); what it raises is answered with 503, and logged. ``make`` makes the transport.

    ``max_sessions``, ``max_sdp_bytes``, ``max_sections`` (m-lines), ``max_candidates`` (of one request): beyond them a
    request is refused.
    """

    def __init__(
        self,
        start: Callable[[WebRTCTransport], Awaitable[None]],
        make: Callable[[], WebRTCTransport] = WebRTCTransport,
        *,
        max_sessions: int = 1_000,
        max_sdp_bytes: int = 65_536,
        max_sections: int = 16,
        max_candidates: int = 64,
    ) -> None:
        self._start = start
        self._make = make
        self.max_sessions = max_sessions
        self.max_sdp_bytes = max_sdp_bytes
        self.max_sections = max_sections
        self.max_candidates = max_candidates
        self._sessions: dict[str, _Session] = {}
        self._beginning = 0

    @property
    def sessions(self) -> dict[str, WebRTCTransport]:
        """Those that are not over, by id."""
        return {pc_id: session.transport for pc_id, session in self._sessions.items()}

    async def offer(self, sdp: str, pc_id: str | None = None, *, restart: bool = False) -> Answer:
        """Answer an offer: of a new session, or of the one with this id (renegotiation, ICE restart, reconnection).

        ``restart``: the client has thrown its connection away; the offer says the same by another certificate.

        Raises `SignalingError`: 400 malformed, 404 unknown id, 413 too large, 422 nothing in it that is spoken here,
        503 full, or the conversation could not be begun.
        """
        parsed = self._check_offer(sdp)
        if pc_id is not None:
            session = self._session(pc_id)
            try:
                answer = await session.transport.answer(sdp, restart=restart)
            except TransportError as error:
                raise SignalingError(400 if isinstance(error, SDPError) else 410, str(error)) from error
            session.client_ufrag = parsed.ice.ufrag
            return Answer(answer, pc_id)
        if len(self._sessions) + self._beginning >= self.max_sessions:
            raise SignalingError(503, "All lines are busy. Try again later.")
        self._beginning += 1
        try:
            return await self._begin(sdp, _Session(self._make(), parsed.ice.ufrag, parsed.voice.mid))
        finally:
            self._beginning -= 1

    async def _begin(self, sdp: str, session: _Session) -> Answer:
        transport, pc_id = session.transport, secrets.token_urlsafe(18)
        try:
            answer = await transport.answer(sdp)
            self._sessions[pc_id] = session
            transport.on_end = lambda: self._forget(pc_id, transport)
            await self._start(transport)
        except SDPError as error:
            await transport.close()
            raise SignalingError(400, str(error)) from error
        except (Exception, asyncio.CancelledError) as error:
            self._sessions.pop(pc_id, None)
            await transport.close()
            if isinstance(error, asyncio.CancelledError):
                raise
            if isinstance(error, SignalingError):
                raise
            logger.exception("A conversation could not be begun.")
            raise SignalingError(503, "The conversation could not be begun. Try again later.") from error
        return Answer(answer, pc_id)

    def _check_offer(self, sdp: str) -> Offer:
        self._check_size(sdp)
        try:
            return parse_offer(sdp, max_sections=self.max_sections, max_candidates=self.max_candidates)
        except NothingSpoken as error:
            raise SignalingError(422, str(error)) from error
        except SDPError as error:
            raise SignalingError(400, str(error)) from error

    def _forget(self, pc_id: str, transport: WebRTCTransport) -> None:
        transport.on_end = None
        self._sessions.pop(pc_id, None)

    def _session(self, pc_id: str) -> _Session:
        session = self._sessions.get(pc_id)
        if session is None:
            raise SignalingError(404, "There is no such session, or it is over. Begin a new one, without an id.")
        return session

    # --- candidates ---------------------------------------------------------------------------------------------

    async def candidates(self, pc_id: str, candidates: Sequence[Candidate | str]) -> None:
        """More ways to the client; an empty one says that there are no more. Raises `SignalingError`: 400, 404, 413."""
        session = self._session(pc_id)
        if len(candidates) > self.max_candidates:
            raise SignalingError(
                413, f"{len(candidates)} candidates in one request, and {self.max_candidates} are the most."
            )
        texts = [item if isinstance(item, str) else item.candidate for item in candidates]
        if any(len(text) > MAX_CANDIDATE for text in texts):
            raise SignalingError(413, f"A candidate has more than {MAX_CANDIDATE} characters.")
        try:
            await session.transport.add_candidates([text for text in texts if text], complete="" in texts)
        except SDPError as error:
            raise SignalingError(400, str(error)) from error

    async def fragment(self, pc_id: str, text: str) -> str | None:
        """A trickle-ice-sdpfrag: candidates (None: answer 204), or an ICE restart (our fragment: answer 200).

        Raises `SignalingError`: 400 malformed, 404 unknown id, 409 nobody is connected, 413 too large.
        """
        session = self._session(pc_id)
        self._check_size(text)
        try:
            said = parse_fragment(text)
        except SDPError as error:
            raise SignalingError(400, str(error)) from error
        ours = None
        if said.ufrag and said.ufrag != session.client_ufrag:
            try:
                ufrag, pwd, candidates = await session.transport.restart_ice(said.ufrag, said.pwd)
            except TransportError as error:
                raise SignalingError(409, str(error)) from error
            session.client_ufrag = said.ufrag
            ours = write_fragment(ufrag, pwd, candidates, mid=session.mid)
        await self.candidates(pc_id, [*said.candidates, *([""] if said.complete else [])])
        return ours

    def ice_tag(self, pc_id: str) -> str:
        """Names the ICE session, for the ETag of WHIP: it changes with a restart. Raises `SignalingError`: 404."""
        return self._session(pc_id).transport.ice_tag

    def _check_size(self, text: str) -> None:
        if len(text) > self.max_sdp_bytes or len(text.encode(errors="replace")) > self.max_sdp_bytes:
            raise SignalingError(413, f"The session description has more than {self.max_sdp_bytes} bytes.")

    # --- ending -------------------------------------------------------------------------------------------------

    async def end(self, pc_id: str) -> None:
        """The client hangs up. Raises `SignalingError`: 404."""
        transport = self._session(pc_id).transport
        self._sessions.pop(pc_id, None)
        await transport.part()

    async def close(self) -> None:
        """End all sessions."""
        while self._sessions:
            # One by one, and not from a list: while we wait for one, others may end by themselves.
            _, session = self._sessions.popitem()
            await session.transport.part()

"""Signaling without HTTP: sessions by id, offers and candidates in, answers out.

The endpoints pass the body of each request to one method, and return the status and message of a `Refusal`:

- The small RTVI endpoint: POST ``{sdp, pc_id, restart_pc}`` is `Signaling.offer`; PATCH ``{pc_id, candidates}`` is
  `Signaling.candidates`.
- WHIP (RFC 9725): POST is `Signaling.offer`, PATCH with ``application/trickle-ice-sdpfrag`` is `Signaling.fragment`,
  DELETE is `Signaling.end`; `Signaling.ice_tag` is the ETag.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from ...pipeline.errors import TransportError
from ..webrtc.sdp import NoSupportedMedia, Offer, SDPError, check_ice, parse_offer, sections_of
from ..webrtc.transport import WebRTCTransport
from .conversations import ReservedPlace
from .refusals import RETRY_S, Refusal, busy

logger = logging.getLogger(__name__)

MAX_CANDIDATE = 1_000
"""Characters of one candidate."""


@dataclass(frozen=True)
class SessionAnswer:
    """The answer to an offer, and the id of the session for the next requests."""

    sdp: str
    pc_id: str


@dataclass(frozen=True)
class Candidate:
    """An ICE candidate of the client: the value of ``a=candidate:``. An empty one ends the candidates."""

    candidate: str
    mid: str | None = None
    index: int | None = None


@dataclass(frozen=True)
class Fragment:
    """A parsed trickle-ice-sdpfrag (RFC 8840, section 9)."""

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
    """Write the server's side of an ICE restart (RFC 9725, section 4.3.2)."""
    lines = [f"a=ice-ufrag:{ufrag}", f"a=ice-pwd:{pwd}", "m=audio 9 UDP/TLS/RTP/SAVPF 0"]
    lines += [f"a=mid:{mid}"] if mid else []
    lines += [*(f"a=candidate:{candidate}" for candidate in candidates), "a=end-of-candidates"]
    return "\r\n".join(lines) + "\r\n"


@dataclass
class _RTCSession:
    transport: WebRTCTransport
    client_ufrag: str
    mid: str


class Signaling:
    """WebRTC sessions, each begun by an offer.

    ``start`` is called with the transport of each new session, and its place; it returns when the conversation runs. A
    `Refusal` that it raises goes to the client; any other exception is logged, and answered with 503. ``make`` makes
    the transport.

    ``max_sdp_bytes``, ``max_sections`` (m-lines) and ``max_candidates`` limit one request. The number of sessions is
    limited by the places of `Conversations`.
    """

    def __init__(
        self,
        start: Callable[[WebRTCTransport, ReservedPlace | None], Awaitable[None]],
        make: Callable[[], WebRTCTransport] = WebRTCTransport,
        *,
        max_sdp_bytes: int = 65_536,
        max_sections: int = 16,
        max_candidates: int = 64,
    ) -> None:
        self._start = start
        self._make = make
        self.max_sdp_bytes = max_sdp_bytes
        self.max_sections = max_sections
        self.max_candidates = max_candidates
        self._sessions: dict[str, _RTCSession] = {}  # bound: one for each place, which `Conversations` limits

    @property
    def sessions(self) -> dict[str, WebRTCTransport]:
        """Current sessions, by id."""
        return {pc_id: session.transport for pc_id, session in self._sessions.items()}

    async def offer(
        self, sdp: str, pc_id: str | None = None, *, place: ReservedPlace | None = None, restart: bool = False
    ) -> SessionAnswer:
        """Answer an offer: for a new session, or for the session ``pc_id`` (renegotiation, ICE restart, reconnection).

        ``place``: the place that a new session takes, passed to ``start``. ``restart``: the client has discarded its
        connection; a new certificate in the offer means the same.

        Raises `Refusal`: 400 malformed, 404 unknown id, 410 the session is over, 413 too large, 422 no audio that is
        supported, 503 the conversation did not start, and what ``start`` refuses.
        """
        offer = self._parse(sdp)
        if pc_id is None:
            return await self._begin(offer, place)
        session = self._session(pc_id)
        try:
            answer = await session.transport.answer(offer, restart=restart)
        except TransportError as error:
            raise Refusal(400 if isinstance(error, SDPError) else 410, str(error)) from error
        session.client_ufrag = offer.ice.ufrag
        return SessionAnswer(answer, pc_id)

    async def _begin(self, offer: Offer, place: ReservedPlace | None) -> SessionAnswer:
        transport, pc_id = self._make(), secrets.token_urlsafe(18)
        try:
            answer = await transport.answer(offer)
            self._sessions[pc_id] = _RTCSession(transport, offer.ice.ufrag, offer.voice.mid)
            transport.on_end = lambda: self._forget(pc_id, transport)
            await self._start(transport, place)
        except BaseException as error:
            self._sessions.pop(pc_id, None)
            await transport.close()
            if isinstance(error, SDPError):
                raise Refusal(400, str(error)) from error
            if isinstance(error, Refusal) or not isinstance(error, Exception):
                raise
            logger.exception("A conversation did not start.")
            raise busy("The conversation did not start. Try again later.", RETRY_S) from error
        return SessionAnswer(answer, pc_id)

    def _parse(self, sdp: str) -> Offer:
        self._check_size(sdp)
        try:
            return parse_offer(sdp, max_sections=self.max_sections, max_candidates=self.max_candidates)
        except NoSupportedMedia as error:
            raise Refusal(422, str(error)) from error
        except SDPError as error:
            raise Refusal(400, str(error)) from error

    def _forget(self, pc_id: str, transport: WebRTCTransport) -> None:
        transport.on_end = None
        self._sessions.pop(pc_id, None)

    def _session(self, pc_id: str) -> _RTCSession:
        session = self._sessions.get(pc_id)
        if session is None:
            raise Refusal(404, "There is no such session, or it is over. Send a new offer without an id.")
        return session

    # --- candidates ---------------------------------------------------------------------------------------------

    async def candidates(self, pc_id: str, candidates: Sequence[Candidate | str]) -> None:
        """Add ICE candidates of the client; an empty one ends them. Raises `Refusal`: 400, 404, 413."""
        session = self._session(pc_id)
        if len(candidates) > self.max_candidates:
            raise Refusal(
                413, f"The request has {len(candidates)} candidates; at most {self.max_candidates} are allowed."
            )
        texts = [item if isinstance(item, str) else item.candidate for item in candidates]
        if any(len(text) > MAX_CANDIDATE for text in texts):
            raise Refusal(413, f"A candidate has more than {MAX_CANDIDATE} characters.")
        try:
            await session.transport.add_candidates([text for text in texts if text], complete="" in texts)
        except SDPError as error:
            raise Refusal(400, str(error)) from error

    async def fragment(self, pc_id: str, text: str) -> str | None:
        """Apply a trickle-ice-sdpfrag. Returns None for candidates (status 204), our fragment for an ICE restart (200).

        Raises `Refusal`: 400 malformed, 404 unknown id, 409 no client is connected, 413 too large.
        """
        session = self._session(pc_id)
        self._check_size(text)
        try:
            said = parse_fragment(text)
        except SDPError as error:
            raise Refusal(400, str(error)) from error
        ours = None
        if said.ufrag and said.ufrag != session.client_ufrag:
            try:
                ufrag, pwd, candidates = await session.transport.restart_ice(said.ufrag, said.pwd)
            except TransportError as error:
                raise Refusal(409, str(error)) from error
            session.client_ufrag = said.ufrag
            ours = write_fragment(ufrag, pwd, candidates, mid=session.mid)
        await self.candidates(pc_id, [*said.candidates, *([""] if said.complete else [])])
        return ours

    def ice_tag(self, pc_id: str) -> str:
        """Return the name of the ICE session, for WHIP's ETag; an ICE restart changes it. Raises `Refusal`: 404."""
        return self._session(pc_id).transport.ice_tag

    def _check_size(self, text: str) -> None:
        if len(text) > self.max_sdp_bytes or len(text.encode(errors="replace")) > self.max_sdp_bytes:
            raise Refusal(413, f"The session description has more than {self.max_sdp_bytes} bytes.")

    # --- ending -------------------------------------------------------------------------------------------------

    async def end(self, pc_id: str) -> None:
        """End a session: the client hangs up. Raises `Refusal`: 404."""
        transport = self._session(pc_id).transport
        self._sessions.pop(pc_id, None)
        await transport.part()

    async def close(self) -> None:
        """End all sessions."""
        while self._sessions:
            # One by one, and not from a list: others may end while this one is being closed.
            _, session = self._sessions.popitem()
            await session.transport.part()

"""WHIP (RFC 9725): offers as SDP, for GStreamer, OBS, browsers and other WHIP clients.

``POST /whip`` begins a session: 201, with its Location, its ETag and our ICE servers. ``PATCH`` there brings candidates
(204) or restarts ICE (200), ``DELETE`` ends it. The ETag names the ICE session: what is for another one is refused.
"""

from __future__ import annotations

from aiohttp import web

from ..caller import Caller
from .bodies import Bodies
from .guard import Guard
from .offers import Offers
from .refusals import Refusal
from .settings import ServerSettings, described

SDP = "application/sdp"
FRAGMENT = "application/trickle-ice-sdpfrag"


class Whip:
    """The endpoint and its sessions."""

    def __init__(self, settings: ServerSettings, guard: Guard, bodies: Bodies, offers: Offers) -> None:
        self._settings = settings
        self._guard = guard
        self._bodies = bodies
        self._offers = offers

    def routes(self) -> list[web.RouteDef]:
        """Return the endpoints. All other methods get 405, as the RFC demands."""
        return [
            web.post("/whip", self._begin),
            web.options("/whip", self._options),
            web.patch("/whip/{id}", self._patch),
            web.delete("/whip/{id}", self._end),
            web.options("/whip/{id}", self._session_options),
        ]

    async def _begin(self, request: web.Request) -> web.Response:
        sdp = await self._bodies.text(request, SDP)
        grant = self._guard.begin(request)
        answer = await self._offers.begin(Caller(grant.subject, self._guard.address(request)), grant, sdp)
        response = web.Response(status=201, text=answer.sdp, content_type=SDP, charset="utf-8")
        # Relative to the endpoint, whose path may differ behind a proxy.
        response.headers["Location"] = f"whip/{answer.pc_id}"
        response.headers["ETag"] = self._etag(answer.pc_id)
        response.headers["Accept-Patch"] = FRAGMENT
        for link in ice_links(self._settings):
            response.headers.add("Link", link)
        # An SDP type has no charset parameter (RFC 8866, section 8.1).
        response.headers["Content-Type"] = SDP
        return response

    async def _options(self, request: web.Request) -> web.Response:
        return web.Response(headers={"Accept-Post": SDP, "Allow": "OPTIONS, POST"})

    async def _session_options(self, request: web.Request) -> web.Response:
        return web.Response(headers={"Accept-Patch": FRAGMENT, "Allow": "DELETE, OPTIONS, PATCH"})

    async def _patch(self, request: web.Request) -> web.Response:
        pc_id = request.match_info["id"]
        text = await self._bodies.text(request, FRAGMENT)
        self._offers.check(request, pc_id)
        wanted = request.headers.get("If-Match")
        if wanted is None:
            raise Refusal(428, 'If-Match is missing: the ETag of the ICE session, or "*" to restart it.')
        if not _matches(wanted, self._etag(pc_id)):
            raise Refusal(412, "If-Match does not name the current ICE session.")
        ours = await self._offers.signaling.fragment(pc_id, text)
        if ours is None:
            return web.Response(status=204)
        headers = {"ETag": self._etag(pc_id), "Content-Type": FRAGMENT}
        return web.Response(status=200, body=ours.encode(), headers=headers)

    async def _end(self, request: web.Request) -> web.Response:
        pc_id = request.match_info["id"]
        self._offers.check(request, pc_id)
        await self._offers.signaling.end(pc_id)
        return web.Response()

    def _etag(self, pc_id: str) -> str:
        return f'"{self._offers.signaling.ice_tag(pc_id)}"'


def _matches(wanted: str, etag: str) -> bool:
    """If-Match, by the strong comparison (RFC 9110, sections 13.1.1 and 8.8.3.2)."""
    values = [value.strip() for value in wanted.split(",")]
    # Some clients write the asterisk in quotes, as in the examples of the RFC.
    return any(value in ("*", '"*"', etag) for value in values)


def ice_links(settings: ServerSettings) -> list[str]:
    """A Link header for each STUN and TURN address (RFC 9725, section 4.6)."""
    links: list[str] = []
    for server in settings.ice():
        about = described(server)
        for url in about["urls"]:
            link = f'<{url}>; rel="ice-server"'
            if "credential" in about:
                link += f'; username="{_quoted(about.get("username", ""))}"'
                link += f'; credential="{_quoted(about["credential"])}"; credential-type="password"'
            links.append(link)
    return links


def _quoted(text: str) -> str:
    return "".join(f"\\{letter}" if letter in '\\"' else letter for letter in text if letter.isprintable())

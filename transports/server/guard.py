"""The guard before every request: origins, rates, tokens, and the form of error responses."""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from http import HTTPStatus

from aiohttp import web

from ...pipeline.clock import Clock
from .credentials import Grant, TokenCheck
from .limits import Buckets, key_of
from .origins import Origins, is_preflight, preflight
from .refusals import Refusal, too_many
from .settings import ServerSettings

log = logging.getLogger("voxline.server")

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

ALWAYS = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "microphone=(self), camera=(self)",
    # Replaces aiohttp's, which has its version and Python's.
    "Server": "voxline",
}
UNLESS_SET = {
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}
SENTENCES = {
    400: "The request is malformed.",
    404: "There is nothing here.",
    405: "This method is not allowed here.",
    408: "The request took too long.",
    413: "The body is too large.",
    415: "This kind of body is not understood here.",
    500: "Something went wrong; the server's log says what.",
}
PROBLEMS = "/whip"
"""Path below which errors are problem details (RFC 9457), the standard form for WHIP clients."""


def answer(request: web.BaseRequest, status: int, message: str, headers: Mapping[str, str]) -> web.Response:
    """Make the response of an error."""
    if request.path == PROBLEMS or request.path.startswith(PROBLEMS + "/"):
        problem = {"title": message, "status": status}
        return web.json_response(problem, status=status, headers=headers, content_type="application/problem+json")
    return web.json_response({"error": message}, status=status, headers=headers)


class Guard:
    """Checks origins, rates and tokens, and keeps internals out of responses."""

    def __init__(self, settings: ServerSettings, tokens: TokenCheck, clock: Clock) -> None:
        self._settings = settings
        self._tokens = tokens
        self._origins = Origins(settings)
        keys = settings.max_addresses
        self._requests = Buckets(
            clock, per_minute=settings.requests_per_minute, burst=settings.requests_burst, keys=keys
        )
        self._offers = Buckets(clock, per_minute=settings.offers_per_minute, burst=settings.offers_burst, keys=keys)

    # --- for the handlers ----------------------------------------------------------------------------------------

    def begin(self, request: web.Request, *, token: str = "") -> Grant:
        """Admit a new conversation. Raises `Refusal`: 429, 401, 503.

        ``token``: from the path or the query, for clients that cannot set a header.
        """
        self.count(request)
        return self._tokens.admit(bearer(request) or token)

    def count(self, request: web.Request) -> None:
        """Count an attempt to begin a conversation. Raises `Refusal`: 429."""
        wait_s = self._offers.take(key_of(self.address(request)))
        if wait_s:
            raise too_many("Too many new conversations from this address.", wait_s)

    def give_back(self, grant: Grant) -> None:
        """Allow a credential again, after a conversation that `begin` admitted failed on the server's side."""
        self._tokens.give_back(grant)

    def go_on(self, request: web.Request, begun: Grant | None) -> None:
        """Check that a request may continue the conversation of the grant ``begun``. Raises `Refusal`: 401."""
        self._tokens.known(bearer(request), begun)

    def trusts(self, request: web.Request) -> bool:
        """Return True where the request has a valid token or credential."""
        try:
            self._tokens.known(bearer(request))
        except Refusal:
            return False
        return True

    def hosts(self, request: web.BaseRequest) -> list[str]:
        """Return the server's possible host names, with ports."""
        return self._origins.hosts(request)

    def address(self, request: web.BaseRequest) -> str:
        """Return the client's address; see `ServerSettings.proxies`."""
        proxies = self._settings.proxies
        passed = ",".join(request.headers.getall("X-Forwarded-For", [])).split(",")
        # Counted from the right: the client may have written entries further left itself.
        named = passed[max(0, len(passed) - proxies)].strip() if proxies else ""
        return named or request.remote or ""

    # --- for the application ---------------------------------------------------------------------------------------

    @web.middleware
    async def middleware(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Check every request, and turn errors into responses."""
        response = await self._answered(request, handler)
        log.debug("%s %s %d", request.method, pattern(request), response.status)
        return response

    async def _answered(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            self._origins.check(request)
            wait_s = self._requests.take(key_of(self.address(request)))
            if wait_s:
                raise too_many("Too many requests from this address.", wait_s)
            if is_preflight(request):
                return preflight()
            return await handler(request)
        except Refusal as refusal:
            return answer(request, refusal.status, str(refusal), refusal.headers)
        except web.HTTPException as error:
            message = SENTENCES.get(error.status, HTTPStatus(error.status).phrase)
            kept = {name: value for name, value in error.headers.items() if name in ("Allow", "Retry-After")}
            return answer(request, error.status, message, kept)
        except ConnectionError:
            raise
        except Exception:
            log.exception("%s %s failed", request.method, pattern(request))
            return answer(request, 500, SENTENCES[500], {})

    async def prepare(self, request: web.Request, response: web.StreamResponse) -> None:
        """Add the headers of every response before it is sent."""
        response.headers.update(ALWAYS)
        for name, value in UNLESS_SET.items():
            response.headers.setdefault(name, value)
        response.headers.update(self._origins.headers(request))


def bearer(request: web.BaseRequest) -> str:
    """The token in the Authorization header (RFC 6750, 2.1); empty where there is none."""
    scheme, _, token = request.headers.get("Authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


def pattern(request: web.Request) -> str:
    """Return the route's pattern for logs. Real paths hold ids that give access, and queries hold tokens."""
    resource = request.match_info.route.resource
    return "?" if resource is None else resource.canonical

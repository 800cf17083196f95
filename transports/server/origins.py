"""Which pages may use a server, and what browsers are told about it (the Fetch standard's CORS protocol)."""

from __future__ import annotations

from ipaddress import ip_address

from aiohttp import web

from .refusals import Refusal
from .settings import ServerSettings, is_loopback

METHODS = "GET, POST, PATCH, DELETE, OPTIONS"
HEADERS = "Authorization, Content-Type, If-Match"
EXPOSED = "Location, Link, ETag, Retry-After, WWW-Authenticate, Accept-Patch"
DEFAULT_PORTS = {"http": 80, "https": 443}
REMEMBER_S = 600
"""Time for which a browser may cache a preflight response."""


class Origins:
    """Same origin, and those on the list."""

    def __init__(self, settings: ServerSettings) -> None:
        self._listed = frozenset(settings.origins)
        self._behind_proxy = settings.proxies > 0
        self._local = settings.local and not self._behind_proxy

    def check(self, request: web.Request) -> None:
        """Raises `Refusal` (403) for a request that a page from elsewhere has made.

        A server that only this machine reaches refuses names that are not this machine's, too: a page of any site can
        let its own name point here, and would be of the same origin (DNS rebinding).
        """
        host = _without_port(_host(request))
        if self._local and host and not _is_address(host) and not is_loopback(host):
            raise Refusal(403, "This server is for this machine only: use its address, or localhost.")
        origin = request.headers.get("Origin")
        if origin is not None and not self._same(origin, request) and not self._allows(origin):
            raise Refusal(403, "Pages from this origin may not use this server.")

    def headers(self, request: web.BaseRequest) -> dict[str, str]:
        """Return the CORS headers for a page of another origin."""
        if not self._listed:
            return {}
        origin = request.headers.get("Origin", "")
        if not origin or not self._allows(origin):
            return {"Vary": "Origin"}
        return {"Vary": "Origin", "Access-Control-Allow-Origin": origin, "Access-Control-Expose-Headers": EXPOSED}

    def hosts(self, request: web.BaseRequest) -> list[str]:
        """Our names, as the client may have written them, with ports: a proxy may have put its own in their place."""
        hosts = [request.headers.get("Host", "")]
        if self._behind_proxy and (forwarded := request.headers.get("X-Forwarded-Host")):
            hosts.append(forwarded.rpartition(",")[2].strip())
        return hosts

    def _allows(self, origin: str) -> bool:
        return "*" in self._listed or origin in self._listed

    def _same(self, origin: str, request: web.Request) -> bool:
        # The scheme is not compared: who ends TLS is a proxy.
        scheme, _, place = origin.partition("://")
        hosts = {host.lower() for host in self.hosts(request)}
        if scheme not in DEFAULT_PORTS or not place:
            return False
        # Some proxies write the port where browsers leave it out.
        return not hosts.isdisjoint({place.lower(), f"{place.lower()}:{DEFAULT_PORTS[scheme]}"})


def is_preflight(request: web.Request) -> bool:
    """Return True for a CORS preflight request."""
    return (
        request.method == "OPTIONS"
        and "Origin" in request.headers
        and "Access-Control-Request-Method" in request.headers
    )


def preflight() -> web.Response:
    """Yes, it may. Who it is from, and the rest of the headers, are the guard's."""
    headers = {
        "Access-Control-Allow-Methods": METHODS,
        "Access-Control-Allow-Headers": HEADERS,
        "Access-Control-Max-Age": str(REMEMBER_S),
        # WHIP asks for it (RFC 9725, 4.2).
        "Accept-Post": "application/sdp",
    }
    return web.Response(headers=headers)


def _host(request: web.Request) -> str:
    # aiohttp before 3.14 looks for a missing one in DNS, and holds everybody up meanwhile.
    return request.headers.get("Host", "").lower()


def _without_port(host: str) -> str:
    if host.startswith("["):
        return host[1:].partition("]")[0]
    return host.partition(":")[0]


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True

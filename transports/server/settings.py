"""Settings of a server: address, clients, admission, and every limit."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from ...pipeline.errors import SettingsError

PAGE = Path(__file__).parent / "page"
"""The page in this package."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Forbids other origins, inline code and framing."""
SHORTEST_SECRET = 16
"""Least length of a secret, in characters: a short one can be guessed."""


class IceServerLike(Protocol):
    """A STUN or TURN server, such as `voxline.transports.webrtc.IceServer`."""

    @property
    def urls(self) -> str | Sequence[str]:
        """Addresses such as ``turn:turn.example.org?transport=udp`` (RFC 7064, RFC 7065)."""
        ...

    @property
    def username(self) -> str | None:
        """User name at a TURN server."""
        ...

    @property
    def credential(self) -> str | None:
        """Password at a TURN server."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """All settings of a server. Raises `SettingsError` for an invalid value."""

    # --- where -------------------------------------------------------------------------------------------------
    host: str = "127.0.0.1"
    """The address to listen at. Beyond loopback (``0.0.0.0``, ``::``), give a ``token`` or a ``secret`` too."""
    port: int = 8000
    """Port to listen at; 0: any free port."""
    name: str = "voxline"
    """The bot's name on the page."""
    page: Path | None = field(default_factory=lambda: PAGE)
    """Folder to serve at ``/``, read once, at the start. None: no page."""
    page_policy: str = PAGE_POLICY
    """Content-Security-Policy of the page."""

    # --- which clients -----------------------------------------------------------------------------------------
    webrtc: bool = True
    """Serve ``/api/offer``, ``/start`` (the RTVI clients) and ``/whip`` (RFC 9725)."""
    websocket: bool = False
    """Serve ``/ws``: raw PCM and JSON."""
    twilio: bool = False
    """Serve ``/twilio``: phone calls by Twilio's media streams."""
    rtvi: bool = True
    """Speak RTVI with clients, beside audio: events to a page, texts and buttons from it."""
    ice_servers: Sequence[IceServerLike] | Callable[[], Sequence[IceServerLike]] = ()
    """STUN and TURN servers, for the server and for the clients. A function is called for each client: use one for TURN
    passwords that expire. Only admitted clients get passwords."""

    # --- who ---------------------------------------------------------------------------------------------------
    token: str | None = field(default=None, repr=False)
    """Token that grants full access: ``Authorization: Bearer ...``."""
    secret: str | None = field(default=None, repr=False)
    """Secret of `make_credential`. A credential made with it grants one conversation."""
    twilio_auth_token: str | None = field(default=None, repr=False)
    """Auth token of your Twilio account. With it, ``/twilio`` takes only calls that Twilio signed, and asks for no
    other token."""
    origins: tuple[str, ...] = ()
    """Other origins whose pages may use this server, such as ``https://www.example.org``; ``*``: all. The server's own
    page always may."""
    proxies: int = 0
    """Number of your reverse proxies in front of the server. The client's address is that many entries from the right
    of X-Forwarded-For. 0: the peer of the connection is the client."""

    # --- how much ----------------------------------------------------------------------------------------------
    max_connections: int = 50
    """Limit of conversations at a time; beyond it, 503."""
    connections_per_address: int | None = 10
    """Limit of conversations at a time from one address; beyond it, 429. This machine's own address and calls that
    Twilio signed are not limited. None: no limit."""
    max_sockets: int = 1_000
    """Limit of TCP connections at a time; further ones are closed at once."""
    max_body_bytes: int = 128 * 1024
    """Limit of a request body, in bytes; beyond it, 413."""
    max_sdp_bytes: int = 64 * 1024
    """Limit of an offer, in bytes; beyond it, 413."""
    max_message_bytes: int = 64 * 1024
    """Limit of a WebSocket message, in bytes; beyond it, the socket is closed with 1009."""
    max_line_bytes: int = 8 * 1024
    """Limit of a request's first line and of each header, in bytes; beyond it, 400."""
    max_headers: int = 64
    """Limit of a request's headers; beyond it, 400."""
    offers_per_minute: float = 30
    """Rate of new conversations from one address, wrong tokens included; beyond it, 429."""
    offers_burst: int = 10
    """New conversations from one address at once."""
    requests_per_minute: float = 600
    """Rate of requests from one address; beyond it, 429."""
    requests_burst: int = 200
    """Requests from one address at once."""
    max_addresses: int = 10_000
    """Limit of addresses that are counted; beyond it, the one idle longest is forgotten."""
    max_started: int = 1_000
    """Limit of sessions that were started by ``/start`` and wait for an offer; beyond it, 503."""
    max_nonces: int = 100_000
    """Limit of used credentials that have not expired; beyond it, 503, so that none is accepted twice."""

    # --- how long ----------------------------------------------------------------------------------------------
    body_timeout_s: float = 10
    """Time limit of a request body; beyond it, 408."""
    idle_timeout_s: float = 30
    """Time after which a connection without a complete request is closed."""
    factory_timeout_s: float = 20
    """Time limit of ``make_pipeline``; beyond it, 503."""
    started_s: float = 60
    """Time limit from ``/start`` to the offer."""
    longest_credential_s: float = 3_600
    """Longest validity of a credential; one that is valid for longer is refused."""
    drain_s: float = 30
    """Time for conversations to end by themselves when the server stops."""
    stop_s: float = 5
    """Time, after `drain_s`, for queued speech to be played; then conversations are cancelled."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.type in ("int", "float") or (setting.type == "int | None" and value is not None):
                least = 0 if setting.name in ("port", "proxies", "drain_s", "stop_s") else 1e-9
                if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
                    raise SettingsError(f"{setting.name} must be a positive number, not {value!r}.")
        if self.port > 65_535:
            raise SettingsError(f"port must be from 0 to 65535, not {self.port}.")
        for name in ("token", "secret", "twilio_auth_token"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or len(value) < SHORTEST_SECRET):
                # The value is not in the message: messages are logged.
                raise SettingsError(
                    f"{name} must have at least {SHORTEST_SECRET} characters that nobody can guess. Make one with "
                    "python -c 'import secrets; print(secrets.token_urlsafe())'."
                )
        for origin in self.origins:
            if origin != "*" and (not origin.startswith(("http://", "https://")) or origin.count("/") != 2):
                raise SettingsError(
                    f"{origin!r} is not an origin. Write scheme, host and port as a browser does, as in "
                    "'https://www.example.org', with nothing after it; or '*'."
                )

    @property
    def guarded(self) -> bool:
        """True where clients need a token or a credential."""
        return self.token is not None or self.secret is not None

    @property
    def only_signed(self) -> bool:
        """True where only calls that Twilio signed are admitted."""
        return self.twilio_auth_token is not None and not self.webrtc and not self.websocket

    def ice(self) -> Sequence[IceServerLike]:
        """Return the current `ice_servers`."""
        return self.ice_servers() if callable(self.ice_servers) else self.ice_servers

    @property
    def local(self) -> bool:
        """True where only this machine can connect."""
        return is_loopback(self.host)


def described(server: IceServerLike) -> dict[str, Any]:
    """Describe a server as a browser's RTCIceServer dictionary."""
    found: dict[str, Any] = {"urls": [server.urls] if isinstance(server.urls, str) else list(server.urls)}
    if server.username:
        found["username"] = server.username
    if server.credential:
        found["credential"] = server.credential
    return found


def is_loopback(host: str) -> bool:
    """Return True for a loopback address and for ``localhost``."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

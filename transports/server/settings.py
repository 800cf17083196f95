"""What a server may be told: where it listens, whom it lets in, and every limit that it keeps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from ipaddress import ip_address
from pathlib import Path
from typing import Any, Protocol

from ...pipeline.errors import SettingsError

PAGE = Path(__file__).parent / "page"
"""The page that comes with this package."""
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; media-src 'self'; "
    "connect-src 'self' ws: wss:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""Nothing from elsewhere, nothing inline, and in nobody's frame."""
SHORTEST_SECRET = 16
"""Characters. What can be guessed protects nothing."""


class IceServer(Protocol):
    """A STUN or TURN server: `voxline.transports.webrtc.IceServer` is one."""

    @property
    def urls(self) -> str | Sequence[str]:
        """As in ``turn:turn.example.org?transport=udp`` (RFC 7064, RFC 7065)."""
        ...

    @property
    def username(self) -> str | None:
        """Of a TURN server."""
        ...

    @property
    def credential(self) -> str | None:
        """Its password."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerSettings:
    """All that can be set. Raises `SettingsError` for what cannot be."""

    # --- where -------------------------------------------------------------------------------------------------
    host: str = "127.0.0.1"
    """The address to listen at. Beyond loopback (``0.0.0.0``, ``::``), give a ``token`` or a ``secret`` too."""
    port: int = 8000
    """0: one that is free."""
    name: str = "voxline"
    """The bot's name, as the page shows it."""
    page: Path | None = field(default_factory=lambda: PAGE)
    """The folder served at ``/``, read once, at the start. None: no page."""
    page_policy: str = PAGE_POLICY
    """Its Content-Security-Policy."""

    # --- which clients -----------------------------------------------------------------------------------------
    webrtc: bool = True
    """Serve ``/api/offer``, ``/start`` (the RTVI clients) and ``/whip`` (RFC 9725)."""
    websocket: bool = False
    """Serve ``/ws``: raw PCM and JSON."""
    twilio: bool = False
    """Serve ``/twilio``: phone calls by Twilio's media streams."""
    rtvi: bool = True
    """Speak RTVI with clients, beside audio: events for a page, texts and buttons from it."""
    ice_servers: Sequence[IceServer] | Callable[[], Sequence[IceServer]] = ()
    """STUN and TURN servers, for our side and for the clients, or what gives them, which is asked each time: for TURN
    passwords that expire. Passwords go to clients who were let in."""

    # --- who ---------------------------------------------------------------------------------------------------
    token: str | None = field(default=None, repr=False)
    """Who has it may do all: ``Authorization: Bearer ...``."""
    secret: str | None = field(default=None, repr=False)
    """Who has a credential that was made with it (`make_credential`) may hold one conversation."""
    twilio_auth_token: str | None = field(default=None, repr=False)
    """Of your account at Twilio: ``/twilio`` takes calls that are signed with it, without another token, and no
    others."""
    origins: tuple[str, ...] = ()
    """Pages from elsewhere that may use this server, as in ``https://www.example.org``; ``*``: all. A page that this
    server serves always may."""
    proxies: int = 0
    """How many reverse proxies of yours a request has passed: who a client is stands in X-Forwarded-For, that many
    from its right. 0: who connects is the client."""

    # --- how much ----------------------------------------------------------------------------------------------
    max_connections: int = 50
    """Conversations at a time; then 503."""
    connections_per_address: int | None = 10
    """Conversations of one address at a time, of whatever kind; then 429. Not of this machine's own, nor of calls that
    Twilio has signed. None: as many as there are places."""
    max_sockets: int = 1_000
    """TCP connections at a time; then they are closed as they come."""
    max_body_bytes: int = 128 * 1024
    """Of a request; then 413."""
    max_sdp_bytes: int = 64 * 1024
    """Of an offer; then 413."""
    max_message_bytes: int = 64 * 1024
    """Of a message on a WebSocket; then it is closed with 1009."""
    max_line_bytes: int = 8 * 1024
    """Of the first line of a request, and of each of its headers; then 400."""
    max_headers: int = 64
    """Headers of a request; then 400."""
    offers_per_minute: float = 30
    """New conversations that one address may begin, wrong tokens counted; then 429."""
    offers_burst: int = 10
    """How many of them at once."""
    requests_per_minute: float = 600
    """Requests of one address; then 429."""
    requests_burst: int = 200
    """How many of them at once."""
    max_addresses: int = 10_000
    """Addresses that are counted; then the one that was quiet longest is forgotten."""
    max_started: int = 1_000
    """Answers to ``/start`` whose offer has not come; then 503."""
    max_nonces: int = 100_000
    """Credentials that were used and have not expired; then 503, so that none is ever taken twice."""

    # --- how long ----------------------------------------------------------------------------------------------
    body_timeout_s: float = 10
    """A request's body may take so long; then 408."""
    idle_timeout_s: float = 30
    """A connection with no request on it is closed, also one whose request never is complete."""
    factory_timeout_s: float = 20
    """``make_pipeline`` may take so long; then 503."""
    started_s: float = 60
    """After ``/start``, the offer may take so long."""
    longest_credential_s: float = 3_600
    """A credential that is valid for longer from now is refused."""
    drain_s: float = 30
    """When the server ends, conversations may take so long to come to an end of their own."""
    stop_s: float = 5
    """After that, what is queued may take so long to be said; then they are cancelled."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            if setting.type in ("int", "float") or (setting.type == "int | None" and value is not None):
                least = 0 if setting.name in ("port", "proxies", "drain_s", "stop_s") else 1e-9
                if isinstance(value, bool) or not isinstance(value, int | float) or not least <= value < float("inf"):
                    raise SettingsError(f"{setting.name} is a positive number, not {value!r}.")
        if self.port > 65_535:
            raise SettingsError(f"port is a number from 0 to 65535, not {self.port}.")
        for name in ("token", "secret", "twilio_auth_token"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or len(value) < SHORTEST_SECRET):
                # The value is not in the message: messages are logged.
                raise SettingsError(
                    f"{name} has at least {SHORTEST_SECRET} characters, which nobody can guess: make one with "
                    "python -c 'import secrets; print(secrets.token_urlsafe())'."
                )
        for origin in self.origins:
            if origin != "*" and (not origin.startswith(("http://", "https://")) or origin.count("/") != 2):
                raise SettingsError(
                    f"{origin!r} is no origin. Write scheme, host and port as a browser does, as in "
                    "'https://www.example.org', with nothing after it; or '*'."
                )

    @property
    def guarded(self) -> bool:
        """Whether one needs a token or a credential."""
        return self.token is not None or self.secret is not None

    @property
    def only_signed(self) -> bool:
        """Whether there is no way in but for calls that Twilio has signed."""
        return self.twilio_auth_token is not None and not self.webrtc and not self.websocket

    def ice(self) -> Sequence[IceServer]:
        """`ice_servers`, as of now."""
        return self.ice_servers() if callable(self.ice_servers) else self.ice_servers

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        return is_loopback(self.host)


def described(server: IceServer) -> dict[str, Any]:
    """As a browser's RTCIceServer dictionary."""
    found: dict[str, Any] = {"urls": [server.urls] if isinstance(server.urls, str) else list(server.urls)}
    if server.username:
        found["username"] = server.username
    if server.credential:
        found["credential"] = server.credential
    return found


def is_loopback(host: str) -> bool:
    """Whether an address, or the name ``localhost``, is of this machine only."""
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return False

"""Adapter to aiortc and aioice: the only file that uses their private names.

Written for aiortc 1.16 with aioice 0.13. `tests/transports/webrtc/test_aiortc_adapter.py` fails where a new version no
longer has these names.

Used of them: ICE (`aioice.Connection`), DTLS with the SRTP keys (`RTCDtlsTransport`), and SCTP with data
channels (`RTCSctpTransport`), each as it is. Not used: `RTCPeerConnection` with its senders, receivers, tracks,
threads and tasks for each packet. `DtlsConnection` replaces it, and does three things that it cannot:

- media bypasses DTLS's task: an SRTP datagram is decrypted and handled in the socket's own callback, and a packet is
  in the socket when `DtlsConnection.send_rtp` returns;
- ICE restarts under DTLS and SCTP that stay (`DtlsConnection.restart`);
- a machine with only a loopback interface has a candidate.

Private names used: `aioice.Connection` - ``data_received``, ``check_incoming``, ``protocol_lost``,
``get_component_candidates``, ``_local_candidates``, ``_local_candidates_start``, ``_local_candidates_end``,
``_nominated``, ``_closed``, ``_protocols`` with ``datagram_received``; its pairs' ``protocol`` and ``remote_addr``;
`RTCDtlsTransport` - that of its transport it uses ``_recv``, ``_send`` and ``role`` only, ``_set_role``,
``_rx_srtp``, ``_tx_srtp``, ``_task``; `RTCSctpTransport` - ``_handle_data``, ``_advertised_rwnd``, ``_abort``,
``_set_state``, ``_send_chunk``.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

from ...pipeline.errors import MissingExtraError, SettingsError, TransportError
from ...pipeline.tasks import spawn
from .rtp import is_rtcp
from .sdp import Ice, SDPError

try:
    import aioice
    import aiortc
    import pylibsrtp
    from aioice import ice as aioice_ice
    from aiortc.rtcdtlstransport import RTCDtlsFingerprint, RTCDtlsParameters, RTCDtlsTransport
    from aiortc.rtcicetransport import connection_kwargs
    from aiortc.rtcsctptransport import RTCSctpCapabilities, RTCSctpTransport
except ImportError as error:
    raise MissingExtraError("The WebRTC transport", "aiortc", "webrtc") from error

logger = logging.getLogger(__name__)

LOOPBACK = "127.0.0.1"
WAITING = 256
"""Limit of DTLS datagrams that wait to be read."""
MAX_DATAGRAM = 1_500
ANSWER_S = 3
"""Time that an answer waits for STUN and TURN servers, in s: a hundred round trips."""


@dataclass(frozen=True)
class IceServer:
    """A STUN or TURN server: ``urls`` such as ``stun:host:3478`` or ``turn:host:3478?transport=udp``."""

    urls: str | Sequence[str]
    username: str | None = None
    credential: str | None = None

    def __repr__(self) -> str:
        return f"IceServer({self.urls!r})"


def ice_settings(servers: Sequence[IceServer]) -> dict[str, Any]:
    """Return aioice's arguments for ICE servers. Raises `SettingsError` for a malformed address."""
    known: list[Any] = []
    for server in servers:
        urls = [server.urls] if isinstance(server.urls, str) else list(server.urls)
        known.append(aiortc.RTCIceServer(urls, server.username, server.credential))
    try:
        return connection_kwargs(known)
    except ValueError as error:
        raise SettingsError(
            "ice_servers: an address is malformed. Write stun:host:port, turn:host:port?transport=udp or "
            "turns:host:port."
        ) from error


class IceConnection(aioice.Connection):
    """ICE that passes on each datagram in the socket's callback."""

    def __init__(self, wire: DtlsConnection, *, controlling: bool, loopback: bool, settings: dict[str, Any]) -> None:
        super().__init__(ice_controlling=controlling, **settings)
        self._wire = wire
        self._loopback = loopback
        self._resolving: asyncio.Task[None] | None = None

    async def gather(self) -> None:
        """Gather our own addresses; 127.0.0.1 on request, or as the only one."""
        self._local_candidates_start = True
        addresses = aioice_ice.get_host_addresses(use_ipv4=True, use_ipv6=True)
        self._local_candidates = await self.get_component_candidates(1, addresses, timeout=ANSWER_S)
        if self._loopback or not addresses:
            # Without STUN, which would cost time: this address reaches no other machine.
            servers = self.stun_server, self.turn_server
            self.stun_server = self.turn_server = None
            self._local_candidates += await self.get_component_candidates(1, [LOOPBACK])
            self.stun_server, self.turn_server = servers
        self._local_candidates_end = True
        for protocol in self._protocols:
            self._tap(protocol)
        self._complain()

    def _complain(self) -> None:
        """Log servers that returned no address: without them, clients in some networks cannot connect."""
        found = {candidate.type for candidate in self._local_candidates}
        for scheme, kind in (("stun", "srflx"), ("turn", "relay")):
            server: Any = getattr(self, f"{scheme}_server")
            if server is not None and kind not in found:
                logger.warning(
                    "%s:%s:%d gave no address within %d s: it cannot be reached, or refuses our name or password. "
                    "Clients in networks that let nothing in may not be able to connect.",
                    *(scheme, *server, ANSWER_S),
                )

    def _tap(self, protocol: Any) -> None:
        """Pass on a datagram. Most are not STUN (RFC 7983) and skip aioice's parser."""
        stun, take = protocol.datagram_received, self._wire.datagram

        def datagram_received(data: bytes, addr: Any) -> None:
            if data and data[0] > 19:
                take(data)
            else:
                stun(data, addr)

        protocol.datagram_received = datagram_received

    async def negotiate(self, remote: Ice) -> None:
        """Find a route to the other side. Raises ConnectionError where there is none."""
        self.remote_username, self.remote_password = remote.ufrag, remote.pwd
        self.remote_is_lite = remote.lite
        await self.add_all(remote.candidates, complete=remote.complete)
        await self.connect()

    async def add_all(self, candidates: Sequence[str], *, complete: bool) -> None:
        """Add candidates of the other side. ``complete``: these are the last. Raises `SDPError` for a malformed one.

        Names (``....local``, by which browsers hide addresses) are resolved in the background: it takes seconds without
        an answer, and usually the other side's own checks have arrived by then.
        """
        named = [candidate for candidate in candidates if ".local " in candidate]
        for candidate in candidates:
            if candidate not in named:
                await self._add(candidate)
        if named or (complete and self._resolving is not None):
            self._resolving = spawn(self._add_named(named, self._resolving, complete=complete), "webrtc-mdns")
        elif complete:
            await self._add(None)

    async def _add_named(self, candidates: list[str], before: asyncio.Task[None] | None, *, complete: bool) -> None:
        if before is not None:
            await asyncio.wait([before])
        for candidate in candidates:
            try:
                await self._add(candidate)
            except (SDPError, OSError) as error:
                logger.debug("A candidate with a name is passed over: %s", type(error).__name__)
        if complete:
            await self._add(None)

    async def _add(self, candidate: str | None) -> None:
        try:
            await self.add_remote_candidate(None if candidate is None else aioice.Candidate.from_sdp(candidate))
        except ValueError as error:
            # Candidates after the last are useless, but no error of the client.
            if candidate is not None and not self._remote_candidates_end:
                raise SDPError("A candidate is malformed.") from error

    def data_received(self, data: bytes, component: int) -> None:
        """Pass on a datagram that does not belong to ICE."""
        self._wire.datagram(data)

    def check_incoming(self, message: Any, addr: Any, protocol: Any) -> None:
        """Take a check of the other side. The check is signed with our password, so the other side is alive."""
        self._wire.alive()
        super().check_incoming(message, addr, protocol)

    def protocol_lost(self, protocol: Any) -> None:
        """Handle a socket lost by a network error."""
        pair = self._nominated.get(1)
        if pair is not None and pair.protocol is protocol:
            self._nominated.clear()
            self._wire.connection_closed(self)

    def send_now(self, data: bytes) -> bool:
        """Send a datagram. Returns False without a route."""
        pair = self._nominated.get(1)
        if pair is None:
            return False
        pair.protocol.transport.sendto(data, pair.remote_addr)
        return True

    @property
    def alive(self) -> bool:
        """True until it is closed."""
        return not self._closed

    async def close(self) -> None:
        """End the connection: by us, or because the other side's consent to receive expired (RFC 7675)."""
        if self._resolving is not None:
            self._resolving.cancel()
            await asyncio.wait([self._resolving])
            self._resolving = None
        await super().close()
        self._wire.connection_closed(self)


class _Link:
    """Stands in for DTLS's ICE transport."""

    role = "controlled"

    def __init__(self) -> None:
        # bound: WAITING datagrams, then the newest is dropped; DTLS and SCTP repeat what is lost
        self._queue: asyncio.Queue[bytes | None] = asyncio.Queue(WAITING + 1)
        self.connection: IceConnection | None = None

    def put(self, data: bytes | None) -> None:
        if data is None or self._queue.qsize() < WAITING:
            if self._queue.full():
                self._queue.get_nowait()
            self._queue.put_nowait(data)

    async def _recv(self) -> bytes:
        data = await self._queue.get()
        if data is None:
            raise ConnectionError
        return data

    async def _send(self, data: bytes) -> None:
        if self.connection is None or not self.connection.send_now(data):
            raise ConnectionError


class _Sctp(RTCSctpTransport):
    """SCTP that survives malformed packets and endless messages."""

    def __init__(self, dtls: Any, alive: Callable[[], None]) -> None:
        super().__init__(dtls)
        self._on_alive = alive

    async def _handle_data(self, data: bytes) -> None:
        # DTLS has decrypted it, so the client sent it.
        self._on_alive()
        try:
            await super()._handle_data(data)
        except ConnectionError:
            raise
        except Exception as error:
            logger.debug("A packet of a data channel is malformed: %s", type(error).__name__)
        if self._advertised_rwnd < 0:
            # The client ignores its full window (1 MiB): an endless message.
            logger.warning("A data channel is ended: the client sends more than it may.")
            await self._abort()
            self._set_state(self.State.CLOSED)

    async def _send_chunk(self, chunk: Any) -> None:
        try:
            await super()._send_chunk(chunk)
        except Exception as error:
            # SCTP's timers send in their own tasks, also after the route is lost; nothing would handle the error.
            logger.debug("A packet of a data channel is not sent: %s", type(error).__name__)


class DtlsConnection:
    """The connection to one client: ICE, DTLS, SRTP and SCTP.

    ``on_rtp`` and ``on_rtcp`` are called with decrypted packets, in the socket's callback. ``on_alive`` is called for
    each authenticated datagram of the client: decryptable SRTP and DTLS, signed ICE checks. ``on_channel`` is called
    with each data channel (`aiortc.RTCDataChannel`) that the client opens, ``on_gone`` when the connection is lost.
    """

    def __init__(
        self,
        *,
        on_rtp: Callable[[bytes], None],
        on_rtcp: Callable[[bytes], None],
        on_alive: Callable[[], None],
        on_channel: Callable[[Any], None],
        on_gone: Callable[[str], None],
        loopback: bool = False,
        ice_servers: Sequence[IceServer] = (),
    ) -> None:
        self._on_rtp = on_rtp
        self._on_rtcp = on_rtcp
        self.alive = on_alive
        self._on_channel = on_channel
        self._on_gone = on_gone
        self._loopback = loopback
        self._settings = ice_settings(ice_servers)
        self._link = _Link()
        certificate = aiortc.RTCCertificate.generateCertificate()
        # Untyped, because aiortc's types declare SRTP sessions that do not always exist.
        self._dtls: Any = RTCDtlsTransport(cast(Any, self._link), [certificate])
        self._dtls.on("statechange", self._dtls_changed)
        self._sctp: _Sctp | None = None
        self._closing = False
        self._ices: list[IceConnection] = []
        """ICE connections that are not closed: the one in use, and the one that a restart tries."""
        first = self._dtls.getLocalParameters().fingerprints[0]
        self.fingerprint: tuple[str, str] = (first.algorithm, first.value)

    # --- connecting ---------------------------------------------------------------------------------------------

    async def gather(self, *, lite: bool = False) -> IceConnection:
        """Make an ICE connection with our candidates. Raises `TransportError`."""
        ice = IceConnection(self, controlling=lite, loopback=self._loopback, settings=self._settings)
        self._ices.append(ice)
        await ice.gather()
        if self._closing:
            # It was closed before its sockets were opened.
            await ice.close()
            raise TransportError("This connection is over. Make a new offer.")
        if not ice.local_candidates:
            raise TransportError("This machine has no address that a client could reach: no candidate was found.")
        return ice

    async def connect(
        self, ice: IceConnection, remote: Ice, fingerprints: list[tuple[str, str]], *, active: bool
    ) -> None:
        """Connect ICE, then DTLS. ``active``: we begin the handshake. Raises ConnectionError."""
        await ice.negotiate(remote)
        self._link.connection = ice
        self._dtls._set_role("client" if active else "server")
        known = [RTCDtlsFingerprint(algorithm, value) for algorithm, value in fingerprints]
        await self._dtls.start(RTCDtlsParameters(fingerprints=known))
        if self._dtls.state != "connected":
            raise ConnectionError("the DTLS handshake failed")

    async def restart(self, ice: IceConnection, remote: Ice, *, wanted: Callable[[], bool] = lambda: True) -> None:
        """Switch to another ICE connection, below DTLS and SCTP. Raises ConnectionError.

        ``wanted``: called once it works; False where a newer connection has replaced it.
        """
        try:
            await ice.negotiate(remote)
            if not wanted():
                raise ConnectionError("a newer connection has replaced it")
        except BaseException:
            await ice.close()
            raise
        before, self._link.connection = self._link.connection, ice
        if before is not None and before is not ice:
            await before.close()

    async def open_channels(self, remote_port: int, remote_max_size: int) -> None:
        """Accept data channels of the client."""
        if self._sctp is None:
            self._sctp = sctp = _Sctp(self._dtls, self.alive)
            sctp.on("datachannel", self._on_channel)
            await sctp.start(RTCSctpCapabilities(maxMessageSize=remote_max_size), remote_port)

    @property
    def connected(self) -> bool:
        """True while media can flow."""
        return not self._closing and self._dtls.state == "connected"

    @property
    def ice(self) -> IceConnection | None:
        """The ICE connection in use; DTLS may still be connecting."""
        return self._link.connection

    # --- packets ------------------------------------------------------------------------------------------------

    def datagram(self, data: bytes) -> None:
        """Dispatch a datagram by its first byte (RFC 7983)."""
        if not data:
            return
        first = data[0]
        if 128 <= first <= 191:
            self._media(data)
        elif 20 <= first <= 63:
            self._link.put(data)

    def _media(self, data: bytes) -> None:
        srtp = self._dtls._rx_srtp
        if srtp is None or len(data) > MAX_DATAGRAM:
            return
        try:
            if is_rtcp(data):
                packet, take = srtp.unprotect_rtcp(data), self._on_rtcp
            else:
                packet, take = srtp.unprotect(data), self._on_rtp
        except pylibsrtp.Error:
            # Forged, or a repeat.
            return
        self.alive()
        take(packet)

    def send_rtp(self, packet: bytes) -> bool:
        """Encrypt and send RTP. Returns False without a connection."""
        srtp, ice = self._dtls._tx_srtp, self._link.connection
        return srtp is not None and ice is not None and ice.send_now(srtp.protect(packet))

    def send_rtcp(self, packet: bytes) -> bool:
        """Encrypt and send RTCP. Returns False without a connection."""
        srtp, ice = self._dtls._tx_srtp, self._link.connection
        return srtp is not None and ice is not None and ice.send_now(srtp.protect_rtcp(packet))

    # --- ending -------------------------------------------------------------------------------------------------

    def connection_closed(self, ice: IceConnection) -> None:
        """Handle the end of an ICE connection."""
        if not ice.alive and ice in self._ices:
            self._ices.remove(ice)
        if ice is self._link.connection:
            self._link.connection = None
            self._link.put(None)
            self._gone("the client no longer answers")

    def _dtls_changed(self) -> None:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # Not closed by us, so the event loop is ending, and a task to close the rest would never run. A running
            # worker is cancelled too, and closes it.
            return
        if self._dtls.state in ("closed", "failed"):
            self._gone("the client has closed the connection" if self._dtls.state == "closed" else "DTLS failed")

    def _gone(self, why: str) -> None:
        if not self._closing:
            self._on_gone(why)

    async def close(self) -> None:
        """Say goodbye, and release sockets, tasks and timers."""
        self._closing = True
        pump = cast("asyncio.Task[None] | None", self._dtls._task)
        if self._sctp is not None:
            await self._sctp.stop()
            self._sctp.remove_all_listeners()
        await self._dtls.stop()
        if pump is not None:
            # Python 3.11 can lose the cancellation that stops it.
            self._link.put(None)
            await asyncio.wait([pump])
            if not pump.cancelled():
                pump.exception()
        self._dtls.remove_all_listeners()
        for ice in list(self._ices):
            await ice.close()
        self._link.connection = None

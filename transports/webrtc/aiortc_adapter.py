"""Where we touch the inside of aiortc and aioice: this file, and no other.

Written for aiortc 1.16 with aioice 0.13. `tests/transports/webrtc/test_aiortc_adapter.py` fails where a new version no
longer has what is used here.

What is taken from them: ICE (`aioice.Connection`), DTLS with the SRTP keys (`RTCDtlsTransport`), and SCTP with data
channels (`RTCSctpTransport`), each as it is. What is not: `RTCPeerConnection` with its senders, receivers, tracks,
threads and tasks for each packet. Its place takes `Wire`, which does three things that it cannot:

- media goes past DTLS's task: a datagram that is SRTP is decrypted and handled in the socket's own callback, and what
  is sent is in the socket when `Wire.send_rtp` returns;
- ICE can be restarted under a DTLS and SCTP that stay (`Wire.restart`);
- a machine with nothing but its loopback has a candidate.

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
"""Datagrams of DTLS that wait to be read."""
MAX_DATAGRAM = 1_500
ANSWER_S = 3
"""So long an answer waits for what STUN and TURN servers have to say: as long as a hundred round trips."""


@dataclass(frozen=True)
class IceServer:
    """A STUN or TURN server: ``urls`` such as ``stun:host:3478`` or ``turn:host:3478?transport=udp``."""

    urls: str | Sequence[str]
    username: str | None = None
    credential: str | None = None

    def __repr__(self) -> str:
        return f"IceServer({self.urls!r})"


def ice_settings(servers: Sequence[IceServer]) -> dict[str, Any]:
    """What aioice wants to know of them. Raises `SettingsError` for an address that is none."""
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
    """ICE, which hands over what it receives in the socket's callback."""

    def __init__(self, wire: Wire, *, controlling: bool, loopback: bool, settings: dict[str, Any]) -> None:
        super().__init__(ice_controlling=controlling, **settings)
        self._wire = wire
        self._loopback = loopback
        self._resolving: asyncio.Task[None] | None = None

    async def gather(self) -> None:
        """Find our own addresses. 127.0.0.1 is one where it is asked for, and where there is no other."""
        self._local_candidates_start = True
        addresses = aioice_ice.get_host_addresses(use_ipv4=True, use_ipv6=True)
        self._local_candidates = await self.get_component_candidates(1, addresses, timeout=ANSWER_S)
        if self._loopback or not addresses:
            # Without STUN, which would be waited for: from this address nobody outside is reached.
            servers = self.stun_server, self.turn_server
            self.stun_server = self.turn_server = None
            self._local_candidates += await self.get_component_candidates(1, [LOOPBACK])
            self.stun_server, self.turn_server = servers
        self._local_candidates_end = True
        for protocol in self._protocols:
            self._tap(protocol)
        self._complain()

    def _complain(self) -> None:
        """Say which server was of no use: calls from some networks would come to nothing, and nobody knew why."""
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
        """What is not STUN (RFC 7983) need not be tried as such, which is most of the time."""
        stun, take = protocol.datagram_received, self._wire.datagram

        def datagram_received(data: bytes, addr: Any) -> None:
            if data and data[0] > 19:
                take(data)
            else:
                stun(data, addr)

        protocol.datagram_received = datagram_received

    async def negotiate(self, remote: Ice) -> None:
        """Find a way to the other side. Raises ConnectionError where there is none."""
        self.remote_username, self.remote_password = remote.ufrag, remote.pwd
        self.remote_is_lite = remote.lite
        await self.add_all(remote.candidates, complete=remote.complete)
        await self.connect()

    async def add_all(self, candidates: Sequence[str], *, complete: bool) -> None:
        """Candidates of the other side; ``complete``: they were the last. Raises `SDPError` for what is none.

        Names (``....local``, by which browsers hide addresses) are asked for beside it: it takes seconds where nobody
        answers, and mostly the other side's own checks have long come through by then.
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
            # After the last of them, more are of no use; they are not an error of the client's.
            if candidate is not None and not self._remote_candidates_end:
                raise SDPError("A candidate is malformed.") from error

    def data_received(self, data: bytes, component: int) -> None:
        """A datagram that is not of ICE."""
        self._wire.datagram(data)

    def check_incoming(self, message: Any, addr: Any, protocol: Any) -> None:
        """A check of the other side, which says that it is alive: it was signed with our password."""
        self._wire.alive()
        super().check_incoming(message, addr, protocol)

    def protocol_lost(self, protocol: Any) -> None:
        """A socket is gone, by an error of the network's."""
        pair = self._nominated.get(1)
        if pair is not None and pair.protocol is protocol:
            self._nominated.clear()
            self._wire.connection_closed(self)

    def send_now(self, data: bytes) -> bool:
        """Into the socket. False where there is no way yet, or any more."""
        pair = self._nominated.get(1)
        if pair is None:
            return False
        pair.protocol.transport.sendto(data, pair.remote_addr)
        return True

    @property
    def alive(self) -> bool:
        """Whether it still has to be closed."""
        return not self._closed

    async def close(self) -> None:
        """End it: we do, or the other side no longer agrees to be sent to (RFC 7675)."""
        if self._resolving is not None:
            self._resolving.cancel()
            await asyncio.wait([self._resolving])
            self._resolving = None
        await super().close()
        self._wire.connection_closed(self)


class _Link:
    """What DTLS takes for its ICE transport."""

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
    """SCTP that a malformed packet, or a message without an end, does not take everything down with."""

    def __init__(self, dtls: Any, alive: Callable[[], None]) -> None:
        super().__init__(dtls)
        self._on_alive = alive

    async def _handle_data(self, data: bytes) -> None:
        # DTLS has decrypted it: nobody else can have sent it.
        self._on_alive()
        try:
            await super()._handle_data(data)
        except ConnectionError:
            raise
        except Exception as error:
            logger.debug("A packet of a data channel is malformed: %s", type(error).__name__)
        if self._advertised_rwnd < 0:
            # It sends on though its window (1 MiB) is full: of a message that has no end.
            logger.warning("A data channel is ended: the client sends more than it may.")
            await self._abort()
            self._set_state(self.State.CLOSED)

    async def _send_chunk(self, chunk: Any) -> None:
        try:
            await super()._send_chunk(chunk)
        except Exception as error:
            # Its timers send in tasks of their own, also when the way is lost already; nobody would take the error.
            logger.debug("A packet of a data channel is not sent: %s", type(error).__name__)


class Wire:
    """The way to one client: ICE, DTLS, SRTP and SCTP.

    ``on_rtp`` and ``on_rtcp`` get decrypted packets, in the socket's callback. ``on_alive`` is called for whatever
    comes from the client and from nobody else: SRTP and DTLS that can be decrypted, checks of ICE that are signed.
    ``on_channel`` gets each data channel (`aiortc.RTCDataChannel`) that it opens; ``on_gone`` is called when the way
    is lost.
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
        # Untyped from here on: SRTP's sessions are said to be always there, and are not.
        self._dtls: Any = RTCDtlsTransport(cast(Any, self._link), [certificate])
        self._dtls.on("statechange", self._dtls_changed)
        self._sctp: _Sctp | None = None
        self._closing = False
        self._ices: list[IceConnection] = []
        """All that are not closed: the one in use, and the one that a restart tries."""
        first = self._dtls.getLocalParameters().fingerprints[0]
        self.fingerprint: tuple[str, str] = (first.algorithm, first.value)

    # --- connecting ---------------------------------------------------------------------------------------------

    async def gather(self, *, lite: bool = False) -> IceConnection:
        """A new ICE connection, with its candidates."""
        ice = IceConnection(self, controlling=lite, loopback=self._loopback, settings=self._settings)
        self._ices.append(ice)
        await ice.gather()
        if self._closing:
            # It was closed too early to have its sockets with it.
            await ice.close()
            raise TransportError("This connection is over. Make a new offer.")
        if not ice.local_candidates:
            raise TransportError("This machine has no address that a client could reach: no candidate was found.")
        return ice

    async def connect(
        self, ice: IceConnection, remote: Ice, fingerprints: list[tuple[str, str]], *, active: bool
    ) -> None:
        """ICE, then DTLS. ``active``: we begin the handshake. Raises ConnectionError."""
        await ice.negotiate(remote)
        self._link.connection = ice
        self._dtls._set_role("client" if active else "server")
        known = [RTCDtlsFingerprint(algorithm, value) for algorithm, value in fingerprints]
        await self._dtls.start(RTCDtlsParameters(fingerprints=known))
        if self._dtls.state != "connected":
            raise ConnectionError("the DTLS handshake failed")

    async def restart(self, ice: IceConnection, remote: Ice, *, wanted: Callable[[], bool] = lambda: True) -> None:
        """Go over to another ICE connection; what is above it does not notice. Raises ConnectionError.

        ``wanted``: asked when it stands: whether there is no newer one, to which the client has gone over.
        """
        try:
            await ice.negotiate(remote)
            if not wanted():
                raise ConnectionError("there is a newer one")
        except BaseException:
            await ice.close()
            raise
        before, self._link.connection = self._link.connection, ice
        if before is not None and before is not ice:
            await before.close()

    async def open_channels(self, remote_port: int, remote_max_size: int) -> None:
        """Let the client open data channels."""
        if self._sctp is None:
            self._sctp = sctp = _Sctp(self._dtls, self.alive)
            sctp.on("datachannel", self._on_channel)
            await sctp.start(RTCSctpCapabilities(maxMessageSize=remote_max_size), remote_port)

    @property
    def connected(self) -> bool:
        """Whether media can flow."""
        return not self._closing and self._dtls.state == "connected"

    @property
    def ice(self) -> IceConnection | None:
        """The way that was found, and is in use; DTLS may not be through yet."""
        return self._link.connection

    # --- packets ------------------------------------------------------------------------------------------------

    def datagram(self, data: bytes) -> None:
        """What is it (RFC 7983)?"""
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
            # Forged, or here already.
            return
        self.alive()
        take(packet)

    def send_rtp(self, packet: bytes) -> bool:
        """Encrypt, and into the socket. False where there is no way."""
        srtp, ice = self._dtls._tx_srtp, self._link.connection
        return srtp is not None and ice is not None and ice.send_now(srtp.protect(packet))

    def send_rtcp(self, packet: bytes) -> bool:
        """As `send_rtp`."""
        srtp, ice = self._dtls._tx_srtp, self._link.connection
        return srtp is not None and ice is not None and ice.send_now(srtp.protect_rtcp(packet))

    # --- ending -------------------------------------------------------------------------------------------------

    def connection_closed(self, ice: IceConnection) -> None:
        """An ICE connection has ended."""
        if not ice.alive and ice in self._ices:
            self._ices.remove(ice)
        if ice is self._link.connection:
            self._link.connection = None
            self._link.put(None)
            self._gone("the client no longer answers")

    def _dtls_changed(self) -> None:
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            # Not by us, who would be closing: the event loop ends. A task that was begun now to close all this would
            # never run. Where a worker is at work it is cancelled, too, and closes it.
            return
        if self._dtls.state in ("closed", "failed"):
            self._gone("the client has closed the connection" if self._dtls.state == "closed" else "DTLS failed")

    def _gone(self, why: str) -> None:
        if not self._closing:
            self._on_gone(why)

    async def close(self) -> None:
        """Say goodbye, and give everything back: sockets, tasks, timers."""
        self._closing = True
        pump = cast("asyncio.Task[None] | None", self._dtls._task)
        if self._sctp is not None:
            await self._sctp.stop()
            self._sctp.remove_all_listeners()
        await self._dtls.stop()
        if pump is not None:
            # Python 3.11 can lose the cancellation that it is stopped by.
            self._link.put(None)
            await asyncio.wait([pump])
            if not pump.cancelled():
                pump.exception()
        self._dtls.remove_all_listeners()
        for ice in list(self._ices):
            await ice.close()
        self._link.connection = None

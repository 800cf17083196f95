"""One connection of a client: offers and answers, the voices of both sides, and the data channel.

A peer ends for good when its connection is lost. `WebRTCTransport` handles a user who comes back.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from ...pipeline.clock import NS_PER_S, Clock, TimerHandle
from ...pipeline.errors import SettingsError
from ...pipeline.frames import Samples
from ...pipeline.tasks import spawn
from .aiortc_adapter import DtlsConnection, IceConnection, IceServer
from .opus import RATES, Encoder
from .receiver import VoiceReceiver
from .rtp import Bye, ReportBlock, SenderReport, parse_rtcp, parse_rtp
from .sdp import Ice, Offer, Ours, SDPError, check_ice, direction_of_answer, write_answer
from .sender import VoiceSender

logger = logging.getLogger(__name__)

MAX_CHANNELS = 8
"""Limit of data channels of one client."""
MAX_CANDIDATES = 200
"""Limit of candidates of one client over its whole life."""
MAX_UNSENT = 1_000_000
"""Limit of bytes that wait to be sent to the client; a message beyond it is dropped."""


@dataclass(frozen=True)
class PeerSettings:
    """Settings that all peers of a transport share. See `WebRTCTransport`."""

    sample_rate: int = 16_000
    output_rate: int = 24_000
    stereo: bool = False
    bit_rate: int = 40_000
    complexity: int = 1
    ice_servers: Sequence[IceServer] = ()
    loopback: bool = False
    silent_timeout_s: float = 10.0
    connect_timeout_s: float = 30.0
    max_message_bytes: int = 65_536
    max_messages_per_s: int = 200

    def __post_init__(self) -> None:
        if self.sample_rate not in RATES or self.output_rate not in RATES:
            raise SettingsError(
                f"WebRTC sends Opus, which supports {', '.join(str(rate) for rate in RATES)} Hz, and not "
                f"sample_rate={self.sample_rate}, output_rate={self.output_rate}. Use 16000 and 24000 (the defaults); "
                "other audio of the bot is resampled."
            )
        if min(self.silent_timeout_s, self.connect_timeout_s) <= 0:
            raise SettingsError("silent_timeout_s and connect_timeout_s must be above 0 s.")


class Owner(Protocol):
    """The owner of a peer, which is notified of its events."""

    def peer_connected(self, peer: Peer) -> None:
        """Handle a peer whose media flows."""
        ...

    def peer_lost(self, peer: Peer, why: str) -> None:
        """Handle the loss of a peer, notified once. The owner then calls `Peer.close`."""
        ...

    def peer_heard(self, peer: Peer, samples: Samples, pts_ns: int) -> None:
        """Take audio of the user."""
        ...

    def peer_told(self, peer: Peer, text: str) -> None:
        """Take a message of the client's program."""
        ...

    def peer_refused(self, peer: Peer, why: str) -> None:
        """Handle a message that was refused."""
        ...


class Peer:
    """Answers offers, then carries the connection."""

    def __init__(self, owner: Owner, clock: Clock, settings: PeerSettings) -> None:
        self._owner = owner
        self._clock = clock
        self._settings = settings
        self._wire = DtlsConnection(
            on_rtp=self._rtp,
            on_rtcp=self._rtcp,
            on_alive=self._alive,
            on_channel=self._channel,
            on_gone=self._lost,
            loopback=settings.loopback,
            ice_servers=settings.ice_servers,
        )
        self._ssrc = secrets.randbits(32) or 1
        self._cname = secrets.token_hex(8)
        self._version = 0
        self._offer: Offer | None = None
        self._ice: IceConnection | None = None
        """The newest connection, in use or being tried."""
        self._candidates = 0
        self._tasks: list[asyncio.Task[None]] = []
        self._timer: TimerHandle | None = None
        self._timer_ns = 0
        self._heard_ns = 0
        self._over = False
        self._closing = False
        self._channels: list[Any] = []
        self._second = 0
        self._messages = 0
        self.sender = VoiceSender(
            clock,
            self._encoder,
            self._wire.send_rtp,
            self._wire.send_rtcp,
            payload_type=0,
            ssrc=self._ssrc,
            cname=self._cname,
            # From the lower half: a receiver that missed the first packets could otherwise misjudge the roll-over.
            first_sequence=secrets.randbits(15),
            first_timestamp=secrets.randbits(32),
        )
        self.receiver: VoiceReceiver | None = None

    def _encoder(self, loss_percent: int) -> Encoder:
        settings = self._settings
        return Encoder(
            settings.output_rate,
            2 if settings.stereo else 1,
            bit_rate=settings.bit_rate,
            complexity=settings.complexity,
            loss_percent=loss_percent,
        )

    # --- signaling ----------------------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """True while media flows."""
        return self._wire.connected and not self._over

    @property
    def ice_tag(self) -> str:
        """Name of the ICE session; an ICE restart changes it."""
        return self._ice.local_username if self._ice is not None else ""

    def fits(self, offer: Offer) -> bool:
        """Return True for an offer of the same connected client, which has the same DTLS certificate."""
        return self._offer is not None and not self._over and self._offer.fingerprints == offer.fingerprints

    async def answer(self, offer: Offer) -> str:
        """Answer an offer: the first, a renegotiation, or an ICE restart."""
        before, self._offer = self._offer, offer
        self._version += 1
        try:
            if before is None or self._ice is None:
                self._ice = await self._wire.gather(lite=offer.ice.lite)
                self._begin(offer, self._ice)
            elif offer.ice.ufrag != before.ice.ufrag:
                await self._restart(offer.ice)
            else:
                await self.add_candidates(offer.ice.candidates)
                self._configure(offer)
        except BaseException:
            # A repeated offer must be compared with the current one, not with itself.
            self._offer = before
            raise
        return write_answer(offer, self._ours(self._ice))

    def _ours(self, ice: IceConnection) -> Ours:
        return Ours(
            ice.local_username,
            ice.local_password,
            tuple(candidate.to_sdp() for candidate in ice.local_candidates),
            self._wire.fingerprint,
            self._ssrc,
            self._cname,
            self._version,
            self._settings.stereo,
            self._settings.max_message_bytes,
        )

    async def add_candidates(self, candidates: Sequence[str], *, complete: bool = False) -> None:
        """Add candidates. Raises `SDPError` for a malformed one; candidates beyond `MAX_CANDIDATES` are ignored."""
        if self._ice is None or self._over:
            return
        room = max(0, MAX_CANDIDATES - self._candidates)
        self._candidates += len(candidates)
        taken = [candidate.removeprefix("candidate:") for candidate in candidates[:room]]
        await self._ice.add_all(taken, complete=complete)

    async def restart_ice(self, ufrag: str, pwd: str) -> tuple[str, str, list[str]]:
        """Restart ICE for the client (RFC 9725, section 4.3.2). Returns our ufrag, pwd and candidates."""
        check_ice(ufrag, pwd)
        await self._restart(Ice(ufrag, pwd, (), complete=False, lite=False))
        assert self._ice is not None
        ours = self._ours(self._ice)
        return ours.ufrag, ours.pwd, list(ours.candidates)

    # --- connecting ---------------------------------------------------------------------------------------------

    def _begin(self, offer: Offer, ice: IceConnection) -> None:
        self._configure(offer)
        self._candidates = len(offer.ice.candidates)
        self._tasks.append(spawn(self._connect(offer, ice), "webrtc-connect"))
        self._set_timer(self._settings.connect_timeout_s, self._too_late)

    def _configure(self, offer: Offer) -> None:
        self.sender.payload_type = offer.payload_type
        self.sender.sends = direction_of_answer(offer) in ("sendrecv", "sendonly")
        if self.receiver is None:
            self.receiver = VoiceReceiver(
                self._clock, self._heard, payload_type=offer.payload_type, sample_rate=self._settings.sample_rate
            )
            self.sender.blocks = self.receiver.blocks
        self.receiver.payload_type = offer.payload_type

    async def _connect(self, offer: Offer, ice: IceConnection) -> None:
        try:
            await self._wire.connect(ice, offer.ice, offer.fingerprints, active=offer.setup != "active")
            if self._over:
                return
            self._alive()
            self._set_timer(self._settings.silent_timeout_s, self._look)
            self.sender.start()
            self._owner.peer_connected(self)
            if offer.data is not None:
                await self._wire.open_channels(offer.sctp_port, offer.max_message_size)
        except ConnectionError as error:
            self._lost(f"no connection: {str(error) or 'it was lost'}")
        except Exception as error:
            # The client's handshake is wrong: errors of OpenSSL, or no certificate.
            logger.debug("The handshake failed.", exc_info=True)
            self._lost(f"no connection: the handshake failed ({type(error).__name__})")

    async def _restart(self, remote: Ice) -> None:
        """Try a new connection beside the current one, which stays in use until the new one works."""
        if self._wire.ice is None:
            # There is no working connection to keep.
            await self._begin_again(remote)
            return
        self._ice = ice = await self._wire.gather(lite=remote.lite)
        self._candidates = len(remote.candidates)
        self._tasks = [task for task in self._tasks if not task.done()]
        self._tasks.append(spawn(self._go_over(ice, remote), "webrtc-restart"))

    async def _begin_again(self, remote: Ice) -> None:
        offer = self._offer
        assert offer is not None
        for task in self._tasks:
            task.cancel()
        if self._ice is not None:
            await self._ice.close()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self._tasks.clear()
        self._ice = await self._wire.gather(lite=remote.lite)
        offer.ice = remote
        self._begin(offer, self._ice)

    async def _go_over(self, ice: IceConnection, remote: Ice) -> None:
        try:
            await self._wire.restart(ice, remote, wanted=lambda: self._ice is ice)
        except (ConnectionError, SDPError):
            logger.info("A restart of ICE found no way; the connection stays as it was.")
            if self._ice is ice:
                # Further answers concern the connection in use.
                self._ice = self._wire.ice or ice

    # --- is it there? -------------------------------------------------------------------------------------------

    def _set_timer(self, after_s: float, callback: Any) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ns = self._clock.now_ns() + round(after_s * NS_PER_S)
        self._timer = self._clock.call_at(self._timer_ns, callback)

    def _alive(self) -> None:
        self._heard_ns = self._clock.now_ns()

    def _too_late(self) -> None:
        self._lost(f"no connection within {self._settings.connect_timeout_s:g} s")

    def _look(self) -> None:
        """Check at the deadline for silence, not at each packet."""
        timeout_s = self._settings.silent_timeout_s
        # A stall of our own event loop prevents reading, so its time does not count against the client.
        self._heard_ns += max(0, self._clock.now_ns() - self._timer_ns)
        left_s = timeout_s - (self._clock.now_ns() - self._heard_ns) / NS_PER_S
        if left_s <= 0:
            self._lost(f"nothing came from the client for {timeout_s:g} s")
        else:
            self._set_timer(left_s, self._look)

    def _lost(self, why: str) -> None:
        if not self._over:
            self._over = True
            self._owner.peer_lost(self, why)

    async def close(self) -> None:
        """Say goodbye, and release all resources."""
        if self._closing:
            return
        self._over = self._closing = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks)
        self.sender.stop()
        if self.receiver is not None:
            self.receiver.stop()
        await self._wire.close()
        self._channels.clear()

    # --- media --------------------------------------------------------------------------------------------------

    def _rtp(self, data: bytes) -> None:
        packet = parse_rtp(data)
        if packet is not None and self.receiver is not None:
            self.receiver.packet(packet)

    def _heard(self, samples: Samples, pts_ns: int) -> None:
        self._owner.peer_heard(self, samples, pts_ns)

    def _rtcp(self, data: bytes) -> None:
        for report in parse_rtcp(data):
            if isinstance(report, ReportBlock):
                self.sender.heard(report)
            elif isinstance(report, SenderReport):
                if self.receiver is not None:
                    self.receiver.sender_report(report)
            else:
                self._bye(report)

    def _bye(self, bye: Bye) -> None:
        """Handle a microphone that is off. The client may still be connected, and hear."""

    # --- messages -----------------------------------------------------------------------------------------------

    def _channel(self, channel: Any) -> None:
        if len(self._channels) >= MAX_CHANNELS:
            channel.close()
            return
        self._channels.append(channel)
        channel.on("message", self._message)
        channel.on("close", lambda: self._closed_channel(channel))

    def _closed_channel(self, channel: Any) -> None:
        if channel in self._channels:
            self._channels.remove(channel)

    def _message(self, message: str | bytes) -> None:
        if self._over:
            return
        second = self._clock.now_ns() // NS_PER_S
        if second != self._second:
            self._second, self._messages = second, 0
        self._messages += 1
        bound = self._settings.max_messages_per_s
        if self._messages > bound:
            if self._messages == bound + 1:
                self._owner.peer_refused(self, f"More than {bound} messages in a second: the rest of them is ignored.")
        elif isinstance(message, bytes):
            self._owner.peer_refused(self, "A binary message is ignored: send text.")
        elif len(message) > self._settings.max_message_bytes or (
            len(message.encode()) > self._settings.max_message_bytes
        ):
            self._owner.peer_refused(
                self, f"A message of more than {self._settings.max_message_bytes} bytes is ignored: send less at once."
            )
        else:
            self._tell(message)

    def _tell(self, message: str) -> None:
        try:
            self._owner.peer_told(self, message)
        except Exception as error:
            # The exception may quote the message, which is the user's.
            logger.error("on_message raised %s; its traceback is logged as debug.", type(error).__name__)
            logger.debug("on_message raised:", exc_info=True)

    def send_message(self, text: str) -> bool:
        """Send a message to the client's program. Returns False where it is dropped: no open channel, or a full one."""
        for channel in reversed(self._channels):
            if channel.readyState == "open":
                size = len(text.encode())
                if channel.bufferedAmount + size > MAX_UNSENT:
                    return False
                try:
                    channel.send(text)
                except ValueError:
                    logger.warning("A message of %d bytes is more than the client takes, and is dropped.", size)
                    return False
                return True
        return False

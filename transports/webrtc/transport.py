"""The WebRTC transport: the user comes by a browser, an app or a bridge.

::

    transport = WebRTCTransport()
    answer = await transport.answer(offer)          # the offer may come any way; see ../server
    await PipelineWorker(Pipeline([transport.input(), ..., transport.output()])).run()

"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence

from ...pipeline.client_frames import ServerMessageFrame
from ...pipeline.clock import NS_PER_S, Clock, SystemClock, TimerHandle
from ...pipeline.errors import TransportError
from ...pipeline.frames import ClientConnectedFrame, ClientDisconnectedFrame, Frame, InputAudioFrame, Samples
from ...pipeline.tasks import spawn
from ..base import Transport
from .aiortc_adapter import IceServer
from .peer import Peer, PeerSettings
from .sdp import Offer, parse_offer


class WebRTCTransport(Transport):
    """One session with one user, who may disconnect and come back.

    ``sample_rate`` and ``output_rate`` are rates of Opus: 8000, 12000, 16000, 24000 or 48000 Hz. ``lead_ms``: audio
    waits here this long before it is sent, so that a shorter stall of the event loop is inaudible; an interruption
    drops what waits. ``bit_rate`` (bit/s) and ``complexity`` (0 to 10) are Opus's.

    ``stereo``: send two channels. ``ice_servers``: STUN and TURN servers. ``loopback``: be reachable at 127.0.0.1, as
    a machine without another address always is. ``silent_timeout_s``: a client from which nothing arrives for this long
    is gone; datagrams of strangers do not count. ``reconnect_s``: time for a lost client to come back before the
    conversation ends. ``connect_timeout_s``: time for the first connection. ``on_message``: called with the text
    messages of the client's data channel.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        output_rate: int = 24_000,
        buffer_ms: float = 2_000,
        gap_ms: float = 300,
        lead_ms: float = 40,
        stereo: bool = False,
        bit_rate: int | None = None,
        complexity: int = 1,
        ice_servers: Sequence[IceServer] = (),
        loopback: bool = False,
        silent_timeout_s: float = 10.0,
        connect_timeout_s: float = 30.0,
        reconnect_s: float = 20.0,
        max_message_bytes: int = 65_536,
        on_message: Callable[[str], None] | None = None,
    ) -> None:
        super().__init__(
            sample_rate=sample_rate,
            output_rate=output_rate,
            buffer_ms=buffer_ms,
            gap_ms=gap_ms,
            lead_ms=lead_ms,
            on_grid=True,
        )
        self._settings = PeerSettings(
            sample_rate=sample_rate,
            output_rate=output_rate,
            stereo=stereo,
            bit_rate=bit_rate or (64_000 if stereo else 40_000),
            complexity=complexity,
            ice_servers=tuple(ice_servers),
            loopback=loopback,
            silent_timeout_s=silent_timeout_s,
            connect_timeout_s=connect_timeout_s,
            max_message_bytes=max_message_bytes,
        )
        self.reconnect_s = reconnect_s
        self.on_message = on_message
        self.on_tell: Callable[[ServerMessageFrame], None] | None = None
        """Called with the bot's messages for the client's program; see `attach_rtvi`."""
        self.on_end: Callable[[], None] | None = None
        """Called once the transport is closed."""
        self._lock = asyncio.Lock()
        self._peer: Peer | None = None
        """The connected peer."""
        self._coming: Peer | None = None
        """The peer that has an answer and is not connected yet."""
        self._leaving: set[asyncio.Task[None]] = set()
        self._open = False
        self._closed = False
        self._waiting: TimerHandle | None = None
        self._offset_ns = 0
        """Offset from the peer's timestamps to the session's."""
        self._end_ns = 0

    # --- signaling ----------------------------------------------------------------------------------------------

    async def answer(self, offer: str | Offer, *, restart: bool = False) -> str:
        """Answer an offer, as SDP or parsed: the first, a renegotiation, an ICE restart, or the same user's new page.

        ``restart``: replace the current connection, even where the offer seems to be from the same one.
        May be called before the worker runs. Raises `SDPError` (a `TransportError`) for an offer that cannot be
        answered, and `TransportError` when the session is over.
        """
        parsed = parse_offer(offer) if isinstance(offer, str) else offer
        async with self._lock:
            if self._closed:
                raise TransportError("This session is over. Begin a new one.")
            for peer in (self._coming, self._peer):
                if peer is not None and not restart and peer.fits(parsed):
                    return await peer.answer(parsed)
            peer = Peer(self, self._system_clock(), self._settings)
            try:
                answer = await peer.answer(parsed)
            except BaseException:
                await peer.close()
                raise
            before, self._coming = self._coming, peer
            if before is not None:
                self._discard(before)
            return answer

    async def add_candidates(self, candidates: Sequence[str], *, complete: bool = False) -> None:
        """Add ICE candidates, ``candidate:...`` each (trickle ICE). ``complete``: these are the last.

        Raises `SDPError` where one is malformed.
        """
        peer = self._coming or self._peer
        if peer is not None:
            await peer.add_candidates(candidates, complete=complete)

    async def restart_ice(self, ufrag: str, pwd: str) -> tuple[str, str, list[str]]:
        """Restart ICE without an offer, for the client. Returns our ufrag, pwd and candidates.

        Raises `SDPError` for a malformed ufrag or pwd, `TransportError` where no client is connected.
        """
        async with self._lock:
            peer = self._coming or self._peer
            if peer is None:
                raise TransportError("No client is connected, so there is no ICE session to restart. Make a new offer.")
            return await peer.restart_ice(ufrag, pwd)

    @property
    def ice_tag(self) -> str:
        """Name of the client's ICE session; an ICE restart changes it. Empty without a session."""
        peer = self._coming or self._peer
        return "" if peer is None else peer.ice_tag

    @property
    def connected(self) -> bool:
        """True while a client is connected."""
        return self._peer is not None

    @property
    def peer(self) -> Peer | None:
        """The connected peer, with its packet counts; None without one."""
        return self._peer

    def send_message(self, text: str) -> bool:
        """Send a text message to the client's program. False where it has no open data channel, or is too slow."""
        return self._peer is not None and self._peer.send_message(text)

    # --- events of the peers ------------------------------------------------------------------------------------

    def peer_connected(self, peer: Peer) -> None:
        """Put a connected peer in place of the one before."""
        if peer is not self._coming:
            # A newer offer has replaced this peer.
            return
        before, self._peer, self._coming = self._peer, peer, None
        self._stop_waiting()
        if before is not None:
            self._discard(before)
            self._say(ClientDisconnectedFrame("a newer connection of the same user took over"))
        self._offset_ns = self._end_ns
        self._say(ClientConnectedFrame())

    def peer_lost(self, peer: Peer, why: str) -> None:
        """Wait for a lost client to come back."""
        self._discard(peer)
        if peer is self._coming:
            self._coming = None
        if peer is self._peer:
            self._peer = None
            self._say(ClientDisconnectedFrame(why))
            self._wait_for_client(self.reconnect_s)

    def peer_heard(self, peer: Peer, samples: Samples, pts_ns: int) -> None:
        """Deliver audio of the user. Audio before the worker runs is dropped."""
        if self._open and peer is self._peer:
            pts_ns += self._offset_ns
            self._end_ns = pts_ns + len(samples) * NS_PER_S // self.sample_rate
            self.deliver(InputAudioFrame(samples, self.sample_rate, pts_ns))

    def peer_told(self, peer: Peer, text: str) -> None:
        """Pass on a message of the client's program."""
        if self.on_message is not None:
            self.on_message(text)

    def peer_refused(self, peer: Peer, why: str) -> None:
        """Notify the client in the form of an RTVI error, which any client that reads JSON can understand."""
        error = {"label": "rtvi-ai", "type": "error", "id": "", "data": {"error": why, "fatal": False}}
        peer.send_message(json.dumps(error))

    # --- the transport's methods --------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start to deliver the user's audio. The client may be connected already, or connect later."""
        self._closed, self._open = False, True
        if self._peer is None:
            self._wait_for_client(self._settings.connect_timeout_s)
        else:
            self._say(ClientConnectedFrame())

    def send(self, samples: Samples, due_ns: int) -> None:
        """Send 20 ms in the next free slot; the first of a response at once."""
        if self._peer is not None:
            self._peer.sender.send(samples, due_ns)

    def clear(self) -> None:
        """Drop waiting audio. Silence follows from the next slot on."""
        if self._peer is not None:
            self._peer.sender.clear()

    def pause(self) -> None:
        """Send silence from the next slot on; keep the waiting audio."""
        if self._peer is not None:
            self._peer.sender.pause()

    def resume(self) -> None:
        """Send the kept audio from the next slot on."""
        if self._peer is not None:
            self._peer.sender.resume()

    async def part(self) -> None:
        """End the session and its conversation, with a goodbye to the client."""
        self._closed = True
        self._stop_waiting()
        if self._peer is not None:
            self._say(ClientDisconnectedFrame("the session was ended"))
        self.hang_up()
        async with self._lock:
            for peer in (self._peer, self._coming):
                if peer is not None:
                    self._discard(peer)
            self._peer = self._coming = None
        while self._leaving:
            await asyncio.wait(self._leaving)

    def tell(self, message: ServerMessageFrame) -> None:
        """Send a message of the bot to the client's program."""
        if self.on_tell is not None:
            self.on_tell(message)

    async def close(self) -> None:
        """Say goodbye to the client, and release sockets, tasks and timers."""
        self._open = False
        # Notifies the published RTVI clients that the bot has left; without it they try to reconnect.
        self.send_message('{"type": "signalling", "message": {"type": "peerLeft"}}')
        try:
            await self.part()
        finally:
            # Also after the deadline of the worker's end: otherwise this session would stay registered for ever.
            if self.on_end is not None:
                self.on_end()

    # --- waiting for the client ---------------------------------------------------------------------------------

    def _system_clock(self) -> Clock:
        """Return the worker's clock; the system's before the worker runs, since a client may connect earlier."""
        return SystemClock() if self.worker_clock is None else self.worker_clock

    def _say(self, frame: Frame) -> None:
        """Deliver a fact while the worker runs. Before that, `open` reports the state."""
        if self._open:
            self.deliver(frame)

    def _wait_for_client(self, timeout_s: float) -> None:
        self._stop_waiting()
        if self._open:
            when_ns = self.clock.now_ns() + round(timeout_s * NS_PER_S)
            self._waiting = self.clock.call_at(when_ns, self._give_up)

    def _give_up(self) -> None:
        """Hang up after the deadline, unless a client with an answer is about to connect."""
        if self._coming is not None:
            self._wait_for_client(1.0)
        else:
            self.hang_up()

    def _stop_waiting(self) -> None:
        if self._waiting is not None:
            self._waiting.cancel()
            self._waiting = None

    def _discard(self, peer: Peer) -> None:
        task = spawn(peer.close(), "webrtc-close")
        self._leaving.add(task)
        task.add_done_callback(self._leaving.discard)

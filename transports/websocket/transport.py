"""`WebSocketTransport`: one peer at a time over a WebSocket, in the protocol of its serializer."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

import numpy as np
from aiohttp import web

from ...pipeline.client_frames import ServerMessageFrame
from ...pipeline.clock import NS_PER_MS, NS_PER_S, TimerHandle, Wait
from ...pipeline.errors import QueueOverflowError, TransportError
from ...pipeline.frames import ClientConnectedFrame, ClientDisconnectedFrame, Frame, InputAudioFrame, Samples
from ...pipeline.tasks import spawn
from ..base import Transport
from ..silence_watch import SILENT_S, SilenceWatch
from ..transport_api import CHUNK_MS, CHUNK_NS
from .serializers import POLICY, Decoded, ForeignMessage, MarkPlayed, MessageError, RawSerializer, Serializer
from .socket import CLOSE_S, AiohttpSocket, PeerSocket

log = logging.getLogger("voxline")

NORMAL = 1000
"""Close code at the end of a conversation."""
BROKEN = 1011
"""Close code for an internal error."""
BUSY = 1013
"""Close code if the bot does not run yet."""

MAX_AHEAD_S = 10.0
"""Bound on audio received ahead of real time, in s (networks release delayed audio at once); beyond it, the peer is
closed."""
MAX_MESSAGES_PER_S = 1_000
"""Bound on messages. A page that sends each audio quantum (128 samples at 48 kHz) reaches 375."""
MESSAGE_QUEUE_BYTES = 262_144
"""With this many bytes waiting for a peer that does not read, messages are dropped too."""
LAST_WORDS_S = 1.0
"""Longest wait at the end, in s, for a peer that reports when it has played all audio."""


class WebSocketTransport(Transport):
    """One peer over a WebSocket. Pass it an upgrade request (`accept`) or an open WebSocket (`serve`).

    ``serializer``: the protocol; default `RawSerializer`. ``sample_rate``: rate of the pipeline's input, in Hz.
    ``lead_ms``: audio buffered at the peer against network jitter; an interruption clears it. ``queue_ms``: bound on
    audio waiting for a slow peer; beyond it audio is dropped, counted in `dropped_ms` and reported once.
    ``connect_timeout_s``: time to wait for the first peer; ``reconnect_s``: time to wait for a lost peer to return (a
    peer that says goodbye ends the conversation at once); None: no limit. ``heartbeat_s``: a peer silent for this long
    is pinged, and lost without an answer after half of that. ``max_message_bytes``: size of the longest message
    accepted. The others: see `Transport`.
    """

    def __init__(
        self,
        serializer: Serializer | None = None,
        *,
        sample_rate: int = 16_000,
        buffer_ms: float = 2_000,
        gap_ms: float = 300,
        lead_ms: float = 60,
        silent_timeout_s: float | None = None,
        queue_ms: float = 1_000,
        connect_timeout_s: float | None = 30,
        reconnect_s: float | None = 20,
        heartbeat_s: float = 5,
        max_message_bytes: int = 65_536,
    ) -> None:
        self.serializer = serializer or RawSerializer()
        super().__init__(
            sample_rate=sample_rate,
            output_rate=self.serializer.output_rate,
            buffer_ms=buffer_ms,
            gap_ms=gap_ms,
            lead_ms=lead_ms,
            silent_timeout_s=silent_timeout_s,
        )
        self.queue_ms = queue_ms
        self.connect_timeout_s = connect_timeout_s
        self.reconnect_s = reconnect_s
        self.heartbeat_s = heartbeat_s
        self.max_message_bytes = max_message_bytes
        self.on_message: Callable[[str], None] | None = None
        """Called with each message of another protocol (RTVI) on the same connection; see `send_message`."""
        self.on_tell: Callable[[ServerMessageFrame], None] | None = None
        """Called with the bot's messages instead of the serializer."""
        self.dropped_ms = 0
        """Audio dropped because the peer did not read, in ms."""
        self.dropped_messages = 0
        self.playout_delay_ms: float | None = None
        """Delay from the due time of audio until the peer reports it as played; None if it does not report."""
        self._peer: PeerSocket | None = None
        self._ready = False
        """True once audio can flow both ways."""
        self._full = False
        # bound: the lead in chunks, and one
        self._ahead: deque[tuple[int, Samples]] = deque()
        """Chunks sent and not yet played, with their due times."""
        self._kept: Sequence[Samples] = ()
        """Chunks not due yet when playout was paused."""
        self._marks = 0
        self._mark: tuple[str, int] | None = None
        """Pending mark: its name, and the due end of the audio before it."""
        self._sent_ns: int | None = None
        """Due end of the audio sent last; None if no mark is to follow it."""
        self._last_words: Wait | None = None
        self._absent: TimerHandle | None = None
        self._ahead_ns = 0
        """End of the received audio, on the clock."""
        self._gap: SilenceWatch | None = None
        self._came_rate = 0
        self._second_ns = self._count = 0
        self._closing: set[asyncio.Task[None]] = set()

    # --- a peer -------------------------------------------------------------------------------------------------

    async def accept(self, request: web.Request) -> web.WebSocketResponse:
        """Upgrade a request of an aiohttp server and `serve` it. Returns the response for the handler to return."""
        socket = web.WebSocketResponse(
            timeout=CLOSE_S, heartbeat=self.heartbeat_s, max_msg_size=self.max_message_bytes, compress=False
        )
        await socket.prepare(request)
        await self.serve(socket)
        return socket

    async def serve(self, socket: AiohttpSocket) -> None:
        """Serve a peer until its connection ends, over an aiohttp WebSocket of a server or a client.

        Replaces a peer that is already connected. The caller sets the WebSocket's own bounds (heartbeat, message size).
        """
        peer, before = PeerSocket(socket), self._peer
        if not self.reopen():
            await peer.close(NORMAL, "The conversation is over.")
            return
        if before is not None:
            self._lost(before, "another connection took its place")
            # In a task of its own: while waiting here, a third peer could come and be replaced by this older one.
            self._close_beside(before, NORMAL, "Another connection took the place of this one.")
        self._peer = peer
        try:
            await self._converse(peer)
        except MessageError as error:
            peer.reason = str(error)
            await peer.close(error.code, str(error), self.worker_clock)
        except QueueOverflowError:
            peer.reason = "too many messages at once"
            code, reason = (POLICY, "Too many messages.") if self.running else (BUSY, "The bot does not run yet.")
            await peer.close(code, reason, self.worker_clock)
        except Exception as error:
            # The type only: the text may contain words of the user.
            log.error("%s: %s while reading a message; the connection is closed", self, type(error).__name__)
            log.debug("", exc_info=error)
            peer.reason = "a message could not be read"
            await peer.close(BROKEN, "The message could not be processed.", self.worker_clock)
        finally:
            peer.discard_unsent()
            self._lost(peer, peer.reason, goodbye=peer.goodbye)

    async def _converse(self, peer: PeerSocket) -> None:
        for greeting in self.serializer.begin():
            peer.write(greeting)
        if not self.serializer.announced:
            self._connected()
        while True:
            message = await peer.receive()
            if message is None or self._peer is not peer:
                return
            self._bound_rate()
            for decoded in self.serializer.decode(message):
                self._take(peer, decoded)
            if self._peer is not peer:
                await peer.close(NORMAL, "Good bye.", self.worker_clock)
                return

    def _take(self, peer: PeerSocket, decoded: Decoded) -> None:
        if isinstance(decoded, MarkPlayed):
            self._played(decoded.name)
        elif isinstance(decoded, ForeignMessage):
            if self.on_message is None:
                raise MessageError(POLICY, "RTVI messages are not accepted here.")
            self.on_message(decoded.text)
        elif isinstance(decoded, ClientConnectedFrame):
            self._connected()
        elif isinstance(decoded, ClientDisconnectedFrame):
            peer.goodbye, peer.reason = True, decoded.reason
            self._lost(peer, peer.reason, goodbye=True)
        else:
            self._bound_audio(decoded)
            self.deliver(decoded)
            if isinstance(decoded, InputAudioFrame):
                self._came_rate = decoded.sample_rate
                if self._gap is not None:
                    self._gap.audio_received(self._ahead_ns)

    def _deliver_silence(self) -> None:
        """Deliver silence: a push-to-talk button was released, or the microphone was switched off."""
        if self._ready:
            rate = self._came_rate
            silence = np.zeros(round(SILENT_S * rate), np.int16)
            self.deliver(InputAudioFrame(silence, rate), from_peer=False)

    def _connected(self) -> None:
        self._ready = True
        if self._absent is not None:
            self._absent.cancel()
        self.deliver(ClientConnectedFrame())

    def _lost(self, peer: PeerSocket, why: str, *, goodbye: bool = False) -> None:
        """Remove a peer, and wait for it to return unless it said goodbye."""
        if peer is not self._peer:
            return
        self._peer = None
        if self._gap is not None:
            self._gap.stop()
        self._forget()
        self._ahead_ns, self._full = 0, False
        was_ready, self._ready = self._ready, False
        if was_ready:
            self._tell_lost(why)
        if goodbye:
            self.hang_up()
        else:
            self._wait_for_peer(self.reconnect_s)

    def _tell_lost(self, why: str) -> None:
        try:
            self.deliver(ClientDisconnectedFrame(why))
        except QueueOverflowError:
            # The inbox is full and nothing reads it, so the frame cannot be delivered.
            self.hang_up()

    def _wait_for_peer(self, timeout_s: float | None) -> None:
        if self._absent is not None:
            self._absent.cancel()
        if self.running and timeout_s is not None and not self.hung_up:
            self._absent = self.clock.call_at(self.clock.now_ns() + round(timeout_s * NS_PER_S), self.hang_up)

    def on_silent_timeout(self, reason: str) -> None:
        """Disconnect the peer; it may reconnect."""
        peer = self._peer
        if peer is not None:
            self._lost(peer, reason)
            self._close_beside(peer, POLICY, f"Time is up: {reason}.")

    def _close_beside(self, peer: PeerSocket, code: int, reason: str) -> None:
        closing = spawn(peer.close(code, reason, self.worker_clock), "close a peer")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    # --- bounds on input ----------------------------------------------------------------------------------------

    def _bound_rate(self) -> None:
        """Enforce `MAX_MESSAGES_PER_S`. Before the worker runs, `Transport` has a bound of its own."""
        if self.running:
            now_ns = self.clock.now_ns()
            if now_ns - self._second_ns >= NS_PER_S:
                self._second_ns, self._count = now_ns, 0
            self._count += 1
            if self._count > MAX_MESSAGES_PER_S:
                raise MessageError(POLICY, f"More than {MAX_MESSAGES_PER_S} messages per second.")

    def _bound_audio(self, frame: Frame) -> None:
        if isinstance(frame, InputAudioFrame) and self.running:
            now_ns = self.clock.now_ns()
            self._ahead_ns = max(self._ahead_ns, now_ns) + round(frame.duration_ms * NS_PER_MS)
            if self._ahead_ns - now_ns > MAX_AHEAD_S * NS_PER_S:
                raise MessageError(POLICY, f"Audio is {MAX_AHEAD_S:g} s ahead: send it as fast as it is spoken.")

    # --- transport API ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Start the timer for the first peer, if none is connected."""
        self._gap = SilenceWatch(self.clock, self._deliver_silence)
        if not self._ready:
            self._wait_for_peer(self.connect_timeout_s)

    def send(self, samples: Samples, due_ns: int) -> None:
        """Send 20 ms. Raises `TransportError` for the first chunk dropped because the peer does not read."""
        peer = self._peer
        if peer is None or not self._ready:
            return
        message = self.serializer.encode_audio(samples)
        bound = len(message) * self.queue_ms / CHUNK_MS
        # Once full, drop until half of it is gone: one gap instead of every other 20 ms.
        if peer.waiting_bytes > (bound / 2 if self._full else bound):
            self.dropped_ms += CHUNK_MS
            if not self._full:
                self._full = True
                raise TransportError(
                    f"{self}: the client has not read {self.queue_ms:g} ms of audio, the bound (queue_ms); new audio "
                    "is dropped until it has read half of it. Its network is too slow, or its program is stuck."
                )
            return
        self._full = False
        peer.write(message)
        self._forget_due()
        self._ahead.append((due_ns, samples))
        self._sent_ns = due_ns + CHUNK_NS
        self._ask_played(peer)

    def clear(self) -> None:
        """Make the peer drop unplayed audio."""
        self._forget()
        self._write_clear()

    def pause(self) -> None:
        """Make the peer drop audio not due yet, and keep a copy here."""
        if self._write_clear():
            self._forget_due()
            kept = [samples for _, samples in self._ahead]
            self._forget()
            self._kept = kept

    def resume(self) -> None:
        """Send the kept audio again."""
        kept, self._kept = self._kept, ()
        if kept:
            now_ns = self.clock.now_ns()
            for number, samples in enumerate(kept):
                self.send(samples, now_ns + number * CHUNK_NS)

    def _forget_due(self) -> None:
        """Forget chunks that are due: the peer plays them now."""
        now_ns = self.clock.now_ns()
        while self._ahead and self._ahead[0][0] <= now_ns:
            self._ahead.popleft()

    def _write_clear(self) -> bool:
        message = self.serializer.clear() if self._peer is not None and self._ready else None
        if message is None or self._peer is None:
            return False
        self._peer.write(message)
        return True

    def _forget(self) -> None:
        """Forget sent audio, kept audio and marks."""
        self._ahead.clear()
        self._kept = ()
        self._forget_marks()

    def tell(self, message: ServerMessageFrame) -> None:
        """Send a message to the client's program."""
        if self.on_tell is not None:
            self.on_tell(message)
            return
        encoded = self.serializer.encode(message)
        if encoded is not None:
            self._write(encoded)

    async def close(self) -> None:
        """Close the connection, after the peer has played the last words unless the worker was cancelled."""
        if self._absent is not None:
            self._absent.cancel()
        if self.cancelled:
            # Audio buffered at the peer must not be heard.
            self._write_clear()
        elif self._mark is not None:
            await self._wait_for_last_words()
        peer, self._peer = self._peer, None
        self._ready = False
        if self._gap is not None:
            self._gap.stop()
        self._forget()
        if peer is not None:
            await peer.close(NORMAL, "The conversation is over.", self.worker_clock)
        if self._closing:
            await asyncio.wait(self._closing)

    # --- for users of the transport -----------------------------------------------------------------------------

    def send_message(self, text: str) -> bool:
        """Send a text message to the client's program unchanged: RTVI, or a protocol of your own.

        False if no client is connected or it does not keep up; the message is then dropped.
        """
        return self._write(text)

    def _write(self, message: str | bytes) -> bool:
        peer = self._peer
        if peer is None:
            self.dropped_messages += 1
            return False
        if peer.waiting_bytes > MESSAGE_QUEUE_BYTES:
            self.dropped_messages += 1
            if self.dropped_messages == 1:
                log.warning("%s: the client does not read its messages; they are dropped", self)
            return False
        peer.write(message)
        return True

    def __str__(self) -> str:
        return type(self).__name__

    # --- playout reports of the peer ----------------------------------------------------------------------------

    def _ask_played(self, peer: PeerSocket) -> None:
        """Send a mark after the last audio, unless one is pending: the next one follows when that returns."""
        if self._mark is None and self._sent_ns is not None:
            name = f"{self._marks + 1}"
            message = self.serializer.mark(name)
            if message is not None:
                self._marks += 1
                self._mark, self._sent_ns = (name, self._sent_ns), None
                peer.write(message)

    def _played(self, name: str) -> None:
        if self._mark is None or self._mark[0] != name:
            return  # a mark of audio that was cleared
        if self.running:
            self.playout_delay_ms = (self.clock.now_ns() - self._mark[1]) / NS_PER_MS
        self._mark = None
        if self._peer is not None:
            self._ask_played(self._peer)
        if self._mark is None and self._last_words is not None:
            self._last_words.wake()

    def _forget_marks(self) -> None:
        self._mark = self._sent_ns = None
        if self._last_words is not None:
            self._last_words.wake()

    async def _wait_for_last_words(self) -> None:
        self._last_words = Wait()
        timer = self.clock.call_at(self.clock.now_ns() + round(LAST_WORDS_S * NS_PER_S), self._last_words.wake)
        await self._last_words
        self._last_words = None
        timer.cancel()

"""A transport over a WebSocket: one peer at a time, in whatever protocol its serializer speaks."""

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
"""Close code of a conversation that is over."""
BROKEN = 1011
"""Close code of an error of ours."""
BUSY = 1013
"""Close code of a bot that does not run yet."""

MAX_AHEAD_S = 10.0
"""Audio may come so much faster than it is spoken: what a network held back comes at once. Then the peer is closed."""
MAX_MESSAGES_PER_S = 1_000
"""A page that sends each quantum of its audio (128 samples of 48 kHz) comes to 375."""
MESSAGE_QUEUE_BYTES = 262_144
"""With so much waiting for a peer that does not read, messages are dropped too."""
LAST_WORDS_S = 1.0
"""How long the end waits for the peer to have played what it was sent, where it can tell."""


class WebSocketTransport(Transport):
    """One peer over a WebSocket. Give it a request that asks for one (`accept`), or a WebSocket (`serve`).

    ``serializer``: the protocol; `RawSerializer` if not given. ``sample_rate``: of what the pipeline hears, in Hz.
    ``lead_ms``: how much the peer has in hand against jitter of the network; an interruption clears it.
    ``queue_ms``: so much audio may wait for a peer that does not take it; beyond, audio is dropped, counted in
    `dropped_ms`, and told once. ``connect_timeout_s``: how long the worker waits for a peer to begin; ``reconnect_s``:
    how long for one to come back that was lost (one that says good bye ends it at once); None: for ever.
    ``heartbeat_s``: a peer of whom nothing comes for so long is asked, and lost when it has not answered after half of
    that. ``max_message_bytes``: of the longest message that is taken. The others: see `Transport`.
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
        """Gets the messages of a protocol of its own (RTVI) that comes between the others; see `send_message`."""
        self.on_tell: Callable[[ServerMessageFrame], None] | None = None
        """Gets the bot's messages in place of the serializer."""
        self.dropped_ms = 0
        """Audio that was not sent, for the peer took none."""
        self.dropped_messages = 0
        self.playout_delay_ms: float | None = None
        """How long after it was due the peer says that audio was played; None where it does not say."""
        self._line: PeerSocket | None = None
        self._ready = False
        """Audio can go both ways."""
        self._full = False
        # bound: the lead in chunks, and one
        self._ahead: deque[tuple[int, Samples]] = deque()
        """Sent audio that is not over, with its due times."""
        self._kept: Sequence[Samples] = ()
        """Sent audio that was not due when the playout was paused."""
        self._marks = 0
        self._mark: tuple[str, int] | None = None
        """The name of the one that is out, and when the audio before it was to be over."""
        self._sent_ns: int | None = None
        """When what was sent last is to be over; None where no mark is to follow it."""
        self._last_words: Wait | None = None
        self._absent: TimerHandle | None = None
        self._ahead_ns = 0
        """Until when the audio lasts that came."""
        self._gap: SilenceWatch | None = None
        self._came_rate = 0
        self._second_ns = self._count = 0
        self._closing: set[asyncio.Task[None]] = set()

    # --- a peer -------------------------------------------------------------------------------------------------

    async def accept(self, request: web.Request) -> web.WebSocketResponse:
        """Answer a request of an aiohttp server, and `serve`. Returns what the request's handler has to return."""
        socket = web.WebSocketResponse(
            timeout=CLOSE_S, heartbeat=self.heartbeat_s, max_msg_size=self.max_message_bytes, compress=False
        )
        await socket.prepare(request)
        await self.serve(socket)
        return socket

    async def serve(self, socket: AiohttpSocket) -> None:
        """Let a peer take part, until its connection ends: a WebSocket of aiohttp, of a server or of a client.

        A peer that is there already makes room. What the WebSocket itself bounds (a heartbeat, the size of messages)
        is up to who has made it.
        """
        line, before = PeerSocket(socket), self._line
        if not self.reopen():
            await line.close(NORMAL, "The conversation is over.")
            return
        if before is not None:
            self._lost(before, "another connection took its place")
            # Beside: were it waited for, a third that comes meanwhile would have to make room for this older one.
            self._close_beside(before, NORMAL, "Another connection took the place of this one.")
        self._line = line
        try:
            await self._converse(line)
        except MessageError as error:
            line.why = str(error)
            await line.close(error.code, str(error), self.worker_clock)
        except QueueOverflowError:
            line.why = "too much came at once"
            code, reason = (POLICY, "Too many messages.") if self.running else (BUSY, "The bot does not run yet.")
            await line.close(code, reason, self.worker_clock)
        except Exception as error:
            # Only its name: its text may be the user's.
            log.error("%s: %s while a message was read; its connection is closed", self, type(error).__name__)
            log.debug("", exc_info=error)
            line.why = "a message could not be read"
            await line.close(BROKEN, "The message could not be dealt with.", self.worker_clock)
        finally:
            line.let_go()
            self._lost(line, line.why, goodbye=line.goodbye)

    async def _converse(self, line: PeerSocket) -> None:
        for greeting in self.serializer.begin():
            line.write(greeting)
        if not self.serializer.announced:
            self._connected()
        while True:
            message = await line.receive()
            if message is None or self._line is not line:
                return
            self._bound_rate()
            for decoded in self.serializer.decode(message):
                self._take(line, decoded)
            if self._line is not line:
                await line.close(NORMAL, "Good bye.", self.worker_clock)
                return

    def _take(self, line: PeerSocket, decoded: Decoded) -> None:
        if isinstance(decoded, MarkPlayed):
            self._played(decoded.name)
        elif isinstance(decoded, ForeignMessage):
            if self.on_message is None:
                raise MessageError(POLICY, "RTVI messages are not taken here.")
            self.on_message(decoded.text)
        elif isinstance(decoded, ClientConnectedFrame):
            self._connected()
        elif isinstance(decoded, ClientDisconnectedFrame):
            line.goodbye, line.why = True, decoded.reason
            self._lost(line, line.why, goodbye=True)
        else:
            self._bound_audio(decoded)
            self.deliver(decoded)
            if isinstance(decoded, InputAudioFrame):
                self._came_rate = decoded.sample_rate
                if self._gap is not None:
                    self._gap.came(self._ahead_ns)

    def _fall_silent(self) -> None:
        """A client that sends only while a button is held has let it go, or its microphone was switched off."""
        if self._ready:
            rate = self._came_rate
            silence = np.zeros(round(SILENT_S * rate), np.int16)
            self.deliver(InputAudioFrame(silence, rate), from_peer=False)

    def _connected(self) -> None:
        self._ready = True
        if self._absent is not None:
            self._absent.cancel()
        self.deliver(ClientConnectedFrame())

    def _lost(self, line: PeerSocket, why: str, *, goodbye: bool = False) -> None:
        """A peer takes part no more."""
        if line is not self._line:
            return
        self._line = None
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
            # Nobody takes what is before it in the inbox; nothing can be told to whom nothing can be told.
            self.hang_up()

    def _wait_for_peer(self, timeout_s: float | None) -> None:
        if self._absent is not None:
            self._absent.cancel()
        if self.running and timeout_s is not None and not self.hung_up:
            self._absent = self.clock.call_at(self.clock.now_ns() + round(timeout_s * NS_PER_S), self.hang_up)

    def on_silent_timeout(self, reason: str) -> None:
        """A peer of whom nothing has come for `silent_timeout_s` is lost."""
        line = self._line
        if line is not None:
            self._lost(line, reason)
            self._close_beside(line, POLICY, f"Time is up: {reason}.")

    def _close_beside(self, line: PeerSocket, code: int, reason: str) -> None:
        closing = spawn(line.close(code, reason, self.worker_clock), "close a peer")
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    # --- bounds on what comes -----------------------------------------------------------------------------------

    def _bound_rate(self) -> None:
        """How many messages may come in a second. Before the worker runs, `Transport` has a bound of its own."""
        if self.running:
            now_ns = self.clock.now_ns()
            if now_ns - self._second_ns >= NS_PER_S:
                self._second_ns, self._count = now_ns, 0
            self._count += 1
            if self._count > MAX_MESSAGES_PER_S:
                raise MessageError(POLICY, f"More than {MAX_MESSAGES_PER_S} messages in a second.")

    def _bound_audio(self, frame: Frame) -> None:
        if isinstance(frame, InputAudioFrame) and self.running:
            now_ns = self.clock.now_ns()
            self._ahead_ns = max(self._ahead_ns, now_ns) + round(frame.duration_ms * NS_PER_MS)
            if self._ahead_ns - now_ns > MAX_AHEAD_S * NS_PER_S:
                raise MessageError(POLICY, f"Audio is {MAX_AHEAD_S:g} s ahead: send it as fast as it is spoken.")

    # --- the verbs ----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Wait for a peer, where there is none."""
        self._gap = SilenceWatch(self.clock, self._fall_silent)
        if not self._ready:
            self._wait_for_peer(self.connect_timeout_s)

    def send(self, samples: Samples, due_ns: int) -> None:
        """Send 20 ms. Raises `TransportError` with the first that a peer does not take."""
        line = self._line
        if line is None or not self._ready:
            return
        message = self.serializer.encode_audio(samples)
        bound = len(message) * self.queue_ms / CHUNK_MS
        # Once full, until half of it is gone: one hole, and not every other 20 ms.
        if line.waiting_bytes > (bound / 2 if self._full else bound):
            self.dropped_ms += CHUNK_MS
            if not self._full:
                self._full = True
                raise TransportError(
                    f"{self}: the client has not taken {self.queue_ms:g} ms of audio, the bound (queue_ms); what comes "
                    "now is dropped until it takes half of that. Its network is too slow, or its program is stuck."
                )
            return
        self._full = False
        line.write(message)
        self._forget_due()
        self._ahead.append((due_ns, samples))
        self._sent_ns = due_ns + CHUNK_NS
        self._ask_played(line)

    def clear(self) -> None:
        """Tell the peer to forget what it has not played."""
        self._forget()
        self._write_clear()

    def pause(self) -> None:
        """Have the peer forget what is not due yet, and keep it here."""
        if self._write_clear():
            self._forget_due()
            kept = [samples for _, samples in self._ahead]
            self._forget()
            self._kept = kept

    def resume(self) -> None:
        """Send what was kept once more."""
        kept, self._kept = self._kept, ()
        if kept:
            now_ns = self.clock.now_ns()
            for number, samples in enumerate(kept):
                self.send(samples, now_ns + number * CHUNK_NS)

    def _forget_due(self) -> None:
        """Forget what is being played by now."""
        now_ns = self.clock.now_ns()
        while self._ahead and self._ahead[0][0] <= now_ns:
            self._ahead.popleft()

    def _write_clear(self) -> bool:
        message = self.serializer.clear() if self._line is not None and self._ready else None
        if message is None or self._line is None:
            return False
        self._line.write(message)
        return True

    def _forget(self) -> None:
        """Nothing that was sent is waited for any more."""
        self._ahead.clear()
        self._kept = ()
        self._forget_marks()

    def tell(self, message: ServerMessageFrame) -> None:
        """A message for the client's program."""
        if self.on_tell is not None:
            self.on_tell(message)
            return
        encoded = self.serializer.encode(message)
        if encoded is not None:
            self._write(encoded)

    async def close(self) -> None:
        """Close the connection, when the peer has heard the end of what was said."""
        if self._absent is not None:
            self._absent.cancel()
        if self.cancelled:
            # What the peer has in hand is not to be heard.
            self._write_clear()
        elif self._mark is not None:
            await self._wait_for_last_words()
        line, self._line = self._line, None
        self._ready = False
        if self._gap is not None:
            self._gap.stop()
        self._forget()
        if line is not None:
            await line.close(NORMAL, "The conversation is over.", self.worker_clock)
        if self._closing:
            await asyncio.wait(self._closing)

    # --- for whoever has the transport --------------------------------------------------------------------------

    def send_message(self, text: str) -> bool:
        """Send the client's program a text message as it is: one of RTVI, or of a protocol of yours.

        False where there is no client, or it does not keep up: then the message is dropped.
        """
        return self._write(text)

    def _write(self, message: str | bytes) -> bool:
        line = self._line
        if line is None:
            self.dropped_messages += 1
            return False
        if line.waiting_bytes > MESSAGE_QUEUE_BYTES:
            self.dropped_messages += 1
            if self.dropped_messages == 1:
                log.warning("%s: the client reads no messages; they are dropped", self)
            return False
        line.write(message)
        return True

    def __str__(self) -> str:
        return type(self).__name__

    # --- what the peer has played -------------------------------------------------------------------------------

    def _ask_played(self, line: PeerSocket) -> None:
        """Send a mark behind what was sent, unless one is out: when it is back, the next one follows."""
        if self._mark is None and self._sent_ns is not None:
            name = f"{self._marks + 1}"
            message = self.serializer.mark(name)
            if message is not None:
                self._marks += 1
                self._mark, self._sent_ns = (name, self._sent_ns), None
                line.write(message)

    def _played(self, name: str) -> None:
        if self._mark is None or self._mark[0] != name:
            return  # of something that was cleared
        if self.running:
            self.playout_delay_ms = (self.clock.now_ns() - self._mark[1]) / NS_PER_MS
        self._mark = None
        if self._line is not None:
            self._ask_played(self._line)
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

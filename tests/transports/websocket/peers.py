"""Peers of the tests: a socket without a network, a telephone company, and a server on a port of its own."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from aiohttp import WSMessage, WSMsgType, web
from voxline.pipeline import (
    UPSTREAM,
    AudioFormat,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    ClientConnectedFrame,
    ClientDisconnectedFrame,
    ClientMessageFrame,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    InputFrame,
    InputTextFrame,
    InterruptRequestFrame,
    OutputAudioFrame,
    PipelineWorker,
    ResponseCutFrame,
    ResponsePlayedFrame,
    Samples,
    handles,
)
from voxline.transports.websocket import TwilioSerializer, WebSocketTransport, mulaw

NS_PER_MS = 1_000_000
START = '{"type": "start", "sample_rate": 16000}'
STREAM = "MZ0123456789abcdef0123456789abcdef"


def tone(ms: float, rate: int = 16_000, hz: float = 500.0, level: int = 8_000) -> Samples:
    return (level * np.sin(2 * np.pi * hz * np.arange(round(ms * rate / 1000)) / rate)).astype(np.int16)


def loud(samples: Samples) -> bool:
    return bool(len(samples)) and float(np.sqrt(np.mean(np.square(samples, dtype=np.float64)))) > 500


# --- without a network ------------------------------------------------------------------------------------------------


class DtlsConnection:
    """The asyncio transport below a `FakeSocket`: what a peer that does not read leaves waits in it."""

    def __init__(self) -> None:
        self.waiting = 0
        self.aborted = False

    def get_write_buffer_size(self) -> int:
        return self.waiting

    def set_write_buffer_limits(self, high: int) -> None:
        pass

    def get_extra_info(self, name: str) -> None:
        return None

    def abort(self) -> None:
        self.aborted, self.waiting = True, 0


class _Writer:
    def __init__(self) -> None:
        self.transport = DtlsConnection()


class FakeSocket:
    """What `WebSocketTransport.serve` gets, and the test is its peer: in the worker's time, and without a network."""

    def __init__(self, now_ns: Callable[[], int] = lambda: 0) -> None:
        self._writer = _Writer()
        self._now_ns = now_ns
        self._queue: asyncio.Queue[WSMessage] = asyncio.Queue()
        self._taken = asyncio.Event()
        self.sent: list[tuple[float, str | bytes]] = []
        """What the bot sent, and when (ms)."""
        self.closed: tuple[int, str] | None = None
        self.over = False
        """Nobody receives any more."""
        self.stalled = False
        """It reads nothing."""
        self.listener: Callable[[str | bytes], None] | None = None

    @property
    def wire(self) -> DtlsConnection:
        return self._writer.transport

    @property
    def audio(self) -> list[tuple[float, bytes]]:
        return [(at, message) for at, message in self.sent if isinstance(message, bytes)]

    @property
    def texts(self) -> list[dict[str, Any]]:
        return [json.loads(message) for _, message in self.sent if isinstance(message, str)]

    # --- the peer ---

    async def say(self, message: str | bytes | WSMessage) -> None:
        """Send something, and wait until it is dealt with."""
        if isinstance(message, str):
            message = WSMessage(WSMsgType.TEXT, message, None)
        elif isinstance(message, bytes):
            message = WSMessage(WSMsgType.BINARY, message, None)
        if self.over:
            return
        self._taken.clear()
        self._queue.put_nowait(message)
        await self._taken.wait()

    async def hang_up(self, code: int = 1000) -> None:
        await self.say(WSMessage(WSMsgType.CLOSE, code, ""))

    async def vanish(self) -> None:
        await self.say(WSMessage(WSMsgType.ERROR, ConnectionResetError(), None))

    # --- the socket ---

    async def receive(self) -> WSMessage:
        if self._queue.empty():
            self._taken.set()
        message = await self._queue.get()
        if message.type not in (WSMsgType.TEXT, WSMsgType.BINARY):
            self.over = True
            self._taken.set()
        return message

    async def send_str(self, data: str) -> None:
        self._sent(data)

    async def send_bytes(self, data: bytes) -> None:
        self._sent(data)

    def _sent(self, data: str | bytes) -> None:
        if self.closed is not None:
            raise ConnectionResetError("closed")
        self.sent.append((self._now_ns() / NS_PER_MS, data))
        if self.stalled:
            self.wire.waiting += len(data)
        if self.listener is not None:
            self.listener(data)

    async def close(self, *, code: int = 1000, message: bytes = b"") -> bool:
        if self.closed is None:
            self.closed, self.over = (code, message.decode()), True
            self._queue.put_nowait(WSMessage(WSMsgType.CLOSED, None, None))
            self._taken.set()
        return True


# --- the telephone ----------------------------------------------------------------------------------------------------


@dataclass
class Phone:
    """What Twilio does with what it is sent, by its documentation: buffer, play in real time, answer marks, clear."""

    heard: list[tuple[int, Samples]] = field(default_factory=list[tuple[int, Samples]])
    """What the caller hears, and when (ns): the future too, as long as it is not cleared."""
    marks: list[tuple[int, str]] = field(default_factory=list[tuple[int, str]])
    """Marks that are to be answered, and when (ns)."""
    clears: list[int] = field(default_factory=list[int])
    end_ns: int = 0
    sequence: int = 1

    def take(self, message: str | bytes, now_ns: int) -> None:
        data = json.loads(message)
        assert data["streamSid"] == STREAM
        match data["event"]:
            case "media":
                samples = mulaw.decode(base64.b64decode(data["media"]["payload"]))
                start_ns = max(now_ns, self.end_ns)
                self.end_ns = start_ns + len(samples) * 125_000
                self.heard.append((start_ns, samples))
            case "mark":
                self.marks.append((max(now_ns, self.end_ns), data["mark"]["name"]))
            case "clear":
                self.clears.append(now_ns)
                self.heard = [
                    (at, samples[: max(0, now_ns - at) // 125_000]) for at, samples in self.heard if at < now_ns
                ]
                self.marks = [(now_ns, name) for _, name in self.marks]
                self.end_ns = now_ns
            case other:
                raise AssertionError(f"Twilio knows no {other}")

    def answers(self, now_ns: int) -> list[str]:
        """The marks that are due."""
        due = [name for at, name in self.marks if at <= now_ns]
        self.marks = [(at, name) for at, name in self.marks if at > now_ns]
        return [self.message("mark", mark={"name": name}) for name in due]

    def heard_ms(self, now_ns: int) -> float:
        return sum(min(len(samples) * 125_000, now_ns - at) for at, samples in self.heard if at < now_ns) / NS_PER_MS

    # --- what Twilio says ---

    def message(self, event: str, **what: Any) -> str:
        self.sequence += 1
        return json.dumps({"event": event, "sequenceNumber": f"{self.sequence}", **what, "streamSid": STREAM})

    def connected(self) -> str:
        return '{"event": "connected", "protocol": "Call", "version": "1.0.0"}'

    def start(self, **parameters: str) -> str:
        return self.message(
            "start",
            start={
                "accountSid": "AC0",
                "streamSid": STREAM,
                "callSid": "CA0",
                "tracks": ["inbound"],
                "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
                "customParameters": parameters,
            },
        )

    def media(self, samples: Samples, chunk: int = 1) -> str:
        payload = base64.b64encode(mulaw.encode(samples)).decode()
        media = {"track": "inbound", "chunk": f"{chunk}", "timestamp": f"{chunk * 20}", "payload": payload}
        return self.message("media", media=media)

    def dtmf(self, digit: str) -> str:
        return self.message("dtmf", dtmf={"track": "inbound_track", "digit": digit})

    def stop(self) -> str:
        return self.message("stop", stop={"accountSid": "AC0", "callSid": "CA0"})


# --- in the pipeline --------------------------------------------------------------------------------------------------


class Notes(FrameProcessor):
    """Between input and output: what came from the client, and what the output says of itself."""

    def __init__(self) -> None:
        self.came: list[Frame] = []
        self.facts: list[Frame] = []

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """None; the test does, at the head."""
        return {OutputAudioFrame: AudioFormat()}

    @property
    def audio(self) -> list[InputAudioFrame]:
        return [frame for frame in self.came if isinstance(frame, InputAudioFrame)]

    @property
    def rest(self) -> list[Frame]:
        return [frame for frame in self.came if not isinstance(frame, InputAudioFrame)]

    @handles(
        InputAudioFrame,
        InputTextFrame,
        InterruptRequestFrame,
        ClientMessageFrame,
        ClientConnectedFrame,
        ClientDisconnectedFrame,
    )
    async def note(self, frame: InputFrame) -> None:
        self.came.append(frame)

    @handles(
        BotStartedSpeakingFrame, BotStoppedSpeakingFrame, ResponsePlayedFrame, ResponseCutFrame, direction=UPSTREAM
    )
    async def fact(self, frame: InputFrame) -> None:
        self.facts.append(frame)


@dataclass
class Stage:
    """A transport on a bench, and a client that is in the bench's time."""

    bench: Any
    notes: Notes
    transport: WebSocketTransport
    serving: list[asyncio.Task[None]] = field(default_factory=list[asyncio.Task[None]])
    phone: Phone = field(default_factory=Phone)

    @property
    def now_ns(self) -> int:
        return self.bench.clock.now_ns()

    async def connect(self, *messages: str | bytes) -> FakeSocket:
        """A client that connects, and says this first; not given, it starts, or calls."""
        socket = FakeSocket(self.bench.clock.now_ns)
        if isinstance(self.transport.serializer, TwilioSerializer):
            socket.listener = lambda message: self.phone.take(message, self.now_ns)
            messages = messages or (self.phone.connected(), self.phone.start())
        self.serving.append(asyncio.create_task(self.transport.serve(socket)))
        for message in messages or (START,):
            await socket.say(message)
        await self.bench.advance(ms=0)
        return socket

    async def say(self, socket: FakeSocket, message: str | bytes) -> None:
        await socket.say(message)
        await self.bench.advance(ms=0)

    async def advance(self, ms: float, socket: FakeSocket | None = None) -> None:
        """Let time pass; a telephone company answers meanwhile, every 5 ms."""
        if socket is None:
            await self.bench.advance(ms=ms)
            return
        for _ in range(round(ms / 5)):
            await self.bench.advance(ms=5)
            for answer in self.phone.answers(self.now_ns):
                await self.say(socket, answer)

    async def ended(self) -> None:
        """Wait for the end of what served the clients."""
        await asyncio.gather(*self.serving)


# --- on a network -----------------------------------------------------------------------------------------------------


async def converse(transport: WebSocketTransport, worker: PipelineWorker, request: web.Request) -> web.StreamResponse:
    """Answer a request with this bot."""
    running = asyncio.create_task(worker.run())
    try:
        return await transport.accept(request)
    finally:
        await running


@contextlib.asynccontextmanager
async def server(handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> AsyncGenerator[str]:
    """An aiohttp server on a port of its own; gives the address of its WebSocket."""
    app = web.Application()
    app.router.add_get("/ws", handler)
    runner = web.AppRunner(app, shutdown_timeout=2)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        yield f"http://{host}:{port}/ws"
    finally:
        await runner.cleanup()

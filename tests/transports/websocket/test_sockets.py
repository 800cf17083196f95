"""The transport over real sockets: an aiohttp server on loopback, clients of aiohttp, and rude ones by hand."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import functools
import gc
import json
import os
import random
import weakref
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from aiohttp import ClientSession, ClientWebSocketResponse, WSMsgType, web
from voxline.pipeline import (
    ClientConnectedFrame,
    ClientDisconnectedFrame,
    InputTextFrame,
    OutputAudioFrame,
    Pipeline,
    PipelineWorker,
    ResponseEndFrame,
    Samples,
    TransportError,
)
from voxline.processors import Conversation, EnergyVAD, ScriptedSTT, ScriptedTTS, conversation
from voxline.tests.transports.websocket.peers import START, STREAM, Notes, Phone, converse, loud, server, tone
from voxline.tests.transports.websocket.test_serializers import KINDS, mutated
from voxline.transports.websocket import RawSerializer, TwilioSerializer, WebSocketTransport

pytestmark = pytest.mark.realtime


@dataclass
class Bots:
    """A server with a bot for each connection, that notes what comes."""

    transports: list[WebSocketTransport] = field(default_factory=list[WebSocketTransport])
    workers: list[PipelineWorker] = field(default_factory=list[PipelineWorker])
    notes: list[Notes] = field(default_factory=list[Notes])
    heartbeat_s: float = 5
    reconnect_s: float = 0

    async def answer(self, request: web.Request) -> web.StreamResponse:
        serializer = TwilioSerializer() if request.query.get("twilio") else RawSerializer()
        transport = WebSocketTransport(serializer, heartbeat_s=self.heartbeat_s, reconnect_s=self.reconnect_s)
        notes = Notes()
        worker = PipelineWorker(Pipeline([transport.input(), notes, transport.output()]))
        self.transports.append(transport)
        self.workers.append(worker)
        self.notes.append(notes)
        return await converse(transport, worker, request)


@contextlib.asynccontextmanager
async def client(address: str) -> AsyncGenerator[ClientWebSocketResponse]:
    """One that has started."""
    async with ClientSession() as session, session.ws_connect(address) as socket:
        assert await socket.receive_json() == {"type": "start", "sample_rate": 24_000}
        await socket.send_str(START)
        yield socket


@contextlib.asynccontextmanager
async def rude(address: str) -> AsyncGenerator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A client that has shaken hands, and does nothing of itself: it answers no ping, and need not read."""
    parts = urlsplit(address)
    reader, writer = await asyncio.open_connection(parts.hostname, parts.port, limit=1_024)
    key = base64.b64encode(os.urandom(16)).decode()
    head = f"GET {parts.path} HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    writer.write(f"{head}Sec-WebSocket-Key: {key}\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
    await reader.readuntil(b"\r\n\r\n")
    writer.write(bytes([0x81, 0x80 | len(START), 0, 0, 0, 0]) + START.encode())
    try:
        yield reader, writer
    finally:
        writer.transport.abort()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()


async def sure(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    async with asyncio.timeout(10):
        while not is_so():  # noqa: ASYNC110
            await asyncio.sleep(0.005)


async def until(notes: Notes, kind: type) -> None:
    """Wait until a frame of a class has come."""
    await sure(lambda: any(isinstance(frame, kind) for frame in notes.came))


async def until_connected(bots: Bots, count: int = 1) -> None:
    """Wait until so many clients have come, and the last one is connected."""
    await sure(lambda: len(bots.notes) >= count)
    await until(bots.notes[count - 1], ClientConnectedFrame)


# --- coming and going -------------------------------------------------------------------------------------------------


async def test_a_client_is_heard_and_hears():
    bots = Bots()
    async with server(bots.answer) as address, client(address) as socket:
        said = tone(200)
        for at in range(0, len(said), 320):
            await socket.send_bytes(said[at : at + 320].tobytes())
        await socket.send_json({"type": "text", "text": "Hello."})
        await until(bots.notes[0], InputTextFrame)
        assert np.array_equal(np.concatenate([frame.samples for frame in bots.notes[0].audio]), said)
        for frame in (OutputAudioFrame(tone(100, 24_000), 24_000), ResponseEndFrame()):
            bots.workers[0].post(frame, response=1)
        assert b"".join([await socket.receive_bytes() for _ in range(5)]) == tone(100, 24_000).tobytes()
        await socket.close()
        outcome = await bots.workers[0].finished()
        assert (outcome.reason, outcome.errors) == ("ended", ())
        assert bots.notes[0].rest[-1] == ClientDisconnectedFrame("the client closed the connection")


async def test_the_end_of_the_bot_closes_the_connection_with_a_reason():
    bots = Bots()
    async with server(bots.answer) as address, client(address) as socket:
        await until_connected(bots)
        await bots.workers[0].stop()
        message = await socket.receive()
        assert (message.type, message.data, message.extra) == (WSMsgType.CLOSE, 1000, "The conversation is over.")


async def test_a_lost_connection_is_told_and_the_conversation_ends():
    bots = Bots()
    async with server(bots.answer) as address:
        async with rude(address):
            await until_connected(bots)
        await bots.workers[0].finished()
        assert bots.notes[0].rest[-1] == ClientDisconnectedFrame("the connection was lost")


async def test_a_half_open_client_is_lost_within_one_and_a_half_heartbeats():
    bots = Bots(heartbeat_s=0.4)
    async with server(bots.answer) as address, rude(address):
        await until_connected(bots)
        async with asyncio.timeout(0.4 * 1.5 + 5):
            await bots.workers[0].finished()
        assert bots.notes[0].rest[-1] == ClientDisconnectedFrame("the connection was lost")


async def test_a_message_that_is_too_long_is_refused_by_its_size():
    bots = Bots()
    async with server(bots.answer) as address, client(address) as socket:
        await socket.send_bytes(bytes(65_538))
        message = await socket.receive()
        assert (message.type, message.data) == (WSMsgType.CLOSE, 1009)
        await bots.workers[0].finished()
        assert bots.notes[0].audio == []


async def test_who_asks_for_no_websocket_gets_a_400():
    bots = Bots()
    async with server(bots.answer) as address, ClientSession() as session:
        waiting = asyncio.create_task(session.get(address))
        await sure(lambda: bool(bots.workers))
        await bots.workers[0].stop()
        assert (await waiting).status == 400


async def test_a_bot_may_be_the_one_that_calls():
    transport, notes = WebSocketTransport(reconnect_s=0), Notes()
    worker = PipelineWorker(Pipeline([transport.input(), notes, transport.output()]))
    heard: list[bytes] = []

    async def other_side(request: web.Request) -> web.StreamResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        assert (await socket.receive_json())["type"] == "start"
        await socket.send_str(START)
        await socket.send_json({"type": "text", "text": "Who is it?"})
        heard.append(await socket.receive_bytes())
        await socket.close()
        return socket

    async with server(other_side) as address, ClientSession() as session, session.ws_connect(address) as socket:
        serving = asyncio.create_task(transport.serve(socket))
        running = asyncio.create_task(worker.run())
        await until(notes, InputTextFrame)
        worker.post(OutputAudioFrame(tone(20, 24_000), 24_000), response=1)
        await serving
        assert (await running).reason == "ended"
    assert heard == [tone(20, 24_000).tobytes()]


async def test_nothing_is_left_when_conversations_are_over():
    bots = Bots()
    process = psutil.Process()
    async with server(bots.answer) as address:

        async def once(number: int) -> None:
            async with rude(address) if number % 3 == 0 else client(address):
                await until_connected(bots, number + 1)
                bots.workers[-1].post(OutputAudioFrame(tone(60, 24_000), 24_000), response=1)
                await asyncio.sleep(0)
            await bots.workers[-1].finished()

        await once(0)
        tasks, connections = len(asyncio.all_tasks()), len(process.net_connections())
        for number in range(1, 6):
            await once(number)
        await sure(lambda: len(asyncio.all_tasks()) <= tasks and len(process.net_connections()) <= connections)
        left = [weakref.ref(transport) for transport in bots.transports]
        for made in (bots.transports, bots.workers, bots.notes):
            made.clear()
        await sure(lambda: gc.collect() >= 0 and all(reference() is None for reference in left))


# --- slow peers -------------------------------------------------------------------------------------------------------


async def test_the_socket_below_is_found_where_this_aiohttp_keeps_it():
    """Without it a slow peer has no bound: see `socket.py`, and what the extra ``websocket`` allows."""
    bots = Bots()
    async with server(bots.answer) as address, client(address) as socket:
        await until_connected(bots)
        for one in (socket, bots.transports[0]._peer._socket):  # type: ignore[union-attr]
            assert one._writer.transport.get_write_buffer_size() == 0  # type: ignore[union-attr]


async def test_a_client_that_does_not_read_has_a_bound_and_recovers():
    bots = Bots()
    async with server(bots.answer) as address, rude(address) as (reader, _):
        await until_connected(bots)
        transport = bots.transports[0]
        samples, errors = np.full(480, 1_000, np.int16), 0  # 20 ms
        # Ten minutes at once: far more than all buffers of the system hold.
        for number in range(30_000):
            try:
                transport.send(samples, number)
            except TransportError:
                errors += 1
            if number % 100 == 0:
                await asyncio.sleep(0)
        # Once for each time that half of it was taken, and not once for each 20 ms.
        assert 1 <= errors < 20
        assert transport._peer is not None
        assert transport._peer.waiting_bytes <= 1_020 * 48 + 4 * 51
        assert transport.dropped_ms > 60_000
        dropped_ms = transport.dropped_ms
        async with asyncio.timeout(20):
            while transport._peer.waiting_bytes:
                await reader.read(65_536)
        transport.send(samples, 0)
        assert transport.dropped_ms == dropped_ms


async def test_a_client_that_does_not_read_does_not_hold_the_end_up():
    bots = Bots()
    async with server(bots.answer) as address, rude(address):
        await until_connected(bots)
        for number in range(30_000):
            with contextlib.suppress(TransportError):
                bots.transports[0].send(np.zeros(480, np.int16), number)
        assert bots.transports[0].dropped_ms > 0
        async with asyncio.timeout(4):
            outcome = await bots.workers[0].stop()
        assert (outcome.reason, outcome.errors) == ("stopped", ())


# --- a thousand wrong messages ----------------------------------------------------------------------------------------


async def test_a_thousand_wrong_messages_do_not_disturb_another_call():
    bots = Bots()
    chance = random.Random(1)
    kinds = [(kind, mutated(message, chance)) for kind, (_, _, message) in KINDS.items() for _ in range(84)]
    chance.shuffle(kinds)
    async with server(bots.answer) as address, client(address) as good:
        await until_connected(bots)
        notes = bots.notes[0]

        async def talk() -> None:
            for number in range(250):
                await good.send_bytes(np.full(320, number, np.int16).tobytes())
                await asyncio.sleep(0.001)

        talking = asyncio.create_task(talk())
        # It answers pings while it does.
        listening = asyncio.create_task(good.receive())
        codes: list[int | None] = []
        async with ClientSession() as session:
            pending = kinds
            while pending:
                twilio = pending[0][0] in ("connected", "start", "media", "mark", "dtmf", "stop")
                async with session.ws_connect(f"{address}{'?twilio=1' if twilio else ''}") as socket:
                    await socket.send_str(Phone().start() if twilio else START)
                    while pending and not socket.closed:
                        _, message = pending.pop(0)
                        with contextlib.suppress(ConnectionError):
                            await (socket.send_str(message) if isinstance(message, str) else socket.send_bytes(message))
                        with contextlib.suppress(TimeoutError):
                            reply = await socket.receive(0.001)
                            while reply.type is WSMsgType.TEXT:
                                assert "Traceback" not in reply.data
                                reply = await socket.receive(0.001)
                            codes.append(socket.close_code)
        await talking
        await good.send_str('{"type": "text", "text": "still here"}')
        await until(notes, InputTextFrame)
        assert not listening.done()
        listening.cancel()
        # Silence is filled in where nothing came for a second, which on a busy machine happens: leave it out.
        numbers = [int(frame.samples[0]) for frame in notes.audio]
        assert [number for number in numbers if number] == list(range(1, 250))
        assert numbers[0] == 0
        assert set(codes) <= {1000, 1003, 1007, 1008}
        assert len(codes) > 100


# --- conversations ----------------------------------------------------------------------------------------------------


class Ear:
    """What a client hears."""

    def __init__(self, socket: ClientWebSocketResponse) -> None:
        self.socket = socket
        self.messages: list[str | bytes] = []

    async def listen(self) -> None:
        async for message in self.socket:
            self.messages.append(message.data)

    async def wait_for(self, ms: int = 0, *, clear: bool = False) -> None:
        """Until so much was heard since the last clear, or there is one."""
        await sure(lambda: any(map(is_clear, self.messages)) if clear else len(self.after_clear()) * 20 >= ms)

    def after_clear(self) -> list[Samples]:
        samples: list[Samples] = []
        for message in self.messages:
            if isinstance(message, bytes):
                samples.append(np.frombuffer(message, np.int16))
            elif is_clear(message):
                samples.clear()
        return samples


COUNTING = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen"


@contextlib.asynccontextmanager
async def counting(
    transcripts: Sequence[str], answer: str
) -> AsyncGenerator[tuple[Conversation, ClientWebSocketResponse, Ear]]:
    """A bot that counts where it is told to, and a client of it."""
    transport = WebSocketTransport(reconnect_s=0)
    talk = conversation(
        transport,
        llm=lambda words: COUNTING if words == "count" else answer,
        stt=ScriptedSTT(transcripts),
        tts=ScriptedTTS(),
        vad=EnergyVAD(),
    )
    worker = PipelineWorker(talk)
    async with (
        server(functools.partial(converse, transport, worker)) as address,
        client(address) as socket,
    ):
        ear = Ear(socket)
        listening = asyncio.create_task(ear.listen())
        yield talk, socket, ear
        await socket.close()
        await listening
        await worker.finished()


def is_clear(message: str | bytes) -> bool:
    return isinstance(message, str) and json.loads(message).get("type") == "clear"


async def speak(socket: ClientWebSocketResponse, ms: float, *, silence_ms: float = 0) -> None:
    """As a microphone gives it."""
    samples = np.concatenate([tone(ms), np.zeros(round(silence_ms * 16), np.int16)])
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number, at in enumerate(range(0, len(samples), 320)):
        await socket.send_bytes(samples[at : at + 320].tobytes())
        await asyncio.sleep(begun + (number + 1) * 0.02 - loop.time())


async def test_a_conversation_by_voice_with_an_interruption():
    async with counting(["count", "please stop that now"], "All right.") as (talk, socket, ear):
        await speak(socket, 500, silence_ms=1_000)
        await ear.wait_for(400)
        assert loud(np.concatenate(ear.after_clear()))
        await speak(socket, 800, silence_ms=1_000)
        await ear.wait_for(clear=True)
        await ear.wait_for(200)
    said = [(message.role, message.text, message.cut) for message in talk.session.history]
    assert said[0] == ("user", "count", False)
    assert said[1][0] == "assistant"
    assert said[1][2]
    assert COUNTING.startswith(said[1][1])
    assert said[2] == ("user", "please stop that now", False)


async def test_a_button_is_a_clear_and_silence_and_the_next_answer_is_heard():
    async with counting([], "yes") as (talk, socket, ear):
        await socket.send_json({"type": "text", "text": "count"})
        await ear.wait_for(500)
        await socket.send_json({"type": "interrupt"})
        await ear.wait_for(clear=True)
        await socket.send_json({"type": "text", "text": "again"})
        await sure(lambda: len(talk.session.history) == 4)
    cut, _, said = talk.session.history[1:]
    assert cut.cut
    assert len(cut.text.split()) >= 3
    assert COUNTING.startswith(cut.text)
    # One word of 200 ms, and nothing of what was cut.
    assert said.text == "yes"
    assert 200 <= 20 * len(ear.after_clear()) <= 220


async def test_a_telephone_call():
    transport = WebSocketTransport(TwilioSerializer(), reconnect_s=0)
    talk = conversation(
        transport,
        llm=lambda words: "good bye then",
        stt=ScriptedSTT(["good bye"]),
        tts=ScriptedTTS(),
        vad=EnergyVAD(),
        farewells=["good bye"],
    )
    worker = PipelineWorker(talk)

    loop = asyncio.get_running_loop()

    def now_ns() -> int:
        return round(loop.time() * 1e9)

    async with (
        server(functools.partial(converse, transport, worker)) as address,
        ClientSession() as session,
        session.ws_connect(address) as socket,
    ):
        phone = Phone()
        await socket.send_str(phone.connected())
        await socket.send_str(phone.start())

        async def listen() -> None:
            async for message in socket:
                phone.take(message.data, now_ns())

        async def talk_to_it() -> None:
            samples = np.concatenate([tone(600, 8_000), np.zeros(8_000 * 20, np.int16)])
            begun = loop.time()
            for chunk, at in enumerate(range(0, len(samples), 160)):
                if socket.closed:
                    return
                await socket.send_str(phone.media(samples[at : at + 160], chunk))
                for mark in phone.answers(now_ns()):
                    await socket.send_str(mark)
                await asyncio.sleep(begun + (chunk + 1) * 0.02 - loop.time())

        listening, talking = asyncio.create_task(listen()), asyncio.create_task(talk_to_it())
        outcome = await worker.finished()
        heard_until_ns = now_ns()
        await listening
        with contextlib.suppress(ConnectionError):
            await talking
    assert outcome.errors == ()
    assert transport.serializer.stream_sid == STREAM  # type: ignore[attr-defined]
    assert [message.text for message in talk.session.history] == ["good bye", "good bye then"]
    # Three words of 200 ms, all of them heard before the connection was closed.
    assert 600 <= phone.heard_ms(heard_until_ns) <= 680
    assert phone.marks == []
    assert transport.playout_delay_ms is not None

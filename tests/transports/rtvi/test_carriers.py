"""RTVI over the transports that carry it: WebSocket and WebRTC, with real sockets."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from voxline.pipeline import InputTextFrame, Pipeline, ServerMessageFrame
from voxline.processors import EnergyVAD, ScriptedLLM, ScriptedSTT, ScriptedTTS, SessionController
from voxline.transports.base import Transport

pytest.importorskip("aiohttp")

import aiohttp
from voxline.pipeline.processor import FrameProcessor, handles
from voxline.transports.server import Server, ServerSettings

pytestmark = pytest.mark.realtime


class Greeter(FrameProcessor):
    """Tells the client's program of each text."""

    @handles(InputTextFrame)
    async def tell(self, frame: InputTextFrame) -> None:
        await self.push(ServerMessageFrame(json.dumps({"type": "got", "length": len(frame.text)})))
        await self.push(frame)


def make_pipeline(transport: Transport) -> Pipeline:
    return Pipeline(
        [
            transport.input(), EnergyVAD(), ScriptedSTT([]), Greeter(), SessionController(),
            ScriptedLLM([" ".join(["blah"] * 100) + ".", "Done."]), ScriptedTTS(word_ms=100), transport.output(),
        ]
    )  # fmt: skip


@pytest.fixture
async def socket() -> AsyncIterator[aiohttp.ClientWebSocketResponse]:
    settings = ServerSettings(port=0, websocket=True, webrtc=False, page=None)
    async with (
        Server(make_pipeline, settings) as server,
        aiohttp.ClientSession() as http,
        http.ws_connect(server.url.replace("http", "ws") + "ws") as socket,
    ):
        await socket.send_json({"type": "start", "sample_rate": 16_000})
        yield socket


async def until(socket: aiohttp.ClientWebSocketResponse, kind: str, **fields: Any) -> dict[str, Any]:
    """Read up to a message."""
    async with asyncio.timeout(20):
        while True:
            received = await socket.receive()
            assert received.type in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY), received
            if received.type is aiohttp.WSMsgType.TEXT:
                told: dict[str, Any] = json.loads(received.data)
                within: dict[str, Any] = told["data"] if isinstance(told.get("data"), dict) else {}
                if told["type"] == kind and all(within.get(name) == value for name, value in fields.items()):
                    return told


async def say(socket: aiohttp.ClientWebSocketResponse, kind: str, data: object, id: str = "x") -> None:
    await socket.send_json({"label": "rtvi-ai", "type": kind, "id": id, "data": data})


async def test_a_program_speaks_rtvi_beside_raw_audio(socket: aiohttp.ClientWebSocketResponse) -> None:
    await say(socket, "client-ready", {"version": "2.1.0", "about": {"library": "mine"}})
    assert (await until(socket, "bot-ready"))["data"]["version"] == "2.1.0"
    await say(socket, "send-text", {"content": "Hello"})
    assert (await until(socket, "server-message", type="got"))["data"]["length"] == 5
    await until(socket, "bot-started-speaking")
    await until(socket, "bot-output", spoken_status="in-progress")
    await say(socket, "client-message", {"t": "interrupt"}, id="stop")
    # The audio that is on its way is taken back in the protocol of the audio.
    await until(socket, "clear")
    await say(socket, "send-text", {"content": "And?"})
    await until(socket, "bot-output", text="Done.", spoken_status="completed")


async def test_a_program_that_speaks_no_rtvi_hears_none(socket: aiohttp.ClientWebSocketResponse) -> None:
    await socket.send_json({"type": "text", "text": "Hello"})
    told = await until(socket, "message")
    assert told == {"type": "message", "data": {"type": "got", "length": 5}}

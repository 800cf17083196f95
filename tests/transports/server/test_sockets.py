"""Conversations over WebSockets, as the server carries them."""

from __future__ import annotations

import asyncio
import base64
import json
from typing import Any

import aiohttp
import numpy as np
import pytest
from voxline.tests.transports.server.rig import SECRET, TOKEN, bearer, served, until
from voxline.transports.server import make_credential


async def receive(socket: Any, kind: aiohttp.WSMsgType) -> Any:
    """The next message of a kind."""
    async with asyncio.timeout(10):
        while True:
            message = await socket.receive()
            if message.type in (kind, aiohttp.WSMsgType.CLOSE, aiohttp.WSMsgType.CLOSED):
                return message


async def test_a_websocket_is_a_conversation_and_its_end_ends_it() -> None:
    async with served(websocket=True) as client, client.http.ws_connect(client.server.url + "ws") as socket:
        assert json.loads((await receive(socket, aiohttp.WSMsgType.TEXT)).data)["type"] == "start"
        await socket.send_str(json.dumps({"type": "start", "sample_rate": 16_000}))
        for _ in range(20):
            await socket.send_bytes(np.full(320, 1_000, np.int16).tobytes())
        heard = await receive(socket, aiohttp.WSMsgType.BINARY)
        assert len(np.frombuffer(heard.data, np.int16)) > 0
        assert len(client.server.conversations) == 1
        await socket.close()
        await until(lambda: not client.server.conversations)


async def test_a_phone_call_by_twilio_is_one_too() -> None:
    async with served(twilio=True) as client, client.http.ws_connect(client.server.url + "twilio") as socket:
        await socket.send_str(json.dumps({"event": "connected", "protocol": "Call", "version": "1.0.0"}))
        start = {
            "streamSid": "MZ1",
            "callSid": "CA1",
            "accountSid": "AC1",
            "tracks": ["inbound"],
            "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8_000, "channels": 1},
        }
        await socket.send_str(json.dumps({"event": "start", "streamSid": "MZ1", "sequenceNumber": "1", "start": start}))
        payload = base64.b64encode(b"\x10" * 160).decode()
        for number in range(20):
            media = {"track": "inbound", "chunk": str(number + 1), "timestamp": str(20 * number), "payload": payload}
            message = {"event": "media", "streamSid": "MZ1", "sequenceNumber": str(number + 2), "media": media}
            await socket.send_str(json.dumps(message))
        heard = json.loads((await receive(socket, aiohttp.WSMsgType.TEXT)).data)
        assert (heard["event"], heard["streamSid"]) == ("media", "MZ1")
        await socket.close()
        await until(lambda: not client.server.conversations)


async def test_a_token_is_in_the_header_the_query_or_for_twilio_the_path() -> None:
    async with served(websocket=True, twilio=True, token=TOKEN) as client:
        url = client.server.url
        accepted: list[tuple[str, dict[str, str]]] = [
            (f"{url}ws?token={TOKEN.replace(' ', '%20')}", {}),
            (f"{url}ws", bearer(TOKEN)),
            (f"{url}twilio/{TOKEN.replace(' ', '%20')}", {}),
        ]
        for address, headers in accepted:
            async with client.http.ws_connect(address, headers=headers):
                assert len(client.server.conversations) == 1
            await until(lambda: not client.server.conversations)
        for address in (f"{url}ws", f"{url}ws?token=wrong", f"{url}twilio/wrong", f"{url}twilio?token={TOKEN}"):
            with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
                await client.http.ws_connect(address)
            assert refused.value.status == 401


async def test_a_credential_is_good_for_one_websocket() -> None:
    async with served(websocket=True, secret=SECRET) as client:
        url = f"{client.server.url}ws?token={make_credential(SECRET)}"
        async with client.http.ws_connect(url):
            pass
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.http.ws_connect(url)
        assert refused.value.status == 401


async def test_a_message_too_large_closes_this_conversation_and_no_other() -> None:
    async with served(websocket=True, max_message_bytes=10_000) as client:
        url = client.server.url + "ws"
        async with client.http.ws_connect(url) as good, client.http.ws_connect(url) as bad:
            await bad.send_str("x" * 20_000)
            closed = await receive(bad, aiohttp.WSMsgType.CLOSE)
            assert (closed.type, closed.data) == (aiohttp.WSMsgType.CLOSE, 1009)
            await until(lambda: len(client.server.conversations) == 1)
            await good.send_str(json.dumps({"type": "start", "sample_rate": 16_000}))
            await good.send_bytes(np.full(3_200, 1_000, np.int16).tobytes())
            assert (await receive(good, aiohttp.WSMsgType.BINARY)).type is aiohttp.WSMsgType.BINARY


async def test_all_places_taken_is_503_before_the_handshake() -> None:
    async with (
        served(websocket=True, max_connections=1) as client,
        client.http.ws_connect(client.server.url + "ws"),
    ):
        with pytest.raises(aiohttp.WSServerHandshakeError) as refused:
            await client.http.ws_connect(client.server.url + "ws")
        assert refused.value.status == 503


async def test_a_plain_request_is_told_to_upgrade() -> None:
    async with served(websocket=True) as client:
        status, headers, _ = await client.ask("GET", "/ws")
        assert (status, headers["Upgrade"]) == (426, "websocket")
        assert client.server.conversations == []


async def test_what_is_not_asked_for_is_not_served() -> None:
    async with served(webrtc=False) as client:
        for method, path in (("GET", "/ws"), ("GET", "/twilio"), ("POST", "/whip"), ("POST", "/api/offer")):
            assert (await client.ask(method, path))[0] == 404

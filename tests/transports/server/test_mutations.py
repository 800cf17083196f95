"""A thousand damaged messages of each kind: nothing crashes, nothing is left, and the call beside them goes on."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import json
import logging
import random
from collections import Counter
from collections.abc import AsyncGenerator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import numpy as np
import pytest
from voxline.tests.transports.server.mutations import COUNT, mutated_bytes, objects, texts
from voxline.tests.transports.server.rig import Browser, Client, an_offer, served, until
from voxline.transports.rtvi import requests

pytestmark = pytest.mark.realtime

CANDIDATE = "candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0 ufrag EsAw network-id 1"
FRAGMENT = (
    "a=ice-ufrag:EsAw\r\na=ice-pwd:P2uYro0UCOQ4zxjKXaWCBui1\r\nm=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
    f"a={CANDIDATE}\r\na=end-of-candidates\r\n"
)


@asynccontextmanager
async def beside_a_call(caplog: pytest.LogCaptureFixture, **settings: Any) -> AsyncGenerator[tuple[Client, Browser]]:
    """A server with a call that has to go on, whatever else comes."""
    caplog.set_level(logging.INFO)
    unhandled: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: unhandled.append(context))
    async with served(keep_alive=True, requests_burst=10**6, offers_burst=10**6, **settings) as client:
        browser = Browser()
        await browser.connect(client)
        await until(lambda: browser.heard > 2)
        heard = browser.heard
        yield client, browser
        assert browser.peer.connectionState == "connected"
        assert browser.heard > heard
        since = browser.heard
        await until(lambda: browser.heard > since + 5)
        await browser.close()
    assert unhandled == []
    assert "Traceback" not in caplog.text


async def posted(client: Client, method: str, path: str, bodies: Iterator[str], **headers: str) -> Counter[int]:
    """Send them all; sessions that begin are ended. Counts the statuses."""
    statuses: Counter[int] = Counter()
    for body in bodies:
        data = body.encode(errors="surrogatepass")
        status, got, answer = await client.ask(method, path, data=data, headers=headers)
        statuses[status] += 1
        assert status < 500, (status, answer, body)
        began = f"/{got['Location']}" if "Location" in got else ""
        if isinstance(answer, dict) and "pc_id" in answer:
            began = f"/whip/{answer['pc_id']}"
        if began:
            await client.ask("DELETE", began)
    assert "Traceback" not in str(client.seen)
    return statuses


async def test_offers_as_sdp(caplog: pytest.LogCaptureFixture) -> None:
    async with beside_a_call(caplog) as (client, _):
        bodies = texts([await an_offer()], seed=1)
        statuses = await posted(client, "POST", "/whip", bodies, **{"Content-Type": "application/sdp"})
        assert statuses[400] > 50
        assert statuses[201] > 50, "some damage does no harm"
        await until(lambda: len(client.server.conversations) == 1)


async def test_offers_as_json(caplog: pytest.LogCaptureFixture) -> None:
    good = {"sdp": await an_offer(), "type": "offer", "pc_id": None, "restart_pc": False, "requestData": {"a": [1]}}
    async with beside_a_call(caplog) as (client, _):
        statuses = await posted(client, "POST", "/api/offer", objects([good], seed=2))
        assert statuses[400] > 100
        await until(lambda: len(client.server.conversations) == 1)


async def test_offers_that_renegotiate(caplog: pytest.LogCaptureFixture) -> None:
    async with beside_a_call(caplog) as (client, _):
        _, _, answer = await client.offer()
        good = {"sdp": await an_offer(), "type": "offer", "pc_id": answer["pc_id"], "restart_pc": False}
        for body in objects([good], seed=3, count=COUNT // 4):
            status, _, told = await client.ask("POST", "/api/offer", data=body.encode(errors="surrogatepass"))
            assert status < 500
            if status == 200 and told["pc_id"] != answer["pc_id"]:
                await client.ask("DELETE", f"/whip/{told['pc_id']}")
        assert (await client.offer(pc_id=answer["pc_id"], restart_pc=True))[0] == 200


async def test_candidates_as_json(caplog: pytest.LogCaptureFixture) -> None:
    async with beside_a_call(caplog) as (client, browser):
        good = {
            "pc_id": browser.pc_id,
            "candidates": [{"candidate": CANDIDATE, "sdp_mid": "0", "sdp_mline_index": 0}, {"candidate": ""}],
        }
        statuses = await posted(client, "PATCH", "/api/offer", objects([good], seed=4))
        assert statuses[400] > 100


async def test_fragments(caplog: pytest.LogCaptureFixture) -> None:
    async with beside_a_call(caplog) as (client, _):
        _, headers, _ = await client.whip()
        sent = {"Content-Type": "application/trickle-ice-sdpfrag", "If-Match": "*"}
        statuses = await posted(client, "PATCH", "/" + headers["Location"], texts([FRAGMENT], seed=5), **sent)
        assert statuses[400] > 50


async def test_starts(caplog: pytest.LogCaptureFixture) -> None:
    async with beside_a_call(caplog, max_started=10_000) as (client, _):
        statuses = await posted(client, "POST", "/start", objects([{"body": {"a": 1}}], seed=6, count=COUNT // 4))
        assert statuses[200] > 50


def rtvi_messages() -> list[Any]:
    def message(kind: str, data: Any) -> dict[str, Any]:
        return {"label": "rtvi-ai", "type": kind, "id": "1", "data": data}

    return [
        message("client-ready", {"version": "2.1.0", "about": {"library": "x", "library_version": "1"}}),
        message("send-text", {"content": "hello", "options": {"run_immediately": False, "audio_response": True}}),
        message("client-message", {"t": "custom", "d": {"a": [1, 2]}}),
        message("dtmf", {"buttons": ["1", "#"]}),
        {"type": "signalling", "message": {"type": "trackStatus", "receiver_index": 0, "enabled": True}},
    ]


async def test_messages_of_the_data_channel(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    # Else most of them, and the last one too, would be more than a client may send in a second, and not be read.
    monkeypatch.setattr(requests, "BURST", 10 * COUNT)
    async with beside_a_call(caplog) as (client, browser):
        transport: Any = client.server.conversations[0].transport
        transport.peer._settings = dataclasses.replace(transport.peer._settings, max_messages_per_s=10 * COUNT)
        for number, text in enumerate(objects(rtvi_messages(), seed=7)):
            if '"disconnect-bot"' in text:
                continue
            browser.channel.send(text)
            if number % 50 == 0:
                # aiortc sends what was queued when the loop turns.
                await until(lambda: browser.channel.bufferedAmount < 10_000)
        ready = rtvi_messages()[0]
        count = len(browser.messages)
        browser.channel.send(json.dumps(ready))
        await until(lambda: any("bot-ready" in text for text in browser.messages[count:]))


async def sent_over_websockets(client: Client, path: str, opening: list[str], messages: Iterator[Any]) -> int:
    """Send messages over a WebSocket, over a new one where the server has closed it. Returns how many it took."""
    used = 0
    waiting = list(messages)
    while waiting:
        async with client.http.ws_connect(client.server.url + path, autoping=False) as socket:
            used += 1
            for text in opening:
                await socket.send_str(text)
            taken = True
            while waiting and taken:
                message = waiting.pop()
                try:
                    await (socket.send_bytes(message) if isinstance(message, bytes) else socket.send_str(message))
                    taken = await is_open(socket)
                except ConnectionError:
                    taken = False
    return used


async def is_open(socket: aiohttp.ClientWebSocketResponse) -> bool:
    """Whether the server is still there, once it has dealt with what it was sent."""
    await socket.ping(b"?")
    while True:
        message = await socket.receive(timeout=60)
        if message.type is aiohttp.WSMsgType.PING:
            await socket.pong(message.data)
        elif message.type is aiohttp.WSMsgType.PONG:
            return True
        elif message.type not in (aiohttp.WSMsgType.TEXT, aiohttp.WSMsgType.BINARY):
            return False


async def test_messages_of_a_websocket(caplog: pytest.LogCaptureFixture) -> None:
    chance = random.Random(8)
    pcm = np.arange(320, dtype=np.int16).tobytes()
    good = [
        {"type": "start", "sample_rate": 16_000},
        {"type": "text", "text": "hello"},
        {"type": "interrupt"},
        {"type": "message", "kind": "k", "data": {"a": 1}, "id": "1"},
        *rtvi_messages(),
    ]
    messages: list[Any] = list(objects(good, seed=9, count=COUNT // 2))
    messages += [mutated_bytes(pcm, chance) for _ in range(COUNT // 2)]
    chance.shuffle(messages)
    async with beside_a_call(caplog, websocket=True) as (client, _):
        opening = [json.dumps(good[0])]
        assert await sent_over_websockets(client, "ws", opening, iter(messages)) > 10
        await until(lambda: len(client.server.conversations) == 1)


async def test_messages_of_twilio(caplog: pytest.LogCaptureFixture) -> None:
    media = base64.b64encode(b"\x7f" * 160).decode()
    start = {
        "streamSid": "MZ1", "accountSid": "AC1", "callSid": "CA1", "tracks": ["inbound"], "customParameters": {},
        "mediaFormat": {"encoding": "audio/x-mulaw", "sampleRate": 8000, "channels": 1},
    }  # fmt: skip
    good = [
        {"event": "connected", "protocol": "Call", "version": "1.0.0"},
        {"event": "start", "sequenceNumber": "1", "streamSid": "MZ1", "start": start},
        {"event": "media", "sequenceNumber": "3", "streamSid": "MZ1",
         "media": {"track": "inbound", "chunk": "1", "timestamp": "5", "payload": media}},
        {"event": "mark", "sequenceNumber": "4", "streamSid": "MZ1", "mark": {"name": "1"}},
        {"event": "dtmf", "streamSid": "MZ1", "sequenceNumber": "5", "dtmf": {"track": "inbound_track", "digit": "1"}},
    ]  # fmt: skip
    async with beside_a_call(caplog, twilio=True) as (client, _):
        opening = [json.dumps(message) for message in good[:2]]
        assert await sent_over_websockets(client, "twilio", opening, objects(good, seed=10)) > 10
        await until(lambda: len(client.server.conversations) == 1)

"""What the tests of the server share: bots, offers, and a client."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack
from voxline.pipeline import (
    AudioFormat,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    OutputAudioFrame,
    Pipeline,
    handles,
)
from voxline.transports.base import Transport
from voxline.transports.server import Server, ServerSettings

TOKEN = "a token that nobody guesses"
SECRET = "a secret that nobody guesses"


class Mirror(FrameProcessor):
    """Says what it hears."""

    def __init__(self) -> None:
        self.mine = 0

    def makes(self) -> dict[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat()}

    @handles(InputAudioFrame)
    async def repeat(self, frame: InputAudioFrame) -> None:
        self.mine = self.mine or self.new_response()
        await self.push(OutputAudioFrame(frame.samples, frame.sample_rate), response=self.mine)


def mirror(transport: Transport) -> Pipeline:
    return Pipeline([transport.input(), Mirror(), transport.output()])


_offers: list[str] = []


async def an_offer() -> str:
    """The SDP of a real one. Nobody is behind it."""
    if not _offers:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        peer.addTrack(AudioStreamTrack())
        peer.createDataChannel("chat")
        await peer.setLocalDescription(await peer.createOffer())
        _offers.append(peer.localDescription.sdp)
        await peer.close()
    return _offers[0]


class Client:
    """Asks a server for things."""

    def __init__(self, server: Server, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http
        self.seen: list[str] = []
        """All that the server has said, headers too."""

    async def ask(self, method: str, path: str, **kwargs: Any) -> tuple[int, Any, Any]:
        """Status, headers, and the body: of JSON, its value."""
        async with self.http.request(method, self.server.url.rstrip("/") + path, **kwargs) as response:
            text = await response.text()
            self.seen.append(f"{response.status} {response.headers} {text}")
            kind = response.content_type
            body = json.loads(text) if kind.endswith("json") and text else text
            return response.status, response.headers, body

    async def offer(self, path: str = "/api/offer", **changes: Any) -> tuple[int, Any, Any]:
        """POST an offer as JSON."""
        headers = changes.pop("headers", None)
        body = {"sdp": await an_offer(), "type": "offer", "pc_id": None, "restart_pc": False, **changes}
        return await self.ask("POST", path, json=body, headers=headers)

    async def whip(self, **headers: str) -> tuple[int, Any, Any]:
        """POST an offer by WHIP."""
        headers = {"Content-Type": "application/sdp", **{k.replace("_", "-"): v for k, v in headers.items()}}
        return await self.ask("POST", "/whip", data=await an_offer(), headers=headers)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


@asynccontextmanager
async def served(
    make: Callable[[Transport], Any] = mirror,
    *,
    clock: Any = None,
    now_s: Callable[[], float] | None = None,
    on_worker: Any = None,
    make_transport: Any = None,
    keep_alive: bool = False,
    **settings: Any,
) -> AsyncGenerator[Client]:
    """A server and a client. Afterwards nothing is left: no conversation and no task.

    ``keep_alive``: of many requests, one connection carries all.
    """
    before = asyncio.all_tasks()
    generous: dict[str, Any] = {"port": 0, "page": None, "offers_burst": 10_000, "requests_burst": 10_000, **settings}
    extra: dict[str, Any] = {} if now_s is None else {"now_s": now_s}
    server = Server(
        make, ServerSettings(**generous), on_worker=on_worker, make_transport=make_transport, clock=clock, **extra
    )
    async with server:
        connector = aiohttp.TCPConnector(force_close=not keep_alive)
        async with aiohttp.ClientSession(connector=connector) as http:
            yield Client(server, http)
    assert server.conversations == []
    await settle(before)


async def settle(before: set[asyncio.Task[Any]]) -> None:
    """All tasks made since are over, once the event loop has turned a few times: sockets close in its next turns."""
    left: list[asyncio.Task[Any]] = []
    for _ in range(1_000):
        left = [task for task in asyncio.all_tasks() - before if task is not asyncio.current_task()]
        if not left:
            return
        await asyncio.sleep(0.02)
    raise AssertionError(f"left behind: {left}")


async def until(condition: Callable[[], Any], seconds: float = 60.0) -> None:
    """Wait for something that becomes true."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for tells nobody
            await asyncio.sleep(0.01)


def _nothing(*_: Any) -> None:
    pass


class Browser:
    """A peer that is really there: sends silence, and counts what it hears."""

    def __init__(self) -> None:
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self.peer.addTrack(AudioStreamTrack())
        self.channel: Any = self.peer.createDataChannel("chat")
        self.messages: list[str] = []
        self.heard = 0
        self.pc_id = ""
        self._tasks: list[asyncio.Task[None]] = []
        self.channel.on("message", self.messages.append)
        on: Any = self.peer.on
        on("track", self._begin)

    def _begin(self, track: Any) -> None:
        self._tasks.append(asyncio.create_task(self._listen(track)))

    async def _listen(self, track: Any) -> None:
        try:
            while True:
                await track.recv()
                self.heard += 1
        except Exception:
            return

    async def connect(self, client: Client, **changes: Any) -> None:
        await self.peer.setLocalDescription(await self.peer.createOffer())
        status, _, answer = await client.offer(sdp=self.peer.localDescription.sdp, **changes)
        assert status == 200, answer
        self.pc_id = answer["pc_id"]
        await self.peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
        await until(lambda: self.peer.connectionState == "connected" and self.channel.readyState == "open")

    def vanish(self) -> None:
        """Its cable is cut: nothing goes out any more, no good bye either."""
        sctp: Any = self.peer.sctp
        for protocol in sctp.transport.transport._connection._protocols:
            protocol.transport.sendto = _nothing

    async def close(self) -> None:
        await self.peer.close()
        for task in self._tasks:
            await task

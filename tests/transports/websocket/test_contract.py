"""The contract of transports, kept by this one: in virtual time, with a client that buffers and plays."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import ClassVar

import numpy as np
from voxline.pipeline import Samples
from voxline.tests.transports.websocket.peers import START, FakeSocket
from voxline.transports.base import Transport
from voxline.transports.contracts import ContractPeer, HeardAudio, check_transport
from voxline.transports.websocket import WebSocketTransport


class Player(ContractPeer):
    """A client in the worker's time. It buffers what it gets, plays it in order, and forgets it at a clear, but for the
    20 ms that it is playing.
    """

    exact: ClassVar[bool] = True
    announced = True
    catches_up = False

    def __init__(self, transport: WebSocketTransport) -> None:
        self.transport = transport
        self.played: list[HeardAudio] = []
        self.end_ns = 0
        self.serving: list[asyncio.Task[None]] = []
        self.socket = FakeSocket()

    def now_ns(self) -> int:
        return self.transport.clock.now_ns()

    async def connect(self) -> None:
        self.end_ns = 0
        self.socket = FakeSocket(self.now_ns)
        self.socket.listener = self.take
        self.serving.append(asyncio.create_task(self.transport.serve(self.socket)))
        await self.socket.say(START)

    def take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self.play(np.frombuffer(message, np.int16))
        elif json.loads(message)["type"] == "clear":
            self.clear()

    def play(self, samples: Samples) -> None:
        at_ns = max(self.now_ns(), self.end_ns)
        self.end_ns = at_ns + len(samples) * 1_000_000_000 // self.transport.output_rate
        self.played.append(HeardAudio(at_ns, samples))

    def clear(self) -> None:
        while self.played and self.played[-1].at_ns > self.now_ns():
            self.end_ns = self.played.pop().at_ns

    async def say(self, samples: Samples, sample_rate: int) -> None:
        await self.socket.say(samples.tobytes())

    def heard(self) -> Sequence[HeardAudio]:
        return self.played

    async def close(self) -> None:
        await self.socket.hang_up()
        await asyncio.gather(*self.serving)

    async def vanish(self) -> None:
        await self.socket.vanish()


async def test_it_keeps_the_contract_of_a_transport():
    def pair() -> tuple[Transport, ContractPeer]:
        # More in hand than the check holds the event loop up (130 ms): what is heard is exact all the same.
        transport = WebSocketTransport(lead_ms=200)
        return transport, Player(transport)

    report = await check_transport(pair)
    # Clients that do not read are in test_transport.py and test_sockets.py; and there is nothing that fails to open.
    assert [why for _, why in report.skipped] == ["Player has no stall()", "cannot_open is not given"]

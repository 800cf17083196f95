"""The WebRTC transport keeps the contract of a transport: with aiortc's client over loopback sockets, in real time."""

from __future__ import annotations

import asyncio
import contextlib
import fractions
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import numpy as np
import pytest
from voxline.pipeline import Samples
from voxline.transports.contracts import ContractPeer, HeardAudio, Report, check_transport

pytest.importorskip("aiortc")

import aiortc
import av
from voxline.tests.transports.peers import CONTRACT
from voxline.tests.transports.webrtc.client import Client
from voxline.transports.webrtc import WebRTCTransport
from voxline.transports.webrtc.opus import Decoder, Encoder

pytestmark = pytest.mark.realtime

AT_ONCE = 3
"""Rules: they wait most of the time."""
_TIME_BASE = fractions.Fraction(1, 48_000)


class Mouth(aiortc.MediaStreamTrack):
    """Says what it is given, 20 ms each 20 ms, and silence else."""

    kind = "audio"

    def __init__(self, rate: int) -> None:
        super().__init__()
        self._encoder = Encoder(rate)
        self._size = rate // 50
        self._rest = np.zeros(0, np.int16)
        self._said: deque[Samples] = deque()
        self._count = 0
        self._start: float | None = None

    def say(self, samples: Samples) -> None:
        samples = np.concatenate([self._rest, samples])
        end = len(samples) - len(samples) % self._size
        self._rest = samples[end:]
        self._said.extend(samples[:end].reshape(-1, self._size))

    async def recv(self) -> Any:
        loop = asyncio.get_running_loop()
        self._start = loop.time() if self._start is None else self._start
        await asyncio.sleep(max(0.0, self._start + 0.02 * self._count - loop.time()))
        samples = self._said.popleft() if self._said else np.zeros(self._size, np.int16)
        packet = av.Packet(self._encoder.encode(samples))
        packet.pts, packet.time_base = self._count * 960, _TIME_BASE
        self._count += 1
        return packet


class Browser(ContractPeer):
    """A client that plays what comes when it comes."""

    exact: ClassVar[bool] = False
    late_ms = 80
    rates = (24_000, 48_000)
    hears_rate = 24_000
    announced = True
    gone_s = 8

    def __init__(self, transport: WebRTCTransport) -> None:
        self.transport = transport
        self.clients: list[Client] = []
        self.mouth: Mouth | None = None
        self._decoders: list[Decoder] = []
        self._heard: list[HeardAudio] = []
        self._read: list[int] = []

    async def connect(self) -> None:
        client = Client(channel=False)
        self._speak_with(client, Mouth(48_000))
        self.clients.append(client)
        self._decoders.append(Decoder(24_000))
        self._read.append(0)
        await client.call(self.transport)

    def _speak_with(self, client: Client, mouth: Mouth) -> None:
        self.mouth = mouth
        client.pc.getSenders()[0].replaceTrack(mouth)

    async def say(self, samples: Samples, sample_rate: int) -> None:
        if self.mouth is None or self.mouth._size != sample_rate // 50:
            self._speak_with(self.clients[-1], Mouth(sample_rate))
        assert self.mouth is not None
        self.mouth.say(samples)

    def heard(self) -> Sequence[HeardAudio]:
        for number, client in enumerate(self.clients):
            while self._read[number] < len(client.got):
                packet = client.got[self._read[number]]
                self._read[number] += 1
                samples = self._decoders[number].decode(packet.payload)
                if samples is not None:
                    # The decoder's buffer is used again.
                    self._heard.append(HeardAudio(packet.at_ns, samples.copy()))
        return self._heard

    async def close(self) -> None:
        for client in self.clients:
            with contextlib.suppress(ConnectionError):
                await client.close()

    async def vanish(self) -> None:
        self.clients[-1].vanish()


def check(rule: str) -> Report:
    """In a thread's own event loop, so that others' tasks are none that this rule has left behind."""

    def pair() -> tuple[WebRTCTransport, ContractPeer]:
        transport = WebRTCTransport(loopback=True, silent_timeout_s=2)
        return transport, Browser(transport)

    return asyncio.run(check_transport(pair, only=rule))


def test_the_webrtc_transport_keeps_the_contract():
    with ThreadPoolExecutor(AT_ONCE) as pool:
        reports = list(pool.map(check, CONTRACT))
    checked = {rule for report in reports for rule, _ in report.checked}
    assert len(checked) >= 12, "most of it, also on a busy machine"

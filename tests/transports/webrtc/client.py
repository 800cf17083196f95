"""A user for tests: a whole WebRTC client (aiortc's) on a loopback socket, whose ear is the wire itself."""

from __future__ import annotations

import asyncio
import fractions
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import aiortc
import av
import numpy as np
from voxline.pipeline import (
    AudioFormat,
    ClientConnectedFrame,
    ClientDisconnectedFrame,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    OutputAudioFrame,
    Pipeline,
    PipelineWorker,
    Samples,
    handles,
)
from voxline.tests.transports.webrtc.test_opus import packets, tone
from voxline.transports.webrtc import WebRTCTransport
from voxline.transports.webrtc.opus import Decoder, Encoder

_TIME_BASE = fractions.Fraction(1, 48_000)


async def until(condition: Callable[[], object], what: str, within_s: float = 20.0) -> None:
    """Return once something holds."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {within_s} s: {what}"
        await asyncio.sleep(0.002)


class _Microphone(aiortc.MediaStreamTrack):
    """A tone, encoded beforehand, each 20 ms."""

    kind = "audio"

    def __init__(self, hz: float) -> None:
        super().__init__()
        self._packets = packets(tone(hz, 1_000), Encoder(24_000, loss_percent=20))
        self._count = 0
        self._start: float | None = None

    async def recv(self) -> Any:
        loop = asyncio.get_running_loop()
        self._start = loop.time() if self._start is None else self._start
        await asyncio.sleep(max(0.0, self._start + 0.02 * self._count - loop.time()))
        packet = av.Packet(self._packets[self._count % len(self._packets)])
        packet.pts, packet.time_base = self._count * 960, _TIME_BASE
        self._count += 1
        return packet


@dataclass
class Arrived:
    """A packet of the bot's voice. ``at_ns`` of the monotonic clock."""

    at_ns: int
    sequence: int
    timestamp: int
    payload: bytes


class Client:
    """Offers a microphone, and where it is asked for a data channel and video; notes what it gets."""

    def __init__(self, *, hz: float = 440, channel: bool = True, video: int = 0) -> None:
        self.pc = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self.pc.addTrack(_Microphone(hz))
        for index in range(video):
            self.pc.addTransceiver("video", direction="sendrecv" if index == 0 else "sendonly")
        self.channel = self.pc.createDataChannel("chat") if channel else None
        self.got: list[Arrived] = []
        self.messages: list[str] = []
        self.answer = ""
        if self.channel is not None:
            self.channel.on("message", self.messages.append)
        self.pc.getReceivers()[0]._handle_rtp_packet = self._take  # type: ignore[method-assign]

    async def _take(self, packet: Any, arrival_time_ms: int) -> None:
        self.got.append(Arrived(time.monotonic_ns(), packet.sequence_number, packet.timestamp, packet.payload))

    async def offer(self) -> str:
        await self.pc.setLocalDescription(await self.pc.createOffer())
        return self.pc.localDescription.sdp

    async def offer_with(self, patch: Any, module: Any, addresses: Callable[..., list[str]]) -> str:
        """The offer of a client that knows these addresses of its machine."""
        with patch.context() as only:
            only.setattr(module, "get_host_addresses", addresses)
            return await self.offer()

    async def accept(self, answer: str) -> None:
        self.answer = answer
        await self.pc.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))

    async def call(self, transport: WebRTCTransport) -> None:
        await self.accept(await transport.answer(await self.offer()))
        await until(lambda: self.got, "the first packet of the bot's voice")
        if self.channel is not None:
            channel = self.channel
            await until(lambda: channel.readyState == "open", "an open data channel")

    def drop(self, lost: Callable[[int], bool]) -> None:
        """Lose packets on the way out: ``lost`` gets the number of each."""
        sender: Any = self.pc.getSenders()[0]
        dtls, count = sender.transport, 0
        whole = dtls._send_rtp

        async def send(data: bytes) -> None:
            nonlocal count
            if not 192 <= data[1] <= 223:
                count += 1
                if lost(count):
                    return
            await whole(data)

        dtls._send_rtp = send

    def vanish(self) -> None:
        """As a telephone in a tunnel: nothing is said, and nothing comes any more."""
        for transceiver in self.pc.getTransceivers():
            connection: Any = transceiver.receiver.transport.transport._connection
            for protocol in connection._protocols:
                protocol.transport.abort()

    def heard(self, first: int = 0) -> Samples:
        """What was sent, decoded."""
        decoder = Decoder()
        parts = [decoder.decode(packet.payload) for packet in self.got[first:]]
        return np.concatenate([np.zeros(0, np.int16), *(part for part in parts if part is not None)])

    async def close(self) -> None:
        await self.pc.close()


class Listener(FrameProcessor):
    """What the pipeline got, noted and passed on."""

    def __init__(self) -> None:
        self.audio: list[InputAudioFrame] = []
        self.clients: list[Frame] = []

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Nothing is said, but it could be."""
        return {OutputAudioFrame: AudioFormat((24_000,), (1,))}

    @handles(InputAudioFrame)
    async def listen(self, frame: InputAudioFrame) -> None:
        self.audio.append(frame)
        await self.push(frame)

    @handles(ClientConnectedFrame, ClientDisconnectedFrame)
    async def note(self, frame: Frame) -> None:
        self.clients.append(frame)
        await self.push(frame)

    @property
    def names(self) -> list[str]:
        return [type(frame).__name__.removeprefix("Client").removesuffix("Frame") for frame in self.clients]


@asynccontextmanager
async def running(transport: WebRTCTransport, *processors: FrameProcessor) -> AsyncGenerator[PipelineWorker]:
    """A worker over the transport, ended at the end."""
    worker = PipelineWorker(Pipeline([transport.input(), *(processors or [Listener()]), transport.output()]))
    run = asyncio.ensure_future(worker.run())
    try:
        await until(lambda: transport._open or run.done(), "an open transport")
        yield worker
    finally:
        worker.cancel()
        await run

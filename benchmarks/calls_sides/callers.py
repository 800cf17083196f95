# pyright: basic
"""The callers: peers that send packets encoded beforehand and note when each of the bot's packets came.

aiortc does the offer, ICE and DTLS; then the socket is taken out of its hands. Nothing is decoded. The arrival of a
packet is the kernel's (SO_TIMESTAMPNS): the moment in which the server sent it, however busy this process is.
"""

from __future__ import annotations

import asyncio
import socket
import struct
import sys
import time
from collections.abc import Awaitable, Callable
from typing import Any

import aioice.ice
import aiortc.rtcrtpreceiver
import aiortc.rtcrtpsender
import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription

SO_TIMESTAMPNS = 35
"""Linux; from asm-generic/socket.h."""
PERIOD_NS = 20_000_000
TICKS = 960
OPUS_TAG = 10
"""Bytes that SRTP puts behind a packet (RFC 3711, section 4.2)."""
LOOKED_AT = 200
"""Packets of each call that are decrypted, to see how they are encoded."""


async def _nothing(self: Any, parameters: Any) -> None:
    """The media part of aiortc is not wanted here."""


def bypass_media() -> None:
    """Leave sending and receiving to this module; connect over 127.0.0.1 only."""
    aiortc.rtcrtpsender.RTCRtpSender.send = _nothing
    aiortc.rtcrtpreceiver.RTCRtpReceiver.receive = _nothing
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]


class Call:
    """One caller."""

    def __init__(self, packets: list[bytes], at: int, phase_ns: int) -> None:
        self._packets, self._at = packets, at
        self._phase_ns = phase_ns
        self.next_ns = 0
        self.arrived: list[int] = []
        """When, in ns of the system's clock."""
        self.stamps: list[int] = []
        """RTP timestamps, unwrapped."""
        self.numbers: list[int] = []
        """Sequence numbers, unwrapped."""
        self.sizes: list[int] = []
        """Payload sizes in bytes."""
        self.tocs: list[int] = []
        """First bytes of payloads (RFC 6716, section 3.1): how it is encoded."""
        self._sequence = 1
        self._stamp = 0

    async def connect(self, ask: Callable[[str], Awaitable[str]]) -> None:
        """Call, and take the socket over."""
        self.peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        transceiver = self.peer.addTransceiver("audio", "sendrecv")
        await self.peer.setLocalDescription(await self.peer.createOffer())
        connected = asyncio.get_running_loop().create_future()

        @self.peer.on("connectionstatechange")
        def changed() -> None:
            if self.peer.connectionState in ("connected", "failed", "closed") and not connected.done():
                connected.set_result(self.peer.connectionState)

        answer = await ask(self.peer.localDescription.sdp)
        await self.peer.setRemoteDescription(RTCSessionDescription(answer, "answer"))
        state = await asyncio.wait_for(connected, 20)
        if state != "connected":
            raise RuntimeError(f"the call did not connect: {state}")
        self._ssrc = transceiver.sender._ssrc
        self._payload_type = transceiver._codecs[0].payloadType
        dtls = transceiver.sender.transport
        self._protect, self._unprotect = dtls._tx_srtp.protect, dtls._rx_srtp.unprotect
        pair = dtls.transport._connection._nominated[1]
        self._protocol, self._to = pair.protocol, pair.remote_addr
        self._take_over(pair.protocol.transport)
        self.next_ns = (time.monotonic_ns() // PERIOD_NS + 1) * PERIOD_NS + self._phase_ns

    def _take_over(self, transport: Any) -> None:
        loop: Any = asyncio.get_running_loop()
        self._socket: socket.socket = transport._sock
        if sys.platform == "linux":
            self._socket.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        loop._remove_reader(self._socket.fileno())
        loop._add_reader(self._socket.fileno(), self._readable)

    def _readable(self) -> None:
        while True:
            try:
                data, ancillary, _, address = self._socket.recvmsg(2048, 64)
            except (BlockingIOError, InterruptedError):
                return
            except OSError:
                return
            if len(data) > 12 and 127 < data[0] < 192 and not 64 <= data[1] & 127 < 96:
                when = time.time_ns()
                for level, kind, value in ancillary:
                    if level == socket.SOL_SOCKET and kind == SO_TIMESTAMPNS:
                        seconds, nanoseconds = struct.unpack("qq", value[:16])
                        when = seconds * 1_000_000_000 + nanoseconds
                self._note(data, when)
            else:
                self._protocol.datagram_received(data, address)

    def _note(self, data: bytes, when: int) -> None:
        number, stamp = struct.unpack_from("!HI", data, 2)
        if self.stamps:
            number = self.numbers[-1] + ((number - self.numbers[-1] + 0x8000) & 0xFFFF) - 0x8000
            stamp = self.stamps[-1] + ((stamp - self.stamps[-1] + 0x80000000) & 0xFFFFFFFF) - 0x80000000
        head = 12 + 4 * (data[0] & 15)
        if data[0] & 16:
            head += 4 + 4 * struct.unpack_from("!H", data, head + 2)[0]
        self.arrived.append(when)
        self.stamps.append(stamp)
        self.numbers.append(number)
        self.sizes.append(len(data) - head - OPUS_TAG)
        if 50 < len(self.stamps) <= 50 + LOOKED_AT:
            self.tocs.append(self._unprotect(data)[head])

    def send(self) -> None:
        """The next packet."""
        packet = self._packets[self._at]
        self._at = (self._at + 1) % len(self._packets)
        header = struct.pack("!BBHII", 0x80, self._payload_type, self._sequence & 0xFFFF, self._stamp, self._ssrc)
        self._sequence += 1
        self._stamp = (self._stamp + TICKS) & 0xFFFFFFFF
        try:
            self._socket.sendto(self._protect(header + packet), self._to)
        except OSError:
            return  # a full buffer is a lost packet


class Switchboard:
    """All calls, and the schedule on which they speak."""

    def __init__(self, packets: list[bytes]) -> None:
        self._packets = packets
        self.calls: list[Call] = []
        self.late_ns: list[int] = []
        """How late this process itself was with its own packets."""
        self._speaking: asyncio.Task[None] | None = None

    async def add(self, ask: Callable[[str], Awaitable[str]]) -> None:
        """One call more."""
        number = len(self.calls)
        # The golden ratio spreads any number of calls evenly over the 20 ms.
        call = Call(self._packets, number * 397 % len(self._packets), int(number * 0.618034 % 1 * PERIOD_NS))
        await call.connect(ask)
        self.calls.append(call)
        if self._speaking is None:
            self._speaking = asyncio.ensure_future(self._speak())

    async def _speak(self) -> None:
        while True:
            now = time.monotonic_ns()
            for call in self.calls:
                while call.next_ns <= now:
                    self.late_ns.append(now - call.next_ns)
                    call.next_ns += PERIOD_NS
                    call.send()
            soonest = min(call.next_ns for call in self.calls)
            await asyncio.sleep(max(0.0005, (soonest - time.monotonic_ns()) / 1e9))

    async def close(self) -> None:
        """Hang up."""
        if self._speaking is not None:
            self._speaking.cancel()
        await asyncio.gather(*(call.peer.close() for call in self.calls), return_exceptions=True)

    def heard(self, since_ns: int, until_ns: int, silent_bytes: int) -> dict[str, Any]:
        """Count the packets between two times of the system's clock."""
        late: list[float] = []
        missing = holes = received = size = quiet = 0
        tocs: list[int] = []
        for call in self.calls:
            arrived = np.array(call.arrived, np.int64)
            inside = (arrived >= since_ns) & (arrived < until_ns)
            tocs += call.tocs
            if inside.sum() < 2:
                quiet += 1
                missing += round((until_ns - since_ns) / PERIOD_NS)
                continue
            stamps = np.array(call.stamps, np.int64)[inside]
            numbers = np.array(call.numbers, np.int64)[inside]
            sizes = np.array(call.sizes, np.int64)[inside]
            behind = arrived[inside] - stamps * 1_000_000 // 48
            late += ((behind - behind.min()) / 1e6).tolist()
            received += len(stamps)
            # By sequence numbers what was lost; by timestamps what was never sent.
            spans = max(int(numbers.max() - numbers.min()), int(stamps.max() - stamps.min()) // TICKS) + 1
            missing += max(0, spans - len(set(numbers.tolist())))
            holes += int((sizes < silent_bytes).sum())
            size += int(sizes.sum())
        ordered = sorted(late)
        expected = max(1, received + missing)
        return {
            "p50_ms": ordered[len(ordered) // 2] if ordered else 1e3,
            "p99_ms": ordered[int(0.99 * len(ordered))] if ordered else 1e3,
            "worst_ms": ordered[-1] if ordered else 1e3,
            "missing": missing / expected,
            "holes": holes / expected,
            "silent_calls": quiet,
            "kbit_s": size * 8 / 1e3 / (max(1, received) * 0.02),
            "packets": received,
            "encoding": encoding(tocs),
        }


BANDWIDTHS = ("4 kHz", "6 kHz", "8 kHz", "12 kHz", "20 kHz")


def encoding(tocs: list[int]) -> str:
    """Name the most frequent encoding, from the packets' first bytes (RFC 6716, table 2)."""
    if not tocs:
        return "-"
    toc = max(set(tocs), key=tocs.count)
    config = toc >> 3
    if config < 12:
        mode, width = "SILK", BANDWIDTHS[config // 4]
    elif config < 16:
        mode, width = "hybrid", BANDWIDTHS[3 + (config - 12) // 2]
    else:
        mode, width = "CELT", (BANDWIDTHS[0], *BANDWIDTHS[2:])[(config - 16) // 4]
    return f"{'stereo' if toc & 4 else 'mono'}, {mode}, {width} wide"

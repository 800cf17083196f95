"""RTP and RTCP packets (RFC 3550) for one audio stream each way: parse and pack."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from ...pipeline.clock import NS_PER_S

_RTP = struct.Struct("!BBHII")
_SENDER = struct.Struct("!BBHIQIII")
_BLOCK = struct.Struct("!IIIIII")
_RTCP = struct.Struct("!BBHI")

RTCP_SR, RTCP_RR, RTCP_SDES, RTCP_BYE = 200, 201, 202, 203
_CNAME = 1
MAX_BLOCKS = 31
_NTP_EPOCH_S = 2_208_988_800
"""Seconds from 1900 to the zero of the worker's clock, as `ntp` counts them; the wall clock is not read."""


@dataclass(frozen=True, slots=True)
class RtpPacket:
    """The header fields in use, and the payload."""

    payload_type: int
    sequence: int
    timestamp: int
    ssrc: int
    payload: bytes


@dataclass(frozen=True, slots=True)
class ReportBlock:
    """A receiver's report about our stream (RFC 3550, section 6.4.1)."""

    ssrc: int
    fraction_lost: float
    """Since the last report, 0 to 1."""
    lost: int
    highest: int
    jitter: int
    """In RTP timestamps."""
    last_sr: int
    delay: int
    """Time since the receiver got that sender report, in 1/65536 s."""


@dataclass(frozen=True, slots=True)
class SenderReport:
    """A sender's clock and counts (RFC 3550, section 6.4.1)."""

    ssrc: int
    ntp: int
    timestamp: int
    packets: int
    octets: int


@dataclass(frozen=True, slots=True)
class Bye:
    """The end of a stream (RFC 3550, section 6.6)."""

    ssrc: int


def ntp(now_ns: int) -> int:
    """Convert a clock's time to a 64 bit NTP timestamp. RFC 3550, section 6.4.1, does not require the wall clock."""
    seconds, rest = divmod(now_ns, NS_PER_S)
    return ((seconds + _NTP_EPOCH_S) & 0xFFFFFFFF) << 32 | (rest << 32) // NS_PER_S


def pack_rtp(payload_type: int, sequence: int, timestamp: int, ssrc: int, payload: bytes) -> bytes:
    """Pack one packet without extension or marker."""
    return _RTP.pack(0x80, payload_type, sequence, timestamp, ssrc) + payload


def is_rtcp(packet: bytes) -> bool:
    """Return True for RTCP, False for RTP, on a shared port (RFC 5761, section 4)."""
    return len(packet) > 1 and 192 <= packet[1] <= 223


def parse_rtp(packet: bytes) -> RtpPacket | None:
    """Parse an RTP packet (RFC 3550, section 5.1), skipping header extensions. Return None for anything else."""
    size = len(packet)
    if size < 12:
        return None
    first, second, sequence, timestamp, ssrc = _RTP.unpack_from(packet)
    if first >> 6 != 2:
        return None
    start = 12 + 4 * (first & 0x0F)
    if first & 0x10:
        if size < start + 4:
            return None
        start += 4 + 4 * int.from_bytes(packet[start + 2 : start + 4], "big")
    end = size
    if first & 0x20:
        if not packet[-1]:
            return None
        end -= packet[-1]
    if end < start or start > size:
        return None
    return RtpPacket(second & 0x7F, sequence, timestamp, ssrc, packet[start:end])


def pack_report(report: SenderReport, cname: str, blocks: list[tuple[int, ...]]) -> bytes:
    """Pack a compound packet: sender report, report blocks, and the CNAME (RFC 3550, section 6.1)."""
    body = b"".join(_BLOCK.pack(*block) for block in blocks[:MAX_BLOCKS])
    words = 6 + 6 * len(blocks[:MAX_BLOCKS])
    sender = _SENDER.pack(
        0x80 | len(blocks[:MAX_BLOCKS]), RTCP_SR, words, report.ssrc, report.ntp, report.timestamp,
        report.packets & 0xFFFFFFFF, report.octets & 0xFFFFFFFF,
    )  # fmt: skip
    return sender + body + _pack_name(report.ssrc, cname)


def pack_receiver_report(ssrc: int, cname: str, blocks: list[tuple[int, ...]]) -> bytes:
    """Pack a receiver report and the CNAME, for an end that sends no audio (RFC 3550, section 6.4.2)."""
    body = b"".join(_BLOCK.pack(*block) for block in blocks[:MAX_BLOCKS])
    count = len(blocks[:MAX_BLOCKS])
    return _RTCP.pack(0x80 | count, RTCP_RR, 1 + 6 * count, ssrc) + body + _pack_name(ssrc, cname)


def _pack_name(ssrc: int, cname: str) -> bytes:
    name = cname.encode()[:255]
    item = bytes([_CNAME, len(name)]) + name
    item += bytes(4 - len(item) % 4)
    return _RTCP.pack(0x81, RTCP_SDES, 1 + len(item) // 4, ssrc) + item


def pack_bye(ssrc: int) -> bytes:
    """Pack the end of our stream."""
    return _RTCP.pack(0x81, RTCP_BYE, 1, ssrc)


def block(ssrc: int, fraction: int, lost: int, highest: int, jitter: int, last_sr: int, delay: int) -> tuple[int, ...]:
    """Return the six words of a report block. ``fraction`` is in 1/256, ``lost`` a signed 24 bit number."""
    lost = max(-0x800000, min(0x7FFFFF, lost)) & 0xFFFFFF
    return ssrc, (fraction & 0xFF) << 24 | lost, highest & 0xFFFFFFFF, jitter, last_sr, delay & 0xFFFFFFFF


def parse_rtcp(data: bytes) -> Iterator[SenderReport | ReportBlock | Bye]:
    """Yield the reports of a compound packet, skipping other packet types; stop at the first malformed packet."""
    at = 0
    while len(data) - at >= 8:
        first, kind, words = struct.unpack_from("!BBH", data, at)
        end = at + 4 + 4 * words
        if first >> 6 != 2 or end > len(data):
            return
        count = first & 0x1F
        if kind == RTCP_SR and end - at >= 28:
            _, _, _, ssrc, moment, timestamp, packets, octets = _SENDER.unpack_from(data, at)
            yield SenderReport(ssrc, moment, timestamp, packets, octets)
            yield from _blocks(data, at + 28, end, count)
        elif kind == RTCP_RR:
            yield from _blocks(data, at + 8, end, count)
        elif kind == RTCP_BYE:
            for index in range(min(count, words)):
                yield Bye(int.from_bytes(data[at + 4 + 4 * index : at + 8 + 4 * index], "big"))
        at = end


def _blocks(data: bytes, at: int, end: int, count: int) -> Iterator[ReportBlock]:
    for _ in range(count):
        if at + 24 > end:
            return
        ssrc, losses, highest, jitter, last_sr, delay = _BLOCK.unpack_from(data, at)
        lost = losses & 0xFFFFFF
        if lost >= 0x800000:
            lost -= 0x1000000
        yield ReportBlock(ssrc, (losses >> 24) / 256, lost, highest, jitter, last_sr, delay)
        at += 24

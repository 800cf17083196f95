"""RTP and RTCP packets: against aiortc's own, and against nonsense."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.tests.scale import examples
from voxline.transports.webrtc.rtp import (
    Bye,
    ReportBlock,
    SenderReport,
    block,
    is_rtcp,
    ntp,
    pack_bye,
    pack_report,
    pack_rtp,
    parse_rtcp,
    parse_rtp,
)

theirs = pytest.importorskip("aiortc.rtp")

U16, U32 = st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF)


@given(st.integers(0, 127), U16, U32, U32, st.binary(max_size=300))
def test_what_we_send_is_what_another_reads(
    payload_type: int, sequence: int, timestamp: int, ssrc: int, payload: bytes
) -> None:
    packet = theirs.RtpPacket.parse(pack_rtp(payload_type, sequence, timestamp, ssrc, payload))
    assert (packet.payload_type, packet.sequence_number, packet.timestamp) == (payload_type, sequence, timestamp)
    assert (packet.ssrc, packet.payload, packet.marker) == (ssrc, payload, 0)


@given(U16, U32, U32, st.binary(min_size=1, max_size=100), st.booleans(), st.integers(0, 3), st.integers(0, 20))
def test_what_another_sends_is_read_past_its_extensions_sources_and_padding(
    sequence: int, timestamp: int, ssrc: int, payload: bytes, extended: bool, sources: int, padding: int
) -> None:
    packet = theirs.RtpPacket(payload_type=111, sequence_number=sequence, timestamp=timestamp, ssrc=ssrc)
    packet.payload, packet.csrc, packet.padding_size = payload, list(range(sources)), padding
    data = packet.serialize(theirs.HeaderExtensionsMap())
    if extended:
        # A header extension of one word (RFC 8285), put in by hand.
        at = 12 + 4 * sources
        data = bytes([data[0] | 0x10]) + data[1:at] + b"\xbe\xde\x00\x01\x10\x30\x00\x00" + data[at:]
    read = parse_rtp(data)
    assert read is not None
    assert (read.payload_type, read.sequence, read.timestamp, read.ssrc) == (111, sequence, timestamp, ssrc)
    assert read.payload == payload


@given(U32, U32, U32, st.integers(0, 2**40), st.integers(0, 255), st.integers(-(2**23), 2**23 - 1), U32, U32, U32)
def test_our_reports_are_what_another_reads(
    ssrc: int, other: int, timestamp: int, now_ns: int, fraction: int, lost: int, highest: int, jitter: int, sr: int
) -> None:
    report = SenderReport(ssrc, ntp(now_ns), timestamp, 7, 9)
    data = pack_report(report, "a name", [block(other, fraction, lost, highest, jitter, sr, 77)]) + pack_bye(ssrc)
    assert is_rtcp(data)
    first, names, bye = theirs.RtcpPacket.parse(data)
    info = first.sender_info
    assert (first.ssrc, info.ntp_timestamp, info.rtp_timestamp) == (ssrc, ntp(now_ns), timestamp)
    assert (info.packet_count, info.octet_count) == (7, 9)
    (said,) = first.reports
    assert (said.ssrc, said.fraction_lost, said.packets_lost) == (other, fraction, lost)
    assert (said.highest_sequence, said.jitter, said.lsr, said.dlsr) == (highest, jitter, sr, 77)
    assert names.chunks[0].items == [(1, b"a name")]
    assert bye.sources == [ssrc]
    # And what we read of it ourselves.
    ours = list(parse_rtcp(data))
    assert ours == [report, ReportBlock(other, fraction / 256, lost, highest, jitter, sr, 77), Bye(ssrc)]


@settings(max_examples=examples(500))
@given(st.binary(max_size=120))
def test_nonsense_is_no_packet_and_no_error(data: bytes) -> None:
    parse_rtp(data)
    assert len(list(parse_rtcp(data))) <= 40


@given(st.binary(max_size=60), st.integers(0, 255))
def test_a_header_that_says_more_than_there_is_is_none(rest: bytes, first: int) -> None:
    packet = parse_rtp(bytes([0x80 | first & 0x3F]) + rest)
    assert packet is None or len(packet.payload) <= len(rest) - 11


def test_ntp_goes_on_with_the_clock() -> None:
    assert ntp(2_500_000_000) - ntp(0) == round(2.5 * 2**32)

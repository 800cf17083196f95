"""The bot's voice on the wire, in virtual time: one packet each 20 ms, speech in place of silence."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import VirtualClock
from voxline.tests.scale import examples
from voxline.transports.webrtc.rtp import ReportBlock, SenderReport, ntp, parse_rtcp, parse_rtp
from voxline.transports.webrtc.sender import CALM_REPORTS, SLOT_NS, TAIL_SLOTS, VoiceSender

MS = 1_000_000
SSRC = 1234
FIRST = 0xFFFF_F000
"""The first timestamp: it wraps soon."""


class FakeEncoder:
    """Numbers in place of sound."""

    def __init__(self, percent: int = 0) -> None:
        self.ready = b"copied silence" if percent else b"silence"

    def encode(self, samples: Any) -> bytes:
        return b"v%d" % samples[0]

    def encode_silence(self) -> bytes:
        return b"tail"

    def silence(self) -> bytes:
        return self.ready


@dataclass
class Sent:
    """A packet on the wire."""

    at_ns: int
    sequence: int
    slot: int
    payload: str


class Line:
    """A sender on a virtual clock."""

    def __init__(self, start_ns: int = 0) -> None:
        self.clock = VirtualClock(autojump=False, start_ns=start_ns)
        self.losses: list[int] = []
        self.sent: list[Sent] = []
        self.control: list[bytes] = []
        self._unwrapped = FIRST
        self.sender = VoiceSender(
            self.clock,
            cast(Any, self._encoder),
            self._take,
            self.control.append,
            payload_type=111,
            ssrc=SSRC,
            cname="bot",
            first_sequence=0xFFF0,
            first_timestamp=FIRST,
        )

    def _encoder(self, percent: int) -> FakeEncoder:
        self.losses.append(percent)
        return FakeEncoder(percent)

    def _take(self, data: bytes) -> None:
        packet = parse_rtp(data)
        assert packet is not None
        assert packet.payload_type == 111
        assert packet.ssrc == SSRC
        self._unwrapped += (packet.timestamp - self._unwrapped) & 0xFFFFFFFF
        ticks = self._unwrapped - FIRST
        assert ticks % 960 == 0
        self.sent.append(Sent(self.clock.now_ns(), packet.sequence, ticks // 960, packet.payload.decode()))

    def say(self, *numbers: int, due_ns: int | None = None) -> None:
        """As the pacer: each 20 ms later than the one before, from now on or from ``due_ns`` on."""
        begin_ns = self.clock.now_ns() if due_ns is None else due_ns
        for index, number in enumerate(numbers):
            self.sender.send(np.full(480, number, np.int16), begin_ns + index * SLOT_NS)

    async def advance(self, ms: float) -> None:
        await self.clock.advance(ms / 1000)

    async def stall(self, ms: float) -> None:
        """The event loop is held up; then what is due runs."""
        self.clock.set(self.clock.now_ns() + round(ms * MS))

    def said(self) -> list[str]:
        return [packet.payload for packet in self.sent if packet.payload.startswith("v")]


def check_stream(sent: list[Sent]) -> None:
    """No timestamp twice, none left out, and the sequence numbers go on."""
    assert [packet.slot for packet in sent] == list(range(len(sent)))
    assert [packet.sequence for packet in sent] == [(0xFFF0 + index) & 0xFFFF for index in range(len(sent))]


async def test_a_packet_goes_out_each_20_ms_from_the_start() -> None:
    line = Line(start_ns=7 * MS)
    line.sender.start()
    await line.advance(10_000)
    check_stream(line.sent)
    assert {packet.payload for packet in line.sent} == {"silence"}
    # On the grid of 20 ms that all calls share: the first at once, for the slot that is under way.
    assert [packet.at_ns for packet in line.sent] == [7 * MS, *range(20 * MS, 10_007 * MS, 20 * MS)]


async def test_the_first_20_ms_of_a_response_are_on_the_wire_at_once() -> None:
    line = Line()
    line.sender.start()
    await line.advance(107)
    line.say(1, 2, 3)
    assert line.sent[-1].payload == "v1"
    assert line.sent[-1].at_ns == 107 * MS
    await line.advance(100)
    assert [(packet.payload, packet.at_ns // MS) for packet in line.sent[6:10]] == [
        ("v1", 107), ("v2", 140), ("v3", 160), ("tail", 180),
    ]  # fmt: skip
    check_stream(line.sent)


async def test_speech_is_followed_by_the_rest_of_the_encoder_and_then_by_ready_silence() -> None:
    line = Line()
    line.sender.start()
    line.say(1)
    await line.advance(200)
    payloads = [packet.payload for packet in line.sent]
    assert payloads[:6] == ["silence", "v1", *["tail"] * TAIL_SLOTS, "silence"]


async def test_timestamps_keep_to_real_time_however_often_the_bot_speaks() -> None:
    """An hour of responses at odd moments: no packet early by more than a slot, and none late."""
    line = Line()
    line.sender.start()
    rng = np.random.default_rng(3)
    said = 0
    while line.clock.now_ns() < 1200 * 1_000_000_000:
        await line.advance(float(rng.uniform(100, 5000)))
        for _ in range(int(rng.integers(1, 40))):
            line.say(said)
            said += 1
            await line.advance(20)
    await line.advance(200)
    check_stream(line.sent)
    lead_ns = [packet.slot * SLOT_NS - packet.at_ns for packet in line.sent]
    assert min(lead_ns) >= 0
    assert max(lead_ns) <= SLOT_NS
    assert line.said() == [f"v{number}" for number in range(said)]


async def test_a_cut_drops_what_is_not_on_the_wire_and_silence_follows_within_a_slot() -> None:
    line = Line()
    line.sender.start()
    await line.advance(33)
    line.say(1, 2, 3, 4)
    await line.advance(30)
    assert line.said() == ["v1", "v2"]
    line.sender.clear()
    before = len(line.sent)
    await line.advance(20)
    assert [packet.payload for packet in line.sent[before:]] == ["tail"]
    await line.advance(500)
    assert line.said() == ["v1", "v2"]
    check_stream(line.sent)


async def test_a_response_right_after_a_cut_is_not_mixed_with_the_one_before() -> None:
    line = Line()
    line.sender.start()
    line.say(1, 2, 3)
    line.sender.clear()
    line.say(7, 8)
    await line.advance(200)
    assert line.said() == ["v1", "v7", "v8"]
    check_stream(line.sent)


async def test_a_pause_is_silence_and_keeps_what_waits() -> None:
    line = Line()
    line.sender.start()
    line.say(1, 2, 3)
    line.sender.pause()
    await line.advance(100)
    assert line.said() == ["v1"]
    line.sender.resume()
    await line.advance(100)
    assert line.said() == ["v1", "v2", "v3"]
    check_stream(line.sent)


async def test_after_a_stall_of_100_ms_everything_due_goes_out_at_once_and_the_schedule_stands() -> None:
    line = Line()
    line.sender.start()
    await line.advance(50)
    before = len(line.sent)
    await line.stall(100)
    await line.advance(0)
    assert [packet.at_ns // MS for packet in line.sent[before:]] == [150] * 5
    await line.advance(30)
    assert [packet.at_ns // MS for packet in line.sent[before + 5 :]] == [160, 180]
    check_stream(line.sent)


async def test_a_stall_within_a_response_puts_no_silence_into_it() -> None:
    """The pacer was held up too, and brings what is due in the same turn of the event loop."""
    line = Line()
    line.sender.start()
    line.say(0, 1, 2)
    await line.advance(45)
    await line.stall(100)
    await line.clock.advance(0)
    line.say(3, 4, 5, 6, 7, 8, 9, due_ns=60 * MS)
    await line.advance(160)
    first = next(index for index, packet in enumerate(line.sent) if packet.payload == "v0")
    assert [packet.payload for packet in line.sent[first : first + 10]] == [f"v{number}" for number in range(10)]
    check_stream(line.sent)


async def test_a_response_that_begins_after_a_stall_is_not_said_in_slots_of_the_past() -> None:
    line = Line()
    line.sender.start()
    await line.advance(50)
    await line.stall(150)
    line.say(1, 2, 3)
    for number in (4, 5, 6, 7):
        await line.advance(20)
        line.say(number, due_ns=line.clock.now_ns() + 40 * MS)
    await line.advance(200)
    spoken = [index for index, packet in enumerate(line.sent) if packet.payload.startswith("v")]
    assert line.said() == [f"v{number}" for number in range(1, 8)]
    assert spoken == list(range(spoken[0], spoken[0] + 7))
    assert line.sent[spoken[0]].slot >= 200 // 20
    check_stream(line.sent)


async def test_silence_comes_soon_after_a_stall_where_the_response_was_over() -> None:
    line = Line()
    line.sender.start()
    line.say(1)
    await line.advance(25)
    await line.stall(100)
    await line.advance(5)
    assert line.sent[-1].slot == 125 // 20
    check_stream(line.sent)


async def test_a_long_stall_is_left_out_and_the_timestamps_go_on_with_the_time() -> None:
    line = Line()
    line.sender.start()
    await line.advance(100)
    await line.stall(60_000)
    before = len(line.sent)
    await line.advance(20)
    assert len(line.sent) - before < 60
    assert line.sent[-1].slot * SLOT_NS == line.sent[-1].at_ns
    assert line.sent[-1].sequence == (0xFFF0 + len(line.sent) - 1) & 0xFFFF


OPERATIONS = st.lists(
    st.one_of(
        st.tuples(st.just("say"), st.integers(1, 6)),
        st.tuples(st.just("advance"), st.integers(1, 90)),
        st.tuples(st.just("stall"), st.integers(1, 150)),
        st.tuples(st.sampled_from(["clear", "pause", "resume"]), st.just(0)),
    ),
    max_size=40,
)


@settings(max_examples=examples(150))
@given(OPERATIONS, st.integers(0, 19_999_999))
async def test_whatever_happens_the_stream_is_whole_and_nothing_cut_is_heard(
    operations: list[tuple[str, int]], start_ns: int
) -> None:
    line = Line(start_ns)
    line.sender.start()
    number, cut = 0, 0
    for name, value in operations:
        if name == "say":
            line.say(*range(number, number + value))
            number += value
        elif name == "advance":
            await line.advance(value)
        elif name == "stall":
            await line.stall(value)
        elif name == "clear":
            line.sender.clear()
            cut = number
            heard_before_cut = len(line.said())
            await line.advance(60)
            later = [int(payload[1:]) for payload in line.said()[heard_before_cut:]]
            assert all(one >= cut for one in later)
        else:
            getattr(line.sender, name)()
    line.sender.resume()
    await line.advance(20 * number + 200)
    check_stream(line.sent)
    said = [int(payload[1:]) for payload in line.said()]
    assert said == sorted(set(said))
    assert all(packet.slot * SLOT_NS - packet.at_ns <= SLOT_NS for packet in line.sent)
    assert line.sent[-1].slot * SLOT_NS > line.clock.now_ns() - 2 * SLOT_NS
    line.sender.stop()
    assert line.clock.pending == []


async def test_a_senders_report_says_which_timestamp_is_now() -> None:
    line = Line(start_ns=5 * MS)
    line.sender.blocks = lambda now_ns: [(9, 0, 100, 3, 0, 0)]
    line.sender.start()
    line.say(1, 2, 3)
    await line.advance(4_000)
    assert len(line.control) == 2
    for data in line.control:
        report, block = list(parse_rtcp(data))
        assert isinstance(report, SenderReport)
        assert isinstance(block, ReportBlock)
        assert block.ssrc == 9
        seconds = (report.ntp - ntp(0)) / 2**32
        # Slot 0 began at 0, and has the first timestamp.
        assert (report.timestamp - FIRST) & 0xFFFFFFFF == pytest.approx(seconds * 48_000, abs=1)
    last = next(iter(parse_rtcp(line.control[-1])))
    assert isinstance(last, SenderReport)
    sent = [packet for packet in line.sent if packet.at_ns < (last.ntp - ntp(0)) * 1_000_000_000 / 2**32 - MS]
    assert last.packets == len(sent)
    assert last.octets == sum(len(packet.payload) for packet in sent)


async def test_reports_of_the_other_side_give_the_round_trip() -> None:
    line = Line()
    line.sender.start()
    await line.advance(3_000)
    sr = ntp(line.clock.now_ns() - 250 * MS) >> 16 & 0xFFFFFFFF
    line.sender.heard(ReportBlock(SSRC, 0, 0, 100, 0, sr, round(0.2 * 65536)))
    assert line.sender.round_trip_ms == pytest.approx(50, abs=0.1)
    line.sender.heard(ReportBlock(SSRC, 0, 0, 100, 0, 0, 0))
    assert line.sender.round_trip_ms == pytest.approx(50, abs=0.1)


async def test_a_line_with_losses_gets_error_correction_from_the_next_silence_on_and_loses_it_when_it_is_calm() -> None:
    line = Line()
    line.sender.start()
    await line.advance(100)
    line.say(1, 2)
    line.sender.heard(ReportBlock(SSRC + 1, 0.9, 20, 100, 0, 0, 0))
    line.sender.heard(ReportBlock(SSRC, 0.17, 20, 100, 0, 0, 0))
    assert line.losses == [0]
    await line.advance(200)
    assert line.losses == [0, 17]
    assert line.sent[-1].payload == "copied silence"
    for _ in range(CALM_REPORTS - 1):
        line.sender.heard(ReportBlock(SSRC, 0.001, 20, 100, 0, 0, 0))
    await line.advance(20)
    assert line.losses == [0, 17]
    line.sender.heard(ReportBlock(SSRC, 0, 20, 100, 0, 0, 0))
    await line.advance(20)
    assert line.losses == [0, 17, 0]
    assert line.sent[-1].payload == "silence"
    check_stream(line.sent)


async def test_who_does_not_want_to_hear_gets_reports_only_and_the_time_goes_on() -> None:
    line = Line()
    line.sender.blocks = lambda now_ns: [(9, 0, 100, 3, 0, 0)]
    line.sender.sends = False
    line.sender.start()
    line.say(1, 2)
    await line.advance(4_000)
    assert line.sent == []
    assert [[type(item).__name__ for item in parse_rtcp(data)] for data in line.control] == [["ReportBlock"]] * 2
    line.sender.sends = True
    await line.advance(40)
    assert [packet.slot for packet in line.sent] == [201, 202]
    assert [packet.sequence for packet in line.sent] == [0xFFF0, 0xFFF1]


async def test_the_end_is_said_and_leaves_no_timer() -> None:
    line = Line()
    line.sender.start()
    await line.advance(100)
    line.sender.stop()
    kinds = [type(item).__name__ for item in parse_rtcp(line.control[-1])]
    assert kinds == ["SenderReport", "Bye"]
    assert line.clock.pending == []
    before = len(line.sent)
    line.say(1)
    await line.advance(1000)
    assert len(line.sent) == before

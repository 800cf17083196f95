"""The user's voice from the wire, in virtual time: at once, in order, and on one timeline."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import Samples, VirtualClock
from voxline.tests.transports.webrtc.test_opus import packets, peak_hz, rms, tone
from voxline.transports.webrtc.jitter import MIN_WAIT_MS
from voxline.transports.webrtc.opus import Encoder
from voxline.transports.webrtc.receiver import VoiceReceiver
from voxline.transports.webrtc.rtp import RtpPacket, SenderReport, ntp

NS_PER_MS = 1_000_000


class Ear:
    """A receiver on a virtual clock, and what it heard: (when, time stamp, samples)."""

    def __init__(self) -> None:
        self.clock = VirtualClock(autojump=False)
        self.heard: list[tuple[float, float, Samples]] = []
        self.receiver = VoiceReceiver(self.clock, self._take, payload_type=111)

    def _take(self, samples: Samples, pts_ns: int) -> None:
        self.heard.append((self.clock.now_ns() / NS_PER_MS, pts_ns / NS_PER_MS, samples))

    def packet(
        self, index: int, payload: bytes, *, ssrc: int = 5, timestamp: int | None = None, kind: int = 111
    ) -> None:
        at = index * 960 if timestamp is None else timestamp
        self.receiver.packet(RtpPacket(kind, index & 0xFFFF, at & 0xFFFFFFFF, ssrc, payload))

    def samples(self) -> Samples:
        return np.concatenate([np.zeros(0, np.int16), *(samples for _, _, samples in self.heard)])

    def check_timeline(self) -> None:
        """Each piece begins where the one before it ended."""
        ends = [pts + len(samples) / 16 for _, pts, samples in self.heard]
        begins = [pts for _, pts, _ in self.heard]
        assert begins[1:] == pytest.approx(ends[:-1], abs=0.001)


async def test_each_packet_is_heard_in_the_call_that_brings_it() -> None:
    ear = Ear()
    for index, payload in enumerate(packets(tone(440, 1_000))):
        await ear.clock.advance(0.02)
        ear.packet(index, payload)
        assert len(ear.heard) == index + 1
    assert {len(samples) for _, _, samples in ear.heard} == {320}
    assert [pts for _, pts, _ in ear.heard] == [20.0 * index for index in range(50)]
    assert peak_hz(ear.samples()[3_200:], 16_000) == pytest.approx(440, abs=2)


async def test_lost_packets_are_made_up_for_and_the_time_is_kept() -> None:
    ear = Ear()
    for index, payload in enumerate(packets(tone(200, 2_000), Encoder(24_000, loss_percent=20))):
        await ear.clock.advance(0.02)
        if index not in (20, 40, 41, 42, 70):
            ear.packet(index, payload)
    await ear.clock.advance(0.9)
    ear.check_timeline()
    heard = ear.samples()
    assert len(heard) == 100 * 320
    assert ear.receiver.jitter.lost == 5
    assert ear.receiver.concealed == 5 * 960
    # No hole in the tone, of which 20 ms would be silent.
    assert min(rms(heard[at : at + 320]) for at in range(3_200, 31_000, 320)) > 500
    assert peak_hz(heard[3_200:], 16_000) == pytest.approx(200, abs=2)


@pytest.mark.parametrize("counted_on", [True, False])
async def test_who_switches_the_microphone_off_in_mid_word_is_silent_a_second_later(counted_on: bool) -> None:
    """Whether or not the time stamps go on meanwhile."""
    ear, line = Ear(), packets(tone(200, 2_000))
    for index in range(50):
        await ear.clock.advance(0.02)
        ear.packet(index, line[index])
    await ear.clock.advance(0.98)
    assert len(ear.samples()) == 50 * 320
    await ear.clock.advance(0.02)
    assert len(ear.samples()) == 50 * 320 + 16_000
    assert not ear.samples()[-16_000:].any()
    await ear.clock.advance(4)
    assert len(ear.samples()) == 50 * 320 + 16_000, "and no more of it"
    for index in range(50, 100):
        await ear.clock.advance(0.02)
        ear.packet(index, line[index], timestamp=(index + (250 if counted_on else 0)) * 960)
    # Once, and not again for the gap that the time stamps tell of.
    assert len(ear.samples()) == 100 * 320 + 16_000
    assert [pts for _, pts, _ in ear.heard][51] == (6_000 if counted_on else 2_000)
    ear.receiver.stop()
    await ear.clock.advance(5)
    assert len(ear.samples()) == 100 * 320 + 16_000


async def test_what_comes_after_a_lost_packet_is_heard_when_its_time_is_up() -> None:
    ear, line = Ear(), packets(tone(200, 200))
    ear.packet(0, line[0])
    await ear.clock.advance(0.04)
    ear.packet(2, line[2])
    assert len(ear.heard) == 1
    await ear.clock.advance(0.05)
    assert [at for at, _, _ in ear.heard] == [0, 40 + MIN_WAIT_MS, 40 + MIN_WAIT_MS]
    ear.receiver.stop()
    assert ear.clock.pending == []


async def test_a_long_loss_is_guessed_for_100_ms_and_silent_after_that() -> None:
    ear, line = Ear(), packets(tone(200, 2_000))
    for index in [*range(20), *range(60, 100)]:
        ear.packet(index, line[index])
        await ear.clock.advance(0.02)
    ear.check_timeline()
    heard = ear.samples()
    assert len(heard) == 100 * 320
    gap = heard[20 * 320 + 1_920 : 58 * 320]
    assert rms(gap) < 5


async def test_a_pause_of_the_sender_is_silence() -> None:
    ear, line = Ear(), packets(tone(200, 400))
    ear.packet(0, line[0])
    ear.packet(1, line[1], timestamp=960 * 11)
    ear.check_timeline()
    assert len(ear.samples()) == 12 * 320
    assert rms(ear.heard[1][2]) == 0


async def test_a_pause_of_minutes_is_told_by_the_time_stamp() -> None:
    ear, line = Ear(), packets(tone(200, 400))
    ear.packet(0, line[0])
    await ear.clock.advance(60)
    ear.packet(1, line[1], timestamp=48_000 * 60)
    # And the second of silence, when nothing came any more.
    assert sum(len(samples) for _, _, samples in ear.heard) <= 640 + 16_000
    assert ear.heard[-1][1] == pytest.approx(60_000, abs=25)


async def test_a_new_source_is_heard_from_its_first_packet_on() -> None:
    ear, line = Ear(), packets(tone(200, 400))
    for index in range(10):
        ear.packet(index, line[index])
        await ear.clock.advance(0.02)
    for index in range(10):
        ear.packet(index + 30_000, line[index + 10], ssrc=9, timestamp=777 + index * 960)
        await ear.clock.advance(0.02)
    assert len(ear.heard) == 20
    assert [pts for _, pts, _ in ear.heard] == pytest.approx([20 * index for index in range(20)], abs=1)


async def test_packets_of_other_kinds_and_broken_ones_are_passed_over() -> None:
    ear, line = Ear(), packets(tone(200, 400))
    ear.packet(0, line[0])
    ear.packet(1, line[1], kind=126)
    ear.packet(1, b"")
    ear.packet(1, bytes([3]))
    assert len(ear.heard) == 1
    assert ear.receiver.broken == 1
    ear.packet(1, line[1])
    assert len(ear.heard) == 2


async def test_the_report_says_what_was_lost_and_when_the_sender_reported() -> None:
    ear, line = Ear(), packets(tone(200, 2_000))
    for index in range(50):
        if index % 5:
            ear.packet(index, line[index])
        await ear.clock.advance(0.02)
    report = SenderReport(5, ntp(10**9), 0, 0, 0)
    ear.receiver.sender_report(report)
    await ear.clock.advance(0.5)
    ((ssrc, losses, highest, jitter, last_sr, delay),) = ear.receiver.blocks(ear.clock.now_ns())
    # The first that came was number 1: nobody can know of number 0.
    assert (ssrc, highest, losses & 0xFFFFFF) == (5, 49, 9)
    assert losses >> 24 == 9 * 256 // 49
    assert last_sr == report.ntp >> 16 & 0xFFFFFFFF
    assert delay == 32_768
    assert jitter < 20
    ((_, losses, *_rest),) = ear.receiver.blocks(ear.clock.now_ns())
    assert losses >> 24 == 0


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(0, 100), st.booleans()), min_size=1, max_size=60))
async def test_whatever_the_line_does_the_timeline_has_no_seam(fates: list[tuple[int, bool]]) -> None:
    ear, line = Ear(), packets(tone(300, 100))
    arrivals = sorted((index * 20 + delay, index) for index, (delay, comes) in enumerate(fates) if comes)
    for at_ms, index in arrivals:
        await ear.clock.advance(max(0.0, at_ms / 1000 - ear.clock.now_ns() / 1e9))
        ear.packet(index, line[index % len(line)])
    await ear.clock.advance(0.9)
    ear.check_timeline()
    if arrivals:
        indices = [index for _, index in arrivals]
        assert len(ear.samples()) <= (max(indices) - min(indices) + 1) * 320
    ear.receiver.stop()
    assert ear.clock.pending == []

"""The user's voice from the wire: packets in, audio out at once, in order, with what is missing made up for.

A lost packet is taken from the copy in the one after it, where there is one, and guessed otherwise, so that the audio
keeps time. Where the sender sent nothing (RFC 7587, section 3.1.3: DTX), there is silence.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...pipeline.clock import NS_PER_S, Clock, TimerHandle
from ...pipeline.frames import Samples
from ..silence_watch import SilenceWatch
from .jitter import JitterBuffer, Piece
from .opus import CLOCK_RATE, FRAME_TICKS, Decoder, packet_ticks
from .rtp import RtpPacket, SenderReport, block

MAX_GUESS_TICKS = CLOCK_RATE // 10
"""100 ms: a guess of more is no longer speech, so the rest is silence."""
MAX_AHEAD_NS = 10 * NS_PER_S
"""Audio may come so much faster than it is spoken: what a network held back comes at once. The rest is dropped."""
MAX_QUIET_TICKS = CLOCK_RATE
"""1 s: of a longer gap, only the time stamp tells."""
_STEP_TICKS = CLOCK_RATE // 400
"""2.5 ms, the unit of Opus."""


class Statistics:
    """What a receiver reports of a stream (RFC 3550, section 6.4.1 and A.3, A.8)."""

    def __init__(self, ssrc: int) -> None:
        self.ssrc = ssrc
        self.received = 0
        self.jitter = 0.0
        """In RTP timestamps."""
        self._base: int | None = None
        self._highest = 0
        self._transit = 0
        self._expected_before = 0
        self._received_before = 0
        self._last_sr = 0
        self._last_sr_ns = 0

    def packet(self, sequence: int, timestamp: int, now_ns: int) -> None:
        """One came."""
        self.received += 1
        arrival = now_ns * CLOCK_RATE // NS_PER_S
        transit = (arrival - timestamp) & 0xFFFFFFFF
        if self._base is None:
            self._base = self._highest = sequence
        else:
            ahead = ((sequence - self._highest + 0x8000) & 0xFFFF) - 0x8000
            if ahead > 0:
                self._highest += ahead
            change = ((transit - self._transit + 0x80000000) & 0xFFFFFFFF) - 0x80000000
            if abs(change) < CLOCK_RATE:
                self.jitter += (abs(change) - self.jitter) / 16
        self._transit = transit

    def sender(self, report: SenderReport, now_ns: int) -> None:
        """The sender's own report."""
        self._last_sr = report.ntp >> 16 & 0xFFFFFFFF
        self._last_sr_ns = now_ns

    @property
    def lost(self) -> int:
        """Expected and not received; below 0 with duplicates."""
        return 0 if self._base is None else self._highest - self._base + 1 - self.received

    def block(self, now_ns: int) -> tuple[int, ...]:
        """The report block, and the beginning of the next interval."""
        expected = 0 if self._base is None else self._highest - self._base + 1
        due, came = expected - self._expected_before, self.received - self._received_before
        self._expected_before, self._received_before = expected, self.received
        fraction = max(0, min(255, (due - came) * 256 // due)) if due > 0 else 0
        delay = (now_ns - self._last_sr_ns) * 65536 // NS_PER_S if self._last_sr else 0
        return block(self.ssrc, fraction, self.lost, self._highest, round(self.jitter), self._last_sr, delay)


class VoiceReceiver:
    """Gives ``deliver`` the audio (int16 mono at ``sample_rate``) and its time in ns since the first of it."""

    def __init__(
        self,
        clock: Clock,
        deliver: Callable[[Samples, int], None],
        *,
        payload_type: int,
        sample_rate: int = 16_000,
    ) -> None:
        self._clock = clock
        self._deliver = deliver
        self.payload_type = payload_type
        """Of Opus; another one after a renegotiation."""
        self._sample_rate = sample_rate
        self._decoder = Decoder(sample_rate)
        self._jitter = JitterBuffer()
        self._timer: TimerHandle | None = None
        self._timer_ns = 0
        self._first_ns: int | None = None
        self._ticks = 0
        """The time of what is delivered next, in ticks of 48 kHz since the first."""
        self.statistics: Statistics | None = None
        self.broken = 0
        """Packets that are none of Opus."""
        self.concealed = 0
        """Ticks of 48 kHz that were lost, and made up for."""
        self.hurried = 0
        """Samples that were dropped: they came too much faster than they are spoken."""
        self._ahead_ns = 0
        """Until when the audio lasts that came."""
        self._gap = SilenceWatch(clock, self._fall_silent)
        self._silent = False
        """The silence of the gap that is now was given already."""

    @property
    def jitter(self) -> JitterBuffer:
        """Where packets wait for those before them."""
        return self._jitter

    def packet(self, packet: RtpPacket) -> None:
        """One came."""
        if packet.payload_type != self.payload_type or not packet.payload:
            return
        now_ns = self._clock.now_ns()
        statistics = self.statistics
        if statistics is None or statistics.ssrc != packet.ssrc:
            statistics = self._begin(packet.ssrc)
        statistics.packet(packet.sequence, packet.timestamp, now_ns)
        ticks = packet_ticks(packet.payload)
        if not ticks:
            self.broken += 1
            return
        for piece in self._jitter.put(packet.sequence, packet.timestamp, ticks, packet.payload, now_ns):
            self._give(piece, now_ns)
        self._watch()
        self._gap.came(now_ns)

    def _fall_silent(self) -> None:
        self._silent = True
        self._out(self._zeros(MAX_QUIET_TICKS))

    def sender_report(self, report: SenderReport) -> None:
        """The other side's report of what it sends."""
        if self.statistics is not None and report.ssrc == self.statistics.ssrc:
            self.statistics.sender(report, self._clock.now_ns())

    def blocks(self, now_ns: int) -> list[tuple[int, ...]]:
        """What we report of it."""
        return [] if self.statistics is None else [self.statistics.block(now_ns)]

    def stop(self) -> None:
        """Nothing more comes."""
        self._gap.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._deliver = _nowhere

    def _begin(self, ssrc: int) -> Statistics:
        self.statistics = Statistics(ssrc)
        self._jitter = JitterBuffer()
        self._decoder = Decoder(self._sample_rate)
        return self.statistics

    def _watch(self) -> None:
        due_ns = self._jitter.due_ns
        if due_ns is None:
            return
        if self._timer is not None:
            if self._timer_ns <= due_ns:
                return
            self._timer.cancel()
        self._timer_ns = due_ns
        self._timer = self._clock.call_at(due_ns, self._expire)

    def _expire(self) -> None:
        self._timer = None
        now_ns = self._clock.now_ns()
        for piece in self._jitter.expire(now_ns):
            self._give(piece, now_ns)
        self._watch()

    def _give(self, piece: Piece, now_ns: int) -> None:
        if self._first_ns is None:
            self._first_ns = now_ns
        if piece.restart:
            elapsed = (now_ns - self._first_ns) * CLOCK_RATE // NS_PER_S
            self._ticks = max(self._ticks, elapsed)
        if self._silent:
            self._silent = False
            self._ticks += max(0, piece.quiet + piece.lost - MAX_QUIET_TICKS)
            piece = replace(piece, quiet=0, lost=0)
        if piece.quiet:
            self._quiet(piece.quiet)
        if piece.lost:
            self._make_up(piece)
        samples = self._decoder.decode(piece.payload)
        if samples is None:
            self.broken += 1
            samples = self._decoder.conceal(min(piece.ticks, FRAME_TICKS * 3))
        self._out(samples)

    def _quiet(self, ticks: int) -> None:
        silent = min(ticks, MAX_QUIET_TICKS)
        self._ticks += ticks - silent
        self._out(self._zeros(silent))

    def _make_up(self, piece: Piece) -> None:
        """The copy is of what is just before the packet; a guess goes on from what was heard last."""
        self.concealed += piece.lost
        copied = min(piece.lost, piece.ticks)
        guessed = min(piece.lost - copied, MAX_GUESS_TICKS)
        guessed -= guessed % _STEP_TICKS
        left = piece.lost - copied - guessed
        while guessed:
            step = min(guessed, FRAME_TICKS)
            self._out(self._decoder.conceal(step))
            guessed -= step
        if left:
            self._quiet(left)
        if copied % _STEP_TICKS:
            self._out(self._zeros(copied))
        else:
            self._out(self._decoder.recover(piece.payload, copied))

    def _zeros(self, ticks: int) -> Samples:
        return np.zeros(ticks * self._sample_rate // CLOCK_RATE, np.int16)

    def _out(self, samples: Samples) -> None:
        pts_ns = self._ticks * NS_PER_S // CLOCK_RATE
        self._ticks += len(samples) * CLOCK_RATE // self._sample_rate
        now_ns = self._clock.now_ns()
        ahead_ns = max(self._ahead_ns, now_ns) + len(samples) * NS_PER_S // self._sample_rate
        if ahead_ns - now_ns > MAX_AHEAD_NS:
            self.hurried += len(samples)
        elif len(samples):
            self._ahead_ns = ahead_ns
            self._deliver(samples, pts_ns)


def _nowhere(samples: Samples, pts_ns: int) -> None:
    """For what comes after the end."""

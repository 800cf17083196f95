"""Receives the user's voice: packets in, audio out at once, in order, with lost packets concealed.

A lost packet is recovered from the copy in the next one, or else concealed, so that the audio keeps time. Gaps in which
the sender sent nothing (DTX; RFC 7587, section 3.1.3) become silence.
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
"""100 ms: longer concealment no longer resembles speech, so the rest is silence."""
MAX_AHEAD_NS = 10 * NS_PER_S
"""Audio may arrive this far ahead of real time, after a network held it back. Audio beyond is dropped."""
MAX_QUIET_TICKS = CLOCK_RATE
"""1 s: the longest gap that is filled with silence. A longer one only moves the timestamps."""
_STEP_TICKS = CLOCK_RATE // 400
"""2.5 ms, the unit of Opus."""


class ReceptionStatistics:
    """Counts packets of a stream for receiver reports (RFC 3550, section 6.4.1 and A.3, A.8)."""

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
        """Count one packet."""
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
        """Take the sender's report."""
        self._last_sr = report.ntp >> 16 & 0xFFFFFFFF
        self._last_sr_ns = now_ns

    @property
    def lost(self) -> int:
        """Packets expected and not received; negative with duplicates."""
        return 0 if self._base is None else self._highest - self._base + 1 - self.received

    def block(self, now_ns: int) -> tuple[int, ...]:
        """Return the report block, and start the next interval."""
        expected = 0 if self._base is None else self._highest - self._base + 1
        due, came = expected - self._expected_before, self.received - self._received_before
        self._expected_before, self._received_before = expected, self.received
        fraction = max(0, min(255, (due - came) * 256 // due)) if due > 0 else 0
        delay = (now_ns - self._last_sr_ns) * 65536 // NS_PER_S if self._last_sr else 0
        return block(self.ssrc, fraction, self.lost, self._highest, round(self.jitter), self._last_sr, delay)


class VoiceReceiver:
    """Calls ``deliver`` with audio (int16 mono at ``sample_rate``) and its time in ns since the first audio."""

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
        """Opus's payload type; a renegotiation may change it."""
        self._sample_rate = sample_rate
        self._decoder = Decoder(sample_rate)
        self._jitter = JitterBuffer()
        self._timer: TimerHandle | None = None
        self._timer_ns = 0
        self._first_ns: int | None = None
        self._ticks = 0
        """Time of the next delivered audio, in ticks of 48 kHz since the first."""
        self.statistics: ReceptionStatistics | None = None
        self.broken = 0
        """Packets that are not valid Opus."""
        self.concealed = 0
        """Ticks of 48 kHz that were lost and concealed."""
        self.hurried = 0
        """Samples dropped because they arrived more than `MAX_AHEAD_NS` ahead of real time."""
        self._ahead_ns = 0
        """Time at which the received audio ends."""
        self._gap = SilenceWatch(clock, self._fall_silent)
        self._silent = False
        """The silence for the current gap has been delivered."""

    @property
    def jitter(self) -> JitterBuffer:
        """The buffer in which packets wait for earlier ones."""
        return self._jitter

    def packet(self, packet: RtpPacket) -> None:
        """Take one packet: deliver all audio that is ready."""
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
            self._play(piece, now_ns)
        self._watch()
        self._gap.audio_received(now_ns)

    def _fall_silent(self) -> None:
        self._silent = True
        self._emit(self._zeros(MAX_QUIET_TICKS))

    def sender_report(self, report: SenderReport) -> None:
        """Take the other side's sender report."""
        if self.statistics is not None and report.ssrc == self.statistics.ssrc:
            self.statistics.sender(report, self._clock.now_ns())

    def blocks(self, now_ns: int) -> list[tuple[int, ...]]:
        """Return the report blocks about the received stream."""
        return [] if self.statistics is None else [self.statistics.block(now_ns)]

    def stop(self) -> None:
        """Stop delivering."""
        self._gap.stop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._deliver = _nowhere

    def _begin(self, ssrc: int) -> ReceptionStatistics:
        self.statistics = ReceptionStatistics(ssrc)
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
            self._play(piece, now_ns)
        self._watch()

    def _play(self, piece: Piece, now_ns: int) -> None:
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
            self._emit_silence(piece.quiet)
        if piece.lost:
            self._conceal(piece)
        samples = self._decoder.decode(piece.payload)
        if samples is None:
            self.broken += 1
            samples = self._decoder.conceal(min(piece.ticks, FRAME_TICKS * 3))
        self._emit(samples)

    def _emit_silence(self, ticks: int) -> None:
        silent = min(ticks, MAX_QUIET_TICKS)
        self._ticks += ticks - silent
        self._emit(self._zeros(silent))

    def _conceal(self, piece: Piece) -> None:
        """Conceal a gap, and recover its end from the copy in the packet after it."""
        self.concealed += piece.lost
        copied = min(piece.lost, piece.ticks)
        guessed = min(piece.lost - copied, MAX_GUESS_TICKS)
        guessed -= guessed % _STEP_TICKS
        left = piece.lost - copied - guessed
        while guessed:
            step = min(guessed, FRAME_TICKS)
            self._emit(self._decoder.conceal(step))
            guessed -= step
        if left:
            self._emit_silence(left)
        if copied % _STEP_TICKS:
            self._emit(self._zeros(copied))
        else:
            self._emit(self._decoder.recover(piece.payload, copied))

    def _zeros(self, ticks: int) -> Samples:
        return np.zeros(ticks * self._sample_rate // CLOCK_RATE, np.int16)

    def _emit(self, samples: Samples) -> None:
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
    """Ignore audio after the end."""

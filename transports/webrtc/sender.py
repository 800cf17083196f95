"""Sends the bot's voice: one RTP packet every 20 ms from connection to close, speech or silence.

One schedule serves the whole connection: slot k has the timestamp 960 k and is sent at ``start + 20 k`` ms. Timestamps
keep pace with real time, each is used once, none is skipped, and the receiver's buffer has nothing to
adapt to. Speech replaces the silence of the next slots.

- The first 20 ms of a response are sent *at once*, ahead of their slot by the rest of the current one (under 20 ms).
- Later audio waits for its slot. At most the pacer's lead waits (`Transport.lead_ms`); `clear` can still drop it.
- After a stall, all overdue slots are sent at once, and the next is on schedule again. The pacer had the same stall, so
  it gets one turn of the event loop to deliver overdue speech before silence is sent in the middle of a word.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from ...pipeline.clock import NS_PER_MS, NS_PER_S, Clock, TimerHandle
from ...pipeline.frames import Samples
from .opus import CLOCK_RATE, FRAME_MS, FRAME_TICKS, Encoder
from .rtp import ReportBlock, SenderReport, ntp, pack_bye, pack_receiver_report, pack_report, pack_rtp

SLOT_NS = FRAME_MS * NS_PER_MS
TAIL_SLOTS = 3
"""Slots of silence that are encoded after speech, with the encoder's rest of it, before the prepared packet is used."""
REPORT_SLOTS = 100
"""Slots between sender reports: one report in 2 s. RFC 3550 has 5 s; for one voice, more reports cost little."""
LATE_NS = 4 * NS_PER_MS
"""A timer that fires later than this was delayed by a stall of the event loop."""
EXCUSE_NS = 2 * NS_PER_MS
"""Extra wait for speech after a stall."""
MAX_BURST = 50
"""Most slots that are sent late. Slots that a longer stall missed are skipped."""
LOSSY = 0.02
"""Loss from which forward error correction is worth its bits (0 to 1)."""
MIN_PERCENT = 10
"""Least loss that forward error correction is set for, in percent."""
CALM_REPORTS = 30
"""Reports without loss (about a minute) after which forward error correction is turned off."""
WAITING = 100
"""Most slots of speech that wait."""


class VoiceSender:
    """Sends 20 ms of audio every 20 ms.

    ``make_encoder`` is called with the loss, in percent, to set forward error correction for. ``transmit`` takes RTP
    packets and ``control`` RTCP packets, both not yet encrypted; neither function may block.
    """

    def __init__(
        self,
        clock: Clock,
        make_encoder: Callable[[int], Encoder],
        transmit: Callable[[bytes], object],
        control: Callable[[bytes], object],
        *,
        payload_type: int,
        ssrc: int,
        cname: str,
        first_sequence: int = 0,
        first_timestamp: int = 0,
    ) -> None:
        self._clock = clock
        self._make_encoder = make_encoder
        self._encoder = encoder = make_encoder(0)
        self._transmit = transmit
        self._control = control
        self.payload_type = payload_type
        self.ssrc = ssrc
        self._cname = cname
        self._sequence = first_sequence & 0xFFFF
        self._first_timestamp = first_timestamp
        self._silence = encoder.silence()
        # bound: WAITING slots of 20 ms, then the oldest is dropped; the pacer sends its lead of two or three ahead
        self._waiting: deque[Samples] = deque(maxlen=WAITING)
        self._halted = False
        self._speaking = False
        """The last packet was speech."""
        self._tail = 0
        self._excused = False
        self._start_ns = 0
        self._slot = 0
        """The next slot."""
        self._timer: TimerHandle | None = None
        self._running = False
        self._loss_percent: int = 0
        """The loss that the encoder is set for."""
        self._wanted_percent: int = 0
        self._calm = 0
        """Reports without loss in a row."""
        self.sends = True
        """False: the client does not want audio. The schedule and the reports continue; no audio is sent."""
        self.packets = 0
        self.octets = 0
        self.round_trip_ms: float | None = None
        """Round trip time, from the other side's reports."""
        self.blocks: Callable[[int], list[tuple[int, ...]]] = lambda now_ns: []
        """Returns the report blocks about the received stream."""

    # --- the pacer's side ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Start the schedule with the current slot."""
        if not self._running:
            self._running = True
            now_ns = self._clock.now_ns()
            # The slots of all calls start together: one turn of the event loop serves them all, with warm caches.
            self._start_ns = now_ns - now_ns % SLOT_NS
            self._tick()

    def send(self, samples: Samples, due_ns: int) -> None:
        """Queue the next 20 ms, int16 at the encoder's rate; send all audio that is due.

        ``due_ns``: the pacer's time for this audio. After a stall it distinguishes audio that must catch up from audio
        that only starts now and must not use past slots.
        """
        if not self._running:
            return
        now_ns = self._clock.now_ns()
        if not self._waiting and not self._halted:
            self._skip(now_ns)
            while self._due_ns <= due_ns - SLOT_NS and self._due_ns <= now_ns:
                self._be_silent()
        self._waiting.append(samples)
        if self._halted:
            return
        if not self._speaking and self._due_ns - now_ns <= SLOT_NS:
            self._speak()
        while self._waiting and self._due_ns <= now_ns:
            self._speak()

    def clear(self) -> None:
        """Drop the waiting audio. Silence follows from the next slot on."""
        self._waiting.clear()
        self._speaking = False

    def pause(self) -> None:
        """Send silence from the next slot on; keep the waiting audio."""
        self._halted = True
        self._speaking = False

    def resume(self) -> None:
        """Send the audio that `pause` kept, from the next slot on."""
        self._halted = False

    def stop(self) -> None:
        """Send the end of the stream (RTCP BYE), and stop."""
        if not self._running:
            return
        self._running = False
        self._waiting.clear()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        now_ns = self._clock.now_ns()
        self._control(self._report(now_ns) + pack_bye(self.ssrc))

    # --- the schedule -------------------------------------------------------------------------------------------

    @property
    def _due_ns(self) -> int:
        """The time of the next slot."""
        return self._start_ns + self._slot * SLOT_NS

    def _tick(self) -> None:
        now_ns = self._clock.now_ns()
        late_ns = now_ns - self._due_ns
        if late_ns > LATE_NS and self._speaking and len(self._waiting) * SLOT_NS <= late_ns and not self._excused:
            self._excused = True
            self._timer = self._clock.call_at(now_ns + EXCUSE_NS, self._tick)
            return
        self._excused = False
        if not self._waiting:
            self._skip(now_ns)
        try:
            while self._due_ns <= now_ns:
                if self._waiting and not self._halted:
                    self._speak()
                else:
                    self._be_silent()
        finally:
            self._timer = self._clock.call_at(self._due_ns, self._tick)

    def _skip(self, now_ns: int) -> None:
        """Skip the slots that a long stall missed."""
        late_ns = now_ns - self._due_ns
        if late_ns > MAX_BURST * SLOT_NS:
            self._slot += late_ns // SLOT_NS

    def _speak(self) -> None:
        self._speaking = True
        self._tail = TAIL_SLOTS
        self._put(self._encoder.encode(self._waiting.popleft()))

    def _be_silent(self) -> None:
        self._speaking = False
        if self._wanted_percent != self._loss_percent and not self._tail:
            # Changed in silence, so that the change is not audible.
            self._loss_percent = self._wanted_percent
            self._encoder = self._make_encoder(self._loss_percent)
            self._silence = self._encoder.silence()
        if self._tail:
            self._tail -= 1
            self._put(self._encoder.encode_silence())
        else:
            self._put(self._silence)

    def _put(self, payload: bytes) -> None:
        slot = self._slot
        # Advance first: a socket that raises then costs its own 20 ms and not the schedule.
        self._slot = slot + 1
        if slot % REPORT_SLOTS == self.ssrc % REPORT_SLOTS:
            self._control(self._report(self._clock.now_ns()))
        if not self.sends:
            return
        sequence = self._sequence
        self._sequence = (sequence + 1) & 0xFFFF
        self.packets += 1
        self.octets += len(payload)
        timestamp = (self._first_timestamp + slot * FRAME_TICKS) & 0xFFFFFFFF
        self._transmit(pack_rtp(self.payload_type, sequence, timestamp, self.ssrc, payload))

    # --- reports ------------------------------------------------------------------------------------------------

    def _report(self, now_ns: int) -> bytes:
        """Pack a report. Its timestamp follows the schedule, not the last packet, which may have been early or late."""
        blocks = self.blocks(now_ns)
        if not self.sends:
            return pack_receiver_report(self.ssrc, self._cname, blocks)
        ticks = (now_ns - self._start_ns) * CLOCK_RATE // NS_PER_S
        timestamp = (self._first_timestamp + ticks) & 0xFFFFFFFF
        report = SenderReport(self.ssrc, ntp(now_ns), timestamp, self.packets, self.octets)
        return pack_report(report, self._cname, blocks)

    def heard(self, report: ReportBlock) -> None:
        """Take the other side's report: measure the round trip, and set the encoder for the reported loss."""
        if report.ssrc != self.ssrc:
            return
        if report.last_sr:
            now = ntp(self._clock.now_ns()) >> 16 & 0xFFFFFFFF
            trip = (now - report.last_sr - report.delay) & 0xFFFFFFFF
            if trip < 60 << 16:
                self.round_trip_ms = trip * 1000 / 65536
        if report.fraction_lost >= LOSSY:
            self._calm = 0
            self._wanted_percent = max(self._wanted_percent, MIN_PERCENT, min(30, round(report.fraction_lost * 100)))
        else:
            self._calm += 1
            if self._calm >= CALM_REPORTS:
                self._wanted_percent = 0

"""The bot's voice on the wire: one RTP packet each 20 ms from connection to close, silence among them.

The schedule is one for the whole connection: slot k has the timestamp 960 k and goes out at ``start + 20 k`` ms. So
timestamps go on with real time however long the call is, no two packets have the same, none is left out, and
the receiver's buffer finds nothing to adapt to. What the bot says takes the place of the silence of the next slots.

- The first 20 ms of a response go out *at once*, ahead of their slot by what is left of the one before (under 20 ms).
- What follows waits for its slot: at most what the pacer gives ahead of time (`Transport.lead_ms`), and that is what
  `clear` still can drop.
- After a stall, all slots that are due go out at once, and the next is on the schedule again. The pacer had the same
  stall, and gets one turn of the event loop to bring what is due before silence is sent in the middle of a word.
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
"""Slots of silence that are encoded after speech, with what the encoder still has of it, before the ready packet."""
REPORT_SLOTS = 100
"""A sender's report each 2 s: more often than RFC 3550's 5 s, for few are as cheap as those of one voice."""
LATE_NS = 4 * NS_PER_MS
"""A timer later than this was held up by a stall of the event loop."""
EXCUSE_NS = 2 * NS_PER_MS
"""How much longer speech is waited for after a stall."""
MAX_BURST = 50
"""Slots of silence that are sent late; what a longer stall has left out stays out."""
LOSSY = 0.02
"""Above this loss, forward error correction is worth its bits (0 to 1)."""
MIN_PERCENT = 10
"""What it is made for at least."""
CALM_REPORTS = 30
"""After so many reports of no loss, about a minute, it is left off again."""
WAITING = 100
"""Slots of speech that wait, at most."""


class VoiceSender:
    """Sends 20 ms of audio each 20 ms.

    ``make_encoder`` gets the loss, in percent, that forward error correction is to be made for. ``transmit`` gets RTP
    and ``control`` RTCP, neither encrypted; they must not wait.
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
        # bound: WAITING slots of 20 ms, then the oldest is dropped; the pacer gives its lead of two or three
        self._waiting: deque[Samples] = deque(maxlen=WAITING)
        self._halted = False
        self._speaking = False
        """The last packet was speech."""
        self._tail = 0
        self._excused = False
        self._start_ns = 0
        self._slot = 0
        """The next one."""
        self._timer: TimerHandle | None = None
        self._running = False
        self._loss_percent: int = 0
        """What the encoder provides for."""
        self._wanted_percent: int = 0
        self._calm = 0
        """How many reports in a row have told of no loss."""
        self.sends = True
        """False: the client does not want to hear. The schedule goes on, and reports do; nothing else is sent."""
        self.packets = 0
        self.octets = 0
        self.round_trip_ms: float | None = None
        """As the other side's reports have it."""
        self.blocks: Callable[[int], list[tuple[int, ...]]] = lambda now_ns: []
        """What is received, for the reports."""

    # --- the pacer's side ---------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin the schedule, with the slot that is now."""
        if not self._running:
            self._running = True
            now_ns = self._clock.now_ns()
            # The slots of all calls begin together: one turn of the event loop for them all, and warm caches.
            self._start_ns = now_ns - now_ns % SLOT_NS
            self._tick()

    def send(self, samples: Samples, due_ns: int) -> None:
        """The next 20 ms, int16 at the encoder's rate. Returns when they, or those before them, are on the wire.

        ``due_ns``: when they are to be heard, as the pacer has it. After a stall it tells apart what has to catch up
        from what only begins now: that is not said in slots of the past.
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
        """Drop what waits for its slot. From the next slot on there is silence."""
        self._waiting.clear()
        self._speaking = False

    def pause(self) -> None:
        """Silence from the next slot on; what waits is kept."""
        self._halted = True
        self._speaking = False

    def resume(self) -> None:
        """Send what `pause` kept, from the next slot on."""
        self._halted = False

    def stop(self) -> None:
        """Say that nothing more comes (RTCP BYE), and stop."""
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
        """When the next slot goes out."""
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
        """Leave out what a long stall has left out."""
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
            # In silence, where the change of the codec is not heard.
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
        # First, so that a socket that raises costs its own 20 ms and not the schedule.
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
        """Which timestamp is now: by the schedule, not by the last packet, which may have been early or late."""
        blocks = self.blocks(now_ns)
        if not self.sends:
            return pack_receiver_report(self.ssrc, self._cname, blocks)
        ticks = (now_ns - self._start_ns) * CLOCK_RATE // NS_PER_S
        timestamp = (self._first_timestamp + ticks) & 0xFFFFFFFF
        report = SenderReport(self.ssrc, ntp(now_ns), timestamp, self.packets, self.octets)
        return pack_report(report, self._cname, blocks)

    def heard(self, report: ReportBlock) -> None:
        """What the other side says of what we sent: how much is lost is what the encoder provides for."""
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

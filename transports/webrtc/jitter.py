"""Jitter buffer: puts RTP packets in order and reports gaps. Pure: no clock, no codec, no sockets.

::

    buffer = JitterBuffer()
    for piece in buffer.put(sequence, timestamp, ticks, payload, now_ns): ...
    if buffer.due_ns is not None: ...           # then call buffer.expire(now_ns) at that time

The audio goes to a recogniser and not to a loudspeaker, so the buffer adds no delay to even out arrivals. Packets in
order leave at once. Packets behind a missing one wait for it: as long as recent out-of-order packets were late
(`wait_ns`), at most `MAX_WAIT_MS`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...pipeline.clock import NS_PER_MS, NS_PER_S

MIN_WAIT_MS = 10
"""Wait for a missing packet on a line that has always been in order."""
MAX_WAIT_MS = 120
"""Longest wait for a missing packet: the user waits for an answer."""
HALF_LIFE_S = 10
"""The wait halves after this time without reordering."""
MARGIN = 1.25
"""Factor of the wait over the worst recent lateness."""
MAX_HELD = 64
"""Most packets that wait behind a missing one. With more, the missing one counts as lost."""
MAX_JUMP = 3000
"""A packet further ahead than this begins a new stream (RFC 3550, A.1: MAX_DROPOUT)."""
MAX_BEHIND = 100
"""A packet further behind than this also begins a new stream (RFC 3550, A.1: MAX_MISORDER)."""
MAX_GAP_TICKS = 48_000 * 2
"""A longer gap in the timestamps is a pause of the sender, not loss."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A packet in its place, with the gap before it.

    ``lost``: ticks of 48 kHz that were sent and never arrived. ``quiet``: ticks in which nothing was sent. ``restart``:
    the packet begins a new stream.
    """

    payload: bytes
    timestamp: int
    ticks: int
    lost: int = 0
    quiet: int = 0
    restart: bool = False


@dataclass(slots=True)
class _Held:
    timestamp: int
    ticks: int
    payload: bytes
    arrived_ns: int


def _signed(value: int, bits: int) -> int:
    """Read the difference of two wrapping numbers as signed."""
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


class JitterBuffer:
    """Takes packets of one stream, returns `Piece` objects in order."""

    def __init__(self, *, min_wait_ms: float = MIN_WAIT_MS, max_wait_ms: float = MAX_WAIT_MS) -> None:
        self._min_ns = round(min_wait_ms * NS_PER_MS)
        self._max_ns = round(max_wait_ms * NS_PER_MS)
        self.lost = 0
        """Packets that did not arrive within the wait."""
        self.late = 0
        """Packets that arrived after the wait, and were dropped."""
        self.duplicates = 0
        self._late_ns = 0
        """Worst lateness of recent out-of-order packets."""
        self._late_at_ns = 0
        self._next: int | None = None
        """The next sequence number in order."""
        self._end = 0
        """The timestamp at the end of the last returned packet."""
        self._held: dict[int, _Held] = {}
        """Waiting packets by sequence number."""
        self._since_ns = 0
        """Arrival time of the first waiting packet."""
        self._wait_ns = self._min_ns
        """Wait for the packet that is missing now."""
        self._given_up: dict[int, int] = {}
        """Times at which lost packets were first missed, to measure the lateness of a late one."""
        self._odd: tuple[int, _Held] | None = None
        """A packet with a distant sequence number. The next number after it begins a new stream."""

    def wait_ns(self, now_ns: int) -> int:
        """Return the wait for a packet that is missing from now on."""
        return max(self._min_ns, min(self._max_ns, round(self._faded_ns(now_ns) * MARGIN)))

    @property
    def due_ns(self) -> int | None:
        """The time at which to call `expire`; None while nothing is missing."""
        return self._since_ns + self._wait_ns if self._held else None

    def put(self, sequence: int, timestamp: int, ticks: int, payload: bytes, now_ns: int) -> list[Piece]:
        """Add a packet; return the pieces that are ready.

        ``sequence`` (16 bit) and ``timestamp`` (32 bit) are from its header, ``ticks`` is its length at 48 kHz.
        """
        held = _Held(timestamp, ticks, payload, now_ns)
        if self._next is None:
            return [self._begin(sequence, held)]
        ahead = _signed(sequence - self._next, 16)
        if ahead == 0:
            return self._in_order(sequence, held, now_ns)
        if ahead > MAX_JUMP or ahead < -MAX_BEHIND:
            return self._far_off(sequence, held)
        if ahead < 0:
            self._behind(sequence, now_ns)
            return self.expire(now_ns)
        if sequence in self._held:
            self.duplicates += 1
        else:
            self._held[sequence] = held
            if len(self._held) == 1:
                self._missing(now_ns)
        return self.expire(now_ns)

    def expire(self, now_ns: int) -> list[Piece]:
        """Return the pieces that have waited long enough, without the packets that are missing before them."""
        ready: list[Piece] = []
        while self._held and (now_ns >= self._since_ns + self._wait_ns or len(self._held) > MAX_HELD):
            ready += self._give_up(now_ns)
        return ready

    def _begin(self, sequence: int, held: _Held) -> Piece:
        self._held.clear()
        self._given_up.clear()
        self._odd = None
        self._advance(sequence, held)
        return Piece(held.payload, held.timestamp, held.ticks, restart=True)

    def _advance(self, sequence: int, held: _Held) -> None:
        self._next = (sequence + 1) & 0xFFFF
        self._end = (held.timestamp + held.ticks) & 0xFFFFFFFF

    def _in_order(self, sequence: int, held: _Held, now_ns: int) -> list[Piece]:
        self._odd = None
        if self._held:
            # Later packets have been waiting for it, so this wait is its lateness.
            self._note_late(now_ns - self._since_ns, now_ns)
        ready = [self._piece(held, missing=False)]
        self._advance(sequence, held)
        if self._held:
            ready += self._following(now_ns)
        return ready

    def _following(self, now_ns: int) -> list[Piece]:
        """Return the waiting packets that follow the one just returned."""
        ready: list[Piece] = []
        assert self._next is not None
        while (held := self._held.pop(self._next, None)) is not None:
            ready.append(self._piece(held, missing=False))
            self._advance(self._next, held)
        if self._held:
            self._missing(now_ns)
        return ready

    def _missing(self, now_ns: int) -> None:
        """Start the wait for a missing packet, counted from the arrival of the first packet behind it."""
        self._since_ns = min(held.arrived_ns for held in self._held.values())
        self._wait_ns = self.wait_ns(now_ns)

    def _give_up(self, now_ns: int) -> list[Piece]:
        assert self._next is not None
        first = min(self._held, key=lambda sequence: _signed(sequence - (self._next or 0), 16))
        missing = _signed(first - self._next, 16)
        self.lost += missing
        for gone in range(min(missing, MAX_BEHIND)):
            self._given_up[(self._next + gone) & 0xFFFF] = self._since_ns
        while len(self._given_up) > MAX_BEHIND:
            del self._given_up[next(iter(self._given_up))]
        held = self._held.pop(first)
        ready = [self._piece(held, missing=True)]
        self._advance(first, held)
        return ready + self._following(now_ns)

    def _piece(self, held: _Held, *, missing: bool) -> Piece:
        gap = _signed(held.timestamp - self._end, 32)
        if not gap:
            return Piece(held.payload, held.timestamp, held.ticks)
        if not 0 < gap <= MAX_GAP_TICKS:
            return Piece(held.payload, held.timestamp, held.ticks, restart=True)
        if missing:
            return Piece(held.payload, held.timestamp, held.ticks, lost=gap)
        return Piece(held.payload, held.timestamp, held.ticks, quiet=gap)

    def _behind(self, sequence: int, now_ns: int) -> None:
        missed_ns = self._given_up.pop(sequence, None)
        if missed_ns is None:
            self.duplicates += 1
            return
        self.late += 1
        self._note_late(now_ns - missed_ns, now_ns)

    def _note_late(self, late_ns: int, now_ns: int) -> None:
        self._late_ns = round(max(self._faded_ns(now_ns), min(late_ns, self._max_ns)))
        self._late_at_ns = now_ns

    def _faded_ns(self, now_ns: int) -> float:
        return self._late_ns * 0.5 ** ((now_ns - self._late_at_ns) / NS_PER_S / HALF_LIFE_S)

    def _far_off(self, sequence: int, held: _Held) -> list[Piece]:
        """Drop one stray packet; begin a new stream with two in a row."""
        odd = self._odd
        if odd is None or sequence != (odd[0] + 1) & 0xFFFF:
            self._odd = (sequence, held)
            return []
        before = odd[1]
        ready = [self._begin(odd[0], before)]
        ready.append(self._piece(held, missing=False))
        self._advance(sequence, held)
        return ready

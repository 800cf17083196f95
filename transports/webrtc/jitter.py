"""Puts RTP packets in order, and says what is missing. Pure: no clock, no codec, no sockets.

::

    buffer = JitterBuffer()
    for piece in buffer.put(sequence, timestamp, ticks, payload, now_ns): ...
    if buffer.due_ns is not None: ...           # then call buffer.expire(now_ns) at that time

Nobody plays what comes out, it is listened to; so there is no delay to even out the arrival of packets. What comes
in order leaves at once. Only where a packet is missing do those after it wait, for as long as packets out of order
have lately been late (`wait_ns`), and never longer than `MAX_WAIT_MS`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...pipeline.clock import NS_PER_MS, NS_PER_S

MIN_WAIT_MS = 10
"""What a missing packet is waited for on a line that has never been out of order."""
MAX_WAIT_MS = 120
"""What it is waited for at most: somebody waits for an answer."""
HALF_LIFE_S = 10
"""After that long without disorder, the wait is half of it."""
MARGIN = 1.25
"""How much longer is waited than the worst lateness of late."""
MAX_HELD = 64
"""Packets that wait for a missing one, at most: then it counts as lost."""
MAX_JUMP = 3000
"""A packet further ahead than this begins a new stream (RFC 3550, A.1: MAX_DROPOUT)."""
MAX_BEHIND = 100
"""A packet further behind than this does, too (RFC 3550, A.1: MAX_MISORDER)."""
MAX_GAP_TICKS = 48_000 * 2
"""A gap in the timestamps that is longer is a pause of the sender's, and nothing that was lost."""


@dataclass(frozen=True, slots=True)
class Piece:
    """A packet in its place. ``lost``: ticks of 48 kHz before it that were sent and never came; ``quiet``: ticks
    before it in which nothing was sent. ``restart``: nothing before it belongs to the same stream.
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
    """A difference of two numbers that wrap."""
    half = 1 << (bits - 1)
    return ((value + half) & ((1 << bits) - 1)) - half


class JitterBuffer:
    """Packets of one stream in, `Piece` s out, in order."""

    def __init__(self, *, min_wait_ms: float = MIN_WAIT_MS, max_wait_ms: float = MAX_WAIT_MS) -> None:
        self._min_ns = round(min_wait_ms * NS_PER_MS)
        self._max_ns = round(max_wait_ms * NS_PER_MS)
        self.lost = 0
        """Packets that were waited for and did not come in time."""
        self.late = 0
        """Packets that came after that, and are dropped."""
        self.duplicates = 0
        self._late_ns = 0
        """How late packets out of order have been."""
        self._late_at_ns = 0
        self._next: int | None = None
        """The sequence number that is due."""
        self._end = 0
        """The timestamp at which what went out last ends."""
        self._held: dict[int, _Held] = {}
        """What waits, by sequence number."""
        self._since_ns = 0
        """When the first of them came."""
        self._wait_ns = self._min_ns
        """How long what is missing now is waited for."""
        self._given_up: dict[int, int] = {}
        """When the last packets that count as lost were first missed: to learn how late a late one is."""
        self._odd: tuple[int, _Held] | None = None
        """A packet far off; another one next to it begins a new stream."""

    def wait_ns(self, now_ns: int) -> int:
        """How long a packet that is missing from now on is waited for."""
        return max(self._min_ns, min(self._max_ns, round(self._faded_ns(now_ns) * MARGIN)))

    @property
    def due_ns(self) -> int | None:
        """When `expire` has something to say; None while nothing is missing."""
        return self._since_ns + self._wait_ns if self._held else None

    def put(self, sequence: int, timestamp: int, ticks: int, payload: bytes, now_ns: int) -> list[Piece]:
        """A packet came: the 16 and 32 bit numbers of its header, its length in ticks, and when. What is ready."""
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
        """What is ready by now: what waited long enough comes without what it waited for."""
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
            # Others have been waiting for it: that is how late it is.
            self._note_late(now_ns - self._since_ns, now_ns)
        ready = [self._piece(held, missing=False)]
        self._advance(sequence, held)
        if self._held:
            ready += self._following(now_ns)
        return ready

    def _following(self, now_ns: int) -> list[Piece]:
        """What was waiting for what went out just now."""
        ready: list[Piece] = []
        assert self._next is not None
        while (held := self._held.pop(self._next, None)) is not None:
            ready.append(self._piece(held, missing=False))
            self._advance(self._next, held)
        if self._held:
            self._missing(now_ns)
        return ready

    def _missing(self, now_ns: int) -> None:
        """Something is missing before what is held: since the first of that came."""
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
        """One stray packet is dropped; two in a row are a stream that began anew."""
        odd = self._odd
        if odd is None or sequence != (odd[0] + 1) & 0xFFFF:
            self._odd = (sequence, held)
            return []
        before = odd[1]
        ready = [self._begin(odd[0], before)]
        ready.append(self._piece(held, missing=False))
        self._advance(sequence, held)
        return ready

"""Packets in order, and what is missing named: nothing held back on a clean line, nothing for long on a bad one."""

from __future__ import annotations

from dataclasses import dataclass, field

from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.tests.scale import examples
from voxline.transports.webrtc.jitter import MAX_HELD, MAX_WAIT_MS, MIN_WAIT_MS, JitterBuffer, Piece

MS = 1_000_000
TICKS = 960


@dataclass
class Line:
    """A buffer that is driven as its owner drives it: packets come, and it is called when it said."""

    first: int = 0xFFFC
    """The first sequence number: it wraps soon."""
    origin: int = 0xFFFF_F800
    buffer: JitterBuffer = field(default_factory=JitterBuffer)
    out: list[tuple[int, Piece]] = field(default_factory=list[tuple[int, Piece]])

    def until(self, now_ns: int) -> None:
        while (due_ns := self.buffer.due_ns) is not None and due_ns <= now_ns:
            self.out += [(due_ns, piece) for piece in self.buffer.expire(due_ns)]

    def packet(self, index: int, now_ns: int, timestamp: int | None = None) -> list[Piece]:
        self.until(now_ns)
        at = (self.origin + index * TICKS if timestamp is None else timestamp) & 0xFFFFFFFF
        ready = self.buffer.put((self.first + index) & 0xFFFF, at, TICKS, b"%d" % index, now_ns)
        self.out += [(now_ns, piece) for piece in ready]
        return ready

    def indices(self) -> list[int]:
        return [int(piece.payload) for _, piece in self.out]


def test_packets_in_order_leave_at_once_through_both_wraps() -> None:
    line = Line()
    for index in range(70_000):
        ready = line.packet(index, index * 20 * MS)
        assert [(piece.payload, piece.lost, piece.quiet) for piece in ready] == [(b"%d" % index, 0, 0)]
        assert line.buffer.due_ns is None
    assert line.buffer.lost == 0


def test_a_burst_leaves_as_it_comes() -> None:
    line = Line()
    for index in range(30):
        assert len(line.packet(index, 0)) == 1


def test_a_swapped_pair_comes_out_in_order_as_soon_as_the_first_of_it_is_there() -> None:
    line = Line()
    line.packet(0, 0)
    assert line.packet(2, 40 * MS) == []
    assert [piece.payload for piece in line.packet(1, 43 * MS)] == [b"1", b"2"]
    assert line.buffer.lost == 0
    assert line.buffer.due_ns is None


def test_a_lost_packet_is_waited_for_a_little_and_then_named() -> None:
    line = Line()
    line.packet(0, 0)
    line.packet(3, 60 * MS)
    line.until(1000 * MS)
    at_ns, piece = line.out[-1]
    assert (at_ns, piece.payload, piece.lost, piece.quiet) == ((60 + MIN_WAIT_MS) * MS, b"3", 2 * TICKS, 0)
    assert line.buffer.lost == 2


def test_the_wait_grows_with_the_disorder_that_is_seen_and_shrinks_again() -> None:
    line = Line()
    line.packet(0, 0)
    line.packet(2, 40 * MS)
    # 50 ms late: too late this time, and the reason to wait longer the next.
    line.packet(1, 90 * MS)
    assert line.buffer.late == 1
    for index in range(3, 10):
        line.packet(index, index * 20 * MS)
    line.packet(11, 220 * MS)
    assert 50 * MS <= line.buffer.wait_ns(220 * MS) <= 70 * MS
    assert [piece.payload for piece in line.packet(10, 265 * MS)] == [b"10", b"11"]
    assert line.buffer.lost == 1
    assert line.buffer.wait_ns(120_000 * MS) == MIN_WAIT_MS * MS


def test_nothing_that_is_late_is_waited_for_longer_than_the_bound() -> None:
    line = Line()
    line.packet(0, 0)
    line.packet(2, 40 * MS)
    line.packet(1, 5_000 * MS)
    assert line.buffer.wait_ns(5_000 * MS) == MAX_WAIT_MS * MS


def test_the_same_packet_again_is_dropped() -> None:
    line = Line()
    line.packet(0, 0)
    line.packet(1, 20 * MS)
    assert line.packet(1, 21 * MS) == []
    line.packet(3, 60 * MS)
    assert line.packet(3, 61 * MS) == []
    assert line.buffer.duplicates == 2
    assert line.buffer.late == 0


def test_a_pause_of_the_sender_is_quiet_and_not_lost() -> None:
    line = Line()
    line.packet(0, 0)
    (piece,) = line.packet(1, 400 * MS, line.origin + 20 * TICKS)
    assert (piece.lost, piece.quiet) == (0, 19 * TICKS)
    assert line.buffer.lost == 0


def test_a_jump_of_the_timestamps_begins_anew() -> None:
    line = Line()
    line.packet(0, 0)
    (piece,) = line.packet(1, 20 * MS, line.origin + 50_000_000)
    assert piece.restart
    (piece,) = line.packet(2, 40 * MS, line.origin - 50_000_000)
    assert piece.restart
    assert (piece.lost, piece.quiet) == (0, 0)


def test_one_stray_packet_is_dropped_and_two_in_a_row_are_a_new_stream() -> None:
    line = Line()
    line.packet(0, 0)
    assert line.packet(9_000, 20 * MS) == []
    assert [piece.payload for piece in line.packet(1, 21 * MS)] == [b"1"]
    assert line.packet(20_000, 40 * MS) == []
    ready = line.packet(20_001, 60 * MS)
    assert [(piece.payload, piece.restart) for piece in ready] == [(b"20000", True), (b"20001", False)]


def test_a_flood_behind_a_gap_is_bounded() -> None:
    line = Line()
    line.packet(0, 0)
    for index in range(2, 2 + MAX_HELD + 10):
        line.packet(index, 0)
    assert len(line.out) > 1
    assert line.buffer.lost == 1


@settings(max_examples=examples(300))
@given(
    st.lists(st.tuples(st.integers(0, 150), st.sampled_from([0, 1, 1, 1, 1, 1, 2])), min_size=1, max_size=80),
    st.integers(0, 0xFFFF),
    st.integers(0, 0xFFFFFFFF),
)
def test_any_disorder_comes_out_in_order_once_and_in_time(
    fates: list[tuple[int, int]], first: int, origin: int
) -> None:
    """Each packet is ``delay`` ms under way, and comes ``copies`` times (0: it is lost)."""
    arrivals = sorted(
        (index * 20 * MS + delay * MS + copy * 3 * MS, index)
        for index, (delay, copies) in enumerate(fates)
        for copy in range(copies)
    )
    line = Line(first, origin)
    came: dict[int, int] = {}
    for now_ns, index in arrivals:
        line.packet(index, now_ns)
        came.setdefault(index, now_ns)
    line.until(10**15)
    indices = line.indices()
    # In order, each once, and only what came.
    assert indices == sorted(set(indices))
    assert set(indices) <= set(came)
    # Held for the bound at most.
    assert all(at_ns - came[int(piece.payload)] <= MAX_WAIT_MS * MS for at_ns, piece in line.out)
    # Whatever came and is not out was late, or older than the first; and the timeline has no hole and no fold.
    assert len(came) - len(indices) <= line.buffer.late + line.buffer.duplicates
    if indices:
        ticks = sum(piece.ticks + piece.lost + piece.quiet for _, piece in line.out)
        assert ticks == (indices[-1] - indices[0] + 1) * TICKS


@settings(max_examples=examples(200))
@given(
    st.lists(
        st.tuples(st.integers(0, 0xFFFF), st.integers(0, 0xFFFFFFFF), st.integers(120, 5760), st.integers(0, 300)),
        max_size=120,
    )
)
def test_nonsense_neither_raises_nor_is_kept(packets: list[tuple[int, int, int, int]]) -> None:
    buffer, now_ns, out = JitterBuffer(), 0, 0
    for sequence, timestamp, ticks, wait_ms in packets:
        now_ns += wait_ms * MS
        out += len(buffer.expire(now_ns))
        out += len(buffer.put(sequence, timestamp, ticks, b"x", now_ns))
        due_ns = buffer.due_ns
        assert due_ns is None or due_ns <= now_ns + MAX_WAIT_MS * MS
    assert out <= len(packets)
    out += len(buffer.expire(now_ns + MAX_WAIT_MS * MS))
    assert buffer.due_ns is None or buffer.due_ns > now_ns

"""Server-sent events, with all chunk boundaries."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline.errors import BadAnswerError
from voxline.processors.openai.sse import MAX_EVENT_BYTES, Event, EventDecoder
from voxline.tests.processors.openai.server import cut_into

LINES = st.text(st.characters(blacklist_characters="\r\n", blacklist_categories=["Cs"]), max_size=20)
"""Contents of a line, including U+2028 and U+0085, which other decoders treat as line ends."""
EVENTS = st.lists(
    st.tuples(st.sampled_from(["", "error", "delta"]), st.lists(LINES, min_size=1, max_size=3)), max_size=6
)


def decoded(body: bytes, sizes: list[int]) -> list[Event]:
    decoder = EventDecoder()
    return [event for piece in cut_into(body, sizes) for event in decoder.feed(piece)]


@given(
    told=EVENTS,
    newline=st.sampled_from(["\n", "\r\n", "\r"]),
    sizes=st.lists(st.integers(1, 9), max_size=60),
    space=st.sampled_from(["", " "]),
    bom=st.booleans(),
)
def test_events_come_out_unchanged(
    told: list[tuple[str, list[str]]], newline: str, sizes: list[int], space: str, bom: bool
):
    body = "\ufeff" if bom else ""
    for name, lines in told:
        body += f": a comment{newline}" + (f"event:{space}{name}{newline}" if name else f"id: 7{newline}")
        body += "".join(f"data: {line}{newline}" for line in lines) + newline
    wanted = [Event(name.encode(), "\n".join(lines).encode()) for name, lines in told]
    assert decoded(body.encode(), sizes) == wanted


@given(told=EVENTS, keep=st.floats(0, 1))
def test_an_event_that_is_cut_off_does_not_come_out(told: list[tuple[str, list[str]]], keep: float):
    whole = "".join("".join(f"data: {line}\n" for line in lines) + "\n" for _, lines in told).encode()
    wanted = decoded(whole, [])
    found = decoded(whole[: round(keep * len(whole))], [])
    assert found == wanted[: len(found)]


@given(st.lists(st.binary(max_size=40), max_size=20))
def test_garbage_breaks_nothing(pieces: list[bytes]):
    decoder = EventDecoder()
    for piece in pieces:
        decoder.feed(piece)


def test_the_first_space_of_a_value_is_removed():
    assert decoded(b"data:  a\n\n", []) == [Event(b"", b" a")]


@pytest.mark.parametrize("piece", [b"a" * 1000, b"data: " + b"a" * 1000 + b"\n"])
def test_an_event_that_is_too_long_is_an_error(piece: bytes):
    with pytest.raises(BadAnswerError, match="does not end"):
        decoded(piece * (MAX_EVENT_BYTES // 1000 + 2), [1000] * 2_000)


def test_long_streams_have_no_bound():
    decoder = EventDecoder()
    event = b"data: " + b"a" * 1000 + b"\n\n"
    for _ in range(3 * MAX_EVENT_BYTES // 1000):
        assert len(decoder.feed(event)) == 1

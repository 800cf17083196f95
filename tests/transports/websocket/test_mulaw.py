"""µ-law, against the tables of ITU-T G.711 as they are printed, and against what a round trip must keep."""

from __future__ import annotations

import warnings
from bisect import bisect_right
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.transports.websocket import mulaw


def decision_values() -> list[int]:
    """Table 2a, column 3: x1 to x128, at 14 bits. Segment by segment, 16 steps of twice the size before."""
    values = [0, *range(1, 32, 2)]
    for segment in range(1, 8):
        step = 2 << segment
        values += [values[-1] + step * (number + 1) for number in range(16)]
    return values


def quantized_values() -> list[int]:
    """Table 2a, column 7: y0 to y127, at 14 bits: 0, and the middle between two decision values."""
    decisions = decision_values()
    return [0, *((low + high) // 2 for low, high in pairwise(decisions[1:]))]


def printed_code(number: int, negative: bool) -> int:
    """Column 5, the character signal: all bits inverted, the first one is 1 for positive values."""
    return (0x7F - number) if negative else (0xFF - number)


def test_the_table_is_that_of_the_recommendation():
    decisions, quantized = decision_values(), quantized_values()
    assert (len(decisions), decisions[-1], decisions[-2]) == (129, 8159, 7903)
    assert [decisions[number] for number in (1, 16, 32, 48, 64, 80, 96, 112)] == [1, 31, 95, 223, 479, 991, 2015, 4063]
    assert (len(quantized), quantized[:3], quantized[15:18], quantized[-1]) == (128, [0, 2, 4], [30, 33, 37], 8031)


def test_each_byte_decodes_to_the_value_that_is_printed():
    decoded = mulaw.decode(bytes(range(256)))
    for number, value in enumerate(quantized_values()):
        assert decoded[printed_code(number, False)] == 4 * value
        assert decoded[printed_code(number, True)] == -4 * value


def test_each_sample_is_encoded_by_the_decision_values():
    decisions = [4 * value for value in decision_values()]
    samples = np.arange(-32_768, 32_768).astype(np.int16)
    expected = [
        printed_code(min(bisect_right(decisions, abs(sample)) - 1, 127), sample < 0) for sample in samples.tolist()
    ]
    assert list(mulaw.encode(samples)) == expected


def test_the_standard_library_had_the_same_table():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        audioop = pytest.importorskip("audioop")
    every = bytes(range(256))
    assert mulaw.decode(every).astype("<i2").tobytes() == audioop.ulaw2lin(every, 2)


@given(st.binary(max_size=400))
def test_what_was_decoded_is_encoded_to_the_same_bytes(data: bytes):
    # There are two zeros, and one of them is written.
    assert mulaw.encode(mulaw.decode(data)) == data.replace(b"\x7f", b"\xff")


@given(st.lists(st.integers(-32_768, 32_767), max_size=400))
def test_a_round_trip_is_off_by_half_a_step_at_most(values: list[int]):
    samples = np.array(values, np.int16)
    back = mulaw.decode(mulaw.encode(samples)).astype(np.int32)
    clipped = np.clip(samples.astype(np.int32), -32_635, 32_635)
    assert np.all(np.abs(back - clipped) <= np.maximum((np.abs(clipped) + 132) / 32, 4))
    assert np.all(back * clipped >= 0)


def test_no_samples_are_no_bytes():
    assert mulaw.encode(np.zeros(0, np.int16)) == b""
    assert len(mulaw.decode(b"")) == 0


def test_samples_need_not_lie_side_by_side():
    stereo = np.arange(-400, 400, dtype=np.int16).reshape(-1, 2)
    assert mulaw.encode(stereo[:, 1]) == mulaw.encode(stereo[:, 1].copy())

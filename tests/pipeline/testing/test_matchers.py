"""Matchers compare with ``==`` and say why they do not match."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from voxline.pipeline import InputAudioFrame, OutputFrame, ResponseCutFrame, ResponseEndFrame, TextFrame
from voxline.pipeline.testing import (
    any_,
    approx,
    contains,
    eventually,
    frame,
    in_order,
    matches,
    nothing_else,
    one_of,
)
from voxline.pipeline.testing.matchers import Matcher, explain

A, B, END = TextFrame("a"), TextFrame("b"), ResponseEndFrame()


def test_a_frame_of_a_class_with_these_fields() -> None:
    assert TextFrame("go on") == frame(TextFrame)
    assert TextFrame("go on") == frame(OutputFrame), "a derived class counts"
    assert TextFrame("go on") == frame(TextFrame, text="go on")
    assert frame(TextFrame, text="go on") == TextFrame("go on")
    assert TextFrame("go on") != frame(TextFrame, text="stop")
    assert TextFrame("go on") != frame(ResponseEndFrame)


@pytest.mark.parametrize(
    ("wanted", "right", "wrong"),
    [
        (any_, None, None),
        (contains("go"), "let us go", "stop"),
        (matches(r"^\d+ m$"), "10 m", "10 miles"),
        (approx(240, abs=20), 259.9, 261),
        (approx(100.0), 100.00001, 100.1),
        (approx(-5, rel=0.1), -5.4, -5.6),
        (one_of("yes", contains("yeah")), "yeah right", "no"),
        (contains("go"), "go", 5),
        (approx(1), 1, "one"),
        (str.isupper, "GO", "go"),
    ],
    ids=repr,
)
def test_fields_are_compared_with_values_matchers_and_functions(wanted: Any, right: Any, wrong: Any) -> None:
    assert TextFrame(right) == frame(TextFrame, text=wanted)
    if wanted is not any_:
        assert TextFrame(wrong) != frame(TextFrame, text=wanted)


def test_arrays_and_properties_are_fields_too() -> None:
    samples = np.arange(320, dtype=np.int16)
    audio = InputAudioFrame(samples, 16_000)
    assert audio == frame(InputAudioFrame, duration_ms=20, samples=samples)
    assert audio != frame(InputAudioFrame, samples=samples + 1)
    assert audio != frame(InputAudioFrame, samples=samples[:5])
    assert audio != frame(InputAudioFrame, channels=2)


def test_a_field_that_the_class_does_not_have_is_an_error() -> None:
    with pytest.raises(TypeError, match="TextFrame has no field 'txt'; its fields are: text"):
        frame(TextFrame, txt="x")


def test_lists_are_compared_as_lists() -> None:
    assert [frame(TextFrame), frame(ResponseEndFrame)] == [A, END]
    assert [frame(TextFrame)] != [A, END]
    assert [frame(ResponseEndFrame), frame(TextFrame)] != [A, END]


@pytest.mark.parametrize(
    ("frames", "wanted", "why"),
    [
        ([A, B, END], in_order(A, END), ""),
        ([A, B, END], in_order(), ""),
        ([A, B, END], in_order(B, A), "there is no TextFrame(text='a') after index 1"),
        ([A, B], in_order(A, A), "there is no TextFrame(text='a') after index 0"),
        ([A, B, END], in_order(A, END, nothing_else), ""),
        ([A, END, B], in_order(A, END, nothing_else), "its last is TextFrame(text='b'), not ResponseEndFrame()"),
        ([A], in_order(A, A, nothing_else), "there is no TextFrame(text='a') after index 0"),
        ([], in_order(A, nothing_else), "there is no TextFrame(text='a') after index -1"),
        ([], in_order(nothing_else), ""),
        ([A], in_order(nothing_else), "it has 1 frames"),
        ([A, B], eventually(frame(TextFrame, text="b")), ""),
        ([A, B], eventually(END), "there is no ResponseEndFrame() in it"),
        (5, eventually(END), "it is a int, and no list"),
    ],
)
def test_orders_of_frames(frames: Any, wanted: Any, why: str) -> None:
    assert wanted.mismatch(frames) == why
    assert (frames == wanted) is (why == "")
    assert (wanted == frames) is (why == "")


def test_nothing_else_stands_last() -> None:
    with pytest.raises(TypeError, match="nothing_else stands last"):
        in_order(nothing_else, A)


def test_what_is_wanted_can_be_read() -> None:
    assert repr(frame(TextFrame, text=contains("go"))) == "frame(TextFrame, text=contains('go'))"
    assert repr(frame(ResponseCutFrame, heard_ms=approx(240, abs=20))) == (
        "frame(ResponseCutFrame, heard_ms=approx(240 ± 20))"
    )
    assert repr(in_order(A, nothing_else)) == "in_order(TextFrame(text='a'), nothing_else)"
    assert repr(eventually(frame(TextFrame))) == "eventually(frame(TextFrame))"


def test_two_lists_are_explained_side_by_side() -> None:
    assert explain([A, B], [A, frame(TextFrame, text="c"), END]) == [
        "  0: TextFrame(text='a')",
        "! 1: TextFrame(text='b')",
        "     wanted frame(TextFrame, text='c'): text is 'b'",
        "! 2: missing: ResponseEndFrame()",
    ]
    assert explain([A, B], [A])[-1] == "! 1: not expected: TextFrame(text='b')"


def test_a_matcher_has_no_hash() -> None:
    assert Matcher.__hash__ is None

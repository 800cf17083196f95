"""A frame as a line of JSON, and back: every class, every kind of field, and what is wrong is said."""

from __future__ import annotations

import dataclasses
import enum
import json
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline import (
    ErrorFrame,
    Frame,
    HeardWord,
    InputAudioFrame,
    InputFrame,
    LLMRequestFrame,
    Message,
    OutputAudioFrame,
    OutputFrame,
    RecordingError,
    SpokenWord,
    TextFrame,
    UserStartedSpeakingFrame,
)
from voxline.pipeline.engine.inbox import InterruptFrame
from voxline.pipeline.jobs import JobEndedFrame
from voxline.pipeline.recording.codec import INLINE_SAMPLES, decode, encode, from_plain, to_plain
from voxline.pipeline.recording.names import forget_names


class Mood(enum.Enum):
    CALM = "calm"
    CROSS = "cross"


@dataclass(frozen=True, slots=True)
class Point:
    x: float
    y: float = 0.0


@dataclass(frozen=True, slots=True)
class EverythingFrame(OutputFrame):
    """One field of each kind."""

    mood: Mood
    kind: Literal["a", 3]
    point: Point | None = None
    numbers: tuple[int, ...] = ()
    pair: tuple[str, float] = ("", 0.0)
    names: list[str] = field(default_factory=list[str])
    tags: frozenset[str] = frozenset()
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])
    scores: dict[str, float] = field(default_factory=dict[str, float])
    inner: Frame | None = None
    sequence: Sequence[Point] = ()
    raw: bytes = b""
    either: int | str | Point = 0
    anything: Any = None
    flag: bool = False


def everything(**changes: Any) -> EverythingFrame:
    return dataclasses.replace(
        EverythingFrame(
            mood=Mood.CROSS,
            kind=3,
            point=Point(1.5, -0.0),
            numbers=(1, 2, 3),
            pair=("a", 1.0),
            names=["b"],
            tags=frozenset({"z", "a"}),
            arguments={"place": "home", "deep": [1, {"x": None}]},
            scores={"a": 0.1},
            inner=TextFrame("inside"),
            sequence=(Point(1), Point(2)),
            raw=b"\x00\xff",
            either=Point(9),
            anything=[1, "two", {"three": 3.0}],
            flag=True,
        ),
        **changes,
    )


@pytest.mark.parametrize(
    "frame",
    [
        TextFrame("hi"),
        TextFrame('ünï "quoted"\n \u2028'),
        UserStartedSpeakingFrame(),
        UserStartedSpeakingFrame(onset_ms=0.1),
        LLMRequestFrame((Message("user", "go"), Message("assistant", "go-", cut=True))),
        ErrorFrame("it broke", "STT", "InputAudioFrame", "ValueError"),
        JobEndedFrame(3, "ValueError", "no"),
        InterruptFrame("barge-in", 4, "STT"),
        InputAudioFrame(np.arange(3, dtype=np.int16), 8_000),
        InputAudioFrame(np.arange(1_000, dtype=np.int16), 16_000, pts_ns=7),
        InputAudioFrame(np.zeros(0, np.int16), 16_000),
        InputAudioFrame(np.zeros((0, 2), np.int16), 16_000),
        InputAudioFrame(np.arange(8, dtype=np.int16).reshape(4, 2), 48_000),
        InputAudioFrame(np.arange(800, dtype=np.int16).reshape(400, 2), 48_000),
        InputAudioFrame(np.arange(800, dtype=np.int16).reshape(800, 1), 48_000),
        OutputAudioFrame(np.full(5, -32_768, np.int16), 22_050, (SpokenWord("hi", 0.5),)),
        everything(),
        everything(either="text", point=None, anything=np.arange(6.0).reshape(2, 3).tolist()),
        EverythingFrame(Mood.CALM, "a"),
    ],
    ids=lambda frame: type(frame).__name__,
)
def test_a_frame_comes_back_as_it_was(frame: Frame) -> None:
    line = encode(frame)
    assert "\n" not in line
    back = decode(line)
    assert back == frame
    assert type(back) is type(frame)
    assert encode(back) == line


@given(st.text(), st.floats(allow_nan=False), st.integers(0, 2**70))
def test_text_and_numbers_come_back_exactly(text: str, number: float, big: int) -> None:
    @dataclass(frozen=True, slots=True)
    class LooseFrame(InputFrame):
        text: str
        number: float
        big: int

    frame = LooseFrame(text, number, big)
    try:
        line = encode(frame)
        line.encode()
    except UnicodeEncodeError:
        return  # half of a surrogate pair is no text
    back: Any = decode(line)
    assert (back.text, back.number, back.big) == (text, number, big)
    assert str(back.number) == str(number)


def test_a_line_says_no_more_than_it_has_to() -> None:
    assert encode(TextFrame("hi")) == '{"type": "TextFrame", "text": "hi"}'
    assert encode(UserStartedSpeakingFrame()) == '{"type": "UserStartedSpeakingFrame"}'
    short = encode(InputAudioFrame(np.array([1, -2], np.int16), 8_000))
    assert short == '{"type": "InputAudioFrame", "samples": [1, -2], "sample_rate": 8000}'
    assert len(to_plain(InputAudioFrame(np.zeros(INLINE_SAMPLES, np.int16), 8_000))["samples"]) == INLINE_SAMPLES
    assert "samples_base64" in to_plain(InputAudioFrame(np.zeros(INLINE_SAMPLES + 1, np.int16), 8_000))


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not a line of JSON"),
        ('["TextFrame"]', 'a frame is an object with a "type"'),
        ('{"text": "hi"}', 'a frame is an object with a "type"'),
        ('{"type": "TexFrame"}', "no class of frames 'TexFrame'.*import the module.*TextFrame"),
        ('{"type": "TextFrame"}', "field 'text' of TextFrame is missing; it wants text"),
        ('{"type": "TextFrame", "text": 5}', "field 'text': wants text, not 5"),
        ('{"type": "TextFrame", "text": "a", "txt": "b"}', "TextFrame has no field 'txt'; its fields are: text"),
        ('{"type": "UserStartedSpeakingFrame", "onset_ms": "1"}', "field 'onset_ms': wants a number, not '1'"),
        ('{"type": "UserStartedSpeakingFrame", "onset_ms": true}', "wants a number, not True"),
        ('{"type": "LLMRequestFrame", "messages": [{"role": "user", "text": 1}]}', "field '0': field 'text'"),
        ('{"type": "LLMRequestFrame", "messages": {}}', "field 'messages': wants a list"),
        ('{"type": "LLMRequestFrame", "messages": [{"role": "user"}]}', "field 'text' of Message is missing"),
        ('{"type": "InputAudioFrame", "sample_rate": 8000}', "InputAudioFrame has no audio: give it as 'samples'"),
        ('{"type": "InputAudioFrame", "samples": [40000], "sample_rate": 8000}', "from -32768 to 32767"),
        ('{"type": "InputAudioFrame", "samples": [1, [2]], "sample_rate": 8000}', "as many numbers for each channel"),
        ('{"type": "InputAudioFrame", "samples": [1], "sample_rate": 0}', "sample_rate must be > 0"),
        ('{"type": "InputAudioFrame", "samples_base64": "A", "sample_rate": 8000}', "wants int16 as base64"),
        ('{"type": "InputAudioFrame", "audio": [0, 9], "sample_rate": 8000}', "there is none here"),
        ('{"type": "InputAudioFrame", "audio": [0], "sample_rate": 8000}', "wants .first sample, number of samples"),
        ('{"type": "EverythingFrame", "mood": "LOUD", "kind": "a"}', "'mood': wants one of CALM, CROSS, not 'LOUD'"),
        ('{"type": "EverythingFrame", "mood": "CALM", "kind": "b"}', "field 'kind': wants one of 'a', 3, not 'b'"),
        ('{"type": "EverythingFrame", "mood": "CALM", "kind": 3, "pair": ["a"]}', "a list of 2: text, a number"),
        ('{"type": "EverythingFrame", "mood": "CALM", "kind": 3, "raw": "?"}', "field 'raw': wants base64"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_what_is_allowed(line: str, message: str) -> None:
    with pytest.raises(RecordingError, match=message):
        decode(line)


def test_a_value_that_its_annotation_does_not_allow_is_not_written() -> None:
    wrong: Any = 5
    with pytest.raises(RecordingError, match=r"field 'text': wants text, not 5"):
        encode(TextFrame(wrong))
    with pytest.raises(RecordingError, match=r"field 'anything': .* is a object"):
        encode(everything(anything=object()))


def test_two_classes_of_one_name_are_written_with_their_modules() -> None:
    def one() -> type[Frame]:
        @dataclass(frozen=True, slots=True)
        class TwinFrame(InputFrame):
            left: int

        return TwinFrame

    def other() -> type[Frame]:
        @dataclass(frozen=True, slots=True)
        class TwinFrame(InputFrame):
            right: int

        return TwinFrame

    first: Any = one()
    assert json.loads(encode(first(1)))["type"] == "TwinFrame"
    second: Any = other()
    forget_names()
    line = encode(second(2))
    assert json.loads(line)["type"].endswith("other.<locals>.TwinFrame")
    assert decode(line) == second(2)
    assert decode(encode(first(1))) == first(1)
    with pytest.raises(RecordingError, match=r"the name of 2 classes of frames; write which: .* or "):
        from_plain({"type": "TwinFrame", "left": 1})


def test_a_class_that_is_defined_again_is_the_newer_one() -> None:
    def define() -> Any:
        @dataclass(frozen=True, slots=True)
        class AgainFrame(InputFrame):
            text: str

        return AgainFrame

    old, new = define(), define()
    forget_names()
    assert type(decode('{"type": "AgainFrame", "text": "x"}')) is new
    assert old is not new


def test_every_class_of_the_package_can_be_written() -> None:
    from voxline.pipeline import frames

    for cls in vars(frames).values():
        if isinstance(cls, type) and issubclass(cls, Frame) and dataclasses.fields(cls):
            values = {field.name: _example(typing.get_type_hints(cls)[field.name]) for field in dataclasses.fields(cls)}
            frame = cls(**values)
            assert decode(encode(frame)) == frame


def _example(hint: Any) -> Any:
    examples: dict[Any, Any] = {str: "x", int: 1, float: 0.5, bool: True, int | None: 3}
    if hint in examples:
        return examples[hint]
    if hint == tuple[Message, ...]:
        return (Message("user", "hi"),)
    if hint == tuple[SpokenWord, ...]:
        return (SpokenWord("hi", 1.0),)
    if hint == tuple[HeardWord, ...]:
        return (HeardWord("hi", 1.0, 2.0),)
    if hint == tuple[str, ...]:
        return ("x",)
    if hint == float | None:
        return 0.5
    return np.arange(100, dtype=np.int16)

"""`frozen`: the classes it makes behave as frozen, slotted dataclasses do."""

from __future__ import annotations

import copy
import dataclasses
import inspect
import pickle
from dataclasses import dataclass

import pytest
from voxline.pipeline import OutputFrame, ResponseEndFrame, TextFrame, TranscriptionFrame
from voxline.pipeline.frames import HeardWord
from voxline.pipeline.frozen import Frozen, frozen


@frozen
class Point(Frozen):
    x: int
    y: int = 2

    def __post_init__(self) -> None:
        if self.x < 0:
            raise ValueError("x must be >= 0")


@frozen
class Labelled(Point):
    label: str = "here"


@dataclass(frozen=True, slots=True)
class Emphasised(TextFrame):
    strength: float = 1.0


def test_fields_defaults_and_signature() -> None:
    assert (Point(1).x, Point(1).y) == (1, 2)
    assert [field.name for field in dataclasses.fields(Labelled)] == ["x", "y", "label"]
    assert str(inspect.signature(Labelled)) == "(x: 'int', y: 'int' = 2, label: 'str' = 'here') -> None"
    assert repr(Labelled(1)) == "Labelled(x=1, y=2, label='here')"
    with pytest.raises(TypeError, match="missing 1 required positional argument: 'x'"):
        Point()  # type: ignore[call-arg]  # the mistake


def test_post_init_runs() -> None:
    with pytest.raises(ValueError, match="x must be"):
        Labelled(-1)


def test_equal_and_hash_by_type_and_fields() -> None:
    assert Point(1) == Point(1, 2)
    assert hash(Point(1)) == hash(Point(1, 2))
    assert Point(1) != Point(3)
    assert Point(1, 2) != Labelled(1, 2)
    assert ResponseEndFrame() == ResponseEndFrame()


def test_a_field_cannot_be_set_or_deleted_and_there_is_no_dict() -> None:
    point = Labelled(1)
    for name in ("x", "label", "unknown"):
        with pytest.raises(dataclasses.FrozenInstanceError):
            setattr(point, name, 5)
    with pytest.raises(dataclasses.FrozenInstanceError):
        del point.label  # type: ignore[misc]  # the mistake
    assert not hasattr(point, "__dict__")


def test_replace_asdict_match_copy_and_pickle() -> None:
    frame = TranscriptionFrame("go", 300.0, words=(HeardWord("go", 0.0, 300.0),))
    assert dataclasses.replace(frame, text="stop").text == "stop"
    assert dataclasses.asdict(frame.words[0]) == {"text": "go", "start_ms": 0.0, "end_ms": 300.0}
    match frame:
        case TranscriptionFrame(text, audio_ms):
            assert (text, audio_ms) == ("go", 300.0)
    for twin in (copy.copy(frame), copy.deepcopy(frame), pickle.loads(pickle.dumps(frame))):
        assert twin == frame
        assert type(twin) is TranscriptionFrame


def test_an_ordinary_frozen_dataclass_may_derive_from_one() -> None:
    frame = Emphasised("now", 2.0)
    assert frame == Emphasised("now", 2.0)
    assert dataclasses.replace(frame, text="later") == Emphasised("later", 2.0)
    assert copy.deepcopy(frame) == frame
    assert not hasattr(frame, "__dict__")
    with pytest.raises(dataclasses.FrozenInstanceError):
        frame.strength = 3.0  # type: ignore[misc]  # the mistake


def test_a_mutable_dataclass_cannot_derive_from_one() -> None:
    with pytest.raises(TypeError, match="cannot inherit non-frozen dataclass from a frozen one"):

        @dataclass  # type: ignore[misc]  # the mistake
        class Mutable(OutputFrame):
            text: str


def test_what_is_not_supported_is_refused() -> None:
    with pytest.raises(TypeError, match=r"Late\.b: a field after one with a default"):

        @frozen
        class Late(Frozen):  # pyright: ignore[reportUnusedClass]
            a: int = 1
            b: int  # type: ignore[misc]  # the mistake

    with pytest.raises(TypeError, match=r"Made\.a: .*default_factory needs dataclasses\.dataclass"):

        @frozen
        class Made(Frozen):  # pyright: ignore[reportUnusedClass]
            a: list[int] = dataclasses.field(default_factory=list[int])

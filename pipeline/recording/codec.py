"""The codec: a frame as a dict of plain values, and as a line of JSON. Recordings and frame fixtures are made of it.

A frame is ``{"type": "TranscriptionFrame", "text": "go"}``: the name of its class and its fields, where a field that
has its default is left out. Every class of frames can be written, your own too; it is found again by its name, or by
``module:QualName`` where two have the same. What a field may hold is what its annotation says: numbers, text, bytes,
enums, literals, tuples, lists, sets, dicts, nested dataclasses and frames, unions of these, and arrays.

The int16 samples of an audio frame stand in the line where they are few (up to `INLINE_SAMPLES`)::

    {"type": "InputAudioFrame", "samples": [0, 12, -9], "sample_rate": 16000}

or as base64 (little endian), or, where the codec is given somewhere to put audio, as a reference into a FLAC file
beside it: ``"audio": [first sample, number of samples]``. Audio with a second axis also says ``"channels"``.

What is read is checked: a `RecordingError` names the field, what stands there and what is allowed.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Mapping
from typing import Any, Protocol

import numpy as np

from ..errors import FrameError, RecordingError
from ..frames import Frame, Samples
from .names import frame_class, name_of
from .schema import FieldSchema, Plain, checked, is_array, is_list, is_object, schema_of, show

INLINE_SAMPLES = 64
"""Audio of up to so many numbers stands in the line as numbers."""


class AudioSink(Protocol):
    """Where samples go that do not stand in the line."""

    def put(self, kind: str, samples: Samples, sample_rate: int) -> int:
        """Append samples to the audio of a kind (``input`` or ``output``); returns the index of the first of them."""
        ...


class AudioSource(Protocol):
    """Where they come back from."""

    def get(self, kind: str, start: int, length: int, sample_rate: int, channels: int) -> Samples:
        """Samples of shape ``(length, channels)``. Raises `RecordingError` where there are fewer."""
        ...


def dumps(plain: Mapping[str, Any]) -> str:
    """A dict as one line of JSON, without its end of line. The same dict gives the same line."""
    return json.dumps(plain, ensure_ascii=False, separators=(", ", ": "))


def to_plain(frame: Frame, audio: AudioSink | None = None) -> Plain:
    """A frame as a dict of plain values. Raises `RecordingError` for a value that its annotation does not allow."""
    shape = schema_of(type(frame))
    plain: Plain = {"type": name_of(type(frame))}
    for field in shape:
        value = getattr(frame, field.name)
        if _is_samples(field, frame, value):
            plain.update(_samples_to_plain(frame, value, audio))
        elif not field.has_default(value):
            plain[field.name] = checked(field.name, field.type.write, value)
    return plain


def from_plain(plain: object, audio: AudioSource | None = None) -> Frame:
    """A frame from what `to_plain` made of it, or what somebody has written by hand."""
    if not is_object(plain) or not isinstance(plain.get("type"), str):
        raise RecordingError(
            f'a frame is an object with a "type", as {{"type": "TextFrame", "text": "hi"}}; not {show(plain)}'
        )
    cls = frame_class(plain["type"])
    given = {key: value for key, value in plain.items() if key != "type"}
    values: dict[str, Any] = {}
    for field in schema_of(cls):
        if field.name == "samples" and "sample_rate" in given and "samples" not in given:
            values["samples"] = _samples_from_plain(cls, given, audio)
        elif field.name in given:
            value = given.pop(field.name)
            if field.name == "samples" and is_list(value):
                values["samples"] = _inline_samples(value)
            else:
                values[field.name] = checked(field.name, field.type.read, value)
        elif field.required:
            raise RecordingError(f"field {field.name!r} of {cls.__name__} is missing; it wants {field.type.wants}")
    if given:
        allowed = ", ".join(field.name for field in schema_of(cls)) or "none"
        raise RecordingError(f"{cls.__name__} has no field {next(iter(given))!r}; its fields are: {allowed}")
    try:
        return cls(**values)
    except (FrameError, TypeError, ValueError) as error:
        raise RecordingError(f"no {cls.__name__} can be made of it: {error}") from error


def encode(frame: Frame) -> str:
    """A frame as a line of JSON that stands for itself."""
    return dumps(to_plain(frame))


def decode(line: str) -> Frame:
    """A frame from a line of JSON."""
    try:
        plain = json.loads(line)
    except ValueError as error:
        raise RecordingError(f"not a line of JSON: {error}") from error
    return from_plain(plain)


# --- samples ---------------------------------------------------------------------------------------------------------


def _samples_to_plain(frame: Any, samples: Samples, audio: AudioSink | None) -> Plain:
    plain: Plain = {}
    if samples.size <= INLINE_SAMPLES and (samples.size or samples.ndim == 1):
        plain["samples"] = samples.tolist()
        return plain
    if samples.ndim == 2:
        plain["channels"] = samples.shape[1]
    if audio is None or not samples.size or (samples.ndim == 2 and samples.shape[1] > 8):
        plain["samples_base64"] = base64.b64encode(samples.astype("<i2").tobytes()).decode()
    else:
        plain["audio"] = [audio.put(frame.lane.value, samples, frame.sample_rate), len(samples)]
    return plain


def _samples_from_plain(cls: type[Frame], given: Plain, audio: AudioSource | None) -> Samples:
    channels = given.pop("channels", None)
    if channels is not None and (type(channels) is not int or channels < 1):
        raise RecordingError(f"field 'channels' wants a number from 1 on, not {show(channels)}")
    if "samples_base64" in given:
        return _base64_samples(given.pop("samples_base64"), channels)
    if "audio" not in given:
        raise RecordingError(
            f"{cls.__name__} has no audio: give it as 'samples' (numbers), 'samples_base64' or "
            "'audio' ([start, length])"
        )
    place = given.pop("audio")
    if not (is_list(place) and len(place) == 2 and all(type(n) is int and n >= 0 for n in place)):
        raise RecordingError(f"field 'audio' wants [first sample, number of samples], not {show(place)}")
    if audio is None:
        raise RecordingError("field 'audio' refers to a file beside this one, and there is none here")
    rate = given["sample_rate"]
    if type(rate) is not int or rate <= 0:
        raise RecordingError(f"field 'sample_rate' wants a number of Hz from 1 on, not {show(rate)}")
    samples = audio.get(cls.lane.value, place[0], place[1], rate, channels or 1)
    return samples if channels else samples[:, 0]


def _base64_samples(text: object, channels: int | None) -> Samples:
    try:
        samples = np.frombuffer(base64.b64decode(str(text), validate=True), "<i2").astype(np.int16)
        return samples if channels is None else samples.reshape(-1, channels)
    except ValueError as error:
        raise RecordingError(f"field 'samples_base64' wants int16 as base64: {error}") from error


def _inline_samples(values: list[Any]) -> Samples:
    flat = [number for value in values for number in (value if is_list(value) else [value])]
    if any(type(number) is not int or not -32_768 <= number <= 32_767 for number in flat):
        raise RecordingError("field 'samples' wants whole numbers from -32768 to 32767")
    try:
        return np.array(values, np.int16)
    except ValueError as error:
        raise RecordingError("field 'samples' wants as many numbers for each channel") from error


def _is_samples(field: FieldSchema, frame: Any, value: object) -> bool:
    return (
        field.name == "samples"
        and is_array(value)
        and value.dtype == np.int16
        and value.ndim in (1, 2)
        and type(getattr(frame, "sample_rate", None)) is int
    )

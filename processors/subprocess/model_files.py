"""Files of models that users bring: what is wrong with one, in a sentence, before a library sees it.

Libraries say little of a wrong file, and some end the process. Most wrong files are one of five: a path with a mistake
in it, a folder in the place of a file, a download that was cut off, the small text that Git LFS leaves in the place of
a large file, or another model. The first four are found here by looking at the file; for ONNX files, `read_head` reads
what goes in and out and what its makers wrote into it, without loading a model of hundreds of megabytes.

Runs in the model's own process (`Refused` is for whoever asked), and imports little.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn, cast

from .child import Refused

_LFS = b"version https://git-lfs"
_LOOKED_AT = 512
_MAX_JSON = 1 << 24
"""Bytes of a settings file: the largest that are known (tokenizers) have 4 MB."""
_MAX_TEXT = 1 << 20
"""Bytes of one text in the head of a model."""


def require_file(path: Path, expected: str) -> None:
    """Refuse a file that is missing, a folder, empty, or Git LFS's text. ``expected``: what it should be, in words."""
    if path.is_dir():
        raise Refused(f"{path} is a folder, and should be {expected}.")
    if not path.exists():
        raise Refused(f"there is no file {path}, which should be {expected}; nothing is downloaded, so bring it.")
    try:
        with path.open("rb") as file:
            begin = file.read(_LOOKED_AT)
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}); it should be {expected}.") from None
    if not begin:
        raise Refused(f"{path} is empty, and should be {expected}; a download may have failed.")
    if begin.startswith(_LFS):
        raise Refused(f"{path} is only Git LFS's note of {expected}; get the file itself with: git lfs pull")


def require_binary(path: Path, expected: str) -> None:
    """As `require_file`; refuses text as well."""
    require_file(path, expected)
    with path.open("rb") as file:
        begin = file.read(_LOOKED_AT)
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in begin):
        kind = "a web page" if begin.lstrip()[:1] == b"<" else "a text"
        raise Refused(f"{path} is {kind}, and should be {expected}; a download may have gone wrong.")


def require_folder(path: Path, expected: str) -> None:
    """Refuse what is no folder. ``expected``: what should be in it, in words."""
    if path.is_dir():
        return
    if path.exists():
        raise Refused(f"{path} is a file, and should be a folder with {expected}.")
    raise Refused(f"there is no folder {path}, which should hold {expected}; nothing is downloaded, so bring it.")


def read_json(path: Path, expected: str) -> dict[str, object]:
    """The object in a JSON file. Refuses what is none."""
    require_file(path, expected)
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError
        value: object = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused(f"{path} is no JSON object, and should be {expected}.")
    return cast(dict[str, object], value)


class OnnxHead(NamedTuple):
    """What an ONNX file says of itself: the names of what goes in and out, and its makers' notes."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: dict[str, str]


def read_head(path: Path, expected: str) -> OnnxHead:
    """The head of an ONNX file. Refuses what is no ONNX file, and what is cut off."""
    require_binary(path, expected)
    inputs: list[str] = []
    outputs: list[str] = []
    metadata: dict[str, str] = {}
    graphs = 0
    with path.open("rb") as file:
        try:
            # The numbers of the fields are those of onnx.proto3: ModelProto, GraphProto, ValueInfoProto.
            for number, begin, end in _fields(file, 0, path.stat().st_size):
                if number == _GRAPH:
                    graphs += 1
                    for inside, start, stop in list(_fields(file, begin, end)):
                        if inside in (_INPUT, _OUTPUT):
                            (inputs if inside == _INPUT else outputs).append(_texts(file, start, stop).get(1, ""))
                elif number == _METADATA:
                    entry = _texts(file, begin, end)
                    metadata[entry.get(1, "")] = entry.get(2, "")
        except _Cut:
            raise Refused(
                f"{path} is no ONNX file or is cut off, and should be {expected}; its download may have stopped early."
            ) from None
    if graphs != 1 or not outputs:
        raise Refused(f"{path} is no ONNX file, and should be {expected}.")
    return OnnxHead(tuple(inputs), tuple(outputs), metadata)


_GRAPH, _METADATA = 7, 14
_INPUT, _OUTPUT = 11, 12


class _Cut(Exception):
    """The file ends in the middle of something, or is another kind of file."""


def _fields(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """The fields of a protobuf message that have a length: number, and where they begin and end. Skips over them."""
    at = begin
    while at < end:
        file.seek(at)
        tag = _varint(file)
        number, wire = tag >> 3, tag & 7
        if wire == 0:
            _varint(file)
            at = file.tell()
        elif wire in (1, 5):
            at = file.tell() + (8 if wire == 1 else 4)
        elif wire == 2 and number:
            length = _varint(file)
            start = file.tell()
            at = start + length
            if at <= end:
                yield number, start, at
        else:
            raise _Cut
    if at != end:
        raise _Cut


def _varint(file: BinaryIO) -> int:
    """A number of protobuf: 7 bits a byte, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _Cut


def _texts(file: BinaryIO, begin: int, end: int) -> dict[int, str]:
    """The texts of a small message, by number."""
    found: dict[int, str] = {}
    for number, start, stop in _fields(file, begin, end):
        if stop - start <= _MAX_TEXT:
            file.seek(start)
            found[number] = file.read(stop - start).decode(errors="replace")
    return found


def first_line(error: Exception, path: Path | None = None) -> str:
    """What a library says of a file, in a line and without a full stop; the path is left out: we name it ourselves."""
    text = str(error).strip() or type(error).__name__
    if path is not None:
        text = text.replace(str(path), "it")
    return text.splitlines()[0].rstrip(".")[:200]


def refuse_other(path: Path, why: str, expected: str) -> NoReturn:
    """Refuse a file that is whole, but another one."""
    raise Refused(f"{path} does not fit: {why}; it should be {expected}.")

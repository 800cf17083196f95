"""Check the users' model files before a library loads them, and say in one sentence what is wrong.

Libraries say little about a wrong file, and some end the process. Most wrong files are one of five: a path with a typo,
a folder instead of a file, a truncated download, the small text that Git LFS leaves instead of a large file, or another
model. The first four show in the file itself; for ONNX files, `read_head` reads the inputs, the outputs and the
metadata without loading a model of hundreds of megabytes.

Runs in the model's own process (`Refused` reaches the caller), and imports little.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, NoReturn, cast

from .child import Refused

_LFS = b"version https://git-lfs"
_SNIFFED_BYTES = 512
_MAX_JSON = 1 << 24
"""Largest JSON file in bytes; the largest known ones (tokenizers) have 4 MB."""
_MAX_TEXT = 1 << 20
"""Largest string in the head of a model, in bytes."""


def require_file(path: Path, expected: str) -> None:
    """Refuse a path that is missing, a folder, empty, or a Git LFS pointer. ``expected``: its proper content."""
    if path.is_dir():
        raise Refused(f"{path} is a folder; it should be {expected}.")
    if not path.exists():
        raise Refused(f"there is no file {path}; it should be {expected}. Nothing is downloaded, so put it there.")
    try:
        with path.open("rb") as file:
            begin = file.read(_SNIFFED_BYTES)
    except OSError as error:
        raise Refused(f"{path} cannot be read ({error.strerror}); it should be {expected}.") from None
    if not begin:
        raise Refused(f"{path} is empty; it should be {expected}. A download may have failed.")
    if begin.startswith(_LFS):
        raise Refused(f"{path} is only the Git LFS pointer to {expected}; get the file itself with: git lfs pull")


def require_binary(path: Path, expected: str) -> None:
    """Like `require_file`; refuse text files as well."""
    require_file(path, expected)
    with path.open("rb") as file:
        begin = file.read(_SNIFFED_BYTES)
    if all(32 <= byte < 127 or byte in b"\t\r\n" for byte in begin):
        kind = "a web page" if begin.lstrip()[:1] == b"<" else "a text file"
        raise Refused(f"{path} is {kind}; it should be {expected}. A download may have failed.")


def require_folder(path: Path, expected: str) -> None:
    """Refuse a path that is not a folder. ``expected``: its proper content."""
    if path.is_dir():
        return
    if path.exists():
        raise Refused(f"{path} is a file; it should be a folder with {expected}.")
    raise Refused(f"there is no folder {path}; it should hold {expected}. Nothing is downloaded, so put it there.")


def read_json(path: Path, expected: str) -> dict[str, object]:
    """Read a JSON object. Refuse any other file."""
    require_file(path, expected)
    try:
        if path.stat().st_size > _MAX_JSON:
            raise ValueError
        value: object = json.loads(path.read_bytes())
    except ValueError:
        value = None
    if not isinstance(value, dict):
        raise Refused(f"{path} is not a JSON object; it should be {expected}.")
    return cast(dict[str, object], value)


class OnnxHead(NamedTuple):
    """Names of a model's inputs and outputs, and its metadata."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    metadata: dict[str, str]


def read_head(path: Path, expected: str) -> OnnxHead:
    """Read the head of an ONNX file. Refuse other and truncated files."""
    require_binary(path, expected)
    inputs: list[str] = []
    outputs: list[str] = []
    metadata: dict[str, str] = {}
    graphs = 0
    with path.open("rb") as file:
        try:
            # Field numbers from onnx.proto3: ModelProto, GraphProto, ValueInfoProto.
            for number, begin, end in _fields(file, 0, path.stat().st_size):
                if number == _GRAPH:
                    graphs += 1
                    for inside, start, stop in list(_fields(file, begin, end)):
                        if inside in (_INPUT, _OUTPUT):
                            (inputs if inside == _INPUT else outputs).append(_texts(file, start, stop).get(1, ""))
                elif number == _METADATA:
                    entry = _texts(file, begin, end)
                    metadata[entry.get(1, "")] = entry.get(2, "")
        except _Truncated:
            raise Refused(
                f"{path} is not an ONNX file, or is truncated; it should be {expected}. A download may have stopped."
            ) from None
    if graphs != 1 or not outputs:
        raise Refused(f"{path} is not an ONNX file; it should be {expected}.")
    return OnnxHead(tuple(inputs), tuple(outputs), metadata)


_GRAPH, _METADATA = 7, 14
_INPUT, _OUTPUT = 11, 12


class _Truncated(Exception):
    """The file ends inside a field, or is of another format."""


def _fields(file: BinaryIO, begin: int, end: int) -> Iterator[tuple[int, int, int]]:
    """Yield the length-delimited fields of a protobuf message: number, first byte, end. Skips their content."""
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
            raise _Truncated
    if at != end:
        raise _Truncated


def _varint(file: BinaryIO) -> int:
    """Read a protobuf varint: 7 bits per byte, the lowest first."""
    value = 0
    for shift in range(0, 70, 7):
        byte = file.read(1)
        if not byte:
            break
        value |= (byte[0] & 0x7F) << shift
        if byte[0] < 0x80:
            return value
    raise _Truncated


def _texts(file: BinaryIO, begin: int, end: int) -> dict[int, str]:
    """Read the strings of a small message, by field number."""
    found: dict[int, str] = {}
    for number, start, stop in _fields(file, begin, end):
        if stop - start <= _MAX_TEXT:
            file.seek(start)
            found[number] = file.read(stop - start).decode(errors="replace")
    return found


def first_line(error: Exception, path: Path | None = None) -> str:
    """Shorten a library's error to one line without a full stop. The path becomes "it": our message names it."""
    text = str(error).strip() or type(error).__name__
    if path is not None:
        text = text.replace(str(path), "it")
    return text.splitlines()[0].rstrip(".")[:200]


def refuse_other(path: Path, why: str, expected: str) -> NoReturn:
    """Refuse a complete file with the wrong content."""
    raise Refused(f"{path} does not fit: {why}; it should be {expected}.")

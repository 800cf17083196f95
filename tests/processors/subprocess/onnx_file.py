"""Small ONNX models, written byte by byte: the `onnx` package would be a dependency for two tests.

An ONNX file is a protobuf message, ModelProto; the numbers of its fields are those of onnx.proto3.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

FLOAT = 1


def varint(number: int) -> bytes:
    """A number, 7 bits a byte, the lowest first."""
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*out, number])


def field(number: int, value: int | float | str | bytes) -> bytes:
    """A field of a message: a whole number, a float of 32 bits, or what has a length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    if isinstance(value, float):
        return varint(number << 3 | 5) + struct.pack("<f", value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def tensor_info(name: str, shape: Sequence[int | str], kind: int = FLOAT) -> bytes:
    """A ValueInfoProto: what goes in or comes out. A string in the shape stands for any number."""
    dims = b"".join(field(1, field(1, dim) if isinstance(dim, int) else field(2, dim)) for dim in shape)
    return field(1, name) + field(2, field(1, field(1, kind) + field(2, dims)))


def node(op: str, inputs: Sequence[str], output: str, **attributes: int | Sequence[int]) -> bytes:
    """A NodeProto with attributes that are whole numbers, or lists of them."""
    made = b"".join(field(1, name) for name in inputs) + field(2, output) + field(4, op)
    for name, value in attributes.items():
        one = isinstance(value, int)
        body = field(3, value) + field(20, 2) if one else b"".join(field(8, each) for each in value) + field(20, 7)
        made += field(5, field(1, name) + body)
    return made


def model(nodes: Sequence[bytes], inputs: Sequence[bytes], outputs: Sequence[bytes]) -> bytes:
    """A ModelProto, IR version 8, opset 13."""
    graph = b"".join(field(1, one) for one in nodes) + field(2, "graph")
    graph += b"".join(field(11, one) for one in inputs) + b"".join(field(12, one) for one in outputs)
    return field(1, 8) + field(7, graph) + field(8, field(1, "") + field(2, 13))


def mean_model(
    name: str = "input_features",
    shape: Sequence[int | str] = ("batch", 80, 800),
    *,
    kind: int = FLOAT,
    last: str = "Sigmoid",
) -> bytes:
    """One number of all that goes in: the mean, and what the operator ``last`` makes of it."""
    nodes = [
        node("Cast", [name], "floats", to=FLOAT),
        node("ReduceMean", ["floats"], "mean", axes=[*range(1, len(shape))], keepdims=1),
        node(last, ["mean"], "logits"),
    ]
    return model(nodes, [tensor_info(name, shape, kind)], [tensor_info("logits", ["batch", *[1] * (len(shape) - 1)])])

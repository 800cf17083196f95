"""A voice for Piper that sounds its phonemes: each is a constant level of so many samples as it lasts."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from voxline.tests.processors.subprocess.onnx_file import FLOAT, model, node, tensor_info

INT64 = 7
REST = 2**64 - 1
"""-1, as a protobuf has it: what is left."""
SAMPLE_RATE = 16_000
PHONEME_SAMPLES = 400
"""Length of a phoneme with a length_scale of 1."""


def constant(name: str, *numbers: int) -> bytes:
    """Whole numbers, of shape ``(n,)``."""
    return node("Constant", [], name, value_ints=[*numbers])


def voice_model(*, speakers: int = 1, busy: int = 0, inputs: tuple[str, ...] | None = None) -> bytes:
    """The ONNX file: what is said is ``id / highest id``, and with the second speaker each phoneme is twice as long.

    ``busy``: so many products of matrices come first, of a size that grows with the text: a voice that takes long.
    """
    nodes = [
        constant("one", 1),
        constant("unit", PHONEME_SAMPLES),
        node("Cast", ["unit"], "unit_f", to=FLOAT),
        node("Gather", ["scales", "one"], "length"),
        node("Mul", ["unit_f", "length"], "samples_f"),
        node("Cast", ["samples_f"], "samples", to=INT64),
    ]
    if speakers > 1:
        nodes += [node("Add", ["sid", "one"], "times"), node("Mul", ["samples", "times"], "each")]
    else:
        nodes += [node("Identity", ["samples"], "each")]
    nodes += [
        node("Concat", ["one", "one", "each"], "repeats", axis=0),
        constant("last", 2),
        constant("flat", 1, 1, 1, REST),
    ]
    nodes += [node("Cast", ["input"], "levels", to=FLOAT)]
    levels = "levels"
    if busy:
        nodes += [
            constant("two", 2),
            node("Mul", ["input_lengths", "two"], "side"),
            node("Concat", ["side", "side"], "square", axis=0),
            node("ReduceSum", ["levels"], "seed", keepdims=0),
            node("Expand", ["seed", "square"], "m0"),
        ]
        for at in range(busy):
            nodes += [node("MatMul", [f"m{at}", "m0"], f"p{at}"), node("Tanh", [f"p{at}"], f"m{at + 1}")]
        nodes += [
            node("ReduceMax", [f"m{busy}"], "most", keepdims=0),
            node("Mul", ["levels", "most"], "worked"),
        ]
        levels = "worked"
    nodes += [
        node("Unsqueeze", [levels, "last"], "columns"),
        node("Tile", ["columns", "repeats"], "tiled"),
        node("Reshape", ["tiled", "flat"], "output"),
    ]
    takes = [
        tensor_info("input", ["batch", "phonemes"], INT64),
        tensor_info("input_lengths", ["batch"], INT64),
        tensor_info("scales", [3]),
    ]
    if speakers > 1:
        takes.append(tensor_info("sid", ["batch"], INT64))
    if inputs is not None:
        takes = [tensor_info(name, [1]) for name in inputs]
    return model(nodes, takes, [tensor_info("output", ["batch", 1, 1, "time"])])


def voice_config(*, speakers: int = 1, **changes: Any) -> dict[str, Any]:
    """The JSON: phonemes are the letters themselves, so that no language is needed."""
    ids = {letter: [at] for at, letter in enumerate("_^$ abcdefghijklmnopqrstuvwxyz0123456789.,?!'-")}
    names = {f"speaker {at}": at for at in range(speakers)} if speakers > 1 else {}
    return {
        "audio": {"sample_rate": SAMPLE_RATE},
        "espeak": {"voice": "en-us"},
        "phoneme_type": "text",
        "num_symbols": len(ids),
        "num_speakers": speakers,
        "speaker_id_map": names,
        "phoneme_id_map": ids,
        "inference": {"noise_scale": 0.6, "length_scale": 1.0, "noise_w": 0.8},
        **changes,
    }


def write_voice(folder: Path, *, speakers: int = 1, busy: int = 0, **changes: Any) -> Path:
    """Write a voice; returns the path of its model."""
    path = folder / "voice.onnx"
    path.write_bytes(voice_model(speakers=speakers, busy=busy))
    Path(f"{path}.json").write_text(json.dumps(voice_config(speakers=speakers, **changes)))
    return path


def phonemes_of(text: str) -> int:
    """Number of ids of a text: begin, pad, each letter with a pad, and end."""
    return 2 * len(text) + 3

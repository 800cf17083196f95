"""A streaming transducer for sherpa-onnx that hears two sounds: a low noise is "low", a high one is "higher".

Loud frames make a token; the same is not told twice in a row. "higher" is two tokens, as words are in real models.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from voxline.pipeline.frames import Samples
from voxline.tests.processors.subprocess.onnx_file import FLOAT, field, model, node, tensor_info

INT64 = 7
SAMPLE_RATE = 16_000
CHUNK_FRAMES = 8
"""Feature frames of 10 ms in a chunk; four of them are one frame of the encoder."""
TOKENS = ("<blk>", "▁low", "▁high", "er", "▁unused")


def _number(number: int) -> int:
    """Negative numbers as a protobuf has them."""
    return number % 2**64


def _constant(name: str, *numbers: int) -> bytes:
    return node("Constant", [], name, value_ints=[_number(one) for one in numbers])


def _matrix(name: str, rows: Sequence[Sequence[int]]) -> list[bytes]:
    """A matrix of floats."""
    return [
        _constant(f"{name}_flat", *(one for row in rows for one in row)),
        _constant(f"{name}_shape", len(rows), len(rows[0])),
        node("Cast", [f"{name}_flat"], f"{name}_f", to=FLOAT),
        node("Reshape", [f"{name}_f", f"{name}_shape"], name),
    ]


def with_metadata(made: bytes, metadata: Mapping[str, str | int]) -> bytes:
    """A model with its makers' notes."""
    return made + b"".join(field(14, field(1, key) + field(2, str(value))) for key, value in metadata.items())


ENCODER_NOTES: dict[str, str | int] = {
    "model_type": "lstm",
    "num_encoder_layers": 1,
    "T": CHUNK_FRAMES,
    "decode_chunk_len": CHUNK_FRAMES,
    "rnn_hidden_size": 2,
    "d_model": 2,
}


def encoder(notes: Mapping[str, str | int] = ENCODER_NOTES) -> bytes:
    """Levels of the lower and the upper half of the bands, per 40 ms: shape ``(n, 2, 2)``."""
    nodes = [
        _constant("halves", 0, CHUNK_FRAMES // 4, 4, 2, 40),
        node("Reshape", ["x", "halves"], "split"),
        node("ReduceMean", ["split"], "encoder_out", axes=[2, 4], keepdims=0),
        node("Identity", ["h"], "next_h"),
        node("Identity", ["c"], "next_c"),
    ]
    takes = [tensor_info("x", ["N", CHUNK_FRAMES, 80]), tensor_info("h", [1, "N", 2]), tensor_info("c", [1, "N", 2])]
    gives = [
        tensor_info("encoder_out", ["N", 2, 2]),
        tensor_info("next_h", [1, "N", 2]),
        tensor_info("next_c", [1, "N", 2]),
    ]
    return with_metadata(model(nodes, takes, gives), notes)


def decoder(vocab_size: int = len(TOKENS)) -> bytes:
    """Which token was the last: one of ``vocab_size`` is 1."""
    nodes = [
        _constant("last", 1),
        _constant("depth", vocab_size),
        _constant("off_on", 0, 1),
        node("Cast", ["off_on"], "values", to=FLOAT),
        node("Gather", ["y", "last"], "tokens", axis=1),
        node("OneHot", ["tokens", "depth", "values"], "hot"),
        _constant("flat", 0, vocab_size),
        node("Reshape", ["hot", "flat"], "decoder_out"),
    ]
    made = model(nodes, [tensor_info("y", ["N", 2], INT64)], [tensor_info("decoder_out", ["N", vocab_size])])
    return with_metadata(made, {"vocab_size": vocab_size, "context_size": 2})


def joiner() -> bytes:
    """Recognised tokens, and tokens that must not follow."""
    nodes = [
        #               blank, low, high, er, unused
        *_matrix("heard", [[0, 1, 0, 0, 0], [0, 0, 1, 1, 0]]),
        *_matrix(
            "after",
            [[0, 8, 8, -50, -50], [0, -50, 8, -50, -50], [0, 8, -50, 8, -50], [0, 8, -50, -50, -50], [0, 0, 0, 0, -50]],
        ),
        node("MatMul", ["encoder_out", "heard"], "sound"),
        node("MatMul", ["decoder_out", "after"], "may"),
        node("Add", ["sound", "may"], "logit"),
    ]
    takes = [tensor_info("encoder_out", ["N", 2]), tensor_info("decoder_out", ["N", len(TOKENS)])]
    return with_metadata(model(nodes, takes, [tensor_info("logit", ["N", len(TOKENS)])]), {"joiner_dim": 2})


def write_transducer(folder: Path) -> Path:
    """Write the model into a folder of its own; returns the folder."""
    made = folder / "transducer"
    made.mkdir()
    (made / "encoder-epoch-1.onnx").write_bytes(encoder())
    (made / "decoder-epoch-1.onnx").write_bytes(decoder())
    (made / "joiner-epoch-1.onnx").write_bytes(joiner())
    (made / "tokens.txt").write_text("".join(f"{token} {at}\n" for at, token in enumerate(TOKENS)), encoding="utf-8")
    return made


def sound(*parts: str, ms: float = 400) -> Samples:
    """``low``, ``high`` or ``silence``, each so long: noise in one half of the mel bands."""
    count = round(ms * SAMPLE_RATE / 1000)
    bands = {"low": (50, 1_500), "high": (2_500, 7_800), "silence": (0, 0)}
    made: list[Samples] = []
    for part in parts:
        lowest, highest = bands[part]
        spectrum = np.fft.rfft(np.random.default_rng(1).normal(0, 3_000, count))
        hz = np.fft.rfftfreq(count, 1 / SAMPLE_RATE)
        spectrum[(hz < lowest) | (hz >= highest)] = 0
        made.append(np.fft.irfft(spectrum, count).astype(np.int16))
    return np.concatenate(made)


def nemo_ctc(folder: Path) -> Path:
    """Write a model with CTC, as NeMo's cache-aware ones are: it hears "low" only. Returns its folder.

    It shifts by a whole window, so that each frame of 40 ms is heard once.
    """
    nodes = [
        _constant("quarters", 0, 2, 40, CHUNK_FRAMES // 4, 4),
        node("Reshape", ["audio_signal", "quarters"], "split"),
        # The lower half of the bands: the first of two.
        node("ReduceMean", ["split"], "levels", axes=[2, 4], keepdims=0),
        *_matrix("heard", [[1, 0], [0, 0]]),
        node("Transpose", ["levels"], "in_time", perm=[0, 2, 1]),
        node("MatMul", ["in_time", "heard"], "sound"),
        _constant("raise_flat", 8, 0),
        node("Cast", ["raise_flat"], "raise", to=FLOAT),
        node("Add", ["sound", "raise"], "logprobs"),
        node("Identity", ["length"], "encoded_lengths"),
        *(node("Identity", [name], f"{name}_next") for name in _CACHES),
    ]
    takes = [
        tensor_info("audio_signal", ["N", 80, CHUNK_FRAMES]),
        tensor_info("length", ["N"], INT64),
        *(tensor_info(name, shape, kind) for name, (shape, kind) in _CACHES.items()),
    ]
    gives = [
        tensor_info("logprobs", ["N", 2, 2]),
        tensor_info("encoded_lengths", ["N"], INT64),
        *(tensor_info(f"{name}_next", shape, kind) for name, (shape, kind) in _CACHES.items()),
    ]
    notes: dict[str, str | int] = {"window_size": CHUNK_FRAMES, "chunk_shift": CHUNK_FRAMES, "subsampling_factor": 4}
    notes |= {"vocab_size": 1, "model_type": "EncDecCTCModelBPE"}
    notes |= {f"{name}_dim{at}": 1 for name in ("cache_last_channel", "cache_last_time") for at in (1, 2, 3)}
    made = folder / "ctc"
    made.mkdir()
    (made / "model.onnx").write_bytes(with_metadata(model(nodes, takes, gives), notes))
    (made / "tokens.txt").write_text("▁low 0\n<blk> 1\n", encoding="utf-8")
    return made


_CACHES: dict[str, tuple[list[int | str], int]] = {
    "cache_last_channel": (["N", 1, 1, 1], FLOAT),
    "cache_last_time": (["N", 1, 1, 1], FLOAT),
    "cache_last_channel_len": (["N"], INT64),
}

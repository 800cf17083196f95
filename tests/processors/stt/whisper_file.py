"""A Whisper model for CTranslate2 that always says the same: its decoder is a table of what follows what.

Every attention and every other layer gives zero, so that what the decoder says next depends on the last token alone:
the embedding of a token is a place of its own, and the projection says which token comes after that place.
"""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path
from typing import Any, cast

import numpy as np

WORDS = ("Ġgo", "Ġwest", "Ġagain")
MELS = 80
_SIZE = 16
_PLACE = 13
"""Frames of 20 ms."""
_LOOKS = {0: "<|notimestamps|>", 2: WORDS[0], 4: WORDS[1]}
"""Place of the next word in the sound, and the token before it."""
WORD_STARTS_MS = (0, 2 * _PLACE * 20)
"""Starts of its two words."""
_SPECIAL = (
    "<|endoftext|>",
    "<|startoftranscript|>",
    "<|translate|>",
    "<|transcribe|>",
    "<|startoflm|>",
    "<|startofprev|>",
    "<|nospeech|>",
    "<|notimestamps|>",
)
_TIMES = [f"<|{at * 0.02:.2f}|>" for at in range(1501)]


def _bytes_as_letters() -> list[str]:
    """The letters that stand for the 256 bytes in such a tokenizer."""
    return sorted(cast(Any, import_module("tokenizers")).pre_tokenizers.ByteLevel.alphabet())


def _vocabulary() -> list[str]:
    return [*_bytes_as_letters(), *WORDS, *_SPECIAL, *_TIMES]


def _chain(loop: bool) -> dict[str, str]:
    """Successor of each token."""
    says: dict[str, str] = {"<|startoftranscript|>": _TIMES[0], _TIMES[0]: WORDS[0]}
    if loop:
        return says | {WORDS[0]: WORDS[0]}
    return says | {WORDS[0]: WORDS[1], WORDS[1]: "<|1.00|>", "<|1.00|>": "<|endoftext|>"}


def _tokenizer(folder: Path, vocabulary: list[str]) -> None:
    library = cast(Any, import_module("tokenizers"))
    first = vocabulary.index(_SPECIAL[0])
    made = library.Tokenizer(library.models.BPE({token: at for at, token in enumerate(vocabulary[:first])}, []))
    made.pre_tokenizer = library.pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = library.decoders.ByteLevel()
    made.add_special_tokens(vocabulary[first:])
    made.save(str(folder / "tokenizer.json"))


def _zeros(*shape: int) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.zeros(shape, np.float32)


def _linear(spec: Any, out: int, into: int) -> None:
    spec.weight, spec.bias = _zeros(out, into), _zeros(out)


def _norm(spec: Any) -> None:
    spec.gamma, spec.beta = np.ones(_SIZE, np.float32), _zeros(_SIZE)


def _attention(spec: Any, *sizes: int) -> None:
    _norm(spec.layer_norm)
    for linear, size in zip(spec.linear, sizes, strict=True):
        _linear(linear, size, _SIZE)


def _layer(spec: Any) -> None:
    _attention(spec.self_attention, 3 * _SIZE, _SIZE)
    _norm(spec.ffn.layer_norm)
    _linear(spec.ffn.linear_0, 4 * _SIZE, _SIZE)
    _linear(spec.ffn.linear_1, _SIZE, 4 * _SIZE)


def write_whisper(folder: Path, *, sure: bool = True, silence: bool = False, loop: bool = False) -> Path:
    """Write a model that says "go west", from 0 to 1 s of each window; returns its folder.

    ``sure``: whether its words are likely to it; ``silence``: whether it takes everything for silence; ``loop``: it
    says one word for ever. It knows English only.
    """
    made = folder / "whisper"
    made.mkdir(parents=True)
    vocabulary = _vocabulary()
    ids = {token: at for at, token in enumerate(vocabulary)}
    chain = _chain(loop)
    tokens = dict.fromkeys([*chain, *chain.values(), *_LOOKS.values(), "<|nospeech|>"])
    places = {token: at for at, token in enumerate(tokens)}
    embeddings, projection = _zeros(len(vocabulary), _SIZE), _zeros(len(vocabulary), _SIZE)
    embeddings[:, _SIZE - 1] = 1
    for token, place in places.items():
        embeddings[ids[token]] = np.eye(_SIZE, dtype=np.float32)[place]
    for before, after in chain.items():
        # Otherwise some 1,800 tokens are equally likely.
        projection[ids[after], places[before]] = 8 if sure else 1.5
    if silence:
        projection[ids["<|nospeech|>"], places["<|startoftranscript|>"]] = 12

    spec = cast(Any, import_module("ctranslate2.specs.whisper_spec")).WhisperSpec(1, 1, 1, 1)
    for conv, channels in ((spec.encoder.conv1, MELS), (spec.encoder.conv2, _SIZE)):
        conv.weight, conv.bias = _zeros(_SIZE, channels, 3), _zeros(_SIZE)
    # A place in the sound for each quarter of a second.
    spec.encoder.position_encodings.encodings = np.eye(_SIZE, dtype=np.float32)[
        np.minimum(np.arange(1_500) // _PLACE, _SIZE - 1)
    ]
    _norm(spec.encoder.layer_norm)
    _layer(spec.encoder.layer[0])
    decoder = spec.decoder
    decoder.embeddings.weight = embeddings
    decoder.position_encodings.encodings = _zeros(448, _SIZE)
    _norm(decoder.layer_norm)
    _layer(decoder.layer[0])
    _attention(decoder.layer[0].attention, _SIZE, 2 * _SIZE, _SIZE)
    query, keys, _ = decoder.layer[0].attention.linear
    keys.weight[:_SIZE] = np.eye(_SIZE)
    for place, token in _LOOKS.items():
        # Cross-attention to the place of the next word, from which Whisper derives word times.
        query.weight[place, places[token]] = 4
    decoder.projection.weight = projection
    spec.register_vocabulary(vocabulary)
    spec.config.suppress_ids = []
    spec.config.suppress_ids_begin = [ids["<|endoftext|>"]]
    spec.config.lang_ids = []
    spec.config.alignment_heads = [(0, 0)]
    spec.validate()
    spec.save(str(made))
    _tokenizer(made, vocabulary)
    (made / "preprocessor_config.json").write_text(json.dumps({"feature_size": MELS}))
    return made

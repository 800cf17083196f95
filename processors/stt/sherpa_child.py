"""Child process of `sherpa.SherpaSTT`: one streaming recogniser of sherpa-onnx, one utterance at a time.

sherpa-onnx exits or crashes on a model of an unexpected kind. So the files are checked first, and a crash that still
happens ends this process only.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np

from ..subprocess.child import ChildHost, Refused, Request
from ..subprocess.model_files import OnnxHead, first_line, read_head, refuse_other, require_file, require_folder
from .recogniser_child import RecogniserChild

SAMPLE_RATE = 16_000
FOLDER = "tokens.txt and a streaming model for sherpa-onnx: encoder, decoder and joiner, or one CTC model (.onnx)"
TOKENS = "the tokens of a model for sherpa-onnx, each with its number"
TRANSDUCERS = ("conformer", "ebranchformer", "lstm", "zipformer", "zipformer2")
_TAIL_MS = 200
"""Silence after the end, in addition to the chunk that the model waits for: the last word is recognised late."""
_TOKEN_MS = 80.0
"""Assumed length of a word's last token if no other word follows: tokens have a start time only."""

_UNSPACED = re.compile("[\u0e00-\u0eff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Scripts without spaces between words: Thai, Lao, kana, Chinese. There, each token is a word."""


class _SherpaModel(NamedTuple):
    """The files of a model, and the length of its chunks."""

    files: dict[str, Path]
    nemo: bool
    chunk_ms: float


class SherpaChild(RecogniserChild):
    """A streaming recogniser and the stream of the utterance."""

    def __init__(self) -> None:
        self._recogniser: Any = None
        self._stream: Any = None
        self._tail_ms = 0.0
        self._samples = 0

    def start(self, request: Request) -> Mapping[str, object]:
        message = request.message
        folder = Path(message.text("model"))
        model = find_model(folder, int8=bool(message.number("int8", 1)))
        kind = cast(Any, import_module("sherpa_onnx")).OnlineRecognizer
        if "encoder" in model.files:
            make = kind.from_transducer
        else:
            make = kind.from_nemo_ctc if model.nemo else kind.from_zipformer2_ctc
        given: dict[str, Any] = {name: str(path) for name, path in model.files.items()}
        try:
            self._recogniser = make(
                num_threads=int(message.number("threads", 1)), decoding_method=message.text("method"), **given
            )
            # Try a second of silence now, so that a model that cannot work fails at the start.
            self._tail_ms = model.chunk_ms + _TAIL_MS
            self._open()
            self._hear(np.zeros(SAMPLE_RATE, np.float32))
            self._open()
        except Exception as error:
            refuse_other(folder, f"sherpa-onnx says {first_line(error, folder)}", f"a folder with {FOLDER}")
        return {"chunk_ms": model.chunk_ms}

    def begin(self, request: Request) -> None:
        self._open()

    def feed(self, request: Request) -> None:
        self._hear(np.frombuffer(request.message.payload, "<i2").astype(np.float32) / 32_768)

    def partial(self, request: Request) -> Mapping[str, object]:
        return {"text": self._result().text.strip()}

    def finish(self, request: Request) -> Mapping[str, object]:
        audio_ms = self._samples * 1000 / SAMPLE_RATE
        self._hear(np.zeros(round(self._tail_ms * SAMPLE_RATE / 1000), np.float32), request, last=True)
        result = self._result()
        text = str(result.text).strip()
        return {"text": text, "words": words_of(text, result.tokens, result.timestamps, audio_ms)}

    def _open(self) -> None:
        self._stream = self._recogniser.create_stream()
        self._samples = 0

    def _hear(self, audio: object, request: Request | None = None, *, last: bool = False) -> None:
        """Add audio, float32 from -1 to 1, and decode the complete chunks."""
        stream = self._stream
        if stream is None:
            raise Refused("there is no utterance: send begin first")
        stream.accept_waveform(SAMPLE_RATE, audio)
        self._samples += len(cast(Sequence[float], audio))
        if last:
            stream.input_finished()
        while self._recogniser.is_ready(stream) and not (request is not None and request.cancelled):
            self._recogniser.decode_stream(stream)

    def _result(self) -> Any:
        return self._recogniser.get_result_all(self._stream)


def words_of(
    text: str, tokens: Sequence[str], starts_s: Sequence[float], audio_ms: float
) -> list[tuple[str, float, float]]:
    """Join tokens to words with their times in ms: a token with a leading blank starts a word.

    Returns no words if the tokens do not spell the text, as with models whose tokens are bytes. A token has only a
    start time; a word ends at most `_TOKEN_MS` after the start of its last token.
    """
    words: list[tuple[str, float, float]] = []
    for token, start_s in zip(tokens, starts_s, strict=False):
        start_ms = min(start_s * 1000, audio_ms)
        end_ms = min(start_ms + _TOKEN_MS, audio_ms)
        plain = token.replace("\u2581", " ")
        if plain.startswith(" ") or not words or _UNSPACED.match(plain):
            if words:
                before, began_ms, ended_ms = words[-1]
                words[-1] = (before, began_ms, min(ended_ms, start_ms))
            words.append((plain.strip(), start_ms, end_ms))
        else:
            word, began_ms, _ = words[-1]
            words[-1] = (word + plain, began_ms, end_ms)
    words = [word for word in words if word[0]]
    same = "".join(word for word, _, _ in words) == "".join(text.split())
    return [(word, round(start, 1), round(end, 1)) for word, start, end in words] if same else []


def find_model(folder: Path, *, int8: bool) -> _SherpaModel:
    """Find the files of a streaming model. Refuse other models, and files that would crash sherpa-onnx."""
    require_folder(folder, FOLDER)
    tokens = folder / "tokens.txt"
    count = _count_tokens(tokens)
    parts = {name: _pick(folder, f"{name}*.onnx", int8=int8) for name in ("encoder", "decoder", "joiner")}
    found = {name: path for name, path in parts.items() if path is not None}
    if len(found) == 3:
        heads = {name: read_head(path, f"the {name} of a transducer") for name, path in found.items()}
        nemo, chunk_ms = _check_streaming(found["encoder"], heads["encoder"], TRANSDUCERS)
        if not nemo:
            _check_transducer(found, heads, count)
        return _SherpaModel({"tokens": tokens, **found}, nemo, chunk_ms)
    if found:
        missing = ", ".join(name for name in parts if name not in found)
        raise Refused(f"{folder} has {', '.join(found)}, but no {missing}; it should hold {FOLDER}.")
    model = _pick(folder, "*.onnx", int8=int8)
    if model is None:
        raise Refused(f"{folder} has no .onnx file; it should hold {FOLDER}.")
    nemo, chunk_ms = _check_streaming(model, read_head(model, "a CTC model"), ("zipformer2",))
    return _SherpaModel({"tokens": tokens, "model": model}, nemo, chunk_ms)


def _pick(folder: Path, pattern: str, *, int8: bool) -> Path | None:
    """Find the file that matches. Of two, pick the one with 8-bit weights if ``int8``, else the other."""
    files = sorted(folder.glob(pattern))
    small = [file for file in files if ".int8." in file.name]
    wanted = small if int8 else [file for file in files if file not in small]
    files = wanted or files
    if len(files) > 1:
        names = ", ".join(file.name for file in files)
        raise Refused(f"{folder} has several models ({names}); keep each in its own folder.")
    return files[0] if files else None


def _count_tokens(path: Path) -> int:
    """Count the tokens. Refuse a list on which sherpa-onnx would exit."""
    require_file(path, TOKENS)
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
        numbers = [int(line.split()[-1]) for line in lines if line.strip()]
    except ValueError:
        numbers = []
    if not numbers:
        refuse_other(path, "a line is not a token with a number", TOKENS)
    return len(numbers)


def _check_streaming(path: Path, head: OnnxHead, kinds: Sequence[str]) -> tuple[bool, float]:
    """Refuse models that are not made for streaming. Returns whether it is a NeMo model, and its chunk length."""
    notes = head.metadata
    expected = "a streaming model that was exported for sherpa-onnx"
    kind = notes.get("model_type", "")
    nemo = "window_size" in notes and "cache_last_channel_dim1" in notes
    frames = notes.get("window_size" if nemo else "T", "")
    if not nemo and kind not in kinds:
        says = f"its model_type is {kind!r}" if kind else "it has no model_type"
        refuse_other(path, f"{says}, not one of {', '.join(kinds)}, and it is no cache-aware NeMo model", expected)
    if not frames.isdecimal() or (not nemo and "decode_chunk_len" not in notes):
        refuse_other(path, "it is not made for streaming (its metadata has no chunk length)", expected)
    return nemo, int(frames) * 10.0


def _check_transducer(files: Mapping[str, Path], heads: Mapping[str, OnnxHead], tokens: int) -> None:
    """Refuse parts that do not belong to one transducer."""
    notes, path = heads["decoder"].metadata, files["decoder"]
    size = notes.get("vocab_size", "")
    if not size.isdecimal() or "context_size" not in notes:
        refuse_other(path, "it has no vocab_size or context_size", "the decoder of a transducer for sherpa-onnx")
    if tokens < int(size):
        refuse_other(path, f"it has {size} tokens, and tokens.txt has {tokens}", "the decoder of the same model")
    for name, count in (("joiner", 2), ("encoder", 2)):
        if len(heads[name].inputs) < count:
            refuse_other(files[name], f"it takes {len(heads[name].inputs)} input", f"the {name} of a transducer")


def main() -> None:
    """Answer requests until the parent is gone."""
    SherpaChild().serve(ChildHost())


if __name__ == "__main__":
    main()

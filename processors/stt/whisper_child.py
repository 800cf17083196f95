"""Child process of `whisper.WhisperSTT`: one Whisper model, one piece of audio at a time.

faster-whisper occupies all its cores for seconds, and downloads missing files from a hub. Hence a process of its own
with the hub switched off, and a check of the folder first.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol, cast

import numpy as np
import numpy.typing as npt

from ..subprocess.child import ChildHost, Refused, Request
from ..subprocess.model_files import first_line, read_json, refuse_other, require_binary, require_file, require_folder
from .recogniser_child import RecogniserChild

SAMPLE_RATE = 16_000
FOLDER = "a Whisper model for CTranslate2 (model.bin, config.json, tokenizer.json and a vocabulary)"
_MODEL = "the model.bin of a Whisper model for CTranslate2"
_TOKENIZER = "the tokenizer.json of a Whisper model"
_SHORTEST_MS = 100
"""Shorter audio contains no word, but Whisper would find one."""


class _Segment(Protocol):
    """The used part of a segment of faster-whisper."""

    @property
    def text(self) -> str: ...
    @property
    def avg_logprob(self) -> float: ...
    @property
    def no_speech_prob(self) -> float: ...
    @property
    def compression_ratio(self) -> float: ...
    @property
    def words(self) -> Sequence[Any] | None: ...


class SegmentThresholds(NamedTuple):
    """Thresholds of an accepted segment: see `WhisperSTT`."""

    no_speech_threshold: float
    log_prob_threshold: float
    compression_ratio_threshold: float

    def accept(self, segment: _Segment) -> bool:
        """Tell speech from silence and from a repeated text.

        Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision (2022), section 4.5: a segment is
        silence if the model says so and is also unsure of its words; a text that gzip makes much smaller is a loop.
        """
        silent = segment.no_speech_prob > self.no_speech_threshold and segment.avg_logprob < self.log_prob_threshold
        return not silent and segment.compression_ratio <= self.compression_ratio_threshold


class WhisperChild(RecogniserChild):
    """A model, and the audio of the open piece."""

    def __init__(self) -> None:
        self._model: Any = None
        # bound: `piece_ms` of audio, which the parent keeps
        self._audio: list[npt.NDArray[np.float32]] = []

    def start(self, request: Request) -> Mapping[str, object]:
        message = request.message
        folder = Path(message.text("model"))
        check_folder(folder)
        package = cast(Any, import_module("faster_whisper"))
        try:
            self._model = package.WhisperModel(
                str(folder),
                device=message.text("device"),
                compute_type=message.text("compute_type"),
                cpu_threads=int(message.number("threads", 1)),
                local_files_only=True,
            )
        except Exception as error:
            refuse_other(folder, f"CTranslate2 says {first_line(error, folder)}", f"a folder with {FOLDER}")
        _check_language(folder, message.header.get("language"), self._model.supported_languages)
        try:
            # Try a second of silence now: a model that cannot work fails at the start, and the first piece is faster.
            for _ in self._segments(request, np.zeros(SAMPLE_RATE, np.float32)):
                pass
        except Exception as error:
            refuse_other(folder, f"a first second failed with {first_line(error, folder)}", f"a folder with {FOLDER}")
        return {"languages": len(self._model.supported_languages)}

    def begin(self, request: Request) -> None:
        self._audio.clear()

    def feed(self, request: Request) -> None:
        self._audio.append(np.frombuffer(request.message.payload, "<i2").astype(np.float32) / np.float32(32_768))

    def finish(self, request: Request) -> Mapping[str, object]:
        message = request.message
        audio = np.concatenate(self._audio) if self._audio else np.zeros(0, np.float32)
        self._audio.clear()
        if len(audio) * 1000 < _SHORTEST_MS * SAMPLE_RATE:
            return {"text": "", "words": []}
        thresholds = SegmentThresholds(*(message.number(name) for name in SegmentThresholds._fields))
        texts: list[str] = []
        words: list[tuple[str, float, float]] = []
        try:
            for segment in self._segments(request, audio):
                if request.cancelled:
                    return {}
                if thresholds.accept(segment):
                    texts.append(segment.text.strip())
                    words += words_of(segment, len(audio) * 1000 / SAMPLE_RATE)
        except Exception as error:
            # Without its message, which may contain what was said.
            raise Refused(f"the model failed with {type(error).__name__}") from None
        return {"text": " ".join(filter(None, texts)), "words": words}

    def _segments(self, request: Request, audio: npt.NDArray[np.float32]) -> Any:
        """Return the segments as an iterator, which decodes each when it is reached."""
        message = request.message
        segments, _ = self._model.transcribe(
            audio,
            language=message.header.get("language"),
            beam_size=int(message.number("beam_size", 1)),
            best_of=1,
            temperature=message.items("temperatures"),
            no_speech_threshold=message.number("no_speech_threshold"),
            log_prob_threshold=message.number("log_prob_threshold"),
            compression_ratio_threshold=message.number("compression_ratio_threshold"),
            initial_prompt=message.text("prompt") or None,
            word_timestamps=bool(message.number("word_times")),
            # Otherwise a loop becomes the next segment's prompt.
            condition_on_previous_text=False,
            vad_filter=False,
        )
        return segments


def words_of(segment: _Segment, audio_ms: float) -> list[tuple[str, float, float]]:
    """Words of a segment with their times in ms, cut to the audio's length: Whisper pads it to 30 s."""
    return [
        (word.word.strip(), min(word.start * 1000, audio_ms), min(word.end * 1000, audio_ms))
        for word in segment.words or ()
        if word.word.strip()
    ]


def check_folder(folder: Path) -> None:
    """Refuse an incomplete folder: faster-whisper would download the rest."""
    require_folder(folder, FOLDER)
    others = [*folder.glob("*.safetensors"), *folder.glob("pytorch_model*"), *folder.glob("*.pt")]
    if others and not (folder / "model.bin").exists():
        raise Refused(
            f"{folder} has a Whisper model for PyTorch; it should hold {FOLDER}; "
            "convert it with: ct2-transformers-converter --copy_files tokenizer.json preprocessor_config.json"
        )
    require_binary(folder / "model.bin", _MODEL)
    read_json(folder / "config.json", "the config.json of a Whisper model for CTranslate2")
    read_json(folder / "tokenizer.json", _TOKENIZER)
    if (folder / "preprocessor_config.json").exists():
        read_json(folder / "preprocessor_config.json", "the preprocessor_config.json of a Whisper model")
    if not (folder / "vocabulary.txt").exists():
        require_file(folder / "vocabulary.json", "the vocabulary of a Whisper model for CTranslate2")


def _check_language(folder: Path, language: object, known: Sequence[str]) -> None:
    """Refuse a language that the model does not know; an English model would transcribe all speech as English."""
    if language is not None and language not in known:
        there = ", ".join(known) if len(known) < 4 else f"{len(known)}, such as {', '.join(known[:6])}"
        raise Refused(f"the model in {folder} does not know the language {language!r}; it knows {there}.")


def main() -> None:
    """Answer requests until the parent is gone."""
    host = ChildHost()
    # The logs would contain what is said, and a crash reports the last lines.
    logging.disable(logging.CRITICAL)
    os.environ["HF_HUB_OFFLINE"] = "1"
    # Threads that spin while they wait would take the cores that the rest of the conversation needs.
    os.environ["OMP_WAIT_POLICY"] = "PASSIVE"
    WhisperChild().serve(host)


if __name__ == "__main__":
    main()

"""Offline speech to text: your streaming model for sherpa-onnx, in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from os import PathLike
from typing import ClassVar, Literal, Unpack

from pydantic import ConfigDict, Field

from ...pipeline.frames import Samples
from ..service.base import settings_of
from ..subprocess.model_process import ModelProcess, path_of
from ..subprocess.parent import OwnsProcess, require_package
from .base import STT, STTLimits, STTSettings
from .piecewise import ModelRecogniser, transcribe_in_pieces
from .utterance import Transcript

SAMPLE_RATE = 16_000


class SherpaSettings(STTSettings):
    """Settings of sherpa-onnx: see `SherpaSTT`."""

    model_config = ConfigDict(protected_namespaces=())  # Pydantic before 2.10 reserves "model_".

    connect_timeout_s: float = Field(default=30.0, gt=0)
    model_path: str = Field(min_length=1)
    method: Literal["greedy_search", "modified_beam_search"] = "greedy_search"
    int8: bool = True
    interim_ms: float = Field(default=300.0, ge=0)
    piece_ms: float = Field(default=20_000.0, ge=1_000)
    threads: int = Field(default=1, ge=1, le=64)


class SherpaSTT(OwnsProcess[ModelProcess], STT[SherpaSettings]):
    """Transcribes the speech between "user started" and "user stopped" to `TranscriptionFrame`, while it is spoken.

    ``model_path``: a folder with ``tokens.txt`` and a *streaming* model, as published for sherpa-onnx: a transducer
    (encoder, decoder, joiner: zipformer, conformer, LSTM, NeMo), or a CTC model (zipformer2, NeMo). Nothing is
    downloaded: put it there. ``int8``: if the folder has a model twice, take the one with 8-bit weights. ``method``:
    "modified_beam_search" is slower and for transducers only. ``threads``: number of cores.

    ``interim_ms``: interval at which the text so far is reported as an `InterimTranscriptionFrame`, if it has changed;
    0: never. ``piece_ms``: longer speech is transcribed in pieces, cut at a quiet place, as with `PocketSphinxSTT`.
    ``limits``: deadlines and attempts, see `STTSettings`.

    Words have the times of their tokens, which are exact to the model's frames (mostly 40 ms) and a little late; the
    end of a word is estimated. A model whose tokens are bytes produces no word times. When stopped, it first decodes
    the audio that it already has, some 200 ms.

    The model is loaded and tried before the first frame flows. Raises `MissingExtraError` without the package,
    `SettingsError`, and at the start `BadRequestError` for files of another kind.
    """

    sample_rate = SAMPLE_RATE
    reconnect_for: ClassVar[frozenset[str]] = frozenset({"model_path", "method", "int8", "threads"})

    def __init__(
        self,
        model_path: str | PathLike[str],
        *,
        method: Literal["greedy_search", "modified_beam_search"] = "greedy_search",
        int8: bool = True,
        interim_ms: float = 300.0,
        piece_ms: float = 20_000.0,
        threads: int = 1,
        **limits: Unpack[STTLimits],
    ) -> None:
        require_package("SherpaSTT", "sherpa_onnx", "sherpa-onnx", "sherpa")
        self.settings = settings_of(
            "SherpaSTT",
            SherpaSettings,
            model_path=path_of(model_path),
            method=method,
            int8=int8,
            interim_ms=interim_ms,
            piece_ms=piece_ms,
            threads=threads,
            **limits,
        )

    async def connect(self) -> None:
        """Start the process, load the model and try it."""
        rules = self.settings
        self._process = ModelProcess("SherpaSTT", "voxline.processors.stt.sherpa_child", sleep=self.clock.sleep)
        await self._process.start(
            rules.model_path, {"threads": rules.threads, "int8": int(rules.int8), "method": rules.method}
        )

    def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """Transcribe one utterance."""
        assert self._process is not None
        rules = self.settings
        recogniser = ModelRecogniser(self._process, SAMPLE_RATE)
        return transcribe_in_pieces(
            recogniser, audio, sample_rate=SAMPLE_RATE, piece_ms=rules.piece_ms, interim_ms=rules.interim_ms
        )

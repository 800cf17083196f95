"""Speech to text, offline: a streaming model for sherpa-onnx that you bring, in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from os import PathLike
from typing import ClassVar, Literal, Unpack

from pydantic import ConfigDict, Field

from ...pipeline.frames import Samples
from ..service.base import settings_of
from ..subprocess.model_process import ModelProcess, OwnsModelProcess, path_of
from ..subprocess.parent import require_package
from .base import STT, STTLimits, STTSettings
from .piecewise import ModelRecogniser, hear
from .utterance import Transcript

SAMPLE_RATE = 16_000


class SherpaSettings(STTSettings):
    """What sherpa-onnx can be told: see `SherpaSTT`."""

    model_config = ConfigDict(protected_namespaces=())  # "model_" is Pydantic's own before 2.10

    connect_timeout_s: float = Field(default=30.0, gt=0)
    model_path: str = Field(min_length=1)
    method: Literal["greedy_search", "modified_beam_search"] = "greedy_search"
    int8: bool = True
    interim_ms: float = Field(default=300.0, ge=0)
    piece_ms: float = Field(default=20_000.0, ge=1_000)
    threads: int = Field(default=1, ge=1, le=64)


class SherpaSTT(OwnsModelProcess, STT[SherpaSettings]):
    """Turns what is said between "user started" and "user stopped" into `TranscriptionFrame`, while it is said.

    ``model_path``: a folder with ``tokens.txt`` and a *streaming* model as they are published for sherpa-onnx: a
    transducer (encoder, decoder, joiner: zipformer, conformer, LSTM, NeMo), or a CTC model (zipformer2, NeMo). It is
    yours to bring; nothing is downloaded. ``int8``: where the folder has a model twice, take the one with 8-bit
    weights. ``method``: "modified_beam_search" is slower and for transducers only. ``threads``: how many cores.

    ``interim_ms``: after each so much speech it tells what it makes of it so far, as `InterimTranscriptionFrame`, where
    that has changed; 0: never. ``piece_ms``: what is longer is told in pieces, cut at a quiet place, as with
    `PocketSphinxSTT`. ``limits``: deadlines and attempts, see `STTSettings`.

    Words come with the times of their tokens, which are exact to the model's frames (40 ms, mostly) and a little late;
    the end of a word is estimated. A model whose tokens are bytes gives a text without times. Being stopped, it
    decodes what it was given to its end, and that is what it is behind: some 200 ms.

    The model is loaded and tried before the first frame flows. Raises `MissingExtraError` without the package,
    `SettingsError`; and at the start `BadRequestError` for files that are no such model.
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
        """Start the process, load the model, and try it."""
        rules = self.settings
        self._model = ModelProcess("SherpaSTT", "voxline.processors.stt.sherpa_child", sleep=self.clock.sleep)
        await self._model.start(
            rules.model_path, {"threads": rules.threads, "int8": int(rules.int8), "method": rules.method}
        )

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """Hear one utterance."""
        assert self._model is not None
        rules = self.settings
        recogniser = ModelRecogniser(self._model, SAMPLE_RATE)
        heard = hear(recogniser, audio, sample_rate=SAMPLE_RATE, piece_ms=rules.piece_ms, interim_ms=rules.interim_ms)
        async with aclosing(heard):
            async for transcript in heard:
                yield transcript

"""Offline speech to text: your Whisper model with faster-whisper, in a process of its own."""

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
WINDOW_MS = 30_000
"""Length of Whisper's window."""


class WhisperSettings(STTSettings):
    """Settings of Whisper: see `WhisperSTT`."""

    model_config = ConfigDict(protected_namespaces=())  # Pydantic before 2.10 reserves "model_".

    connect_timeout_s: float = Field(default=60.0, gt=0)
    first_timeout_s: float = Field(default=30.0, gt=0)
    model_path: str = Field(min_length=1)
    language: str | None = None
    beam_size: int = Field(default=5, ge=1, le=20)
    temperatures: tuple[float, ...] = Field(default=(0.0,), min_length=1)
    no_speech_threshold: float = Field(default=0.6, ge=0, le=1)
    log_prob_threshold: float = Field(default=-1.0, le=0)
    compression_ratio_threshold: float = Field(default=2.4, gt=0)
    prompt: str = ""
    word_times: bool = True
    piece_ms: float = Field(default=25_000.0, ge=5_000, le=WINDOW_MS)
    device: Literal["cpu", "cuda", "auto"] = "cpu"
    compute_type: str = "default"
    threads: int = Field(default=2, ge=1, le=64)


class WhisperSTT(OwnsProcess[ModelProcess], STT[WhisperSettings]):
    """Transcribes the speech between "user started" and "user stopped" to `TranscriptionFrame`, at its end.

    ``model_path``: a folder with a Whisper model converted for CTranslate2 (``model.bin``, ``config.json``,
    ``tokenizer.json``, a vocabulary). Nothing is downloaded, and a name such as "small" is not a path: put the model
    there. ``device`` and ``compute_type`` ("int8", "float16", ...): as in CTranslate2; ``threads``: number of cores.

    ``language``: "en", "de", ...; None: detected in each utterance, which costs a third to a half more and fails with
    short ones. ``beam_size``: 1 is the fastest. ``prompt``: expected words, such as names. ``word_times``: report the
    times of words, which costs a little more. ``temperatures``: with several, a text that misses the thresholds is
    decoded again with the next; each costs as much as the first. All of these may change between two utterances.

    Whisper finds words in silence and noise, and repeats itself. A segment is dropped if the model takes it for silence
    (``no_speech_threshold``) and is unsure of its words (average ``log_prob_threshold``), or if its text is a loop
    (``compression_ratio_threshold``). The defaults are those of Whisper's authors. If all segments are dropped, the
    text is empty.

    There are no interim texts. Speech longer than ``piece_ms`` is cut at a quiet place and transcribed in pieces while
    the user continues, so no piece exceeds Whisper's window of 30 s. When stopped, it decodes to the end of that
    window; the next utterance waits for it. ``limits``: deadlines and attempts, see `STTSettings`; the answer may take
    30 s after the end of speech.

    The model is loaded and tried before the first frame flows. Raises `MissingExtraError` without the package,
    `SettingsError`, and at the start `BadRequestError` for files of another kind and for an unknown language.
    """

    sample_rate = SAMPLE_RATE
    reconnect_for: ClassVar[frozenset[str]] = frozenset({"model_path", "device", "compute_type", "threads"})

    def __init__(
        self,
        model_path: str | PathLike[str],
        *,
        language: str | None = None,
        beam_size: int = 5,
        temperatures: tuple[float, ...] = (0.0,),
        no_speech_threshold: float = 0.6,
        log_prob_threshold: float = -1.0,
        compression_ratio_threshold: float = 2.4,
        prompt: str = "",
        word_times: bool = True,
        piece_ms: float = 25_000.0,
        device: Literal["cpu", "cuda", "auto"] = "cpu",
        compute_type: str = "default",
        threads: int = 2,
        **limits: Unpack[STTLimits],
    ) -> None:
        require_package("WhisperSTT", "faster_whisper", "faster-whisper", "whisper")
        self.settings = settings_of(
            "WhisperSTT",
            WhisperSettings,
            model_path=path_of(model_path),
            language=language,
            beam_size=beam_size,
            temperatures=temperatures,
            no_speech_threshold=no_speech_threshold,
            log_prob_threshold=log_prob_threshold,
            compression_ratio_threshold=compression_ratio_threshold,
            prompt=prompt,
            word_times=word_times,
            piece_ms=piece_ms,
            device=device,
            compute_type=compute_type,
            threads=threads,
            **limits,
        )

    def _options(self) -> dict[str, object]:
        """Options of the decoder, sent with each question."""
        rules = self.settings
        return {
            "language": rules.language,
            "beam_size": rules.beam_size,
            "temperatures": list(rules.temperatures),
            "no_speech_threshold": rules.no_speech_threshold,
            "log_prob_threshold": rules.log_prob_threshold,
            "compression_ratio_threshold": rules.compression_ratio_threshold,
            "prompt": rules.prompt,
            "word_times": int(rules.word_times),
        }

    async def connect(self) -> None:
        """Start the process, load the model and try it."""
        rules = self.settings
        self._process = ModelProcess("WhisperSTT", "voxline.processors.stt.whisper_child", sleep=self.clock.sleep)
        fixed = {"device": rules.device, "compute_type": rules.compute_type, "threads": rules.threads}
        await self._process.start(rules.model_path, {**fixed, **self._options()})

    def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """Transcribe one utterance."""
        assert self._process is not None
        recogniser = ModelRecogniser(self._process, SAMPLE_RATE, self._options)
        return transcribe_in_pieces(recogniser, audio, sample_rate=SAMPLE_RATE, piece_ms=self.settings.piece_ms)

"""Speech to text, offline: a Whisper model that you bring, by faster-whisper, in a process of its own."""

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
WINDOW_MS = 30_000
"""What Whisper hears at once."""


class WhisperSettings(STTSettings):
    """What Whisper can be told: see `WhisperSTT`."""

    model_config = ConfigDict(protected_namespaces=())  # "model_" is Pydantic's own before 2.10

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


class WhisperSTT(OwnsModelProcess, STT[WhisperSettings]):
    """Turns what is said between "user started" and "user stopped" into `TranscriptionFrame`, at its end.

    ``model_path``: a folder with a Whisper model converted for CTranslate2 (``model.bin``, ``config.json``,
    ``tokenizer.json``, a vocabulary). It is yours to bring: a name such as "small" is no path, and nothing is
    downloaded. ``device`` and ``compute_type`` ("int8", "float16", ...): as CTranslate2 has them; ``threads``: cores.

    ``language``: "en", "de", ...; None: detected in each utterance, which costs a third to a half more and fails with
    short ones. ``beam_size``: 1 is the quickest. ``prompt``: words to expect, such as names. ``word_times``: when words
    were said, which costs some more. ``temperatures``: with several, what does not fit the thresholds is decoded again
    with the next; each costs as much as the first. All these can be changed between two utterances.

    Whisper hears words in silence and noise, and repeats itself. What it says is dropped where it takes it for no
    speech (``no_speech_threshold``) and is unsure of the words (average ``log_prob_threshold``), and where the text is
    a loop (``compression_ratio_threshold``): the thresholds of its makers. Where all is dropped, the text is empty.

    There are no interim texts. What is longer than ``piece_ms`` is cut at a quiet place and told in pieces, while the
    user goes on: so nothing is longer than Whisper's window of 30 s. Being stopped, it decodes to the end of that
    window; the next utterance waits for it. ``limits``: deadlines and attempts, see `STTSettings`; after the end of
    the speech there are 30 s for the answer.

    The model is loaded and tried before the first frame flows. Raises `MissingExtraError` without the package,
    `SettingsError`; and at the start `BadRequestError` for files that are no such model, and for a language that it
    does not know.
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

    def _wanted(self) -> dict[str, object]:
        """How it is to be heard: what goes along with each question."""
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
        """Start the process, load the model, and try it."""
        rules = self.settings
        self._model = ModelProcess("WhisperSTT", "voxline.processors.stt.whisper_child", sleep=self.clock.sleep)
        fixed = {"device": rules.device, "compute_type": rules.compute_type, "threads": rules.threads}
        await self._model.start(rules.model_path, {**fixed, **self._wanted()})

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """Hear one utterance."""
        assert self._model is not None
        recogniser = ModelRecogniser(self._model, SAMPLE_RATE, self._wanted)
        heard = hear(recogniser, audio, sample_rate=SAMPLE_RATE, piece_ms=self.settings.piece_ms)
        async with aclosing(heard):
            async for transcript in heard:
                yield transcript

"""Offline text to speech: your Piper voice, in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from os import PathLike
from typing import ClassVar, Unpack

import numpy as np
from pydantic import ConfigDict, Field

from ...pipeline.frames import Frame, OutputAudioFrame
from ...pipeline.processor import AudioFormat
from ..service.base import Limits, ServiceSettings, settings_of
from ..subprocess.model_process import ModelProcess, path_of
from ..subprocess.parent import OwnsProcess, require_package
from .base import TTS
from .word_timing import SpeechChunk


class PiperSettings(ServiceSettings):
    """Settings of Piper: see `PiperTTS`."""

    model_config = ConfigDict(protected_namespaces=())  # Pydantic before 2.10 reserves "model_".

    connect_timeout_s: float = Field(default=30.0, gt=0)
    model_path: str = Field(min_length=1)
    config_path: str | None = None
    speaker: int | str | None = None
    length_scale: float | None = Field(default=None, gt=0, le=10)
    noise_scale: float | None = Field(default=None, ge=0, le=2)
    noise_w_scale: float | None = Field(default=None, ge=0, le=2)
    volume: float = Field(default=1.0, ge=0, le=1)
    threads: int = Field(default=2, ge=1, le=64)


class PiperTTS(OwnsProcess[ModelProcess], TTS[PiperSettings]):
    """Speaks every `TextFrame` as `OutputAudioFrame` of 100 ms, int16 mono at the rate of the voice.

    ``model_path``: the ``.onnx`` file of a Piper voice; ``config_path``: its settings, by default the file of the same
    name with ``.json`` appended. Nothing is downloaded: put both there.

    ``speaker``: a number from 0 or a name, for a voice with several. ``length_scale``: length of the sounds; 0.8 is
    faster, 1.2 slower. ``noise_scale`` and ``noise_w_scale``: variation of sound and rhythm. None: the voice's own
    value. ``volume``: 0 to 1, of each sentence's loudest sample. All of these may change between two texts.
    ``threads``: number of cores. ``limits``: deadlines and attempts, see `ServiceSettings`.

    A sentence is synthesised as a whole, so the first sound arrives once the first sentence is complete. An
    interruption stops it between two operators of the model, within ms; the next text starts at once. Piper reports no
    word times: if eSpeak NG is installed the words are aligned, else they are interpolated (see `TTS.align_words`).

    The voice is loaded and tried before the first frame flows. Raises `MissingExtraError` without the package,
    `SettingsError`, and at the start `BadRequestError` for files of another kind and for an unknown speaker.
    """

    align_words: bool = True
    reconnect_for: ClassVar[frozenset[str]] = frozenset({"model_path", "config_path", "threads"})

    def __init__(
        self,
        model_path: str | PathLike[str],
        *,
        config_path: str | PathLike[str] | None = None,
        speaker: int | str | None = None,
        length_scale: float | None = None,
        noise_scale: float | None = None,
        noise_w_scale: float | None = None,
        volume: float = 1.0,
        threads: int = 2,
        **limits: Unpack[Limits],
    ) -> None:
        require_package("PiperTTS", "piper", "piper-tts", "piper")
        self.settings = settings_of(
            "PiperTTS",
            PiperSettings,
            model_path=path_of(model_path),
            config_path=path_of(config_path) if config_path is not None else None,
            speaker=speaker,
            length_scale=length_scale,
            noise_scale=noise_scale,
            noise_w_scale=noise_w_scale,
            volume=volume,
            threads=threads,
            **limits,
        )
        self._rate = 0

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono audio at the rate of the voice."""
        return {OutputAudioFrame: AudioFormat((), (1,))}

    async def connect(self) -> None:
        """Start the process, load the voice and try it."""
        rules = self.settings
        self._process = ModelProcess("PiperTTS", "voxline.processors.tts.piper_child", sleep=self.clock.sleep)
        options = {"config": rules.config_path or "", "threads": rules.threads, "speaker": rules.speaker}
        facts = await self._process.start(rules.model_path, options)
        self._rate = int(facts.number("sample_rate"))

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        """Yield the speech of a text."""
        assert self._process is not None
        options = self.settings.model_dump(
            include={"speaker", "length_scale", "noise_scale", "noise_w_scale", "volume"}
        )
        with self._process.ask("speak", {"text": text, **options}) as replies:
            async for message in replies:
                yield SpeechChunk(np.frombuffer(message.payload, dtype="<i2"), self._rate)

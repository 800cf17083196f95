"""Text to speech, offline: eSpeak NG in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar, Unpack

from pydantic import Field

from ...pipeline.errors import BadRequestError, ServiceError
from ...pipeline.frames import Frame, OutputAudioFrame
from ...pipeline.processor import AudioFormat
from ..service.base import Limits, ServiceSettings, settings_of
from ..subprocess.parent import require_package
from .base import TTS
from .espeak_process import PITCHES, RATES_WPM, SAMPLE_RATE, EspeakProcess
from .word_timing import SpeechChunk, WordStart


class EspeakSettings(ServiceSettings):
    """What eSpeak NG can be told: see `EspeakTTS`."""

    voice: str = "en-us"
    rate_wpm: int = Field(default=175, ge=RATES_WPM[0], le=RATES_WPM[1])
    pitch: int = Field(default=50, ge=PITCHES[0], le=PITCHES[1])


class EspeakTTS(TTS[EspeakSettings]):
    """Speaks every `TextFrame`: `OutputAudioFrame` of some 60 ms, int16 mono at 22,050 Hz, with the words
    that begin there.

    ``voice``: a language ("en-us", "de"), with a variant if wanted ("en-us+f3"). ``rate_wpm``: 80 to 450
    words a minute; ``pitch``: 0 to 99. ``limits``: deadlines and attempts, see `ServiceSettings`.

    The first audio is there after some ms. It speaks hundreds of times faster than it is heard, and waits
    while the output is full. An interruption stops it at once, in its process too. If that dies, a new one goes on
    with the word that was under way. Raises `MissingExtraError` without the package; an unknown voice ends the start
    of the pipeline, and the error has some that there are.
    """

    tells_words: ClassVar[bool] = True
    reconnect_for: ClassVar[frozenset[str]] = frozenset({"voice", "rate_wpm", "pitch"})

    def __init__(self, voice: str = "en-us", *, rate_wpm: int = 175, pitch: int = 50, **limits: Unpack[Limits]) -> None:
        require_package("EspeakTTS", "espeakng_loader", "espeakng-loader", "speech")
        self.settings = settings_of(
            "EspeakTTS", EspeakSettings, voice=voice, rate_wpm=rate_wpm, pitch=pitch, **limits
        )  # fmt: skip
        self._espeak: EspeakProcess | None = None

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """22,050 Hz, mono."""
        return {OutputAudioFrame: AudioFormat((SAMPLE_RATE,), (1,))}

    async def connect(self) -> None:
        """Start the process."""
        wanted = self.settings
        self._espeak = EspeakProcess(
            sleep=self.clock.sleep, voice=wanted.voice, rate_wpm=wanted.rate_wpm, pitch=wanted.pitch
        )
        try:
            await self._espeak.start()
        except ServiceError as error:
            if "there is no voice" in str(error):
                raise BadRequestError(str(error)) from None
            raise

    async def disconnect(self) -> None:
        """End the process."""
        if self._espeak is not None:
            await self._espeak.close()

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._espeak is not None and self._espeak.pid is not None

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        """Speak a text."""
        assert self._espeak is not None
        with self._espeak.speak(text) as speech:
            async for chunk in speech:
                words = tuple(WordStart(word.char_offset, word.start_ms - chunk.start_ms) for word in chunk.words)
                yield SpeechChunk(chunk.samples, SAMPLE_RATE, words)

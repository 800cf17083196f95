"""Offline text to speech: eSpeak NG in a process of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from typing import ClassVar, Unpack

from pydantic import Field

from ...pipeline.frames import Frame, OutputAudioFrame
from ...pipeline.processor import AudioFormat
from ..service.base import Limits, ServiceSettings, settings_of
from ..subprocess.parent import OwnsProcess, require_package
from .base import TTS
from .espeak_process import PITCHES, RATES_WPM, SAMPLE_RATE, EspeakProcess
from .word_timing import SpeechChunk, WordStart


class EspeakSettings(ServiceSettings):
    """Settings of eSpeak NG: see `EspeakTTS`."""

    voice: str = "en-us"
    rate_wpm: int = Field(default=175, ge=RATES_WPM[0], le=RATES_WPM[1])
    pitch: int = Field(default=50, ge=PITCHES[0], le=PITCHES[1])


class EspeakTTS(OwnsProcess[EspeakProcess], TTS[EspeakSettings]):
    """Speaks every `TextFrame` as `OutputAudioFrame` of some 60 ms, int16 mono at 22,050 Hz, with the words that
    begin in them.

    ``voice``: a language ("en-us", "de"), optionally with a variant ("en-us+f3"). ``rate_wpm``: 80 to 450 words per
    minute; ``pitch``: 0 to 99. ``limits``: deadlines and attempts, see `ServiceSettings`.

    The first audio arrives after a few ms. Synthesis is hundreds of times faster than real time, and waits while the
    output is full. An interruption stops it at once, in its process too. If the process dies, a new one continues
    with the current word. Raises `MissingExtraError` without the package. An unknown voice fails the start of the
    pipeline; the error lists similar ones.
    """

    reports_words: ClassVar[bool] = True
    reconnect_for: ClassVar[frozenset[str]] = frozenset({"voice", "rate_wpm", "pitch"})

    def __init__(self, voice: str = "en-us", *, rate_wpm: int = 175, pitch: int = 50, **limits: Unpack[Limits]) -> None:
        require_package("EspeakTTS", "espeakng_loader", "espeakng-loader", "speech")
        self.settings = settings_of(
            "EspeakTTS", EspeakSettings, voice=voice, rate_wpm=rate_wpm, pitch=pitch, **limits
        )  # fmt: skip

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono at 22,050 Hz."""
        return {OutputAudioFrame: AudioFormat((SAMPLE_RATE,), (1,))}

    async def connect(self) -> None:
        """Start the process."""
        wanted = self.settings
        self._process = EspeakProcess(
            sleep=self.clock.sleep, voice=wanted.voice, rate_wpm=wanted.rate_wpm, pitch=wanted.pitch
        )
        await self._process.start()

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        """Yield the speech of a text."""
        assert self._process is not None
        with self._process.speak(text) as utterance:
            async for chunk in utterance:
                words = tuple(WordStart(word.char_offset, word.start_ms - chunk.start_ms) for word in chunk.words)
                yield SpeechChunk(chunk.samples, SAMPLE_RATE, words)

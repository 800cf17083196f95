"""Text to speech, offline: eSpeak NG in a process of its own."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping

import numpy as np

from ...pipeline.frames import Frame, OutputAudioFrame, SpokenWord, TextFrame
from ...pipeline.processor import AudioFormat, FrameProcessor, handles
from ..child import ServiceCrashed, require_package
from .espeak import SAMPLE_RATE, EspeakProcess, SpeechChunk

_TOKEN = re.compile(r"\S+")


class EspeakTTS(FrameProcessor):
    """Speaks every `TextFrame`: `OutputAudioFrame` of some 60 ms, int16 mono at 22,050 Hz, with the words
    that begin there.

    ``voice``: a language ("en-us", "de"), with a variant if wanted ("en-us+f3"). ``rate_wpm``: 80 to 450
    words a minute; ``pitch``: 0 to 99.

    The first audio is there after some ms. It speaks hundreds of times faster than it is heard, and waits
    while the output is full. An interruption stops it at once, in its process too. If that dies, the rest of
    the text is not heard, an `ErrorFrame` says so, and the next text has a new one. Raises
    `MissingExtraError` without the package; an unknown voice ends the start of the pipeline, and the error
    has some that there are.
    """

    def __init__(self, voice: str = "en-us", *, rate_wpm: int = 175, pitch: int = 50) -> None:
        require_package("EspeakTTS", "espeakng_loader", "espeakng-loader", "speech")
        # The clock is known when the pipeline runs.
        self._espeak = EspeakProcess(
            sleep=lambda seconds: self.clock.sleep(seconds), voice=voice, rate_wpm=rate_wpm, pitch=pitch
        )

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """22,050 Hz, mono."""
        return {OutputAudioFrame: AudioFormat((SAMPLE_RATE,), (1,))}

    async def start(self) -> None:
        """Start the process."""
        await self._espeak.start()

    async def stop(self) -> None:
        """End the process."""
        await self._espeak.close()

    @handles(TextFrame)
    async def speak(self, frame: TextFrame) -> AsyncIterator[Frame]:
        """Speak a text."""
        espeak = self._espeak
        if espeak.pid is None:
            await espeak.start()
        words = _Words(frame.text)
        last: OutputAudioFrame | None = None
        try:
            with espeak.speak(frame.text) as speech:
                async for chunk in speech:
                    words.take(chunk)
                    if len(chunk.samples):
                        if last is not None:
                            yield last
                        last = OutputAudioFrame(chunk.samples, SAMPLE_RATE, words.within(chunk))
        except ServiceCrashed:
            await espeak.start()
            raise
        if last is not None:
            yield _with_words(last, words.rest())


class _Words:
    """Places the words of a text in its sound, so that, joined with spaces, they are the text.

    eSpeak tells where most words begin, but says some together ("I am"), and one with a hyphen in two parts.
    A word that it does not tell of is counted with the next that it does: rather heard too late than too
    early.
    """

    def __init__(self, text: str) -> None:
        self._tokens = [(match.start(), match.end(), match.group()) for match in _TOKEN.finditer(text)]
        self._next = 0
        self._waiting: list[tuple[float, str]] = []

    def take(self, chunk: SpeechChunk) -> None:
        """Note the words that a chunk tells of."""
        for word in chunk.words:
            told: list[str] = []
            while self._next < len(self._tokens) and self._tokens[self._next][0] <= word.char_offset:
                told.append(self._tokens[self._next][2])
                self._next += 1
            if told:
                self._waiting.append((word.start_ms, " ".join(told)))

    def within(self, chunk: SpeechChunk) -> tuple[SpokenWord, ...]:
        """The words that begin in a chunk; those told of it that begin later wait for theirs."""
        end_ms = chunk.start_ms + len(chunk.samples) * 1000 / SAMPLE_RATE
        found = [SpokenWord(text, max(0.0, start - chunk.start_ms)) for start, text in self._waiting if start < end_ms]
        self._waiting = [entry for entry in self._waiting if entry[0] >= end_ms]
        return tuple(found)

    def rest(self) -> list[str]:
        """What no chunk told of."""
        texts = [text for _, text in self._waiting] + [text for _, _, text in self._tokens[self._next :]]
        self._waiting, self._next = [], len(self._tokens)
        return texts


def _with_words(frame: OutputAudioFrame, texts: list[str]) -> OutputAudioFrame:
    """The last frame of a text, with words that begin, as far as is known, at its end."""
    at_ms = max(0.0, frame.duration_ms - 1)
    more = tuple(SpokenWord(text, at_ms) for text in texts)
    return OutputAudioFrame(np.asarray(frame.samples), frame.sample_rate, (*frame.words, *more))

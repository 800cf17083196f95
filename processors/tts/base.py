"""Base of voices: text in, speech out.

An adapter writes `TTS.speak`: the text of a sentence in, chunks of audio out, with the words' times if the voice
reports them::

    class Beeps(TTS):
        async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
            yield SpeechChunk(beep(len(text)), 16_000)
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, ClassVar, cast

import numpy as np

from ...pipeline.clock import NS_PER_MS
from ...pipeline.errors import BadAnswerError, ServiceError
from ...pipeline.frames import Frame, OutputAudioFrame, TextFrame
from ...pipeline.processor import AudioFormat, handles
from ..service.base import S, Service, ServiceCall, require_generator
from ..text.sentences import SentenceCutter
from ..text.speakable import Spoken, speakable
from .aligned import AlignedSpeech, ReferenceVoice
from .word_timing import SpeechChunk, WordTiming


class TTS(Service[S]):
    """Speaks every `TextFrame` as `OutputAudioFrame` with the words that begin in it; an interruption stops it.

    Markdown, emoji and links are made speakable first. The words of the frames are the written ones, so the trantiming
    of what was heard matches the text. If a voice fails in the middle, the next attempt (or the next member of a
    `Fallback`) continues with the last word that began.
    """

    kind: ClassVar[str] = "tts"
    language: str = "en"
    """Language of the words that replace unspeakable text (a block of code, for example), and of `align_words`."""
    reports_words: ClassVar[bool] = False
    """True if the chunks report when words begin. If not, words are aligned or interpolated."""
    align_words: bool = False
    """Find the words of a voice that reports none by comparison with eSpeak NG, if that is installed (the extra
    ``speech``) and speaks `language`: see `docs/design/playout.md`. Costs a process, and some 5 ms of work for each
    second of speech. Set it before the start. For human voices, not for a test's tones.
    """

    _failed_response = 0
    """Response of which a sentence could not be spoken."""
    _reference: ReferenceVoice | None = None
    _audible_response = 0
    """Response of the newest sound."""
    _played_ns = 0
    """Earliest time at which all its sound so far can have been heard."""

    def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        """Yield the speech of a text, which is plain and not empty: an async generator. Raises `ServiceError`.

        When closed, it stops at once.
        """
        raise NotImplementedError

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono audio. An adapter that knows its rate overrides this."""
        return {OutputAudioFrame: AudioFormat((), (1,))}

    async def start(self) -> None:
        """Connect, and forget the last run, because response numbers start again."""
        self._failed_response = self._audible_response = 0
        await super().start()
        if any(_needs_alignment(member) for member in self.members()):
            # Assigned before it has started, so that `stop` closes it if the start is cancelled.
            self._reference = ReferenceVoice(self.clock, self.language)
            if not await self._reference.start():
                self._reference = None

    async def stop(self) -> None:
        """Disconnect."""
        reference, self._reference = self._reference, None
        try:
            if reference is not None:
                await reference.close()
        finally:
            await super().stop()

    @handles(TextFrame)
    async def speak_text(self, frame: TextFrame) -> AsyncIterator[Frame]:
        """Speak a text, sentence by sentence."""
        if self.response == self._failed_response:
            return
        try:
            for sentence in self._sentences(frame.text):
                async with aclosing(self._speak(sentence)) as frames:
                    async for spoken in frames:
                        yield spoken
        except ServiceError as error:
            # Skip the rest of the response: with a gap it is useless, and each sentence would wait for all deadlines.
            self._failed_response = self.response
            await self.push_error(error, TextFrame.__name__)

    def _sentences(self, text: str) -> list[Spoken]:
        """Split a text into speakable sentences. Unspeakable text joins the sentence before it."""
        cutter = SentenceCutter(first_chars=None)
        found: list[Spoken] = []
        for piece in [*cutter.add(text), *cutter.end()]:
            sentence = speakable(piece, language=self.language)
            if sentence.text.strip():
                found.append(sentence)
            elif found:
                found[-1] = speakable(found[-1].written + piece, language=self.language)
        return found

    async def _speak(self, sentence: Spoken) -> AsyncGenerator[Frame]:
        timing = WordTiming(sentence)

        async def ask(member: TTS[Any]) -> AsyncGenerator[SpeechChunk]:
            reference = self._reference if _needs_alignment(member) else None
            text = sentence.text[timing.start_attempt(timed=member.reports_words or reference is not None) :]
            chunks = _spoken(member, text)
            if reference is not None:
                aligned = AlignedSpeech(
                    text, reference, self.clock, unheard_ms=self._unheard_ms, give_up=timing.untimed
                )
                chunks = aligned.speak(chunks)
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

        call = ServiceCall[SpeechChunk](self, ask)
        response = self.response
        if response != self._audible_response:
            self._audible_response, self._played_ns = response, 0
        rate = 0
        try:
            async with aclosing(call.answer()) as answer:
                async for chunk in answer:
                    words = timing.words_of(chunk)
                    if len(chunk.samples):
                        rate = chunk.sample_rate
                        self._played_ns = max(self._played_ns, self.now_ns) + round(chunk.duration_ms * NS_PER_MS)
                        yield OutputAudioFrame(chunk.samples, rate, words)
            if rate and (words := timing.rest(1.0)):
                # Words that no chunk carried go out in 1 ms of silence, because no audio is held back for them.
                yield OutputAudioFrame(np.zeros(max(1, rate // 1000), np.int16), rate, words)
        except ServiceError:
            await self.push_metrics(call, timing.spoken_chars, response)
            raise
        await self.push_metrics(call, len(sentence.text), response)

    def _unheard_ms(self) -> float:
        """Length of the sound that cannot have been heard yet."""
        return max(0, self._played_ns - self.now_ns) / NS_PER_MS


def _needs_alignment(member: Service[Any]) -> bool:
    return isinstance(member, TTS) and member.align_words and not member.reports_words


async def _spoken(member: TTS[Any], text: str) -> AsyncGenerator[SpeechChunk]:
    """Yield the chunks of a voice, and check them."""
    # A text without letters or digits ("...") may have no sound.
    missing = any(map(str.isalnum, text))
    async with aclosing(require_generator(member, member.speak(text))) as chunks:
        async for chunk in chunks:
            missing = not len(_checked(chunk).samples) and missing
            yield chunk
    if missing:
        raise BadAnswerError(f"{member.label} produced no audio for a text of {len(text)} characters.")


def _checked(chunk: SpeechChunk) -> SpeechChunk:
    if not isinstance(cast("object", chunk), SpeechChunk):
        raise BadAnswerError(f"A voice yielded {type(chunk).__name__} instead of a SpeechChunk.")
    samples: object = chunk.samples
    dtype, shape = getattr(samples, "dtype", type(samples).__name__), getattr(samples, "shape", "")
    if dtype != np.int16 or getattr(samples, "ndim", 0) != 1:
        raise BadAnswerError(f"A voice yielded audio that is not an int16 array of shape (n,): {dtype}, {shape}.")
    if not chunk.sample_rate > 0:
        raise BadAnswerError(f"A voice yielded audio with an impossible rate of {chunk.sample_rate} Hz.")
    if not all(math.isfinite(word.start_ms) and word.char_offset >= 0 for word in chunk.words):
        raise BadAnswerError("A voice yielded a word without a valid position.")
    return chunk

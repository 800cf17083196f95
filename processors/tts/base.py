"""The base of voices: text in, speech out.

An adapter is `TTS.speak`: the text of a sentence in, chunks of audio out, with the places of the words where the voice
tells them::

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
from .aligned import Aligned, ReferenceVoice
from .word_timing import Script, SpeechChunk


class TTS(Service[S]):
    """Speaks every `TextFrame`, as `OutputAudioFrame` with the words that begin there; an interruption stops it.

    Markdown, emoji and links are made speakable first; the words of the frames are those that were written, so that
    what was heard is told in them. Where a voice fails in the middle, the next attempt (or the next member of a
    `Fallback`) goes on with the last word that was begun.
    """

    kind: ClassVar[str] = "tts"
    language: str = "en"
    """Of what is said in the place of what cannot be spoken (a block of code, for example), and of `align_words`."""
    tells_words: ClassVar[bool] = False
    """Whether its chunks say when words begin. If not, they are aligned, or what was heard is interpolated."""
    align_words: bool = False
    """Whether the words of a voice that tells none are found by comparison with eSpeak NG, where that is installed (the
    extra ``speech``) and speaks `language`: see `docs/design/playout.md`. It costs a process, and some 5 ms of work for
    each second of speech. Set it before the start. For voices of people, not for tones of a test.
    """

    _lost = 0
    """The response of which a sentence could not be spoken."""
    _reference: ReferenceVoice | None = None
    _sounding = 0
    """The response of which there was sound last."""
    _over_ns = 0
    """Before this moment what there is of it cannot have been heard to its end."""

    def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        """Speak a text, which is plain and not empty: an async generator. Raises `ServiceError`.

        Being closed, it stops at once.
        """
        raise NotImplementedError

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono; at what rate, an adapter may know."""
        return {OutputAudioFrame: AudioFormat((), (1,))}

    async def start(self) -> None:
        """Connect. The numbers of responses begin anew in each run."""
        self._lost = self._sounding = 0
        await super().start()
        if any(_wants_times(member) for member in self.members()):
            # Known before it is there: who is cancelled meanwhile has something to give back.
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
        """Answer a text with its speech, sentence by sentence."""
        if self.response == self._lost:
            return
        try:
            for said in self._sentences(frame.text):
                async with aclosing(self._speak(said)) as frames:
                    async for spoken in frames:
                        yield spoken
        except ServiceError as error:
            # Of an answer with a hole nobody wants the rest, and each sentence would wait for all deadlines again.
            self._lost = self.response
            await self.push_error(error, TextFrame.__name__)

    def _sentences(self, text: str) -> list[Spoken]:
        """What is to be said, sentence by sentence; what cannot be said goes with the sentence before it."""
        cutter = SentenceCutter(first_chars=None)
        found: list[Spoken] = []
        for piece in [*cutter.add(text), *cutter.end()]:
            said = speakable(piece, language=self.language)
            if said.text.strip():
                found.append(said)
            elif found:
                found[-1] = speakable(found[-1].written + piece, language=self.language)
        return found

    async def _speak(self, said: Spoken) -> AsyncGenerator[Frame]:
        script = Script(said)

        async def ask(member: TTS[Any]) -> AsyncGenerator[SpeechChunk]:
            reference = self._reference if _wants_times(member) else None
            text = said.text[script.go_on(timed=member.tells_words or reference is not None) :]
            chunks = _spoken(member, text)
            if reference is not None:
                aligned = Aligned(text, reference, self.clock, left_ms=self._left_ms, give_up=script.untimed)
                chunks = aligned.speak(chunks)
            async with aclosing(chunks):
                async for chunk in chunks:
                    yield chunk

        asking = ServiceCall[SpeechChunk](self, ask)
        response = self.response
        if response != self._sounding:
            self._sounding, self._over_ns = response, 0
        rate = 0
        try:
            async with aclosing(asking.answer()) as answer:
                async for chunk in answer:
                    words = script.words_of(chunk)
                    if len(chunk.samples):
                        rate = chunk.sample_rate
                        self._over_ns = max(self._over_ns, self.now_ns) + round(chunk.duration_ms * NS_PER_MS)
                        yield OutputAudioFrame(chunk.samples, rate, words)
            if rate and (words := script.rest(1.0)):
                # Words that no chunk told of, in 1 ms of silence: nothing is kept back to take them.
                yield OutputAudioFrame(np.zeros(max(1, rate // 1000), np.int16), rate, words)
        except ServiceError:
            await self.push_metrics(asking, script.spoken_chars, response)
            raise
        await self.push_metrics(asking, len(said.text), response)

    def _left_ms(self) -> float:
        """How much of the sound that was given cannot have been heard yet."""
        return max(0, self._over_ns - self.now_ns) / NS_PER_MS


def _wants_times(member: Service[Any]) -> bool:
    return isinstance(member, TTS) and member.align_words and not member.tells_words


async def _spoken(member: TTS[Any], text: str) -> AsyncGenerator[SpeechChunk]:
    """What a voice gives, which has to be speech."""
    # What has no letter ("...") may have no sound.
    missing = any(map(str.isalnum, text))
    async with aclosing(require_generator(member, member.speak(text))) as chunks:
        async for chunk in chunks:
            missing = not len(_checked(chunk).samples) and missing
            yield chunk
    if missing:
        raise BadAnswerError(f"{member.label} gave no audio for a text of {len(text)} characters.")


def _checked(chunk: SpeechChunk) -> SpeechChunk:
    if not isinstance(cast("object", chunk), SpeechChunk):
        raise BadAnswerError(f"A voice gave {type(chunk).__name__} in the place of a SpeechChunk.")
    samples: object = chunk.samples
    dtype, shape = getattr(samples, "dtype", type(samples).__name__), getattr(samples, "shape", "")
    if dtype != np.int16 or getattr(samples, "ndim", 0) != 1:
        raise BadAnswerError(f"A voice gave audio that is no array of int16 with shape (n,): {dtype}, {shape}.")
    if not chunk.sample_rate > 0:
        raise BadAnswerError(f"A voice gave audio with {chunk.sample_rate} Hz, which is no rate.")
    if not all(math.isfinite(word.start_ms) and word.char_offset >= 0 for word in chunk.words):
        raise BadAnswerError("A voice gave a word without a place.")
    return chunk

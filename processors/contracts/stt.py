"""The contract of recognisers."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from typing import Any, ClassVar

import numpy as np

from ...pipeline.frames import (
    Samples,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from ...pipeline.testing.harness import Bench
from ...pipeline.testing.material import chunks as frames_of
from ...pipeline.testing.material import noise, tone
from ..stt.base import STT
from ..stt.utterance import Transcript
from .common import PATIENCE_S, Suite
from .lab import Ask, Lab, until_quiet

CHUNK_MS = 20


async def check_stt(
    make: Callable[[], STT[Any]],
    *,
    audio: Samples,
    text: str | None = None,
    break_: Callable[[Any], Any] | None = None,
    cannot_connect: Callable[[], STT[Any]] | None = None,
    secrets: Sequence[str] = (),
    patience_s: float = PATIENCE_S,
) -> None:
    """Check a recogniser. Raises `ContractFailure`.

    ``make`` gives a fresh one, not connected. ``audio``: something that it understands, int16 mono at its
    ``sample_rate``, shape (n,); ``text``: what is said there (its case and signs do not count), None for anything.
    The rest is as for `check_tts`.
    """
    await _STTSuite(
        make, audio, text, break_=break_, cannot_connect=cannot_connect, secrets=secrets, patience_s=patience_s
    ).check()


class _STTSuite(Suite[STT[Any]]):
    kind: ClassVar[str] = "a recogniser"
    pieces: ClassVar[tuple[type, ...]] = (Transcript,)

    def __init__(self, make: Callable[[], STT[Any]], audio: Samples, text: str | None, **options: Any) -> None:
        super().__init__(make, **options)
        self.audio = audio
        self.text = text

    def sample(self) -> Ask:
        """The utterance."""
        return self.hearing(self.audio)

    def long(self) -> Ask:
        """It and a pause and it again: most tell nothing of it before its end."""
        return self.hearing(np.concatenate([self.audio, np.zeros(len(self.audio) // 4, np.int16), self.audio]))

    def hearing(self, samples: Samples, chunk_ms: float = CHUNK_MS, half: Callable[[], object] = lambda: None) -> Ask:
        """Some audio, in chunks. ``half``: is called when half of it has been read."""

        async def ask(adapter: STT[Any]) -> AsyncGenerator[Transcript]:
            size = max(1, round(chunk_ms * adapter.sample_rate / 1000))
            async with aclosing(_in_chunks(samples, size, half)) as audio, aclosing(adapter.transcribe(audio)) as told:
                async for one in told:
                    yield one

        return ask

    def amount(self, pieces: Sequence[Transcript]) -> float:
        """How many words are understood."""
        return len(_words(pieces))

    def spoken(self) -> Sequence[str]:
        """Texts of the spoken audio."""
        return (self.text,) if self.text else ()

    async def rules(self) -> None:
        """Transcripts, and odd audio."""
        async with self.lab(self.fresh()) as lab:
            await self._transcripts(lab)
            for chunk_ms in (0.1, 7.3, 100, 1e6):
                await self.odd(f"chunks of {chunk_ms:g} ms", self.hearing(self.audio, chunk_ms), lab, answered=True)
            rate: int = lab.adapter.sample_rate
            for what, samples in {
                "no audio at all": np.zeros(0, np.int16),
                "one sample": np.ones(1, np.int16),
                "silence": np.zeros(2 * rate, np.int16),
                "noise": noise(2_000, rate, dbfs=-20),
                "a tone": tone(440, 1_000, rate),
                "full scale": np.tile(np.array([32_767, -32_768], np.int16), rate),
                "long": np.concatenate([self.audio] * 4),
            }.items():
                await self.odd(what, self.hearing(samples), lab, answered=True)
            self.rule = "what was heard before is forgotten, when an answer has ended or was closed"
            answer = await lab.ask(self.hearing(self.audio, half=lab.bench.worker.interrupt))
            lab.forget()
            pieces = await lab.good(self.hearing(np.zeros(rate, np.int16)))
            self.expect(not _words(pieces) and answer.ended, "no word in silence", f"{len(_words(pieces))} words")
        await self._in_a_pipeline()

    async def _transcripts(self, lab: Lab) -> None:
        self.rule = "what is said is understood"
        pieces = await lab.good(self.sample())
        if self.text is not None:
            wanted, found = _normal(self.text), _words(pieces)
            self.expect(found == wanted, f"{len(wanted)} words as given", f"{len(found)} words, others")
        self.rule = "the last transcript of an utterance is final"
        self.expect(bool(pieces) and pieces[-1].final, "a final transcript at the end", "none")
        length_ms = len(self.audio) * 1000 / lab.adapter.sample_rate
        self.rule = "transcripts cover the audio in order, and no more than there is"
        ends = [piece.end_ms for piece in pieces if piece.final and piece.end_ms is not None]
        self.expect(ends == sorted(ends), "end_ms that does not fall", ends)
        self.expect(all(0 <= end <= length_ms + 1 for end in ends), f"end_ms from 0 to {length_ms:g}", ends)
        self.rule = "words come in their order, within the audio"
        times = [(word.start_ms, word.end_ms) for piece in pieces if piece.final for word in piece.words]
        starts = [start for start, _ in times]
        self.expect(starts == sorted(starts), "starts in ms that do not fall", starts)
        self.expect(all(0 <= start <= end <= length_ms + 1 for start, end in times), f"0 to {length_ms:g} ms", times)

    async def _in_a_pipeline(self) -> None:
        self.rule = "in a pipeline, an utterance has one last transcription"
        adapter = self.fresh()
        bench = Bench(adapter, patience_s=self.patience_s)
        await bench.start()
        try:
            await bench.send(UserStartedSpeakingFrame(0))
            for frame in frames_of(self.audio, adapter.sample_rate, CHUNK_MS):
                await bench.send(frame)
            await bench.send(UserStoppedSpeakingFrame(0))
            await until_quiet(bench)
            errors = [error.message for error in bench.errors]
            self.expect(not errors, "no error", " ".join(errors))
            told = [frame for frame in bench.down if isinstance(frame, TranscriptionFrame)]
            last = [frame for frame in told if not frame.more]
            self.expect(len(last) == 1 and told[-1] is last[0], "one frame that ends it", f"{len(last)}")
            self.expect(any(frame.text for frame in told), "what was said", "an empty text")
        finally:
            await bench.stop()


async def _in_chunks(samples: Samples, size: int, half: Callable[[], object]) -> AsyncGenerator[Samples]:
    for at in range(0, len(samples), size):
        if at <= len(samples) // 2 < at + size:
            half()
        yield samples[at : at + size]


def _normal(text: str) -> list[str]:
    return re.findall(r"\w+", text.lower())


def _words(pieces: Sequence[Transcript]) -> list[str]:
    return _normal(" ".join(piece.text for piece in pieces if piece.final))

"""The contract of voices."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, ClassVar

import numpy as np

from ...pipeline.frames import OutputAudioFrame, TextFrame
from ...pipeline.testing.harness import Bench
from ..tts.base import TTS
from ..tts.word_timing import SpeechChunk
from .common import PATIENCE_S, Suite
from .lab import Ask, Lab, until_quiet

ODD_TEXTS = {
    "one letter": "a",
    "emoji": "Hello 😀👩‍👩‍👧 there.",
    "lines": "One.\n\nTwo.\r\n\tThree.",
    "another script": "你好，世界。 Привет. مرحبا",
    "markup": "<speak>5 < 6 & 7 > 3</speak> [[x]] {y} $z",
    "signs": "... - !? ... ()",
    "quotes": "“He said: \"it's 'so'\".”",
    "numbers": "3.14159, 1,000,000, 12:45, +49 30 1234",
    "a word without end": "a" * 2_000,
    "control characters": "One\x07two\x00three.",
}


async def check_tts(
    make: Callable[[], TTS[Any]],
    *,
    text: str = "Turn left after ten meters.",
    long_text: str = "",
    break_: Callable[[Any], Any] | None = None,
    cannot_connect: Callable[[], TTS[Any]] | None = None,
    secrets: Sequence[str] = (),
    patience_s: float = PATIENCE_S,
) -> None:
    """Check a voice. Raises `ContractFailure`.

    ``make`` gives a fresh one, not connected. ``text``: a sentence that it can say, in words that are written with
    spaces; ``long_text``: one to be interrupted in, of at least three chunks of audio (some twenty sentences, if not
    given). ``break_(voice)`` (may be async) makes the service of a connected one fail; ``cannot_connect()`` gives one
    whose start has to fail; ``secrets`` must show up nowhere. ``patience_s``: real seconds in which nothing comes.
    """
    await _TTSSuite(
        make, text, long_text, break_=break_, cannot_connect=cannot_connect, secrets=secrets, patience_s=patience_s
    ).check()


class _TTSSuite(Suite[TTS[Any]]):
    kind: ClassVar[str] = "a voice"
    pieces: ClassVar[tuple[type, ...]] = (SpeechChunk,)

    def __init__(self, make: Callable[[], TTS[Any]], text: str, long_text: str, **options: Any) -> None:
        super().__init__(make, **options)
        self.text = text
        self.long_text = long_text or " ".join([text] * 20)

    def sample(self) -> Ask:
        """A sentence."""
        return self.saying(self.text)

    def long(self) -> Ask:
        """Twenty."""
        return self.saying(self.long_text)

    def saying(self, text: str) -> Ask:
        """A text."""

        def ask(adapter: TTS[Any]) -> AsyncGenerator[SpeechChunk]:
            return adapter.speak(text)

        return ask

    def amount(self, pieces: Sequence[SpeechChunk]) -> float:
        """Ms of audio."""
        return sum(len(piece.samples) * 1000 / piece.sample_rate for piece in pieces if piece.sample_rate > 0)

    def spoken(self) -> Sequence[str]:
        """The sentence."""
        return (self.text,)

    async def rules(self) -> None:
        """Chunks, words, odd texts."""
        async with self.lab(self.fresh()) as lab:
            await self._chunks(lab)
            for what, text in ODD_TEXTS.items():
                await self.odd(what, self.saying(text), lab)
            await self.odd("very long", self.saying(" ".join([self.text] * 100)), lab)
        await self._in_a_pipeline()

    async def _chunks(self, lab: Lab) -> None:
        adapter = lab.adapter
        chunks = await lab.good(self.sample())
        self.rule = "a voice gives chunks of int16, shape (n,), mono"
        rates: set[int] = set()
        for chunk in chunks:
            samples: Any = chunk.samples
            found = f"{getattr(samples, 'dtype', type(chunk.samples).__name__)} {getattr(samples, 'shape', ())}"
            self.expect(found == f"int16 ({len(samples)},)", "an array of int16 with shape (n,)", found)
            rates.add(chunk.sample_rate)
        self.expect(any(np.any(chunk.samples) for chunk in chunks), "something that can be heard", "silence")
        self.rule = "all chunks have the rate that makes() says"
        made = adapter.makes().get(OutputAudioFrame)
        self.expect(made is not None and bool(made.sample_rates), "makes() with OutputAudioFrame and its rate", made)
        assert made is not None
        self.expect(len(rates) == 1 and rates <= set(made.sample_rates), f"{made.sample_rates} Hz", f"{rates} Hz")
        self._words(adapter, chunks)

    def _words(self, adapter: TTS[Any], chunks: Sequence[SpeechChunk]) -> None:
        self.rule = "reports_words matches the chunks"
        words = [word for chunk in chunks for word in chunk.words]
        self.expect(bool(words) == adapter.reports_words, f"words: {adapter.reports_words}", f"{len(words)} words")
        self.rule = "words come in their order, within the text and within the sound"
        offsets = [word.char_offset for word in words]
        self.expect(offsets == sorted(set(offsets)), "places in the text that grow", offsets)
        self.expect(all(0 <= offset < len(self.text) for offset in offsets), f"0 to {len(self.text) - 1}", offsets)
        at_ms = 0.0
        starts: list[float] = []
        for chunk in chunks:
            starts += [at_ms + word.start_ms for word in chunk.words]
            at_ms += self.amount([chunk])
        self.expect(starts == sorted(starts), "starts in ms that do not fall", starts)
        self.expect(all(0 <= start < at_ms for start in starts), f"starts from 0 to {at_ms:g} ms", starts)

    async def _in_a_pipeline(self) -> None:
        self.rule = "in a pipeline, a text is speech whose words are what was written"
        bench = Bench(self.fresh(), patience_s=self.patience_s)
        await bench.start()
        try:
            await bench.send(TextFrame(self.text), TextFrame("  \n"))
            await until_quiet(bench)
            errors = [error.message for error in bench.errors]
            self.expect(not errors, "no error", " ".join(errors))
            frames = [frame for frame in bench.down if isinstance(frame, OutputAudioFrame)]
            text = " ".join(word.text for frame in frames for word in frame.words)
            self.expect(text == " ".join(self.text.split()), "the text", repr(text))
        finally:
            await bench.stop()

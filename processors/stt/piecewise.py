"""One utterance, told piece by piece: what recognisers have in common that hear while the user speaks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Protocol

from ...pipeline.frames import HeardWord, Samples
from ..subprocess.model_process import ModelProcess, heard_words
from .segmenter import Cutter
from .utterance import Transcript

BLOCK_MS = 200
"""What is given to a process at once."""


class Recogniser(Protocol):
    """Hears one utterance after another."""

    async def begin(self) -> None:
        """Begin an utterance, or the next piece of it."""
        ...

    async def feed(self, samples: Samples) -> None:
        """Add audio to it."""
        ...

    async def partial(self) -> str:
        """What it has understood so far."""
        ...

    async def finish(self, begin_ms: float) -> tuple[str, tuple[HeardWord, ...]]:
        """End it: what was understood, with words whose times count from ``begin_ms`` before its first sample."""
        ...


class ModelRecogniser:
    """One in a `ModelProcess`. ``wanted``: what goes along with the question what was understood."""

    def __init__(
        self, model: ModelProcess, sample_rate: int, wanted: Callable[[], Mapping[str, object]] = dict
    ) -> None:
        self._model = model
        self._wanted = wanted
        self._block = BLOCK_MS * sample_rate // 1000

    async def begin(self) -> None:
        """Begin."""
        await self._model.send("begin")

    async def feed(self, samples: Samples) -> None:
        """Add audio, in blocks."""
        for start in range(0, len(samples), self._block):
            await self._model.send("feed", samples[start : start + self._block].astype("<i2", copy=False).tobytes())

    async def partial(self) -> str:
        """Ask."""
        with self._model.ask("partial") as replies:
            return (await replies.last()).text("text")

    async def finish(self, begin_ms: float) -> tuple[str, tuple[HeardWord, ...]]:
        """End."""
        with self._model.ask("finish", self._wanted()) as replies:
            told = await replies.last()
        return told.text("text"), heard_words(told, begin_ms)


async def hear(
    recogniser: Recogniser, audio: AsyncIterator[Samples], *, sample_rate: int, piece_ms: float, interim_ms: float = 0
) -> AsyncGenerator[Transcript]:
    """What is understood of one utterance: an end for each piece of ``piece_ms``, and after each ``interim_ms`` what is
    understood so far, where that has changed. 0: one piece; no interims.
    """
    cutter = Cutter(piece_ms, sample_rate)
    heard_ms = begin_ms = asked_ms = 0.0
    interim = ""
    await recogniser.begin()
    async for samples in audio:
        parts = cutter.add(samples)
        for part in parts:
            if part is not None:
                await recogniser.feed(part)
                heard_ms += len(part) * 1000 / sample_rate
                continue
            yield await _end(recogniser, begin_ms, heard_ms)
            begin_ms = asked_ms = heard_ms
            interim = ""
            await recogniser.begin()
        if parts and interim_ms and heard_ms - asked_ms >= interim_ms:
            asked_ms = heard_ms
            text = await recogniser.partial()
            if text and text != interim:
                interim = text
                yield Transcript(text, final=False)
    rest = cutter.end()
    await recogniser.feed(rest)
    yield await _end(recogniser, begin_ms, heard_ms + len(rest) * 1000 / sample_rate)


async def _end(recogniser: Recogniser, begin_ms: float, end_ms: float) -> Transcript:
    text, words = await recogniser.finish(begin_ms)
    return Transcript(text, end_ms=end_ms, words=words)

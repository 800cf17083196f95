"""Transcribe one utterance in pieces: the loop of all recognisers that work while the user speaks."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from typing import Protocol

from ...pipeline.frames import HeardWord, Samples
from ..subprocess.model_process import ModelProcess, heard_words
from .segmenter import Segmenter
from .utterance import Transcript

BLOCK_MS = 200
"""Audio per message to a process."""


class Recogniser(Protocol):
    """Recognises one utterance after another."""

    async def begin(self) -> None:
        """Start an utterance, or the next piece of it."""
        ...

    async def feed(self, samples: Samples) -> None:
        """Add audio."""
        ...

    async def partial(self) -> str:
        """Return the text so far. It may still change."""
        ...

    async def finish(self, begin_ms: float) -> tuple[str, tuple[HeardWord, ...]]:
        """End the piece: its text and words. ``begin_ms`` is the start of the piece, added to the words' times."""
        ...


class ModelRecogniser:
    """A recogniser in a `ModelProcess`. ``options``: fields to send with each `finish`."""

    def __init__(
        self, model: ModelProcess, sample_rate: int, options: Callable[[], Mapping[str, object]] = dict
    ) -> None:
        self._model = model
        self._options = options
        self._block = BLOCK_MS * sample_rate // 1000

    async def begin(self) -> None:
        """Start a piece."""
        await self._model.send("begin")

    async def feed(self, samples: Samples) -> None:
        """Send audio, in blocks."""
        for start in range(0, len(samples), self._block):
            await self._model.send("feed", samples[start : start + self._block].astype("<i2", copy=False).tobytes())

    async def partial(self) -> str:
        """Ask for the text so far."""
        with self._model.ask("partial") as replies:
            return (await replies.last()).text("text")

    async def finish(self, begin_ms: float) -> tuple[str, tuple[HeardWord, ...]]:
        """End the piece."""
        with self._model.ask("finish", self._options()) as replies:
            answer = await replies.last()
        return answer.text("text"), heard_words(answer, begin_ms)


async def transcribe_in_pieces(
    recogniser: Recogniser, audio: AsyncIterator[Samples], *, sample_rate: int, piece_ms: float, interim_ms: float = 0
) -> AsyncGenerator[Transcript]:
    """Transcribe one utterance: a final text for each piece of ``piece_ms``, and every ``interim_ms`` the text so far,
    if it has changed. 0 means a single piece, or no interim texts.
    """
    segmenter = Segmenter(piece_ms, sample_rate)
    heard_ms = begin_ms = last_partial_ms = 0.0
    interim = ""
    await recogniser.begin()
    async for samples in audio:
        parts = segmenter.add(samples)
        for part in parts:
            if part is not None:
                await recogniser.feed(part)
                heard_ms += len(part) * 1000 / sample_rate
                continue
            yield await _end(recogniser, begin_ms, heard_ms)
            begin_ms = last_partial_ms = heard_ms
            interim = ""
            await recogniser.begin()
        if parts and interim_ms and heard_ms - last_partial_ms >= interim_ms:
            last_partial_ms = heard_ms
            text = await recogniser.partial()
            if text and text != interim:
                interim = text
                yield Transcript(text, final=False)
    rest = segmenter.end()
    await recogniser.feed(rest)
    yield await _end(recogniser, begin_ms, heard_ms + len(rest) * 1000 / sample_rate)


async def _end(recogniser: Recogniser, begin_ms: float, end_ms: float) -> Transcript:
    text, words = await recogniser.finish(begin_ms)
    return Transcript(text, end_ms=end_ms, words=words)

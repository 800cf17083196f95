"""Word times for voices that tell none: eSpeak NG says the same text, and its times are carried over (`align.py`).

::

    voice ───── audio ─────────┬──────────────► chunks, with the words that were found since
    eSpeak NG ── reference ──► alignment
"""

from __future__ import annotations

import asyncio
import logging
from bisect import bisect_right
from collections import deque
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress

import numpy as np

from ...pipeline.clock import NS_PER_MS, NS_PER_S, Clock
from ...pipeline.errors import MissingExtraError, ServiceError, ServiceTimeout
from ...pipeline.frames import Samples
from ...pipeline.tasks import Deadline, spawn
from .align import Aligner, Features, Flags, Floats, Reference
from .espeak_process import SAMPLE_RATE, EspeakProcess
from .word_timing import SpeechChunk, WordStart, tokens

PIECE_MS = 100
"""Longer chunks are cut: so much sound is compared at a time, and held by the output as a whole."""
LATE_MS = 500
"""So long after the first audio, nobody waits for the reference any longer."""
BATCH = 8
"""Chunks of the reference, of some 60 ms, that become features at a time: 1 ms of work."""
START_S = 3
"""How long its process may take to start."""
MOST_S = 60
"""A text whose reference is longer is not aligned."""
WALK = 60
"""Frames that are compared between two turns of the event loop: some 2 ms of work."""
SPELT_MS = 500
"""A reference that takes so long for a character does not speak the language, but spells it. Chinese takes 250 ms."""

log = logging.getLogger("voxline")


class ReferenceVoice:
    """eSpeak NG, that says what another voice says, and when the words of that begin."""

    def __init__(self, clock: Clock, language: str) -> None:
        self._clock = clock
        self._espeak = EspeakProcess(sleep=clock.sleep, voice={"en": "en-us"}.get(language, language))
        self._fit = True
        """It has spoken since it was started: where it ends, it is worth another start."""

    async def start(self) -> bool:
        """Start the process. False where it cannot be: without the extra, or where it does not speak the language."""
        try:
            with Deadline(self._clock, START_S, lambda: ServiceTimeout(f"eSpeak NG was not there within {START_S} s.")):
                await self._espeak.start()
        except MissingExtraError:
            return False
        except ServiceError as error:
            log.warning("Words of a voice that tells no times are not aligned, but interpolated: %s", error)
            # Where it took too long there is something to give back.
            await self._espeak.close()
            return False
        # The first time takes some ms more.
        Features(SAMPLE_RATE).push(np.zeros(SAMPLE_RATE // 10, np.int16))
        return True

    async def close(self) -> None:
        """End the process."""
        await self._espeak.close()

    async def say(self, text: str) -> Reference:
        """The text as eSpeak says it. Raises `ServiceError`."""
        if self._espeak.pid is None and self._fit:
            self._fit = False
            await self._espeak.start()
        features, made = Features(SAMPLE_RATE), list[tuple[Floats, Flags]]()
        waiting, told = list[Samples](), list[tuple[int, float]]()
        end_ms = 0.0
        with self._espeak.speak(text) as speech:
            async for chunk in speech:
                waiting.append(chunk.samples)
                told += [(word.char_offset, float(word.start_ms)) for word in chunk.words]
                end_ms = chunk.start_ms + len(chunk.samples) * 1000 / SAMPLE_RATE
                if end_ms > MOST_S * 1000:
                    raise ServiceError(f"The reference of a text is longer than {MOST_S} s.")
                if len(waiting) >= BATCH:
                    made.append(features.push(np.concatenate(waiting)))
                    waiting.clear()
                    await _turn()
        made.append(features.push(np.concatenate([*waiting, np.zeros(0, np.int16)])))
        frames, quiet = (np.concatenate(parts) for parts in zip(*made, strict=True))
        if not len(frames):
            raise ServiceError("The reference of a text has no sound.")
        if end_ms > len(text) * SPELT_MS:
            raise ServiceError("The reference does not speak the language of a text.")
        self._fit = True
        return Reference(frames, quiet, _starts(text, told, end_ms))


async def _turn() -> None:
    """Let the event loop do something else."""
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[None] = loop.create_future()
    loop.call_soon(_wake, turn)
    await turn


def _wake(turn: asyncio.Future[None]) -> None:
    # It may have been cancelled in the same turn.
    if not turn.done():
        turn.set_result(None)


def _starts(text: str, told: list[tuple[int, float]], end_ms: float) -> list[float]:
    """When each word of a text begins. Those that were not told ("I am" is said as one) share the time."""
    begins = [begin for begin, _ in tokens(text)]
    known: dict[int, float] = {}
    for offset, start_ms in told:
        known.setdefault(begins[max(0, bisect_right(begins, offset) - 1)], start_ms)
    known.setdefault(begins[0], 0.0)
    places = [*sorted(known.items()), (len(text), end_ms)]
    return np.interp(begins, [at for at, _ in places], [ms for _, ms in places]).tolist()


class Aligned:
    """One text, as a voice says it that tells no times: chunks in, smaller chunks with words out.

    Each word is told when it is found, so it may have begun before; no sound waits for it. ``left_ms()``: how much of
    the sound that was given cannot have been heard yet. Where there is no reference in time, ``give_up`` is called, and
    the chunks go through as they are.
    """

    def __init__(
        self,
        text: str,
        voice: ReferenceVoice,
        clock: Clock,
        *,
        left_ms: Callable[[], float],
        give_up: Callable[[], None],
    ) -> None:
        self._text = text
        self._begins = [begin for begin, _ in tokens(text)]
        self._voice = voice
        self._clock = clock
        self._left_ms = left_ms
        self._give_up = give_up
        self._given_up = False
        self._asking: asyncio.Task[None] | None = None
        """Makes the reference."""
        self._reference: Reference | None = None
        self._features: Features | None = None
        self._aligner: Aligner | None = None
        # bound: what is made until the reference is there, which is LATE_MS by the clock; an output takes 2 s in that
        self._waiting: deque[tuple[Floats, Flags]] = deque()
        self._rate = 0
        self._first = np.zeros(0, np.int16)
        """The first piece, until the next one comes."""
        self._made_ms = 0.0
        self._late_ns = 0

    async def speak(self, chunks: AsyncGenerator[SpeechChunk]) -> AsyncGenerator[SpeechChunk]:
        """The chunks, with words."""
        try:
            async with aclosing(chunks):
                async for chunk in chunks:
                    if self._given_up or not len(chunk.samples):
                        yield chunk
                        continue
                    size = max(1, chunk.sample_rate * PIECE_MS // 1000)
                    for at in range(0, len(chunk.samples), size):
                        yield self._piece(chunk.samples[at : at + size], chunk.sample_rate)
        except Exception:
            # Where it stopped is where the next attempt goes on.
            if last := await self._end(broken=True):
                yield last
            raise
        else:
            if last := await self._end(broken=False):
                yield last
        finally:
            if self._asking is not None:
                self._asking.cancel()
                await asyncio.wait([self._asking])

    async def _ask(self) -> None:
        try:
            self._reference = await self._voice.say(self._text)
        except Exception as error:
            # Whatever it is, the voice is heard without it. Not its message, which may have some of the text.
            log.debug("A text is not aligned: %s", type(error).__name__)

    def _piece(self, samples: Samples, rate: int) -> SpeechChunk:
        if self._features is None:
            # The first sound goes out as it is: neither the reference nor its own features are on its way.
            self._asking = spawn(self._ask(), "reference of a text")
            self._features, self._rate, self._first = Features(rate), rate, samples
            self._late_ns = self._clock.now_ns() + LATE_MS * NS_PER_MS
            self._made_ms = len(samples) * 1000 / rate
            return SpeechChunk(samples, rate)
        if rate != self._rate:
            self._stop()
        words = ()
        if not self._given_up:
            self._look(self._features, samples)
            if self._aligner is None and not self._begin() and self._clock.now_ns() > self._late_ns:
                self._stop()
            words = self._words(self._walk())
        self._made_ms += len(samples) * 1000 / rate
        return SpeechChunk(samples, rate, words)

    def _look(self, features: Features, samples: Samples) -> None:
        self._waiting.append(features.push(np.concatenate([self._first, samples])))
        self._first = samples[:0]

    async def _end(self, *, broken: bool) -> SpeechChunk | None:
        """What was not told yet, in 1 ms of silence. Never where no sound was made, or after giving up."""
        if self._features is None or self._given_up:
            return None
        self._look(self._features, self._first[:0])
        if self._aligner is None and self._asking is not None and not broken:
            left_s = max(0, self._late_ns - self._clock.now_ns()) / NS_PER_S
            with suppress(ServiceTimeout), Deadline(self._clock, left_s, lambda: ServiceTimeout("No reference came.")):
                await asyncio.wait([self._asking])
        if self._aligner is None and not self._begin():
            self._stop()
        found = list[tuple[int, float]]()
        while self._waiting and self._aligner is not None:
            found += self._walk()
            await _turn()
        if self._aligner is not None:
            found += self._aligner.end(broken=broken)
        return SpeechChunk(np.zeros(max(1, self._rate // 1000), np.int16), self._rate, self._words(found))

    def _begin(self) -> bool:
        """Whether there is a reference to compare with."""
        if self._reference is not None:
            self._aligner = Aligner(self._reference)
        elif self._asking is not None and self._asking.done():
            self._stop()
        return self._aligner is not None

    def _stop(self) -> None:
        if self._given_up:
            return
        self._given_up = True
        self._waiting.clear()
        self._aligner = None
        self._give_up()

    def _walk(self) -> list[tuple[int, float]]:
        found, frames = list[tuple[int, float]](), 0
        heard_ms = self._made_ms - self._left_ms()
        while self._aligner is not None and self._waiting and frames < WALK:
            made, quiet = self._waiting.popleft()
            found += self._aligner.push(made, quiet, heard_ms)
            frames += len(made)
        return found

    def _words(self, found: list[tuple[int, float]]) -> tuple[WordStart, ...]:
        return tuple(WordStart(self._begins[word], start_ms - self._made_ms) for word, start_ms in found)

"""Word times for voices that report none: eSpeak NG speaks the same text, and its times are transferred (`align.py`).

::

    voice ───── audio ─────────┬──────────────► chunks, with the words found so far
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
"""Longer chunks are cut: so much sound is aligned at a time, and each piece is one output frame."""
REFERENCE_TIMEOUT_MS = 500
"""Longest wait for the reference after the first audio."""
BATCH = 8
"""Chunks of the reference, of some 60 ms each, per computation of features: 1 ms of work."""
START_TIMEOUT_S = 3
"""Longest start of eSpeak's process."""
MAX_REFERENCE_S = 60
"""A text with a longer reference is not aligned."""
FRAMES_PER_TURN = 60
"""Frames aligned between two turns of the event loop: some 2 ms of work."""
SPELLING_MS = 500
"""A reference this slow per character spells the text, because it does not speak the language. Chinese takes 250 ms."""

log = logging.getLogger("voxline")


class ReferenceVoice:
    """eSpeak NG as a second voice for the same text, with the times of its words."""

    def __init__(self, clock: Clock, language: str) -> None:
        self._clock = clock
        self._espeak = EspeakProcess(sleep=clock.sleep, voice={"en": "en-us"}.get(language, language))
        self._may_restart = True
        """True once it has spoken since its start: only then it is restarted after a crash."""

    async def start(self) -> bool:
        """Start the process. Returns False without the extra, or if eSpeak does not speak the language."""
        try:
            with Deadline(
                self._clock,
                START_TIMEOUT_S,
                lambda: ServiceTimeout(f"eSpeak NG was not ready in {START_TIMEOUT_S} s."),
            ):
                await self._espeak.start()
        except MissingExtraError:
            return False
        except ServiceError as error:
            log.warning("Words are not aligned with eSpeak NG, but interpolated: %s", error)
            # After a timeout the process may still run.
            await self._espeak.close()
            return False
        # Compute once now, because the first time takes some ms more.
        Features(SAMPLE_RATE).push(np.zeros(SAMPLE_RATE // 10, np.int16))
        return True

    async def close(self) -> None:
        """End the process."""
        await self._espeak.close()

    async def say(self, text: str) -> Reference:
        """Speak a text with eSpeak NG. Raises `ServiceError`."""
        if self._espeak.pid is None and self._may_restart:
            self._may_restart = False
            await self._espeak.start()
        features, made = Features(SAMPLE_RATE), list[tuple[Floats, Flags]]()
        waiting, starts = list[Samples](), list[tuple[int, float]]()
        end_ms = 0.0
        with self._espeak.speak(text) as utterance:
            async for chunk in utterance:
                waiting.append(chunk.samples)
                starts += [(word.char_offset, float(word.start_ms)) for word in chunk.words]
                end_ms = chunk.start_ms + len(chunk.samples) * 1000 / SAMPLE_RATE
                if end_ms > MAX_REFERENCE_S * 1000:
                    raise ServiceError(f"The reference of a text is longer than {MAX_REFERENCE_S} s.")
                if len(waiting) >= BATCH:
                    made.append(features.push(np.concatenate(waiting)))
                    waiting.clear()
                    await _turn()
        made.append(features.push(np.concatenate([*waiting, np.zeros(0, np.int16)])))
        frames, quiet = (np.concatenate(parts) for parts in zip(*made, strict=True))
        if not len(frames):
            raise ServiceError("The reference of a text has no sound.")
        if end_ms > len(text) * SPELLING_MS:
            raise ServiceError("The reference does not speak the language of a text.")
        self._may_restart = True
        return Reference(frames, quiet, word_starts(text, starts, end_ms))


async def _turn() -> None:
    """Yield to the event loop for one turn."""
    loop = asyncio.get_running_loop()
    turn: asyncio.Future[None] = loop.create_future()
    loop.call_soon(_wake, turn)
    await turn


def _wake(turn: asyncio.Future[None]) -> None:
    # The future may have been cancelled in the same turn.
    if not turn.done():
        turn.set_result(None)


def word_starts(text: str, starts: list[tuple[int, float]], end_ms: float) -> list[float]:
    """Start of each word of a text, in ms. Unreported words ("I am" is spoken as one) are interpolated."""
    begins = [begin for begin, _ in tokens(text)]
    known: dict[int, float] = {}
    for offset, start_ms in starts:
        known.setdefault(begins[max(0, bisect_right(begins, offset) - 1)], start_ms)
    known.setdefault(begins[0], 0.0)
    places = [*sorted(known.items()), (len(text), end_ms)]
    return np.interp(begins, [at for at, _ in places], [ms for _, ms in places]).tolist()


class AlignedSpeech:
    """One text, spoken by a voice without word times: chunks in, smaller chunks with words out.

    A word is reported once it is found, so it may have begun earlier; no sound waits for it. ``unheard_ms()``: length
    of the sound that cannot have been heard yet. If the reference is late, ``give_up`` is called, and the chunks pass
    unchanged.
    """

    def __init__(
        self,
        text: str,
        voice: ReferenceVoice,
        clock: Clock,
        *,
        unheard_ms: Callable[[], float],
        give_up: Callable[[], None],
    ) -> None:
        self._text = text
        self._begins = [begin for begin, _ in tokens(text)]
        self._voice = voice
        self._clock = clock
        self._unheard_ms = unheard_ms
        self._give_up = give_up
        self._given_up = False
        self._reference_task: asyncio.Task[None] | None = None
        """Task that makes the reference."""
        self._reference: Reference | None = None
        self._features: Features | None = None
        self._aligner: Aligner | None = None
        # bound: audio until the reference is ready, at most REFERENCE_TIMEOUT_MS; an output accepts 2 s in that time
        self._waiting: deque[tuple[Floats, Flags]] = deque()
        self._rate = 0
        self._first = np.zeros(0, np.int16)
        """The first piece, until the next one arrives."""
        self._made_ms = 0.0
        self._deadline_ns = 0

    async def speak(self, chunks: AsyncGenerator[SpeechChunk]) -> AsyncGenerator[SpeechChunk]:
        """Yield the chunks, with words."""
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
            # The next attempt continues with the last word that is found here.
            if last := await self._end(broken=True):
                yield last
            raise
        else:
            if last := await self._end(broken=False):
                yield last
        finally:
            if self._reference_task is not None:
                self._reference_task.cancel()
                await asyncio.wait([self._reference_task])

    async def _make_reference(self) -> None:
        try:
            self._reference = await self._voice.say(self._text)
        except Exception as error:
            # The voice is heard without alignment. The message is not logged, because it may contain the text.
            log.debug("A text is not aligned: %s", type(error).__name__)

    def _piece(self, samples: Samples, rate: int) -> SpeechChunk:
        if self._features is None:
            # The first sound goes out at once, before the reference and its own features exist.
            self._reference_task = spawn(self._make_reference(), "reference of a text")
            self._features, self._rate, self._first = Features(rate), rate, samples
            self._deadline_ns = self._clock.now_ns() + REFERENCE_TIMEOUT_MS * NS_PER_MS
            self._made_ms = len(samples) * 1000 / rate
            return SpeechChunk(samples, rate)
        if rate != self._rate:
            self._stop()
        words = ()
        if not self._given_up:
            self._add_features(self._features, samples)
            if self._aligner is None and not self._has_aligner() and self._clock.now_ns() > self._deadline_ns:
                self._stop()
            words = self._words(self._align())
        self._made_ms += len(samples) * 1000 / rate
        return SpeechChunk(samples, rate, words)

    def _add_features(self, features: Features, samples: Samples) -> None:
        self._waiting.append(features.push(np.concatenate([self._first, samples])))
        self._first = samples[:0]

    async def _end(self, *, broken: bool) -> SpeechChunk | None:
        """Return the remaining words in 1 ms of silence; None without sound, or after giving up."""
        if self._features is None or self._given_up:
            return None
        self._add_features(self._features, self._first[:0])
        if self._aligner is None and self._reference_task is not None and not broken:
            left_s = max(0, self._deadline_ns - self._clock.now_ns()) / NS_PER_S
            with (
                suppress(ServiceTimeout),
                Deadline(self._clock, left_s, lambda: ServiceTimeout("No reference.")),
            ):
                await asyncio.wait([self._reference_task])
        if self._aligner is None and not self._has_aligner():
            self._stop()
        found = list[tuple[int, float]]()
        while self._waiting and self._aligner is not None:
            found += self._align()
            await _turn()
        if self._aligner is not None:
            found += self._aligner.end(broken=broken)
        return SpeechChunk(np.zeros(max(1, self._rate // 1000), np.int16), self._rate, self._words(found))

    def _has_aligner(self) -> bool:
        """Make the aligner once the reference is ready."""
        if self._reference is not None:
            self._aligner = Aligner(self._reference)
        elif self._reference_task is not None and self._reference_task.done():
            self._stop()
        return self._aligner is not None

    def _stop(self) -> None:
        if self._given_up:
            return
        self._given_up = True
        self._waiting.clear()
        self._aligner = None
        self._give_up()

    def _align(self) -> list[tuple[int, float]]:
        found, frames = list[tuple[int, float]](), 0
        heard_ms = self._made_ms - self._unheard_ms()
        while self._aligner is not None and self._waiting and frames < FRAMES_PER_TURN:
            made, quiet = self._waiting.popleft()
            found += self._aligner.push(made, quiet, heard_ms)
            frames += len(made)
        return found

    def _words(self, found: list[tuple[int, float]]) -> tuple[WordStart, ...]:
        return tuple(WordStart(self._begins[word], start_ms - self._made_ms) for word, start_ms in found)

"""Speech to text, offline: PocketSphinx in a process of its own. English, 16 kHz."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Generator, Mapping
from contextlib import contextmanager, suppress

import numpy as np

from ...pipeline.clock import NS_PER_MS
from ...pipeline.errors import ServiceError, SettingsError
from ...pipeline.frames import (
    UPSTREAM,
    ErrorFrame,
    Frame,
    InputAudioFrame,
    InputEndedFrame,
    InterimTranscriptionFrame,
    Samples,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from ...pipeline.jobs import Stream
from ...pipeline.processor import AudioFormat, FrameProcessor, streams
from ..child import ServiceCrashed, require_package
from .jsgf import check_grammar
from .pieces import Cutter
from .sphinx import SAMPLE_RATE, SphinxProcess

MAX_ONSET_MS = 1_500
"""How far back the start of speech can lie: no detector takes longer to be sure of it."""


MIN_PIECE_MS = 1_000


class PocketSphinxSTT(FrameProcessor):
    """Turns what is said between "user started" and "user stopped" into one `TranscriptionFrame`.

    ``grammar``: a JSGF text. Its sentence is the text where grammar and language model agree; where not, the
    text is what the language model heard, and where that is nothing, it is empty. ``preroll_ms``: how much
    audio from before the start of speech is decoded with it; a soft first sound is in there.

    ``interim_ms``: after each so much speech it is asked what it makes of it so far, and tells it as an
    `InterimTranscriptionFrame` where that has changed; 0: never. With a grammar the rule is that of the final
    text: the grammar's words only where the language model hears them too. The grammar alone would say "stop" 0.2 s
    earlier, and "what can you do" in the middle of "what a lovely day". Asking costs the event loop 60 µs; the answer
    comes after 150-270 µs, and holds up what is decoded next by no more than that.

    ``piece_ms``: free speech that is longer is told in pieces, each a `TranscriptionFrame`, while the user still
    speaks. It is cut at the quietest 100 ms of the last 2 s before the bound; what follows the quietest place so far
    waits until the place is found, so an utterance that ends in these 2 s costs up to 0.3 s more. A piece
    without words is not told, but the last one always is. 0: never cut. A grammar's sentence is whole or none, so
    with a grammar nothing is cut.

    Decodes while the user speaks, so that the end costs 15-60 ms. The process starts with the pipeline (0.5
    s). If it dies, an `ErrorFrame` and an empty transcript say so, and a new one hears the next utterance (or piece).
    Raises `MissingExtraError` without the package, `GrammarError` for a grammar that is none, and `SettingsError`.
    """

    def __init__(
        self,
        grammar: str | None = None,
        *,
        preroll_ms: float = 300,
        interim_ms: float = 0,
        piece_ms: float = 15_000,
    ) -> None:
        require_package("PocketSphinxSTT", "pocketsphinx", "pocketsphinx", "speech")
        if grammar is not None:
            check_grammar(grammar)
        if not interim_ms >= 0:
            raise SettingsError(f"PocketSphinxSTT: interim_ms is a length, or 0 for none, not {interim_ms}.")
        if not (piece_ms == 0 or piece_ms >= MIN_PIECE_MS):
            raise SettingsError(f"PocketSphinxSTT: piece_ms is {MIN_PIECE_MS} or more, or 0 for never, not {piece_ms}.")
        self._grammar = grammar
        self._preroll_ms = preroll_ms
        self._interim_ms = interim_ms
        self._piece_ms = 0 if grammar is not None else piece_ms
        # The clock is known when the pipeline runs.
        self._sphinx = SphinxProcess(sleep=lambda seconds: self.clock.sleep(seconds))

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """16 kHz, mono."""
        return {InputAudioFrame: AudioFormat((SAMPLE_RATE,), (1,))}

    async def start(self) -> None:
        """Start the process, and load the models."""
        await self._sphinx.start(self._grammar)

    async def stop(self) -> None:
        """End the process."""
        await self._sphinx.close()

    @streams(InputAudioFrame, UserStartedSpeakingFrame, UserStoppedSpeakingFrame, InputEndedFrame)
    async def listen(self, frames: Stream[Frame]) -> AsyncIterator[Frame]:
        """Read along, and tell what was said."""
        ears = _Ears(self._sphinx, self._grammar)
        before = _Before(MAX_ONSET_MS + self._preroll_ms)
        cutter = Cutter(self._piece_ms, SAMPLE_RATE)
        async for frame in frames:
            parts: list[Samples | None] = []
            try:
                match frame:
                    case InputAudioFrame():
                        before.add(frame)
                        parts = cutter.add(frame.samples) if ears.open else []
                    case UserStartedSpeakingFrame():
                        if await ears.begin():
                            error = ServiceCrashed("PocketSphinx had ended, and was started again.")
                            await self.push(_told(error, self.path, frame), UPSTREAM)
                        cutter.end()
                        parts = cutter.add(before.last(frame.onset_ms + self._preroll_ms))
                    case _ if ears.open:
                        await ears.feed(cutter.end())
                        yield await self._words(ears)
                    case _:
                        pass
                for part in parts:
                    if part is not None:
                        await ears.feed(part)
                        continue
                    said = await self._words(ears, last=False)
                    if said.text:
                        yield said
                    await ears.go_on()
                if parts and self._interim_ms and (text := await ears.interim(self._interim_ms)):
                    yield InterimTranscriptionFrame(text)
            except ServiceError as error:
                await self.push(_told(error, self.path, frame), UPSTREAM)
                if isinstance(frame, UserStoppedSpeakingFrame | InputEndedFrame):
                    ears.open = False
                    yield TranscriptionFrame("", ears.audio_ms)
                await ears.recover()

    async def _words(self, ears: _Ears, *, last: bool = True) -> TranscriptionFrame:
        asked_ns = self.clock.now_ns()
        text = await ears.finish(last=last)
        decode_ms = (self.clock.now_ns() - asked_ns) / NS_PER_MS
        return TranscriptionFrame(text, ears.audio_ms, decode_ms, more=not last)


class _Ears:
    """The recogniser, and the utterance that it hears. Raises `ServiceError`, once for each utterance or piece."""

    def __init__(self, sphinx: SphinxProcess, grammar: str | None) -> None:
        self._sphinx = sphinx
        self._grammar = grammar
        self.open = False
        """Whether an utterance is under way."""
        self._lost = False
        """Whether the process died in it: the rest of it goes unheard."""
        self.audio_ms = 0.0
        self._asked_ms = 0.0
        """How much of the audio was there when it was last asked what it had heard so far."""
        self._interim = ""

    async def begin(self) -> bool:
        """Begin an utterance. True where the process had to be started for it."""
        self.open, self.audio_ms = True, 0.0
        ended = self._sphinx.pid is None
        with self._losing():
            if ended:
                await self._sphinx.start(self._grammar)
            await self.go_on()
        return ended

    async def go_on(self) -> None:
        """Begin the next piece of it."""
        self._lost, self.audio_ms, self._asked_ms, self._interim = False, 0.0, 0.0, ""
        with self._losing():
            await self._sphinx.begin()

    async def recover(self) -> None:
        """Start the process again, where it died; where that cannot be, the next utterance will try, and tell."""
        if self._sphinx.pid is None:
            with suppress(ServiceError):
                await self._sphinx.start(self._grammar)

    async def feed(self, samples: Samples) -> None:
        """Add audio to it."""
        self.audio_ms += len(samples) * 1000 / SAMPLE_RATE
        if not self._lost and len(samples):
            with self._losing():
                await self._sphinx.feed(samples.astype("<i2", copy=False).tobytes())

    async def interim(self, every_ms: float) -> str:
        """What is heard so far; empty where it is too early to ask, and where nothing has changed."""
        if self._lost or self.audio_ms - self._asked_ms < every_ms:
            return ""
        self._asked_ms = self.audio_ms
        with self._losing():
            text = await self._sphinx.partial()
        if text == self._interim:
            return ""
        self._interim = text or self._interim
        return text

    async def finish(self, *, last: bool) -> str:
        """End it, or a piece of it; what was understood."""
        self.open = not last
        if self._lost:
            return ""
        with self._losing():
            return (await self._sphinx.finish()).text

    @contextmanager
    def _losing(self) -> Generator[None]:
        try:
            yield
        except ServiceError:
            self._lost = True
            raise


class _Before:
    """The last ``kept_ms`` of audio."""

    def __init__(self, kept_ms: float) -> None:
        self._kept_ms = kept_ms
        self._frames: deque[InputAudioFrame] = deque()  # bound: `kept_ms` of audio, then the oldest goes
        self._ms = 0.0

    def add(self, frame: InputAudioFrame) -> None:
        """One more frame; the oldest that are not needed go."""
        self._frames.append(frame)
        self._ms += frame.duration_ms
        while self._ms - self._frames[0].duration_ms >= self._kept_ms:
            self._ms -= self._frames.popleft().duration_ms

    def last(self, ms: float) -> Samples:
        """The audio of the frames that hold the last ``ms``."""
        found: list[Samples] = []
        for frame in reversed(self._frames):
            if ms <= 0:
                break
            found.append(frame.samples)
            ms -= frame.duration_ms
        return np.concatenate(found[::-1]) if found else np.zeros(0, np.int16)


def _told(error: ServiceError, path: str, frame: Frame) -> ErrorFrame:
    return ErrorFrame(str(error), path, type(frame).__name__, type(error).__name__)

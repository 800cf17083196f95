"""Speech to text, offline: PocketSphinx in a process of its own. English, 16 kHz."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress

from ...pipeline.clock import NS_PER_MS
from ...pipeline.errors import ServiceError
from ...pipeline.frames import (
    UPSTREAM,
    ErrorFrame,
    Frame,
    InputAudioFrame,
    InputEndedFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from ...pipeline.jobs import Stream
from ...pipeline.processor import AudioFormat, FrameProcessor, streams
from ..child import ServiceCrashed, require_package
from .jsgf import check_grammar
from .sphinx import SAMPLE_RATE, SphinxProcess

MAX_ONSET_MS = 1_500
"""How far back the start of speech can lie: no detector takes longer to be sure of it."""


class PocketSphinxSTT(FrameProcessor):
    """Turns what is said between "user started" and "user stopped" into one `TranscriptionFrame`.

    ``grammar``: a JSGF text. Its sentence is the text where grammar and language model agree; where not, the
    text is what the language model heard, and where that is nothing, it is empty. ``preroll_ms``: how much
    audio from before the start of speech is decoded with it; a soft first sound is in there.

    Decodes while the user speaks, so that the end costs 15-60 ms. The process starts with the pipeline (0.5
    s). If it dies, an `ErrorFrame` and an empty transcript say so, and a new one hears the next utterance.
    Raises `MissingExtraError` without the package, and `GrammarError` for a grammar that is none.
    """

    def __init__(self, grammar: str | None = None, *, preroll_ms: float = 300) -> None:
        require_package("PocketSphinxSTT", "pocketsphinx", "pocketsphinx", "speech")
        if grammar is not None:
            check_grammar(grammar)
        self._grammar = grammar
        self._preroll_ms = preroll_ms
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
        async for frame in frames:
            try:
                match frame:
                    case InputAudioFrame():
                        before.add(frame)
                        if ears.open:
                            await ears.feed(frame)
                    case UserStartedSpeakingFrame():
                        if await ears.begin(before.last(frame.onset_ms + self._preroll_ms)):
                            error = ServiceCrashed("PocketSphinx had ended, and was started again.")
                            await self.push(_told(error, self.path, frame), UPSTREAM)
                    case _ if ears.open:
                        asked_ns = self.clock.now_ns()
                        text = await ears.finish()
                        decode_ms = (self.clock.now_ns() - asked_ns) / NS_PER_MS
                        yield TranscriptionFrame(text, ears.audio_ms, decode_ms)
                    case _:
                        pass
            except ServiceError as error:
                await self.push(_told(error, self.path, frame), UPSTREAM)
                if isinstance(frame, UserStoppedSpeakingFrame | InputEndedFrame):
                    yield TranscriptionFrame("", ears.audio_ms)
                await ears.recover()


class _Ears:
    """The recogniser, and the utterance that it hears. Raises `ServiceError`, once for each utterance."""

    def __init__(self, sphinx: SphinxProcess, grammar: str | None) -> None:
        self._sphinx = sphinx
        self._grammar = grammar
        self.open = False
        """Whether an utterance is under way."""
        self._lost = False
        """Whether the process died in it: the rest of it goes unheard."""
        self.audio_ms = 0.0

    async def begin(self, frames: list[InputAudioFrame]) -> bool:
        """Begin an utterance with what was said of it already. True where the process had to be started for it."""
        self.open, self._lost, self.audio_ms = True, False, 0.0
        ended = self._sphinx.pid is None
        try:
            if ended:
                await self._sphinx.start(self._grammar)
            await self._sphinx.begin()
        except ServiceError:
            self._lost = True
            raise
        for frame in frames:
            await self.feed(frame)
        return ended

    async def recover(self) -> None:
        """Start the process again, where it died; where that cannot be, the next utterance will try, and tell."""
        if self._sphinx.pid is None:
            with suppress(ServiceError):
                await self._sphinx.start(self._grammar)

    async def feed(self, frame: InputAudioFrame) -> None:
        """Add audio to it."""
        self.audio_ms += frame.duration_ms
        if not self._lost:
            try:
                await self._sphinx.feed(frame.samples.astype("<i2", copy=False).tobytes())
            except ServiceError:
                self._lost = True
                raise

    async def finish(self) -> str:
        """End it; what was understood."""
        self.open = False
        return "" if self._lost else (await self._sphinx.finish()).text


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

    def last(self, ms: float) -> list[InputAudioFrame]:
        """The frames that hold the last ``ms``, oldest first."""
        found: list[InputAudioFrame] = []
        for frame in reversed(self._frames):
            if ms <= 0:
                break
            found.append(frame)
            ms -= frame.duration_ms
        return found[::-1]


def _told(error: ServiceError, path: str, frame: Frame) -> ErrorFrame:
    return ErrorFrame(str(error), path, type(frame).__name__, type(error).__name__)

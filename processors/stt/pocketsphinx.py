"""Speech to text, offline: PocketSphinx in a process of its own. English, 16 kHz."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any, ClassVar, Unpack

from pydantic import Field, field_validator

from ...pipeline.frames import HeardWord, Samples
from ..service.base import settings_of
from ..subprocess.parent import require_package
from .base import STT, STTLimits, STTSettings
from .jsgf import check_grammar
from .piecewise import hear
from .pocketsphinx_process import SAMPLE_RATE, SphinxProcess
from .utterance import Transcript

MIN_PIECE_MS = 1_000


class PocketSphinxSettings(STTSettings):
    """What PocketSphinx can be told: see `PocketSphinxSTT`."""

    grammar: str | None = None
    interim_ms: float = Field(default=0.0, ge=0)
    piece_ms: float = 15_000.0

    @field_validator("piece_ms")
    @classmethod
    def _long_enough(cls, value: float) -> float:
        if not (value == 0 or value >= MIN_PIECE_MS):
            raise ValueError(f"be {MIN_PIECE_MS} or more, or 0 for never")
        return value


class PocketSphinxSTT(STT[PocketSphinxSettings]):
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
    s). If it dies, a new one hears what was said again. ``limits``: deadlines and attempts, see `STTSettings`.
    Raises `MissingExtraError` without the package, `GrammarError` for a grammar that is none, and `SettingsError`.
    """

    sample_rate = SAMPLE_RATE
    reconnect_for: ClassVar[frozenset[str]] = frozenset({"grammar"})

    def __init__(
        self,
        grammar: str | None = None,
        *,
        interim_ms: float = 0,
        piece_ms: float = 15_000,
        **limits: Unpack[STTLimits],
    ) -> None:
        require_package("PocketSphinxSTT", "pocketsphinx", "pocketsphinx", "speech")
        self.settings = settings_of(
            "PocketSphinxSTT",
            PocketSphinxSettings,
            grammar=grammar,
            interim_ms=interim_ms,
            piece_ms=piece_ms,
            **limits,
        )
        if grammar is not None:
            check_grammar(grammar)
        self._sphinx: SphinxProcess | None = None

    def update(self, **changes: Any) -> None:
        """As with every service; raises `GrammarError` for a grammar that is none."""
        if (grammar := changes.get("grammar")) is not None:
            check_grammar(grammar)
        super().update(**changes)

    async def connect(self) -> None:
        """Start the process, and load the models."""
        if self._sphinx is None:
            # It knows the caller's voice, so it is kept where its process dies.
            self._sphinx = SphinxProcess(sleep=lambda seconds: self.clock.sleep(seconds))
        await self._sphinx.start(self.settings.grammar)

    async def disconnect(self) -> None:
        """End the process."""
        if self._sphinx is not None:
            await self._sphinx.close()

    def alive(self) -> bool:
        """Whether the process runs."""
        return self._sphinx is not None and self._sphinx.pid is not None

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """Hear one utterance."""
        assert self._sphinx is not None
        rules = self.settings
        piece_ms = 0 if rules.grammar is not None else rules.piece_ms
        heard = hear(
            _Ears(self._sphinx), audio, sample_rate=SAMPLE_RATE, piece_ms=piece_ms, interim_ms=rules.interim_ms
        )
        async with aclosing(heard):
            async for transcript in heard:
                yield transcript


class _Ears:
    """The process as a `Recogniser`. It tells no times of words."""

    def __init__(self, sphinx: SphinxProcess) -> None:
        self._sphinx = sphinx

    async def begin(self) -> None:
        await self._sphinx.begin()

    async def feed(self, samples: Samples) -> None:
        if len(samples):
            await self._sphinx.feed(samples.astype("<i2", copy=False).tobytes())

    async def partial(self) -> str:
        return await self._sphinx.partial()

    async def finish(self, begin_ms: float) -> tuple[str, tuple[HeardWord, ...]]:
        return (await self._sphinx.finish()).text, ()

"""Offline speech to text: PocketSphinx in a process of its own. English, 16 kHz."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any, ClassVar, Unpack

from pydantic import Field, field_validator

from ...pipeline.frames import HeardWord, Samples
from ..service.base import settings_of
from ..subprocess.parent import OwnsProcess, require_package
from .base import STT, STTLimits, STTSettings
from .jsgf import check_grammar
from .piecewise import transcribe_in_pieces
from .pocketsphinx_process import SAMPLE_RATE, PocketSphinxProcess
from .utterance import Transcript

MIN_PIECE_MS = 1_000


class PocketSphinxSettings(STTSettings):
    """Settings of PocketSphinx: see `PocketSphinxSTT`."""

    grammar: str | None = None
    interim_ms: float = Field(default=0.0, ge=0)
    piece_ms: float = 15_000.0

    @field_validator("piece_ms")
    @classmethod
    def _long_enough(cls, value: float) -> float:
        if not (value == 0 or value >= MIN_PIECE_MS):
            raise ValueError(f"should be at least {MIN_PIECE_MS}, or 0 for never")
        return value


class PocketSphinxSTT(OwnsProcess[PocketSphinxProcess], STT[PocketSphinxSettings]):
    """Transcribes the speech between "user started" and "user stopped" to one `TranscriptionFrame`.

    ``grammar``: a JSGF text. If grammar and language model agree, the text is the grammar's sentence; else it is the
    language model's text, which may be empty. ``preroll_ms``: audio from before the start of speech that is decoded
    with it; it contains a soft first sound.

    ``interim_ms``: interval at which the text so far is reported as an `InterimTranscriptionFrame`, if it has changed;
    0: never. With a grammar the rule for the final text holds: the grammar's words count only if the language model
    agrees. The grammar alone would report "stop" 0.2 s earlier, and "what can you do" in the middle of "what a lovely
    day". A question costs the event loop 60 µs; the answer arrives after 150-270 µs, and delays further decoding by no
    more than that.

    ``piece_ms``: longer free speech is transcribed in pieces, each a `TranscriptionFrame`, while the user still speaks.
    It is cut at the quietest 100 ms of the last 2 s before the bound; audio behind the quietest place so far waits
    until the place is found, so an utterance that ends in these 2 s takes up to 0.3 s longer. A piece without words is
    not reported, except the last one. 0: never cut. With a grammar nothing is cut, because half a sentence matches
    nothing.

    Decodes while the user speaks, so the end costs 15-60 ms. The process starts with the pipeline (0.5 s). If it dies,
    a new one decodes the audio again. ``limits``: deadlines and attempts, see `STTSettings`. Raises
    `MissingExtraError` without the package, `GrammarError` for a wrong grammar, and `SettingsError`.
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

    def update(self, **changes: Any) -> None:
        """Change settings, as in every service. Raises `GrammarError` for a wrong grammar."""
        if (grammar := changes.get("grammar")) is not None:
            check_grammar(grammar)
        super().update(**changes)

    async def connect(self) -> None:
        """Start the process and load the models."""
        if self._process is None:
            # Kept when its process dies, because it knows the caller's cepstral mean.
            self._process = PocketSphinxProcess(sleep=lambda seconds: self.clock.sleep(seconds))
        await self._process.start(self.settings.grammar)

    def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """Transcribe one utterance."""
        assert self._process is not None
        rules = self.settings
        return transcribe_in_pieces(
            _PocketSphinxRecogniser(self._process),
            audio,
            sample_rate=SAMPLE_RATE,
            piece_ms=0 if rules.grammar is not None else rules.piece_ms,
            interim_ms=rules.interim_ms,
        )


class _PocketSphinxRecogniser:
    """A `PocketSphinxProcess` as a `Recogniser`. It reports no word times."""

    def __init__(self, process: PocketSphinxProcess) -> None:
        self._process = process

    async def begin(self) -> None:
        await self._process.begin()

    async def feed(self, samples: Samples) -> None:
        if len(samples):
            await self._process.feed(samples.astype("<i2", copy=False).tobytes())

    async def partial(self) -> str:
        return await self._process.partial()

    async def finish(self, begin_ms: float) -> tuple[str, tuple[HeardWord, ...]]:
        return (await self._process.finish()).text, ()

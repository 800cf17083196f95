"""The base of recognisers: the audio of an utterance in, what was said out.

An adapter is `STT.transcribe`: it reads the audio of one utterance, which ends when the user stops, and tells what it
understands, while that goes on (``final=False``, or the ``final`` text of a piece) and at its end::

    class Counts(STT):
        async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
            samples = 0
            async for chunk in audio:
                samples += len(chunk)
            yield Transcript(f"{samples} samples")
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from dataclasses import replace
from typing import Any, ClassVar, cast

from pydantic import Field
from typing_extensions import TypeVar

from ...pipeline.errors import BadAnswerError, ServiceError
from ...pipeline.frames import (
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
from ...pipeline.processor import AudioFormat, streams
from ..service.base import Limits, Service, ServiceCall, ServiceSettings, require_generator
from .utterance import Before, Transcript, Utterance

MAX_ONSET_MS = 1_500
"""How far back the start of speech can lie: no detector takes longer to be sure of it."""
WAITING_FRAMES = 1_500
"""How much audio may wait while a service fails and is asked again: 30 s, in frames of 20 ms."""


class STTSettings(ServiceSettings):
    """What every recogniser can be told."""

    preroll_ms: float = Field(default=300.0, ge=0)
    """How much audio from before the start of speech is heard with it: a soft first sound is in there."""
    replay_s: float = Field(default=30.0, gt=0)
    """After a failure, the audio since the last final text is heard again: at most so much, the newest."""


class STTLimits(Limits, total=False):
    """The fields of `STTSettings`, for the constructors of adapters."""

    preroll_ms: float
    replay_s: float


S = TypeVar("S", bound=STTSettings, default=STTSettings)


class STT(Service[S]):
    """Turns what is said between "user started" and "user stopped" into `TranscriptionFrame`.

    Reads along: audio and events pass on. While the user speaks there may be `InterimTranscriptionFrame`, and frames
    with ``more=True`` where a long utterance comes in pieces; after the end there is exactly one more. Where a service
    fails in the middle, the next attempt (or the next member of a `Fallback`) hears all that no final text has told
    yet; where all have failed, the last frame says ``failed=True`` and an `ErrorFrame` says why.
    """

    kind: ClassVar[str] = "stt"
    sample_rate: int = 16_000
    """Of the audio that `transcribe` gets, in Hz."""
    settings = cast(S, STTSettings())

    def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """Hear one utterance: an async generator. ``audio``: int16, shape (n,), mono, in pieces of any length.

        Raises `ServiceError`. Being closed, it forgets the utterance. It should read on while it waits for the
        service: up to 30 s of audio wait for it, then the oldest is lost.
        """
        raise NotImplementedError

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono, at its rate."""
        return {InputAudioFrame: AudioFormat((self.sample_rate,), (1,))}

    @streams(
        InputAudioFrame,
        UserStartedSpeakingFrame,
        UserStoppedSpeakingFrame,
        InputEndedFrame,
        bound_frames=WAITING_FRAMES,
    )
    async def listen(self, frames: Stream[Frame]) -> AsyncIterator[Frame]:
        """Read along, and tell what was said."""
        before = Before()
        async for frame in frames:
            if isinstance(frame, InputAudioFrame):
                before.add(frame, MAX_ONSET_MS + self.settings.preroll_ms)
            elif isinstance(frame, UserStartedSpeakingFrame):
                rules, kept_ms = self.settings, MAX_ONSET_MS + self.settings.preroll_ms
                onset = before.last(frame.onset_ms + rules.preroll_ms)
                utterance = Utterance(frames, before, onset, rules.replay_s, kept_ms, self.sample_rate)
                async with aclosing(self._hear(utterance)) as heard:
                    async for told in heard:
                        yield told

    async def _hear(self, utterance: Utterance) -> AsyncGenerator[Frame]:
        """One utterance, from its start to the frame that ends it."""

        async def ask(member: STT[Any]) -> AsyncGenerator[Transcript]:
            async with (
                aclosing(utterance.audio(asking)) as audio,
                aclosing(require_generator(member, member.transcribe(audio))) as heard,
            ):
                async for one in heard:
                    yield _checked(one)

        asking = ServiceCall[Transcript](self, ask)
        last: TranscriptionFrame | None = None
        failure: ServiceError | None = None
        try:
            async with aclosing(asking.answer()) as answer:
                async for heard in answer:
                    if not heard.final:
                        yield InterimTranscriptionFrame(heard.text)
                        continue
                    if last is not None:
                        yield replace(last, more=True)
                    told = utterance.told(heard, asking)
                    last = told if utterance.ended else None
                    if last is None and told.text:
                        yield replace(told, more=True)
        except ServiceError as error:
            failure = error
        # It may have said all that it will while the user still speaks.
        await utterance.rest(asking)
        await self.push_metrics(asking, utterance.audio_ms)
        if failure is not None:
            await self.push_error(failure, UserStartedSpeakingFrame.__name__)
        yield replace(last or utterance.told(Transcript(""), asking), failed=failure is not None)


def _checked(heard: Transcript) -> Transcript:
    """Whatever a library gives: what is none must fail the attempt, and not the reading of the user's audio."""
    given: Any = heard
    whole = isinstance(given, Transcript) and isinstance(cast("Any", given.text), str)
    if not whole or not (heard.end_ms is None or math.isfinite(heard.end_ms)):
        raise BadAnswerError(f"A recogniser gave what is no Transcript with a text: {type(given).__name__}.")
    if not all(math.isfinite(word.start_ms) and math.isfinite(word.end_ms) for word in heard.words):
        raise BadAnswerError("A recogniser gave a word without a time.")
    return heard

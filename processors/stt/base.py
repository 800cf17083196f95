"""Base of recognisers: the audio of an utterance in, its text out.

An adapter writes `STT.transcribe`. It reads the audio of one utterance, which ends when the user stops, and yields
texts: interim ones (``final=False``) or the final text of a piece while the user speaks, and a final one at the end::

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
from .utterance import PrerollBuffer, Transcript, Utterance

MAX_ONSET_MS = 1_500
"""Longest time from the start of speech to its detection."""
WAITING_FRAMES = 1_500
"""Audio that may wait while a service fails and is retried: 30 s, in frames of 20 ms."""


class STTSettings(ServiceSettings):
    """Settings of every recogniser."""

    preroll_ms: float = Field(default=300.0, ge=0)
    """Audio from before the start of speech that is transcribed with it; it contains a soft first sound."""
    replay_s: float = Field(default=30.0, gt=0)
    """After a failure, at most so much of the audio since the last final text is transcribed again, the newest."""


class STTLimits(Limits, total=False):
    """The fields of `STTSettings`, for the constructors of adapters."""

    preroll_ms: float
    replay_s: float


S = TypeVar("S", bound=STTSettings, default=STTSettings)


class STT(Service[S]):
    """Transcribes the speech between "user started" and "user stopped" to `TranscriptionFrame`.

    Audio and events pass through. While the user speaks there may be `InterimTranscriptionFrame`, and frames with
    ``more=True`` if a long utterance is transcribed in pieces; after the end there is exactly one more frame. If a
    service fails in the middle, the next attempt (or the next member of a `Fallback`) gets all audio that no final
    text covers yet. If all fail, the last frame has ``failed=True`` and an `ErrorFrame` says why.
    """

    kind: ClassVar[str] = "stt"
    sample_rate: int = 16_000
    """Sample rate of the audio for `transcribe`, in Hz."""
    settings = cast(S, STTSettings())

    def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """Transcribe one utterance: an async generator. ``audio``: int16, shape (n,), mono, in pieces of any length.

        Raises `ServiceError`. When closed, it drops the utterance. It should keep reading while it waits for the
        service: up to 30 s of audio are buffered, then the oldest is lost.
        """
        raise NotImplementedError

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono audio at `sample_rate`."""
        return {InputAudioFrame: AudioFormat((self.sample_rate,), (1,))}

    @streams(
        InputAudioFrame,
        UserStartedSpeakingFrame,
        UserStoppedSpeakingFrame,
        InputEndedFrame,
        bound_frames=WAITING_FRAMES,
    )
    async def listen(self, frames: Stream[Frame]) -> AsyncIterator[Frame]:
        """Read the audio, and transcribe each utterance."""
        preroll = PrerollBuffer()
        async for frame in frames:
            if isinstance(frame, InputAudioFrame):
                preroll.add(frame, MAX_ONSET_MS + self.settings.preroll_ms)
            elif isinstance(frame, UserStartedSpeakingFrame):
                rules, kept_ms = self.settings, MAX_ONSET_MS + self.settings.preroll_ms
                onset = preroll.last(frame.onset_ms + rules.preroll_ms)
                utterance = Utterance(frames, preroll, onset, rules.replay_s, kept_ms, self.sample_rate)
                async with aclosing(self._transcribe(utterance)) as texts:
                    async for text in texts:
                        yield text

    async def _transcribe(self, utterance: Utterance) -> AsyncGenerator[Frame]:
        """Transcribe one utterance, from its start to the frame that ends it."""

        async def ask(member: STT[Any]) -> AsyncGenerator[Transcript]:
            async with (
                aclosing(utterance.audio(call)) as audio,
                aclosing(require_generator(member, member.transcribe(audio))) as transcripts,
            ):
                async for transcript in transcripts:
                    yield _checked(transcript)

        call = ServiceCall[Transcript](self, ask)
        last: TranscriptionFrame | None = None
        failure: ServiceError | None = None
        try:
            async with aclosing(call.answer()) as answer:
                async for transcript in answer:
                    if not transcript.final:
                        yield InterimTranscriptionFrame(transcript.text)
                        continue
                    if last is not None:
                        yield replace(last, more=True)
                    frame = utterance.transcription(transcript, call)
                    last = frame if utterance.ended else None
                    if last is None and frame.text:
                        yield replace(frame, more=True)
        except ServiceError as error:
            failure = error
        # The answer may be complete while the user still speaks.
        await utterance.rest(call)
        await self.push_metrics(call, utterance.audio_ms)
        if failure is not None:
            await self.push_error(failure, UserStartedSpeakingFrame.__name__)
        yield replace(last or utterance.transcription(Transcript(""), call), failed=failure is not None)


def _checked(transcript: Transcript) -> Transcript:
    """Refuse a malformed result here, so that it fails the attempt and not the reading of the user's audio."""
    value: Any = transcript
    valid = isinstance(value, Transcript) and isinstance(cast("Any", value.text), str)
    if not valid or not (transcript.end_ms is None or math.isfinite(transcript.end_ms)):
        raise BadAnswerError(f"A recogniser yielded {type(value).__name__}, not a Transcript with a text.")
    if not all(math.isfinite(word.start_ms) and math.isfinite(word.end_ms) for word in transcript.words):
        raise BadAnswerError("A recogniser yielded a word without a time.")
    return transcript

"""Speech to text of the OpenAI protocol. The audio of an utterance is sent when the utterance ends."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import aclosing
from typing import Any, Unpack

from pydantic import BaseModel, Field, ValidationError

from ...pipeline.errors import BadAnswerError, BadRequestError, ServiceDownError
from ...pipeline.frames import HeardWord, Samples
from ..service.base import settings_of
from ..stt.base import STT, STTLimits, STTSettings
from ..stt.segmenter import Segmenter
from ..stt.utterance import Transcript
from .client import OpenAIServer, OpenAIService, OpenAISettings
from .errors import RequestInfo, error_in, from_stream
from .sse import Event, events
from .upload import AudioFile, Upload

log = logging.getLogger(__name__)

DEFAULT_MODEL = "gpt-4o-mini-transcribe"
MIN_MS = 100.0
"""Minimum duration in ms. Most servers refuse shorter audio, and it contains no word."""


class OpenAISTTSettings(STTSettings, OpenAISettings):
    """Settings of `OpenAISTT`."""

    language: str | None = None
    prompt: str | None = None
    temperature: float | None = Field(default=None, ge=0)
    words: bool = True
    streaming: bool | None = None
    upload: AudioFile | None = None
    piece_ms: float = Field(default=25_000.0, ge=1_000)
    extra_body: dict[str, Any] = Field(default_factory=dict[str, Any])


class OpenAISTT(OpenAIService, STT[OpenAISTTSettings]):
    """Recognises speech with OpenAI's models, or with any server that speaks its protocol.

    ``model``, ``base_url``, ``api_key``, ``headers``, ``http_client``, ``check``, ``extra_body``: as with `OpenAILLM`.
    ``language``: ISO 639-1 ("en"); without it the model guesses, which costs time and is often wrong for short
    utterances. ``prompt``: names and words to expect. ``words``: ask for the times of words, if the model supports
    them; with ``whisper-1`` that takes a little longer. ``streaming``: ask for interim transcripts; None: only models
    that are known to stream. ``upload``: send the audio as "flac" or "wav"; None: WAV to a server on this machine or
    in a private network (not all of them read FLAC), FLAC to others, which is a third of the bytes.

    Recognition starts when the user stops, so a turn costs an upload and the model's time. An utterance longer than
    ``piece_ms`` is sent in pieces while the user still speaks. Each cut is at the quietest point of the last 2 s.
    """

    settings: OpenAISTTSettings

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        language: str | None = None,
        *,
        prompt: str | None = None,
        temperature: float | None = None,
        words: bool = True,
        streaming: bool | None = None,
        upload: AudioFile | None = None,
        piece_ms: float = 25_000,
        base_url: str | None = None,
        api_key: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        http_client: Any = None,
        check: bool = True,
        **limits: Unpack[STTLimits],
    ) -> None:
        self.settings = settings_of(
            "OpenAISTT",
            OpenAISTTSettings,
            model=model,
            language=language,
            prompt=prompt,
            temperature=temperature,
            words=words,
            streaming=streaming,
            upload=upload,
            piece_ms=piece_ms,
            extra_body=dict(extra_body or {}),
            check=check,
            **limits,
        )
        self._server = OpenAIServer(
            "OpenAISTT", base_url=base_url, api_key=api_key, headers=headers, http_client=http_client
        )
        self._refused: set[str] = set()
        """Features that the model refused: "words" or "stream"."""

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """Transcribe one utterance."""
        rules = self.settings
        kind: AudioFile = rules.upload or ("wav" if self._server.local else "flac")
        segmenter = Segmenter(rules.piece_ms, self.sample_rate)
        start_ms = 0.0
        upload = Upload(kind, self.sample_rate)
        try:
            async for samples in audio:
                for part in segmenter.add(samples):
                    if part is not None:
                        upload.add(part)
                        continue
                    async with aclosing(self._recognise(upload, start_ms)) as transcripts:
                        async for transcript in transcripts:
                            yield transcript
                    start_ms += upload.duration_ms
                    upload = Upload(kind, self.sample_rate)
            upload.add(segmenter.end())
            async with aclosing(self._recognise(upload, start_ms)) as transcripts:
                async for transcript in transcripts:
                    yield transcript
        finally:
            upload.close()

    async def _recognise(self, upload: Upload, start_ms: float) -> AsyncGenerator[Transcript]:
        """Transcribe a file. ``start_ms``: its offset in the audio of the utterance."""
        if upload.duration_ms < MIN_MS:
            yield Transcript("", end_ms=start_ms + upload.duration_ms)
            return
        end_ms, file = start_ms + upload.duration_ms, upload.done()
        while True:
            info = self._server.request_info(self.label, self.settings.model)
            request = self._request(file)
            try:
                async with aclosing(self._ask(info, request)) as answer:
                    async for transcript in answer:
                        yield transcript.within(start_ms, end_ms)
                return
            except BadRequestError:
                if not self._adapt(info.refused, request):
                    raise

    def _adapt(self, refused: set[str], request: Mapping[str, Any]) -> bool:
        """Drop the refused features from all later requests. Return False if there is nothing to drop."""
        new = {"timestamp_granularities", "response_format"} & refused
        if request.get("response_format") == "verbose_json" and new:
            self._refused.add("words")
        elif request.get("stream") and "stream" in refused:
            self._refused.add("stream")
        else:
            return False
        return True

    def _request(self, file: tuple[str, bytes, str]) -> dict[str, Any]:
        rules = self.settings
        request: dict[str, Any] = {"model": rules.model, "file": file, "response_format": "json"}
        newer = rules.model.startswith("gpt-")
        if (newer if rules.streaming is None else rules.streaming) and "stream" not in self._refused:
            request["stream"] = True
        elif rules.words and not newer and "words" not in self._refused:
            request |= {"response_format": "verbose_json", "timestamp_granularities": ["word"]}
        for name in ("language", "prompt", "temperature"):
            if (value := getattr(rules, name)) is not None:
                request[name] = value
        if rules.extra_body:
            request["extra_body"] = rules.extra_body
        return request

    async def _ask(self, info: RequestInfo, request: dict[str, Any]) -> AsyncGenerator[_FileTranscript]:
        create = self._server.client.audio.transcriptions.with_streaming_response.create
        async with self._server.translate_errors(info), create(**request, extra_headers=self._server.extra) as response:
            # A model that cannot stream sends one JSON object.
            if not str(response.headers.get("content-type", "")).lower().startswith("text/event-stream"):
                yield _whole(info, await response.read())
                return
            text, done = "", False
            async with aclosing(events(response.iter_bytes())) as stream:
                async for event in stream:
                    delta, whole, ended = _event(info, event)
                    text, done = (text + delta if whole is None else whole), done or ended
                    if delta and not done:
                        yield _FileTranscript(text=text, final=False)
            if not done:
                raise ServiceDownError(
                    f"{info.label}: {info.host} stopped in the middle of an answer. Is it overloaded?"
                )
        yield _FileTranscript(text=text)


class _Word(BaseModel):
    word: str
    start: float
    end: float


class _Transcription(BaseModel):
    text: str
    words: Any = None


class _EventDelta(BaseModel):
    content: str | None = None


class _EventChoice(BaseModel):
    delta: _EventDelta | None = None
    finish_reason: str | None = None


class _TranscriptionEvent(BaseModel):
    """Event of a stream: OpenAI's (``type``, ``delta``, ``text``), or vLLM's, which has the shape of a chat event."""

    type: str = ""
    delta: str | None = None
    text: str | None = None
    choices: list[_EventChoice] | None = None
    error: Any = None


class _FileTranscript(BaseModel):
    """Result for one file. Times are in s from the start of the file."""

    text: str
    final: bool = True
    words: tuple[_Word, ...] = ()

    def within(self, start_ms: float, end_ms: float) -> Transcript:
        """Convert to a transcript with times of the utterance. Word times outside the file are clamped to it."""
        if not self.final:
            return Transcript(self.text.strip(), final=False)

        def at(seconds: float) -> float:
            return min(max(start_ms, start_ms + seconds * 1000), end_ms)

        words = tuple(HeardWord(word.word.strip(), at(word.start), at(word.end)) for word in self.words)
        return Transcript(self.text.strip(), end_ms=end_ms, words=words)


def _whole(info: RequestInfo, body: bytes) -> _FileTranscript:
    """Parse a response that is not streamed. Raises `ServiceError`."""
    try:
        answer = _Transcription.model_validate_json(body)
    except ValidationError:
        if (found := error_in(body)) is not None:
            raise from_stream(info, found) from None
        hint = "" if info.versioned else " Does base_url end in /v1?"
        raise BadAnswerError(f"{info.label}: {info.host} sent an answer that is not a transcript.{hint}") from None
    try:
        words = [_Word.model_validate(word) for word in answer.words or ()]
    except (ValidationError, TypeError):
        log.debug("%s: the times of the words are malformed", info.label)
        words = []
    timed = tuple(word for word in words if math.isfinite(word.start) and math.isfinite(word.end) and word.word.strip())
    return _FileTranscript(text=answer.text, words=timed)


def _event(info: RequestInfo, event: Event) -> tuple[str, str | None, bool]:
    """Parse an event: the text that it adds, the whole text (None if not given), and True if the answer is complete."""
    try:
        chunk = _TranscriptionEvent.model_validate_json(event.data)
    except ValidationError:
        raise BadAnswerError(f"{info.label}: {info.host} sent an event that does not follow the protocol.") from None
    if chunk.error or "error" in (chunk.type, event.name.decode("latin-1")):
        raise from_stream(info, json.loads(event.data))
    if chunk.type == "transcript.text.delta":
        return chunk.delta or "", None, False
    if chunk.type == "transcript.text.done":
        return "", chunk.text, True
    for choice in chunk.choices or ():
        delta = choice.delta or _EventDelta()
        return delta.content or "", None, bool(choice.finish_reason)
    return "", None, False

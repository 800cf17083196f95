"""Speech to text by the OpenAI protocol: the audio of an utterance is sent at its end."""

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
from .client import AsksServer, OpenAIServer, OpenAISettings
from .errors import Asked, error_in, from_stream
from .sse import Event, events
from .upload import AudioFile, Upload

log = logging.getLogger(__name__)

DEFAULT_MODEL = "gpt-4o-mini-transcribe"
MIN_MS = 100.0
"""Shorter audio is refused by most servers, and there is no word in it."""


class OpenAISTTSettings(STTSettings, OpenAISettings):
    """What a recogniser can be told: see `OpenAISTT`."""

    language: str | None = None
    prompt: str | None = None
    temperature: float | None = Field(default=None, ge=0)
    words: bool = True
    streaming: bool | None = None
    upload: AudioFile | None = None
    piece_ms: float = Field(default=25_000.0, ge=1_000)
    extra_body: dict[str, Any] = Field(default_factory=dict[str, Any])


class OpenAISTT(AsksServer, STT[OpenAISTTSettings]):
    """Recognises speech with OpenAI's models, or with any server that speaks its protocol.

    ``model``, ``base_url``, ``api_key``, ``headers``, ``http_client``, ``check``, ``extra_body``: as with `OpenAILLM`.
    ``language``: ISO 639-1 ("en"); without it the model guesses, which costs time and, with short answers, is often
    wrong. ``prompt``: names and words to expect. ``words``: ask when each word was said, where the model tells; with
    ``whisper-1`` that takes a little longer. ``streaming``: ask for the text as it is recognised, as interim frames;
    None: of models that are known to do it. ``upload``: the audio as "flac" or "wav"; None: WAV to a server on this
    machine or in a private network (not all can read FLAC), FLAC to others: a third of the bytes.

    Nothing is recognised before the user stops, so a turn costs an upload and the model's time. A longer utterance
    than ``piece_ms`` is sent in pieces, cut in the quietest place of their last 2 s, while the user still speaks.
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
        """Of what the model was asked for and does not do."""

    async def transcribe(self, audio: AsyncIterator[Samples]) -> AsyncGenerator[Transcript]:
        """Hear one utterance."""
        rules = self.settings
        kind: AudioFile = rules.upload or ("wav" if self._server.local else "flac")
        segmenter = Segmenter(rules.piece_ms, self.sample_rate)
        told_ms = 0.0
        upload = Upload(kind, self.sample_rate)
        try:
            async for samples in audio:
                for part in segmenter.add(samples):
                    if part is not None:
                        upload.add(part)
                        continue
                    async with aclosing(self._recognise(upload, told_ms)) as heard:
                        async for transcript in heard:
                            yield transcript
                    told_ms += upload.duration_ms
                    upload = Upload(kind, self.sample_rate)
            upload.add(segmenter.end())
            async with aclosing(self._recognise(upload, told_ms)) as heard:
                async for transcript in heard:
                    yield transcript
        finally:
            upload.close()

    async def _recognise(self, upload: Upload, told_ms: float) -> AsyncGenerator[Transcript]:
        """What is said in a file. ``told_ms``: where it begins in the audio of this utterance."""
        if upload.duration_ms < MIN_MS:
            yield Transcript("", end_ms=told_ms + upload.duration_ms)
            return
        end_ms, file = told_ms + upload.duration_ms, upload.done()
        while True:
            asked = self._server.asked(self.label, self.settings.model)
            request = self._request(file)
            try:
                async with aclosing(self._ask(asked, request)) as answer:
                    async for transcript in answer:
                        yield transcript.within(told_ms, end_ms)
                return
            except BadRequestError:
                if not self._learn(asked.refused, request):
                    raise

    def _learn(self, refused: set[str], request: Mapping[str, Any]) -> bool:
        """Whether the model may do it without what it was asked for: then that is remembered."""
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

    async def _ask(self, asked: Asked, request: dict[str, Any]) -> AsyncGenerator[_Heard]:
        create = self._server.client.audio.transcriptions.with_streaming_response.create
        async with self._server.asking(asked), create(**request, extra_headers=self._server.extra) as response:
            # A model that cannot stream answers in one piece.
            if not str(response.headers.get("content-type", "")).lower().startswith("text/event-stream"):
                yield _whole(asked, await response.read())
                return
            text, done = "", False
            async with aclosing(events(response.iter_bytes())) as stream:
                async for event in stream:
                    delta, whole, ended = _event(asked, event)
                    text, done = (text + delta if whole is None else whole), done or ended
                    if delta and not done:
                        yield _Heard(text=text, final=False)
            if not done:
                raise ServiceDownError(f"{asked.label}: {asked.host} ended an answer in the middle. Is it overloaded?")
        yield _Heard(text=text)


class _Word(BaseModel):
    word: str
    start: float
    end: float


class _Answer(BaseModel):
    text: str
    words: Any = None


class _Delta(BaseModel):
    content: str | None = None


class _Choice(BaseModel):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Chunk(BaseModel):
    """An event of a stream: OpenAI's (``type``, ``delta``, ``text``), or vLLM's, which is like one of a chat."""

    type: str = ""
    delta: str | None = None
    text: str | None = None
    choices: list[_Choice] | None = None
    error: Any = None


class _Heard(BaseModel):
    """An answer, its times in s from the beginning of the file."""

    text: str
    final: bool = True
    words: tuple[_Word, ...] = ()

    def within(self, told_ms: float, end_ms: float) -> Transcript:
        """The same in the utterance. Words that are told to be elsewhere are put into the piece."""
        if not self.final:
            return Transcript(self.text.strip(), final=False)

        def at(seconds: float) -> float:
            return min(max(told_ms, told_ms + seconds * 1000), end_ms)

        words = tuple(HeardWord(word.word.strip(), at(word.start), at(word.end)) for word in self.words)
        return Transcript(self.text.strip(), end_ms=end_ms, words=words)


def _whole(asked: Asked, body: bytes) -> _Heard:
    """An answer in one piece. Raises `ServiceError`."""
    try:
        answer = _Answer.model_validate_json(body)
    except ValidationError:
        if (found := error_in(body)) is not None:
            raise from_stream(asked, found) from None
        hint = "" if asked.versioned else " Does base_url end in /v1?"
        raise BadAnswerError(f"{asked.label}: {asked.host} answered with what is no transcript.{hint}") from None
    try:
        words = [_Word.model_validate(word) for word in answer.words or ()]
    except (ValidationError, TypeError):
        log.debug("%s: the times of the words make no sense", asked.label)
        words = []
    timed = tuple(word for word in words if math.isfinite(word.start) and math.isfinite(word.end) and word.word.strip())
    return _Heard(text=answer.text, words=timed)


def _event(asked: Asked, event: Event) -> tuple[str, str | None, bool]:
    """What an event adds to the text, what the text is as a whole where it tells, and whether it is complete."""
    try:
        chunk = _Chunk.model_validate_json(event.data)
    except ValidationError:
        raise BadAnswerError(f"{asked.label}: {asked.host} sent what is no event of this protocol.") from None
    if chunk.error or "error" in (chunk.type, event.name.decode("latin-1")):
        raise from_stream(asked, json.loads(event.data))
    if chunk.type == "transcript.text.delta":
        return chunk.delta or "", None, False
    if chunk.type == "transcript.text.done":
        return "", chunk.text, True
    for choice in chunk.choices or ():
        delta = choice.delta or _Delta()
        return delta.content or "", None, bool(choice.finish_reason)
    return "", None, False

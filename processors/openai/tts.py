"""Text to speech of the OpenAI protocol, with streamed PCM."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterator, Mapping
from contextlib import aclosing
from typing import Any, Unpack

import numpy as np
from pydantic import Field

from ...pipeline.errors import BadAnswerError, ServiceError
from ...pipeline.frames import Frame, OutputAudioFrame, Samples
from ...pipeline.processor import AudioFormat
from ..service.base import Limits, settings_of
from ..tts.base import TTS
from ..tts.word_timing import SpeechChunk
from .client import OpenAIServer, OpenAIService, OpenAISettings
from .errors import RequestInfo, error_in, from_stream

DEFAULT_MODEL = "gpt-4o-mini-tts"
SAMPLE_RATE = 24_000
"""Rate of the protocol's PCM in Hz: 16 bit, mono, little-endian (OpenAI, "Create speech", response_format)."""
CHUNK_MS = 100
"""Maximum length of a chunk. An interruption keeps or drops whole chunks."""
_HEAD_BYTES = 16
_FILES = {b"RIFF": "WAV", b"ID3": "MP3", b"OggS": "Ogg", b"fLaC": "FLAC"}
"""First bytes of audio files that are not PCM."""
_TEXTS = (b"<!doctype", b"<html", b'{"error"', b'{"detail"', b'{"message"', b'{"object"')


class OpenAITTSSettings(OpenAISettings):
    """Settings of `OpenAITTS`."""

    voice: str = Field(default="alloy", min_length=1)
    speed: float | None = Field(default=None, ge=0.25, le=4.0)
    instructions: str | None = None
    sample_rate: int = Field(default=SAMPLE_RATE, ge=8_000, le=96_000)
    extra_body: dict[str, Any] = Field(default_factory=dict[str, Any])


class OpenAITTS(OpenAIService, TTS[OpenAITTSSettings]):
    """Speaks with OpenAI's voices, or with any server that speaks its protocol.

    ``model``, ``base_url``, ``api_key``, ``headers``, ``http_client``, ``check``, ``extra_body``: as with `OpenAILLM`.
    ``voice``: name of the voice at the server. ``speed``: 0.25 to 4. ``instructions``: style of speaking, for models
    that follow it. Neither is sent if None. ``sample_rate``: rate of the server's PCM in Hz; the protocol says 24,000,
    and responses do not state it. The protocol has no times of words: eSpeak NG aligns them if installed, otherwise
    the heard part of a sentence is interpolated (see `TTS.align_words`).
    """

    align_words: bool = True
    settings: OpenAITTSSettings

    def __init__(
        self,
        model: str = DEFAULT_MODEL,
        voice: str = "alloy",
        *,
        speed: float | None = None,
        instructions: str | None = None,
        sample_rate: int = SAMPLE_RATE,
        base_url: str | None = None,
        api_key: str | None = None,
        extra_body: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
        http_client: Any = None,
        check: bool = True,
        **limits: Unpack[Limits],
    ) -> None:
        self.settings = settings_of(
            "OpenAITTS",
            OpenAITTSSettings,
            model=model,
            voice=voice,
            speed=speed,
            instructions=instructions,
            sample_rate=sample_rate,
            extra_body=dict(extra_body or {}),
            check=check,
            **limits,
        )
        self._server = OpenAIServer(
            "OpenAITTS", base_url=base_url, api_key=api_key, headers=headers, http_client=http_client
        )

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Declare the output: mono at ``sample_rate``."""
        return {OutputAudioFrame: AudioFormat((self.settings.sample_rate,), (1,))}

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        """Speak a text. Closing the generator closes the connection."""
        rules = self.settings
        info = self._server.request_info(self.label, rules.model)
        request: dict[str, Any] = {"model": rules.model, "voice": rules.voice, "input": text, "response_format": "pcm"}
        for name in ("speed", "instructions"):
            if (value := getattr(rules, name)) is not None:
                request[name] = value
        if rules.extra_body:
            request["extra_body"] = rules.extra_body
        create = self._server.client.audio.speech.with_streaming_response.create
        pcm = _PCM(info, rules.sample_rate)
        async with self._server.translate_errors(info), create(**request, extra_headers=self._server.extra) as response:
            kind = str(response.headers.get("content-type", "")).lower()
            if kind.startswith(("application/json", "text/")):
                raise _not_audio(info, await response.read())
            async with aclosing(response.iter_bytes()) as body:
                async for data in body:
                    for samples in pcm.add(data, kind):
                        yield SpeechChunk(samples, rules.sample_rate)
            for samples in pcm.end(kind):
                yield SpeechChunk(samples, rules.sample_rate)


class _PCM:
    """Converts chunks of bytes to samples. A chunk may end inside a sample."""

    def __init__(self, info: RequestInfo, sample_rate: int) -> None:
        self._info = info
        self._step = sample_rate * CHUNK_MS // 1000 * 2
        self._rest: bytes = b""
        self._started = False

    def add(self, data: bytes, kind: str) -> Iterator[Samples]:
        """Yield the samples that are complete. Raises `BadAnswerError` if the first bytes are not PCM."""
        data = self._rest + data
        if not self._started:
            if len(data) < _HEAD_BYTES:
                self._rest = data
                return
            self._look(data, kind)
        whole = len(data) // 2 * 2
        self._rest = data[whole:]
        for at in range(0, whole, self._step):
            yield np.frombuffer(data[at : min(at + self._step, whole)], "<i2").astype(np.int16, copy=False)

    def end(self, kind: str) -> Iterator[Samples]:
        """Yield the rest of a very short answer. Half a sample at the end is dropped."""
        if not self._started and self._rest:
            self._look(self._rest, kind)
            yield from self.add(b"", kind)

    def _look(self, head: bytes, kind: str) -> None:
        self._started = True
        who, host = self._info.label, self._info.host
        file = next((name for magic, name in _FILES.items() if head.startswith(magic)), "")
        if not file and "mpeg" in kind and head[0] == 0xFF and head[1:2] >= b"\xe0":
            file = "MP3"
        if file:
            raise BadAnswerError(f"{who}: {host} sent {file} instead of PCM. Does it support response_format?")
        if head.lstrip().lower().startswith(_TEXTS):
            raise BadAnswerError(f"{who}: {host} sent text instead of audio.")


def _not_audio(info: RequestInfo, body: bytes) -> ServiceError:
    if (found := error_in(body)) is not None:
        return from_stream(info, found, or_else=BadAnswerError)
    hint = "" if info.versioned else " Does base_url end in /v1?"
    return BadAnswerError(f"{info.label}: {info.host} sent text instead of audio.{hint}")

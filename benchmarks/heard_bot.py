# pyright: basic
"""The bot of `benchmarks/heard.py`, and its log of what happened when."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

from heard_call import LONG, SHORT
from voxline.pipeline import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    OutputAudioFrame,
    Pipeline,
    PipelineWorker,
    ResponseCutFrame,
    ResponsePlayedFrame,
    Samples,
    Tap,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.processor import Hop
from voxline.processors import EspeakTTS, PocketSphinxSTT, RuleResponder, SessionController, SileroVAD
from voxline.processors.session.data import TurnKind
from voxline.processors.tts.word_timing import SpeechChunk
from voxline.transports.webrtc import WebRTCTransport

FACTS = (
    BotStartedSpeakingFrame, BotStoppedSpeakingFrame, ResponseCutFrame, ResponsePlayedFrame, TranscriptionFrame,
    UserStartedSpeakingFrame, UserStoppedSpeakingFrame,
)  # fmt: skip


@dataclass
class Response:
    """Audio and text synthesised for one response."""

    audio: list[Samples] = field(default_factory=list)
    words: list[tuple[float, str]] = field(default_factory=list)
    """When each begins, in ms of its audio."""
    rate: int = 22_050
    made_ms: float = 0.0
    text_ns: int = 0
    audio_ns: int = 0
    """When its first text and its first audio came."""
    cut: ResponseCutFrame | None = None
    played: ResponsePlayedFrame | None = None


class Log(Tap):
    """Facts, with times of the machine's monotonic clock."""

    def __init__(self) -> None:
        self.own_words = False
        """The voice itself puts the words in."""
        self.facts: list[tuple[int, Frame]] = []
        self.responses: dict[int, Response] = {}
        self.sent_ns: list[int] = []
        """When each 20 ms were given to the transport."""
        self._seen: set[int] = set()

    def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
        if not isinstance(frame, (OutputAudioFrame, TextFrame)):
            return
        made = self.responses.setdefault(response, Response())
        if isinstance(frame, TextFrame):
            made.text_ns = made.text_ns or t_ns
            return
        made.audio_ns = made.audio_ns or t_ns
        if not self.own_words:
            made.words += [(made.made_ms + word.start_ms, word.text) for word in frame.words]
        made.made_ms += frame.duration_ms
        made.audio.append(frame.samples)
        made.rate = frame.sample_rate

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        self._fact(t_ns, frame)

    def left(self, t_ns: int, frame: Frame, direction: Any, response: int) -> None:
        self._fact(t_ns, frame)

    def _fact(self, t_ns: int, frame: Frame) -> None:
        if not isinstance(frame, FACTS) or id(frame) in self._seen:
            return
        self._seen.add(id(frame))
        self.facts.append((t_ns, frame))  # which keeps the frame, and so its id
        if isinstance(frame, ResponseCutFrame):
            self.responses.setdefault(frame.response, Response()).cut = frame
        elif isinstance(frame, ResponsePlayedFrame):
            self.responses.setdefault(frame.response, Response()).played = frame


class Noted(WebRTCTransport):
    """Notes when it sends."""

    log: Log

    def send(self, samples: Samples, due_ns: int) -> None:
        self.log.sent_ns.append(time.monotonic_ns())
        super().send(samples, due_ns)


class WithoutWords(EspeakTTS):
    """A voice that does not tell when its words begin; the log knows it all the same."""

    reports_words: ClassVar[bool] = False
    align_words = True
    log: Log

    async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
        """The audio alone."""
        response, begun_ms, at = self.response, 0.0, 0
        async for chunk in super().speak(text):
            made = self.log.responses.setdefault(response, Response())
            for word in chunk.words:
                # eSpeak says "down the" in one go, and tells of "down" alone.
                passed, here = text[at : word.char_offset].split(), text[word.char_offset :].split()[0]
                start_ms = begun_ms + word.start_ms
                before_ms = made.words[-1][0] if made.words else start_ms
                made.words += [(before_ms + (start_ms - before_ms) / 2, one) for one in passed]
                made.words.append((start_ms, here))
                at = word.char_offset + len(here)
            begun_ms += len(chunk.samples) * 1e3 / chunk.sample_rate
            yield SpeechChunk(chunk.samples, chunk.sample_rate)


class Bot:
    """One call: short answers at first, then long ones."""

    def __init__(self, settings: Mapping[str, Any], *, stop_ms: float, words: bool, lead_ms: float | None) -> None:
        options: dict[str, Any] = {} if lead_ms is None else {"lead_ms": lead_ms}
        self.transport = Noted(loopback=True, **options)
        self.log = self.transport.log = Log()
        self.long = False
        self._answers = 0
        self.controller = SessionController(max_messages=None, **settings)
        # In another voice than the reference that it is aligned with.
        voice = EspeakTTS() if words else WithoutWords("en-us+f3", rate_wpm=150)
        if isinstance(voice, WithoutWords):
            voice.log, self.log.own_words = self.log, True
        parts = [
            self.transport.input(),
            SileroVAD(stop_ms=stop_ms),
            PocketSphinxSTT(),
            self.controller,
            RuleResponder(self._reply),
            voice,
            self.transport.output(),
        ]
        self.worker = PipelineWorker(Pipeline(parts))
        self.worker.add_tap(self.log)

    async def __aenter__(self) -> Bot:
        self._running = asyncio.ensure_future(self.worker.run())
        await asyncio.sleep(2)  # the processes of ears and voice
        return self

    async def __aexit__(self, *_: object) -> None:
        self.worker.cancel()
        await self._running

    async def go_long(self) -> None:
        """From now on its answers are long."""
        self.long = True

    def _reply(self, words: str) -> str:
        self._answers += 1
        texts = LONG if self.long else SHORT
        return texts[self._answers % len(texts)]

    def said(self, response: int) -> str:
        """Return the session's record of a response."""
        turns = [turn for turn in self.controller.session.turns if turn.kind is TurnKind.ASSISTANT]
        return " ".join(turn.text for turn in turns if turn.response == response)

# pyright: basic
"""voxline over its `WebRTCTransport`: the transport, `SileroVAD`, a voice, the transport.

- `default`: a voice activity model for each call (extra `speech`);
- `shared`: one for all, by onnxruntime (extra `vad`);
- `answers`: as `shared`, with a bot that answers: see `server.py`;
- `stereo`: as `shared`, and Opus with aiortc's settings: stereo, 96 kbit/s, complexity 10.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import version as installed
from typing import Any, cast

from voxline.pipeline import (
    AudioFormat,
    ClientConnectedFrame,
    Frame,
    FrameProcessor,
    OutputAudioFrame,
    Pipeline,
    PipelineWorker,
    ResponseEndFrame,
    TextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    handles,
)
from voxline.processors import SileroVAD
from voxline.transports.webrtc import WebRTCTransport

RATE = 24_000
PIECE = RATE // 10


class Speaks(FrameProcessor):
    """Speaks without end, in pieces of 100 ms; the output holds it while enough waits to be played."""

    def __init__(self, side: OurBot, at: int) -> None:
        self._side, self._at = side, at

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((RATE,), (1,))}

    @handles(ClientConnectedFrame)
    async def speak(self, frame: ClientConnectedFrame) -> AsyncIterator[Frame]:
        """One response for the whole call."""
        voice = self._side.voice
        while True:
            yield OutputAudioFrame(voice[self._at : self._at + PIECE], RATE)
            self._at = (self._at + PIECE) % (len(voice) - PIECE)


class Answers(FrameProcessor):
    """Answers when the user has stopped, and is silent when they start."""

    def __init__(self, side: OurBot) -> None:
        self._side = side

    @handles(UserStartedSpeakingFrame)
    async def hush(self, frame: UserStartedSpeakingFrame) -> None:
        self._side.facts.append((time.monotonic_ns(), "started"))
        self.interrupt("the user speaks")

    @handles(UserStoppedSpeakingFrame)
    async def answer(self, frame: UserStoppedSpeakingFrame) -> None:
        self._side.facts.append((time.monotonic_ns(), "stopped"))
        await self.push(TextFrame("go on"), response=self.new_response())


class Voice(FrameProcessor):
    """Stands for a voice service: text in, audio out."""

    def __init__(self, side: OurBot) -> None:
        self._side, self._at = side, 0

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((RATE,), (1,))}

    @handles(TextFrame)
    async def say(self, frame: TextFrame) -> AsyncIterator[Frame]:
        voice = self._side.voice
        for _ in range(90 if self._side.long else 10):
            yield OutputAudioFrame(voice[self._at : self._at + PIECE], RATE)
            self._at = (self._at + PIECE) % (len(voice) - PIECE)
        yield ResponseEndFrame()


class Notes(FrameProcessor):
    """Counts what the detector finds."""

    def __init__(self, side: OurBot) -> None:
        self._side = side

    @handles(UserStartedSpeakingFrame, UserStoppedSpeakingFrame)
    async def note(self, frame: Frame) -> None:
        """The detector is at work."""
        self._side.vad_events += 1


class OurBot:
    """A `PipelineWorker` for each call."""

    def __init__(self, config: str, voice: Any) -> None:
        self.version = f"voxline {installed('voxline')}"
        self.config, self.voice = config, voice
        self.vad_events = 0
        self.long = False
        self.facts: list[tuple[int, str]] = []
        self._calls: list[asyncio.Task[Any]] = []
        if config == "default":
            # As where it is not installed.
            sys.modules["onnxruntime"] = cast(Any, None)

    async def open(self) -> None: ...

    async def answer(self, sdp: str) -> str:
        opus: dict[str, Any] = {"stereo": True, "bit_rate": 96_000, "complexity": 10} if self.config == "stereo" else {}
        transport = WebRTCTransport(loopback=True, **opus)
        speaks = Speaks(self, (len(self._calls) + 1) * 7_919 * PIECE % (len(self.voice) - PIECE))
        parts: list[FrameProcessor] = [SileroVAD(), Notes(self), speaks]
        if self.config == "answers":
            parts = [SileroVAD(stop_ms=200), Answers(self), Voice(self)]
        worker = PipelineWorker(Pipeline([transport.input(), *parts, transport.output()]))
        answer = await transport.answer(sdp)
        self._calls.append(asyncio.ensure_future(worker.run()))
        return answer


def bot(config: str, voice: Any) -> OurBot:
    return OurBot(config, voice)

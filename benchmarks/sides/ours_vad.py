"""Voice activity detection in voxline, in the arrangements compared."""

from __future__ import annotations

from voxline.pipeline import FrameProcessor, InputAudioFrame, handles

from sides.windows import Windows


class Listens(FrameProcessor):
    """Scores the audio where it passes: the same code as on the peer's side."""

    def __init__(self, shared: bool) -> None:
        self._windows = Windows(shared)

    @handles(InputAudioFrame)
    async def listen(self, frame: InputAudioFrame) -> None:
        self._windows.feed(frame.samples)
        await self.push(frame)


def vad_processor(arrangement: str) -> FrameProcessor:
    if arrangement == "own":
        from voxline.processors import SileroVAD

        return SileroVAD()
    return Listens(arrangement == "shared")

"""A parrot: repeats what the caller says, in the caller's own voice, and stops when the caller goes on.

    python examples/echo.py me.wav talk.wav       # any sound file in; both sides out, in stereo
    voxline run examples/echo.py --input me.wav --output talk.wav

Without arguments it listens to the caller of the rover, and writes `out/echo.wav`.
"""

import asyncio
import sys
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from voxline.pipeline import (
    AudioFormat,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    OutputAudioFrame,
    Pipeline,
    PipelineRunner,
    PipelineWorker,
    ResponseEndFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VirtualClock,
    handles,
)
from voxline.processors import SileroVAD
from voxline.transports.base import Transport
from voxline.transports.file import FileTransport

CALLER = Path(__file__).parent / "audio" / "caller.wav"
BEFORE_MS = 500
"""Kept from before the caller was noticed: a detector is sure only when a word is half said."""
LONGEST_MS = 30_000


class Echo(FrameProcessor):
    """Keeps what was said between "started" and "stopped", and plays it back as one response."""

    def __init__(self) -> None:
        self.heard: deque[InputAudioFrame] = deque()
        self.speaking = False

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Audio of the bot, as it was heard; the pipeline is not built without knowing where that comes from."""
        return {OutputAudioFrame: AudioFormat()}

    @handles(InputAudioFrame)
    async def listen(self, frame: InputAudioFrame) -> None:
        """Keep it. Nothing is pushed: the microphone's audio ends here."""
        self.heard.append(frame)
        kept_ms = LONGEST_MS if self.speaking else BEFORE_MS
        while sum(frame.duration_ms for frame in self.heard) > kept_ms:
            self.heard.popleft()

    @handles(UserStartedSpeakingFrame)
    async def begin(self, frame: UserStartedSpeakingFrame) -> None:
        """The caller speaks, so the parrot does not."""
        self.speaking = True
        self.interrupt("the caller speaks")

    @handles(UserStoppedSpeakingFrame)
    async def repeat(self, frame: UserStoppedSpeakingFrame) -> None:
        """Say it all again."""
        self.speaking = False
        response = self.new_response()
        for heard in self.heard:
            await self.push(OutputAudioFrame(heard.samples, heard.sample_rate), response=response)
        await self.push(ResponseEndFrame(), response=response)
        self.heard.clear()


def make_pipeline(transport: Transport) -> Pipeline:
    """Microphone, detector, parrot, loudspeaker."""
    return Pipeline([transport.input(), SileroVAD(), Echo(), transport.output()])


def main(arguments: list[str]) -> int:
    """Run it on files, as fast as it goes."""
    heard, said = Path(arguments[0]) if arguments else CALLER, Path(arguments[1] if arguments[1:] else "out/echo.wav")
    said.parent.mkdir(parents=True, exist_ok=True)
    transport = FileTransport(input=heard, output=said)
    worker = PipelineWorker(make_pipeline(transport), clock=VirtualClock())
    asyncio.run(PipelineRunner().run(worker))
    print(f"{heard} was repeated in {said}: caller left, parrot right.")
    return 0


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))

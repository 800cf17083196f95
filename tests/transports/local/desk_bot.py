"""A bot at a desk, run by test_pulse.py in a process of its own: tells what happens in lines of JSON.

python tests/transports/local/desk_bot.py ECHO GREETING ANSWERS.npy
"""

from __future__ import annotations

import asyncio
import json
import sys

import numpy as np
from voxline.pipeline import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    ClientDisconnectedFrame,
    Frame,
    FrameProcessor,
    OutputAudioFrame,
    Pipeline,
    PipelineRunner,
    PipelineWorker,
    ResponseCutFrame,
    ResponsePlayedFrame,
    Samples,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    VoxlineError,
    handles,
)
from voxline.processors import EspeakTTS, PocketSphinxSTT, RuleResponder, SessionController, SileroVAD
from voxline.transports.local import LocalTransport

GRAMMAR = """#JSGF V1.0;
grammar desk;
public <command> = go forward ten meters | turn left | where are you | stop | good bye;
"""


def tell(what: str, **details: object) -> None:
    """A line for the test."""
    sys.stdout.write(json.dumps({"what": what, **details}) + "\n")
    sys.stdout.flush()


class Ears(FrameProcessor):
    """After the recogniser: what the bot makes of the microphone."""

    @handles(UserStartedSpeakingFrame, TranscriptionFrame, ClientDisconnectedFrame)
    async def hear(self, frame: Frame) -> None:
        """Tell, and pass it on."""
        if isinstance(frame, TranscriptionFrame):
            tell("heard", text=frame.text)
        elif isinstance(frame, ClientDisconnectedFrame):
            tell("gone", reason=frame.reason)
        else:
            tell("speech")
        await self.push(frame)


class Mouth(FrameProcessor):
    """Before the loudspeaker: what the bot said, and what became of it."""

    def __init__(self) -> None:
        self.said: list[Samples] = []

    @handles(OutputAudioFrame)
    async def keep(self, frame: OutputAudioFrame) -> None:
        """Keep it, and pass it on."""
        self.said.append(frame.samples)
        await self.push(frame)

    @handles(BotStartedSpeakingFrame, ResponsePlayedFrame, ResponseCutFrame, direction=UPSTREAM)
    async def note(self, frame: Frame) -> None:
        """Tell, and pass it on."""
        if isinstance(frame, ResponsePlayedFrame):
            tell("played", text=frame.heard_text)
        elif isinstance(frame, ResponseCutFrame):
            tell("cut", heard_ms=frame.heard_ms)
        else:
            tell("speaks")
        await self.push(frame, UPSTREAM)


async def main(echo: str, greeting: str, answers: str) -> int:
    """Talk until Ctrl-C, or until the sound card goes."""
    try:
        # More than at a desk: a machine that tests has other things to do, and each hole is another echo.
        transport = LocalTransport(echo=echo, latency_ms=180, lead_ms=100)  # pyright: ignore[reportArgumentType]
        tell("devices", devices=[str(device) for device in transport.devices()])
        mouth = Mouth()
        parts = [
            transport.input(),
            SileroVAD(),
            PocketSphinxSTT(GRAMMAR),
            Ears(),
            SessionController(greeting=greeting),
            RuleResponder(lambda words: f"You said {words or 'nothing'}, and I have understood it."),
            EspeakTTS(),
            mouth,
            transport.output(),
        ]
        await PipelineRunner().run(PipelineWorker(Pipeline(parts)))
    except VoxlineError as error:
        tell("error", text=str(error))
        return 1
    np.save(answers, np.concatenate([np.zeros(0, np.int16), *mouth.said]))
    tell("end", underruns=transport.underruns)
    return 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main(*sys.argv[1:])))

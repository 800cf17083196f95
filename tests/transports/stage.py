"""What the tests of the output share: sounds in which each sample is known, and an output that is watched."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from voxline.pipeline import (
    UPSTREAM,
    AudioFormat,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    FrameProcessor,
    InputFrame,
    OutputAudioFrame,
    PausePlayoutFrame,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    ResumePlayoutFrame,
    Samples,
    SpokenWord,
    handles,
)
from voxline.transports.memory import Heard, MemoryTransport
from voxline.transports.output import OutputTransport

RATE = 24_000
MS = 24
"""Samples in a millisecond."""
NS_PER_MS = 1_000_000


def ramp(ms: float, first: int = 1) -> Samples:
    """A sound in which each sample is known by its value."""
    return ((np.arange(round(ms * MS)) + first) % 30_000 + 1).astype(np.int16)


def audio(samples: Samples, *words: tuple[str, float]) -> OutputAudioFrame:
    return OutputAudioFrame(samples, RATE, tuple(SpokenWord(text, at) for text, at in words))


def joined(heard: list[Heard]) -> Samples:
    return np.concatenate([np.zeros(0, np.int16), *(chunk.samples for chunk in heard)])


def times(heard: list[Heard]) -> list[float]:
    return [chunk.at_ns / NS_PER_MS for chunk in heard]


class Notes(FrameProcessor):
    """Before the output: what it said, and when."""

    def __init__(self) -> None:
        self.facts: list[tuple[float, Frame]] = []

    @handles(
        BotStartedSpeakingFrame,
        BotStoppedSpeakingFrame,
        ResponsePlayedFrame,
        ResponseCutFrame,
        direction=UPSTREAM,
    )
    async def note(self, frame: InputFrame) -> None:
        self.facts.append((self.now_ns / NS_PER_MS, frame))


class Speaker(FrameProcessor):
    """Makes audio for an output, at its rate: derive, and write how."""

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((RATE,), (1,))}


@dataclass
class Stage:
    """An output on a bench, with notes of what it said."""

    bench: Any
    notes: Notes
    transport: MemoryTransport

    @property
    def facts(self) -> list[tuple[float, Frame]]:
        return self.notes.facts

    @property
    def output(self) -> OutputTransport:
        return self.transport.output()

    @property
    def heard(self) -> list[Heard]:
        return self.transport.heard

    async def say(self, response: int, *frames: OutputAudioFrame) -> None:
        await self.bench.send(*frames, response=response)

    async def end(self, response: int) -> None:
        await self.bench.send(ResponseEndFrame(), response=response)

    async def pause(self) -> None:
        await self.bench.send(PausePlayoutFrame())

    async def resume(self) -> None:
        await self.bench.send(ResumePlayoutFrame())

    async def advance(self, ms: float) -> None:
        await self.bench.advance(ms=ms)

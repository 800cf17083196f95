"""What the tests of the output share: sounds in which each sample is known, and an output that is watched."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
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
    Pipeline,
    PipelineWorker,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    ResumePlayoutFrame,
    Samples,
    SpokenWord,
    TextFrame,
    VirtualClock,
    handles,
    source,
)
from voxline.pipeline.recording import Recorder, Recording, replay
from voxline.transports.memory import HeardAudio, MemoryTransport
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


def joined(heard: list[HeardAudio]) -> Samples:
    return np.concatenate([np.zeros(0, np.int16), *(chunk.samples for chunk in heard)])


def times(heard: list[HeardAudio]) -> list[float]:
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
    def heard(self) -> list[HeardAudio]:
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


# --- whole conversations ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CueFrame(InputFrame):
    """Something happens."""

    what: str


class Cues(FrameProcessor):
    """Each so many ms after the one before."""

    def __init__(self, cues: Sequence[tuple[float, str]]) -> None:
        self.cues = cues

    @source
    async def play(self) -> AsyncIterator[Frame]:
        for wait_ms, what in self.cues:
            await self.clock.sleep(wait_ms / 1000)
            yield CueFrame(what)


class Director(FrameProcessor):
    @handles(CueFrame)
    async def direct(self, frame: CueFrame) -> None:
        if frame.what == "ask":
            await self.push(TextFrame("speak"), response=self.new_response())
        elif frame.what == "cut":
            self.interrupt()
        elif frame.what in ("pause", "resume"):
            await self.push(PausePlayoutFrame() if frame.what == "pause" else ResumePlayoutFrame())


Show = tuple[Pipeline, Notes, MemoryTransport]


def show(cues: Sequence[tuple[float, str]], voice: FrameProcessor) -> Show:
    """A conversation: ``voice`` answers a `TextFrame` with audio."""
    notes, transport = Notes(), MemoryTransport(output_rate=RATE)
    return Pipeline([Cues(cues), Director(), notes, voice, transport.output()]), notes, transport


async def record_and_replay(make: Callable[[], Show], path: Path) -> list[Frame]:
    """Replays say and play the same at the same time. Returns what was said."""
    pipeline, notes, transport = make()
    worker = PipelineWorker(pipeline, clock=VirtualClock())
    worker.add_tap(Recorder(path))
    await worker.run()
    for _ in range(2):
        pipeline, again, transport_again = make()
        await replay(Recording.load(path), pipeline)
        assert again.facts == notes.facts
        assert times(transport_again.heard) == times(transport.heard)
        assert joined(transport_again.heard).tolist() == joined(transport.heard).tolist()
    return [fact for _, fact in notes.facts]

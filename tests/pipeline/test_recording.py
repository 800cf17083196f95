"""Recordings replay: the same conversation again, bit for bit, with nothing running but the handlers."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from voxline.pipeline import (
    DOWNSTREAM,
    UPSTREAM,
    BotStartedSpeakingFrame,
    CancelFrame,
    ErrorFrame,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    InputFrame,
    InputTextFrame,
    OutputAudioFrame,
    OutputFrame,
    Pipeline,
    PipelineWorker,
    RecordingError,
    ResponseEndFrame,
    SpokenWord,
    Stream,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    VirtualClock,
    handles,
    source,
    streams,
)
from voxline.pipeline.recording import Recorder, Recording, RecordingWarning
from voxline.pipeline.replay import Trace, replay


@dataclass(frozen=True, slots=True)
class NudgeFrame(InputFrame):
    """A timer of the controller."""

    count: int


@dataclass(frozen=True, slots=True)
class PlayedFrame(InputFrame):
    """A fact from the speaker's pacer."""

    response: int
    ms: float


class Caller(FrameProcessor):
    """Makes microphone audio, and now and then says something."""

    def __init__(self, seed: int, frames: int = 60) -> None:
        self._seed, self._frames = seed, frames

    @source
    async def call(self) -> AsyncIterator[Frame]:
        dice = random.Random(self._seed)
        for index in range(self._frames):
            await self.clock.sleep(0.02)
            yield InputAudioFrame(np.full(320, index, np.int16), 16_000, pts_ns=index * 20_000_000)
            if dice.random() < 0.2:
                yield UserStartedSpeakingFrame(onset_ms=dice.random() * 100)


class Ear(FrameProcessor):
    """Reads along, and understands a word for each five chunks."""

    @streams(InputAudioFrame)
    async def listen(self, frames: Stream[InputAudioFrame]) -> AsyncIterator[Frame]:
        heard = 0
        async for frame in frames:
            heard += 1
            if heard % 5 == 0:
                await self.clock.sleep(0.003)
                yield TranscriptionFrame(f"word {int(frame.samples[0])}")


class Brain(FrameProcessor):
    """Answers in new responses; interrupts itself; has a timer; draws random numbers."""

    def __init__(self) -> None:
        self.nudges = 0
        self.talking = 0

    @handles(TranscriptionFrame)
    async def heard(self, frame: TranscriptionFrame) -> None:
        if self.random.random() < 0.3:
            self.interrupt("barge-in")
        number = self.new_response()
        self.post_after(35, NudgeFrame(number))
        await self.push(TextFrame(f"{frame.text} {self.random.randrange(100)}"), response=number)
        await self.push(ResponseEndFrame(), response=number)

    @handles(NudgeFrame)
    async def nudge(self, frame: NudgeFrame) -> None:
        self.nudges += 1
        if self.nudges % 4 == 0:
            raise ValueError(f"nudge {frame.count} at {self.now_ns}")
        await self.push(TextFrame(f"still there? {self.nudges} {self.talking}"))

    @handles(UserStartedSpeakingFrame)
    async def started(self, frame: UserStartedSpeakingFrame) -> None:
        self.talking += 1
        if self.interrupt("speech"):
            await self.push(BotStartedSpeakingFrame(self.talking), UPSTREAM)

    @handles(PlayedFrame, direction=UPSTREAM)
    async def played(self, frame: PlayedFrame) -> None:
        self.talking += int(frame.ms)


class Voice(FrameProcessor):
    """A job for each text; slow; sometimes fails."""

    queue_frames = 6

    @handles(TextFrame)
    async def say(self, frame: TextFrame) -> AsyncIterator[Frame]:
        if "7" in frame.text[-2:]:
            await self.clock.sleep(0.004)
            raise RuntimeError(f"cannot say {frame.text}")
        for index, word in enumerate(frame.text.split()):
            await self.clock.sleep(0.007)
            samples = np.full(160, len(word), np.int16)
            yield OutputAudioFrame(samples, 16_000, (SpokenWord(word, float(index)),))


class Speaker(FrameProcessor):
    """Holds who fills it, and posts what was played."""

    def __init__(self) -> None:
        self.buffer: list[tuple[int, float]] = []
        self.playing = False

    @handles(OutputAudioFrame)
    async def play(self, frame: OutputAudioFrame) -> None:
        self.buffer.append((self.response, frame.duration_ms))
        if len(self.buffer) >= 3:
            self.hold()
        self._next()
        await self.push(frame)

    def _next(self) -> None:
        if not self.playing and self.buffer:
            self.playing = True
            response, ms = self.buffer.pop(0)
            self.post_after(ms, PlayedFrame(response, ms))

    @handles(PlayedFrame)
    async def played(self, frame: PlayedFrame) -> None:
        self.playing = False
        self.release()
        await self.push(frame, UPSTREAM)
        self._next()

    @handles(CancelFrame)
    async def cancel(self, frame: CancelFrame) -> None:
        self.buffer.clear()
        self.release()


def conversation(seed: int = 1, frames: int = 60) -> Pipeline:
    return Pipeline([Caller(seed, frames), Ear(), Brain(), Voice(), Speaker()], name="talk")


async def record(pipeline: Pipeline, path: Path, seed: int = 1) -> tuple[Trace, Recorder]:
    worker = PipelineWorker(pipeline, clock=VirtualClock(), seed=seed)
    trace, recorder = Trace(), Recorder(path)
    worker.add_tap(trace)
    worker.add_tap(recorder)
    await worker.run()
    return trace, recorder


async def test_a_conversation_replays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    live, recorder = await record(conversation(), path)
    again, once_more = Trace(), Trace()
    replayed = await replay(Recording.load(path), conversation(), again)
    await replay(Recording.load(path), conversation(), once_more)
    assert again.lines == live.lines
    assert again.lines == once_more.lines
    assert replayed.entries == recorder.entries
    text = "\n".join(live.lines)
    for what in ("CancelFrame", "ErrorFrame", "NudgeFrame", "PlayedFrame", "cannot say", "barge-in"):
        assert what in text, f"the conversation lacks {what}, so this test shows less than it should"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), frames=st.integers(0, 120))
async def test_random_conversations_replay_as_they_were(tmp_path: Path, seed: int, frames: int) -> None:
    path = tmp_path / "talk.jsonl"
    live, _ = await record(conversation(seed, frames), path, seed)
    again = Trace()
    await replay(Recording.load(path), conversation(seed, frames), again)
    assert again.lines == live.lines

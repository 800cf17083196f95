"""Scripted model for tests, which records its requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any, Unpack

from voxline.pipeline.clock import Wait
from voxline.pipeline.frames import Frame, LLMRequestFrame, Message, TextFrame, ToolCallFrame, ToolResultFrame
from voxline.pipeline.testing import Bench
from voxline.processors.llm.base import LLM, LLMLimits, LLMSettings, Piece, ToolSpec
from voxline.processors.service.base import settings_of

Step = Piece | Exception | float
"""Step of a scripted answer: a piece, an exception to raise, or a delay in ms; a negative number hangs."""


class Model(LLM):
    """Returns the next of ``answers`` for each request."""

    def __init__(self, *answers: Sequence[Step], tools: Sequence[Any] = (), **limits: Unpack[LLMLimits]) -> None:
        self.use_tools(tools)
        self.settings = settings_of("Model", LLMSettings, **{"attempts": 1, **limits})
        self.answers = list(answers)
        self.asked: list[list[Message]] = []
        self.told: list[Sequence[ToolSpec]] = []
        self.closed = 0

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        self.asked.append(list(messages))
        self.told.append(tools)
        try:
            for step in self.answers.pop(0) if self.answers else ():
                if isinstance(step, Exception):
                    raise step
                if isinstance(step, int | float):
                    if step < 0:
                        await Wait()
                    await self.clock.sleep(step / 1000)
                else:
                    yield step
        finally:
            self.closed += 1


def ask(*texts: str, speculative: bool = False) -> LLMRequestFrame:
    """A request: the user's messages."""
    return LLMRequestFrame(tuple(Message("user", text) for text in texts), speculative)


def texts(bench: Bench) -> list[str]:
    """Texts that the bot says."""
    return [frame.text for frame in bench.down if isinstance(frame, TextFrame)]


def calls(bench: Bench) -> list[ToolCallFrame | ToolResultFrame]:
    """Frames about tools that reach the session."""
    return [frame for frame in bench.up if isinstance(frame, ToolCallFrame | ToolResultFrame)]


def results(bench: Bench) -> dict[str, str]:
    """The results, by call. Fails where a call has two, or a result has no call before it."""
    found: dict[str, str] = {}
    begun: set[str] = set()
    for frame in calls(bench):
        if isinstance(frame, ToolCallFrame):
            assert frame.call_id not in begun, frame
            begun.add(frame.call_id)
        else:
            assert frame.call_id in begun, frame
            assert frame.call_id not in found, frame
            found[frame.call_id] = frame.text
    return found


def kinds(frames: Sequence[Frame]) -> list[str]:
    """The names of their classes."""
    return [type(frame).__name__ for frame in frames]

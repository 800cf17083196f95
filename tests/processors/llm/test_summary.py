"""Bounds of the context, and summaries of the messages that do not fit."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from voxline.pipeline.frames import InputEndedFrame, LLMRequestFrame, Message
from voxline.pipeline.testing import Bench, Harness
from voxline.processors.llm.base import LLMSettings
from voxline.tests.processors.llm.rig import Model, texts

SYSTEM = Message("system", "Be kind.")


class Talk:
    """A conversation: each turn asks, with all that was said before."""

    def __init__(self, bench: Bench, model: Model) -> None:
        self.bench, self.model = bench, model
        self.history: list[Message] = [SYSTEM]

    async def turn(self, text: str) -> list[Message]:
        """Ask, and return the context of the request."""
        self.history.append(Message("user", text))
        before = len(texts(self.bench))
        await self.bench.send(LLMRequestFrame(tuple(self.history)))
        self.history.append(Message("assistant", " ".join(texts(self.bench)[before:])))
        return self.model.asked[-1]


class Writer:
    """Makes summaries, in ``ms``."""

    def __init__(self, model: Model, ms: float = 1_000, error: Exception | None = None) -> None:
        self.model, self.ms, self.error = model, ms, error
        self.asked: list[list[Message]] = []
        model.summarize = self.write

    async def write(self, messages: Sequence[Message]) -> str:
        self.asked.append(list(messages))
        await self.model.clock.sleep(self.ms / 1000)
        if self.error is not None:
            raise self.error
        return f"S{len(self.asked)}"


async def talk(harness: Harness, model: Model) -> Talk:
    return Talk(await harness(model), model)


def answers(count: int = 30) -> list[list[str]]:
    return [[f"answer {number}"] for number in range(count)]


async def test_the_model_is_told_the_newest_messages_only(harness: Harness):
    talking = await talk(harness, Model(*answers(), max_context_messages=4))
    for number in range(4):
        await talking.turn(f"question {number}")
    told = await talking.turn("question 4")
    assert [one.text for one in told] == ["Be kind.", "question 3", "answer 3", "question 4"]


async def test_an_interruption_is_noted_and_the_note_is_a_setting(harness: Harness):
    for note in (LLMSettings().cut_note, ""):
        model = Model(["Fine."], cut_note=note)
        bench = await harness(model)
        cut = Message("assistant", "Once upon", cut=True)
        await bench.send(LLMRequestFrame((cut, Message("user", "stop"))))
        told = [Message("system", note)] if note else []
        assert model.asked[0] == [cut, *told, Message("user", "stop")]


async def test_a_summary_is_made_after_an_answer_and_no_turn_waits_for_it(harness: Harness):
    model = Model(*answers(), max_context_messages=8)
    writer = Writer(model)
    talking = await talk(harness, model)
    for number in range(4):
        await talking.turn(f"question {number}")
    # 7 of 8 messages: more than three quarters.
    assert [one.text for one in writer.asked[0]] == ["question 0", "answer 0", "question 1", "answer 1"]
    told = await talking.turn("question 4")
    assert [one.text for one in told] == [
        "Be kind.", "question 1", "answer 1", "question 2", "answer 2", "question 3", "answer 3", "question 4",
    ]  # fmt: skip
    assert len(writer.asked) == 1
    await talking.bench.advance(1_000)
    told = await talking.turn("question 5")
    assert [one.text for one in told] == [
        "Be kind.", "What was said before, in short: S1",
        "question 2", "answer 2", "question 3", "answer 3", "question 4", "answer 4", "question 5",
    ]  # fmt: skip


async def test_the_next_summary_is_made_with_the_last_one(harness: Harness):
    model = Model(*answers(), max_context_messages=8)
    writer = Writer(model, ms=0)
    talking = await talk(harness, model)
    for number in range(20):
        told = await talking.turn(f"question {number}")
        assert len([one for one in told if one.role != "system"]) <= 8
        assert told[-1].text == f"question {number}"
    assert len(writer.asked) > 3
    assert writer.asked[1][0] == Message("system", "S1")
    # Nothing is summarised twice, and nothing is left out.
    summarised = [one.text for messages in writer.asked for one in messages if one.role != "system"]
    assert summarised == [one.text for one in talking.history[1:]][: len(summarised)]


async def test_a_summary_that_fails_is_tried_again_after_the_next_answer(
    harness: Harness, caplog: pytest.LogCaptureFixture
):
    model = Model(*answers(), max_context_messages=4)
    writer = Writer(model, ms=0, error=ValueError("question 0 is secret"))
    talking = await talk(harness, model)
    for number in range(4):
        await talking.turn(f"question {number}")
    assert len(writer.asked) == 3
    assert "summarize failed with ValueError" in caplog.text
    assert "secret" not in caplog.text
    writer.error = None
    await talking.turn("question 4")
    told = await talking.turn("question 5")
    assert told[1].text == "What was said before, in short: S4"


async def test_a_summary_that_hangs_is_given_up(harness: Harness):
    model = Model(*answers(), max_context_messages=4, summary_timeout_s=5)
    writer = Writer(model, ms=60_000)
    talking = await talk(harness, model)
    for number in range(3):
        await talking.turn(f"question {number}")
    assert len(writer.asked) == 1
    await talking.bench.advance(5_000)
    await talking.turn("question 3")
    assert len(writer.asked) == 2


async def test_the_end_does_not_wait_for_a_summary(harness: Harness):
    model = Model(*answers(), max_context_messages=4)
    writer = Writer(model, ms=10_000)
    talking = await talk(harness, model)
    for number in range(3):
        await talking.turn(f"question {number}")
    assert len(writer.asked) == 1
    await talking.bench.send(InputEndedFrame())
    assert talking.bench.down[-1] == InputEndedFrame()
    await talking.turn("goodbye")
    assert len(writer.asked) == 1
    assert not model.call_ledger.running
    assert talking.bench.clock.next_ns is None


async def test_another_conversation_has_no_part_of_the_summary(harness: Harness):
    model = Model(*answers(), max_context_messages=4)
    writer = Writer(model, ms=0)
    talking = await talk(harness, model)
    for number in range(4):
        await talking.turn(f"question {number}")
    count = len(writer.asked)
    talking.history = [SYSTEM]
    assert await talking.turn("who are you") == [SYSTEM, Message("user", "who are you")]
    for number in range(3):
        await talking.turn(f"other {number}")
    assert count
    assert writer.asked[count][0] == Message("user", "who are you")

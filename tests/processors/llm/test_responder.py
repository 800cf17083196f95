"""The responder by rule."""

import pytest
from voxline.pipeline import LLMRequestFrame, Message, ResponseEndFrame, TextFrame
from voxline.pipeline.testing import Harness
from voxline.processors import RuleResponder


def asks(*texts: str) -> LLMRequestFrame:
    return LLMRequestFrame(tuple(Message("user", text) for text in texts))


async def test_each_sentence_is_a_text_of_its_own(harness: Harness):
    bench = await harness(RuleResponder(lambda words: f"You said {words}. Did you? Yes!  I am 3.5 m away"))
    await bench.send(asks("hello", "stop"))
    assert bench.down == [
        TextFrame("You said stop."),
        TextFrame("Did you?"),
        TextFrame("Yes!"),
        TextFrame("I am 3.5 m away"),
        ResponseEndFrame(),
    ]


@pytest.mark.parametrize("answer", ["", "  "])
async def test_no_answer_is_a_response_without_a_text(harness: Harness, answer: str):
    bench = await harness(RuleResponder(lambda _: answer))
    await bench.send(asks("hello"))
    assert bench.down == [ResponseEndFrame()]


async def test_a_request_without_a_user_asks_about_nothing(harness: Harness):
    asked: list[str] = []

    def reply(words: str) -> str:
        asked.append(words)
        return "Yes?"

    bench = await harness(RuleResponder(reply))
    await bench.send(LLMRequestFrame((Message("assistant", "Hello."),)))
    assert asked == [""]


async def test_a_rule_that_raises_ends_the_response_and_says_so_and_the_next_is_answered(harness: Harness):
    bench = await harness(RuleResponder(lambda words: str(1 / len(words))))
    await bench.send(asks(""))
    bench.expect_error("division by zero", error="ZeroDivisionError", processor="RuleResponder")
    assert bench.down == [ResponseEndFrame()]
    await bench.send(asks("ab"))
    assert bench.down[1:] == [TextFrame("0.5"), ResponseEndFrame()]

"""`conversation` and `Fallback`: what is easily mistaken is told at once, and the parts stand in their order."""

import re
from collections.abc import AsyncGenerator
from typing import Any

import pytest
from voxline.pipeline import Pipeline, SettingsError, TextFrame
from voxline.pipeline.testing import Harness
from voxline.processors import (
    TTS,
    Fallback,
    RuleResponder,
    ScriptedLLM,
    ScriptedSTT,
    ScriptedTTS,
    SessionController,
    SpeechChunk,
    State,
    TurnDetector,
    conversation,
)
from voxline.processors.vad.base import EnergyVAD
from voxline.transports.memory import MemoryTransport


class Sure:
    """A turn model."""

    async def probability(self, audio: Any) -> float:
        return 1.0


def parts(**others: Any) -> dict[str, Any]:
    return {"llm": ScriptedLLM(["Hi."]), "stt": ScriptedSTT([]), "tts": ScriptedTTS(), "vad": EnergyVAD(), **others}


def test_the_parts_stand_in_the_usual_order_and_can_be_taken_apart():
    talk = conversation(MemoryTransport(), **parts(turns=Sure()), greeting="Hello.")
    kinds = [part.name or type(part).__name__ for part in talk.elements]
    assert kinds == [
        "MemoryInput", "EnergyVAD", "TurnDetector", "ScriptedSTT", "SessionController", "ScriptedLLM", "ScriptedTTS",
        "MemoryOutput",
    ]  # fmt: skip
    assert talk.session.data.settings.greeting == "Hello."
    without = Pipeline([part for part in talk.elements if not isinstance(part, TurnDetector)])
    assert len(without.elements) == 7


def test_a_function_stands_for_a_model_and_a_controller_may_be_your_own():
    controller = SessionController(greeting="Hello.")
    talk = conversation(MemoryTransport(), **parts(llm=str.upper), session=controller)
    assert talk.controller is controller
    assert any(isinstance(part, RuleResponder) for part in talk.elements)
    assert talk.session.state is State.IDLE
    with pytest.raises(
        SettingsError, match="greeting are settings of a session, but session= is a SessionController: pass"
    ):
        conversation(MemoryTransport(), **parts(), session=SessionController(), greeting="Hi.")


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"llm": "gpt-4"}, "llm is a language model, as in llm=OpenAILLM(...), or a function"),
        ({"llm": ScriptedLLM}, "llm is a language model"),
        ({"tools": [len]}, "tools belong to the model"),
        ({"tss": 1}, "conversation() has no tss. Did you mean tts?"),
        ({"greetings": "x"}, "did you mean greeting?"),
    ],
)
def test_what_is_easily_mistaken_is_told_at_once(wrong: dict[str, Any], message: str):
    with pytest.raises(SettingsError, match=re.escape(message)):
        conversation(MemoryTransport(), **parts(**wrong))


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ([], "the list is empty"),
        (ScriptedTTS(), "takes a list"),
        ([ScriptedTTS], "not the class ScriptedTTS"),
        ([ScriptedTTS(), ScriptedLLM([])], "not ScriptedTTS, ScriptedLLM"),
    ],
)
def test_a_fallback_of_what_cannot_be_says_what_it_takes(members: Any, message: str):
    with pytest.raises(SettingsError, match=re.escape(message)):
        Fallback(members)


async def test_an_adapter_that_returns_instead_of_yielding_is_an_error(harness: Harness):
    class Returns(TTS):
        async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:  # pyright: ignore[reportIncompatibleMethodOverride]
            return []  # type: ignore[return-value]

    bench = await harness(Returns())
    await bench.send(TextFrame("Ten."))
    bench.expect_error("Returns returns instead of yielding", error="BadRequestError")

"""A voice assistant: a language model that speaks the OpenAI protocol, with two tools, a calculator and timers.

    OPENAI_API_KEY=... voxline run examples/assistant.py --input me.wav --output talk.wav

It hears and speaks offline. With a server of your own (here: Ollama's) it needs no key, and no network at all:

    OPENAI_BASE_URL=http://127.0.0.1:11434/v1 ASSISTANT_MODEL=llama3.2 voxline run examples/assistant.py --input me.wav

With ASSISTANT_SPEECH=hosted the same server hears and speaks, too; what it cannot do is done offline.
Needs the extras `openai` and `speech`.
"""

import ast
import math
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass

from voxline.pipeline import FrameProcessor, InputFrame, Pipeline, SettingsError, handles
from voxline.processors import EspeakTTS, Fallback, PocketSphinxSTT, Session, ToolError, conversation
from voxline.processors.openai import OpenAILLM, OpenAISTT, OpenAITTS
from voxline.transports.base import Transport

INSTRUCTIONS = """You are a voice assistant. What you write is spoken, so answer in one or two short sentences.
Calculate with the tool, never by yourself. What you hear was recognised by a machine: if it makes no sense, ask."""
NO_KEY = """There is no language model to ask. Set OPENAI_API_KEY; or OPENAI_BASE_URL and ASSISTANT_MODEL, for \
a server of your own, such as http://127.0.0.1:11434/v1 for Ollama."""

OPERATORS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: float.__add__,
    ast.Sub: float.__sub__,
    ast.Mult: float.__mul__,
    ast.Div: float.__truediv__,
}
"""No powers: 9**9**9 would never end."""
LONGEST_CHARS = 200


async def calculate(expression: str) -> str:
    """Calculates: numbers with + - * / and brackets, such as "(3 + 4) * 12.5"."""
    if len(expression) > LONGEST_CHARS:
        raise ToolError(f"That is too long. {LONGEST_CHARS} characters are allowed.")
    try:
        value = value_of(ast.parse(expression.strip(), mode="eval").body)
        if not math.isfinite(value):
            raise OverflowError
        return f"{value:.10g}"
    except (SyntaxError, ValueError, ArithmeticError):
        raise ToolError("That has no value. Give numbers, + - * / and brackets, and divide nothing by 0.") from None


def value_of(node: ast.expr) -> float:
    """The value of an expression in which there is nothing but numbers. Raises ValueError for anything else."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return float(number)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in OPERATORS:
            return OPERATORS[type(op)](value_of(left), value_of(right))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -value_of(operand)
        case _:
            raise ValueError(ast.dump(node))


@dataclass(frozen=True, slots=True)
class TimerOverFrame(InputFrame):
    """It is time."""

    name: str


class Timers(FrameProcessor):
    """Sets timers for the model, and says when they are over. ``session`` is to be set."""

    session: Session

    async def set_timer(self, seconds: float, name: str = "") -> str:
        """Sets a timer. The user is told when it is over.

        Args:
            seconds: How long it runs.
            name: What it is for, in a word: "tea".
        """
        if not 0 < seconds <= 86_400:
            raise ToolError("A timer runs for more than 0 s, and for at most a day.")
        self.post_after(1_000 * seconds, TimerOverFrame(name))
        return "set"

    @handles(TimerOverFrame)
    async def ring(self, frame: TimerOverFrame) -> None:
        """Say it as soon as both sides are silent."""
        self.session.say(f"The timer for {frame.name} is over." if frame.name else "Your timer is over.")


def make_pipeline(transport: Transport) -> Pipeline:
    """The bot: `voxline run` looks for this."""
    if not (os.environ.get("OPENAI_API_KEY") or os.environ.get("OPENAI_BASE_URL")):
        raise SettingsError(NO_KEY)
    hosted = os.environ.get("ASSISTANT_SPEECH") == "hosted"
    timers = Timers()
    talk = conversation(
        transport,
        llm=OpenAILLM(os.environ.get("ASSISTANT_MODEL", "gpt-4.1-mini"), tools=[calculate, timers.set_timer]),
        stt=Fallback([OpenAISTT(language="en"), PocketSphinxSTT()]) if hosted else PocketSphinxSTT(),
        tts=Fallback([OpenAITTS(), EspeakTTS()]) if hosted else EspeakTTS(),
        instructions=INSTRUCTIONS,
        greeting="Hello, what can I do for you?",
        apology="Sorry, something went wrong. Could you say that again?",
    )
    timers.session = talk.session
    return Pipeline([talk, timers])


if __name__ == "__main__":
    from voxline.cli import main

    raise SystemExit(main(["run", __file__, *sys.argv[1:]]))

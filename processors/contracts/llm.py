"""The contract of language models."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Any, ClassVar

from ...pipeline.frames import LLMRequestFrame, Message, ResponseEndFrame, TextFrame, ToolCall
from ...pipeline.testing.harness import Bench
from ..llm.base import LLM, Piece, ToolSpec, Usage
from .common import PATIENCE_S, Suite
from .lab import Ask, Lab, until_quiet

WEATHER = ToolSpec(
    "get_weather",
    "Tells the weather in a town.",
    '{"type": "object", "properties": {"town": {"type": "string"}}, "required": ["town"]}',
)
_CALL = ToolCall("call-1", "get_weather", '{"town": "Ulm"}')


def _odd(question: str) -> dict[str, tuple[Message, ...]]:
    user = Message("user", question)
    call, result = Message("assistant", "", calls=(_CALL,)), Message("tool", "rain", call_id="call-1")
    return {
        "an empty text": (Message("user", ""),),
        "emoji": (Message("user", "😀👩‍👩‍👧"),),
        "lines": (Message("user", "One.\n\n\tTwo.\r\n"),),
        "very long": (Message("user", "All work and no play. " * 2_000),),
        "nothing but the system": (Message("system", "Be brief."),),
        "the bot spoke last": (user, Message("assistant", "Well, let me", cut=True)),
        "two of the user in a row": (user, user),
        "calls and their results": (user, call, result, user),
    }


async def check_llm(
    make: Callable[[], LLM[Any]],
    *,
    question: str = "Please count from one to twenty, in words.",
    tool_question: str = "",
    break_: Callable[[Any], Any] | None = None,
    cannot_connect: Callable[[], LLM[Any]] | None = None,
    secrets: Sequence[str] = (),
    patience_s: float = PATIENCE_S,
) -> None:
    """Check a language model. Raises `ContractFailure`.

    ``make`` gives a fresh one, not connected. ``question``: one with an answer of at least three pieces, that is about
    as long each time. ``tool_question``: one at which it calls the tool ``get_weather(town)``; empty for a model that
    calls none. The rest is as for `check_tts`.
    """
    await _LLMSuite(
        make, question, tool_question, break_=break_, cannot_connect=cannot_connect, secrets=secrets,
        patience_s=patience_s,
    ).check()  # fmt: skip


class _LLMSuite(Suite[LLM[Any]]):
    kind: ClassVar[str] = "a language model"
    pieces: ClassVar[tuple[type, ...]] = (str, ToolCall, Usage)

    def __init__(self, make: Callable[[], LLM[Any]], question: str, tool_question: str, **options: Any) -> None:
        super().__init__(make, **options)
        self.question = question
        self.tool_question = tool_question

    def sample(self) -> Ask:
        """The question."""
        return self.asking(Message("user", self.question))

    def long(self) -> Ask:
        """The same."""
        return self.sample()

    def asking(self, *messages: Message, tools: Sequence[ToolSpec] = ()) -> Ask:
        """A conversation."""

        def ask(adapter: LLM[Any]) -> AsyncGenerator[Piece]:
            return adapter.complete(messages, tools)

        return ask

    def amount(self, pieces: Sequence[Piece]) -> float:
        """Characters."""
        return sum(len(piece) for piece in pieces if isinstance(piece, str))

    def spoken(self) -> Sequence[str]:
        """The question."""
        return (self.question,)

    async def rules(self) -> None:
        """Pieces, calls, odd conversations."""
        async with self.lab(self.fresh()) as lab:
            self.rule = "an answer is text, whole calls, and at most one Usage"
            pieces = await lab.good(self.sample())
            self._pieces(pieces)
            self.expect(self.amount(pieces) > 0, "some text", "none")
            self.rule = "without tools, none is called"
            self.expect(not any(isinstance(piece, ToolCall) for piece in pieces), "no call", "one")
            if self.tool_question:
                await self._calls(lab)
            for what, messages in _odd(self.question).items():
                await self.odd(what, self.asking(*messages), lab)
        await self._in_a_pipeline()

    def _pieces(self, pieces: Sequence[Any]) -> None:
        usage = [piece for piece in pieces if isinstance(piece, Usage)]
        self.expect(len(usage) <= 1, "one Usage", f"{len(usage)}")
        self.expect(all(one.input_tokens >= 0 <= one.output_tokens for one in usage), "numbers of tokens", usage)

    async def _calls(self, lab: Lab) -> None:
        self.rule = "a call is one of the given tools, with an id of its own and arguments that are a JSON object"
        pieces = await lab.good(self.asking(Message("user", self.tool_question), tools=(WEATHER,)))
        self._pieces(pieces)
        calls = [piece for piece in pieces if isinstance(piece, ToolCall)]
        self.expect(bool(calls), "a call of get_weather", "none")
        ids = [call.call_id for call in calls]
        self.expect(all(ids) and len(set(ids)) == len(ids), "ids of their own", ids)
        for call in calls:
            self.expect(call.name == WEATHER.name, WEATHER.name, call.name)
            try:
                arguments = json.loads(call.arguments)
            except ValueError:
                arguments = None
            self.expect(isinstance(arguments, dict), "arguments that are a JSON object", call.arguments)

    async def _in_a_pipeline(self) -> None:
        self.rule = "in a pipeline, a request has text and one end of the response"
        bench = Bench(self.fresh(), patience_s=self.patience_s)
        await bench.start()
        try:
            await bench.send(LLMRequestFrame((Message("user", self.question),)))
            await until_quiet(bench)
            errors = [error.message for error in bench.errors]
            self.expect(not errors, "no error", " ".join(errors))
            self.expect(any(isinstance(frame, TextFrame) for frame in bench.down), "text", "none")
            ends = bench.down.count(ResponseEndFrame())
            self.expect(ends == 1 and bench.down[-1] == ResponseEndFrame(), "one end, at the end", f"{ends}")
        finally:
            await bench.stop()

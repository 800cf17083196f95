"""The base of language models: a conversation in, text and calls of tools out.

An adapter is `LLM.complete`::

    class Parrot(LLM):
        async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
            yield messages[-1].text

It yields text as it comes, each `ToolCall` when its arguments are whole, and at most one `Usage`. Tools are run here,
and the model is asked again with their results; deadlines, further attempts and a `Fallback` are here, too.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any, ClassVar, cast

from pydantic import Field
from typing_extensions import TypeVar

from ...pipeline.errors import BadAnswerError, ServiceError
from ...pipeline.frames import (
    UPSTREAM,
    Frame,
    InputEndedFrame,
    LLMRequestFrame,
    Message,
    ResponseEndFrame,
    TextFrame,
    ToolCall,
    UrgentFrame,
    UsageFrame,
)
from ...pipeline.processor import handles
from ...pipeline.tasks import Deadline
from ..service.base import Limits, Service, ServiceCall, ServiceSettings, require_generator
from ..text.sentences import SentenceCutter
from ..tools.ledger import Call
from ..tools.running import RunsTools, SayOnce
from ..tools.tool import Tool, ToolLike, ToolSpec
from .context import Bounds, Summary, estimate_tokens, repaired, summarised, told_cuts, trimmed

__all__ = ["LLM", "LLMLimits", "LLMSettings", "Piece", "ToolSpec", "Usage"]

log = logging.getLogger(__name__)

MAX_COVERED = 2_000
"""A summary knows of so many messages that they are in it: more than any history has that is told to a model."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What a model has counted for one request."""

    input_tokens: int
    output_tokens: int


Piece = str | ToolCall | Usage
"""What an answer is made of: text as it comes, whole calls of tools, and what was counted."""


class LLMSettings(ServiceSettings):
    """What every model can be told."""

    continue_prompt: str = "Go on exactly where your last message stops. Repeat nothing of it."
    """Asked, as the system, of a model that is to go on with an answer in whose middle another one failed."""
    max_rounds: int = Field(default=8, ge=1)
    """How often it may be asked for one answer: tools, their results, tools again. Then the answer has failed."""
    cut_note: str = "The user interrupted your last message here, and heard nothing of it after this."
    """Told, as the system, behind a message in which it was interrupted; empty for not at all."""
    max_context_messages: int | None = Field(default=None, ge=1)
    """So many of the newest messages it is told, those of the system not counted. None: all."""
    max_context_tokens: int | None = Field(default=None, ge=1)
    """So many tokens it is told, as `LLM.count_tokens` counts, of the newest messages and of the system's."""
    summary_prefix: str = "What was said before, in short: "
    """What the summary of the messages that it is not told begins with. See `LLM.summarize`."""
    summary_timeout_s: float = Field(default=20.0, gt=0)
    """How long a summary may take; the end of a pipeline waits for it, unless the input has ended."""


class LLMLimits(Limits, total=False):
    """The fields of `LLMSettings`, for the constructors of adapters."""

    continue_prompt: str
    max_rounds: int
    cut_note: str
    max_context_messages: int | None
    max_context_tokens: int | None
    summary_prefix: str
    summary_timeout_s: float


@dataclass(frozen=True, slots=True)
class SummarizeFrame(UrgentFrame):
    """`LLM`'s own: these are to be summarised, beside the pipeline."""

    messages: tuple[Message, ...]


S = TypeVar("S", bound=LLMSettings, default=LLMSettings)


class LLM(Service[S], RunsTools):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Answers every `LLMRequestFrame` with a `TextFrame` for each sentence, as soon as that is complete.

    Where a model fails in the middle, the next attempt (or the next member of a `Fallback`) is told what was given
    out already, with the results of tools, and goes on from there. Where all have failed, the response ends and an
    `ErrorFrame` says why.

    ``tools``: functions and `Tool`s that the model may call; they run beside the pipeline, see `RunsTools`. An
    adapter with a constructor of its own need not call this one: it takes ``tools`` too, and calls
    ``self.use_tools(tools)``. Of a `Fallback`, the members' tools are offered whoever is asked.
    """

    kind: ClassVar[str] = "llm"
    settings = cast(S, LLMSettings())
    sentences: bool = True
    """False: each piece of text is a `TextFrame` of its own, as it comes."""
    count_tokens: Callable[[str], int] = staticmethod(estimate_tokens)
    """How many tokens a text has, for ``max_context_tokens``: set it to what your model counts with. Quick."""
    summarize: Callable[[Sequence[Message]], Awaitable[str]] | None = None
    """Set it, and what no longer fits into the context is told to the model in short: an async function from the
    oldest messages (an earlier summary first, as the system) to a text. It is called after an answer, beside the
    pipeline, when three quarters of the context are in use; no turn waits for it.
    """

    _summary: Summary | None = None
    _summarizing = False
    _summary_deadline: Deadline | None = None
    _input_ended = False

    def __init__(self, *, tools: Iterable[ToolLike] = ()) -> None:
        self.use_tools(tools)

    def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        """Answer a conversation: an async generator. Raises `ServiceError`. Being closed, it stops the model.

        Each call among ``messages`` is followed by its results, in order, and the arguments are JSON objects.
        """
        raise NotImplementedError

    async def start(self) -> None:
        """Connect. Of an earlier run it knows what was called and said, and not where that was."""
        self._input_ended = self._summarizing = False
        await RunsTools.start(self)
        await super().start()

    async def stop(self) -> None:
        """Disconnect, and end what tools still do."""
        self.end_calls()
        await super().stop()

    def offered_tools(self) -> Mapping[str, Tool]:
        """Its tools, and those of its members; of two with the same name the first."""
        found = dict(self.tools)
        for member in self.members():
            if isinstance(member, LLM):
                found = {**member.tools, **found}
        return found

    @handles(LLMRequestFrame)
    async def respond(self, frame: LLMRequestFrame) -> AsyncIterator[Frame]:
        """Answer a request."""
        answer = Answer(self, frame)
        try:
            async with aclosing(answer.texts()) as texts:
                async for text in texts:
                    yield TextFrame(text)
        except ServiceError as error:
            # Its tools may run on, but what they say has no place any more.
            self._over_response = self.response
            # Before the end of the response: who hears of that has to know that it has failed.
            await self.push_error(error, LLMRequestFrame.__name__)
            yield ResponseEndFrame()
            return
        yield ResponseEndFrame()
        self._consider_summary([*frame.messages, Message("assistant", answer.text)])

    # --- the context --------------------------------------------------------------------------------------------------

    def context(self, messages: Sequence[Message]) -> list[Message]:
        """What the model is told of a conversation: calls with their results, not more than fits, and cuts."""
        rules = self.settings
        told, _ = summarised(repaired(messages), self._summary, rules.summary_prefix)
        return told_cuts(trimmed(told, self._bounds())[0], rules.cut_note)

    def _bounds(self, share: float = 1.0) -> Bounds:
        """The bounds of the context, or a share of them."""
        most, tokens = self.settings.max_context_messages, self.settings.max_context_tokens
        return Bounds(
            None if most is None else max(1, int(most * share)),
            None if tokens is None else max(1, int(tokens * share)),
            self.count_tokens,
        )

    def _consider_summary(self, messages: Sequence[Message]) -> None:
        """See whether the context is nearly full; then the older half of it is to be summarised."""
        if self.summarize is None or self._summarizing or self._input_ended:
            return
        told, covered = summarised(repaired(messages), self._summary, self.settings.summary_prefix)
        if not covered:
            self._summary = None
        if trimmed(told, self._bounds(0.75))[1]:
            dropped = trimmed(told, self._bounds(0.5))[1]
            self._summarizing = True
            self.post(SummarizeFrame(tuple(dropped)))

    @handles(SummarizeFrame)
    async def make_summary(self, frame: SummarizeFrame) -> AsyncIterator[Frame]:
        """Have messages summarised. Where that fails they are left out without one, and it is tried again."""
        limit_s = self.settings.summary_timeout_s
        before = self._summary
        known = [] if before is None else [Message("system", before.text)]
        late = TimeoutError(f"There was no summary within {limit_s:g} s.")
        try:
            if self.summarize is not None and not self._input_ended:
                with Deadline(self.clock, limit_s, lambda: late) as self._summary_deadline:
                    text = await self.summarize([*known, *frame.messages])
                if text.strip():
                    covered = (*(() if before is None else before.covers), *frame.messages)
                    self._summary = Summary(text, covered[-MAX_COVERED:])
        except Exception as error:
            log.warning("%s: summarize failed with %s", self.path, type(error).__name__)
            log.debug("%s: summarize failed", self.path, exc_info=error)
        finally:
            self._summarizing, self._summary_deadline = False, None
        for nothing in ():
            yield nothing

    @handles(InputEndedFrame)
    async def forget_summaries(self, frame: InputEndedFrame) -> None:
        """The conversation ends: it does not wait for a summary that nobody will need."""
        self._input_ended = True
        if self._summary_deadline is not None:
            self._summary_deadline.fail(lambda: TimeoutError("The conversation has ended."))
        await self.push(frame)


class Answer:
    """An answer under way: rounds of a model and tools, each with its attempts."""

    def __init__(self, llm: LLM[Any], request: LLMRequestFrame) -> None:
        self._llm = llm
        self._request = request
        self._response = llm.response
        self._messages = llm.context(request.messages)
        """What the model is told: the conversation, and the rounds that are over."""
        self._taken = {call.call_id for message in request.messages for call in message.calls}
        self._tools = llm.offered_tools()
        self._specs = tuple(tool.spec for tool in self._tools.values())
        self.text = ""
        """All that was given out."""
        self._given: list[str] = []
        """Of this round: what was given out, and what was called, by all attempts."""
        self._calls: list[Call] = []
        self._asked: set[ToolCall] = set()
        """Of this attempt: some servers send a call twice."""
        self._once = SayOnce()
        self._cutter = SentenceCutter()

    async def texts(self) -> AsyncGenerator[str]:
        """What is to be said. Raises `ServiceError`."""
        for number in range(1, self._llm.settings.max_rounds + 1):
            async with aclosing(self._round(last=number == self._llm.settings.max_rounds)) as texts:
                async for text in texts:
                    self.text += text
                    yield text
            if not self._calls:
                return
            await self._close_round()

    async def _round(self, *, last: bool) -> AsyncGenerator[str]:
        """Ask once, through all attempts."""
        llm = self._llm
        asking: ServiceCall[Piece] = ServiceCall(llm, lambda member: self._attempt(member, asking))
        chars = 0
        try:
            async with aclosing(asking.answer()) as pieces:
                async for piece in pieces:
                    if isinstance(piece, Usage):
                        await llm.push(UsageFrame(piece.input_tokens, piece.output_tokens), UPSTREAM)
                        continue
                    if isinstance(piece, str):
                        texts = self._cutter.add(piece) if llm.sentences else [piece]
                    else:
                        # What was said before a call is said at once: nothing that follows could change it.
                        texts, self._cutter = self._cutter.end(), SentenceCutter()
                    for text in texts:
                        self._given.append(text)
                        chars += len(text)
                        yield text
                    if isinstance(piece, ToolCall):
                        await self._call(asking, piece, last=last)
            for text in self._cutter.end():
                self._given.append(text)
                chars += len(text)
                yield text
        except ServiceError:
            await llm.push_metrics(asking, chars, self._response)
            raise
        await llm.push_metrics(asking, chars, self._response)

    async def _attempt(self, member: LLM[Any], asking: ServiceCall[Piece]) -> AsyncGenerator[Piece]:
        """Ask one model once: about the conversation, or for the rest of an answer that another one began."""
        self._cutter = SentenceCutter()
        self._asked.clear()
        if self._calls:
            # Tools run already, for a model that has failed since. They are not asked for again.
            if asking.deadline is not None:
                asking.deadline.pause()
            await self._close_round()
            if asking.deadline is not None:
                asking.deadline.resume()
        messages = [*self._messages]
        if self._given:
            given = Message("assistant", "".join(self._given), cut=True)
            messages += [given, Message("system", self._llm.settings.continue_prompt)]
        async with aclosing(require_generator(member, member.complete(messages, self._specs))) as pieces:
            async for piece in pieces:
                yield _checked(piece)

    async def _call(self, asking: ServiceCall[Piece], wanted: ToolCall, *, last: bool) -> None:
        """A tool is called."""
        if wanted.call_id and wanted in self._asked:
            return
        self._asked.add(wanted)
        if last:
            rounds = self._llm.settings.max_rounds
            raise BadAnswerError(
                f"{asking.answered_by} was asked {rounds} times for one answer (max_rounds), and wants tools still: "
                "do their results tell what is needed?"
            )
        await self._llm.committed(self._request)
        self._calls.append(self._llm.ask_tool(self._tools, wanted, self._once, self._taken))

    async def _close_round(self) -> None:
        """Wait for all results. From then on they belong to what the model is told."""
        results = [Message("tool", await self._llm.ended(call), call_id=call.call_id) for call in self._calls]
        said = [text for call in self._calls for text in call.said]
        text = " ".join(filter(None, ["".join(self._given).strip(), *said]))
        calls = tuple(ToolCall(call.call_id, call.name, call.arguments) for call in self._calls)
        self._messages += repaired([Message("assistant", text, calls=calls), *results])
        self._given, self._calls, self._once = [], [], SayOnce()


def _checked(piece: Piece) -> Piece:
    """Whatever a library gives: what is none must fail the attempt."""
    given: Any = piece
    if isinstance(given, ToolCall):
        whole = all(isinstance(part, str) for part in cast("list[Any]", [given.call_id, given.name, given.arguments]))
    elif isinstance(given, Usage):
        whole = all(isinstance(part, int) for part in cast("list[Any]", [given.input_tokens, given.output_tokens]))
    else:
        whole = isinstance(given, str)
    if not whole:
        raise BadAnswerError(f"A model gave what is no text, call or count: {type(given).__name__}.")
    return piece

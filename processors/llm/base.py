"""Base class of language models: conversations in, text and tool calls out.

An adapter implements `LLM.complete`::

    class Parrot(LLM):
        async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
            yield messages[-1].text

It yields text as it arrives, each `ToolCall` when its arguments are complete, and at most one `Usage`. The base class
runs the tools and asks the model again with their results. It also handles deadlines, retries and `Fallback`.
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
from .context import Bounds, Summary, estimate_tokens, repaired, trimmed, with_cut_notes, with_summary

__all__ = ["LLM", "LLMLimits", "LLMSettings", "Piece", "ToolSpec", "Usage"]

log = logging.getLogger(__name__)

MAX_COVERED = 2_000
"""Messages that a `Summary` records as covered. More than the longest history that a model gets."""


@dataclass(frozen=True, slots=True)
class Usage:
    """Token usage of one request, as counted by the model."""

    input_tokens: int
    output_tokens: int


Piece = str | ToolCall | Usage
"""Part of an answer: text as it arrives, a complete tool call, or the token usage."""


class LLMSettings(ServiceSettings):
    """Settings of every language model."""

    continue_prompt: str = "Go on exactly where your last message stops. Repeat nothing of it."
    """System message for a model that continues an answer after another attempt failed in its middle."""
    max_rounds: int = Field(default=8, ge=1)
    """Maximum number of requests for one answer, with tool calls between them. After that the answer fails."""
    cut_note: str = "The user interrupted your last message here, and heard nothing of it after this."
    """System message after each message in which the user interrupted the bot. Empty: none."""
    max_context_messages: int | None = Field(default=None, ge=1)
    """Number of newest messages in the context, without those of the system. None: all."""
    max_context_tokens: int | None = Field(default=None, ge=1)
    """Maximum number of tokens in the context, counted by `LLM.count_tokens`. None: no bound."""
    summary_prefix: str = "What was said before, in short: "
    """Start of the system message with the summary of dropped messages. See `LLM.summarize`."""
    summary_timeout_s: float = Field(default=20.0, gt=0)
    """Maximum time in s for a summary. The end of a pipeline waits for it, unless the input has ended."""


class LLMLimits(Limits, total=False):
    """Fields of `LLMSettings`, for the constructors of adapters."""

    continue_prompt: str
    max_rounds: int
    cut_note: str
    max_context_messages: int | None
    max_context_tokens: int | None
    summary_prefix: str
    summary_timeout_s: float


@dataclass(frozen=True, slots=True)
class SummarizeFrame(UrgentFrame):
    """Internal frame of `LLM`: starts a summary of these messages, beside the pipeline."""

    messages: tuple[Message, ...]


S = TypeVar("S", bound=LLMSettings, default=LLMSettings)


class LLM(Service[S], RunsTools):  # pyright: ignore[reportIncompatibleVariableOverride]
    """Answers every `LLMRequestFrame` with one `TextFrame` per sentence, as soon as the sentence is complete.

    If a model fails in the middle of an answer, the next attempt (or the next member of a `Fallback`) gets the text so
    far and the results of tools, and continues. If all attempts fail, the response ends with an `ErrorFrame`.

    ``tools``: functions and `Tool`s that the model may call; they run beside the pipeline, see `RunsTools`. An adapter
    with its own constructor need not call this one: it accepts ``tools`` and calls ``self.use_tools(tools)``. A
    `Fallback` offers the tools of all its members to each of them.
    """

    kind: ClassVar[str] = "llm"
    settings = cast(S, LLMSettings())
    sentences: bool = True
    """False: push each piece of text as a `TextFrame`, as it arrives."""
    count_tokens: Callable[[str], int] = staticmethod(estimate_tokens)
    """Token counter for ``max_context_tokens``. Replace it with the tokenizer of your model; it must be quick."""
    summarize: Callable[[Sequence[Message]], Awaitable[str]] | None = None
    """Optional async function from the oldest messages to a summary, for messages that no longer fit the context.

    The first message may be an earlier summary, as a system message. The function runs after an answer, beside the
    pipeline, when three quarters of the context are in use. No turn waits for it.
    """

    _summary: Summary | None = None
    _summarizing = False
    _summary_deadline: Deadline | None = None
    _input_ended = False

    def __init__(self, *, tools: Iterable[ToolLike] = ()) -> None:
        self.use_tools(tools)

    def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        """Answer a conversation, as an async generator. Closing it must stop the model. Raises `ServiceError`.

        Results directly follow the calls in ``messages``, in order. The arguments of calls are JSON objects.
        """
        raise NotImplementedError

    async def start(self) -> None:
        """Connect. The ledger and the summary of an earlier run remain; its response numbers do not."""
        self._input_ended = self._summarizing = False
        await RunsTools.start(self)
        await super().start()

    async def stop(self) -> None:
        """Cancel the open calls and disconnect."""
        self.end_calls()
        await super().stop()

    def offered_tools(self) -> Mapping[str, Tool]:
        """Return the tools of this service and of its members. The first of two tools with the same name wins."""
        found = dict(self.tools)
        for member in self.members():
            if isinstance(member, LLM):
                found = {**member.tools, **found}
        return found

    @handles(LLMRequestFrame)
    async def respond(self, frame: LLMRequestFrame) -> AsyncIterator[Frame]:
        """Answer a request."""
        answer = LLMAnswer(self, frame)
        try:
            async with aclosing(answer.texts()) as texts:
                async for text in texts:
                    yield TextFrame(text)
        except ServiceError as error:
            # The tools may continue, but they can no longer speak in this response.
            self._failed_response = self.response
            # The error precedes the end of the response, so that receivers of the end know of the failure.
            await self.push_error(error, LLMRequestFrame.__name__)
            yield ResponseEndFrame()
            return
        yield ResponseEndFrame()
        self._consider_summary([*frame.messages, Message("assistant", answer.text)])

    # --- the context --------------------------------------------------------------------------------------------------

    def context(self, messages: Sequence[Message]) -> list[Message]:
        """Build the context of a request: results follow their calls, old messages are dropped, cuts are noted."""
        rules = self.settings
        history, _ = with_summary(repaired(messages), self._summary, rules.summary_prefix)
        return with_cut_notes(trimmed(history, self._bounds())[0], rules.cut_note)

    def _bounds(self, share: float = 1.0) -> Bounds:
        """Return the bounds of the context, multiplied by ``share``."""
        most, tokens = self.settings.max_context_messages, self.settings.max_context_tokens
        return Bounds(
            None if most is None else max(1, int(most * share)),
            None if tokens is None else max(1, int(tokens * share)),
            self.count_tokens,
        )

    def _consider_summary(self, messages: Sequence[Message]) -> None:
        """Start a summary of the older half of the context if three quarters of the bounds are in use."""
        if self.summarize is None or self._summarizing or self._input_ended:
            return
        remaining, covered = with_summary(repaired(messages), self._summary, self.settings.summary_prefix)
        if not covered:
            self._summary = None
        if trimmed(remaining, self._bounds(0.75))[1]:
            dropped = trimmed(remaining, self._bounds(0.5))[1]
            self._summarizing = True
            self.post(SummarizeFrame(tuple(dropped)))

    @handles(SummarizeFrame)
    async def make_summary(self, frame: SummarizeFrame) -> AsyncIterator[Frame]:
        """Summarise messages. After a failure they are dropped without a summary, and a later answer tries again."""
        limit_s = self.settings.summary_timeout_s
        before = self._summary
        known = [] if before is None else [Message("system", before.text)]
        late = TimeoutError(f"summarize took longer than {limit_s:g} s.")
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
    async def cancel_summary(self, frame: InputEndedFrame) -> None:
        """Cancel a running summary at the end of the input: nobody will need it."""
        self._input_ended = True
        if self._summary_deadline is not None:
            self._summary_deadline.fail(lambda: TimeoutError("The conversation has ended."))
        await self.push(frame)


class LLMAnswer:
    """Answer to one request: rounds of the model and its tools, each with its attempts."""

    def __init__(self, llm: LLM[Any], request: LLMRequestFrame) -> None:
        self._llm = llm
        self._request = request
        self._response = llm.response
        self._messages = llm.context(request.messages)
        """Context for the model: the conversation, and the completed rounds."""
        self._taken = {call.call_id for message in request.messages for call in message.calls}
        self._tools = llm.offered_tools()
        self._specs = tuple(tool.spec for tool in self._tools.values())
        self.text = ""
        """Text that was pushed so far."""
        self._pushed: list[str] = []
        """Texts that all attempts of this round pushed."""
        self._calls: list[Call] = []
        """Calls that all attempts of this round started."""
        self._requested: set[ToolCall] = set()
        """Calls of this attempt: some servers send a call twice."""
        self._once = SayOnce()
        self._cutter = SentenceCutter()

    async def texts(self) -> AsyncGenerator[str]:
        """Yield the texts of the answer. Raises `ServiceError`."""
        for number in range(1, self._llm.settings.max_rounds + 1):
            async with aclosing(self._round(last=number == self._llm.settings.max_rounds)) as texts:
                async for text in texts:
                    self.text += text
                    yield text
            if not self._calls:
                return
            await self._close_round()

    async def _round(self, *, last: bool) -> AsyncGenerator[str]:
        """Ask for one round, with all attempts."""
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
                        # Text before a call is complete: no later letter can change its last sentence.
                        texts, self._cutter = self._cutter.end(), SentenceCutter()
                    for text in texts:
                        self._pushed.append(text)
                        chars += len(text)
                        yield text
                    if isinstance(piece, ToolCall):
                        await self._call(asking, piece, last=last)
            for text in self._cutter.end():
                self._pushed.append(text)
                chars += len(text)
                yield text
        except ServiceError:
            await llm.push_metrics(asking, chars, self._response)
            raise
        await llm.push_metrics(asking, chars, self._response)

    async def _attempt(self, member: LLM[Any], asking: ServiceCall[Piece]) -> AsyncGenerator[Piece]:
        """Make one attempt with one model, for a new answer or for the rest of one whose earlier attempt failed."""
        self._cutter = SentenceCutter()
        self._requested.clear()
        if self._calls:
            # An earlier attempt started these calls and then failed. Wait for their results; do not call again.
            if asking.deadline is not None:
                asking.deadline.pause()
            await self._close_round()
            if asking.deadline is not None:
                asking.deadline.resume()
        messages = [*self._messages]
        if self._pushed:
            partial = Message("assistant", "".join(self._pushed), cut=True)
            messages += [partial, Message("system", self._llm.settings.continue_prompt)]
        async with aclosing(require_generator(member, member.complete(messages, self._specs))) as pieces:
            async for piece in pieces:
                yield _checked(piece)

    async def _call(self, asking: ServiceCall[Piece], wanted: ToolCall, *, last: bool) -> None:
        """Start a tool call."""
        if wanted.call_id and wanted in self._requested:
            return
        self._requested.add(wanted)
        if last:
            rounds = self._llm.settings.max_rounds
            raise BadAnswerError(
                f"{asking.answered_by} still calls tools after {rounds} requests for one answer (max_rounds). "
                "Do the results of the tools contain what the model needs?"
            )
        await self._llm.committed(self._request)
        self._calls.append(self._llm.start_call(self._tools, wanted, self._once, self._taken))

    async def _close_round(self) -> None:
        """Wait for all results of the round and add them to the context."""
        results = [Message("tool", await self._llm.result_of(call), call_id=call.call_id) for call in self._calls]
        said = [text for call in self._calls for text in call.said]
        text = " ".join(filter(None, ["".join(self._pushed).strip(), *said]))
        calls = tuple(ToolCall(call.call_id, call.name, call.arguments) for call in self._calls)
        self._messages += repaired([Message("assistant", text, calls=calls), *results])
        self._pushed, self._calls, self._once = [], [], SayOnce()


def _checked(piece: Piece) -> Piece:
    """Validate a piece at run time, so that an invalid one fails the attempt."""
    given: Any = piece
    if isinstance(given, ToolCall):
        whole = all(isinstance(part, str) for part in cast("list[Any]", [given.call_id, given.name, given.arguments]))
    elif isinstance(given, Usage):
        whole = all(isinstance(part, int) for part in cast("list[Any]", [given.input_tokens, given.output_tokens]))
    else:
        whole = isinstance(given, str)
    if not whole:
        raise BadAnswerError(f"A model yielded {type(given).__name__} instead of str, ToolCall or Usage.")
    return piece

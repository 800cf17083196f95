"""Language model of the OpenAI protocol: streamed chat completions with tool calls."""

from __future__ import annotations

import json
import logging
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import aclosing
from typing import Any, Unpack

from pydantic import BaseModel, Field, ValidationError

from ...pipeline.errors import BadAnswerError, BadRequestError, ServiceDownError, ServiceError, ServiceTimeout
from ...pipeline.frames import Message, ToolCall
from ...pipeline.tasks import Deadline
from ..llm.base import LLM, LLMLimits, LLMSettings, Piece, Usage
from ..service.base import settings_of
from ..tools.tool import ToolLike, ToolSpec
from .client import OpenAIServer, OpenAIService, OpenAISettings
from .errors import RequestInfo, error_in, from_stream
from .sse import Event, events

log = logging.getLogger(__name__)

TRAILER_S = 0.5
"""Maximum time in s for the data after the end of an answer: the token usage and the end of the stream."""
MAX_CALLS = 128
"""Tool calls in one answer. More are treated as garbage."""
MAX_ARGUMENT_CHARS = 1 << 20
"""Characters in the arguments of one tool call."""


class OpenAILLMSettings(LLMSettings, OpenAISettings):
    """Settings of `OpenAILLM`."""

    temperature: float | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    extra_body: dict[str, Any] = Field(default_factory=dict[str, Any])


class OpenAILLM(OpenAIService, LLM[OpenAILLMSettings]):
    """Answers with a language model of OpenAI, or of any server that speaks its protocol (vLLM, Ollama, llama.cpp).

    ``model``: name of the model at the server. ``base_url``: ends in /v1 with most servers; the default is OpenAI.
    ``api_key``: the default is the environment variable OPENAI_API_KEY; a server on this machine or in a private
    network needs none. ``temperature`` and ``max_tokens``: not sent if None. ``extra_body``: additional fields of the
    request, such as ``{"top_p": 0.9}``. ``tools``: functions that the model may call, see `LLM`. ``check``: ask for the
    list of models before the first frame flows, so that a wrong key, address or model fails there. ``headers`` are sent
    with each request; ``http_client`` is an ``httpx.AsyncClient`` of the caller. ``limits``: deadlines and attempts,
    see `LLMSettings`.

    Raise ``first_timeout_s`` for a reasoning model: its silent thinking time counts against that deadline.

    Raises `MissingExtraError` without the package, and `SettingsError`. Failures at the server are `ServiceError`s.
    Their messages never contain the key, the conversation or the server's own text.
    """

    settings: OpenAILLMSettings

    def __init__(
        self,
        model: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        temperature: float | None = None,
        max_tokens: int | None = None,
        extra_body: Mapping[str, Any] | None = None,
        tools: Iterable[ToolLike] = (),
        headers: Mapping[str, str] | None = None,
        http_client: Any = None,
        check: bool = True,
        **limits: Unpack[LLMLimits],
    ) -> None:
        self.use_tools(tools)
        self.settings = settings_of(
            "OpenAILLM",
            OpenAILLMSettings,
            model=model,
            temperature=temperature,
            max_tokens=max_tokens,
            extra_body=dict(extra_body or {}),
            check=check,
            **limits,
        )
        self._server = OpenAIServer(
            "OpenAILLM", base_url=base_url, api_key=api_key, headers=headers, http_client=http_client
        )
        self._ask_usage = True
        """False if the server refuses ``stream_options``, which asks for the token usage."""
        self._newer_limit = False
        """True if the server wants ``max_completion_tokens``, the newer name of ``max_tokens``."""

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        """Answer a conversation. Closing the generator closes the connection, which stops the model."""
        while True:
            info = self._server.request_info(self.label, self.settings.model)
            try:
                async with aclosing(self._ask(info, messages, tools)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except BadRequestError:
                if not self._adapt(info.refused):
                    raise

    def _adapt(self, refused: set[str]) -> bool:
        """Drop or rename the refused parameters for all later requests. Return False if there is nothing to change."""
        if self._ask_usage and "stream_options" in refused:
            self._ask_usage = False
        elif self.settings.max_tokens is not None and not self._newer_limit and "max_completion_tokens" in refused:
            self._newer_limit = True
        else:
            return False
        return True

    async def _ask(
        self, info: RequestInfo, messages: Sequence[Message], tools: Sequence[ToolSpec]
    ) -> AsyncGenerator[Piece]:
        create = self._server.client.chat.completions.with_streaming_response.create
        request = self._request(messages, tools)
        answer = _ChatAnswer(info)
        async with self._server.translate_errors(info), create(**request, extra_headers=self._server.extra) as response:
            kind = str(response.headers.get("content-type", "")).lower()
            if kind.startswith(("application/json", "text/html")):
                raise _not_a_stream(info, await response.read(), kind)
            async with aclosing(events(response.iter_bytes())) as stream:
                async for event in stream:
                    for text in answer.add(event):
                        yield text
                    if answer.reason:
                        break
                for call in self._end(answer, info):
                    yield call
                await self._read_trailer(stream, answer)
        if answer.usage is not None:
            yield Usage(answer.usage.prompt_tokens, answer.usage.completion_tokens)

    def _request(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> dict[str, Any]:
        rules = self.settings
        request: dict[str, Any] = {
            "model": rules.model,
            "messages": [entry for message in messages if (entry := _entry(message)) is not None],
            "stream": True,
        }
        if self._ask_usage:
            request["stream_options"] = {"include_usage": True}
        if rules.temperature is not None:
            request["temperature"] = rules.temperature
        if rules.max_tokens is not None:
            request["max_completion_tokens" if self._newer_limit else "max_tokens"] = rules.max_tokens
        if tools:
            request["tools"] = [_tool(tool) for tool in tools]
        if rules.extra_body:
            request["extra_body"] = rules.extra_body
        return request

    def _end(self, answer: _ChatAnswer, info: RequestInfo) -> list[ToolCall]:
        """Return the tool calls of a complete answer. Raises `ServiceError` if the answer is incomplete."""
        limit = self.settings.max_tokens
        if not answer.reason:
            raise ServiceDownError(f"{info.label}: {info.host} stopped in the middle of an answer. Is it overloaded?")
        if answer.reason == "content_filter":
            raise BadRequestError(
                f"{info.label}: the content filter of {info.host} stopped an answer (content_filter)."
            )
        if answer.reason == "length":
            if answer.chars == 0 and not answer.calls:
                raise BadRequestError(
                    f"{info.label}: {info.model!r} reached the length limit ({limit or 'its own'}) before its "
                    "first word. Raise max_tokens, or reduce the reasoning of the model."
                )
            log.warning(
                "%s: an answer was cut at the length limit (%s). Raise max_tokens.",
                info.label,
                limit or "its own",
            )
        return [
            # The result refers to the call by its id, so a call without one gets one.
            ToolCall(call.call_id or f"call_{self.random.getrandbits(64):016x}", call.name, call.arguments or "{}")
            for call in answer.finished()
        ]

    async def _read_trailer(self, stream: AsyncGenerator[Event], answer: _ChatAnswer) -> None:
        """Read the token usage and the end of the stream. Errors are only logged: the answer is already complete."""
        try:
            with Deadline(self.clock, TRAILER_S, lambda: ServiceTimeout("")):
                async for event in stream:
                    answer.add(event)
        except Exception as error:
            log.debug("%s: %s after a complete answer", self.label, type(error).__name__)


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(BaseModel):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _ChatDelta(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_CallDelta] | None = None


class _ChatChoice(BaseModel):
    delta: _ChatDelta | None = None
    finish_reason: str | None = None


class _TokenUsage(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _ChatChunk(BaseModel):
    """Event of a stream, with the fields that are read. Some servers omit null fields, others write them."""

    choices: list[_ChatChoice] | None = None
    usage: _TokenUsage | None = None
    error: Any = None


class _PartialCall:
    """Tool call that is assembled from the deltas of a stream."""

    def __init__(self, index: int | None, call_id: str) -> None:
        self.index = index
        self.call_id = call_id
        self.name = ""
        self.arguments = ""


class _ChatAnswer:
    """Answer that is assembled from the events of a stream."""

    def __init__(self, info: RequestInfo) -> None:
        self._info = info
        self.reason = ""
        """Finish reason; empty until the answer ends."""
        self.chars = 0
        self.usage: _TokenUsage | None = None
        self.calls: list[_PartialCall] = []

    def add(self, event: Event) -> list[str]:
        """Add an event and return its text. Raises `ServiceError` for an error event and for a malformed one."""
        try:
            chunk = _ChatChunk.model_validate_json(event.data)
        except ValidationError:
            raise self._garbage("an event that does not follow the protocol") from None
        if chunk.error:
            raise from_stream(self._info, {"error": chunk.error})
        if event.name == b"error":
            raise from_stream(self._info, json.loads(event.data))
        self.usage = chunk.usage or self.usage
        texts: list[str] = []
        for choice in (chunk.choices or [])[:1]:
            delta = choice.delta or _ChatDelta()
            for call in delta.tool_calls or ():
                self._add_call(call)
            texts += [text for text in (delta.content, delta.refusal) if text]
            self.reason = choice.finish_reason or self.reason
        self.chars += sum(map(len, texts))
        return texts

    def _add_call(self, delta: _CallDelta) -> None:
        function = delta.function or _Function()
        call = self._call_of(delta, function.name or "")
        # Most servers send the name once, some with each delta, some split it over several deltas.
        if function.name and function.name != call.name:
            call.name += function.name
        call.arguments += function.arguments or ""
        if len(call.arguments) > MAX_ARGUMENT_CHARS:
            raise self._garbage(f"a tool call with more than {MAX_ARGUMENT_CHARS} characters")

    def _call_of(self, delta: _CallDelta, name: str) -> _PartialCall:
        """Find the call that a delta belongs to, or start one.

        Some servers send several calls with the same index, some send no index, some no id.
        """
        for call in reversed(self.calls):
            if delta.id and call.call_id:
                if delta.id == call.call_id:
                    return call
            elif delta.index is None and name and name != call.name and call.arguments:
                break
            elif delta.index is None or call.index in (None, delta.index):
                call.call_id = call.call_id or delta.id or ""
                return call
        if len(self.calls) >= MAX_CALLS:
            raise self._garbage(f"more than {MAX_CALLS} tool calls")
        self.calls.append(_PartialCall(delta.index, delta.id or ""))
        return self.calls[-1]

    def finished(self) -> list[_PartialCall]:
        """Return the calls in the order of their first deltas. Raises `BadAnswerError` for a call without a name."""
        if any(not call.name for call in self.calls):
            raise self._garbage("a tool call without a name")
        return self.calls

    def _garbage(self, what: str) -> BadAnswerError:
        return BadAnswerError(f"{self._info.label}: {self._info.host} sent {what}.")


def _not_a_stream(info: RequestInfo, body: bytes, kind: str) -> ServiceError:
    """Build the error for an answer that is not a stream."""
    if (found := error_in(body)) is not None:
        return from_stream(info, found)
    what = "a web page" if "html" in kind else "one piece of JSON"
    hint = "" if info.versioned else " Does base_url end in /v1?"
    return BadAnswerError(f"{info.label}: {info.host} answered with {what} instead of a stream.{hint}")


def _entry(message: Message) -> dict[str, Any] | None:
    """Convert a message to the format of the protocol; return None for an empty message of the assistant."""
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.text}
    if message.role != "assistant":
        return {"role": message.role, "content": message.text}
    if not message.calls:
        # The text is empty if the user interrupted before hearing any of it. Some servers refuse empty messages.
        return {"role": "assistant", "content": message.text} if message.text else None
    calls = [
        {"id": call.call_id, "type": "function", "function": {"name": call.name, "arguments": call.arguments}}
        for call in message.calls
    ]
    return {"role": "assistant", "content": message.text or None, "tool_calls": calls}


def _tool(tool: ToolSpec) -> dict[str, Any]:
    try:
        parameters: object = json.loads(tool.parameters)
    except ValueError:
        raise BadRequestError(f"The parameters of the tool {tool.name} are not a JSON schema.") from None
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}

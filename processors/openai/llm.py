"""Language models by the OpenAI protocol: streaming chat completions, with calls of tools."""

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
from .client import AsksServer, OpenAIServer, OpenAISettings
from .errors import Asked, error_in, from_stream
from .sse import Event, events

log = logging.getLogger(__name__)

REST_S = 0.5
"""How long what follows the end of an answer may take: what was counted, and the end of the stream."""
MAX_CALLS = 128
"""No answer wants more tools at once; what does is garbage."""
MAX_ARGUMENT_CHARS = 1 << 20
"""Of the arguments of one call."""


class OpenAILLMSettings(LLMSettings, OpenAISettings):
    """What a language model can be told: see `OpenAILLM`."""

    temperature: float | None = Field(default=None, ge=0)
    max_tokens: int | None = Field(default=None, ge=1)
    extra_body: dict[str, Any] = Field(default_factory=dict[str, Any])


class OpenAILLM(AsksServer, LLM[OpenAILLMSettings]):
    """Answers with a language model of OpenAI, or of any server that speaks its protocol (vLLM, Ollama, llama.cpp).

    ``model``: its name at the server. ``base_url``: ends in /v1 with most servers; default is OpenAI. ``api_key``:
    default is the environment's OPENAI_API_KEY; a server on this machine or in a private network needs none.
    ``temperature`` and ``max_tokens``: not sent where None. ``extra_body``: more fields of the request, as the server
    knows them (``{"top_p": 0.9}``). ``tools``: what the model may call, see `LLM`. ``check``: ask for the list of
    models before the first frame flows, and fail there for a wrong key, address or name. ``headers`` are sent with
    each request; ``http_client`` is an ``httpx.AsyncClient`` of your own. ``limits``: deadlines and attempts, see
    `LLMSettings`.

    The time that a model thinks in silence counts as waiting: raise ``first_timeout_s`` for one that does.

    Raises `MissingExtraError` without the package, and `SettingsError`. What goes wrong at the server is a
    `ServiceError`, and never has the key, what was said, or the server's own words in it.
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
        self._counts = True
        """Whether the server knows how to be asked for what it counts."""
        self._newer_limit = False
        """Whether it wants ``max_tokens`` by its newer name."""

    async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        """Answer a conversation. Being closed, it closes the connection, which stops the model."""
        while True:
            asked = self._server.asked(self.label, self.settings.model)
            try:
                async with aclosing(self._ask(asked, messages, tools)) as pieces:
                    async for piece in pieces:
                        yield piece
                return
            except BadRequestError:
                if not self._learn(asked.refused):
                    raise

    def _learn(self, refused: set[str]) -> bool:
        """Whether the server may take the request in another form: then that is remembered."""
        if self._counts and "stream_options" in refused:
            self._counts = False
        elif self.settings.max_tokens is not None and not self._newer_limit and "max_completion_tokens" in refused:
            self._newer_limit = True
        else:
            return False
        return True

    async def _ask(self, asked: Asked, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
        create = self._server.client.chat.completions.with_streaming_response.create
        request = self._request(messages, tools)
        answer = _Answer(asked)
        async with self._server.asking(asked), create(**request, extra_headers=self._server.extra) as response:
            kind = str(response.headers.get("content-type", "")).lower()
            if kind.startswith(("application/json", "text/html")):
                raise _not_a_stream(asked, await response.read(), kind)
            async with aclosing(events(response.iter_bytes())) as stream:
                async for event in stream:
                    for text in answer.add(event):
                        yield text
                    if answer.reason:
                        break
                for call in self._end(answer, asked):
                    yield call
                await self._rest(stream, answer)
        if answer.usage is not None:
            yield Usage(answer.usage.prompt_tokens, answer.usage.completion_tokens)

    def _request(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> dict[str, Any]:
        rules = self.settings
        request: dict[str, Any] = {
            "model": rules.model,
            "messages": [entry for message in messages if (entry := _entry(message)) is not None],
            "stream": True,
        }
        if self._counts:
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

    def _end(self, answer: _Answer, asked: Asked) -> list[ToolCall]:
        """The calls of an answer, where it has come to an end. Raises `ServiceError` where it was cut off."""
        limit = self.settings.max_tokens
        if not answer.reason:
            raise ServiceDownError(f"{asked.label}: {asked.host} ended an answer in the middle. Is it overloaded?")
        if answer.reason == "content_filter":
            raise BadRequestError(f"{asked.label}: the filter of {asked.host} stopped an answer (content_filter).")
        if answer.reason == "length":
            if answer.chars == 0 and not answer.calls:
                raise BadRequestError(
                    f"{asked.label}: {asked.model!r} came to the limit of its length ({limit or 'its own'}) before it "
                    "said anything. Raise max_tokens, or let it think less."
                )
            log.warning(
                "%s: an answer was cut at the limit of its length (%s). Raise max_tokens.",
                asked.label,
                limit or "its own",
            )
        return [
            # A call without an id has to be found again by its result.
            ToolCall(call.call_id or f"call_{self.random.getrandbits(64):016x}", call.name, call.arguments or "{}")
            for call in answer.finished()
        ]

    async def _rest(self, stream: AsyncGenerator[Event], answer: _Answer) -> None:
        """What the server has counted, and the end of the stream: nothing of the answer, so it must not spoil it."""
        try:
            with Deadline(self.clock, REST_S, lambda: ServiceTimeout("")):
                async for event in stream:
                    answer.add(event)
        except Exception as error:
            log.debug("%s: an answer was complete, and then came %s", self.label, type(error).__name__)


class _Function(BaseModel):
    name: str | None = None
    arguments: str | None = None


class _CallDelta(BaseModel):
    index: int | None = None
    id: str | None = None
    function: _Function | None = None


class _Delta(BaseModel):
    content: str | None = None
    refusal: str | None = None
    tool_calls: list[_CallDelta] | None = None


class _Choice(BaseModel):
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Counted(BaseModel):
    prompt_tokens: int = 0
    completion_tokens: int = 0


class _Chunk(BaseModel):
    """One event of a stream: what is read of it. Some servers leave out what is null, some write it."""

    choices: list[_Choice] | None = None
    usage: _Counted | None = None
    error: Any = None


class _Call:
    """A call whose pieces come one after the other."""

    def __init__(self, index: int | None, call_id: str) -> None:
        self.index = index
        self.call_id = call_id
        self.name = ""
        self.arguments = ""


class _Answer:
    """What a stream has told so far."""

    def __init__(self, asked: Asked) -> None:
        self._asked = asked
        self.reason = ""
        """Why it ended; empty while it goes on."""
        self.chars = 0
        self.usage: _Counted | None = None
        self.calls: list[_Call] = []

    def add(self, event: Event) -> list[str]:
        """Take an event; returns the text in it. Raises `ServiceError` where it is an error, or garbage."""
        try:
            chunk = _Chunk.model_validate_json(event.data)
        except ValidationError:
            raise self._garbage("what is no event of this protocol") from None
        if chunk.error:
            raise from_stream(self._asked, {"error": chunk.error})
        if event.name == b"error":
            raise from_stream(self._asked, json.loads(event.data))
        self.usage = chunk.usage or self.usage
        texts: list[str] = []
        for choice in (chunk.choices or [])[:1]:
            delta = choice.delta or _Delta()
            for call in delta.tool_calls or ():
                self._add_call(call)
            texts += [text for text in (delta.content, delta.refusal) if text]
            self.reason = choice.finish_reason or self.reason
        self.chars += sum(map(len, texts))
        return texts

    def _add_call(self, delta: _CallDelta) -> None:
        function = delta.function or _Function()
        call = self._call_of(delta, function.name or "")
        # Most say the name once; some with each piece, and some in pieces.
        if function.name and function.name != call.name:
            call.name += function.name
        call.arguments += function.arguments or ""
        if len(call.arguments) > MAX_ARGUMENT_CHARS:
            raise self._garbage("a call of a tool without an end")

    def _call_of(self, delta: _CallDelta, name: str) -> _Call:
        """The call that a piece belongs to. Some servers give several calls one index, some no index, some no id."""
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
            raise self._garbage(f"more than {MAX_CALLS} calls of tools")
        self.calls.append(_Call(delta.index, delta.id or ""))
        return self.calls[-1]

    def finished(self) -> list[_Call]:
        """The calls, in the order in which they began. Raises `BadAnswerError` for one without a name."""
        if any(not call.name for call in self.calls):
            raise self._garbage("a call of a tool without a name")
        return self.calls

    def _garbage(self, what: str) -> BadAnswerError:
        return BadAnswerError(f"{self._asked.label}: {self._asked.host} sent {what}.")


def _not_a_stream(asked: Asked, body: bytes, kind: str) -> ServiceError:
    """What it means that there is an answer, but not one that is streamed."""
    if (found := error_in(body)) is not None:
        return from_stream(asked, found)
    what = "a web page" if "html" in kind else "one piece of JSON"
    hint = "" if asked.versioned else " Does base_url end in /v1?"
    return BadAnswerError(f"{asked.label}: {asked.host} answered with {what} and not with a stream.{hint}")


def _entry(message: Message) -> dict[str, Any] | None:
    """A message as the protocol has it; None for one in which nothing is said."""
    if message.role == "tool":
        return {"role": "tool", "tool_call_id": message.call_id, "content": message.text}
    if message.role != "assistant":
        return {"role": message.role, "content": message.text}
    if not message.calls:
        # Cut before anything of it was heard. Some servers refuse an empty one.
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
        raise BadRequestError(f"The parameters of the tool {tool.name} are no JSON schema.") from None
    function = {"name": tool.name, "description": tool.description, "parameters": parameters}
    return {"type": "function", "function": function}

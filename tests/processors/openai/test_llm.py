"""Language model over real HTTP: requests, answers and failures."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import (
    LLMRequestFrame,
    Message,
    ResponseEndFrame,
    TextFrame,
    UsageFrame,
)
from voxline.pipeline.errors import (
    BadAnswerError,
    BadRequestError,
    RateLimitError,
    ServiceDownError,
    ServiceError,
)
from voxline.pipeline.frames import ServiceMetricsFrame, ToolCall
from voxline.pipeline.testing import Bench, Harness
from voxline.processors.llm.base import Piece, ToolSpec, Usage
from voxline.processors.openai import OpenAILLM
from voxline.tests.processors.openai.live import IMPATIENT, Live
from voxline.tests.processors.openai.server import CHAT, MODELS, FakeOpenAI, Reply, chunk, sse

HELLO = (Message("user", "hello"),)


async def bench_of(harness: Harness, llm: OpenAILLM, **options: Any) -> Bench:
    return await harness(llm, patience_s=60, **options)


def texts(bench: Bench) -> list[str]:
    return [frame.text.strip() for frame in bench.down if isinstance(frame, TextFrame)]


async def ask(
    server: FakeOpenAI, *messages: Message, tools: Sequence[ToolSpec] = (), harness: Harness, **options: Any
) -> list[Piece]:
    """Return the pieces of an answer, without a pipeline."""
    llm = OpenAILLM("parrot", base_url=server.url, **options)
    await bench_of(harness, llm)
    async with aclosing(llm.complete(messages or HELLO, tools)) as pieces:
        return [piece async for piece in pieces]


async def failure_of(server: FakeOpenAI, harness: Harness, **options: Any) -> ServiceError:
    with pytest.raises(ServiceError) as caught:
        await ask(server, harness=harness, **options)
    return caught.value


# --- answers ---------------------------------------------------------------------------------------------------------


async def test_a_request_is_answered_in_sentences(server: FakeOpenAI, harness: Harness):
    bench = await bench_of(harness, OpenAILLM("parrot", base_url=server.url))
    await bench.send(LLMRequestFrame((Message("user", "One is here. Two is there."),)), response=1)
    assert texts(bench) == ["One is here.", "Two is there."]
    assert bench.down[-1] == ResponseEndFrame()
    assert UsageFrame(7, 3) in bench.up
    metrics = [frame for frame in bench.up if isinstance(frame, ServiceMetricsFrame)]
    assert [(frame.service, frame.kind, frame.errors) for frame in metrics] == [("OpenAILLM", "llm", ())]
    assert bench.now_ms == 0


async def test_text_comes_as_it_is_made(server: FakeOpenAI, harness: Harness):
    """The first piece is there while the server still holds back the rest."""
    server.script(CHAT, Reply(Reply.chat("First. ", "Second.").pieces, content_type="text/event-stream", hang_after=2))
    llm = OpenAILLM("parrot", base_url=server.url)
    await bench_of(harness, llm)
    async with aclosing(llm.complete(HELLO, ())) as pieces:
        assert await anext(pieces) == "First. "
    await server.idle()
    assert server.closed_early == 1


async def test_the_history_is_told_as_the_protocol_has_it(server: FakeOpenAI, harness: Harness):
    history = [
        Message("system", "Be brief."),
        Message("user", "weather and time?"),
        Message("assistant", "", calls=(ToolCall("a1", "weather", '{"in": "Rome"}'), ToolCall("a2", "time"))),
        Message("tool", "rain", call_id="a1"),
        Message("tool", "noon", call_id="a2"),
        Message("assistant", "Rain, and it is", cut=True),
        Message("assistant", "", cut=True),
        Message("system", "The user is at the door."),
        Message("user", "ünd 🎈?"),
    ]
    tools = [ToolSpec("weather", "How it is.", '{"type": "object", "properties": {}}')]
    await ask(server, *history, tools=tools, temperature=0.5, max_tokens=9, extra_body={"top_p": 0.5}, harness=harness)
    [request] = server.asked(CHAT)

    def function(call_id: str, name: str, arguments: str) -> dict[str, object]:
        return {"id": call_id, "type": "function", "function": {"name": name, "arguments": arguments}}

    calls = [function("a1", "weather", '{"in": "Rome"}'), function("a2", "time", "{}")]
    assert request.body == {
        "model": "parrot",
        "messages": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "weather and time?"},
            {"role": "assistant", "content": None, "tool_calls": calls},
            {"role": "tool", "tool_call_id": "a1", "content": "rain"},
            {"role": "tool", "tool_call_id": "a2", "content": "noon"},
            {"role": "assistant", "content": "Rain, and it is"},
            {"role": "system", "content": "The user is at the door."},
            {"role": "user", "content": "ünd 🎈?"},
        ],
        "stream": True,
        "stream_options": {"include_usage": True},
        "temperature": 0.5,
        "max_tokens": 9,
        "top_p": 0.5,
        "tools": [
            {
                "type": "function",
                "function": {
                    "name": "weather",
                    "description": "How it is.",
                    "parameters": {"type": "object", "properties": {}},
                },
            }
        ],
    }
    assert "authorization" not in request.headers


async def test_what_is_not_set_is_not_sent(server: FakeOpenAI, harness: Harness):
    await ask(server, harness=harness)
    assert set(server.asked(CHAT)[0].body) == {"model", "messages", "stream", "stream_options"}


async def test_the_key_and_the_headers_go_along(server: FakeOpenAI, harness: Harness):
    server.key = "sk-123"
    await ask(server, api_key="sk-123", headers={"x-route": "blue"}, harness=harness)
    assert {request.headers["authorization"] for request in server.requests} == {"Bearer sk-123"}
    assert {request.headers["x-route"] for request in server.requests} == {"blue"}


async def test_the_environments_key_does_not_go_to_a_local_server(
    server: FakeOpenAI, harness: Harness, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-env")
    await ask(server, harness=harness)
    assert all("authorization" not in request.headers for request in server.requests)
    monkeypatch.setenv("OPENAI_BASE_URL", server.url)
    llm = OpenAILLM("parrot")
    await bench_of(harness, llm)
    assert server.requests[-1].headers["authorization"] == "Bearer sk-env"


async def test_turns_share_one_connection(server: FakeOpenAI, harness: Harness):
    bench = await bench_of(harness, OpenAILLM("parrot", base_url=server.url))
    for _ in range(3):
        await bench.send(LLMRequestFrame(HELLO), response=1)
    assert len(server.asked(CHAT)) == 3
    assert len({request.peer for request in server.requests}) == 1


# --- calls of tools --------------------------------------------------------------------------------------------------


def call(index: int | None, call_id: str | None = None, name: str | None = None, arguments: str | None = None) -> Any:
    function = {key: value for key, value in (("name", name), ("arguments", arguments)) if value is not None}
    found: dict[str, object] = {"function": function}
    return found | ({} if index is None else {"index": index}) | ({} if call_id is None else {"id": call_id})


@pytest.mark.parametrize(
    "deltas",
    [
        [call(0, "a", "sun", ""), call(0, None, None, '{"x"'), call(0, None, None, ": 1}"), call(1, "b", "moon", "{}")],
        [call(0, "a", "sun", '{"x": 1}'), call(0, "b", "moon", "{}")],
        [call(None, "a", "sun", '{"x": 1}'), call(None, "b", "moon", "{}")],
        [call(0, "a", "sun", '{"x"'), call(1, "b", "moon", "{"), call(0, None, None, ": 1}"), call(1, None, None, "}")],
        [call(0, "a", "sun", '{"x"'), call(0, "a", "sun", ": 1}"), call(1, "b", "mo", ""), call(1, "b", "on", "{}")],
    ],
    ids=["as OpenAI does", "one index for all", "no index", "in turns", "names again, and in pieces"],
)
async def test_calls_are_put_together(server: FakeOpenAI, harness: Harness, deltas: list[Any]):
    server.script(CHAT, Reply.calls(*deltas))
    assert await ask(server, harness=harness) == [ToolCall("a", "sun", '{"x": 1}'), ToolCall("b", "moon", "{}")]


async def test_a_call_without_an_id_gets_one(server: FakeOpenAI, harness: Harness):
    server.script(CHAT, Reply.calls(call(0, None, "sun"), call(1, None, "moon", "not json"), finish="stop"))
    first, second = await ask(server, harness=harness)
    assert isinstance(first, ToolCall)
    assert isinstance(second, ToolCall)
    assert (first.name, first.arguments, second.name, second.arguments) == ("sun", "{}", "moon", "not json")
    assert first.call_id
    assert second.call_id not in ("", first.call_id)


async def test_text_and_calls_in_one_answer(server: FakeOpenAI, harness: Harness):
    says = chunk({"content": "A moment."})
    calls = chunk({"tool_calls": [call(0, "a", "sun", "{}")]})
    server.script(CHAT, Reply.events(says, calls, chunk(finish="tool_calls"), {"choices": [], "usage": None}))
    assert await ask(server, harness=harness) == ["A moment.", ToolCall("a", "sun", "{}")]


async def test_a_call_without_a_name_is_garbage(server: FakeOpenAI, harness: Harness):
    server.script(CHAT, Reply.calls(call(0, "a", None, "{}")))
    assert isinstance(await failure_of(server, harness), BadAnswerError)


# --- the ends of answers ---------------------------------------------------------------------------------------------


async def test_a_server_that_refuses_stream_options_is_asked_without(server: FakeOpenAI, harness: Harness):
    server.refuses = {"stream_options"}
    bench = await bench_of(harness, OpenAILLM("parrot", base_url=server.url))
    for _ in range(2):
        await bench.send(LLMRequestFrame(HELLO), response=1)
    assert [frame for frame in bench.down if isinstance(frame, TextFrame)] == [TextFrame("hello")] * 2
    assert ["stream_options" in request.body for request in server.asked(CHAT)] == [True, False, False]


async def test_a_model_that_knows_only_the_newer_limit_gets_that(server: FakeOpenAI, harness: Harness):
    message = "Unsupported parameter: 'max_tokens'. Use 'max_completion_tokens' instead."
    server.script(CHAT, Reply.error(400, "unsupported_parameter", message, param="max_tokens"))
    assert "hello" in await ask(server, max_tokens=5, harness=harness)
    assert [request.body.get("max_completion_tokens") for request in server.asked(CHAT)] == [None, 5]


async def test_an_answer_that_is_cut_at_its_limit_is_said(server: FakeOpenAI, harness: Harness):
    server.script(CHAT, Reply.chat("This is", finish="length"))
    assert await ask(server, harness=harness) == ["This is", Usage(7, 3)]


async def test_a_limit_that_leaves_no_word_is_an_error(server: FakeOpenAI, harness: Harness):
    server.script(CHAT, Reply.chat(finish="length"))
    error = await failure_of(server, harness, max_tokens=16)
    assert isinstance(error, BadRequestError)
    assert "length limit (16)" in str(error)


async def test_the_servers_filter_is_no_reason_to_ask_again(server: FakeOpenAI, harness: Harness):
    server.script(CHAT, Reply.chat("It is", finish="content_filter"))
    error = await failure_of(server, harness)
    assert isinstance(error, BadRequestError)
    assert not error.retryable


async def test_a_refusal_is_said(server: FakeOpenAI, harness: Harness):
    server.script(CHAT, Reply.events(chunk({"refusal": "I would rather not."}), chunk(finish="stop")))
    assert await ask(server, harness=harness) == ["I would rather not."]


@pytest.mark.parametrize("tail", [-1, 1], ids=["no end of the stream", "garbage after the end"])
async def test_garbage_after_the_end_does_not_fail_the_answer(server: FakeOpenAI, tail: int):
    answer = Reply.chat("All said.", usage=None, done=False)
    after = Reply((*answer.pieces, b"data: {{{\n\n"), content_type="text/event-stream")
    server.script(CHAT, after if tail > 0 else Reply(answer.pieces, content_type="text/event-stream", hang_after=99))
    async with Live(OpenAILLM("parrot", base_url=server.url)) as live:
        live.send(LLMRequestFrame(HELLO), response=1)
        await live.out(ResponseEndFrame)
        assert live.texts == ["All said."]
    assert len(server.asked(CHAT)) == 1


# --- faults ----------------------------------------------------------------------------------------------------------


@settings(max_examples=25)
@given(sizes=st.lists(st.integers(1, 40), max_size=40), newline=st.sampled_from(["\n", "\r\n"]))
def test_an_answer_is_the_same_however_it_is_cut_on_the_way(sizes: list[int], newline: str):
    async def run() -> None:
        said = Reply.chat("Grüße 🎈 ", "\u2028 und\\n ", "日本語.", usage=(1, 2))
        body = b"".join(said.pieces).replace(b"\n", newline.encode())
        async with FakeOpenAI() as server:
            server.script(CHAT, Reply((body,), content_type="text/event-stream").split(*sizes))
            async with Harness() as harness:
                pieces = await ask(server, check=False, harness=harness)
        assert pieces == ["Grüße 🎈 ", "\u2028 und\\n ", "日本語.", Usage(1, 2)]

    asyncio.run(run())


async def test_an_answer_that_breaks_off_is_gone_on_with(server: FakeOpenAI, harness: Harness):
    whole = Reply.chat("One is here. Two", " is the")
    length = len(b"".join(whole.pieces[:2])) + 3
    server.script(CHAT, Reply(whole.pieces, content_type="text/event-stream", cut_after=length), Reply.chat("Two."))
    bench = await bench_of(harness, OpenAILLM("parrot", base_url=server.url))
    await bench.send(LLMRequestFrame(HELLO), response=1)
    await bench.advance(ms=1_000)
    assert texts(bench) == ["One is here.", "Two."]
    told = server.asked(CHAT)[1].body["messages"]
    assert [entry["role"] for entry in told] == ["user", "assistant", "system"]
    assert told[1]["content"].strip() == "One is here."
    metrics = [frame for frame in bench.up if isinstance(frame, ServiceMetricsFrame)]
    assert [frame.errors for frame in metrics] == [("ServiceDownError",)]


@pytest.mark.parametrize("after", [5, 170, 0], ids=["in an event", "in a character", "at once"])
async def test_a_connection_that_is_gone_is_a_service_that_is_down(server: FakeOpenAI, harness: Harness, after: int):
    whole = Reply.chat("🎈" * 30)
    server.script(CHAT, Reply(whole.pieces, content_type="text/event-stream", cut_after=len(whole.pieces[0]) + after))
    error = await failure_of(server, harness)
    assert isinstance(error, ServiceDownError)
    assert "was lost in the middle" in str(error)


async def test_a_stream_without_an_end_is_cut_off(server: FakeOpenAI, harness: Harness):
    server.script(CHAT, Reply.chat("This is", finish=None, usage=None, done=False))
    error = await failure_of(server, harness)
    assert isinstance(error, ServiceDownError)
    assert "in the middle" in str(error)


@pytest.mark.parametrize(
    "data",
    ["{{{", "[]", "7", '{"choices": 5}', '{"choices": [{"delta": {"content": {"a": 1}}}]}', '"text"', "\x00"],
)
async def test_garbage_is_a_bad_answer(server: FakeOpenAI, harness: Harness, data: str):
    server.script(CHAT, Reply.events(chunk({"content": "Well, "}), data))
    error = await failure_of(server, harness)
    assert isinstance(error, BadAnswerError)


@pytest.mark.parametrize("kind", ["text/html", "application/json"])
async def test_no_stream_is_a_bad_answer(server: FakeOpenAI, harness: Harness, kind: str):
    server.script(CHAT, Reply((b"<html>hello</html>",), content_type=kind))
    assert isinstance(await failure_of(server, harness), BadAnswerError)


async def test_an_event_without_an_end_is_a_bad_answer(server: FakeOpenAI, harness: Harness):
    server.script(CHAT, Reply((b"data: " + b"a" * 2_000_000,), content_type="text/event-stream"))
    assert isinstance(await failure_of(server, harness), BadAnswerError)


@pytest.mark.parametrize(
    ("event", "kind"),
    [
        (sse({"error": {"message": "hello", "type": "server_error", "code": None}}), ServiceDownError),
        (
            sse({"error": {"message": "hello", "type": "tokens", "code": "rate_limit_exceeded"}}),
            RateLimitError,
        ),
        (sse({"error": {"message": "hello", "type": "BadRequestError", "code": 400}}), BadRequestError),
        (sse({"message": "hello", "code": "context_length_exceeded"}, "error"), BadRequestError),
        (sse({"error": "hello"}), ServiceDownError),
    ],
)
async def test_an_error_in_the_stream_becomes_a_typed_error(
    server: FakeOpenAI, harness: Harness, event: bytes, kind: type[ServiceError]
):
    server.script(CHAT, Reply((sse(chunk({"content": "Well, "})), event), content_type="text/event-stream"))
    error = await failure_of(server, harness)
    assert type(error) is kind
    assert "hello" not in str(error)


async def test_a_busy_server_is_asked_again_when_it_says(server: FakeOpenAI, harness: Harness):
    server.script(CHAT, Reply.error(429, "rate_limit_exceeded", headers={"retry-after": "1.5"}), Reply.error(503))
    bench = await bench_of(harness, OpenAILLM("parrot", base_url=server.url))
    await bench.send(LLMRequestFrame(HELLO), response=1)
    await bench.advance(ms=1_499)
    assert len(server.asked(CHAT)) == 1
    await bench.advance(ms=1_000)
    assert bench.down == [TextFrame("hello"), ResponseEndFrame()]


async def test_a_quota_that_is_used_up_is_not_asked_again(server: FakeOpenAI, harness: Harness):
    server.script(CHAT, Reply.error(429, "insufficient_quota", headers={"retry-after": "0"}))
    bench = await bench_of(harness, OpenAILLM("parrot", base_url=server.url))
    await bench.send(LLMRequestFrame(HELLO), response=1)
    bench.expect_error("quota", error="RateLimitError")
    await bench.advance(ms=10_000)
    assert len(server.asked(CHAT)) == 1
    assert bench.down == [ResponseEndFrame()]


@pytest.mark.parametrize("hang_after", [-1, 0, 2])
async def test_a_server_that_hangs_is_given_up(server: FakeOpenAI, hang_after: int):
    hang = Reply(Reply.chat("It", " is").pieces, content_type="text/event-stream", hang_after=hang_after)
    server.script(CHAT, hang)
    llm = OpenAILLM("parrot", base_url=server.url, **IMPATIENT)
    async with Live(llm) as live:
        live.send(LLMRequestFrame(HELLO), response=1)
        await live.out(ResponseEndFrame)
        assert live.texts == ["hello"]
        assert live.errors == []
    await server.idle()
    assert server.closed_early >= 1


async def test_a_slow_drip_is_no_hang(server: FakeOpenAI):
    drip = Reply.chat("Slow", " but", " here.", gap_s=0.03).split(*[20] * 10)
    server.script(CHAT, drip)
    llm = OpenAILLM("parrot", base_url=server.url, first_timeout_s=2, between_timeout_s=2)
    async with Live(llm) as live:
        live.send(LLMRequestFrame(HELLO), response=1)
        await live.out(ResponseEndFrame)
        assert live.texts == ["Slow but here."]
    assert len(server.asked(CHAT)) == 1


# --- interruptions ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hang_after", [-1, 0, 2], ids=["before the answer", "after the headers", "in the middle"])
async def test_an_interruption_frees_the_connection(server: FakeOpenAI, hang_after: int):
    hang = Reply(Reply.chat("One. ", "Two. ").pieces, content_type="text/event-stream", hang_after=hang_after)
    server.script(CHAT, hang)
    async with Live(OpenAILLM("parrot", base_url=server.url)) as live:
        live.send(LLMRequestFrame(HELLO), response=1)
        await server.until(lambda: len(server.asked(CHAT)) == 1)
        await live.interrupt()
        await server.until(lambda: server.closed_early == 1)
        live.send(LLMRequestFrame(HELLO), response=2)
        await live.out(ResponseEndFrame)
        assert live.texts[-1] == "hello"
        assert live.errors == []


async def test_a_closed_answer_leaves_nothing_open(server: FakeOpenAI, harness: Harness):
    hang = Reply(Reply.chat("One. ", "Two. ").pieces, content_type="text/event-stream", hang_after=2)
    server.script(CHAT, *[hang] * 20)
    llm = OpenAILLM("parrot", base_url=server.url)
    await bench_of(harness, llm)
    for _ in range(20):
        pieces: AsyncGenerator[Piece] = llm.complete(HELLO, ())
        assert await anext(pieces) == "One. "
        await pieces.aclose()
    await server.idle()
    assert server.closed_early == 20
    assert len(server.asked(MODELS)) == 1

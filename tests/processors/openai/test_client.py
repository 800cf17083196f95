"""Checks before the first frame: key, address, model."""

import logging
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from voxline.pipeline import LifecycleError, LLMRequestFrame, Message, MissingExtraError, SettingsError, TextFrame
from voxline.pipeline.errors import (
    AuthenticationError,
    BadAnswerError,
    BadRequestError,
    ServiceDownError,
    ServiceError,
    ServiceTimeout,
)
from voxline.pipeline.testing import Bench, BenchFailure, Harness
from voxline.processors.openai import OpenAILLM, OpenAISTT, OpenAITTS
from voxline.tests.needs import need
from voxline.tests.processors.openai.live import Live
from voxline.tests.processors.openai.server import CHAT, MODELS, FakeOpenAI, Reply

MODELS_PATH = MODELS + "/wren"
SERVICES: list[Callable[..., Any]] = [OpenAILLM, OpenAISTT, OpenAITTS]


async def bench_of(harness: Harness, *processors: Any) -> Bench:
    return await harness([*processors], patience_s=60)


async def failure_of(harness: Harness, service: Any) -> ServiceError:
    """Return the error that prevents the start."""
    with pytest.raises(BenchFailure) as caught:
        await bench_of(harness, service)
    cause = caught.value.__cause__
    while cause is not None and not isinstance(cause, ServiceError):
        cause = cause.__cause__
    assert cause is not None
    return cause


@pytest.mark.parametrize("service", SERVICES)
async def test_the_model_is_looked_for_before_anything_flows(
    server: FakeOpenAI, harness: Harness, service: Callable[..., Any]
):
    await bench_of(harness, service("parrot", base_url=server.url))
    assert [request.path for request in server.requests] == [MODELS]


@pytest.mark.parametrize("service", SERVICES)
async def test_check_false_sends_no_request(server: FakeOpenAI, harness: Harness, service: Callable[..., Any]):
    await bench_of(harness, service("nobody", base_url=server.url, check=False))
    assert server.requests == []


async def test_an_unknown_model_is_reported_with_similar_names(server: FakeOpenAI, harness: Harness):
    error = await failure_of(harness, OpenAISTT("wisper-1", base_url=server.url))
    assert isinstance(error, BadRequestError)
    assert "there is no model 'wisper-1'" in str(error)
    assert "'whisper-1'" in str(error)
    assert "\n" not in str(error)


async def test_an_alias_that_the_server_knows_is_there(server: FakeOpenAI, harness: Harness):
    server.script(MODELS_PATH, Reply.json({"id": "wren", "object": "model"}))
    await bench_of(harness, OpenAILLM("wren", base_url=server.url))
    assert [request.path for request in server.requests] == [MODELS, MODELS_PATH]


async def test_a_model_without_its_tag_is_the_latest(server: FakeOpenAI, harness: Harness):
    server.models.append("wren:latest")
    await bench_of(harness, OpenAILLM("wren", base_url=server.url))


@pytest.mark.parametrize(
    "reply",
    [
        Reply((b"404 page not found",), 404, "text/plain"),
        Reply.error(405),
        Reply.json({"object": "list", "data": []}),
        Reply.json({"object": "list", "data": None}),
        Reply.error(429, "rate_limit_exceeded"),
        Reply.error(403, None, "You have insufficient permissions. Missing scopes: api.model.read."),
    ],
)
async def test_a_server_without_a_list_of_models_passes_the_check(server: FakeOpenAI, harness: Harness, reply: Reply):
    server.script(MODELS, reply)
    await bench_of(harness, OpenAILLM("nobody", base_url=server.url))


@pytest.mark.parametrize(
    ("reply", "kind"),
    [
        (Reply.error(401, "invalid_api_key"), AuthenticationError),
        (Reply.error(403), AuthenticationError),
        (Reply.error(503), ServiceDownError),
        (Reply((b"<html>Welcome</html>",), 200, "text/html"), BadAnswerError),
        (Reply.json({"hello": "world"}), BadAnswerError),
        (Reply.json(["hello"]), BadAnswerError),
        (Reply((b"hello",), cut_after=3), ServiceDownError),
    ],
)
async def test_failures_are_reported_at_the_start(
    server: FakeOpenAI, harness: Harness, reply: Reply, kind: type[ServiceError]
):
    server.script(MODELS, reply)
    assert type(await failure_of(harness, OpenAILLM("parrot", base_url=server.url))) is kind


async def test_a_rejected_key_is_not_in_the_error(server: FakeOpenAI, harness: Harness):
    server.key = "sk-right"
    error = await failure_of(harness, OpenAILLM("parrot", base_url=server.url, api_key="sk-wrong-one"))
    assert isinstance(error, AuthenticationError)
    assert "wrong-one" not in str(error)
    assert "127.0.0.1" in str(error)


async def test_an_address_without_v1_is_found_out(server: FakeOpenAI, harness: Harness):
    error = await failure_of(harness, OpenAILLM("parrot", base_url=server.url.removesuffix("/v1")))
    assert isinstance(error, BadRequestError)
    assert "is below /v1" in str(error)


async def test_no_server_at_the_address(harness: Harness):
    async with FakeOpenAI() as gone:
        pass
    error = await failure_of(harness, OpenAILLM("parrot", base_url=gone.url))
    assert isinstance(error, ServiceDownError)
    assert "nothing listens at 127.0.0.1" in str(error)


async def test_an_unknown_host_name(harness: Harness):
    error = await failure_of(harness, OpenAILLM("parrot", base_url="http://no-such-host.invalid/v1", api_key="k"))
    assert isinstance(error, ServiceDownError)
    assert "no-such-host.invalid" in str(error)


async def test_a_server_that_hangs_at_the_start_is_given_up(server: FakeOpenAI):
    server.script(MODELS, Reply(hang_after=-1))
    llm = OpenAILLM("parrot", base_url=server.url, connect_timeout_s=2)
    async with Live(llm) as live:
        with pytest.raises(LifecycleError, match="was not ready within") as caught:
            await live.ended()
    assert isinstance(caught.value.__cause__, ServiceTimeout)
    await server.idle()
    assert server.closed_early == 1


@pytest.fixture
def certificate(tmp_path: Path) -> ssl.SSLContext:
    """Signed by itself, for 127.0.0.1."""
    key, own = tmp_path / "key.pem", tmp_path / "own.pem"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    need("openssl")
    subprocess.run([*command, *names, "-keyout", key, "-out", own], check=True, capture_output=True)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(own, key)
    return context


async def test_an_untrusted_certificate(certificate: ssl.SSLContext, harness: Harness):
    async with FakeOpenAI(ssl=certificate) as server:
        error = await failure_of(harness, OpenAILLM("parrot", base_url=server.url))
    assert isinstance(error, ServiceDownError)
    assert "the certificate of 127.0.0.1" in str(error)


async def test_tls_to_a_server_without_tls(server: FakeOpenAI, harness: Harness):
    error = await failure_of(harness, OpenAILLM("parrot", base_url=server.url.replace("http:", "https:")))
    assert isinstance(error, ServiceDownError)
    assert "http://" in str(error)


@pytest.mark.parametrize("service", SERVICES)
async def test_no_key_for_a_server_that_needs_one(
    harness: Harness, monkeypatch: pytest.MonkeyPatch, service: Callable[..., Any]
):
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    monkeypatch.delenv("OPENAI_BASE_URL", raising=False)
    error = await failure_of(harness, service("parrot"))
    assert isinstance(error, AuthenticationError)
    assert "there is no key for api.openai.com. Set OPENAI_API_KEY, or pass api_key." in str(error)


@pytest.mark.parametrize(
    "address",
    [
        "api.example.com/v1",
        "ftp://example.com",
        "http://",
        "http://a:99999/v1",
        "https://x/v1?key=sk-1",
        "http://[::1/v1",
    ],
)
def test_an_invalid_address(address: str):
    with pytest.raises(SettingsError, match="base_url must be an address such as"):
        OpenAILLM("parrot", base_url=address)


def test_a_password_in_the_address_is_refused_and_not_in_the_error():
    with pytest.raises(SettingsError, match="without a user name or password") as caught:
        OpenAILLM("parrot", base_url="https://me:hush@example.com/v1")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("key", ["sk-1\nsk-2", "sk 1", "schlüssel"])
def test_an_invalid_key_is_refused_and_not_in_the_error(key: str):
    with pytest.raises(SettingsError, match="api_key has characters") as caught:
        OpenAILLM("parrot", base_url="https://example.com/v1", api_key=key)
    assert key not in str(caught.value)


def test_a_key_may_have_a_line_break_at_its_end():
    OpenAILLM("parrot", base_url="https://example.com/v1", api_key="sk-1\n")


def test_an_unencrypted_key_is_warned_of(caplog: pytest.LogCaptureFixture):
    with caplog.at_level(logging.WARNING):
        OpenAILLM("parrot", base_url="http://api.example.com/v1", api_key="sk-hush")
        OpenAILLM("parrot", base_url="http://vllm:8000/v1", api_key="sk-hush")
        OpenAILLM("parrot", base_url="http://192.168.0.7/v1", api_key="sk-hush")
    assert len(caplog.records) == 1
    assert "unencrypted" in caplog.text
    assert "hush" not in caplog.text


def test_invalid_settings_are_refused():
    with pytest.raises(SettingsError, match="temperature"):
        OpenAILLM("parrot", temperature=-1)
    with pytest.raises(SettingsError, match="model"):
        OpenAITTS("")
    with pytest.raises(SettingsError, match="upload"):
        OpenAISTT(upload="mp3")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("service", SERVICES)
def test_without_the_package_it_says_how_to_install_it(service: Callable[..., Any], monkeypatch: pytest.MonkeyPatch):
    import importlib.util

    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)  # pyright: ignore[reportUnknownLambdaType, reportUnknownArgumentType]
    with pytest.raises(MissingExtraError, match=r"pip install .*\[openai\]"):
        service("parrot")


async def test_a_model_may_be_changed_while_it_runs(server: FakeOpenAI, harness: Harness):
    llm = OpenAILLM("parrot", base_url=server.url)
    bench = await bench_of(harness, llm)
    llm.update(model="whisper-1", temperature=0.1)
    await bench.send(LLMRequestFrame((Message("user", "hello"),)), response=1)
    [request] = server.asked(CHAT)
    assert (request.body["model"], request.body["temperature"]) == ("whisper-1", 0.1)
    with pytest.raises(SettingsError, match="unknown setting api_key"):
        llm.update(api_key="sk-1")


async def test_the_callers_http_client_is_used_and_not_closed(server: FakeOpenAI, harness: Harness):
    import openai

    async with openai.DefaultAsyncHttpxClient(headers={"x-mine": "yes"}) as mine:
        await bench_of(harness, OpenAILLM("parrot", base_url=server.url, http_client=mine))
        await harness.close()
        assert server.requests[0].headers["x-mine"] == "yes"
        assert not mine.is_closed


async def test_after_a_failure_the_model_is_not_looked_for_again(server: FakeOpenAI, harness: Harness):
    server.script(CHAT, Reply.error(503), Reply.error(503))
    bench = await bench_of(harness, OpenAILLM("parrot", base_url=server.url))
    await bench.send(LLMRequestFrame((Message("user", "hello"),)), response=1)
    await bench.advance(ms=2_000)
    assert [request.path for request in server.requests] == [MODELS, CHAT, CHAT, CHAT]
    assert [frame.text for frame in bench.down if isinstance(frame, TextFrame)] == ["hello"]


async def test_it_can_run_again_after_it_ended(server: FakeOpenAI):
    for _ in range(2):
        async with Live(llm := OpenAILLM("parrot", base_url=server.url)) as live:
            live.send(LLMRequestFrame((Message("user", "hello"),)), response=1)
            await live.out(TextFrame)
        await llm.connect()
        await llm.disconnect()
    assert len(server.asked(MODELS)) == 2

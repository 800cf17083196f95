"""Translation of errors; messages contain neither the key nor the conversation."""

import asyncio
import json
import logging
import math
import socket
import ssl
import traceback
from contextlib import aclosing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import Message
from voxline.pipeline.errors import (
    AuthenticationError,
    BadRequestError,
    RateLimitError,
    ServiceDownError,
    ServiceError,
    ServiceTimeout,
)
from voxline.pipeline.testing import Harness
from voxline.processors.openai import OpenAILLM, OpenAITTS
from voxline.processors.openai.errors import (
    RequestInfo,
    from_connection,
    from_status,
    from_stream,
    redacted,
    wait_of,
)
from voxline.tests.processors.openai.server import CHAT, SPEECH, FakeOpenAI, Reply

INFO = RequestInfo("OpenAILLM", "api.example.com", "parrot")
KEY = "sk-proj-0123456789abcdef"
WORDS = "my secret is the blue kingfisher"


def error_of(status: int, code: str = "", message: str = "", headers: Any = None, **fields: Any) -> ServiceError:
    body = {"error": {"message": message, "type": "invalid_request_error", "code": code or None, **fields}}
    return from_status(INFO, status, headers or {}, body)


@pytest.mark.parametrize(
    ("status", "code", "kind", "says"),
    [
        (401, "invalid_api_key", AuthenticationError, "rejects the key (401, invalid_api_key"),
        (403, "", AuthenticationError, "does not permit this with the key"),
        (403, "content_filter", BadRequestError, "filter"),
        (404, "model_not_found", BadRequestError, "there is no model 'parrot' at api.example.com"),
        (404, "", BadRequestError, "the address or the model"),
        (405, "", BadRequestError, "the address or the model"),
        (400, "context_length_exceeded", BadRequestError, "too long"),
        (413, "", BadRequestError, "too long"),
        (422, "", BadRequestError, "check the settings"),
        (400, "content_policy_violation", BadRequestError, "filter"),
        (408, "", ServiceTimeout, "gave up waiting"),
        (409, "", BadRequestError, "refuses the request"),
        (429, "rate_limit_exceeded", RateLimitError, "limits the rate"),
        (429, "insufficient_quota", RateLimitError, "used up"),
        (500, "", ServiceDownError, "internal error (500"),
        (503, "", ServiceDownError, "internal error (503"),
        (529, "overloaded_error", ServiceDownError, "overloaded_error"),
    ],
)
def test_a_status_becomes_a_typed_error(status: int, code: str, kind: type[ServiceError], says: str):
    error = error_of(status, code)
    assert type(error) is kind
    assert says in str(error)
    assert "api.example.com" in str(error)


def test_a_404_that_names_the_model_is_about_the_model():
    error = from_status(INFO, 404, {}, {"object": "error", "message": "The model `Parrot` does not exist."})
    assert "Check the setting model" in str(error)


def test_a_404_of_an_address_without_a_version_asks_for_it():
    bare = RequestInfo("OpenAILLM", "localhost:11434", "parrot", versioned=False)
    assert "Does base_url end in /v1?" in str(from_status(bare, 404, {}, "404 page not found"))
    assert "/v1" not in str(from_status(INFO, 404, {}, "404 page not found"))


def test_a_setting_that_is_not_taken_is_named():
    assert "check temperature" in str(error_of(400, "unsupported_value", param="temperature"))
    assert "check messages" in str(error_of(400, "invalid_value", param="messages[3].content"))
    assert WORDS not in str(error_of(400, "invalid_value", param=WORDS))


def test_a_quota_that_is_used_up_is_never_worth_a_wait():
    assert error_of(429, "insufficient_quota", headers={"retry-after": "1"}).wait_s == math.inf


DATE = "Sat, 21 Nov 2026 10:00:00 GMT"


@pytest.mark.parametrize(
    ("headers", "wait_s"),
    [
        ({}, None),
        ({"retry-after": "3"}, 3),
        ({"retry-after": "0.5"}, 0.5),
        ({"retry-after-ms": "250", "retry-after": "1"}, 0.25),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:07 GMT", "date": DATE}, 7),
        ({"retry-after": "Sat, 21 Nov 2026 09:00:00 GMT", "date": DATE}, 0),
        ({"retry-after": "Sat, 21 Nov 2026 10:00:07 GMT"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "-1"}, None),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"x-ratelimit-reset-requests": "20ms"}, 0.02),
        ({"x-ratelimit-reset-requests": "1s", "x-ratelimit-reset-tokens": "6m0s"}, 360),
        (
            {
                "x-ratelimit-reset-requests": "1s",
                "x-ratelimit-remaining-requests": "0",
                "x-ratelimit-reset-tokens": "1h2m3.5s",
                "x-ratelimit-remaining-tokens": "90",
            },
            1,
        ),
        ({"x-ratelimit-reset": "12"}, 12),
        ({"x-ratelimit-reset": "1795255205", "date": DATE}, 5),
        ({"x-ratelimit-reset": "1795255205"}, None),
        ({"x-ratelimit-reset-tokens": "6 minutes"}, None),
    ],
)
def test_the_time_to_wait_is_read_from_headers(headers: dict[str, str], wait_s: float | None):
    found = wait_of(headers)
    assert found == (wait_s if wait_s is None else pytest.approx(wait_s))


@given(st.dictionaries(st.sampled_from(["retry-after", "retry-after-ms", "date", "x-ratelimit-reset"]), st.text()))
def test_headers_that_make_no_sense_break_nothing(headers: dict[str, str]):
    found = wait_of(headers)
    assert found is None or (found >= 0 and math.isfinite(found))


def caused(cause: Exception) -> Exception:
    error = RuntimeError("All connection attempts failed")
    error.__cause__ = OSError("many")
    error.__cause__.__context__ = ExceptionGroup("both", [OSError("v6"), cause])
    return error


@pytest.mark.parametrize(
    ("cause", "says"),
    [
        (ConnectionRefusedError(), "nothing listens at api.example.com"),
        (socket.gaierror(), "the host name api.example.com cannot be resolved"),
        (ssl.SSLCertVerificationError(), "the certificate of api.example.com"),
        (ssl.SSLError(), "http://"),
        (OSError("no route"), "cannot be reached"),
    ],
)
def test_a_failed_connection_names_its_cause(cause: Exception, says: str):
    error = from_connection(INFO, caused(cause), answering=False)
    assert isinstance(error, ServiceDownError)
    assert says in str(error)


# --- what must not be in a message -----------------------------------------------------------------------------------

ECHOES = st.sampled_from([
    WORDS, KEY, f"Incorrect API key provided: {KEY}.", f"You said: {WORDS}", f"Bearer {KEY}", f"{WORDS} {KEY}",
])  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | ECHOES | st.text(max_size=10),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "message", "type", "code", "param", "detail", "status"]) | ECHOES,
            inner,
            max_size=5,
        )
    ),
    max_leaves=12,
)


def clean(text: str) -> bool:
    return KEY not in text and "kingfisher" not in text and KEY[3:] not in text


@given(status=st.integers(400, 599), body=JSON, headers=st.dictionaries(st.sampled_from(["retry-after", "x"]), ECHOES))
def test_no_message_has_the_key_or_what_was_said(status: int, body: object, headers: dict[str, str]):
    assert clean(str(from_status(INFO, status, headers, body)))
    assert clean(str(from_stream(INFO, body)))
    assert clean(str(from_connection(INFO, RuntimeError(json.dumps(body)), answering=False)))
    assert clean(str(from_connection(INFO, OSError(json.dumps(body)), answering=True)))


@pytest.mark.parametrize(
    "text", [f"key {KEY}", f"Authorization: Bearer {KEY}", "sk-other-0123", "gsk_abcdef", "Bearer x"]
)
def test_what_looks_like_a_key_is_taken_out(text: str):
    found = redacted(text, (KEY,))
    assert "***" in found
    assert KEY not in found
    assert "0123" not in found


@settings(max_examples=30)
@given(
    status=st.sampled_from([200, 400, 401, 403, 404, 408, 422, 429, 500, 503]),
    body=JSON,
    kind=st.sampled_from(["application/json", "text/event-stream", "text/html", "audio/pcm", None]),
    framed=st.booleans(),
)
def test_nothing_that_a_server_echoes_gets_out(status: int, body: object, kind: str | None, framed: bool):
    """Over real HTTP: no error, nothing in its chain that is shown, and no log above debug; at no level the key."""
    text = json.dumps(body)
    raw = f"data: {text}\n\n".encode() if framed else text.encode()
    seen: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = seen.append  # pyright: ignore[reportAttributeAccessIssue]
    ours = logging.getLogger("voxline")
    level = ours.level
    ours.addHandler(handler)
    ours.setLevel(logging.DEBUG)
    try:
        assert clean(asyncio.run(_ask_both(Reply((raw,), status, kind))))
    finally:
        ours.removeHandler(handler)
        ours.setLevel(level)
    for record in seen:
        shown = logging.Formatter().format(record)
        assert KEY not in shown
        assert record.levelno <= logging.DEBUG or clean(shown)


async def _ask_both(reply: Reply) -> str:
    """Return the text of the errors and logs as users see them."""
    shown = ""
    async with FakeOpenAI() as server:
        server.script(CHAT, reply)
        server.script(SPEECH, reply)
        llm = OpenAILLM("parrot", base_url=server.url, api_key=KEY, check=False)
        tts = OpenAITTS("parrot", base_url=server.url, api_key=KEY, check=False)
        async with Harness() as harness:
            await harness([llm, tts], patience_s=60)
            for answer in (llm.complete((Message("user", WORDS),), ()), tts.speak(WORDS)):
                try:
                    async with aclosing(answer):
                        async for _ in answer:
                            pass
                except ServiceError as error:
                    shown += "".join(traceback.format_exception(error))
    return shown

"""A server that speaks the OpenAI protocol over real HTTP, for tests and benchmarks: small, honest, faulty by script.

    async with FakeOpenAI(models=["parrot"]) as server:
        server.script(CHAT, Reply.chat("Hello ", "there."), Reply.error(429, headers={"retry-after": "1"}))
        llm = OpenAILLM("parrot", base_url=server.url)

Each request takes the next reply of its path's script; where there is none, it gets a sound answer: the chat says what
was said to it, a transcription tells how long the audio is, and speech is a tone of 40 ms for each character.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Self

import numpy as np
import soundfile
from aiohttp import web

MODELS, CHAT, TRANSCRIPTIONS, SPEECH = "/models", "/chat/completions", "/audio/transcriptions", "/audio/speech"
SAMPLE_RATE = 24_000
CHARACTER_MS = 40


def sse(data: object, event: str = "") -> bytes:
    """One server-sent event. A string is its data as it stands."""
    text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
    name = f"event: {event}\n" if event else ""
    return f"{name}data: {text}\n\n".encode()


def chunk(delta: Mapping[str, Any] | None = None, finish: str | None = None, **fields: Any) -> dict[str, Any]:
    """One chunk of a streamed completion."""
    choices = [{"index": 0, "delta": delta or {}, "finish_reason": finish}]
    return {"id": "c1", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": choices, **fields}


def cut_into(data: bytes, sizes: Iterable[int]) -> tuple[bytes, ...]:
    """Bytes in pieces of these sizes, and the rest."""
    pieces: list[bytes] = []
    for size in sizes:
        pieces.append(data[:size])
        data = data[size:]
    return tuple(filter(None, [*pieces, data]))


@dataclass(frozen=True)
class Reply:
    """Scripted response to a request. The bytes are sent piece by piece."""

    pieces: tuple[bytes, ...] = ()
    status: int = 200
    content_type: str | None = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    delay_s: float = 0.0
    """Delay before the headers."""
    gap_s: float = 0.0
    """Delay after each piece."""
    cut_after: int | None = None
    """Number of bytes after which the connection is closed."""
    hang_after: int | None = None
    """Number of pieces after which the server hangs. 0: after the headers; -1: before them."""

    @staticmethod
    def json(body: object, status: int = 200, **fields: Any) -> Reply:
        """A JSON object in one piece."""
        return Reply((json.dumps(body).encode(),), status, **fields)

    @staticmethod
    def error(status: int, code: str | None = None, message: str = "It went wrong.", **fields: Any) -> Reply:
        """An error in OpenAI's form."""
        param = fields.pop("param", None)
        error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
        return Reply.json({"error": error}, status, **fields)

    @staticmethod
    def events(*data: object, done: bool = True, **fields: Any) -> Reply:
        """A stream of events, each a piece."""
        end = (sse("[DONE]"),) if done else ()
        return Reply((*map(sse, data), *end), content_type="text/event-stream; charset=utf-8", **fields)

    @staticmethod
    def chat(*texts: str, finish: str | None = "stop", usage: tuple[int, int] | None = (7, 3), **fields: Any) -> Reply:
        """A streamed completion that says these texts."""
        told: list[object] = [
            chunk({"role": "assistant", "content": ""}),
            *(chunk({"content": text}) for text in texts),
        ]
        if finish is not None:
            told.append(chunk(finish=finish))
        if usage is not None:
            counted = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
            told.append({**chunk(), "choices": [], "usage": counted})
        return Reply.events(*told, **fields)

    @staticmethod
    def calls(*deltas: Mapping[str, Any], finish: str = "tool_calls", **fields: Any) -> Reply:
        """A streamed completion that calls tools: the items of ``tool_calls``, each in a chunk of its own."""
        return Reply.events(*(chunk({"tool_calls": [delta]}) for delta in deltas), chunk(finish=finish), **fields)

    def split(self, *sizes: int) -> Reply:
        """The same bytes, in pieces of other sizes."""
        return replace(self, pieces=cut_into(b"".join(self.pieces), sizes))


@dataclass(frozen=True)
class Request:
    """A request as it came. ``body``: JSON, or the fields of a form; ``file`` is what was uploaded."""

    path: str
    headers: Mapping[str, str]
    body: dict[str, Any]
    file: bytes = b""
    peer: object = None
    """The client's end of the connection."""


class FakeOpenAI:
    """The server, on a free port of this machine, in the loop that enters it.

    ``key``: asked for, where given. ``refuses``: parameters (or values of response_format) that it does not know.
    """

    def __init__(
        self, models: Sequence[str] = ("parrot",), *, key: str = "", refuses: Iterable[str] = (), ssl: Any = None
    ) -> None:
        self.models = list(models)
        self.key = key
        self.refuses = set(refuses)
        self.requests: list[Request] = []
        self.closed_early = 0
        """Requests whose client went away before the end of its answer."""
        self.url = ""
        self._ssl = ssl
        self._open = 0
        self._scripts: dict[str, deque[Reply]] = {}  # bound: what a test writes down
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 << 20)
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, handler_cancellation=True, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=self._ssl)
        await site.start()
        scheme = "https" if self._ssl else "http"
        self.url = f"{scheme}://127.0.0.1:{self._runner.addresses[0][1]}/v1"
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    def script(self, path: str, *replies: Reply) -> None:
        """Script the responses to the next requests for a path."""
        self._scripts.setdefault(path, deque()).extend(replies)

    def asked(self, path: str) -> list[Request]:
        """The requests for a path, in order."""
        return [request for request in self.requests if request.path == path]

    async def until(self, happened: Callable[[], bool], within_s: float = 30.0) -> None:
        """Wait until a condition holds. Raises TimeoutError."""
        async with asyncio.timeout(within_s):
            while not happened():
                self._changed.clear()
                await self._changed.wait()

    async def idle(self, within_s: float = 30.0) -> None:
        """Wait until no request is being answered."""
        await self.until(lambda: self._open == 0, within_s)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        self._open += 1
        try:
            return await self._reply_to(request)
        except (asyncio.CancelledError, ConnectionError):
            self.closed_early += 1
            raise
        finally:
            self._open -= 1
            self._changed.set()

    async def _reply_to(self, request: web.Request) -> web.StreamResponse:
        taken = await self._take(request)
        self.requests.append(taken)
        self._changed.set()
        script = self._scripts.get(taken.path)
        reply = script.popleft() if script else self._sound(taken)
        await asyncio.sleep(reply.delay_s)
        if reply.hang_after == -1:
            await asyncio.Event().wait()
        response = web.StreamResponse(status=reply.status, headers=dict(reply.headers))
        if reply.content_type is not None:
            response.headers["Content-Type"] = reply.content_type
        await response.prepare(request)
        left = reply.cut_after
        for number, piece in enumerate(reply.pieces):
            if number == reply.hang_after:
                await asyncio.Event().wait()
            await response.write(piece if left is None else piece[:left])
            if left is not None and (left := left - len(piece)) <= 0:
                break
            await asyncio.sleep(reply.gap_s)
        if reply.hang_after is not None:
            await asyncio.Event().wait()
        if reply.cut_after is not None and request.transport is not None:
            # What was written goes out; the end of the body never does.
            request.transport.close()
            return response
        await response.write_eof()
        return response

    async def _take(self, request: web.Request) -> Request:
        path = "/" + request.match_info["path"].removeprefix("v1/") if self._below(request) else f"?{request.path}"
        peer = request.transport.get_extra_info("peername") if request.transport else None
        headers = {name.lower(): value for name, value in request.headers.items()}
        if request.content_type.startswith("multipart/"):
            body: dict[str, Any] = {}
            file = b""
            form = await request.post()
            for name, value in form.items():
                if isinstance(value, web.FileField):
                    file = value.file.read()
                    value.file.close()
                else:
                    body[name.removesuffix("[]")] = value
            return Request(path, headers, body, file, peer)
        text = await request.text()
        return Request(path, headers, json.loads(text) if text else {}, b"", peer)

    def _below(self, request: web.Request) -> bool:
        return request.match_info["path"].startswith("v1/")

    def _sound(self, request: Request) -> Reply:
        """Build a valid response, or the error for an invalid request."""
        body = request.body
        if self.key and request.headers.get("authorization") != f"Bearer {self.key}":
            return Reply.error(401, "invalid_api_key", f"Incorrect API key: {request.headers.get('authorization')}.")
        for name in self.refuses & {*body, str(body.get("response_format"))}:
            param = name if name in body else "response_format"
            return Reply.error(400, "unsupported_parameter", f"Unknown parameter: '{name}'.", param=param)
        if request.path == MODELS:
            data = [{"id": name, "object": "model", "created": 1, "owned_by": "us"} for name in self.models]
            return Reply.json({"object": "list", "data": data})
        if body.get("model") not in self.models:
            return Reply.error(404, "model_not_found", f"The model {body.get('model')!r} does not exist.")
        if request.path == CHAT:
            return Reply.chat(*re.findall(r"\S+\s*", str(body["messages"][-1]["content"])))
        if request.path == TRANSCRIPTIONS:
            return _transcript(request)
        if request.path == SPEECH:
            return Reply((speech(body["input"]).tobytes(),), content_type="application/octet-stream")
        return Reply((b"404 page not found",), 404, "text/plain")


def speech(text: str) -> np.ndarray[tuple[int], np.dtype[np.int16]]:
    """Synthesise the audio for a text: int16 at 24 kHz."""
    count = len(text) * CHARACTER_MS * SAMPLE_RATE // 1000
    return (8_000 * np.sin(np.arange(count) * (2 * np.pi * 440 / SAMPLE_RATE))).astype("<i2")


def _transcript(request: Request) -> Reply:
    """Transcribe audio as a text that states its duration."""
    samples, rate = soundfile.read(io.BytesIO(request.file), dtype="int16")  # pyright: ignore[reportUnknownVariableType, reportUnknownMemberType]
    length_s = len(samples) / rate  # pyright: ignore[reportUnknownArgumentType]
    texts = [f"{round(length_s * 1000)}", "ms"]
    text = " ".join(texts)
    if request.body.get("stream") == "true":
        deltas = [{"type": "transcript.text.delta", "delta": part} for part in (texts[0], " ms")]
        return Reply.events(*deltas, {"type": "transcript.text.done", "text": text}, done=False)
    if request.body.get("response_format") == "verbose_json":
        half = length_s / 2
        words = [{"word": word, "start": at * half, "end": (at + 1) * half} for at, word in enumerate(texts)]
        return Reply.json({"task": "transcribe", "duration": length_s, "text": text, "words": words})
    return Reply.json({"text": text})

"""Request bodies, limited in size, time and type."""

from __future__ import annotations

import json
from typing import Any, cast

from aiohttp import web

from ...pipeline.clock import Clock
from ...pipeline.tasks import Deadline
from .refusals import Refusal
from .settings import ServerSettings


class Bodies:
    """Reads request bodies."""

    def __init__(self, settings: ServerSettings, clock: Clock) -> None:
        self._limit = settings.max_body_bytes
        self._timeout_s = settings.body_timeout_s
        self._clock = clock

    async def text(self, request: web.Request, content_type: str) -> str:
        """Read a UTF-8 body of a content type. Raises `Refusal`: 415, 413, 408, 400."""
        if request.content_type != content_type:
            raise Refusal(415, f"The body must be {content_type}.")
        return await self._read(request)

    async def json(self, request: web.Request) -> dict[str, Any]:
        """Read a JSON object; an empty body is an empty object. Raises `Refusal`: 413, 408, 400."""
        text = await self._read(request)
        if not text.strip():
            return {}
        try:
            data = json.loads(text, parse_constant=_no_constant)
        except (ValueError, RecursionError):
            raise Refusal(400, "The body must be JSON.") from None
        if not isinstance(data, dict):
            raise Refusal(400, "The body must be a JSON object.")
        return cast("dict[str, Any]", data)

    async def _read(self, request: web.Request) -> str:
        if request.headers.get("Content-Encoding", "identity") != "identity":
            raise Refusal(415, "Compressed bodies are not supported.")
        if (request.content_length or 0) > self._limit:
            raise self._too_large()
        body = bytearray()
        try:
            with Deadline(self._clock, self._timeout_s, TimeoutError):
                await self._fill(body, request)
        except TimeoutError:
            raise Refusal(408, "The body did not arrive in time.", {"Connection": "close"}) from None
        try:
            return body.decode()
        except UnicodeDecodeError:
            raise Refusal(400, "The body must be UTF-8.") from None

    async def _fill(self, body: bytearray, request: web.Request) -> None:
        while chunk := await request.content.readany():
            body += chunk
            if len(body) > self._limit:
                raise self._too_large()

    def _too_large(self) -> Refusal:
        return Refusal(413, f"The body is larger than {self._limit} bytes.", {"Connection": "close"})


def _no_constant(name: str) -> Any:
    raise ValueError(name)

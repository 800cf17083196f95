"""The client of the OpenAI protocol: whom it asks, with which key, and what its errors mean.

The package `openai` is the client; attempts, deadlines and fall-backs are ours (`processors/service/base.py`), so it
does none of them. Connections are kept open between turns, so that none pays for a handshake.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import ipaddress
import json
import logging
import os
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from typing import Any, cast
from urllib.parse import urlsplit

from pydantic import Field

from ...pipeline.errors import (
    AuthenticationError,
    BadAnswerError,
    BadRequestError,
    ServiceError,
    ServiceTimeout,
    SettingsError,
)
from ..service.base import Service, ServiceSettings
from ..subprocess.parent import require_package
from .errors import Asked, fields_of, from_connection, from_status, redacted

log = logging.getLogger(__name__)

DEFAULT_URL = "https://api.openai.com/v1"
KEEPALIVE_S = 300.0
"""How long a connection that nobody uses is kept. Longer than a person thinks; many servers close it earlier."""
MAX_CONNECTIONS = 16
"""Of one service. More questions at once wait for one of these."""
LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "h11", "h2", "anyio")
"""Whose exceptions may come out of the client: newer ones have the next generation of the same."""


class OpenAISettings(ServiceSettings):
    """What every service of this protocol can be told."""

    model: str = Field(min_length=1)
    check: bool = True
    """Whether `connect` asks the server for its models."""


class OpenAIServer:
    """One server that speaks the protocol, and the connections to it.

    ``base_url``: default is the environment's OPENAI_BASE_URL, and else OpenAI itself. ``api_key``: default is the
    environment's OPENAI_API_KEY; a server on this machine or in a private network gets that only where it is given, or
    where OPENAI_BASE_URL names it. ``headers`` go with each request, and are as secret as the key. ``http_client``: an
    ``AsyncClient`` of httpx, with proxies or certificates of your own; closing it is yours.

    Making one loads what is slow to load (0.5 s for the first of a process). Raises `MissingExtraError`,
    and `SettingsError` for an address or a key that cannot be.
    """

    def __init__(
        self,
        service: str,
        *,
        base_url: str | None = None,
        api_key: str | None = None,
        headers: Mapping[str, str] | None = None,
        http_client: Any = None,
    ) -> None:
        require_package(service, "openai", "openai", "openai")
        address = base_url or os.environ.get("OPENAI_BASE_URL") or DEFAULT_URL
        self.host, self.local, self._path = _host_of(service, address)
        if api_key is None and not (base_url and self.local):
            api_key = os.environ.get("OPENAI_API_KEY")
        self._key = _key_of(service, api_key)
        self._address = address.rstrip("/")
        given = (headers or {}).items()
        self._headers = {"Authorization" if name.lower() == "authorization" else name: value for name, value in given}
        self._given: Any = http_client
        if self._key and not self.local and address.startswith("http:"):
            log.warning("%s: the key goes to %s in the clear. Does base_url begin with https://?", service, self.host)
        self.client: Any = None
        """An ``AsyncOpenAI``."""
        self.extra: dict[str, Any] = {}
        """To be given with each request, as ``extra_headers``: without a key, that there is none."""
        self._found = ""
        """The model that the server was seen to have."""
        self._make()

    def asked(self, label: str, model: str) -> Asked:
        """Who asks it for what."""
        version = self._path.rsplit("/", 1)[-1]
        return Asked(label, self.host, model, versioned=version[:1] == "v" and version[1:2].isdigit())

    def _make(self) -> None:
        sdk: Any = importlib.import_module("openai")
        http = self._given
        if http is None:
            # The type of this default is of the HTTP library which this version of the client has.
            limits = type(sdk.DEFAULT_CONNECTION_LIMITS)(
                max_connections=MAX_CONNECTIONS,
                max_keepalive_connections=MAX_CONNECTIONS,
                keepalive_expiry=KEEPALIVE_S,
            )
            http = sdk.DefaultAsyncHttpxClient(
                timeout=None, limits=limits, verify=_certificates(type(limits).__module__)
            )
        self.extra = {} if self._key or "Authorization" in self._headers else {"Authorization": sdk.Omit()}
        self.client = sdk.AsyncOpenAI(
            api_key=self._key or "none",
            base_url=self._address,
            default_headers=self._headers,
            http_client=http,
            max_retries=0,
            timeout=None,
        )
        # These, and what the first request needs, are loaded when they are named: not in a call.
        client = self.client
        _ = client.models, client.chat.completions, client.audio.transcriptions, client.audio.speech
        for name in ("anyio._backends._asyncio", "concurrent.futures.thread"):
            try:
                importlib.import_module(name)
            except ImportError:
                log.debug("%s is not there to be loaded beforehand", name)

    async def open(self, label: str, model: str, *, check: bool) -> None:
        """See that it is there, takes the key and has the model; then a connection is open. Raises `ServiceError`."""
        if self.client.is_closed():
            self._make()
        if not self._key and not self.local and not self._headers:
            raise AuthenticationError(f"{label}: there is no key for {self.host}. Set OPENAI_API_KEY, or give api_key.")
        if check and self._found != model:
            await self._check(self.asked(label, model))
            # After a failure it is not looked for again: the question itself will tell, and sooner.
            self._found = model

    async def close(self) -> None:
        """Close its connections."""
        if self._given is None:
            await self.client.close()

    @asynccontextmanager
    async def asking(self, asked: Asked) -> AsyncGenerator[None]:
        """Within it, what the client raises is raised as what it means; a connection that fails cuts an answer off."""
        failure: ServiceError
        try:
            yield
            return
        except ServiceError:
            raise
        except Exception as error:
            failure = self.typed(asked, error)
        # Without the cause: its text is the server's, and may have anything in it.
        raise failure from None

    def typed(self, asked: Asked, error: Exception) -> ServiceError:
        """What an exception of the client's means."""
        names = {kind.__name__ for kind in type(error).__mro__}
        answer: Any = error
        if "APIStatusError" in names:
            log.debug("%s: %s said %s", asked.label, asked.host, self._safe(answer.body))
            headers = {str(key).lower(): str(value) for key, value in answer.response.headers.items()}
            return from_status(asked, answer.status_code, headers, answer.body)
        if names & {"APITimeoutError", "TimeoutException"}:
            return ServiceTimeout(f"{asked.label}: {asked.host} gave no answer in time.")
        if "APIConnectionError" in names:
            return from_connection(asked, error, answering=False)
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in LIBRARIES:
            return from_connection(asked, error, answering=True)
        if isinstance(error, ValueError):
            return BadAnswerError(f"{asked.label}: {asked.host} gave an answer that is not of this protocol.")
        return ServiceError(f"{asked.label}: the client failed with {type(error).__name__}.")

    def _safe(self, text: object) -> str:
        return redacted(str(text), (self._key, *self._headers.values()))[:1000]

    async def _check(self, asked: Asked) -> None:
        try:
            async with self.asking(asked):
                listed = await self._models(self.client)
        except BadRequestError:
            # No list is no proof: some servers have none. But perhaps there is one a step further.
            if await self._is_below(asked):
                raise BadRequestError(
                    f"{asked.label}: {self.host} has its API below /v1. Let base_url end in it."
                ) from None
            return
        if listed is None:
            raise BadAnswerError(
                f"{asked.label}: {self.host} answers, but not in this protocol. Is base_url right, and does it end in "
                "/v1? With check=False it is not asked for its models."
            )
        if not listed or _has(listed, asked.model) or await self._knows(asked):
            return
        close = difflib.get_close_matches(asked.model, listed, 3, 0.4) or listed[:3]
        names = ", ".join(repr(self._safe(name)[:80]) for name in close)
        raise BadRequestError(
            f"{asked.label}: there is no model {asked.model!r} at {self.host}, but there is {names}. Change model, "
            "or give check=False."
        )

    async def _models(self, client: Any) -> list[str] | None:
        """The names in its list; None where it is no list. Raises what the client does."""
        try:
            async with client.models.with_streaming_response.list(extra_headers=self.extra) as answer:
                body: object = json.loads(await answer.read())
        except ValueError:
            return None
        except Exception as error:
            if not _proves_nothing(error):
                raise
            return []
        return _names_in(body)

    async def _knows(self, asked: Asked) -> bool:
        """Whether it has a model that is not in its list: an alias."""
        try:
            retrieve = self.client.models.with_streaming_response.retrieve
            async with retrieve(asked.model, extra_headers=self.extra) as answer:
                body: object = json.loads(await answer.read())
        except Exception:
            return False
        return isinstance(body, dict) and "error" not in body and "id" in body

    async def _is_below(self, asked: Asked) -> bool:
        """Whether /v1 is missing in base_url."""
        if asked.versioned:
            return False
        try:
            # The client below shares the connections of this one, and is not to be closed.
            return bool(await self._models(self.client.copy(base_url=self._address + "/v1")))
        except Exception:
            return False


@functools.cache
def _certificates(module: str) -> Any:
    """Whom the HTTP library trusts: 50 ms to read, so it is read once, and not again where a connection is lost."""
    library: Any = importlib.import_module(module.split(".")[0])
    return library.create_ssl_context()


def _host_of(service: str, address: str) -> tuple[str, bool, str]:
    """The host (and port) of an address, whether it is this machine or a private network, and the path."""
    wrong = f"{service}: base_url is an address such as http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise SettingsError(f"{wrong}.") from None
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"{wrong}, without a name or a password in it. Give them as headers=.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingsError(f"{wrong}: http:// or https://, a host, and a path.")
    name = parts.hostname
    host = f"[{name}]" if ":" in name else name
    return f"{host}:{port}" if port else host, _is_local(name), parts.path.rstrip("/")


def _is_local(name: str) -> bool:
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        return "." not in name or name.endswith((".localhost", ".local", ".internal", ".lan", ".home.arpa"))
    return address.is_private or address.is_loopback or address.is_link_local


def _key_of(service: str, api_key: str | None) -> str:
    key = (api_key or "").strip()
    if not all("!" <= character <= "~" for character in key):
        raise SettingsError(f"{service}: api_key has characters that no key has. Was more copied than the key?")
    return key


def _has(listed: list[str], model: str) -> bool:
    """Whether a model is in a list; without a tag it is the latest, as some servers name them."""
    return model in listed or f"{model}:latest" in listed


def _names_in(body: object) -> list[str] | None:
    fields = cast(dict[str, Any], body) if isinstance(body, dict) else {}
    data: Any = fields.get("data")
    if data is None and "data" in fields:
        return []
    if not isinstance(data, list):
        return None
    found: list[str] = []
    for item in cast(list[object], data):
        name = cast(dict[str, object], item).get("id") if isinstance(item, dict) else None
        if isinstance(name, str):
            found.append(name)
    return found


def _proves_nothing(error: Exception) -> bool:
    """Whether a server that refuses its list may answer all the same: it is busy, or the key has few rights."""
    status = getattr(error, "status_code", 0)
    text = str(fields_of(getattr(error, "body", None)).get("message", "")).lower()
    return status == 429 or (status == 403 and "scope" in text)


class AsksServer:
    """A service that asks an `OpenAIServer`: it is open from the start to the end."""

    settings: Any
    _server: OpenAIServer

    async def connect(self) -> None:
        """See that the server is there, takes the key and has the model."""
        label = cast(Service[OpenAISettings], self).label
        await self._server.open(label, self.settings.model, check=self.settings.check)

    async def disconnect(self) -> None:
        """Close the connections."""
        await self._server.close()

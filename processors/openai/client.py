"""Client of the OpenAI protocol: server address, API key, connections and error translation.

The package `openai` sends the requests. Retries, deadlines and fall-backs are in `processors/service/base.py`, so they
are switched off in the package. Connections stay open between turns, so that no turn pays for a handshake.
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
from .errors import RequestInfo, fields_of, from_connection, from_status, redacted

log = logging.getLogger(__name__)

DEFAULT_URL = "https://api.openai.com/v1"
KEEPALIVE_S = 300.0
"""Maximum idle time of a connection. Longer than a user pauses between turns; many servers close it earlier."""
MAX_CONNECTIONS = 16
"""Connections of one service. Further requests wait until one is free."""
LIBRARIES = ("httpx", "httpx2", "httpcore", "httpcore2", "h11", "h2", "anyio")
"""Packages whose exceptions the client may raise. Newer versions of `openai` use httpx2 and httpcore2."""


class OpenAISettings(ServiceSettings):
    """Settings of every service of this protocol."""

    model: str = Field(min_length=1)
    check: bool = True
    """Ask the server for its list of models in `OpenAIService.connect`."""


class OpenAIServer:
    """A server that speaks the protocol, and the connections to it.

    ``base_url``: the default is the environment variable OPENAI_BASE_URL, then OpenAI itself. ``api_key``: the default
    is the environment variable OPENAI_API_KEY; a server on this machine or in a private network does not get that key
    if ``base_url`` names the server, only if OPENAI_BASE_URL does. ``headers`` are sent with each request and kept as
    secret as the key. ``http_client``: an ``httpx.AsyncClient``, for proxies or certificates; the caller closes it.

    The constructor imports the slow packages (0.5 s for the first instance in a process). Raises `MissingExtraError`,
    and `SettingsError` for an invalid address or key.
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
            log.warning("%s: the key goes to %s unencrypted. Should base_url begin with https://?", service, self.host)
        self.client: Any = None
        """The ``openai.AsyncOpenAI``."""
        self.extra: dict[str, Any] = {}
        """Argument ``extra_headers`` of each request. Without a key it removes the Authorization header."""
        self._checked_model = ""
        """Model that the last check of the server was for."""
        self._make()

    def request_info(self, label: str, model: str) -> RequestInfo:
        """Describe a request to this server for error messages."""
        version = self._path.rsplit("/", 1)[-1]
        return RequestInfo(label, self.host, model, versioned=version[:1] == "v" and version[1:2].isdigit())

    def _make(self) -> None:
        sdk: Any = importlib.import_module("openai")
        http = self._given
        if http is None:
            # The default limits have the type of the HTTP library that this version of `openai` uses.
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
        # `openai` imports these on first use. Import them now, and not during a turn.
        client = self.client
        _ = client.models, client.chat.completions, client.audio.transcriptions, client.audio.speech
        for name in ("anyio._backends._asyncio", "concurrent.futures.thread"):
            try:
                importlib.import_module(name)
            except ImportError:
                log.debug("%s cannot be imported beforehand", name)

    async def open(self, label: str, model: str, *, check: bool) -> None:
        """Check that the server is reachable, accepts the key and has the model. Raises `ServiceError`.

        Afterwards a connection is open, unless ``check`` is False.
        """
        if self.client.is_closed():
            self._make()
        if not self._key and not self.local and not self._headers:
            raise AuthenticationError(f"{label}: there is no key for {self.host}. Set OPENAI_API_KEY, or pass api_key.")
        if check and self._checked_model != model:
            await self._check(self.request_info(label, model))
            # A reconnection after a failure skips the check: the next request reports the same problems sooner.
            self._checked_model = model

    async def close(self) -> None:
        """Close the connections, unless the caller gave the HTTP client."""
        if self._given is None:
            await self.client.close()

    @asynccontextmanager
    async def translate_errors(self, info: RequestInfo) -> AsyncGenerator[None]:
        """Translate the client's exceptions inside the block into `ServiceError`."""
        failure: ServiceError
        try:
            yield
            return
        except ServiceError:
            raise
        except Exception as error:
            failure = self.service_error(info, error)
        # Drop the cause: its text is the server's, and may contain the user's words or the key.
        raise failure from None

    def service_error(self, info: RequestInfo, error: Exception) -> ServiceError:
        """Translate an exception of the client."""
        names = {kind.__name__ for kind in type(error).__mro__}
        answer: Any = error
        if "APIStatusError" in names:
            log.debug("%s: %s said %s", info.label, info.host, self._safe(answer.body))
            headers = {str(key).lower(): str(value) for key, value in answer.response.headers.items()}
            return from_status(info, answer.status_code, headers, answer.body)
        if names & {"APITimeoutError", "TimeoutException"}:
            return ServiceTimeout(f"{info.label}: {info.host} gave no answer in time.")
        if "APIConnectionError" in names:
            return from_connection(info, error, answering=False)
        if isinstance(error, OSError) or type(error).__module__.split(".")[0] in LIBRARIES:
            return from_connection(info, error, answering=True)
        if isinstance(error, ValueError):
            return BadAnswerError(f"{info.label}: {info.host} sent an answer that does not follow the protocol.")
        return ServiceError(f"{info.label}: the client failed with {type(error).__name__}.")

    def _safe(self, text: object) -> str:
        return redacted(str(text), (self._key, *self._headers.values()))[:1000]

    async def _check(self, info: RequestInfo) -> None:
        try:
            async with self.translate_errors(info):
                listed = await self._models(self.client)
        except BadRequestError:
            # A missing list proves nothing: some servers have none. But perhaps the list is below /v1.
            if await self._has_v1(info):
                raise BadRequestError(
                    f"{info.label}: the API of {self.host} is below /v1. Append /v1 to base_url."
                ) from None
            return
        if listed is None:
            raise BadAnswerError(
                f"{info.label}: {self.host} answers, but not in this protocol. Is base_url right, and does it end in "
                "/v1? check=False skips the request for its models."
            )
        if not listed or _has(listed, info.model) or await self._has_alias(info):
            return
        close = difflib.get_close_matches(info.model, listed, 3, 0.4) or listed[:3]
        names = ", ".join(repr(self._safe(name)[:80]) for name in close)
        raise BadRequestError(
            f"{info.label}: there is no model {info.model!r} at {self.host}, but there is {names}. Change model, "
            "or pass check=False."
        )

    async def _models(self, client: Any) -> list[str] | None:
        """Return the names in the list of models; None for a malformed list. Raises the client's exceptions."""
        try:
            async with client.models.with_streaming_response.list(extra_headers=self.extra) as answer:
                body: object = json.loads(await answer.read())
        except ValueError:
            return None
        except Exception as error:
            if not _is_inconclusive(error):
                raise
            return []
        return _names_in(body)

    async def _has_alias(self, info: RequestInfo) -> bool:
        """Ask for a model that the list lacks: some servers know aliases."""
        try:
            retrieve = self.client.models.with_streaming_response.retrieve
            async with retrieve(info.model, extra_headers=self.extra) as answer:
                body: object = json.loads(await answer.read())
        except Exception:
            return False
        return isinstance(body, dict) and "error" not in body and "id" in body

    async def _has_v1(self, info: RequestInfo) -> bool:
        """Return True if the list of models is below /v1, and base_url lacks that part."""
        if info.versioned:
            return False
        try:
            # The copy shares the connections of this client, so it must not be closed.
            return bool(await self._models(self.client.copy(base_url=self._address + "/v1")))
        except Exception:
            return False


@functools.cache
def _certificates(module: str) -> Any:
    """Load the trusted certificates of the HTTP library. Cached: loading takes 50 ms, too long for a reconnection."""
    library: Any = importlib.import_module(module.split(".")[0])
    return library.create_ssl_context()


def _host_of(service: str, address: str) -> tuple[str, bool, str]:
    """Split an address into host (with port), locality (True: this machine or a private network) and path."""
    wrong = f"{service}: base_url must be an address such as http://127.0.0.1:8000/v1"
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise SettingsError(f"{wrong}.") from None
    if parts.username is not None or parts.password is not None:
        raise SettingsError(f"{wrong}, without a user name or password. Pass those in headers=.")
    if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
        raise SettingsError(f"{wrong}: http:// or https://, a host and a path.")
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
        raise SettingsError(f"{service}: api_key has characters that no key contains. Did you copy more than the key?")
    return key


def _has(listed: list[str], model: str) -> bool:
    """Look a model up in a list. Ollama lists a model without a tag as ``name:latest``."""
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


def _is_inconclusive(error: Exception) -> bool:
    """Return True if a server that refuses its list may still answer: the server is busy, or the key lacks a scope."""
    status = getattr(error, "status_code", 0)
    text = str(fields_of(getattr(error, "body", None)).get("message", "")).lower()
    return status == 429 or (status == 403 and "scope" in text)


class OpenAIService:
    """Mixin for services of an `OpenAIServer`: opens it in `connect`, closes it in `disconnect`."""

    settings: Any
    _server: OpenAIServer

    async def connect(self) -> None:
        """Check that the server is reachable, accepts the key and has the model."""
        label = cast(Service[OpenAISettings], self).label
        await self._server.open(label, self.settings.model, check=self.settings.check)

    async def disconnect(self) -> None:
        """Close the connections."""
        await self._server.close()

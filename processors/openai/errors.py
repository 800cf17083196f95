"""Translation of failures into `ServiceError`: HTTP statuses, errors inside a stream, failed connections.

Messages never contain the server's own text, because a server may echo the user's words and even the API key. Only
known error codes (`KNOWN_CODES`) and parameter names (`KNOWN_SETTINGS`) reach a message. The debug log has the full
text, with the key removed.
"""

from __future__ import annotations

import json
import math
import re
import socket
import ssl
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from typing import Any, cast

from ...pipeline.errors import (
    AuthenticationError,
    BadAnswerError,
    BadRequestError,
    RateLimitError,
    ServiceDownError,
    ServiceError,
    ServiceTimeout,
)

KNOWN_CODES = frozenset({
    "account_deactivated", "api_error", "audio_too_short", "authentication_error", "billing_hard_limit_reached",
    "billing_not_active", "content_filter", "content_policy_violation", "context_length_exceeded", "engine_overloaded",
    "exceed_context_size_error", "insufficient_permissions", "insufficient_quota", "invalid_api_key",
    "invalid_language_format", "invalid_organization", "invalid_prompt", "invalid_request_error", "invalid_type",
    "invalid_value", "ip_not_authorized", "missing_required_parameter", "model_not_found", "not_found_error",
    "overloaded_error", "permission_error", "quota_exceeded", "rate_limit_error", "rate_limit_exceeded", "requests",
    "server_error", "slow_down", "string_above_max_length", "tokens", "unavailable_error", "unknown_parameter",
    "unsupported_country_region_territory", "unsupported_format", "unsupported_parameter", "unsupported_value",
})  # fmt: skip
"""Error codes and error types that are allowed in a message."""
KNOWN_SETTINGS = frozenset({
    "file", "input", "instructions", "language", "max_completion_tokens", "max_tokens", "messages", "model", "prompt",
    "response_format", "speed", "stream", "stream_options", "temperature", "timestamp_granularities", "tool_choice",
    "tools", "top_p", "voice",
})  # fmt: skip
"""Request parameters that are allowed in a message."""

_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"})
_TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})
_FILTERED = frozenset({"content_filter", "content_policy_violation"})
_STATUS_OF = {
    "invalid_api_key": 401, "authentication_error": 401, "permission_error": 403, "insufficient_permissions": 403,
    "rate_limit_exceeded": 429, "rate_limit_error": 429, "insufficient_quota": 429, "quota_exceeded": 429,
    "model_not_found": 404, "context_length_exceeded": 400, "invalid_request_error": 400, "content_filter": 400,
    "content_policy_violation": 400, "exceed_context_size_error": 400, "BadRequestError": 400,
}  # fmt: skip
"""HTTP status for the code of an error that arrives inside a stream."""

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_EPOCH_S = 1e9
"""Larger values are seconds since 1970, smaller ones are durations."""


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """One request to a server: the names that error messages need, and the parameters that the server refused."""

    label: str
    """Name of the service."""
    host: str
    model: str
    versioned: bool = True
    """True if the path of base_url ends in a version, such as /v1."""
    refused: set[str] = field(default_factory=set[str])
    """Parameters in `KNOWN_SETTINGS` that the server named when it refused the request."""


def redacted(text: str, secrets: tuple[str, ...]) -> str:
    """Replace the secrets, and everything that looks like an API key, with ``***``."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)\b(bearer|basic)\s+\S+", r"\1 ***", text)
    return re.sub(r"\b(sk|pk|rk|gsk|key)[-_][\w*-]{3,}", r"\1-***", text)


def fields_of(body: object) -> Mapping[str, Any]:
    """Find the error object in a response body, in any of the known shapes; empty if there is none."""
    if isinstance(body, Mapping):
        found = cast(Mapping[str, Any], body)
        inner = found.get("error")
        return fields_of(cast(object, inner)) if isinstance(inner, Mapping) else found
    return {}


def error_in(body: bytes) -> Mapping[str, Any] | None:
    """Parse an error object that came with a successful status. Return None for any other body."""
    try:
        found: object = json.loads(body)
    except ValueError:
        return None
    if not isinstance(found, dict) or "error" not in found:
        return None
    return cast(Mapping[str, Any], found)


def codes_of(body: object) -> list[str]:
    """Return the ``code`` and ``type`` of an error body, those that are strings."""
    fields = fields_of(body)
    return [code for key in ("code", "type") if isinstance(code := fields.get(key), str)]


def from_status(info: RequestInfo, status: int, headers: Mapping[str, str], body: object) -> ServiceError:
    """Translate a response with a status of 400 or more. ``body``: parsed JSON, or the text."""
    codes = codes_of(body)
    known = [code for code in dict.fromkeys(codes) if code in KNOWN_CODES]
    detail = ", ".join([str(status), *known])
    who, host = info.label, info.host
    if status == 401 or (status == 403 and not _FILTERED & set(codes)):
        problem = "rejects the key" if status == 401 else "does not permit this with the key"
        return AuthenticationError(
            f"{who}: {host} {problem} ({detail}). Check api_key or OPENAI_API_KEY. Is the key for this server?"
        )
    if status == 429:
        return _rate_limited(info, detail, headers, bool(_QUOTA & set(codes)))
    if status in (408, 425):
        return ServiceTimeout(f"{who}: {host} gave up waiting ({detail}). Is it overloaded?")
    if status >= 500:
        down = ServiceDownError(f"{who}: {host} had an internal error ({detail}). Its status page may say why.")
        down.wait_s = wait_of(headers)
        return down
    return _bad_request(info, status, detail, codes, body)


def _rate_limited(info: RequestInfo, detail: str, headers: Mapping[str, str], used_up: bool) -> RateLimitError:
    if used_up:
        return RateLimitError(
            f"{info.label}: the quota of the key at {info.host} is used up ({detail}). Retries will fail: check the "
            "plan and the billing of the account.",
            math.inf,
        )
    wait_s = wait_of(headers)
    wait = "gave no time to wait" if wait_s is None else f"asks to wait for {wait_s:g} s"
    return RateLimitError(f"{info.label}: {info.host} limits the rate of requests ({detail}), and {wait}.", wait_s)


def _bad_request(info: RequestInfo, status: int, detail: str, codes: list[str], body: object) -> BadRequestError:
    """Find the part of the request that the server refuses."""
    who, host, found = info.label, info.host, set(codes)
    text = str(body).lower()
    if "model_not_found" in found or (status == 404 and info.model and info.model.lower() in text):
        return BadRequestError(
            f"{who}: there is no model {info.model!r} at {host} ({detail}). Check the setting model."
        )
    if status in (404, 405):
        hint = "" if info.versioned else " Does base_url end in /v1?"
        return BadRequestError(
            f"{who}: {host} does not know this request ({detail}): the address or the model {info.model!r} is wrong, "
            f"or the server does not offer this service.{hint}"
        )
    if _FILTERED & found:
        return BadRequestError(f"{who}: the content filter of {host} refused the request ({detail}).")
    if status == 413 or _TOO_LONG & found:
        return BadRequestError(f"{who}: the request is too long for {info.model!r} at {host} ({detail}). Send less.")
    info.refused.update(KNOWN_SETTINGS.intersection(re.findall(r"\w+", text)))
    param = fields_of(body).get("param")
    name = re.split(r"[.\[]", param)[0] if isinstance(param, str) else ""
    hint = f"check {name}" if name in KNOWN_SETTINGS else "check the settings; the debug log has the server's message"
    return BadRequestError(f"{who}: {host} refuses the request ({detail}): {hint}.")


def from_stream(info: RequestInfo, body: object, or_else: type[ServiceError] = ServiceDownError) -> ServiceError:
    """Translate an error that came with a successful status, or inside a stream.

    ``or_else``: the type of the result if the error has no known code.
    """
    code = fields_of(body).get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 0
    if not status:
        status = next((_STATUS_OF[code] for code in codes_of(body) if code in _STATUS_OF), 0)
    if status:
        return from_status(info, status, {}, body)
    known = [code for code in dict.fromkeys(codes_of(body)) if code in KNOWN_CODES]
    detail = ", ".join(["an error in its answer", *known])
    return or_else(f"{info.label}: {info.host} had an internal error ({detail}).")


def wait_of(headers: Mapping[str, str]) -> float | None:
    """Return the time to wait in s that a server asks for; None if it names none. Header names are in lower case."""
    for name, unit_s in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        wait_s = _number(headers.get(name))
        if wait_s is not None:
            return wait_s * unit_s
    if (wait_s := _between(headers.get("date"), headers.get("retry-after"))) is not None:
        return wait_s
    waits: list[tuple[bool, float]] = []
    for kind in ("-requests", "-tokens", ""):
        reset_s = _span(headers.get(f"x-ratelimit-reset{kind}"), headers.get("date"))
        if reset_s is not None:
            waits.append((_number(headers.get(f"x-ratelimit-remaining{kind}")) == 0, reset_s))
    # With several limits, only those that are used up count.
    return max((wait_s for used_up, wait_s in waits if used_up or not any(one for one, _ in waits)), default=None)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _between(date: str | None, until: str | None) -> float | None:
    """Return the seconds between two HTTP dates. Both come from the server, so a wrong local clock does no harm."""
    try:
        return max(0.0, (parsedate_to_datetime(until or "") - parsedate_to_datetime(date or "")).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _span(text: str | None, date: str | None) -> float | None:
    """Parse ``6m0s``, ``20ms``, a number of seconds, or a time in seconds since 1970."""
    number = _number(text)
    if number is not None and number > _EPOCH_S:
        try:
            return max(0.0, number - parsedate_to_datetime(date or "").timestamp())
        except (ValueError, TypeError, OverflowError):
            return None
    if number is not None:
        return number
    text = (text or "").strip()
    found = _SPAN.findall(text)
    if not found or "".join(map("".join, found)) != text:
        return None
    return sum(float(count) * _SECONDS[unit] for count, unit in found)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an exception, its causes and contexts, and the members of exception groups."""
    found: list[BaseException] = []
    left: list[BaseException | None] = [error]
    while left:
        one = left.pop()
        if one is None or one in found:
            continue
        found.append(one)
        yield one
        left += [one.__cause__, one.__context__]
        if isinstance(one, BaseExceptionGroup):
            left += cast("BaseExceptionGroup[BaseException]", one).exceptions


def from_connection(info: RequestInfo, error: BaseException, *, answering: bool) -> ServiceError:
    """Translate a failed connection. ``answering``: True if the response had started."""
    who, host = info.label, info.host
    found = list(causes(error))
    names = {kind.__name__ for one in found for kind in type(one).__mro__}
    if "DecodingError" in names:
        return BadAnswerError(f"{who}: {host} sent an answer that cannot be decompressed.")
    if answering:
        return ServiceDownError(f"{who}: the connection to {host} was lost in the middle of an answer.")
    if any(isinstance(one, socket.gaierror) for one in found):
        return ServiceDownError(
            f"{who}: the host name {host} cannot be resolved. Is base_url right, and is there a network?"
        )
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in found):
        return ServiceDownError(f"{who}: the certificate of {host} is not valid for it. Is base_url right?")
    if any(isinstance(one, ssl.SSLError) for one in found):
        return ServiceDownError(f"{who}: {host} does not speak TLS. Should base_url begin with http://?")
    if any(isinstance(one, ConnectionRefusedError) for one in found):
        return ServiceDownError(f"{who}: nothing listens at {host}. Is the server running, and is base_url right?")
    return ServiceDownError(f"{who}: {host} cannot be reached. Is the server running, and is base_url right?")

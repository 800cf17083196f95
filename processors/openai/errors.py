"""What went wrong, in our own words: answers of a server and exceptions of its library become `ServiceError`.

What a server writes is never passed on. It may echo what a user said, and even the key; so of its text only what stands
in a list here is told: known codes, and the names of settings. The whole of it is in the debug log, without the key.
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
"""Codes and types of errors that may stand in a message."""
KNOWN_SETTINGS = frozenset({
    "file", "input", "instructions", "language", "max_completion_tokens", "max_tokens", "messages", "model", "prompt",
    "response_format", "speed", "stream", "stream_options", "temperature", "timestamp_granularities", "tool_choice",
    "tools", "top_p", "voice",
})  # fmt: skip
"""Parameters of a request that may stand in a message."""

_QUOTA = frozenset({"insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "quota_exceeded"})
_TOO_LONG = frozenset({"context_length_exceeded", "exceed_context_size_error", "string_above_max_length"})
_FILTERED = frozenset({"content_filter", "content_policy_violation"})
_STATUS_OF = {
    "invalid_api_key": 401, "authentication_error": 401, "permission_error": 403, "insufficient_permissions": 403,
    "rate_limit_exceeded": 429, "rate_limit_error": 429, "insufficient_quota": 429, "quota_exceeded": 429,
    "model_not_found": 404, "context_length_exceeded": 400, "invalid_request_error": 400, "content_filter": 400,
    "content_policy_violation": 400, "exceed_context_size_error": 400, "BadRequestError": 400,
}  # fmt: skip
"""What an error in the middle of a stream would have been at its beginning."""

_SPAN = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86_400.0}
_EPOCH_S = 1e9
"""A number of seconds that is larger counts from 1970."""


@dataclass(frozen=True, slots=True)
class Asked:
    """One question: who asked whom for what, for a message."""

    label: str
    """The name of the service."""
    host: str
    model: str
    versioned: bool = True
    """Whether the path of base_url ends in a version, as in /v1."""
    refused: set[str] = field(default_factory=set[str])
    """The parameters that the server named when it did not take the request, of those in `KNOWN_SETTINGS`."""


def redacted(text: str, secrets: tuple[str, ...]) -> str:
    """A text without the key, and without what looks like one."""
    for secret in sorted(filter(None, secrets), key=len, reverse=True):
        text = text.replace(secret, "***")
    text = re.sub(r"(?i)\b(bearer|basic)\s+\S+", r"\1 ***", text)
    return re.sub(r"\b(sk|pk|rk|gsk|key)[-_][\w*-]{3,}", r"\1-***", text)


def fields_of(body: object) -> Mapping[str, Any]:
    """The object that tells of the error, in one of the shapes that servers give it; empty where there is none."""
    if isinstance(body, Mapping):
        found = cast(Mapping[str, Any], body)
        inner = found.get("error")
        return fields_of(cast(object, inner)) if isinstance(inner, Mapping) else found
    return {}


def error_in(body: bytes) -> Mapping[str, Any] | None:
    """The JSON object in which a server tells of an error where none was to be expected; None for anything else."""
    try:
        found: object = json.loads(body)
    except ValueError:
        return None
    if not isinstance(found, dict) or "error" not in found:
        return None
    return cast(Mapping[str, Any], found)


def codes_of(body: object) -> list[str]:
    """Its codes: of what is not known, nothing."""
    fields = fields_of(body)
    return [code for key in ("code", "type") if isinstance(code := fields.get(key), str)]


def from_status(asked: Asked, status: int, headers: Mapping[str, str], body: object) -> ServiceError:
    """What an answer with a status of 400 or more means. ``body``: as JSON, or its text."""
    codes = codes_of(body)
    known = [code for code in dict.fromkeys(codes) if code in KNOWN_CODES]
    told = ", ".join([str(status), *known])
    who, host = asked.label, asked.host
    if status == 401 or (status == 403 and not _FILTERED & set(codes)):
        what = "does not accept the key" if status == 401 else "does not allow this to the key"
        return AuthenticationError(
            f"{who}: {host} {what} ({told}). Check api_key or OPENAI_API_KEY, and that it is a key of this server."
        )
    if status == 429:
        return _too_much(asked, told, headers, bool(_QUOTA & set(codes)))
    if status in (408, 425):
        return ServiceTimeout(f"{who}: {host} gave up waiting ({told}). Is it overloaded?")
    if status >= 500:
        down = ServiceDownError(f"{who}: {host} failed by itself ({told}). Its operator's status page may say why.")
        down.wait_s = wait_of(headers)
        return down
    return _refused(asked, status, told, codes, body)


def _too_much(asked: Asked, told: str, headers: Mapping[str, str], used_up: bool) -> RateLimitError:
    if used_up:
        return RateLimitError(
            f"{asked.label}: the quota of the key at {asked.host} is used up ({told}). Asking again is in vain: see to "
            "the plan and the billing of the account.",
            math.inf,
        )
    wait_s = wait_of(headers)
    wait = "did not say for how long to wait" if wait_s is None else f"asks to wait for {wait_s:g} s"
    return RateLimitError(f"{asked.label}: {asked.host} was asked too often or too much ({told}), and {wait}.", wait_s)


def _refused(asked: Asked, status: int, told: str, codes: list[str], body: object) -> BadRequestError:
    """What of the request it is."""
    who, host, found = asked.label, asked.host, set(codes)
    text = str(body).lower()
    if "model_not_found" in found or (status == 404 and asked.model and asked.model.lower() in text):
        return BadRequestError(f"{who}: there is no model {asked.model!r} at {host} ({told}). It is the setting model.")
    if status in (404, 405):
        hint = "" if asked.versioned else " Does base_url end in /v1?"
        return BadRequestError(
            f"{who}: {host} does not know what it was asked for ({told}): the address or the model {asked.model!r} is "
            f"wrong, or it does not offer this service.{hint}"
        )
    if _FILTERED & found:
        return BadRequestError(f"{who}: the filter of {host} refused what it was asked ({told}).")
    if status == 413 or _TOO_LONG & found:
        return BadRequestError(f"{who}: the request is too long for {asked.model!r} at {host} ({told}). Send less.")
    asked.refused.update(KNOWN_SETTINGS.intersection(re.findall(r"\w+", text)))
    param = fields_of(body).get("param")
    name = re.split(r"[.\[]", param)[0] if isinstance(param, str) else ""
    look = f"look at {name}" if name in KNOWN_SETTINGS else "look at the settings; its words are in the debug log"
    return BadRequestError(f"{who}: {host} does not take the request ({told}): {look}.")


def from_stream(asked: Asked, body: object, or_else: type[ServiceError] = ServiceDownError) -> ServiceError:
    """What an error means that came where an answer had begun already, or with a status that says that all is well.

    ``or_else``: what it is where it does not tell.
    """
    code = fields_of(body).get("code")
    status = code if isinstance(code, int) and 400 <= code < 600 else 0
    if not status:
        status = next((_STATUS_OF[code] for code in codes_of(body) if code in _STATUS_OF), 0)
    if status:
        return from_status(asked, status, {}, body)
    known = [code for code in dict.fromkeys(codes_of(body)) if code in KNOWN_CODES]
    told = ", ".join(["an error in its answer", *known])
    return or_else(f"{asked.label}: {asked.host} failed by itself ({told}).")


def wait_of(headers: Mapping[str, str]) -> float | None:
    """For how long a server asks to be left alone, in s; None where it does not say. Names in lower case."""
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
    # Of several limits, that which is used up.
    return max((wait_s for used_up, wait_s in waits if used_up or not any(one for one, _ in waits)), default=None)


def _number(text: str | None) -> float | None:
    try:
        value = float(text or "")
    except ValueError:
        return None
    return value if math.isfinite(value) and value >= 0 else None


def _between(date: str | None, until: str | None) -> float | None:
    """From one HTTP date to another: the server's own clock is the one that counts."""
    try:
        return max(0.0, (parsedate_to_datetime(until or "") - parsedate_to_datetime(date or "")).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return None


def _span(text: str | None, date: str | None) -> float | None:
    """``6m0s``, ``20ms``, a number of seconds, or a moment in seconds since 1970."""
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
    """An exception and all that it came from."""
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


def from_connection(asked: Asked, error: BaseException, *, answering: bool) -> ServiceError:
    """What it means that the connection failed. ``answering``: in the middle of an answer."""
    who, host = asked.label, asked.host
    found = list(causes(error))
    names = {kind.__name__ for one in found for kind in type(one).__mro__}
    if "DecodingError" in names:
        return BadAnswerError(f"{who}: {host} sent an answer that cannot be unpacked.")
    if answering:
        return ServiceDownError(f"{who}: the connection to {host} broke off in the middle of an answer.")
    if any(isinstance(one, socket.gaierror) for one in found):
        return ServiceDownError(f"{who}: the name of {host} is not known. Is base_url right, and is there a network?")
    if any(isinstance(one, ssl.SSLCertVerificationError) for one in found):
        return ServiceDownError(f"{who}: the certificate of {host} is not valid for it. Is base_url right?")
    if any(isinstance(one, ssl.SSLError) for one in found):
        return ServiceDownError(f"{who}: {host} does not speak TLS as it should. Does base_url begin with http://?")
    if any(isinstance(one, ConnectionRefusedError) for one in found):
        return ServiceDownError(f"{who}: nothing listens at {host}. Is the server running, and is base_url right?")
    return ServiceDownError(f"{who}: {host} cannot be reached. Is the server running, and is base_url right?")

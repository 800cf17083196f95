"""Refusals: the one error that the server returns to clients, as a status, a sentence and headers."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...pipeline.errors import TransportError

RETRY_S = 5
"""Seconds after which a client that found no free place may try again."""


class Refusal(TransportError):
    """A response of 4xx or 5xx. The message goes to the client: it holds no path, no secret and no words of a user."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


def busy(message: str, again_s: float) -> Refusal:
    """Make a 503 Service Unavailable (RFC 9110, 15.6.4) with the time after which to try again."""
    return Refusal(503, message, {"Retry-After": str(max(1, math.ceil(again_s)))})


def too_many(message: str, again_s: float) -> Refusal:
    """Make a 429 Too Many Requests (RFC 6585, section 4)."""
    return Refusal(429, message, {"Retry-After": str(max(1, math.ceil(again_s)))})


def unauthorized(message: str) -> Refusal:
    """Make a 401, which must name the way to authenticate (RFC 9110, 15.5.2; RFC 6750, section 3)."""
    return Refusal(401, message, {"WWW-Authenticate": 'Bearer realm="voxline"'})

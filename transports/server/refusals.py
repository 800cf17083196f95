"""How a server says no: a status, a sentence, and headers. Nothing else of what went wrong leaves the process."""

from __future__ import annotations

import math
from collections.abc import Mapping

from ...pipeline.errors import TransportError


class Refusal(TransportError):
    """An answer of 4xx or 5xx. The message is for the client: no path, no secret, nothing that somebody said."""

    def __init__(self, status: int, message: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})


def busy(message: str, again_s: float) -> Refusal:
    """503 Service Unavailable (RFC 9110, 15.6.4), with the time after which it is worth trying again."""
    return Refusal(503, message, {"Retry-After": str(max(1, math.ceil(again_s)))})


def too_many(message: str, again_s: float) -> Refusal:
    """429 Too Many Requests (RFC 6585, section 4)."""
    return Refusal(429, message, {"Retry-After": str(max(1, math.ceil(again_s)))})


def unauthorized(message: str) -> Refusal:
    """401, which has to say how one would be let in (RFC 9110, 15.5.2; RFC 6750, section 3)."""
    return Refusal(401, message, {"WWW-Authenticate": 'Bearer realm="voxline"'})

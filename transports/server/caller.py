"""Who a conversation is for."""

from __future__ import annotations

from contextvars import ContextVar
from dataclasses import dataclass, field

from .credentials import NOBODY, Grant


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asked for a conversation."""

    subject: str = ""
    """Who the credential was made for. Empty where none is needed."""
    address: str = ""
    """Where the request came from; see `ServerSettings.proxies`."""
    data: str = field(default="null", repr=False)
    """What the client's program sent along, as JSON: nobody has checked it."""
    grant: Grant = field(default=NOBODY, repr=False)
    """What let the caller in."""
    shared: bool = False
    """The address is not the caller's own, but one from which many are called for: a telephone company's."""


_UNKNOWN = Caller()

current: ContextVar[Caller] = ContextVar("voxline_caller", default=_UNKNOWN)


def current_caller() -> Caller:
    """Who the conversation is for: in ``make_pipeline``, in ``on_worker`` and in the processors of a server."""
    return current.get()

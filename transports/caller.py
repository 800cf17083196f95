"""The caller of a conversation, as the server knows it."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Caller:
    """A conversation's caller: ``transport.caller`` in ``make_pipeline``. All fields are empty without a server."""

    subject: str = ""
    """The subject of the caller's credential; empty where no credential is needed."""
    address: str = ""
    """The address of the request; see `ServerSettings.proxies`."""
    data: str = field(default="null", repr=False)
    """JSON that the client's program sent along. Nobody has checked it."""
    shared: bool = False
    """The address belongs to many callers, as a telephone company's does."""

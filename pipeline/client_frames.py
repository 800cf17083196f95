"""Frames between a bot and the program on the user's side: a page, an app.

Speech and typed text of the user are in `frames.py`. Here are the app's own messages and its interrupt button.
"""

from __future__ import annotations

from typing import ClassVar

from .frames import InputFrame, OutputFrame
from .frozen import frozen


@frozen
class ClientMessageFrame(InputFrame):
    """A message of the client's program. Answer it with a `ServerMessageFrame` whose ``reply_to`` is its ``id``."""

    kind: str
    data: str = "null"
    """As JSON."""
    id: str = ""
    """Empty if the client expects no answer."""


@frozen
class InterruptRequestFrame(InputFrame):
    """The client asks to cut the bot: its user pressed a button."""

    reason: str = "the client asked"


@frozen
class ServerMessageFrame(OutputFrame):
    """A message for the client's program, by the transport; no interruption drops it. Travels downstream.

    A transport whose client understands no messages drops it.
    """

    survives: ClassVar[bool] = True

    data: str
    """As JSON."""
    reply_to: str = ""
    """The ``id`` of the `ClientMessageFrame` that it answers; empty: it answers none."""
    error: str = ""
    """Reason for a missing answer: ``data`` is then not sent."""

"""What code outside of the pipeline asks of a session, and what the session asks of itself, as frames.

They enter by the inbox like everything else, so a recording has them, and a replay needs no caller.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...pipeline.frames import InputFrame, UrgentFrame


@dataclass(frozen=True, slots=True)
class SessionFrame(InputFrame):
    """The base of all orders to a session."""


@dataclass(frozen=True, slots=True)
class StartFrame(SessionFrame):
    """The pipeline runs; ``created_ns`` is when its processors began to start."""

    created_ns: int = 0


@dataclass(frozen=True, slots=True)
class FailedFrame(SessionFrame):
    """An error was told of; ``response`` is the one that it happened to, 0 for none."""

    message: str
    source: str
    response: int


@dataclass(frozen=True, slots=True)
class TimeFrame(SessionFrame):
    """Something of the session's is due."""


@dataclass(frozen=True, slots=True)
class SayFrame(SessionFrame):
    """Say a text. ``handle``: of the `SpeechHandle` that waits for the outcome."""

    text: str
    handle: int
    interruptible: bool = True


@dataclass(frozen=True, slots=True)
class MessageFrame(SessionFrame):
    """The user's message, typed. ``interrupt``: the bot is cut for it; otherwise it waits."""

    text: str
    handle: int = 0
    interrupt: bool = True


@dataclass(frozen=True, slots=True)
class InterruptOrderFrame(SessionFrame):
    """Cut the bot: a button. ``handle``: only if that is what it says, or waits to say."""

    reason: str = "interrupted"
    handle: int = 0


@dataclass(frozen=True, slots=True)
class PauseFrame(SessionFrame):
    """Both sides wait."""


@dataclass(frozen=True, slots=True)
class ResumeFrame(SessionFrame):
    """Go on."""


@dataclass(frozen=True, slots=True)
class ListenOrderFrame(SessionFrame):
    """Listen to the user, or do not."""

    on: bool


@dataclass(frozen=True, slots=True)
class ButtonFrame(SessionFrame):
    """The user's button to talk; handed on to what hears."""

    pressed: bool


@dataclass(frozen=True, slots=True)
class TouchFrame(SessionFrame):
    """Something happened that the pipeline cannot see: nobody is idle."""


@dataclass(frozen=True, slots=True)
class SettingsFrame(SessionFrame):
    """New settings: the whole of `SessionSettings`, as JSON."""

    settings: str


@dataclass(frozen=True, slots=True)
class CloseFrame(SessionFrame):
    """End the session. ``goodbye``: what is said before; None: what the settings have for the reason.

    ``now``: what is being said is cut, and no goodbye is said.
    """

    reason: str
    goodbye: str | None = None
    now: bool = False
    failed: bool = False


@dataclass(frozen=True, slots=True)
class StopFrame(SessionFrame):
    """The pipeline has ended. ``reason`` counts where nobody closed the session before."""

    reason: str
    failed: bool = False


@dataclass(frozen=True, slots=True)
class CutElsewhereFrame(UrgentFrame):
    """Somebody else has cut the bot, and by now every processor has seen the cancel frame."""

    response: int
    reason: str


@dataclass(frozen=True, slots=True)
class OpenedFrame(SessionFrame):
    """The response that the session asked for has this number. Never in the inbox: it comes in the same step."""

    response: int


@dataclass(frozen=True, slots=True)
class NewsFrame(SessionFrame):
    """There are events for hooks. In the inbox only where there are hooks."""


ORDERS = (
    StartFrame, TimeFrame, SayFrame, MessageFrame, InterruptOrderFrame, PauseFrame, ResumeFrame, ListenOrderFrame,
    ButtonFrame, TouchFrame, SettingsFrame, CloseFrame,
)  # fmt: skip
"""What the controller takes from its inbox."""

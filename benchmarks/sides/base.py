"""The interface of a measured framework. The scenarios are written once, against it.

Only the standard library is imported here: the peer's environment runs it too.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

Seen = Callable[[Any], None]


def _unseen(frame: Any) -> None:
    """The default far end: nobody looks."""


@dataclass(frozen=True)
class Shape:
    """One conversation's chain of processors, the same for every side.

    Every processor handles the frame and pushes it on, unless said otherwise.
    """

    processors: int = 10
    generators: tuple[int, ...] = ()
    """Places whose work is an async generator that yields the frame once."""
    ignoring: bool = False
    """Before the last processor stand `processors` that name another class."""
    slow: int | None = None
    """The place that waits `slow_s` for each frame."""
    slow_s: float = 0.0
    vad: str | None = None
    """A voice activity model at the first place. `each`: the same few lines on both sides, a model for each
    conversation; `shared`: those, with one model for all; `own`: what the framework ships; `own-lite`: that,
    with our model binding."""
    on_last: Seen = field(default=_unseen)
    """Called by the last processor, with each frame, after it has pushed it."""
    on_cancel_head: Seen = field(default=_unseen)
    on_cancel_tail: Seen = field(default=_unseen)
    """Called when an interruption's own frame has been at the head, and at the tail."""


class Chain(Protocol):
    """One conversation."""

    async def start(self) -> None:
        """Returns when the conversation takes frames."""
        ...

    async def send(self, frame: Any) -> None:
        """One frame enters at the first processor."""
        ...

    async def send_all(self, frames: Sequence[Any]) -> None:
        """The same for many, without waiting for any of them to be handled."""
        ...

    async def interrupt(self) -> None:
        """The processor before the slow one decides that the user has interrupted."""
        ...


class Side(Protocol):
    """A framework in one configuration."""

    version: str
    lanes: dict[str, str]
    """The frame class used for each lane, by name: `output` (the bot's) and `input` (the microphone's)."""

    async def open(self) -> None:
        """Start what a server starts once: a runner."""
        ...

    def frame(self, lane: str, stamp: int) -> Any:
        """A frame of this lane that carries a number."""
        ...

    def stamp(self, frame: Any) -> int:
        """The number it carries."""
        ...

    def chain(self, shape: Shape) -> Chain: ...

"""What a processor may ask of the kernel that runs it, and the hop: one step of a frame's way.

This is the seam between the two: `processor.py` knows this file and not the kernel.
"""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Protocol, Self

from .clock import Clock, TimerHandle
from .frames import AtBound, Direction, Frame, Lane

Deliver = Callable[[Any], Coroutine[Any, Any, None]]


class Place(Protocol):
    """Where a frame can be: a processor in its pipeline, or one of the pipeline's ends."""

    path: str


class Hop:
    """One step of a frame's way: from ``origin`` to ``processor`` (both are paths), in ``direction``."""

    __slots__ = ("call", "direction", "numbered", "of_microphone", "origin", "place", "quick", "shown")

    def __init__(self, origin: str, place: Place, direction: Direction, call: Deliver, *, shown: bool = False) -> None:
        self.origin = origin
        self.place = place
        self.direction = direction
        self.call = call
        self.shown = shown
        """Whether taps see it: a handler of a processor runs, which is more than a fork in the way."""
        self.quick = False
        self.of_microphone = False
        self.numbered = True

    def of(self, frame_type: type[Frame]) -> Self:
        """Remember what the inbox would ask each frame of the class: it is quicker to ask the hop.

        ``quick``: it goes the usual way, into the output lane. ``numbered``: it has to belong to a response.
        ``of_microphone``: it goes into the input lane, and is dropped where that is too long.
        """
        output = frame_type.lane is Lane.OUTPUT
        self.quick = output and frame_type.at_bound is AtBound.HOLD
        self.numbered = output and not frame_type.survives
        self.of_microphone = frame_type.lane is Lane.INPUT and frame_type.at_bound is AtBound.DROP_OLDEST
        return self

    @property
    def processor(self) -> str:
        """The path of who gets the frame."""
        return self.place.path

    def __repr__(self) -> str:
        return f"<{self.origin} -> {self.place.path} ({self.direction.value})>"


class Host(ABC):
    """The kernel, as a processor sees it. `next`, `next_frame` and `done` are the quick way of a push."""

    __slots__ = ("clock", "done", "ending", "next", "next_frame")

    clock: Clock
    next: Hop | None
    """Where the frame that the running handler pushed goes; not None also where a push must take the slow way."""
    next_frame: Frame
    done: Awaitable[None]
    """Awaited, it returns at once."""
    ending: str
    """Why the run ends, as the worker's `Outcome` will say; empty while it runs."""

    @abstractmethod
    def route(self, who: object, frame_type: type[Frame]) -> Hop | None:
        """Where frames of a class go, downstream of ``who``; None where they leave the pipeline unseen."""

    @property
    @abstractmethod
    def random(self) -> random.Random:
        """The worker's random numbers, seeded."""

    @abstractmethod
    def push(self, who: object, frame: Frame, direction: Direction, response: int | None) -> Awaitable[None]:
        """The slow way of a push: upstream, a second one, another response, from a job."""

    @abstractmethod
    def post(self, who: object, frame: Frame, response: int | None) -> None:
        """Put a frame into the inbox, to be handled by ``who`` itself."""

    @abstractmethod
    def post_threadsafe(self, who: object, frame: Frame, response: int | None) -> None:
        """The same from another thread."""

    @abstractmethod
    def post_at(self, who: object, when_ns: int, frame: Frame) -> TimerHandle:
        """The same at a time."""

    @abstractmethod
    def interrupt(self, who: object, reason: str, response: int | None) -> bool:
        """Cut all responses up to ``response``."""

    @abstractmethod
    def new_response(self) -> int:
        """Open the next response."""

    @abstractmethod
    def current_response(self) -> int:
        """The response that is being worked for, or 0."""

    @abstractmethod
    def open_response(self) -> int:
        """The same; where there is none, the newest that is not cut, or a new one."""

    @abstractmethod
    def now_ns(self) -> int:
        """The moment at which the frame under way was taken."""

    @abstractmethod
    def hold(self, who: object) -> bool:
        """Make the job that fills ``who`` wait."""

    @abstractmethod
    def release(self, who: object) -> None:
        """Let those go on that were held for ``who``."""

    @abstractmethod
    def path(self, who: object) -> str:
        """The path of ``who`` in the running pipeline."""

    @abstractmethod
    def end(self, who: object, reason: str) -> None:
        """Ask the worker to drain and end."""

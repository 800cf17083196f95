"""Taps see everything and change nothing. Recording, metrics, tracing and fault injection are taps.

No processor knows of them, and a worker without a tap pays nothing for them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .frames import Direction, Frame
from .processor import Hop


class InjectedFault(Exception):
    """An error for `Tap.delivered` to raise: it fails that delivery as if the processor had raised it."""


@dataclass(frozen=True, slots=True)
class Run:
    """Description of a run, for its taps."""

    name: str
    seed: int
    """The seed of the worker's random numbers."""
    processors: tuple[str, ...]
    """The paths of all processors, in order."""
    start_ns: int
    """The clock's time when the tap was attached."""
    running: bool
    """True where frames flow already."""
    response: Callable[[], int] = lambda: 0
    """Returns the response of the frame that is being delivered, in `Tap.delivered`. 0: none."""


class Tap:
    """Base of taps: override the methods for the events you want to see."""

    def opened(self, run: Run) -> None:
        """Called when the tap is attached, before or during a run."""

    def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
        """Called when an entry is taken from the inbox: the conversation is the sequence of these calls.

        ``response`` is the response it belongs to (0: none), ``job`` the number of the job that made it (0: none).
        """

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        """Called before the processor at ``hop.processor`` handles a frame from ``hop.origin``."""

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        """Called when a frame has left the pipeline: at the tail (downstream) or at the head (upstream)."""

    def failed(self, t_ns: int, processor: str, error: BaseException) -> None:
        """Called when a handler or a job raised ``error``, before its `ErrorFrame` is sent."""

    def closed(self) -> None:
        """Called at the end of the run, the last call: release files and the like."""


Delivered = Callable[[int, Hop, Frame], None]
Taken = Callable[[int, Hop, Frame, int, int], None]
Left = Callable[[int, Frame, Direction, int], None]


class Taps:
    """All taps of a worker, with one function for each event. `delivered`, `taken` and `left` are None without a
    listener.
    """

    __slots__ = ("_taps", "changed", "delivered", "left", "taken")

    def __init__(self) -> None:
        self._taps: list[Tap] = []
        self.delivered: Delivered | None = None
        self.taken: Taken | None = None
        self.left: Left | None = None
        self.changed: Callable[[], None] | None = None
        """Called when a tap is added or removed."""

    def add(self, tap: Tap) -> Callable[[], None]:
        """Attach a tap. Returns a function that detaches it."""
        self._taps.append(tap)
        self._compile()

        def remove() -> None:
            if tap in self._taps:
                self._taps.remove(tap)
                self._compile()

        return remove

    def failed(self, t_ns: int, processor: str, error: BaseException) -> None:
        """Notify all taps of an exception."""
        for tap in self._taps:
            tap.failed(t_ns, processor, error)

    def closed(self) -> None:
        """Notify all taps of the end of the run."""
        for tap in [*self._taps]:
            tap.closed()

    def _compile(self) -> None:
        delivered = [tap.delivered for tap in self._taps if type(tap).delivered is not Tap.delivered]
        taken = [tap.taken for tap in self._taps if type(tap).taken is not Tap.taken]
        self.delivered = delivered[0] if len(delivered) == 1 else self._all_delivered(delivered)
        self.taken = taken[0] if len(taken) == 1 else self._all_taken(taken)
        left = [tap.left for tap in self._taps if type(tap).left is not Tap.left]
        self.left = left[0] if len(left) == 1 else self._all_left(left)
        if self.changed is not None:
            self.changed()

    def _all_delivered(self, calls: list[Delivered]) -> Delivered | None:
        def delivered(t_ns: int, hop: Hop, frame: Frame) -> None:
            for call in calls:
                call(t_ns, hop, frame)

        return delivered if calls else None

    def _all_taken(self, calls: list[Taken]) -> Taken | None:
        def taken(t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
            for call in calls:
                call(t_ns, hop, frame, response, job)

        return taken if calls else None

    def _all_left(self, calls: list[Left]) -> Left | None:
        def left(t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
            for call in calls:
                call(t_ns, frame, direction, response)

        return left if calls else None

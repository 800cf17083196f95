"""Taps: see everything, change nothing. Recording, metrics, tracing and fault injection are taps.

No processor knows of them, and without one they cost nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from .frames import Direction, Frame
from .processor import Hop


class InjectedFault(Exception):
    """Raised by a tap's `Tap.delivered`, it fails that delivery as if the processor had raised it."""


@dataclass(frozen=True, slots=True)
class Run:
    """What a tap is told of the run that it sees."""

    name: str
    seed: int
    """Of the worker's random numbers."""
    processors: tuple[str, ...]
    """Their paths, in order."""
    start_ns: int
    """What its clock shows."""
    running: bool
    """Whether frames flow already."""
    response: Callable[[], int] = lambda: 0
    """Which response the frame belongs to that is being delivered: to be asked in `Tap.delivered`. 0: none."""


class Tap:
    """Derive, and override what you want to see."""

    def opened(self, run: Run) -> None:
        """It was attached to a run that begins now, or is under way."""

    def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
        """An entry is taken from the inbox: the conversation is the sequence of these calls.

        ``response`` is the response it belongs to (0: none), ``job`` the number of the job that made it (0: none).
        """

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        """A frame is about to be handled by the processor at ``hop.processor``, coming from ``hop.origin``."""

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        """A frame has left the pipeline: at the tail (downstream) or at the head (upstream)."""

    def failed(self, t_ns: int, processor: str, error: BaseException) -> None:
        """A handler or a job of a processor raised ``error``. The `ErrorFrame` that says so comes after this."""

    def closed(self) -> None:
        """The run is over: nothing more will be seen. Give back what you hold."""


Delivered = Callable[[int, Hop, Frame], None]
Taken = Callable[[int, Hop, Frame, int, int], None]
Left = Callable[[int, Frame, Direction, int], None]


class Taps:
    """All taps of a worker as one call for each thing to see; `delivered`, `taken` and `left` are None where no tap
    listens.
    """

    __slots__ = ("_taps", "changed", "delivered", "left", "taken")

    def __init__(self) -> None:
        self._taps: list[Tap] = []
        self.delivered: Delivered | None = None
        self.taken: Taken | None = None
        self.left: Left | None = None
        self.changed: Callable[[], None] | None = None
        """Called when a tap comes or goes."""

    def add(self, tap: Tap) -> Callable[[], None]:
        """Attach a tap; returns what detaches it."""
        self._taps.append(tap)
        self._compile()

        def remove() -> None:
            if tap in self._taps:
                self._taps.remove(tap)
                self._compile()

        return remove

    def failed(self, t_ns: int, processor: str, error: BaseException) -> None:
        """Something raised."""
        for tap in self._taps:
            tap.failed(t_ns, processor, error)

    def closed(self) -> None:
        """The run is over."""
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

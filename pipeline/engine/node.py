"""A processor at its place in a running pipeline: its jobs, and the frames that wait behind them."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping

from ..frames import DOWNSTREAM, AtBound, Direction, Frame, Lane
from ..graph import ProcessorSpot
from ..jobs import Hold, Job, Origin
from ..processor import FrameProcessor, Hop

Entry = tuple[Hop, Frame, int, Origin | None]
"""What waits anywhere: where it goes, the frame, the response it belongs to, and who put it there."""


NO_HOPS: frozenset[Hop] = frozenset()
NO_JOBS: Mapping[str, Job] = {}


class JobHop(Hop):
    """A hop that begins a job."""

    __slots__ = ()


class Station:
    """A processor at its place. The kernel owns it; nothing else changes it."""

    __slots__ = (
        "_down", "_up", "_waiting", "ended_hop", "failures", "hold", "long_jobs", "path", "processor", "queue_hold",
        "release_hop", "running", "spot", "watched",
    )  # fmt: skip

    def __init__(self, spot: ProcessorSpot) -> None:
        self.spot = spot
        self._down: dict[type[Frame], Hop]
        self._up: dict[type[Frame], Hop]
        self.processor: FrameProcessor = spot.processor
        self.path = spot.path
        self.running: list[Job] = []
        """Jobs that a frame began."""
        self.long_jobs: Mapping[str, Job] = NO_JOBS
        """Streams and sources, by method."""
        self._waiting: dict[Lane, deque[Entry]] | None = None
        self.hold = Hold()
        """The jobs that the processor itself holds: its buffer is full."""
        self.queue_hold = Hold()
        """The jobs that wait for room in the queue behind its jobs."""
        self.failures = 0
        """How many errors in a row."""
        self.watched: frozenset[Hop] = NO_HOPS
        """The hops whose next success ends the row of errors."""
        self.ended_hop: Hop | None = None
        self.release_hop: Hop | None = None

    def bind(self, down: dict[type[Frame], Hop], up: dict[type[Frame], Hop]) -> None:
        """Give it its routes."""
        self._down, self._up = down, up

    def routes(self, direction: Direction) -> dict[type[Frame], Hop]:
        """Where frames that leave it go, by class."""
        return self._down if direction is DOWNSTREAM else self._up

    def must_wait(self, hop: Hop, lane: Lane) -> bool:
        """Whether a frame has to wait behind this processor's jobs, or behind others that do."""
        if self._waiting is not None and self._waiting.get(lane):
            return True
        return bool(self.running) and self._blocked(lane, is_job=isinstance(hop, JobHop))

    def wait(self, entry: Entry, lane: Lane) -> None:
        """Add to the queue behind the jobs."""
        if self._waiting is None:
            self._waiting = {}
        # bound: the processor's queue_frames, which Kernel.enter sees to: who sends is held, or gets an error
        self._waiting.setdefault(lane, deque()).append(entry)

    def waiting_in(self, lane: Lane) -> int:
        """How many frames of a lane wait behind its jobs."""
        return len(self._waiting.get(lane, ())) if self._waiting else 0

    def drop_oldest(self, lane: Lane) -> bool:
        """Forget the oldest frame whose class allows it."""
        queue = None if self._waiting is None else self._waiting.get(lane)
        if queue:
            for index, entry in enumerate(queue):
                if entry[1].at_bound is AtBound.DROP_OLDEST:
                    del queue[index]
                    return True
        return False

    def next_waiting(self) -> Entry | None:
        """The next frame that need not wait any longer, input before output."""
        if self._waiting is not None:
            for lane in (Lane.INPUT, Lane.OUTPUT):
                queue = self._waiting.get(lane)
                if queue and not self._blocked(lane, is_job=isinstance(queue[0][0], JobHop)):
                    return queue.popleft()
        return None

    def _blocked(self, lane: Lane, *, is_job: bool) -> bool:
        if is_job:
            # What urgent frames began has never waited, and nobody waits for it: a tool may run for long.
            return sum(job.lane is not Lane.URGENT for job in self.running) >= self.processor.max_jobs
        return any(job.lane is lane for job in self.running)

    @property
    def waiting(self) -> int:
        """How many frames wait behind its jobs."""
        return sum(map(len, self._waiting.values())) if self._waiting else 0

    def drop(self, through: int) -> list[deque[Entry]]:
        """Take out the waiting frames of responses up to ``through``. Returns the old queues, with these in them."""
        old: list[deque[Entry]] = []
        for lane, queue in (self._waiting or {}).items():
            if queue and self._waiting is not None:
                old.append(queue)
                self._waiting[lane] = kept(queue, through)
        return old


def kept(entries: Iterable[Entry], through: int) -> deque[Entry]:
    """What an interruption of the responses up to ``through`` leaves in a queue.

    What survives belongs to no response from then on. Thousands of frames may wait, and the cancel frame waits for
    this: hence a comprehension.
    """
    return deque(  # bound: never longer than what it is made of
        [
            entry if entry[2] > through else (entry[0], entry[1], 0, entry[3])
            for entry in entries
            if entry[2] > through or entry[1].survives
        ]
    )

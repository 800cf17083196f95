"""A processor at its place in a running pipeline: its jobs, and the frames that wait behind them."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

from ..frames import DOWNSTREAM, AtBound, Direction, Frame, Lane
from ..graph import ProcessorNode
from ..jobs import Hold, Job
from ..processor import FrameProcessor, Hop
from .inbox import Entry, kept_entries

NO_HOPS: frozenset[Hop] = frozenset()
NO_JOBS: Mapping[str, Job] = {}


class JobHop(Hop):
    """A hop that begins a job."""

    __slots__ = ()


class Node:
    """A processor at its place in a running pipeline. Only the kernel and its parts change it."""

    __slots__ = (
        "_down", "_up", "_waiting", "ended_hop", "failures", "graph_node", "hold", "long_jobs", "path", "processor",
        "queue_hold", "release_hop", "running", "watched",
    )  # fmt: skip

    def __init__(self, graph_node: ProcessorNode) -> None:
        self.graph_node = graph_node
        self._down: dict[type[Frame], Hop]
        self._up: dict[type[Frame], Hop]
        self.processor: FrameProcessor = graph_node.processor
        self.path = graph_node.path
        self.running: list[Job] = []
        """Jobs that were started by a frame."""
        self.long_jobs: Mapping[str, Job] = NO_JOBS
        """Streams and sources, by method."""
        self._waiting: dict[Lane, deque[Entry]] | None = None
        self.hold = Hold()
        """Jobs that the processor itself holds: its buffer is full."""
        self.queue_hold = Hold()
        """Jobs that wait for room in the queue behind this node's jobs."""
        self.failures = 0
        """The number of errors in a row."""
        self.watched: frozenset[Hop] = NO_HOPS
        """Hops that have failed; their next success ends the row of errors."""
        self.ended_hop: Hop | None = None
        self.release_hop: Hop | None = None

    def bind(self, down: dict[type[Frame], Hop], up: dict[type[Frame], Hop]) -> None:
        """Set the routes of frames that leave the node."""
        self._down, self._up = down, up

    def routes(self, direction: Direction) -> dict[type[Frame], Hop]:
        """Return the next hop of frames that leave the node, by class."""
        return self._down if direction is DOWNSTREAM else self._up

    def must_wait(self, hop: Hop, lane: Lane) -> bool:
        """Decide whether a frame waits: behind the processor's jobs, or behind frames that do."""
        if self._waiting is not None and self._waiting.get(lane):
            return True
        return bool(self.running) and self._blocked(lane, is_job=isinstance(hop, JobHop))

    def wait(self, entry: Entry, lane: Lane) -> None:
        """Add an entry to the queue behind the jobs."""
        if self._waiting is None:
            self._waiting = {}
        # bound: the processor's queue_frames, kept by Kernel.enter_node: the sender is held, or gets an error
        self._waiting.setdefault(lane, deque()).append(entry)

    def waiting_in(self, lane: Lane) -> int:
        """Count the frames of a lane that wait."""
        return len(self._waiting.get(lane, ())) if self._waiting else 0

    def drop_oldest(self, lane: Lane) -> bool:
        """Drop the oldest waiting frame whose class allows it. Returns False where there is none."""
        queue = None if self._waiting is None else self._waiting.get(lane)
        if queue:
            for index, entry in enumerate(queue):
                if entry[1].at_bound is AtBound.DROP_OLDEST:
                    del queue[index]
                    return True
        return False

    def next_waiting(self) -> Entry | None:
        """Take out the next entry that need not wait any longer, input before output."""
        if self._waiting is not None:
            for lane in (Lane.INPUT, Lane.OUTPUT):
                queue = self._waiting.get(lane)
                if queue and not self._blocked(lane, is_job=isinstance(queue[0][0], JobHop)):
                    return queue.popleft()
        return None

    def _blocked(self, lane: Lane, *, is_job: bool) -> bool:
        if is_job:
            # Jobs of urgent frames have never waited, and no frame waits for them: a tool may run for long.
            return sum(job.lane is not Lane.URGENT for job in self.running) >= self.processor.max_jobs
        return any(job.lane is lane for job in self.running)

    @property
    def has_queue(self) -> bool:
        """True once a frame had to wait."""
        return self._waiting is not None

    @property
    def waiting(self) -> int:
        """The number of frames that wait behind the jobs."""
        return sum(map(len, self._waiting.values())) if self._waiting else 0

    def drop(self, through: int) -> list[deque[Entry]]:
        """Drop the waiting frames of responses up to ``through``. Returns the old queues, for the caller to free."""
        old: list[deque[Entry]] = []
        for lane, queue in (self._waiting or {}).items():
            if queue and self._waiting is not None:
                old.append(queue)
                self._waiting[lane] = kept_entries(queue, through)
        return old

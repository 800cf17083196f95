"""Jobs, streams and timers: what runs beside the kernel, and comes back through its inbox."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from .clock import Activity, Clock, TimerHandle, Wait
from .frames import AtBound, Frame, Lane, OutputFrame

CLOSING_S = 1.0
"""How long a job that is being closed may take for it."""

OUTSIDE = -1
"""The number of what is no job of the pipeline's: somebody outside who sends, and can be made to wait."""

current_job: ContextVar[Job | None] = ContextVar("voxline_job", default=None)
F = TypeVar("F", bound=Frame)


class Origin:
    """Who put an entry into the inbox, where that matters: a job or a timer."""

    dead = False
    """Its entries are dropped when they are taken."""


@dataclass(frozen=True, slots=True)
class JobEndedFrame(OutputFrame):
    """The kernel's own: a job of a processor has ended. It is an entry of the inbox like any other, so it replays.

    In the last of the lanes, so that it comes after whatever the job has made.
    """

    survives: ClassVar[bool] = True

    job: int
    error: str = ""
    """The class name of the exception, where it failed."""
    message: str = ""


class Job(Origin):
    """A generator at work. What most jobs never need stands on the class: a job is made for every sentence."""

    survives = False
    """Whether an interruption leaves it alone."""
    closing = False
    abandoned = False
    undelivered = 0
    """How many of its frames are in the inbox."""
    stream: Stream[Frame] | None = None
    activity: Activity | None = None
    cancel: Callable[[], None] | None = None
    """Cancels it at its own wait. None in a replay, where no job runs, and once it has ended."""
    overdue: TimerHandle | None = None
    waiting: list[Wait] | None = None
    """Its pushes that wait; more than one where it has tasks of its own."""
    held_by: set[Hold] | None = None
    """The full places downstream that it waits for."""

    def __init__(
        self, number: int, path: str, method: str, frame: str, lane: Lane, response: int, since_ns: int
    ) -> None:
        self.number = number
        self.path = path
        self.method = method
        self.frame = frame
        """The class name of the frame that began it; empty for a stream or a source."""
        self.lane = lane
        self.response = response
        self.since_ns = since_ns

    @property
    def free(self) -> bool:
        """Whether it may put one more frame into the inbox."""
        return self.undelivered == 0 and not self.held_by

    async def ready(self) -> None:
        """Wait until it may."""
        while not self.free:
            waiting = Wait()
            if self.waiting is None:
                self.waiting = []
            self.waiting.append(waiting)
            await waiting

    def nudge(self) -> None:
        """Something that it may wait for has changed."""
        if self.waiting is not None and self.free:
            waiting, self.waiting = self.waiting, None
            for one in waiting:
                one.wake()

    def give_up(self) -> None:
        """Nobody will take its frames any more: whoever waits goes on."""
        self.undelivered = 0
        self.held_by = None
        self.nudge()

    def close(self) -> None:
        """Cancel it at its own next wait; nothing that it still makes is taken."""
        self.dead = True
        if not self.closing:
            self.closing = True
            if self.activity is not None:
                self.activity.pin()
                self.activity.patience(CLOSING_S)
            if self.cancel is not None:
                self.cancel()

    def doing(self, now_ns: int) -> str:
        """What it does and for how long, for an error."""
        what = f"{self.method}({self.frame})" if self.frame else f"{self.method}()"
        return f"{self.path}: {what}, for {(now_ns - self.since_ns) / 1e9:.1f} s"


class Hold:
    """A place that is full, and the jobs that wait for room in it."""

    __slots__ = ("_jobs",)

    def __init__(self) -> None:
        self._jobs: dict[Job, None] | None = None
        # A dict for its order: they go on in the order in which they were held, in every run.

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, job: Job) -> None:
        """It has to wait."""
        if self._jobs is None:
            self._jobs = {}
        self._jobs[job] = None
        if job.held_by is None:
            job.held_by = set()
        job.held_by.add(self)

    def let_go(self) -> None:
        """There is room again."""
        jobs, self._jobs = self._jobs, None
        for job in jobs or ():
            if job.held_by is not None:
                job.held_by.discard(self)
            job.nudge()


class Timer(Origin):
    """A frame that is due. `cancel` holds until the frame is taken."""

    handle: TimerHandle | None = None
    book: set[Timer] | None = None
    """Where it is written down while it is not due."""

    def cancel(self) -> None:
        """Forget it."""
        self.dead = True
        if self.book is not None:
            self.book.discard(self)
        if self.handle is not None:
            self.handle.cancel()


class Stream(Generic[F]):
    """The frames that a long-lived job reads: ``async for frame in frames``. Ends when the pipeline drains."""

    kept_factor: ClassVar[int] = 4
    """What is not a microphone's may stand up to this many times the bound in the queue."""

    def __init__(self, clock: Clock, bound: int) -> None:
        self._clock = clock
        self._bound = bound
        # bound: `bound` frames, then a microphone's oldest goes; of others four times as many, then the new one goes
        self._queue: deque[tuple[F, int]] = deque()
        self._waiting: Wait | None = None
        self.closed = False
        self.response = 0
        """The response that the frame read last belongs to."""
        self.dropped = 0
        """How many frames were lost because the reader was too far behind."""

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, frame: F, response: int) -> bool:
        """Add a frame. False where the stream is full: then the oldest that may be dropped was, or this one."""
        whole = True
        if len(self._queue) >= self._bound:
            whole = self._make_room(frame)
            if not whole and len(self._queue) >= self._bound * self.kept_factor:
                self.dropped += 1
                return False
        self._queue.append((frame, response))
        self._wake()
        return whole

    def _make_room(self, frame: F) -> bool:
        for index, (queued, _) in enumerate(self._queue):
            if queued.at_bound is AtBound.DROP_OLDEST:
                del self._queue[index]
                self.dropped += 1
                return False
        return len(self._queue) < self._bound * self.kept_factor

    def drop(self, through: int) -> int:
        """Forget the queued frames of responses up to ``through``. Returns how many."""
        kept = [
            (frame, response)
            for frame, response in self._queue
            if frame.survives or response == 0 or response > through
        ]
        dropped = len(self._queue) - len(kept)
        self._queue = deque(kept)  # bound: never longer than it was before
        return dropped

    def close(self) -> None:
        """No more frames; the reader gets what is queued and then its end."""
        self.closed = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.wake()
            self._waiting = None

    def __aiter__(self) -> AsyncIterator[F]:
        return self

    async def __anext__(self) -> F:
        while not self._queue:
            if self.closed:
                raise StopAsyncIteration
            self._waiting = Wait()
            await self._waiting
        frame, self.response = self._queue.popleft()
        return frame

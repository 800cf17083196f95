"""Jobs, streams and timers: they run beside the kernel, and their frames come back through its inbox."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import ClassVar, Generic, TypeVar

from .clock import Activity, Clock, TimerHandle, Wait
from .frames import AtBound, Frame, Lane, OutputFrame

CLOSING_S = 1.0
"""Seconds that a job may take to close."""

OUTSIDE = -1
"""The job number of a sender outside of the pipeline, who can be made to wait like a job."""

current_job: ContextVar[Job | None] = ContextVar("voxline_job", default=None)
F = TypeVar("F", bound=Frame)


class Origin:
    """The maker of an entry of the inbox, where the kernel has to know it: a job or a timer."""

    __slots__ = ("dead",)

    def __init__(self) -> None:
        self.dead = False
        """True to have its entries dropped when they are taken."""


FROM_OUTSIDE = Origin()
"""The origin of numbered frames that are posted from outside: the kernel notes a new response when it takes them."""


@dataclass(frozen=True, slots=True, init=False)
class JobEndedFrame(OutputFrame):
    """A job of a processor has ended. Only the kernel makes it; an entry of the inbox like any other, so it replays.

    It travels in the output lane, the last one, and so comes after all frames of the job.
    """

    survives: ClassVar[bool] = True

    job: int
    error: str = ""
    """The class name of the exception; empty where the job did not fail."""
    message: str = ""

    def __init__(self, job: int, error: str = "", message: str = "") -> None:
        # The generated one takes 0.5 µs, and every job makes one.
        _set_job(self, job)
        _set_error(self, error)
        _set_message(self, message)


_set_job, _set_error, _set_message = (vars(JobEndedFrame)[name].__set__ for name in ("job", "error", "message"))


class Job(Origin):
    """A running generator of a processor."""

    __slots__ = (
        "abandoned", "activity", "cancel", "closing", "frame", "held_by", "lane", "method", "number", "overdue", "path",
        "response", "since_ns", "stream", "survives", "undelivered", "waiting",
    )  # fmt: skip

    def __init__(
        self, number: int, path: str, method: str, frame: str, lane: Lane, response: int, since_ns: int
    ) -> None:
        self.dead = False
        self.number = number
        self.path = path
        self.method = method
        self.frame = frame
        """The class name of the frame that started it; empty for a stream or a source."""
        self.lane = lane
        self.response = response
        self.since_ns = since_ns
        self.survives = False
        """True to have an interruption leave it alone."""
        self.closing = False
        self.abandoned = False
        self.undelivered = 0
        """The number of its frames in the inbox."""
        self.stream: Stream[Frame] | None = None
        self.activity: Activity | None = None
        self.cancel: Callable[[], None] | None = None
        """Cancels it at its own wait. None in a replay, where no job runs, and once it has ended."""
        self.overdue: TimerHandle | None = None
        self.waiting: list[Wait] | None = None
        """Its pushes that wait; several where it has tasks of its own."""
        self.held_by: set[Hold] | None = None
        """The full places downstream that it waits for."""

    @property
    def current_response(self) -> int:
        """The response that its next frame belongs to: for a stream, that of the frame read last."""
        return self.response if self.stream is None else self.stream.response

    @property
    def free(self) -> bool:
        """True where it may put one more frame into the inbox."""
        return self.undelivered == 0 and not self.held_by

    async def ready(self) -> None:
        """Wait until it is `free`."""
        while not self.free:
            waiting = Wait()
            if self.waiting is None:
                self.waiting = []
            self.waiting.append(waiting)
            await waiting

    def wake_if_free(self) -> None:
        """Wake its waiting pushes, where it has become free."""
        if self.waiting is not None and self.free:
            waiting, self.waiting = self.waiting, None
            for one in waiting:
                one.wake()

    def stop_waiting(self) -> None:
        """End its waits: no frame of it is taken any more."""
        self.undelivered = 0
        self.held_by = None
        self.wake_if_free()

    def close(self) -> None:
        """Cancel it at its own next wait; no further frame of it is taken."""
        self.dead = True
        if not self.closing:
            self.closing = True
            if self.activity is not None:
                self.activity.pin()
                self.activity.patience(CLOSING_S)
            if self.cancel is not None:
                self.cancel()

    def doing(self, now_ns: int) -> str:
        """Describe its work for an error: the method, the frame, and for how long."""
        call = f"{self.method}({self.frame})" if self.frame else f"{self.method}()"
        return f"{self.path}: {call}, for {(now_ns - self.since_ns) / 1e9:.1f} s"


class Hold:
    """A full place, and the jobs that wait for room in it."""

    __slots__ = ("_jobs",)

    def __init__(self) -> None:
        self._jobs: dict[Job, None] | None = None
        # A dict for its order: jobs go on in the order in which they were held, in every run.

    def __bool__(self) -> bool:
        return bool(self._jobs)

    def add(self, job: Job) -> None:
        """Make a job wait."""
        if self._jobs is None:
            self._jobs = {}
        self._jobs[job] = None
        if job.held_by is None:
            job.held_by = set()
        job.held_by.add(self)

    def release(self) -> None:
        """Let all jobs go on: there is room again."""
        jobs, self._jobs = self._jobs, None
        for job in jobs or ():
            if job.held_by is not None:
                job.held_by.discard(self)
            job.wake_if_free()


class Timer(Origin):
    """A frame that enters the inbox at a time. `cancel` works until the frame is taken."""

    __slots__ = ("handle", "pending")

    def __init__(self) -> None:
        super().__init__()
        self.handle: TimerHandle | None = None
        self.pending: set[Timer] | None = None
        """The kernel's set of timers that have not fired."""

    def cancel(self) -> None:
        """Drop the frame."""
        self.dead = True
        if self.pending is not None:
            self.pending.discard(self)
        if self.handle is not None:
            self.handle.cancel()


class Stream(Generic[F]):
    """The frames that a long-lived job reads: ``async for frame in frames``. Ends when the pipeline drains."""

    kept_factor: ClassVar[int] = 4
    """Frames that are not a microphone's are queued up to this factor of the bound."""

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
        """The number of frames lost because the reader was too far behind."""

    def __len__(self) -> int:
        return len(self._queue)

    def put(self, frame: F, response: int) -> bool:
        """Add a frame. False where a frame was lost: the oldest that may be dropped, or this one."""
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
        """Drop the queued frames of responses up to ``through``. Returns their number."""
        kept = [
            (frame, response)
            for frame, response in self._queue
            if frame.survives or response == 0 or response > through
        ]
        dropped = len(self._queue) - len(kept)
        self._queue = deque(kept)  # bound: never longer than it was before
        return dropped

    def close(self) -> None:
        """Accept no more frames: the reader gets the queued ones, then its end."""
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

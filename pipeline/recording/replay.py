"""Replay: run a recording again, bit for bit, with nothing running but the handlers.

The entries of the recording are the inbox; the clock shows their times, random numbers have the recording's seed. No
job, timer, source, hook or service runs: what they made is in the recording. So a conversation that went wrong in
production can be looked at on a laptop, as often as you like, with a tap or a debugger attached::

    trace = Trace()
    await replay(Recording.load("talk.jsonl"), make_pipeline(), trace)
    print("\\n".join(trace.lines))

What it cannot show: a processor that keeps to itself what the inbox does not know - one that reads another clock, draws
other random numbers, or lets a job or a callback change what its handlers read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..clock import VirtualClock
from ..engine.kernel import Kernel
from ..errors import RecordingError
from ..frames import DOWNSTREAM, UPSTREAM, Direction, Frame, Samples
from ..graph import Pipeline
from ..jobs import OUTSIDE, Job, JobEndedFrame, Origin
from ..processor import Hop
from ..taps import Tap
from ..worker import PipelineWorker
from .codec import dumps, to_plain
from .recording import Entry, Recording


@dataclass(frozen=True, slots=True)
class Exit:
    """A frame that left the pipeline, at the tail or at the head."""

    t_ns: int
    direction: Direction
    response: int
    frame: Frame


@dataclass(frozen=True, slots=True)
class Replayed:
    """Result of a replay."""

    entries: int
    """How many entries of the inbox were run."""
    exits: tuple[Exit, ...]
    """Frames that left the pipeline, in order."""

    @property
    def down(self) -> list[Frame]:
        """Frames that left at the tail."""
        return [exit.frame for exit in self.exits if exit.direction is DOWNSTREAM]

    @property
    def up(self) -> list[Frame]:
        """Frames that left at the head."""
        return [exit.frame for exit in self.exits if exit.direction is UPSTREAM]


async def replay(
    recording: Recording,
    pipeline: Pipeline,
    *taps: Tap,
    strict: bool = True,
    prepare: Callable[[Kernel], None] | None = None,
) -> Replayed:
    """Run a recording through a pipeline that is made like the one it was made with.

    ``prepare`` is given the kernel before anything runs.

    Raises `RecordingError` where it does not fit: with ``strict``, where the processors are not the same ones in the
    same order; in any case, where an entry comes from a processor or a job that this pipeline does not have.
    """
    worker = PipelineWorker(
        pipeline,
        clock=VirtualClock(start_ns=recording.start_ns),
        seed=recording.seed,
        replaying=True,
        name=recording.name,
    )
    if strict:
        _check_fit(recording, worker.paths)
    exits = _Exits()
    for tap in (exits, *taps):
        worker.add_tap(tap)
    feed = _Feed(recording, prepare)
    await worker.replay(feed.next)
    return Replayed(feed.count, tuple(exits.seen))


def _check_fit(recording: Recording, paths: tuple[str, ...]) -> None:
    if recording.pipeline != paths:
        raise RecordingError(
            f"{recording.path} was made with {', '.join(recording.pipeline)}; this pipeline is {', '.join(paths)}. "
            "Build the same one, or say strict=False and see how far it goes."
        )


class _Exits(Tap):
    def __init__(self) -> None:
        self.seen: list[Exit] = []

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        self.seen.append(Exit(t_ns, direction, response, frame))


class _Feed:
    """Turns entries into hops of a kernel, one at a time."""

    def __init__(self, recording: Recording, prepare: Callable[[Kernel], None] | None) -> None:
        self._path = recording.path
        self._prepare = prepare
        self._entries: Iterator[Entry] = iter(recording)
        self.count = 0

    def next(self, kernel: Kernel) -> bool:
        """Put the next entry in. False where there is none."""
        if self._prepare is not None:
            self._prepare(kernel)
            self._prepare = None
        entry = next(self._entries, None)
        if entry is None:
            return False
        self.count += 1
        assert isinstance(kernel.clock, VirtualClock)
        kernel.clock.set(entry.t_ns)
        kernel.feed(self._hop(kernel, entry), entry.frame, entry.response, self._origin(kernel, entry))
        return True

    def _misfit(self, entry: Entry, why: str) -> RecordingError:
        return RecordingError(
            f"{self._path} does not fit the pipeline: entry {self.count}, {type(entry.frame).__name__} of "
            f"{entry.origin} at {entry.t_ns / 1e6:g} ms: {why}"
        )

    def _hop(self, kernel: Kernel, entry: Entry) -> Hop:
        frame_type = type(entry.frame)
        hop = kernel.recorded_hop(entry.origin, frame_type, entry.direction, begins_here=entry.begins_here)
        if hop is None:
            paths = ", ".join(node.path for node in kernel.graph.nodes)
            raise self._misfit(entry, f"there is no such processor; there are {paths}.")
        if entry.begins_here and hop.processor != entry.origin:
            raise self._misfit(entry, f"{entry.origin} does not handle {frame_type.__name__}.")
        return hop

    def _origin(self, kernel: Kernel, entry: Entry) -> Origin:
        frame = entry.frame
        if isinstance(frame, JobEndedFrame):
            job = kernel.jobs.get(frame.job)
            if job is None or job.path != entry.origin:
                raise self._misfit(entry, f"{entry.origin} has no job {frame.job} under way.")
            return Origin()
        if entry.job == 0:
            return Origin()
        job = kernel.jobs.get(entry.job)
        if job is not None:
            # What it was worth taking is in the recording: whether it has been closed since does not count again.
            job.dead = False
            return job
        if entry.job > kernel.jobs_started:
            raise self._misfit(entry, f"its job {entry.job} has not begun.")
        where = "(outside)" if entry.job == OUTSIDE else entry.origin
        return Job(entry.job, where, "send", type(frame).__name__, frame.lane, entry.response, entry.t_ns)


# --- looking on ------------------------------------------------------------------------------------------------------


class Trace(Tap):
    """Writes down every delivery and every exit as a line of text. Two runs that went the same way give the same lines.

    Audio stands in them as the number of its samples and a digest.
    """

    def __init__(self) -> None:
        self.lines: list[str] = []

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        """A line for a delivery."""
        self.lines.append(f"{t_ns} {hop.origin} -> {hop.processor} {hop.direction.value} {_describe(frame)}")

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        """A line for an exit."""
        self.lines.append(f"{t_ns} out {direction.value} response {response} {_describe(frame)}")


class _Digest:
    """Instead of a place to put audio: its digest is enough."""

    def put(self, kind: str, samples: Samples, sample_rate: int) -> Any:
        """The digest of samples."""
        return hashlib.blake2b(np.ascontiguousarray(samples).tobytes(), digest_size=8).hexdigest()


def _describe(frame: Frame) -> str:
    try:
        return dumps(to_plain(frame, _Digest()))
    except RecordingError:
        return repr(frame)

"""The inbox: all that happens to a conversation, in three lanes, each bounded."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import QueueOverflowError
from ..frames import AtBound, Frame, Lane, UrgentFrame
from ..jobs import Job, JobEndedFrame, Origin, Timer
from ..processor import Hop

MICROPHONE_MS = 2_000
"""Bound of a microphone's audio in the inbox, in chunks of any length."""

Entry = tuple[Hop, Frame, int, Origin | None]
"""An entry of a queue: where it goes, the frame, the response it belongs to, and the job or timer that made it."""


@dataclass(frozen=True, slots=True)
class InterruptFrame(UrgentFrame):
    """Requests an interruption from outside of a handler. Only the kernel makes it; an entry like any other."""

    reason: str
    response: int
    origin: str = ""


class Inbox:
    """Three queues. Within a lane nothing reorders; urgent comes before input, and input before output.

    Bounds: a lane holds ``bound_frames``, beyond which `make_room` raises (jobs never come near: each has one frame
    here at a time). Of a microphone's audio a lane holds `MICROPHONE_MS`, beyond which the oldest frames are dropped
    and counted; the newest is kept, however long it is.
    """

    __slots__ = ("bound", "dropped", "from_jobs", "input", "microphone_ms", "output", "refused", "urgent")

    def __init__(self, bound_frames: int) -> None:
        self.urgent: deque[Entry] = deque()  # bound: `bound` entries, then enter_inbox() raises to who posts
        self.input: deque[Entry] = deque()  # bound: the same; of a microphone MICROPHONE_MS, then the oldest goes
        self.output: deque[Entry] = deque()  # bound: the same as urgent
        self.bound = bound_frames
        self.microphone_ms = 0.0
        self.from_jobs = 0
        """Number of entries that jobs have put in."""
        self.dropped = 0
        """Number of microphone frames lost because the pipeline was too slow."""
        self.refused = 0
        """Number of frames that came too late, for a response that was cut."""

    def __len__(self) -> int:
        return len(self.urgent) + len(self.input) + len(self.output)

    def queue(self, lane: Lane) -> deque[Entry]:
        """Return the queue of a lane."""
        return self.output if lane is Lane.OUTPUT else self.input if lane is Lane.INPUT else self.urgent

    def make_room(self, queue: deque[Entry], hop: Hop, frame: Frame, origin: Origin | None) -> None:
        """Prepare a full queue for one more frame. Raises `QueueOverflowError`."""
        if frame.at_bound is AtBound.DROP_OLDEST:
            self.drop_oldest(queue)
        elif not isinstance(frame, JobEndedFrame) and not isinstance(origin, Timer):
            # Two kinds always fit. The end of a job: without it, frames behind the job would wait for ever. And a
            # timer's frame: a processor that goes from tick to tick would stop for ever. There are never more of
            # them than timers that were set.
            raise QueueOverflowError(
                f"The inbox holds {len(queue)} {frame.lane.value} frames, its bound; {type(frame).__name__} from "
                f"{hop.origin} does not fit. Something posts faster than the pipeline works: post with "
                "`await worker.send(frame)`, which waits, or look for a handler that blocks (the log names slow ones)."
            )

    def make_room_for_audio(self, frame: Frame) -> None:
        """Count a microphone's frame that is about to be added, and drop the oldest ones beyond the bound."""
        self.microphone_ms += frame.queue_ms
        while (self.microphone_ms > MICROPHONE_MS or len(self.input) >= self.bound) and self.drop_oldest(self.input):
            pass

    def drop_oldest(self, queue: deque[Entry]) -> bool:
        """Drop the oldest frame whose class allows it. Returns False where there is none."""
        for index, (hop, frame, _, origin) in enumerate(queue):
            if frame.at_bound is AtBound.DROP_OLDEST:
                del queue[index]
                if isinstance(origin, Job):
                    self.from_jobs -= 1
                    origin.undelivered -= 1
                    origin.wake_if_free()
                if hop.of_microphone:
                    self.microphone_ms -= frame.queue_ms
                self.dropped += 1
                return True
        return False

    def drop(self, through: int) -> list[Job]:
        """Drop the frames of responses up to ``through`` that do not survive.

        Returns the job of each dropped frame that came from a job. The old queue is left as it was: the caller may
        free it later.
        """
        jobs: list[Job] = []
        if self.from_jobs:
            jobs = [
                origin
                for hop, _, response, origin in self.output
                if isinstance(origin, Job) and response <= through and not hop.survives
            ]
            self.from_jobs -= len(jobs)
        self.output = kept_entries(self.output, through)
        return jobs


def kept_entries(entries: Iterable[Entry], through: int) -> deque[Entry]:
    """Return the entries that an interruption of the responses up to ``through`` keeps.

    A frame that survives belongs to no response from then on. Thousands of frames may wait, and the cancel frame waits
    for this: hence a comprehension, which asks the hops, since their attributes are slots.
    """
    return deque(  # bound: never longer than its source
        [
            entry if entry[2] > through else (entry[0], entry[1], 0, entry[3])
            for entry in entries
            if entry[2] > through or entry[0].survives
        ]
    )

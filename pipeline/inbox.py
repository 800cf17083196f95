"""The inbox: everything that happens to a conversation, in three lanes, each bounded."""

from __future__ import annotations

from collections import deque

from .errors import QueueOverflowError
from .frames import AtBound, Frame, Lane
from .host import Hop
from .jobs import JobEndedFrame, Origin
from .station import Entry, kept

MICROPHONE_FRAMES = 100
"""Frames of a class that may be dropped: two seconds of a microphone in chunks of 20 ms."""


class Inbox:
    """Three queues. Within a lane nothing reorders; urgent comes before input, and input before output.

    Bounds: a lane holds ``bound_frames``, beyond which `make_room` raises (jobs never come near: each has one frame
    here at a time); of a microphone's frames it holds `MICROPHONE_FRAMES`, beyond which the oldest is dropped and
    counted.
    """

    __slots__ = ("bound", "dropped", "input", "microphone", "output", "refused", "urgent")

    def __init__(self, bound_frames: int) -> None:
        self.urgent: deque[Entry] = deque()  # bound: `bound` entries, then put() raises to who posts
        self.input: deque[Entry] = deque()  # bound: the same; of a microphone MICROPHONE_FRAMES, then the oldest goes
        self.output: deque[Entry] = deque()  # bound: the same as urgent
        self.bound = bound_frames
        self.microphone = 0
        self.dropped = 0
        """Microphone frames lost because the pipeline was too slow."""
        self.refused = 0
        """Frames that came too late, for a response that was cut."""

    def __len__(self) -> int:
        return len(self.urgent) + len(self.input) + len(self.output)

    def queue(self, lane: Lane) -> deque[Entry]:
        """The queue of a lane."""
        return self.output if lane is Lane.OUTPUT else self.input if lane is Lane.INPUT else self.urgent

    def make_room(self, queue: deque[Entry], hop: Hop, frame: Frame) -> None:
        """Called before a frame is added to a queue that is full. Raises `QueueOverflowError`."""
        if frame.at_bound is AtBound.DROP_OLDEST:
            self.drop_oldest(queue)
        elif not isinstance(frame, JobEndedFrame):
            # The end of a job always fits: without it, what waits behind the job would wait for ever.
            raise QueueOverflowError(
                f"The inbox holds {len(queue)} {frame.lane.value} frames, its bound; {type(frame).__name__} from "
                f"{hop.origin} does not fit. Something posts faster than the pipeline works: post with "
                "`await worker.send(frame)`, which waits, or look for a handler that blocks (the log names slow ones)."
            )

    def drop(self, through: int) -> list[Origin]:
        """Take out the frames of responses up to ``through`` that do not survive. Returns who had put them in."""
        origins = [
            origin
            for _, frame, response, origin in self.output
            if origin is not None and response <= through and not frame.survives
        ]
        self.output = kept(self.output, through)
        return origins

    def drop_oldest(self, queue: deque[Entry]) -> None:
        """Forget the oldest frame whose class allows it."""
        for index, (hop, frame, _, _) in enumerate(queue):
            if frame.at_bound is AtBound.DROP_OLDEST:
                del queue[index]
                if hop.of_microphone:
                    self.microphone -= 1
                self.dropped += 1
                return

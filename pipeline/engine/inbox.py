"""The inbox: everything that happens to a conversation, in three lanes, each bounded."""

from __future__ import annotations

from collections import deque

from ..errors import QueueOverflowError
from ..frames import AtBound, Frame, Lane
from ..jobs import JobEndedFrame, Origin, Timer
from ..processor import Hop
from .node import Entry, kept

MICROPHONE_MS = 2_000
"""So much audio of a microphone may wait, in chunks of whatever length."""


class Inbox:
    """Three queues. Within a lane nothing reorders; urgent comes before input, and input before output.

    Bounds: a lane holds ``bound_frames``, beyond which `make_room` raises (jobs never come near: each has one frame
    here at a time); of a microphone it holds `MICROPHONE_MS`, beyond which the oldest frames are dropped and counted.
    The newest is kept, however long it is.
    """

    __slots__ = ("bound", "dropped", "input", "microphone_ms", "output", "refused", "urgent")

    def __init__(self, bound_frames: int) -> None:
        self.urgent: deque[Entry] = deque()  # bound: `bound` entries, then put() raises to who posts
        self.input: deque[Entry] = deque()  # bound: the same; of a microphone MICROPHONE_MS, then the oldest goes
        self.output: deque[Entry] = deque()  # bound: the same as urgent
        self.bound = bound_frames
        self.microphone_ms = 0.0
        self.dropped = 0
        """Microphone frames lost because the pipeline was too slow."""
        self.refused = 0
        """Frames that came too late, for a response that was cut."""

    def __len__(self) -> int:
        return len(self.urgent) + len(self.input) + len(self.output)

    def queue(self, lane: Lane) -> deque[Entry]:
        """The queue of a lane."""
        return self.output if lane is Lane.OUTPUT else self.input if lane is Lane.INPUT else self.urgent

    def make_room(self, queue: deque[Entry], hop: Hop, frame: Frame, origin: Origin | None) -> None:
        """Called before a frame is added to a queue that is full. Raises `QueueOverflowError`."""
        if frame.at_bound is AtBound.DROP_OLDEST:
            self.drop_oldest(queue)
        elif not isinstance(frame, JobEndedFrame) and not isinstance(origin, Timer):
            # Two always fit. The end of a job: without it, what waits behind the job would wait for ever. And what a
            # processor has posted to itself at a time: who goes on from tick to tick would stop for ever, and there
            # are never more of them than timers that were set.
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

    def hear(self, frame: Frame) -> None:
        """Called before a frame of a microphone is added: make room for it."""
        self.microphone_ms += frame.queue_ms
        while (self.microphone_ms > MICROPHONE_MS or len(self.input) >= self.bound) and self.drop_oldest(self.input):
            pass

    def drop_oldest(self, queue: deque[Entry]) -> bool:
        """Forget the oldest frame whose class allows it. False where there is none."""
        for index, (hop, frame, _, _) in enumerate(queue):
            if frame.at_bound is AtBound.DROP_OLDEST:
                del queue[index]
                if hop.of_microphone:
                    self.microphone_ms -= frame.queue_ms
                self.dropped += 1
                return True
        return False

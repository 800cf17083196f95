"""Models of one kind in a row: the first that works is asked, and the next steps in when it does not.

For models that answer at once, in the handler of the processor that asks (`SpeechModel`, `NoiseModel`). Which of them
works is remembered by `Health`. A member fails by raising, or by holding the event loop up `LATE_IN_A_ROW` times.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from ...pipeline.clock import NS_PER_MS
from ...pipeline.errors import ServiceError, ServiceTimeout, VoxlineError
from ...pipeline.frames import ErrorFrame, InputFrame
from ...pipeline.processor import FrameProcessor
from .health import Health

log = logging.getLogger("voxline")

LATE_MS = 20.0
"""What takes longer holds everybody else's audio up: a frame of it is 20 ms."""
LATE_IN_A_ROW = 3
"""Once may be the machine's fault."""
STEADY = 100
"""After so many answers without a failure, a member's next rest is short again. Otherwise one that fails at every
tenth would be tried again each second for ever.
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LateAnswerFrame(InputFrame):
    """A member was late: a fact for its processor's own handler, so that a recording has it."""

    member: int
    took_ms: float


class Chain:
    """Whom to ask, and what to say when nobody works.

    ``names``: what messages call the members, the best first. ``consequence``: what it means that none works, a
    sentence. ``steady``: after how many answers a member's failures are forgotten.
    """

    def __init__(self, names: Sequence[str], consequence: str, steady: int = STEADY) -> None:
        self.health = Health(len(names))
        self.names = tuple(names)
        self._consequence = consequence
        self._enough = steady
        self._steady = [0] * len(names)
        self._late = [0] * len(names)
        self._why = [""] * len(names)
        self._kind = ""
        self._told = False

    def ask(self, owner: FrameProcessor, work: Callable[[int], T]) -> T | None:
        """What ``work(member)`` gives for the first that works; None where none does. In a handler of ``owner``."""
        for index in self.health.healthy(owner.now_ns):
            begun_ns = owner.clock.now_ns()
            try:
                answer = work(index)
            except Exception as error:
                self.fail(owner, index, error, owner.now_ns)
                continue
            took_ms = (owner.clock.now_ns() - begun_ns) / NS_PER_MS
            self._late[index] = self._late[index] + 1 if took_ms > LATE_MS else 0
            if self._late[index] == LATE_IN_A_ROW:
                # Posted, because a replay has another clock.
                owner.post(LateAnswerFrame(index, took_ms))
            self.well(index)
            return answer
        return None

    def well(self, index: int) -> None:
        """A member has given an answer."""
        self._told = False
        self._steady[index] += 1
        if self._steady[index] == self._enough:
            self.health.worked(index)

    def late(self, owner: FrameProcessor, frame: LateAnswerFrame) -> None:
        """For the owner's handler of this fact: that member has failed."""
        late = ServiceTimeout(f"it took {frame.took_ms:.0f} ms, the {LATE_IN_A_ROW}rd time in a row")
        self.fail(owner, frame.member, late, owner.now_ns)

    def fail(self, owner: FrameProcessor, index: int, error: Exception, now_ns: int) -> None:
        """A member has failed, and rests from now on."""
        self.health.failed(index, now_ns, error.wait_s if isinstance(error, ServiceError) else None)
        self._steady[index] = self._late[index] = 0
        self._kind = kind = type(error).__name__
        # What others' errors say is not known, and may be what somebody said.
        self._why[index] = f"{kind}: {str(error).rstrip('.')}" if isinstance(error, VoxlineError) else kind
        log.warning("%s: %s failed with %s, and rests", owner.path, self.names[index], kind)
        log.debug("%s: %s failed", owner.path, self.names[index], exc_info=error)

    def complaint(self, owner: FrameProcessor, frame: str) -> ErrorFrame | None:
        """Where nobody works, what to send upstream about it: once, until somebody works again. ``frame``: the class
        name of what the owner has.
        """
        if self._told:
            return None
        self._told = True
        failures = "; ".join(f"{name} failed ({why})" for name, why in zip(self.names, self._why, strict=True))
        message = f"{failures}. {self._consequence} It is tried again within a minute."
        return ErrorFrame(message, owner.path, frame, self._kind)

"""Fall-back for models that answer at once: the first working member answers, the next one steps in on failure.

Used by processors that call a model inside a handler (`SpeechModel`, `NoiseModel`). `Health` remembers which member
works. A member fails by raising, or by blocking the event loop `LATE_IN_A_ROW` times in a row.
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
"""A slower answer delays everybody else's audio: one frame of it is 20 ms."""
LATE_IN_A_ROW = 3
"""One slow answer may be the machine's fault."""
STEADY = 100
"""After so many answers without a failure, a member's next rest is short again. A single answer is not enough: a member
that fails at every tenth would be retried each second for ever.
"""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class LateAnswerFrame(InputFrame):
    """A member was late: a fact for its processor's own handler, so that a recording contains it."""

    member: int
    took_ms: float


class ModelChain:
    """Members of one kind with their health, and the error message for the case that none works.

    ``names``: the members' names in messages, the best first. ``consequence``: a sentence that says what follows if no
    member works. ``steady``: number of good answers after which a member's failures are forgotten.
    """

    def __init__(self, names: Sequence[str], consequence: str, steady: int = STEADY) -> None:
        self.health = Health(len(names))
        self.names = tuple(names)
        self._consequence = consequence
        self._steady_after = steady
        self._good_answers = [0] * len(names)
        self._late_answers = [0] * len(names)
        self._reasons = [""] * len(names)
        self._last_error = ""
        self._reported = False

    def first_answer(self, owner: FrameProcessor, work: Callable[[int], T]) -> T | None:
        """Return ``work(member)`` of the first member that works; None if none does. Call it in a handler of
        ``owner``.
        """
        for index in self.health.healthy(owner.now_ns):
            started_ns = owner.clock.now_ns()
            try:
                answer = work(index)
            except Exception as error:
                self.failed(owner, index, error, owner.now_ns)
                continue
            took_ms = (owner.clock.now_ns() - started_ns) / NS_PER_MS
            self._late_answers[index] = self._late_answers[index] + 1 if took_ms > LATE_MS else 0
            if self._late_answers[index] == LATE_IN_A_ROW:
                # Posted, because a replay measures other times.
                owner.post(LateAnswerFrame(index, took_ms))
            self.worked(index)
            return answer
        return None

    def worked(self, index: int) -> None:
        """Record a good answer."""
        self._reported = False
        self._good_answers[index] += 1
        if self._good_answers[index] == self._steady_after:
            self.health.worked(index)

    def late(self, owner: FrameProcessor, frame: LateAnswerFrame) -> None:
        """Record that a member was too slow. For the owner's handler of `LateAnswerFrame`."""
        late = ServiceTimeout(f"it took {frame.took_ms:.0f} ms, the {LATE_IN_A_ROW}rd time in a row")
        self.failed(owner, frame.member, late, owner.now_ns)

    def failed(self, owner: FrameProcessor, index: int, error: Exception, now_ns: int) -> None:
        """Record a failure: the member rests from now on."""
        self.health.failed(index, now_ns, error.wait_s if isinstance(error, ServiceError) else None)
        self._good_answers[index] = self._late_answers[index] = 0
        self._last_error = kind = type(error).__name__
        # The text of a foreign exception may contain a user's words, so only its type is reported.
        self._reasons[index] = f"{kind}: {str(error).rstrip('.')}" if isinstance(error, VoxlineError) else kind
        log.warning("%s: %s failed with %s, and rests", owner.path, self.names[index], kind)
        log.debug("%s: %s failed", owner.path, self.names[index], exc_info=error)

    def error_frame(self, owner: FrameProcessor, frame: str) -> ErrorFrame | None:
        """Make the error to send upstream if no member works: once, until one works again. ``frame``: class name of
        the frame that the owner handles.
        """
        if self._reported:
            return None
        self._reported = True
        failures = "; ".join(f"{name} failed ({why})" for name, why in zip(self.names, self._reasons, strict=True))
        message = f"{failures}. {self._consequence} The next attempt follows within a minute."
        return ErrorFrame(message, owner.path, frame, self._last_error)

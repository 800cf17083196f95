"""A plain handler that waits: which one, since when, and how it was cancelled."""

from __future__ import annotations

import asyncio

from ..clock import TimerHandle
from ..frames import Frame
from ..processor import Hop


class WaitingHandler:
    """A handler that has waited at least once. `KernelLoop` makes it, and ends it with the handler."""

    __slots__ = (
        "call", "cancelled", "expired", "failures_before", "frame", "hop", "patience_lost", "since_ns", "timers",
        "waiting",
    )  # fmt: skip

    def __init__(self, call: object, hop: Hop, frame: Frame, since_ns: int) -> None:
        self.call = call
        """The handler's coroutine."""
        self.hop = hop
        self.frame = frame
        self.since_ns = since_ns
        self.timers: list[TimerHandle] = []
        """They report the handler as slow, and cancel it at its deadline."""
        self.waiting = False
        """True while it waits; False while its code runs."""
        self.patience_lost = False
        """True while it waits for something outside, and virtual time goes on without it."""
        self.expired = False
        """True once it was cancelled at its deadline."""
        self.cancelled: asyncio.CancelledError | None = None
        """The cancellation of the kernel's whole task, where that came while the handler waited."""
        self.failures_before = self.failures

    @property
    def failures(self) -> int:
        """The number of errors in a row of its processor."""
        return getattr(self.hop.place, "failures", 0)

    def cancel_timers(self) -> None:
        """Cancel its timers."""
        for timer in self.timers:
            timer.cancel()

    def doing(self, now_ns: int) -> str:
        """Describe it for an error: the processor, the frame, and for how long."""
        seconds = (now_ns - self.since_ns) / 1e9
        return f"{self.hop.processor}: its handler of {type(self.frame).__name__} waits, for {seconds:.1f} s"

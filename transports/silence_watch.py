"""Detects a gap in audio that normally arrives all the time: say, a microphone switched off in mid-word."""

from __future__ import annotations

from collections.abc import Callable

from ..pipeline.clock import NS_PER_S, Clock, TimerHandle

SILENT_S = 1.0
"""Gap after which the user counts as silent, in s. Without it, turn detection would wait for the end of a word until
the microphone is switched on again. Networks hold audio back for up to half of that.
"""


class SilenceWatch:
    """Calls ``on_silent`` once per gap: `SILENT_S` after the last audio ended."""

    def __init__(self, clock: Clock, on_silent: Callable[[], None]) -> None:
        self._clock = clock
        self._on_silent = on_silent
        self._until_ns = 0
        self._timer: TimerHandle | None = None

    def audio_received(self, until_ns: int) -> None:
        """Note audio that lasts until ``until_ns``."""
        self._until_ns = max(until_ns, self._clock.now_ns())
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        """Stop watching: the end of the audio is known."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = self._clock.call_at(self._due_ns, self._check)

    @property
    def _due_ns(self) -> int:
        return self._until_ns + round(SILENT_S * NS_PER_S)

    def _check(self) -> None:
        """Report a gap, or set the timer again: one timer per second instead of one per packet."""
        if self._clock.now_ns() < self._due_ns:
            self._wait()
        else:
            self._timer = None
            self._on_silent()

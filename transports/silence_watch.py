"""A microphone that is switched off in the middle of a word: of transports on which audio comes all the time."""

from __future__ import annotations

from collections.abc import Callable

from ..pipeline.clock import NS_PER_S, Clock, TimerHandle

SILENT_S = 1.0
"""When nothing has come for so long, it is silent: who waits for the end of a word is not to wait until the microphone
is on again. Networks hold audio back for half of that.
"""


class SilenceWatch:
    """Calls ``silent`` when nothing has come for `SILENT_S` after what came was over, once for each such gap."""

    def __init__(self, clock: Clock, silent: Callable[[], None]) -> None:
        self._clock = clock
        self._silent = silent
        self._until_ns = 0
        self._timer: TimerHandle | None = None

    def came(self, until_ns: int) -> None:
        """Something has, that lasts until then."""
        self._until_ns = max(until_ns, self._clock.now_ns())
        if self._timer is None:
            self._wait()

    def stop(self) -> None:
        """Nothing more will come, and that is known."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _wait(self) -> None:
        self._timer = self._clock.call_at(self._due_ns, self._look)

    @property
    def _due_ns(self) -> int:
        return self._until_ns + round(SILENT_S * NS_PER_S)

    def _look(self) -> None:
        """Check for packets once a second, with one timer instead of one for each packet."""
        if self._clock.now_ns() < self._due_ns:
            self._wait()
        else:
            self._timer = None
            self._silent()

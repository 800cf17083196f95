"""The handle of a speech: await it for the outcome."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from ...pipeline.clock import Wait
from .data import SpeechOutcome


class SpeechHandle:
    """Returned by `Session.say` and `Session.send_message`. ``await handle`` returns the `SpeechOutcome`.

    A handle has exactly one outcome, at the latest when the session closes. Any number of tasks may await it.
    """

    def __init__(self, number: int, interrupt: Callable[[int], None]) -> None:
        self._number = number
        self._interrupt = interrupt
        self._waiting: list[Wait] = []
        self.outcome: SpeechOutcome | None = None
        """None until it is decided."""
        self.heard_text = ""
        """The text that was heard, once the outcome is decided."""

    @property
    def done(self) -> bool:
        """True once the outcome is decided."""
        return self.outcome is not None

    def interrupt(self) -> None:
        """Cut this speech, or remove it from the queue; other speech is not cut.

        A typed message that waits for the bot already belongs to the user's turn, and is not removed.
        """
        if not self.done:
            self._interrupt(self._number)

    def resolve(self, outcome: SpeechOutcome, heard: str) -> None:
        """Set the outcome, and wake every waiting task. Later calls change nothing."""
        if self.outcome is None:
            self.outcome, self.heard_text = outcome, heard
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                one.wake()

    def __await__(self) -> Generator[Any, None, SpeechOutcome]:
        while self.outcome is None:
            waiting = Wait()
            self._waiting.append(waiting)
            try:
                yield from waiting.__await__()
            finally:
                if waiting in self._waiting:
                    self._waiting.remove(waiting)
        return self.outcome

    def __repr__(self) -> str:
        return f"<SpeechHandle {self._number}: {self.outcome.value if self.outcome else 'to come'}>"

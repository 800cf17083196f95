"""The handle of something that the bot is to say: `await` it for what became of it."""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any

from ...pipeline.clock import Wait
from .data import SpeechOutcome


class SpeechHandle:
    """What `Session.say` and `Session.send_message` return. ``await handle`` gives its `SpeechOutcome`.

    There is exactly one, and it always comes: at the latest when the session is closed. As many as like may wait.
    """

    def __init__(self, number: int, interrupt: Callable[[int], None]) -> None:
        self._number = number
        self._interrupt = interrupt
        self._waiting: list[Wait] = []
        self.outcome: SpeechOutcome | None = None
        """None while it is not decided."""
        self.heard_text = ""
        """What was heard of it, when it is decided."""

    @property
    def done(self) -> bool:
        """Whether it is decided."""
        return self.outcome is not None

    def interrupt(self) -> None:
        """Cut it, or take it back where it has not begun; nothing else is cut.

        A message that waits for the bot is the user's turn already, and is not taken back.
        """
        if not self.done:
            self._interrupt(self._number)

    def resolve(self, outcome: SpeechOutcome, heard: str) -> None:
        """It is decided: the session says so, once."""
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

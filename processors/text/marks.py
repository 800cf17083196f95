"""Open quotes and emphasis whose opening and closing signs are the same."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise


class OpenMarks:
    """Counts straight quotes, and runs of * and _: one of which there is an odd number is open."""

    def __init__(self) -> None:
        self._counts = {'"': 0, "*": 0, "_": 0}

    def __bool__(self) -> bool:
        return any(count % 2 for count in self._counts.values())

    def read(self, char: str, before: str) -> None:
        """Count a character. `before` stands before it: a run of the same counts once, two quotes twice."""
        if char in self._counts and (char == '"' or char != before):
            self._counts[char] += 1

    def restart(self, chars: Sequence[str]) -> None:
        """Forget what has been given out; only this is left."""
        self._counts = dict.fromkeys(self._counts, 0)
        for before, char in pairwise([" ", *chars]):
            self.read(char, before)

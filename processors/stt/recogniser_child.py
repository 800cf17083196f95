"""Operations of a child process that recognises speech: the same five for every recogniser."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import NoReturn

from ..subprocess.child import ChildHost, Refused, Request

Fields = Mapping[str, object]


class RecogniserChild(ABC):
    """One recogniser, one utterance at a time: open from `begin` to `finish`; another `begin` drops an open one."""

    @abstractmethod
    def start(self, request: Request) -> Fields | None:
        """Load and try the models. Returns facts about them."""

    @abstractmethod
    def begin(self, request: Request) -> None:
        """Start an utterance, or the next piece of it."""

    @abstractmethod
    def feed(self, request: Request) -> None:
        """Add audio: int16 little-endian, mono, 16 kHz."""

    @abstractmethod
    def finish(self, request: Request) -> Fields:
        """End the utterance and return its text."""

    def partial(self, request: Request) -> Fields:
        """Return the text so far. Refused by recognisers without interim texts."""
        raise Refused("this recogniser has no interim texts")

    def serve(self, host: ChildHost) -> NoReturn:
        """Answer requests until the parent is gone."""
        operations = (self.start, self.begin, self.feed, self.partial, self.finish)
        host.serve({operation.__name__: operation for operation in operations})

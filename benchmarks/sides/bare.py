"""No framework: ten objects, each awaiting the next one's method. The price below which nothing can go."""

from __future__ import annotations

import platform
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from sides.base import Seen, Shape


@dataclass(slots=True)
class BareFrame:
    stamp: int


class Link:
    """One handler: awaits the next."""

    def __init__(self, next_: Link | End) -> None:
        self._next = next_

    async def handle(self, frame: BareFrame) -> None:
        await self._next.handle(frame)


class End:
    """The last: tells whoever counts."""

    def __init__(self, on_last: Seen) -> None:
        self._on_last = on_last

    async def handle(self, frame: BareFrame) -> None:
        self._on_last(frame)


class BareChain:
    def __init__(self, shape: Shape) -> None:
        link: Link | End = End(shape.on_last)
        for _ in range(shape.processors - 1):
            link = Link(link)
        self.send = link.handle

    async def start(self) -> None: ...

    async def send_all(self, frames: Sequence[Any]) -> None:
        send = self.send
        for frame in frames:
            await send(frame)

    async def interrupt(self) -> None:
        raise NotImplementedError("a bare chain holds nothing that could be interrupted")


class Bare:
    version = f"Python {platform.python_version()}"
    lanes = {"output": "a dataclass", "input": "a dataclass"}  # noqa: RUF012

    async def open(self) -> None: ...

    def frame(self, lane: str, stamp: int) -> BareFrame:
        return BareFrame(stamp)

    def stamp(self, frame: BareFrame) -> int:
        return frame.stamp

    def chain(self, shape: Shape) -> BareChain:
        return BareChain(shape)


def side(config: str) -> Bare:
    return Bare()

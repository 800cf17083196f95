"""Processors of your own, in each of the four ways: a kitchen that is talked to.

    python examples/custom_processor.py

Nothing is installed for it but voxline itself: a typist stands for the user, and a virtual clock for the ten minutes
that it takes.
"""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import dataclass

from voxline.pipeline import (
    Frame,
    FrameProcessor,
    InputFrame,
    InputTextFrame,
    Pipeline,
    PipelineWorker,
    Stream,
    TextFrame,
    VirtualClock,
    handles,
    source,
    streams,
)

RECIPES = {"tea": "Pour on boiling water, and wait.", "egg": "Boil it for six minutes."}


class Typist(FrameProcessor):
    """A source: makes frames of its own."""

    def __init__(self, *lines: tuple[float, str]) -> None:
        self.lines = lines

    @source
    async def type(self) -> AsyncIterator[Frame]:
        """Each line, after so many seconds."""
        for pause_s, text in self.lines:
            await self.clock.sleep(pause_s)
            yield InputTextFrame(text)


@dataclass(frozen=True, slots=True)
class RingFrame(InputFrame):
    """The timer's own: it is time."""

    what: str


class KitchenTimer(FrameProcessor):
    """Plain handlers, and a timer: "timer tea 3" rings after three minutes."""

    @handles(InputTextFrame)
    async def hear(self, frame: InputTextFrame) -> None:
        """Set it. What is no order for a timer goes on to the next who is interested."""
        match frame.text.split():
            case ["timer", what, minutes] if minutes.isdigit():
                self.post_after(int(minutes) * 60_000, RingFrame(what))
                await self.push(TextFrame(f"{what}: {minutes} minutes"))
            case _:
                await self.push(frame)

    @handles(RingFrame)
    async def ring(self, frame: RingFrame) -> None:
        """It is time."""
        await self.push(TextFrame(f"{frame.what} is ready"))


class Cook(FrameProcessor):
    """A job: takes its time, and holds nobody up."""

    @handles(InputTextFrame)
    async def look_up(self, frame: InputTextFrame) -> AsyncIterator[Frame]:
        """Ask the book, which takes two seconds."""
        await self.clock.sleep(2)
        yield TextFrame(RECIPES.get(frame.text, f"I cannot cook {frame.text}."))


class Waiter(FrameProcessor):
    """A stream: reads along, and says now and then how much it was."""

    @streams(TextFrame)
    async def count(self, frames: Stream[TextFrame]) -> AsyncIterator[Frame]:
        """Report after every third text."""
        count = 0
        async for _ in frames:
            count += 1
            if count % 3 == 0:
                yield TextFrame(f"({count} things said so far)")


class Screen(FrameProcessor):
    """Prints what comes, and when."""

    @handles(TextFrame)
    async def show(self, frame: TextFrame) -> None:
        """A line."""
        seconds = self.now_ns // 1_000_000_000
        print(f"{seconds // 60:2}:{seconds % 60:02}  {frame.text}")


def make_kitchen() -> Pipeline:
    """The kitchen."""
    typist = Typist((1, "tea"), (4, "timer tea 3"), (1, "egg"), (4, "timer egg 6"), (420, "soup"))
    return Pipeline([typist, KitchenTimer(), Cook(), Waiter(), Screen()])


if __name__ == "__main__":
    asyncio.run(PipelineWorker(make_kitchen(), clock=VirtualClock()).run())

"""The end that comes by itself waits for an answer, however long that is to be heard."""

from collections.abc import AsyncIterator

from voxline.pipeline import (
    Frame,
    FrameProcessor,
    InputTextFrame,
    Pipeline,
    PipelineWorker,
    TextFrame,
    VirtualClock,
    handles,
    source,
)


class Caller(FrameProcessor):
    @source
    async def call(self) -> AsyncIterator[Frame]:
        yield InputTextFrame("tell me a story")


class Storyteller(FrameProcessor):
    @handles(InputTextFrame)
    async def tell(self, frame: InputTextFrame) -> AsyncIterator[Frame]:
        for word in range(200):
            await self.clock.sleep(1)
            yield TextFrame(str(word))


class Ear(FrameProcessor):
    def __init__(self) -> None:
        self.heard: list[str] = []

    @handles(TextFrame)
    async def hear(self, frame: TextFrame) -> None:
        self.heard.append(frame.text)


async def test_a_natural_end_waits_as_long_as_something_happens() -> None:
    ear = Ear()
    outcome = await PipelineWorker(Pipeline([Caller(), Storyteller(), ear]), clock=VirtualClock()).run()
    assert len(ear.heard) == 200
    assert (outcome.reason, outcome.errors) == ("ended", ())


class Silent(FrameProcessor):
    @handles(InputTextFrame)
    async def think(self, frame: InputTextFrame) -> AsyncIterator[Frame]:
        await self.clock.sleep(100_000)
        yield TextFrame("at last")


async def test_a_natural_end_gives_up_where_nothing_happens() -> None:
    clock = VirtualClock()
    outcome = await PipelineWorker(Pipeline([Caller(), Silent(), Ear()]), clock=clock).run()
    assert outcome.reason == "ended"
    assert "Silent: think(InputTextFrame)" in outcome.errors[0]
    assert clock.now_ns() <= 130e9

"""Testing a processor by itself, with frames for fixtures: no microphone, no network, no waiting.

    pip install 'voxline[test]'
    pytest -o asyncio_mode=auto examples/testing_a_processor.py

The `harness` comes with voxline as a pytest plugin. It runs the processor in a real pipeline under a virtual clock, so
what takes ten seconds takes none; and it fails the test where the processor raises, hangs or leaves something running.
"""

from collections.abc import AsyncIterator

import numpy as np
import pytest
from voxline.pipeline import Frame, FrameProcessor, InputAudioFrame, TextFrame, handles
from voxline.pipeline.audio import rms_dbfs
from voxline.pipeline.testing import Harness
from voxline.pipeline.testing.material import tone


class Gate(FrameProcessor):
    """Silences what is quieter than ``least_dbfs``: the hum of a fan is nothing to recognise."""

    def __init__(self, least_dbfs: float = -50) -> None:
        self.least_dbfs = least_dbfs

    @handles(InputAudioFrame)
    async def shut(self, frame: InputAudioFrame) -> None:
        """A plain handler: quick, and in order."""
        quiet = rms_dbfs(frame.samples) < self.least_dbfs
        await self.push(frame.with_samples(np.zeros_like(frame.samples)) if quiet else frame)


class Oracle(FrameProcessor):
    """Thinks for ten seconds about each text; who comes meanwhile waits for their turn."""

    @handles(TextFrame)
    async def answer(self, frame: TextFrame) -> AsyncIterator[Frame]:
        """A job: it may take its time."""
        await self.clock.sleep(10)
        if not frame.text:
            raise ValueError("there is no question")
        yield TextFrame(f"{frame.text}? Certainly.")


@pytest.mark.parametrize(("dbfs", "passes"), [(-20, True), (-60, False)])
async def test_only_what_is_loud_passes(harness: Harness, dbfs: float, passes: bool) -> None:
    bench = await harness(Gate())
    sound = InputAudioFrame(tone(440, 20, dbfs=dbfs), 16_000)
    await bench.send(sound)
    assert bench.down == [sound if passes else sound.with_samples(np.zeros(320, np.int16))]


async def test_the_oracle_takes_ten_seconds_each(harness: Harness) -> None:
    bench = await harness(Oracle())
    await bench.send(TextFrame("Shall I"), TextFrame("Will it rain"))
    await bench.advance(ms=9_999)
    assert bench.down == []
    await bench.advance(ms=1)
    assert bench.down == [TextFrame("Shall I? Certainly.")]
    await bench.advance(ms=10_000)
    assert bench.down[-1] == TextFrame("Will it rain? Certainly.")


async def test_an_interruption_ends_its_thought(harness: Harness) -> None:
    bench = await harness(Oracle())
    await bench.send(TextFrame("Shall I"))
    await bench.interrupt()
    await bench.advance(ms=20_000)
    assert not any(isinstance(frame, TextFrame) for frame in bench.down)


async def test_what_raises_is_an_error_and_not_the_end(harness: Harness) -> None:
    bench = await harness(Oracle())
    await bench.send(TextFrame(""))
    await bench.advance(ms=10_000)
    bench.expect_error("there is no question", error="ValueError")
    await bench.send(TextFrame("And now"))
    await bench.advance(ms=10_000)
    assert bench.down[-1] == TextFrame("And now? Certainly.")

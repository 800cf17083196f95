from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from voxline.pipeline import *
from voxline.pipeline.testing import *

class Up(FrameProcessor):
    @handles(TextFrame)
    async def up(self, frame):
        await self.push(TextFrame(frame.text.upper()))

async def test_a(harness):
    bench = await harness(Up())
    await bench.send(TextFrame("hi"))
    assert bench.down == [TextFrame("HI")]

class Job(FrameProcessor):
    @handles(TextFrame)
    async def up(self, frame):
        await self.clock.sleep(1)
        yield TextFrame("x")
        await asyncio.Event().wait()

async def test_b(harness):
    bench = await harness(Job())
    await bench.send(TextFrame("hi"))
    assert bench.down == []
    await bench.advance(ms=999)
    assert bench.down == []
    await bench.advance(ms=1)
    assert bench.down == [TextFrame("x")]

class Hang(FrameProcessor):
    @handles(TextFrame)
    async def up(self, frame):
        await asyncio.Event().wait()

async def test_c(harness):
    bench = await harness(Hang())
    await bench.send(TextFrame("hi"))

class Raise(FrameProcessor):
    @handles(TextFrame)
    async def up(self, frame):
        raise ValueError("boom")

async def test_d(harness):
    bench = await harness(Raise())
    await bench.send(TextFrame("hi"))
async def test_d2(harness):
    bench = await harness(Raise())
    await bench.send(TextFrame("hi"))
    assert bench.down == [TextFrame("hi")]

class Leak(FrameProcessor):
    async def start(self):
        self.t = asyncio.create_task(asyncio.Event().wait())
        self.clock.call_at(10**12, self.nn)
    def nn(self): pass
    @handles(TextFrame)
    async def up(self, frame):
        pass
async def test_e(harness):
    bench = await harness(Leak())
async def test_f(harness):
    bench = await harness(Leak(), passes=[TextFrame])
    await bench.send(TextFrame("hi"))

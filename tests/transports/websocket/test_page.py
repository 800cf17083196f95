"""The page of the guide, in a real browser: its microphone is heard, what the bot says is played, clear clears."""

from __future__ import annotations

import asyncio
import functools
import re
from pathlib import Path

import numpy as np
import pytest
import soundfile
from aiohttp import web
from voxline.pipeline import InterruptRequestFrame, OutputAudioFrame, Pipeline, PipelineWorker
from voxline.tests.browser.chromium import chromium
from voxline.tests.needs import need
from voxline.tests.places import ROOT
from voxline.tests.transports.websocket.peers import Notes, converse, loud, tone
from voxline.transports.websocket import WebSocketTransport

pytestmark = pytest.mark.realtime

GUIDE = ROOT / "docs" / "guide" / "websocket.md"
SPY = """
window.started = []; window.stopped = 0;
const start = AudioBufferSourceNode.prototype.start, stop = AudioBufferSourceNode.prototype.stop;
AudioBufferSourceNode.prototype.start = function (at) {
  started.push([at, this.buffer.duration]);
  start.call(this, at);
};
AudioBufferSourceNode.prototype.stop = function () { stopped += 1; stop.call(this); };
"""


async def test_the_page_of_the_guide_talks_with_a_bot(tmp_path: Path):
    need("chromium")
    (html,) = re.findall(r"^```html\n(.*?)^```$", GUIDE.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    microphone = tmp_path / "microphone.wav"
    soundfile.write(microphone, np.concatenate([np.zeros(8_000, np.int16), tone(10_000, hz=440)]), 16_000)
    transport, notes = WebSocketTransport(reconnect_s=0), Notes()
    worker = PipelineWorker(Pipeline([transport.input(), notes, transport.output()]))

    async def page(request: web.Request) -> web.StreamResponse:
        return web.Response(text=html, content_type="text/html")

    app = web.Application()
    talk = functools.partial(converse, transport, worker)
    app.add_routes([web.get("/", page), web.get("/favicon.ico", page), web.get("/ws", talk)])
    runner = web.AppRunner(app, shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        async with chromium(microphone=microphone) as browser:
            await browser.open("http://{}:{}/".format(*runner.addresses[0][:2]))
            await browser.run(SPY)
            await browser.run("talk.click()")
            async with asyncio.timeout(30):
                while not any(loud(frame.samples) for frame in notes.audio):  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            worker.post(OutputAudioFrame(tone(3_000, 24_000), 24_000), response=1)
            await browser.until("started.length > 20")
            worker.interrupt()
            await browser.until("stopped > 0")
            await browser.run("interrupt.click()")
            async with asyncio.timeout(30):
                while InterruptRequestFrame() not in notes.came:  # noqa: ASYNC110
                    await asyncio.sleep(0.02)
            played: list[tuple[float, float]] = await browser.run("started")
            assert len(played) < 150
            assert {round(duration * 1_000) for _, duration in played} == {20}
            # Each begins where the one before it ends, or later.
            ends = [at + duration for at, duration in played]
            assert all(at >= end - 1e-6 for (at, _), end in zip(played[1:], ends, strict=False))
            assert browser.errors == []
    finally:
        await worker.stop()
        await runner.cleanup()
    heard = np.concatenate([frame.samples for frame in notes.audio if loud(frame.samples)])
    crossings = np.count_nonzero(np.diff(np.signbit(heard[320:].astype(np.int32)).astype(np.int8)))
    assert 420 < crossings / 2 / ((len(heard) - 320) / 16_000) < 460

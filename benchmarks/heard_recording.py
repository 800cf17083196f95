# pyright: basic
"""A call in a page: headless Chromium makes it, and records it. And where the caller stands in the recording."""

from __future__ import annotations

import asyncio
import json
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from aiohttp import web
from heard_call import Utterance, write_wav
from heard_signal import COARSE, RATE, PageClock, audible, coarse, locate
from voxline.tests.browser.chromium import chromium

PAGE = Path(__file__).with_name("heard_page")
Answer = Callable[[str], Awaitable[str]]


@dataclass
class Script:
    """The caller's sentences."""

    caller: Any
    said: list[Utterance]
    long_from: int


class Recording:
    """Both sides of a call, on one clock."""

    def __init__(self, script: Script, samples: Any, told: dict[str, Any]) -> None:
        self.script = script
        self.microphone, self.bot = samples[:, 0], samples[:, 1]
        self.clock = PageClock(told)
        self.stats: list[dict[str, Any]] = told["stats"]
        self.mask = audible(self.bot)
        self.bot_coarse = coarse(self.bot)
        self.spans = self._locate_caller()
        """Where each utterance stands, in samples."""

    def _locate_caller(self) -> list[tuple[int, int]]:
        found = list[tuple[int, int]]()
        microphone, caller = coarse(self.microphone), coarse(self.script.caller)
        offset: int | None = None
        for utterance in self.script.said:
            begin, end = utterance.begin // COARSE, utterance.end // COARSE
            piece = caller[begin:end]
            around = 8_000
            low = 0 if offset is None else max(0, begin + offset - around)
            high = len(microphone) if offset is None else min(len(microphone), end + offset + around)
            at, alike = locate(piece, microphone[low:high])
            if alike < 0.3:
                # The echo canceller has taken it; where it would be is known.
                at = begin + (offset or 0) - low
            else:
                offset = low + at - begin
            found.append(((low + at) * COARSE, (low + at) * COARSE + utterance.end - utterance.begin))
        return found

    def until(self, number: int) -> int:
        """Where the next utterance begins."""
        return self.spans[number + 1][0] if number + 1 < len(self.spans) else len(self.bot)

    def speaks_at(self, sample: int) -> bool:
        """Return True where the bot was audible in the 200 ms before."""
        return bool(self.mask[max(0, sample - RATE // 5) // 240 : sample // 240].any())

    def delay_ms(self) -> dict[str, float]:
        """The page's own account of its buffer, over the call."""
        last = self.stats[-1] if self.stats else {}
        count = max(1, last.get("jitterBufferEmittedCount", 0))
        return {
            "buffer": last.get("jitterBufferDelay", 0) / count * 1e3,
            "target": last.get("jitterBufferTargetDelay", 0) / count * 1e3,
            "minimum": last.get("jitterBufferMinimumDelay", 0) / count * 1e3,
            "concealed_ms": last.get("concealedSamples", 0) / 48,
            "lost": last.get("packetsLost", 0),
        }


async def record(
    script: Script, answer: Answer, go_long: Callable[[], Awaitable[None]], *, processing: bool, target_ms: float | None
) -> Recording:
    """Make the call; ``go_long`` is called when the bot's answers are to be long."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "caller.wav"
        write_wav(file, script.caller)
        async with PageServer(answer) as server, chromium(microphone=file) as page:
            query = f"?processing={int(processing)}" + ("" if target_ms is None else f"&target={target_ms:g}")
            await page.open(server.url + query)
            await page.run("start()")
            began = asyncio.get_running_loop().time()
            await page.until("connected()", 15)
            await asyncio.sleep(max(0.0, began + script.long_from / RATE - asyncio.get_running_loop().time()))
            await go_long()
            await asyncio.sleep(max(0.0, began + len(script.caller) / RATE - asyncio.get_running_loop().time()))
            told = json.loads(await page.run("finish()", 60))
            samples = np.frombuffer(server.recording, np.int16).reshape(-1, 2)
    return Recording(script, samples, told)


class PageServer:
    """Serves the page, and takes its offer and its recording."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.recording = b""
        self.url = ""

    async def __aenter__(self) -> PageServer:
        application = web.Application(client_max_size=1 << 30)
        application.router.add_get("/time", self._time)
        application.router.add_post("/offer", self._offer)
        application.router.add_post("/recording", self._keep)
        application.router.add_get("/", self._index)
        application.router.add_static("/", PAGE)
        self._runner = web.AppRunner(application, access_log=None)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}/"
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    async def _index(self, request: web.Request) -> web.StreamResponse:
        return web.FileResponse(PAGE / "index.html")

    async def _time(self, request: web.Request) -> web.Response:
        return web.Response(text=f"{time.monotonic_ns() / 1e6:.3f}")

    async def _offer(self, request: web.Request) -> web.Response:
        return web.Response(text=await self.answer(await request.text()))

    async def _keep(self, request: web.Request) -> web.Response:
        self.recording = await request.read()
        return web.Response()

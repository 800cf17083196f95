# pyright: basic
"""One measured server: answers offers that come as JSON lines, in a process pinned to a core (-1: to none).

    python -m calls_sides.server SIDE CONFIG CORE VOICE.npy

Only the standard library, numpy and aiortc are imported here: the peer's environment runs it too. Every side
answers on 127.0.0.1 only, so that no way to connect has to be tried out.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import sys
import time
from typing import Any, Protocol

import aioice.ice
import numpy as np
from measure import pin, rss_bytes

VOICE_RATE = 24_000


class Bot(Protocol):
    """A framework in one configuration: each call has a bot that listens and speaks all the time."""

    version: str
    vad_events: int
    """Starts and ends of speech that its detectors found, in all calls: a proof that they are at work."""

    long: bool
    facts: list[tuple[int, str]]
    """Facts of the configuration `answers`, which answers as soon as the user stops, and stops when the user starts:
    the length of its answers, and the times (ns) of `started` and `stopped`."""

    async def open(self) -> None:
        """Start what a server starts once."""
        ...

    async def answer(self, sdp: str) -> str:
        """Begin a call."""
        ...


async def _lines() -> asyncio.StreamReader:
    reader = asyncio.StreamReader(limit=1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    return reader


async def serve(side: str, config: str, voice: Any) -> None:
    """Until standard input ends."""
    bot: Bot = importlib.import_module(f"calls_sides.{side}").bot(config, voice)
    await bot.open()
    reader = await _lines()
    say = sys.stdout

    def tell(**facts: Any) -> None:
        say.write(json.dumps(facts) + "\n")
        say.flush()

    tell(version=bot.version)
    while line := await reader.readline():
        asked = json.loads(line)
        if "offer" in asked:
            tell(answer=await bot.answer(asked["offer"]))
        elif "long" in asked:
            bot.long = asked["long"]
            tell()
        elif "facts" in asked:
            tell(facts=bot.facts)
        else:
            tell(cpu_ns=time.process_time_ns(), wall_ns=time.monotonic_ns(), rss=rss_bytes(), vad_events=bot.vad_events)


if __name__ == "__main__":
    aioice.ice.get_host_addresses = lambda use_ipv4, use_ipv6: ["127.0.0.1"]
    pin(int(sys.argv[3]) if sys.argv[3] != "-1" else None)
    asyncio.run(serve(sys.argv[1], sys.argv[2], np.load(sys.argv[4])))

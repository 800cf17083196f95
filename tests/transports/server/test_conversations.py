"""The table of conversations, apart from any network."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import Pipeline, VirtualClock
from voxline.pipeline.errors import install_command
from voxline.tests.transports.server.rig import mirror
from voxline.transports.base import Transport
from voxline.transports.memory import MemoryTransport
from voxline.transports.server import Caller, Refusal
from voxline.transports.server.conversations import Conversations

LIMIT = 3


class Table:
    """Does what it is told, and keeps books of its own."""

    def __init__(self) -> None:
        self.clock = VirtualClock(autojump=False)
        self.slow: list[asyncio.Event] = []
        self.table = Conversations(self.make, clock=self.clock, limit=LIMIT, factory_timeout_s=20)
        self.begun: list[MemoryTransport] = []
        self.refused: list[int] = []
        self.tasks: list[asyncio.Task[None]] = []
        self.fails = False

    async def make(self, transport: Transport) -> Pipeline:
        if self.fails:
            raise RuntimeError
        gate = asyncio.Event()
        self.slow.append(gate)
        await gate.wait()
        return mirror(transport)

    async def begin(self) -> None:
        transport = MemoryTransport()
        try:
            with self.table.reserve(Caller()) as place:
                await self.table.begin(transport, place)
            self.begun.append(transport)
        except Refusal as refusal:
            self.refused.append(refusal.status)

    async def do(self, what: str) -> None:
        match what:
            case "ask":
                free = len(self.table) < LIMIT and not self.table.draining
                refused = len(self.refused)
                self.tasks.append(asyncio.create_task(self.begin()))
                await asyncio.sleep(0)
                assert (len(self.refused) == refused) is free
            case "ask, and the factory fails":
                self.fails = True
                await self.begin()
                self.fails = False
            case "the factory is done":
                if self.slow:
                    self.slow.pop(0).set()
            case "hang up":
                if self.begun:
                    self.begun.pop(0).hang_up()
            case "end" if not self.table.draining:
                self.tasks.append(asyncio.create_task(self.table.drain(5, 1)))
            case _:
                self.table.cancel()
        for _ in range(5):
            await asyncio.sleep(0)
        assert len(self.table) <= LIMIT

    async def over(self) -> None:
        """Whatever it was, it comes to an end."""
        for gate in self.slow:
            gate.set()
        ending = asyncio.create_task(self.table.drain(0, 0))
        async with asyncio.timeout(10):
            while not ending.done():
                await self.clock.advance(1)
                await asyncio.sleep(0)
            await asyncio.gather(ending, *self.tasks)
        assert len(self.table) == 0
        assert asyncio.all_tasks() == {asyncio.current_task()}


DEEDS = ["ask", "ask", "ask", "ask, and the factory fails", "the factory is done", "hang up", "end", "cancel"]


@settings(max_examples=60)
@given(st.lists(st.sampled_from(DEEDS), max_size=15))
def test_places_are_never_more_than_the_limit_and_all_come_free(deeds: list[str]) -> None:
    async def story() -> None:
        table = Table()
        for deed in deeds:
            await table.do(deed)
        await table.over()

    asyncio.run(story())


@pytest.mark.parametrize(
    ("blocked", "statement"),
    [
        ("aiohttp", "import voxline.transports.server"),
        (
            "aiortc",
            "from voxline.transports.server import Server, ServerSettings; Server(print, ServerSettings(page=None))",
        ),
    ],
)
def test_what_is_not_installed_is_named_with_the_command_that_installs_it(blocked: str, statement: str) -> None:
    code = f"import sys; sys.modules[{blocked!r}] = None\n{statement}"
    out: Any = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError" in out.stderr
    assert f"needs the package {blocked}" in out.stderr
    assert install_command("webrtc") in out.stderr


def test_without_webrtc_the_server_needs_no_aiortc() -> None:
    code = (
        "import sys; sys.modules['aiortc'] = None\n"
        "from voxline.transports.server import Server, ServerSettings\n"
        "Server(print, ServerSettings(page=None, webrtc=False, websocket=True))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)

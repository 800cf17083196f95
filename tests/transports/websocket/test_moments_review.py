"""Peers that come while others leave."""

from __future__ import annotations

import asyncio

from voxline.pipeline import ClientConnectedFrame, ClientDisconnectedFrame
from voxline.tests.transports.websocket.conftest import MakeStage
from voxline.tests.transports.websocket.peers import START, FakeSocket


class Reluctant(FakeSocket):
    """Takes its time to be closed, as one does whose network is gone."""

    def __init__(self) -> None:
        super().__init__()
        self.let_close = asyncio.Event()

    async def close(self, *, code: int = 1000, message: bytes = b"") -> bool:
        await self.let_close.wait()
        return await super().close(code=code, message=message)


async def test_of_two_that_come_while_the_first_is_being_closed_the_last_one_stays(stages: MakeStage):
    stage = await stages()
    async with asyncio.timeout(10):
        reluctant = Reluctant()
        sockets = [reluctant, FakeSocket(), FakeSocket()]
        served: list[asyncio.Task[None]] = []
        for socket in sockets:
            served.append(asyncio.create_task(stage.transport.serve(socket)))
            await asyncio.sleep(0)
            await socket.say(START)
        reluctant.let_close.set()
        await asyncio.wait(served[:2])
        await sockets[2].say('{"type": "interrupt"}')
        assert [socket.closed is None for socket in sockets] == [False, False, True]
        assert not served[2].done()
        comings = [type(frame) for frame in stage.notes.rest[:5]]
        assert comings == [ClientConnectedFrame, ClientDisconnectedFrame] * 2 + [ClientConnectedFrame]
        await sockets[2].hang_up()
        await asyncio.wait(served)

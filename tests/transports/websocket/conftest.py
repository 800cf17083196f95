"""What the tests of the WebSocket transport share."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest
from voxline.tests.transports.websocket.peers import Notes, Stage
from voxline.transports.websocket import Serializer, WebSocketTransport

MakeStage = Callable[..., Awaitable[Stage]]


@pytest.fixture
async def stages(harness: Any) -> AsyncIterator[MakeStage]:
    """Makes a transport on a bench: input, notes, output."""
    made: list[Stage] = []

    async def make(serializer: Serializer | None = None, **settings: Any) -> Stage:
        transport, notes = WebSocketTransport(serializer, **settings), Notes()
        bench = await harness([transport.input(), notes, transport.output()], patience_s=20)
        made.append(Stage(bench, notes, transport))
        return made[-1]

    yield make
    for stage in made:
        await stage.bench.close()
        await stage.ended()

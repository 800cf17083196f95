"""Clients come and go, some without a word. `benchmarks/connections.py` does the same with 500 of them."""

from __future__ import annotations

import asyncio
import gc
import weakref
from typing import Any

import psutil
import pytest
from voxline.pipeline import PipelineWorker
from voxline.tests.transports.server.rig import Browser, Client, served, until
from voxline.transports.base import Transport
from voxline.transports.webrtc import WebRTCTransport

pytestmark = pytest.mark.realtime

COUNT = 12


def impatient() -> WebRTCTransport:
    return WebRTCTransport(loopback=True, silent_timeout_s=0.5, reconnect_s=0.2)


async def come_and_go(client: Client, number: int) -> None:
    browser = Browser()
    await browser.connect(client)
    await until(lambda: browser.heard > 2)
    if number % 3 == 0:
        browser.vanish()
    elif number % 3 == 1:
        assert (await client.ask("DELETE", f"/whip/{browser.pc_id}"))[0] == 200
    await browser.close()


async def test_clients_that_come_and_go_leave_nothing_also_when_they_vanish() -> None:
    process = psutil.Process()
    kept: list[weakref.ref[Any]] = []

    def note(worker: PipelineWorker, transport: Transport) -> None:
        kept.extend([weakref.ref(worker), weakref.ref(transport), weakref.ref(worker.pipeline)])

    async with served(make_transport=impatient, on_worker=note) as client:
        await come_and_go(client, 1)
        await until(lambda: not client.server.conversations)
        tasks, sockets = len(asyncio.all_tasks()), len(process.net_connections("all"))
        for first in range(0, COUNT, 4):
            await asyncio.gather(*(come_and_go(client, first + number) for number in range(4)))
        await until(lambda: not client.server.conversations)
        await until(lambda: len(asyncio.all_tasks()) <= tasks)
        await until(lambda: len(process.net_connections("all")) <= sockets)
    gc.collect()
    assert len(kept) == 3 * (COUNT + 1)
    assert [reference() for reference in kept if reference() is not None] == []

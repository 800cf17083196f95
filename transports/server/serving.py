"""`serve`: a server from its start to its end, with signals."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import ssl
import sys
from collections.abc import Callable
from typing import Any

from ...pipeline.runner import frozen_garbage, on_signals
from ...pipeline.tasks import spawn
from .conversations import MakePipeline, OnWorker
from .server import Server
from .settings import ServerSettings

log = logging.getLogger("voxline.server")


async def serve(
    make_pipeline: MakePipeline,
    settings: ServerSettings | None = None,
    *,
    on_worker: OnWorker | None = None,
    make_transport: Callable[[], Any] | None = None,
    tls: ssl.SSLContext | None = None,
    handle_signals: bool = True,
    announce: Callable[[str], None] | None = None,
) -> None:
    """Serve a bot until SIGTERM or Ctrl-C, or until this is cancelled.

    The first signal drains: no new conversation, and those that there are may end by themselves
    (`ServerSettings.drain_s`). The second one ends them at once. ``announce`` gets a line with the address; it is
    printed if not given. The rest: see `Server`.

    While it runs, the garbage collector leaves out what was there before (`gc.freeze`), as in `PipelineRunner`.
    """
    server = Server(make_pipeline, settings, on_worker=on_worker, make_transport=make_transport, tls=tls)
    await server.start()
    stopping: list[asyncio.Task[None]] = []
    ended = asyncio.Event()

    async def stop() -> None:
        try:
            await server.stop()
        finally:
            ended.set()

    def signalled() -> None:
        if stopping:
            log.warning("ending at once")
            server.cancel()
        else:
            log.warning("draining for up to %g s; once more to end at once", server.settings.drain_s)
            stopping.append(spawn(stop(), "stop the server"))

    with on_signals(signalled) if handle_signals else contextlib.nullcontext(), frozen_garbage():
        try:
            (announce or _print)(f"{server.settings.name} is served at {server.url}")
            await ended.wait()
        finally:
            if not ended.is_set():
                server.cancel()
            await server.stop()


def _print(line: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.write(line + "\n")
        sys.stdout.flush()

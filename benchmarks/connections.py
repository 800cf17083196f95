"""500 WebRTC clients come and go, a third of them rudely; what is left of them in the server?

    python benchmarks/connections.py                  # 500 clients, about two minutes
    python benchmarks/connections.py --clients 60

The server runs in this process. The clients are aiortc peers in processes of their own, 30 at a time: a third of them
closes its connection, a third ends its session by DELETE, and a third is there when its process is killed: no good
bye, no closed socket, nothing. Each has heard the bot before.

The first two processes are a warm-up: what is loaded once is not a leak. Then tasks, sockets, threads, timers, memory
and the objects of conversations are counted, and again when the last is gone.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import gc
import json
import statistics
import sys
import time
from typing import Any

import psutil
from voxline.pipeline import PipelineWorker
from voxline.tests.transports.server.rig import mirror
from voxline.transports.server import Server, ServerSettings
from voxline.transports.webrtc import WebRTCTransport

BATCH = 30
AT_A_TIME = 5
SILENT_S, RECONNECT_S = 2.0, 1.0
"""So short that one need not wait for the end: by default 10 s and 20 s."""


# --- the clients' process ---------------------------------------------------------------------------------------


async def come(url: str, http: Any, number: int, kept: list[Any]) -> float:
    """Connect, hear the bot, and go; or stay until the end. Returns how long it took to be connected, in ms."""
    from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
    from aiortc.mediastreams import AudioStreamTrack

    began = time.perf_counter()
    peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
    connected, heard = asyncio.Event(), asyncio.Event()
    peer.addTrack(AudioStreamTrack())
    peer.createDataChannel("chat")

    async def listen(track: Any) -> None:
        for _ in range(10):
            await track.recv()
        heard.set()

    def on_track(track: Any) -> None:
        kept.append(asyncio.create_task(listen(track)))

    def on_state() -> None:
        if peer.connectionState == "connected":
            connected.set()

    peer.on("track", on_track)
    peer.on("connectionstatechange", on_state)
    await peer.setLocalDescription(await peer.createOffer())
    async with http.post(url + "api/offer", json={"sdp": peer.localDescription.sdp, "type": "offer"}) as response:
        assert response.status == 200, await response.text()
        answer = await response.json()
    await peer.setRemoteDescription(RTCSessionDescription(answer["sdp"], "answer"))
    async with asyncio.timeout(60):
        await connected.wait()
    took_ms = (time.perf_counter() - began) * 1e3
    async with asyncio.timeout(60):
        await heard.wait()
    if number % 3 == 0:
        await peer.close()
    elif number % 3 == 1:
        async with http.delete(f"{url}whip/{answer['pc_id']}") as response:
            assert response.status == 200
        await peer.close()
    else:
        kept.append(peer)
    return took_ms


async def clients(url: str, count: int) -> None:
    """Come and go, tell how it was, and wait for the end."""
    import aiohttp

    kept: list[Any] = []
    places = asyncio.Semaphore(AT_A_TIME)

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(force_close=True)) as http:

        async def one(number: int) -> float:
            async with places:
                return await come(url, http, number, kept)

        took = await asyncio.gather(*(one(number) for number in range(count)))
        print(json.dumps(took), flush=True)
        await asyncio.sleep(600)


# --- the server's process ---------------------------------------------------------------------------------------


def trim() -> None:
    """Give back what is free: glibc keeps it, in pieces between what is in use, and that is no leak."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL("libc.so.6").malloc_trim(0)


def standing() -> dict[str, float]:
    """Count tasks, files, threads and objects of this process."""
    for _ in range(3):
        gc.collect()
    trim()
    process = psutil.Process()
    loop: Any = asyncio.get_running_loop()
    alive: list[type[Any]] = [type(thing) for thing in gc.get_objects()]
    return {
        "tasks": len(asyncio.all_tasks()),
        "sockets": len(process.net_connections("all")),
        "files": process.num_fds(),
        "threads": process.num_threads(),
        "timers": sum(not timer.cancelled() for timer in loop._scheduled),
        "transports": sum(issubclass(kind, WebRTCTransport) for kind in alive),
        "workers": sum(issubclass(kind, PipelineWorker) for kind in alive),
        "objects": len(alive),
        "resident_mib": round(process.memory_info().rss / 2**20, 1),
    }


async def batch(url: str, count: int) -> list[float]:
    """Let a process of clients come and go, and kill it. Returns their connect times in ms."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, __file__, "--url", url, "--clients", str(count),
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    assert process.stdout is not None
    try:
        return json.loads(await process.stdout.readline())
    finally:
        process.kill()
        await process.wait()


async def gone(server: Server) -> float:
    """Wait until no conversation is left. Returns how long that took, in s."""
    began = time.perf_counter()
    while server.conversations:  # noqa: ASYNC110 - nobody tells
        await asyncio.sleep(0.1)
    await asyncio.sleep(0.5)
    return time.perf_counter() - began


async def main(count: int) -> bool:
    """Print the figures. Whether nothing is left."""
    settings = ServerSettings(port=0, page=None, max_connections=200, offers_burst=10_000, requests_burst=10_000)

    def transport() -> WebRTCTransport:
        return WebRTCTransport(loopback=True, silent_timeout_s=SILENT_S, reconnect_s=RECONNECT_S)

    async with Server(mirror, settings, make_transport=transport) as server:
        for _ in range(2):
            await batch(server.url, BATCH)
        await gone(server)
        before = standing()
        began = time.perf_counter()
        took: list[float] = []
        left = count
        while left:
            took += await batch(server.url, min(BATCH, left))
            left -= min(BATCH, left)
            print(f"\r{len(took)} of {count}", end="", file=sys.stderr, flush=True)
        lasted_s = time.perf_counter() - began
        waited_s = await gone(server)
        after = standing()
    took.sort()
    print(f"\n{count} clients in {lasted_s:.0f} s, {AT_A_TIME} at a time; a third of them was killed.")
    print(f"connected after: median {statistics.median(took):.0f} ms, 95th {took[len(took) * 95 // 100]:.0f} ms")
    print(f"the last one was gone after {waited_s:.1f} s (silent {SILENT_S:g} s + away {RECONNECT_S:g} s)\n")
    print(f"{'':14}{'before':>12}{'after':>12}{'each':>12}")
    for name, value in before.items():
        each = (after[name] - value) / count
        print(f"{name:14}{value:12}{after[name]:12}{each:12.4f}")
    counted = ("tasks", "sockets", "files", "timers", "transports", "workers")
    kept = [name for name in counted if after[name] > before[name]]
    print(f"\nleft: {', '.join(kept) or 'nothing'}")
    return not kept


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Clients come and go; what is left of them?")
    parser.add_argument("--clients", type=int, default=500)
    parser.add_argument("--url", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.url:
        asyncio.run(clients(options.url, options.clients))
    else:
        sys.exit(0 if asyncio.run(main(options.clients)) else 1)

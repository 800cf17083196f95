"""How a server ends: conversations first, and then everything."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from voxline.pipeline import Frame, FrameProcessor, InputAudioFrame, Pipeline, VirtualClock, handles
from voxline.tests.places import ROOT
from voxline.tests.transports.server.rig import Browser, Client, Mirror, mirror, served, until
from voxline.transports.base import Transport
from voxline.transports.server import Server, ServerSettings


class Stubborn(FrameProcessor):
    """Is never done."""

    @handles(InputAudioFrame)
    async def hear(self, frame: Frame) -> None:
        await self.push(frame)

    def idle(self) -> bool:
        return False


async def test_while_it_drains_nothing_new_begins_and_what_runs_goes_on() -> None:
    clock = VirtualClock(autojump=False)
    async with served(clock=clock, drain_s=30) as client:
        _, _, answer = await client.offer()
        stopping = asyncio.create_task(client.server.stop())
        await until(lambda: not client.server.ready)
        for status, headers, _ in (
            await client.ask("GET", "/readyz"),
            await client.offer(),
            await client.whip(),
            await client.ask("POST", "/start"),
        ):
            assert status == 503
            assert int(headers["Retry-After"]) > 0
        assert (await client.ask("GET", "/healthz"))[0] == 200
        assert (await client.offer(pc_id=answer["pc_id"], restart_pc=True))[0] == 200
        # Its user hangs up: the last one is gone, and so the server.
        assert (await client.ask("DELETE", f"/whip/{answer['pc_id']}"))[0] == 200
        async with asyncio.timeout(10):
            await stopping


async def test_at_the_deadline_conversations_are_stopped() -> None:
    clock = VirtualClock(autojump=False)
    async with served(clock=clock, drain_s=10, stop_s=5) as client:
        await client.offer()
        conversation = client.server.conversations[0]
        await until(lambda: conversation.worker.running)
        stopping = asyncio.create_task(client.server.stop())
        await until(lambda: not client.server.ready)
        await clock.advance(9)
        assert client.server.conversations == [conversation]
        await clock.advance(2)
        async with asyncio.timeout(10):
            await stopping
        assert (await conversation.worker.finished()).reason == "stopped"


async def test_one_that_will_not_stop_is_ended_all_the_same() -> None:
    clock = VirtualClock(autojump=False)

    def make(transport: Transport) -> Pipeline:
        return Pipeline([transport.input(), Stubborn(), Mirror(), transport.output()])

    async with served(make, clock=clock, drain_s=10, stop_s=5) as client:
        await client.offer()
        conversation = client.server.conversations[0]
        await until(lambda: conversation.worker.running)
        stopping = asyncio.create_task(client.server.stop())
        await until(lambda: not client.server.ready)
        await clock.advance(11)
        await until(lambda: len(clock.pending) >= 2)  # the worker's own deadline, and ours
        await clock.advance(6)
        async with asyncio.timeout(10):
            await stopping
        outcome = await conversation.worker.finished()
        assert any("Stubborn" in error for error in outcome.errors)


async def test_cancelled_while_it_drains_it_ends_at_once() -> None:
    clock = VirtualClock(autojump=False)
    async with served(clock=clock, drain_s=30) as client:
        await client.offer()
        conversation = client.server.conversations[0]
        await until(lambda: conversation.worker.running)
        stopping = asyncio.create_task(client.server.stop())
        await until(lambda: not client.server.ready)
        client.server.cancel()
        async with asyncio.timeout(10):
            await stopping
        assert (await conversation.worker.finished()).reason == "cancelled"
        assert clock.now_ns() == 0


async def test_a_conversation_that_is_being_made_when_the_end_comes_does_not_begin() -> None:
    made = asyncio.Event()

    async def make(transport: Transport) -> Pipeline:
        await made.wait()
        return mirror(transport)

    async with served(make) as client:
        asking = asyncio.create_task(client.offer())
        await until(lambda: client.server.places_taken)
        client.server.cancel()
        made.set()
        assert (await asking)[0] == 503


async def test_stopped_twice_it_stops_once() -> None:
    async with served() as client:
        await client.offer()
        client.server.cancel()
        await asyncio.gather(client.server.stop(), client.server.stop())


async def test_nothing_is_left_of_a_server_that_had_calls() -> None:
    process = psutil.Process()
    threads = process.num_threads()
    before = len(process.net_connections("all"))
    async with served(websocket=True) as client:
        browsers = [Browser() for _ in range(3)]
        for browser in browsers:
            await browser.connect(client)
        await until(lambda: all(browser.heard > 2 for browser in browsers))
        client.server.cancel()
        await client.server.stop()
        for browser in browsers:
            await browser.close()
    await until(lambda: len(process.net_connections("all")) <= before)
    # The browsers are aiortc's, whose codecs have threads of FFmpeg that end with the codec's object.
    gc.collect()
    # aiortc's decoders, on the browsers' side, use the loop's pool of threads.
    assert process.num_threads() <= threads + len(browsers) + (os.cpu_count() or 1) + 4


SCRIPT = """
import asyncio, sys
from voxline.tests.transports.server.rig import mirror
from voxline.transports.server import ServerSettings, serve

asyncio.run(serve(mirror, ServerSettings(port=0, drain_s=float(sys.argv[1]), stop_s=1)))
print("ended")
"""


class Process:
    """A server in a process of its own."""

    def __init__(self, drain_s: float) -> None:
        self.drain_s = drain_s
        self.process: Any = None
        self.port = 0

    async def __aenter__(self) -> Process:
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, "-c", SCRIPT, str(self.drain_s),
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE, cwd=ROOT,
        )  # fmt: skip
        async with asyncio.timeout(30):
            line = (await self.process.stdout.readline()).decode()
        assert line.startswith("voxline is served at http://127.0.0.1:"), line
        self.port = int(line.strip().rstrip("/").rpartition(":")[2])
        return self

    async def __aexit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.process.kill()
        await self.process.communicate()

    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    async def ended(self) -> tuple[int, str, str]:
        async with asyncio.timeout(30):
            out, err = await self.process.communicate()
        return self.process.returncode, out.decode(), err.decode()


class _Address:
    """What `Client` wants of a server."""

    def __init__(self, url: str) -> None:
        self.url = url


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_a_server_that_nobody_uses(number: int) -> None:
    async with Process(drain_s=30) as process:
        process.process.send_signal(number)
        code, out, err = await process.ended()
        assert (code, out.strip()) == (0, "ended")
        assert "Traceback" not in err


async def test_the_first_signal_drains_and_the_second_ends_at_once() -> None:
    import aiohttp

    async with Process(drain_s=600) as process, aiohttp.ClientSession() as http:
        client = Client(_Address(process.url()), http)  # type: ignore[arg-type]
        browser = Browser()
        await browser.connect(client)
        process.process.send_signal(signal.SIGTERM)
        while (await client.ask("GET", "/readyz"))[0] != 503:  # noqa: ASYNC110 - it is another process
            await asyncio.sleep(0.01)
        heard = browser.heard
        await until(lambda: browser.heard > heard + 2)
        process.process.send_signal(signal.SIGTERM)
        code, out, err = await process.ended()
        assert (code, out.strip()) == (0, "ended")
        assert "Traceback" not in err
        await browser.close()


async def test_it_serves_https_too(tmp_path: Path) -> None:
    import ssl

    import aiohttp
    from aiortc import RTCCertificate
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    made: Any = RTCCertificate.generateCertificate()
    file = tmp_path / "both.pem"
    key = made._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    file.write_bytes(key + made._cert.public_bytes(Encoding.PEM))
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(file)
    connector = aiohttp.TCPConnector(force_close=True, ssl=False)
    async with (
        Server(mirror, ServerSettings(port=0, page=None), tls=tls) as server,
        aiohttp.ClientSession(connector=connector) as http,
        http.get(server.url + "healthz") as answer,
    ):
        assert server.url.startswith("https://")
        assert answer.status == 200


async def test_leaving_the_block_ends_it_without_waiting() -> None:
    async with Server(mirror, ServerSettings(port=0, page=None)) as server:
        assert server.ready
    assert not server.ready

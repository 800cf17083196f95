"""ICE servers: a real TURN server (coturn) on the loopback interface, with credentials."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import logging
import re
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from voxline.tests.needs import need
from voxline.tests.transports.webrtc.client import Client, Listener, running, until
from voxline.transports.webrtc import IceServer, WebRTCTransport

pytestmark = pytest.mark.realtime


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


PASSWORD = ("--lt-cred-mech", "--user=berta:hunter2")
SECRET = ("--use-auth-secret", "--static-auth-secret=hunter3")


@pytest.fixture(params=[PASSWORD], ids=["password"])
def relay(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    """A TURN server for the user *berta* with the password *hunter2*, or a shared secret; its address."""
    need("coturn")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["turnserver", "-n", "--log-file=stdout", "--no-cli", "--no-tls", "--no-dtls", "--allow-loopback-peers"]
    command += ["--listening-ip=127.0.0.1", "--relay-ip=127.0.0.1", f"--listening-port={port}", *request.param]
    command += ["--realm=voxline.test", f"--pidfile={tmp_path}/pid", "--relay-threads=1"]
    with (tmp_path / "log").open("wb") as log:
        server = subprocess.Popen([*command, f"--userdb={tmp_path}/db"], cwd=tmp_path, stdout=log, stderr=log)
    try:
        deadline = time.monotonic() + 20
        while not _listens(port):
            assert time.monotonic() < deadline, (tmp_path / "log").read_text(encoding="utf-8")
            time.sleep(0.02)
        yield f"127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(10)


def candidates(answer: str, kind: str) -> list[str]:
    """Of one kind: host, srflx, relay."""
    return re.findall(rf"^a=candidate:.* typ {kind}\b.*$", answer, re.MULTILINE)


def only(answer: str, kind: str) -> str:
    """The answer with no other candidates than these."""
    return re.sub(rf"^a=candidate:(?!.* typ {kind}\b).*\r\n", "", answer, flags=re.MULTILINE)


async def through(server: IceServer) -> None:
    """A call whose client knows no other way than the relay: sound and messages, both ways."""
    transport, client, ears = WebRTCTransport(ice_servers=[server], loopback=True), Client(), Listener()
    messages: list[str] = []
    transport.on_message = messages.append
    async with running(transport, ears):
        answer = await transport.answer(await client.offer())
        assert candidates(answer, "relay"), answer
        await client.accept(only(answer, "relay"))
        await until(lambda: client.got and ears.audio, "sound in both directions")
        channel = client.channel
        assert channel is not None
        await until(lambda: channel.readyState == "open", "a data channel")
        channel.send("hello")
        await until(lambda: messages == ["hello"], "a message")
        await client.close()


@pytest.mark.parametrize("way", ["udp", "tcp"])
async def test_a_call_goes_through_a_relay(relay: str, way: str) -> None:
    await through(IceServer(f"turn:{relay}?transport={way}", "berta", "hunter2"))


@pytest.mark.parametrize("relay", [SECRET], ids=["secret"], indirect=True)
async def test_passwords_for_an_hour_are_made_of_a_shared_secret(relay: str) -> None:
    """As docs/guide/serving.md makes them."""
    username = f"{int(time.time()) + 3_600}:voxline"
    password = base64.b64encode(hmac.new(b"hunter3", username.encode(), hashlib.sha1).digest()).decode()
    await through(IceServer(f"turn:{relay}?transport=udp", username, password))


async def test_a_wrong_password_is_said_and_the_call_finds_another_way(
    relay: str, caplog: pytest.LogCaptureFixture
) -> None:
    transport = WebRTCTransport(ice_servers=[IceServer(f"turn:{relay}", "berta", "secret7")], loopback=True)
    client = Client()
    with caplog.at_level(logging.WARNING, logger="voxline"):
        async with running(transport):
            await client.call(transport)
            await client.close()
    assert not candidates(client.answer, "relay")
    assert f"turn:{relay} gave no address" in caplog.text
    assert "berta" not in caplog.text
    assert "secret7" not in caplog.text


async def test_a_server_that_does_not_answer_does_not_hold_the_call_up(caplog: pytest.LogCaptureFixture) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as mute:
        mute.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{mute.getsockname()[1]}"
        servers = [IceServer(f"stun:{address}"), IceServer(f"turn:{address}", "berta", "hunter2")]
        transport, client = WebRTCTransport(ice_servers=servers, loopback=True), Client()
        with caplog.at_level(logging.WARNING, logger="voxline"):
            async with running(transport), asyncio.timeout(4.5):
                await client.call(transport)
            await client.close()
    assert f"stun:{address}" in caplog.text
    assert f"turn:{address}" in caplog.text


async def test_the_address_that_a_stun_server_sees_is_offered(relay: str) -> None:
    transport, client = WebRTCTransport(ice_servers=[IceServer(f"stun:{relay}")]), Client()
    async with running(transport):
        answer = await transport.answer(await client.offer())
        await client.close()
    assert candidates(answer, "srflx"), answer

"""Where we touch the inside of aiortc and aioice: what is used is there, and does what we take it for."""

from __future__ import annotations

import asyncio
import inspect
import re
import tomllib
from collections.abc import AsyncIterator, Awaitable
from importlib.metadata import version
from typing import Any

import pytest

pytest.importorskip("aiortc")

import aioice
from aioice import ice as aioice_ice
from aioice import stun
from aiortc.rtcdtlstransport import RTCDtlsTransport
from aiortc.rtcsctptransport import RTCSctpTransport
from voxline.pipeline import SettingsError
from voxline.tests.laws.source import ROOT, modules
from voxline.tests.transports.webrtc.client import until
from voxline.transports.webrtc.aiortc_adapter import DtlsConnection, IceConnection, IceServer, ice_settings
from voxline.transports.webrtc.sdp import Ice

HINT = "aiortc or aioice has changed: fit transports/webrtc/aiortc_adapter.py to it, and pyproject.toml's range"
USED: dict[Any, list[str]] = {
    aioice.Connection: [
        "data_received", "check_incoming", "protocol_lost", "_closed",
        "get_component_candidates", "add_remote_candidate", "connect", "close",
        "_local_candidates", "_local_candidates_start", "_local_candidates_end", "_nominated", "_protocols",
        "_remote_candidates_end", "remote_username", "remote_password", "remote_is_lite", "_check_list",
    ],
    aioice_ice.CandidatePair: ["protocol", "remote_addr"],
    aioice_ice.StunProtocol: ["datagram_received", "transport"],
    RTCDtlsTransport: [
        "_recv", "_send", "_set_role", "_rx_srtp", "_tx_srtp", "_task", "start", "stop", "state", "getLocalParameters",
        "_role",
    ],
    RTCSctpTransport: [
        "_handle_data", "_send_chunk", "_advertised_rwnd", "_abort", "_set_state", "State", "start",
        "stop",
    ],
}  # fmt: skip


def test_the_installed_version_is_in_the_range_that_is_written_down() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    (wanted,) = [item for item in extras["webrtc"] if item.startswith("aiortc")]
    match = re.fullmatch(r"aiortc>=(\d+)\.(\d+),<(\d+)\.(\d+)", wanted)
    assert match is not None
    least, beyond = (int(match[1]), int(match[2])), (int(match[3]), int(match[4]))
    installed = tuple(int(part) for part in version("aiortc").split(".")[:2])
    assert least <= installed < beyond, HINT


@pytest.mark.parametrize("owner", USED, ids=lambda owner: owner.__name__)
def test_what_is_used_of_it_is_still_there(owner: Any) -> None:
    source = inspect.getsource(owner)
    missing = [name for name in USED[owner] if not re.search(rf"\b{name}\b", source)]
    assert missing == [], HINT


def test_nobody_else_imports_them() -> None:
    users = {
        module.path
        for module in modules().values()
        if re.search(r"^\s*(import|from) (aiortc|aioice|pylibsrtp)", module.text, re.MULTILINE)
    }
    assert users == {"transports/webrtc/aiortc_adapter.py"}


class End:
    """One side: a wire, and what came out of it."""

    def __init__(self) -> None:
        self.rtp: list[bytes] = []
        self.rtcp: list[bytes] = []
        self.gone: list[str] = []
        self.messages: list[str] = []
        self.alive = 0
        self.wire = DtlsConnection(
            on_rtp=self.rtp.append,
            on_rtcp=self.rtcp.append,
            on_alive=self._count,
            on_channel=lambda channel: channel.on("message", self.messages.append),
            on_gone=self.gone.append,
            loopback=True,
        )

    def _count(self) -> None:
        self.alive += 1


def said(ice: IceConnection) -> Ice:
    candidates = tuple(candidate.to_sdp() for candidate in ice.local_candidates)
    return Ice(ice.local_username, ice.local_password, candidates, complete=True, lite=False)


async def together(first: Awaitable[None], second: Awaitable[None]) -> None:
    await asyncio.wait_for(asyncio.gather(first, second), 20)


@pytest.fixture
async def ends() -> AsyncIterator[tuple[End, End]]:
    """Two that are connected: the caller, who controls ICE, and the bot."""
    caller, bot = End(), End()
    ours, theirs = await bot.wire.gather(), await caller.wire.gather(lite=True)
    await together(
        bot.wire.connect(ours, said(theirs), [caller.wire.fingerprint], active=True),
        caller.wire.connect(theirs, said(ours), [bot.wire.fingerprint], active=False),
    )
    yield caller, bot
    await bot.wire.close()
    await caller.wire.close()


RTP = bytes([0x80, 111, 0, 1, 0, 0, 0, 0, 0, 0, 0, 9]) + b"payload"
RTCP = bytes([0x80, 201, 0, 1, 0, 0, 0, 9])


async def test_a_packet_is_in_the_socket_when_send_returns_and_read_in_its_callback(ends: tuple[End, End]) -> None:
    caller, bot = ends
    assert bot.wire.send_rtp(RTP)
    assert bot.wire.send_rtcp(RTCP)
    await until(lambda: caller.rtp and caller.rtcp, "both packets")
    assert caller.rtp == [RTP]
    assert caller.rtcp == [RTCP]


async def test_what_is_forged_or_repeated_is_not_heard(ends: tuple[End, End]) -> None:
    caller, bot = ends
    protected = bot.wire._dtls._tx_srtp.protect(RTP)
    for data in (protected, protected, protected[:-1] + b"\x00", RTP, b"\x80", bytes(20), b"\x80" * 3_000):
        caller.wire.datagram(data)
    caller.wire.datagram(b"")
    assert caller.rtp == [RTP]


async def test_srtp_says_that_the_client_is_alive_and_what_is_forged_or_repeated_does_not(
    ends: tuple[End, End],
) -> None:
    caller, bot = ends
    for packet, protect in ((RTP, bot.wire._dtls._tx_srtp.protect), (RTCP, bot.wire._dtls._tx_srtp.protect_rtcp)):
        protected, before = protect(packet), caller.alive
        for data in (
            protected[:-1] + bytes([protected[-1] ^ 1]),
            packet,
            b"\x80",
            bytes(20),
            b"\x80" * 3_000,
            b"\xff" * 20,
        ):
            caller.wire.datagram(data)
        assert caller.alive == before
        for _ in range(3):
            caller.wire.datagram(protected)
        assert caller.alive == before + 1


async def test_a_check_of_ice_says_it_too_where_it_is_signed(ends: tuple[End, End]) -> None:
    caller, bot = ends
    ice: Any = bot.wire.ice
    theirs: Any = caller.wire.ice
    pair = ice._nominated[1]

    def arrive(username: str, password: str | None) -> None:
        request = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
        request.attributes["USERNAME"] = username
        request.attributes["PRIORITY"] = 1
        if password is not None:
            request.add_message_integrity(password.encode())
        pair.protocol.datagram_received(bytes(request), pair.remote_addr)

    before, username = bot.alive, f"{ice.local_username}:{theirs.local_username}"
    arrive(username, None)
    arrive(username, "a wrong password of 22")
    arrive("somebody:else", ice.local_password)
    assert bot.alive == before
    arrive(username, ice.local_password)
    assert bot.alive == before + 1


async def test_dtls_says_it_too_where_it_can_be_decrypted(
    ends: tuple[End, End], monkeypatch: pytest.MonkeyPatch
) -> None:
    caller, bot = ends
    # Checks of ICE come at any time.
    monkeypatch.setattr(IceConnection, "check_incoming", aioice.Connection.check_incoming)
    await together(bot.wire.open_channels(5000, 65_536), caller.wire.open_channels(5000, 65_536))
    sctp: Any = bot.wire._sctp
    await until(lambda: sctp._association_state == sctp.State.ESTABLISHED, "the association")
    await until(lambda: not sctp._outbound_queue and not sctp._sent_queue, "silence")
    before, link = bot.alive, bot.wire._link
    assert before > 0
    for data in (b"\x17\xfe\xfd" + bytes(40), b"\x16\xfe\xfd" + b"\xff" * 40, b"\x14" * 20):
        bot.wire.datagram(data)
    await until(lambda: link._queue.empty(), "all of them read")
    await asyncio.sleep(0)
    assert bot.alive == before
    await caller.wire._dtls._send_data(b"not even SCTP")
    await until(lambda: bot.alive == before + 1, "a record that is the caller's")


async def test_ice_is_restarted_under_a_connection_that_stays(ends: tuple[End, End]) -> None:
    caller, bot = ends
    before, tx = bot.wire._link.connection, bot.wire._dtls._tx_srtp
    ours, theirs = await bot.wire.gather(), await caller.wire.gather(lite=True)
    # The old way is used until the new one stands.
    assert bot.wire.send_rtp(RTP)
    await together(bot.wire.restart(ours, said(theirs)), caller.wire.restart(theirs, said(ours)))
    assert bot.wire._link.connection is ours is not before
    assert bot.wire._dtls._tx_srtp is tx
    second = RTP[:3] + b"\x02" + RTP[4:]
    assert bot.wire.send_rtp(second)
    await until(lambda: second in caller.rtp, "a packet on the new way")
    assert bot.wire.connected
    assert (caller.gone, bot.gone) == ([], [])


async def test_a_restart_that_finds_no_way_leaves_the_old_one(ends: tuple[End, End]) -> None:
    caller, bot = ends
    ours = await bot.wire.gather()
    nobody = Ice("abcd", "x" * 24, (), complete=True, lite=False)
    with pytest.raises(ConnectionError):
        await bot.wire.restart(ours, nobody)
    assert bot.wire.send_rtp(RTP)
    await until(lambda: caller.rtp, "a packet on the old way")
    assert bot.gone == []


async def test_a_wrong_certificate_is_no_connection() -> None:
    caller, bot = End(), End()
    ours, theirs = await bot.wire.gather(), await caller.wire.gather(lite=True)
    wrong = ("sha-256", ":".join(["00"] * 32))
    calling = asyncio.ensure_future(caller.wire.connect(theirs, said(ours), [bot.wire.fingerprint], active=False))
    with pytest.raises(ConnectionError, match="DTLS"):
        await asyncio.wait_for(bot.wire.connect(ours, said(theirs), [wrong], active=True), 20)
    assert not bot.wire.connected
    await bot.wire.close()
    calling.cancel()
    await asyncio.wait([calling])
    await caller.wire.close()


async def test_channels_survive_a_malformed_packet(ends: tuple[End, End]) -> None:
    caller, bot = ends
    await together(bot.wire.open_channels(5000, 65_536), caller.wire.open_channels(5000, 65_536))
    sctp: Any = bot.wire._sctp
    await until(lambda: sctp._association_state == sctp.State.ESTABLISHED, "the association")
    for data in (b"", b"\x00" * 12, b"\xff" * 64):
        await sctp._handle_data(data)
    assert sctp._association_state == sctp.State.ESTABLISHED
    sctp._advertised_rwnd = -1
    await sctp._handle_data(b"")
    assert sctp._association_state == sctp.State.CLOSED
    assert bot.wire.connected


def test_servers_are_said_to_ice_with_their_credentials() -> None:
    servers = [IceServer("stun:a.example:3478"), IceServer(["turn:b.example?transport=tcp"], "user", "secret")]
    known = ice_settings(servers)
    assert known["stun_server"] == ("a.example", 3478)
    assert (known["turn_server"], known["turn_transport"]) == (("b.example", 3478), "tcp")
    assert (known["turn_username"], known["turn_password"]) == ("user", "secret")
    assert "secret" not in repr(servers)
    with pytest.raises(SettingsError, match="stun:host"):
        ice_settings([IceServer("http://x")])


async def test_names_that_nobody_knows_hold_nothing_up() -> None:
    """Browsers hide addresses behind names; the other side's own checks come through without."""
    caller, bot = End(), End()
    ours, theirs = await bot.wire.gather(), await caller.wire.gather(lite=True)
    hidden = tuple(f"1 1 udp 2130706431 {name}.local {9_000 + name} typ host" for name in range(20))
    begun = asyncio.get_running_loop().time()
    await together(
        bot.wire.connect(
            ours,
            Ice(theirs.local_username, theirs.local_password, hidden, complete=True, lite=False),
            [caller.wire.fingerprint],
            active=True,
        ),
        caller.wire.connect(theirs, said(ours), [bot.wire.fingerprint], active=False),
    )
    assert asyncio.get_running_loop().time() - begun < 15
    tasks = asyncio.all_tasks()
    assert any(task.get_name() == "webrtc-mdns" for task in tasks)
    await bot.wire.close()
    await caller.wire.close()
    await until(lambda: asyncio.all_tasks() == {asyncio.current_task()}, "no task")


async def test_a_lost_socket_is_the_end_of_the_connection_and_raises_nothing(ends: tuple[End, End]) -> None:
    caller, bot = ends
    connection: Any = bot.wire._link.connection
    for protocol in connection._protocols:
        protocol.transport.abort()
    await until(lambda: bot.gone, "the loss of it")
    assert not bot.wire.send_rtp(RTP)
    assert caller.wire.connected

"""Offers, restarts and packets that come at awkward moments, or from somebody who means no good."""

from __future__ import annotations

import asyncio
import gc
import socket
import warnings
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("aiortc")

from dataclasses import replace

from aioice import stun
from voxline.pipeline import Pipeline, PipelineWorker, TransportError
from voxline.tests.transports.webrtc.client import Client, Listener, running, until
from voxline.tests.transports.webrtc.test_opus import packets, tone
from voxline.tests.transports.webrtc.test_receiver import Ear
from voxline.tests.transports.webrtc.test_transport import Restarter
from voxline.transports.webrtc import WebRTCTransport
from voxline.transports.webrtc.aiortc_adapter import DtlsConnection, IceConnection
from voxline.transports.webrtc.receiver import MAX_AHEAD_NS
from voxline.transports.webrtc.sdp import parse_offer

pytestmark = pytest.mark.realtime

SECOND_NS = 1_000_000_000


async def test_audio_that_comes_faster_than_it_is_spoken_is_dropped_after_10_s() -> None:
    ear, payload = Ear(), packets(tone(440, 20))[0]
    for index in range(2_000):
        ear.packet(index, payload)
    assert len(ear.samples()) * SECOND_NS // 16_000 == MAX_AHEAD_NS
    assert ear.receiver.hurried == 1_500 * 320
    await ear.clock.advance(2)
    for index in range(2_000, 2_200):
        ear.packet(index, payload)
    assert len(ear.samples()) * SECOND_NS // 16_000 == MAX_AHEAD_NS + 2 * SECOND_NS


async def test_silence_that_is_claimed_by_time_stamps_alone_is_bounded_too() -> None:
    ear, payload = Ear(), packets(tone(440, 20))[0]
    for index in range(1_000):
        ear.packet(index, payload, timestamp=index * 90_000)
    assert len(ear.samples()) * SECOND_NS // 16_000 <= MAX_AHEAD_NS


async def test_audio_in_time_is_never_dropped_however_long_the_call() -> None:
    ear, payload = Ear(), packets(tone(440, 20))[0]
    for index in range(3_000):
        await ear.clock.advance(0.02)
        ear.packet(index, payload)
    assert (len(ear.heard), ear.receiver.hurried) == (3_000, 0)


@pytest.mark.parametrize("line", ["a=rtpmap:² opus/48000/2", "a=sctp-port:²", "a=max-message-size:²"])
async def test_digits_that_are_none_are_no_error_of_ours(line: str) -> None:
    client = Restarter()
    offer = (await client.offer()).replace("\r\n", "\n")
    await client.end.wire.close()
    if "rtpmap" in line:
        offer = offer.replace(" UDP/TLS/RTP/SAVPF ", " UDP/TLS/RTP/SAVPF ² ", 1)
    parsed = parse_offer(offer + line + "\n")
    assert (parsed.sctp_port, parsed.payload_type < 128) == (5000, True)
    if parsed.data is not None:
        parsed.sections[parsed.data].attributes[:0] = [("sctp-port", "²"), ("max-message-size", "²")]
        assert (parsed.sctp_port, parsed.max_message_size) == (5000, 65_536)


class Caller:
    """A client that is connected, and can restart ICE."""

    def __init__(self, transport: WebRTCTransport) -> None:
        self.transport, self.client = transport, Restarter()

    async def connect(self) -> None:
        ice, fingerprint = self.client.said(await self.transport.answer(await self.client.offer()))
        await self.client.end.wire.connect(self.client.ice, ice, [fingerprint], active=False)
        await until(lambda: len(self.client.end.rtp) > 5, "packets")

    async def hears(self) -> None:
        count = len(self.client.end.rtp)
        await until(lambda: len(self.client.end.rtp) > count + 5, "more packets")


@pytest.fixture
async def caller() -> AsyncIterator[Caller]:
    transport = WebRTCTransport(loopback=True)
    async with running(transport, Listener()):
        caller = Caller(transport)
        await caller.connect()
        yield caller
        await caller.client.end.wire.close()


async def test_a_restart_that_fails_leaves_no_trace_and_the_next_one_goes_through(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, tag, offer = caller.transport, caller.transport.ice_tag, await caller.client.offer()
    gather = DtlsConnection.gather

    async def fails(*_: Any, **__: Any) -> Any:
        raise TransportError("no address")

    monkeypatch.setattr(DtlsConnection, "gather", fails)
    with pytest.raises(TransportError):
        await transport.answer(offer)
    monkeypatch.setattr(DtlsConnection, "gather", gather)
    ice, _ = caller.client.said(await transport.answer(offer))
    assert ice.ufrag == transport.ice_tag != tag
    await caller.client.end.wire.restart(caller.client.ice, ice)
    await caller.hears()


async def test_a_restart_with_a_malformed_candidate_leaves_the_connection_and_its_name(caller: Caller) -> None:
    transport, tag = caller.transport, caller.transport.ice_tag
    complaints: list[Any] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    offer = (await caller.client.offer()).replace("a=candidate:", "a=candidate:nonsense ", 1)
    await transport.answer(offer)
    await until(lambda: transport.ice_tag == tag, "the name of the connection that is in use")
    await caller.hears()
    peer = transport.peer
    assert peer is not None
    assert [task.exception() for task in peer._tasks if task.done()] == [None] * sum(t.done() for t in peer._tasks)
    assert complaints == []


async def test_an_older_restart_that_comes_through_late_does_not_replace_a_newer_one(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, negotiate = caller.transport, IceConnection.negotiate
    held = asyncio.Event()
    await transport.answer(await caller.client.offer())
    peer = transport.peer
    assert peer is not None
    old = peer._ice
    assert old is not None

    async def late(self: IceConnection, remote: Any) -> None:
        # The older one is held up, and then says that it stands.
        if self is old:
            await held.wait()
        else:
            await negotiate(self, remote)

    monkeypatch.setattr(IceConnection, "negotiate", late)
    ice, _ = caller.client.said(await transport.answer(await caller.client.offer()))
    await caller.client.end.wire.restart(caller.client.ice, ice)
    await until(lambda: peer._wire.ice is peer._ice, "the newer one in use")
    held.set()
    await until(lambda: all(task.done() for task in peer._tasks), "the older one's end")
    assert peer._wire.ice is peer._ice is not old
    assert not old.alive
    await caller.hears()


async def test_a_connection_that_is_closed_while_addresses_are_looked_for_leaves_no_socket(
    caller: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    transport, gather, went_on = caller.transport, IceConnection.gather, asyncio.Event()
    offer = await caller.client.offer()
    made: list[IceConnection] = []

    async def slow(self: IceConnection) -> None:
        made.append(self)
        await went_on.wait()
        await gather(self)

    monkeypatch.setattr(IceConnection, "gather", slow)
    peer = transport.peer
    assert peer is not None
    asked = asyncio.create_task(transport.answer(offer))
    await until(lambda: made, "the search")
    transport.peer_lost(peer, "it vanished")
    await until(lambda: not transport._leaving, "the end of the peer")
    went_on.set()
    with pytest.raises(TransportError, match="over"):
        await asked
    assert made[0]._protocols == []
    assert all(task.done() for task in peer._tasks)


async def test_a_renegotiation_may_change_the_payload_type_of_the_voice(caller: Caller) -> None:
    peer = caller.transport.peer
    assert peer is not None
    assert peer._offer is not None
    assert peer.receiver is not None
    await peer.answer(replace(peer._offer, payload_type=109))
    assert (peer.sender.payload_type, peer.receiver.payload_type) == (109, 109)


async def test_datagrams_of_somebody_else_do_not_keep_the_place_of_a_client_that_is_gone() -> None:
    transport, listener, client = WebRTCTransport(loopback=True, silent_timeout_s=0.5), Listener(), Client()
    unsigned = stun.Message(stun.Method.BINDING, stun.Class.REQUEST)
    unsigned.attributes["USERNAME"] = "some:body"
    forged = [
        bytes(unsigned),
        b"\x80\x6f" + bytes(60),
        b"\x80\xc8" + bytes(60),
        b"\x17\xfe\xfd" + bytes(60),
        b"\xff" * 60,
    ]
    async with running(transport, listener):
        await client.call(transport)
        peer = transport.peer
        assert peer is not None
        ice: Any = peer._wire.ice
        address = ice._nominated[1].local_addr
        client.vanish()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:

            def gone() -> bool:
                for data in forged:
                    stranger.sendto(data, address)
                return listener.names == ["Connected", "Disconnected"]

            await until(gone, "the end of the client", 5)
        await client.close()


def test_an_event_loop_that_ends_under_a_connection_leaves_no_task_that_never_ran(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def connected() -> None:
        await Caller(WebRTCTransport(loopback=True)).connect()

    with warnings.catch_warnings():
        # Nobody has closed the sockets.
        warnings.simplefilter("ignore", ResourceWarning)
        asyncio.run(connected())
        gc.collect()
    assert [record.getMessage() for record in caplog.records if "destroyed" in record.getMessage()] == []


async def test_an_event_loop_that_ends_under_a_worker_lets_it_close_the_connection() -> None:
    """As `asyncio.run` does it on Ctrl-C: all tasks are cancelled at once, also the one that reads."""
    transport = WebRTCTransport(loopback=True)
    caller = Caller(transport)
    run = asyncio.create_task(PipelineWorker(Pipeline([transport.input(), Listener(), transport.output()])).run())
    await until(lambda: transport._open, "an open transport")
    await caller.connect()
    peer = transport.peer
    assert peer is not None
    for task in (peer._wire._dtls._task, run):
        task.cancel()
    await asyncio.wait([run])
    assert (transport.peer, transport._leaving, peer._wire._ices) == (None, set(), [])
    await caller.client.end.wire.close()


async def test_a_session_that_cannot_say_goodbye_in_time_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    transport, ended = WebRTCTransport(loopback=True), asyncio.Event()
    transport.on_end = ended.set
    monkeypatch.setattr(transport, "part", asyncio.Event().wait)
    closing = asyncio.create_task(transport.close())
    await asyncio.sleep(0)
    closing.cancel()
    await asyncio.wait([closing])
    assert closing.cancelled()
    assert ended.is_set()

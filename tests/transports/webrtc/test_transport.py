"""The transport with a whole WebRTC client on the other side of a socket."""

from __future__ import annotations

import asyncio
import gc
import json
import time
import weakref
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import psutil
import pytest

pytest.importorskip("aiortc")

from voxline.pipeline import (
    AudioFormat,
    ClientConnectedFrame,
    Frame,
    FrameProcessor,
    InputTextFrame,
    OutputAudioFrame,
    TransportError,
    handles,
)
from voxline.tests.transports.webrtc.client import Client, Listener, running, until
from voxline.tests.transports.webrtc.test_aiortc_adapter import End
from voxline.tests.transports.webrtc.test_opus import peak_hz, rms, tone
from voxline.tests.transports.webrtc.test_sdp import AUDIO, DATA, FINGERPRINT, HEAD, crlf
from voxline.transports.webrtc import WebRTCTransport
from voxline.transports.webrtc.sdp import Ice, sections_of

pytestmark = pytest.mark.realtime


class Singer(FrameProcessor):
    """Sings one tone for long, from when somebody is there."""

    def __init__(self, hz: float = 600, ms: float = 60_000) -> None:
        self.count = round(ms / 100)
        # Of whole periods, so that it can be repeated.
        self.samples = tone(hz, 100)
        self.told = False

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((24_000,), (1,))}

    @handles(ClientConnectedFrame)
    async def sing(self, frame: ClientConnectedFrame) -> AsyncIterator[Frame]:
        for _ in range(self.count):
            if self.told:
                break
            yield OutputAudioFrame(self.samples, 24_000)


class Conductor(FrameProcessor):
    """Cuts a singer off, when it is told something."""

    def __init__(self, singer: Singer) -> None:
        self.singer = singer

    @handles(InputTextFrame)
    async def cut(self, frame: InputTextFrame) -> None:
        self.singer.told = True
        self.interrupt("told to")


def loud(client: Client) -> list[bool]:
    """Of each packet, whether it is heard."""
    samples = client.heard()
    return [rms(samples[at : at + 320]) > 300 for at in range(0, len(samples), 320)]


async def test_audio_goes_both_ways_and_is_what_was_said() -> None:
    transport, listener, client = WebRTCTransport(loopback=True), Listener(), Client(hz=440)
    async with running(transport, listener, Singer(600)):
        await client.call(transport)
        await until(lambda: len(listener.audio) >= 75 and len(client.got) >= 75, "1.5 s each way")
        singing = loud(client)[loud(client).index(True) :]
        assert all(singing), "".join("#" if packet else "." for packet in loud(client))
        assert {len(frame.samples) for frame in listener.audio} == {320}
        heard = np.concatenate([frame.samples for frame in listener.audio[20:70]])
        assert peak_hz(heard, 16_000) == pytest.approx(440, abs=2)
        assert rms(heard) == pytest.approx(8_000 / 2**0.5, rel=0.15)
        times = [frame.pts_ns or 0 for frame in listener.audio]
        assert set(np.diff(times)) == {20_000_000}
        sung = client.heard()
        begin = loud(client).index(True) * 320
        assert peak_hz(sung[begin + 1_600 : begin + 17_600], 16_000) == pytest.approx(600, abs=2)
        await client.close()
        await until(lambda: listener.names == ["Connected", "Disconnected"], "the end of the connection")


@pytest.mark.parametrize("stereo", [False, True])
async def test_one_or_two_channels_go_at_the_same_pace(stereo: bool) -> None:
    transport, client = WebRTCTransport(loopback=True, stereo=stereo), Client(channel=False)
    async with running(transport, Singer()):
        begun_ns = time.monotonic_ns()
        await client.call(transport)
        await until(lambda: len(client.got) >= 60, "packets")
        assert ("sprop-stereo=1" in client.answer) == stereo
        # Bit 2 of the first byte: two channels (RFC 6716, section 3.1).
        assert {bool(packet.payload[0] & 4) for packet in client.got} == {stereo}
        ticks = [(packet.timestamp - client.got[0].timestamp) % 2**32 for packet in client.got]
        assert not any(tick % 960 for tick in ticks)
        slots = ticks[-1] // 960
        assert set(np.diff([packet.sequence for packet in client.got]) & 0xFFFF) == {1}
        # The virtual-time tests of the sender have its pace to the ms; here, that it is neither half nor double.
        elapsed_ms = (client.got[-1].at_ns - begun_ns) / 1e6
        assert slots * 20 <= elapsed_ms + 40
        assert len(client.got) <= slots + 1
        await client.close()


async def test_the_first_20_ms_are_in_the_socket_when_send_returns() -> None:
    transport, client = WebRTCTransport(loopback=True), Client(channel=False)
    async with running(transport):
        await client.call(transport)
        sender = transport.peer.sender if transport.peer else None
        assert sender is not None
        before, begun_ns = sender.packets, time.perf_counter_ns()
        transport.send(tone(600, 20), transport.clock.now_ns())
        took_ns = time.perf_counter_ns() - begun_ns
        assert sender.packets == before + 1
        assert took_ns < 20_000_000
        await client.close()


async def test_an_interruption_is_silence_on_the_wire_within_a_slot_and_nothing_of_the_response_after() -> None:
    transport, client = WebRTCTransport(loopback=True), Client(channel=False)
    singer = Singer()
    async with running(transport, Conductor(singer), singer):
        await client.call(transport)
        await until(lambda: len(client.got) > 50, "singing")
        assert loud(client)[-1]
        transport.deliver(InputTextFrame("stop"))
        output = transport.output()
        await until(lambda: not output._ledger, "the cut")
        cut_ns, first = time.monotonic_ns(), len(client.got)
        await until(lambda: len(client.got) >= first + 30, "packets after it")
        after = [heard for heard, packet in zip(loud(client), client.got, strict=True) if packet.at_ns > cut_ns]
        # The first may hold the last 6.5 ms of the sound, which the encoder still had; or have been under way.
        assert not any(after[2:])
        await client.close()


async def test_lost_packets_keep_the_time_of_what_is_heard() -> None:
    transport, listener, client = WebRTCTransport(loopback=True), Listener(), Client(hz=300)
    client.drop(lambda number: number % 10 == 5)
    async with running(transport, listener):
        await client.call(transport)
        await until(lambda: len(listener.audio) >= 100, "2 s")
        peer = transport.peer
        assert peer is not None
        assert peer.receiver is not None
        assert peer.receiver.jitter.lost >= 8
        assert set(np.diff([frame.pts_ns or 0 for frame in listener.audio])) == {20_000_000}
        heard = np.concatenate([frame.samples for frame in listener.audio[10:]])
        assert peak_hz(heard, 16_000) == pytest.approx(300, abs=2)
        assert min(rms(heard[at : at + 320]) for at in range(0, len(heard), 320)) > 500
        await client.close()


async def test_a_user_who_comes_back_is_the_same_session() -> None:
    transport, listener = WebRTCTransport(loopback=True), Listener()
    first, second = Client(hz=300), Client(hz=500)
    async with running(transport, listener):
        await first.call(transport)
        await until(lambda: len(listener.audio) > 10, "audio")
        await first.close()
        await until(lambda: listener.names == ["Connected", "Disconnected"], "the first to be gone")
        count = len(listener.audio)
        await second.call(transport)
        await until(lambda: len(listener.audio) > count + 40, "audio of the second")
        assert listener.names == ["Connected", "Disconnected", "Connected"]
        heard = np.concatenate([frame.samples for frame in listener.audio[-25:]])
        assert peak_hz(heard, 16_000) == pytest.approx(500, abs=4)
        times = [frame.pts_ns or 0 for frame in listener.audio]
        assert times == sorted(times)
        await second.close()


async def test_a_new_connection_takes_over_from_one_that_is_still_there() -> None:
    transport, listener = WebRTCTransport(loopback=True), Listener()
    first, second = Client(), Client()
    async with running(transport, listener):
        await first.call(transport)
        await second.call(transport)
        assert listener.names == ["Connected", "Disconnected", "Connected"]
        await until(lambda: first.pc.connectionState == "closed", "the first to be closed")
        await first.close()
        await second.close()


async def test_a_user_who_does_not_come_back_ends_the_conversation() -> None:
    transport, client = WebRTCTransport(loopback=True, reconnect_s=0.2), Client()
    async with running(transport) as worker:
        await client.call(transport)
        await client.close()
        await until(lambda: not transport._open, "the end")
    assert worker is not None
    late = Client()
    with pytest.raises(TransportError, match="over"):
        await transport.answer(await late.offer())
    await late.close()


async def test_a_user_who_never_comes_ends_the_conversation() -> None:
    transport = WebRTCTransport(loopback=True, connect_timeout_s=0.2)
    async with running(transport):
        await until(lambda: not transport._open, "the end")


async def test_a_client_that_vanishes_is_gone_within_the_bound() -> None:
    transport, listener, client = WebRTCTransport(loopback=True, silent_timeout_s=0.5), Listener(), Client()
    async with running(transport, listener):
        await client.call(transport)
        client.vanish()
        await until(lambda: listener.names == ["Connected", "Disconnected"], "the loss of it", 3)
        assert "nothing came" in listener.clients[-1].reason  # type: ignore[attr-defined]
        await client.close()


async def test_messages_go_both_ways() -> None:
    heard: list[str] = []
    transport, client = WebRTCTransport(loopback=True, on_message=heard.append), Client()
    async with running(transport):
        assert not transport.send_message("nobody is there")
        await client.call(transport)
        assert client.channel is not None
        client.channel.send("grüß dich")
        await until(lambda: heard == ["grüß dich"], "the message")
        assert transport.send_message("selber")
        await until(lambda: client.messages == ["selber"], "the answer")
        await client.close()


async def test_messages_too_large_too_many_or_binary_are_refused_and_the_rest_goes_on() -> None:
    heard: list[str] = []
    transport = WebRTCTransport(loopback=True, on_message=heard.append, max_message_bytes=1_000)
    client = Client()
    async with running(transport):
        await client.call(transport)
        assert client.channel is not None
        client.pc.sctp._remote_max_message_size = 0  # type: ignore[union-attr]
        for message in ("x" * 1_001, b"bytes", "é" * 600):
            client.channel.send(message)
        client.channel.send("short")
        await until(lambda: heard == ["short"] and len(client.messages) == 3, "three refusals")
        errors = [json.loads(message) for message in client.messages]
        assert {error["type"] for error in errors} == {"error"}
        assert not any("é" in message or "xx" in message for message in client.messages)
        for number in range(900):
            client.channel.send(str(number))
        channel = client.channel
        await until(lambda: channel.bufferedAmount == 0, "all of them to be sent")
        await until(lambda: any("More than 200" in message for message in client.messages), "a refusal")
        assert len(heard) < 900
        await client.close()


async def test_a_client_that_does_not_read_its_messages_costs_a_bounded_memory() -> None:
    transport, client = WebRTCTransport(loopback=True), Client()
    async with running(transport):
        await client.call(transport)
        sent = 0
        while transport.send_message("x" * 50_000):
            sent += 1
            assert sent < 30
        await client.close()


async def test_an_offer_as_of_the_rtvi_client_is_answered_and_video_stays_off() -> None:
    transport, listener, client = WebRTCTransport(loopback=True), Listener(), Client(video=2)
    async with running(transport, listener):
        await client.call(transport)
        directions = [transceiver.currentDirection for transceiver in client.pc.getTransceivers()]
        assert directions == ["sendrecv", "inactive", "inactive"]
        await until(lambda: len(listener.audio) > 10, "audio")
        await client.close()


async def test_a_renegotiation_keeps_the_connection() -> None:
    transport, listener, client = WebRTCTransport(loopback=True), Listener(), Client()
    async with running(transport, listener):
        await client.call(transport)
        peer, first = transport.peer, len(client.got)
        client.pc.addTransceiver("video")
        await client.accept(await transport.answer(await client.offer()))
        await until(lambda: len(client.got) > first + 20, "packets after it")
        assert transport.peer is peer
        assert listener.names == ["Connected"]
        assert set(np.diff([packet.sequence for packet in client.got]) & 0xFFFF) == {1}
        await client.close()


async def test_a_client_may_connect_before_the_worker_runs() -> None:
    transport, listener, client = WebRTCTransport(loopback=True), Listener(), Client()
    await client.call(transport)
    assert transport.connected
    async with running(transport, listener):
        await until(lambda: listener.names == ["Connected"] and listener.audio, "audio")
        await client.close()


async def test_a_machine_with_nothing_but_loopback_can_be_called(monkeypatch: pytest.MonkeyPatch) -> None:
    from aioice import ice

    def no_addresses(**_: object) -> list[str]:
        return []

    def loopback(**_: object) -> list[str]:
        return ["127.0.0.1"]

    monkeypatch.setattr(ice, "get_host_addresses", no_addresses)
    transport, client = WebRTCTransport(), Client()
    async with running(transport):
        answer = await transport.answer(await client.offer_with(monkeypatch, ice, loopback))
        assert " 127.0.0.1 " in answer
        await client.accept(answer)
        await until(lambda: client.got, "audio over loopback")
        await client.close()


async def test_the_clients_reports_know_ours() -> None:
    """aiortc's own account of our stream: nothing lost, and a sender's report that it understood."""
    transport, client = WebRTCTransport(loopback=True), Client(channel=False)
    async with running(transport):
        await client.call(transport)
        sender = transport.peer.sender if transport.peer else None
        assert sender is not None
        receiver: Any = client.pc.getReceivers()[0]
        await until(lambda: any("remote-outbound" in key for key in receiver._RTCRtpReceiver__stats), "a report", 5)
        await until(lambda: sender.round_trip_ms is not None or sender.packets > 200, "a report of theirs", 6)
        await client.close()


@pytest.mark.parametrize("who", ["client", "bot", "both"])
async def test_an_end_from_either_side_leaves_nothing_behind(who: str) -> None:
    process = psutil.Process()
    tasks, sockets = asyncio.all_tasks(), len(process.net_connections())
    transport, client = WebRTCTransport(loopback=True, reconnect_s=0.1), Client()
    async with running(transport, Singer(ms=400)):
        await client.call(transport)
        assert len(process.net_connections()) > sockets
        remains = [weakref.ref(transport.peer), weakref.ref(transport.peer._wire), weakref.ref(transport.peer.sender)]  # type: ignore[union-attr]
        if who in ("client", "both"):
            await client.close()
        if who == "client":
            await until(lambda: not transport._open, "the end")
        if who == "both":
            await transport.part()
    await client.close()
    await until(lambda: asyncio.all_tasks() == tasks, "no task")
    assert len(process.net_connections()) == sockets
    gc.collect()
    assert [ref() for ref in remains] == [None, None, None]


class Restarter:
    """A client of whom only the wire is there, so that it can restart ICE, which aiortc's cannot."""

    def __init__(self) -> None:
        self.end = End()
        self.ice: Any = None

    async def offer(self) -> str:
        self.ice = await self.end.wire.gather(lite=True)
        candidates = "".join(f"a=candidate:{one.to_sdp()}\n" for one in self.ice.local_candidates)
        text = (HEAD % "0 3" + AUDIO + DATA).replace("abcdefghijklmnopqrstuvwx", self.ice.local_password)
        text = text.replace("abcd\n", self.ice.local_username + "\n").replace("a=mid:0\n", f"a=mid:0\n{candidates}")
        return crlf(text.replace(FINGERPRINT, " ".join(self.end.wire.fingerprint)).replace("actpass", "passive"))

    @staticmethod
    def said(answer: str) -> tuple[Ice, tuple[str, str]]:
        first = sections_of([line for line in answer.split("\r\n") if line])[1][0]
        algorithm, digest = (first.get("fingerprint") or "").split(" ")
        ice = Ice(first.get("ice-ufrag") or "", first.get("ice-pwd") or "", tuple(first.all("candidate")), True, False)
        return ice, (algorithm, digest)


async def test_an_ice_restart_is_the_same_connection_and_loses_no_packet() -> None:
    transport, listener, client = WebRTCTransport(loopback=True), Listener(), Restarter()
    async with running(transport, listener):
        ice, fingerprint = client.said(await transport.answer(await client.offer()))
        await client.end.wire.connect(client.ice, ice, [fingerprint], active=False)
        await until(lambda: len(client.end.rtp) > 10, "packets")
        peer, tag = transport.peer, transport.ice_tag
        restarted, same = client.said(await transport.answer(await client.offer()))
        assert same == fingerprint
        assert restarted.ufrag == transport.ice_tag != tag
        await client.end.wire.restart(client.ice, restarted)
        count = len(client.end.rtp)
        await until(lambda: len(client.end.rtp) > count + 20, "packets on the new way")
        assert transport.peer is peer
        assert listener.names == ["Connected"]
        numbers = [int.from_bytes(packet[2:4], "big") for packet in client.end.rtp]
        assert set(np.diff(numbers) & 0xFFFF) == {1}
        await client.end.wire.close()


async def test_an_ice_restart_before_there_is_a_connection_begins_again() -> None:
    transport, client = WebRTCTransport(loopback=True), Restarter()
    async with running(transport):
        await transport.answer(await client.offer())
        ice, fingerprint = client.said(await transport.answer(await client.offer()))
        await client.end.wire.connect(client.ice, ice, [fingerprint], active=False)
        await until(lambda: transport.connected and len(client.end.rtp) > 5, "packets")
        await client.end.wire.close()


async def test_a_client_whose_microphone_is_off_is_not_taken_for_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """No audio comes, and ICE still says that somebody is there."""
    monkeypatch.setattr("aioice.ice.CONSENT_INTERVAL", 0.2)
    transport, listener = WebRTCTransport(loopback=True, silent_timeout_s=2), Listener()
    client = Client(channel=False)
    client.drop(lambda number: number > 5)
    async with running(transport, listener):
        await client.call(transport)
        begun = time.monotonic()
        await until(lambda: time.monotonic() - begun > 3, "some time")
        assert listener.names == ["Connected"]
        await client.close()

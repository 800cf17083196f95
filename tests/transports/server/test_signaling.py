"""Signaling without a server: sessions by id, and each wrong request refused with its own status."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Any

import pytest

pytest.importorskip("aiortc")

from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import Pipeline, PipelineWorker
from voxline.tests.scale import examples
from voxline.tests.transports.webrtc.client import Client, Listener, until
from voxline.tests.transports.webrtc.test_sdp import AUDIO, HEAD, RTVI, crlf
from voxline.transports.server.refusals import Refusal, busy
from voxline.transports.server.signaling import Candidate, Signaling, parse_fragment, write_fragment
from voxline.transports.webrtc import WebRTCTransport
from voxline.transports.webrtc.sdp import SDPError

pytestmark = pytest.mark.realtime

CANDIDATE = "candidate:1 1 udp 2130706431 127.0.0.1 9 typ host"
FRAGMENT = f"""\
a=ice-ufrag:abcd
a=ice-pwd:abcdefghijklmnopqrstuvwx
m=audio 9 UDP/TLS/RTP/SAVPF 0
a=mid:0
a={CANDIDATE}
a=end-of-candidates
"""


class House:
    """Conversations in which nobody speaks."""

    def __init__(self, **limits: int) -> None:
        self.runs: list[asyncio.Future[Any]] = []
        self.listeners: list[Listener] = []
        self.workers: list[PipelineWorker] = []
        self.signaling = Signaling(self.start, lambda: WebRTCTransport(loopback=True, reconnect_s=0.3), **limits)
        self.fails = self.full = False

    async def start(self, transport: WebRTCTransport, place: object) -> None:
        if self.fails:
            raise RuntimeError("a secret reason")
        if self.full:
            raise busy("All lines are busy.", 5)
        self.listeners.append(Listener())
        worker = PipelineWorker(Pipeline([transport.input(), self.listeners[-1], transport.output()]))
        self.workers.append(worker)
        self.runs.append(asyncio.ensure_future(worker.run()))

    async def close(self) -> None:
        await self.signaling.close()
        for worker, run in zip(self.workers, self.runs, strict=True):
            worker.cancel()
            await run


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    yield house
    await house.close()


async def refused(awaitable: object, status: int) -> str:
    with pytest.raises(Refusal) as caught:
        await awaitable  # type: ignore[misc]
    assert caught.value.status == status
    assert "secret" not in str(caught.value)
    return str(caught.value)


async def test_an_offer_begins_a_session_and_its_end_ends_it(house: House) -> None:
    client, signaling = Client(), house.signaling
    answer = await signaling.offer(await client.offer())
    await client.accept(answer.sdp)
    await until(lambda: client.got, "the bot's voice")
    assert list(signaling.sessions) == [answer.pc_id]
    await signaling.end(answer.pc_id)
    await until(house.runs[0].done, "the end of the conversation")
    assert signaling.sessions == {}
    assert house.listeners[0].names == ["Connected", "Disconnected"]
    await refused(signaling.end(answer.pc_id), 404)
    await client.close()


async def test_the_same_id_again_is_the_same_session(house: House) -> None:
    first, second, signaling = Client(), Client(), house.signaling
    answer = await signaling.offer(await first.offer())
    await first.accept(answer.sdp)
    await until(lambda: first.got, "the bot's voice")
    again = await signaling.offer(await second.offer(), answer.pc_id, restart=True)
    assert again.pc_id == answer.pc_id
    await second.accept(again.sdp)
    await until(lambda: second.got, "the bot's voice, again")
    assert len(house.listeners) == 1
    await first.close()
    await second.close()


async def test_a_session_whose_user_stays_away_is_forgotten(house: House) -> None:
    client = Client()
    answer = await house.signaling.offer(await client.offer())
    await client.accept(answer.sdp)
    await until(lambda: client.got, "the bot's voice")
    await client.close()
    await until(lambda: not house.signaling.sessions, "the end")


async def test_candidates_may_come_one_by_one(house: House) -> None:
    client, signaling = Client(), house.signaling
    offer = await client.offer()
    lines = [line for line in offer.split("\r\n") if line.startswith("a=candidate")]
    bare = "\r\n".join(
        line for line in offer.split("\r\n") if not line.startswith(("a=candidate", "a=end-of-candidates"))
    )
    answer = await signaling.offer(bare)
    await client.accept(answer.sdp)
    await signaling.candidates(answer.pc_id, [Candidate(line.removeprefix("a="), "0", 0) for line in lines])
    await signaling.candidates(answer.pc_id, [Candidate("")])
    # After the last one, which some clients do.
    await signaling.candidates(answer.pc_id, [Candidate(lines[0].removeprefix("a="), "0", 0)])
    await until(lambda: client.got, "the bot's voice")
    await client.close()


async def test_a_fragment_brings_candidates(house: House) -> None:
    signaling = house.signaling
    answer = await signaling.offer(crlf(HEAD % "0" + AUDIO))
    tag = signaling.ice_tag(answer.pc_id)
    assert await signaling.fragment(answer.pc_id, crlf(FRAGMENT)) is None
    assert signaling.ice_tag(answer.pc_id) == tag


async def test_a_fragment_with_another_ufrag_restarts_ice(house: House) -> None:
    signaling = house.signaling
    answer = await signaling.offer(crlf(HEAD % "0" + AUDIO))
    tag = signaling.ice_tag(answer.pc_id)
    ours = await signaling.fragment(answer.pc_id, crlf(FRAGMENT.replace("abcd\n", "wxyz\n")))
    assert ours is not None
    said = parse_fragment(ours)
    assert said.ufrag == signaling.ice_tag(answer.pc_id) != tag
    assert said.complete
    assert {candidate.mid for candidate in said.candidates} == {"0"}


async def test_wrong_requests_are_refused_with_their_status(house: House) -> None:
    signaling = house.signaling
    await refused(signaling.offer("nonsense"), 400)
    await refused(signaling.offer(crlf(RTVI.replace("opus", "pcmu"))), 422)
    await refused(signaling.offer("v=0\r\n" + "a" * 70_000), 413)
    await refused(signaling.offer(crlf(RTVI), "nobody"), 404)
    await refused(signaling.candidates("nobody", []), 404)
    await refused(signaling.fragment("nobody", FRAGMENT), 404)
    with pytest.raises(Refusal) as caught:
        signaling.ice_tag("nobody")
    assert caught.value.status == 404
    pc_id = (await signaling.offer(crlf(HEAD % "0" + AUDIO))).pc_id
    await refused(signaling.candidates(pc_id, ["nonsense"]), 400)
    await refused(signaling.candidates(pc_id, [CANDIDATE] * 65), 413)
    await refused(signaling.candidates(pc_id, ["x" * 1_001]), 413)
    await refused(signaling.fragment(pc_id, "x" * 70_000), 413)
    await refused(signaling.fragment(pc_id, "a=ice-ufrag:wxyz\r\na=ice-pwd:short\r\n"), 400)
    await refused(signaling.fragment(pc_id, "nonsense"), 400)
    assert len(signaling.sessions) == 1


async def test_beyond_the_bound_the_lines_are_busy() -> None:
    house = House()
    await house.signaling.offer(crlf(HEAD % "0" + AUDIO))
    house.full = True
    assert await refused(house.signaling.offer(crlf(HEAD % "0" + AUDIO)), 503) == "All lines are busy."
    assert len(house.signaling.sessions) == 1
    await house.close()


async def test_a_conversation_that_cannot_begin_leaves_nothing_and_tells_nothing(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    tasks = asyncio.all_tasks()
    house.fails = True
    await refused(house.signaling.offer(crlf(HEAD % "0" + AUDIO)), 503)
    assert house.signaling.sessions == {}
    await until(lambda: asyncio.all_tasks() <= tasks, "no task")
    assert "a secret reason" in caplog.text


async def test_the_end_of_all_leaves_no_task() -> None:
    tasks = asyncio.all_tasks()
    house = House()
    for _ in range(3):
        await house.signaling.offer(crlf(HEAD % "0" + AUDIO))
    await house.close()
    await until(lambda: asyncio.all_tasks() == tasks, "no task")


def test_a_fragment_is_read_and_written() -> None:
    said = parse_fragment(crlf(FRAGMENT))
    assert (said.ufrag, said.pwd, said.complete) == ("abcd", "abcdefghijklmnopqrstuvwx", True)
    assert said.candidates == (Candidate(CANDIDATE.removeprefix("candidate:"), "0", 0),)
    again = parse_fragment(write_fragment(said.ufrag, said.pwd, [CANDIDATE.removeprefix("candidate:")], mid="0"))
    assert again == said


@settings(max_examples=examples(200))
@given(st.text(max_size=200))
def test_nonsense_is_no_fragment(text: str) -> None:
    with contextlib.suppress(SDPError):
        parse_fragment(text)

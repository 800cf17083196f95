"""Offers as JSON, the way the published RTVI clients send them."""

import asyncio
from typing import Any

import pytest
from voxline.pipeline import Pipeline, PipelineWorker, VirtualClock
from voxline.tests.transports.server.rig import (
    SECRET,
    Browser,
    Mirror,
    bearer,
    mirror,
    served,
    until,
)
from voxline.transports.base import Transport
from voxline.transports.server import Caller, Refusal, make_credential
from voxline.transports.webrtc import WebRTCTransport

pytestmark = pytest.mark.realtime

CANDIDATE = "candidate:1 1 udp 2122260223 192.0.2.7 61764 typ host"


async def test_an_offer_is_answered_and_begins_a_conversation() -> None:
    async with served() as client:
        status, headers, answer = await client.offer()
        assert status == 200
        assert headers["Content-Type"].startswith("application/json")
        assert answer["type"] == "answer"
        assert answer["sdp"].startswith("v=0")
        assert len(answer["pc_id"]) >= 20
        assert len(client.server.conversations) == 1


async def test_a_client_hears_its_own_pipeline_and_each_has_one() -> None:
    async with served() as client:
        one, two = Browser(), Browser()
        await one.connect(client)
        await two.connect(client)
        assert one.pc_id != two.pc_id
        workers = {conversation.worker for conversation in client.server.conversations}
        assert len(workers) == 2
        await until(lambda: one.heard > 5 and two.heard > 5)
        await one.close()
        await two.close()


async def test_the_same_pc_id_renegotiates_and_begins_nothing() -> None:
    async with served() as client:
        browser = Browser()
        await browser.connect(client)
        again = await client.offer(sdp=browser.peer.localDescription.sdp, pc_id=browser.pc_id)
        assert (again[0], again[2]["pc_id"]) == (200, browser.pc_id)
        restarted = await client.offer(pc_id=browser.pc_id, restart_pc=True)
        assert (restarted[0], restarted[2]["pc_id"]) == (200, browser.pc_id)
        assert len(client.server.conversations) == 1
        await browser.close()


async def test_an_unknown_pc_id_is_not_found() -> None:
    async with served() as client:
        status, _, body = await client.offer(pc_id="nobody")
        assert (status, list(body)) == (404, ["error"])
        assert client.server.conversations == []


async def test_candidates_are_taken_and_an_empty_one_ends_them() -> None:
    async with served() as client:
        _, _, answer = await client.offer()
        found = [
            {"candidate": CANDIDATE, "sdp_mid": "0", "sdp_mline_index": 0},
            {"candidate": "", "sdp_mid": None, "sdp_mline_index": None},
        ]
        status, _, _ = await client.ask("PATCH", "/api/offer", json={"pc_id": answer["pc_id"], "candidates": found})
        assert status == 200
        status, _, _ = await client.ask("PATCH", "/api/offer", json={"pc_id": "nobody", "candidates": found})
        assert status == 404
        status, _, _ = await client.ask("PATCH", "/api/offer", json={"pc_id": None, "candidates": found})
        assert status == 400


async def test_start_then_an_offer_to_its_session() -> None:
    async with served() as client:
        status, _, started = await client.ask("POST", "/start")
        assert status == 200
        path = f"/sessions/{started['sessionId']}/api/offer"
        status, _, answer = await client.offer(path)
        assert status == 200
        # The answer got lost, and the client asks again: it is the same conversation.
        status, _, again = await client.offer(path)
        assert (status, again["pc_id"]) == (200, answer["pc_id"])
        assert len(client.server.conversations) == 1
        body: dict[str, Any] = {"pc_id": answer["pc_id"], "candidates": []}
        assert (await client.ask("PATCH", path, json=body))[0] == 200
        assert (await client.offer("/sessions/nobody/api/offer"))[0] == 404


async def test_a_started_session_whose_offer_does_not_come_is_forgotten() -> None:
    clock = VirtualClock(autojump=False)
    async with served(clock=clock, started_s=60, max_started=2) as client:
        _, _, started = await client.ask("POST", "/start", json={})
        assert (await client.ask("POST", "/start", json={}))[0] == 200
        status, headers, _ = await client.ask("POST", "/start", json={})
        assert (status, headers["Retry-After"]) == (503, "60")
        await clock.advance(61)
        assert (await client.offer(f"/sessions/{started['sessionId']}/api/offer"))[0] == 404
        assert (await client.ask("POST", "/start", json={}))[0] == 200


async def test_the_factory_knows_whom_a_conversation_is_for() -> None:
    callers: list[Caller] = []

    def make(transport: Transport) -> Pipeline:
        callers.append(transport.caller)
        return mirror(transport)

    async with served(make, secret=SECRET) as client:
        headers = bearer(make_credential(SECRET, subject="ann"))
        assert (await client.offer(headers=headers, requestData={"room": 7}))[0] == 200
        headers = bearer(make_credential(SECRET, subject="bob"))
        _, _, started = await client.ask("POST", "/start", json={"body": {"room": 8}}, headers=headers)
        assert (await client.offer(f"/sessions/{started['sessionId']}/api/offer", headers=headers))[0] == 200
    assert [(caller.subject, caller.address, caller.data) for caller in callers] == [
        ("ann", "127.0.0.1", '{"room": 7}'),
        ("bob", "127.0.0.1", '{"room": 8}'),
    ]


async def test_the_factory_may_be_async_and_the_hook_gets_each_worker() -> None:
    seen: list[Any] = []

    def note(worker: PipelineWorker, transport: Transport) -> None:
        seen.append((worker, transport))

    async def make(transport: Transport) -> Pipeline:
        await asyncio.sleep(0)
        return mirror(transport)

    async with served(make, on_worker=note) as client:
        await client.offer()
        conversation = client.server.conversations[0]
        assert seen == [(conversation.worker, conversation.transport)]


async def test_a_factory_that_raises_is_a_500_that_tells_nothing(caplog: pytest.LogCaptureFixture) -> None:
    def make(transport: Transport) -> Pipeline:
        raise RuntimeError("the key is hunter2, in /etc/keys")

    async with served(make) as client:
        status, _, body = await client.offer()
        assert status == 500
        assert "hunter2" not in str(client.seen)
        assert "hunter2" in caplog.text
        assert "log" in body["error"]
        # It has given its place back, and its peer.
        assert client.server.conversations == []


async def test_a_factory_may_refuse_with_a_status_of_its_own() -> None:
    def make(transport: Transport) -> Pipeline:
        raise Refusal(403, "You have no minutes left.")

    async with served(make) as client:
        assert await _status_and_error(client) == (403, "You have no minutes left.")


async def test_a_factory_that_takes_too_long_is_given_up() -> None:
    clock = VirtualClock(autojump=False)
    cancelled: list[bool] = []

    async def make(transport: Transport) -> Pipeline:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.append(True)
        raise AssertionError

    async with served(make, clock=clock, factory_timeout_s=20) as client:
        asking = asyncio.create_task(client.offer())
        await until(lambda: client.server.places_taken)
        await clock.advance(21)
        status, headers, _ = await asking
        assert (status, cancelled) == (503, [True])
        assert int(headers["Retry-After"]) > 0


class Broken(Mirror):
    async def start(self) -> None:
        raise RuntimeError("no model")


async def test_a_bot_that_does_not_start_is_a_500_and_leaves_nothing(caplog: pytest.LogCaptureFixture) -> None:
    async with served(lambda transport: Pipeline([transport.input(), Broken(), transport.output()])) as client:
        for status, _, body in (await client.offer(), await client.whip()):
            assert status == 500
            assert "no model" not in str(body)
        assert "no model" in caplog.text
        assert client.server.conversations == []


async def test_a_conversation_that_nobody_connects_to_ends() -> None:
    async with served(make_transport=lambda: WebRTCTransport(loopback=True, connect_timeout_s=0.2)) as client:
        assert (await client.offer())[0] == 200
        assert len(client.server.conversations) == 1
        await until(lambda: not client.server.conversations)


async def test_all_places_taken_is_503_and_a_place_comes_free() -> None:
    async with served(max_connections=1) as client:
        _, _, answer = await client.offer()
        status, headers, body = await client.offer()
        assert status == 503
        assert int(headers["Retry-After"]) > 0
        assert "places" in body["error"]
        assert (await client.ask("GET", "/readyz"))[0] == 503
        assert (await client.ask("POST", "/start"))[0] == 503
        # Whoever has a place keeps it.
        assert (await client.offer(pc_id=answer["pc_id"], restart_pc=True))[0] == 200
        assert (await client.ask("DELETE", f"/whip/{answer['pc_id']}"))[0] == 200
        await until(lambda: not client.server.conversations)
        assert (await client.ask("GET", "/readyz"))[0] == 200
        assert (await client.offer())[0] == 200


async def test_of_many_at_once_no_more_begin_than_there_are_places() -> None:
    made: list[Transport] = []

    async def make(transport: Transport) -> Pipeline:
        made.append(transport)
        await asyncio.sleep(0.05)
        return mirror(transport)

    async with served(make, max_connections=5) as client:
        await client.ask("GET", "/healthz")
        answers = await asyncio.gather(*(client.offer() for _ in range(25)), *(client.whip() for _ in range(15)))
        statuses = sorted(status for status, _, _ in answers)
        assert [status for status in statuses if status < 300] == statuses[:5]
        assert statuses[5:] == [503] * 35
        assert len(made) == len(client.server.conversations) == 5


async def _status_and_error(client: Any) -> tuple[int, str]:
    status, _, body = await client.offer()
    return status, body["error"]

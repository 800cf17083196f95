"""What one credential, one address and one session are good for, when requests come at awkward moments."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from aiohttp.test_utils import make_mocked_request
from voxline.pipeline import Pipeline, VirtualClock
from voxline.tests.transports.server.rig import SECRET, Client, an_offer, bearer, mirror, served, until
from voxline.transports.base import Transport
from voxline.transports.server import ServerSettings, make_credential
from voxline.transports.server.credentials import TokenCheck
from voxline.transports.server.guard import Guard
from voxline.transports.server.limits import key_of
from voxline.transports.server.origins import Origins
from voxline.transports.server.settings import PAGE
from voxline.transports.server.signaling import Signaling
from voxline.transports.webrtc.transport import WebRTCTransport


async def announced(client: Client, headers: dict[str, str]) -> str:
    status, _, started = await client.ask("POST", "/start", headers=headers)
    assert status == 200
    return f"/sessions/{started['sessionId']}/api/offer"


class Slow:
    """Makes a pipeline when it is told to."""

    def __init__(self) -> None:
        self.asked = 0
        self.go_on = asyncio.Event()

    async def __call__(self, transport: Transport) -> Pipeline:
        self.asked += 1
        await self.go_on.wait()
        return mirror(transport)


async def test_offers_at_the_same_time_to_one_started_session_begin_one_conversation() -> None:
    slow = Slow()
    async with served(slow, secret=SECRET) as client:
        headers = bearer(make_credential(SECRET))
        path = await announced(client, headers)
        first = asyncio.create_task(client.offer(path, headers=headers))
        await until(lambda: slow.asked)
        status, again, _ = await client.offer(path, headers=headers)
        assert (status, "Retry-After" in again) == (503, True)
        slow.go_on.set()
        assert (await first)[0] == 200
        assert (slow.asked, len(client.server.conversations)) == (1, 1)


async def test_a_credential_is_used_up_by_the_conversation_of_a_started_session() -> None:
    async with served(secret=SECRET) as client:
        headers = bearer(make_credential(SECRET))
        path = await announced(client, headers)
        _, _, answer = await client.offer(path, headers=headers)
        assert (await client.ask("DELETE", f"/whip/{answer['pc_id']}", headers=headers))[0] == 200
        await until(lambda: not client.server.conversations)
        assert (await client.offer(path, headers=headers))[0] == 401


async def test_a_started_session_is_no_way_around_the_rate_of_beginnings() -> None:
    async with served(offers_burst=3, offers_per_minute=0.001) as client:
        path = await announced(client, {})
        statuses: list[int] = []
        for _ in range(5):
            status, _, answer = await client.offer(path)
            statuses.append(status)
            if status == 200:
                assert (await client.ask("DELETE", f"/whip/{answer['pc_id']}"))[0] == 200
                await until(lambda: not client.server.conversations)
        assert statuses == [200, 200, 200, 429, 429]


async def test_a_started_session_that_could_not_begin_is_good_for_one_conversation_still() -> None:
    broken = [True]

    def make(transport: Transport) -> Pipeline:
        if broken:
            raise RuntimeError("not now")
        return mirror(transport)

    async with served(make, secret=SECRET) as client:
        headers = bearer(make_credential(SECRET))
        path = await announced(client, headers)
        assert (await client.offer(path, headers=headers))[0] == 500
        broken.clear()
        assert (await client.offer(headers=headers))[0] == 401
        assert (await client.offer(path, headers=headers))[0] == 200
        assert len(client.server.conversations) == 1


async def test_a_started_session_that_fails_again_and_again_is_no_way_around_the_rate_of_beginnings() -> None:
    made: list[Transport] = []

    def make(transport: Transport) -> Pipeline:
        made.append(transport)
        raise RuntimeError("never")

    async with served(make, secret=SECRET, offers_burst=3, offers_per_minute=0.001) as client:
        headers = bearer(make_credential(SECRET))
        path = await announced(client, headers)
        answers = [await client.offer(path, headers=headers) for _ in range(6)]
        assert [status for status, _, _ in answers] == [500, 500, 500, 429, 429, 429]
        assert all("Retry-After" in headers for _, headers, _ in answers[3:])
        assert client.server.places_taken == 0
    assert len(made) == 3
    assert all(isinstance(transport, WebRTCTransport) and transport._closed for transport in made)


async def test_a_credential_is_given_back_where_too_many_sessions_were_started() -> None:
    async with served(secret=SECRET, max_started=1) as client:
        await announced(client, bearer(make_credential(SECRET)))
        headers = bearer(make_credential(SECRET))
        assert (await client.ask("POST", "/start", headers=headers))[0] == 503
        assert (await client.offer(headers=headers))[0] == 200


async def test_whip_knows_405_beside_a_page_too() -> None:
    async with served(page=PAGE) as client:
        for path in ("/whip", "/whip/nobody"):
            assert (await client.ask("GET", path))[0] == 405
        assert (await client.ask("GET", "/whipped"))[0] == 404


async def test_the_end_of_the_server_is_not_stopped_by_a_session_that_ends_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async def start(transport: WebRTCTransport, place: object) -> None:
        pass

    signaling = Signaling(start, lambda: WebRTCTransport(loopback=True))
    for _ in range(2):
        await signaling.offer(await an_offer())
    first, second = signaling.sessions.values()

    def ends_with(one: WebRTCTransport, other: WebRTCTransport) -> Callable[[], Awaitable[None]]:
        part, part_other = one.part, other.part

        async def both() -> None:
            await part()
            await part_other()
            if other.on_end is not None:
                other.on_end()

        return both

    ends = ends_with(first, second), ends_with(second, first)
    # Whichever is ended first, the other one ends while that is waited for.
    monkeypatch.setattr(first, "part", ends[0])
    monkeypatch.setattr(second, "part", ends[1])
    await signaling.close()
    assert signaling.sessions == {}


def _guard(proxies: int) -> Guard:
    settings = ServerSettings(proxies=proxies)
    gate = TokenCheck(token=None, secret=None, max_nonces=1, longest_s=1)
    return Guard(settings, gate, VirtualClock(autojump=False))


@pytest.mark.parametrize("written", ["", ",", ", 127.0.0.1", "127.0.0.1,"])
def test_nobody_takes_the_proxys_address_by_writing_an_empty_one(written: str) -> None:
    request: Any = make_mocked_request("GET", "/", headers={"X-Forwarded-For": f"{written}, 192.0.2.7"})
    assert _guard(1).address(request) == "192.0.2.7"


@pytest.mark.parametrize(
    ("written", "counted"),
    [("192.0.2.7:5678", "192.0.2.7"), ("[2001:db8::1]:9", "2001:db8::"), ("[2001:db8::1]", "2001:db8::")],
)
def test_a_port_behind_an_address_is_not_counted(written: str, counted: str) -> None:
    assert key_of(written) == counted


def test_a_request_without_a_host_is_looked_up_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    request: Any = make_mocked_request("POST", "/api/offer", headers={"Origin": "http://evil.example"})

    def looked_up(_: Any) -> str:
        raise AssertionError("a missing Host was looked up")

    kind: Any = request.__class__
    monkeypatch.setattr(kind, "host", property(looked_up))
    with pytest.raises(Exception, match="Pages from this origin"):
        Origins(ServerSettings()).check(request)


async def test_a_socket_whose_conversation_is_over_already_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(websocket=True) as client:
        conversations = client.server._conversations
        begin = conversations.begin

        async def begun_and_over(transport: Transport, *rest: Any) -> Any:
            conversation = await begin(transport, *rest)
            conversation.worker.cancel()
            assert conversation.task is not None
            await asyncio.wait([conversation.task])
            return conversation

        monkeypatch.setattr(conversations, "begin", begun_and_over)
        async with asyncio.timeout(10):
            with pytest.raises(Exception, match="503"):
                await client.http.ws_connect(client.server.url + "ws")


async def test_a_request_that_is_for_no_socket_uses_no_credential_up() -> None:
    async with served(secret=SECRET, websocket=True) as client:
        headers = bearer(make_credential(SECRET))
        assert (await client.ask("GET", "/ws", headers=headers))[0] == 426
        assert (await client.offer(headers=headers))[0] == 200

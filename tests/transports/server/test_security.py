"""What a stranger may do to a server, which is little."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from voxline.pipeline import Pipeline, TransportError, VirtualClock
from voxline.tests.transports.server.rig import SECRET, TOKEN, Client, bearer, mirror, served, until
from voxline.transports.base import Transport
from voxline.transports.server import Server, ServerSettings, make_credential

ELSEWHERE = "https://evil.example"
OPEN = {"/healthz", "/readyz", "/config.json", "/", "/{path}"}
"""What needs no token."""


async def raw(client: Client, data: bytes, *, close: bool = True) -> bytes:
    """Send bytes, and read what comes back."""
    reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
    try:
        writer.write(data)
        if close:
            writer.write_eof()
        return await reader.read()
    finally:
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()


# --- who ---------------------------------------------------------------------------------------------------------


async def test_each_endpoint_needs_the_token_but_those_that_are_open() -> None:
    async with served(token=TOKEN, websocket=True, twilio=True) as client:
        routes = [route for route in client.server.app.router.routes() if route.method not in ("OPTIONS", "*")]
        asked = 0
        for route in routes:
            assert route.resource is not None
            if route.resource.canonical in OPEN:
                continue
            path = route.resource.canonical.replace("{id}", "x").replace("{token}", "wrong")
            for headers in ({}, bearer("wrong"), {"Authorization": f"Basic {TOKEN}"}, {"Authorization": TOKEN}):
                kind = {"/whip": "application/sdp", "/whip/x": "application/trickle-ice-sdpfrag"}
                body = '{"sdp": "v=0", "type": "offer", "pc_id": "x", "candidates": []}'
                sent = {"Content-Type": kind.get(path, "application/json"), **headers}
                status, answer, _ = await client.ask(route.method, path, data=body, headers=sent)
                assert (route.method, path, status) == (route.method, path, 401)
                assert answer["WWW-Authenticate"].startswith("Bearer")
                asked += 1
        assert asked >= 9 * 4
        assert client.server.conversations == []
        assert (await client.offer(headers=bearer(TOKEN)))[0] == 200
        assert TOKEN not in str(client.seen)


async def test_whether_a_session_exists_is_not_told_to_whom_it_does_not_concern() -> None:
    async with served(secret=SECRET) as client:
        mine, other = (bearer(make_credential(SECRET)) for _ in range(2))
        _, _, answer = await client.offer(headers=mine)
        real, unreal = answer["pc_id"], "nobody"
        answers = [await client.offer(pc_id=pc_id, headers=bearer("wrong")) for pc_id in (real, unreal)]
        assert answers[0][0] == answers[1][0] == 401
        assert answers[0][2] == answers[1][2]
        # Somebody else's credential does not open it, and its own does.
        assert (await client.offer(pc_id=real, headers=other))[0] == 401
        assert (await client.ask("DELETE", f"/whip/{real}", headers=other))[0] == 401
        assert (await client.ask("DELETE", f"/whip/{real}", headers=mine))[0] == 200


async def test_a_credential_is_taken_once_and_not_when_expired() -> None:
    now = [1_000_000.0]
    async with served(secret=SECRET, now_s=lambda: now[0]) as client:
        headers = bearer(make_credential(SECRET, valid_s=60, now_s=now[0]))
        assert (await client.offer(headers=headers))[0] == 200
        assert (await client.offer(headers=headers))[0] == 401
        assert (await client.whip(**headers))[0] == 401
        late = bearer(make_credential(SECRET, valid_s=60, now_s=now[0]))
        now[0] += 61
        assert (await client.offer(headers=late))[0] == 401
        assert len(client.server.conversations) == 1


async def test_a_credential_whose_conversation_failed_by_our_fault_may_be_used_again() -> None:
    fails = [True, False]

    def make(transport: Transport) -> Pipeline:
        if fails.pop(0):
            raise RuntimeError
        return mirror(transport)

    async with served(make, secret=SECRET) as client:
        headers = bearer(make_credential(SECRET))
        assert (await client.offer(headers=headers))[0] == 500
        assert (await client.offer(headers=headers))[0] == 200


# --- from where --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("origin", [ELSEWHERE, "null", "http://127.0.0.1", "http://127.0.0.1.evil.example:{port}", "x"])
async def test_a_page_from_elsewhere_is_refused(origin: str) -> None:
    async with served(websocket=True) as client:
        headers = {"Origin": origin.format(port=client.server.port)}
        for method, path in (("POST", "/api/offer"), ("POST", "/whip"), ("GET", "/ws"), ("OPTIONS", "/api/offer")):
            asks = {**headers, "Access-Control-Request-Method": "POST"}
            status, answer, _ = await client.ask(method, path, headers=asks)
            assert status == 403
            assert not [name for name in answer if name.startswith("Access-Control-Allow")]


async def test_the_server_s_own_page_and_programs_without_an_origin_may() -> None:
    async with served() as client:
        assert (await client.offer(headers={"Origin": f"http://127.0.0.1:{client.server.port}"}))[0] == 200
        assert (await client.offer())[0] == 200


async def test_behind_a_proxy_the_page_s_own_name_counts() -> None:
    async with served(proxies=1) as client:
        for headers, status in (
            ({"Host": "bot.example", "Origin": "https://bot.example"}, 200),
            ({"Host": "bot.example:443", "Origin": "https://bot.example"}, 200),
            ({"X-Forwarded-Host": "bot.example", "Origin": "https://bot.example"}, 200),
            ({"X-Forwarded-Host": "evil.example, bot.example", "Origin": "https://evil.example"}, 403),
            ({"Host": "bot.example", "Origin": "https://bot.example:8443"}, 403),
        ):
            assert (headers, (await client.ask("GET", "/config.json", headers=headers))[0]) == (headers, status)


async def test_a_listed_origin_may_and_a_browser_is_told_so() -> None:
    async with served(origins=("https://app.example",), token=TOKEN) as client:
        origin = {"Origin": "https://app.example"}
        asks = {
            **origin,
            "Access-Control-Request-Method": "PATCH",
            "Access-Control-Request-Headers": "authorization,content-type,if-match",
        }
        for path in ("/api/offer", "/start", "/sessions/x/api/offer", "/whip", "/whip/x"):
            status, headers, _ = await client.ask("OPTIONS", path, headers=asks)
            assert status == 200
            assert headers["Access-Control-Allow-Origin"] == "https://app.example"
            assert {"POST", "PATCH", "DELETE"} <= set(headers["Access-Control-Allow-Methods"].split(", "))
            allowed = headers["Access-Control-Allow-Headers"].lower().split(", ")
            assert {"authorization", "content-type", "if-match"} <= set(allowed)
        status, headers, _ = await client.whip(**origin, **bearer(TOKEN))
        assert status == 201
        assert headers["Access-Control-Allow-Origin"] == "https://app.example"
        assert {"Location", "ETag", "Link", "Retry-After"} <= set(headers["Access-Control-Expose-Headers"].split(", "))
        assert headers["Vary"] == "Origin"
        # An error has to be readable too.
        status, headers, _ = await client.offer(headers=origin)
        assert (status, headers["Access-Control-Allow-Origin"]) == (401, "https://app.example")
        assert (await client.offer(headers={"Origin": ELSEWHERE, **bearer(TOKEN)}))[0] == 403


async def test_a_name_that_was_pointed_at_this_machine_is_refused() -> None:
    """DNS rebinding: the page and the server then are of one origin."""
    async with served() as client:
        port = client.server.port
        rebound = {"Host": f"evil.example:{port}", "Origin": f"http://evil.example:{port}"}
        assert (await client.offer(headers=rebound))[0] == 403
        for host in ("localhost", "[::1]", "127.0.0.1"):
            assert (await client.ask("GET", "/config.json", headers={"Host": f"{host}:{port}"}))[0] == 200


# --- how much ----------------------------------------------------------------------------------------------------


async def test_a_flood_of_offers_is_429_and_passes() -> None:
    clock = VirtualClock(autojump=False)
    async with served(clock=clock, offers_burst=3, offers_per_minute=60) as client:
        answers = [await client.offer() for _ in range(20)]
        assert [status for status, _, _ in answers] == [200] * 3 + [429] * 17
        assert answers[-1][1]["Retry-After"] == "1"
        assert len(client.server.conversations) == 3
        # Whoever is in is not disturbed by it.
        assert (await client.offer(pc_id=answers[0][2]["pc_id"], restart_pc=True))[0] == 200
        await clock.advance(1)
        assert (await client.offer())[0] == 200


async def test_guessing_tokens_is_429_after_a_few() -> None:
    async with served(token=TOKEN, offers_burst=3, offers_per_minute=1) as client:
        statuses = [(await client.offer(headers=bearer(f"guess {n}")))[0] for n in range(5)]
        assert statuses == [401] * 3 + [429] * 2
        assert (await client.offer(headers=bearer(TOKEN)))[0] == 429


async def test_requests_of_any_kind_are_limited() -> None:
    async with served(requests_burst=5, requests_per_minute=1) as client:
        assert [(await client.ask("GET", "/healthz"))[0] for _ in range(7)] == [200] * 5 + [429] * 2


async def test_an_address_behind_a_proxy_counts_only_where_the_proxy_is_trusted() -> None:
    async with served(offers_burst=1, offers_per_minute=1) as client:
        forged = [await client.offer(headers={"X-Forwarded-For": f"192.0.2.{n}"}) for n in range(2)]
        assert [status for status, _, _ in forged] == [200, 429]
    async with served(offers_burst=1, offers_per_minute=1, proxies=1) as client:
        # The last one is what our proxy has written; what is before it may be forged.
        seen = [
            (await client.offer(headers={"X-Forwarded-For": f"192.0.2.{n}, 198.51.100.{n % 2}"}))[0] for n in range(4)
        ]
        assert seen == [200, 200, 429, 429]


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (b"{", 400),
        (b"[]", 400),
        (b'"x"', 400),
        (b"null", 400),
        (b"\xff\xfe{}", 400),
        (b"[" * 100_000, 400),
        (b'{"a":' * 20_000, 400),
        (b'{"sdp": 7, "type": "offer"}', 400),
        (b'{"sdp": "v=0", "type": "answer"}', 400),
        (b'{"sdp": "v=0", "type": "offer", "pc_id": {}}', 400),
        (b'{"sdp": "v=0", "type": "offer", "restart_pc": "yes"}', 400),
        (b'{"sdp": "v=0", "type": "offer"}', 400),
        (b'{"sdp": "v=0\\u0000", "type": "offer"}', 400),
        (b'{"sdp": "\\ud800", "type": "offer"}', 400),
        (b'{"sdp": NaN, "type": "offer"}', 400),
        (json.dumps({"sdp": "v=0\r\n" + "a=x\r\n" * 15_000, "type": "offer"}).encode(), 413),
        (b" " * 200_000, 413),
    ],
)
async def test_oversized_and_malformed_offers_are_refused(body: bytes, status: int) -> None:
    async with served() as client:
        headers = {"Content-Type": "application/json"}
        got, _, answer = await client.ask("POST", "/api/offer", data=body, headers=headers)
        assert got == status
        assert list(answer) == ["error"]
        assert client.server.conversations == []


async def test_oversized_and_malformed_candidates_are_refused_and_the_session_goes_on() -> None:
    async with served() as client:
        _, _, answer = await client.offer()
        good = {"candidate": "candidate:1 1 udp 2122260223 192.0.2.7 61764 typ host"}
        wrong: list[tuple[Any, int]] = [
            ("x", 400),
            ([7], 400),
            ([{}], 400),
            ([{"candidate": 7}], 400),
            ([{**good, "sdp_mid": 7}], 400),
            ([{**good, "sdp_mline_index": "x"}], 400),
            ([{"candidate": "candidate:" + "9" * 10_000}], 413),
            ([good] * 500, 413),
        ]
        for candidates, status in wrong:
            body = {"pc_id": answer["pc_id"], "candidates": candidates}
            assert (candidates, (await client.ask("PATCH", "/api/offer", json=body))[0]) == (candidates, status)
        body = {"pc_id": answer["pc_id"], "candidates": [good]}
        assert (await client.ask("PATCH", "/api/offer", json=body))[0] == 200


async def test_a_chunked_body_without_end_is_cut_off_at_the_limit() -> None:
    async with served(max_body_bytes=10_000) as client:

        async def endless() -> Any:
            for _ in range(1_000):
                yield b"x" * 1_000

        try:
            status, _, _ = await client.ask("POST", "/api/offer", data=endless())
            assert status == 413
        except (aiohttp.ClientError, OSError):
            pass  # it may be told by closing, while it still sends


async def test_a_compressed_body_is_not_unpacked() -> None:
    async with served() as client:
        headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
        assert (await client.ask("POST", "/api/offer", data=b"\x1f\x8b", headers=headers))[0] == 415


async def test_a_body_that_never_comes_is_given_up() -> None:
    clock = VirtualClock(autojump=False)
    async with served(clock=clock, body_timeout_s=10) as client:
        head = b"POST /api/offer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 100\r\n\r\n{"
        asking = asyncio.create_task(raw(client, head, close=False))
        await until(lambda: len(clock.pending) == 2)  # of the connection, and of the body
        await clock.advance(11)
        assert (await asking).startswith(b"HTTP/1.1 408 ")


async def test_a_connection_that_says_nothing_or_half_a_request_is_closed() -> None:
    async with served(idle_timeout_s=0.2) as client:
        async with asyncio.timeout(30):
            assert await raw(client, b"", close=False) == b""
            assert await raw(client, b"GET /healthz HTTP/1.1\r\nHost: x\r\nX-Slow", close=False) == b""


async def test_connections_beyond_the_limit_are_closed_and_one_that_ends_makes_room() -> None:
    async with served(max_sockets=2) as client:
        held = [await asyncio.open_connection("127.0.0.1", client.server.port) for _ in range(2)]
        await asyncio.sleep(0)
        await until(lambda: client.server.sockets == 2)
        with contextlib.suppress(OSError):  # it may be closed before it could send
            assert await raw(client, b"GET /healthz HTTP/1.0\r\n\r\n") == b""
        for _, writer in held:
            writer.close()
        await until(lambda: client.server.sockets == 0)
        assert (await client.ask("GET", "/healthz"))[0] == 200


# --- what is told -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"GET / HTTP/9.9\r\n\r\n",
        b"GET /?token=hunter2 HTTP/1.1\r\nHost: x\r\nAuthorization\x00: hunter2\r\n\r\n",
        b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\nX: " + b"a" * 20_000 + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n" + b"X: a\r\n" * 1_000 + b"\r\n",
        b"POST /api/offer HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/offer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        b"POST /api/offer HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    ],
)
async def test_what_is_no_http_is_refused_in_a_word(data: bytes, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    async with served() as client:
        got = await raw(client, data)
        assert got == b"" or got.startswith((b"HTTP/1.1 400 ", b"HTTP/1.0 400 ", b"HTTP/1.1 403 ")), got
        for word in (b"hunter2", b"aiohttp", b"Python", b"Traceback", b".py"):
            assert word not in got
        assert "hunter2" not in caplog.text


async def test_every_answer_has_the_headers_that_keep_browsers_safe() -> None:
    async with served(page=Path(__file__).parent, page_policy="default-src 'self'") as client:
        for method, path in (("GET", "/healthz"), ("GET", "/nothing"), ("POST", "/api/offer"), ("PUT", "/whip")):
            _, headers, _ = await client.ask(method, path)
            assert headers["X-Content-Type-Options"] == "nosniff"
            assert headers["Referrer-Policy"] == "no-referrer"
            assert headers["X-Frame-Options"] == "DENY"
            assert headers["Cache-Control"] == "no-store"
            assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
            assert headers["Server"] == "voxline"
        _, headers, _ = await client.ask("GET", "/rig.py")
        assert headers["Content-Security-Policy"] == "default-src 'self'"


async def test_no_token_reaches_a_log_or_an_answer(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG, logger="voxline")
    caplog.set_level(logging.DEBUG, logger="aiohttp")
    credential = make_credential(SECRET, subject="ann")
    async with served(token=TOKEN, secret=SECRET, websocket=True, twilio=True) as client:
        await client.offer(headers=bearer(credential))
        for token in (TOKEN, "wrong-but-near"):
            await client.offer(headers=bearer(token))
            await client.ask("GET", "/ws", params={"token": token})
            await client.ask("GET", f"/twilio/{token}")
        _, _, answer = await client.offer(headers=bearer(TOKEN))
        await client.ask("DELETE", f"/whip/{answer['pc_id']}", headers=bearer(TOKEN))
        for secret in (TOKEN, SECRET, credential, "wrong-but-near"):
            assert secret not in caplog.text
            assert secret not in str(client.seen)
        assert answer["pc_id"] not in caplog.text, "who has it can end the session"


async def test_an_exception_in_the_server_itself_is_a_500_without_a_word_of_it(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    from voxline.transports.server.signaling import Signaling

    def offer(*args: Any, **kwargs: Any) -> None:
        raise ZeroDivisionError("at /etc/secrets")

    monkeypatch.setattr(Signaling, "offer", offer)
    async with served() as client:
        status, _, body = await client.offer()
        assert (status, body) == (500, {"error": "Something went wrong; the server's log says what."})
        assert "ZeroDivisionError" in caplog.text


async def test_turn_passwords_are_for_those_who_were_let_in() -> None:
    from voxline.transports.webrtc import IceServer

    servers = (IceServer("stun:127.0.0.1:9"), IceServer("turn:127.0.0.1:9", "ann", "hunter2"))
    async with served(ice_servers=servers, token=TOKEN, name="Rover") as client:
        _, _, config = await client.ask("GET", "/config.json")
        assert config == {"name": "Rover", "token": True, "ice_servers": [{"urls": ["stun:127.0.0.1:9"]}]}
        _, _, config = await client.ask("GET", "/config.json", headers=bearer(TOKEN))
        assert config["ice_servers"][1] == {"urls": ["turn:127.0.0.1:9"], "username": "ann", "credential": "hunter2"}
        _, _, started = await client.ask("POST", "/start", headers=bearer(TOKEN))
        assert started["iceConfig"]["iceServers"] == config["ice_servers"]


# --- where -----------------------------------------------------------------------------------------------------


async def test_beyond_loopback_without_a_token_it_warns(caplog: pytest.LogCaptureFixture) -> None:
    for token, warns in ((None, True), (TOKEN, False)):
        caplog.clear()
        async with Server(mirror, ServerSettings(host="0.0.0.0", port=0, page=None, token=token)) as server:
            assert server.url == f"http://localhost:{server.port}/"
        assert ("set a token" in caplog.text) is warns


async def test_a_port_that_is_taken_is_said_so() -> None:
    async with served() as client:
        with pytest.raises(TransportError, match=f"port {client.server.port}"):
            await Server(mirror, ServerSettings(port=client.server.port)).start()

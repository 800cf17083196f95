"""WHIP as RFC 9725 has it."""

import re
from dataclasses import dataclass

import pytest
from voxline.tests.transports.server.rig import Browser, Client, an_offer, served
from voxline.transports.webrtc import IceServer

FRAGMENT = {"Content-Type": "application/trickle-ice-sdpfrag"}
CANDIDATES = (
    "m=audio 9 RTP/AVP 0\r\na=mid:0\r\n"
    "a=candidate:1387637174 1 udp 2122260223 192.0.2.1 61764 typ host generation 0\r\n"
    "a=candidate:473322822 1 tcp 1518280447 192.0.2.1 9 typ host tcptype active generation 0\r\n"
    "a=end-of-candidates\r\n"
)


@dataclass
class Session:
    """One that was begun."""

    path: str
    etag: str
    ufrag: str
    pwd: str


async def begun(client: Client) -> Session:
    status, headers, _ = await client.whip()
    assert status == 201
    sdp = await an_offer()
    ufrag, pwd = (re.findall(rf"a=ice-{name}:(\S+)", sdp)[0] for name in ("ufrag", "pwd"))
    return Session("/" + headers["Location"], headers["ETag"], ufrag, pwd)


def fragment(session: Session, ufrag: str = "", pwd: str = "") -> str:
    return f"a=ice-ufrag:{ufrag or session.ufrag}\r\na=ice-pwd:{pwd or session.pwd}\r\n{CANDIDATES}"


async def patch(client: Client, session: Session, body: str, match: str | None, **headers: str) -> tuple[int, str, str]:
    sent = {**FRAGMENT, **headers, **({} if match is None else {"If-Match": match})}
    status, got, text = await client.ask("PATCH", session.path, data=body, headers=sent)
    return status, got.get("ETag", ""), text if isinstance(text, str) else ""


async def test_an_offer_is_answered_with_201_and_the_location_of_the_session() -> None:
    async with served() as client:
        status, headers, answer = await client.whip()
        assert status == 201
        assert headers["Content-Type"] == "application/sdp"
        assert answer.startswith("v=0")
        assert "a=candidate:" in answer, "the answer has all of our candidates: none follow later"
        assert re.fullmatch(r"whip/[\w-]{20,}", headers["Location"])
        assert re.fullmatch(r'"[^"]+"', headers["ETag"]), "a strong entity tag"
        assert len(client.server.conversations) == 1


async def test_candidates_are_taken_with_204_and_no_etag() -> None:
    async with served() as client:
        session = await begun(client)
        assert await patch(client, session, fragment(session), session.etag) == (204, "", "")


async def test_a_new_ufrag_restarts_ice_and_has_a_new_etag() -> None:
    async with served() as client:
        browser = Browser()
        await browser.connect(client)
        pc_id = browser.pc_id
        session = Session(f"/whip/{pc_id}", "*", "", "")
        status, etag, body = await patch(client, session, fragment(session, "ysXw", "vw5LmwG4y/e6dPP/zAP9Gp5k"), "*")
        assert status == 200
        assert "a=ice-ufrag:" in body
        assert "a=ice-pwd:" in body
        assert re.fullmatch(r'"[^"]+"', etag)
        again = await patch(client, session, fragment(session, "aBcD", "vw5LmwG4y/e6dPP/zAP9Gp5k"), '"*"')
        assert again[0] == 200
        assert again[1] != etag
        # What belongs to the session before is refused.
        assert (await patch(client, session, fragment(session, "aBcD", "x" * 24), etag))[0] == 412
        await browser.close()


async def test_if_match_is_needed_and_has_to_match() -> None:
    async with served() as client:
        session = await begun(client)
        assert (await patch(client, session, fragment(session), None))[0] == 428
        assert (await patch(client, session, fragment(session), '"other"'))[0] == 412
        # A weak tag matches nothing (RFC 9110, 8.8.3.2).
        assert (await patch(client, session, fragment(session), f"W/{session.etag}"))[0] == 412
        assert (await patch(client, session, fragment(session), f'"other", {session.etag}'))[0] == 204


async def test_delete_ends_the_session_whatever_its_etag() -> None:
    async with served() as client:
        session = await begun(client)
        status, _, body = await client.ask("DELETE", session.path, headers={"If-Match": '"other"'})
        assert (status, body) == (200, "")
        assert (await client.ask("DELETE", session.path))[0] == 404
        assert (await patch(client, session, fragment(session), session.etag))[0] == 404


async def test_other_methods_are_405_and_say_which_are_allowed() -> None:
    async with served() as client:
        session = await begun(client)
        for method in ("GET", "HEAD", "PUT", "DELETE", "PATCH"):
            status, headers, _ = await client.ask(method, "/whip")
            assert (method, status) == (method, 405)
            assert set(headers["Allow"].split(",")) == {"OPTIONS", "POST"}
        for method in ("GET", "HEAD", "PUT", "POST"):
            status, headers, _ = await client.ask(method, session.path)
            assert (method, status) == (method, 405)
            assert set(headers["Allow"].split(",")) == {"DELETE", "OPTIONS", "PATCH"}


async def test_options_says_what_may_be_posted() -> None:
    async with served() as client:
        status, headers, _ = await client.ask("OPTIONS", "/whip")
        assert (status, headers["Accept-Post"]) == (200, "application/sdp")


@pytest.mark.parametrize(
    ("content_type", "body", "status"),
    [
        ("application/json", "{}", 415),
        ("text/plain", "v=0", 415),
        ("application/sdp", "", 400),
        ("application/sdp", "hello", 400),
        ("application/sdp", b"\xff\xfe", 400),
        ("application/sdp", "v=0\r\n" + "a=x:" + "y" * 70_000, 413),
        ("application/sdp", "v=0\r\n" + "a=x:" + "y" * 200_000, 413),
        ("application/sdp", "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\n", 400),
    ],
)
async def test_what_is_no_offer_is_refused_as_a_problem(content_type: str, body: str | bytes, status: int) -> None:
    async with served() as client:
        got, headers, problem = await client.ask("POST", "/whip", data=body, headers={"Content-Type": content_type})
        assert got == status
        assert headers["Content-Type"].startswith("application/problem+json")
        assert problem["status"] == status
        assert client.server.conversations == []


async def test_an_offer_without_audio_is_refused_with_422() -> None:
    async with served() as client:
        sdp = re.sub(r"m=audio.*?(?=m=application)", "", await an_offer(), flags=re.DOTALL).replace(
            "BUNDLE 0 1", "BUNDLE 1"
        )
        got, _, _ = await client.ask("POST", "/whip", data=sdp, headers={"Content-Type": "application/sdp"})
        assert got == 422


async def test_a_malformed_fragment_is_refused_and_the_session_goes_on() -> None:
    async with served() as client:
        session = await begun(client)
        assert (await patch(client, session, "no fragment", session.etag))[0] == 400
        status = await patch(client, session, fragment(session), session.etag, **{"Content-Type": "text/plain"})
        assert status[0] == 415
        assert (await patch(client, session, "a=x:" + "y" * 70_000, session.etag))[0] == 413
        assert (await patch(client, session, fragment(session), session.etag))[0] == 204


async def test_ice_servers_are_links() -> None:
    servers = (
        IceServer("stun:stun.example.org"),
        IceServer(["turn:t.example.org?transport=udp", "turn:t.example.org?transport=tcp"], "ann", 'se"cret'),
    )
    async with served(ice_servers=()) as client:
        assert "Link" not in (await client.whip())[1]
    # None of them exists: our side is not to ask them.
    from voxline.transports.server.settings import ServerSettings
    from voxline.transports.server.whip import ice_links

    rest = '; rel="ice-server"; username="ann"; credential="se\\"cret"; credential-type="password"'
    assert ice_links(ServerSettings(ice_servers=servers)) == [
        '<stun:stun.example.org>; rel="ice-server"',
        f"<turn:t.example.org?transport=udp>{rest}",
        f"<turn:t.example.org?transport=tcp>{rest}",
    ]


async def test_full_is_503_with_a_time_to_come_again() -> None:
    async with served(max_connections=1) as client:
        assert (await client.whip())[0] == 201
        status, headers, problem = await client.whip()
        assert (status, problem["status"]) == (503, 503)
        assert int(headers["Retry-After"]) > 0

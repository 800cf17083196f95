"""Calls that Twilio has signed, and those that somebody else makes."""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import Any

import aiohttp
import pytest
from voxline.tests.transports.server.rig import TOKEN, Client, served
from voxline.transports.websocket import signed_by_twilio

AUTH_TOKEN = "0123456789abcdef0123456789abcdef"
HOST = "Bot.example.com"


def signature(url: str, auth_token: str = AUTH_TOKEN) -> str:
    return base64.b64encode(hmac.new(auth_token.encode(), url.encode(), hashlib.sha1).digest()).decode()


async def call(client: Client, path: str, signed: str | None, **headers: str) -> Any:
    """Twilio calls at an address."""
    head = {"Host": HOST, **{name.replace("_", "-"): value for name, value in headers.items()}}
    if signed is not None:
        head["X-Twilio-Signature"] = signed
    return await client.http.ws_connect(client.server.url.rstrip("/") + path, headers=head)


async def status(client: Client, path: str, signed: str | None, **headers: str) -> int:
    try:
        socket = await call(client, path, signed, **headers)
    except aiohttp.WSServerHandshakeError as error:
        return error.status
    await socket.close()
    return 101


@pytest.mark.parametrize(
    ("host", "caller", "made"),
    [
        # The examples of Twilio's documentation, with the token 12345.
        ("mycompany.com", "+14158675309", "RSOYDt4T1cUTdK1PDd93/VVr8B8="),
        ("example.com", "+14158675310", "L/OH5YylLD5NRKLltdqwSvS0BnU="),
    ],
)
def test_a_signature_is_what_twilios_documentation_says(host: str, caller: str, made: str) -> None:
    url = f"https://{host}/myapp.php?foo=1&bar=2"
    form = {"To": "+18005551212", "Digits": "1234", "CallSid": "CA1234567890ABCDE", "Caller": caller, "From": caller}
    assert signed_by_twilio("12345", made, url, form)
    for token, mark, address, what in (
        ("12346", made, url, form),
        ("12345", made[:-2] + "A=", url, form),
        ("12345", "", url, form),
        ("12345", "\udc80 é", url, form),
        ("12345", made, url + "\udc80", form),
        ("12345", made, url.replace("https", "http"), form),
        ("12345", made, url, {**form, "Digits": "1235"}),
        ("12345", made, url, None),
    ):
        assert not signed_by_twilio(token, mark, address, what)


async def test_a_call_that_twilio_has_signed_is_let_in_without_another_token() -> None:
    async with served(twilio=True, twilio_auth_token=AUTH_TOKEN, token=TOKEN, proxies=1) as client:
        good = signature(f"wss://{HOST}/twilio")
        socket = await call(client, "/twilio", good)
        assert len(client.server.conversations) == 1
        await socket.close()
        # As Twilio was told it: with a slash at its end, with a port, with a path.
        for path, url in (
            ("/twilio", f"wss://{HOST}/twilio/"),
            ("/twilio/nl", f"wss://{HOST}/twilio/nl"),
            ("/twilio?x=%20y", f"wss://{HOST}/twilio?x=%20y"),
        ):
            assert await status(client, path, signature(url)) == 101
        assert await status(client, "/twilio", signature(f"wss://{HOST}:8443/twilio"), Host=f"{HOST}:8443") == 101


async def test_what_is_not_signed_is_403_before_the_handshake_also_with_a_token() -> None:
    async with served(twilio=True, twilio_auth_token=AUTH_TOKEN, token=TOKEN, proxies=1) as client:
        good = signature(f"wss://{HOST}/twilio")
        for wrong in (None, "", good[:-2] + "A=", signature(f"wss://{HOST}/twilio", "another token"), "\xe9" * 28):
            assert await status(client, "/twilio", wrong) == 403
        for url in (f"ws://{HOST}/twilio", f"https://{HOST}/twilio", "wss://evil.example/twilio", f"wss://{HOST}/ws"):
            assert await status(client, "/twilio", signature(url)) == 403
        assert await status(client, "/twilio", good, Host="evil.example") == 403
        assert await status(client, f"/twilio/{TOKEN.replace(' ', '%20')}", good) == 403
        assert await status(client, "/twilio", None, Authorization=f"Bearer {TOKEN}") == 403
        assert client.server.conversations == []


async def test_behind_a_proxy_the_address_is_the_one_that_the_proxy_was_asked_for() -> None:
    good = signature(f"wss://{HOST}/twilio")
    async with served(twilio=True, twilio_auth_token=AUTH_TOKEN, proxies=1) as client:
        assert await status(client, "/twilio", good, Host="inner:8000", X_Forwarded_Host=HOST) == 101
    async with served(twilio=True, twilio_auth_token=AUTH_TOKEN) as client:
        assert await status(client, "/twilio", good, Host="127.0.0.1:8000", X_Forwarded_Host=HOST) == 403


async def test_calls_that_are_signed_are_not_counted_by_address_and_others_are() -> None:
    settings: dict[str, Any] = {
        "offers_burst": 2,
        "offers_per_minute": 0.001,
        "connections_per_address": 1,
        "proxies": 1,
    }
    async with served(twilio=True, websocket=True, twilio_auth_token=AUTH_TOKEN, **settings) as client:
        good = signature(f"wss://{HOST}/twilio")
        twilio = {"X_Forwarded_For": "192.0.2.7"}
        sockets = [await call(client, "/twilio", good, **twilio) for _ in range(4)]
        statuses = [await status(client, "/twilio", "guessed", X_Forwarded_For="192.0.2.8") for _ in range(4)]
        assert statuses == [403, 403, 429, 429]
        for socket in sockets:
            await socket.close()

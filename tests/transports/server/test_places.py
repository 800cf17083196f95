"""Places of one address: a person cannot take them all, by whatever kind of connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import aiohttp
import pytest
from voxline.pipeline import FrameProcessor, Pipeline
from voxline.tests.transports.server.rig import SECRET, Client, Mirror, bearer, mirror, served, until
from voxline.transports.base import Transport
from voxline.transports.server import ServerSettings, make_credential

ONE, OTHER = "192.0.2.7", "198.51.100.9"


def behind(address: str, **more: str) -> dict[str, str]:
    """The headers of a request from an address, as a proxy of ours writes them."""
    return {"X-Forwarded-For": address, **more}


async def socket(client: Client, address: str, path: str = "ws", **headers: str) -> Any:
    return await client.http.ws_connect(client.server.url + path, headers=behind(address, **headers))


async def refused(client: Client, address: str, path: str = "ws") -> aiohttp.WSServerHandshakeError:
    with pytest.raises(aiohttp.WSServerHandshakeError) as error:
        await socket(client, address, path)
    return error.value


async def test_sockets_of_one_address_leave_places_for_others() -> None:
    async with served(websocket=True, twilio=True, proxies=1, connections_per_address=2) as client:
        sockets = [await socket(client, ONE), await socket(client, ONE, "twilio")]
        error = await refused(client, ONE)
        assert (error.status, error.headers is not None and "Retry-After" in error.headers) == (429, True)
        assert (await refused(client, ONE, "twilio")).status == 429
        # One after the other: what stands further to the left, the client may have written itself.
        assert (await refused(client, f"{OTHER}, {ONE}")).status == 429
        sockets.append(await socket(client, OTHER))
        assert client.server.places_taken == 3
        await sockets[0].close()
        await until(lambda: client.server.places_taken == 2)
        sockets.append(await socket(client, ONE))
        for one in sockets:
            await one.close()


async def test_offers_and_sockets_are_counted_together_and_a_network_of_ipv6_is_one_address() -> None:
    async with served(websocket=True, proxies=1, connections_per_address=2, secret=SECRET) as client:
        for number in (1, 2):
            headers = behind(f"2001:db8:1:2::{number}", **bearer(make_credential(SECRET)))
            assert (await client.offer(headers=headers))[0] == 200
        credential = bearer(make_credential(SECRET))
        with pytest.raises(aiohttp.WSServerHandshakeError) as error:
            await socket(client, "2001:db8:1:2::3", **credential)
        assert error.value.status == 429
        status, headers, _ = await client.offer(headers=behind("2001:db8:1:2::4", **credential))
        assert (status, "Retry-After" in headers) == (429, True)
        whip = await client.whip(X_Forwarded_For="[2001:db8:1:2::5]:4711", **credential)
        assert (whip[0], "Retry-After" in whip[1]) == (429, True)
        # What did not begin has used no credential up.
        assert (await client.offer(headers=behind("2001:db8:9::1", **credential)))[0] == 200
        assert client.server.places_taken == 3


async def test_a_place_is_counted_from_the_moment_at_which_its_bot_is_made() -> None:
    go_on, asked = asyncio.Event(), 0

    async def slow(transport: Transport) -> Pipeline:
        nonlocal asked
        asked += 1
        await go_on.wait()
        return mirror(transport)

    async with served(slow, websocket=True, proxies=1, connections_per_address=2) as client:
        coming = [asyncio.create_task(socket(client, ONE)) for _ in range(5)]
        await until(lambda: sum(task.done() for task in coming) == 3)
        assert asked == 2
        go_on.set()
        results = await asyncio.gather(*coming, return_exceptions=True)
        assert sum(isinstance(one, aiohttp.WSServerHandshakeError) for one in results) == 3


async def test_places_that_came_to_nothing_are_not_counted() -> None:
    def broken(transport: Transport) -> Pipeline:
        raise RuntimeError("not now")

    async with served(broken, websocket=True, proxies=1, connections_per_address=1) as client:
        assert [(await refused(client, ONE)).status for _ in range(3)] == [500] * 3
        assert client.server.places_taken == 0


@pytest.mark.parametrize("settings", [{"connections_per_address": None, "proxies": 1}, {"connections_per_address": 1}])
async def test_neither_where_there_is_no_such_bound_nor_of_this_machine(settings: dict[str, Any]) -> None:
    async with served(websocket=True, max_connections=3, **settings) as client:
        sockets = [await socket(client, ONE) for _ in range(3)]
        assert (await refused(client, ONE)).status == 503
        for one in sockets:
            await one.close()


def test_by_default_it_takes_several_addresses_to_take_all_places() -> None:
    settings = ServerSettings()
    assert settings.connections_per_address is not None
    assert settings.connections_per_address * 4 < settings.max_connections


class SlowToStop(FrameProcessor):
    """Stops only when the test allows it."""

    stop_timeout_ms = 60_000

    def __init__(self, allowed: asyncio.Event) -> None:
        self.allowed = allowed

    async def stop(self) -> None:
        await self.allowed.wait()


@pytest.mark.parametrize("path", ["ws", "api/offer"])
async def test_a_place_is_free_while_the_pipeline_of_the_client_that_left_is_still_ending(path: str) -> None:
    allowed = asyncio.Event()

    def make(transport: Transport) -> Pipeline:
        return Pipeline([transport.input(), SlowToStop(allowed), Mirror(), transport.output()])

    async def come() -> Callable[[], Coroutine[Any, Any, object]]:
        if path == "ws":
            return (await client.http.ws_connect(client.server.url + path)).close
        status, _, answer = await client.offer()
        assert status == 200
        return lambda: client.ask("DELETE", f"/whip/{answer['pc_id']}")

    async with served(make, websocket=True, max_connections=1) as client:
        leave = await come()
        assert (await client.ask("GET", "/readyz"))[0] == 503
        leaving = asyncio.create_task(leave())
        await until(lambda: client.server.places_taken == 0)
        leave_again = await come()
        assert client.server.places_taken == 1
        # No more pipelines may be ending than there are places.
        leaving_again = asyncio.create_task(leave_again())
        await until(lambda: client.server.places_taken == 0)
        assert (await client.ask("GET", "/readyz"))[0] == 503
        allowed.set()
        await asyncio.gather(leaving, leaving_again)
        await until(lambda: client.server.ready)

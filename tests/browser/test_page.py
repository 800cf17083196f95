"""The page by itself: what it says when something is wrong, and whether everybody can use it."""

from __future__ import annotations

import re
from typing import Any

import pytest
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from voxline.pipeline import Pipeline
from voxline.tests.browser.chromium import Page
from voxline.tests.browser.conftest import Browser
from voxline.tests.browser.page_stand import CONNECT, CONTRAST, NOTICES, STATE, calls, names, refusing, text
from voxline.transports.server.server import Server
from voxline.transports.server.settings import PAGE, ServerSettings

pytestmark = pytest.mark.realtime

MOST_BYTES = 30_000
"""Of all that a browser loads."""
TRANSCRIPT = (
    "new m.Transcript({list: $('transcript'), scroll: $('scroll'), empty: $('empty'), log: $('said'), "
    "announces: () => true})"
)
MAP = "new m.RoverMap({section: $('map'), picture: $('map-picture'), text: $('map-text'), way: $('map-way')})"
LATENCY = "new m.Latency({section: $('latency'), legend: $('legend'), list: $('turns'), text: $('turn-text')})"
ENTRIES = "[...document.querySelectorAll('#transcript li')].map((item) => item.innerHTML)"
WORDS = "[...document.querySelectorAll('#transcript li p')].map((item) => item.textContent)"


def deaf_bot() -> Server:
    """A real server, whose bot neither listens nor speaks."""
    settings = ServerSettings(port=0, name="Parrot")
    return Server(lambda transport: Pipeline([transport.input()]), settings)


# --- loading ------------------------------------------------------------------------------------------------------


async def test_it_loads_little_and_all_of_it_from_its_own_server(browser: Browser) -> None:
    async with deaf_bot() as server:
        page = await browser()
        await page.open(server.url)
        await page.until("document.title === 'Parrot'")
        entries = "[...performance.getEntriesByType('navigation'), ...performance.getEntriesByType('resource')]"
        loaded = dict(await page.run(f"{entries}.map((entry) => [entry.name, entry.transferSize])"))
        assert {one.removeprefix(server.url) for one in loaded} >= {"", "main.js", "style.css", "peer.js"}
        assert all(one.startswith(server.url) for one in loaded)
        assert 0 < sum(loaded.values()) < MOST_BYTES, loaded
        assert page.console == []


def test_nothing_in_it_is_inline_or_from_elsewhere() -> None:
    for file in PAGE.iterdir():
        source = file.read_text(encoding="utf-8")
        assert "style=" not in source, file.name
        assert " onclick" not in source, file.name
        assert set(re.findall(r"https?://\w+(?:\.\w+)*", source)) <= {"http://www.w3.org", "http://localhost"}, (
            file.name
        )


# --- what goes wrong ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "title", "button"),
    [
        (401, "This server asks for a token", "Connect"),
        (403, "The server refused this page", None),
        (404, "The conversation is over", "Try again"),
        (429, "Too many calls from your network", "Try again"),
        (500, "The server did not take the call", "Try again"),
        (503, "All lines are taken", "Try again"),
    ],
)
async def test_each_refusal_says_what_it_is_and_what_to_do(
    browser: Browser, status: int, title: str, button: str | None
) -> None:
    async with refusing(status=status) as server:
        page = await browser()
        await page.open(server.url)
        await page.run(CONNECT)
        told = await page.until(NOTICES)
        assert title in told
        assert server.error in told
        shown = await page.run("document.querySelector('#notices button')?.textContent ?? null")
        assert shown is None if button is None else shown.startswith(button)
        assert await page.run(f"[{STATE}, document.querySelector('#connect').textContent]") == ["ended", "Connect"]
        assert await page.run("document.querySelector('#notices [role=alert]') !== null")


async def test_a_server_that_is_full_is_asked_again_when_it_said(browser: Browser) -> None:
    async with refusing(status=503, headers={"Retry-After": "2"}) as server:
        page = await browser()
        await page.open(server.url)
        await page.run(CONNECT)
        again = "document.querySelector('#notices button')"
        assert await page.until(f"{again}?.disabled && {again}.textContent") in ("Try again (2 s)", "Try again (1 s)")
        await page.until(f"!{again}.disabled && {again}.textContent === 'Try again'")
        assert len(server.offers) == 1
        await page.run(f"{again}.click()")
        await page.until(f"{again}?.disabled")
        assert len(server.offers) == 2


async def test_a_token_is_asked_for_before_the_microphone(browser: Browser) -> None:
    config: dict[str, Any] = {"name": "Parrot", "token": True, "ice_servers": []}
    async with refusing(status=401, error="The token is wrong.", config=config) as server:
        page = await browser()
        await page.open(server.url)
        await page.run(CONNECT)
        await page.until("document.activeElement.type === 'password'")
        assert server.offers == []
        await page.type("open sesame")
        await page.press("Enter")
        await page.until(f"{NOTICES}.includes('The token was not accepted')")
        assert [offer["authorization"] for offer in server.offers] == ["Bearer open sesame"]


async def test_a_token_in_the_link_is_used_and_does_not_stay_in_the_address(browser: Browser) -> None:
    async with refusing(status=403) as server:
        page = await browser()
        await page.open(f"{server.url}#token=mellon")
        await page.run(CONNECT)
        await page.until(NOTICES)
        assert [offer["authorization"] for offer in server.offers] == ["Bearer mellon"]
        assert await page.run("location.href") == server.url


async def test_a_server_that_is_gone_is_said_to_be(browser: Browser) -> None:
    page = await browser()
    async with refusing() as server:
        await page.open(server.url)
        await page.until("document.title === 'Parrot'")
    await page.run(CONNECT)
    assert "The server cannot be reached" in await page.until(NOTICES)


async def test_audio_that_finds_no_way_is_said_so(browser: Browser) -> None:
    async with refusing() as server:
        page = await browser()
        await page.open(server.url)
        await page.run(CONNECT)
        await page.until(NOTICES)
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        offer = server.offers[0]["sdp"]
        await peer.setRemoteDescription(RTCSessionDescription(offer, "offer"))
        answer = await peer.createAnswer()
        server.answer = {"sdp": without_candidates(answer.sdp)}
        await peer.close()
        await page.run(CONNECT)
        await page.until(f"{STATE} === 'connecting'")
        assert "No way for the audio" in await page.until(f"{STATE} === 'ended' && {NOTICES}")


def without_candidates(sdp: str) -> str:
    """An answer of nobody."""
    return "".join(line for line in sdp.splitlines(keepends=True) if not line.startswith("a=candidate"))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"device": False}, "No microphone was found"),
        ({"flags": ["--host-resolver-rules=MAP parrot.test 127.0.0.1"]}, "This page gets no microphone"),
    ],
)
async def test_without_a_microphone_it_says_why_and_goes_on(
    browser: Browser, options: dict[str, Any], said: str
) -> None:
    async with refusing() as server:
        page = await browser(**options)
        await page.open(server.url.replace("127.0.0.1", "parrot.test") if "flags" in options else server.url)
        await page.run(CONNECT)
        await page.until(f"{NOTICES}.includes('All lines')")
        told = await page.run(NOTICES)
        assert said in told
        assert "You can type and listen meanwhile." in told
        assert "m=audio" in server.offers[0]["sdp"]


async def test_a_refused_microphone_is_tried_again_when_asked(browser: Browser) -> None:
    async with refusing(status=403) as server:
        page = await browser(allow=False)
        await page.open(server.url)
        origin = server.url.rstrip("/")
        await page.send("Browser.setPermission", permission={"name": "microphone"}, setting="denied", origin=origin)
        await page.run(CONNECT)
        assert "The microphone was refused" in await page.until(f"{STATE} === 'ended' && {NOTICES}")
        await page.send("Browser.setPermission", permission={"name": "microphone"}, setting="granted", origin=origin)
        await page.run(CONNECT)
        await page.until(f"{STATE} === 'ended' && !{NOTICES}.includes('microphone')")


async def test_who_wants_no_microphone_is_not_asked_for_one_and_that_is_remembered(browser: Browser) -> None:
    async with refusing(status=403) as server:
        page = await browser(allow=False)
        await page.open(server.url)
        choose = "(() => { const s = document.querySelector('#device'); s.value = 'none'; "
        await page.run(choose + "s.dispatchEvent(new Event('change')); })()")
        await page.open(server.url)
        await page.run(CONNECT)
        assert "microphone" not in await page.until(f"{STATE} === 'ended' && {NOTICES}")
        assert len(server.offers) == 1


YOU = "Number(document.querySelector('#you-level i').style.transform.slice(7, -1))"


async def heard(page: Page, server: Server) -> None:
    """Until the server hears the page."""
    while server.conversations[0].transport.input_dbfs < -60:
        await page.run("new Promise(requestAnimationFrame)")


async def test_a_muted_microphone_is_silent_and_the_space_bar_mutes(browser: Browser) -> None:
    async with deaf_bot() as server:
        page = await browser()
        await page.open(server.url)
        await page.run(CONNECT)
        await page.until(f"{STATE} === 'listening' && {YOU} > 0.3")
        await heard(page, server)
        await page.run("document.activeElement.blur()")
        await page.press(" ")
        await page.until(f"{YOU} === 0 && document.querySelector('#mute').textContent === 'Unmute'")
        assert await page.run("document.querySelector('#mute').ariaPressed") == "true"
        await page.run("document.querySelector('#text').focus()")
        await page.press(" ")
        assert await page.run("document.querySelector('#mute').ariaPressed") == "true"
        await page.run("document.querySelector('#mute').click()")
        await page.until(f"{YOU} > 0.3")
        assert page.errors == []


async def test_the_microphone_is_chosen_by_its_name_also_during_a_call_and_remembered(browser: Browser) -> None:
    async with deaf_bot() as server:
        page = await browser()
        await page.open(server.url)
        await page.run(CONNECT)
        await page.until(f"{STATE} === 'listening' && {YOU} > 0.3")
        options = "[...document.querySelector('#device').options].map((option) => option.textContent)"
        *_, one, last = await page.run(options)
        assert last == "None: type and listen"
        assert "Fake Audio Input" in one
        choose = "(() => {{ const s = document.querySelector('#device'); s.selectedIndex = {}; "
        choose += "s.dispatchEvent(new Event('change')); }})()"
        count = await page.run(f"{options}.length")
        await page.run(choose.format(count - 1))
        await page.until(f"{YOU} === 0 && document.querySelector('#mute').disabled")
        await page.run(choose.format(count - 2))
        await page.until(f"{YOU} > 0.3 && !document.querySelector('#mute').disabled")
        await page.open(server.url)
        await page.until(f"document.querySelector('#device').selectedOptions[0].textContent === {text(one)}")
        assert page.errors == []


async def test_a_microphone_that_comes_later_is_used_in_the_call(browser: Browser) -> None:
    async with deaf_bot() as server:
        page = await browser(allow=False)
        origin = server.url.rstrip("/")
        await page.send("Browser.setPermission", permission={"name": "microphone"}, setting="denied", origin=origin)
        await page.open(server.url)
        await page.run(CONNECT)
        await page.until(f"{STATE} === 'listening'")
        assert await page.run("document.querySelector('#mute').disabled") is True
        await page.send("Browser.setPermission", permission={"name": "microphone"}, setting="granted", origin=origin)
        await page.run("document.querySelector('#notices button').click()")
        await page.until(f"{YOU} > 0.3 && !document.querySelector('#mute').disabled && !{NOTICES}")
        await heard(page, server)


# --- the transcript -----------------------------------------------------------------------------------------------


async def test_what_the_user_says_is_shown_as_it_is_understood(browser: Browser) -> None:
    async with refusing() as server:
        page = await browser()
        await page.open(server.url)
        await calls(page, "transcript.js", TRANSCRIPT, "it.heard('go', false)", "it.heard('go forward', false)")
        assert await page.run(ENTRIES) == ['<span class="who">You</span><p><span class="interim">go forward</span></p>']
        await page.run("it.heard('go forward two meters', true)")
        await page.run("it.heard('and', false)")
        assert await page.run(WORDS) == ["go forward two meters and"]
        await page.run("it.heard('and stop', true); it.heard('', true); it.typed('where <b>are</b> you')")
        assert await page.run(WORDS) == ["go forward two meters and stop", "where <b>are</b> you"]
        assert "typed" in (await page.run(ENTRIES))[1]


async def test_an_answer_is_shown_as_far_as_it_is_spoken(browser: Browser) -> None:
    async with refusing() as server:
        page = await browser()
        await page.open(server.url)
        one, two = text("I am  here."), text("You are there.")
        await calls(page, "transcript.js", TRANSCRIPT, f"it.answer(1, {one}, '')", f"it.answer(2, {two}, '')")
        body = "document.querySelector('#transcript .bot p').innerHTML"
        assert await page.run(body) == '<span class="unspoken">I am here. You are there.</span>'
        await page.run(f"it.answer(1, {one}, 'I am')")
        assert await page.run(body) == 'I am <span class="unspoken">here. You are there.</span>'
        await page.run(f"it.answer(2, {two}, 'You')")
        assert await page.run(body) == 'I am here. You <span class="unspoken">are there.</span>'
        await page.run(f"it.answer(1, {one}, {one}, true); it.answer(2, {two}, {two}, true)")
        assert await page.run(body) == "I am here. You are there."
        said = await page.run("[...document.querySelectorAll('#said p')].map((line) => line.textContent)")
        assert said == ["Bot: I am  here.", "Bot: You are there."]


async def test_an_answer_goes_on_in_its_place_after_a_word_in_between(browser: Browser) -> None:
    async with refusing() as server:
        page = await browser()
        await page.open(server.url)
        await calls(
            page, "transcript.js", TRANSCRIPT,
            "it.answer(1, 'One two three.', 'One')", "it.heard('uh huh', true)", "it.answer(2, 'Four.', '')",
            "it.answer(1, 'One two three.', 'One two')",
        )  # fmt: skip
        assert await page.run(WORDS) == ["One two three.", "uh huh", "Four."]
        assert await page.run("document.querySelector('.unspoken').textContent") == "three."
        await page.run("it.answer(1, 'One two three.', '', true); it.cut()")
        assert await page.run("[...document.querySelectorAll('del')].map((e) => e.textContent)") == ["not heard: Four."]


async def test_of_an_answer_that_was_cut_the_rest_is_struck_through(browser: Browser) -> None:
    async with refusing() as server:
        page = await browser()
        await page.open(server.url)
        await calls(
            page, "transcript.js", TRANSCRIPT,
            "it.heard('go', true)", "it.answer(1, 'Going forward ten meters.', 'Going forward')",
            "it.heard('st', false)", "it.cut()", "it.heard('stop', true)", "it.answer(2, 'Stopped.', '')",
        )  # fmt: skip
        assert await page.run(WORDS) == ["go", "Going forward not heard: ten meters.", "stop", "Stopped."]
        assert await page.run("document.querySelector('del').textContent") == "not heard: ten meters."
        assert "cut off" in (await page.run(ENTRIES))[1]
        assert "Bot, cut off after: Going forward" in await page.run("document.querySelector('#said').textContent")


# --- map and latency ----------------------------------------------------------------------------------------------


async def test_the_map_shows_where_the_rover_is_and_says_so(browser: Browser) -> None:
    async with refusing() as server:
        page = await browser()
        await page.open(server.url)
        assert await page.run("document.querySelector('#map').checkVisibility()") is False
        told = {"position": [-5, 10], "heading": "west", "path": [[0, 0], [0, 10], [-5, 10]]}
        await calls(page, "map.js", MAP, f"it.show({text({**told, 'position': [0, 0], 'path': [[0, 0]]})})")
        assert await page.run("document.querySelector('#map-text').textContent") == "At its start; facing west."
        await page.run(f"it.show({text(told)})")
        assert await page.run("document.querySelector('#map-text').textContent") == "10 m north, 5 m west; facing west."
        way = await page.run("document.querySelector('#map-way').textContent")
        assert way == "Its way: at its start; then 10 m north; then 10 m north, 5 m west."
        path = [
            point.split(",")
            for point in (await page.run("document.querySelector('.path').getAttribute('points')")).split()
        ]
        (x0, y0), (x1, y1), (x2, y2) = [(float(x), float(y)) for x, y in path]
        assert x1 == x0
        assert y1 < y0
        assert y2 == y1
        assert (x0 - x2) * 2 == pytest.approx(y0 - y1)
        assert "rotate(-90deg)" in await page.run("document.querySelector('.rover').style.transform")


@pytest.mark.parametrize("metres", [0, 1, 7, 100, 5_000])
async def test_the_map_holds_all_of_the_way_however_long(browser: Browser, metres: int) -> None:
    async with refusing() as server:
        page = await browser()
        await page.open(server.url)
        told = {"position": [metres, -metres], "heading": "south", "path": [[0, 0], [metres, 0], [metres, -metres]]}
        await calls(page, "map.js", MAP, f"it.show({text(told)})")
        outside = (
            "[...document.querySelectorAll('#map-picture circle')].filter((c) => c.getAttribute('cx') < 5 || "
            "c.getAttribute('cx') > 315 || c.getAttribute('cy') < 5 || c.getAttribute('cy') > 195).length"
        )
        assert await page.run(outside) == 0
        assert 2 <= await page.run("document.querySelector('.grid').getAttribute('d').split('M').length - 1") <= 20


async def test_a_turn_is_a_bar_whose_numbers_are_told_on_focus(browser: Browser) -> None:
    async with refusing() as server:
        page = await browser()
        await page.open(server.url)
        steps = {"silence": 500, "transcript": 40.4, "reply": 3, "voice": 10, "heard": 20}
        await calls(page, "latency.js", LATENCY, "$('legend').replaceChildren()", f"it.show(1, {text(steps)})")
        await page.run(f"for (let n = 2; n < 9; n++) it.show(n, {text(steps)})")
        assert await page.run("document.querySelectorAll('#turns li').length") == 4
        await page.run("document.querySelector('#turns li:last-child .bar').focus()")
        told = "Turn 8: 573 ms = silence 500, transcript 40, reply 3, voice 10, heard 20"
        assert await page.run("document.querySelector('#turn-text').textContent") == told
        assert f"image: {told}" in [name.replace("img:", "image:") for name in await names(page)]
        widths = await page.run("[...document.querySelectorAll('#turns li:last-child i')].map((i) => i.style.width)")
        assert sum(float(width.rstrip("%")) for width in widths) == pytest.approx(100, abs=0.1)


# --- for everybody ------------------------------------------------------------------------------------------------


async def test_the_keyboard_reaches_everything_in_the_order_of_the_page(browser: Browser) -> None:
    async with refusing(status=403) as server:
        page = await browser()
        await page.open(server.url)
        await page.press("Tab")
        assert await page.run("document.activeElement.id") == "connect"
        outline = "getComputedStyle(document.activeElement).outlineStyle"
        assert await page.run(outline) == "solid"
        await page.press("Tab")
        assert await page.run("document.activeElement.tagName") == "SUMMARY"
        await page.press("Enter")
        reached: list[str] = []
        for _ in range(6):
            await page.press("Tab")
            reached.append(await page.run("document.activeElement.id"))
        assert reached == ["device", "echoCancellation", "noiseSuppression", "autoGainControl", "announce", "scroll"]
        await page.run("document.querySelector('#connect').focus()")
        await page.press("Enter")
        assert "The server refused this page" in await page.until(NOTICES)


async def test_a_screen_reader_finds_names_for_everything(browser: Browser) -> None:
    async with refusing(status=401) as server:
        page = await browser()
        await page.open(server.url)
        await page.run("document.querySelector('details').open = true")
        found = await names(page)
        for name in (
            "heading: Parrot", "button: Connect", "button: Stop", "button: Mute", "meter: You", "meter: Bot",
            "region: Call", "region: Conversation", "log: What was said", "heading: Conversation",
            "textbox: Message to the bot", "button: Send", "checkbox: Echo cancellation", "combobox: Microphone",
        ):  # fmt: skip
            assert name in found, (name, found)
        assert await page.run("document.documentElement.lang") == "en"
        nameless = (
            "[...document.querySelectorAll('button, input, select')].filter((e) => !e.labels?.length && "
            "!e.textContent.trim()).map((e) => e.id)"
        )
        assert await page.run(nameless) == []
        await page.run(CONNECT)
        await page.until(NOTICES)
        assert "textbox: Token" in await names(page)


FILL = (
    "document.querySelector('details').open = true",
    "it.heard('what did', true)", "it.answer(1, 'Going forward ten meters.', 'Going')", "it.cut()",
    "it.answer(2, 'A longwordthatdoesnotfitintothewidthofaphoneandhastobebroken', '')", "it.heard('and', false)",
    "it.note('End of the conversation')",
)  # fmt: skip


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_all_text_stands_out_and_nothing_is_wider_than_a_phone(browser: Browser, scheme: str) -> None:
    async with refusing(status=401, error="A reason with averylongwordthatnobodywouldwriteintosuchamessage.") as server:
        page = await browser()
        await page.size(360, 740, phone=True)
        await page.prefer(prefers_color_scheme=scheme)
        await page.open(server.url)
        await page.run(CONNECT)
        await page.until(NOTICES)
        await calls(page, "transcript.js", TRANSCRIPT, *FILL)
        steps = {"silence": 500, "transcript": 40.4, "reply": 3, "voice": 10, "heard": 20}
        await calls(page, "latency.js", LATENCY, f"it.show(1, {text(steps)})")
        told = {"position": [-5, 10], "heading": "west", "path": [[0, 0], [0, 10], [-5, 10]]}
        await calls(page, "map.js", MAP, f"it.show({text(told)})")
        assert await page.run("[document.documentElement.scrollWidth, innerWidth]") == [360, 360]
        ratio, what = await page.run(CONTRAST)
        assert ratio >= 4.5, what
        assert ratio < 21


async def test_who_wants_no_motion_gets_none(browser: Browser) -> None:
    async with refusing() as server:
        page = await browser()
        await page.prefer(prefers_reduced_motion="reduce")
        await page.open(server.url)
        await page.run("document.querySelector('#state').dataset.state = 'thinking'")
        assert await page.run("document.getAnimations().length") == 0
        await page.prefer(prefers_reduced_motion="no-preference")
        assert await page.run("document.getAnimations().length") == 1

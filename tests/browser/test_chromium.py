"""The browser that the tests drive: it hears its WAV, says what goes wrong, and leaves nothing behind."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import psutil
import pytest
import soundfile
from aiohttp import web
from voxline.tests.browser.chromium import PageError
from voxline.tests.browser.conftest import Browser

pytestmark = pytest.mark.realtime

LOUDNESS = """(async () => {
    const stream = await navigator.mediaDevices.getUserMedia({audio: {echoCancellation: false}});
    const context = new AudioContext(), analyser = context.createAnalyser();
    context.createMediaStreamSource(stream).connect(analyser);
    window.loudness = () => {
        const wave = new Float32Array(analyser.fftSize);
        analyser.getFloatTimeDomainData(wave);
        return Math.sqrt(wave.reduce((sum, x) => sum + x * x, 0) / wave.length);
    };
})()"""


async def served(html: str) -> tuple[web.AppRunner, str]:
    """A page at an address, where getUserMedia is allowed."""

    async def page(_: web.Request) -> web.Response:
        icon = "<link rel=icon href=data:,>"
        return web.Response(text=f"<!doctype html>{icon}{html}", content_type="text/html")

    app = web.Application()
    app.router.add_get("/", page)
    runner = web.AppRunner(app)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    return runner, f"http://127.0.0.1:{runner.addresses[0][1]}/"


async def test_the_microphone_plays_the_wav(browser: Browser, tmp_path: Path) -> None:
    wav = tmp_path / "mic.wav"
    tone = 0.5 * np.sin(np.arange(16_000) * 2 * np.pi * 440 / 16_000)
    soundfile.write(wav, np.concatenate([np.zeros(24_000), tone, np.zeros(8_000)]), 16_000)
    runner, url = await served("<title>mic</title>")
    try:
        page = await browser(microphone=wav)
        await page.open(url)
        await page.run(LOUDNESS)
        assert await page.run("loudness()") < 0.01
        assert await page.until("loudness() > 0.2 && loudness()") < 0.6
        await page.until("loudness() < 0.01")
        assert page.errors == []
    finally:
        await runner.cleanup()


async def test_what_goes_wrong_in_the_page_is_told(browser: Browser) -> None:
    page = await browser()
    await page.run("console.log('before'); setTimeout(() => { throw new Error('in a timer') })")
    with pytest.raises(PageError, match="no such thing"):
        await page.run("(() => { throw new Error('no such thing') })()")
    with pytest.raises(PageError, match=r"(?s)Not true within 0.5 s: 1 > 2.*log: before"):
        await page.until("1 > 2", timeout_s=0.5)
    assert "log: before" in page.console
    assert any("in a timer" in error for error in page.errors)


async def test_a_page_without_a_microphone_is_told_so(browser: Browser) -> None:
    runner, url = await served("<title>no mic</title>")
    try:
        page = await browser(device=False)
        await page.open(url)
        error = await page.run("navigator.mediaDevices.getUserMedia({audio: true}).then(() => '', e => e.name)")
        assert error == "NotFoundError"
    finally:
        await runner.cleanup()


async def test_keys_sizes_and_pictures(browser: Browser, tmp_path: Path) -> None:
    runner, url = await served("<input id=a><input id=b><script>addEventListener('keydown', e => k = e.key)</script>")
    try:
        page = await browser()
        await page.size(360, 640)
        await page.prefer(prefers_color_scheme="dark")
        await page.open(url)
        await page.press("Tab")
        await page.press("Tab")
        await page.type("hello")
        assert await page.run("[b.value, innerWidth, matchMedia('(prefers-color-scheme: dark)').matches, k]") == [
            "hello", 360, True, "Tab",
        ]  # fmt: skip
        await page.screenshot(tmp_path / "page.png")
        assert (tmp_path / "page.png").read_bytes().startswith(b"\x89PNG")
        await page.network(up=False)
        assert await page.run(f"fetch('{url}').then(() => 'there', () => 'gone')") == "gone"
        await page.network(up=True)
        assert await page.run(f"fetch('{url}').then(() => 'there', () => 'gone')") == "there"
    finally:
        await runner.cleanup()


def test_nothing_is_left_of_the_browsers() -> None:
    mine = psutil.Process().children(recursive=True)
    assert [process.name() for process in mine if "chrom" in process.name()] == []

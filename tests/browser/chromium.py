"""Headless Chromium with a WAV as its microphone, driven over its DevTools protocol. ::

    async with chromium(microphone=wav) as page:
        await page.open(server.url)
        await page.run("document.querySelector('#connect').click()")
        await page.until("window.state === 'ready'")
        assert page.errors == []

A page has what a test needs and `Page.send` for all else (https://chromedevtools.github.io/devtools-protocol/). The
microphone begins to play its WAV when the page asks for it, before a call is connected, and repeats the last 10 ms for
ever: begin the WAV with 2 s of silence or more, and end it with some.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import json
import os
import signal
import tempfile
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path
from typing import Any

import aiohttp
from voxline.tests.browser import udp
from voxline.tests.needs import chromium_path

FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--no-default-browser-check",
    "--disable-background-networking", "--disable-component-update", "--disable-sync", "--disable-extensions",
    "--disable-dev-shm-usage", "--mute-audio", "--remote-debugging-port=0", "--allow-loopback-in-peer-connection",
)  # fmt: skip
ACCEPTS = ("--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required")
"""A user who allows the microphone."""
MAX_MESSAGE = 64 * 1024 * 1024
"""Of the protocol, in bytes: a screenshot is one message."""


class PageError(AssertionError):
    """The page raised, or what was waited for did not come; says what the console has."""


class Page:
    """One tab. `console` has each line of its console, `errors` what it logged as an error or did not catch."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self.console: list[str] = []
        self.errors: list[str] = []
        self._socket = socket
        self._numbers = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._loaded = asyncio.Event()
        self._session: dict[str, str] = {}

    # --- what a page does ---------------------------------------------------------------------------------------

    async def open(self, url: str, timeout_s: float = 30) -> None:
        """Go there, and wait until it is loaded."""
        self._loaded.clear()
        answer = await self.send("Page.navigate", url=url)
        if "errorText" in answer:
            raise PageError(f"{url}: {answer['errorText']}")
        async with asyncio.timeout(timeout_s):
            await self._loaded.wait()

    async def run(self, script: str, timeout_s: float = 30) -> Any:
        """What an expression gives, as JSON has it; a promise is waited for."""
        arguments = {"expression": script, "awaitPromise": True, "returnByValue": True, "userGesture": True}
        async with asyncio.timeout(timeout_s):
            answer = await self.send("Runtime.evaluate", **arguments)
        if "exceptionDetails" in answer:
            raise PageError(f"{script}\nraised {self._told(answer['exceptionDetails'])}{self._log()}")
        return answer["result"].get("value")

    async def until(self, condition: str, timeout_s: float = 30) -> Any:
        """Wait until an expression is true, and return what it is. Raises `PageError` with the console."""
        script = (
            "new Promise((done, failed) => { const look = () => { try { const is = (" + condition + "\n);"
            "if (is) done(is); else setTimeout(look, 20); } catch (error) { failed(error); } }; look(); })"
        )
        try:
            return await self.run(script, timeout_s)
        except TimeoutError:
            raise PageError(f"Not true within {timeout_s:g} s: {condition}{self._log()}") from None

    async def screenshot(self, file: Path) -> None:
        """Write what is seen as a PNG."""
        picture = await self.send("Page.captureScreenshot", format="png")
        file.write_bytes(base64.b64decode(picture["data"]))

    async def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Give it a window of that size, in CSS pixels."""
        await self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=phone
        )

    async def prefer(self, **features: str) -> None:
        """What the user prefers: ``prefer(prefers_color_scheme="dark")``."""
        told = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        await self.send("Emulation.setEmulatedMedia", features=told)

    async def press(self, key: str, text: str = "") -> None:
        """Press a key by its name (``Tab``, ``Escape``, ``Enter``, `` ``), and let it go."""
        codes = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}
        text = text or {"Enter": "\r", " ": " "}.get(key, "")
        both = {"key": key, "code": "Space" if key == " " else key, "windowsVirtualKeyCode": codes.get(key, 0)}
        await self.send("Input.dispatchKeyEvent", type="keyDown", text=text, **both)
        await self.send("Input.dispatchKeyEvent", type="keyUp", **both)

    async def type(self, text: str) -> None:
        """Type into what has the focus."""
        await self.send("Input.insertText", text=text)

    async def network(self, *, up: bool) -> None:
        """Cut the page off, or connect it again.

        Chromium fails its requests; calls go on there, so for those the datagrams of this process, where the server
        is, are lost.
        """
        await self.send("Network.enable")
        none = {"latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
        await self.send("Network.emulateNetworkConditions", offline=not up, **none)
        if up:
            udp.mend()
        else:
            udp.cut()

    # --- the protocol -------------------------------------------------------------------------------------------

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Call a method of the protocol, and return its result."""
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        await self._socket.send_json({"id": number, "method": method, "params": parameters, **self._session})
        try:
            told = await answer
        finally:
            del self._waiting[number]
        if "error" in told:
            raise PageError(f"{method}: {told['error']['message']}")
        return told["result"]

    async def begin(self) -> None:
        """Make the tab, and listen to it."""
        target = (await self.send("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Runtime", "Log"):
            await self.send(f"{domain}.enable")

    async def listen(self) -> None:
        """Read until the browser is gone."""
        gone = PageError("Chromium has ended.")
        try:
            async for message in self._socket:
                told = json.loads(message.data)
                if "id" not in told:
                    self._event(told["method"], told["params"])
                elif (answer := self._waiting.get(told["id"])) is not None and not answer.done():
                    answer.set_result(told)
        finally:
            for answer in self._waiting.values():
                if not answer.done():
                    answer.set_exception(gone)

    def _event(self, method: str, told: dict[str, Any]) -> None:
        match method:
            case "Page.loadEventFired":
                self._loaded.set()
            case "Runtime.consoleAPICalled":
                values = [str(value.get("value", value.get("description", ""))) for value in told["args"]]
                self._line(told["type"], " ".join(values))
            case "Runtime.exceptionThrown":
                self._line("error", self._told(told["exceptionDetails"]))
            case "Log.entryAdded":
                entry = told["entry"]
                self._line(entry["level"], f"{entry['text']} {entry.get('url', '')}")
            case _:
                pass

    def _line(self, level: str, text: str) -> None:
        self.console.append(f"{level}: {text}")
        if level == "error":
            self.errors.append(text)

    @staticmethod
    def _told(details: dict[str, Any]) -> str:
        return details.get("exception", {}).get("description") or details["text"]

    def _log(self) -> str:
        return "\nThe console has:\n" + "\n".join(self.console[-30:])


@contextlib.asynccontextmanager
async def chromium(
    *, microphone: Path | None = None, device: bool = True, allow: bool = True, flags: Sequence[str] = ()
) -> AsyncGenerator[Page]:
    """A page of a Chromium of its own, with a fresh profile; killed at the end, whatever happens.

    ``microphone``: a WAV, played once; None: beeps. ``device=False``: there is no microphone. ``allow=False``:
    nobody answers when the page asks for it, unless told by ``Browser.setPermission``.
    """
    path = chromium_path()
    assert path is not None, "needs Chromium: apt-get install chromium, or set VOXLINE_CHROMIUM"
    flags = [*FLAGS, *(ACCEPTS if allow else ACCEPTS[1:]), *flags]
    if device:
        flags.append("--use-fake-device-for-media-stream")
    if microphone is not None:
        assert microphone.exists(), f"{microphone} is not there; Chromium would take silence for it"
        flags.append(f"--use-file-for-fake-audio-capture={microphone}%noloop")
    with tempfile.TemporaryDirectory(prefix="voxline-chromium-", ignore_cleanup_errors=True) as profile:
        process = await asyncio.create_subprocess_exec(
            path, *flags, f"--user-data-dir={profile}", "about:blank", start_new_session=True,
            stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        try:
            async with aiohttp.ClientSession() as http:
                address = await _address(Path(profile), process)
                async with http.ws_connect(address, max_msg_size=MAX_MESSAGE) as socket:
                    page = Page(socket)
                    listening = asyncio.create_task(page.listen())
                    try:
                        await page.begin()
                        yield page
                    finally:
                        listening.cancel()
                        await asyncio.wait([listening])
        finally:
            udp.mend()
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()


async def _address(profile: Path, process: asyncio.subprocess.Process, timeout_s: float = 30) -> str:
    """Where it listens, which it writes into its profile."""
    file = profile / "DevToolsActivePort"
    async with asyncio.timeout(timeout_s):
        while True:
            assert process.returncode is None, f"Chromium ended at once, with {process.returncode}."
            lines = file.read_text().split() if file.exists() else []
            if len(lines) == 2:
                return f"ws://127.0.0.1:{lines[0]}{lines[1]}"
            await asyncio.sleep(0.02)

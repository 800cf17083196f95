"""What the tests of the page share: a server that says no, what a screen reader is told, and how text stands out."""

from __future__ import annotations

import contextlib
import json
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import Any, cast

from aiohttp import web
from voxline.tests.browser.chromium import Page
from voxline.transports.server.settings import PAGE, PAGE_POLICY

CONNECT = "document.querySelector('#connect').click()"
STATE = "document.querySelector('#state').dataset.state"
NOTICES = "document.querySelector('#notices').innerText"

CONTRAST = """
(() => {
    const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
    const light = (rgb) => {
        const [r, g, b] = rgb.map((c) => c / 255).map((c) => (c <= 0.03928 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4));
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const behind = (element) => {
        for (let at = element; at; at = at.parentElement) {
            const ground = numbers(getComputedStyle(at).backgroundColor);
            if (ground.length < 4 || ground[3] === 1) return ground.slice(0, 3);
        }
        return [255, 255, 255];
    };
    const worst = [];
    for (const element of document.querySelectorAll("body *")) {
        const own = [...element.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim());
        if (!own || !element.checkVisibility() || element.closest(".hidden, :disabled, noscript, svg")) continue;
        const [one, two] = [numbers(getComputedStyle(element).color).slice(0, 3), behind(element)].map(light);
        const ratio = (Math.max(one, two) + 0.05) / (Math.min(one, two) + 0.05);
        worst.push([ratio, `${element.tagName}.${element.className}: ${element.textContent.slice(0, 30)}`]);
    }
    return worst.sort((one, two) => one[0] - two[0])[0];
})()
"""
"""The text of the page that stands out least, by WCAG 2.2's contrast ratio, and what it is."""


@dataclass
class Refusing:
    """Serves the page, and answers each offer with what it is told to."""

    status: int = 503
    error: str = "for a reason of its own"
    answer: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict[str, str])
    config: dict[str, Any] = field(default_factory=lambda: {"name": "Parrot", "token": False, "ice_servers": []})
    offers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What was asked, with the Authorization header as ``authorization``."""
    url: str = ""

    async def offer(self, request: web.Request) -> web.Response:
        """Take note, and say no."""
        told = cast("dict[str, Any]", await request.json())
        self.offers.append({**told, "authorization": request.headers.get("Authorization", "")})
        if self.answer is not None:
            return web.json_response({**self.answer, "type": "answer", "pc_id": "one"})
        return web.json_response({"error": self.error}, status=self.status, headers=self.headers)

    async def settings(self, _: web.Request) -> web.Response:
        """What the page asks first."""
        return web.json_response(self.config)

    async def file(self, request: web.Request) -> web.StreamResponse:
        """A file of the page, with the policy that the real server has."""
        name = request.match_info["name"] or "index.html"
        response = web.FileResponse(PAGE / name)
        response.headers["Content-Security-Policy"] = PAGE_POLICY
        if name.endswith(".js"):
            response.headers["Content-Type"] = "text/javascript"
        return response


@contextlib.asynccontextmanager
async def refusing(**told: Any) -> AsyncGenerator[Refusing]:
    """A `Refusing` that listens."""
    server = Refusing(**told)
    app = web.Application()
    app.router.add_post("/api/offer", server.offer)
    app.router.add_patch("/api/offer", server.offer)
    app.router.add_get("/config.json", server.settings)
    app.router.add_get("/{name:[a-z.]*}", server.file)
    runner = web.AppRunner(app, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    server.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    try:
        yield server
    finally:
        await runner.cleanup()


async def names(page: Page) -> list[str]:
    """What a screen reader finds: ``role: name`` of each thing that has a name, in order."""
    tree = await page.send("Accessibility.getFullAXTree")
    found: list[str] = []
    for node in cast("list[dict[str, Any]]", tree["nodes"]):
        role = node.get("role", {}).get("value", "")
        name = node.get("name", {}).get("value", "")
        if not node.get("ignored") and role not in ("StaticText", "InlineTextBox", "none") and name:
            found.append(f"{role}: {name}")
    return found


async def calls(page: Page, module: str, made: str, *lines: str) -> None:
    """Import one of the page's modules, make something of it called ``it``, and run lines."""
    script = f"(async () => {{ const m = await import('./{module}'); const $ = (id) => document.getElementById(id); "
    await page.run(f"{script} window.it = {made}; {'; '.join(lines)}; }})()")


def text(value: object) -> str:
    """As a literal of JavaScript."""
    return json.dumps(value)

"""Static files: what is in the folder, and nothing else."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from voxline.pipeline import TransportError
from voxline.tests.transports.server.rig import mirror, served
from voxline.transports.server import Server, ServerSettings

SECRET = "the key is under the mat"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A page, and beside it what nobody is to see."""
    page = tmp_path / "page"
    (page / "parts").mkdir(parents=True)
    (page / "index.html").write_text("<!doctype html>hello", encoding="utf-8")
    (page / "main.js").write_text("hello()", encoding="utf-8")
    (page / "parts" / "one.svg").write_text("<svg/>", encoding="utf-8")
    (page / ".env").write_text(SECRET, encoding="utf-8")
    (page / ".git").mkdir()
    (page / ".git" / "config").write_text(SECRET, encoding="utf-8")
    (tmp_path / "secret.txt").write_text(SECRET, encoding="utf-8")
    (page / "link.txt").symlink_to(tmp_path / "secret.txt")
    (page / "up").symlink_to(tmp_path)
    return page


async def test_the_page_and_its_parts_are_served_with_their_types(folder: Path) -> None:
    async with served(page=folder) as client:
        for path, kind, body in (
            ("/", "text/html; charset=utf-8", "<!doctype html>hello"),
            ("/index.html", "text/html; charset=utf-8", "<!doctype html>hello"),
            ("/main.js", "text/javascript; charset=utf-8", "hello()"),
            ("/parts/one.svg", "image/svg+xml; charset=utf-8", "<svg/>"),
            ("/parts/one.svg?v=1", "image/svg+xml; charset=utf-8", "<svg/>"),
        ):
            status, headers, text = await client.ask("GET", path)
            assert (path, status, headers["Content-Type"], text) == (path, 200, kind, body)


async def test_a_page_that_has_not_changed_is_not_sent_again(folder: Path) -> None:
    async with served(page=folder) as client:
        _, headers, _ = await client.ask("GET", "/")
        status, _, text = await client.ask("GET", "/", headers={"If-None-Match": headers["ETag"]})
        assert (status, text) == (304, "")


@pytest.mark.parametrize(
    "path",
    [
        "/nothing.html",
        "/parts",
        "/parts/",
        "/link.txt",
        "/up/secret.txt",
        "/.env",
        "/.git/config",
        "/../secret.txt",
        "/parts/../../secret.txt",
        "/parts/../main.js",
        "/./main.js",
        "/%2e%2e/secret.txt",
        "/%2e%2e%2fsecret.txt",
        "/..%2fsecret.txt",
        "/..%5csecret.txt",
        "/%252e%252e/secret.txt",
        "/..%c0%afsecret.txt",
        "/..\\secret.txt",
        "//etc/passwd",
        "/%2fetc/passwd",
        "/main.js%00.html",
        "/main.js/",
        "/MAIN.JS",
        "/%ff",
    ],
)
async def test_whatever_else_is_asked_for_is_not_there(folder: Path, path: str) -> None:
    async with served(page=folder) as client:
        # Clients make paths straight before they send them, so this is sent as it stands.
        reader, writer = await asyncio.open_connection("127.0.0.1", client.server.port)
        writer.write(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n".encode("latin-1"))
        got = (await reader.read()).decode("latin-1")
        writer.close()
        await writer.wait_closed()
        # One that is no path at all may be called malformed.
        assert got.startswith(("HTTP/1.1 404 ", "HTTP/1.1 400 ")), got
        assert SECRET not in got
        assert "hello" not in got
        assert "root:" not in got


async def test_without_a_page_nothing_is_there() -> None:
    async with served(page=None) as client:
        assert (await client.ask("GET", "/"))[0] == 404


def test_a_folder_that_is_not_there_is_said_so(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=r"index\.html"):
        Server(mirror, ServerSettings(page=tmp_path / "nothing"))


async def test_the_page_that_comes_with_the_package_is_whole() -> None:
    """Everything its files refer to is served, and nothing comes from elsewhere."""
    import re

    async with served(page=ServerSettings().page) as client:
        _, _, index = await client.ask("GET", "/")
        wanted = re.findall(r'(?:src|href)="([^"#]+)"', index)
        assert wanted
        while wanted:
            path = wanted.pop()
            assert "//" not in path
            status, _, text = await client.ask("GET", f"/{path}")
            assert (path, status) == (path, 200)
            if path.endswith(".js"):
                wanted += re.findall(r'from "\./([^"]+)"', text)

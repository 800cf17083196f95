"""Static files: read once, kept in memory, found by name. What is not in the table is not there.

There is no path to go wrong with: nothing that a client sends reaches the file system.
"""

from __future__ import annotations

import gzip
import hashlib
import mimetypes
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from ...pipeline.errors import TransportError

MAX_FILES = 500
MAX_BYTES = 64 * 1024 * 1024
TYPES = {".js": "text/javascript", ".mjs": "text/javascript", ".svg": "image/svg+xml", ".wasm": "application/wasm"}
"""Not left to the machine: some say that JavaScript is plain text, and browsers then do not run it."""


@dataclass(frozen=True, slots=True)
class StaticFile:
    """One file of the page."""

    body: bytes
    packed: bytes
    """The same by gzip; empty where that is no gain."""
    content_type: str
    etag: str


class Pages:
    """A folder's files. Hidden ones and links are left out.

    Raises `TransportError` where there is no such folder, or it is larger than a page can be.
    """

    def __init__(self, folder: Path, policy: str) -> None:
        self._policy = policy
        self._files: dict[str, StaticFile] = {}
        if not folder.is_dir():
            raise TransportError(f"{folder} is no folder: give the folder that has the page's index.html.")
        size = 0
        for path in sorted(folder.rglob("*")):
            name = path.relative_to(folder).as_posix()
            if any(part.startswith(".") for part in name.split("/")) or not _is_plain(path, folder):
                continue
            body = path.read_bytes()
            size += len(body)
            if len(self._files) >= MAX_FILES or size > MAX_BYTES:
                raise TransportError(
                    f"{folder} has more than {MAX_FILES} files or {MAX_BYTES // 1024**2} MiB: that is no page. "
                    "Give the folder that has its index.html, and only what belongs to it."
                )
            self._files[name] = StaticFile(
                body, _packed(body), _type_of(path), f'"{hashlib.sha256(body).hexdigest()[:24]}"'
            )

    def __len__(self) -> int:
        return len(self._files)

    async def get(self, request: web.Request) -> web.Response:
        """Answer with a file."""
        name = request.match_info.get("path", "") or "index.html"
        file = self._files.get(name)
        if file is None:
            raise web.HTTPNotFound
        headers = {"ETag": file.etag, "Cache-Control": "no-cache", "Content-Security-Policy": self._policy}
        if file.etag in request.headers.get("If-None-Match", ""):
            return web.Response(status=304, headers=headers)
        headers["Content-Type"] = file.content_type
        if file.packed:
            headers["Vary"] = "Accept-Encoding"
            if "gzip" in request.headers.get("Accept-Encoding", ""):
                headers["Content-Encoding"] = "gzip"
                return web.Response(body=file.packed, headers=headers)
        return web.Response(body=file.body, headers=headers)


def _is_plain(path: Path, folder: Path) -> bool:
    """A file, with no link on the way to it."""
    if not path.is_file():
        return False
    while path != folder:
        if path.is_symlink():
            return False
        path = path.parent
    return True


def _packed(body: bytes) -> bytes:
    packed = gzip.compress(body, mtime=0)
    return packed if len(packed) < 0.9 * len(body) else b""


def _type_of(path: Path) -> str:
    kind = TYPES.get(path.suffix) or mimetypes.guess_type(path.name)[0] or "application/octet-stream"
    return f"{kind}; charset=utf-8" if kind.startswith("text/") or kind == "image/svg+xml" else kind

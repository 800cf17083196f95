"""The page with the published JavaScript client in it: installed by npm and bundled by esbuild, unchanged."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from voxline.tests.needs import PREFIX, need
from voxline.tests.places import ROOT

SOURCE = Path(__file__).parent / "npm_client"
BUILD = ROOT / "build" / "npm_client"
"""Kept between runs; not a part of the repository."""
INDEX = '<!doctype html><html lang="en"><title>npm</title><link rel="icon" href="icon.svg"><script type="module" '
POLICY = "default-src 'self'; script-src 'self' blob:; connect-src 'self'; media-src 'self' blob:"
"""The client's media manager loads its audio worklets from blobs."""


def npm_page() -> Path:
    """The folder to be served. Skips the test where node, npm or its registry are missing."""
    files = [SOURCE / name for name in ("package.json", "package-lock.json", "page.js")]
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()
    page, stamp = BUILD / "page", BUILD / "stamp"
    if stamp.exists() and stamp.read_text() == digest:
        return page
    need("npm")
    npm = shutil.which("npm")
    assert npm is not None
    shutil.rmtree(BUILD, ignore_errors=True)
    page.mkdir(parents=True)
    for file in files:
        shutil.copy(file, BUILD)
    installed = _run([npm, "ci", "--no-audit", "--no-fund", "--ignore-scripts"], timeout_s=240)
    if installed is None or installed.returncode:
        printed = "nothing in 240 s" if installed is None else " ".join(installed.stderr.split())
        pytest.skip(f"{PREFIX}the JavaScript client, because npm ci printed: {printed}")
    esbuild = BUILD / "node_modules" / ".bin" / "esbuild"
    bundled = _run([str(esbuild), "page.js", "--bundle", "--format=esm", "--outfile=page/bundle.js"], timeout_s=60)
    assert bundled is not None
    assert bundled.returncode == 0, bundled.stderr
    (page / "index.html").write_text(f'{INDEX} src="bundle.js"></script></html>')
    (page / "icon.svg").write_text('<svg xmlns="http://www.w3.org/2000/svg"/>')
    stamp.write_text(digest)
    return page


def _run(command: list[str], *, timeout_s: float) -> subprocess.CompletedProcess[str] | None:
    try:
        return subprocess.run(command, cwd=BUILD, capture_output=True, text=True, timeout=timeout_s, check=False)
    except subprocess.TimeoutExpired:
        return None

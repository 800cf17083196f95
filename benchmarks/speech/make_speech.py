"""Makes the recordings that `benchmarks/recognition.py` plays to the rover, and their index.

    python benchmarks/speech/make_speech.py [--set measured|tuning] [--to FOLDER]

Debian's `flite` speaks each sentence of `sentences.json` in three voices, at a speed and pitch of its own, so that
no two renderings of one sentence are the same. Each voice becomes one Ogg Opus file, with `SPACE_MS` of digital
silence behind each sentence; `speech.json` says where each begins and ends. The set `measured` is committed. The set
`tuning` is the one that thresholds were chosen on; it can be made again for that.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

HERE = Path(__file__).parent
SAMPLE_RATE = 16_000
PER_MS = SAMPLE_RATE // 1000
VOICES = ("kal16", "slt", "rms")
LEVEL_DBFS = -26.0
"""RMS of the louder part of each sentence: what a microphone with automatic gain gives."""
SPACE_MS = 100
SPEEDS = (0.9, 1.0, 1.1, 1.2)
"""Times the voice's own length: 1.2 is slow."""
PITCHES_HZ = {"kal16": (88, 112), "slt": (155, 190), "rms": (88, 112)}
"""Mean pitch, from and to."""
COMPRESSION = 0.93
"""libsndfile's, for Opus: about 22 kbit/s."""

Samples = npt.NDArray[np.int16]


def main() -> int:
    """Write the recordings."""
    asked = _arguments()
    flite = shutil.which("flite")
    if flite is None:
        print("make_speech.py needs flite. Install it with: sudo apt-get install flite", file=sys.stderr)
        return 1
    sets = json.loads((HERE / "sentences.json").read_text(encoding="utf-8"))
    sentences = [(kind, text) for kind, texts in sets[asked.set].items() for text in texts]
    index: dict[str, list[dict[str, object]]] = {}
    for voice in VOICES:
        # A string seeds the same everywhere; the set is in it, so that the two sets differ in speed and pitch too.
        dice = random.Random(f"{asked.set} {voice}")
        pieces: list[Samples] = []
        entries: list[dict[str, object]] = []
        at = 0
        for number, (kind, text) in enumerate(sentences, 1):
            samples = speak(flite, voice, text, dice.choice(SPEEDS), dice.uniform(*PITCHES_HZ[voice]))
            entries.append({"kind": kind, "text": text, "start_ms": at, "end_ms": at + len(samples) // PER_MS})
            pieces += [samples, np.zeros(SPACE_MS * PER_MS, np.int16)]
            at += len(samples) // PER_MS + SPACE_MS
            print(f"\r{voice}: {number}/{len(sentences)}", end="", flush=True)
        path = asked.to / f"{voice}.ogg"
        soundfile.write(
            path, np.concatenate(pieces), SAMPLE_RATE, format="OGG", subtype="OPUS", compression_level=COMPRESSION
        )
        index[voice] = entries
        print(f"  {at / 1000:.0f} s, {path.stat().st_size / 1e6:.2f} MB", flush=True)
    lines = ",\n".join(
        f' "{voice}": [\n' + ",\n".join("  " + json.dumps(entry) for entry in entries) + "\n ]"
        for voice, entries in index.items()
    )
    (asked.to / "speech.json").write_text("{\n" + lines + "\n}\n", encoding="utf-8")
    return 0


def speak(flite: str, voice: str, text: str, speed: float, pitch_hz: float) -> Samples:
    """The text, spoken: at `LEVEL_DBFS`, from the first to the last sound, a whole number of milliseconds."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spoken.wav"
        how = ["--setf", f"duration_stretch={speed}", "--setf", f"int_f0_target_mean={pitch_hz:.1f}"]
        subprocess.run([flite, "-voice", voice, *how, "-t", text, "-o", str(path)], check=True)
        read, rate = soundfile.read(path, dtype="float64")
    samples: npt.NDArray[np.float64] = np.asarray(read, np.float64)
    if rate != SAMPLE_RATE or samples.ndim != 1:
        raise ValueError(f"flite's voice {voice} is {rate} Hz, not {SAMPLE_RATE}")
    loud = np.flatnonzero(np.abs(samples) > 0.006)
    # A soft "f" or a "t" at the edge is quieter than that.
    first, last = max(0, int(loud[0]) - 40 * PER_MS), min(len(samples), int(loud[-1]) + 60 * PER_MS)
    samples = samples[first : first + (last - first) // PER_MS * PER_MS]
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    levels: npt.NDArray[np.float64] = np.sqrt(np.mean(frames**2, axis=1))
    active = levels[levels > levels.max() / 30]
    samples = samples * (10 ** (LEVEL_DBFS / 20) / np.sqrt(np.mean(active**2)))
    return (np.clip(samples, -1, 1) * 32767).astype(np.int16)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Make the recordings of the recognition benchmark.")
    parser.add_argument("--set", choices=("measured", "tuning"), default="measured")
    parser.add_argument("--to", type=Path, default=HERE, help="where they go (beside this file)")
    return parser.parse_args()


if __name__ == "__main__":
    raise SystemExit(main())

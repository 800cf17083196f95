"""How well the offline rover understands: recorded callers, noise, and the rover's real ears.

    python benchmarks/run.py --only recognition [--quick]

`speech/` holds what three synthetic voices say (see `speech/make_speech.py`): commands, and what is none. Here a caller
says them in calls of `CALL` sentences, in random order, in a quiet room or in noise. Memory -> SileroVAD ->
PocketSphinxSTT with the rover's grammar -> `Rover.reply`; each call is a process of its own that has heard nothing yet.

- A command is *understood* where one transcript came of it, and that is the command, word by word.
- What is no command is *rejected* where the rover did nothing but say that it did not get that, or nothing at all.

The noise is made here, from a fixed seed; its level is `SNR_DB` below the level of the speech where there is speech.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import json
import random
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from voxline.pipeline import FrameProcessor, Pipeline, PipelineWorker, TranscriptionFrame, VirtualClock, handles
from voxline.pipeline.clock import NS_PER_MS, Clock, SystemClock
from voxline.pipeline.frames import Samples
from voxline.processors import PocketSphinxSTT, SileroVAD
from voxline.transports.memory import MemoryTransport

HERE = Path(__file__).resolve().parent
SPEECH = HERE / "speech"
VOICES = ("kal16", "slt", "rms")
NOISES = ("clean", "white", "pink", "babble")
SNR_DB = 15.0
CALL = 12
LEAD_MS, GAP_MS, TAIL_MS = 800, 1_500, 1_500
"""Before the first sentence, after each, and at the end. The detector ends a sentence after 500 ms of silence."""
PER_MS = 16
ROOM = 8
"""Amplitude (int16) of a quiet room."""
COMMAND = "command"
Reals = npt.NDArray[np.float64]
TIMEOUT_S = 900


@dataclass(slots=True)
class Sentence:
    """One thing that is said, and what became of it."""

    kind: str
    text: str
    samples: Samples
    begin_ms: int = 0
    """Where it stands in its call."""
    heard: list[str] = field(default_factory=list[str])
    replies: list[str] = field(default_factory=list[str])
    decode_ms: list[float] = field(default_factory=list[float])


def load(voice: str, folder: Path = SPEECH) -> list[Sentence]:
    """All that a voice says, in the order of the index."""
    index = json.loads((folder / "speech.json").read_text(encoding="utf-8"))[voice]
    read, rate = soundfile.read(folder / f"{voice}.ogg", dtype="int16")
    samples = np.asarray(read, np.int16)
    if rate != 1000 * PER_MS:
        raise ValueError(f"{voice}.ogg has {rate} Hz")
    return [
        Sentence(said["kind"], said["text"], samples[said["start_ms"] * PER_MS : said["end_ms"] * PER_MS])
        for said in index
    ]


def level(samples: Samples) -> float:
    """RMS of the 20 ms that are within 30 dB of the loudest 20 ms: of speech, where there is speech."""
    frames = samples[: len(samples) // 320 * 320].astype(np.float64).reshape(-1, 320)
    levels: Reals = np.sqrt(np.mean(frames**2, axis=1, dtype=np.float64))
    return float(np.sqrt(np.mean(levels[levels > levels.max() / 10**1.5] ** 2)))


def noise(kind: str, length: int, dice: np.random.Generator, others: Sequence[Samples]) -> Reals:
    """Noise of RMS 1: white, pink (power falls by 3 dB an octave, above 40 Hz), or eight people at once."""
    if kind == "babble":
        made = np.zeros(length)
        for _ in range(8):
            at = -int(dice.integers(16_000))
            while at < length:
                one = others[int(dice.integers(len(others)))].astype(np.float64)
                begin, end = max(at, 0), min(at + len(one), length)
                if end > begin:
                    made[begin:end] += one[begin - at : end - at]
                at += len(one)
    else:
        made = dice.standard_normal(length)
        if kind == "pink":
            size = 1 << (length - 1).bit_length()
            shape = np.fft.rfftfreq(size, 1 / 16_000)
            made = np.fft.irfft(np.fft.rfft(made, size) / np.sqrt(np.maximum(shape, 40.0)), size)[:length]
    return made / np.sqrt(np.mean(made**2))


def call(sentences: Sequence[Sentence], kind: str, seed: int, others: Sequence[Samples]) -> Samples:
    """The audio of a call; sets where each sentence begins."""
    at = LEAD_MS
    for one in sentences:
        one.begin_ms = at
        at += len(one.samples) // PER_MS + GAP_MS
    length = (at + TAIL_MS) * PER_MS
    dice = np.random.default_rng(seed)
    audio = dice.integers(-ROOM, ROOM + 1, length).astype(np.float64)
    loud = float(np.median([level(one.samples) for one in sentences]))
    if kind != "clean":
        audio += noise(kind, length, dice, others) * loud / 10 ** (SNR_DB / 20)
    for one in sentences:
        begin = one.begin_ms * PER_MS
        audio[begin : begin + len(one.samples)] += one.samples
    return np.clip(np.round(audio), -32768, 32767).astype(np.int16)


def calls(voice: str, kind: str, folder: Path = SPEECH) -> list[tuple[list[Sentence], Samples]]:
    """All that a voice says, as calls in a kind of noise."""
    sentences = load(voice, folder)
    # Who babbles is somebody else, who says no commands.
    others = [
        one.samples for other in VOICES if other != voice for one in load(other, folder) if one.kind == "everyday"
    ]
    random.Random(f"{voice} {kind}").shuffle(sentences)
    made: list[tuple[list[Sentence], Samples]] = []
    for start in range(0, len(sentences), CALL):
        part = sentences[start : start + CALL]
        made.append((part, call(part, kind, start + 1000 * NOISES.index(kind), others)))
    return made


class Notes(FrameProcessor):
    """Writes down what was understood, and when."""

    def __init__(self) -> None:
        self.told: list[tuple[float, TranscriptionFrame]] = []

    @handles(TranscriptionFrame)
    async def note(self, frame: TranscriptionFrame) -> None:
        self.told.append((self.now_ns / NS_PER_MS, frame))


def rover() -> Any:
    """The module `examples/rover.py`."""
    spec = importlib.util.spec_from_file_location("rover_example", HERE.parent / "examples" / "rover.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


EXAMPLE = rover()
UNCLEAR = EXAMPLE.Rover().reply("")


async def listen(sentences: Sequence[Sentence], audio: Samples, clock: Clock) -> None:
    """Play a call to the rover's ears, and note with each sentence what became of it."""
    transport, notes = MemoryTransport(), Notes()
    worker = PipelineWorker(
        Pipeline([transport.input(), SileroVAD(), PocketSphinxSTT(EXAMPLE.GRAMMAR), notes]), clock=clock
    )
    transport.say(audio)
    transport.hang_up()
    began_ms = clock.now_ns() / NS_PER_MS
    outcome = await worker.run()
    if outcome.reason != "ended":
        raise RuntimeError(f"the chain ended otherwise: {outcome}")
    for at_ms, frame in notes.told:
        one = max((one for one in sentences if one.begin_ms <= at_ms - began_ms), key=lambda one: one.begin_ms)
        one.heard.append(frame.text)
        one.replies.append(EXAMPLE.Rover().reply(frame.text))
        one.decode_ms.append(frame.decode_ms)


def right(one: Sentence) -> bool:
    """Return True for an understood command, and for a rejected sentence that is not a command."""
    if one.kind == COMMAND:
        return one.heard == [one.text]
    return all(reply == UNCLEAR for reply in one.replies)


def obeyed(one: Sentence) -> bool:
    """Return True where the rover did what the command says: "go back" counts for "go backwards"."""
    return one.replies == [EXAMPLE.Rover().reply(one.text)]


def row(voice: str, kind: str, folder: Path, part: int) -> dict[str, Any]:
    """All calls of one voice in one kind of noise, in virtual time; of them each `part`-th."""
    said: list[dict[str, Any]] = []
    for sentences, audio in calls(voice, kind, folder)[::part]:
        asyncio.run(listen(sentences, audio, VirtualClock()))
        said += [
            {"kind": one.kind, "text": one.text, "heard": one.heard, "right": right(one), "obeyed": obeyed(one)}
            for one in sentences
        ]
    return {"voice": voice, "noise": kind, "said": said}


def real_time(voice: str, kind: str, folder: Path, part: int) -> dict[str, Any]:
    """A call in real time, for how long the recogniser still works when it has all of the audio."""
    found: list[float] = []
    for sentences, audio in calls(voice, kind, folder)[: 1 if part > 1 else 2]:
        asyncio.run(listen(sentences, audio, SystemClock()))
        found += [ms for one in sentences for ms in one.decode_ms]
    return {"voice": voice, "noise": kind, "decode_ms": found}


def measured(*arguments: str) -> dict[str, Any]:
    """A row, measured in a process of its own."""
    command = [sys.executable, str(HERE / "recognition.py"), *arguments]
    done = subprocess.run(command, cwd=HERE, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(arguments)} failed:\n{done.stderr[-2000:]}")
    return json.loads(done.stdout.splitlines()[-1])


# --- the page --------------------------------------------------------------------------------------------------------


def share(said: Sequence[dict[str, Any]], what: str = "right") -> str:
    """How many, and how many in a hundred."""
    if not said:
        return "-"
    good = sum(one[what] for one in said)
    return f"{good}/{len(said)} ({100 * good / len(said):.0f} %)"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Each voice in each noise, and all of them."""
    lines = ["| voice | noise | commands understood | obeyed | others rejected |", "| --- | --- | ---: | ---: | ---: |"]
    groups = [(one["voice"], one["noise"], [one]) for one in rows]
    groups += [("all", noise, [one for one in rows if one["noise"] == noise]) for noise in NOISES]
    groups += [(voice, "all", [one for one in rows if one["voice"] == voice]) for voice in VOICES]
    for voice, noise, some in [*groups, ("**all**", "**all**", rows)]:
        said = [one for each in some for one in each["said"]]
        commands = [one for one in said if one["kind"] == COMMAND]
        others = [one for one in said if one["kind"] != COMMAND]
        lines.append(f"| {voice} | {noise} | {share(commands)} | {share(commands, 'obeyed')} | {share(others)} |")
    return "\n".join(lines)


def kinds(rows: Sequence[dict[str, Any]]) -> str:
    """Each kind of sentence in each noise."""
    lines = [f"| kind | {' | '.join(NOISES)} |", "| --- |" + " ---: |" * len(NOISES)]
    names = dict.fromkeys(one["kind"] for each in rows for one in each["said"])
    for name in sorted(names):
        cells = [
            share([one for each in rows if each["noise"] == noise for one in each["said"] if one["kind"] == name])
            for noise in NOISES
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def failures(rows: Sequence[dict[str, Any]]) -> str:
    """List the failures, sentence by sentence."""
    lines: list[str] = []
    for each in rows:
        wrong = [one for one in each["said"] if not one["right"]]
        lines.append(f"\n### {each['voice']}, {each['noise']}: {len(wrong)}\n")
        lines += [
            f'- {one["kind"]}: "{one["text"]}" was heard as {" + ".join(map(json.dumps, one["heard"])) or "nothing"}'
            + (" (and did the right thing)" if one["kind"] == COMMAND and one["obeyed"] else "")
            for one in sorted(wrong, key=lambda one: (one["kind"], one["text"]))
        ]
    return "\n".join(lines)


def decoding(timed: Sequence[dict[str, Any]]) -> str:
    """How long the recogniser works when it has all of the audio."""
    lines = ["| voice | noise | sentences | mean ms | 95th percentile ms |", "| --- | --- | ---: | ---: | ---: |"]
    for each in timed:
        took = each["decode_ms"]
        lines.append(
            f"| {each['voice']} | {each['noise']} | {len(took)} | {np.mean(took):.0f} | {np.percentile(took, 95):.0f} |"
        )
    return "\n".join(lines)


def write(where: Path, rows: Sequence[dict[str, Any]], timed: Sequence[dict[str, Any]], note: str) -> None:
    """The page for people."""
    said = [one for each in rows for one in each["said"]]
    commands = [one for one in said if one["kind"] == COMMAND]
    others = [one for one in said if one["kind"] != COMMAND]
    verdicts = [
        "| figure | target | measured |",
        "| --- | --- | ---: |",
        f"| commands understood, word by word | 95 % | {share(commands)} |",
        f"| what is no command, rejected | 90 % | {share(others)} |",
    ]
    parts = [
        "# How well the offline rover understands\n",
        "Three synthetic voices (flite), in a quiet room and in noise at 15 dB below the speech: white, pink, and the "
        "babble of eight others. Made by `python benchmarks/run.py --only recognition`.\n",
        *([f"> {note}\n"] if note else []),
        "*Understood*: the transcript is the command, word by word. *Obeyed*: the rover did what the command says "
        '("go backward" for "go backwards" is no harm). *Rejected*: the rover did nothing, and said nothing but that '
        "it did not get that. Calls of twelve sentences, each with a recogniser that has heard nothing before.\n",
        "\n".join(verdicts) + "\n",
        table(rows) + "\n",
        kinds(rows) + "\n",
        "## Time\n",
        "In real time: from the end of speech as the detector has it, to the transcript.\n",
        decoding(timed) + "\n",
        "## What went wrong",
        failures(rows) + "\n",
    ]
    where.write_text("\n".join(parts), encoding="utf-8")


def bench(where: Path, *, quick: bool) -> None:
    """Measure everything (``quick``: a sixth of it), and write the page."""
    part = 6 if quick else 1
    rows: list[dict[str, Any]] = []
    order = [(voice, noise) for noise in NOISES for voice in VOICES]
    for number, (voice, noise) in enumerate(order, 1):
        rows.append(measured(voice, noise, str(SPEECH), str(part)))
        commands = [one for one in rows[-1]["said"] if one["kind"] == COMMAND]
        others = [one for one in rows[-1]["said"] if one["kind"] != COMMAND]
        print(
            f"  {number:2d}/{len(order)} {voice:6s}{noise:7s} understood {share(commands)}, rejected {share(others)}",
            flush=True,
        )
    timed = [measured("--real-time", voice, "pink", str(SPEECH), str(part)) for voice in VOICES]
    write(where, rows, timed, "A quick look, not a result." if quick else "")
    print(f"\n{table(rows)}\n\n{decoding(timed)}", flush=True)


def main() -> None:
    """One row, for `measured`: VOICE NOISE FOLDER PART, or the same with `--real-time` before it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--real-time", action="store_true")
    parser.add_argument("voice", choices=VOICES)
    parser.add_argument("noise", choices=NOISES)
    parser.add_argument("folder", type=Path, nargs="?", default=SPEECH)
    parser.add_argument("part", type=int, nargs="?", default=1)
    asked = parser.parse_args()
    make = real_time if asked.real_time else row
    print(json.dumps(make(asked.voice, asked.noise, asked.folder, asked.part)))


if __name__ == "__main__":
    main()

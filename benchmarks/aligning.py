# pyright: basic
"""How exact the words of voices are that tell no times: forced alignment, and interpolation beside it.

    .venv/bin/python benchmarks/aligning.py          # 43 sentences, 6 voices: a minute

The truth is the synthesiser's own: of flite (its library is asked for its segments) and of eSpeak NG in other variants
and speeds than the reference. Needs libflite (Debian: `apt-get install libflite1`) and the extra `speech`. Each
sentence is cut at random moments, and what the playout ledger says was heard is compared with what had begun.
"""

from __future__ import annotations

import asyncio
import ctypes
import random
import statistics
import time
from typing import Any

import numpy as np
from heard_call import LONG, SHORT
from voxline.pipeline.frames import ResponseCutFrame
from voxline.processors.text.speakable import speakable
from voxline.processors.tts.align import Aligner, Features, Reference
from voxline.processors.tts.aligned import PIECE_MS, ReferenceVoice, word_starts
from voxline.processors.tts.espeak_process import SAMPLE_RATE, EspeakProcess
from voxline.processors.tts.word_timing import SpeechChunk, WordStart, WordTiming, tokens
from voxline.transports.playout import PlayoutLedger

CUTS = 60
SURE_MS = 20
AHEAD_MS = (2_000, PIECE_MS)
"""How much more was made than heard, at the cut: by a voice that is quick, and by one that is as quick as speech."""
OTHERS = (
    # From the Harvard sentences (IEEE Trans. Audio and Electroacoustics 17, 1969), and from a bot's day.
    "The birch canoe slid on the smooth planks.", "Glue the sheet to the dark blue background.",
    "It is easy to tell the depth of a well.", "These days a chicken leg is a rare dish.",
    "Rice is often served in round bowls.", "The juice of lemons makes fine punch.",
    "The box was thrown beside the parked truck.", "Four hours of steady work faced us.",
    "A large size in stockings is hard to sell.", "The boy was there when the sun rose.",
    "A rod is used to catch pink salmon.", "The source of the huge river is the clear spring.",
    "Kick the ball straight and follow through.", "Help the woman get back to her feet.",
    "A pot of tea helps to pass the evening.", "I am sorry, I did not hear you.",
    "Your appointment is on Tuesday morning.", "Could you repeat the last part?", "The bill was paid yesterday.",
    "We open at nine and close at five.",
    "I have found three restaurants near you, and the closest one is an Italian place on the corner of the street.",
    "Sure, I can move your meeting with the design team to Thursday afternoon, but then it overlaps with the dentist.",
    "To reset the router, hold the small button on the back for ten seconds, wait until it blinks, and try again.",
    "The weather will be mostly sunny today, with a light breeze from the west and a small chance of rain.",
    "Thank you for calling our support line, my name is Robin and I will be happy to help you with your order.",
    "If you want to cancel the subscription, please say cancel, otherwise stay on the line and somebody will answer.",
    "She said that the package had already left the warehouse, so it should arrive within the next couple of days.",
    "Well, honestly, I would take the train, because parking in the old town is expensive and hard to find.",
    "Please remember that the library closes early on holidays and that books can be returned through the slot.",
    "The history of the bridge begins with a quarrel between two brothers who both wanted to collect the toll and who "
    "built their own halves from opposite banks without ever speaking to each other until the middle was one plank",
    "When you bake bread at home you should let the dough rest in a warm corner for at least an hour since the yeast "
    "needs time and patience gives you a better crust than any expensive oven that money can buy",
    "Our guide explained that the cave had been used by shepherds during the summer storms and that the black marks "
    "along the ceiling came from their fires and from the torches of the children who dared each other to walk inside",
    "The machine records the temperature every minute and sends the numbers to a small server in the basement where a "
    "program looks for anything unusual and writes a message to the engineer who is on duty that night",
    "Nobody in the village remembered who had planted the apple trees behind the church but every autumn the whole "
    "school came with baskets and ladders and went home with sticky fingers and a promise of cake",
)  # fmt: skip
TEXTS = (*SHORT, *OTHERS, *LONG)
Said = tuple[Any, int, list[float]]
"""Samples, Hz, and when each word begins, in ms."""


# --- voices that tell the truth ---------------------------------------------------------------------------------------


class _Wave(ctypes.Structure):
    _fields_ = (
        ("type", ctypes.c_char_p), ("sample_rate", ctypes.c_int), ("num_samples", ctypes.c_int),
        ("num_channels", ctypes.c_int), ("samples", ctypes.POINTER(ctypes.c_short)),
    )  # fmt: skip


class Flite:
    """A voice of flite's, through its library: the command line tells segments, but not which word they are of."""

    START = b"R:SylStructure.daughter1.daughter1.R:Segment.p.end"
    """Where the segment in front of a word's first one ends."""

    def __init__(self, name: str) -> None:
        for other in ("flite_usenglish", "flite_cmulex"):
            ctypes.CDLL(f"lib{other}.so.1", mode=ctypes.RTLD_GLOBAL)
        self._flite = ctypes.CDLL("libflite.so.1", mode=ctypes.RTLD_GLOBAL)
        self._flite.flite_init()
        register = getattr(ctypes.CDLL(f"libflite_cmu_{name}.so.1"), f"register_cmu_{name}")
        register.restype = ctypes.c_void_p
        self._voice = ctypes.c_void_p(register(None))

    def _call(self, name: str, kind: Any, *arguments: Any) -> Any:
        function = getattr(self._flite, name)
        function.restype = kind
        return function(*arguments)

    async def say(self, text: str) -> Said:
        """A sentence."""
        made = ctypes.c_void_p(self._call("flite_synth_text", ctypes.c_void_p, text.encode(), self._voice))
        wave = self._call("utt_wave", ctypes.POINTER(_Wave), made).contents
        samples, rate = np.ctypeslib.as_array(wave.samples, (wave.num_samples,)).copy(), wave.sample_rate
        words = [text[begin:end].strip(",.?!") for begin, end in tokens(text)]
        starts: list[float] = []
        relation = ctypes.c_void_p(self._call("utt_relation", ctypes.c_void_p, made, b"Word"))
        item = self._call("relation_head", ctypes.c_void_p, relation)
        while item:
            name = self._call("ffeature_string", ctypes.c_char_p, ctypes.c_void_p(item), b"name").decode()
            assert name == words[len(starts)].lower(), (name, words[len(starts)])
            starts.append(1e3 * self._call("ffeature_float", ctypes.c_float, ctypes.c_void_p(item), self.START))
            item = self._call("item_next", ctypes.c_void_p, ctypes.c_void_p(item))
        self._call("delete_utterance", None, made)
        assert len(starts) == len(words)
        return samples, rate, starts


class Espeak:
    """eSpeak NG, in another variant than the reference."""

    def __init__(self, process: EspeakProcess) -> None:
        self._process = process

    async def say(self, text: str) -> Said:
        """A sentence."""
        parts, told = [], []
        with self._process.speak(text) as speech:
            async for chunk in speech:
                parts.append(chunk.samples)
                told += [(word.char_offset, float(word.start_ms)) for word in chunk.words]
        samples = np.concatenate(parts)
        return samples, SAMPLE_RATE, word_starts(text, told, len(samples) * 1e3 / SAMPLE_RATE)


# --- what is claimed --------------------------------------------------------------------------------------------------

Frames = list[tuple[float, Any]]
"""Ms of sound, and the words that are told with it."""


def frames_of(text: str, said: Said, reference: Reference | None, ahead_ms: float) -> tuple[Frames, list[float], float]:
    """Return a voice's frames, with aligned words or without times; the found start of each word; and ms of work."""
    samples, rate, _ = said
    script = WordTiming(speakable(text))
    script.start_attempt(timed=reference is not None)
    features, aligner = Features(rate), None if reference is None else Aligner(reference)
    begins, step = [begin for begin, _ in tokens(text)], rate * PIECE_MS // 1000
    frames: Frames = []
    starts: list[float] = []
    made_ms = work_s = 0.0
    for at in [*range(0, len(samples), step), -1]:
        piece = samples[at : at + step] if at >= 0 else np.zeros(rate // 1000, np.int16)
        before_s = time.thread_time()
        found: list[tuple[int, float]] = []
        if aligner is not None:
            new = features.push(piece)
            found = aligner.push(*new, made_ms + PIECE_MS - ahead_ms) if at >= 0 else aligner.end()
        work_s += time.thread_time() - before_s
        starts += [start_ms for _, start_ms in found]
        words = tuple(WordStart(begins[word], start_ms - made_ms) for word, start_ms in found)
        chunk = SpeechChunk(piece, rate, words)
        frames.append((chunk.duration_ms, script.words_of(chunk)))
        made_ms += chunk.duration_ms
    return frames, starts, work_s * 1e3


def heard(frames: Frames, played_ms: float, ahead_ms: float) -> list[str]:
    """Return the ledger's heard text after ``played_ms``, with ``ahead_ms`` more synthesised."""
    ledger, made_ms = PlayoutLedger(1_000), 0.0
    for ms, words in frames:
        if made_ms >= played_ms + ahead_ms:
            break
        begin = round(made_ms)
        made_ms += ms
        ledger.append(1, np.zeros(round(made_ms) - begin, np.int16), words)
    else:
        ledger.end(1)
    ledger.take(max(1, round(played_ms)))
    cut = ledger.cut(1)
    assert isinstance(cut[0], ResponseCutFrame)
    return cut[0].heard_text.split()


def right(claimed: list[str], starts: list[float], played_ms: float) -> int:
    """0: exact, or off by a word that begins within `SURE_MS` of the cut. Else by how many words; below 0: too few."""
    counts = [sum(start < played_ms + by for start in starts) for by in (0, -SURE_MS, SURE_MS)]
    return 0 if len(claimed) in counts else len(claimed) - counts[0]


async def measure(name: str, voice: Any, references: list[Reference]) -> None:
    """A row."""
    errors: list[float] = []
    off: dict[str, list[int]] = {}
    dice, work_ms, sound_ms = random.Random(1), 0.0, 0.0
    for text, reference in zip(TEXTS, references, strict=True):
        said = await voice.say(text)
        length_ms = len(said[0]) * 1e3 / said[1]
        aligned, found, ms = frames_of(text, said, reference, AHEAD_MS[0])
        quick, _, _ = frames_of(text, said, reference, AHEAD_MS[1])
        plain, _, _ = frames_of(text, said, None, 0)
        errors += [abs(one - other) for one, other in zip(found, said[2], strict=True)]
        work_ms, sound_ms = work_ms + ms, sound_ms + length_ms
        for _ in range(CUTS):
            cut_ms = dice.uniform(said[2][0] + 1, length_ms - 1)
            for label, frames in (("aligned", (aligned, quick)), ("interpolated", (plain, plain))):
                for ahead_ms, made in zip(AHEAD_MS, frames, strict=True):
                    claimed = heard(made, cut_ms, ahead_ms)
                    off.setdefault(f"{label} {ahead_ms}", []).append(right(claimed, said[2], cut_ms))
    errors.sort()
    cells = [f"{statistics.median(errors):.0f} / {errors[int(0.95 * len(errors))]:.0f} / {errors[-1]:.0f}"]
    cells += [
        f"{sum(not miss for miss in misses) / len(misses):.1%} ({min(misses):+d} to {max(misses):+d})"
        for misses in off.values()
    ]
    cells.append(f"{work_ms / sound_ms * 1e3:.1f}")
    print(f"| {name} | " + " | ".join(cells) + " |", flush=True)


async def main() -> None:
    """All voices."""
    reference = EspeakProcess(sleep=asyncio.sleep, voice="en-us")
    await reference.start()
    maker = ReferenceVoice.__new__(ReferenceVoice)
    maker._espeak, maker._may_restart = reference, True
    before_s = time.thread_time()
    references = [await maker.say(text) for text in TEXTS]
    seconds = sum(len(one.frames) for one in references) / 100
    print(
        f"{len(TEXTS)} sentences; references made: {(time.thread_time() - before_s) / seconds * 1e3:.1f} ms of work/s"
    )
    columns = ("aligned, 2 s ahead", "aligned, as quick as speech", "interpolated, 2 s ahead", "interpolated, as quick")
    print("| voice | starts off, ms: median / p95 / worst | " + " | ".join(columns) + " | ms of work/s |", flush=True)
    print("| --- |" + " --- |" * 6)
    for name in ("us_kal16", "us_slt", "us_rms", "us_awb"):
        await measure(f"flite {name}", Flite(name), references)
    for variant, rate in (("f3", 150), ("m4", 120), ("f2", 260)):
        process = EspeakProcess(sleep=asyncio.sleep, voice=f"en-us+{variant}", rate_wpm=rate)
        await process.start()
        await measure(f"eSpeak {variant}, {rate} words/min", Espeak(process), references)
        await process.close()
    await reference.close()


if __name__ == "__main__":
    asyncio.run(main())

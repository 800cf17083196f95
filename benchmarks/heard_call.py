# pyright: basic
"""The speakers of `benchmarks/heard.py`: a caller made with flite, and the bot's answers."""

from __future__ import annotations

import random
import subprocess
import wave
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

RATE = 48_000
FIRST_S = 4.0
"""The microphone begins before the call is connected."""
LEVEL = 0.10
"""RMS of the louder part of the caller's speech, of full scale: -20 dBFS."""
ROOM = 0.0003
"""And of the room: -70 dBFS."""

QUESTIONS = (
    "where are you", "what can you do", "how far is it to the station", "turn left at the corner", "go back ten meters",
    "what is the weather like", "who was that", "can you hear me", "read the next message", "what did you say",
    "how long will it take", "is it open on sunday", "good morning", "tell me the time", "which way is north",
    "are we there yet",
)  # fmt: skip
INTERRUPTIONS = (
    "no that is not what i meant", "please stop talking for a moment", "wait i have another question",
    "can you tell me something else", "hold on let me think about it", "i know all of that already",
    "that is enough thank you", "stop it and listen to me",
)  # fmt: skip
SHORT = ("Yes, of course.", "I think so.", "Just a moment, please.", "Two more minutes.", "On the left side.")
LONG = (
    "The tall grey tower beside the harbour was built by sailors who wanted to watch every ship that came home from "
    "the cold northern sea before the winter storms closed the bay for many dark weeks and nobody could leave it",
    "My grandmother kept seven brown hens behind her kitchen and each morning she gave them warm oats and told them "
    "long stories about the river until they followed her down the garden path like small feathered soldiers",
    "When the old railway reached our valley the farmers sold their horses and bought tickets to the city where they "
    "found bright windows and loud music and came back the same evening because the cows had to be milked again",
    "A good carpenter measures everything twice and cuts it once because wood never grows back and every crooked "
    "shelf will look at him for twenty years and remind him of the afternoon when he was in a hurry to get home",
)


@dataclass(frozen=True)
class Utterance:
    """A sentence of the caller with its place in the recording, in samples, from the first audible one to the last."""

    text: str
    begin: int
    end: int
    interrupts: bool


@cache
def say(text: str) -> Any:
    """A phrase by flite, float at `RATE`, without the silence around it."""
    from voxline.pipeline.audio import StreamResampler

    with TemporaryDirectory() as folder:
        file = Path(folder) / "said.wav"
        subprocess.run(["flite", "-voice", "kal16", "-t", text, "-o", str(file)], check=True, capture_output=True)
        with wave.open(str(file)) as opened:
            rate = opened.getframerate()
            samples = np.frombuffer(opened.readframes(opened.getnframes()), np.int16)
    resampler = StreamResampler(rate, RATE)
    made = np.concatenate([resampler.push(samples), resampler.flush()]).astype(np.float64)
    loud = np.flatnonzero(np.abs(made) > 0.02 * np.abs(made).max())
    made = made[loud[0] : loud[-1] + 1]
    frames = made[: len(made) // 960 * 960].reshape(-1, 960)
    power = np.sqrt((frames**2).mean(axis=1))
    return made * (LEVEL / power[power > np.median(power)].mean())


def compose(turns: int, interruptions: int, seed: int = 1) -> tuple[Any, list[Utterance], int]:
    """The microphone: int16 at `RATE`; who says what; and the sample from which on the bot is to speak long.

    Questions with time for a short answer; then a question, and interruptions of the long answers.
    """
    dice = random.Random(seed)
    at, said = round(FIRST_S * RATE), list[Utterance]()
    parts: list[tuple[int, Any]] = []

    def speak(text: str, interrupts: bool) -> None:
        nonlocal at
        speech = say(text)
        parts.append((at, speech))
        said.append(Utterance(text, at, at + len(speech), interrupts))
        at += len(speech)

    for number in range(turns):
        speak(QUESTIONS[(seed * turns + number) % len(QUESTIONS)], False)
        at += round(dice.uniform(3.6, 4.2) * RATE)
    from_here = at - RATE
    speak("tell me a long story", False)
    for number in range(interruptions):
        at += round(dice.uniform(3.0, 5.0) * RATE)
        speak(INTERRUPTIONS[(seed * interruptions + number) % len(INTERRUPTIONS)], True)
    at += 6 * RATE
    whole = np.random.default_rng(seed).normal(0, ROOM, at)
    for begin, speech in parts:
        whole[begin : begin + len(speech)] += speech
    return (np.clip(whole, -1, 1) * 32767).astype(np.int16), said, from_here


def write_wav(file: Path, samples: Any) -> None:
    """Write a file that Chromium uses as its microphone."""
    with wave.open(str(file), "wb") as opened:
        opened.setnchannels(1)
        opened.setsampwidth(2)
        opened.setframerate(RATE)
        opened.writeframes(samples.tobytes())

"""Words as sounds that a machine can tell apart: each word glides in its own way, in any voice."""

from __future__ import annotations

import random
import re

import numpy as np
from voxline.pipeline import Samples

RATE = 8_000


def word_sound(word: str, ms: float, *, pitch: float = 1.0, rate: int = RATE) -> Samples:
    """Two tones that glide from one vowel to another, by the word; ``pitch`` is the speaker's."""
    dice = random.Random(word)
    ends = [(dice.uniform(250, 900) * pitch, dice.uniform(1_000, 3_000) * pitch) for _ in range(3)]
    at = np.linspace(0, 2, round(ms * rate / 1000), endpoint=False)
    sound = np.zeros(len(at))
    for tone in range(2):
        hz = np.interp(at, [0, 1, 2], [end[tone] for end in ends])
        sound += np.sin(2 * np.pi * np.cumsum(hz) / rate)
    return (6_000 * sound).astype(np.int16)


def say(
    text: str, *, pace: float = 1.0, seed: int = 0, pitch: float = 1.0, pause_ms: float = 0, rate: int = RATE
) -> tuple[Samples, list[tuple[int, float]]]:
    """A text's sound, and where and when (ms) its words begin. ``seed``: of how long each is, 0 for all as usual."""
    dice = random.Random(seed)
    parts, words, made_ms = [np.zeros(0, np.int16)], list[tuple[int, float]](), 0.0
    for match in re.finditer(r"\S+", text):
        pause = dice.choice([0.0, pause_ms]) if pause_ms else 0.0
        parts.append(np.zeros(round(pause * rate / 1000), np.int16))
        made_ms += pause
        words.append((match.start(), made_ms))
        ms = 60 * (2 + len(match[0])) * pace * (dice.uniform(0.75, 1.35) if seed else 1)
        parts.append(word_sound(match[0], ms, pitch=pitch, rate=rate))
        made_ms += len(parts[-1]) * 1000 / rate
    return np.concatenate(parts), words

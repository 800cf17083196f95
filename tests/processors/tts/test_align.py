"""Forced alignment, with sounds of which it is known when they begin."""

import random
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import Samples
from voxline.processors.tts.align import HOP_MS, LOOK_AHEAD_MS, Aligner, Features, Reference

from .sounds import RATE, say

TEXT = "the old ferry left its berth before anyone could count how many people were still missing"
Found = list[tuple[int, float]]


def reference(text: str) -> Reference:
    sound, words = say(text)
    return Reference(*Features(RATE).push(sound), [start_ms for _, start_ms in words])


def align(text: str, sound: Samples, sizes: list[int], rate: int = RATE) -> tuple[Found, list[float]]:
    """Found words, and the length of the sound at that moment in ms."""
    features, aligner = Features(rate), Aligner(reference(text))
    found: Found = []
    when: list[float] = []
    at = turn = 0
    while at < len(sound):
        size = sizes[turn % len(sizes)]
        found += aligner.push(*features.push(sound[at : at + size]))
        at, turn = at + size, turn + 1
        when += [min(at, len(sound)) * 1000 / rate] * (len(found) - len(when))
    found += aligner.end()
    return found, when + [len(sound) * 1000 / rate] * (len(found) - len(when))


def errors(found: Found, words: list[tuple[int, float]]) -> list[float]:
    assert [word for word, _ in found] == list(range(len(words)))
    return [abs(at_ms - start_ms) for (_, at_ms), (_, start_ms) in zip(found, words, strict=True)]


@pytest.mark.parametrize("pace", [0.6, 1.0, 1.7])
@pytest.mark.parametrize("pause_ms", [0, 600])
def test_words_are_found_whatever_the_pace_and_the_pauses_of_the_voice(pace: float, pause_ms: float):
    sound, words = say(TEXT, pace=pace, seed=3, pause_ms=pause_ms)
    off = errors(align(TEXT, sound, [800])[0], words)
    assert sorted(off)[len(off) // 2] <= 20
    assert sorted(off)[-2] <= 80, "all but one, that may count as begun with the last sound before a pause"


def test_another_speaker_and_another_rate_are_no_matter():
    sound, words = say(TEXT, seed=2, pitch=1.1, rate=24_000)
    off = errors(align(TEXT, (sound * 0.2).astype(np.int16), [2_400], 24_000)[0], words)
    assert sorted(off)[len(off) // 2] <= 30
    assert max(off) <= 120


def test_silence_in_front_is_no_word():
    sound, words = say(TEXT, seed=2)
    found, _ = align(TEXT, np.concatenate([np.zeros(RATE // 2, np.int16), sound]), [800])
    assert abs(found[0][1] - 500 - words[0][1]) <= 30


def test_a_word_is_found_soon_after_it_begins_and_not_at_the_end_of_the_text():
    sound, _ = say(TEXT, seed=2)
    found, when = align(TEXT, sound, [RATE // 50])
    late = [told_ms - at_ms for (_, at_ms), told_ms in zip(found, when, strict=True)]
    assert min(late[:-2]) >= LOOK_AHEAD_MS
    assert sorted(late)[len(late) // 2] <= LOOK_AHEAD_MS + 150


def test_how_the_sound_is_cut_into_pieces_is_no_matter():
    sound, _ = say(TEXT, seed=5)
    whole, _ = align(TEXT, sound, [len(sound)])
    for sizes in ([1], [80], [801, 7, 0, 333], [len(sound) // 2 + 1]):
        found, _ = align(TEXT, sound, [size or 1 for size in sizes])
        assert found == whole


def test_features_too():
    sound, _ = say(TEXT, seed=5)
    whole, quiet = Features(RATE).push(sound)
    features = Features(RATE)
    pieces = [features.push(sound[at : at + 77]) for at in range(0, len(sound), 77)]
    assert np.allclose(np.concatenate([piece for piece, _ in pieces]), whole, atol=1e-3)
    assert np.array_equal(np.concatenate([piece for _, piece in pieces]), quiet)
    assert abs(len(whole) - len(sound) * 1000 / RATE / HOP_MS) <= 3


SOUNDS = st.tuples(st.integers(0, 999), st.sampled_from(["silence", "noise", "speech", "half", "other", "twice"]))


@given(SOUNDS, st.integers(1, 12), st.integers(1, 5_000))
@settings(max_examples=60)
def test_for_any_sound_each_word_is_found_once_in_order_and_within_it(what: tuple[int, str], count: int, size: int):
    seed, kind = what
    text = " ".join(TEXT.split()[:count])
    sound, _ = say(text, seed=seed, pause_ms=300)
    if kind == "silence":
        sound = np.zeros(seed * 10, np.int16)
    elif kind == "noise":
        sound = np.random.default_rng(seed).integers(-9_000, 9_000, seed * 20).astype(np.int16)
    elif kind == "half":
        sound = sound[: random.Random(seed).randrange(len(sound))]
    elif kind == "other":
        sound, _ = say("something else is said here", seed=seed)
    elif kind == "twice":
        sound = np.concatenate([sound, sound])
    found, when = align(text, sound, [size])
    assert [word for word, _ in found] == list(range(count))
    assert all(one <= other for (_, one), (_, other) in pairwise(found))
    assert all(0 <= at_ms <= told_ms + HOP_MS for (_, at_ms), told_ms in zip(found, when, strict=True))

"""Segmenter: a long utterance is cut at a quiet place."""

from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline.testing.material import noise, silence, tone
from voxline.processors.stt.segmenter import HOP_MS, SEARCH_MS, WINDOW_HOPS, Segmenter
from voxline.tests.scale import examples

Samples = npt.NDArray[np.int16]
RATE = 16_000


def cut(samples: Samples, piece_ms: float, sizes: list[int], rate: int = RATE) -> tuple[Samples, list[int]]:
    """All that may be decoded, and where the pieces end in it; fed in frames of these sizes, over and over."""
    segmenter = Segmenter(piece_ms, rate)
    given: list[Samples] = []
    cuts: list[int] = []
    at = number = 0
    while at < len(samples):
        size = sizes[number % len(sizes)]
        for part in segmenter.add(samples[at : at + size]):
            if part is None:
                cuts.append(sum(map(len, given)))
            else:
                given.append(part)
        at, number = at + size, number + 1
        held = min(at, len(samples)) - sum(map(len, given))
        assert 0 <= held <= min(SEARCH_MS, piece_ms / 2) * rate / 1000
    given.append(segmenter.end())
    return np.concatenate(given), cuts


def quietest(samples: Samples, first: int, last: int, rate: int = RATE) -> int:
    """The middle of the quietest window between two places, the last of those that are as quiet."""
    hop = HOP_MS * rate // 1000
    energies = {
        at + WINDOW_HOPS // 2 * hop: int(np.sum(samples[at : at + WINDOW_HOPS * hop].astype(np.int64) ** 2))
        for at in range(first, last - WINDOW_HOPS * hop + 1, hop)
    }
    return max(at for at, energy in energies.items() if energy == min(energies.values()))


@settings(max_examples=examples(100))
@given(
    seed=st.integers(0, 2**32 - 1),
    length=st.integers(0, 12_000),
    piece_ms=st.sampled_from([1_000, 1_234.5, 5_000]),
    sizes=st.lists(st.one_of(st.integers(1, 400), st.integers(1, 20_000)), min_size=1, max_size=5),
    rate=st.sampled_from([1_000, 8_000]),
)
def test_every_sample_comes_once_and_in_order_and_the_cuts_are_at_the_quietest_places(
    seed: int, length: int, piece_ms: float, sizes: list[int], rate: int
):
    random = np.random.default_rng(seed)
    # Speech and pauses: the level changes every 50 samples.
    level = np.repeat(random.choice([0, 3, 100, 5_000], length // 50 + 1), 50)[:length]
    samples = (random.uniform(-1, 1, length) * level).astype(np.int16)
    # One sample is fed at a time only to short audio.
    sizes = [max(size, length // 500) for size in sizes]
    given, cuts = cut(samples, piece_ms, sizes, rate)
    assert np.array_equal(given, samples)
    piece = round(piece_ms * rate / 1000)
    search = min(SEARCH_MS * rate // 1000, piece // 2)
    begins = [0, *cuts]
    for begin, end in pairwise(begins):
        assert end == quietest(samples, begin + piece - search, begin + piece, rate)
    assert len(samples) - begins[-1] < piece


def test_the_cut_is_in_the_pause():
    speech = noise(30_000, dbfs=-26)
    speech[RATE * 13_700 // 1000 : RATE * 13_850 // 1000] = 0
    assert cut(speech, 15_000, [320])[1][0] == pytest.approx(RATE * 13.775, abs=RATE * 0.025)


def test_a_click_in_a_pause_does_not_hide_the_other_half_of_it():
    speech = tone(300, 16_000)
    speech[RATE * 14 : RATE * 14 + 4_000] = 0
    speech[RATE * 14 + 2_000] = 30_000
    (where,) = cut(speech, 15_000, [320])[1]
    assert 0 < where - RATE * 14 < 4_000


def test_before_the_last_two_seconds_and_in_a_pause_nothing_is_held():
    segmenter = Segmenter(15_000, RATE)
    frame = tone(300, 20)
    for _ in range(650):
        assert [
            part is frame or np.shares_memory(part, frame) for part in segmenter.add(frame) if part is not None
        ] == [True]
    assert len(segmenter.end()) == 0
    held = Segmenter(15_000, RATE)
    held.add(silence(14_500))
    assert len(held.end()) == RATE * 50 // 1000


def test_without_a_bound_all_passes_as_it_is():
    segmenter = Segmenter(0, RATE)
    frame = tone(300, 60_000)
    for _ in range(3):
        (part,) = segmenter.add(frame)
        assert part is frame
    assert len(segmenter.end()) == 0


def test_the_next_utterance_begins_anew():
    segmenter = Segmenter(15_000, RATE)
    for _ in range(5):
        assert all(part is not None for part in segmenter.add(noise(14_000)))
        held = segmenter.end()
        assert 0 < len(held) <= RATE

"""The pace of the output, with a lead and without: when each chunk is sent and due, and for how long that holds."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import (
    AudioFormat,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    OutputAudioFrame,
    PausePlayoutFrame,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    ResumePlayoutFrame,
    Samples,
    VirtualClock,
    source,
)
from voxline.pipeline.graph import Pipeline
from voxline.pipeline.testing import Harness
from voxline.pipeline.worker import PipelineWorker
from voxline.tests.scale import examples
from voxline.tests.transports.stage import NS_PER_MS, RATE, Notes, Speaker, audio, joined, ramp, times
from voxline.transports.memory import MemoryTransport


class Card(MemoryTransport):
    """Notes when each chunk was sent, and when it is due, in ms."""

    def __init__(self, lead_ms: float, **options: Any) -> None:
        defaults: dict[str, Any] = {"output_rate": RATE, **options}
        super().__init__(lead_ms=lead_ms, **defaults)
        self.sent: list[tuple[float, float]] = []

    def send(self, samples: Samples, due_ns: int) -> None:
        self.sent.append((self.clock.now_ns() / NS_PER_MS, due_ns / NS_PER_MS))
        super().send(samples, due_ns)


async def stage(harness: Any, lead_ms: float, **options: Any) -> tuple[Any, Notes, Card]:
    notes, card = Notes(), Card(lead_ms, **options)
    return await harness([notes, card.output()]), notes, card


# --- the lead -------------------------------------------------------------------------------------------------------


async def test_chunks_are_sent_so_early_and_heard_when_they_are_due(harness: Any):
    bench, _, card = await stage(harness, lead_ms=50)
    await bench.advance(ms=1_000)
    await bench.send(audio(ramp(200)), ResponseEndFrame(), response=1)
    await bench.advance(ms=500)
    dues = [1_000.0 + 20 * number for number in range(10)]
    assert card.sent == [(max(1_000, due - 50), due) for due in dues]
    assert times(card.heard) == dues
    assert joined(card.heard).tolist() == ramp(200).tolist()


async def test_on_a_grid_chunks_are_due_at_multiples_of_20_ms_and_the_first_is_sent_at_once(harness: Any):
    bench, _, card = await stage(harness, lead_ms=40, on_grid=True)
    await bench.advance(ms=1_007)
    await bench.send(audio(ramp(100)), ResponseEndFrame(), response=1)
    await bench.advance(ms=20)
    await bench.send(PausePlayoutFrame())
    await bench.advance(ms=16)
    await bench.send(ResumePlayoutFrame())
    await bench.advance(ms=500)
    assert card.sent == [(1_007, 1_020), (1_007, 1_040), (1_020, 1_060), (1_060, 1_100), (1_080, 1_120)]


async def test_speaking_begins_and_ends_with_the_sound_and_not_with_the_lead(harness: Any):
    bench, notes, _ = await stage(harness, lead_ms=100)
    await bench.send(audio(ramp(200)), ResponseEndFrame(), response=1)
    await bench.advance(ms=500)
    assert notes.facts == [
        (0, BotStartedSpeakingFrame(1)),
        (200, ResponsePlayedFrame(1, 200.0, "")),
        (200, BotStoppedSpeakingFrame(1)),
    ]


async def test_audio_that_comes_within_the_lead_leaves_no_hole(harness: Any):
    """A voice as fast as speech, each of whose chunks comes up to 60 ms late."""
    bench, notes, card = await stage(harness, lead_ms=100)
    await bench.send(audio(ramp(200)), response=1)
    for number in range(20):
        await bench.advance(ms=(60, 20, 100, 60, 60)[number % 5])
        await bench.send(audio(ramp(60, first=1 + (200 + 60 * number) * 24)), response=1)
    await bench.send(ResponseEndFrame(), response=1)
    await bench.advance(ms=500)
    assert times(card.heard) == [20.0 * number for number in range(70)]
    assert joined(card.heard).tolist() == ramp(1_400).tolist()
    assert len(notes.facts) == 3


async def test_a_response_that_ran_dry_goes_on_at_once(harness: Any):
    bench, _, card = await stage(harness, lead_ms=100)
    await bench.send(audio(ramp(40)), response=1)
    await bench.advance(ms=95)
    await bench.send(audio(ramp(40)), response=1)
    await bench.advance(ms=500)
    assert times(card.heard) == [0, 20, 95, 115]
    await bench.interrupt()


async def test_audio_that_comes_before_what_was_sent_is_over_is_heard_right_after_it(harness: Any):
    bench, _, card = await stage(harness, lead_ms=100)
    await bench.send(audio(ramp(80)), response=1)
    await bench.advance(ms=79)
    await bench.send(audio(ramp(40)), ResponseEndFrame(), response=1)
    await bench.advance(ms=500)
    assert times(card.heard) == [0, 20, 40, 60, 80, 100]


@pytest.mark.parametrize(("at_ms", "heard_ms"), [(0, 20), (50, 60), (59.9, 60), (60, 80), (195, 200)])
async def test_a_cut_counts_what_was_due_and_not_what_was_sent(harness: Any, at_ms: float, heard_ms: float):
    bench, notes, card = await stage(harness, lead_ms=100)
    await bench.send(audio(ramp(1_000), ("one", 0.0), ("two", 59.9), ("three", 60.0), ("four", 79.9)), response=1)
    await bench.advance(ms=at_ms)
    await bench.interrupt()
    await bench.advance(ms=500)
    assert len(card.heard) * 20 == heard_ms
    cut = notes.facts[1][1]
    assert isinstance(cut, ResponseCutFrame)
    assert cut.heard_ms == heard_ms
    words = [
        word
        for word, begun in zip(["one", "two", "three", "four"], [0, 59.9, 60, 79.9], strict=True)
        if begun < heard_ms
    ]
    assert cut.heard_text == " ".join(words)


async def test_a_cut_counts_no_silence_that_a_last_chunk_was_filled_up_with(harness: Any):
    bench, notes, _ = await stage(harness, lead_ms=100)
    await bench.send(audio(ramp(70)), ResponseEndFrame(), response=1)
    await bench.advance(ms=25)
    await bench.interrupt()
    assert notes.facts[1] == (25, ResponseCutFrame(1, 40.0, ""))
    await bench.send(audio(ramp(70)), ResponseEndFrame(), response=2)
    await bench.advance(ms=65)
    await bench.interrupt()
    assert notes.facts[-2][1] == ResponseCutFrame(2, 70.0, "")


async def test_the_next_response_begins_at_once_after_a_cut(harness: Any):
    bench, _, card = await stage(harness, lead_ms=100)
    await bench.send(audio(ramp(1_000)), response=1)
    await bench.advance(ms=50)
    await bench.interrupt()
    await bench.send(audio(ramp(40, first=5_000)), ResponseEndFrame(), response=2)
    await bench.advance(ms=500)
    assert times(card.heard) == [0, 20, 40, 50, 70]
    assert joined(card.heard[3:]).tolist() == ramp(40, first=5_000).tolist()


# --- pauses with a lead ---------------------------------------------------------------------------------------------


async def test_what_was_sent_ahead_is_kept_in_a_pause_and_comes_first_after_it(harness: Any):
    bench, notes, card = await stage(harness, lead_ms=100)
    await bench.send(audio(ramp(400)), ResponseEndFrame(), response=1)
    await bench.advance(ms=50)
    await bench.send(PausePlayoutFrame())
    await bench.advance(ms=1_000)
    assert times(card.heard) == [0, 20, 40]
    await bench.send(ResumePlayoutFrame())
    await bench.advance(ms=1_000)
    assert times(card.heard) == [0, 20, 40, *(1_050 + 20 * number for number in range(17))]
    assert joined(card.heard).tolist() == ramp(400).tolist()
    assert [(at_ms, type(fact).__name__) for at_ms, fact in notes.facts[-2:]] == [
        (1_390, "ResponsePlayedFrame"),
        (1_390, "BotStoppedSpeakingFrame"),
    ]


async def test_many_pauses_do_not_add_up(harness: Any):
    bench, notes, card = await stage(harness, lead_ms=100)
    await bench.send(audio(ramp(2_000)), ResponseEndFrame(), response=1)
    for _ in range(10):
        await bench.advance(ms=105)
        await bench.send(PausePlayoutFrame())
        await bench.advance(ms=200)
        await bench.send(ResumePlayoutFrame())
    await bench.advance(ms=3_000)
    assert joined(card.heard).tolist() == ramp(2_000).tolist()
    (played,) = [at_ms for at_ms, fact in notes.facts if isinstance(fact, ResponsePlayedFrame)]
    assert played == times(card.heard)[-1] + 20, "said when the last of it is over"
    assert all(due - sent <= 120 for sent, due in card.sent), "no more and no more ahead"


@pytest.mark.parametrize("wait_ms", [5, 300])
async def test_a_cut_in_a_pause_counts_nothing_of_what_is_kept(harness: Any, wait_ms: float):
    bench, notes, card = await stage(harness, lead_ms=100)
    await bench.send(audio(ramp(1_000)), response=1)
    await bench.advance(ms=50)
    await bench.send(PausePlayoutFrame())
    await bench.advance(ms=wait_ms)
    await bench.interrupt()
    await bench.send(ResumePlayoutFrame())
    await bench.advance(ms=500)
    assert len(card.heard) == 3
    assert notes.facts[-1][1] == ResponseCutFrame(1, 60.0, "")


# --- whatever happens -----------------------------------------------------------------------------------------------

MOVES = st.lists(
    st.tuples(
        st.sampled_from(["say", "say", "say", "end", "cut", "pause", "resume", "stall"]),
        st.integers(1, 200),
    ),
    max_size=25,
)


@settings(max_examples=examples(100))
@given(MOVES, st.sampled_from([0, 20, 35, 60, 100, 250]), st.booleans())
async def test_whatever_happens_the_records_say_what_was_heard(
    moves: list[tuple[str, int]], lead_ms: int, on_grid: bool
):
    async with Harness() as harness:
        bench, notes, card = await stage(harness, lead_ms, on_grid=on_grid)
        response, said = 1, 0
        for what, number in moves:
            if what == "say":
                await bench.send(audio(np.full(number * 24, response, np.int16)), response=response)
                said += number
            elif what == "end":
                await bench.send(ResponseEndFrame(), response=response)
                response += 1
            elif what == "cut":
                await bench.interrupt()
                response = max(response, bench.worker.responses) + 1
            elif what in ("pause", "resume"):
                await bench.send(PausePlayoutFrame() if what == "pause" else ResumePlayoutFrame())
            else:
                bench.clock.set(bench.clock.now_ns() + number * NS_PER_MS)
            await bench.advance(ms=number % 70)
        await bench.send(ResumePlayoutFrame(), ResponseEndFrame(), response=response)
        await bench.advance(ms=10_000)
        heard = joined(card.heard)
        records = [fact for _, fact in notes.facts if isinstance(fact, ResponseCutFrame | ResponsePlayedFrame)]
        for record in records:
            came_ms = np.count_nonzero(heard == record.response) / 24
            assert came_ms == pytest.approx(record.heard_ms), f"of response {record.response}"
        values = heard[heard != 0]
        assert (np.diff(values) >= 0).all(), "in order"
        begun = times(card.heard)
        assert begun == sorted(begun)
        assert (np.diff([sent for sent, _ in card.sent]) >= 0).all()
        assert all(due - sent <= lead_ms + 20 for sent, due in card.sent)
        assert not on_grid or all(due % 20 == 0 for _, due in card.sent)


# --- for how long it holds ------------------------------------------------------------------------------------------


class Endless(Speaker):
    """Begins to speak at some seconds, for some seconds."""

    def __init__(self, *talks: tuple[int, int]) -> None:
        self._talks = talks

    @source
    async def speak(self) -> AsyncIterator[Frame]:
        second = np.full(1_000, 1, np.int16)
        for begins_s, speaks_s in self._talks:
            await self.clock.sleep(begins_s - self.now_ns / NS_PER_MS / 1_000)
            for _ in range(speaks_s):
                yield OutputAudioFrame(second, 1_000)

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((1_000,), (1,))}


class Ticks(MemoryTransport):
    """A card of 1 kHz that counts, and notes how far off the grid of 20 ms each of its chunks was due, and sent."""

    def __init__(self, lead_ms: float) -> None:
        super().__init__(output_rate=1_000, lead_ms=lead_ms)
        self.count = 0
        self.last_ns = 0
        self.off: set[int] = set()
        self.early: set[float] = set()

    def send(self, samples: Samples, due_ns: int) -> None:
        self.off.add(due_ns % (20 * NS_PER_MS))
        self.early.add((due_ns - self.clock.now_ns()) / NS_PER_MS)
        self.count += 1
        self.last_ns = due_ns


@pytest.mark.parametrize("lead_ms", [0, 30])
async def test_after_ten_hours_it_has_not_drifted_by_a_nanosecond(lead_ms: float):
    card, clock = Ticks(lead_ms), VirtualClock()
    # A long story at the end of a long day.
    talks = [*((hour * 1_800, 4) for hour in range(19)), (35_400, 600)]
    await PipelineWorker(Pipeline([Endless(*talks), card.output()]), clock=clock).run()
    assert card.count == (19 * 4 + 600) * 50
    assert card.off == {0}
    assert card.early <= {0, 10, 20, 30}
    assert card.last_ns + 20 * NS_PER_MS == 36_000 * 1_000 * NS_PER_MS


@pytest.mark.parametrize("rate", [8_000, 16_000, 22_050, 24_000, 44_100, 48_000])
@pytest.mark.parametrize("lead_ms", [0, 40])
async def test_each_rate_has_the_same_pace_and_loses_no_sample(harness: Any, rate: int, lead_ms: float):
    bench, notes, card = await stage(harness, lead_ms, output_rate=rate)
    sound = ((np.arange(rate * 2) % 30_000) + 1).astype(np.int16)
    await bench.send(OutputAudioFrame(sound, rate), ResponseEndFrame(), response=1)
    await bench.advance(ms=2_500)
    assert times(card.heard) == [20.0 * number for number in range(100)]
    assert joined(card.heard).tolist() == sound.tolist()
    assert notes.facts[1] == (2_000, ResponsePlayedFrame(1, 2_000.0, ""))


@pytest.mark.parametrize("lead_ms", [0, 60, 200])
async def test_a_stall_of_100_ms_is_caught_up_at_once(harness: Any, lead_ms: float):
    bench, _, card = await stage(harness, lead_ms)
    await bench.send(audio(ramp(1_000)), ResponseEndFrame(), response=1)
    await bench.advance(ms=410)
    bench.clock.set(510 * NS_PER_MS)
    await bench.advance(ms=0)
    assert card.sent[-1][1] + 20 > 510 + lead_ms, "all that should have been sent by now"
    assert card.sent[-1][0] == 510
    await bench.advance(ms=1_000)
    assert [due for _, due in card.sent] == [20.0 * number for number in range(50)]
    late = [sent - due for sent, due in card.sent]
    assert max(late) <= max(0, 100 - lead_ms), "a lead longer than the stall hides it"
    assert joined(card.heard).tolist() == ramp(1_000).tolist()

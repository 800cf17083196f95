"""Pauses: silence at once, and on with the very next sample. What is said of it, and what it must not lose."""

from __future__ import annotations

import asyncio
import itertools
import random
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    FrameProcessor,
    OutputAudioFrame,
    PausePlayoutFrame,
    Pipeline,
    PipelineWorker,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    ResumePlayoutFrame,
    Samples,
    TextFrame,
    VirtualClock,
    handles,
    source,
)
from voxline.pipeline.testing import Harness
from voxline.tests.scale import examples
from voxline.tests.transports.stage import (
    MS,
    NS_PER_MS,
    RATE,
    Notes,
    Speaker,
    Stage,
    audio,
    joined,
    ramp,
    record_and_replay,
    show,
    times,
)
from voxline.transports.file import FileTransport
from voxline.transports.memory import HeardAudio, MemoryTransport

# --- silence, and on ----------------------------------------------------------------------------------------


async def test_a_pause_is_silence_at_once(stage: Stage):
    await stage.say(1, audio(ramp(1_000)))
    await stage.advance(50)
    await stage.pause()
    assert stage.bench.clock.next_ns is None, "a paused output costs nothing"
    await stage.advance(60_000)
    assert times(stage.heard) == [0, 20, 40]
    assert stage.facts == [(0, BotStartedSpeakingFrame(1)), (50, BotStoppedSpeakingFrame(1))]
    assert not stage.output.idle()


async def test_it_goes_on_with_the_next_sample_on_a_schedule_of_its_own(stage: Stage):
    await stage.say(1, audio(ramp(200)))
    await stage.end(1)
    await stage.advance(50)
    await stage.pause()
    await stage.advance(1_003)
    await stage.resume()
    await stage.advance(1_000)
    assert times(stage.heard) == [0, 20, 40, *(1_053 + 20 * k for k in range(7))], "no burst, and no hole"
    assert joined(stage.heard).tolist() == ramp(200).tolist()
    assert stage.facts == [
        (0, BotStartedSpeakingFrame(1)),
        (50, BotStoppedSpeakingFrame(1)),
        (1_053, BotStartedSpeakingFrame(1)),
        (1_193, ResponsePlayedFrame(1, 200.0, "")),
        (1_193, BotStoppedSpeakingFrame(1)),
    ]
    assert stage.output.idle()


async def test_after_a_moment_it_does_not_play_into_the_last_chunk(stage: Stage):
    """That one is heard until 60."""
    await stage.say(1, audio(ramp(100)))
    await stage.end(1)
    await stage.advance(45)
    for _ in range(3):
        await stage.pause()
        await stage.advance(2)
        await stage.resume()
    await stage.advance(100)
    assert times(stage.heard) == [0, 20, 40, 60, 80]
    assert [at for at, _ in stage.facts] == [0, 45, 60, 100, 100]


async def test_nor_does_audio_that_comes_right_after_it(stage: Stage):
    await stage.say(1, audio(ramp(20)))
    await stage.advance(5)
    await stage.pause()
    await stage.resume()
    await stage.advance(5)
    await stage.say(1, audio(ramp(20)))
    await stage.advance(100)
    assert times(stage.heard) == [0, 20]


async def test_the_second_pause_and_a_resume_without_a_pause_do_nothing(stage: Stage):
    await stage.resume()
    await stage.say(1, audio(ramp(200)))
    await stage.advance(30)
    await stage.resume()
    await stage.advance(20)
    await stage.pause()
    await stage.advance(100)
    await stage.pause()
    assert times(stage.heard) == [0, 20, 40]
    assert [at for at, _ in stage.facts] == [0, 50]
    await stage.resume()
    await stage.advance(10)
    await stage.resume()
    await stage.advance(20)
    assert times(stage.heard)[3:] == [150, 170]


async def test_what_fell_due_while_the_loop_was_busy_is_not_played_after_all(harness: Any):
    class Staller(FrameProcessor):
        @handles(TextFrame)
        async def stall(self, frame: TextFrame) -> None:
            assert isinstance(self.clock, VirtualClock)
            self.clock.set(self.clock.now_ns() + 130 * NS_PER_MS)
            await self.push(PausePlayoutFrame())

    transport = MemoryTransport(output_rate=RATE)
    bench = await harness([Staller(), transport.output()])
    await bench.send(audio(ramp(400)), ResponseEndFrame(), response=1)
    await bench.advance(ms=50)
    await bench.send(TextFrame("nothing runs for 130 ms"), response=1)
    await bench.advance(ms=20)
    assert times(transport.heard) == [0, 20, 40]
    await bench.send(ResumePlayoutFrame())
    await bench.advance(ms=1_000)
    assert times(transport.heard)[3:] == [200 + 20 * k for k in range(17)]
    assert joined(transport.heard).tolist() == ramp(400).tolist()


async def test_at_most_what_was_written_is_heard_after_a_pause(harness: Any):
    """The figure in docs/design/playout.md: 200 pauses at any moment of a slot."""
    chance, remaining_ms = random.Random(1), list[float]()
    for _ in range(200):
        transport = MemoryTransport(output_rate=RATE)
        bench = await harness(transport.output())
        await bench.send(audio(ramp(1_000)), ResponseEndFrame(), response=1)
        await bench.advance(ms=chance.uniform(0, 900))
        written, paused_ms = len(transport.heard), bench.now_ms
        await bench.send(PausePlayoutFrame())
        await bench.advance(ms=chance.uniform(0, 5_000))
        assert len(transport.heard) == written, "nothing is written in a pause"
        remaining_ms.append(times(transport.heard)[-1] + 20 - paused_ms)
        await bench.send(ResumePlayoutFrame())
        await bench.advance(ms=2_000)
        assert joined(transport.heard).tolist() == ramp(1_000).tolist()
        await bench.close()
    assert min(remaining_ms) >= 0
    assert max(remaining_ms) <= 20
    assert np.mean(remaining_ms) == pytest.approx(10, abs=1)


# --- what comes meanwhile -----------------------------------------------------------------------------------


async def test_audio_that_comes_in_a_pause_is_kept(stage: Stage):
    await stage.pause()
    await stage.say(1, audio(ramp(50)))
    await stage.advance(1_000)
    await stage.say(1, audio(ramp(50, first=1 + 50 * MS)))
    await stage.end(1)
    assert (stage.heard, stage.facts) == ([], [])
    assert not stage.output.idle()
    await stage.resume()
    await stage.advance(1_000)
    assert times(stage.heard) == [1_000 + 20 * k for k in range(5)]
    assert joined(stage.heard).tolist() == ramp(100).tolist()
    assert stage.facts == [
        (1_000, BotStartedSpeakingFrame(1)),
        (1_100, ResponsePlayedFrame(1, 100.0, "")),
        (1_100, BotStoppedSpeakingFrame(1)),
    ]


class Talker(Speaker):
    """A voice much quicker than speech: ten seconds in chunks of 60 ms."""

    def __init__(self) -> None:
        self.made_ms = 0

    @handles(TextFrame)
    async def talk(self, frame: TextFrame) -> AsyncIterator[Frame]:
        for _ in range(167):
            yield audio(ramp(60, first=1 + self.made_ms * MS))
            self.made_ms += 60
        yield ResponseEndFrame()


async def test_whoever_makes_the_audio_is_held_at_the_bound(harness: Any):
    talker, notes, transport = Talker(), Notes(), MemoryTransport(output_rate=RATE)
    bench = await harness([notes, talker, transport.output()])
    await bench.send(TextFrame("ten seconds"), response=1)
    await bench.advance(ms=50)
    await bench.send(PausePlayoutFrame())
    await bench.advance(ms=600_000)
    assert talker.made_ms <= 2_000 + 3 * 60
    await bench.send(ResumePlayoutFrame())
    await bench.advance(ms=20_000)
    assert joined(transport.heard).tolist() == ramp(167 * 60).tolist()
    assert notes.facts[-2][1] == ResponsePlayedFrame(1, 10_020.0, "")


async def test_whoever_is_held_in_a_pause_is_closed_by_a_cut(harness: Any):
    talker, transport = Talker(), MemoryTransport(output_rate=RATE)
    bench = await harness([talker, transport.output()])
    await bench.send(TextFrame("ten seconds"), response=1)
    await bench.send(PausePlayoutFrame())
    await bench.interrupt()
    made = talker.made_ms
    await bench.send(TextFrame("again"), response=2)
    await bench.advance(ms=1_000)
    assert 2_000 <= talker.made_ms - made <= 2_000 + 3 * 60
    assert len(transport.heard) == 1
    await bench.interrupt()


async def test_two_halves_of_a_chunk_may_come_on_both_sides_of_a_pause(stage: Stage):
    await stage.say(1, audio(ramp(30)))
    await stage.advance(25)
    await stage.pause()
    await stage.say(1, audio(ramp(10, first=1 + 30 * MS)))
    await stage.resume()
    await stage.advance(100)
    assert times(stage.heard) == [0, 25]
    assert joined(stage.heard).tolist() == ramp(40).tolist()


async def test_a_resampler_goes_on_through_a_pause(stage: Stage):
    for index in range(10):
        if index == 5:
            await stage.pause()
            await stage.advance(500)
        await stage.say(1, OutputAudioFrame(np.full(320, 1_000, np.int16), 16_000))
    await stage.resume()
    await stage.end(1)
    await stage.advance(500)
    assert stage.facts[-2][1] == ResponsePlayedFrame(1, 200.0, "")
    assert joined(stage.heard)[2 * MS : -2 * MS].min() > 950, "no seam"


# --- the account --------------------------------------------------------------------------------------------


async def test_a_response_that_has_nothing_left_to_play_is_played(stage: Stage):
    """Its last chunk is written, and heard to its end."""
    await stage.say(1, audio(ramp(40), ("hello", 0.0)))
    await stage.end(1)
    await stage.advance(30)
    await stage.pause()
    assert stage.facts[1:] == [(30, ResponsePlayedFrame(1, 40.0, "hello")), (30, BotStoppedSpeakingFrame(1))]
    assert stage.output.idle()
    await stage.resume()
    await stage.advance(1_000)
    assert len(stage.facts) == 3


async def test_its_end_may_come_in_the_pause(stage: Stage):
    await stage.say(1, audio(ramp(40)))
    await stage.advance(30)
    await stage.pause()
    await stage.advance(1_000)
    await stage.end(1)
    assert stage.facts[1:] == [(30, BotStoppedSpeakingFrame(1)), (1_030, ResponsePlayedFrame(1, 40.0, ""))]
    assert stage.output.idle()


async def test_it_is_over_when_the_next_one_comes_in_the_pause(stage: Stage):
    await stage.say(1, audio(ramp(40)))
    await stage.advance(30)
    await stage.pause()
    await stage.say(2, audio(ramp(20)))
    assert stage.facts[1:] == [(30, BotStoppedSpeakingFrame(1)), (30, ResponsePlayedFrame(1, 40.0, ""))]
    await stage.advance(1_000)
    await stage.resume()
    assert stage.facts[3:] == [(1_030, BotStartedSpeakingFrame(2))]
    await stage.advance(500)


async def test_a_response_without_a_sound_is_played_in_a_pause_too(stage: Stage):
    await stage.pause()
    await stage.end(1)
    assert stage.facts == [(0, ResponsePlayedFrame(1, 0.0, ""))]


async def test_a_cut_in_a_pause_is_answered_with_what_was_heard_before_it(stage: Stage):
    await stage.say(1, audio(ramp(1_000), ("one", 0.0), ("two", 59.9), ("three", 60.0)))
    await stage.advance(50)
    await stage.pause()
    await stage.advance(2_000)
    await stage.bench.interrupt("words")
    await stage.bench.interrupt("words")
    assert stage.facts[1:] == [
        (50, BotStoppedSpeakingFrame(1)),
        (2_050, ResponseCutFrame(1, 60.0, "one two", "words")),
    ]
    assert stage.output.idle()


async def test_the_pause_outlives_the_cut(stage: Stage):
    await stage.say(1, audio(ramp(1_000)))
    await stage.advance(50)
    await stage.pause()
    await stage.bench.interrupt()
    await stage.say(2, audio(ramp(40, first=5_000)))
    await stage.end(2)
    await stage.advance(1_000)
    assert len(stage.heard) == 3
    await stage.resume()
    await stage.advance(1_000)
    assert times(stage.heard)[3:] == [1_050, 1_070]
    assert joined(stage.heard[3:]).tolist() == ramp(40, first=5_000).tolist()


async def test_a_cut_in_a_pause_leaves_newer_responses(stage: Stage):
    await stage.say(1, audio(ramp(100)))
    await stage.end(1)
    await stage.say(2, audio(ramp(20, first=5_000)))
    await stage.end(2)
    await stage.advance(30)
    await stage.pause()
    await stage.bench.interrupt(response=1)
    assert not stage.output.idle()
    await stage.resume()
    await stage.advance(500)
    assert joined(stage.heard).tolist() == ramp(40).tolist() + ramp(20, first=5_000).tolist()
    assert [fact for _, fact in stage.facts[2:]] == [
        ResponseCutFrame(1, 40.0, ""),
        BotStartedSpeakingFrame(2),
        ResponsePlayedFrame(2, 20.0, ""),
        BotStoppedSpeakingFrame(2),
    ]


async def test_a_gap_is_not_announced_after_a_pause(stage: Stage):
    await stage.say(1, audio(ramp(40)))
    await stage.advance(100)
    await stage.pause()
    await stage.advance(1_000)
    await stage.resume()
    await stage.advance(1_000)
    assert stage.facts[1:] == [(100, BotStoppedSpeakingFrame(1))]
    await stage.say(1, audio(ramp(40)))
    await stage.end(1)
    await stage.advance(100)
    assert [at for at, _ in stage.facts[2:]] == [2_100, 2_140, 2_140]


async def test_a_pause_in_a_gap_that_was_announced_says_nothing(stage: Stage):
    await stage.say(1, audio(ramp(40)))
    await stage.advance(1_000)
    await stage.pause()
    await stage.advance(1_000)
    assert [at for at, _ in stage.facts] == [0, 340]


async def test_an_output_that_is_used_again_is_not_paused(harness: Any):
    transport = MemoryTransport(output_rate=RATE)
    first = await harness(transport.output())
    await first.send(audio(ramp(1_000)), response=1)
    await first.send(PausePlayoutFrame())
    await first.close()
    heard = len(transport.heard)
    second = await harness(transport.output())
    await second.send(audio(ramp(40)), ResponseEndFrame(), response=1)
    await second.advance(ms=100)
    assert joined(transport.heard[heard:]).tolist() == ramp(40).tolist()


# --- devices ------------------------------------------------------------------------------------------------


class Device(MemoryTransport):
    """Notes what it is told. ``broken``: it fails when it is to go on."""

    def __init__(self, *, broken: bool = False) -> None:
        super().__init__(output_rate=RATE)
        self.did: list[str] = []
        self.broken = broken

    def send(self, samples: Samples, due_ns: int) -> None:
        super().send(samples, due_ns)
        self.did.append("send")

    def clear(self) -> None:
        self.did.append("clear")

    def pause(self) -> None:
        self.did.append("halt")

    def resume(self) -> None:
        self.did.append("go on")
        if self.broken:
            raise OSError("no sound card any more")


async def test_a_device_is_told_to_keep_what_it_has(harness: Any):
    device = Device()
    bench = await harness(device.output())
    await bench.send(ResumePlayoutFrame(), audio(ramp(40)), response=1)
    await bench.send(PausePlayoutFrame(), PausePlayoutFrame())
    await bench.advance(ms=100)
    await bench.send(ResumePlayoutFrame(), ResumePlayoutFrame())
    await bench.send(PausePlayoutFrame())
    await bench.interrupt()
    assert device.did == ["send", "halt", "go on", "send", "halt", "clear"]


async def test_a_device_forgets_a_jingle_that_is_cut_in_a_pause(harness: Any):
    """Of which there is no record, and which had stopped: nothing to tell, and still it must not be heard."""
    device = Device()
    bench = await harness(device.output())
    await bench.send(ResponseEndFrame(), audio(ramp(20)), response=1)
    await bench.send(PausePlayoutFrame())
    await bench.interrupt()
    assert device.did == ["send", "halt", "clear"]


async def test_a_device_that_fails_to_go_on_costs_no_audio(harness: Any):
    device = Device(broken=True)
    bench = await harness(device.output())
    await bench.send(audio(ramp(100)), ResponseEndFrame(), response=1)
    await bench.send(PausePlayoutFrame())
    await bench.advance(ms=100)
    await bench.send(ResumePlayoutFrame())
    bench.expect_error("no sound card any more", error="OSError")
    await bench.advance(ms=500)
    assert joined(device.heard).tolist() == ramp(100).tolist()


# --- runs ---------------------------------------------------------------------------------------------------


CUES = [
    *[(10, "ask"), (333, "pause"), (1_000, "resume"), (7, "pause"), (3, "resume"), (500, "pause"), (5, "cut")],
    *[(0, "ask"), (2_000, "resume"), (4_000, "nothing")],
]


class SlowVoice(Speaker):
    @handles(TextFrame)
    async def talk(self, frame: TextFrame) -> AsyncIterator[Frame]:
        for index in range(30):
            await self.clock.sleep(0.01)
            yield audio(ramp(43 + index, first=index * 500), (f"w{index}", 3.0))
        yield ResponseEndFrame()


async def test_a_recording_replays_pauses(tmp_path: Path):
    facts = await record_and_replay(lambda: show(CUES, SlowVoice()), tmp_path / "show.jsonl")
    records = [fact for fact in facts if isinstance(fact, ResponsePlayedFrame | ResponseCutFrame)]
    assert [type(record).__name__ for record in records] == ["ResponseCutFrame", "ResponsePlayedFrame"]


async def test_a_pause_is_silence_in_a_file(tmp_path: Path):
    transport = FileTransport(output=tmp_path / "talk.wav", output_rate=RATE)

    class Once(Speaker):
        @source
        async def play(self) -> AsyncIterator[Frame]:
            yield audio(ramp(100))
            yield ResponseEndFrame()
            await self.clock.sleep(0.05)
            yield PausePlayoutFrame()
            await self.clock.sleep(9.95)
            yield ResumePlayoutFrame()

    await PipelineWorker(Pipeline([Once(), transport.output()]), clock=VirtualClock()).run()
    bot = soundfile.read(tmp_path / "talk.wav", dtype="int16")[0][:, 1]
    assert bot[: 60 * MS].tolist() == ramp(60).tolist()
    assert not bot[60 * MS : 10_000 * MS].any()
    assert bot[10_000 * MS :].tolist() == ramp(100)[60 * MS :].tolist()


# --- whatever happens ---------------------------------------------------------------------------------------

STEPS = st.one_of(
    st.tuples(st.just("say"), st.integers(0, 90)),
    st.tuples(st.just("new"), st.integers(0, 90)),
    st.tuples(st.just("end"), st.just(0)),
    st.tuples(st.just("pass"), st.integers(1, 90)),
    st.tuples(st.just("pause"), st.just(0)),
    st.tuples(st.just("resume"), st.just(0)),
    st.tuples(st.just("cut"), st.just(0)),
)


@dataclass
class Talk:
    """A talk at 1000 Hz, so that numbers are both samples and ms, and what has to be true of it."""

    bench: Any
    notes: Notes
    transport: MemoryTransport
    given: dict[int, list[int]] = field(default_factory=dict[int, list[int]])
    newest: int = 0
    ended: bool = True
    paused: bool = False
    cut: set[int] = field(default_factory=set[int])
    heard_at_cut: list[int] = field(default_factory=list[int])

    async def step(self, what: str, count: int) -> None:
        before = len(self.transport.heard)
        stays = self.paused and what != "resume"
        match what:
            case "say" | "new":
                await self._say(count, new=what == "new" or self.ended)
            case "end" if not self.ended:
                self.ended = True
                await self.bench.send(ResponseEndFrame(), response=self.newest)
            case "pass":
                await self.bench.advance(ms=count)
            case "pause":
                self.paused = True
                await self.bench.send(PausePlayoutFrame())
                assert self._speaking() == 0
            case "resume":
                self.paused = False
                await self.bench.send(ResumePlayoutFrame())
            case "cut":
                self.cut |= self.given.keys() - self._recorded()
                self.ended = True
                self.heard_at_cut.append(before)
                await self.bench.interrupt()
            case _:
                pass
        assert not stays or len(self.transport.heard) == before, "nothing is played in a pause"
        assert not self.transport.output().idle() or self._written() == self._wanted(), "what waits is not forgotten"

    async def _say(self, count: int, *, new: bool) -> None:
        self.newest += new
        self.ended = False
        given = self.given.setdefault(self.newest, [])
        samples = [(self.newest * 500 + (len(given) + index) % 499) + 1 for index in range(count)]
        given += samples
        await self.bench.send(OutputAudioFrame(np.array(samples, np.int16), 1_000), response=self.newest)

    def _speaking(self) -> int:
        speaking = 0
        for _, fact in self.notes.facts:
            if isinstance(fact, BotStartedSpeakingFrame):
                assert speaking == 0, "it has started already"
                speaking = fact.response
            elif isinstance(fact, BotStoppedSpeakingFrame):
                assert speaking == fact.response, "it has not started"
                speaking = 0
        return speaking

    def _recorded(self) -> set[int]:
        facts = (fact for _, fact in self.notes.facts)
        return {fact.response for fact in facts if isinstance(fact, ResponsePlayedFrame | ResponseCutFrame)}

    def _written(self) -> list[int]:
        return [value for value in joined(self.transport.heard).tolist() if value]

    def _wanted(self) -> list[int]:
        """All that came, without what was cut off."""
        heard = {response: sum((value - 1) // 500 == response for value in self._written()) for response in self.cut}
        return [value for response, given in self.given.items() for value in given[: heard.get(response)]]

    def check(self) -> None:
        assert self._written() == self._wanted(), "nothing is lost, doubled or out of order"
        facts = [fact for _, fact in self.notes.facts]
        records = [fact for fact in facts if isinstance(fact, ResponsePlayedFrame | ResponseCutFrame)]
        assert [record.response for record in records] == list(self.given), "one record for each"
        for record in records:
            written = sum((value - 1) // 500 == record.response for value in self._written())
            assert record.heard_ms == written
            assert isinstance(record, ResponseCutFrame) == (record.response in self.cut)
        assert self._speaking() == 0
        self._check_times(self.transport.heard)

    def _check_times(self, heard: list[HeardAudio]) -> None:
        for index, (one, next_one) in enumerate(itertools.pairwise(heard)):
            if index + 1 not in self.heard_at_cut:
                assert next_one.at_ns - one.at_ns >= 20 * NS_PER_MS, "two chunks at a time"


async def talk(steps: list[tuple[str, int]]) -> None:
    notes, transport = Notes(), MemoryTransport(output_rate=1_000)
    async with Harness() as harness:
        a_talk = Talk(await harness([notes, transport.output()]), notes, transport)
        for what, count in [*steps, ("resume", 0), ("end", 0), ("pass", 10_000)]:
            await a_talk.step(what, count)
        a_talk.check()


@given(st.lists(STEPS, max_size=40))
@settings(max_examples=examples(300))
def test_whatever_happens_no_sample_is_lost_or_doubled(steps: list[tuple[str, int]]):
    asyncio.run(talk(steps))

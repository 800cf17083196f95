"""The output: pacing, back pressure, interruptions, and what is said to have been heard. To the sample."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import (
    AudioFormat,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    FrameProcessor,
    OutputAudioFrame,
    Pipeline,
    PipelineWorker,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    Samples,
    SpokenWord,
    TalkButtonFrame,
    TextFrame,
    TransportError,
    VirtualClock,
    handles,
    source,
)
from voxline.tests.pipeline.engine.rig import Rig
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
from voxline.transports.memory import MemoryTransport

# --- pacing -------------------------------------------------------------------------------------------------


async def test_each_20_ms_are_played_when_they_are_due(stage: Stage):
    await stage.bench.advance(ms=1_000)
    await stage.say(1, audio(ramp(100)))
    await stage.end(1)
    await stage.bench.advance(ms=500)
    assert times(stage.heard) == [1_000, 1_020, 1_040, 1_060, 1_080]
    assert joined(stage.heard).tolist() == ramp(100).tolist()
    assert stage.facts == [
        (1_000, BotStartedSpeakingFrame(1)),
        (1_100, ResponsePlayedFrame(1, 100.0, "")),
        (1_100, BotStoppedSpeakingFrame(1)),
    ]


async def test_chunks_of_any_size_are_played_without_a_seam(stage: Stage):
    sizes = [3, 61, 20, 1, 40, 75]
    sound, at = ramp(sum(sizes)), 0
    for size in sizes:
        await stage.say(1, audio(sound[at * MS : (at + size) * MS]))
        at += size
    await stage.end(1)
    await stage.bench.advance(ms=500)
    assert times(stage.heard) == [20 * k for k in range(10)]
    assert joined(stage.heard).tolist() == sound.tolist()


async def test_the_last_chunk_is_filled_up_with_silence(stage: Stage):
    await stage.say(1, audio(ramp(30)))
    await stage.end(1)
    await stage.bench.advance(ms=100)
    assert joined(stage.heard).tolist() == ramp(30).tolist() + [0] * 10 * MS
    assert stage.facts[1] == (40, ResponsePlayedFrame(1, 30.0, ""))


async def test_an_idle_output_costs_nothing(stage: Stage):
    await stage.say(1, audio(ramp(40)))
    await stage.end(1)
    await stage.bench.advance(ms=100)
    assert stage.bench.clock.next_ns is None
    assert stage.output.idle()


async def test_after_a_stall_of_the_loop_it_is_back_on_schedule(harness: Any):
    class Staller(FrameProcessor):
        @handles(TextFrame)
        async def stall(self, frame: TextFrame) -> None:
            assert isinstance(self.clock, VirtualClock)
            self.clock.set(self.clock.now_ns() + 130 * NS_PER_MS)

    transport, notes = MemoryTransport(output_rate=RATE), Notes()
    bench = await harness([Staller(), notes, transport.output()])
    await bench.send(audio(ramp(400)), ResponseEndFrame(), response=1)
    await bench.advance(ms=50)
    await bench.send(TextFrame("nothing runs for 130 ms"), response=1)
    await bench.advance(ms=1)
    assert times(transport.heard) == [20 * k for k in range(10)], (
        "what fell due meanwhile, with the times it was due at"
    )
    await bench.advance(ms=500)
    assert times(transport.heard) == [20 * k for k in range(20)]
    assert joined(transport.heard).tolist() == ramp(400).tolist()
    assert notes.facts[1] == (400, ResponsePlayedFrame(1, 400.0, ""))


async def test_an_inbox_that_runs_over_does_not_silence_the_bot() -> None:
    class Slow(FrameProcessor):
        @handles(TextFrame)
        async def wait(self, frame: TextFrame) -> None:
            await self.clock.sleep(0.1)

    transport = MemoryTransport(output_rate=RATE)
    async with Rig(Slow(), transport.output(), inbox_frames=3) as rig:
        await rig.send(audio(ramp(200)), ResponseEndFrame(), response=1)
        # While it is held up, so many facts come that the tick of the playout has no room.
        rig.post(TextFrame("nothing is taken for 100 ms"), response=1)
        await rig.settle()
        rig.post(*(TalkButtonFrame(pressed=True) for _ in range(3)))
        await rig.advance(1)
        assert joined(transport.heard).tolist() == ramp(200).tolist()
        assert transport.output().idle()


async def test_a_write_that_raises_costs_its_own_20_ms(harness: Any):
    class Broken(MemoryTransport):
        def send(self, samples: Samples, due_ns: int) -> None:
            if due_ns == 20 * NS_PER_MS:
                raise OSError("the device is busy")
            super().send(samples, due_ns)

    transport = Broken(output_rate=RATE)
    bench = await harness(transport.output())
    await bench.send(audio(ramp(80)), ResponseEndFrame(), response=1)
    await bench.advance(ms=200)
    assert [error.error for error in bench.errors] == ["OSError"]
    assert times(transport.heard) == [0, 40, 60]
    assert bench.up[-2:] == [ResponsePlayedFrame(1, 80.0, ""), BotStoppedSpeakingFrame(1)]


# --- formats ------------------------------------------------------------------------------------------------


async def test_another_rate_is_resampled_and_counted_in_output_time(stage: Stage):
    quiet = np.zeros(441, np.int16)
    for index in range(50):
        await stage.say(1, OutputAudioFrame(quiet, 22_050, (SpokenWord(f"w{index}", 10.0),)))
        await stage.bench.advance(ms=20)
    await stage.end(1)
    await stage.bench.advance(ms=200)
    played = stage.facts[-2][1]
    assert isinstance(played, ResponsePlayedFrame)
    assert played.heard_ms == pytest.approx(1_000, abs=0.05)


async def test_a_word_keeps_its_time_through_the_resampler(stage: Stage):
    for index in range(10):
        await stage.say(1, OutputAudioFrame(np.zeros(320, np.int16), 16_000, (SpokenWord(f"w{index}", 0.0),)))
    await stage.bench.advance(ms=90)
    await stage.bench.interrupt()
    assert stage.facts[-2] == (90, ResponseCutFrame(1, 100.0, "w0 w1 w2 w3 w4"))


async def test_the_rate_may_change_within_a_response(stage: Stage):
    await stage.say(1, OutputAudioFrame(np.full(1_600, 100, np.int16), 16_000))
    await stage.say(1, OutputAudioFrame(np.full(4_800, 100, np.int16), 48_000))
    await stage.end(1)
    await stage.bench.advance(ms=500)
    assert stage.facts[1] == (200, ResponsePlayedFrame(1, 200.0, ""))


async def test_stereo_is_mixed_to_mono(stage: Stage):
    left, right = np.full(480, 100, np.int16), np.full(480, 300, np.int16)
    await stage.say(1, OutputAudioFrame(np.stack([left, right], axis=1), RATE))
    assert joined(stage.heard).tolist() == [200] * 480


def test_a_rate_that_has_no_20_ms_is_refused():
    with pytest.raises(TransportError, match="11025 Hz has no whole number"):
        MemoryTransport(output_rate=11_025)


# --- interruptions ------------------------------------------------------------------------------------------


async def test_an_interruption_is_silence_within_one_tick(stage: Stage):
    await stage.say(1, audio(ramp(1_000), ("one", 0.0), ("two", 59.9), ("three", 60.0)))
    await stage.bench.advance(ms=50)
    await stage.bench.interrupt()
    await stage.bench.advance(ms=1_000)
    assert times(stage.heard) == [0, 20, 40]
    assert stage.facts == [
        (0, BotStartedSpeakingFrame(1)),
        (50, ResponseCutFrame(1, 60.0, "one two", "interrupted")),
        (50, BotStoppedSpeakingFrame(1)),
    ]
    assert stage.bench.clock.next_ns is None


async def test_the_second_interruption_does_nothing(stage: Stage):
    await stage.say(1, audio(ramp(1_000)))
    await stage.bench.advance(ms=50)
    await stage.bench.interrupt()
    before = [*stage.facts]
    await stage.bench.interrupt()
    assert stage.facts == before


async def test_each_response_that_has_begun_to_arrive_is_cut_once(stage: Stage):
    await stage.say(1, audio(ramp(40), ("one", 0.0)))
    await stage.end(1)
    await stage.say(2, audio(ramp(40), ("two", 0.0)))
    await stage.bench.advance(ms=50)
    await stage.bench.interrupt("button")
    assert stage.facts[1:] == [
        (40, ResponsePlayedFrame(1, 40.0, "one")),
        (40, BotStoppedSpeakingFrame(1)),
        (40, BotStartedSpeakingFrame(2)),
        (50, ResponseCutFrame(2, 20.0, "two", "button")),
        (50, BotStoppedSpeakingFrame(2)),
    ]


async def test_the_next_response_is_played_at_once_after_an_interruption(stage: Stage):
    await stage.say(1, audio(ramp(1_000)))
    await stage.bench.advance(ms=50)
    await stage.bench.interrupt()
    await stage.say(2, audio(ramp(20, first=5_000)))
    assert stage.heard[-1].at_ns == 50 * NS_PER_MS
    assert stage.heard[-1].samples.tolist() == ramp(20, first=5_000).tolist()
    await stage.bench.advance(ms=1_000)


async def test_a_resampler_does_not_carry_over_what_was_cut(stage: Stage):
    await stage.say(1, OutputAudioFrame(np.full(16_000, 20_000, np.int16), 16_000))
    await stage.bench.advance(ms=50)
    await stage.bench.interrupt()
    before = len(stage.heard)
    await stage.say(2, OutputAudioFrame(np.zeros(16_000, np.int16), 16_000))
    await stage.bench.advance(ms=1_500)
    assert not joined(stage.heard[before:]).any()


async def test_a_device_is_told_to_forget_what_it_has(harness: Any):
    class Device(MemoryTransport):
        cleared = 0

        def clear(self) -> None:
            self.cleared += 1

    transport = Device(output_rate=RATE)
    bench = await harness(transport.output())
    await bench.send(audio(ramp(100)), response=1)
    await bench.interrupt()
    await bench.interrupt()
    assert transport.cleared == 1


# --- slow and late ------------------------------------------------------------------------------------------


async def test_a_short_gap_is_not_announced(stage: Stage):
    await stage.say(1, audio(ramp(40)))
    await stage.bench.advance(ms=300)
    await stage.say(1, audio(ramp(40)))
    await stage.end(1)
    await stage.bench.advance(ms=500)
    assert times(stage.heard) == [0, 20, 300, 320]
    assert [fact for _, fact in stage.facts] == [
        BotStartedSpeakingFrame(1),
        ResponsePlayedFrame(1, 80.0, ""),
        BotStoppedSpeakingFrame(1),
    ]


async def test_a_long_gap_is_a_pause(stage: Stage):
    await stage.say(1, audio(ramp(40)))
    await stage.bench.advance(ms=1_000)
    assert stage.output.idle()
    await stage.say(1, audio(ramp(20)))
    await stage.end(1)
    await stage.bench.advance(ms=100)
    assert stage.facts == [
        (0, BotStartedSpeakingFrame(1)),
        (340, BotStoppedSpeakingFrame(1)),
        (1_000, BotStartedSpeakingFrame(1)),
        (1_020, ResponsePlayedFrame(1, 60.0, "")),
        (1_020, BotStoppedSpeakingFrame(1)),
    ]


async def test_a_response_cut_in_its_pause_has_stopped_already(stage: Stage):
    await stage.say(1, audio(ramp(40)))
    await stage.bench.advance(ms=1_000)
    await stage.bench.interrupt()
    assert stage.facts[2:] == [(1_000, ResponseCutFrame(1, 40.0, ""))]


async def test_half_a_chunk_waits_a_moment_for_its_other_half(stage: Stage):
    await stage.say(1, audio(ramp(10)))
    await stage.bench.advance(ms=5)
    await stage.say(1, audio(ramp(10, first=1 + 10 * MS)))
    assert times(stage.heard) == [5]
    assert joined(stage.heard).tolist() == ramp(20).tolist()
    await stage.bench.advance(ms=100)


async def test_half_a_chunk_that_is_the_last_waits_for_nothing(stage: Stage):
    await stage.say(1, audio(ramp(10)))
    await stage.bench.advance(ms=5)
    await stage.end(1)
    assert times(stage.heard) == [5]
    await stage.bench.advance(ms=100)
    assert stage.facts[1] == (25, ResponsePlayedFrame(1, 10.0, ""))


async def test_half_a_chunk_waits_no_longer_than_that(stage: Stage):
    await stage.say(1, audio(ramp(10)))
    await stage.bench.advance(ms=100)
    assert times(stage.heard) == [20]
    assert joined(stage.heard).tolist() == ramp(10).tolist() + [0] * 10 * MS


async def test_the_end_may_come_when_all_is_played(stage: Stage):
    await stage.say(1, audio(ramp(40)))
    await stage.bench.advance(ms=100)
    await stage.end(1)
    assert stage.facts[1:] == [(100, ResponsePlayedFrame(1, 40.0, "")), (100, BotStoppedSpeakingFrame(1))]


async def test_a_response_without_a_sound_is_played_at_once(stage: Stage):
    await stage.end(1)
    assert stage.facts == [(0, ResponsePlayedFrame(1, 0.0, ""))]


async def test_audio_of_an_older_response_is_dropped_and_said_so_once(stage: Stage):
    await stage.say(1, audio(ramp(40)))
    await stage.say(2, audio(ramp(40)))
    await stage.say(1, audio(ramp(40)), audio(ramp(40)))
    errors = stage.bench.errors
    assert [error.error for error in errors] == ["FrameError"]
    assert "audio of response 1 came after" in errors[0].message
    assert stage.output.refused == 2
    await stage.bench.advance(ms=1_000)
    assert len(stage.heard) == 4


async def test_audio_that_nobody_gave_a_number_to_can_be_cut(harness: Any):
    transport = MemoryTransport(output_rate=RATE)
    bench = await harness(transport.output())
    await bench.send(audio(ramp(100)))
    await bench.interrupt()
    assert bench.up[-2] == ResponseCutFrame(1, 20.0, "")


# --- bounds -------------------------------------------------------------------------------------------------


class Talker(Speaker):
    """A voice much quicker than speech: a minute in chunks of 60 ms."""

    def __init__(self) -> None:
        self.made_ms = 0

    @handles(TextFrame)
    async def talk(self, frame: TextFrame) -> AsyncIterator[Frame]:
        for index in range(1_000):
            self.made_ms += 60
            yield audio(ramp(60), (f"w{index}", 0.0))
        yield ResponseEndFrame()


async def test_whoever_makes_the_audio_is_held_two_seconds_ahead(harness: Any):
    talker, notes, transport = Talker(), Notes(), MemoryTransport(output_rate=RATE)
    bench = await harness([notes, talker, transport.output()])
    await bench.send(TextFrame("a minute"), response=1)
    for second in range(57):
        ahead = talker.made_ms - second * 1_000
        assert 2_000 <= ahead <= 2_000 + 3 * 60, "the buffer, the chunk that filled it, and the one in its hand"
        await bench.advance(ms=1_000)
    await bench.advance(ms=4_000)
    assert len(transport.heard) == 3_000
    assert notes.facts[1][0] == 60_000


async def test_a_voice_that_is_held_is_closed_by_an_interruption(harness: Any):
    talker, notes, transport = Talker(), Notes(), MemoryTransport(output_rate=RATE)
    bench = await harness([notes, talker, transport.output()])
    await bench.send(TextFrame("a minute"), response=1)
    await bench.advance(ms=110)
    await bench.interrupt()
    made = talker.made_ms
    assert notes.facts[1:] == [(110, ResponseCutFrame(1, 120.0, "w0 w1")), (110, BotStoppedSpeakingFrame(1))]
    await bench.send(TextFrame("again"), response=2)
    assert talker.made_ms > made
    await bench.interrupt()


async def test_what_nobody_can_hold_back_is_an_error_that_says_so(harness: Any):
    transport = MemoryTransport(output_rate=RATE)
    bench = await harness(transport.output())
    second = audio(ramp(1_000))
    for _ in range(62):
        await bench.send(second, response=1)
    (error,) = bench.errors
    assert error.error == "QueueOverflowError"
    assert "61.0 s of audio wait to be played; the bound is 60 s" in error.message
    await bench.send(ResponseEndFrame(), response=1)
    await bench.advance(ms=70_000)
    assert isinstance(bench.up[-2], ResponsePlayedFrame)


async def test_a_worker_that_drains_waits_for_playout(harness: Any):
    class Jingle(Speaker):
        @source
        async def play(self) -> AsyncIterator[Frame]:
            yield audio(ramp(1_000))

    transport, clock = MemoryTransport(output_rate=RATE), VirtualClock()
    outcome = await PipelineWorker(Pipeline([Jingle(), transport.output()]), clock=clock).run()
    assert outcome.reason == "ended"
    assert len(transport.heard) == 50
    assert transport.heard[-1].samples[-1] != 0


async def test_an_output_can_be_used_again(harness: Any):
    transport = MemoryTransport(output_rate=RATE)
    first = await harness(transport.output())
    await first.send(audio(ramp(1_000)), response=1)
    await first.close()
    second = await harness(transport.output())
    heard = len(transport.heard)
    await second.send(audio(ramp(40)), ResponseEndFrame(), response=1)
    await second.advance(ms=100)
    assert joined(transport.heard[heard:]).tolist() == ramp(40).tolist()


# --- recordings ---------------------------------------------------------------------------------------------


CUES = [(100, "ask"), (515, "cut"), (300, "ask"), (3_000, "nothing")]


class SlowVoice(FrameProcessor):
    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((22_050,), (1,))}

    @handles(TextFrame)
    async def talk(self, frame: TextFrame) -> AsyncIterator[Frame]:
        for index in range(12):
            await self.clock.sleep(0.01 if index != 6 else 0.35)
            yield OutputAudioFrame(
                np.full(1_000 + 37 * index, index, np.int16), 22_050, (SpokenWord(f"w{index}", 3.0),)
            )
        yield ResponseEndFrame()


async def test_a_recording_replays_what_was_heard(tmp_path: Path):
    facts = await record_and_replay(lambda: show(CUES, SlowVoice()), tmp_path / "show.jsonl")
    assert [type(fact).__name__ for fact in facts].count("ResponseCutFrame") == 1


async def test_the_same_run_twice_is_the_same():
    runs: list[tuple[list[tuple[float, Frame]], list[float]]] = []
    for _ in range(2):
        pipeline, notes, transport = show(CUES, SlowVoice())
        await PipelineWorker(pipeline, clock=VirtualClock()).run()
        runs.append((notes.facts, times(transport.heard)))
    assert runs[0] == runs[1]


# --- the transport in memory --------------------------------------------------------------------------------


async def test_what_is_sent_is_heard_as_a_microphone_hears_it(harness: Any):
    transport = MemoryTransport()
    bench = await harness([transport.input()])
    transport.say(np.arange(800, dtype=np.int16))
    await bench.advance(ms=39)
    assert [frame.pts_ns for frame in bench.down] == [0]
    transport.hang_up()
    await bench.settle()
    await bench.advance(ms=20)
    assert [getattr(frame, "pts_ns", "end") for frame in bench.down] == [0, 20 * NS_PER_MS]

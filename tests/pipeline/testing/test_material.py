"""Audio material has the length, level and content that it says."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st
from voxline.pipeline import InputAudioFrame, OutputAudioFrame, RecordingError, TextFrame
from voxline.pipeline.audio import SILENCE_DBFS, rms_dbfs
from voxline.pipeline.testing.material import (
    SPEECH_DBFS,
    at_level,
    chunks,
    join,
    mix,
    noise,
    silence,
    speech,
    tone,
)


@pytest.mark.parametrize("dbfs", [-3.01, -12.0, -40.0])
@pytest.mark.parametrize("rate", [8_000, 16_000, 48_000])
def test_a_tone_has_its_length_pitch_and_level(rate: int, dbfs: float) -> None:
    samples = tone(440, ms=500, rate=rate, dbfs=dbfs)
    assert samples.shape == (rate // 2,)
    assert samples.dtype == np.int16
    assert rms_dbfs(samples) == pytest.approx(dbfs, abs=0.05)
    assert np.argmax(np.abs(np.fft.rfft(samples))) * 2 == 440


def test_a_tone_that_cannot_be_is_an_error() -> None:
    with pytest.raises(ValueError, match=r"more than 0 and less than 4000"):
        tone(5_000, ms=10, rate=8_000)
    with pytest.raises(ValueError, match=r"at -3.01 dBFS, not 0"):
        tone(440, ms=10, dbfs=0)


def test_noise_is_the_same_for_the_same_seed() -> None:
    assert np.array_equal(noise(100, seed=1), noise(100, seed=1))
    assert not np.array_equal(noise(100, seed=1), noise(100, seed=2))
    assert rms_dbfs(noise(1_000, dbfs=-30)) == pytest.approx(-30, abs=0.05)
    assert noise(0).shape == (0,)


def test_silence_is_silent() -> None:
    assert silence(20, 8_000).shape == (160,)
    assert rms_dbfs(silence(20)) == SILENCE_DBFS
    assert np.array_equal(at_level(silence(20), -10), silence(20))


def test_a_mix_is_as_long_as_the_longest_and_clips() -> None:
    loud = np.full(10, 30_000, np.int16)
    assert mix(loud, loud[:5]).tolist() == [32_767] * 5 + [30_000] * 5
    assert mix().shape == (0,)


@given(ms=st.floats(1, 100), length=st.integers(0, 5_000), rate=st.sampled_from([8_000, 16_000, 44_100]))
def test_chunks_are_the_audio_and_nothing_is_lost(ms: float, length: int, rate: int) -> None:
    samples = np.arange(length, dtype=np.int16)
    frames = chunks(samples, rate, ms)
    assert np.array_equal(join(frames), samples)
    assert all(frame.duration_ms == pytest.approx(ms, abs=1_000 / rate) for frame in frames[:-1])
    assert [frame.pts_ns for frame in frames] == sorted(frame.pts_ns or 0 for frame in frames)


def test_chunks_carry_the_time_of_their_first_sample() -> None:
    assert [frame.pts_ns for frame in chunks(silence(60))] == [0, 20_000_000, 40_000_000]
    with pytest.raises(ValueError, match=r"have no samples at 8000 Hz"):
        chunks(silence(60), 8_000, 0.01)


def test_what_is_no_audio_is_left_out_of_a_join() -> None:
    frames = [TextFrame("a"), InputAudioFrame(tone(100, 20), 16_000), OutputAudioFrame(silence(20), 16_000)]
    assert np.array_equal(join(frames), np.concatenate([tone(100, 20), silence(20)]))
    assert join([]).shape == (0,)


@pytest.mark.parametrize(("rate", "channels", "kind"), [(44_100, 2, "wav"), (8_000, 1, "flac"), (16_000, 1, "wav")])
def test_speech_is_read_resampled_and_made_mono(tmp_path: Path, rate: int, channels: int, kind: str) -> None:
    path = tmp_path / f"a.{kind}"
    wave = tone(300, ms=1_000, rate=rate, dbfs=-20)
    soundfile.write(path, np.stack([wave] * channels, axis=1), rate)
    samples = speech(path)
    assert samples.dtype == np.int16
    assert len(samples) == pytest.approx(16_000, abs=80)
    assert rms_dbfs(samples) == pytest.approx(-20, abs=0.3)
    assert rms_dbfs(speech(path, dbfs=SPEECH_DBFS)) == pytest.approx(SPEECH_DBFS, abs=0.05)
    assert len(speech(path, start_ms=250, ms=500)) == 8_000
    assert len(speech(path, 8_000, ms=100)) == 800


def test_a_file_that_is_no_audio_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=r"missing.wav cannot be read as audio: No such file"):
        speech(tmp_path / "missing.wav")
    (tmp_path / "text.wav").write_text("this is no audio at all\n" * 50)
    with pytest.raises(RecordingError, match=r"text.wav cannot be read as audio"):
        speech(tmp_path / "text.wav")

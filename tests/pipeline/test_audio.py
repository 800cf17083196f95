"""The mathematics of audio."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from voxline.pipeline import FrameError, Samples
from voxline.pipeline.audio import (
    SILENCE_DBFS,
    StreamResampler,
    gain,
    mix,
    mono,
    rms_dbfs,
    to_float32,
    to_int16,
)


def pcm(*values: int) -> Samples:
    return np.array(values, np.int16)


def tone(seconds: float, rate: int, hz: float = 440.0) -> Samples:
    return (np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate) * 20_000).astype(np.int16)


def test_every_int16_survives_the_way_to_floats_and_back():
    every = np.arange(-32_768, 32_768, dtype=np.int16)
    floats = to_float32(every)
    assert floats.dtype == np.float32
    assert to_int16(floats).dtype == np.int16
    assert (to_int16(floats) == every).all()


def test_floats_beyond_full_scale_are_clipped():
    assert to_int16([1.0, 1.5, -1.0, -7.0, np.inf, np.nan]).tolist() == [32_767, 32_767, -32_768, -32_768, 32_767, 0]


def test_gain_clips_and_a_gain_of_one_is_the_same_array():
    samples = pcm(100, -100, 30_000, -30_000)
    assert gain(samples, 2.0).tolist() == [200, -200, 32_767, -32_768]
    assert gain(samples, 0.5).tolist() == [50, -50, 15_000, -15_000]
    assert gain(samples, 1.0) is samples


def test_loudness_is_in_db_of_full_scale():
    assert rms_dbfs(np.full(100, -32_768, np.int16)) == pytest.approx(0.0)
    assert rms_dbfs(to_int16(np.sin(np.linspace(0, 200 * np.pi, 48_000)))) == pytest.approx(-3.01, abs=0.01)
    assert rms_dbfs(pcm(0, 0)) == SILENCE_DBFS
    assert rms_dbfs(pcm()) == SILENCE_DBFS


def test_mono_is_the_mean_of_all_channels():
    assert mono(np.array([[100, 300], [-32_768, -32_768]], np.int16)).tolist() == [200, -32_768]
    assert mono(np.array([[5], [6]], np.int16)).tolist() == [5, 6]
    samples = pcm(1, 2)
    assert mono(samples) is samples


def test_a_mix_is_as_long_as_the_longer_and_clipped():
    assert mix(pcm(1, 2, 3), pcm(10)).tolist() == [11, 2, 3]
    assert mix(pcm(30_000), pcm(30_000, -5)).tolist() == [32_767, -5]
    with pytest.raises(FrameError, match="as many channels"):
        mix(pcm(1), np.zeros((1, 2), np.int16))


@pytest.mark.parametrize(
    ("in_rate", "out_rate"), [(44_100, 16_000), (22_050, 24_000), (48_000, 16_000), (8_000, 48_000)]
)
def test_a_resampled_stream_has_the_length_and_the_sound(in_rate: int, out_rate: int):
    resampler = StreamResampler(in_rate, out_rate)
    sound, chunk = tone(1.0, in_rate), in_rate // 50
    parts: list[Samples] = []
    for at in range(0, len(sound), chunk):
        parts.append(resampler.push(sound[at : at + chunk]))
        assert len(parts[-1]) > 0, "20 ms are never answered with nothing"
        assert 0 < resampler.held_ms < 5
    parts.append(resampler.flush())
    out = np.concatenate(parts)
    assert out.dtype == np.int16
    assert len(out) == out_rate
    edge = out_rate // 50
    assert np.abs(out[edge:-edge].astype(int) - tone(1.0, out_rate)[edge:-edge]).max() < 40


def test_chunks_of_any_size_give_the_same_stream():
    sound = tone(0.5, 44_100)
    outs: list[list[int]] = []
    for size in (1, 441, 22_050):
        resampler = StreamResampler(44_100, 16_000)
        parts = [resampler.push(sound[at : at + size]) for at in range(0, len(sound), size)]
        outs.append(np.concatenate([*parts, resampler.flush()]).tolist())
    assert outs[0] == outs[1] == outs[2]


def test_stereo_stays_stereo():
    sound = np.stack([tone(0.2, 48_000), np.zeros(9_600, np.int16)], axis=1)
    resampler = StreamResampler(48_000, 16_000, channels=2)
    out = np.concatenate([resampler.push(sound), resampler.flush()])
    assert out.shape == (3_200, 2)
    assert np.abs(out[:, 0]).max() > 19_000
    assert not out[:, 1].any()


def test_equal_rates_pass_the_very_array():
    resampler, samples = StreamResampler(16_000, 16_000), pcm(1, 2, 3)
    assert resampler.push(samples) is samples
    assert len(resampler.flush()) == 0
    assert resampler.held_ms == 0


def test_after_a_flush_a_new_stream_begins():
    resampler, sound = StreamResampler(44_100, 16_000), tone(0.1, 44_100)
    first = np.concatenate([resampler.push(sound), resampler.flush()])
    assert np.concatenate([resampler.push(sound), resampler.flush()]).tolist() == first.tolist()
    assert len(resampler.flush()) == 0


def test_nothing_in_is_nothing_out():
    assert len(StreamResampler(44_100, 16_000).push(pcm())) == 0


def test_what_cannot_be_resampled_is_said():
    with pytest.raises(FrameError, match="1 or 2 channels"):
        StreamResampler(16_000, 8_000, channels=6)
    with pytest.raises(FrameError, match="rates above 0 Hz"):
        StreamResampler(0, 8_000)
    with pytest.raises(FrameError, match="for 1 channels got samples of shape"):
        StreamResampler(16_000, 8_000).push(np.zeros((10, 2), np.int16))


def test_importing_the_pipeline_does_not_load_ffmpeg():
    code = "import sys, voxline.pipeline.audio; sys.exit('av' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

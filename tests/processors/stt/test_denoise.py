"""Noise is taken out of speech; nothing else changes."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline.audio import rms_dbfs
from voxline.pipeline.frames import Samples
from voxline.pipeline.testing.material import mix, noise, silence, tone
from voxline.processors.stt.denoise import Denoiser, exponential_integral

PER_MS = 16


def denoised(samples: Samples, sizes: list[int] | None = None) -> Samples:
    """All of it, fed in pieces of these sizes (in samples, over and over)."""
    denoiser, out, at = Denoiser(), b"", 0
    while at < len(samples):
        for size in sizes or [320]:
            out += denoiser.feed(samples[at : at + size].tobytes())
            at += size
    return np.frombuffer(out + denoiser.flush(), "<i2").astype(np.int16)


def late(samples: Samples, after_ms: int) -> Samples:
    return np.concatenate([silence(after_ms), samples])


@settings(max_examples=25)
@given(st.integers(0, 9_000), st.lists(st.integers(1, 5_000), min_size=1, max_size=5))
def test_as_much_comes_out_as_goes_in_however_it_is_cut(length: int, sizes: list[int]):
    samples = noise(600, dbfs=-30, seed=1)[:length]
    out = denoised(samples, sizes)
    assert len(out) == length
    # Different cuts may change the last bit only.
    assert np.max(np.abs(out.astype(int) - denoised(samples)), initial=0) <= 1


def test_steady_noise_goes_and_what_stands_above_it_stays():
    speech = tone(440, 500, dbfs=-26)
    hiss = noise(1_300, dbfs=-45, seed=2)
    out = denoised(mix(hiss, late(speech, 400)))
    assert rms_dbfs(out[300 * PER_MS : 380 * PER_MS]) < -58
    assert rms_dbfs(out[1_000 * PER_MS :]) < -58
    assert rms_dbfs(out[450 * PER_MS : 850 * PER_MS]) == pytest.approx(-26, abs=0.5)


def test_noise_that_grows_while_nobody_speaks_is_learned():
    steps = [noise(500, dbfs=-50 + step, seed=step) for step in range(7)]
    assert rms_dbfs(denoised(np.concatenate(steps))[-400 * PER_MS :]) < -57


@pytest.mark.parametrize("room", [-120.0, -75.0, -65.0])
def test_in_a_quiet_room_nothing_is_changed(room: float):
    speech = late(tone(300, 500, dbfs=-26), 300)
    samples = mix(noise(800, dbfs=room, seed=5), speech) if room > -120 else speech
    assert np.array_equal(denoised(samples), samples)
    assert np.array_equal(denoised(samples[: 100 * PER_MS]), samples[: 100 * PER_MS])


def test_speech_that_begins_at_once_is_not_taken_for_noise():
    spoken = np.concatenate([np.concatenate([tone(300, 120, dbfs=-26), silence(60)]) for _ in range(6)])
    samples = mix(spoken, noise(len(spoken) // PER_MS, dbfs=-60, seed=6))
    assert rms_dbfs(denoised(samples)) == pytest.approx(rms_dbfs(samples), abs=1)


def test_the_same_audio_gives_the_same():
    samples = noise(700, dbfs=-30, seed=7)
    assert np.array_equal(denoised(samples), denoised(samples))


def test_the_exponential_integral():
    # Abramowitz and Stegun, table 5.1.
    assert exponential_integral(np.array([0.5, 1.0, 2.0, 10.0])) == pytest.approx(
        [0.5597736, 0.2193839, 0.0489005, 4.15697e-6], rel=2e-4
    )

"""smart-turn: the features that it hears, and files that are and are not its model."""

import asyncio
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from voxline.pipeline import MissingExtraError, ServiceError, SettingsError
from voxline.processors import SmartTurn
from voxline.processors.turn_detection.smart_turn import (
    AUDIO_SAMPLES,
    BANDS,
    FRAMES,
    SAMPLE_RATE,
    log_mel,
    mel_filters,
)
from voxline.tests.processors.subprocess.onnx_file import mean_model

Floats = np.ndarray[tuple[int, ...], np.dtype[np.float32]]


def tone(hz: float, seconds: float = 8.0, amplitude: float = 0.3) -> Floats:
    at = np.arange(int(seconds * SAMPLE_RATE)) / SAMPLE_RATE
    return (amplitude * np.sin(2 * np.pi * hz * at)).astype(np.float32)


def mel(hz: float) -> float:
    """Slaney's scale."""
    return hz * 3 / 200 if hz < 1_000 else 15 + 27 * np.log(hz / 1_000) / np.log(6.4)


# --- the features --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("hz", [100, 440, 1_000, 1_500, 3_000, 6_000, 7_800])
def test_a_tone_is_loudest_in_its_own_band(hz: float):
    features = log_mel(tone(hz))
    assert features.shape == (BANDS, FRAMES)
    assert features.dtype == np.float32
    loudest = features[:, 10:-10].argmax(axis=0)
    # Band n has its middle at n + 1 steps of 81.
    assert np.abs(loudest - (mel(hz) / mel(8_000) * 81 - 1)).max() <= 1


def test_the_scale_is_that_of_whisper():
    features = log_mel(np.random.default_rng(0).normal(0, 0.1, AUDIO_SAMPLES).astype(np.float32))
    # White noise of variance 1 under a window whose squares sum up to 150 has a power of 150; a band's area is 1 Hz,
    # of which a bin has 40.
    assert np.median(features) == pytest.approx((np.log10(150 * 0.7 / 40) + 4) / 4, abs=0.05)
    assert features.max() - features.min() <= 2


def test_it_does_not_matter_how_loud_it_is():
    assert np.allclose(log_mel(tone(440, amplitude=0.9)), log_mel(tone(440, amplitude=0.01)), atol=1e-3)


@pytest.mark.parametrize("length", [0, 1, 1_000, AUDIO_SAMPLES, AUDIO_SAMPLES + 5_000])
def test_silence_of_any_length_is_even(length: int):
    features = log_mel(np.zeros(length, np.float32))
    assert features.shape == (BANDS, FRAMES)
    assert features == pytest.approx(np.full((BANDS, FRAMES), (-10 + 4) / 4), abs=1e-6)


def test_short_audio_is_padded_in_front_and_long_audio_is_cut_there():
    short = log_mel(tone(440, 2))
    assert short[:, : FRAMES - 203].max() == short.min()
    assert short[:, FRAMES - 195 :].max() == short.max()
    long = np.concatenate([tone(3_000, 4), tone(440, 8)])
    assert np.array_equal(log_mel(long), log_mel(long[-AUDIO_SAMPLES:]))


def test_a_filter_is_a_triangle_of_area_one():
    filters = mel_filters()
    assert filters.shape == (BANDS, 201)
    assert (filters >= 0).all()
    assert (filters.max(axis=1) > 0).all()
    # Only triangles that are wide compared with the bins, 40 Hz apart, show their area.
    assert filters[40:].sum(axis=1) * 40 == pytest.approx(np.ones(BANDS - 40), abs=0.08)


@pytest.mark.parametrize(
    ("band", "bin", "weight"),
    [(0, 1, 0.02486259), (1, 2, 0.02287177), (33, 33, 0.01817747), (79, 190, 0.00223206), (79, 199, 0.00044876)],
)
def test_the_filters_are_those_that_whisper_ships(band: int, bin: int, weight: float):
    """From its mel_filters.npz."""
    assert mel_filters()[band, bin] == pytest.approx(weight, abs=1e-8)


# --- the file ------------------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _runtime() -> None:  # pyright: ignore[reportUnusedFunction]
    pytest.importorskip("onnxruntime")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "turn.onnx"
    path.write_bytes(mean_model())
    return path


async def test_the_model_is_given_the_features_and_its_answer_comes_back(path: Path):
    audio = tone(440, 3)
    expected = 1 / (1 + np.exp(-log_mel(audio).mean(dtype=np.float64)))
    assert await SmartTurn(path).probability(audio) == pytest.approx(expected, abs=1e-4)


async def test_one_model_serves_many(path: Path):
    models = [SmartTurn(path), SmartTurn(str(path))]
    audio = [tone(100 + 50 * n, 1 + n / 8) for n in range(20)]
    alone = [await models[0].probability(one) for one in audio]
    together = await asyncio.gather(*[models[n % 2].probability(one) for n, one in enumerate(audio)])
    assert together == alone
    assert len({*alone}) == len(audio)


async def test_a_cancelled_question_does_not_disturb_others(path: Path):
    model = SmartTurn(path)
    expected = await model.probability(tone(440))
    asked = [asyncio.create_task(model.probability(tone(200))) for _ in range(5)]
    await asyncio.gather(asyncio.create_task(model.probability(tone(300))))
    for task in asked[::2]:
        task.cancel()
    assert await model.probability(tone(440)) == expected
    await asyncio.gather(*asked, return_exceptions=True)


def test_an_interpreter_may_end_while_the_model_runs(path: Path):
    script = (
        "import asyncio, numpy as np\n"
        "from voxline.processors import SmartTurn\n"
        f"model = SmartTurn({str(path)!r})\n"
        "async def main():\n"
        "    tasks = [asyncio.ensure_future(model.probability(np.zeros(99, np.float32))) for _ in range(20)]\n"
        "    await tasks[0]\n"
        "    for task in tasks: task.cancel()\n"
        "asyncio.run(main())\n"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    assert (out.returncode, out.stderr) == (0, "")


def test_a_missing_file_raises(tmp_path: Path):
    with pytest.raises(SettingsError, match=r"^SmartTurn: there is no file .*nowhere\.onnx\.$"):
        SmartTurn(tmp_path / "nowhere.onnx")
    with pytest.raises(SettingsError, match="there is no file"):
        SmartTurn(tmp_path)


@pytest.mark.parametrize("content", [b"", b"RIFF and so on, which is no model", mean_model()[:-40]])
def test_a_file_that_is_not_a_model_raises(tmp_path: Path, content: bytes):
    path = tmp_path / "turn.onnx"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"^SmartTurn: .*turn\.onnx is not an ONNX model: [^\n]+$"):
        SmartTurn(path)


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (mean_model("audio", [1, 128_000]), r"it takes audio: tensor\(float\) \[1, 128000\] instead of input_features"),
        (mean_model(shape=[1, 80, 3_000]), r"it takes input_features: tensor\(float\) \[1, 80, 3000\] instead of"),
        (mean_model(shape=[1, 80, 800], kind=11), r"it takes input_features: tensor\(double\)"),
        (mean_model(last="Identity"), r"the turn model returned \[-1\.5\d*\], not one probability"),
    ],
)
def test_another_model_raises(tmp_path: Path, content: bytes, why: str):
    path = tmp_path / "turn.onnx"
    path.write_bytes(content)
    with pytest.raises(SettingsError, match=r"^SmartTurn: .*turn\.onnx is another model: " + why):
        SmartTurn(path)


async def test_an_answer_that_is_no_probability_is_an_error(tmp_path: Path):
    path = tmp_path / "turn.onnx"
    path.write_bytes(mean_model(last="Relu"))
    model = SmartTurn(path)
    noise = np.random.default_rng(0).normal(0, 0.1, AUDIO_SAMPLES).astype(np.float32)
    with pytest.raises(ServiceError, match=r"the turn model returned \[1\.\d+\], not one probability"):
        await model.probability(noise)
    assert await model.probability(np.zeros(0, np.float32)) == 0


def test_a_file_that_was_replaced_is_read_again(path: Path):
    SmartTurn(path)
    path.write_bytes(b"something else")
    with pytest.raises(SettingsError, match="not an ONNX model"):
        SmartTurn(path)


def nothing_is_installed(name: str) -> None:
    """Replacement of `importlib.util.find_spec`."""


def test_without_the_package_the_error_has_the_command_that_installs_it(path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", nothing_is_installed)
    with pytest.raises(MissingExtraError, match=r"onnxruntime.*pip install .*\[turns\]"):
        SmartTurn(path)

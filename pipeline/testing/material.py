"""Audio to test with: tone, silence, noise, speech from a file, and chunks of any of them.

All of it is mono int16, shape ``(n,)``. Levels are RMS in dBFS, as `voxline.pipeline.audio.rms_dbfs` measures them: 0
is a full-scale square, and the loudest sine is at -3.01.
"""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import numpy.typing as npt

from ..audio import FULL_SCALE, to_int16
from ..errors import RecordingError
from ..frames import InputAudioFrame, OutputAudioFrame, Samples

_SOUNDS = Path(__file__).parent / "sounds"
SPEECH_DBFS = -26.0
"""The level of active speech that telephony calls nominal (ITU-T P.56 and P.830)."""


def samples_in(ms: float, rate: int) -> int:
    """How many samples ``ms`` have at ``rate`` Hz."""
    return round(ms * rate / 1000)


def tone(hz: float, ms: float, rate: int = 16_000, *, dbfs: float = -12.0) -> Samples:
    """A sine of ``hz``. Raises ValueError above half the rate, and above -3.01 dBFS, where it would be clipped."""
    if not 0 < hz < rate / 2:
        raise ValueError(f"A tone of {hz:g} Hz does not fit {rate} Hz: wants more than 0 and less than {rate / 2:g}.")
    if dbfs > -3.01:
        raise ValueError(f"The loudest sine is at -3.01 dBFS, not {dbfs:g}.")
    phase = 2 * np.pi * hz / rate * np.arange(samples_in(ms, rate))
    return to_int16(np.sin(phase) * (np.sqrt(2) * _amplitude(dbfs)))


def silence(ms: float, rate: int = 16_000) -> Samples:
    """Digital silence."""
    return np.zeros(samples_in(ms, rate), np.int16)


def noise(ms: float, rate: int = 16_000, *, dbfs: float = -40.0, seed: int = 0) -> Samples:
    """White noise (Gaussian); the same for the same seed. -40 dBFS is a quiet room with a good gain."""
    raw = np.random.default_rng(seed).standard_normal(samples_in(ms, rate))
    return at_level(to_int16(np.clip(raw / 8, -1, 1)), dbfs) if len(raw) else silence(0)


def click(rate: int = 16_000, *, dbfs: float = -26.0) -> Samples:
    """A click of 10 ms, as of a pen on a table: a burst of noise that dies away."""
    fading = np.exp(-np.arange(samples_in(10, rate)) / (rate * 0.002))
    return at_level((noise(10, rate, dbfs=-20) * fading).astype(np.int16), dbfs)


def cough(rate: int = 16_000, *, dbfs: float = SPEECH_DBFS) -> Samples:
    """Somebody clears their throat, for 0.3 s: a detector of speech takes it for speech, and it has no word.

    Flite's "ahem" (voice kal16).
    """
    return speech(_SOUNDS / "cough.wav", rate, dbfs=dbfs)


def backchannel(rate: int = 16_000, *, dbfs: float = SPEECH_DBFS) -> Samples:
    """Somebody who listens says that they do: Flite's "uh huh" (voice kal16)."""
    return speech(_SOUNDS / "backchannel.wav", rate, dbfs=dbfs)


def at_level(samples: Samples, dbfs: float) -> Samples:
    """The same audio at another level. Silence stays silence."""
    power = float(np.mean(np.square(samples, dtype=np.float64))) if samples.size else 0.0
    if power == 0:
        return samples
    factor = _amplitude(dbfs) * FULL_SCALE / np.sqrt(power)
    return np.clip(np.rint(samples * factor), -32_768, 32_767).astype(np.int16)


def mix(*parts: Samples) -> Samples:
    """Audio on top of each other, from the beginning, as long as the longest; clipped."""
    total: npt.NDArray[np.int64] = np.zeros(max((len(part) for part in parts), default=0), np.int64)
    for part in parts:
        total[: len(part)] += part
    return np.clip(total, -32_768, 32_767).astype(np.int16)


def speech(
    path: str | PathLike[str],
    rate: int = 16_000,
    *,
    dbfs: float | None = None,
    start_ms: float = 0,
    ms: float | None = None,
) -> Samples:
    """Audio from a file, in anything that FFmpeg reads, resampled to ``rate`` Hz and made mono.

    ``dbfs`` sets its level (`SPEECH_DBFS` is a usual one); as it is, if not given. ``start_ms`` and ``ms`` take a part.
    Raises `RecordingError` where the file is missing or no audio.
    """
    blocks: list[Samples] = []
    try:
        with av.open(str(path)) as container:
            if not container.streams.audio:
                raise RecordingError(f"{path} has no audio in it.")
            resampler = av.AudioResampler("s16", "mono", rate)
            for frame in container.decode(audio=0):
                blocks += [_block(resampled) for resampled in resampler.resample(frame)]
            blocks += [_block(resampled) for resampled in resampler.resample(None)]
    except (OSError, av.error.FFmpegError) as error:
        raise RecordingError(f"{path} cannot be read as audio: {error.strerror}.") from error
    whole = np.concatenate(blocks) if blocks else silence(0)
    first = samples_in(start_ms, rate)
    part = whole[first:] if ms is None else whole[first : first + samples_in(ms, rate)]
    return part.copy() if dbfs is None else at_level(part, dbfs)


def chunks(samples: Samples, rate: int = 16_000, ms: float = 20.0) -> list[InputAudioFrame]:
    """Audio as a microphone gives it: frames of ``ms`` each, with their ``pts_ns``. The last one may be shorter."""
    size = samples_in(ms, rate)
    if size <= 0:
        raise ValueError(f"Chunks of {ms:g} ms have no samples at {rate} Hz.")
    return [
        InputAudioFrame(samples[start : start + size], rate, pts_ns=start * 1_000_000_000 // rate)
        for start in range(0, len(samples), size)
    ]


def join(frames: Sequence[Any]) -> Samples:
    """The audio of frames, one after another; what is no audio among them is left out. The reverse of `chunks`."""
    parts = [frame.samples for frame in frames if isinstance(frame, InputAudioFrame | OutputAudioFrame)]
    return np.concatenate(parts) if parts else silence(0)


def _amplitude(dbfs: float) -> float:
    return 10 ** (dbfs / 20)


def _block(frame: Any) -> Samples:
    return frame.to_ndarray().reshape(-1)

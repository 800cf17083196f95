"""What the bot says from a file."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from ...pipeline.errors import SettingsError
from ...pipeline.frames import OutputAudioFrame, SpokenWord

MAX_S = 30.0
"""A recording that is longer is no apology."""


class Recordings:
    """Recordings by their files, each read once."""

    def __init__(self) -> None:
        # bound: the files that settings name
        self._read: dict[Path, OutputAudioFrame] = {}

    def frame(self, path: Path, text: str) -> OutputAudioFrame:
        """A recording in which ``text`` is said. Raises `SettingsError` for a file that is none."""
        read = self._read.get(path)
        if read is None:
            read = self._read[path] = _read(path)
        return OutputAudioFrame(read.samples, read.sample_rate, (SpokenWord(text, 0.0),) if text else ())


def check_recording(path: Path) -> None:
    """Raise `SettingsError` for a file that cannot be said."""
    if not path.exists():
        raise SettingsError(f"there is no file {path}, which should be a recording (WAV, FLAC, Ogg, MP3)")
    try:
        info = soundfile.info(path)
    except (OSError, soundfile.SoundFileError) as error:
        raise SettingsError(f"{path} cannot be read as audio (WAV, FLAC, Ogg, MP3): {str(error).rstrip('.')}") from None
    if not 0 < info.duration <= MAX_S:
        raise SettingsError(f"{path} is {info.duration:.1f} s long, and a recording to be said has up to {MAX_S:g} s.")


def _read(path: Path) -> OutputAudioFrame:
    check_recording(path)
    samples, sample_rate = soundfile.read(path, dtype="int16")
    return OutputAudioFrame(np.asarray(samples, np.int16), sample_rate)

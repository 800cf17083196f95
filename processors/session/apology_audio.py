"""Recorded apologies: audio files that the bot plays instead of a synthesised voice."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import soundfile

from ...pipeline.errors import SettingsError
from ...pipeline.frames import OutputAudioFrame, SpokenWord

MAX_S = 30.0
"""Longest recording."""


class ApologyAudio:
    """A cache of recordings: each file is read once."""

    def __init__(self) -> None:
        # bound: the files that settings name
        self._read: dict[Path, OutputAudioFrame] = {}

    def frame(self, path: Path, text: str) -> OutputAudioFrame:
        """Return a recording as one frame with ``text`` as its words. Raises `SettingsError` for an unusable file."""
        read = self._read.get(path)
        if read is None:
            read = self._read[path] = _read(path)
        return OutputAudioFrame(read.samples, read.sample_rate, (SpokenWord(text, 0.0),) if text else ())


def check_recording(path: Path) -> None:
    """Raise `SettingsError` if a file is missing, is not audio, or is too long."""
    if not path.exists():
        raise SettingsError(f"there is no file {path}, which should be a recording (WAV, FLAC, Ogg, MP3)")
    try:
        info = soundfile.info(path)
    except (OSError, soundfile.SoundFileError) as error:
        raise SettingsError(f"{path} cannot be read as audio (WAV, FLAC, Ogg, MP3): {str(error).rstrip('.')}") from None
    if not 0 < info.duration <= MAX_S:
        raise SettingsError(f"{path} is {info.duration:.1f} s long; a recording may have up to {MAX_S:g} s")


def _read(path: Path) -> OutputAudioFrame:
    check_recording(path)
    samples, sample_rate = soundfile.read(path, dtype="int16")
    return OutputAudioFrame(np.asarray(samples, np.int16), sample_rate)

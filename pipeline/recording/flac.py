"""The FLAC files beside a recording or a fixture: ``talk.input-16000x1.flac`` beside ``talk.jsonl``.

One for each kind of audio (``input``, ``output``), rate and number of channels. They are written as the audio comes and
read in the same order, so neither holds more than a moment of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import av
import av.error
import numpy as np
import soundfile

from ..errors import RecordingError
from ..frames import Samples


class MissingAudio(RecordingError):
    """A recording's audio ends before its lines do."""


def flac_path(path: Path, kind: str, sample_rate: int, channels: int) -> Path:
    """Where the audio of a kind and format stands that belongs to a file of lines."""
    return path.with_suffix(f".{kind}-{sample_rate}x{channels}.flac")


class FlacWriter:
    """Appends audio to the files beside ``path``. Is an `AudioSink` of the codec."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[Path, tuple[soundfile.SoundFile, int]] = {}

    def put(self, kind: str, samples: Samples, sample_rate: int) -> int:
        """Append samples; returns the index of the first of them. Raises OSError where it cannot."""
        channels = 1 if samples.ndim == 1 else samples.shape[1]
        path = flac_path(self._path, kind, sample_rate, channels)
        file, start = self._files.get(path) or (self._open(path, sample_rate, channels), 0)
        try:
            file.write(samples)
        except soundfile.SoundFileError as error:
            raise OSError(f"{path} cannot be written: {error}") from error
        self._files[path] = file, start + len(samples)
        return start

    def _open(self, path: Path, sample_rate: int, channels: int) -> soundfile.SoundFile:
        try:
            return soundfile.SoundFile(path, "w", sample_rate, channels, "PCM_16", format="FLAC")
        except soundfile.SoundFileError as error:
            raise OSError(f"{path} cannot be written: {error}") from error

    def flush(self) -> None:
        """Write out what is held, but for the last block of the encoder (4,096 samples)."""
        for file, _ in self._files.values():
            file.flush()

    def close(self) -> None:
        """Finish the files."""
        for file, _ in self._files.values():
            file.close()
        self._files.clear()


class FlacReader:
    """Reads what `FlacWriter` wrote. Is an `AudioSource` of the codec. Also reads files that were never finished."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._files: dict[Path, _Flac] = {}

    def get(self, kind: str, start: int, length: int, sample_rate: int, channels: int) -> Samples:
        """Samples of shape ``(length, channels)``. Raises `MissingAudio` where there are fewer."""
        path = flac_path(self._path, kind, sample_rate, channels)
        file = self._files.get(path)
        if file is None or file.position > start:
            if file is not None:
                file.close()
            file = self._files[path] = _Flac(path, channels)
        samples = file.read(start, length)
        if len(samples) < length:
            raise MissingAudio(
                f"{path.name} has no samples {start} to {start + length}; it ends at {start + len(samples)}"
            )
        return samples

    def close(self) -> None:
        """Close the files."""
        for file in self._files.values():
            file.close()
        self._files.clear()


class _Flac:
    """One file, read from its beginning to its end."""

    def __init__(self, path: Path, channels: int) -> None:
        self.position = 0
        self._channels = channels
        self._held: Samples = np.zeros((0, channels), np.int16)
        """Decoded, from `position` on."""
        try:
            self._container: Any = av.open(str(path))
        except (OSError, av.error.FFmpegError) as error:
            raise MissingAudio(f"{path.name} cannot be read ({error.strerror})") from error
        self._blocks = self._decode()

    def _decode(self) -> Iterator[Samples]:
        try:
            for frame in self._container.decode(audio=0):
                yield frame.to_ndarray().reshape(-1, self._channels).astype(np.int16, copy=False)
        except av.error.FFmpegError:
            # Cut off in the middle of a block: what came before is what there is.
            return

    def read(self, start: int, length: int) -> Samples:
        while self.position < start and self._skip(start - self.position):
            pass
        blocks, missing = [self._held], length - len(self._held)
        while missing > 0 and (block := next(self._blocks, None)) is not None:
            blocks.append(block)
            missing -= len(block)
        held = np.concatenate(blocks) if len(blocks) > 1 else self._held
        self._held = held[length:]
        samples = held[:length]
        self.position += len(samples)
        return samples.copy()

    def _skip(self, count: int) -> bool:
        if not len(self._held):
            block = next(self._blocks, None)
            if block is None:
                return False
            self._held = block
        skipped = min(count, len(self._held))
        self._held = self._held[skipped:]
        self.position += skipped
        return True

    def close(self) -> None:
        self._blocks = iter(())
        self._container.close()

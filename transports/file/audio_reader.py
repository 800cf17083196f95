"""Reads sound files of any format and length as a stream of mono int16, in little memory.

WAV, FLAC, AIFF and similar formats through libsndfile; MP3, Ogg, M4A, WebM and all else that FFmpeg reads through PyAV.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import soundfile

from ...pipeline.audio import StreamResampler, mono, to_int16
from ...pipeline.errors import TransportError
from ...pipeline.frames import Samples

BLOCK_MS = 100
"""Audio read at a time: small, because the event loop reads it (from the disk's cache)."""

_NOT_IN_BLOCKS = ("MP3", "MPEG", "OGG")
"""Formats not read with soundfile: it seeks after each block, and a seek in an MP3 loses the decoder's state.
(Observed: a tone of full length at 0.6 times its level.) FFmpeg reads these sequentially."""

KNOWN = "WAV, FLAC, Ogg, MP3, M4A, WebM or anything else that libsndfile or FFmpeg reads"


class AudioReader:
    """An open sound file. ``sample_rate``: rate of the samples that `read` returns, in Hz; channels are mixed to mono.

    The constructor reads the first block, to reject other files at once. Raises `TransportError` for a file that is
    missing, empty, unreadable or not audio, and for a folder; `read` raises it if the file is damaged further on.
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int) -> None:
        self.path = Path(path)
        self.sample_rate = sample_rate
        self._close: list[Any] = []
        self._returned = 0
        _check_file(self.path)
        try:
            self._blocks = self._resampled(self._open())
            self._rest: Samples | None = np.zeros(0, np.int16)
            while not len(self._rest):
                self._rest = next(self._blocks, None)
                if self._rest is None:
                    raise TransportError(
                        f"{self.path} is an empty sound file: it has a header and no samples. Record it again."
                    )
        except BaseException:
            self.close()
            raise

    def read(self, count: int) -> Samples:
        """Return the next ``count`` samples, mono int16 at `sample_rate`; fewer at the end, then none."""
        parts: list[Samples] = []
        missing = count
        while missing:
            if self._rest is None or not len(self._rest):
                self._rest = next(self._blocks, None)
                if self._rest is None:
                    break
            parts.append(self._rest[:missing])
            self._rest = self._rest[missing:]
            missing -= len(parts[-1])
        self._returned += count - missing
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.int16), *parts])

    def close(self) -> None:
        """Close the file."""
        while self._close:
            self._close.pop().close()

    def _open(self) -> Iterator[tuple[Samples, int]]:
        """Yield blocks of mono samples, each with its rate in Hz."""
        try:
            sound = soundfile.SoundFile(self.path)
        except (soundfile.LibsndfileError, TypeError):
            # TypeError: the name ends in .raw, and soundfile requires the format.
            return self._open_with_av()
        self._close.append(sound)
        return self._open_with_av() if sound.format in _NOT_IN_BLOCKS else self._blocks_of(sound)

    def _blocks_of(self, sound: soundfile.SoundFile) -> Iterator[tuple[Samples, int]]:
        size = max(1, sound.samplerate * BLOCK_MS // 1000)
        try:
            # As floats: libsndfile does not scale stored floats when it returns integers.
            while len(block := sound.read(size, dtype="float32", always_2d=True)):
                yield to_int16(block.mean(axis=1)), sound.samplerate
        except soundfile.LibsndfileError as error:
            raise self._damaged(error) from error

    def _open_with_av(self) -> Iterator[tuple[Samples, int]]:
        import av
        from av.error import FFmpegError

        try:
            container: Any = av.open(str(self.path))
        except (FFmpegError, ValueError) as error:
            raise TransportError(f"{self.path} is not a readable sound file. Use {KNOWN}.") from error
        self._close.append(container)
        if not container.streams.audio:
            raise TransportError(f"{self.path} contains no audio. Use {KNOWN}.")
        return self._blocks_with_av(container)

    def _blocks_with_av(self, container: Any) -> Iterator[tuple[Samples, int]]:
        import av
        from av.error import FFmpegError

        # FFmpeg converts format, layout and rate at once.
        resampler: Any = av.AudioResampler("s16", "mono", self.sample_rate)
        try:
            for frame in container.decode(audio=0):
                for ready in resampler.resample(frame):
                    yield ready.to_ndarray().reshape(-1), self.sample_rate
            for ready in resampler.resample(None):
                yield ready.to_ndarray().reshape(-1), self.sample_rate
        except (FFmpegError, ValueError) as error:
            raise self._damaged(error) from error

    def _resampled(self, blocks: Iterator[tuple[Samples, int]]) -> Iterator[Samples]:
        resampler: StreamResampler | None = None
        for samples, rate in blocks:
            if resampler is None:
                resampler = StreamResampler(rate, self.sample_rate)
            yield resampler.push(mono(samples))
        if resampler is not None:
            yield resampler.flush()

    def _damaged(self, error: Exception) -> TransportError:
        at = self._returned / self.sample_rate
        return TransportError(
            f"{self.path} is damaged: it cannot be read beyond {at:.1f} s ({error}). "
            f"Convert it again, for example with: ffmpeg -i {self.path.name} fixed.wav"
        )


def _check_file(path: Path) -> None:
    try:
        if path.is_dir():
            raise TransportError(f"{path} is a folder. Give a sound file: {KNOWN}.")
        with path.open("rb") as file:
            if not file.read(1):
                raise TransportError(f"{path} is empty (0 bytes). Give a sound file: {KNOWN}.")
    except FileNotFoundError as error:
        raise TransportError(
            f"There is no file {path} (looked in {Path.cwd()}). Give the path of a sound file: {KNOWN}."
        ) from error
    except OSError as error:
        code = errno.errorcode.get(error.errno or 0, "")
        raise TransportError(f"{path} cannot be opened: {error.strerror} ({code}).") from error

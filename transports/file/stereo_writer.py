"""Writes a conversation as a stereo WAV, caller left and bot right, on one timeline.

::

    with StereoWriter("talk.wav", 24_000) as recording:
        recording.write(CALLER, 0, samples)
        recording.write(BOT, 31_200, answer)      # 1.3 s after the start
"""

from __future__ import annotations

import contextlib
import os
import struct
from pathlib import Path
from typing import BinaryIO, Final, Self

import numpy as np

from ...pipeline.errors import TransportError
from ...pipeline.frames import Samples

CALLER: Final = 0
"""The left channel."""
BOT: Final = 1
"""The right channel."""

WINDOW_S = 5
"""Largest distance between the two channels, in s. Older samples are already on the disk."""
BLOCK_S = 1
"""Audio written at a time, in s."""

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_BYTES = 4
"""Bytes of one sample of both channels."""
_LARGEST = 0xFFFF_FFFF - _HEADER.size


class StereoWriter:
    """A 16-bit stereo WAV that is written during the conversation.

    Each channel is written at increasing sample positions; gaps are silence. At most `WINDOW_S` + `BLOCK_S` seconds are
    in memory, and the header is correct after each block, so the recording of a killed process can be played. An
    existing file is replaced. If nothing was written, `close` removes the file.

    Raises `TransportError` if the file cannot be created, and once if the disk is full later on (the rest is not
    recorded).
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int) -> None:
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.late = 0
        """Samples written more than `WINDOW_S` late, which are not in the file."""
        self._written = 0
        """Number of samples on the disk."""
        self._end = 0
        """End of the newest sample of either channel."""
        self._block = np.zeros(((WINDOW_S + 2 * BLOCK_S) * sample_rate, 2), np.int16)
        """Samples from `_written` on; zero where nothing was written."""
        self._failed = False
        if self.path.is_dir():
            raise TransportError(f"{self.path} is a folder. Give the name of the WAV file to write.")
        try:
            self._file = self.path.open("wb")
            try:
                self._write_header()
                self._file.flush()
            except OSError:
                self._abandon()
                raise
        except OSError as error:
            raise self._unusable(error) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def seconds(self) -> float:
        """Length in s, to the newest sample."""
        return self._end / self.sample_rate

    def write(self, channel: int, position: int, samples: Samples) -> None:
        """Write mono int16 samples to a channel (`CALLER` or `BOT`), starting at sample ``position``."""
        if self._failed:
            return
        if position < self._written:
            skipped = min(self._written - position, len(samples))
            self.late += skipped
            samples, position = samples[skipped:], position + skipped
        while len(samples):
            self._make_room(position)
            at = position - self._written
            part = samples[: len(self._block) - at]
            self._block[at : at + len(part), channel] = part
            samples, position = samples[len(part) :], position + len(part)
            self._end = max(self._end, position)
        self._make_room(self._end)

    def close(self) -> None:
        """Write the remaining samples and close the file. A second call does nothing."""
        if self._file.closed:
            return
        if not self._failed:
            while self._written < self._end:
                self._flush(min(self._end - self._written, len(self._block)))
        if self._end == 0:
            self._abandon()
        else:
            self._file.close()

    def _make_room(self, position: int) -> None:
        """Write blocks until ``position`` is within the window."""
        block = BLOCK_S * self.sample_rate
        while position - self._written >= WINDOW_S * self.sample_rate + block:
            self._flush(block)

    def _flush(self, count: int) -> None:
        try:
            if not self._failed:
                self._file.write(self._block[:count].astype("<i2", copy=False).tobytes())
        except OSError as error:
            raise self._fail(error) from error
        finally:
            self._block[:-count] = self._block[count:].copy() if count < len(self._block) else 0
            self._block[-count:] = 0
            self._written += count
        try:
            self._write_header()
            self._file.flush()
        except OSError as error:
            raise self._fail(error) from error

    def _write_header(self) -> None:
        # WAV has 32 bits for its size: 12 hours at 24 kHz. Players read longer files to the end all the same.
        size = min(self._written * _BYTES, _LARGEST)
        rate = self.sample_rate
        riff = (b"RIFF", size + _HEADER.size - 8, b"WAVE")
        fmt = (b"fmt ", 16, 1, 2, rate, rate * _BYTES, _BYTES, 16)
        header = _HEADER.pack(*riff, *fmt, b"data", size)
        self._file.seek(0)
        self._file.write(header)
        self._file.seek(0, os.SEEK_END)

    def _fail(self, error: OSError) -> TransportError:
        self._failed = True
        _close_quietly(self._file)
        return TransportError(
            f"The recording {self.path} ends after {self._written / self.sample_rate:.1f} s: "
            f"{error.strerror}. The conversation continues without it. Free some space on the disk."
        )

    def _unusable(self, error: OSError) -> TransportError:
        folder = self.path.parent
        if isinstance(error, FileNotFoundError):
            advice = f"There is no folder {folder}: create it first, or give another path."
        else:
            advice = f"Give a path in a writable folder, on a disk with free space (not {folder})."
        return TransportError(f"{self.path} cannot be written: {error.strerror}. {advice}")

    def _abandon(self) -> None:
        _close_quietly(self._file)
        if self.path.is_file():
            self.path.unlink()


def _close_quietly(file: BinaryIO) -> None:
    """Close a file whose disk is full: close() fails too, since it flushes."""
    with contextlib.suppress(OSError):
        file.close()

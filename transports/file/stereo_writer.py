"""Records a conversation: a stereo WAV, caller left and bot right, on one timeline.

::

    with StereoWriter("talk.wav", 24_000) as recording:
        recording.write(CALLER, 0, samples)
        recording.write(BOT, 31_200, answer)      # 1.3 s after the beginning
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
"""How far the two channels may be apart. What is older than this, seen from the newest, is on the disk."""
BLOCK_S = 1
"""How much is written at a time."""

_HEADER = struct.Struct("<4sI4s4sIHHIIHH4sI")
_BYTES = 4
"""Bytes of one sample of both channels."""
_LARGEST = 0xFFFF_FFFF - _HEADER.size


class StereoWriter:
    """A stereo WAV (16 bit) that is written while time passes.

    Each channel is written at sample positions that grow; what nothing is written to is silence. At most
    `WINDOW_S` + `BLOCK_S` seconds are in memory, and the header is right after each block, so a recording
    that was killed can be played. An existing file is replaced. Closed with nothing written, it leaves no
    file.

    Raises `TransportError` where the file cannot be made, and once where the disk is full later on (what
    comes after is not recorded).
    """

    def __init__(self, path: str | os.PathLike[str], sample_rate: int) -> None:
        self.path = Path(path)
        self.sample_rate = sample_rate
        self.late = 0
        """Samples that came more than `WINDOW_S` after their time and are not in the file."""
        self._written = 0
        """Samples on the disk."""
        self._end = 0
        """The newest sample there is, of either channel."""
        self._block = np.zeros(((WINDOW_S + 2 * BLOCK_S) * sample_rate, 2), np.int16)
        """From `_written` on; zero where nothing was written."""
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
        """How long it is, to the newest sample."""
        return self._end / self.sample_rate

    def write(self, channel: int, position: int, samples: Samples) -> None:
        """Put mono int16 samples into a channel (`CALLER` or `BOT`), the first one at sample ``position``."""
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
        """Write what is left. Harmless the second time."""
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
        """Write blocks until ``position`` is no more than the window away."""
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
        # WAV has 32 bits for its size: 12 hours at 24 kHz. Players read a longer one to its end all the same.
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
            f"{error.strerror}. The conversation goes on without it. Make room on the disk."
        )

    def _unusable(self, error: OSError) -> TransportError:
        folder = self.path.parent
        if isinstance(error, FileNotFoundError):
            advice = f"There is no folder {folder}: make it first, or give another path."
        else:
            advice = f"Give a path in a folder that can be written, on a disk with room (not {folder})."
        return TransportError(f"{self.path} cannot be written: {error.strerror}. {advice}")

    def _abandon(self) -> None:
        _close_quietly(self._file)
        if self.path.is_file():
            self.path.unlink()


def _close_quietly(file: BinaryIO) -> None:
    """A full disk makes close() fail too, with what could not be flushed."""
    with contextlib.suppress(OSError):
        file.close()

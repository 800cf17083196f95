"""Audio of an utterance as a file in memory: WAV, or FLAC, which is about a third of it.

Encoded while the user speaks: 12 µs for 20 ms of 16 kHz, and 0.1 ms at the end, where the whole of 25 s would take
9 ms. 5 s of speech are 57 kB of FLAC or 160 kB of WAV.
"""

from __future__ import annotations

import io
from typing import Literal

import soundfile

from ...pipeline.frames import Samples

AudioFile = Literal["flac", "wav"]


class Upload:
    """A file that grows. Mono int16 at ``sample_rate`` Hz."""

    def __init__(self, kind: AudioFile, sample_rate: int) -> None:
        self._bytes = io.BytesIO()
        self._kind: AudioFile = kind
        self._file = soundfile.SoundFile(self._bytes, "w", sample_rate, 1, "PCM_16", format=kind.upper())
        self._rate = sample_rate
        self.samples = 0

    @property
    def duration_ms(self) -> float:
        """Its length so far."""
        return self.samples * 1000 / self._rate

    def add(self, samples: Samples) -> None:
        """Add audio: int16, shape (n,)."""
        if len(samples):
            self._file.write(samples)
            self.samples += len(samples)

    def done(self) -> tuple[str, bytes, str]:
        """End it: name, content and media type."""
        self.close()
        return f"speech.{self._kind}", self._bytes.getvalue(), f"audio/{self._kind}"

    def close(self) -> None:
        """Add no more."""
        self._file.close()

"""`FileTransport`: a sound file is the caller, and a stereo WAV records the conversation.

::

    transport = FileTransport(input="caller.wav", output="talk.wav")
    pipeline = Pipeline([transport.input(), ..., transport.output()])
    await PipelineWorker(pipeline).run()                          # in real time
    await PipelineWorker(pipeline, clock=VirtualClock()).run()    # as fast as it goes, the same every time
"""

from __future__ import annotations

import logging
import os
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np

from ...pipeline.audio import StreamResampler
from ...pipeline.clock import NS_PER_S
from ...pipeline.errors import TransportError
from ...pipeline.frames import Frame, InputAudioFrame, InputEndedFrame, Samples
from ..base import Transport
from ..input import InputTransport
from ..transport_api import CHUNK_MS, CHUNK_NS, samples_in_chunk
from .audio_reader import AudioReader
from .stereo_writer import BOT, CALLER, StereoWriter

log = logging.getLogger("voxline")

PathLike = str | os.PathLike[str]


class _CallRecording:
    """Recording of both sides on one timeline."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        self.path = path
        self.sample_rate = sample_rate
        self._writer: StereoWriter | None = None
        self._start_ns: int | None = None
        self._resampler: StreamResampler | None = None
        self._caller_at = 0

    def open(self) -> None:
        self._writer = StereoWriter(self.path, self.sample_rate)
        self._start_ns = None
        self._resampler = None

    def close(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def start_caller(self, now_ns: int, sample_rate: int) -> None:
        """Start the caller's channel: its first sample is captured now."""
        self._resampler = StreamResampler(sample_rate, self.sample_rate)
        self._caller_at = self._position(now_ns)

    def caller(self, samples: Samples) -> None:
        """Append samples of the caller."""
        if self._writer is not None and self._resampler is not None:
            self._put_caller(self._resampler.push(samples))

    def end_caller(self) -> None:
        """Flush the caller's resampler."""
        if self._writer is not None and self._resampler is not None:
            self._put_caller(self._resampler.flush())

    def _put_caller(self, samples: Samples) -> None:
        self._write(CALLER, self._caller_at, samples)
        self._caller_at += len(samples)

    def bot(self, samples: Samples, due_ns: int) -> None:
        """Write 20 ms of the bot at their due time."""
        if self._writer is not None:
            self._write(BOT, self._position(due_ns), samples)

    def _write(self, channel: int, position: int, samples: Samples) -> None:
        assert self._writer is not None
        try:
            self._writer.write(channel, position, samples)
        except TransportError as error:
            # A full disk costs the recording and must not end the conversation.
            log.error("%s", error)

    def _position(self, at_ns: int) -> int:
        # The timeline starts with the first sound of either side.
        if self._start_ns is None:
            self._start_ns = at_ns
        return round((at_ns - self._start_ns) * self.sample_rate / NS_PER_S)


class FileTransport(Transport):
    """Plays a file as the caller and records both sides, in time of the worker's clock.

    ``input``: the caller's audio, any sound file (see `AudioReader`); ``sample_rate``: rate of the pipeline's mono
    input, in Hz. ``output``: the stereo WAV to write, caller left and bot right, at ``output_rate``; None: the bot's
    audio is discarded. ``tail_ms``: silence after the end of the file.

    Paths are checked when the worker starts: it fails with a `TransportError` before the first frame.
    """

    def __init__(
        self,
        *,
        input: PathLike | None = None,
        output: PathLike | None = None,
        sample_rate: int = 16_000,
        output_rate: int = 24_000,
        tail_ms: float = 2_000,
        buffer_ms: float = 2_000,
        gap_ms: float = 300,
    ) -> None:
        super().__init__(sample_rate=sample_rate, output_rate=output_rate, buffer_ms=buffer_ms, gap_ms=gap_ms)
        self._path = None if input is None else Path(input)
        self._recording = None if output is None else _CallRecording(Path(output), output_rate)
        self._tail_ms = tail_ms
        self._reader: AudioReader | None = None

    def input(self) -> InputTransport:
        """Return the first processor of the pipeline. Raises `TransportError` without an ``input`` file."""
        if self._path is None:
            raise TransportError('This FileTransport has no input file. Create it with FileTransport(input="me.wav").')
        return super().input()

    async def open(self) -> None:
        """Open both files. Raises `TransportError` if one cannot be read or the other cannot be written."""
        if self._path is not None:
            # Also if the input is not used: an unreadable caller must not overwrite the last recording.
            self._reader = AudioReader(self._path, self.sample_rate)
        if self._recording is None or not self.speaks:
            return
        if self._path is not None and self._recording.path.exists() and self._recording.path.samefile(self._path):
            raise TransportError(
                f"{self._recording.path} is both the caller's file and the recording, which would overwrite it. "
                "Give the recording another name."
            )
        self._recording.open()

    async def receive(self) -> AsyncIterator[Frame]:
        """Yield the file like a microphone, each 20 ms when they have passed; then ``tail_ms`` of silence.

        `InputAudioFrame.pts_ns` counts from the start of the file. A damaged file ends at the damage, which is raised
        after the tail.
        """
        size = samples_in_chunk(self.sample_rate)
        start_ns = self.clock.now_ns()
        if self._recording is not None:
            self._recording.start_caller(start_ns, self.sample_rate)
        damage: TransportError | None = None
        slot, last = 0, -1
        while slot != last:
            samples = np.zeros(0, np.int16)
            if last < 0:
                try:
                    samples = self._next(size)
                except TransportError as error:
                    damage = error
                if not len(samples):
                    last = slot + round(self._tail_ms / CHUNK_MS)
                    continue
            if len(samples) < size:
                samples = np.concatenate([samples, np.zeros(size - len(samples), np.int16)])
            slot += 1
            # Relative to the schedule and not to the last chunk, so that lateness does not add up.
            await self.clock.sleep((start_ns + slot * CHUNK_NS - self.clock.now_ns()) / NS_PER_S)
            if self._recording is not None:
                self._recording.caller(samples)
            yield InputAudioFrame(samples, self.sample_rate, (slot - 1) * CHUNK_NS)
        if self._recording is not None:
            self._recording.end_caller()
        if damage is not None:
            yield InputEndedFrame()
            raise damage

    def _next(self, size: int) -> Samples:
        return np.zeros(0, np.int16) if self._reader is None else self._reader.read(size)

    def send(self, samples: Samples, due_ns: int) -> None:
        """Record 20 ms in the right channel, at their due time."""
        if self._recording is not None:
            self._recording.bot(samples, due_ns)

    async def close(self) -> None:
        """Close both files."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None
        if self._recording is not None:
            self._recording.close()

"""A file is the caller, and a file keeps what was said.

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

from ..pipeline.audio import StreamResampler
from ..pipeline.clock import NS_PER_S
from ..pipeline.errors import TransportError
from ..pipeline.frames import Frame, InputAudioFrame, InputEndedFrame, Samples
from ..pipeline.processor import source
from .base import CHUNK_MS, CHUNK_NS, InputTransport, OutputTransport, Transport
from .reader import AudioReader
from .recorder import BOT, CALLER, StereoWriter

log = logging.getLogger("voxline")

PathLike = str | os.PathLike[str]


class _Tape:
    """The recording of both sides: opened once, by whichever end needs it, on one timeline."""

    def __init__(self, path: Path, sample_rate: int) -> None:
        self.path = path
        self.sample_rate = sample_rate
        self._writer: StereoWriter | None = None
        self._begun_ns: int | None = None
        self._resampler: StreamResampler | None = None
        self._caller_at = 0

    def open(self) -> None:
        self._writer = StereoWriter(self.path, self.sample_rate)
        self._begun_ns = None
        self._resampler = None

    def close(self) -> None:
        if self._writer is not None:
            writer, self._writer = self._writer, None
            writer.close()

    def begin_caller(self, now_ns: int, sample_rate: int) -> None:
        """The caller's first sample is captured now."""
        self._resampler = StreamResampler(sample_rate, self.sample_rate)
        self._caller_at = self._position(now_ns)

    def caller(self, samples: Samples) -> None:
        """The next of the caller's samples."""
        if self._writer is not None and self._resampler is not None:
            self._put_caller(self._resampler.push(samples))

    def end_caller(self) -> None:
        """The caller says no more."""
        if self._writer is not None and self._resampler is not None:
            self._put_caller(self._resampler.flush())

    def _put_caller(self, samples: Samples) -> None:
        self._write(CALLER, self._caller_at, samples)
        self._caller_at += len(samples)

    def bot(self, samples: Samples, due_ns: int) -> None:
        """20 ms of the bot."""
        if self._writer is not None:
            self._write(BOT, self._position(due_ns), samples)

    def _write(self, channel: int, position: int, samples: Samples) -> None:
        assert self._writer is not None
        try:
            self._writer.write(channel, position, samples)
        except TransportError as error:
            # A full disk costs the recording, and must not cost the conversation.
            log.error("%s", error)

    def _position(self, at_ns: int) -> int:
        # The timeline begins with the first sound of either side.
        if self._begun_ns is None:
            self._begun_ns = at_ns
        return round((at_ns - self._begun_ns) * self.sample_rate / NS_PER_S)


class FileInput(InputTransport):
    """Plays a sound file into the pipeline as a microphone would: each 20 ms when they are over.

    `InputAudioFrame.pts_ns` counts from the file's beginning. After the file comes ``tail_ms`` of silence, in
    which whatever waits for the user's silence can end his turn, then an `InputEndedFrame`.
    """

    def __init__(self, path: Path, *, sample_rate: int, tail_ms: float, tape: _Tape | None) -> None:
        super().__init__(sample_rate=sample_rate)
        self.file = path
        self.tail_ms = tail_ms
        self._tape = tape
        self._reader: AudioReader | None = None

    async def start(self) -> None:
        """Open the file; raises `TransportError` where it cannot be played."""
        self._reader = AudioReader(self.file, self.sample_rate)

    async def stop(self) -> None:
        """Close it."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    @source
    async def speak(self) -> AsyncIterator[Frame]:
        """The file, in time."""
        begun_ns = self.clock.now_ns()
        if self._tape is not None:
            self._tape.begin_caller(begun_ns, self.sample_rate)
        damage: TransportError | None = None
        slot = last = 0
        while last == 0 or slot < last:
            samples = np.zeros(0, np.int16)
            if last == 0:
                try:
                    samples = self._next()
                except TransportError as error:
                    damage = error
                if not len(samples):
                    last = slot + round(self.tail_ms / CHUNK_MS)
                    if slot >= last:
                        break
            if len(samples) < self.chunk_samples:
                samples = np.concatenate([samples, np.zeros(self.chunk_samples - len(samples), np.int16)])
            slot += 1
            # Of the schedule and not of the last chunk, so that lateness does not add up.
            await self.clock.sleep((begun_ns + slot * CHUNK_NS - self.clock.now_ns()) / NS_PER_S)
            if self._tape is not None:
                self._tape.caller(samples)
            yield InputAudioFrame(samples, self.sample_rate, (slot - 1) * CHUNK_NS)
        if self._tape is not None:
            self._tape.end_caller()
        yield InputEndedFrame()
        if damage is not None:
            raise damage

    def _next(self) -> Samples:
        return np.zeros(0, np.int16) if self._reader is None else self._reader.read(self.chunk_samples)


class FileOutput(OutputTransport):
    """Plays into a file, at the times at which a caller would have heard it."""

    def __init__(
        self, tape: _Tape | None, playable: Path | None, *, sample_rate: int, buffer_ms: float, gap_ms: float
    ) -> None:
        super().__init__(sample_rate=sample_rate, buffer_ms=buffer_ms, gap_ms=gap_ms)
        self._tape = tape
        self._playable = playable

    async def start(self) -> None:
        """Make the file; raises `TransportError` where it cannot be written."""
        if self._tape is None:
            return
        if self._playable is not None:
            # All start together, and a caller who cannot be played must not cost the last recording.
            try:
                AudioReader(self._playable, self.sample_rate).close()
            except TransportError:
                return
            if self._tape.path.exists() and self._tape.path.samefile(self._playable):
                raise TransportError(
                    f"{self._tape.path} is both the caller's file and the recording to write, and would be "
                    "lost. Give the recording another name."
                )
        self._tape.open()

    async def stop(self) -> None:
        """Finish the file."""
        await super().stop()
        if self._tape is not None:
            self._tape.close()

    def write(self, samples: Samples, due_ns: int) -> None:
        """Into the right channel, at its time."""
        if self._tape is not None:
            self._tape.bot(samples, due_ns)


class FileTransport(Transport):
    """Files for both ends; time is the worker's clock.

    ``input``: what the caller says, any sound file (see `AudioReader`); ``sample_rate``: what the pipeline
    gets of it, mono, in Hz. ``output``: the stereo WAV to write, caller left and bot right, at
    ``output_rate``; without one, the bot's audio is played to nobody. ``tail_ms``: silence after the file's
    end.

    Paths are looked at when the worker starts: a `TransportError` there says what is wrong, before the first
    frame.
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
        tape = None if output is None else _Tape(Path(output), output_rate)
        path = None if input is None else Path(input)
        self._input = None if path is None else FileInput(path, sample_rate=sample_rate, tail_ms=tail_ms, tape=tape)
        self._output = FileOutput(tape, path, sample_rate=output_rate, buffer_ms=buffer_ms, gap_ms=gap_ms)

    def input(self) -> FileInput:
        """The head of the pipeline."""
        if self._input is None:
            raise TransportError('This FileTransport has no input: make it with FileTransport(input="me.wav").')
        return self._input

    def output(self) -> FileOutput:
        """The tail of the pipeline."""
        return self._output

"""A transport in memory: a test is the caller.

::

    transport = MemoryTransport()
    transport.send(speech)             # heard by the pipeline in real time of its clock
    transport.hang_up()
    await PipelineWorker(Pipeline([transport.input(), ..., transport.output()]), clock=VirtualClock()).run()
    assert transport.heard[0].at_ns == ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np

from ..pipeline.clock import NS_PER_S, Wait
from ..pipeline.errors import QueueOverflowError
from ..pipeline.frames import Frame, InputAudioFrame, InputEndedFrame, Samples
from ..pipeline.processor import source
from .base import CHUNK_NS, InputTransport, OutputTransport, Transport

BOUND_S = 600
"""How much a caller may say ahead of time."""


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """20 ms that were played: int16 mono at the output's rate, at ``at_ns`` of the worker's clock."""

    at_ns: int
    samples: Samples


class MemoryInput(InputTransport):
    """Paces what was sent: 20 ms each 20 ms, as a microphone does, and nothing while there is nothing."""

    def __init__(self, *, sample_rate: int = 16_000) -> None:
        super().__init__(sample_rate=sample_rate)
        self._chunks: deque[Samples] = deque()  # bound: BOUND_S of audio, then send() raises
        self._ended = False
        self._waiting: Wait | None = None

    def send(self, samples: Samples) -> None:
        """Say this, after what was sent before: int16 mono at `sample_rate`. The last 20 ms are filled up.

        Raises `QueueOverflowError` with more than `BOUND_S` of audio waiting.
        """
        size = self.chunk_samples
        if len(self._chunks) * size > BOUND_S * self.sample_rate:
            raise QueueOverflowError(
                f"{self.path}: {BOUND_S} s of audio wait to be heard, the bound. Send less at a time, and "
                "run the worker in between."
            )
        padded = np.concatenate([samples, np.zeros(-len(samples) % size, np.int16)])
        self._chunks.extend(padded.reshape(-1, size))
        self._wake()

    def hang_up(self) -> None:
        """Nothing more will come."""
        self._ended = True
        self._wake()

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.wake()
            self._waiting = None

    @source
    async def listen(self) -> AsyncIterator[Frame]:
        """What was sent, in time, until the caller hangs up."""
        begun_ns = end_ns = self.clock.now_ns()
        while True:
            while self._chunks:
                samples = self._chunks.popleft()
                end_ns += CHUNK_NS
                await self.clock.sleep((end_ns - self.clock.now_ns()) / NS_PER_S)
                yield InputAudioFrame(samples, self.sample_rate, end_ns - CHUNK_NS - begun_ns)
            if self._ended:
                break
            self._waiting = Wait()
            await self._waiting
            end_ns = max(end_ns, self.clock.now_ns())
        yield InputEndedFrame()


class MemoryOutput(OutputTransport):
    """Keeps what is played."""

    def __init__(self, *, sample_rate: int = 24_000, buffer_ms: float = 2_000, gap_ms: float = 300) -> None:
        super().__init__(sample_rate=sample_rate, buffer_ms=buffer_ms, gap_ms=gap_ms)
        self.heard: list[Heard] = []

    def write(self, samples: Samples, due_ns: int) -> None:
        """Note it."""
        self.heard.append(Heard(due_ns, samples))


class MemoryTransport(Transport):
    """Two ends in one process. ``sample_rate``: of what is sent; ``output_rate``: of what is heard, in Hz."""

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        output_rate: int = 24_000,
        buffer_ms: float = 2_000,
        gap_ms: float = 300,
    ) -> None:
        self._input = MemoryInput(sample_rate=sample_rate)
        self._output = MemoryOutput(sample_rate=output_rate, buffer_ms=buffer_ms, gap_ms=gap_ms)

    def input(self) -> MemoryInput:
        """The head of the pipeline."""
        return self._input

    def output(self) -> MemoryOutput:
        """The tail of the pipeline."""
        return self._output

    def send(self, samples: Samples) -> None:
        """Say this; see `MemoryInput.send`."""
        self._input.send(samples)

    def hang_up(self) -> None:
        """Nothing more will come from the caller."""
        self._input.hang_up()

    @property
    def heard(self) -> list[Heard]:
        """What the caller heard so far, 20 ms each."""
        return self._output.heard

    def heard_samples(self) -> Samples:
        """The same in one piece, without the silence between."""
        return np.concatenate([np.zeros(0, np.int16), *(chunk.samples for chunk in self.heard)])

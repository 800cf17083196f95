"""A transport in memory: a test is the caller.

::

    transport = MemoryTransport()
    transport.say(speech)              # heard by the pipeline in real time of its clock
    transport.hang_up()
    await PipelineWorker(Pipeline([transport.input(), ..., transport.output()]), clock=VirtualClock()).run()
    assert transport.heard[0].at_ns == ...
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass

import numpy as np

from ..pipeline.client_frames import ServerMessageFrame
from ..pipeline.clock import NS_PER_S, Wait
from ..pipeline.errors import QueueOverflowError
from ..pipeline.frames import Frame, InputAudioFrame, Samples
from .base import Transport
from .verbs import CHUNK_NS, samples_in_chunk

BOUND_S = 600
"""How much a caller may say ahead of time."""


@dataclass(frozen=True, slots=True, eq=False)
class Heard:
    """20 ms that were played: int16 mono at the output's rate, at ``at_ns`` of the worker's clock."""

    at_ns: int
    samples: Samples


class MemoryTransport(Transport):
    """Two ends in one process. ``sample_rate``: of what is sent; ``output_rate``: of what is heard, in Hz."""

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        output_rate: int = 24_000,
        buffer_ms: float = 2_000,
        gap_ms: float = 300,
        lead_ms: float = 0,
        silent_timeout_s: float | None = None,
    ) -> None:
        super().__init__(
            sample_rate=sample_rate,
            output_rate=output_rate,
            buffer_ms=buffer_ms,
            gap_ms=gap_ms,
            lead_ms=lead_ms,
            silent_timeout_s=silent_timeout_s,
        )
        self.heard: list[Heard] = []
        """What the caller heard so far, 20 ms each."""
        self.told: list[ServerMessageFrame] = []
        """The messages that the caller's program got."""
        self._chunks: deque[Samples] = deque()  # bound: BOUND_S of audio, then say() raises
        self._waiting: Wait | None = None

    # --- the caller ---------------------------------------------------------------------------------------------

    def say(self, samples: Samples) -> None:
        """Say this, after what was said before: int16 mono at `sample_rate`. The last 20 ms are filled up.

        Raises `QueueOverflowError` with more than `BOUND_S` of audio waiting.
        """
        size = samples_in_chunk(self.sample_rate)
        if len(self._chunks) * size > BOUND_S * self.sample_rate:
            raise QueueOverflowError(
                f"MemoryTransport: {BOUND_S} s of audio wait to be heard, the bound. Say less at a time, and "
                "run the worker in between."
            )
        padded = np.concatenate([samples, np.zeros(-len(samples) % size, np.int16)])
        self._chunks.extend(padded.reshape(-1, size))
        self._wake()

    def hang_up(self) -> None:
        """The caller says no more."""
        super().hang_up()
        self._wake()

    def heard_samples(self) -> Samples:
        """What the caller heard in one piece, without the silence between."""
        return np.concatenate([np.zeros(0, np.int16), *(chunk.samples for chunk in self.heard)])

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.wake()
            self._waiting = None

    # --- the verbs ----------------------------------------------------------------------------------------------

    async def receive(self) -> AsyncIterator[Frame]:
        """What was said, 20 ms each 20 ms as a microphone gives it, until the caller hangs up; else nothing."""
        begun_ns = end_ns = self.clock.now_ns()
        while True:
            while self._chunks:
                samples = self._chunks.popleft()
                end_ns += CHUNK_NS
                await self.clock.sleep((end_ns - self.clock.now_ns()) / NS_PER_S)
                yield InputAudioFrame(samples, self.sample_rate, end_ns - CHUNK_NS - begun_ns)
            if self._over:
                break
            self._waiting = Wait()
            await self._waiting
            end_ns = max(end_ns, self.clock.now_ns())

    def send(self, samples: Samples, due_ns: int) -> None:
        """Note it in `heard`."""
        self.heard.append(Heard(due_ns, samples))

    def tell(self, message: ServerMessageFrame) -> None:
        """Note it in `told`."""
        self.told.append(message)

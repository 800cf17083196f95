"""A transport in memory: a test is the caller, and the line between the two may be a bad one.

::

    transport = MemoryTransport(delay_ms=80, jitter_ms=30, loss=0.02, seed=1)
    transport.say(speech)              # heard by the pipeline in real time of its clock
    transport.hang_up()
    await PipelineWorker(Pipeline([transport.input(), ..., transport.output()]), clock=VirtualClock()).run()
    assert transport.heard[0].at_ns == ...
"""

from __future__ import annotations

import heapq
import json
import random
from collections import deque
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..pipeline.client_frames import ClientMessageFrame, InterruptRequestFrame, ServerMessageFrame
from ..pipeline.clock import NS_PER_MS, NS_PER_S, TimerHandle, Wait
from ..pipeline.errors import QueueOverflowError, TransportError
from ..pipeline.frames import (
    ClientConnectedFrame,
    ClientDisconnectedFrame,
    Frame,
    InputAudioFrame,
    InputTextFrame,
    Samples,
)
from .base import Transport
from .transport_api import CHUNK_NS, samples_in_chunk

BOUND_S = 600
"""How much a caller may say ahead of time."""


@dataclass(frozen=True, slots=True, eq=False)
class HeardAudio:
    """20 ms that came to the caller: int16 mono at the output's rate, at ``at_ns`` of the worker's clock."""

    at_ns: int
    samples: Samples


class _SimulatedLink:
    """One way between the ends: what leaves in order arrives in order, later, or never."""

    def __init__(self, loss: float, delay_ms: float, jitter_ms: float, seed: str) -> None:
        self.delay_ns = round(delay_ms * NS_PER_MS)
        self._loss = loss
        self._jitter_ns = round(jitter_ms * NS_PER_MS)
        self._random = random.Random(seed)
        self._last_ns = 0

    def carry(self, leaves_ns: int) -> int | None:
        """When 20 ms of audio arrive; None: they are lost."""
        lost = self._random.random() < self._loss
        arrives_ns = leaves_ns + self.delay_ns + round(self._random.random() * self._jitter_ns)
        if lost:
            return None
        self._last_ns = max(self._last_ns, arrives_ns)
        return self._last_ns


class MemoryTransport(Transport):
    """Two ends in one process. ``sample_rate``: of what is said; ``output_rate``: of what is heard, in Hz.

    Each way has the same line: ``loss`` is the share of chunks of 20 ms that never arrive (0 to 1), ``delay_ms`` how
    long the others take, ``jitter_ms`` how much longer some of them do, evenly spread; they stay in order, as behind a
    jitter buffer. Text and messages take ``delay_ms``, and are not lost. ``disconnect_after_s``: the caller's client
    is gone so long after the worker has started, until `reconnect`. The same ``seed`` loses the same chunks, so in
    virtual time a run is the same run each time.

    The other arguments are those of `Transport`. With a lead, what is sent waits at this end until it is due.
    """

    def __init__(
        self,
        *,
        sample_rate: int = 16_000,
        output_rate: int = 24_000,
        buffer_ms: float = 2_000,
        gap_ms: float = 300,
        lead_ms: float = 0,
        on_grid: bool = False,
        silent_timeout_s: float | None = None,
        loss: float = 0.0,
        delay_ms: float = 0.0,
        jitter_ms: float = 0.0,
        disconnect_after_s: float | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__(
            sample_rate=sample_rate,
            output_rate=output_rate,
            buffer_ms=buffer_ms,
            gap_ms=gap_ms,
            lead_ms=lead_ms,
            on_grid=on_grid,
            silent_timeout_s=silent_timeout_s,
        )
        if not 0 <= loss <= 1 or delay_ms < 0 or jitter_ms < 0 or (disconnect_after_s or 0) < 0:
            raise TransportError(
                "MemoryTransport: loss is a share from 0 to 1, and delay_ms, jitter_ms and disconnect_after_s are not "
                f"negative; they are {loss:g}, {delay_ms:g}, {jitter_ms:g} and {disconnect_after_s}."
            )
        self.told: list[ServerMessageFrame] = []
        """The messages that the caller's program got."""
        self.connected = True
        """True while the caller's client is connected."""
        self._disconnect_after_s = disconnect_after_s
        self._quality = (loss, delay_ms, jitter_ms)
        self._seed = seed
        self._heard: list[HeardAudio] = []
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._to_bot = _SimulatedLink(*self._quality, f"{self._seed} to the bot")
        self._to_caller = _SimulatedLink(*self._quality, f"{self._seed} to the caller")
        # bound: BOUND_S of audio, then say() raises; messages come one by one
        self._coming: list[tuple[int, int, int, Frame]] = []
        """When it arrives, its number, when it was said, and what. Times count from `_begun_ns`."""
        self._count = 0
        self._begun_ns: int | None = None
        """When the bot begins to hear. What is said before it is said from then on."""
        self._said_ns = 0
        """When all that was said until now is over."""
        self._back_ns = 0
        """Audio sent before this time is lost: nobody was connected, or the connection broke."""
        self._ahead: deque[tuple[int, Samples]] = deque()  # bound: the lead of the transport, in chunks
        self._halted = False
        self._waiting: Wait | None = None
        self._timer: TimerHandle | None = None

    # --- the caller ---------------------------------------------------------------------------------------------

    def say(self, samples: Samples) -> None:
        """Say this, after what was said before: int16 mono at `sample_rate`. The last 20 ms are filled up.

        Raises `QueueOverflowError` with more than `BOUND_S` of audio waiting.
        """
        size, now_ns = samples_in_chunk(self.sample_rate), self._now_ns()
        if self._said_ns - now_ns > BOUND_S * NS_PER_S:
            raise QueueOverflowError(
                f"MemoryTransport: {BOUND_S} s of audio wait to be heard, the bound. Say less at a time, and "
                "run the worker in between."
            )
        self._said_ns = max(self._said_ns, now_ns)
        padded = np.concatenate([samples, np.zeros(-len(samples) % size, np.int16)])
        for chunk in padded.reshape(-1, size):
            frame = InputAudioFrame(chunk, self.sample_rate, self._said_ns)
            # A microphone gives 20 ms when they are over.
            self._said_ns += CHUNK_NS
            arrives_ns = self._to_bot.carry(self._said_ns)
            if arrives_ns is not None:
                self._come(arrives_ns, self._said_ns, frame)
        self._wake()

    def type(self, text: str, *, interrupt: bool = True) -> None:
        """Type a text."""
        self._put(InputTextFrame(text, interrupt))

    def message(self, kind: str, data: Any = None, *, id: str = "") -> None:
        """A message of the caller's program. ``data`` is anything that JSON knows; ``id`` asks for an answer."""
        self._put(ClientMessageFrame(kind, json.dumps(data), id))

    def press_interrupt(self) -> None:
        """Press the button that cuts the bot."""
        self._put(InterruptRequestFrame())

    def disconnect(self, reason: str = "disconnected") -> None:
        """The caller's client is gone: nothing arrives and nothing is heard, until `reconnect`."""
        if self.connected:
            self._depart()
            self.connected = False
            self.deliver(ClientDisconnectedFrame(reason))

    def reconnect(self) -> None:
        """The caller's client is back. What was under way when it went is lost."""
        if not self.connected:
            self._depart()
            self.connected = True
            self._back_ns = self._now_ns()
            self.deliver(ClientConnectedFrame())

    def hang_up(self, reason: str = "") -> None:
        """The caller says no more. What was said is heard to its end."""
        super().hang_up()
        self._wake()

    @property
    def heard(self) -> list[HeardAudio]:
        """Audio that the caller has heard, in chunks of 20 ms. The last ones may still be in transit, by `delay_ms`."""
        self._depart()
        return self._heard

    def heard_samples(self) -> Samples:
        """Return the heard audio in one piece, without the silence in between."""
        return np.concatenate([np.zeros(0, np.int16), *(chunk.samples for chunk in self.heard)])

    # --- the line -----------------------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        return 0 if self._begun_ns is None else self.clock.now_ns() - self._begun_ns

    def _put(self, frame: Frame) -> None:
        now_ns = self._now_ns()
        if self.connected:
            self._come(now_ns + self._to_bot.delay_ns, now_ns, frame)
            self._wake()

    def _come(self, arrives_ns: int, said_ns: int, frame: Frame) -> None:
        self._count += 1
        heapq.heappush(self._coming, (arrives_ns, self._count, said_ns, frame))

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.wake()

    def _depart(self) -> None:
        """Send what is due on its way to the caller."""
        while self._ahead and not self._halted:
            # In a replay nothing is opened, and there is no clock: then all is on time.
            if self.worker_clock is not None and self._ahead[0][0] > self.worker_clock.now_ns():
                break
            due_ns, samples = self._ahead.popleft()
            arrives_ns = self._to_caller.carry(due_ns)
            if self.connected and arrives_ns is not None:
                self._heard.append(HeardAudio(arrives_ns, samples))

    # --- the verbs ----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Set the time at which the caller is gone."""
        if self._disconnect_after_s is not None:
            due_ns = self.clock.now_ns() + round(self._disconnect_after_s * NS_PER_S)
            self._timer = self.clock.call_at(due_ns, self.disconnect)

    async def receive(self) -> AsyncIterator[Frame]:
        """Yield the caller's audio, 20 ms every 20 ms as from a microphone, until the caller hangs up."""
        self._begun_ns = self.clock.now_ns()
        while self._coming or not self.hung_up:
            arrives_ns = self._coming[0][0] if self._coming else None
            if arrives_ns is None or arrives_ns > self._now_ns():
                await self._until(arrives_ns)
                continue
            _, _, said_ns, frame = heapq.heappop(self._coming)
            if self.connected and said_ns >= self._back_ns:
                yield frame

    async def _until(self, arrives_ns: int | None) -> None:
        """Wait for what arrives next, or for something to be said."""
        waiting = self._waiting = Wait()
        timer = None
        if arrives_ns is not None and self._begun_ns is not None:
            timer = self.clock.call_at(self._begun_ns + arrives_ns, waiting.wake)
        try:
            await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def send(self, samples: Samples, due_ns: int) -> None:
        """Note it in `heard`, when it is due."""
        self._ahead.append((due_ns, samples))
        self._depart()

    def clear(self) -> None:
        """Forget what is not due yet."""
        self._depart()
        self._ahead.clear()

    def pause(self) -> None:
        """Keep what is not due yet."""
        self._depart()
        self._halted = True

    def resume(self) -> None:
        """Continue with the kept audio, due from now on."""
        self._halted = False
        if self._ahead:
            late_ns = max(0, self.next_due_ns(self.clock.now_ns()) - self._ahead[0][0])
            kept = [(due_ns + late_ns, samples) for due_ns, samples in self._ahead]
            self._ahead.clear()
            self._ahead.extend(kept)
        self._depart()

    def tell(self, message: ServerMessageFrame) -> None:
        """Note it in `told`."""
        if self.connected:
            self.told.append(message)

    async def close(self) -> None:
        """Forget what was not heard, on either side."""
        if self._timer is not None:
            self._timer.cancel()
        self._depart()
        self._begin_anew()

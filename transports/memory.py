"""`MemoryTransport`: a test is the caller, over a simulated network with loss, delay and jitter.

::

    transport = MemoryTransport(delay_ms=80, jitter_ms=30, loss=0.02, seed=1)
    transport.say(speech)              # reaches the pipeline in real time of its clock
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
"""Bound on the audio that a caller may say ahead of time, in s."""


@dataclass(frozen=True, slots=True, eq=False)
class HeardAudio:
    """Audio that the caller heard, mono int16; ``at_ns``: time of its first sample on the worker's clock."""

    at_ns: int
    samples: Samples


class _SimulatedLink:
    """One direction of the simulated network: chunks arrive in order, delayed or lost."""

    def __init__(self, loss: float, delay_ms: float, jitter_ms: float, seed: str) -> None:
        self.delay_ns = round(delay_ms * NS_PER_MS)
        self._loss = loss
        self._jitter_ns = round(jitter_ms * NS_PER_MS)
        self._random = random.Random(seed)
        self._last_ns = 0

    def carry(self, leaves_ns: int) -> int | None:
        """Return the arrival time of 20 ms of audio; None: lost."""
        lost = self._random.random() < self._loss
        arrives_ns = leaves_ns + self.delay_ns + round(self._random.random() * self._jitter_ns)
        if lost:
            return None
        self._last_ns = max(self._last_ns, arrives_ns)
        return self._last_ns


class MemoryTransport(Transport):
    """Both ends of a call in one process. ``sample_rate``: rate of the caller's audio; ``output_rate``: of the bot's.

    Both directions have the same quality: ``loss`` is the share of chunks of 20 ms that never arrive (0 to 1),
    ``delay_ms`` the delay of the others, ``jitter_ms`` an additional delay, uniformly distributed from 0; chunks stay
    in order, as behind a jitter buffer. Text and messages take ``delay_ms`` and are never lost. ``disconnect_after_s``:
    the caller's client disconnects this long after the worker starts, until `reconnect`. The same ``seed`` loses the
    same chunks, so runs in virtual time are repeatable.

    The other arguments are those of `Transport`. With a lead, sent audio waits here until it is due.
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
                "MemoryTransport: loss must be a share from 0 to 1; delay_ms, jitter_ms and disconnect_after_s must "
                f"not be negative. They are {loss:g}, {delay_ms:g}, {jitter_ms:g} and {disconnect_after_s}."
            )
        self.messages: list[ServerMessageFrame] = []
        """Messages that the caller's program received."""
        self.connected = True
        """True while the caller's client is connected."""
        self._disconnect_after_s = disconnect_after_s
        self._quality = (loss, delay_ms, jitter_ms)
        self._seed = seed
        self._heard: list[HeardAudio] = []
        self._reset()

    def _reset(self) -> None:
        self._to_bot = _SimulatedLink(*self._quality, f"{self._seed} to the bot")
        self._to_caller = _SimulatedLink(*self._quality, f"{self._seed} to the caller")
        # bound: BOUND_S of audio, then say() raises; messages come one by one
        self._coming: list[tuple[int, int, int, Frame]] = []
        """Heap of (arrival time, number, time said, frame). Times count from `_start_ns`."""
        self._count = 0
        self._start_ns: int | None = None
        """Time at which the bot starts to hear. Earlier audio is said from then on."""
        self._said_ns = 0
        """End of the audio said so far."""
        self._back_ns = 0
        """Frames said before this time are lost: the client was away when they arrived."""
        self._ahead: deque[tuple[int, Samples]] = deque()  # bound: the lead of the transport, in chunks
        self._paused = False
        self._waiting: Wait | None = None
        self._timer: TimerHandle | None = None

    # --- the caller ---------------------------------------------------------------------------------------------

    def say(self, samples: Samples) -> None:
        """Say int16 mono audio at `sample_rate`, after the audio said before. The last 20 ms are padded.

        Raises `QueueOverflowError` if more than `BOUND_S` of audio is waiting.
        """
        size, now_ns = samples_in_chunk(self.sample_rate), self._now_ns()
        if self._said_ns - now_ns > BOUND_S * NS_PER_S:
            raise QueueOverflowError(
                f"MemoryTransport: {BOUND_S} s of audio wait to be heard, the bound. Say less at a time and "
                "run the worker in between."
            )
        self._said_ns = max(self._said_ns, now_ns)
        padded = np.concatenate([samples, np.zeros(-len(samples) % size, np.int16)])
        for chunk in padded.reshape(-1, size):
            frame = InputAudioFrame(chunk, self.sample_rate, self._said_ns)
            # A microphone delivers 20 ms when they have passed.
            self._said_ns += CHUNK_NS
            arrives_ns = self._to_bot.carry(self._said_ns)
            if arrives_ns is not None:
                self._schedule(arrives_ns, self._said_ns, frame)
        self._wake()

    def type(self, text: str, *, interrupt: bool = True) -> None:
        """Send a typed text."""
        self._put(InputTextFrame(text, interrupt))

    def message(self, kind: str, data: Any = None, *, id: str = "") -> None:
        """Send a message of the caller's program. ``data``: any JSON value; ``id``: requests an answer."""
        self._put(ClientMessageFrame(kind, json.dumps(data), id))

    def press_interrupt(self) -> None:
        """Request an interruption, as a button of the client does."""
        self._put(InterruptRequestFrame())

    def disconnect(self, reason: str = "disconnected") -> None:
        """Disconnect the caller's client: no audio or message passes, either way, until `reconnect`."""
        if self.connected:
            self._depart()
            self.connected = False
            self.deliver(ClientDisconnectedFrame(reason))

    def reconnect(self) -> None:
        """Connect the caller's client again. Everything in transit when it left is lost."""
        if not self.connected:
            self._depart()
            self.connected = True
            self._back_ns = self._now_ns()
            self.deliver(ClientConnectedFrame())

    def hang_up(self, reason: str = "") -> None:
        """End the call. Audio said before is still heard to its end."""
        super().hang_up()
        self._wake()

    @property
    def heard(self) -> list[HeardAudio]:
        """Chunks of 20 ms heard by the caller so far. The last ones may still be in transit, by `delay_ms`."""
        self._depart()
        return self._heard

    def heard_samples(self) -> Samples:
        """Return all audio heard by the caller, joined without the silence between."""
        return np.concatenate([np.zeros(0, np.int16), *(chunk.samples for chunk in self.heard)])

    # --- the network --------------------------------------------------------------------------------------------

    def _now_ns(self) -> int:
        return 0 if self._start_ns is None else self.clock.now_ns() - self._start_ns

    def _put(self, frame: Frame) -> None:
        now_ns = self._now_ns()
        if self.connected:
            self._schedule(now_ns + self._to_bot.delay_ns, now_ns, frame)
            self._wake()

    def _schedule(self, arrives_ns: int, said_ns: int, frame: Frame) -> None:
        self._count += 1
        heapq.heappush(self._coming, (arrives_ns, self._count, said_ns, frame))

    def _wake(self) -> None:
        if self._waiting is not None:
            self._waiting.wake()

    def _depart(self) -> None:
        """Move the chunks that are due onto the network."""
        while self._ahead and not self._paused:
            # A replay opens nothing and has no clock: every chunk is on time.
            if self.worker_clock is not None and self._ahead[0][0] > self.worker_clock.now_ns():
                break
            due_ns, samples = self._ahead.popleft()
            arrives_ns = self._to_caller.carry(due_ns)
            if self.connected and arrives_ns is not None:
                self._heard.append(HeardAudio(arrives_ns, samples))

    # --- transport API ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Set the timer of ``disconnect_after_s``."""
        if self._disconnect_after_s is not None:
            due_ns = self.clock.now_ns() + round(self._disconnect_after_s * NS_PER_S)
            self._timer = self.clock.call_at(due_ns, self.disconnect)

    async def receive(self) -> AsyncIterator[Frame]:
        """Yield the caller's frames as they arrive, audio in chunks of 20 ms, until the caller hangs up."""
        self._start_ns = self.clock.now_ns()
        while self._coming or not self.hung_up:
            arrives_ns = self._coming[0][0] if self._coming else None
            if arrives_ns is None or arrives_ns > self._now_ns():
                await self._wait_until(arrives_ns)
                continue
            _, _, said_ns, frame = heapq.heappop(self._coming)
            if self.connected and said_ns >= self._back_ns:
                yield frame

    async def _wait_until(self, arrives_ns: int | None) -> None:
        """Wait for the next arrival, or for a new frame."""
        waiting = self._waiting = Wait()
        timer = None
        if arrives_ns is not None and self._start_ns is not None:
            timer = self.clock.call_at(self._start_ns + arrives_ns, waiting.wake)
        try:
            await waiting
        finally:
            self._waiting = None
            if timer is not None:
                timer.cancel()

    def send(self, samples: Samples, due_ns: int) -> None:
        """Add the audio to `heard` when it is due."""
        self._ahead.append((due_ns, samples))
        self._depart()

    def clear(self) -> None:
        """Drop audio not due yet."""
        self._depart()
        self._ahead.clear()

    def pause(self) -> None:
        """Keep audio not due yet."""
        self._depart()
        self._paused = True

    def resume(self) -> None:
        """Make the kept audio due from now on."""
        self._paused = False
        if self._ahead:
            late_ns = max(0, self.next_due_ns(self.clock.now_ns()) - self._ahead[0][0])
            kept = [(due_ns + late_ns, samples) for due_ns, samples in self._ahead]
            self._ahead.clear()
            self._ahead.extend(kept)
        self._depart()

    def tell(self, message: ServerMessageFrame) -> None:
        """Add the message to `messages`."""
        if self.connected:
            self.messages.append(message)

    async def close(self) -> None:
        """Drop everything in transit, both ways."""
        if self._timer is not None:
            self._timer.cancel()
        self._depart()
        self._reset()

"""Playout ring between the event loop, which sends on schedule, and the sound card, which asks.

Two clocks meet here. A sound card's clock differs from the machine's by 10-200 ppm: 200 ppm are 12 ms in a minute of
speech, and a ring without correction runs empty or full. So each chunk carries its due time. Audio that is early or
late for long is stretched or squeezed by one sample in a block (0.2 % of 20 ms at 24 kHz, which is inaudible) until it
is on time. Between responses the ring is empty, and each response begins at its due time.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass

import numpy as np

from ...pipeline.clock import NS_PER_MS, NS_PER_S
from ...pipeline.frames import Samples

HELD_MS = 1_000
"""More than this is not held: the sound card has stopped asking, and what waits is stale."""
SEAM_NS = 5 * NS_PER_MS
"""Chunks whose times are no further apart than this are one sound."""
LATE_NS = 10 * NS_PER_MS
"""From here on, early or late, samples are put in or left out, until it is a fifth of that."""
LOST_NS = 250 * NS_PER_MS
"""Audio later than this is skipped instead of caught up with."""
NEVER_NS = -(10**18)
SMOOTHING = 32
"""Over how many blocks "early or late" is an average: a callback comes some ms before or after its time."""


@dataclass(slots=True)
class _QueuedChunk:
    samples: Samples
    due_ns: int
    """Due time of the first sample."""


class PlayoutRing:
    """Samples on their way to a sound card, mono int16 at ``rate``. One thread puts, another one takes.

    What is put is due at a time of the clock: a sound's first sample is not taken before, and what follows it without
    a gap is taken as fast as the card asks.
    """

    def __init__(self, rate: int) -> None:
        self.rate = rate
        self.underruns = 0
        """How often the middle of a sound was not there when the card asked for it."""
        self.skipped = 0
        """Samples that came so late that they were left out."""
        self._lock = threading.Lock()
        # bound: HELD_MS of audio, then the oldest is dropped and counted in `skipped`
        self._chunks: deque[_QueuedChunk] = deque()
        self._held = 0
        self._halted = False
        self._flowing = False
        """In the middle of a sound."""
        self._next_ns = NEVER_NS
        """When the next sample of the sound is due whose last one was taken."""
        self._allowed_ns = 0
        """How late its sound began, at most a block."""
        self._late_ns = 0.0
        """How much later it is than that, on average."""
        self._slip = 0

    @property
    def held_ms(self) -> float:
        """How much waits to be taken, in ms."""
        return self._held * 1000.0 / self.rate

    # --- from the event loop ------------------------------------------------------------------------------------

    def put(self, samples: Samples, due_ns: int) -> None:
        """Add what is due at ``due_ns`` of the clock, after what was put before."""
        with self._lock:
            ran_dry = not self._flowing and not self._chunks
            self.underruns += ran_dry and abs(due_ns - self._next_ns) <= SEAM_NS
            self._chunks.append(_QueuedChunk(samples, due_ns))
            self._held += len(samples)
            while self._held > HELD_MS * self.rate // 1000:
                self._skip(len(self._chunks[0].samples))

    def clear(self) -> None:
        """Forget what was not taken."""
        with self._lock:
            self._chunks.clear()
            self._held = 0
            self._begin_anew()

    def pause(self) -> None:
        """Give silence, and keep what was not taken."""
        with self._lock:
            self._halted = True

    def resume(self, now_ns: int) -> None:
        """Go on with what was kept, now."""
        with self._lock:
            self._halted = False
            self._begin_anew()
            if self._chunks:
                behind_ns = now_ns - self._chunks[0].due_ns
                for chunk in self._chunks:
                    chunk.due_ns += behind_ns

    # --- from the sound card's thread ---------------------------------------------------------------------------

    def take(self, count: int, now_ns: int) -> Samples:
        """The next ``count`` samples, the first of which is played from ``now_ns`` on (plus the card's latency)."""
        with self._lock:
            if self._halted:
                return np.zeros(count, np.int16)
            self._keep_time(now_ns)
            wanted = max(1, count + self._slip)
            samples = self._read(wanted, now_ns)
            if wanted == count:
                return samples
            at = np.linspace(0, wanted - 1, count)
            return np.rint(np.interp(at, np.arange(wanted), samples)).astype(np.int16)

    def _read(self, count: int, now_ns: int) -> Samples:
        out = np.zeros(count, np.int16)
        at = 0
        while at < count:
            if not self._chunks:
                self._flowing = False
                break
            chunk = self._chunks[0]
            if not self._flowing or abs(chunk.due_ns - self._next_ns) > SEAM_NS:
                self._begin_anew()
                # To the nearest sample: less than one is no reason to wait.
                at = max(at, round((chunk.due_ns - now_ns) * self.rate / NS_PER_S))
                if at >= count:
                    break
                self._flowing = True
                # A sound that is due at once has to wait for the card to ask, and is in time all the same.
                self._allowed_ns = min(max(0, now_ns - chunk.due_ns), count * NS_PER_S // self.rate)
            part = chunk.samples[: count - at]
            out[at : at + len(part)] = part
            at += len(part)
            self._drop(len(part))
            self._next_ns = chunk.due_ns
        return out

    def _drop(self, count: int) -> None:
        """The first ``count`` samples of the first chunk are gone; its time moves on with them."""
        chunk = self._chunks[0]
        chunk.due_ns += count * NS_PER_S // self.rate
        self._held -= count
        if count == len(chunk.samples):
            self._chunks.popleft()
        else:
            chunk.samples = chunk.samples[count:]

    def _skip(self, count: int) -> None:
        self.skipped += count
        self._drop(count)

    def _begin_anew(self) -> None:
        """Treat the next audio as a new sound."""
        self._flowing = False
        self._next_ns = NEVER_NS
        self._late_ns = 0.0
        self._slip = 0

    def _keep_time(self, now_ns: int) -> None:
        """Decide whether samples have to be left out, or put in."""
        if not self._flowing or not self._chunks:
            self._slip = 0
            return
        late_ns = now_ns - self._chunks[0].due_ns - self._allowed_ns
        while late_ns > LOST_NS and self._chunks:
            self._skip(len(self._chunks[0].samples))
            self._late_ns = 0.0
            late_ns = now_ns - self._chunks[0].due_ns - self._allowed_ns if self._chunks else 0
        self._late_ns += (late_ns - self._late_ns) / SMOOTHING
        if abs(self._late_ns) > LATE_NS:
            self._slip = 1 if self._late_ns > 0 else -1
        elif abs(self._late_ns) < LATE_NS / 5:
            self._slip = 0

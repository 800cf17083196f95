"""Transports: where a conversation meets the world.

A transport is four verbs: open, receive, send, close (verbs.py). Derive from `Transport`, write them, and the rest is
there: the two processors, resampling and chunks of 20 ms, pacing on one monotonic schedule, the buffer and its
bound, interruptions, pauses, the account of what was heard, mute, levels and the watch over a silent peer. See
`docs/design/transports.md`; `check_transport` (contracts/) tries one out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator
from typing import TypeVar

from ..pipeline.clock import NS_PER_S, Clock, TimerHandle, Wait
from ..pipeline.errors import QueueOverflowError, TransportError
from ..pipeline.frames import Frame, InputFrame
from .input import InputTransport, MuteFrame
from .output import OutputTransport
from .transport_api import Verbs

_End = TypeVar("_End", InputTransport, OutputTransport)

EARLY = 1_000
"""How many frames may come before the worker runs."""


class Transport(Verbs):
    """One connection to the world: a file, a sound card, a call.

    ``sample_rate``: of what the pipeline hears, in Hz; ``output_rate``: of what `send` gets. ``buffer_ms`` and
    ``gap_ms``: see `OutputTransport`. ``lead_ms``: how long before it is due `send` gets what is to be heard: the
    stall of an event loop that is shorter is not heard. What is not due when the bot is cut, `clear` drops.
    ``on_grid``: the 20 ms are due at multiples of 20 ms of the clock, and not from the moment when the bot begins.
    ``silent_timeout_s``: a peer of whom nothing has come for so long is gone; None: it may be silent.
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
    ) -> None:
        if silent_timeout_s is not None and silent_timeout_s <= 0:
            raise TransportError(f"silent_timeout_s is a time in s, or None, not {silent_timeout_s}.")
        name = type(self).__name__.removesuffix("Transport")
        self.sample_rate = sample_rate
        self.output_rate = output_rate
        self.lead_ms = lead_ms
        self.silent_timeout_s = silent_timeout_s
        self._input = InputTransport(self, f"{name}Input", sample_rate=sample_rate)
        self._output = OutputTransport(
            self,
            f"{name}Output",
            sample_rate=output_rate,
            buffer_ms=buffer_ms,
            gap_ms=gap_ms,
            lead_ms=lead_ms,
            on_grid=on_grid,
        )
        self._ends: list[InputTransport | OutputTransport] = []
        self._clock: Clock | None = None
        self._running = 0
        self._over = False
        self._done = False
        """A worker has ended; another one may use it again."""
        self._ended: Wait | None = None
        self._early: deque[Frame] = deque()  # bound: EARLY frames, then deliver() raises
        self._heard_ns = 0
        self._watch: TimerHandle | None = None

    # --- the two processors -------------------------------------------------------------------------------------

    def input(self) -> InputTransport:
        """The head of the pipeline: what the user says. The same processor each time."""
        return self._use(self._input)

    def output(self) -> OutputTransport:
        """The tail of the pipeline: what the user hears. The same processor each time."""
        return self._use(self._output)

    def _use(self, end: _End) -> _End:
        if end not in self._ends:
            self._ends.append(end)
        return end

    @property
    def hears(self) -> bool:
        """Whether `input` is in use."""
        return self._input in self._ends

    @property
    def speaks(self) -> bool:
        """Whether `output` is in use."""
        return self._output in self._ends

    # --- for a transport to call --------------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        """Whether the worker ends without letting the bot finish. Asked by a `close` that could wait for last words."""
        return self._ends[0].ending not in ("ended", "stopped")

    @property
    def clock(self) -> Clock:
        """The worker's clock, from `open` on."""
        if self._clock is None:
            raise TransportError(f"{type(self).__name__} has no clock before its worker runs.")
        return self._clock

    def receive(self) -> AsyncIterator[Frame]:
        """Nothing, until `hang_up`: what comes is delivered by callbacks."""
        return self._until_hung_up()

    async def _until_hung_up(self) -> AsyncIterator[Frame]:
        while not self._over:
            self._ended = Wait()
            await self._ended
        for nothing in ():
            yield nothing

    def deliver(self, frame: Frame) -> None:
        """Put what came from the user into the inbox; from a callback in the event loop.

        What comes before the worker runs waits for it; what comes after its end is dropped.
        """
        if self._over or not self.hears:
            return
        if not self._running:
            if len(self._early) >= EARLY:
                raise QueueOverflowError(
                    f"{EARLY} frames wait for the worker of this {type(self).__name__} to run, the bound. Run it first."
                )
            self._early.append(frame)
            return
        self._heard_ns = self.clock.now_ns()
        self._input.post(frame)

    def deliver_threadsafe(self, frame: Frame) -> None:
        """`deliver` from another thread, while the worker runs."""
        if self._running and not self._over:
            self._heard_ns = self.clock.now_ns()
            self._input.post_threadsafe(frame)

    def hang_up(self) -> None:
        """Nothing more will come from the user: what is under way is done, and the worker ends."""
        self._over = True
        if self._ended is not None:
            self._ended.wake()

    def gone(self, why: str) -> None:
        """Nothing has come for `silent_timeout_s`. A transport whose peers come back overrides this."""
        self.hang_up()

    # --- for whoever has the transport --------------------------------------------------------------------------

    def mute(self, *, on: bool = True) -> None:
        """Hear silence in place of the user, or the user again."""
        frame: InputFrame = MuteFrame(on)
        if self._running:
            self._input.post(frame)
        else:
            self._input.muted = on

    @property
    def input_dbfs(self) -> float:
        """How loud the user is, in dB of full scale: the newest 20 ms."""
        return self._input.level_dbfs

    @property
    def output_dbfs(self) -> float:
        """How loud the bot is, in dB of full scale: the newest 20 ms."""
        return self._output.level_dbfs

    # --- for its two ends ---------------------------------------------------------------------------------------

    async def enter(self) -> None:
        """An end starts; the first opens the transport."""
        self._running += 1
        if self._running > 1:
            return
        self._clock = self._ends[0].clock
        if self._done:
            self._done = self._over = False
        while self._early:
            self._input.post(self._early.popleft())
        await self.open()
        # Not before: to open may take longer than a peer may be silent.
        self._heard_ns = self._clock.now_ns()
        if self.silent_timeout_s is not None:
            self._look(self.silent_timeout_s)

    async def leave(self) -> None:
        """An end has stopped; the last closes the transport."""
        self._running -= 1
        if self._running:
            return
        self.hang_up()
        self._done = True
        if self._watch is not None:
            self._watch.cancel()
        await self.close()

    def arriving(self) -> AsyncIterator[Frame]:
        """What `receive` gives, with an eye on whether anything does."""
        return self._arriving()

    async def _arriving(self) -> AsyncIterator[Frame]:
        async for frame in self.receive():
            self._heard_ns = self.clock.now_ns()
            yield frame

    def _look(self, timeout_s: float) -> None:
        """Look again when the time is up, and not at each frame."""
        due_ns = self._heard_ns + round(timeout_s * NS_PER_S)
        if due_ns <= self.clock.now_ns():
            self.gone(f"nothing came for {timeout_s:g} s")
            self._heard_ns = self.clock.now_ns()
            due_ns = self._heard_ns + round(timeout_s * NS_PER_S)
        if not self._over:
            self._watch = self.clock.call_at(due_ns, lambda: self._look(timeout_s))

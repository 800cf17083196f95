"""`Transport`: the base class of every transport.

Derive from `Transport` and write four methods: `open`, `receive`, `send` and `close` (transport_api.py). The base class
adds the rest: the two processors, resampling, chunks of 20 ms, pacing on one monotonic schedule, the bounded buffer,
interruptions, pauses, the record of what was heard, mute, levels and the timeout for a silent peer. See
`docs/design/transports.md`; `check_transport` (contracts/) tests a transport.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import TypeVar

from ..pipeline.clock import NS_PER_S, Clock, TimerHandle, Wait
from ..pipeline.errors import QueueOverflowError, TransportError
from ..pipeline.frames import Frame, InputFrame
from .caller import Caller
from .input import InputTransport, MuteFrame
from .output import OutputTransport
from .transport_api import TransportApi

_Processor = TypeVar("_Processor", InputTransport, OutputTransport)

MAX_EARLY_FRAMES = 1_000
"""Bound on frames delivered before the worker runs."""


class Transport(TransportApi):
    """One connection to the outside world: a file, a sound card, a call.

    ``sample_rate``: rate of the pipeline's input audio, in Hz; ``output_rate``: rate of the audio passed to `send`.
    ``buffer_ms`` and ``gap_ms``: see `OutputTransport`. ``lead_ms``: `send` receives audio this long before its
    playback time, so a shorter stall of the event loop is inaudible; after an interruption, `clear` drops what is not
    due yet. ``on_grid``: playback times are multiples of 20 ms of the clock instead of starting with the response.
    ``silent_timeout_s``: a peer that sends nothing for this long is treated as gone; None: no timeout.
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
            raise TransportError(f"silent_timeout_s must be positive (seconds) or None, not {silent_timeout_s}.")
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
        self._processors: list[InputTransport | OutputTransport] = []
        self._clock: Clock | None = None
        self._running = 0
        """Processors that have started and not stopped."""
        self._hung_up = False
        self._closed = False
        """The worker has ended; another one may use the transport."""
        self._hang_up_wait: Wait | None = None
        self.caller = Caller()
        """The caller, where a server began this conversation."""
        self.on_hang_up: Callable[[], None] | None = None
        """Called once the client is gone for good, before the pipeline ends."""
        self._early: deque[Frame] = deque()  # bound: MAX_EARLY_FRAMES frames, then deliver() raises
        self._last_received_ns = 0
        self._silence_timer: TimerHandle | None = None

    # --- the two processors -------------------------------------------------------------------------------------

    def input(self) -> InputTransport:
        """Return the first processor of the pipeline, which emits the user's audio. Always the same object."""
        return self._use(self._input)

    def output(self) -> OutputTransport:
        """Return the last processor of the pipeline, which plays the bot's audio. Always the same object."""
        return self._use(self._output)

    def _use(self, processor: _Processor) -> _Processor:
        if processor not in self._processors:
            self._processors.append(processor)
        return processor

    @property
    def hears(self) -> bool:
        """True if the pipeline uses `input`."""
        return self._input in self._processors

    @property
    def speaks(self) -> bool:
        """True if the pipeline uses `output`."""
        return self._output in self._processors

    # --- for subclasses: state ----------------------------------------------------------------------------------

    @property
    def cancelled(self) -> bool:
        """True if the worker ends without letting the bot finish, so `close` need not wait for the last words."""
        return self._processors[0].ending not in ("ended", "stopped")

    @property
    def clock(self) -> Clock:
        """The worker's clock, from `open` on; `TransportError` before."""
        if self._clock is None:
            raise TransportError(f"{type(self).__name__} has no clock before its worker runs.")
        return self._clock

    @property
    def worker_clock(self) -> Clock | None:
        """The worker's clock; None before the first `open`, and in a replay, which opens nothing."""
        return self._clock

    @property
    def running(self) -> bool:
        """True while a worker uses the transport."""
        return self._running > 0

    @property
    def hung_up(self) -> bool:
        """True after `hang_up`, until the next worker starts or `reopen` is called."""
        return self._hung_up

    def next_due_ns(self, when_ns: int) -> int:
        """Return the first playback time at or after ``when_ns``: on the grid of 20 ms if ``on_grid`` is set."""
        return self._output.next_due_ns(when_ns)

    # --- for subclasses: input ----------------------------------------------------------------------------------

    def receive(self) -> AsyncIterator[Frame]:
        """Yield nothing until `hang_up`: the default for transports that `deliver` from callbacks."""
        return self._until_hung_up()

    async def _until_hung_up(self) -> AsyncIterator[Frame]:
        while not self._hung_up:
            self._hang_up_wait = Wait()
            await self._hang_up_wait
        for frame in ():
            yield frame

    def deliver(self, frame: Frame, *, from_peer: bool = True) -> None:
        """Post a frame of the user to the input; from a callback in the event loop.

        Frames delivered before the worker runs wait for it (`QueueOverflowError` beyond `MAX_EARLY_FRAMES`); frames
        after `hang_up` are dropped. ``from_peer=False``: the transport made the frame itself (say, silence for a
        microphone that was switched off), so it does not postpone ``silent_timeout_s``.
        """
        if self._hung_up or not self.hears:
            return
        if not self._running:
            if len(self._early) >= MAX_EARLY_FRAMES:
                raise QueueOverflowError(
                    f"{MAX_EARLY_FRAMES} frames wait for the worker of this {type(self).__name__}, which does not run "
                    "yet; more are not kept. Start the worker before the transport receives."
                )
            self._early.append(frame)
            return
        if from_peer:
            self._last_received_ns = self.clock.now_ns()
        self._input.post(frame)

    def deliver_threadsafe(self, frame: Frame) -> None:
        """Like `deliver`, from another thread; ignored unless the worker runs."""
        if self._running and not self._hung_up:
            self._last_received_ns = self.clock.now_ns()
            self._input.post_threadsafe(frame)

    def hang_up(self) -> None:
        """End the user's input: the worker finishes what is running, then ends."""
        self._hung_up = True
        if self.on_hang_up is not None:
            self.on_hang_up()
        if self._hang_up_wait is not None:
            self._hang_up_wait.wake()

    def reopen(self) -> bool:
        """Accept a peer again after `hang_up`. False while the worker of the last conversation still runs.

        For transports whose next peer may come before the next worker starts.
        """
        if self._hung_up and not self._closed:
            return False
        self._hung_up = self._closed = False
        return True

    def on_silent_timeout(self, reason: str) -> None:
        """Handle a peer that sent nothing for ``silent_timeout_s``: hang up. Override if peers can reconnect."""
        self.hang_up()

    # --- for users of the transport -----------------------------------------------------------------------------

    def mute(self, *, on: bool = True) -> None:
        """Replace the user's audio with silence, or stop doing so."""
        frame: InputFrame = MuteFrame(on)
        if self._running:
            self._input.post(frame)
        else:
            self._input.muted = on

    @property
    def input_dbfs(self) -> float:
        """Level of the user's newest 20 ms, in dB of full scale."""
        return self._input.level_dbfs

    @property
    def output_dbfs(self) -> float:
        """Level of the bot's newest 20 ms, in dB of full scale."""
        return self._output.level_dbfs

    # --- for the two processors ---------------------------------------------------------------------------------

    async def processor_started(self) -> None:
        """Open the transport when the first of the two processors starts."""
        self._running += 1
        if self._running > 1:
            return
        self._clock = self._processors[0].clock
        if self._closed:
            self._closed = self._hung_up = False
        while self._early:
            self._input.post(self._early.popleft())
        await self.open()
        # Only now: opening may take longer than the timeout.
        self._last_received_ns = self._clock.now_ns()
        if self.silent_timeout_s is not None:
            self._check_silence(self.silent_timeout_s)

    async def processor_stopped(self) -> None:
        """Close the transport when the last of the two processors has stopped."""
        self._running -= 1
        if self._running:
            return
        self.hang_up()
        self._closed = True
        if self._silence_timer is not None:
            self._silence_timer.cancel()
        await self.close()

    def received_frames(self) -> AsyncIterator[Frame]:
        """Yield the frames of `receive`, and note the time of each for ``silent_timeout_s``."""
        return self._received_frames()

    async def _received_frames(self) -> AsyncIterator[Frame]:
        async for frame in self.receive():
            self._last_received_ns = self.clock.now_ns()
            yield frame

    def _check_silence(self, timeout_s: float) -> None:
        """Check the timeout, and set the timer again: one timer per period instead of one per frame."""
        due_ns = self._last_received_ns + round(timeout_s * NS_PER_S)
        if due_ns <= self.clock.now_ns():
            self.on_silent_timeout(f"nothing came for {timeout_s:g} s")
            self._last_received_ns = self.clock.now_ns()
            due_ns = self._last_received_ns + round(timeout_s * NS_PER_S)
        if not self._hung_up:
            self._silence_timer = self.clock.call_at(due_ns, lambda: self._check_silence(timeout_s))

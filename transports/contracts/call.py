"""One call over the transport that is checked: a worker, a bot that says what it is told to, and the peer.

::

    peer  --  transport.input() -> FrameNotes -> transport.output()  --  peer
                          ^ the check posts audio, cuts and pauses here
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, TypeVar

from ...pipeline.clock import NS_PER_MS, NS_PER_S, Clock, SystemClock, TimerHandle, VirtualClock, Wait
from ...pipeline.errors import LifecycleError, TransportError
from ...pipeline.frames import (
    UPSTREAM,
    ClientConnectedFrame,
    ClientDisconnectedFrame,
    ErrorFrame,
    Frame,
    InputAudioFrame,
    InputFrame,
    OutputAudioFrame,
    PausePlayoutFrame,
    ResponseEndFrame,
    ResumePlayoutFrame,
    Samples,
    SpokenWord,
)
from ...pipeline.graph import Pipeline
from ...pipeline.processor import AudioFormat, FrameProcessor, handles
from ...pipeline.tasks import spawn
from ...pipeline.worker import Outcome, PipelineWorker
from ..base import Transport
from ..transport_api import CHUNK_MS
from .peer import ContractPeer
from .sound import TONE_MS, Take

F = TypeVar("F", bound=Frame)
GRACE_S = 2.0
"""Real seconds in which tasks that were ended have to be gone."""
PULSE_NS = 10 * NS_PER_MS
_ENGINE = "voxline.pipeline."


class RuleBroken(Exception):
    """A rule does not hold: what was expected, and what came."""

    def __init__(self, expected: str, came: object) -> None:
        super().__init__(expected, str(came))


def expect(holds: bool, expected: str, came: object) -> None:
    """Raise `RuleBroken` unless it holds."""
    if not holds:
        raise RuleBroken(expected, came)


class FrameNotes(FrameProcessor):
    """Notes what comes from the user, and what the output says, with the time."""

    def __init__(self) -> None:
        self.notes: list[tuple[int, Frame]] = []

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Pass the bot's audio."""
        return {OutputAudioFrame: AudioFormat()}

    @handles(InputFrame)
    @handles(InputFrame, direction=UPSTREAM)
    @handles(ErrorFrame, direction=UPSTREAM)
    async def note(self, frame: Frame) -> None:
        """One more."""
        self.notes.append((self.now_ns, frame))


class ContractCall:
    """A worker with the transport, and the peer. ``patience_s``: real seconds after which something hangs."""

    def __init__(self, transport: Transport, peer: ContractPeer, patience_s: float) -> None:
        self.transport = transport
        self.peer = peer
        self.clock: Clock = VirtualClock(autojump=False) if peer.exact else SystemClock()
        self.outcome: Outcome | None = None
        self.start_error: LifecycleError | None = None
        self._patience_s = patience_s
        self._ears = FrameNotes()
        self.left: list[str] = []
        """Resources left after the end, in sentences."""
        self.held_up_ms = 0.0
        """Longest stall of the event loop in real time, caused by other programs."""
        self._pulse: TimerHandle | None = None
        self._mark = 0
        self._ended = False
        self._run: asyncio.Task[None] | None = None
        self._tasks_before = asyncio.all_tasks()
        self.worker = PipelineWorker(
            Pipeline([transport.input(), self._ears, transport.output()]),
            clock=self.clock,
            seed=0,
            name="check",
            drain_timeout_ms=10_000,
        )

    # --- beginning and ending ---------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Start the worker and connect the peer. Raises `RuleBroken` where the worker does not start."""
        await self.begin()
        if self.start_error is not None:
            raise RuleBroken("a worker that starts", self.start_error)
        self._mark = len(self.heard_so_far())
        await self._guard(self.peer.connect())
        if self.peer.announced:
            connected = await self.until(lambda: bool(self.noted(ClientConnectedFrame)), 1_000 * self.peer.end_s)
            expect(connected, f"a ClientConnectedFrame within {self.peer.end_s:g} s of connecting", "none")

    async def begin(self) -> None:
        """Start the worker, and return when it runs or has failed."""
        self._run = spawn(self._work(), "worker of the check")
        run = self._run
        if not self.peer.exact:
            self._beat(self.now_ns)
        await self.until(lambda: self.worker.running or run.done(), 20_000)

    def _beat(self, due_ns: int) -> None:
        self.held_up_ms = max(self.held_up_ms, (self.now_ns - due_ns) / NS_PER_MS)
        next_ns = self.now_ns + PULSE_NS
        self._pulse = self.clock.call_at(next_ns, lambda: self._beat(next_ns))

    def _stop_beating(self) -> None:
        if self._pulse is not None:
            self._pulse.cancel()
            self._pulse = None

    async def _work(self) -> None:
        try:
            self.outcome = await self.worker.run()
        except LifecycleError as error:
            self.start_error = error

    @property
    def over(self) -> bool:
        """True after the worker has ended."""
        return self._run is None or self._run.done()

    @property
    def ended_or_told(self) -> bool:
        """True after the worker has ended, or was notified that the user's client is gone."""
        return self.over or bool(self.noted(ClientDisconnectedFrame))

    async def end(self, *, drain: bool = False) -> Take:
        """End the worker and hang up, once. Returns the heard audio; `left` lists what remains and should not."""
        if self._ended:
            return self.take()
        self._ended = True
        if not self.over:
            if drain:
                stopping = spawn(self._stop(), "stop of the check")
                await self.until(stopping.done, 12_000)
            self.worker.cancel()
            if not await self.until(lambda: self.over, 12_000):
                self.left.append("The worker did not end within 12 s.")
        self._stop_beating()
        with contextlib.suppress(NotImplementedError):
            await self._guard(self.peer.close())
        self.left += [] if self.outcome is None else self.outcome.errors
        self.left += await self._left_behind()
        return self.take()

    async def _stop(self) -> None:
        await self.worker.stop()

    async def _left_behind(self) -> list[str]:
        def tasks() -> list[asyncio.Task[Any]]:
            known = {*self._tasks_before, asyncio.current_task()}
            return [task for task in asyncio.all_tasks() if task not in known and not task.done()]

        left_s = GRACE_S
        while tasks() and left_s > 0:
            await _real(0.01)
            left_s -= 0.01
        found = [
            f"A task is left: {task.get_name()}, {getattr(task.get_coro(), '__qualname__', '')}." for task in tasks()
        ]
        for task in tasks():
            task.cancel()
        if isinstance(self.clock, VirtualClock):
            found += [
                f"A timer is left: it will call {getattr(timer, '__qualname__', timer)}()."
                for timer in self.clock.pending
                if not getattr(timer, "__module__", "").startswith(_ENGINE)
            ]
        return found

    # --- time -------------------------------------------------------------------------------------------------------

    @property
    def now_ns(self) -> int:
        """The clock."""
        return self.clock.now_ns()

    async def wait(self, ms: float) -> None:
        """Let time pass."""
        if isinstance(self.clock, VirtualClock):
            await self._guard(self.clock.advance(ms / 1_000))
        else:
            await self.clock.sleep(ms / 1_000)

    async def until(self, done: Callable[[], bool], within_ms: float) -> bool:
        """Let time pass until something holds. Whether it came to that."""
        limit_ns = self.now_ns + round(within_ms * NS_PER_MS)
        while not done() and self.now_ns < limit_ns:
            await self.wait(CHUNK_MS)
        return done()

    async def stall(self, ms: float) -> None:
        """Nothing runs for so long: the event loop is held up."""
        until_ns = self.now_ns + round(ms * NS_PER_MS)
        if isinstance(self.clock, VirtualClock):
            self.clock.set(until_ns)
        while self.now_ns < until_ns:
            pass
        if self._pulse is not None:
            # This one was meant.
            self._stop_beating()
            self._beat(self.now_ns)
        await self.wait(0)

    async def _guard(self, work: Coroutine[Any, Any, None]) -> None:
        """Await something that should not hang."""
        task = spawn(work, "check")
        for _ in range(round(self._patience_s / 0.05)):
            ended = Wait()
            task.add_done_callback(ended.wake)
            timer = VirtualClock().patience(0.05, ended.wake)
            await ended
            if timer is not None:
                timer.cancel()
            if task.done():
                break
        else:
            task.cancel()
            raise RuleBroken(
                f"a transport and a peer that do not hang for {self._patience_s:g} s of real time", "one that does"
            )
        task.result()

    # --- the bot ----------------------------------------------------------------------------------------------------

    def speak(self, samples: Samples, response: int = 1, *, end: bool = True) -> None:
        """Have the bot say something; each `TONE_MS` of it is a word: w0, w1 and so on."""
        rate = self.transport.output_rate
        size = rate * TONE_MS // 1000
        for number, start in enumerate(range(0, len(samples), size)):
            words = (SpokenWord(f"w{number}", 0.0),)
            self.worker.post(OutputAudioFrame(samples[start : start + size], rate, words), response=response)
        if end:
            self.worker.post(ResponseEndFrame(), response=response)

    def pause(self) -> None:
        """Pause the playout."""
        self.worker.post(PausePlayoutFrame())

    def resume(self) -> None:
        """Go on."""
        self.worker.post(ResumePlayoutFrame())

    # --- what came --------------------------------------------------------------------------------------------------

    def heard_so_far(self) -> list[Any]:
        """All that the peer heard, of calls before this one too."""
        return [*self.peer.heard()]

    def take(self) -> Take:
        """Return the audio that the peer heard in this call."""
        rate = self.peer.hears_rate or self.transport.output_rate
        return Take(self.heard_so_far()[self._mark :], rate, exact=self.peer.exact)

    def noted(self, kind: type[F]) -> list[F]:
        """Return the frames of a class that arrived, from either side."""
        return [frame for _, frame in self._ears.notes if isinstance(frame, kind)]

    def noted_at(self, kind: type[Frame]) -> list[int]:
        """When they came, in ns."""
        return [at_ns for at_ns, frame in self._ears.notes if isinstance(frame, kind)]

    def audio(self) -> list[InputAudioFrame]:
        """Return the user's audio."""
        return self.noted(InputAudioFrame)

    @property
    def late_ns(self) -> int:
        """Longest allowed delay of heard audio."""
        return round(self.peer.late_ms * NS_PER_MS)


async def _real(seconds: float) -> None:
    """Let real time pass, whatever the clock."""
    waiting = Wait()
    VirtualClock().patience(seconds, waiting.wake)
    await waiting


def cause_of(error: LifecycleError) -> TransportError | None:
    """The `TransportError` that a start failed with."""
    cause = error.__cause__
    return cause if isinstance(cause, TransportError) else None


def seconds(ns: int) -> str:
    """For a message."""
    return f"{ns / NS_PER_S:.3f} s"

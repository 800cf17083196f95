"""A bench for processors: frames in at the ends, frames out at the ends, and time that the test moves.

::

                      virtual time: `await bench.advance(ms=200)`
                .----------------------------------------------------.
                |                                                    |
     send() --> | head -->  your processor, or several in order --> tail | --> bench.down
                |                                                    |
    bench.up <- | head <--                                      <-- tail | <-- send(..., UPSTREAM)
                |                                                    |
                '----------------------------------------------------'
                      `bench.interrupt()`     `bench.errors`

A test needs no sleep and no mock library::

    async def test_doubles_the_microphone(harness):
        bench = await harness(Louder())
        await bench.send(InputAudioFrame(samples, 16_000))
        assert bench.down == [InputAudioFrame(samples * 2, 16_000)]

What is in the box is what runs in production: the same kernel, hooks, jobs and timers. Only the clock is another one;
it stands still until `Bench.advance` moves it. Each call returns when nothing is left to do: there is nothing to poll.

A processor that hangs, raises, leaks or swallows frames fails the test at once, with a timeline of what happened:

hangs
    Nothing moved for ``patience_s`` real seconds (1; in start() 20) while something was at work. The failure names the
    method and the line where it stands, and what it waits for there.
raises
    An `ErrorFrame` that reaches the head goes to `Bench.errors`. The next use of the bench (and the end of the test)
    fails with it, unless `Bench.expect_error` or a look at `Bench.errors` came first.
leaks
    A job, a task or a timer of its own that is still there when the processor has been stopped.
swallows
    With ``passes=[TextFrame]`` each frame of that class which is sent must come out at the other end, once nothing is
    left to do. (No default: to take a frame and keep it is what sinks and aggregators are for.)
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Self

from ..clock import NS_PER_MS
from ..engine.inbox import MICROPHONE_MS
from ..frames import DOWNSTREAM, AtBound, CancelFrame, Direction, ErrorFrame, Frame
from ..processor import FrameProcessor
from .diagnosis import short
from .failures import BenchFailure
from .fixtures import Expect, Fixture, Interrupt, Output, output
from .matchers import ListMatcher, Matcher, explain
from .watched_run import Processors, WatchedRun


class Bench(WatchedRun):
    """Processors on a bench. Made by the ``harness`` fixture, which also closes it.

    ``passes``: classes of frames that have to come out again. ``record``: the path of a recording to be made.
    ``patience_s``: real seconds without progress that count as hanging; default is 1, and 20 while they start, which
    may load models or start processes. ``clock``: another `VirtualClock` that does not jump. Everything else goes to
    the `PipelineWorker`; its ``seed`` is 0.
    """

    def __init__(self, processors: Processors, *, passes: Sequence[type[Frame]] = (), **options: Any) -> None:
        super().__init__(processors, **options)
        self._passes = tuple(passes)
        self._down: list[Frame] = []
        self._up: list[Frame] = []
        self._both: list[Frame] = []
        self._errors: list[ErrorFrame] = []
        self._unseen: list[ErrorFrame] = []
        self._sent: list[Frame] = []
        self._owed: list[tuple[Frame, Direction]] = []
        self._expected = dict.fromkeys(Direction, 0)
        self._until = 0
        self._playing = False

    # --- what came out ----------------------------------------------------------------------------------------------

    @property
    def down(self) -> list[Frame]:
        """All frames that have left at the tail, in order."""
        __tracebackhide__ = True
        self._check()
        return self._down

    @property
    def up(self) -> list[Frame]:
        """All frames that have left at the head, in order; errors are in `errors`."""
        __tracebackhide__ = True
        self._check()
        return self._up

    @property
    def errors(self) -> list[ErrorFrame]:
        """All errors that have left at the head. Who looks at them has dealt with them."""
        self._unseen.clear()
        return self._errors

    @property
    def processor(self) -> FrameProcessor:
        """The first processor in the box."""
        return next(iter(self.worker.pipeline.processors()))

    @property
    def now_ms(self) -> float:
        """Virtual milliseconds since the bench was made."""
        return self.clock.now_ns() / NS_PER_MS

    def clear(self) -> None:
        """Forget what has come out so far."""
        for frames in (self._down, self._up, self._both, self._sent):
            frames.clear()
        self._expected = dict.fromkeys(self._expected, 0)
        self._until = 0

    def expect(self, *wanted: Any, direction: Direction = DOWNSTREAM) -> list[Frame]:
        """Fail unless exactly these frames have left there since the last ``expect``; returns them.

        One `in_order` or `eventually` may stand for all of them.
        """
        __tracebackhide__ = True
        self._check()
        frames = self._down if direction is DOWNSTREAM else self._up
        new = frames[self._expected[direction] :]
        self._expected[direction] = len(frames)
        end = "tail" if direction is DOWNSTREAM else "head"
        if len(wanted) == 1 and isinstance(wanted[0], ListMatcher):
            if why := wanted[0].mismatch(new):
                raise self.failure(f"At the {end}, {wanted[0]!r} is not what came: {why}.\n{_listed(new)}")
        elif new != [*wanted]:
            lines = "\n".join(explain(new, wanted))
            raise self.failure(f"What came out at the {end} is not what was expected:\n{lines}")
        return new

    def expect_error(self, match: str = "", *, error: str = "", processor: str = "") -> ErrorFrame:
        """Take the oldest error that nobody has looked at; fail where there is none, or it is another.

        ``match``: a regular expression to be found in its message; ``error``: the name of the exception's class;
        ``processor``: the path of who failed.
        """
        __tracebackhide__ = True
        if not self._unseen:
            raise self.failure("An error was expected, and there was none.")
        found = self._unseen.pop(0)
        if (
            not re.search(match, found.message)
            or error not in ("", found.error)
            or processor not in ("", found.processor)
        ):
            wanted = [f"{name}={value!r}" for name, value in
                      (("match", match), ("error", error), ("processor", processor)) if value]  # fmt: skip
            raise self.failure(f"An error with {', '.join(wanted)} was expected, and it was {found}.") from self.cause()
        return found

    # --- putting in, and letting time pass --------------------------------------------------------------------------

    async def send(self, *frames: Frame, direction: Direction = DOWNSTREAM, response: int = 0) -> None:
        """Put frames in at the head (or, upstream, at the tail), and return when nothing is left to do.

        Of a microphone as many as you like: the pipeline gets them in portions, for it drops what is older than 2 s.
        ``response``: the number of the response that they belong to; one that is new is opened.
        """
        __tracebackhide__ = True
        self._check()
        waiting_ms = 0.0
        for frame in frames:
            if isinstance(frame, CancelFrame):
                raise BenchFailure("A CancelFrame is not sent, the kernel delivers it: use `await bench.interrupt()`.")
            self.event_log.note(self.clock.now_ns(), f"{'v' if direction is DOWNSTREAM else '^'} sent", frame)
            if isinstance(frame, ErrorFrame):
                self._sent.append(frame)
            if isinstance(frame, self._passes):
                self._owed.append((frame, direction))
            if frame.at_bound is AtBound.DROP_OLDEST:
                waiting_ms += frame.queue_ms
                if waiting_ms > MICROPHONE_MS:
                    await self.guard(self.clock.settle())
                    waiting_ms = frame.queue_ms
            self.worker.post(frame, direction, response=response)
        await self.settle()

    async def settle(self) -> None:
        """Return when nothing is left to do at this moment: after something outside has acted on the processor."""
        __tracebackhide__ = True
        await self.guard(self.clock.settle())
        self._check_owed(finally_=False)

    async def advance(self, ms: float) -> None:
        """Let virtual time pass, running what falls due."""
        __tracebackhide__ = True
        self._check()
        await self._to(self.clock.now_ns() + round(ms * NS_PER_MS))

    async def _to(self, when_ns: int) -> None:
        __tracebackhide__ = True
        await self.advance_to(max(when_ns, self.clock.now_ns()))
        self._check_owed(finally_=False)

    async def _to_before(self, when_ns: int) -> None:
        """Put the clock to a moment; what falls due at that moment is still to come."""
        __tracebackhide__ = True
        if self.clock.now_ns() < when_ns:
            await self._to(when_ns - 1)
            self.clock.set(when_ns)

    async def until(self, wanted: Any, within_ms: float = 1_000) -> Any:
        """Let time pass until a frame has left, at either end, that matches; returns it.

        Frames count that left since the last ``until`` returned. With `in_order` or `eventually`, those frames
        together have to match; then it returns them. Fails after ``within_ms`` of virtual time.
        """
        __tracebackhide__ = True
        self._check()
        limit = self.clock.now_ns() + round(within_ms * NS_PER_MS)
        while True:
            found, new = self._found(wanted)
            if found:
                return new
            self._check()
            due = self.clock.next_ns
            if due is None or due > limit:
                break
            await self._to(due)
        await self._to(limit)
        if (last := self._found(wanted))[0]:
            return last[1]
        self._check()
        raise self.failure(
            f"There was no {wanted!r} within {within_ms:g} ms of virtual time.\n{_listed(self._both[self._until :])}"
        )

    def _found(self, wanted: Any) -> tuple[bool, Any]:
        new = self._both[self._until :]
        if isinstance(wanted, ListMatcher):
            if wanted.mismatch(new):
                return False, None
            self._until = len(self._both)
            return True, new
        test = wanted if callable(wanted) and not isinstance(wanted, type | Matcher) else None
        for index, frame in enumerate(new):
            if test(frame) if test else isinstance(frame, wanted) if isinstance(wanted, type) else wanted == frame:
                self._until += index + 1
                return True, frame
        return False, None

    async def interrupt(self, reason: str = "interrupted", *, response: int = 0) -> None:
        """Cut what the bot is saying, up to ``response`` (0: all); the cancel frame enters at the head."""
        __tracebackhide__ = True
        self._check()
        self.event_log.note(self.clock.now_ns(), f"interrupt: {reason}")
        kernel = self.worker.kernel
        assert kernel is not None
        if response:
            # Like a controller that has opened it, though nothing of it may have come here.
            kernel.interrupt_from_outside(reason, response)
        else:
            self.worker.interrupt(reason)
        await self.settle()

    async def play(self, fixture: Fixture) -> Output:
        """Put in what a fixture says, when it says; returns what came out, to be compared with `Fixture.expected`.

        On a new bench: the numbers of responses are those of the fixture.
        """
        __tracebackhide__ = True
        self._check()
        begin = self.clock.now_ns()
        since = len(self._down), len(self._up), len(self._errors)
        self._playing = True
        try:
            for step in fixture.steps:
                if not isinstance(step, Expect):
                    when_ns = begin + round(step.at_ms * NS_PER_MS)
                    if step.late:
                        await self._to(when_ns)
                    await self._to_before(when_ns)
                if isinstance(step, Interrupt):
                    await self.interrupt(step.reason, response=step.response)
                elif not isinstance(step, Expect):
                    await self.send(step.frame, direction=step.direction, response=step.response)
            # What falls due at the very end belongs to the fixture only where something is still expected.
            end_ns = begin + round(fixture.duration_ms * NS_PER_MS)
            await self._to_before(end_ns)
            if self._output(*since).count < fixture.expected.count:
                await self._to(end_ns)
        finally:
            self._playing = False
        played = self._output(*since)
        self._unseen = [error for error in self._unseen if not any(error is one for one in played.errors)]
        return played

    def _output(self, down: int, up: int, errors: int) -> Output:
        """Return the frames that left after the first ``count``."""
        ends = [(one, DOWNSTREAM) for one in self._down[down:]], [(one, DOWNSTREAM) for one in self._up[up:]]
        return Output(output(ends[0]).down, output(ends[1]).down, self._errors[errors:])

    # --- the box tells ----------------------------------------------------------------------------------------------

    def came_out(self, frame: Frame, direction: Direction) -> None:
        """A frame has left the box."""
        for index, (owed, way) in enumerate(self._owed):
            if way is direction and (owed is frame or owed == frame):
                del self._owed[index]
                break
        if isinstance(frame, ErrorFrame) and not any(frame is sent for sent in self._sent):
            self._errors.append(frame)
            self._unseen.append(frame)
        else:
            (self._down if direction is DOWNSTREAM else self._up).append(frame)
            self._both.append(frame)

    def _check(self) -> None:
        """Fail for an error that nobody looked at, and where the run is over."""
        __tracebackhide__ = True
        if self._playing:
            return
        message = self._unseen_errors()
        if message:
            self._unseen.clear()
            raise self.failure(message) from self.cause()
        if self._run is not None and self._run.done() and not self._closed:
            self._closed = True
            raise self.failure(f"The pipeline has ended: {self.outcome}.")

    def _unseen_errors(self) -> str:
        return "\n".join(
            f"{error.processor} failed with {error.error} while it had {error.frame or 'no frame'}: {error.message}"
            for error in self._unseen
        )

    def _check_owed(self, *, finally_: bool) -> None:
        __tracebackhide__ = True
        if not self._owed or self._playing or (not finally_ and self.busy()):
            return
        owed, self._owed = self._owed, []
        lines: list[str] = []
        for frame, direction in owed:
            end = "tail" if direction is DOWNSTREAM else "head"
            taker = self.event_log.last_taker(frame)
            by = f" {taker} took it and let nothing out." if taker else ""
            lines.append(f"{short(frame)} was swallowed: it was sent and did not come out at the {end}.{by}")
        raise self.failure("\n".join(lines)) from self.cause()

    # --- opening and closing ----------------------------------------------------------------------------------------

    async def open(self) -> Bench:
        """Start the processors, and return when they have started."""
        __tracebackhide__ = True
        await self.start()
        return self

    async def close(self) -> None:
        """Stop the processors, and fail for errors that nobody looked at, frames that are owed, and leaks.

        The fixture does it when the test has ended.
        """
        __tracebackhide__ = True
        if self._closed and (self._run is None or self._run.done()):
            return
        self._closed = True
        failures: list[str] = []
        if not self._broken:
            try:
                await self.guard(self.clock.settle())
                self._check_owed(finally_=True)
            except BenchFailure as failure:
                failures.append(str(failure).partition("\n\n")[0])
        broken = self._broken and not failures
        failures += await self.stop()
        if unseen := self._unseen_errors():
            failures.insert(0, unseen)
        if failures and not broken:
            raise self.failure("\n".join(failures)) from self.cause()


def _listed(frames: Sequence[Frame]) -> str:
    return "\n".join([f"{len(frames)} frames came:", *(f"  {index}: {short(one)}" for index, one in enumerate(frames))])


class Harness:
    """Makes benches, and closes them. What the ``harness`` fixture gives.

    Where there is no fixture (an example of Hypothesis, a script) it is ``async with Harness() as harness:``. A bench
    that nobody closes keeps `asyncio.run` waiting for ever: its processors wait for a clock that nobody moves.
    """

    def __init__(self) -> None:
        self._benches: list[Bench] = []

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        __tracebackhide__ = True
        await self.close(failure)

    async def __call__(self, processors: Processors, **options: Any) -> Bench:
        """Put processors on a bench, and start them. The options are `Bench`'s."""
        __tracebackhide__ = True
        bench = Bench(processors, **options)
        self._benches.append(bench)
        return await bench.open()

    async def close(self, failure: BaseException | None = None) -> None:
        """Close all benches. What they find is added to ``failure`` as a note, where the test has failed already."""
        __tracebackhide__ = True
        found: list[BenchFailure] = []
        for bench in self._benches:
            try:
                await bench.close()
            except BenchFailure as problem:
                found.append(problem)
        self._benches.clear()
        for problem in found:
            if failure is None:
                raise problem
            failure.add_note(f"When the bench was closed: {problem}")

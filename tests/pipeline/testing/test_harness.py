"""The bench: frames in, frames out, time by hand; and each way in which a processor can be wrong fails the test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import numpy as np
import pytest
from voxline.pipeline import (
    UPSTREAM,
    BotStoppedSpeakingFrame,
    CancelFrame,
    ErrorFrame,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    InputTextFrame,
    Pipeline,
    ResponseEndFrame,
    TextFrame,
    TranscriptionFrame,
    VirtualClock,
    handles,
    source,
)
from voxline.pipeline.recording import Recording, replay
from voxline.pipeline.testing import Bench, BenchFailure, Harness, eventually, frame, in_order


class Upper(FrameProcessor):
    """Text in capitals; what is empty goes back up."""

    @handles(TextFrame)
    async def upper(self, frame: TextFrame) -> None:
        if frame.text:
            await self.push(TextFrame(frame.text.upper()))
        else:
            await self.push(InputTextFrame("empty"), UPSTREAM)


class Slow(FrameProcessor):
    """Says each word 100 ms after the last."""

    @handles(TextFrame)
    async def say(self, frame: TextFrame) -> AsyncIterator[Frame]:
        for word in frame.text.split():
            await self.clock.sleep(0.1)
            yield TextFrame(word)


class Late(FrameProcessor):
    """Reminds after a second."""

    @handles(TranscriptionFrame)
    async def remind(self, frame: TranscriptionFrame) -> None:
        self.post_after(1_000, InputTextFrame(frame.text))

    @handles(InputTextFrame)
    async def reminded(self, frame: InputTextFrame) -> None:
        await self.push(TextFrame(frame.text))


class Broken(FrameProcessor):
    """Raises."""

    @handles(TextFrame)
    async def fail(self, frame: TextFrame) -> None:
        raise ValueError(f"cannot say {frame.text}")

    @handles(InputTextFrame)
    async def fail_later(self, frame: InputTextFrame) -> AsyncIterator[Frame]:
        yield TextFrame(frame.text)
        raise KeyError(frame.text)


async def test_what_is_sent_down_comes_out_below(harness: Harness) -> None:
    bench = await harness(Upper())
    await bench.send(TextFrame("hi"), TextFrame("there"))
    assert bench.down == [TextFrame("HI"), TextFrame("THERE")]
    assert bench.up == []


async def test_no_chunk_of_a_long_recording_is_dropped(harness: Harness) -> None:
    """As a pipeline would that is too slow: it keeps two seconds of a microphone."""
    bench = await harness(Upper())
    chunks = [InputAudioFrame(np.full(320, number, np.int16), 16_000) for number in range(500)]
    await bench.send(*chunks)
    assert bench.down == chunks


async def test_what_is_sent_up_comes_out_above(harness: Harness) -> None:
    bench = await harness(Upper())
    passing = BotStoppedSpeakingFrame(1)
    await bench.send(passing, direction=UPSTREAM)
    assert bench.up[0] is passing
    await bench.send(TextFrame(""))
    assert bench.up == [passing, InputTextFrame("empty")]
    assert bench.down == []


async def test_processors_stand_in_a_row_and_in_pipelines(harness: Harness) -> None:
    bench = await harness([Upper(), Slow()])
    await bench.send(TextFrame("a b"))
    await bench.advance(ms=200)
    assert bench.down == [TextFrame("A"), TextFrame("B")]
    other = await harness(Pipeline([Upper()]))
    await other.send(TextFrame("x"))
    assert other.down == [TextFrame("X")]
    assert isinstance(other.processor, Upper)


async def test_time_moves_only_by_hand(harness: Harness) -> None:
    bench = await harness(Slow())
    await bench.send(TextFrame("one two"))
    assert bench.down == []
    await bench.advance(ms=99)
    assert bench.down == []
    await bench.advance(ms=1)
    assert bench.down == [TextFrame("one")]
    assert bench.now_ms == 100
    await bench.advance(ms=1_000_000)
    assert bench.down == [TextFrame("one"), TextFrame("two")]


async def test_timers_fall_due_in_virtual_time(harness: Harness) -> None:
    bench = await harness(Late())
    await bench.send(TranscriptionFrame("tea"))
    await bench.advance(ms=999.999)
    assert bench.down == []
    await bench.advance(ms=0.001)
    assert bench.down == [TextFrame("tea")]


async def test_until_returns_the_frame_and_the_moment(harness: Harness) -> None:
    bench = await harness(Slow())
    await bench.send(TextFrame("one two three"))
    assert await bench.until(frame(TextFrame)) == TextFrame("one")
    assert bench.now_ms == 100
    assert await bench.until(TextFrame("three")) == TextFrame("three")
    assert bench.now_ms == 300
    with pytest.raises(BenchFailure, match=r"no frame\(TextFrame\) within 50 ms of virtual time"):
        await bench.until(frame(TextFrame), within_ms=50)
    assert bench.now_ms == 350


async def test_until_takes_classes_functions_and_lists(harness: Harness) -> None:
    bench = await harness(Slow())
    await bench.send(TextFrame("one two three four"))

    def two(frame: TextFrame) -> bool:
        return frame.text == "two"

    assert await bench.until(TextFrame) == TextFrame("one")
    assert await bench.until(two) == TextFrame("two")
    both = await bench.until(in_order(TextFrame("three"), TextFrame("four")))
    assert both == [TextFrame("three"), TextFrame("four")]


async def test_expect_takes_what_came_since_the_last_time(harness: Harness) -> None:
    bench = await harness(Upper())
    await bench.send(TextFrame("a"))
    bench.expect(TextFrame("A"))
    await bench.send(TextFrame("b"), TextFrame("c"))
    assert bench.expect(eventually(frame(TextFrame, text="C"))) == [TextFrame("B"), TextFrame("C")]
    bench.expect()
    await bench.send(TextFrame("d"))
    with pytest.raises(BenchFailure, match=r"! 0: TextFrame\(text='D'\)\n     wanted .*text is 'D'"):
        bench.expect(frame(TextFrame, text="E"))


async def test_an_interruption_cuts_jobs_and_travels_both_ways(harness: Harness) -> None:
    bench = await harness(Slow())
    await bench.send(TextFrame("one two"), response=1)
    await bench.advance(ms=150)
    await bench.interrupt("barge-in")
    await bench.advance(ms=1_000)
    assert bench.down == [TextFrame("one"), CancelFrame(1, "barge-in")]
    assert bench.up == [CancelFrame(1, "barge-in")]
    await bench.send(TextFrame("late"), response=1)
    await bench.send(TextFrame("new"), response=2)
    await bench.advance(ms=100)
    assert bench.down[2:] == [TextFrame("new")]


async def test_an_error_that_is_expected_fails_nothing(harness: Harness) -> None:
    bench = await harness(Broken())
    await bench.send(TextFrame("boo"))
    error = bench.expect_error("cannot say boo", error="ValueError", processor="Broken")
    assert error.frame == "TextFrame"
    assert bench.errors == [error]
    assert bench.down == []
    await bench.send(InputTextFrame("later"))
    assert bench.errors[1:] == [frame(ErrorFrame, error="KeyError")]
    assert bench.down == [TextFrame("later")]


async def test_another_error_than_the_expected_one_fails(harness: Harness) -> None:
    bench = await harness(Broken())
    with pytest.raises(BenchFailure, match="An error was expected, and there was none"):
        bench.expect_error()
    await bench.send(TextFrame("boo"))
    with pytest.raises(BenchFailure, match="An error with error='KeyError' was expected, and it was"):
        bench.expect_error(error="KeyError")


async def read(frames: list[Frame]) -> None:
    """Do nothing with them."""


USES: dict[str, Callable[[Bench], Awaitable[object]]] = {
    "send": lambda bench: bench.send(TextFrame("x")),
    "advance": lambda bench: bench.advance(ms=10),
    "until": lambda bench: bench.until(TextFrame),
    "interrupt": lambda bench: bench.interrupt("why"),
    "down": lambda bench: read(bench.down),
    "up": lambda bench: read(bench.up),
    "expect": lambda bench: read(bench.expect()),
}


async def test_an_unexpected_error_fails_the_next_use_of_the_bench(harness: Harness) -> None:
    for use in USES:
        bench = await harness(Broken())
        await bench.send(TextFrame("boo"))
        with pytest.raises(BenchFailure, match="Broken failed with ValueError while it had TextFrame") as caught:
            await USES[use](bench)
        assert isinstance(caught.value.__cause__, ValueError), "the traceback of the handler belongs to the failure"


async def test_an_error_frame_of_the_tests_own_is_a_frame(harness: Harness) -> None:
    bench = await harness(Upper())
    mine = ErrorFrame("from below")
    await bench.send(mine, direction=UPSTREAM)
    assert bench.up == [mine]
    assert bench.errors == []


async def test_a_frame_that_has_to_pass_may_take_its_time(harness: Harness) -> None:
    bench = await harness(Slow(), passes=[TextFrame])
    await bench.send(TextFrame("one"))
    await bench.advance(ms=100)
    bench.expect(TextFrame("one"))


async def test_a_cancel_frame_is_not_sent(harness: Harness) -> None:
    bench = await harness(Upper())
    with pytest.raises(BenchFailure, match=r"bench\.interrupt\(\)"):
        await bench.send(CancelFrame(1))


async def test_start_and_stop_hooks_get_the_time_that_they_wait_for(harness: Harness) -> None:
    class Warm(FrameProcessor):
        stopped = False

        async def start(self) -> None:
            await self.clock.sleep(2)

        async def stop(self) -> None:
            await self.clock.sleep(1)
            self.stopped = True

    warm = Warm()
    bench = await harness(warm)
    assert bench.now_ms == 2_000
    await bench.close()
    assert warm.stopped


async def test_what_a_closed_bench_leaves_is_nothing(harness: Harness) -> None:
    class Source(FrameProcessor):
        @source
        async def tick(self) -> AsyncIterator[Frame]:
            while True:
                await self.clock.sleep(1)
                yield TextFrame("tick")

    before = asyncio.all_tasks()
    bench = await harness([Source(), Late(), Slow()])
    await bench.send(TranscriptionFrame("pending timer"))
    await bench.advance(ms=1_050)
    await bench.close()
    assert asyncio.all_tasks() == before
    assert bench.down == [TextFrame("tick")] or bench.down == []


async def test_a_bench_records(harness: Harness, tmp_path: Path) -> None:
    bench = await harness(Slow(), record=tmp_path / "slow.jsonl")
    await bench.send(TextFrame("one two"))
    await bench.advance(ms=200)
    bench.expect(TextFrame("one"), TextFrame("two"))
    await bench.close()
    replayed = await replay(Recording.load(tmp_path / "slow.jsonl"), Pipeline([Slow()]))
    assert replayed.down == [TextFrame("one"), TextFrame("two")]


async def test_state_is_there_to_be_looked_at(harness: Harness) -> None:
    bench = await harness(Late())
    await bench.send(ResponseEndFrame())
    bench.clear()
    assert bench.down == []


async def test_a_clock_that_jumps_is_none_for_a_bench(harness: Harness, virtual_clock: VirtualClock) -> None:
    with pytest.raises(BenchFailure, match=r"VirtualClock\(autojump=False\)"):
        await harness(Upper(), clock=virtual_clock)


def test_the_virtual_clock_jumps(virtual_clock: VirtualClock) -> None:
    assert virtual_clock.now_ns() == 0
    with pytest.raises(ValueError, match="jumps by itself"):
        asyncio.run(virtual_clock.advance(1))


def test_without_pytest_asyncio_only_the_fixture_is_missing(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        conftest="""
        import sys
        sys.modules["pytest_asyncio"] = None
        for name in [name for name in sys.modules if name == "voxline.pipeline.testing.plugin"]:
            del sys.modules[name]
        pytest_plugins = ["voxline.pipeline.testing.plugin"]
        """,
        test_it="""
        def test_one(): ...
        def test_two(harness): ...
        """,
    )
    result = pytester.runpytest_subprocess("-q", "-p", "no:cacheprovider", "-p", "no:voxline", "-p", "no:asyncio")
    result.assert_outcomes(passed=1, errors=1)
    result.stdout.fnmatch_lines(["*MissingExtraError*pip install*[[]test]*"])


# --- a wrong processor fails the test, at once, and the message says so ---------------------------------------------

PRELUDE = """
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
import pytest
from voxline.pipeline import *
from voxline.pipeline.testing import *
"""

WRONG = {
    "a handler that hangs": (
        """
class Hung(FrameProcessor):
    @handles(TextFrame)
    async def listen(self, frame):
        await asyncio.Event().wait()

async def test_it(harness):
    bench = await harness(Hung(), patience_s=0.1)
    await bench.send(TextFrame("hi"))
    raise SystemError("the test went on")
""",
        [
            "*A plain handler hangs, and holds everything else up.*",
            "*in Event.wait(), at test_wrong.py:* in Hung.listen()*",
        ],
    ),
    "a job that hangs": (
        """
class Hung(FrameProcessor):
    @handles(TextFrame)
    async def listen(self, frame):
        await asyncio.get_running_loop().create_future()
        yield frame

async def test_it(harness):
    bench = await harness(Hung(), patience_s=0.1)
    await bench.send(TextFrame("hi"))
    raise SystemError("the test went on")
""",
        [
            "*Something hangs: nothing moved for 0.1 s of real time.*",
            "*test_wrong.py:* in Hung.listen()*",
            "*job of Hung: listen(TextFrame)*",
        ],
    ),
    "a start that hangs": (
        """
class Hung(FrameProcessor):
    async def start(self):
        await asyncio.Event().wait()

async def test_it(harness):
    await harness(Hung(), patience_s=0.1)
    raise SystemError("the test went on")
""",
        ["*hangs*", "*test_wrong.py:* in Hung.start()*"],
    ),
    "a stop that hangs": (
        """
class Hung(FrameProcessor):
    async def stop(self):
        await asyncio.Event().wait()

async def test_it(harness):
    await harness(Hung(), patience_s=0.1)
""",
        ["*hangs*", "*test_wrong.py:* in Hung.stop()*"],
    ),
    "a start that raises": (
        """
class Bad(FrameProcessor):
    async def start(self):
        raise OSError("no microphone")

async def test_it(harness):
    await harness(Bad())
    raise SystemError("the test went on")
""",
        ["*The processors did not start.*Bad.start() failed: OSError: no microphone*"],
    ),
    "two that never rest": (
        """
class Ping(FrameProcessor):
    @handles(InputTextFrame)
    async def ping(self, frame):
        self.post_after(0, frame)

async def test_it(harness):
    bench = await harness(Ping())
    await bench.send(InputTextFrame("ping"))
    raise SystemError("the test went on")
""",
        ["*It does not come to rest: *deliveries at one instant.*"],
    ),
    "a handler that raises": (
        """
class Raises(FrameProcessor):
    @handles(TextFrame)
    async def say(self, frame):
        raise ValueError("boom")

async def test_it(harness):
    bench = await harness(Raises())
    await bench.send(TextFrame("hi"))
    assert bench.down == [TextFrame("hi")]
""",
        ["*Raises failed with ValueError while it had TextFrame: boom*", "*v Raises*TextFrame(text='hi')*"],
    ),
    "a job that raises, unseen by the test": (
        """
class Raises(FrameProcessor):
    @handles(TextFrame)
    async def say(self, frame):
        yield frame
        raise ValueError("boom")

async def test_it(harness):
    bench = await harness(Raises())
    await bench.send(TextFrame("hi"))
""",
        ["*Raises failed with ValueError while it had TextFrame: boom*", '*raise ValueError("boom")*'],
    ),
    "a task that is left": (
        """
class Leaks(FrameProcessor):
    async def start(self):
        self.task = asyncio.create_task(asyncio.Event().wait(), name="pump")

async def test_it(harness):
    await harness(Leaks())
""",
        ["*A task outlives its processor: task 'pump', made at test_wrong.py:* in start(), waits in Event.wait()*"],
    ),
    "a timer that is left": (
        """
class Leaks(FrameProcessor):
    async def start(self):
        self.clock.call_at(60 * 10**9, self.tick)

    def tick(self): ...

async def test_it(harness):
    await harness(Leaks())
""",
        ["*A timer outlives its processor: it will call Leaks.tick()*"],
    ),
    "a job that will not end": (
        """
class Stubborn(FrameProcessor):
    @handles(TextFrame)
    async def say(self, frame):
        while True:
            try:
                await self.clock.sleep(60)
            except asyncio.CancelledError:
                pass
        yield frame

async def test_it(harness):
    bench = await harness(Stubborn(), patience_s=0.1)
    await bench.send(TextFrame("hi"))
""",
        ["*Stubborn*"],
    ),
    "a frame that is swallowed": (
        """
class Swallows(FrameProcessor):
    @handles(TextFrame)
    async def say(self, frame):
        if frame.text != "hi":
            await self.push(frame)

async def test_it(harness):
    bench = await harness([Swallows()], passes=[TextFrame])
    await bench.send(TextFrame("ho"))
    await bench.send(TextFrame("hi"))
    raise SystemError("the test went on")
""",
        ["*TextFrame(text='hi') was swallowed*did not come out at the tail. Swallows took it and let nothing out.*"],
    ),
    "lists that differ": (
        """
class Echo(FrameProcessor): ...

async def test_it(harness):
    bench = await harness(Echo())
    await bench.send(TextFrame("a"), TextFrame("b"))
    assert bench.down == [TextFrame("a"), frame(TextFrame, text=contains("x")), ResponseEndFrame()]
""",
        [
            "*! 1: TextFrame(text='b')*",
            "*wanted frame(TextFrame, text=contains('x')): text is 'b'*",
            "*! 2: missing: ResponseEndFrame()*",
        ],
    ),
    "an order that differs": (
        """
class Echo(FrameProcessor): ...

async def test_it(harness):
    bench = await harness(Echo())
    await bench.send(TextFrame("a"), TextFrame("b"))
    assert bench.down == in_order(TextFrame("b"), TextFrame("a"))
""",
        ["*there is no TextFrame(text='a') after index 1*"],
    ),
}


@pytest.mark.parametrize("which", WRONG)
def test_a_wrong_processor_fails_the_test_and_is_named(pytester: pytest.Pytester, which: str) -> None:
    code, messages = WRONG[which]
    pytester.makeini("[pytest]\nasyncio_mode = auto\nasyncio_default_fixture_loop_scope = function\n")
    pytester.makepyfile(test_wrong=PRELUDE + code)
    result = pytester.runpytest_inprocess("-q", "-p", "no:cacheprovider")
    result.assert_outcomes(failed=1)
    result.stdout.fnmatch_lines_random(messages)
    result.stdout.no_fnmatch_line("*the test went on*")


class Tidy(FrameProcessor):
    """Takes a second to stop; starts when it is let."""

    def __init__(self) -> None:
        self.ready = asyncio.Event()
        self.tidied = False

    async def start(self) -> None:
        try:
            await self.ready.wait()
        except asyncio.CancelledError:
            await self.stop()
            raise

    async def stop(self) -> None:
        await self.clock.sleep(1)
        self.tidied = True


@pytest.mark.parametrize("starts", [True, False])
def test_a_bench_outside_of_a_fixture_is_closed_whatever_happens(starts: bool):
    tidy = Tidy()
    if starts:
        tidy.ready.set()

    async def work() -> None:
        async with Harness() as harness:
            await harness(tidy, patience_s=0.02)
            raise RuntimeError("in the block")

    with pytest.raises(RuntimeError if starts else BenchFailure, match="in the block" if starts else "hangs"):
        asyncio.run(work())
    # Who hangs in start() gets no time to tidy up: that might hang as well.
    assert tidy.tidied is starts


async def test_a_start_may_take_longer_than_what_comes_after_it(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("voxline.pipeline.testing.watched_run.PATIENCE_S", 0.02)
    tidy = Tidy()
    asyncio.get_running_loop().call_later(0.2, tidy.ready.set)
    async with Harness() as harness:
        await harness(tidy)
    assert tidy.tidied

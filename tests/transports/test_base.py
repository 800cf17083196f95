"""The base of all transports: opened and closed once, and frames in from callbacks and threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import (
    ClientConnectedFrame,
    Frame,
    InputAudioFrame,
    InputEndedFrame,
    InputTextFrame,
    Pipeline,
    PipelineWorker,
    QueueOverflowError,
    TransportError,
    VirtualClock,
)
from voxline.pipeline.clock import SystemClock
from voxline.pipeline.errors import LifecycleError, VoxlineError
from voxline.tests.transports.peers import Ears
from voxline.tests.transports.stage import RATE, audio, ramp
from voxline.transports.base import MAX_EARLY_FRAMES, Transport


class Line(Transport):
    """Writes down what is asked of it. ``fails``: the verb that does."""

    def __init__(self, fails: str = "", **options: Any) -> None:
        super().__init__(output_rate=RATE, **options)
        self.did: list[str] = []
        self.fails = fails

    def _do(self, what: str) -> None:
        self.did.append(what)
        if what == self.fails:
            raise TransportError(f"{what} cannot be done. Plug it in.")

    async def open(self) -> None:
        self._do("open")
        # What opens may wait.
        await self.clock.sleep(0.1)

    def send(self, samples: Any, due_ns: int) -> None:
        self._do("send")

    async def close(self) -> None:
        self._do("close")


def both(transport: Transport) -> tuple[Pipeline, Ears]:
    ears = Ears(bot=True)
    return Pipeline([transport.input(), ears, transport.output()]), ears


async def run_again(transport: Transport) -> None:
    """Another worker; the caller hangs up after a second."""
    clock = VirtualClock()
    clock.call_at(1_000_000_000, transport.hang_up)
    assert (await PipelineWorker(both(transport)[0], clock=clock).run()).reason == "ended"


def text(number: int) -> InputTextFrame:
    return InputTextFrame(str(number))


# --- open and close -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ends", ["both", "input", "output"])
async def test_it_is_opened_once_and_closed_once_with_one_end_or_two(harness: Any, ends: str):
    transport = Line()
    parts: list[Any] = []
    if ends != "output":
        parts += [transport.input(), Ears(bot=ends == "both")]
    if ends != "input":
        parts += [transport.output()]
    bench = await harness(parts)
    assert transport.did == ["open"]
    assert (transport.hears, transport.speaks) == (ends != "output", ends != "input")
    await bench.close()
    assert transport.did == ["open", "close"]


async def test_the_ends_are_the_same_each_time_and_one_may_be_asked_for_and_not_used(harness: Any):
    transport = Line()
    assert transport.input() is transport.input()
    assert transport.output() is transport.output()
    bench = await harness([transport.input(), Ears()])
    await bench.close()
    assert transport.did == ["open", "close"]


@pytest.mark.parametrize("ends", [1, 2])
async def test_an_open_that_fails_is_told_and_closed(ends: int):
    transport, clock = Line("open"), VirtualClock()
    pipeline = both(transport)[0] if ends == 2 else Pipeline([transport.input(), Ears()])
    with pytest.raises(LifecycleError, match=r"open cannot be done\. Plug it in\.") as failure:
        await PipelineWorker(pipeline, clock=clock).run()
    assert isinstance(failure.value.__cause__, TransportError)
    assert transport.did == ["open", "close"]
    transport.fails = ""
    await run_again(transport)
    assert transport.did == ["open", "close"] * 2, "it may be tried again"


async def test_a_close_that_fails_is_told_and_the_worker_ends_all_the_same():
    transport = Line("close")
    transport.hang_up()
    outcome = await PipelineWorker(both(transport)[0], clock=VirtualClock()).run()
    assert outcome.reason == "ended"
    assert "close cannot be done. Plug it in." in " ".join(outcome.errors)


async def test_a_worker_that_is_cancelled_while_it_opens_closes_and_may_be_followed_by_another():
    transport, clock = Line(), VirtualClock()
    worker = PipelineWorker(both(transport)[0], clock=clock)
    clock.call_at(50_000_000, worker.cancel)
    assert (await worker.run()).reason == "cancelled"
    assert transport.did == ["open", "close"]
    await run_again(transport)
    assert transport.did == ["open", "close"] * 2


async def test_a_worker_that_is_cancelled_before_anything_was_opened_leaves_it_as_it_was():
    transport = Line()
    worker = PipelineWorker(both(transport)[0], clock=VirtualClock())
    # Its start hooks are tasks, and this comes before their first turn.
    asyncio.get_running_loop().call_soon(worker.cancel)
    assert (await worker.run()).reason == "cancelled"
    before = [*transport.did]
    await run_again(transport)
    assert transport.did[len(before) :] == ["open", "close"]
    assert before in ([], ["open", "close"])


async def test_there_is_no_clock_before_the_worker_runs():
    with pytest.raises(TransportError, match="Line has no clock before its worker runs"):
        _ = Line().clock


# --- what comes -----------------------------------------------------------------------------------------------------


async def test_what_is_delivered_before_the_worker_runs_waits_for_it_in_order(harness: Any):
    transport, ears = Line(), Ears()
    pipeline = Pipeline([transport.input(), ears])
    for number in range(5):
        transport.deliver(text(number))
    await harness(pipeline)
    assert ears.frames == [text(number) for number in range(5)]


async def test_what_is_delivered_while_it_opens_comes_after_that(harness: Any):
    class Eager(Line):
        async def open(self) -> None:
            self.deliver(text(2))
            await super().open()
            self.deliver(text(3))

    transport, ears = Eager(), Ears()
    pipeline = Pipeline([transport.input(), ears])
    transport.deliver(text(1))
    await harness(pipeline)
    assert ears.frames == [text(1), text(2), text(3)]


def test_what_waits_for_the_worker_has_a_bound():
    transport = Line()
    transport.input()
    for number in range(MAX_EARLY_FRAMES):
        transport.deliver(text(number))
    with pytest.raises(QueueOverflowError, match="1000 frames wait for the worker of this Line, which does not run"):
        transport.deliver(text(0))


async def test_what_is_delivered_after_the_end_is_dropped(harness: Any):
    transport, ears = Line(), Ears()
    bench = await harness([transport.input(), ears])
    transport.hang_up()
    transport.deliver(text(1))
    await bench.settle()
    assert ears.frames == [InputEndedFrame()]
    for number in range(2 * MAX_EARLY_FRAMES):
        transport.deliver(text(number))
        transport.deliver_threadsafe(text(number))
    again = Ears()
    await harness([transport.input(), again])
    assert again.frames == []


async def test_a_transport_whose_input_is_not_in_use_takes_nothing(harness: Any):
    transport = Line()
    await harness([transport.output()])
    transport.deliver(text(1))


async def test_a_device_delivers_from_its_own_thread():
    transport, ears, clock = Line(), Ears(), SystemClock()
    worker = PipelineWorker(Pipeline([transport.input(), ears]), clock=clock)

    def device() -> None:
        for number in range(50):
            transport.deliver_threadsafe(InputAudioFrame(np.full(320, number, np.int16), 16_000))
        loop.call_soon_threadsafe(transport.hang_up)

    loop = asyncio.get_running_loop()
    thread = threading.Thread(target=device)
    transport.deliver_threadsafe(text(0))
    clock.call_at(clock.now_ns() + 200_000_000, thread.start)
    await worker.run()
    thread.join()
    assert [int(frame.samples[0]) for _, frame in ears.audio()] == list(range(50))
    assert isinstance(ears.frames[0], InputAudioFrame), "what came before it ran has nowhere to go"


async def test_a_microphone_that_is_not_read_loses_its_oldest(harness: Any):
    transport, ears = Line(), Ears()
    bench = await harness([transport.input(), ears])
    for number in range(300):
        transport.deliver(InputAudioFrame(np.full(320, number, np.int16), 16_000))
    await bench.settle()
    values = [int(frame.samples[0]) for _, frame in ears.audio()]
    assert values == list(range(200, 300)), "two seconds"


# --- the end --------------------------------------------------------------------------------------------------------


async def test_hanging_up_lets_the_bot_finish(harness: Any):
    transport = Line()
    pipeline, ears = both(transport)
    bench = await harness(pipeline)
    await bench.send(audio(ramp(1_000)), response=1)
    await bench.advance(ms=100)
    transport.hang_up()
    transport.hang_up()
    await bench.settle()
    assert ears.frames[-1] == InputEndedFrame()
    assert bench.outcome is None
    await bench.advance(ms=1_500)
    assert transport.did.count("send") == 50


async def test_who_hung_up_does_not_hang_up_on_the_next_worker(harness: Any):
    """A connection that ended may say so late."""
    transport = Line()
    for _ in range(2):
        bench = await harness([transport.input(), Ears()])
        await bench.advance(ms=1_000)
        assert bench.outcome is None
        await bench.close()
        transport.hang_up()


async def test_the_end_of_what_is_received_is_the_end_of_the_worker():
    class Story(Line):
        async def receive(self) -> AsyncIterator[Frame]:
            for number in range(3):
                await self.clock.sleep(1)
                yield text(number)

    transport, ears, clock = Story(), Ears(), VirtualClock()
    outcome = await PipelineWorker(Pipeline([transport.input(), ears]), clock=clock).run()
    assert outcome.reason == "ended"
    assert ears.at_ms == [1_100, 2_100, 3_100, 3_100]


async def test_a_receive_that_raises_is_an_error_and_the_end(harness: Any):
    class Breaks(Line):
        async def receive(self) -> AsyncIterator[Frame]:
            yield text(1)
            raise ConnectionResetError("the line is cut")

    transport, ears = Breaks(), Ears()
    bench = await harness([transport.input(), ears])
    bench.expect_error("the line is cut", error="ConnectionResetError")
    assert ears.frames == [text(1)]


# --- a silent peer --------------------------------------------------------------------------------------------------


async def test_a_peer_of_whom_nothing_comes_is_gone_after_the_time_out(harness: Any):
    transport, ears = Line(silent_timeout_s=10), Ears()
    bench = await harness([transport.input(), ears])
    await bench.advance(ms=8_000)
    transport.deliver(InputAudioFrame(np.zeros(320, np.int16), 16_000))
    await bench.advance(ms=9_900)
    assert bench.outcome is None
    await bench.advance(ms=200)
    assert ears.at_ms[-1] == 18_100, "10 s after the last that came; opening took 0.1"
    assert ears.frames[-1] == InputEndedFrame()
    assert bench.outcome is not None


async def test_a_peer_that_sends_is_not_gone(harness: Any):
    transport, ears = Line(silent_timeout_s=1), Ears()
    bench = await harness([transport.input(), ears])
    for _ in range(100):
        await bench.advance(ms=900)
        transport.deliver(ClientConnectedFrame())
    assert bench.outcome is None


async def test_a_transport_whose_peers_come_back_is_told_each_time(harness: Any):
    class Patient(Line):
        def on_silent_timeout(self, reason: str) -> None:
            self.did.append(reason)

    transport = Patient(silent_timeout_s=2)
    bench = await harness([transport.input(), Ears()])
    await bench.advance(ms=7_000)
    assert transport.did == ["open", *["nothing came for 2 s"] * 3]
    assert bench.outcome is None


async def test_without_a_time_out_a_peer_may_be_silent_for_ever(harness: Any):
    transport = Line()
    bench = await harness([transport.input(), Ears()])
    await bench.advance(ms=24 * 3_600_000)
    assert bench.outcome is None


@pytest.mark.parametrize("wrong", [0, -1])
def test_a_time_out_that_cannot_be_is_refused(wrong: float):
    with pytest.raises(TransportError, match="silent_timeout_s must be positive"):
        Line(silent_timeout_s=wrong)


def test_errors_of_transports_are_voxlines():
    assert issubclass(TransportError, VoxlineError)

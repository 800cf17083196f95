"""The transport in memory: what is said is heard, as the line between the two ends lets it."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import (
    ClientConnectedFrame,
    ClientDisconnectedFrame,
    ClientMessageFrame,
    InputAudioFrame,
    InputEndedFrame,
    InputTextFrame,
    InterruptRequestFrame,
    Pipeline,
    PipelineWorker,
    QueueOverflowError,
    ResponseEndFrame,
    Samples,
    ServerMessageFrame,
    TransportError,
    VirtualClock,
)
from voxline.pipeline.tasks import spawn
from voxline.tests.transports.peers import Ears
from voxline.tests.transports.stage import RATE, audio, joined, ramp, times
from voxline.transports.memory import BOUND_S, HeardAudio, MemoryTransport

CHUNK = 320


def speech(chunks: int) -> Samples:
    """Each chunk is known by its value."""
    return np.repeat(np.arange(1, chunks + 1, dtype=np.int16), CHUNK)


async def listen(harness: Any, transport: MemoryTransport) -> tuple[Any, Ears]:
    ears = Ears()
    return await harness([transport.input(), ears]), ears


# --- what is said ---------------------------------------------------------------------------------------------------


async def test_what_is_said_is_heard_each_20_ms_when_they_are_over(harness: Any):
    transport = MemoryTransport()
    bench, ears = await listen(harness, transport)
    await bench.advance(ms=1_005)
    transport.say(speech(3))
    await bench.advance(ms=500)
    assert ears.at_ms == [1_025, 1_045, 1_065]
    assert [frame.samples[0] for _, frame in ears.audio()] == [1, 2, 3]
    assert [frame.pts_ns for _, frame in ears.audio()] == [1_005_000_000, 1_025_000_000, 1_045_000_000]


async def test_what_is_said_while_something_is_being_said_comes_after_it(harness: Any):
    transport = MemoryTransport(delay_ms=300)
    bench, ears = await listen(harness, transport)
    transport.say(speech(5))
    await bench.advance(ms=50)
    transport.say(speech(1))
    await bench.advance(ms=280)
    transport.say(speech(1))
    await bench.advance(ms=1_000)
    assert ears.at_ms == [320, 340, 360, 380, 400, 420, 650]


async def test_what_is_said_before_the_worker_runs_is_said_when_it_does(harness: Any):
    transport = MemoryTransport()
    transport.say(speech(2))
    transport.type("hello")
    bench, ears = await listen(harness, transport)
    await bench.advance(ms=100)
    assert ears.at_ms == [0, 20, 40]
    assert ears.frames[0] == InputTextFrame("hello")


async def test_the_last_20_ms_are_filled_up(harness: Any):
    transport = MemoryTransport()
    bench, ears = await listen(harness, transport)
    transport.say(np.full(CHUNK + 5, 7, np.int16))
    await bench.advance(ms=100)
    assert np.concatenate([frame.samples for _, frame in ears.audio()]).tolist() == [7] * (CHUNK + 5) + [0] * 315


async def test_who_hangs_up_is_heard_to_the_end():
    transport, ears, clock = MemoryTransport(), Ears(), VirtualClock()
    transport.say(speech(4))
    transport.hang_up()
    outcome = await PipelineWorker(Pipeline([transport.input(), ears]), clock=clock).run()
    assert outcome.reason == "ended"
    assert len(ears.audio()) == 4
    assert ears.notes[-1] == (80, InputEndedFrame())


async def test_a_caller_who_hangs_up_in_silence_ends_the_worker_at_once(harness: Any):
    transport = MemoryTransport()
    bench, ears = await listen(harness, transport)
    await bench.advance(ms=500)
    transport.hang_up("bye")
    await bench.settle()
    assert ears.notes == [(500, InputEndedFrame())]
    assert bench.outcome.reason == "ended"


def test_one_cannot_say_more_than_ten_minutes_ahead():
    transport = MemoryTransport()
    minute = np.zeros(60 * 16_000, np.int16)
    for _ in range(BOUND_S // 60 + 1):
        transport.say(minute)
    with pytest.raises(QueueOverflowError, match="600 s of audio wait to be heard"):
        transport.say(minute)


# --- text and messages ----------------------------------------------------------------------------------------------


async def test_text_and_messages_arrive_after_the_delay_and_overtake_what_is_still_to_be_said(harness: Any):
    transport = MemoryTransport(delay_ms=30, loss=1)
    bench, ears = await listen(harness, transport)
    transport.say(speech(500))
    transport.type("well", interrupt=False)
    await bench.advance(ms=10)
    transport.message("colour", {"is": "red"}, id="7")
    transport.press_interrupt()
    await bench.advance(ms=100)
    assert ears.notes == [
        (30, InputTextFrame("well", False)),
        (40, ClientMessageFrame("colour", '{"is": "red"}', "7")),
        (40, InterruptRequestFrame()),
    ]


async def test_what_the_bot_tells_the_clients_program_is_noted_while_it_is_there(harness: Any):
    transport = MemoryTransport()
    bench = await harness([transport.output()])
    await bench.send(ServerMessageFrame("1"))
    transport.disconnect()
    await bench.send(ServerMessageFrame("2"))
    transport.reconnect()
    await bench.send(ServerMessageFrame("3", reply_to="7"))
    assert transport.messages == [ServerMessageFrame("1"), ServerMessageFrame("3", reply_to="7")]


# --- a bad line -----------------------------------------------------------------------------------------------------


async def test_a_delay_is_the_same_both_ways(harness: Any):
    transport, ears = MemoryTransport(output_rate=RATE, delay_ms=70), Ears(bot=True)
    bench = await harness([transport.input(), ears, transport.output()])
    transport.say(speech(2))
    await bench.send(audio(ramp(40)), ResponseEndFrame(), response=1)
    await bench.advance(ms=500)
    assert [at_ms for at_ms, _ in ears.audio()] == [90, 110]
    assert times(transport.heard) == [70, 90]
    assert joined(transport.heard).tolist() == ramp(40).tolist()


async def heard_over(harness: Any, seed: int, **line: float) -> tuple[list[tuple[float, int]], list[tuple[float, int]]]:
    """500 chunks each way: when each came, and which."""
    transport, ears = MemoryTransport(output_rate=RATE, seed=seed, **line), Ears(bot=True)  # type: ignore[arg-type]
    bench = await harness([transport.input(), ears, transport.output()])
    transport.say(speech(500))
    await bench.send(audio(np.repeat(np.arange(1, 501, dtype=np.int16), 480)), ResponseEndFrame(), response=1)
    await bench.advance(ms=12_000)
    came = [(at_ms, int(frame.samples[0])) for at_ms, frame in ears.audio()]
    return came, [(one.at_ns / 1e6, int(one.samples[0])) for one in transport.heard]


async def test_loss_is_a_share_of_the_chunks_of_each_way(harness: Any):
    for way in await heard_over(harness, 1, loss=0.2):
        assert 370 < len(way) < 430
        values = [value for _, value in way]
        assert values == sorted(set(values)), "in order, each once"
        assert all(at_ms == value * 20 or at_ms == (value - 1) * 20 for at_ms, value in way), "the rest in its time"


async def test_the_same_seed_loses_the_same_chunks_and_another_others(harness: Any):
    first = await heard_over(harness, 1, loss=0.2, jitter_ms=50)
    assert await heard_over(harness, 1, loss=0.2, jitter_ms=50) == first
    assert await heard_over(harness, 2, loss=0.2, jitter_ms=50) != first
    assert [value for _, value in first[0]] != [value for _, value in first[1]], "each way loses its own"


async def test_jitter_changes_the_times_and_keeps_the_order(harness: Any):
    for way, end in zip(await heard_over(harness, 3, delay_ms=40, jitter_ms=60), (20, 0), strict=True):
        assert [value for _, value in way] == list(range(1, 501))
        late = [at_ms - (value - 1) * 20 - end for at_ms, value in way]
        assert 40 <= min(late) < 45
        assert 95 < max(late) <= 100
        assert all(before <= after for (before, _), (after, _) in itertools.pairwise(way))


@pytest.mark.parametrize("wrong", [{"loss": -0.1}, {"loss": 1.1}, {"delay_ms": -1}, {"jitter_ms": -1}])
def test_a_line_that_cannot_be_is_refused(wrong: dict[str, float]):
    with pytest.raises(TransportError, match="loss must be a share from 0 to 1"):
        MemoryTransport(**wrong)  # type: ignore[arg-type]


# --- being gone, and back -------------------------------------------------------------------------------------------


async def test_while_the_client_is_gone_nothing_arrives_and_nothing_is_heard(harness: Any):
    transport, ears = MemoryTransport(output_rate=RATE), Ears(bot=True)
    bench = await harness([transport.input(), ears, transport.output()])
    transport.say(speech(10))
    await bench.send(audio(ramp(200)), ResponseEndFrame(), response=1)
    await bench.advance(ms=50)
    transport.disconnect("the tunnel")
    transport.type("lost")
    await bench.advance(ms=60)
    transport.reconnect()
    await bench.advance(ms=500)
    assert [int(frame.samples[0]) for _, frame in ears.audio()] == [1, 2, 6, 7, 8, 9, 10]
    assert times(transport.heard) == [0, 20, 40, 120, 140, 160, 180]
    assert [note for note in ears.notes if not isinstance(note[1], InputAudioFrame)] == [
        (50, ClientDisconnectedFrame("the tunnel")),
        (110, ClientConnectedFrame()),
    ]
    assert bench.outcome is None, "it may come back"


async def test_what_was_under_way_when_the_client_went_is_lost_though_it_is_back(harness: Any):
    transport = MemoryTransport(delay_ms=100)
    bench, ears = await listen(harness, transport)
    transport.say(speech(10))
    await bench.advance(ms=70)
    transport.disconnect()
    await bench.advance(ms=10)
    transport.reconnect()
    await bench.advance(ms=500)
    assert [int(frame.samples[0]) for _, frame in ears.audio()] == [4, 5, 6, 7, 8, 9, 10]


async def test_to_go_twice_and_to_come_back_twice_does_nothing(harness: Any):
    transport = MemoryTransport()
    bench, ears = await listen(harness, transport)
    transport.reconnect()
    for _ in range(2):
        transport.disconnect()
        await bench.settle()
        transport.disconnect()
        transport.reconnect()
        transport.reconnect()
    await bench.settle()
    assert ears.frames == [ClientDisconnectedFrame("disconnected"), ClientConnectedFrame()] * 2


async def test_a_client_may_be_gone_after_a_time(harness: Any):
    transport = MemoryTransport(disconnect_after_s=1.5)
    bench, ears = await listen(harness, transport)
    await bench.advance(ms=5_000)
    assert ears.notes == [(1_500, ClientDisconnectedFrame("disconnected"))]
    assert not transport.connected


async def test_a_worker_that_ends_before_the_client_is_gone_leaves_no_timer(harness: Any):
    # The harness fails for timers that are left.
    await listen(harness, MemoryTransport(disconnect_after_s=60, delay_ms=50))


# --- a lead ---------------------------------------------------------------------------------------------------------


async def test_with_a_lead_only_what_is_due_is_heard(harness: Any):
    transport = MemoryTransport(output_rate=RATE, lead_ms=100)
    bench = await harness([transport.output()])
    await bench.send(audio(ramp(400)), ResponseEndFrame(), response=1)
    await bench.advance(ms=50)
    assert times(transport.heard) == [0, 20, 40]
    await bench.interrupt()
    await bench.advance(ms=500)
    assert times(transport.heard) == [0, 20, 40], "what was sent ahead is forgotten"


# --- again ----------------------------------------------------------------------------------------------------------


async def test_another_worker_starts_with_a_clean_line(harness: Any):
    transport = MemoryTransport(delay_ms=50)
    bench, ears = await listen(harness, transport)
    transport.say(speech(100))
    await bench.advance(ms=100)
    assert len(ears.audio()) == 2
    await bench.close()
    transport.say(speech(3))
    bench, ears = await listen(harness, transport)
    await bench.advance(ms=1_000)
    assert [(at_ms, int(frame.samples[0])) for at_ms, frame in ears.audio()] == [(70, 1), (90, 2), (110, 3)]


# --- properties -----------------------------------------------------------------------------------------------------

MOVES = st.lists(
    st.tuples(
        st.sampled_from(["say", "type", "go", "back", "wait"]),
        st.integers(min_value=0, max_value=300),
    ),
    max_size=30,
)


@settings(max_examples=60)
@given(MOVES, st.floats(0, 1), st.integers(0, 100), st.integers(0, 100), st.integers(0, 5))
async def test_whatever_the_line_does_what_comes_was_said_in_this_order_and_not_early(
    moves: list[tuple[str, int]], loss: float, delay_ms: int, jitter_ms: int, seed: int
):
    transport = MemoryTransport(loss=loss, delay_ms=delay_ms, jitter_ms=jitter_ms, seed=seed)
    ears, clock = Ears(), VirtualClock(autojump=False)
    worker = PipelineWorker(Pipeline([transport.input(), ears]), clock=clock)

    async def run() -> None:
        await worker.run()

    task = spawn(run(), "run")
    await clock.advance(0.001)
    said, gone = 0, False
    for what, number in moves:
        if what == "say":
            transport.say(np.repeat(np.arange(said + 1, said + 1 + number % 20, dtype=np.int16), CHUNK))
            said += number % 20
        elif what == "type":
            transport.type("text")
        elif what == "go":
            transport.disconnect()
            gone = True
        elif what == "back":
            transport.reconnect()
        await clock.advance(number / 1_000)
    transport.hang_up()
    await clock.advance(20)
    assert task.done(), "who hangs up is gone"
    came = ears.audio()
    values = [int(frame.samples[0]) for _, frame in came]
    assert values == sorted(set(values)), "in order, each once"
    assert all(frame.samples.min() == frame.samples.max() for _, frame in came)
    for at_ms, frame in came:
        assert frame.pts_ns is not None
        late_ms = at_ms - 1 - frame.pts_ns / 1e6 - 20
        assert late_ms >= delay_ms - 1.001
    if not loss and not gone:
        assert values == list(range(1, said + 1))


def test_what_was_heard_compares_by_identity():
    samples = np.zeros(3, np.int16)
    assert HeardAudio(1, samples) != HeardAudio(1, samples)

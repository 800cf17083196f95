"""Execution of tools: blocking functions, recordings, and random orders of events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st
from voxline.pipeline import Pipeline, PipelineWorker
from voxline.pipeline.errors import ServiceDownError
from voxline.pipeline.frames import (
    UPSTREAM,
    Frame,
    LLMRequestFrame,
    Message,
    ResponseCommittedFrame,
    ResponseEndFrame,
    TextFrame,
    ToolCall,
    ToolCallFrame,
    ToolResultFrame,
)
from voxline.pipeline.processor import FrameProcessor, handles
from voxline.pipeline.recording import Recording, replay
from voxline.pipeline.tasks import THREADS
from voxline.pipeline.testing import Bench, Harness
from voxline.processors.tools import Tool, ToolContext
from voxline.processors.tools.ledger import ToolOutcome
from voxline.processors.tools.running import MAX_RUNS
from voxline.tests.processors.llm.rig import Model, Step, ask, calls, results, texts
from voxline.tests.scale import examples

PATIENCE_S = 30.0


# --- functions that block ---------------------------------------------------------------------------------------------


async def test_functions_that_block_run_side_by_side(harness: Harness):
    both = threading.Barrier(2, timeout=PATIENCE_S)

    def meet(name: str) -> str:
        both.wait()
        return name

    wanted = [ToolCall(f"c{name}", "meet", f'{{"name": "{name}"}}') for name in "ab"]
    bench = await harness(Model(wanted, ["They met."], tools=[meet]))
    await bench.send(ask("go"))
    assert texts(bench) == ["They met."]
    assert results(bench) == {"ca": "a", "cb": "b"}


async def test_a_function_that_blocks_lets_the_bot_say_something(harness: Harness):
    def work(context: ToolContext) -> str:
        context.say(f"I work on {context.call_id}.")
        return "done"

    bench = await harness(Model([ToolCall("c1", "work")], ["Done."], tools=[work]))
    await bench.send(ask("go"))
    assert texts(bench) == ["I work on c1.", "Done."]


async def test_a_function_that_exits_does_not_take_the_pipeline_along(harness: Harness):
    def leave() -> str:
        raise SystemExit(1)

    async def cancelled() -> str:
        raise asyncio.CancelledError

    wanted = [ToolCall("c1", "leave"), ToolCall("c2", "cancelled")]
    bench = await harness(Model(wanted, ["Still here."], tools=[leave, cancelled]))
    await bench.send(ask("go"))
    assert texts(bench) == ["Still here."]
    assert results(bench) == {"c1": "leave failed (SystemExit).", "c2": "cancelled failed (CancelledError)."}


class Ear(FrameProcessor):
    """Head of the pipeline: records the frames for the session, and wakes waiters at the end of an answer."""

    def __init__(self) -> None:
        self.heard: list[Frame] = []

    @handles(ToolCallFrame, ToolResultFrame, direction=UPSTREAM)
    async def hear(self, frame: Frame) -> None:
        self.heard.append(frame)


class Mouth(FrameProcessor):
    """Tail of the pipeline."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.ended = asyncio.Event()

    @handles(TextFrame)
    async def say(self, frame: TextFrame) -> None:
        self.said.append(frame.text)

    @handles(ResponseEndFrame)
    async def finish(self, frame: ResponseEndFrame) -> None:
        self.ended.set()


async def test_a_thread_past_its_deadline_is_left_behind_and_its_result_is_not_lost():
    """By the machine's clock: a virtual one stands still for a thread."""
    gate, ran = threading.Event(), list[int]()

    def book() -> str:
        ran.append(1)
        assert gate.wait(PATIENCE_S)
        return "booked"

    model = Model(
        [ToolCall("c1", "book")], ["It takes long."],
        [ToolCall("c2", "book")], ["It is booked."],
        [ToolCall("c3", "book")], ["As I said."],
        tools=[Tool(book, timeout_s=0.05, key=True), Tool(gate.set, name="open")],
    )  # fmt: skip
    ear, mouth = Ear(), Mouth()
    worker = PipelineWorker(Pipeline([ear, model, mouth]))
    run = asyncio.ensure_future(worker.run())
    worker.post(ask("book it"))
    await mouth.ended.wait()
    assert mouth.said == ["It takes long."]
    assert (THREADS.left_behind, model.call_ledger.running) == (1, 1)
    # The second call is for the same: it waits for the thread that works still, and does not run it again.
    model.tools["book"].timeout_s = PATIENCE_S
    mouth.ended.clear()
    worker.post(ask("is it booked?"))
    gate.set()
    await mouth.ended.wait()
    mouth.ended.clear()
    worker.post(ask("again"))
    await mouth.ended.wait()
    assert mouth.said[1:] == ["It is booked.", "As I said."]
    assert ran == [1]
    assert [one.text for one in ear.heard if isinstance(one, ToolResultFrame)] == [
        "book gave no result within 0.05 s.", "booked", "booked",
    ]  # fmt: skip
    outcome = await worker.stop()
    await run
    assert outcome.errors == ()
    assert (THREADS.left_behind, model.call_ledger.running) == (0, 0)


async def test_a_pipeline_ends_beside_a_thread_that_hangs():
    gate, entered, loop = threading.Event(), asyncio.Event(), asyncio.get_running_loop()

    def hang() -> str:
        loop.call_soon_threadsafe(entered.set)
        assert gate.wait(PATIENCE_S)
        return "late"

    model = Model([ToolCall("c1", "hang")], tools=[Tool(hang, timeout_s=600)])
    ear = Ear()
    worker = PipelineWorker(Pipeline([ear, model]))
    run = asyncio.ensure_future(worker.run())
    worker.post(ask("go"))
    await entered.wait()
    worker.cancel()
    outcome = await run
    assert outcome.errors == ()
    assert THREADS.left_behind == 1
    assert [call.outcome for call in model.call_ledger.calls] == [ToolOutcome.CANCELLED]
    gate.set()
    for thread in threading.enumerate():
        if thread.name == "voxline-thread":
            await loop.run_in_executor(None, thread.join, PATIENCE_S)
    assert THREADS.running == 0
    assert model.call_ledger.late_results == 1


# --- bounds -----------------------------------------------------------------------------------------------------------


async def test_more_calls_than_the_bound_are_refused_and_the_model_told_so(harness: Harness):
    async def work(context: ToolContext, number: int) -> str:
        await context.clock.sleep(1)
        return str(number)

    count = MAX_RUNS + 3
    wanted = [ToolCall(f"c{number}", "work", f'{{"number": {number}}}') for number in range(count)]
    bench = await harness(Model(wanted, ["Done."], tools=[work]))
    await bench.send(ask("go"))
    await bench.advance(1_000)
    told = list(results(bench).values())
    assert sum("calls are running already" in text for text in told) == 3
    assert len(told) == count
    assert texts(bench) == ["Done."]


# --- recordings -------------------------------------------------------------------------------------------------------


def model(tools: Sequence[Any] = ()) -> Model:
    return Model(
        ["I try.", ToolCall("c1", "work", '{"ms": 300}'), ToolCall("c2", "work", '{"ms": 100}')], ["Done. ", "All."],
        [ToolCall("c3", "work", '{"ms": 900}')], ["Never mind."],
        tools=tools,
    )  # fmt: skip


async def test_a_conversation_with_tools_replays_without_them(harness: Harness, tmp_path: Path):
    async def work(context: ToolContext, ms: int) -> str:
        context.say(f"{ms} ms.")
        await context.clock.sleep(ms / 1000)
        return f"{ms}"

    bench = await harness(model([work]), record=tmp_path / "talk.jsonl")
    await bench.send(ask("go"))
    await bench.advance(500)
    await bench.send(ask("again"))
    await bench.advance(100)
    await bench.interrupt()
    await bench.send(ask("stop"))
    await bench.advance(2_000)
    down, up = list(bench.down), list(bench.up)
    assert texts(bench) == ["I try.", "300 ms.", "100 ms.", "Done. ", "All.", "900 ms.", "Never mind."]
    assert results(bench) == {"c1": "300", "c2": "100", "c3": "900"}
    await bench.close()
    replayed = await replay(Recording.load(tmp_path / "talk.jsonl"), Pipeline([model([work])]))
    assert (replayed.down, replayed.up) == (down, up)


# --- whatever may happen ----------------------------------------------------------------------------------------------

TOOLS = {
    "plain": {},
    "lookup": {"on_interruption": "cancel"},
    "keyed": {"key": True},
    "short": {"timeout_s": 0.2, "say": "Hm.", "say_after_ms": 50.0},
    "keyed_lookup": {"key": True, "on_interruption": "cancel", "remember_s": 1.0, "timeout_s": 0.5},
}
CALL = st.tuples(st.sampled_from([*TOOLS, "missing"]), st.sampled_from([0, 100, 300, 700]), st.booleans())
PIECE = st.one_of(CALL, st.sampled_from(["Yes. ", "no", 50.0, 150.0]), st.just(None))
"""Step: a call (tool, duration in ms, True if it raises), a text, a delay in ms, or a failure of the model."""
ANSWERS = st.lists(st.lists(PIECE, max_size=4), max_size=12)
EVENT = st.sampled_from(["ask", "ask", "guess", "commit", "interrupt", 50, 200, 1_000])


def made(answers: list[list[Any]], ran: list[tuple[str, str]]) -> Model:
    number = 0

    def step(piece: Any) -> Step:
        nonlocal number
        if piece is None:
            return ServiceDownError("gone")
        if not isinstance(piece, tuple):
            return piece
        name, ms, raises = cast("tuple[str, int, bool]", piece)
        number += 1
        return ToolCall(f"c{number % 5}", name, f'{{"ms": {ms}, "raises": {str(raises).lower()}}}')

    def tool(name: str, options: dict[str, Any]) -> Tool:
        async def work(context: ToolContext, ms: int, raises: bool) -> str:
            ran.append((name, f"{ms} {raises}"))
            await context.clock.sleep(ms / 1000)
            if raises:
                raise ValueError("no")
            context.say("Nearly.")
            return f"{ms}"

        return Tool(work, name=name, **options)

    tools = [tool(name, options) for name, options in TOOLS.items()]
    return Model(*([step(piece) for piece in answer] for answer in answers), tools=tools, attempts=2, max_rounds=4)


async def live(llm: Model, events: list[str | int]) -> Bench:
    bench = Bench(llm)
    await bench.open()
    number = 0
    for event in events:
        if isinstance(event, int):
            await bench.advance(event)
        elif event == "interrupt":
            await bench.interrupt()
        elif event == "commit":
            await bench.send(ResponseCommittedFrame(number), response=number) if number else None
        else:
            number += 1
            request = LLMRequestFrame((Message("user", "go"),), speculative=event == "guess")
            await bench.send(request, response=number)
        _ = bench.errors
    await bench.interrupt()
    await bench.advance(20_000)
    _ = bench.errors
    return bench


@given(ANSWERS, st.lists(EVENT, max_size=15))
@settings(max_examples=examples(150))
def test_every_call_has_one_result_whatever_happens(answers: list[list[Any]], events: list[str | int]):
    ran: list[tuple[str, str]] = []
    llm = made(answers, ran)

    async def main() -> None:
        bench = await live(llm, events)
        told = results(bench)
        begun = [one.call_id for one in calls(bench) if isinstance(one, ToolCallFrame)]
        assert list(told) and sorted(told) == sorted(begun) if begun else not told
        assert llm.call_ledger.open == []
        assert llm.call_ledger.running == 0
        assert bench.clock.next_ns is None
        # What the ledger says is what was told.
        assert {call.call_id: call.text for call in llm.call_ledger.calls} == told
        # Each run was asked for, and a key that succeeded for good runs once.
        assert len(ran) <= len({call.run for call in llm.call_ledger.calls if call.run})
        succeeded = [one for one in ran if one[0] == "keyed" and one[1].endswith("False")]
        assert len(succeeded) == len(set(succeeded))
        # Models are only ever told whole rounds: each call with its result.
        for messages in llm.asked:
            owed: list[str] = []
            for message in messages:
                if message.role == "tool":
                    assert owed.pop(0) == message.call_id
                else:
                    assert not owed
                    owed = [call.call_id for call in message.calls]
            assert not owed
        await bench.close()

    asyncio.run(main())


async def test_a_tool_says_nothing_in_an_answer_that_has_failed(harness: Harness):
    async def look(context: ToolContext) -> str:
        await context.clock.sleep(3)
        return "found"

    tool = Tool(look, say="One moment.", say_after_ms=500)
    bench = await harness(Model([ToolCall("c1", "look"), 100, ServiceDownError("down")], tools=[tool]))
    await bench.send(ask("go"))
    await bench.advance(ms=200)
    assert [error.error for error in bench.errors] == ["ServiceDownError"]
    await bench.advance(ms=5_000)
    assert texts(bench) == []
    assert results(bench) == {"c1": "found"}


async def test_a_guess_of_a_second_run_waits_for_its_own_commitment(harness: Harness):
    """Response numbers restart in each run."""
    ran = list[int]()

    async def act() -> str:
        ran.append(1)
        return "done"

    llm = Model([ToolCall("a", "act")], ["Done."], [ToolCall("b", "act")], ["Done."], tools=[act])
    first = await harness(llm)
    await first.send(ask("go", speculative=True), response=1)
    await first.send(ResponseCommittedFrame(1))
    assert len(ran) == 1
    await first.close()
    second = await harness(llm)
    await second.send(ask("go", speculative=True), response=1)
    assert len(ran) == 1
    await second.interrupt()

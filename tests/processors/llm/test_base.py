"""Answers: sentences, rounds with tools, and answers whose model fails in the middle."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any

from voxline.pipeline.clock import Wait
from voxline.pipeline.errors import BadRequestError, ServiceDownError
from voxline.pipeline.frames import (
    LLMRequestFrame,
    Message,
    ResponseCommittedFrame,
    ResponseEndFrame,
    ServiceMetricsFrame,
    TextFrame,
    ToolCall,
    ToolCallFrame,
    ToolResultFrame,
    UsageFrame,
)
from voxline.pipeline.testing import Harness
from voxline.processors.fallback.fallback import Fallback
from voxline.processors.llm.base import LLM, Piece, ToolSpec, Usage
from voxline.processors.tools import Tool, ToolContext, ToolError, tool
from voxline.tests.processors.llm.rig import Model, ask, calls, kinds, results, texts

ROME = ToolCall("c1", "weather", '{"city": "Rome"}')
OSLO = ToolCall("c2", "weather", '{"city": "Oslo"}')


def weather(city: str) -> str:
    """Tells the weather of a city."""
    return f"{city}: sun"


class Clocked:
    """A tool that takes its time, by the worker's clock, and counts."""

    def __init__(self, ms: float = 1_000, result: str = "done", **options: Any) -> None:
        self.begun = self.ended = 0
        self.ms, self.result = ms, result
        self.tool = Tool(self.work, name="work", **options)

    async def work(self, context: ToolContext, what: str = "it") -> str:
        """Works."""
        self.begun += 1
        await context.clock.sleep(self.ms / 1000)
        self.ended += 1
        return f"{what}: {self.result}"


def what_it_does(arguments: Mapping[str, Any]) -> str:
    return f"I do {arguments['what']}."


def always_the_same(arguments: Mapping[str, Any]) -> str:
    return "one"


WORK = ToolCall("w1", "work", '{"what": "a"}')


# --- plain answers ----------------------------------------------------------------------------------------------------


async def test_each_sentence_is_a_text_as_soon_as_it_is_there(harness: Harness):
    bench = await harness(Model(["Hello the", "re. How a", 500.0, "re you?"]))
    await bench.send(ask("hi"))
    assert texts(bench) == ["Hello there. "]
    await bench.advance(500)
    assert bench.down[1:] == [TextFrame("How are you?"), ResponseEndFrame()]


async def test_pieces_are_given_as_they_come_where_sentences_are_not_wanted(harness: Harness):
    model = Model(["Hello the", "re."])
    model.sentences = False
    bench = await harness(model)
    await bench.send(ask("hi"))
    assert texts(bench) == ["Hello the", "re."]


async def test_an_adapter_of_three_lines_takes_tools(harness: Harness):
    class Parrot(LLM):
        async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
            yield f"{messages[-1].text}, {tools[0].name}."

    bench = await harness(Parrot(tools=[weather]))
    await bench.send(ask("hi"))
    assert texts(bench) == ["hi, weather."]


async def test_tools_may_be_set_as_an_attribute(harness: Harness):
    model = Model([ROME], ["Sun."])
    model.tools = [weather]
    bench = await harness(model)
    await bench.send(ask("how is Rome"))
    assert texts(bench) == ["Sun."]
    assert list(model.tools) == ["weather"]


async def test_usage_and_metrics_go_upstream(harness: Harness):
    bench = await harness(Model([100.0, "Yes.", Usage(10, 2)]))
    await bench.send(ask("hi"))
    await bench.advance(100)
    assert [one for one in bench.up if isinstance(one, UsageFrame)] == [UsageFrame(10, 2)]
    assert bench.up[-1] == ServiceMetricsFrame("Model", "llm", 1, 100, 100, 4)


async def test_a_model_that_fails_ends_the_response_and_says_why(harness: Harness):
    bench = await harness(Model([ServiceDownError("it is down")]))
    await bench.send(ask("hi"))
    bench.expect_error("it is down", error="ServiceDownError")
    assert bench.down == [ResponseEndFrame()]
    metrics = bench.up[-1]
    assert isinstance(metrics, ServiceMetricsFrame)
    assert metrics.service == ""
    assert metrics.errors == ("ServiceDownError",)


async def test_an_answer_goes_on_where_its_model_failed(harness: Harness):
    model = Model(["One. Two. Th", ServiceDownError("gone")], ["Three."], attempts=2)
    bench = await harness(model)
    await bench.send(ask("count"))
    await bench.advance(1_000)
    assert texts(bench) == ["One. ", "Two. ", "Three."]
    assert model.asked[1] == [
        Message("user", "count"),
        Message("assistant", "One. Two. ", cut=True),
        Message("system", model.settings.continue_prompt),
    ]


# --- tools ------------------------------------------------------------------------------------------------------------


async def test_a_tool_is_called_and_the_answer_goes_on_with_its_result(harness: Harness):
    model = Model(["Let me see", ROME], ["It is sunny."], tools=[weather])
    bench = await harness(model)
    await bench.send(ask("how is Rome"))
    assert texts(bench) == ["Let me see", "It is sunny."]
    assert calls(bench) == [ToolCallFrame("c1", "weather", '{"city": "Rome"}'), ToolResultFrame("c1", "Rome: sun")]
    assert model.asked[1] == [
        Message("user", "how is Rome"),
        Message("assistant", "Let me see", calls=(ROME,)),
        Message("tool", "Rome: sun", call_id="c1"),
    ]
    assert [spec.name for spec in model.told[0]] == ["weather"]


async def test_text_before_a_call_is_heard_while_it_runs(harness: Harness):
    work = Clocked()
    bench = await harness(Model(["Let me see", WORK], ["Done."], tools=[work.tool]))
    await bench.send(ask("go"))
    assert texts(bench) == ["Let me see"]
    assert kinds(calls(bench)) == ["ToolCallFrame"]
    await bench.advance(1_000)
    assert texts(bench) == ["Let me see", "Done."]


async def test_tools_run_at_once_and_their_results_are_told_in_the_order_of_the_calls(harness: Harness):
    async def wait(context: ToolContext, ms: int) -> str:
        await context.clock.sleep(ms / 1000)
        return f"{ms}"

    wanted = [ToolCall(f"c{ms}", "wait", f'{{"ms": {ms}}}') for ms in (900, 300, 600)]
    model = Model(wanted, ["So."], tools=[wait])
    bench = await harness(model)
    await bench.send(ask("go"))
    await bench.advance(899)
    assert [one.call_id for one in calls(bench) if isinstance(one, ToolResultFrame)] == ["c300", "c600"]
    await bench.advance(1)
    assert texts(bench) == ["So."]
    assert [message.call_id for message in model.asked[1][-3:]] == ["c900", "c300", "c600"]
    assert model.asked[1][1].calls == tuple(wanted)


async def test_a_tool_begins_while_the_model_still_writes(harness: Harness):
    work = Clocked(500)
    bench = await harness(Model([WORK, 500.0, "That takes a while."], ["Done."], tools=[work.tool]))
    await bench.send(ask("go"))
    assert work.begun == 1
    await bench.advance(500)
    assert texts(bench) == ["That takes a while.", "Done."]


async def test_arguments_that_do_not_fit_are_told_to_the_model(harness: Harness):
    wrong = ToolCall("c1", "weather", '{"town": "Rome"}')
    model = Model([wrong], [ROME], ["Sun."], tools=[weather])
    bench = await harness(model)
    await bench.send(ask("how is Rome"))
    assert texts(bench) == ["Sun."]
    told = model.asked[1][-1].text
    assert "city: Field required" in told
    assert "town: there is no such argument" in told
    # The model names its second call as the first: the history could not tell them apart.
    assert list(results(bench)) == ["c1", "c1#1"]


async def test_an_unknown_tool_is_reported_to_the_model(harness: Harness):
    model = Model([ToolCall("c1", "wether")], ["I cannot."], tools=[weather])
    bench = await harness(model)
    await bench.send(ask("how is Rome"))
    assert results(bench) == {"c1": "There is no tool wether. There are: weather."}
    assert texts(bench) == ["I cannot."]


async def test_a_tool_that_raises_is_told_without_its_message_and_the_answer_goes_on(harness: Harness):
    def connect() -> str:
        raise ConnectionError("db://user:password@host")

    def book() -> str:
        raise ToolError("The table is taken.")

    model = Model([ToolCall("c1", "connect"), ToolCall("c2", "book")], ["Sorry."], tools=[connect, book])
    bench = await harness(model)
    await bench.send(ask("go"))
    assert results(bench) == {"c1": "connect failed (ConnectionError).", "c2": "The table is taken."}
    assert texts(bench) == ["Sorry."]


async def test_a_tool_past_its_deadline_is_given_up(harness: Harness):
    work = Clocked(60_000, timeout_s=2)
    model = Model([WORK], ["It takes too long."], tools=[work.tool])
    bench = await harness(model)
    await bench.send(ask("go"))
    await bench.advance(2_000)
    assert results(bench) == {"w1": "work gave no result within 2 s."}
    assert texts(bench) == ["It takes too long."]
    assert (work.begun, work.ended) == (1, 0)
    assert model.call_ledger.running == 0


async def test_a_tool_that_ignores_its_deadline_holds_nobody(harness: Harness):
    kept: list[Wait] = []

    async def stubborn() -> str:
        for _ in range(2):
            try:
                kept.append(Wait())
                await kept[-1]
            except asyncio.CancelledError:
                continue
        return "at last"

    model = Model([ToolCall("c1", "stubborn")], ["Too long."], ["Hello."], tools=[Tool(stubborn, timeout_s=1)])
    bench = await harness(model)
    await bench.send(ask("go"))
    await bench.advance(1_000)
    assert texts(bench) == ["Too long."]
    await bench.send(ask("hello"))
    assert texts(bench) == ["Too long.", "Hello."]
    assert model.call_ledger.running == 1
    kept[-1].wake()
    await bench.settle()
    assert model.call_ledger.running == 0
    assert model.call_ledger.late_results == 1
    assert results(bench) == {"c1": "stubborn gave no result within 1 s."}


async def test_an_answer_with_tools_without_end_is_ended(harness: Harness):
    again = [[ToolCall(f"c{n}", "weather", '{"city": "Rome"}')] for n in range(9)]
    model = Model(*again, tools=[weather], max_rounds=3)
    bench = await harness(model)
    await bench.send(ask("go"))
    bench.expect_error("max_rounds", error="BadAnswerError")
    assert len(model.asked) == 3
    assert list(results(bench)) == ["c0", "c1"]
    assert bench.down == [ResponseEndFrame()]


async def test_a_call_that_a_server_sends_twice_is_one(harness: Harness):
    bench = await harness(Model([ROME, ROME], ["Sun."], tools=[weather]))
    await bench.send(ask("go"))
    assert list(results(bench)) == ["c1"]


async def test_the_same_call_in_the_next_round_is_another_one(harness: Harness):
    bench = await harness(Model([ROME], [ROME], ["Sun."], tools=[weather]))
    await bench.send(ask("go"))
    assert list(results(bench)) == ["c1", "c1#1"]
    assert texts(bench) == ["Sun."]


async def test_a_guess_calls_nothing_before_it_is_wanted(harness: Harness):
    work = Clocked(0)
    bench = await harness(Model(["I look it up.", WORK], ["Done."], tools=[work.tool]))
    await bench.send(ask("go", speculative=True), response=1)
    assert texts(bench) == ["I look it up."]
    assert (work.begun, calls(bench)) == (0, [])
    await bench.send(ResponseCommittedFrame(1))
    assert work.begun == 1
    assert texts(bench) == ["I look it up.", "Done."]


async def test_a_guess_that_is_not_wanted_never_calls(harness: Harness):
    work = Clocked(0)
    bench = await harness(Model([WORK], ["Done."], tools=[work.tool]))
    await bench.send(ask("go", speculative=True), response=1)
    await bench.interrupt()
    await bench.advance(5_000)
    assert (work.begun, calls(bench)) == (0, [])


# --- a model fails ----------------------------------------------------------------------------------------------------


async def test_a_model_that_fails_after_a_tool_is_asked_again_with_the_result(harness: Harness):
    work = Clocked(1_000)
    model = Model([WORK], [ServiceDownError("gone")], ["Done."], tools=[work.tool], attempts=2)
    bench = await harness(model)
    await bench.send(ask("go"))
    await bench.advance(2_000)
    assert texts(bench) == ["Done."]
    assert work.begun == 1
    assert model.asked[2] == model.asked[1]


async def test_a_model_that_fails_while_its_tool_runs_is_asked_again_when_there_is_the_result(harness: Harness):
    work = Clocked(20_000, timeout_s=30)
    model = Model(["I try.", WORK, ServiceDownError("gone")], ["Done."], tools=[work.tool], attempts=2)
    bench = await harness(model)
    await bench.send(ask("go"))
    # Longer than first_timeout_s: what a tool takes is not the model's time.
    await bench.advance(20_000)
    assert texts(bench) == ["I try.", "Done."]
    assert work.begun == 1
    assert model.asked[1][1:] == [
        Message("assistant", "I try.", calls=(WORK,)),
        Message("tool", "a: done", call_id="w1"),
    ]


async def test_the_next_member_goes_on_with_the_results(harness: Harness):
    work = Clocked(1_000)
    first = Model([WORK], [BadRequestError("too long")], tools=[work.tool])
    second = Model(["Done."])
    bench = await harness(Fallback([first, second]))
    await bench.send(ask("go"))
    await bench.advance(1_000)
    assert texts(bench) == ["Done."]
    assert work.begun == 1
    assert second.asked[0][-1] == Message("tool", "a: done", call_id="w1")
    # The tools of a member are those of all.
    assert [spec.name for spec in second.told[0]] == ["work"]


# --- interruptions ----------------------------------------------------------------------------------------------------


async def test_a_tool_goes_on_when_its_answer_is_cut_and_its_result_is_told(harness: Harness):
    work = Clocked(2_000)
    model = Model([WORK], ["Hello."], tools=[work.tool])
    bench = await harness(model)
    await bench.send(ask("go"))
    await bench.interrupt()
    # It holds the next answer back in no way.
    await bench.send(ask("never mind"))
    assert texts(bench) == ["Hello."]
    assert results(bench) == {}
    await bench.advance(2_000)
    assert results(bench) == {"w1": "a: done"}
    assert work.ended == 1
    assert len(model.asked) == 2


async def test_a_tool_that_only_looks_something_up_is_cancelled(harness: Harness):
    work = Clocked(2_000, on_interruption="cancel")
    model = Model([WORK], tools=[work.tool])
    bench = await harness(model)
    await bench.send(ask("go"))
    await bench.interrupt()
    assert results(bench) == {"w1": "It was cancelled: the user interrupted. It has no result."}
    await bench.advance(5_000)
    assert (work.begun, work.ended) == (1, 0)
    assert len(results(bench)) == 1
    assert model.call_ledger.running == 0


async def test_a_cut_of_an_older_answer_cancels_nothing_of_the_newer_one(harness: Harness):
    work = Clocked(1_000, on_interruption="cancel")
    bench = await harness(Model(["One."], [WORK], ["Two."], tools=[work.tool]))
    await bench.send(ask("a"), response=1)
    await bench.send(ask("b"), response=2)
    await bench.interrupt(response=1)
    await bench.advance(1_000)
    assert results(bench) == {"w1": "a: done"}
    assert texts(bench) == ["One.", "Two."]


async def test_a_lookup_whose_answer_is_cut_before_it_began_does_not_begin(harness: Harness):
    class Unlucky(Model):
        async def complete(self, messages: Sequence[Message], tools: Sequence[ToolSpec]) -> AsyncGenerator[Piece]:
            bench.worker.interrupt("just now")
            yield WORK

    work = Clocked(1_000, on_interruption="cancel")
    bench = await harness(Unlucky(tools=[work.tool]))
    await bench.send(ask("go"))
    assert work.begun == 0
    assert results(bench) == {"w1": "It was cancelled: the user interrupted. It has no result."}


async def test_a_hung_tool_holds_back_no_request_and_no_fact(harness: Harness):
    work = Clocked(60_000, timeout_s=60)
    answers: list[Any] = [[WORK], *([f"Answer {n}."] for n in range(5))]
    bench = await harness(Model(*answers, tools=[work.tool]))
    await bench.send(ask("go"))
    for number in range(5):
        await bench.interrupt()
        await bench.send(ask(f"question {number}"))
        assert texts(bench)[-1] == f"Answer {number}."
        assert isinstance(bench.down[-1], ResponseEndFrame)
        assert isinstance(bench.up[-1], ServiceMetricsFrame)


async def test_requests_are_answered_one_after_another(harness: Harness):
    bench = await harness(Model(["One. ", 1_000.0, "Two."], ["Three."]))
    await bench.send(ask("a"), ask("b"))
    await bench.advance(1_000)
    assert texts(bench) == ["One. ", "Two.", "Three."]


# --- what is said -----------------------------------------------------------------------------------------------------


async def test_something_is_said_where_a_tool_takes_long(harness: Harness):
    work = Clocked(2_000, say="One moment.", say_after_ms=800)
    model = Model([WORK], ["Done."], tools=[work.tool])
    bench = await harness(model)
    await bench.send(ask("go"))
    await bench.advance(799)
    assert texts(bench) == []
    await bench.advance(1)
    assert texts(bench) == ["One moment."]
    await bench.advance(1_200)
    assert texts(bench) == ["One moment.", "Done."]
    # The model knows that it was said.
    assert model.asked[1][1].text == "One moment."


async def test_a_quick_tool_says_nothing(harness: Harness):
    work = Clocked(700, say="One moment.", say_after_ms=800)
    bench = await harness(Model([WORK], ["Done."], tools=[work.tool]))
    await bench.send(ask("go"))
    await bench.advance(5_000)
    assert texts(bench) == ["Done."]


async def test_of_several_tools_one_says_something(harness: Harness):
    work = Clocked(2_000, say=what_it_does, say_after_ms=0)
    other = ToolCall("w2", "work", '{"what": "b"}')
    bench = await harness(Model(["Well", WORK, other], ["Done."], tools=[work.tool]))
    await bench.send(ask("go"))
    await bench.advance(2_000)
    assert texts(bench) == ["Well", "I do a.", "Done."]


async def test_a_tool_says_something_itself_but_not_when_its_answer_is_cut(harness: Harness):
    async def cook(context: ToolContext) -> str:
        for minute in range(4):
            context.say(f"Minute {minute}.")
            await context.clock.sleep(60)
        return "cooked"

    model = Model([ToolCall("c1", "cook")], tools=[Tool(cook, timeout_s=600)])
    bench = await harness(model)
    await bench.send(ask("go"))
    await bench.advance(60_000)
    await bench.interrupt()
    await bench.advance(300_000)
    assert texts(bench) == model.call_ledger.calls[0].said == ["Minute 0.", "Minute 1."]
    assert results(bench) == {"c1": "cooked"}


# --- idempotency ------------------------------------------------------------------------------------------------------


async def test_a_second_call_with_the_same_arguments_does_not_run_again(harness: Harness):
    work = Clocked(1_000, key=True)
    twice = [WORK, ToolCall("w2", "work", '{"what":"a"}')]
    model = Model(twice, ["Done."], [ToolCall("w3", "work", '{ "what": "a" }')], ["As I said."], tools=[work.tool])
    bench = await harness(model)
    await bench.send(ask("go"))
    await bench.advance(1_000)
    await bench.send(ask("again"))
    assert texts(bench) == ["Done.", "As I said."]
    assert work.begun == 1
    assert results(bench) == {"w1": "a: done", "w2": "a: done", "w3": "a: done"}


async def test_a_remembered_result_expires(harness: Harness):
    work = Clocked(0, key=always_the_same, remember_s=10)
    model = Model([WORK], ["1."], [WORK], ["2."], [WORK], ["3."], tools=[work.tool])
    bench = await harness(model)
    for passed_ms in (9_000, 2_000, 0):
        await bench.send(ask("go"))
        await bench.advance(passed_ms)
    assert work.begun == 2


async def test_a_call_after_an_interruption_gets_the_result_of_the_one_that_runs(harness: Harness):
    work = Clocked(3_000, key=True)
    model = Model([WORK], [ToolCall("w2", "work", '{"what": "a"}')], ["Booked."], tools=[work.tool])
    bench = await harness(model)
    await bench.send(ask("book it"))
    await bench.advance(1_000)
    await bench.interrupt()
    await bench.send(ask("did you book it?"))
    await bench.advance(2_000)
    assert texts(bench) == ["Booked."]
    assert (work.begun, work.ended) == (1, 1)
    assert results(bench) == {"w1": "a: done", "w2": "a: done"}


async def test_a_run_goes_on_for_the_second_call_when_the_first_is_past_its_deadline(harness: Harness):
    work = Clocked(3_000, key=True, timeout_s=2)
    model = Model([WORK], [ToolCall("w2", "work", '{"what": "a"}')], ["Done."], tools=[work.tool])
    bench = await harness(model)
    await bench.send(ask("go"))
    await bench.advance(1_500)
    await bench.interrupt()
    await bench.send(ask("again"))
    await bench.advance(1_500)
    assert results(bench) == {"w1": "work gave no result within 2 s.", "w2": "a: done"}
    assert (work.begun, work.ended) == (1, 1)


async def test_a_lookup_that_was_cancelled_runs_anew(harness: Harness):
    work = Clocked(3_000, key=True, on_interruption="cancel")
    model = Model([WORK], [ToolCall("w2", "work", '{"what": "a"}')], ["Found."], tools=[work.tool])
    bench = await harness(model)
    await bench.send(ask("look"))
    await bench.advance(1_000)
    await bench.interrupt()
    await bench.send(ask("look again"))
    await bench.advance(3_000)
    assert (work.begun, work.ended) == (2, 1)
    assert texts(bench) == ["Found."]


async def test_a_failed_call_is_not_remembered(harness: Harness):
    tries: list[int] = []

    @tool(key=True)
    def flaky() -> str:
        tries.append(1)
        if len(tries) == 1:
            raise ToolError("Try again.")
        return "done"

    model = Model([ToolCall("c1", "flaky")], [ToolCall("c2", "flaky")], ["Done."], tools=[flaky])
    bench = await harness(model)
    await bench.send(ask("go"))
    assert results(bench) == {"c1": "Try again.", "c2": "done"}


# --- the end ----------------------------------------------------------------------------------------------------------


async def test_the_end_of_the_pipeline_waits_for_runs(harness: Harness):
    work = Clocked(2_000)
    bench = await harness(Model([WORK], ["Done."], tools=[work.tool]))
    await bench.send(ask("go"))
    stopping = asyncio.ensure_future(bench.worker.stop())
    await bench.clock.advance(2)
    assert (await stopping).errors == ()
    assert work.ended == 1


async def test_nothing_is_left_where_the_pipeline_is_cancelled(harness: Harness):
    work = Clocked(2_000, say="One moment.")
    model = Model([WORK], ["Done."], tools=[work.tool])
    bench = await harness(model)
    await bench.send(ask("go"))
    await bench.close()
    assert model.call_ledger.running == 0
    assert model.call_ledger.open == []
    assert model.call_ledger.calls[0].text == "It was cut off: the conversation has ended. It has no result."


async def test_tools_by_decorator_keep_their_options(harness: Harness):
    @tool(timeout_s=3, key=True)
    async def place_order(context: ToolContext, item: str) -> None:
        """Orders."""
        await context.clock.sleep(1)

    model = Model([ToolCall("c1", "place_order", '{"item": "tea"}')], ["Ordered."], tools=[place_order])
    bench = await harness(model)
    await bench.send(LLMRequestFrame((Message("user", "tea"),)))
    await bench.advance(1_000)
    assert results(bench) == {"c1": "null"}

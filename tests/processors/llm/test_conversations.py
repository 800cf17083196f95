"""Tools in whole conversations: with the session, its history, and interruptions."""

from __future__ import annotations

from typing import Any

from voxline.pipeline.frames import Message, ToolCall
from voxline.processors import ScriptedLLM
from voxline.processors.session import State, ToolCalled, ToolReturned, TurnKind
from voxline.processors.testing.session_bench import SessionBench
from voxline.processors.tools import Tool, ToolContext

BOOK = ToolCall("b1", "book", '{"table": 4}')


class Restaurant:
    """Books tables, slowly."""

    def __init__(self, ms: float = 2_000, **options: Any) -> None:
        self.ms = ms
        self.booked: list[int] = []
        self.begun = 0
        self.tool = Tool(self.book, **options)

    async def book(self, context: ToolContext, table: int) -> str:
        """Books a table."""
        self.begun += 1
        await context.clock.sleep(self.ms / 1000)
        self.booked.append(table)
        return f"table {table} is booked"


def kinds(bench: SessionBench) -> list[TurnKind]:
    return [turn.kind for turn in bench.session.turns]


def told(model: ScriptedLLM) -> list[list[tuple[str, str]]]:
    """Contexts of all requests, as pairs of role and text."""
    return [[(one.role, one.text) for one in messages] for messages in model.asked]


async def test_a_tool_is_in_the_history_and_the_answer_waits_for_it():
    place = Restaurant(say="One moment, please.", say_after_ms=500)
    model = ScriptedLLM([["I book it.", BOOK], "Table four is yours.", "You are welcome."], tools=[place.tool])
    async with SessionBench(model=model) as bench:
        await bench.user_says("book table four")
        await bench.advance(10_000)
        assert place.booked == [4]
        assert bench.said == [
            ("user", "book table four"),
            ("assistant", "I book it. One moment, please. Table four is yours."),
        ]
        events = [event.turn.text for event in bench.events if isinstance(event, ToolCalled | ToolReturned)]
        assert events == ['book {"table": 4}', "table 4 is booked"]
        await bench.user_says("thank you")
        await bench.advance(5_000)
        assert told(model)[-1][1:] == [
            ("assistant", ""), ("tool", "table 4 is booked"),
            ("assistant", "I book it. One moment, please. Table four is yours."), ("user", "thank you"),
        ]  # fmt: skip
        assert model.asked[-1][1].calls == (BOOK,)
        assert [one.role for one in model.asked[-1]].count("tool") == 1


async def test_a_booking_goes_on_when_the_user_interrupts_and_the_next_answer_knows_of_it():
    place = Restaurant(4_000)
    model = ScriptedLLM(
        [["I am booking a table for you now.", BOOK], "It is still being booked.", "It is booked."], tools=[place.tool]
    )
    async with SessionBench(model=model) as bench:
        await bench.user_says("book table four")
        await bench.until(State.SPEAKING)
        await bench.advance(300)
        await bench.user_says("is it booked already")
        await bench.advance(1_200)
        assert place.booked == []
        assert told(model)[1][-2:] == [
            ("system", model.settings.cut_note), ("user", "is it booked already"),
        ]  # fmt: skip
        running = [one for one in model.asked[1] if one.role == "tool"]
        assert [one.text for one in running] == ["It is still running: there is no result yet."]
        await bench.advance(5_000)
        assert place.booked == [4]
        await bench.user_says("and now")
        await bench.advance(5_000)
        done = [one for one in model.asked[2] if one.role == "tool"]
        assert done == [Message("tool", "table 4 is booked", call_id="b1")]
        assert bench.said[-1] == ("assistant", "It is booked.")
        assert kinds(bench).count(TurnKind.TOOL_CALL) == kinds(bench).count(TurnKind.TOOL_RESULT) == 1
        assert place.begun == 1


async def test_a_lookup_is_cancelled_when_the_user_interrupts():
    place = Restaurant(4_000, on_interruption="cancel")
    model = ScriptedLLM([["I look for a table for you now.", BOOK], "All right."], tools=[place.tool])
    async with SessionBench(model=model) as bench:
        await bench.user_says("is table four free")
        await bench.until(State.SPEAKING)
        await bench.advance(300)
        await bench.user_says("never mind that")
        await bench.advance(10_000)
        assert place.booked == []
        assert bench.said[-1] == ("assistant", "All right.")
        assert [turn.text for turn in bench.session.turns if turn.kind is TurnKind.TOOL_RESULT] == [
            "It was cancelled: the user interrupted. It has no result."
        ]


async def test_the_user_is_not_listened_to_while_a_tool_runs_if_that_is_wanted():
    place = Restaurant(3_000)
    model = ScriptedLLM([[BOOK], "Booked."], tools=[place.tool])
    async with SessionBench(model=model, mute=["tools"]) as bench:
        await bench.user_says("book table four")
        await bench.advance(800)
        await bench.user_says("hello")
        await bench.advance(5_000)
        assert bench.said == [("user", "book table four"), ("assistant", "Booked.")]


async def test_a_guess_books_nothing_until_it_is_known_to_be_right():
    for text, booked in (("book table four", [4]), ("book table four no wait", [])):
        place = Restaurant(100)
        model = ScriptedLLM([[BOOK], "Booked."], tools=[place.tool])
        async with SessionBench(model=model, preemptive={"enabled": True, "stable_ms": 100}) as bench:
            await bench.user_says(text, interims=["book table four"], speech_ms=900)
            await bench.advance(10_000)
            assert place.booked == booked
            assert place.begun == len(booked)


async def test_an_answer_with_a_failing_tool_is_no_failed_answer():
    def broken() -> str:
        raise OSError("no such host")

    model = ScriptedLLM([[ToolCall("c", "broken")], "I cannot reach it."], tools=[broken])
    async with SessionBench(model=model, apology="Sorry.") as bench:
        await bench.user_says("try it")
        await bench.advance(5_000)
        assert bench.said[-1] == ("assistant", "I cannot reach it.")
        assert bench.errors == []

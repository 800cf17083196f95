"""Interest, run to completion, lanes: who gets a frame, when, and in which order."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from voxline.pipeline import (
    UPSTREAM,
    Frame,
    FrameProcessor,
    InputTextFrame,
    OutputFrame,
    ProcessorError,
    Stream,
    TextFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    handles,
    source,
    streams,
)
from voxline.tests.pipeline.engine.rig import Hear, On, Other, Rig, Say, Seen


class Echo(FrameProcessor):
    """Takes `Say`, and pushes what ``make`` makes of it."""

    def __init__(self, name: str, *made: str) -> None:
        self.name = name
        self.made = made
        self.log: list[str] = []

    @handles(Say)
    async def take(self, frame: Say) -> None:
        self.log.append("begin " + frame.what)
        for suffix in self.made or ("",):
            await self.push(Say(frame.what + suffix))
        self.log.append("end " + frame.what)


async def test_a_frame_passes_who_does_not_name_it_and_is_taken_by_who_does() -> None:
    class Takes(FrameProcessor):
        @handles(Other)
        async def take(self, frame: Other) -> None:
            pass

    seen = Seen()
    async with Rig(Takes(), seen) as rig:
        await rig.send(Say("a"), Other("b"), Hear("c"))
    assert sorted(seen.said) == ["a", "c"]


async def test_what_is_pushed_is_delivered_when_the_handler_has_ended_depth_first_and_in_order() -> None:
    order: list[str] = []

    class Step(FrameProcessor):
        def __init__(self, name: str) -> None:
            self.name = name

        @handles(Say)
        async def take(self, frame: Say) -> None:
            order.append(f"{self.name} takes {frame.what}")
            await self.push(Say(frame.what + "1"))
            await self.push(Say(frame.what + "2"))
            order.append(f"{self.name} ends {frame.what}")

    async with Rig(Step("A"), Step("B")) as rig:
        await rig.send(Say("x"), Say("y"))
    one = ["A takes x", "A ends x", "B takes x1", "B ends x1", "B takes x2", "B ends x2"]
    assert order == [*one, *(line.replace("x", "y") for line in one)]


async def test_the_same_object_passes_by_identity() -> None:
    frame = Say("x")
    seen = Seen()
    async with Rig(Seen("one"), Seen("two"), seen) as rig:
        await rig.send(frame)
    assert seen.frames[0] is frame


async def test_an_upstream_frame_from_a_downstream_handler_is_handled_after_it_and_before_what_comes_next() -> None:
    """No handler is ever re-entered: the answer that A gets while it waits for nothing comes when A has ended."""
    order: list[str] = []

    class A(FrameProcessor):
        @handles(Say)
        async def down(self, frame: Say) -> None:
            order.append(f"A begins {frame.what}")
            await self.push(frame)
            order.append(f"A ends {frame.what}")

        @handles(Hear, direction=UPSTREAM)
        async def up(self, frame: Hear) -> None:
            order.append(f"A hears {frame.what}")
            if frame.what == "1":
                await self.push(Other("answer"))

    class B(FrameProcessor):
        @handles(Say)
        async def down(self, frame: Say) -> None:
            order.append(f"B begins {frame.what}")
            await self.push(Hear("1"), UPSTREAM)
            await self.push(Hear("2"), UPSTREAM)
            await self.push(Other("own"))
            order.append(f"B ends {frame.what}")

        @handles(Other)
        async def other(self, frame: Other) -> None:
            order.append(f"B gets {frame.what}")

    async with Rig(A(), B()) as rig:
        await rig.send(Say("x"), Say("y"))
    expected = [
        "A begins x", "A ends x", "B begins x", "B ends x", "A hears 1", "B gets answer", "A hears 2",
    ]  # fmt: skip
    assert order[:7] == expected
    assert order[7:] == [line.replace(" x", " y") for line in expected]


async def test_an_endless_exchange_between_two_processors_does_not_starve_the_event_loop() -> None:
    """A bug of theirs; but it must not take the other thousand conversations with it."""
    import asyncio

    class A(FrameProcessor):
        count = 0

        @handles(Hear, direction=UPSTREAM)
        async def up(self, frame: Hear) -> None:
            self.count += 1
            if self.count < 200_000:
                await self.push(Say("again"))

    class B(FrameProcessor):
        @handles(Say)
        async def down(self, frame: Say) -> None:
            await self.push(Hear("again"), UPSTREAM)

    a = A()
    async with Rig(a, B()) as rig:
        rig.post(Say("go"))
        for _ in range(10):
            await asyncio.sleep(0)
        assert a.count < 100_000
        a.count = 1_000_000


# --- lanes -----------------------------------------------------------------------------------------------------------


async def test_what_the_user_does_keeps_its_place_among_what_the_user_does() -> None:
    frames: list[Frame] = [
        InputTextFrame("one"), UserStartedSpeakingFrame(), InputTextFrame("two"), UserStoppedSpeakingFrame(),
        InputTextFrame("three"),
    ]  # fmt: skip
    seen = Seen()
    async with Rig(seen) as rig:
        await rig.send(*frames)
    assert seen.frames == frames


async def test_in_the_inbox_input_comes_before_output_and_neither_reorders() -> None:
    seen = Seen()
    async with Rig(seen) as rig:
        rig.post(TextFrame("a"), UserStartedSpeakingFrame(), TextFrame("b"), UserStoppedSpeakingFrame())
        await rig.settle()
    assert seen.frames == [
        UserStartedSpeakingFrame(), UserStoppedSpeakingFrame(), TextFrame("a"), TextFrame("b"),
    ]  # fmt: skip


async def test_what_one_handler_pushes_keeps_its_order_whatever_the_lanes() -> None:
    async def talk(self: FrameProcessor, frame: Hear) -> None:
        await self.push(TextFrame("a"))
        await self.push(UserStartedSpeakingFrame())
        await self.push(TextFrame("b"))

    seen = Seen()
    async with Rig(On(talk), seen) as rig:
        await rig.send(Hear("x"))
    assert seen.frames == [TextFrame("a"), UserStartedSpeakingFrame(), TextFrame("b")]


async def test_what_one_job_yields_keeps_its_order_whatever_the_lanes() -> None:
    class Job(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            yield TextFrame("a")
            yield UserStartedSpeakingFrame()
            yield TextFrame("b")

    seen = Seen()
    async with Rig(Job(), seen) as rig:
        await rig.send(Say("x"))
    assert seen.frames == [TextFrame("a"), UserStartedSpeakingFrame(), TextFrame("b")]


# --- kinds of handlers -----------------------------------------------------------------------------------------------


async def test_the_nearest_base_that_is_named_counts() -> None:
    class Narrow(FrameProcessor):
        def __init__(self) -> None:
            self.log: list[str] = []

        @handles(Frame)
        async def anything(self, frame: Frame) -> None:
            self.log.append("any " + type(frame).__name__)

        @handles(OutputFrame)
        async def output(self, frame: OutputFrame) -> None:
            self.log.append("output " + type(frame).__name__)

        @handles(Say)
        async def say(self, frame: Say) -> None:
            self.log.append("say")

    narrow = Narrow()
    async with Rig(narrow) as rig:
        for frame in (Say("x"), Other("y"), Hear("z")):
            await rig.send(frame)
    assert narrow.log == ["say", "output Other", "any Hear"]


class Base(FrameProcessor):
    """Something to derive from."""

    @handles(Say)
    async def take(self, frame: Say) -> None:
        await self.push(Other("base " + frame.what))

    @handles(Hear)
    async def hear(self, frame: Hear) -> None:
        await self.push(Other("base heard " + frame.what))


async def run_through(processor: FrameProcessor, *frames: Frame) -> list[str]:
    seen = Seen()
    async with Rig(processor, seen) as rig:
        for frame in frames:
            await rig.send(frame)
    return seen.said


async def test_handlers_are_inherited() -> None:
    class Derived(Base):
        pass

    assert await run_through(Derived(), Say("x"), Hear("y")) == ["base x", "base heard y"]


async def test_a_handler_that_is_overridden_without_the_decorator_keeps_what_it_handles() -> None:
    class Derived(Base):
        async def take(self, frame: Say) -> None:
            await super().take(frame)
            await self.push(Other("derived " + frame.what))

    assert await run_through(Derived(), Say("x"), Hear("y")) == ["base x", "derived x", "base heard y"]


async def test_another_method_of_a_derived_class_for_the_same_frames_takes_over() -> None:
    class Derived(Base):
        @handles(Say)
        async def mine(self, frame: Say) -> None:
            await self.push(Other("mine " + frame.what))

    assert await run_through(Derived(), Say("x"), Hear("y")) == ["mine x", "base heard y"]


async def test_a_handler_that_is_overridden_with_the_decorator_handles_what_that_says() -> None:
    class Derived(Base):
        @handles(Other)
        async def take(self, frame: Any) -> None:
            await self.push(Other("took " + frame.what))

    assert await run_through(Derived(), Other("x"), Say("y")) == ["took x", "y"]


async def test_a_job_may_override_a_plain_handler_if_it_says_so() -> None:
    class Derived(Base):
        @handles(Say)
        async def take(self, frame: Say) -> AsyncIterator[Frame]:  # type: ignore[override]
            yield Other("job " + frame.what)

    assert await run_through(Derived(), Say("x")) == ["job x"]


def test_a_method_that_changes_its_kind_by_overriding_without_the_decorator_is_an_error() -> None:
    with pytest.raises(ProcessorError, match="take"):

        class Derived(Base):  # pyright: ignore[reportUnusedClass]
            async def take(self, frame: Say) -> AsyncIterator[Frame]:  # type: ignore[override]
                yield Other(frame.what)

    with pytest.raises(ProcessorError, match="take"):

        class Sync(Base):  # pyright: ignore[reportUnusedClass]
            def take(self, frame: Say) -> None:  # type: ignore[override]
                pass


def test_two_handlers_for_the_same_frames_are_an_error() -> None:
    with pytest.raises(ProcessorError, match=r"both one\(\) and two\(\) handle Say downstream"):

        class Two(FrameProcessor):  # pyright: ignore[reportUnusedClass]
            @handles(Say)
            async def one(self, frame: Say) -> None: ...

            @handles(Say, Other)
            async def two(self, frame: Say) -> None: ...


def test_two_handlers_for_the_same_frames_in_the_two_directions_are_none() -> None:
    class Two(FrameProcessor):  # pyright: ignore[reportUnusedClass]
        @handles(Say)
        async def one(self, frame: Say) -> None: ...

        @handles(Say, direction=UPSTREAM)
        async def two(self, frame: Say) -> None: ...


def test_decorators_say_what_they_need() -> None:
    with pytest.raises(ProcessorError, match="`async def`"):

        @handles(Say)
        def sync(self: Any, frame: Say) -> None: ...  # pyright: ignore[reportUnusedFunction]

    with pytest.raises(ProcessorError, match="async def with yield"):

        @streams(Say)
        async def no_yield(self: Any, frames: Stream[Say]) -> None: ...  # pyright: ignore[reportUnusedFunction]

    with pytest.raises(ProcessorError, match="async def with yield"):

        @source
        async def no_source(self: Any) -> None: ...  # pyright: ignore[reportUnusedFunction]

    with pytest.raises(ProcessorError, match="at least one class of frames"):

        @handles()
        async def nothing(self: Any, frame: Say) -> None: ...  # pyright: ignore[reportUnusedFunction]

    with pytest.raises(ProcessorError, match="classes of frames, not 'Say'"):
        handles("Say")  # type: ignore[arg-type]
    with pytest.raises(ProcessorError, match="classes of frames"):
        handles(Say("an instance"))  # type: ignore[arg-type]
    with pytest.raises(ProcessorError, match="classes of frames"):
        handles(int)  # type: ignore[type-var]


async def test_processors_are_told_apart_by_identity_also_where_they_compare_equal() -> None:
    from dataclasses import dataclass

    @dataclass
    class Adds(FrameProcessor):
        suffix: str

        @handles(Say)
        async def take(self, frame: Say) -> None:
            await self.push(Say(frame.what + self.suffix))

    seen = Seen()
    async with Rig(Adds("!"), Adds("!"), seen) as rig:
        await rig.send(Say("x"))
    assert seen.said == ["x!!"]

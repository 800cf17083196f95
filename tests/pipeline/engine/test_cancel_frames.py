"""Who sees a cancel frame, what it names, and what it leaves alone."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest
from voxline.pipeline import (
    UPSTREAM,
    CancelFrame,
    Frame,
    FrameProcessor,
    InputFrame,
    OutputFrame,
    ProcessorError,
    handles,
    source,
)
from voxline.tests.pipeline.engine.rig import Alarm, Controller, Hear, Keep, On, Other, Rig, Say, Seen, Speaker


async def test_each_processor_sees_the_cancel_frame_exactly_once_and_the_one_that_cut_does_not() -> None:
    before, after, controller = Seen("before"), Seen("after"), Controller()
    async with Rig(before, controller, Speaker(), after) as rig:
        await rig.send(Hear("new"))
        await rig.send(Hear("cut"))
    for seen in (before, after):
        assert (seen.frames + seen.upstream).count(CancelFrame(1, "heard it")) == 1
    assert controller.cancels == []


async def test_a_cancel_frame_is_seen_whichever_direction_is_named() -> None:
    class Up(FrameProcessor):
        def __init__(self) -> None:
            self.cancels = 0

        @handles(CancelFrame, direction=UPSTREAM)
        async def cancelled(self, frame: CancelFrame) -> None:
            self.cancels += 1

    class Both(Up):
        @handles(CancelFrame)
        @handles(CancelFrame, direction=UPSTREAM)
        async def cancelled(self, frame: CancelFrame) -> None:
            self.cancels += 1

    processors = [Up(), Both(), Controller(), Up(), Both()]
    async with Rig(*processors) as rig:
        await rig.send(Hear("new"))
        await rig.send(Hear("cut"))
    assert [one.cancels for one in processors] == [1, 1, [], 1, 1]


async def test_a_cancel_frame_that_somebody_pushes_on_or_posts_goes_nowhere() -> None:
    class Pusher(FrameProcessor):
        @handles(CancelFrame)
        async def cancelled(self, frame: CancelFrame) -> None:
            await self.push(frame)
            await self.push(frame, UPSTREAM)

    seen, head = Seen(), Seen("head")
    async with Rig(head, Controller(), Pusher(), seen) as rig:
        await rig.send(Hear("new"))
        await rig.send(Hear("cut"))
        await rig.send(CancelFrame(1))
    assert len(seen.cancels) == 1
    assert len([frame for frame in head.upstream + head.frames if isinstance(frame, CancelFrame)]) == 1


async def test_interrupting_twice_does_nothing_the_second_time() -> None:
    answers: list[bool] = []

    async def cut(self: FrameProcessor, frame: Hear) -> None:
        if frame.what == "open":
            await self.push(Say("a"), response=self.new_response())
        else:
            answers.append(self.interrupt(frame.what))
            answers.append(self.interrupt(frame.what))

    seen = Seen()
    async with Rig(On(cut), seen) as rig:
        await rig.send(Hear("open"), Hear("one"), Hear("two"))
        rig.worker.interrupt("three")
        await rig.settle()
    assert answers == [True, False, False, False]
    assert seen.frames == [Say("a"), CancelFrame(1, "one")]


async def test_two_requests_from_outside_cut_once() -> None:
    seen = Seen()
    async with Rig(Controller(), seen) as rig:
        await rig.send(Hear("new"))
        rig.worker.interrupt("one")
        rig.worker.interrupt("two")
        await rig.settle()
    assert seen.cancels == [CancelFrame(1, "one")]


async def test_where_nothing_was_ever_said_there_is_nothing_to_cut() -> None:
    seen = Seen()
    async with Rig(Controller(), seen) as rig:
        await rig.send(Hear("cut"))
        rig.worker.interrupt()
        await rig.settle()
    assert seen.frames == []


async def test_only_the_responses_up_to_the_one_that_is_named_are_cut() -> None:
    async def go(self: FrameProcessor, frame: Hear) -> None:
        first, second = self.new_response(), self.new_response()
        await self.push(Say("old"), response=first)
        await self.push(Say("new"), response=second)
        self.interrupt("the first", response=first)
        await self.push(Say("old again"), response=first)
        await self.push(Say("new again"), response=second)

    seen = Seen()
    async with Rig(On(go), seen) as rig:
        await rig.send(Hear("go"))
    assert seen.said == ["CancelFrame", "new", "new again"]
    assert seen.cancels == [CancelFrame(1, "the first")]


async def test_a_response_that_was_never_opened_cannot_be_named() -> None:
    errors: list[str] = []

    async def go(self: FrameProcessor, frame: Hear) -> None:
        for number in (0, -1, 7):
            with pytest.raises(ProcessorError, match="There is no response") as caught:
                await self.push(Say("x"), response=number)
            errors.append(str(caught.value))
            with pytest.raises(ProcessorError, match="new_response"):
                self.interrupt(response=number)

    async with Rig(On(go)) as rig:
        await rig.send(Hear("go"))
    assert len(errors) == 3


async def test_input_and_surviving_frames_are_kept_wherever_they_wait() -> None:
    class Slow(FrameProcessor):
        @handles(Say)
        async def speak(self, frame: Say) -> AsyncIterator[Frame]:
            await self.clock.sleep(10)
            yield frame

    async def talk(self: FrameProcessor, frame: Hear) -> None:
        number = self.new_response()
        await self.push(Say("a"), response=number)
        await self.push(Keep("behind the job"), response=number)
        await self.push(Say("b"), response=number)
        await self.push(Keep("too"), response=number)

    seen = Seen()
    async with Rig(On(talk), Slow(), seen) as rig:
        await rig.send(Hear("go"))
        assert seen.frames == []
        rig.post(Keep("in the inbox"), response=1)
        rig.worker.interrupt()
        rig.post(Keep("late"), response=1)
        await rig.settle()
    assert seen.said == ["CancelFrame", "behind the job", "too", "in the inbox", "late"]


async def test_a_job_whose_class_survives_goes_on() -> None:
    class Tool(FrameProcessor):
        @handles(Keep)
        async def call(self, frame: Keep) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            yield Keep(f"result of {frame.what}")
            yield Say("and a word, which is cut")

    seen = Seen()

    async def talk(self: FrameProcessor, frame: Hear) -> None:
        number = self.new_response()
        await self.push(Keep("tool"), response=number)
        await self.push(Say("behind"), response=number)

    async with Rig(On(talk), Tool(), seen) as rig:
        await rig.send(Hear("go"))
        rig.worker.interrupt()
        await rig.advance(5)
        assert seen.said == ["CancelFrame", "result of tool"]
        assert rig.worker.refused == 1


async def test_a_job_that_input_began_is_closed_with_the_response_that_it_opened() -> None:
    """The model of a simple bot: it answers what was heard, and nobody gave the answer a number beforehand."""

    class Model(FrameProcessor):
        def __init__(self) -> None:
            self.closed = False

        @handles(Hear)
        async def answer(self, frame: Hear) -> AsyncIterator[Frame]:
            try:
                for number in range(5):
                    await self.clock.sleep(1)
                    yield Say(f"{frame.what} {number}")
            finally:
                self.closed = True

    model, seen = Model(), Seen()
    async with Rig(model, seen) as rig:
        await rig.send(Hear("a"))
        await rig.advance(2.5)
        assert seen.said == ["a 0", "a 1"]
        rig.worker.interrupt()
        await rig.settle()
        assert model.closed
        await rig.send(Hear("b"))
        await rig.advance(1)
        assert seen.said == ["a 0", "a 1", "CancelFrame", "b 0"]


async def test_a_source_speaks_again_after_an_interruption() -> None:
    class Tone(FrameProcessor):
        @source
        async def play(self) -> AsyncIterator[Frame]:
            for number in range(10):
                await self.clock.sleep(1)
                yield Say(str(number))

    seen = Seen()
    async with Rig(Tone(), seen) as rig:
        await rig.advance(2.5)
        rig.worker.interrupt()
        await rig.advance(2)
        assert seen.said == ["0", "1", "CancelFrame", "2", "3"]
        assert seen.responses == [1, 1, 0, 2, 2]


async def test_a_maker_whose_frames_are_all_refused_does_not_starve_the_event_loop() -> None:
    """It never waits for anything: only the place downstream ever made it wait, and that is gone."""

    class Maker(FrameProcessor):
        @handles(Keep)
        async def make(self, frame: Keep) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            for number in range(2_000):
                yield Say(str(number))

    async def talk(self: FrameProcessor, frame: Hear) -> None:
        await self.push(Keep("go"), response=self.new_response())

    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    seen = Seen()
    async with Rig(On(talk), Maker(), seen) as rig:
        await rig.send(Hear("x"))
        rig.worker.interrupt()
        await rig.settle()
        counting = asyncio.create_task(count())
        await rig.advance(2)
        counting.cancel()
        await asyncio.wait([counting])
        assert rig.worker.refused == 2_000
    assert seen.said == ["CancelFrame"]
    assert turns > 500


async def test_what_waits_behind_a_job_goes_on_when_an_interruption_falls_while_it_is_released() -> None:
    """The job ends, the first of those behind it is delivered, and its handler interrupts: the rest must not stick."""

    class Slow(FrameProcessor):
        @handles(Say)
        async def speak(self, frame: Say) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            yield Keep(f"said {frame.what}")

    class Cutter(FrameProcessor):
        @handles(Other)
        async def cut(self, frame: Other) -> None:
            self.interrupt("now")

    async def talk(self: FrameProcessor, frame: Hear) -> None:
        number = self.new_response()
        if frame.what == "more":
            await self.push(Say("again"), response=number)
        else:
            await self.push(Say("a"), response=number)
            await self.push(Other("cut"), response=number)
            await self.push(Keep("must come"), response=number)

    seen = Seen()
    async with Rig(On(talk), Slow(), Cutter(), seen) as rig:
        await rig.send(Hear("go"))
        await rig.advance(2)
        assert seen.said == ["said a", "CancelFrame", "must come"]
        await rig.send(Hear("more"))
        await rig.advance(2)
        assert seen.said == ["said a", "CancelFrame", "must come", "said again"]


async def test_a_maker_whose_frames_were_cut_behind_a_job_can_go_on() -> None:
    """What is dropped behind a job was delivered before: it must not count as room in the inbox a second time."""

    class Mixed(FrameProcessor):
        """A source that makes both: what is the bot's, and what is the user's."""

        @source
        async def make(self) -> AsyncIterator[Frame]:
            for number in range(6):
                yield Say(f"say {number}")
                yield Hear(f"hear {number}")
                if number == 2:
                    await self.clock.sleep(1)

    class Slow(FrameProcessor):
        @handles(Say)
        async def speak(self, frame: Say) -> AsyncIterator[Frame]:
            await self.clock.sleep(100)
            yield frame

    class Cutter(FrameProcessor):
        @handles(Hear)
        async def hear(self, frame: Hear) -> None:
            await self.push(frame)
            if frame.what.endswith(("2", "4")):
                self.interrupt("at two and four")

    seen = Seen()
    async with Rig(Mixed(), Slow(), Cutter(), seen) as rig:
        await rig.advance(3)
        assert [word for word in seen.said if word.startswith("hear")] == [f"hear {n}" for n in range(6)]


async def test_two_frames_in_the_inbox_of_one_job_cannot_come_of_a_cut() -> None:
    """A job has one frame in the inbox. A cut that drops others of its frames, further on, does not free it."""

    class Source(FrameProcessor):
        def __init__(self) -> None:
            self.made = 0

        @source
        async def make(self) -> AsyncIterator[Frame]:
            for number in range(20):
                self.made += 1
                yield Say(str(number)) if number % 2 else Keep(str(number))

    class Waits(FrameProcessor):
        @handles(Other)
        async def slow(self, frame: Other) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            yield frame

    seen = Seen()
    source_ = Source()

    class Cutter(FrameProcessor):
        @handles(Say)
        async def say(self, frame: Say) -> None:
            self.interrupt(frame.what)

    async with Rig(source_, Waits(), Cutter(), seen) as rig:
        await rig.advance(3)
    assert source_.made == 20
    assert [word for word in seen.said if word != "CancelFrame"] == [str(number) for number in range(0, 20, 2)]


async def test_an_urgent_frame_overtakes_a_backlog() -> None:
    seen = Seen()
    async with Rig(seen) as rig:
        rig.post(*(Say(str(number)) for number in range(100)))
        rig.post(Hear("user"), Alarm("fire"))
        await rig.settle()
    assert seen.said[:3] == ["fire", "user", "0"]
    assert seen.said[2:] == [str(number) for number in range(100)]


async def test_a_backlog_of_two_thousand_frames_is_dropped_in_one_step() -> None:
    seen = Seen()
    async with Rig(Controller(), Speaker(), seen) as rig:
        await rig.send(Hear("new a"))
        rig.post(*(Say(str(number)) for number in range(2_000)), response=1)
        rig.worker.interrupt("all")
        await rig.settle()
        await rig.advance(3)
        assert seen.frames == [CancelFrame(1, "all")]


async def test_an_interruption_by_a_job_and_by_a_callback_is_an_entry_of_the_inbox() -> None:
    class Watch(FrameProcessor):
        @handles(Other)
        async def watch(self, frame: Other) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            assert self.interrupt("from a job")
            yield Keep("done")

    seen = Seen()
    head = Seen("head")
    async with Rig(head, Controller(), Watch(), seen) as rig:
        await rig.send(Hear("new"))
        await rig.send(Other("go"), response=0)
        await rig.advance(2)
    assert seen.said == ["a", "b", "c", "CancelFrame"] or seen.said == ["a", "b", "c", "CancelFrame", "done"]
    assert len(head.cancels) == 1


async def test_a_handler_that_waits_can_be_interrupted_around() -> None:
    """A plain handler waits for something; meanwhile the interruption is asked for. It falls when the handler ends."""

    class Waiter(FrameProcessor):
        @handles(Say)
        async def wait(self, frame: Say) -> None:
            await self.push(Other(frame.what + " before"))
            await self.clock.sleep(0.02)
            await self.push(Other(frame.what + " after"))

    seen = Seen()
    async with Rig(Controller(), Waiter(), seen) as rig:
        await rig.send(Hear("new a b"))
        await rig.advance(0.01)
        rig.worker.interrupt("meanwhile")
        await rig.settle()
        assert seen.frames == []
        await rig.advance(1)
    assert seen.said == ["a before", "a after", "b before", "b after", "CancelFrame"]


async def test_a_cancel_handler_may_start_the_next_response() -> None:
    class Sorry(FrameProcessor):
        @handles(CancelFrame)
        async def cancelled(self, frame: CancelFrame) -> None:
            await self.push(Say("sorry"), response=self.new_response())

    seen = Seen()
    async with Rig(Controller(), Sorry(), seen) as rig:
        await rig.send(Hear("new"))
        await rig.send(Hear("cut"))
        assert seen.said == ["a", "b", "c", "sorry", "CancelFrame"] or seen.said == [
            "a", "b", "c", "CancelFrame", "sorry",
        ]  # fmt: skip
        assert seen.responses[-1] in (0, 2)
        await rig.send(Hear("cut"))
        assert seen.cancels[-1] == CancelFrame(3 - 1, "heard it")


async def test_a_new_response_cannot_be_opened_by_a_job() -> None:
    class Job(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            with pytest.raises(ProcessorError, match="plain handler only"):
                self.new_response()
            yield Other("fine")

    seen = Seen()
    async with Rig(Job(), seen) as rig:
        await rig.send(Say("x"))
    assert seen.said == ["fine"]


async def test_a_response_nobody_opened_is_not_accepted_from_outside() -> None:
    """A frame of a response that nobody opened: either that opens it, or it is an error. It must be possible to cut."""
    seen = Seen()
    async with Rig(seen) as rig:
        await rig.send(Say("x"), response=5)
        assert rig.worker.responses == 5
        rig.worker.interrupt()
        await rig.settle()
    assert seen.frames == [Say("x"), CancelFrame(5)]


async def test_unnumbered_output_in_the_inbox_is_cut_with_the_rest() -> None:
    """An interruption is urgent, so it overtakes: also what was posted after it in the same breath goes.

    Who posts from outside numbers its output, or waits for the cancel frame.
    """
    seen = Seen()
    async with Rig(Controller(), seen) as rig:
        await rig.send(Hear("new a"))
        rig.post(Say("nobody numbered this"))
        rig.worker.interrupt()
        rig.post(Say("nor this"))
        await rig.settle()
        await rig.send(Say("and this came when the cut was made"))
    assert seen.said == ["a", "CancelFrame", "and this came when the cut was made"]
    assert seen.responses[-1] == 2


class Fact(InputFrame):
    """A fact without a field."""


class Made(OutputFrame):
    """Output without a field."""


async def test_input_belongs_to_no_response() -> None:
    responses: list[tuple[str, int]] = []

    class Output(FrameProcessor):
        @handles(Made)
        async def made(self, frame: Made) -> None:
            responses.append(("made", self.response))
            await self.push(Fact(), UPSTREAM)

    class Control(FrameProcessor):
        @handles(Hear)
        async def hear(self, frame: Hear) -> None:
            await self.push(Made(), response=self.new_response())

        @handles(Fact, direction=UPSTREAM)
        async def fact(self, frame: Fact) -> None:
            responses.append(("fact", self.response))

    async with Rig(Control(), Output()) as rig:
        await rig.send(Hear("x"))
    assert responses == [("made", 1), ("fact", 0)]

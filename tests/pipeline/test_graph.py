"""Pipelines as they are built: nesting, branches, and what is refused with an error that says what to do."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping

import numpy as np
import pytest
from voxline.pipeline import (
    UPSTREAM,
    AudioFormat,
    FormatError,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    OutputAudioFrame,
    ParallelPipeline,
    Pipeline,
    PipelineError,
    PipelineWorker,
    handles,
    source,
)
from voxline.tests.pipeline.engine.rig import Hear, Keep, Other, Rig, Say, Seen


class Mark(FrameProcessor):
    """Marks the words that pass."""

    def __init__(self, mark: str) -> None:
        self.mark = mark

    @handles(Say)
    async def take(self, frame: Say) -> None:
        await self.push(Say(frame.what + self.mark))

    @handles(Hear, direction=UPSTREAM)
    async def up(self, frame: Hear) -> None:
        await self.push(Hear(frame.what + self.mark), UPSTREAM)


class Sink(FrameProcessor):
    """Takes words and lets nothing through."""

    def __init__(self) -> None:
        self.got: list[str] = []

    @handles(Say)
    async def take(self, frame: Say) -> None:
        self.got.append(frame.what)


class Slow(FrameProcessor):
    """Passes a word on a second later."""

    @handles(Say)
    async def work(self, frame: Say) -> AsyncIterator[Frame]:
        await self.clock.sleep(1)
        yield frame


async def through(*elements: FrameProcessor | Pipeline | ParallelPipeline) -> list[str]:
    seen = Seen()
    async with Rig(*elements, seen) as rig:
        await rig.send(Say("x"), Other("y"))
        await rig.advance(3)
    return seen.said


async def up_through(*elements: FrameProcessor | Pipeline | ParallelPipeline) -> list[str]:
    head = Seen("head")
    async with Rig(head, *elements) as rig:
        await rig.send(Hear("x"), direction=UPSTREAM)
    return [frame.what for frame in head.upstream if isinstance(frame, Hear)]


async def test_a_pipeline_nests() -> None:
    nested = Pipeline([Mark("1"), Pipeline([Mark("2"), Pipeline([Mark("3")])]), Mark("4")])
    assert await through(nested, Mark("5")) == ["x12345", "y"]
    nested = Pipeline([Mark("1"), Pipeline([Mark("2"), Pipeline([Mark("3")])]), Mark("4")])
    assert await up_through(nested, Mark("5")) == ["x54321"]


# --- branches --------------------------------------------------------------------------------------------------------


async def test_branches_get_every_frame_in_order() -> None:
    assert await through(ParallelPipeline([Mark("a"), Mark("b")], [Mark("c")])) == ["xab", "xc", "y"]


async def test_the_same_frame_leaves_once_however_many_branches_let_it_through() -> None:
    assert await through(ParallelPipeline([], [], [])) == ["x", "y"]
    assert await through(ParallelPipeline([], [Mark("a")], [])) == ["x", "xa", "y"]
    assert await through(ParallelPipeline([Seen("1")], [Seen("2")])) == ["x", "y"]


async def test_a_dead_branch_does_not_hold_up_the_others() -> None:
    class Raises(FrameProcessor):
        @handles(Say)
        async def take(self, frame: Say) -> None:
            raise ValueError("dead")

    sink = Sink()
    assert await through(ParallelPipeline([sink], [Raises()], [Mark("a")])) == ["xa", "y"]
    assert sink.got == ["x"]
    assert await through(ParallelPipeline([Sink()], [Sink()])) == ["y"]


async def test_a_slow_branch_does_not_hold_up_the_others_and_its_frame_leaves_too() -> None:
    class SlowMark(FrameProcessor):
        @handles(Say)
        async def work(self, frame: Say) -> AsyncIterator[Frame]:
            await self.clock.sleep(1)
            yield Say(frame.what + " late")

    seen = Seen()
    async with Rig(ParallelPipeline([SlowMark()], [Mark("a")]), seen) as rig:
        await rig.send(Say("x"))
        assert seen.said == ["xa"]
        await rig.advance(1)
        assert seen.said == ["xa", "x late"]


async def test_the_same_object_may_be_sent_again_and_leaves_again() -> None:
    """A processor that pushes one frame of silence over and over sends it each time."""
    frame = Say("silence")
    for fork in (ParallelPipeline([Seen("1")], []), ParallelPipeline([Seen("1")], [Seen("2")]), ParallelPipeline([])):
        seen = Seen()
        async with Rig(fork, seen) as rig:
            for _ in range(5):
                await rig.send(frame)
        assert seen.frames == [frame] * 5


async def test_nested_branches() -> None:
    inner = ParallelPipeline([Mark("1")], [Mark("2"), ParallelPipeline([Mark("3")], [])])
    assert await through(ParallelPipeline([Mark("a"), inner], [])) == ["xa1", "xa23", "xa2", "x", "y"]


async def test_upstream_through_branches() -> None:
    assert await up_through(ParallelPipeline([Mark("a"), Mark("b")], [])) == ["xba", "x"]
    assert await up_through(ParallelPipeline([], [])) == ["x"]
    inner = ParallelPipeline([Mark("1")], [Mark("2")])
    assert await up_through(ParallelPipeline([Mark("a"), inner], [Mark("b")])) == ["x1a", "x2a", "xb"]


async def test_what_a_branch_sends_up_does_not_come_down_another() -> None:
    class Up(FrameProcessor):
        @handles(Say)
        async def take(self, frame: Say) -> None:
            await self.push(Hear("up"), UPSTREAM)

    head, other = Seen("head"), Seen("other")
    async with Rig(head, ParallelPipeline([Up()], [other])) as rig:
        await rig.send(Say("x"))
    assert head.upstream == [Hear("up")]
    assert other.upstream == []


async def test_jobs_of_one_processor_before_branches_keep_what_passes_in_order_in_each() -> None:
    seen = Seen()
    async with Rig(ParallelPipeline([Slow(), Mark("a")], [Slow(), Mark("b")]), seen) as rig:
        await rig.send(Say("1"), Keep("2"), Say("3"))
        await rig.advance(5)
    assert [word for word in seen.said if word != "2"] == ["1a", "1b", "3a", "3b"]
    assert seen.said.count("2") == 1


# --- what cannot be built --------------------------------------------------------------------------------------------


def test_an_empty_pipeline() -> None:
    with pytest.raises(PipelineError, match=r"at least one processor, as in Pipeline\(\[Louder\(\)\]\)"):
        Pipeline([])
    with pytest.raises(PipelineError, match="at least one branch"):
        ParallelPipeline()


def test_a_class_instead_of_an_instance() -> None:
    with pytest.raises(PipelineError, match=r"an instance, not the class: add \(\)"):
        Pipeline([Sink])  # type: ignore[list-item]
    with pytest.raises(PipelineError, match="is no processor"):
        Pipeline([print])  # type: ignore[list-item]
    with pytest.raises(PipelineError, match=r"an instance, not the class"):
        ParallelPipeline([Sink])  # type: ignore[list-item]


def test_a_branch_that_is_no_list() -> None:
    with pytest.raises(PipelineError, match=r"write ParallelPipeline\(\["):
        ParallelPipeline(Sink())  # type: ignore[arg-type]


def test_a_processor_that_is_used_twice() -> None:
    sink = Sink()
    message = r"Sink stands in the pipeline 2 times.*make a second Sink\(\.\.\.\)"
    with pytest.raises(PipelineError, match=message):
        Pipeline([sink, sink])
    with pytest.raises(PipelineError, match=message):
        Pipeline([sink, Pipeline([sink])])
    with pytest.raises(PipelineError, match=message):
        ParallelPipeline([sink], [sink])
    with pytest.raises(PipelineError, match=message):
        Pipeline([ParallelPipeline([Pipeline([sink])], [Mark("a")]), sink])


def test_a_processor_in_two_pipelines_is_fine_until_both_run() -> None:
    sink = Sink()
    Pipeline([sink])
    Pipeline([sink])


class Mic(FrameProcessor):
    """A transport's input."""

    is_transport_input = True

    def __init__(self, rate: int = 16_000, name: str = "mic") -> None:
        self.name = name
        self.rate = rate

    @source
    async def listen(self) -> AsyncIterator[Frame]:
        yield InputAudioFrame(np.zeros(160, np.int16), self.rate)

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {InputAudioFrame: AudioFormat((self.rate,), (1,))}


class Stt(FrameProcessor):
    """Takes 16 kHz."""

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        return {InputAudioFrame: AudioFormat((16_000,), (1,))}


class Tts(FrameProcessor):
    """Makes audio."""

    def __init__(self, rate: int = 22_050, name: str = "tts") -> None:
        self.name = name
        self.rate = rate

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((self.rate,), (1,))}


class Speaker(FrameProcessor):
    """A transport's output."""

    def __init__(self, *rates: int) -> None:
        self.rates = rates

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat(self.rates)}


def test_two_inputs() -> None:
    with pytest.raises(PipelineError, match=r"2 inputs \(one, two\).*PipelineRunner\(\)\.run\(worker_a, worker_b\)"):
        Pipeline([Mic(name="one"), Mic(name="two")])


def test_formats_that_do_not_meet() -> None:
    with pytest.raises(
        FormatError, match=r"mic -> Stt: mic makes InputAudioFrame with 8000 Hz, mono.*Resampler\(16000\)"
    ):
        Pipeline([Mic(8_000), Stt()])
    with pytest.raises(FormatError, match=r"tts -> Speaker.*24000 Hz.*22050 Hz or 48000 Hz|tts -> Speaker"):
        Pipeline([Mic(), Tts(24_000), Speaker(22_050, 48_000)])
    Pipeline([Mic(), Stt(), Tts(), Speaker()])


def test_no_voice_before_the_output() -> None:
    with pytest.raises(FormatError, match=r"expects audio and nothing before it makes any\. Put a TTS between them"):
        Pipeline([Mic(), Stt(), Speaker()])


def test_no_sink() -> None:
    with pytest.raises(FormatError, match=r"tts makes audio and nothing after it takes any: .*transport\.output\(\)"):
        Pipeline([Mic(), Stt(), Tts()])


def test_a_part_of_a_pipeline_is_not_judged_before_it_is_whole() -> None:
    Pipeline([Stt(), Tts()])
    Pipeline([Speaker()])
    with pytest.raises(FormatError):
        Pipeline([Mic(8_000), Pipeline([Stt(), Tts(), Speaker()])])


def test_formats_in_branches() -> None:
    Pipeline([Mic(), ParallelPipeline([Stt(), Tts()], []), Speaker()])
    Pipeline([Mic(), ParallelPipeline([], [Stt(), Tts()]), Speaker()])
    with pytest.raises(FormatError, match="mic -> Stt"):
        Pipeline([Mic(8_000), ParallelPipeline([], [Stt()]), Tts(), Speaker()])
    with pytest.raises(FormatError, match="loud -> Speaker"):
        Pipeline([Mic(), ParallelPipeline([Tts(8_000, "loud")], [Tts(16_000, "soft")]), Speaker(16_000)])
    with pytest.raises(FormatError, match="lost makes audio and nothing after it takes any"):
        Pipeline([Mic(), ParallelPipeline([Tts(name="lost")], [Tts(name="heard"), Speaker()])])


async def test_a_pipeline_runs_with_neither_source_nor_sink() -> None:
    seen = Seen()
    async with Rig(seen) as rig:
        await rig.send(Say("x"))
    assert seen.said == ["x"]
    assert repr(Pipeline([Sink()])) == "Pipeline([<Sink>])"
    assert PipelineWorker(Pipeline([Sink()], name="bot")).name == "bot"


async def test_names_that_come_twice_are_numbered() -> None:
    async with Rig(Mark("a"), Mark("b"), Pipeline([Mark("c")], name="Mark")) as rig:
        assert [node.path for node in rig.worker._nodes()] == ["Mark", "Mark#2", "Mark/Mark"]

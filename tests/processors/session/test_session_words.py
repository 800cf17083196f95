"""Whose words are these? Late ones, pieces, what was said while muted, and what is left of a turn at the end."""

from collections.abc import AsyncIterator

import pytest
from voxline.pipeline import (
    UPSTREAM,
    ClientDisconnectedFrame,
    Frame,
    InterimTranscriptionFrame,
    LLMRequestFrame,
    ResponseEndFrame,
    TextFrame,
    ToolCallFrame,
    ToolResultFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    handles,
)
from voxline.processors import AwaitsCommitment, State
from voxline.processors.testing.session_bench import SessionBench

LONG = "one two three four five six seven eight nine ten"
STARTED, STOPPED = UserStartedSpeakingFrame(200), UserStoppedSpeakingFrame(500)


async def test_words_that_never_come_do_not_take_the_next_question_along():
    async with SessionBench(["First.", "Noon."]) as bench:
        await bench.user_starts()
        await bench.send(TranscriptionFrame("piece one"))
        await bench.advance(300)
        await bench.user_stops(None)
        await bench.advance(10_000)
        # A recogniser with an endpointing of its own: its words are there before the detector is sure.
        await bench.user_starts()
        await bench.advance(800)
        await bench.send(TranscriptionFrame("what time is it"))
        await bench.advance(300)
        await bench.send(STOPPED)
        await bench.advance(3_000)
        assert bench.said == [
            ("user", "piece one"),
            ("assistant", "First."),
            ("user", "what time is it"),
            ("assistant", "Noon."),
        ]


async def test_a_keyword_cuts_the_bot_though_words_of_a_turn_before_are_missing():
    async with SessionBench([LONG, "Yes."]) as bench:
        await bench.user_starts()
        await bench.send(TranscriptionFrame("piece one"))
        await bench.advance(300)
        await bench.user_stops(None)
        await bench.advance(3_500)
        assert bench.session.state is State.SPEAKING
        await bench.user_starts()
        await bench.send(InterimTranscriptionFrame("stop"))
        assert len(bench.session.interruptions) == 1


@pytest.mark.parametrize("tail", ["right", "now please"])
async def test_a_piece_that_comes_in_the_silence_is_not_all_of_the_words(tail: str):
    async with SessionBench(["Fine."], model_ms=1_000) as bench:
        await bench.send(STARTED)
        await bench.advance(15_100)
        await bench.send(TranscriptionFrame("a very long utterance", 15_000, more=True))
        await bench.advance(300)
        await bench.send(STOPPED)
        await bench.advance(300)
        await bench.send(TranscriptionFrame(tail))
        await bench.advance(3_000)
        assert bench.said == [("user", f"a very long utterance {tail}"), ("assistant", "Fine.")]
        assert bench.session.interruptions == ()


async def test_a_yes_before_the_bot_has_said_anything_belongs_to_the_turn():
    async with SessionBench(["No.", "Turned."], model_ms=3_000) as bench:
        await bench.user_says("please turn it to the")
        await bench.user_says("right", speech_ms=600)
        await bench.advance(5_000)
        assert bench.said[0] == ("user", "please turn it to the right")


async def test_noise_while_muted_does_not_delay_the_turns_after_it():
    async with SessionBench(
        ["Noon."], greeting="Hello there.", mute=["first_speech"], endpointing={"turn_timeout_s": 5}
    ) as bench:
        await bench.user_starts()
        await bench.advance(8_000)
        await bench.send(STOPPED)
        await bench.advance(4_000)
        await bench.user_says("what time is it")
        assert bench.session.state is State.PROCESSING
        assert bench.session.statistics.errors == 0


@pytest.mark.parametrize("how", ["gone", "closed"])
async def test_the_last_words_before_the_end_stand_in_the_history(how: str):
    async with SessionBench(["Noted."], endpointing={"min_delay_ms": 900}) as bench:
        await bench.user_says("my number is five five five")
        if how == "gone":
            await bench.send(ClientDisconnectedFrame())
        else:
            bench.session.close()
            await bench.settle()
        assert bench.session.state is State.CLOSED
        assert bench.said == [("user", "my number is five five five")]


class Forgetful(AwaitsCommitment):
    """A model whose tool never reports when it is cut."""

    @handles(LLMRequestFrame)
    async def respond(self, frame: LLMRequestFrame) -> AsyncIterator[Frame]:
        await self.push(ToolCallFrame("c1", "search"), UPSTREAM)
        await self.clock.sleep(10)
        await self.push(ToolResultFrame("c1", "found"), UPSTREAM)
        yield TextFrame("Here it is.")
        yield ResponseEndFrame()


async def test_a_tool_that_was_cut_and_never_reports_mutes_nobody():
    async with SessionBench(model=Forgetful(), mute=["tools"]) as bench:
        await bench.user_says("search")
        await bench.advance(1_000)
        assert bench.session.data.muted
        bench.session.interrupt()
        await bench.settle()
        assert not bench.session.data.muted
        await bench.user_says("are you there")
        assert bench.said[-1] == ("user", "are you there")


async def test_an_interim_of_an_utterance_that_was_nothing_says_nothing_of_the_next():
    async with SessionBench([LONG * 4]) as bench:
        await bench.user_says("count")
        await bench.advance(1_000)
        await bench.user_starts()
        await bench.send(InterimTranscriptionFrame("yeah"))
        await bench.user_stops(None)
        await bench.advance(4_000)
        assert bench.session.state is State.SPEAKING
        await bench.user_starts()
        await bench.advance(1_400)
        # Long enough to be no "yeah": it is another one that goes on.
        assert len(bench.session.interruptions) == 1

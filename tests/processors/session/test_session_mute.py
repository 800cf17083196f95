"""Mute strategies: when the user is not listened to, and that nothing they say is lost where they are."""

from __future__ import annotations

import pytest
from voxline.pipeline import ToolCallFrame, ToolResultFrame, TranscriptionFrame
from voxline.pipeline.frames import ClientConnectedFrame, InterimTranscriptionFrame
from voxline.processors import State
from voxline.processors.session import SessionData, SpeechIgnored
from voxline.processors.testing.session_bench import SessionBench

STORY = "Once upon a time there was a rover far away on Mars."


def ignored(bench: SessionBench) -> list[tuple[str, str]]:
    return [(event.text, event.why) for event in bench.events if isinstance(event, SpeechIgnored)]


async def test_nobody_is_muted_if_it_is_not_asked_for():
    async with SessionBench(["Hi."], greeting="Hello, I am a rover and I like to talk.") as bench:
        await bench.advance(600)
        assert bench.session.can_accept_input
        await bench.user_says("tell me more")
        assert len(bench.session.interruptions) == 1


async def test_the_first_speech_of_the_bot_cannot_be_interrupted_and_the_second_can():
    async with SessionBench([STORY, "Hi."], greeting="Hello, I am a rover.", mute=["first_speech"]) as bench:
        await bench.advance(300)
        assert not bench.session.can_accept_input
        await bench.user_says("stop", speech_ms=300)
        assert ignored(bench) == [("stop", "muted")]
        await bench.advance(2_000)
        assert bench.said == [("assistant", "Hello, I am a rover.")]
        assert bench.session.can_accept_input
        await bench.user_says("tell me a story")
        await bench.advance(1_500)
        await bench.user_says("stop now please")
        assert len(bench.session.interruptions) == 1


async def test_words_before_the_first_speech_are_not_taken_either():
    async with SessionBench(["Hi."], greeting="Hello.", mute=["first_speech"], wait_for_client=True) as bench:
        await bench.advance(100)
        await bench.send(ClientConnectedFrame())
        await bench.send(TranscriptionFrame("hello"))
        await bench.advance(3_000)
        assert bench.said == [("assistant", "Hello.")]


async def test_a_first_speech_that_fails_mutes_nobody_for_ever():
    async with SessionBench(
        ["Hi."], greeting="Hello.", mute=["first_speech"], word_ms=300, response_timeout_s=5
    ) as bench:
        bench.session.interrupt()
        await bench.settle()
        await bench.user_says("hello")
        await bench.advance(2_000)
        assert bench.said[-2:] == [("user", "hello"), ("assistant", "Hi.")]


async def test_while_a_tool_runs_the_user_is_not_heard():
    async with SessionBench(["It rains."], model_ms=4_000, mute=["tools"]) as bench:
        await bench.user_says("weather")
        await bench.send_upstream(ToolCallFrame("c1", "weather"))
        assert not bench.session.can_accept_input
        await bench.user_says("stop")
        assert bench.session.interruptions == ()
        await bench.send_upstream(ToolResultFrame("c1", "rain"))
        assert bench.session.can_accept_input
        await bench.advance(5_000)
        assert bench.said == [("user", "weather"), ("assistant", "It rains.")]


async def test_two_tools_at_once_mute_until_both_have_ended():
    async with SessionBench(["It rains."], model_ms=4_000, mute=["tools"]) as bench:
        await bench.user_says("weather")
        await bench.send_upstream(
            ToolCallFrame("c1", "weather"), ToolCallFrame("c2", "weather"), ToolResultFrame("c1", "rain")
        )
        assert not bench.session.can_accept_input
        await bench.send_upstream(ToolResultFrame("c2", "sun"))
        assert bench.session.can_accept_input


async def test_a_tool_that_never_returns_mutes_no_longer_than_its_answer_may_take():
    async with SessionBench(["Late.", "Hi."], model_ms=60_000, mute=["tools"], response_timeout_s=10) as bench:
        await bench.user_says("weather")
        await bench.send_upstream(ToolCallFrame("c1", "weather"))
        await bench.advance(10_000)
        assert bench.session.state is State.LISTENING
        assert bench.session.can_accept_input


async def test_while_the_bot_speaks_the_user_is_not_heard_and_before_they_are():
    async with SessionBench([STORY, "Hi."], mute=["speaking"], model_ms=2_000) as bench:
        await bench.user_says("tell me a story")
        assert bench.session.can_accept_input, "it thinks, and does not speak yet"
        await bench.advance(2_500)
        assert not bench.session.can_accept_input
        await bench.user_says("stop right now")
        assert bench.session.state is State.SPEAKING
        await bench.advance(5_000)
        assert bench.said == [("user", "tell me a story"), ("assistant", STORY)]
        assert ignored(bench) == [("stop right now", "muted")]
        assert bench.session.statistics.ignored_utterances == 1


async def test_a_strategy_of_one_s_own_is_a_function_of_the_session():
    def until_two_turns(data: SessionData) -> bool:
        return len(data.history.turns) < 2

    async with SessionBench(["Hi."], mute=[until_two_turns]) as bench:
        await bench.user_says("hello")
        await bench.advance(2_000)
        assert bench.session.turns == ()
        await bench.types("hello")
        await bench.advance(2_000)
        await bench.user_says("and again")
        assert bench.session.turns[-1].text == "and again"


async def test_named_and_own_strategies_hold_together():
    muted = [True]

    def asked(data: SessionData) -> bool:
        return muted[0]

    async with SessionBench(["Hi.", "Ho."], greeting="Hello.", mute=["first_speech", asked]) as bench:
        await bench.advance(1_000)
        assert bench.session.settings.mute == ("first_speech",)
        await bench.user_says("hello")
        assert len(bench.session.turns) == 1
        muted[0] = False
        await bench.user_says("hello")
        assert len(bench.session.turns) == 2


async def test_who_types_is_never_muted():
    async with SessionBench(["Hi."], greeting=STORY, mute=["first_speech", "speaking"]) as bench:
        await bench.advance(500)
        await bench.types("hello")
        await bench.advance(2_000)
        assert bench.said[-2:] == [("user", "hello"), ("assistant", "Hi.")]


async def test_interims_of_a_muted_user_do_nothing():
    async with SessionBench([STORY], mute=["speaking"]) as bench:
        await bench.user_says("tell me a story")
        await bench.advance(1_000)
        await bench.user_starts()
        await bench.send(InterimTranscriptionFrame("stop it now"))
        await bench.advance(1_000)
        assert bench.session.state is State.SPEAKING


@pytest.mark.parametrize("over", ["ends", "goes on"])
async def test_speech_that_outlasts_the_mute_is_heard_whole(over: str):
    """Pipecat and LiveKit lose the beginning of it."""
    async with SessionBench(["Hi."], greeting="Hello, I am a rover." * 2, mute=["first_speech"]) as bench:
        await bench.advance(1_000)
        await bench.user_starts()
        await bench.advance(500 if over == "ends" else 3_000)
        await bench.user_stops("hello rover")
        await bench.advance(2_000)
        assert (("user", "hello rover") in bench.said) is (over == "goes on")


async def test_mute_can_be_changed_while_the_session_runs():
    async with SessionBench([STORY], mute=["speaking"]) as bench:
        await bench.user_says("tell me a story")
        await bench.advance(1_000)
        bench.session.update(mute=())
        await bench.settle()
        await bench.user_says("stop now please")
        assert len(bench.session.interruptions) == 1

"""Time-outs and limits: each ends in the defined state with its reason, and can be changed while the session runs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from voxline.pipeline import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    FrameProcessor,
    LLMRequestFrame,
    ResponseCutFrame,
    ResponseEndFrame,
    TextFrame,
    TranscriptionFrame,
    handles,
)
from voxline.pipeline.frames import (
    ClientConnectedFrame,
    KeepAliveFrame,
    ResponsePlayedFrame,
    UserStartedSpeakingFrame,
)
from voxline.pipeline.testing import Harness
from voxline.processors import SessionController, SpeechOutcome, State
from voxline.processors.session import SessionClosed, SessionErrorReported, TurnKind, limits
from voxline.processors.testing.session_bench import SessionBench

STORY = "Once upon a time there was a rover far away on Mars."


def ended(bench: SessionBench) -> tuple[State, str]:
    return bench.session.state, bench.session.summary().reason


def errors(bench: SessionBench) -> list[str]:
    return [event.message for event in bench.events if isinstance(event, SessionErrorReported)]


def bot_said(bench: SessionBench) -> list[str]:
    return [turn.text for turn in bench.session.turns if turn.kind is TurnKind.ASSISTANT]


# --- idle ------------------------------------------------------------------------------------------------------------


async def test_silence_closes_the_session():
    async with SessionBench(idle_timeout_s=20) as bench:
        await bench.advance(19_999)
        assert bench.session.state is State.LISTENING
        await bench.advance(1)
        assert ended(bench) == (State.CLOSED, "idle")
        assert bench.session.transitions[-1].event == "idle time-out"


async def test_idle_counts_from_the_end_of_playout():
    async with SessionBench([STORY], idle_timeout_s=5) as bench:
        await bench.user_says("tell me a story")
        # 3.6 s of story after 0.2 s, and then 5 s.
        await bench.advance(200 + 3_600 + 4_999)
        assert bench.session.state is State.LISTENING
        await bench.advance(1)
        assert ended(bench) == (State.CLOSED, "idle")


async def test_who_speaks_or_types_is_not_idle():
    async with SessionBench(["a.", "b."], idle_timeout_s=10) as bench:
        await bench.advance(9_000)
        await bench.user_starts()
        await bench.advance(15_000)
        assert bench.session.state is State.LISTENING
        await bench.user_stops("hello")
        await bench.advance(9_000)
        await bench.types("hello")
        await bench.advance(9_000)
        assert bench.session.state is State.LISTENING


async def test_a_cough_is_no_answer_but_begins_the_silence_anew():
    async with SessionBench(idle_timeout_s=10) as bench:
        await bench.advance(8_000)
        await bench.user_says("")
        await bench.advance(9_000)
        assert bench.session.state is State.LISTENING
        await bench.advance(1_500)
        assert ended(bench) == (State.CLOSED, "idle")


async def test_the_ladder_prompts_twice_and_then_closes_with_a_goodbye():
    ladder = [{"after_s": 5, "say": "Are you there?"}, {"after_s": 5, "say": "Hello?"}]
    async with SessionBench(idle_ladder=ladder, idle_timeout_s=10, goodbyes={"idle": "Good bye."}) as bench:
        await bench.advance(5_000)
        assert bench.session.state is State.SPEAKING
        # 900 ms of prompt, and 5 s from its end.
        await bench.advance(900 + 4_999)
        assert bot_said(bench) == ["Are you there?"]
        await bench.advance(1 + 300 + 9_999)
        assert bot_said(bench) == ["Are you there?", "Hello?"]
        assert bench.session.state is State.LISTENING
        await bench.advance(1)
        assert bench.session.state is State.CLOSING
        await bench.advance(600)
        assert ended(bench) == (State.CLOSED, "idle")
        assert bot_said(bench) == ["Are you there?", "Hello?", "Good bye."]


async def test_who_answers_stands_at_the_foot_of_the_ladder_again():
    ladder = [{"after_s": 5, "say": "Hello?"}]
    async with SessionBench(["Hi."], idle_ladder=ladder, idle_timeout_s=10) as bench:
        await bench.advance(6_000)
        await bench.user_says("yes I am here")
        await bench.advance(500 + 5_000 + 500)
        assert bot_said(bench) == ["Hello?", "Hi.", "Hello?"]


async def test_touch_is_activity():
    async with SessionBench(idle_timeout_s=10) as bench:
        for _ in range(5):
            await bench.advance(9_000)
            bench.session.touch()
            await bench.settle()
        assert bench.session.state is State.LISTENING
        await bench.advance(10_000)
        assert ended(bench) == (State.CLOSED, "idle")


async def test_without_a_limit_nothing_ends():
    off: dict[str, Any] = {"idle_timeout_s": None, "max_duration_s": None, "max_messages": None, "keep_alive_s": None}
    async with SessionBench(**off) as bench:
        assert limits.next_ns(bench.session.data) is None
        await bench.advance(24 * 3_600_000)
        assert bench.session.state is State.LISTENING


# --- duration, and messages ------------------------------------------------------------------------------------------


async def test_a_session_lasts_no_longer_than_it_may():
    async with SessionBench(max_duration_s=60, goodbyes={"duration": "Time is up."}) as bench:
        await bench.advance(59_999)
        assert bench.session.state is State.LISTENING
        await bench.advance(1)
        assert bench.session.state is State.CLOSING
        await bench.advance(900)
        assert ended(bench) == (State.CLOSED, "duration")
        assert bot_said(bench) == ["Time is up."]


async def test_what_is_being_said_is_played_to_its_end_before_the_goodbye():
    async with SessionBench([STORY], max_duration_s=3, goodbyes={"duration": "Good bye."}) as bench:
        await bench.user_says("go")
        await bench.advance(2_150)
        assert bench.session.state is State.CLOSING
        await bench.advance(10_000)
        assert bot_said(bench) == [STORY, "Good bye."]
        assert not any(turn.interrupted for turn in bench.session.turns)
        assert ended(bench) == (State.CLOSED, "duration")


async def test_duration_counts_from_the_connection():
    async with SessionBench(max_duration_s=60, wait_for_client=True, connection_timeout_s=100) as bench:
        await bench.advance(50_000)
        await bench.send(ClientConnectedFrame())
        await bench.advance(59_999)
        assert bench.session.state is State.LISTENING
        await bench.advance(1)
        assert ended(bench) == (State.CLOSED, "duration")


async def test_the_exchange_that_reaches_the_message_limit_is_completed():
    async with SessionBench(["One.", STORY], max_messages=3, goodbyes={"messages": "That was all."}) as bench:
        await bench.user_says("one")
        await bench.advance(1_000)
        await bench.user_says("two")
        # The third message; its answer is played nevertheless.
        await bench.advance(1_000)
        assert bench.session.state is State.SPEAKING
        await bench.advance(10_000)
        assert bench.said[-2:] == [("assistant", STORY), ("assistant", "That was all.")]
        assert ended(bench) == (State.CLOSED, "messages")


async def test_the_limit_that_is_reached_in_the_middle_of_an_answer_that_is_cut_answers_the_user_first():
    async with SessionBench([STORY, "Sure."], max_messages=3) as bench:
        await bench.user_says("one")
        await bench.advance(1_000)
        await bench.user_says("tell me something else")
        await bench.advance(5_000)
        assert bench.said[1:] == [
            ("assistant", "Once upon a time..."),
            ("user", "tell me something else"),
            ("assistant", "Sure."),
        ]
        assert ended(bench) == (State.CLOSED, "messages")


# --- response --------------------------------------------------------------------------------------------------------


async def test_a_model_that_says_nothing_is_given_up_and_the_user_is_told():
    async with SessionBench(
        ["Too late.", "Hi."], model_ms=60_000, response_timeout_s=10, apology="Sorry, please repeat."
    ) as bench:
        await bench.user_says("hello")
        await bench.advance(9_999)
        assert bench.session.state is State.PROCESSING
        await bench.advance(1)
        assert errors(bench) == ["Nothing was heard of response 1 for 10 s."]
        await bench.advance(1_000)
        assert bot_said(bench) == ["Sorry, please repeat."]
        assert bench.session.state is State.LISTENING
        assert bench.session.interruptions == (), "that is no interruption"
        await bench.advance(60_000)
        assert "Too late." not in bot_said(bench)


async def test_an_answer_that_stops_in_its_middle_is_given_up_after_a_while():
    async with SessionBench([["Once.", "Twice."]], between_ms=60_000, response_timeout_s=10) as bench:
        await bench.user_says("count")
        await bench.advance(200 + 300 + 9_999)
        assert bench.session.state is State.PROCESSING
        await bench.advance(2)
        assert bench.session.state is State.LISTENING
        assert bench.said == [("user", "count"), ("assistant", "Once....")]


async def test_an_answer_that_is_given_up_is_not_told_as_an_interruption_meanwhile(harness: Harness):
    controller = SessionController(response_timeout_s=5)
    bench = await harness(controller)
    controller.session.say(STORY)
    await bench.settle()
    await bench.send(BotStartedSpeakingFrame(1), BotStoppedSpeakingFrame(1), direction=UPSTREAM)
    await bench.advance(5_000)
    # The output has not said yet what was heard.
    assert controller.session.state is State.LISTENING
    await bench.advance(5_000)
    assert State.INTERRUPTED not in [one.after for one in controller.session.transitions]


async def test_a_turn_that_is_ended_while_a_cut_is_not_accounted_for_waits_for_that(harness: Harness):
    controller = SessionController(endpointing={"turn_timeout_s": 0.8}, interruption={"grace_ms": 0})
    bench = await harness(controller)
    controller.session.say(STORY)
    await bench.settle()
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    await bench.send(UserStartedSpeakingFrame(0))
    await bench.advance(700)
    await bench.send(TranscriptionFrame("tell me more"))
    await bench.advance(900)
    assert controller.session.turns == ()
    await bench.send(ResponseCutFrame(1, 100, "Once"), direction=UPSTREAM)
    assert [turn.text for turn in controller.session.turns] == ["Once", "tell me more"]


async def test_a_response_that_takes_long_to_say_is_not_given_up():
    async with SessionBench(["word " * 200], response_timeout_s=5) as bench:
        await bench.user_says("go")
        await bench.advance(70_000)
        assert errors(bench) == []
        assert bench.session.turns[-1].audio_ms == 60_000


async def test_an_apology_that_is_not_heard_is_not_apologised_for(harness: Harness):
    controller = SessionController(response_timeout_s=5, apology="Sorry.")
    bench = await harness(controller)
    await bench.send(TranscriptionFrame("hello"))
    await bench.advance(500 + 5_000 + 5_000 + 20_000)
    assert controller.session.state is State.LISTENING
    assert controller.session.statistics.errors == 2


async def test_a_session_says_speaking_only_if_something_is_heard(harness: Harness):
    """Said "speaking", and nothing is heard: not here, as the output alone says so."""
    controller = SessionController(response_timeout_s=5)
    bench = await harness(controller)
    await bench.send(TranscriptionFrame("hello"))
    await bench.advance(600)
    assert controller.session.state is State.PROCESSING
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    assert controller.session.state is State.SPEAKING
    await bench.send(ResponsePlayedFrame(1, 300, "Hi."), direction=UPSTREAM)
    assert controller.session.state is State.LISTENING


# --- connection ------------------------------------------------------------------------------------------------------


async def test_a_client_that_does_not_come_is_a_failure():
    async with SessionBench(greeting="Hello.", wait_for_client=True, connection_timeout_s=10) as bench:
        await bench.advance(9_999)
        assert bench.session.state is State.CONNECTING
        await bench.advance(1)
        assert ended(bench) == (State.FAILED, "connection")
        assert errors(bench) == ["No client connected within 10 s."]
        closed = bench.events[-1]
        assert isinstance(closed, SessionClosed)
        assert closed.failed


# --- the goodbye, and the end of it all ------------------------------------------------------------------------------


async def test_last_words_that_never_end_are_cut():
    async with SessionBench([["Once.", "Twice."]], between_ms=600_000, closing_timeout_s=5) as bench:
        await bench.user_says("count")
        await bench.advance(1_000)
        bench.session.close("done", goodbye="Bye.")
        await bench.advance(4_999)
        assert bench.session.state is State.CLOSING
        await bench.advance(1)
        assert ended(bench) == (State.CLOSED, "done")
        assert bench.said[-1] == ("assistant", "Once....")


async def test_last_words_that_no_output_plays_end_the_session_too(harness: Harness):
    controller = SessionController(closing_timeout_s=5, response_timeout_s=None)
    bench = await harness(controller)
    controller.session.say("Good bye.")
    await bench.settle()
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    controller.session.close()
    await bench.advance(6_500)
    assert controller.session.state is State.CLOSED


async def test_a_goodbye_cannot_be_interrupted():
    async with SessionBench(max_duration_s=10, goodbyes={"duration": STORY}) as bench:
        await bench.advance(10_500)
        await bench.user_says("stop stop")
        await bench.advance(5_000)
        assert bot_said(bench) == [STORY]
        assert ended(bench) == (State.CLOSED, "duration")


# --- changed while it runs -------------------------------------------------------------------------------------------


async def test_a_limit_that_is_changed_counts_from_where_it_counted_before():
    async with SessionBench(idle_timeout_s=10) as bench:
        await bench.advance(8_000)
        bench.session.update(idle_timeout_s=20)
        await bench.advance(11_999)
        assert bench.session.state is State.LISTENING
        await bench.advance(1)
        assert ended(bench) == (State.CLOSED, "idle")


async def test_a_limit_that_has_passed_when_it_is_set_holds_at_once():
    async with SessionBench(idle_timeout_s=100) as bench:
        await bench.advance(50_000)
        bench.session.update(idle_timeout_s=20)
        await bench.settle()
        assert ended(bench) == (State.CLOSED, "idle")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [({"max_duration_s": 30}, "duration"), ({"max_messages": 1}, "messages"), ({"idle_timeout_s": 25}, "idle")],
)
async def test_every_limit_can_be_changed(changes: dict[str, float], reason: str):
    async with SessionBench(["Hi."]) as bench:
        await bench.user_says("hello")
        await bench.advance(5_000)
        bench.session.update(**changes)
        await bench.advance(30_000)
        assert ended(bench) == (State.CLOSED, reason)


async def test_two_changes_at_once_both_hold():
    async with SessionBench() as bench:
        bench.session.update(idle_timeout_s=10)
        settings = bench.session.update(max_messages=7, interruption={"min_words": 4})
        assert (settings.idle_timeout_s, settings.max_messages) == (10, 7)
        await bench.settle()
        assert bench.session.settings == settings
        assert bench.session.settings.interruption.min_words == 4
        assert bench.session.settings.interruption.min_speech_ms == 500


async def test_the_response_time_out_can_be_changed_while_it_runs():
    async with SessionBench(["a."], model_ms=60_000) as bench:
        handle = bench.session.send_message("hello")
        await bench.advance(3_000)
        bench.session.update(response_timeout_s=5)
        await bench.advance(2_000)
        assert handle.outcome is SpeechOutcome.FAILED


# --- keep-alive ------------------------------------------------------------------------------------------------------


async def test_connections_are_kept_alive_both_ways(harness: Harness):
    controller = SessionController(keep_alive_s=30)
    bench = await harness(controller)
    await bench.advance(95_000)
    assert [frame for frame in bench.down if isinstance(frame, KeepAliveFrame)] == [KeepAliveFrame()] * 3
    assert [frame for frame in bench.up if isinstance(frame, KeepAliveFrame)] == [KeepAliveFrame()] * 3
    controller.session.pause()
    await bench.advance(30_000)
    assert bench.up.count(KeepAliveFrame()) == 4, "while it is paused, too"


async def test_time_outs_of_a_day_of_sessions_leave_nothing_behind():
    for number in range(50):
        async with SessionBench(["Hi."] * 3, idle_timeout_s=20, goodbyes={"idle": "Bye."}) as bench:
            for _ in range(number % 4):
                await bench.user_says("hello")
                await bench.advance(3_000)
            await bench.send(UserStartedSpeakingFrame(200))
            await bench.advance(90_000)
            assert ended(bench) == (State.CLOSED, "idle")
            assert limits.next_ns(bench.session.data) is None


class Forgetful(FrameProcessor):
    """A model of somebody's own, that fails and never says that its answer is over."""

    asked = 0

    @handles(LLMRequestFrame)
    async def respond(self, frame: LLMRequestFrame) -> AsyncIterator[Frame]:
        self.asked += 1
        await self.clock.sleep(0.2)
        if self.asked == 1:
            raise ConnectionError("the model is away")
        yield TextFrame("Here I am.")
        yield ResponseEndFrame()


async def test_an_answer_that_has_failed_is_not_waited_for_as_long_as_one_that_is_slow():
    async with SessionBench(model=Forgetful(), apology="Sorry, say that again.") as bench:
        await bench.user_says("are you there")
        await bench.advance(200)
        assert [error.error for error in bench.errors] == ["ConnectionError"]
        await bench.advance(2_900)
        assert bench.session.state is State.PROCESSING
        await bench.advance(3_000)
        assert bench.said[-1] == ("assistant", "Sorry, say that again.")
        await bench.user_says("are you there now")
        await bench.advance(3_000)
        assert bench.said[-1] == ("assistant", "Here I am.")

"""Turns: what the user says becomes one, when it is over, and what is counted of it."""

from __future__ import annotations

import pytest
from voxline.pipeline import (
    UPSTREAM,
    ErrorFrame,
    LLMRequestFrame,
    Message,
    ResponsePlayedFrame,
    TalkButtonFrame,
    TextFrame,
    ToolCallFrame,
    ToolResultFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.frames import InputEndedFrame, InterimTranscriptionFrame, TurnProbabilityFrame, UsageFrame
from voxline.pipeline.testing import Bench, Harness
from voxline.processors import ScriptedLLM, SessionController, State
from voxline.processors.session import SessionErrorReported, TurnKind, UserSaid
from voxline.processors.session.endpointing import Evidence
from voxline.processors.session.settings import EndpointingSettings
from voxline.processors.testing.session_bench import ScriptedPlayout, SessionBench
from voxline.processors.turn_detection.push_to_talk import PushToTalk

STARTED, STOPPED = UserStartedSpeakingFrame(200), UserStoppedSpeakingFrame(500)


def asked(bench: SessionBench) -> list[list[str]]:
    """The user's words in each request to the model."""
    assert isinstance(bench.model, ScriptedLLM)
    return [[one.text for one in frame.messages if one.role == "user"] for frame in bench.model.requests]


def told_errors(bench: SessionBench) -> list[str]:
    return [event.message for event in bench.events if isinstance(event, SessionErrorReported)]


# --- a turn ----------------------------------------------------------------------------------------------------------


async def test_silence_and_words_end_a_turn():
    async with SessionBench(["Hi."]) as bench:
        await bench.user_starts()
        await bench.user_stops()
        assert asked(bench) == []
        await bench.send(TranscriptionFrame("hello"))
        assert asked(bench) == [["hello"]]
        assert bench.session.state is State.PROCESSING


async def test_words_that_come_before_the_silence_wait_for_it():
    async with SessionBench(["Hi."]) as bench:
        await bench.user_starts()
        await bench.send(TranscriptionFrame("hello"), TranscriptionFrame("there"))
        assert asked(bench) == []
        await bench.advance(1_000)
        await bench.user_stops()
        await bench.advance(3_000)
        assert asked(bench) == [["hello there"]]


async def test_what_is_heard_goes_on_downstream_and_what_is_learnt_upstream(harness: Harness):
    bench = await harness(SessionController())
    await bench.send(STARTED, STOPPED, TranscriptionFrame(""), InputEndedFrame())
    assert bench.down == [STARTED, STOPPED, TranscriptionFrame(""), InputEndedFrame()]
    await bench.send(ResponsePlayedFrame(1, 1_000, ""), direction=UPSTREAM)
    assert bench.up == [ResponsePlayedFrame(1, 1_000, "")]


async def test_a_turn_has_an_id_times_text_lengths_and_the_response_that_answers_it():
    async with SessionBench(["One two three."], model_ms=200, word_ms=300) as bench:
        await bench.advance(1_000)
        await bench.user_starts()
        await bench.advance(400)
        await bench.advance(500)
        await bench.send(UserStoppedSpeakingFrame(500))
        await bench.advance(50)
        await bench.send(TranscriptionFrame("hello there", audio_ms=650))
        await bench.advance(5_000)
        user, bot = bench.session.turns
        assert (user.id, user.kind, user.text, user.audio_ms) == (1, TurnKind.USER_AUDIO, "hello there", 650)
        # From the first sound to the last, not from when the detector was sure.
        assert (user.start_ns / 1e6, user.end_ns / 1e6) == (1_000, 1_600)
        assert (bot.id, bot.kind, bot.text, bot.audio_ms) == (2, TurnKind.ASSISTANT, "One two three.", 900)
        assert (bot.start_ns / 1e6, bot.end_ns / 1e6) == (2_350, 3_250)
        assert bot.latency_ms == 2_350 - 1_600
        assert user.response == bot.response == 1
        assert not bot.interrupted


async def test_the_latency_of_an_answer_to_typed_text_counts_from_that_text():
    async with SessionBench(["One.", "Two."], model_ms=200) as bench:
        await bench.user_says("hello")
        await bench.advance(60_000)
        await bench.types("again")
        await bench.advance(2_000)
        assert bench.session.turns[-1].latency_ms == 200
        assert bench.session.turns[-2].start_ns == bench.session.turns[-2].end_ns


async def test_each_answer_is_a_response_of_its_own_and_knows_what_was_said_before():
    async with SessionBench(["First.", "Second."]) as bench:
        await bench.user_says("one")
        await bench.advance(2_000)
        await bench.user_says("two")
        await bench.advance(2_000)
        assert [turn.response for turn in bench.session.turns] == [1, 1, 2, 2]
        assert isinstance(bench.model, ScriptedLLM)
        assert bench.model.requests[1].messages == (
            Message("user", "one"),
            Message("assistant", "First."),
            Message("user", "two"),
        )


async def test_state_speaking_means_that_samples_are_played():
    async with SessionBench(["First."], model_ms=500) as bench:
        await bench.user_says("one")
        await bench.advance(499)
        assert bench.session.state is State.PROCESSING
        await bench.advance(1)
        assert bench.session.state is State.SPEAKING
        await bench.advance(299)
        assert bench.session.state is State.SPEAKING
        await bench.advance(1)
        assert bench.session.state is State.LISTENING


async def test_an_answer_that_stalls_is_not_speaking_while_nothing_is_heard():
    async with SessionBench([["One.", "Two."]], between_ms=2_000) as bench:
        await bench.user_says("go")
        await bench.advance(5_000)
        assert bench.states[-5:] == [
            State.PROCESSING, State.SPEAKING, State.PROCESSING, State.SPEAKING, State.LISTENING,
        ]  # fmt: skip


# --- endpointing -----------------------------------------------------------------------------------------------------


async def test_vad_waits_for_the_least_silence():
    async with SessionBench(["Hi."], stop_ms=200, stt_ms=50, endpointing={"min_delay_ms": 800}) as bench:
        await bench.user_says("hello")
        await bench.advance(800 - 250 - 1)
        assert asked(bench) == []
        await bench.advance(1)
        assert asked(bench) == [["hello"]]


async def test_who_goes_on_within_the_silence_is_answered_once():
    async with SessionBench(["Hi."], stop_ms=200, endpointing={"min_delay_ms": 800}) as bench:
        await bench.user_says("go forward")
        await bench.user_says("ten meters")
        await bench.advance(2_000)
        assert asked(bench) == [["go forward ten meters"]]
        assert bench.session.statistics.turns["user_audio"] == 1


async def test_transcript_is_enough_where_it_is_trusted():
    rules = {"strategy": "transcript", "min_delay_ms": 5_000, "transcript_delay_ms": 100}
    async with SessionBench(["Hi."], endpointing=rules) as bench:
        await bench.user_says("hello")
        await bench.advance(99)
        assert asked(bench) == []
        await bench.advance(1)
        assert asked(bench) == [["hello"]]


@pytest.mark.parametrize(("probability", "delay_ms"), [(1.0, 500), (0.5, 1_750), (0.0, 3_000), (7.0, 500)])
async def test_a_turn_model_s_doubt_is_waited_out_in_proportion(probability: float, delay_ms: float):
    rules = {"strategy": "model", "min_delay_ms": 500, "max_delay_ms": 3_000}
    async with SessionBench(["Hi."], stop_ms=100, stt_ms=100, endpointing=rules) as bench:
        await bench.user_starts()
        await bench.user_stops()
        await bench.send(TurnProbabilityFrame(probability))
        await bench.advance(100)
        await bench.send(TranscriptionFrame("hello"))
        await bench.advance(delay_ms - 200 - 1)
        assert asked(bench) == []
        await bench.advance(1)
        assert asked(bench) == [["hello"]]


async def test_without_a_word_of_the_turn_model_the_silence_decides():
    async with SessionBench(["Hi."], endpointing={"strategy": "model", "min_delay_ms": 700}) as bench:
        await bench.user_says("hello")
        await bench.advance(700 - 550 - 1)
        assert asked(bench) == []
        await bench.advance(1)
        assert asked(bench) == [["hello"]]


async def test_what_the_turn_model_thought_of_a_turn_says_nothing_of_the_next():
    rules = {"strategy": "model", "min_delay_ms": 500, "max_delay_ms": 3_000}
    async with SessionBench(["Hi.", "Ho."], endpointing=rules) as bench:
        await bench.send(TurnProbabilityFrame(0.0))
        await bench.user_says("one")
        await bench.advance(6_000)
        await bench.user_says("two")
        await bench.advance(1)
        assert asked(bench)[-1] == ["one", "two"]


async def test_dynamic_waits_longer_for_who_makes_pauses_and_never_beyond_the_ceiling():
    rules = {"strategy": "dynamic", "min_delay_ms": 300, "max_delay_ms": 1_500}
    async with SessionBench(["a", "b", "c"], start_ms=50, stop_ms=100, stt_ms=0, endpointing=rules) as bench:
        await bench.user_says("quick")
        await bench.advance(200)
        assert len(asked(bench)) == 1
        await bench.advance(3_000)
        # A caller who stops for 200 ms again and again within a turn.
        for _ in range(4):
            await bench.user_starts()
            await bench.advance(300)
            await bench.user_stops("slowly")
            await bench.advance(100)
        learnt = bench.session.data.user.pauses
        assert learnt.count == 3
        await bench.advance(220)
        assert len(asked(bench)) == 1, "the floor is not enough for this caller any more"
        await bench.advance(1_500)
        assert len(asked(bench)) == 2
        assert 300 < learnt.delay_ms(300, 1_500) <= 1_500


async def test_a_strategy_of_the_user_s_own_decides():
    def polite(settings: EndpointingSettings, evidence: Evidence, /) -> int:
        return evidence.silence_ns + (0 if evidence.text.endswith("please") else 2_000_000_000)

    async with SessionBench(["a", "b"], endpointing=polite) as bench:
        await bench.user_says("tea please")
        assert len(asked(bench)) == 1
        await bench.advance(2_000)
        await bench.user_says("tea")
        assert len(asked(bench)) == 1
        await bench.advance(2_000)
        assert len(asked(bench)) == 2


async def test_push_to_talk_is_over_with_the_button(harness: Harness):
    controller = SessionController(endpointing={"strategy": "push_to_talk"})
    llm = ScriptedLLM(["Hi."])
    bench = await harness([PushToTalk(), controller, llm, ScriptedPlayout()])
    session = controller.session
    session.press_to_talk()
    await bench.settle()
    assert session.data.user.speaking
    await bench.send(TranscriptionFrame("take"))
    # Silence is not the end: the button is down.
    await bench.advance(5_000)
    await bench.send(TranscriptionFrame("me home"))
    assert llm.requests == []
    session.press_to_talk(pressed=False)
    await bench.settle()
    await bench.send(TranscriptionFrame(""))
    assert llm.requests == [LLMRequestFrame((Message("user", "take me home"),))]


async def test_the_button_reaches_what_hears_from_code(harness: Harness):
    controller = SessionController()
    bench = await harness(controller)
    controller.session.press_to_talk()
    await bench.settle()
    assert bench.up == [TalkButtonFrame(True)]


async def test_text_only_hears_nobody_and_answers_who_types():
    async with SessionBench(["Hi."], endpointing={"strategy": "text"}) as bench:
        assert bench.session.state is State.WAITING_FOR_INPUT
        await bench.user_says("hello")
        await bench.advance(5_000)
        assert asked(bench) == []
        await bench.types("hello")
        assert asked(bench) == [["hello"]]
        await bench.advance(1_000)
        assert bench.session.turns[0].kind is TurnKind.USER_TEXT
        assert bench.session.state is State.WAITING_FOR_INPUT


async def test_words_without_a_detector_of_speech_are_a_turn():
    async with SessionBench(["Hi."], endpointing={"min_delay_ms": 500}) as bench:
        await bench.send(TranscriptionFrame("hello"))
        await bench.advance(499)
        assert asked(bench) == []
        await bench.advance(1)
        assert asked(bench) == [["hello"]]


# --- pieces, and words that are late ---------------------------------------------------------------------------------


async def test_a_long_utterance_loses_no_word_at_a_seam():
    async with SessionBench(["Hi."]) as bench:
        await bench.user_starts()
        for piece in ("this is", "a very long", "sentence in"):
            await bench.advance(3_000)
            await bench.send(TranscriptionFrame(piece, audio_ms=3_000))
        await bench.advance(1_000)
        await bench.user_stops()
        await bench.advance(300)
        assert asked(bench) == []
        await bench.send(TranscriptionFrame("four pieces", audio_ms=1_000))
        assert asked(bench) == [["this is a very long sentence in four pieces"]]
        assert bench.session.turns[0].audio_ms == 10_000


async def test_a_recogniser_that_is_quicker_than_the_detector_is_not_waited_for():
    async with SessionBench(["Hi."]) as bench:
        await bench.user_starts()
        await bench.advance(500 + 300)
        await bench.send(TranscriptionFrame("hello"))
        assert asked(bench) == []
        await bench.advance(200)
        await bench.send(UserStoppedSpeakingFrame(500))
        assert asked(bench) == [["hello"]]
        await bench.advance(10_000)
        assert told_errors(bench) == []


async def test_late_words_of_one_utterance_are_not_taken_for_those_of_the_next():
    async with SessionBench(["Hi."]) as bench:
        await bench.user_starts()
        await bench.user_stops()
        await bench.user_starts()
        await bench.advance(300 + 100)
        # The user is silent again, which the detector does not know yet.
        await bench.send(TranscriptionFrame("go forward"))
        await bench.advance(400)
        await bench.send(UserStoppedSpeakingFrame(500))
        assert asked(bench) == []
        await bench.send(TranscriptionFrame("ten meters"))
        assert asked(bench) == [["go forward ten meters"]]


async def test_words_of_an_utterance_that_come_while_the_next_is_spoken_join_its_turn():
    async with SessionBench(["Hi."]) as bench:
        await bench.user_starts()
        await bench.user_stops()
        await bench.user_starts()
        await bench.send(TranscriptionFrame("go forward"))
        await bench.user_stops()
        assert asked(bench) == []
        await bench.send(TranscriptionFrame("ten meters"))
        assert asked(bench) == [["go forward ten meters"]]


async def test_words_that_come_when_the_answer_is_being_made_join_its_turn_too():
    async with SessionBench(["Going ten meters."], model_ms=500) as bench:
        await bench.user_says("go forward")
        await bench.send(TranscriptionFrame("ten meters"))
        await bench.advance(3_000)
        assert asked(bench) == [["go forward"], ["go forward ten meters"]]
        assert bench.said == [("user", "go forward ten meters"), ("assistant", "Going ten meters.")]


async def test_who_goes_on_before_the_answer_is_heard_goes_on_with_their_turn():
    async with SessionBench(["Going ten meters."], model_ms=2_000) as bench:
        await bench.user_says("go forward")
        await bench.user_says("by ten meters")
        await bench.advance(5_000)
        assert bench.said == [("user", "go forward by ten meters"), ("assistant", "Going ten meters.")]
        # One turn, told twice with the same id.
        ids = [event.turn.id for event in bench.events if isinstance(event, UserSaid)]
        assert len(ids) == 2
        assert len(set(ids)) == 1
        assert bench.session.statistics.turns["user_audio"] == 1


async def test_a_transcript_that_comes_after_its_turn_was_ended_joins_it_and_not_the_next():
    async with SessionBench(
        ["Going forward by a lot.", "Left."], endpointing={"transcript_timeout_ms": 1_000}
    ) as bench:
        await bench.user_starts()
        await bench.send(TranscriptionFrame("go forward"))
        await bench.advance(1_000)
        await bench.user_stops()
        # The rest of it does not come in time: the turn is over, and answered.
        await bench.advance(1_500)
        assert asked(bench) == [["go forward"]]
        assert bench.session.state is State.SPEAKING
        await bench.send(TranscriptionFrame("ten meters"))
        assert bench.session.state is State.SPEAKING, "old words do not interrupt the answer"
        await bench.advance(5_000)
        await bench.user_says("turn left")
        await bench.advance(3_000)
        assert asked(bench)[-1] == ["go forward ten meters", "turn left"]
        assert bench.said == [
            ("user", "go forward ten meters"),
            ("assistant", "Going forward by a lot."),
            ("user", "turn left"),
            ("assistant", "Left."),
        ]


async def test_late_words_make_the_answer_anew_where_nothing_of_it_was_heard():
    async with SessionBench(
        ["Ten meters forward."], model_ms=3_000, endpointing={"transcript_timeout_ms": 1_000}
    ) as bench:
        await bench.user_starts()
        await bench.send(TranscriptionFrame("go forward"))
        await bench.advance(1_000)
        await bench.user_stops()
        await bench.advance(1_500)
        await bench.send(TranscriptionFrame("ten meters"))
        await bench.advance(5_000)
        assert asked(bench) == [["go forward"], ["go forward ten meters"]]
        assert bench.said == [("user", "go forward ten meters"), ("assistant", "Ten meters forward.")]


async def test_late_words_do_not_make_an_answer_anew_for_which_a_tool_has_run():
    async with SessionBench(
        ["Ten meters forward."], model_ms=3_000, endpointing={"transcript_timeout_ms": 1_000}
    ) as bench:
        await bench.user_starts()
        await bench.send(TranscriptionFrame("go forward"))
        await bench.advance(1_000)
        await bench.user_stops()
        await bench.advance(1_500)
        await bench.send_upstream(ToolCallFrame("c1", "drive"), ToolResultFrame("c1", "done"))
        await bench.send(TranscriptionFrame("ten meters"))
        await bench.advance(5_000)
        assert asked(bench) == [["go forward"]]
        assert bench.said == [("user", "go forward ten meters"), ("assistant", "Ten meters forward.")]


async def test_speech_without_a_word_is_no_turn():
    async with SessionBench(["Hi."]) as bench:
        await bench.user_says("")
        await bench.advance(5_000)
        assert asked(bench) == []
        assert bench.session.state is State.LISTENING
        assert bench.session.turns == ()


async def test_speech_without_a_word_is_a_turn_where_that_is_wanted():
    async with SessionBench(["What?"], answer_unclear=True) as bench:
        await bench.user_says("")
        await bench.advance(2_000)
        assert bench.said == [("user", ""), ("assistant", "What?")]


# --- watchdogs -------------------------------------------------------------------------------------------------------


async def test_a_turn_that_never_ends_is_ended():
    async with SessionBench(["Are you there?"], endpointing={"turn_timeout_s": 10}) as bench:
        await bench.user_starts()
        for _ in range(3):
            await bench.advance(3_000)
            await bench.send(TranscriptionFrame("la la"))
        assert asked(bench) == []
        await bench.advance(800)
        assert asked(bench) == [["la la la la la la"]]
        assert bench.session.transitions[-1].event == "turn time-out"


async def test_a_turn_of_noise_without_a_word_is_ended_and_does_not_keep_the_session_from_being_idle():
    async with SessionBench(endpointing={"turn_timeout_s": 10}, idle_timeout_s=20) as bench:
        await bench.user_starts()
        await bench.advance(9_700)
        assert bench.session.data.user.speaking
        await bench.advance(20_200)
        assert bench.session.state is State.CLOSED
        assert bench.session.summary().reason == "idle"


async def test_noise_that_began_while_the_user_was_muted_holds_the_session_up_no_longer_than_a_turn_may():
    async with SessionBench(
        ["Hi."], greeting="One two three.", mute=["first_speech"], endpointing={"turn_timeout_s": 5}
    ) as bench:
        await bench.user_starts()
        await bench.advance(6_000)
        assert not bench.session.data.user.speaking
        handle = bench.session.say("Is anybody there?")
        await bench.advance(2_000)
        assert handle.done


async def test_a_turn_of_too_many_words_is_ended():
    async with SessionBench(["Stop."], endpointing={"turn_words": 5}) as bench:
        await bench.user_starts()
        await bench.send(TranscriptionFrame("one two"))
        await bench.advance(500)
        assert asked(bench) == []
        await bench.send(TranscriptionFrame("three four five"))
        assert asked(bench) == [["one two three four five"]]


async def test_silence_of_the_stt_is_told_and_the_session_goes_on():
    async with SessionBench(["Hi."], endpointing={"transcript_timeout_ms": 2_000}) as bench:
        await bench.user_starts()
        await bench.advance(500)
        await bench.user_stops()
        await bench.advance(1_999)
        assert told_errors(bench) == []
        await bench.advance(1)
        assert told_errors(bench) == ["The STT has said nothing within 2000 ms after the user spoke. Is it alive?"]
        assert bench.session.statistics.errors == 1
        assert bench.session.state is State.LISTENING
        await bench.user_says("hello")
        assert asked(bench) == [["hello"]]


async def test_what_was_typed_is_not_lost_where_the_stt_is_silent():
    async with SessionBench(["Hi."], endpointing={"transcript_timeout_ms": 1_000}) as bench:
        bench.session.pause()
        handle = bench.session.send_message("hello", interrupt=False)
        await bench.settle()
        await bench.advance(10_000)
        bench.session.resume()
        await bench.advance(2_000)
        assert handle.outcome is not None
        assert bench.said == [("user", "hello"), ("assistant", "Hi.")]


# --- tools and statistics --------------------------------------------------------------------------------------------


async def test_tools_are_turns_with_ids_of_their_own():
    async with SessionBench(["It rains."], model_ms=3_000) as bench:
        await bench.user_says("weather")
        await bench.advance(100)
        await bench.send_upstream(ToolCallFrame("c1", "weather", '{"city": "Rome"}'))
        await bench.advance(400)
        await bench.send_upstream(ToolResultFrame("c1", "rain"))
        await bench.advance(5_000)
        user, call, result, bot = bench.session.turns
        assert [turn.id for turn in bench.session.turns] == [1, 2, 3, 4]
        assert (call.kind, call.text, call.call_id) == (TurnKind.TOOL_CALL, 'weather {"city": "Rome"}', "c1")
        assert (result.kind, result.text, result.call_id) == (TurnKind.TOOL_RESULT, "rain", "c1")
        assert result.end_ns - result.start_ns == 400_000_000
        assert user.response == call.response == result.response == bot.response == 1
        # The history tells of what was said.
        assert [role for role, _ in bench.said] == ["user", "assistant"]


async def test_statistics_count_turns_and_give_means():
    async with SessionBench(["One two.", "Three four five six."], model_ms=300, word_ms=300) as bench:
        await bench.send(TranscriptionFrame("hello you", audio_ms=800))
        await bench.advance(3_000)
        await bench.types("hi")
        await bench.send_upstream(UsageFrame(100, 20), UsageFrame(50, 10))
        await bench.advance(850)
        bench.session.interrupt()
        await bench.advance(100)
        counted = bench.session.statistics
        assert counted.turns == {"user_audio": 1, "user_text": 1, "assistant": 2, "tool_call": 0, "tool_result": 0}
        assert counted.interruptions == {"speech": 0, "request": 0, "manual": 1}
        assert counted.interrupted_turns == 1
        assert counted.interrupt_rate == 0.5
        assert counted.mean_heard_ms_at_interruption == 550
        assert counted.mean_user_chars == (9 + 2) / 2
        assert counted.mean_bot_chars == (len("One two.") + len("Three four")) / 2
        assert (counted.user_audio_ms, counted.bot_audio_ms) == (800, 600 + 550)
        assert (counted.input_tokens, counted.output_tokens) == (150, 30)
        # 300 ms of the model after 0.5 s of silence, of which the user's turn takes no part; and 300 ms.
        assert counted.mean_latency_ms == (800 + 300) / 2


async def test_a_mean_of_nothing_is_nothing():
    async with SessionBench() as bench:
        counted = bench.session.statistics
        assert (counted.interrupt_rate, counted.mean_latency_ms, counted.mean_user_chars) == (0, 0, 0)


async def test_errors_are_counted_and_told():
    async with SessionBench() as bench:
        await bench.send_upstream(ErrorFrame("no route", "TTS"))
        assert bench.session.statistics.errors == 1
        assert [event.source for event in bench.events if isinstance(event, SessionErrorReported)] == ["TTS"]


async def test_a_request_tells_of_the_newest_turns_and_of_the_instructions():
    async with SessionBench(["a.", "b.", "c."], history_turns=2, instructions="Be brief.") as bench:
        for text in ("one", "two", "three"):
            await bench.user_says(text)
            await bench.advance(2_000)
        assert isinstance(bench.model, ScriptedLLM)
        assert bench.model.requests[-1].messages == (
            Message("system", "Be brief."),
            Message("assistant", "b."),
            Message("user", "three"),
        )
        assert bench.session.statistics.turns["user_audio"] == 3, "what is forgotten is counted"


# --- greeting and farewell -------------------------------------------------------------------------------------------


async def test_a_greeting_is_the_first_response_and_stands_in_the_history_when_it_was_heard(harness: Harness):
    controller = SessionController(greeting="Hello.", instructions="Be brief.")
    bench: Bench = await harness(controller)
    assert bench.down[0] == TextFrame("Hello.")
    assert controller.session.history == (Message("system", "Be brief."),)
    await bench.send(ResponsePlayedFrame(1, 300, "Hello."), direction=UPSTREAM)
    assert controller.session.history == (Message("system", "Be brief."), Message("assistant", "Hello."))


async def test_the_session_ends_when_the_answer_to_a_farewell_was_heard():
    async with SessionBench(["Hi.", "See you soon."], farewells=["good bye"]) as bench:
        await bench.user_says("hello")
        await bench.advance(2_000)
        await bench.user_says("Good bye!")
        await bench.advance(2_000)
        assert bench.session.state is State.CLOSED
        assert bench.session.summary().reason == "user"
        assert bench.said[-1] == ("assistant", "See you soon.")


async def test_a_farewell_that_is_interrupted_ends_nothing():
    async with SessionBench(["See you soon, my friend.", "I am here."], farewells=["good bye"]) as bench:
        await bench.user_says("good bye")
        await bench.advance(700)
        await bench.user_says("wait one moment")
        await bench.advance(3_000)
        assert bench.session.state is State.LISTENING
        assert bench.said[-1] == ("assistant", "I am here.")


async def test_interims_are_no_words_of_a_turn():
    async with SessionBench(["Hi."]) as bench:
        await bench.user_starts()
        await bench.send(InterimTranscriptionFrame("hello mother"))
        await bench.advance(500)
        await bench.user_stops("hello brother")
        assert asked(bench) == [["hello brother"]]


async def test_a_turn_of_the_bot_that_is_cut_ends_when_it_was_silenced():
    async with SessionBench(["Once upon a time there was a rover."], model_ms=0, word_ms=300) as bench:
        await bench.user_says("tell me a story")
        await bench.advance(600)
        await bench.user_says("no tell me another one")
        bot = next(turn for turn in bench.session.turns if turn.kind is TurnKind.ASSISTANT)
        # 200 ms after the user began; and not when their words were there.
        assert (bot.end_ns - bot.start_ns) / 1_000_000 == 800 == bot.audio_ms

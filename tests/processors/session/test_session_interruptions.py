"""Interruptions: tentative first, then the bot is cut or goes on; one record of each, and what was heard."""

from __future__ import annotations

from typing import Any

import pytest
from voxline.pipeline import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    CancelFrame,
    Frame,
    FrameProcessor,
    ResponseCutFrame,
    ResponsePlayedFrame,
    ToolCallFrame,
    ToolResultFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    handles,
)
from voxline.pipeline.client_frames import InterruptRequestFrame
from voxline.pipeline.frames import InputTextFrame, InterimTranscriptionFrame, PausePlayoutFrame, ResumePlayoutFrame
from voxline.pipeline.testing import Bench, Harness
from voxline.processors import ScriptedLLM, SessionController, SpeechOutcome, State
from voxline.processors.session import (
    Interrupted,
    InterruptionDismissed,
    InterruptionKind,
    SessionData,
    SessionErrorReported,
    SpeechIgnored,
    TurnKind,
    step,
)
from voxline.processors.session.commands import SessionStartedFrame
from voxline.processors.testing.session_bench import SessionBench

STORY = "Once upon a time there was a rover far away on Mars."
"""Twelve words: 3.6 s."""
REST = "Very well."
STARTED, STOPPED = UserStartedSpeakingFrame(200), UserStoppedSpeakingFrame(500)


async def story(bench: SessionBench, heard_ms: float = 1_000) -> None:
    """The bot tells a story, and has been heard for so long."""
    await bench.user_says("tell me a story")
    await bench.advance(200 + heard_ms)
    assert bench.session.state is State.SPEAKING


def records(bench: SessionBench) -> list[Interrupted]:
    return [event for event in bench.events if isinstance(event, Interrupted)]


# --- the three kinds -------------------------------------------------------------------------------------------------


async def test_speech_cuts_the_bot_and_the_history_holds_what_was_heard():
    async with SessionBench([STORY, REST]) as bench:
        await story(bench, 950)
        await bench.user_says("tell me another one")
        await bench.advance(2_000)
        # Silenced 200 ms after the first sound, when the detector was sure: 1150 ms, four words.
        assert bench.said == [
            ("user", "tell me a story"),
            ("assistant", "Once upon a time..."),
            ("user", "tell me another one"),
            ("assistant", "Very well."),
        ]
        (record,) = bench.session.interruptions
        assert record.kind is InterruptionKind.SPEECH
        assert record.response == 1
        assert record.heard_ms == 1_150
        assert record.heard_chars == len("Once upon a time")
        assert record.user_text == "tell me another one"
        cut = bench.session.turns[1]
        assert cut.interrupted
        assert cut.audio_ms == 1_150
        # It began to be silent when the detector was sure, and not when the words came.
        assert record.at_ns == cut.start_ns + 1_150_000_000
        assert bench.states[-5:] == [
            State.SPEAKING, State.INTERRUPTED, State.PROCESSING, State.SPEAKING, State.LISTENING,
        ]  # fmt: skip


@pytest.mark.parametrize("text", ["stop", "Stop!", "no no no", "okay hold on", "yeah, be quiet"])
async def test_a_keyword_is_a_request(text: str):
    async with SessionBench([STORY, REST], interruption={"min_words": 3}) as bench:
        await story(bench)
        await bench.user_says(text, speech_ms=250)
        await bench.advance(2_000)
        assert [one.kind for one in bench.session.interruptions] == [InterruptionKind.REQUEST]
        assert bench.session.statistics.interruptions["request"] == 1


async def test_a_keyword_that_nothing_was_heard_before_is_no_request():
    async with SessionBench([REST], model_ms=5_000) as bench:
        await bench.user_says("tell me a story")
        await bench.user_says("no wait")
        await bench.advance(8_000)
        assert [one.kind for one in bench.session.interruptions] == [InterruptionKind.SPEECH]


@pytest.mark.parametrize("who", ["code", "client"])
async def test_code_and_a_client_s_button_cut_the_bot_at_once(who: str):
    async with SessionBench([STORY]) as bench:
        await story(bench, 700)
        if who == "code":
            bench.session.interrupt("a button")
        else:
            await bench.send(InterruptRequestFrame())
        await bench.settle()
        assert bench.session.state is State.LISTENING
        (record,) = bench.session.interruptions
        assert (record.kind, record.heard_ms, record.user_text) == (InterruptionKind.MANUAL, 700, "")
        assert bench.said[-1] == ("assistant", "Once upon a...")


async def test_who_types_over_the_bot_cuts_it():
    async with SessionBench([STORY, REST]) as bench:
        await story(bench, 700)
        await bench.types("another one")
        await bench.advance(2_000)
        assert [one.kind for one in bench.session.interruptions] == [InterruptionKind.MANUAL]
        assert bench.said[1:] == [
            ("assistant", "Once upon a..."),
            ("user", "another one"),
            ("assistant", "Very well."),
        ]


@pytest.mark.parametrize("who", ["code", "client"])
async def test_a_message_may_wait_for_the_bot_to_end(who: str):
    async with SessionBench([STORY, REST]) as bench:
        await story(bench, 700)
        if who == "code":
            bench.session.send_message("and then?", interrupt=False)
        else:
            await bench.send(InputTextFrame("and then?", interrupt=False))
        await bench.advance(6_000)
        assert bench.session.interruptions == ()
        assert bench.said[1:] == [("assistant", STORY), ("user", "and then?"), ("assistant", "Very well.")]


# --- tentative: silence first, then a decision ------------------------------------------------------------------------


async def test_the_bot_is_silent_at_once_and_goes_on_where_it_was_when_it_was_a_cough():
    async with SessionBench([STORY]) as bench:
        await story(bench, 1_000)
        await bench.user_starts()
        assert bench.session.state is State.INTERRUPTED
        response = bench.session.data.bot.response
        assert response is not None
        assert not response.playing, "the output has said that it is silent"
        await bench.advance(300)
        await bench.user_stops("")
        assert bench.session.state is State.SPEAKING
        await bench.advance(10_000)
        # Not a word is lost.
        assert bench.said == [("user", "tell me a story"), ("assistant", STORY)]
        assert bench.session.turns[-1].audio_ms == 12 * 300
        assert bench.session.interruptions == ()
        assert bench.session.statistics.false_interruptions == 1
        assert [event.silent_ms for event in bench.events if isinstance(event, InterruptionDismissed)] == [850]


async def test_playout_is_paused_and_resumed_exactly_once(harness: Harness):
    bench = await harness(SessionController())
    await speaking(bench)
    bench.clear()
    await bench.send(STARTED)
    assert pacing(bench) == [PausePlayoutFrame()]
    await bench.send(InterimTranscriptionFrame("mm"), InterimTranscriptionFrame("mm hm"))
    await bench.send(STOPPED, TranscriptionFrame("mm hm"))
    assert pacing(bench) == [PausePlayoutFrame(), ResumePlayoutFrame()]


async def test_playout_goes_on_for_the_next_response_after_the_first_was_cut(harness: Harness):
    bench = await harness(SessionController())
    await speaking(bench)
    bench.clear()
    await says_over(bench, "tell me more")
    await bench.send(ResponseCutFrame(1, 300, "Once"), direction=UPSTREAM)
    assert pacing(bench) == [PausePlayoutFrame(), ResumePlayoutFrame()]
    assert cancels(bench) == [CancelFrame(1, "the user spoke")]


async def test_without_words_the_bot_goes_on_after_a_while():
    async with SessionBench([STORY], interruption={"false_timeout_ms": 2_000}) as bench:
        await story(bench)
        await bench.user_starts()
        await bench.user_stops()
        await bench.advance(1_999)
        assert bench.session.state is State.INTERRUPTED
        await bench.advance(1)
        assert bench.session.state is State.SPEAKING
        await bench.advance(10_000)
        assert bench.said[-1] == ("assistant", STORY)


async def test_words_that_come_after_the_bot_went_on_still_cut_it():
    async with SessionBench([STORY, REST], interruption={"false_timeout_ms": 1_000}) as bench:
        await story(bench, 300)
        await bench.user_starts()
        await bench.advance(500)
        await bench.user_stops()
        await bench.advance(1_200)
        assert bench.session.state is State.SPEAKING
        await bench.send(TranscriptionFrame("tell me more"))
        await bench.advance(3_000)
        assert bench.said[1:] == [
            ("assistant", "Once upon a..."),
            ("user", "tell me more"),
            ("assistant", "Very well."),
        ]
        assert len(bench.session.interruptions) == 1


async def test_a_backchannel_whose_words_are_there_before_the_silence_holds_the_bot_up_no_longer():
    async with SessionBench([STORY]) as bench:
        await story(bench)
        await bench.user_starts()
        await bench.advance(400)
        await bench.send(TranscriptionFrame("yeah"))
        await bench.advance(200)
        await bench.send(STOPPED)
        assert bench.session.state is State.SPEAKING
        await bench.advance(10_000)
        assert bench.said[-1] == ("assistant", STORY)
        assert not [event for event in bench.events if isinstance(event, SessionErrorReported)], "the STT is alive"


async def test_speech_that_lasts_cuts_the_bot_before_a_word_of_it_is_known():
    async with SessionBench([STORY, REST], interruption={"speech_alone_ms": 1_500}) as bench:
        await story(bench)
        await bench.user_starts()
        await bench.advance(1_299)
        assert bench.session.interruptions == ()
        await bench.advance(1)
        assert len(bench.session.interruptions) == 1
        assert bench.session.state is State.INTERRUPTED
        await bench.user_stops("and now something completely different")
        await bench.advance(2_000)
        assert len(bench.session.interruptions) == 1
        assert bench.session.interruptions[0].user_text == "and now something completely different"
        assert bench.said[-1] == ("assistant", "Very well.")


async def test_speech_that_lasted_and_had_no_word_leaves_the_session_listening():
    async with SessionBench([STORY], interruption={"speech_alone_ms": 600}) as bench:
        await story(bench)
        await bench.user_says("", speech_ms=900)
        assert len(bench.session.interruptions) == 1
        assert bench.session.state is State.LISTENING
        await bench.user_says("hello")
        assert bench.session.state is State.PROCESSING


async def test_interims_are_enough_to_cut_and_the_final_words_are_the_turn():
    async with SessionBench([STORY, REST]) as bench:
        await story(bench)
        await bench.user_starts()
        await bench.advance(400)
        await bench.send(InterimTranscriptionFrame("tell me"))
        assert len(bench.session.interruptions) == 1
        await bench.advance(300)
        await bench.user_stops("tell me more")
        await bench.advance(2_000)
        assert bench.said[2:] == [("user", "tell me more"), ("assistant", "Very well.")]


async def test_words_without_a_detector_cut_the_bot_and_wait_for_what_was_heard(harness: Harness):
    llm = ScriptedLLM(["Once."], delay_ms=10_000)
    bench = await harness([SessionController(), llm])
    await bench.send(TranscriptionFrame("one"))
    await bench.advance(500)
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    await bench.send(TranscriptionFrame("tell me more"))
    await bench.advance(600)
    assert len(llm.requests) == 1, "it is not known yet what was heard"
    await bench.send(ResponseCutFrame(1, 300, "The first"), direction=UPSTREAM)
    assert [(one.role, one.text, one.cut) for one in llm.requests[1].messages] == [
        ("user", "one", False),
        ("assistant", "The first", True),
        ("user", "tell me more", False),
    ]


# --- gates -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["yeah", "Mm-hm.", "uh huh", "okay, right", "I see"])
async def test_a_backchannel_does_not_interrupt(text: str):
    async with SessionBench([STORY], interruption={"min_words": 0, "min_speech_ms": 5_000}) as bench:
        await story(bench)
        await bench.user_says(text, interims=[text])
        await bench.advance(10_000)
        assert bench.said == [("user", "tell me a story"), ("assistant", STORY)]
        assert bench.session.interruptions == ()
        assert bench.session.statistics.ignored_utterances == 1
        assert [event.text for event in bench.events if isinstance(event, SpeechIgnored)] == [text]


async def test_a_backchannel_with_more_behind_it_does():
    async with SessionBench([STORY, REST]) as bench:
        await story(bench)
        await bench.user_says("yeah but what then")
        await bench.advance(3_000)
        assert len(bench.session.interruptions) == 1


async def test_noise_after_a_backchannel_does_not_keep_the_bot_silent():
    async with SessionBench([STORY], interruption={"false_timeout_ms": 2_000}) as bench:
        await story(bench)
        await bench.user_starts()
        await bench.advance(300)
        await bench.send(InterimTranscriptionFrame("yeah"))
        # The detector never hears an end of it.
        await bench.advance(10_000)
        assert bench.said[-1] == ("assistant", STORY)


@pytest.mark.parametrize(("words", "cut"), [("go on", False), ("go on now", True)])
async def test_so_many_words_interrupt_and_fewer_do_not(words: str, cut: bool):
    async with SessionBench([STORY, REST], interruption={"min_words": 3}) as bench:
        await story(bench)
        await bench.user_says(words, speech_ms=900)
        await bench.advance(10_000)
        assert bool(bench.session.interruptions) is cut
        assert (bench.said[1][1] == STORY) is not cut


@pytest.mark.parametrize(("speech_ms", "cut"), [(499, False), (500, True)])
async def test_speech_of_some_length_interrupts_and_shorter_does_not(speech_ms: float, cut: bool):
    async with SessionBench([STORY, REST], interruption={"min_speech_ms": 500}) as bench:
        await story(bench)
        await bench.user_says("tell me more", speech_ms=speech_ms)
        await bench.advance(10_000)
        assert bool(bench.session.interruptions) is cut


async def test_with_no_words_needed_the_length_of_speech_decides():
    async with SessionBench([STORY, REST], interruption={"min_words": 0, "min_speech_ms": 300}) as bench:
        await story(bench)
        await bench.user_starts()
        await bench.advance(99)
        assert bench.session.interruptions == ()
        await bench.advance(1)
        assert len(bench.session.interruptions) == 1


async def test_an_echo_right_after_the_bot_began_silences_nobody():
    async with SessionBench([STORY], interruption={"grace_ms": 400}) as bench:
        await story(bench, 300)
        # The first sound of it was 100 ms after the bot's.
        await bench.send(UserStartedSpeakingFrame(200))
        assert bench.session.state is State.SPEAKING
        await bench.advance(300)
        await bench.send(STOPPED, TranscriptionFrame(""))
        await bench.advance(10_000)
        assert bench.states.count(State.INTERRUPTED) == 0
        assert bench.said[-1] == ("assistant", STORY)


async def test_words_within_the_grace_still_cut_the_bot():
    async with SessionBench([STORY, REST], interruption={"grace_ms": 400}) as bench:
        await story(bench, 300)
        await bench.send(UserStartedSpeakingFrame(200))
        await bench.advance(600)
        await bench.send(STOPPED, TranscriptionFrame("tell me another"))
        await bench.advance(3_000)
        assert len(bench.session.interruptions) == 1
        # Who speaks within it is not lost: their turn begins with their first sound.
        assert bench.session.turns[2].start_ns == bench.session.turns[1].start_ns + 100_000_000


async def test_speech_in_the_grace_that_outlasts_the_answer_is_a_turn_of_its_own():
    async with SessionBench(["Yes.", REST], interruption={"grace_ms": 400}) as bench:
        await story(bench, 200)
        await bench.send(UserStartedSpeakingFrame(100))
        await bench.advance(1_000)
        await bench.user_stops("and what then")
        await bench.advance(2_000)
        assert bench.session.interruptions == ()
        assert bench.said[2:] == [("user", "and what then"), ("assistant", "Very well.")]


# --- moments ---------------------------------------------------------------------------------------------------------


async def test_before_the_first_sample_there_is_one_record_and_the_answer_leaves_no_trace():
    async with SessionBench([REST], model_ms=3_000) as bench:
        await bench.user_says("tell me a story")
        await bench.advance(1_000)
        await bench.user_says("about a rover please")
        await bench.advance(6_000)
        (record,) = bench.session.interruptions
        assert (record.heard_ms, record.heard_chars, record.response) == (0, 0, 1)
        assert bench.said == [("user", "tell me a story about a rover please"), ("assistant", "Very well.")]


async def test_a_cough_before_the_first_sample_holds_the_answer_back_and_loses_nothing_of_it():
    async with SessionBench([STORY], model_ms=500) as bench:
        await bench.user_says("tell me a story")
        await bench.advance(100)
        await bench.user_starts()
        await bench.advance(500)
        assert bench.session.state is State.INTERRUPTED
        await bench.user_stops("")
        await bench.advance(8_000)
        assert bench.said == [("user", "tell me a story"), ("assistant", STORY)]
        assert bench.session.interruptions == ()


async def test_with_the_last_sample_it_is_no_interruption_but_the_next_turn():
    async with SessionBench(["Once upon.", REST]) as bench:
        await story(bench, 599)
        await bench.advance(1)
        await bench.send(UserStartedSpeakingFrame(200))
        await bench.advance(1_000)
        await bench.user_stops("go on then")
        await bench.advance(2_000)
        assert bench.session.interruptions == ()
        assert bench.said[1:] == [
            ("assistant", "Once upon."),
            ("user", "go on then"),
            ("assistant", "Very well."),
        ]


async def test_one_ms_before_the_last_sample_it_is_one():
    async with SessionBench(["Once upon.", REST]) as bench:
        await story(bench, 599)
        await bench.send(UserStartedSpeakingFrame(200))
        await bench.advance(1_000)
        await bench.user_stops("go on then")
        await bench.advance(2_000)
        assert [one.heard_ms for one in bench.session.interruptions] == [599]
        assert bench.said[1:3] == [("assistant", "Once upon...."), ("user", "go on then")]


async def test_an_answer_whose_end_crosses_the_cut_is_recorded_once(harness: Harness):
    controller = SessionController()
    bench = await harness(controller)
    await speaking(bench)
    await says_over(bench, "tell me more")
    # The output had played it to its end when the cancel came to it.
    await bench.send(ResponsePlayedFrame(1, 900, "Once upon"), direction=UPSTREAM)
    await bench.send(ResponseCutFrame(1, 900, "Once upon"), direction=UPSTREAM)
    (record,) = controller.session.interruptions
    assert record.heard_ms == 900
    assert [turn.text for turn in controller.session.turns if turn.kind is TurnKind.ASSISTANT] == ["Once upon"]


async def test_twice_within_a_millisecond_is_once():
    async with SessionBench([STORY]) as bench:
        await story(bench)
        bench.session.interrupt()
        bench.session.interrupt()
        await bench.settle()
        bench.session.interrupt()
        await bench.advance(1)
        assert len(bench.session.interruptions) == 1
        assert len(records(bench)) == 1
        assert bench.session.statistics.interruptions["manual"] == 1


async def test_a_button_in_the_middle_of_an_undecided_interruption_is_one_and_the_words_are_a_turn():
    async with SessionBench([STORY, REST]) as bench:
        await story(bench, 1_000)
        await bench.user_starts()
        bench.session.interrupt()
        await bench.advance(600)
        await bench.user_stops("tell me more")
        await bench.advance(2_000)
        (record,) = bench.session.interruptions
        assert record.kind is InterruptionKind.MANUAL
        # The bot was silent from the start of speech.
        assert record.heard_ms == 1_200
        assert bench.said[2:] == [("user", "tell me more"), ("assistant", "Very well.")]
        user = bench.session.turns[2]
        assert user.start_ns == record.at_ns - 200_000_000


async def test_while_a_tool_runs_its_result_survives_and_there_is_one_record():
    async with SessionBench([REST], model_ms=5_000) as bench:
        await bench.user_says("weather")
        await bench.send_upstream(ToolCallFrame("c1", "weather"))
        await bench.user_says("in Rome I mean")
        await bench.advance(100)
        await bench.send_upstream(ToolResultFrame("c1", "rain"))
        await bench.advance(8_000)
        assert len(bench.session.interruptions) == 1
        kinds = [turn.kind for turn in bench.session.turns]
        assert kinds == [
            TurnKind.USER_AUDIO, TurnKind.TOOL_CALL, TurnKind.USER_AUDIO, TurnKind.TOOL_RESULT, TurnKind.ASSISTANT,
        ]  # fmt: skip
        assert bench.session.state is State.LISTENING


async def test_no_frame_of_what_was_cut_is_heard_after_it():
    async with SessionBench([["Once.", "Twice.", "Thrice."], REST], between_ms=2_000) as bench:
        await bench.user_says("count")
        await bench.advance(1_000)
        bench.session.interrupt()
        await bench.advance(10_000)
        assert bench.said == [("user", "count"), ("assistant", "Once....")]


async def test_facts_of_an_old_response_change_nothing(harness: Harness):
    controller = SessionController()
    bench = await harness(controller)
    await speaking(bench)
    await says_over(bench, "tell me more")
    await bench.send(ResponseCutFrame(1, 300, "Once"), direction=UPSTREAM)
    await bench.advance(600)
    assert controller.session.state is State.PROCESSING
    before = controller.session.data
    await bench.send(
        BotStartedSpeakingFrame(1), ResponsePlayedFrame(1, 900, "Once upon"), ResponseCutFrame(1, 1, ""),
        direction=UPSTREAM,
    )  # fmt: skip
    assert controller.session.state is State.PROCESSING
    assert controller.session.turns == before.history.turns
    assert len(controller.session.interruptions) == 1


async def test_an_output_that_never_says_what_was_heard_does_not_hold_the_session_up(harness: Harness):
    controller = SessionController()
    bench = await harness(controller)
    await speaking(bench)
    await says_over(bench, "tell me more")
    assert controller.session.state is State.INTERRUPTED
    await bench.advance(1_000)
    assert controller.session.state is State.PROCESSING
    assert len(controller.session.interruptions) == 1
    assert controller.session.statistics.errors == 1


async def test_a_response_that_somebody_else_cut_is_over_and_recorded_once(harness: Harness):
    controller = SessionController()
    bench = await harness(controller)
    await speaking(bench)
    await bench.interrupt("a button")
    await bench.send(ResponseCutFrame(1, 300, "Once"), direction=UPSTREAM)
    assert controller.session.state is State.LISTENING
    assert [one.kind for one in controller.session.interruptions] == [InterruptionKind.MANUAL]


def test_a_cut_that_is_told_before_the_next_response_has_its_number_is_not_of_that():
    data = SessionData()
    asks = [(SessionStartedFrame(0), 1), (InputTextFrame("one"), 1), (InputTextFrame("two"), 2), (CancelFrame(1), 3)]
    for event, next_response in asks:
        data, _ = step(data, event, 0, next_response)
    assert data.bot.response is not None
    assert data.bot.response.number == 2


async def test_an_answer_to_the_utterance_before_is_not_played_over_the_new_one():
    async with SessionBench([STORY, REST], model_ms=2_000) as bench:
        await bench.user_says("tell me a story")
        await bench.advance(1_700)
        # The user goes on just before the answer comes.
        await bench.user_starts()
        await bench.advance(2_000)
        assert State.SPEAKING not in bench.states
        await bench.user_stops("about a rover")
        await bench.advance(4_000)
        assert bench.said == [("user", "tell me a story about a rover"), ("assistant", "Very well.")]


async def test_speech_that_began_before_the_answer_did_is_no_echo_of_it():
    async with SessionBench([STORY, REST], model_ms=1_000, interruption={"grace_ms": 400}) as bench:
        await bench.user_says("tell me a story")
        await bench.advance(900)
        # The detector is sure 100 ms after the answer began.
        await bench.user_starts()
        assert bench.session.state is State.INTERRUPTED
        await bench.advance(1_000)
        await bench.user_stops("about a rover")
        await bench.advance(4_000)
        assert bench.said == [
            ("user", "tell me a story"),
            ("assistant", "Once..."),
            ("user", "about a rover"),
            ("assistant", "Very well."),
        ]


# --- where it is not allowed -----------------------------------------------------------------------------------------


async def test_where_nobody_may_interrupt_nothing_silences_the_bot():
    async with SessionBench([STORY], interruption={"allow": False}) as bench:
        await story(bench)
        await bench.user_says("stop stop stop")
        assert bench.session.state is State.SPEAKING
        await bench.advance(10_000)
        assert bench.said == [("user", "tell me a story"), ("assistant", STORY)]
        assert [event.why for event in bench.events if isinstance(event, SpeechIgnored)] == ["muted"]


async def test_one_thing_can_be_said_that_may_not_be_interrupted():
    async with SessionBench([REST]) as bench:
        handle = bench.session.say("This call is recorded for quality.", allow_interruptions=False)
        await bench.advance(500)
        await bench.user_says("stop talking")
        await bench.advance(3_000)
        assert handle.outcome is SpeechOutcome.PLAYED
        second = bench.session.say("And this may be interrupted.")
        await bench.advance(500)
        await bench.user_says("stop talking")
        assert second.outcome is SpeechOutcome.INTERRUPTED


async def test_who_is_still_speaking_when_it_is_over_is_heard():
    async with SessionBench([REST]) as bench:
        bench.session.say("This call is recorded.", allow_interruptions=False)
        await bench.advance(900)
        await bench.user_starts()
        await bench.advance(1_000)
        await bench.user_stops("thank you very much")
        await bench.advance(2_000)
        assert bench.said[1:] == [("user", "thank you very much"), ("assistant", "Very well.")]


async def test_a_button_cuts_what_speech_may_not():
    async with SessionBench(interruption={"allow": False}) as bench:
        handle = bench.session.say(STORY)
        await bench.advance(500)
        bench.session.interrupt()
        await bench.settle()
        assert handle.outcome is SpeechOutcome.INTERRUPTED


# --- for the bench of one processor ----------------------------------------------------------------------------------


async def speaking(bench: Bench) -> None:
    """The bot says its first answer."""
    await bench.send(TranscriptionFrame("one"))
    await bench.advance(500)
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    # Beyond the grace.
    await bench.advance(1_000)


async def says_over(bench: Bench, text: str) -> None:
    """The user says something for 1.2 s."""
    await bench.send(STARTED)
    await bench.advance(1_400)
    await bench.send(STOPPED, TranscriptionFrame(text))


def pacing(bench: Bench) -> list[Frame]:
    return [frame for frame in bench.down if isinstance(frame, (PausePlayoutFrame, ResumePlayoutFrame))]


def cancels(bench: Bench) -> list[Frame]:
    return [frame for frame in bench.down if isinstance(frame, CancelFrame)]


class Deaf(FrameProcessor):
    """An output that does not know of pauses, and never says that it is silent."""

    @handles(PausePlayoutFrame, ResumePlayoutFrame)
    async def ignore(self, frame: Frame) -> None:
        """Nothing."""


@pytest.mark.parametrize("then", ["dismissed", "cut"])
async def test_an_output_that_does_not_know_of_pauses_breaks_nothing(harness: Harness, then: str):
    controller = SessionController()
    bench: Any = await harness([controller, Deaf()])
    await speaking(bench)
    await bench.send(STARTED)
    assert controller.session.state is State.INTERRUPTED
    await bench.advance(1_400)
    await bench.send(STOPPED, TranscriptionFrame("" if then == "dismissed" else "tell me more"))
    await bench.send(ResponsePlayedFrame(1, 900, "Once upon"), direction=UPSTREAM)
    await bench.advance(1_000)
    assert controller.session.state is (State.LISTENING if then == "dismissed" else State.PROCESSING)
    assert not [event for event in bench.errors if isinstance(event, SessionErrorReported)]

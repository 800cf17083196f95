"""Preemptive generation: an answer is begun on a guess, and played only if the guess was right."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from voxline.pipeline import CancelFrame, ErrorFrame, TranscriptionFrame, UserStoppedSpeakingFrame
from voxline.pipeline.frames import (
    ClientDisconnectedFrame,
    InterimTranscriptionFrame,
    LLMRequestFrame,
    PausePlayoutFrame,
    ResponseCommittedFrame,
    ResumePlayoutFrame,
    UserStartedSpeakingFrame,
)
from voxline.pipeline.testing import Bench, Harness
from voxline.processors import ScriptedLLM, SessionController, SpeechOutcome, State
from voxline.processors.session import TurnKind
from voxline.processors.testing.session_bench import SessionBench

GUESS: dict[str, Any] = {"enabled": True, "stable_ms": 200}


def asked(bench: SessionBench) -> list[tuple[str, bool]]:
    """The newest words in each request, and whether that was a guess."""
    assert isinstance(bench.model, ScriptedLLM)
    return [(frame.messages[-1].text, frame.speculative) for frame in bench.model.requests]


async def asks(bench: SessionBench, interim: str, text: str, *, stable_ms: float = 600) -> None:
    """The user says something; the interim transcript stays as it is for so long."""
    await bench.user_starts()
    await bench.advance(500)
    await bench.send(InterimTranscriptionFrame(interim))
    await bench.advance(stable_ms)
    await bench.user_stops(text)


async def latency_ms(guess: bool) -> float:
    async with SessionBench(["It is ten past nine."], model_ms=800, preemptive={**GUESS, "enabled": guess}) as bench:
        await asks(bench, "what time is it", "What time is it?")
        await bench.advance(5_000)
        assert bench.said == [("user", "What time is it?"), ("assistant", "It is ten past nine.")]
        latency = bench.session.turns[-1].latency_ms
        assert latency is not None
        return latency


async def test_what_it_gains_is_the_time_of_the_model():
    # 550 ms of silence are waited for, whatever the model does; then the answer is there.
    assert await latency_ms(guess=False) == 550 + 800
    assert await latency_ms(guess=True) == 550


async def test_a_right_guess_is_the_answer_and_the_model_is_asked_once():
    async with SessionBench(["Nine."], preemptive=GUESS) as bench:
        await asks(bench, "what time is it", "What time is it?")
        await bench.advance(2_000)
        assert asked(bench) == [("what time is it", True)]
        assert bench.said == [("user", "What time is it?"), ("assistant", "Nine.")]
        counted = bench.session.statistics
        assert (counted.guesses, counted.guesses_played) == (1, 1)
        user, bot = bench.session.turns
        assert user.response == bot.response == 1


async def test_it_is_not_heard_and_the_session_listens_before_the_turn_is_over():
    async with SessionBench(["Nine."], model_ms=100, preemptive=GUESS) as bench:
        await bench.user_starts()
        await bench.send(InterimTranscriptionFrame("what time is it"))
        await bench.advance(5_000)
        assert asked(bench) == [("what time is it", True)]
        assert bench.session.state is State.LISTENING
        assert State.SPEAKING not in bench.states
        assert bench.said == []


async def test_a_wrong_guess_leaves_no_trace():
    async with SessionBench(["Nine.", "Rain."], model_ms=100, preemptive=GUESS) as bench:
        await asks(bench, "what time is it", "what is the weather like")
        await bench.advance(3_000)
        assert asked(bench) == [("what time is it", True), ("what is the weather like", False)]
        assert bench.said == [("user", "what is the weather like"), ("assistant", "Rain.")]
        assert bench.session.interruptions == ()
        counted = bench.session.statistics
        assert (counted.guesses, counted.guesses_played) == (1, 0)
        assert counted.turns["assistant"] == 1
        assert [turn.id for turn in bench.session.turns] == [1, 2]


async def test_words_that_go_on_drop_the_guess_at_once():
    async with SessionBench(["Nine."], preemptive=GUESS) as bench:
        await bench.user_starts()
        await bench.send(InterimTranscriptionFrame("what"))
        await bench.advance(300)
        assert bench.session.data.bot.response is not None
        await bench.send(InterimTranscriptionFrame("what is the weather"))
        assert bench.session.data.bot.response is None


async def test_what_agrees_closely_enough_is_played_and_what_does_not_is_not():
    for agreement, played in ((0.75, 1), (0.9, 0)):
        async with SessionBench(["a.", "b."], preemptive={**GUESS, "agreement": agreement}) as bench:
            await asks(bench, "what time is it", "what time is this")
            await bench.advance(2_000)
            assert bench.session.statistics.guesses_played == played


async def test_an_unstable_interim_is_no_guess():
    async with SessionBench(["Nine."], preemptive=GUESS) as bench:
        await bench.user_starts()
        for words in range(1, 20):
            await bench.send(InterimTranscriptionFrame(" ".join(["la"] * words)))
            await bench.advance(199)
        assert asked(bench) == []


async def test_so_many_guesses_in_a_turn_and_no_more():
    async with SessionBench(["a."] * 9, preemptive={**GUESS, "max_tries": 2}) as bench:
        await bench.user_starts()
        for words in ("one", "two", "three", "four", "five"):
            await bench.send(InterimTranscriptionFrame(words))
            await bench.advance(300)
        assert asked(bench) == [("one", True)]
        # The last is kept for when they are silent.
        await bench.user_stops("five")
        await bench.advance(2_000)
        assert asked(bench) == [("one", True), ("five", True)]
        # And in the next turn as many again.
        await asks(bench, "six", "six")
        assert asked(bench)[-1] == ("six", True)


async def test_long_speech_is_not_guessed_and_no_time_is_wasted_on_it():
    async with SessionBench(["a."], preemptive={**GUESS, "max_speech_s": 2}) as bench:
        await bench.user_starts()
        await bench.advance(3_000)
        await bench.send(InterimTranscriptionFrame("a long story"))
        await bench.advance(2_000)
        assert asked(bench) == []
        await bench.user_stops("a long story")
        await bench.advance(1_000)
        assert asked(bench) == [("a long story", False)]


async def test_without_it_nothing_is_guessed():
    async with SessionBench(["a."]) as bench:
        await asks(bench, "what time is it", "what time is it")
        assert asked(bench) == [("what time is it", False)]


async def test_words_that_are_there_before_the_silence_is_long_enough_are_a_guess_too():
    async with SessionBench(["Nine."], model_ms=900, preemptive=GUESS, endpointing={"min_delay_ms": 1_500}) as bench:
        await bench.user_says("what time is it")
        assert asked(bench) == [("what time is it", True)]
        await bench.advance(950)
        assert bench.session.state is State.SPEAKING
        assert bench.session.turns[0].text == "what time is it"


async def test_a_guess_that_failed_is_not_played_and_the_model_is_asked_again():
    async with SessionBench([["a."], ["b."]], model_ms=100, preemptive=GUESS) as bench:
        await bench.user_starts()
        await bench.send(InterimTranscriptionFrame("what time is it"))
        await bench.advance(250)
        await bench.send_upstream(ErrorFrame("the model is down", "ScriptedLLM"), response=1)
        await bench.user_stops("what time is it")
        await bench.advance(2_000)
        assert [one for _, one in asked(bench)] == [True, False]
        assert bench.said[-1] == ("assistant", "b.")


# --- frames ----------------------------------------------------------------------------------------------------------


def orders_of(bench: Bench) -> list[str]:
    wanted = (LLMRequestFrame, ResponseCommittedFrame, PausePlayoutFrame, ResumePlayoutFrame, CancelFrame)
    return [type(frame).__name__ for frame in bench.down if isinstance(frame, wanted)]


async def guessed(harness: Harness, **settings: Any) -> tuple[Bench, SessionController]:
    controller = SessionController(preemptive=GUESS, **settings)
    bench = await harness(controller)
    await bench.send(UserStartedSpeakingFrame(200), InterimTranscriptionFrame("what time is it"))
    await bench.advance(300)
    return bench, controller


async def test_the_output_is_paused_before_a_guess_can_reach_it_and_tools_wait_for_the_commit(harness: Harness):
    bench, _ = await guessed(harness)
    assert orders_of(bench) == ["PausePlayoutFrame", "LLMRequestFrame"]
    request = next(frame for frame in bench.down if isinstance(frame, LLMRequestFrame))
    assert request.speculative
    await bench.send(UserStoppedSpeakingFrame(500), TranscriptionFrame("what time is it"))
    assert orders_of(bench)[2:] == ["ResponseCommittedFrame", "ResumePlayoutFrame"]
    assert ResponseCommittedFrame(1) in bench.down


async def test_a_wrong_guess_is_never_committed(harness: Harness):
    bench, _ = await guessed(harness)
    await bench.send(UserStoppedSpeakingFrame(500), TranscriptionFrame("play me some music"))
    await bench.advance(100)
    assert "ResponseCommittedFrame" not in orders_of(bench)
    assert orders_of(bench).count("LLMRequestFrame") == 2
    assert orders_of(bench)[-1] == "ResumePlayoutFrame"
    assert orders_of(bench).count("CancelFrame") == 1


# --- what else happens meanwhile -------------------------------------------------------------------------------------


async def guessing(bench: SessionBench, words: Sequence[str] = ("what time is it",)) -> None:
    await bench.user_starts()
    for interim in words:
        await bench.send(InterimTranscriptionFrame(interim))
        await bench.advance(300)
    response = bench.session.data.bot.response
    assert response is not None
    assert response.guess == words[-1]


async def test_a_button_drops_the_guess_and_is_no_interruption():
    async with SessionBench(["a.", "b."], model_ms=100, preemptive=GUESS) as bench:
        await guessing(bench)
        bench.session.interrupt()
        await bench.settle()
        assert bench.session.interruptions == ()
        await bench.user_stops("what time is it")
        await bench.advance(2_000)
        assert [role for role, _ in bench.said] == ["user", "assistant"]


async def test_a_cut_by_somebody_else_drops_the_guess_and_is_no_interruption():
    async with SessionBench(["a.", "b."], model_ms=100, preemptive=GUESS) as bench:
        await guessing(bench)
        bench.controller.interrupt("somebody")
        await bench.settle()
        assert bench.session.interruptions == ()
        await bench.user_stops("what time is it")
        await bench.advance(2_000)
        assert [role for role, _ in bench.said] == ["user", "assistant"]


async def test_an_answer_that_was_guessed_can_be_interrupted_like_any_other():
    async with SessionBench(["Nine o'clock sharp and not later.", "b."], preemptive=GUESS) as bench:
        await asks(bench, "what time is it", "what time is it")
        await bench.advance(900)
        bench.session.interrupt()
        await bench.settle()
        assert [one.response for one in bench.session.interruptions] == [1]
        assert bench.said[-1][1].endswith("...")


async def test_pause_keeps_or_drops_a_guess_and_loses_no_turn():
    async with SessionBench(["a.", "b."], model_ms=100, preemptive=GUESS) as bench:
        await guessing(bench)
        bench.session.pause()
        await bench.advance(5_000)
        assert State.SPEAKING not in bench.states
        bench.session.resume()
        await bench.advance(5_000)
        assert State.SPEAKING not in bench.states, "what was being said when it was paused is no turn"
        await bench.user_says("what time is it")
        await bench.advance(2_000)
        assert [role for role, _ in bench.said] == ["user", "assistant"]


async def test_close_drops_the_guess():
    async with SessionBench(["a."], model_ms=100, preemptive=GUESS, goodbyes={"closed": "Bye."}) as bench:
        await guessing(bench)
        bench.session.close()
        await bench.advance(3_000)
        assert bench.session.state is State.CLOSED
        assert bench.said == [("assistant", "Bye.")]


async def test_a_client_that_goes_takes_the_guess_along():
    async with SessionBench(["a."], model_ms=100, preemptive=GUESS, wait_for_client=False) as bench:
        await guessing(bench)
        await bench.send(ClientDisconnectedFrame())
        assert bench.session.state is State.CLOSED
        assert bench.session.turns == ()


async def test_what_is_asked_to_be_said_waits_for_the_answer():
    async with SessionBench(["Nine."], model_ms=100, preemptive=GUESS) as bench:
        await guessing(bench)
        handle = bench.session.say("By the way.")
        await bench.advance(400)
        assert handle.outcome is None
        await bench.user_stops("what time is it")
        await bench.advance(4_000)
        assert handle.outcome is SpeechOutcome.PLAYED
        assert [turn.text for turn in bench.session.turns if turn.kind is TurnKind.ASSISTANT] == [
            "Nine.",
            "By the way.",
        ]


async def test_the_handle_of_a_message_is_of_its_answer_though_a_guess_was_under_way():
    async with SessionBench(["a.", "b."], model_ms=100, preemptive=GUESS) as bench:
        await guessing(bench)
        handle = bench.session.send_message("never mind")
        await bench.advance(3_000)
        assert handle.outcome is SpeechOutcome.PLAYED

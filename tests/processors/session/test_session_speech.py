"""What is asked to be said: each handle ends in exactly one outcome, and waiting for it never hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import numpy as np
import pytest
from voxline.pipeline import (
    ErrorFrame,
    Frame,
    FrameProcessor,
    LifecycleError,
    Outcome,
    OutputAudioFrame,
    Pipeline,
    PipelineWorker,
    ResponseEndFrame,
    SpokenWord,
    TextFrame,
    UserStartedSpeakingFrame,
    VirtualClock,
    handles,
)
from voxline.pipeline.frames import ClientConnectedFrame, ClientDisconnectedFrame
from voxline.pipeline.tasks import spawn
from voxline.processors import ScriptedLLM, ScriptedTTS, SessionController, SpeechHandle, SpeechOutcome, State
from voxline.processors.session import InterruptionKind, Session
from voxline.processors.testing.session_bench import ScriptedPlayout, SessionBench
from voxline.transports.memory import MemoryTransport

STORY = "Once upon a time there was a rover far away on Mars."
PLAYED, INTERRUPTED = SpeechOutcome.PLAYED, SpeechOutcome.INTERRUPTED
FAILED, DROPPED = SpeechOutcome.FAILED, SpeechOutcome.DROPPED


class Waiter:
    """Awaits a handle, and counts what came of it."""

    def __init__(self, handle: SpeechHandle) -> None:
        self.outcomes: list[SpeechOutcome] = []
        self._handle = handle
        self._task = spawn(self._wait(), "a waiter")

    async def _wait(self) -> None:
        self.outcomes.append(await self._handle)
        # As often as like.
        assert await self._handle is self.outcomes[0]

    async def end(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])


# --- the four outcomes -----------------------------------------------------------------------------------------------


async def test_what_is_said_to_its_end_is_played():
    async with SessionBench() as bench:
        handle = bench.session.say("Your taxi is here.")
        assert not handle.done
        assert repr(handle) == "<SpeechHandle 1: to come>"
        waiter = Waiter(handle)
        await bench.advance(1_199)
        assert waiter.outcomes == []
        await bench.advance(1)
        assert waiter.outcomes == [PLAYED]
        assert handle.heard_text == "Your taxi is here."
        assert repr(handle) == "<SpeechHandle 1: played>"
        assert bench.said == [("assistant", "Your taxi is here.")]


async def test_what_is_cut_is_interrupted_and_tells_what_was_heard():
    async with SessionBench() as bench:
        handle = bench.session.say(STORY)
        await bench.advance(700)
        bench.session.interrupt()
        await bench.settle()
        assert (handle.outcome, handle.heard_text) == (INTERRUPTED, "Once upon a")


async def test_what_a_service_fails_to_say_is_failed():
    class Mute(ScriptedTTS):
        @handles(TextFrame)
        async def speak_text(self, frame: TextFrame) -> AsyncIterator[Frame]:
            raise RuntimeError("no voice")
            yield frame

    transport = MemoryTransport()
    controller = SessionController()
    outcomes: list[SpeechOutcome] = []
    worker = PipelineWorker(Pipeline([transport.input(), controller, Mute(), transport.output()]), clock=VirtualClock())

    async def go_on() -> None:
        outcomes.append(await controller.session.say("Hello."))
        outcomes.append(await controller.session.say("Hello?"))
        controller.session.close()

    task = spawn(go_on(), "the caller")
    await worker.run()
    await task
    assert outcomes == [FAILED, FAILED]
    assert controller.session.statistics.errors == 2
    assert controller.session.history == ()


async def test_what_fails_in_its_middle_is_failed_and_what_was_heard_stands_in_the_history():
    transport = MemoryTransport()
    controller = SessionController()
    tts = ScriptedTTS(faults={0: RuntimeError("broken")})
    worker = PipelineWorker(Pipeline([transport.input(), controller, tts, transport.output()]), clock=VirtualClock())
    handle = controller.session.say("Hello my dear friend.")
    controller.session.close()
    await worker.run()
    assert (handle.outcome, handle.heard_text) == (FAILED, "Hello")
    assert [message.text for message in controller.session.history] == ["Hello"]


async def test_what_is_not_heard_in_time_is_failed():
    async with SessionBench([STORY], model_ms=60_000, response_timeout_s=5) as bench:
        handle = bench.session.send_message("hello")
        await bench.advance(5_000)
        assert handle.outcome is FAILED


@pytest.mark.parametrize("text", ["", "  \n"])
async def test_nothing_to_say_is_dropped(text: str):
    async with SessionBench() as bench:
        say, message = bench.session.say(text), bench.session.send_message(text)
        await bench.settle()
        assert (say.outcome, message.outcome) == (DROPPED, DROPPED)
        assert bench.session.state is State.LISTENING


# --- order -----------------------------------------------------------------------------------------------------------


async def test_two_at_once_are_said_one_after_the_other():
    async with SessionBench() as bench:
        first, second = bench.session.say("One two."), bench.session.say("Three four.")
        await bench.advance(600)
        assert (first.outcome, second.outcome) == (PLAYED, None)
        await bench.advance(600)
        assert second.outcome is PLAYED
        assert bench.said == [("assistant", "One two."), ("assistant", "Three four.")]


async def test_it_waits_for_the_user_to_end_and_for_their_answer():
    async with SessionBench(["Hi."]) as bench:
        await bench.user_starts()
        handle = bench.session.say("By the way.")
        await bench.advance(2_000)
        assert handle.outcome is None
        await bench.user_stops("hello")
        await bench.advance(3_000)
        assert handle.outcome is PLAYED
        assert bench.said == [("user", "hello"), ("assistant", "Hi."), ("assistant", "By the way.")]


async def test_it_does_not_cut_an_answer():
    async with SessionBench([STORY]) as bench:
        await bench.user_says("tell me a story")
        await bench.advance(500)
        handle = bench.session.say("By the way.")
        await bench.advance(10_000)
        assert handle.outcome is PLAYED
        assert bench.said[1:] == [("assistant", STORY), ("assistant", "By the way.")]


async def test_an_interruption_drops_what_waits_but_for_what_may_not_be_interrupted():
    async with SessionBench() as bench:
        session = bench.session
        said = [session.say(STORY), session.say("More."), session.say("Legal text.", allow_interruptions=False)]
        await bench.advance(500)
        session.interrupt()
        await bench.advance(2_000)
        assert [handle.outcome for handle in said] == [INTERRUPTED, DROPPED, PLAYED]


async def test_interrupting_while_nothing_is_said_drops_what_waits():
    async with SessionBench() as bench:
        await bench.user_starts()
        handle = bench.session.say("By the way.")
        bench.session.interrupt()
        await bench.settle()
        assert handle.outcome is DROPPED
        assert bench.session.interruptions == ()


async def test_one_handle_can_be_interrupted_and_the_others_go_on():
    async with SessionBench() as bench:
        first, second, third = (bench.session.say(text) for text in ("One two three.", "Four.", "Five."))
        await bench.advance(100)
        second.interrupt()
        await bench.settle()
        assert [first.outcome, second.outcome, third.outcome] == [None, DROPPED, None]
        await bench.advance(1_000)
        assert [first.outcome, third.outcome] == [PLAYED, None]
        await bench.advance(500)
        assert third.outcome is PLAYED
        third.interrupt()
        await bench.settle()
        assert bench.session.interruptions == ()


async def test_interrupting_the_handle_that_is_being_said_leaves_what_waits_behind_it():
    async with SessionBench() as bench:
        first, second = bench.session.say(STORY), bench.session.say("Four.")
        await bench.advance(400)
        first.interrupt()
        await bench.advance(1_000)
        assert [first.outcome, second.outcome] == [INTERRUPTED, PLAYED]
        assert [one.kind for one in bench.session.interruptions] == [InterruptionKind.MANUAL]


# --- messages --------------------------------------------------------------------------------------------------------


async def test_the_handle_of_a_message_is_of_its_answer():
    async with SessionBench(["It rains."]) as bench:
        handle = bench.session.send_message("weather")
        waiter = Waiter(handle)
        await bench.advance(799)
        assert waiter.outcomes == []
        await bench.advance(1)
        assert waiter.outcomes == [PLAYED]
        assert handle.heard_text == "It rains."


async def test_two_messages_at_once_are_two_turns_or_one_and_both_handles_end():
    async with SessionBench(["First.", "Second."]) as bench:
        first, second = bench.session.send_message("one"), bench.session.send_message("two")
        await bench.advance(3_000)
        assert first.done
        assert second.outcome is PLAYED
        assert [text for role, text in bench.said if role == "user"] == ["one", "two"]


async def test_messages_that_wait_for_the_bot_are_one_turn_and_their_handles_are_of_its_answer():
    async with SessionBench([STORY, "Yes."]) as bench:
        await bench.user_says("go")
        await bench.advance(500)
        said = [bench.session.send_message(text, interrupt=False) for text in ("one", "two")]
        await bench.advance(6_000)
        assert [handle.outcome for handle in said] == [PLAYED, PLAYED]
        assert bench.said[-2:] == [("user", "one two"), ("assistant", "Yes.")]


async def test_a_message_that_waits_cannot_be_taken_back_once_the_user_s_turn_is_written_but_its_handle_ends():
    async with SessionBench([STORY, "Yes."]) as bench:
        await bench.user_says("go")
        await bench.advance(500)
        handle = bench.session.send_message("one", interrupt=False)
        handle.interrupt()
        await bench.advance(6_000)
        assert handle.done


# --- never hangs -----------------------------------------------------------------------------------------------------


async def test_before_the_pipeline_runs_it_waits_for_it_and_is_said_after_the_greeting():
    controller = SessionController(greeting="Hello.")
    handle = controller.session.say("One more thing.")
    late = controller.session.say("And another.")
    transport = MemoryTransport()
    worker = PipelineWorker(
        Pipeline([transport.input(), controller, ScriptedTTS(), transport.output()]), clock=VirtualClock()
    )
    waiters = [Waiter(handle), Waiter(late)]
    controller.session.close()
    await worker.run()
    await asyncio.wait([one._task for one in waiters])
    assert [waiter.outcomes for waiter in waiters] == [[PLAYED], [PLAYED]]
    assert [message.text for message in controller.session.history] == ["Hello.", "One more thing.", "And another."]


async def test_after_the_close_it_is_dropped_at_once():
    async with SessionBench() as bench:
        bench.session.close()
        await bench.advance(100)
        assert bench.session.state is State.CLOSED
        assert await bench.session.say("Hello?") is DROPPED
        assert await bench.session.send_message("Hello?") is DROPPED


async def test_while_it_is_closing_nothing_new_is_taken_and_what_waits_is_said():
    async with SessionBench() as bench:
        waits = [bench.session.say("One two."), bench.session.say("Three.")]
        await bench.advance(100)
        bench.session.close(goodbye="Bye.")
        await bench.settle()
        new = [bench.session.say("Four."), bench.session.send_message("five")]
        await bench.settle()
        assert [handle.outcome for handle in new] == [DROPPED, DROPPED]
        await bench.advance(3_000)
        assert [handle.outcome for handle in waits] == [PLAYED, PLAYED]
        assert [text for _, text in bench.said] == ["One two.", "Three.", "Bye."]


async def test_closing_now_cuts_what_is_said_and_drops_what_waits():
    async with SessionBench(["a."], goodbyes={"closed": "Bye."}) as bench:
        said, waits = bench.session.say(STORY), bench.session.say("Three.")
        await bench.advance(400)
        bench.session.close(now=True)
        await bench.advance(10)
        assert (said.outcome, waits.outcome) == (INTERRUPTED, DROPPED)
        assert bench.session.state is State.CLOSED
        assert bench.said == [("assistant", "Once upon...")]
        assert bench.session.interruptions == ()


@pytest.mark.parametrize("what", ["say", "waits", "message", "waiting message", "paused"])
@pytest.mark.parametrize("how", ["cancel", "stop", "gone", "gone and never back"])
async def test_whatever_ends_the_run_every_handle_ends(what: str, how: str):
    wait = how == "gone and never back"
    controller = SessionController(wait_for_client=wait, connection_timeout_s=5)
    session = controller.session
    worker = PipelineWorker(
        Pipeline([controller, ScriptedLLM([STORY], delay_ms=5_000), ScriptedPlayout()]), clock=VirtualClock()
    )
    found: list[SpeechHandle] = []
    ending: list[asyncio.Future[Outcome]] = []

    def ask() -> None:
        found.extend(_asked(session, what))

    def end() -> None:
        if how == "cancel":
            worker.cancel()
        elif how == "stop":
            ending.append(asyncio.ensure_future(worker.stop()))
        else:
            worker.post(ClientDisconnectedFrame())

    if wait:
        worker.clock.call_at(0, lambda: worker.post(ClientConnectedFrame()))
    worker.clock.call_at(1_000_000_000, ask)
    worker.clock.call_at(1_500_000_000, end)
    await worker.run()
    assert found
    for handle in found:
        assert await handle in (PLAYED, INTERRUPTED, DROPPED)


def _asked(session: Session, what: str) -> list[SpeechHandle]:
    match what:
        case "say":
            return [session.say(STORY)]
        case "waits":
            return [session.say(STORY), session.say("And more.")]
        case "message":
            return [session.send_message("hello")]
        case "waiting message":
            return [session.say(STORY), session.send_message("hello", interrupt=False)]
        case _:
            session.pause()
            return [session.say("Hello."), session.send_message("hello", interrupt=False)]


async def test_a_client_that_comes_back_finds_no_handle_that_waits_for_ever():
    async with SessionBench([STORY], wait_for_client=True, connection_timeout_s=60) as bench:
        await bench.send(ClientConnectedFrame())
        said = bench.session.say(STORY)
        await bench.advance(500)
        waiting = bench.session.send_message("hello", interrupt=False)
        await bench.settle()
        await bench.send(ClientDisconnectedFrame())
        assert said.outcome is INTERRUPTED
        assert waiting.outcome is DROPPED


async def test_a_pipeline_that_does_not_start_leaves_nobody_waiting():
    class Broken(FrameProcessor):
        async def start(self) -> None:
            raise RuntimeError("no licence")

    controller = SessionController()
    handle = controller.session.say("Hello.")
    worker = PipelineWorker(Pipeline([controller, Broken()]), clock=VirtualClock())
    with pytest.raises(LifecycleError, match="no licence"):
        await worker.run()
    assert handle.outcome is DROPPED
    assert controller.session.state is State.FAILED


async def test_who_stops_waiting_disturbs_nobody():
    async with SessionBench() as bench:
        handle = bench.session.say("Hello.")
        gone, stays = Waiter(handle), Waiter(handle)
        await gone.end()
        await bench.advance(1_000)
        assert (gone.outcomes, stays.outcomes) == ([], [PLAYED])


async def test_an_error_of_the_voice_is_of_the_response_under_way_and_not_of_the_next():
    async with SessionBench() as bench:
        first = bench.session.say("One two.")
        await bench.advance(100)
        await bench.send_upstream(ErrorFrame("a hiccup", "TTS"), response=1)
        await bench.advance(1_000)
        second = bench.session.say("Three.")
        await bench.advance(100)
        await bench.send_upstream(ErrorFrame("late news", "TTS"), response=1)
        await bench.advance(1_000)
        assert (first.outcome, second.outcome) == (FAILED, PLAYED)


# --- pause and resume ------------------------------------------------------------------------------------------------


async def test_pause_silences_both_sides_and_resume_goes_on_where_it_was():
    async with SessionBench() as bench:
        handle = bench.session.say(STORY)
        await bench.advance(1_000)
        bench.session.pause()
        await bench.settle()
        assert bench.session.state is State.PAUSED
        assert not bench.session.can_accept_input
        assert bench.session.is_active
        await bench.user_says("stop stop stop")
        await bench.advance(100_000)
        assert bench.session.interruptions == ()
        bench.session.resume()
        await bench.settle()
        assert bench.session.state is State.SPEAKING
        await bench.advance(2_600)
        assert handle.outcome is PLAYED
        assert bench.session.turns[-1].audio_ms == 3_600
        assert bench.said == [("assistant", STORY)]


async def test_what_is_said_while_paused_is_not_taken_and_what_is_typed_waits():
    async with SessionBench(["Hi."]) as bench:
        bench.session.pause()
        await bench.settle()
        await bench.user_says("hello")
        handle = bench.session.send_message("good day")
        await bench.advance(10_000)
        assert handle.outcome is None
        bench.session.resume()
        await bench.advance(2_000)
        assert handle.outcome is PLAYED
        assert bench.said == [("user", "good day"), ("assistant", "Hi.")]


async def test_time_outs_do_not_count_while_it_is_paused():
    async with SessionBench(["Hi."], idle_timeout_s=20, response_timeout_s=10, model_ms=9_000) as bench:
        await bench.advance(15_000)
        bench.session.pause()
        await bench.advance(3_000_000)
        bench.session.resume()
        await bench.advance(4_999)
        assert bench.session.state is State.LISTENING
        handle = bench.session.send_message("hello")
        await bench.advance(5_000)
        bench.session.pause()
        await bench.advance(30_000)
        bench.session.resume()
        await bench.advance(2_000)
        assert handle.outcome is PLAYED
        assert bench.session.statistics.errors == 0


async def test_the_end_of_a_turn_waits_for_the_end_of_the_pause():
    async with SessionBench(["Hi."], endpointing={"min_delay_ms": 2_000}) as bench:
        await bench.user_says("hello")
        bench.session.pause()
        await bench.advance(60_000)
        bench.session.resume()
        await bench.advance(1_449)
        assert bench.session.turns == ()
        await bench.advance(1)
        assert [turn.text for turn in bench.session.turns] == ["hello"]


async def test_pause_and_resume_at_once_and_each_twice_do_nothing_wrong():
    async with SessionBench() as bench:
        handle = bench.session.say("One two three.")
        await bench.advance(100)
        for order in (bench.session.pause, bench.session.pause, bench.session.resume, bench.session.resume):
            order()
        await bench.advance(2_000)
        assert handle.outcome is PLAYED
        assert bench.session.turns[-1].audio_ms == 900


async def test_a_paused_session_can_be_interrupted_and_closed():
    async with SessionBench() as bench:
        handle = bench.session.say(STORY)
        await bench.advance(500)
        bench.session.pause()
        bench.session.interrupt()
        await bench.settle()
        assert handle.outcome is INTERRUPTED
        assert bench.session.state is State.PAUSED
        bench.session.close(goodbye="Bye.")
        await bench.advance(1_000)
        assert bench.session.state is State.CLOSED
        assert bench.said[-1] == ("assistant", "Bye.")


async def test_an_interruption_that_was_undecided_at_a_pause_is_over_after_it():
    async with SessionBench() as bench:
        handle = bench.session.say(STORY)
        await bench.advance(500)
        await bench.send(UserStartedSpeakingFrame(200))
        assert bench.session.state is State.INTERRUPTED
        bench.session.pause()
        await bench.advance(5_000)
        bench.session.resume()
        await bench.advance(5_000)
        assert handle.outcome is PLAYED
        assert bench.said == [("assistant", STORY)]


async def test_words_with_times_are_heard_to_the_word_at_a_real_output():
    class Voice(ScriptedTTS):
        """100 ms for each word, and says so."""

        @handles(TextFrame)
        async def speak_text(self, frame: TextFrame) -> AsyncIterator[Frame]:
            for word in frame.text.split():
                yield OutputAudioFrame(np.full(1_600, 7, np.int16), 16_000, (SpokenWord(word, 0.0),))

        @handles(ResponseEndFrame)
        async def finish(self, frame: ResponseEndFrame) -> None:
            await self.push(frame)

    transport = MemoryTransport()
    controller = SessionController()
    worker = PipelineWorker(
        Pipeline([transport.input(), controller, Voice(), transport.output()]), clock=VirtualClock()
    )
    handle = controller.session.say(STORY)
    worker.clock.call_at(450_000_000, controller.session.interrupt)
    worker.clock.call_at(2_000_000_000, controller.session.close)
    await worker.run()
    assert (handle.outcome, handle.heard_text) == (INTERRUPTED, "Once upon a time there")
    (record,) = controller.session.interruptions
    assert abs(record.heard_ms - 450) <= 20

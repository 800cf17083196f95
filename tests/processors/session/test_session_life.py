"""A session's life: it connects, is paused, closes; and everybody who wants to know of it is told, in order."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from voxline.pipeline import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    Pipeline,
    PipelineWorker,
    ResponseCutFrame,
    SessionError,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VirtualClock,
)
from voxline.pipeline.frames import (
    ClientConnectedFrame,
    ClientDisconnectedFrame,
    InputEndedFrame,
    ListenFrame,
    UsageFrame,
)
from voxline.pipeline.recording import Recorder, Recording, Trace, replay
from voxline.pipeline.testing import Harness
from voxline.processors import ScriptedLLM, SessionController, SpeechOutcome, State
from voxline.processors.session import (
    BotSaid,
    EventsLost,
    Interrupted,
    SessionClosed,
    SessionEvent,
    StateChanged,
    Turn,
    UserSaid,
)
from voxline.processors.testing import ScriptedPlayout, SessionBench

STORY = "Once upon a time there was a rover far away on Mars."


def begin(waiting: Awaitable[object]) -> asyncio.Future[object]:
    """Wait for something beside the test."""

    return asyncio.ensure_future(waiting)


def worker_of(controller: SessionController, *answers: str, delay_ms: float = 200) -> PipelineWorker:
    model = ScriptedLLM(answers, delay_ms=delay_ms)
    return PipelineWorker(Pipeline([controller, model, ScriptedPlayout()]), clock=VirtualClock())


def at(worker: PipelineWorker, seconds: float, do: Callable[[], object]) -> None:
    """Do something at a time of the worker's clock."""
    worker.clock.call_at(round(seconds * 1e9), lambda: (do(), None)[1])


# --- connect, ready, close -------------------------------------------------------------------------------------------


async def test_without_a_client_to_wait_for_it_is_ready_when_the_pipeline_runs():
    async with SessionBench() as bench:
        assert bench.states == [State.IDLE, State.CONNECTING, State.LISTENING]
        assert bench.session.is_active
        assert bench.session.can_accept_input


async def test_with_a_client_to_wait_for_it_greets_when_that_is_there():
    async with SessionBench(greeting="Hello.", wait_for_client=True) as bench:
        await bench.advance(2_000)
        assert bench.session.state is State.CONNECTING
        assert not bench.session.can_accept_input
        await bench.send(ClientConnectedFrame())
        assert bench.session.state is State.SPEAKING
        summary = bench.session.summary()
        assert (summary.connected_ms, summary.ready_ms) == (2_000, 2_000)
        await bench.advance(5_000)
        # Once more says nothing new.
        await bench.send(ClientConnectedFrame())
        assert bench.said == [("assistant", "Hello.")]


async def test_a_client_that_goes_ends_the_session():
    async with SessionBench(goodbyes={"disconnected": "Who hears this?"}) as bench:
        handle = bench.session.say(STORY)
        await bench.advance(400)
        await bench.send(ClientDisconnectedFrame("closed the tab"))
        assert bench.session.state is State.CLOSED
        assert bench.session.summary().reason == "disconnected"
        assert handle.outcome is SpeechOutcome.INTERRUPTED
        assert bench.said == [("assistant", "Once upon...")]
        assert bench.session.interruptions == ()


async def test_a_client_that_comes_back_finds_the_conversation():
    async with SessionBench([STORY, "Sure."], greeting="Hello.", wait_for_client=True) as bench:
        await bench.send(ClientConnectedFrame())
        await bench.advance(1_000)
        await bench.user_says("tell me a story")
        await bench.advance(600)
        await bench.send(ClientDisconnectedFrame())
        assert bench.session.state is State.CONNECTING
        await bench.advance(5_000)
        await bench.send(ClientConnectedFrame())
        assert bench.session.state is State.LISTENING
        await bench.user_says("go on then")
        await bench.advance(2_000)
        assert bench.said == [
            ("assistant", "Hello."),
            ("user", "tell me a story"),
            ("assistant", "Once upon..."),
            ("user", "go on then"),
            ("assistant", "Sure."),
        ]


async def test_a_client_that_was_announced_may_come_back_though_nobody_waited_for_it():
    async with SessionBench(["Sure."], connection_timeout_s=10) as bench:
        await bench.send(ClientConnectedFrame())
        await bench.send(ClientDisconnectedFrame())
        assert bench.session.state is State.CONNECTING
        await bench.advance(5_000)
        await bench.send(ClientConnectedFrame())
        await bench.user_says("go on then")
        await bench.advance(2_000)
        assert bench.said == [("user", "go on then"), ("assistant", "Sure.")]


async def test_a_client_that_is_away_for_a_moment_while_a_cut_is_not_accounted_for_breaks_nothing(harness: Harness):
    controller = SessionController(wait_for_client=True)
    bench = await harness(controller)
    await bench.send(ClientConnectedFrame())
    controller.session.say(STORY)
    await bench.settle()
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    controller.session.interrupt()
    await bench.settle()
    await bench.send(ClientDisconnectedFrame(), ClientConnectedFrame())
    assert controller.session.state is State.INTERRUPTED
    await bench.send(ResponseCutFrame(1, 100, "Once"), direction=UPSTREAM)
    assert controller.session.state is State.LISTENING
    assert len(controller.session.interruptions) == 1


async def test_a_client_that_does_not_come_back_ends_the_session_and_that_is_no_failure():
    async with SessionBench(wait_for_client=True, connection_timeout_s=10) as bench:
        await bench.send(ClientConnectedFrame())
        await bench.advance(1_000)
        await bench.send(ClientDisconnectedFrame())
        await bench.advance(10_000)
        assert bench.session.state is State.CLOSED
        assert bench.session.summary().reason == "disconnected"


async def test_close_says_the_goodbye_of_its_reason_and_then_ends_the_pipeline():
    controller = SessionController(goodbyes={"done": "Good bye."})
    worker = worker_of(controller)
    at(worker, 1, lambda: controller.session.close("done"))
    outcome = await worker.run()
    assert outcome.reason == "ended"
    assert controller.session.summary().reason == "done"
    assert controller.session.state is State.CLOSED
    assert [message.text for message in controller.session.history] == ["Good bye."]
    assert worker.clock.now_ns() == 1_600_000_000


@pytest.mark.parametrize("again", [1, 2])
async def test_closing_twice_is_closing_once(again: int):
    async with SessionBench(goodbyes={"done": "Good bye."}) as bench:
        bench.session.close("done")
        for _ in range(again):
            bench.session.close("other", goodbye="Another.")
        await bench.advance(2_000)
        assert bench.session.summary().reason == "done"
        assert bench.said == [("assistant", "Good bye.")]
        assert len([event for event in bench.events if isinstance(event, SessionClosed)]) == 1


async def test_closed_before_it_runs_it_ends_at_once():
    controller = SessionController(goodbyes={"never mind": "Bye."})
    controller.session.close("never mind", now=True)
    worker = worker_of(controller)
    await worker.run()
    assert worker.clock.now_ns() == 0
    assert controller.session.summary().reason == "never mind"
    assert controller.session.state is State.CLOSED
    assert controller.session.history == ()


async def test_a_pipeline_that_is_cancelled_closes_the_session():
    controller = SessionController()
    worker = worker_of(controller)
    at(worker, 1, worker.cancel)
    await worker.run()
    assert controller.session.state is State.CLOSED
    assert controller.session.summary().reason == "cancelled"


async def test_who_hangs_up_ends_the_session():
    controller = SessionController(greeting="Hello.")
    worker = worker_of(controller)
    at(worker, 1, lambda: worker.post(InputEndedFrame()))
    at(worker, 1.5, lambda: asyncio.ensure_future(worker.stop()))
    await worker.run()
    assert controller.session.state is State.CLOSED
    assert controller.session.summary().reason == "hung up"


async def test_speech_that_begins_while_it_is_closing_does_nothing():
    async with SessionBench(["Hi."], goodbyes={"done": STORY}) as bench:
        bench.session.close("done")
        await bench.advance(500)
        await bench.user_starts()
        assert bench.session.state is State.CLOSING
        await bench.advance(1_000)
        await bench.user_stops("stop it now please")
        await bench.advance(5_000)
        assert bench.session.state is State.CLOSED
        assert bench.said == [("assistant", STORY)]
        assert bench.session.interruptions == ()


async def test_speech_that_began_before_the_close_is_not_answered():
    async with SessionBench(["Hi."], goodbyes={"done": STORY}) as bench:
        await bench.user_starts()
        bench.session.close("done")
        await bench.advance(100)
        await bench.user_stops("hello")
        await bench.advance(5_000)
        assert bench.said == [("assistant", STORY)]
        assert bench.session.state is State.CLOSED


async def test_facts_that_come_after_the_end_change_nothing(harness: Harness):
    controller = SessionController()
    bench = await harness(controller)
    controller.session.close(now=True)
    controller.session.interrupt()
    controller.session.pause()
    await bench.advance(100)
    assert controller.session.state is State.CLOSED


# --- hooks -----------------------------------------------------------------------------------------------------------


async def test_hooks_on_states_transitions_and_events_are_called_in_order():
    told: list[str] = []
    async with SessionBench([STORY]) as bench:
        session = bench.session
        session.on(State.SPEAKING, lambda _: told.append("speaks"))
        session.on((State.LISTENING, State.PROCESSING), lambda _: told.append("thinks"))
        session.on(UserSaid, lambda event: told.append(event.turn.text))
        session.on(Interrupted, lambda event: told.append(event.interruption.kind.value))
        session.on(BotSaid, lambda event: told.append(event.turn.text))
        await bench.user_says("tell me a story")
        await bench.advance(600)
        session.interrupt()
        await bench.settle()
        assert told == ["tell me a story", "thinks", "speaks", "Once upon", "manual"]


async def test_async_hooks_run_one_at_a_time_and_the_conversation_goes_on_meanwhile():
    told: list[str] = []
    async with SessionBench(["Hi."]) as bench:

        async def slow(event: StateChanged) -> None:
            told.append(f"({event.after.value}")
            await bench.controller.clock.sleep(5)
            told.append(f"{event.after.value})")

        bench.session.on(State.PROCESSING, slow)
        bench.session.on(State.SPEAKING, slow)
        bench.session.on(State.LISTENING, lambda _: told.append("listens"))
        await bench.user_says("hello")
        await bench.advance(2_000)
        assert bench.session.state is State.LISTENING
        assert told == ["(processing"]
        await bench.advance(10_000)
        assert told == ["(processing", "processing)", "(speaking", "speaking)", "listens"]


async def test_a_hook_that_raises_is_logged_and_the_others_run(caplog: pytest.LogCaptureFixture):
    told: list[str] = []

    def broken(event: SessionEvent) -> None:
        raise RuntimeError("secret words of the user")

    async def broken_later(event: SessionEvent) -> None:
        raise ValueError("more of them")

    async with SessionBench(["Hi."]) as bench:
        bench.session.on(UserSaid, broken)
        bench.session.on(UserSaid, broken_later)
        bench.session.on(UserSaid, lambda _: told.append("there"))
        with caplog.at_level(logging.INFO, "voxline"):
            await bench.user_says("hello")
            await bench.advance(2_000)
        assert told == ["there"]
        assert [record.message for record in caplog.records] == [
            "A hook for UserSaid raised RuntimeError",
            "A hook for UserSaid raised ValueError",
        ]
        assert bench.said == [("user", "hello"), ("assistant", "Hi.")]


async def test_a_hook_can_be_taken_back_and_called_once_only():
    told: list[str] = []
    async with SessionBench(["Hi."] * 3) as bench:
        take_back = bench.session.on(UserSaid, lambda _: told.append("gone"))
        bench.session.on(UserSaid, lambda _: told.append("once"), once=True)
        bench.session.on(UserSaid, lambda _: told.append("always"))
        take_back()
        take_back()
        for text in ("one", "two"):
            await bench.types(text)
            await bench.advance(2_000)
        assert told == ["once", "always", "always"]


async def test_a_hook_may_ask_the_session_for_something():
    async with SessionBench(["Hi."]) as bench:
        bench.session.on(BotSaid, lambda _: bench.session.say("And one more thing."), once=True)
        await bench.types("hello")
        await bench.advance(4_000)
        assert [text for _, text in bench.said] == ["hello", "Hi.", "And one more thing."]


async def test_hooks_hear_of_the_end():
    told: list[object] = []
    controller = SessionController()
    controller.session.on(State.CLOSED, lambda event: told.append(event.after))
    controller.session.on(SessionClosed, lambda event: told.append((event.reason, event.failed)))
    worker = worker_of(controller)
    at(worker, 1, worker.cancel)
    await worker.run()
    assert told == [State.CLOSED, ("cancelled", False)]


# --- events, and waiting ---------------------------------------------------------------------------------------------


async def test_events_come_as_a_stream_that_ends_with_the_session():
    controller = SessionController()
    worker = worker_of(controller, "Hi.")
    stream = controller.session.events()
    at(worker, 1, lambda: controller.session.send_message("hello"))
    at(worker, 5, controller.session.close)
    await worker.run()
    kinds = [type(event).__name__ async for event in stream if not isinstance(event, StateChanged)]
    assert kinds == ["UserSaid", "BotSaid", "SessionClosed"]
    assert [event async for event in controller.session.events()] == [], "it is over"


async def test_who_reads_events_too_slowly_is_told_how_many_are_lost():
    async with SessionBench(["Hi."] * 5) as bench:
        stream = bench.session.events(bound=3)
        for _ in range(5):
            await bench.types("hello")
            await bench.advance(1_000)
        lost = await anext(stream)
        assert isinstance(lost, EventsLost)
        assert lost.count == 5 * 5 - 3
        assert isinstance(await anext(stream), StateChanged)
        stream.close()
        stream.close()
        assert [type(event) async for event in stream] == [BotSaid, StateChanged]


async def test_a_state_can_be_waited_for():
    async with SessionBench(["Hi."]) as bench:
        assert await bench.session.wait_for(State.LISTENING) is State.LISTENING
        waiting = begin(bench.session.wait_for(State.SPEAKING, State.FAILED))
        await bench.types("hello")
        await bench.advance(100)
        assert not waiting.done()
        await bench.advance(100)
        assert await waiting is State.SPEAKING


async def test_a_state_that_lasted_for_no_time_at_all_is_not_missed():
    async with SessionBench(["Hi."], model_ms=0) as bench:
        waiting = begin(bench.session.wait_for(State.PROCESSING))
        await bench.settle()
        await bench.types("hello")
        assert bench.session.state is State.SPEAKING
        assert await waiting is State.PROCESSING


async def test_waiting_has_an_end():
    async with SessionBench() as bench:
        waiting = begin(bench.session.wait_for(State.SPEAKING, timeout_s=3))
        await bench.advance(2_999)
        assert not waiting.done()
        await bench.advance(2)
        with pytest.raises(TimeoutError, match=r"Waited 3 s for the session to be SPEAKING; it is LISTENING\."):
            await waiting


async def test_waiting_for_what_will_not_come_ends_with_the_session():
    async with SessionBench() as bench:
        waiting = [begin(bench.session.wait_for(State.SPEAKING)), begin(bench.session.wait_for_input())]
        await bench.settle()
        bench.session.close()
        await bench.settle()
        for one in waiting:
            with pytest.raises(SessionError, match="The session is CLOSED"):
                await one


async def test_the_user_s_next_turn_can_be_waited_for():
    async with SessionBench(["Hi.", "Ho."]) as bench:
        await bench.user_says("before")
        await bench.advance(2_000)
        waiting = begin(bench.session.wait_for_input(timeout_s=60))
        await bench.settle()
        await bench.user_says("after")
        await bench.advance(100)
        turn = await waiting
        assert isinstance(turn, Turn)
        assert turn.text == "after"


async def test_nobody_says_anything_is_a_time_out_of_who_waits_for_it():
    async with SessionBench() as bench:
        waiting = begin(bench.session.wait_for_input(timeout_s=2))
        await bench.advance(3_000)
        with pytest.raises(TimeoutError, match="to hear the user"):
            await waiting


async def test_a_state_can_be_waited_for_before_the_pipeline_runs():
    controller = SessionController()
    waiting = begin(controller.session.wait_for(State.LISTENING))
    late = begin(controller.session.wait_for(State.PAUSED, timeout_s=2))
    worker = worker_of(controller)
    at(worker, 5, controller.session.close)
    await worker.run()
    assert await waiting is State.LISTENING
    with pytest.raises((TimeoutError, SessionError)):
        await late


async def test_time_in_state():
    async with SessionBench(["Hi."], model_ms=1_000) as bench:
        await bench.advance(2_500)
        assert bench.session.time_in_state_s == 2.5
        await bench.types("hello")
        await bench.advance(500)
        assert bench.session.time_in_state_s == 0.5
        moments = [(one.before, one.after, one.at_ns / 1e6) for one in bench.session.transitions]
        assert moments[-1] == (State.LISTENING, State.PROCESSING, 2_500)


# --- cleaning up -----------------------------------------------------------------------------------------------------


async def test_clean_ups_run_once_in_reverse_order_even_when_one_raises(caplog: pytest.LogCaptureFixture):
    told: list[str] = []
    controller = SessionController()

    async def later() -> None:
        told.append("second")

    def broken() -> None:
        told.append("third")
        raise RuntimeError("oh")

    controller.session.on(SessionClosed, lambda _: told.append("hook"))
    controller.session.on_close(lambda: told.append("first"))
    controller.session.on_close(later)
    controller.session.on_close(broken)
    worker = worker_of(controller)
    at(worker, 1, lambda: (controller.session.close(), worker.cancel()))
    await worker.run()
    assert told == ["hook", "third", "second", "first"]
    assert "A clean-up of a session raised RuntimeError" in caplog.text


# --- listening on and off --------------------------------------------------------------------------------------------


async def test_who_is_not_listened_to_can_type():
    async with SessionBench(["Hi."]) as bench:
        bench.session.stop_listening()
        await bench.settle()
        assert bench.session.state is State.WAITING_FOR_INPUT
        assert bench.session.can_accept_input
        await bench.user_says("hello")
        await bench.advance(2_000)
        assert bench.session.turns == ()
        await bench.types("hello")
        await bench.advance(2_000)
        assert bench.said == [("user", "hello"), ("assistant", "Hi.")]
        assert bench.session.state is State.WAITING_FOR_INPUT
        bench.session.start_listening()
        await bench.settle()
        assert bench.session.state is State.LISTENING


async def test_what_was_being_said_when_it_went_off_is_not_taken_and_what_was_said_before_is():
    async with SessionBench(["Hi."], endpointing={"min_delay_ms": 2_000}) as bench:
        await bench.user_says("hello")
        await bench.user_starts()
        bench.session.stop_listening()
        await bench.settle()
        await bench.user_stops("not this")
        await bench.advance(3_000)
        assert bench.said == [("user", "hello"), ("assistant", "Hi.")]


async def test_words_that_wait_are_not_lost_with_an_utterance_that_was_not_taken():
    async with SessionBench(["Hi."], endpointing={"min_delay_ms": 5_000, "transcript_timeout_ms": 1_000}) as bench:
        await bench.user_says("hello")
        await bench.user_starts()
        bench.session.stop_listening()
        await bench.advance(10_000)
        assert bench.said == [("user", "hello"), ("assistant", "Hi.")]
        assert bench.session.statistics.errors == 0


async def test_what_hears_is_told_to_listen_or_not(harness: Harness):
    controller = SessionController()
    bench = await harness(controller)
    session = controller.session
    for order in (
        session.stop_listening, session.stop_listening, session.pause, session.resume, session.start_listening,
        session.pause, session.resume,
    ):  # fmt: skip
        order()
    await bench.settle()
    heard = [frame.on for frame in bench.up if isinstance(frame, ListenFrame)]
    # Off; off for the pause, and not on after it; on; off and on for the second pause.
    assert heard == [False, False, True, False, True]


async def test_the_bot_that_was_silenced_goes_on_when_nobody_listens_any_more():
    async with SessionBench([STORY]) as bench:
        await bench.user_says("tell me a story")
        await bench.advance(700)
        await bench.user_starts()
        bench.session.stop_listening()
        await bench.advance(8_000)
        assert bench.said[-1] == ("assistant", STORY)


# --- summary ---------------------------------------------------------------------------------------------------------


async def test_the_summary_is_for_people_and_as_json():
    async with SessionBench([STORY, "Sure."], wait_for_client=True) as bench:
        await bench.advance(500)
        await bench.send(ClientConnectedFrame())
        await bench.advance(1_000)
        await bench.user_says("tell me a story")
        await bench.advance(1_000)
        await bench.send_upstream(UsageFrame(120, 30))
        await bench.user_says("another one please")
        await bench.advance(3_000)
        bench.session.close("done")
        await bench.advance(100)
        summary = bench.session.summary()
        assert str(summary).splitlines() == [
            "closed (done) after 8.2 s",
            "turns: 2 user audio, 2 assistant",
            "interruptions: 1 speech; 0 false, 0 ignored",
            "answers: 750 ms after the user on average, 1.3 s heard; the user spoke for 0.0 s",
            "tokens: 120 in, 30 out",
        ]
        plain = json.loads(summary.to_json())
        assert (plain["connected_ms"], plain["ready_ms"], plain["closed_ms"]) == (500, 500, 8_700)
        assert plain["state"] == "closed"
        assert plain["statistics"]["turns"]["user_audio"] == 2
        assert plain["statistics"]["interrupt_rate"] == 0.5


async def test_a_summary_of_what_has_not_begun():
    summary = SessionController().session.summary()
    assert summary.connected_ms is None
    assert str(summary).splitlines()[0] == "idle after 0.0 s"


# --- replay ----------------------------------------------------------------------------------------------------------


def conversation() -> tuple[SessionController, Pipeline]:
    controller = SessionController(
        greeting="Hello.", goodbyes={"done": "Bye."}, preemptive={"enabled": True}, idle_ladder=[
            {"after_s": 8, "say": "Still there?"}
        ],
    )  # fmt: skip
    model = ScriptedLLM([STORY, "Sure.", "Yes."], delay_ms=300)
    return controller, Pipeline([controller, model, ScriptedPlayout()], name="talk")


async def test_a_recorded_session_replays_to_the_same_history_without_its_callers(tmp_path: Path):
    controller, pipeline = conversation()
    session = controller.session
    worker = PipelineWorker(pipeline, clock=VirtualClock())
    live = Trace()
    worker.add_tap(live)
    worker.add_tap(Recorder(tmp_path / "talk.jsonl"))
    first = session.say("Before all.")
    said = [
        (2.0, lambda: worker.post(UserStartedSpeakingFrame(200))),
        (3.0, lambda: worker.post(UserStoppedSpeakingFrame(500))),
        (3.1, lambda: worker.post(TranscriptionFrame("tell me a story"))),
        (4.5, lambda: worker.post(UserStartedSpeakingFrame(200))),
        (5.5, lambda: worker.post(UserStoppedSpeakingFrame(200))),
        (5.6, lambda: worker.post(TranscriptionFrame("tell me another"))),
        (7.0, session.pause),
        (9.0, session.resume),
        (9.5, lambda: session.say("A word from our sponsor.")),
        (10.0, session.interrupt),
        (11.0, lambda: session.send_message("one more")),
        (11.5, lambda: session.update(idle_timeout_s=60)),
        (30.0, lambda: session.close("done")),
    ]
    for seconds, do in said:
        at(worker, seconds, do)
    await worker.run()
    assert first.outcome is SpeechOutcome.PLAYED
    assert len(session.interruptions) == 2
    texts = [message.text for message in session.history]
    for text in ("Before all.", "tell me another", "Still there?", "Bye."):
        assert text in texts, f"the conversation lacks {text!r}, so this test shows less than it should"

    replayed, again = conversation()
    trace = Trace()
    await replay(Recording.load(tmp_path / "talk.jsonl"), again, trace)
    assert trace.lines == live.lines
    assert replayed.session.history == session.history
    assert replayed.session.turns == session.turns
    assert replayed.session.interruptions == session.interruptions
    assert replayed.session.transitions == session.transitions
    assert replayed.session.statistics == session.statistics


async def test_what_nobody_can_wait_for_is_told():
    async with SessionBench() as bench:
        with pytest.raises(SessionError, match=r"on\(\) takes a State, a pair .* not 'speaking'"):
            bench.session.on("speaking", print)  # pyright: ignore[reportArgumentType, reportCallIssue]

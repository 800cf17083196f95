"""The session controller: turns, interruptions, and a history of what was heard."""

import random

import pytest
from voxline.pipeline import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    CancelFrame,
    Frame,
    InputEndedFrame,
    LLMRequestFrame,
    Message,
    Pipeline,
    PipelineWorker,
    ProcessorError,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    VirtualClock,
)
from voxline.pipeline.testing import Bench, Harness
from voxline.processors import ScriptedLLM, ScriptedSTT, ScriptedTTS, SessionController, State
from voxline.processors.session.states import (
    Ask,
    Close,
    Interrupt,
    Opened,
    Session,
    SessionStartedFrame,
    Settings,
    step,
)
from voxline.transports.memory import MemoryTransport

STARTED, STOPPED = UserStartedSpeakingFrame(), UserStoppedSpeakingFrame()


def user(text: str) -> Message:
    return Message("user", text)


def bot(text: str, *, cut: bool = False) -> Message:
    return Message("assistant", text, cut)


def requests(bench: Bench) -> list[tuple[Message, ...]]:
    return [frame.messages for frame in bench.down if isinstance(frame, LLMRequestFrame)]


def cancels(bench: Bench) -> list[Frame]:
    return [frame for frame in bench.down if isinstance(frame, CancelFrame)]


async def says(bench: Bench, text: str) -> None:
    """A whole utterance."""
    await bench.send(STARTED, STOPPED, TranscriptionFrame(text))


async def hears(bench: Bench, response: int, text: str) -> None:
    """A whole answer, played."""
    await bench.send(BotStartedSpeakingFrame(response), direction=UPSTREAM)
    await bench.send(ResponsePlayedFrame(response, 1_000, text), direction=UPSTREAM)


def utter(worker: PipelineWorker, *, at_s: float, until_s: float | None = None) -> None:
    """The user speaks, at that time of the worker's clock."""
    worker.clock.call_at(round(at_s * 1e9), lambda: worker.post(STARTED))
    worker.clock.call_at(round((at_s if until_s is None else until_s) * 1e9), lambda: worker.post(STOPPED))


def state(bench: Bench) -> State:
    return controller(bench).state


def controller(bench: Bench) -> SessionController:
    assert isinstance(bench.processor, SessionController)
    return bench.processor


# --- turns ---------------------------------------------------------------------------------------------------


async def test_silence_and_words_end_a_turn(harness: Harness):
    bench = await harness(SessionController())
    await bench.send(STARTED, STOPPED)
    assert requests(bench) == []
    await bench.send(TranscriptionFrame("hello"))
    assert requests(bench) == [(user("hello"),)]
    assert state(bench) is State.PROCESSING


async def test_words_that_come_before_the_silence_wait_for_it(harness: Harness):
    bench = await harness(SessionController())
    await bench.send(STARTED, TranscriptionFrame("hello"), TranscriptionFrame("there"))
    assert requests(bench) == []
    await bench.send(STOPPED)
    assert requests(bench) == [(user("hello there"),)]


async def test_what_it_handles_goes_on(harness: Harness):
    bench = await harness(SessionController())
    await bench.send(STARTED, STOPPED, TranscriptionFrame(""), InputEndedFrame())
    assert bench.down == [STARTED, STOPPED, TranscriptionFrame(""), InputEndedFrame()]
    await hears(bench, 1, "")
    assert bench.up == [BotStartedSpeakingFrame(1), ResponsePlayedFrame(1, 1_000, "")]


async def test_each_answer_is_a_response_of_its_own(harness: Harness):
    bench = await harness(SessionController())
    await says(bench, "one")
    await hears(bench, 1, "First.")
    await says(bench, "two")
    assert bench.worker.responses == 2
    assert requests(bench)[1] == (user("one"), bot("First."), user("two"))


async def test_state_speaking_means_that_samples_are_played(harness: Harness):
    bench = await harness(SessionController())
    await says(bench, "one")
    assert state(bench) is State.PROCESSING
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    assert state(bench) is State.SPEAKING
    await bench.send(ResponsePlayedFrame(1, 500, "First."), direction=UPSTREAM)
    assert state(bench) is State.LISTENING


async def test_words_of_an_utterance_that_come_while_the_next_is_spoken_join_its_turn(harness: Harness):
    bench = await harness(SessionController())
    await bench.send(STARTED, STOPPED, STARTED, TranscriptionFrame("go forward"), STOPPED)
    assert requests(bench) == []
    await bench.send(TranscriptionFrame("ten meters"))
    assert requests(bench) == [(user("go forward ten meters"),)]


async def test_words_that_come_when_the_answer_is_being_made_join_its_turn_too(harness: Harness):
    bench = await harness(SessionController())
    await says(bench, "go forward")
    await bench.send(TranscriptionFrame("ten meters"))
    assert cancels(bench) == [CancelFrame(1, "the turn went on")]
    assert requests(bench) == [(user("go forward"),), (user("go forward ten meters"),)]
    assert bench.worker.responses == 2


async def test_a_late_transcript_keeps_what_was_heard_of_the_answer_nevertheless(harness: Harness):
    bench = await harness(SessionController())
    await says(bench, "go forward")
    await bench.send(TranscriptionFrame("ten meters"))
    await bench.send(ResponseCutFrame(1, 40, "Going"), direction=UPSTREAM)
    await hears(bench, 2, "Going forward.")
    assert controller(bench).history == (
        bot("Going", cut=True),
        user("go forward ten meters"),
        bot("Going forward."),
    )


async def test_speech_without_a_word_is_no_turn(harness: Harness):
    bench = await harness(SessionController())
    await says(bench, "")
    assert requests(bench) == []
    assert state(bench) is State.LISTENING


async def test_speech_without_a_word_is_a_turn_where_that_is_wanted(harness: Harness):
    bench = await harness(SessionController(answer_unclear=True))
    await says(bench, "")
    assert requests(bench) == [(user(""),)]


# --- interruptions -------------------------------------------------------------------------------------------


async def test_the_bot_is_cut_when_the_user_speaks_over_it(harness: Harness):
    bench = await harness(SessionController())
    await says(bench, "tell me a story")
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    await bench.send(STARTED)
    assert cancels(bench) == [CancelFrame(1, "the user spoke")]
    assert state(bench) is State.INTERRUPTED
    await bench.send(ResponseCutFrame(1, 700, "Once upon"), direction=UPSTREAM)
    await bench.send(STOPPED, TranscriptionFrame("stop"))
    assert requests(bench)[-1] == (user("tell me a story"), bot("Once upon", cut=True), user("stop"))


async def test_the_bot_is_cut_when_the_user_speaks_while_it_thinks(harness: Harness):
    bench = await harness(SessionController())
    await says(bench, "one")
    await bench.send(STARTED)
    assert cancels(bench) == [CancelFrame(1, "the user spoke")]
    await bench.send(STOPPED, TranscriptionFrame("two"))
    assert requests(bench)[-1] == (user("one"), user("two"))


async def test_a_cough_over_the_bot_cuts_it_and_is_no_turn(harness: Harness):
    bench = await harness(SessionController())
    await says(bench, "one")
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    await says(bench, "")
    assert state(bench) is State.LISTENING
    assert len(requests(bench)) == 1


async def test_words_over_the_bot_with_no_start_of_speech_cut_it_and_wait_for_what_was_heard(harness: Harness):
    bench = await harness(SessionController())
    await says(bench, "one")
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    await bench.send(TranscriptionFrame("stop"))
    assert cancels(bench) == [CancelFrame(1, "the user spoke")]
    assert len(requests(bench)) == 1
    await bench.send(ResponseCutFrame(1, 300, "The first"), direction=UPSTREAM)
    assert requests(bench)[-1] == (user("one"), bot("The first", cut=True), user("stop"))


async def test_a_response_that_somebody_else_cut_is_over(harness: Harness):
    bench = await harness(SessionController())
    await says(bench, "one")
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    await bench.interrupt("a button")
    await bench.send(ResponseCutFrame(1, 300, "The first"), direction=UPSTREAM)
    assert state(bench) is State.LISTENING
    assert controller(bench).history == (user("one"), bot("The first", cut=True))


async def test_an_old_response_s_fact_changes_the_history_and_not_the_state(harness: Harness):
    bench = await harness(SessionController())
    await says(bench, "one")
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    await says(bench, "two")
    await bench.send(ResponseCutFrame(1, 300, "The first"), direction=UPSTREAM)
    assert state(bench) is State.PROCESSING
    assert controller(bench).history == (user("one"), bot("The first", cut=True), user("two"))


async def test_nothing_is_cut_while_the_bot_has_nothing_to_say(harness: Harness):
    bench = await harness(SessionController())
    await bench.send(STARTED, STOPPED)
    assert cancels(bench) == []


# --- greeting, instructions, farewell ------------------------------------------------------------------------


async def test_a_greeting_is_the_first_response_and_stands_in_the_history_when_it_was_heard(harness: Harness):
    bench = await harness(SessionController(greeting="Hello.", instructions="Be brief."))
    assert bench.down == [TextFrame("Hello."), ResponseEndFrame()]
    assert bench.worker.responses == 1
    assert controller(bench).history == (Message("system", "Be brief."),)
    await hears(bench, 1, "Hello.")
    await says(bench, "hi")
    assert requests(bench) == [(Message("system", "Be brief."), bot("Hello."), user("hi"))]


async def test_a_greeting_can_be_interrupted(harness: Harness):
    bench = await harness(SessionController(greeting="Hello. I am a rover."))
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    await bench.send(STARTED)
    await bench.send(ResponseCutFrame(1, 200, "Hello."), direction=UPSTREAM)
    await bench.send(STOPPED, TranscriptionFrame("stop"))
    assert requests(bench) == [(bot("Hello.", cut=True), user("stop"))]


async def test_the_session_ends_when_the_answer_to_a_farewell_was_heard():
    transport = MemoryTransport()
    session = SessionController(farewells=["good bye"])
    worker = PipelineWorker(
        Pipeline(
            [
                transport.input(),
                ScriptedSTT(["hello", "good bye"]),
                session,
                ScriptedLLM(["Hi.", "See you soon."]),
                ScriptedTTS(word_ms=200),
                transport.output(),
            ]
        ),
        clock=VirtualClock(),
    )
    # The caller does not hang up: the bot does.
    utter(worker, at_s=0)
    utter(worker, at_s=2)
    outcome = await worker.run()
    assert outcome.reason == "ended"
    assert session.state is State.CLOSED
    assert session.history[-1] == bot("See you soon.")


async def test_a_farewell_that_is_interrupted_ends_nothing(harness: Harness):
    bench = await harness(SessionController(farewells="good bye"))
    await says(bench, "good bye")
    await bench.send(BotStartedSpeakingFrame(1), direction=UPSTREAM)
    await bench.send(STARTED)
    await bench.send(ResponseCutFrame(1, 200, "See"), direction=UPSTREAM)
    await bench.send(STOPPED, TranscriptionFrame("wait"))
    assert requests(bench)[-1][-1] == user("wait")
    assert state(bench) is State.PROCESSING


async def test_a_request_tells_of_the_newest_turns(harness: Harness):
    bench = await harness(SessionController(history_turns=2))
    for number, text in enumerate(("one", "two", "three"), 1):
        await says(bench, text)
        await hears(bench, number, f"Answer {number}.")
    assert requests(bench)[-1] == (user("two"), bot("Answer 2."), user("three"))


def test_no_turn_at_all_is_too_few():
    with pytest.raises(ValueError, match="history_turns is 0"):
        SessionController(history_turns=0)


# --- the table -----------------------------------------------------------------------------------------------


def test_a_transition_that_the_table_has_not_is_an_error_that_names_both_states():
    closed = Session(Settings(), state=State.SPEAKING)
    with pytest.raises(ProcessorError, match="from SPEAKING to PROCESSING; from there it goes to: CLOSED, INTER"):
        step(closed, SessionStartedFrame(), 0)


def test_an_event_that_it_does_not_know_is_an_error():
    with pytest.raises(ProcessorError, match="knows nothing of TextFrame"):
        step(Session(), TextFrame("?"), 0)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_happens_in_whatever_order_the_table_has_a_place_for_it(seed: int):
    chance = random.Random(seed)
    for _ in range(100):
        session = Session(Settings(farewells=frozenset({"bye"}), answer_unclear=chance.random() < 0.5))
        opened = 0
        for now in range(60):
            response = max(1, opened - chance.choice((0, 0, 0, 1)))
            event = chance.choice(
                [
                    STARTED,
                    STOPPED,
                    TranscriptionFrame(chance.choice(("", "hello", "bye"))),
                    BotStartedSpeakingFrame(response),
                    ResponsePlayedFrame(response, 10, "said"),
                    ResponseCutFrame(response, 5, chance.choice(("", "sa"))),
                ]
            )
            before = session
            session, effects = step(session, event, now)
            for effect in effects:
                match effect:
                    case Ask(messages):
                        opened += 1
                        session, _ = step(session, Opened(opened), now)
                        assert messages[-1].role == "user"
                        assert not session.user_speaking
                    case Interrupt():
                        assert before.state in (State.PROCESSING, State.SPEAKING)
                    case Close():
                        assert session.state is State.CLOSED
                    case _:
                        pytest.fail(f"{effect} for {event}")
            assert len(session.turns) <= session.settings.history_turns


# --- a whole conversation ------------------------------------------------------------------------------------


async def test_scripted_parts_make_a_conversation_in_virtual_time():
    transport = MemoryTransport()
    session = SessionController()
    llm = ScriptedLLM([["One, two, three.", "Four, five, six."], "Stopped."], delay_ms=100, between_ms=50)
    pipeline = Pipeline(
        [
            transport.input(),
            ScriptedSTT(["count", "stop"], delay_ms=30),
            session,
            llm,
            ScriptedTTS(word_ms=200, delay_ms=20),
            transport.output(),
        ]
    )
    worker = PipelineWorker(pipeline, clock=VirtualClock())
    utter(worker, at_s=0)
    # 30 + 100 + 20 ms until the first word; four words and a little later the user speaks.
    utter(worker, at_s=0.96, until_s=1.5)
    worker.clock.call_at(1_500_000_000, transport.hang_up)
    await worker.run()
    assert transport.heard[0].at_ns == 150_000_000
    assert session.history == (
        user("count"),
        bot("One, two, three. Four, five,", cut=True),
        user("stop"),
        bot("Stopped."),
    )
    assert llm.requests[-1].messages == session.history[:3]

"""Every pair of state and event: what follows is in the table, and what does not follow is not done."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeGuard

import pytest
from voxline.pipeline import client_frames, frames
from voxline.pipeline.clock import NS_PER_MS
from voxline.pipeline.frames import Frame
from voxline.processors.session import commands, limits
from voxline.processors.session.data import SessionData, SpeechOutcome, TurnKind
from voxline.processors.session.events import SpeechIgnored
from voxline.processors.session.states import ALLOWED, OVER, State
from voxline.processors.session.step import RULES, step
from voxline.processors.session.transition import Ask, Effect, Pause, Resolve, Tell
from voxline.tests.processors.session.conversation import Driven

# --- the states, and how a session comes to stand in them ------------------------------------------------------------


def idle() -> Driven:
    return Driven(start=False)


def connecting() -> Driven:
    return Driven(wait_for_client=True)


def listening() -> Driven:
    return Driven()


def user_speaking() -> Driven:
    """LISTENING, and the user speaks."""
    session = listening()
    session.happens(frames.UserStartedSpeakingFrame(200))
    session.passes(800)
    return session


def words_awaited() -> Driven:
    """LISTENING, the user has spoken, and the words are not there yet."""
    session = user_speaking()
    session.happens(frames.UserStoppedSpeakingFrame(100))
    return session


def turn_open() -> Driven:
    """LISTENING, the words are there, and the silence is too short to be the end of the turn."""
    session = words_awaited()
    session.happens(frames.TranscriptionFrame("tell me a story"))
    return session


def guessing() -> Driven:
    """LISTENING, and an answer is made to what the user will have said."""
    session = Driven(preemptive={"enabled": True})
    session.happens(
        frames.UserStartedSpeakingFrame(200),
        frames.UserStoppedSpeakingFrame(100),
        frames.TranscriptionFrame("tell me a story"),
    )
    assert session.data.bot.response is not None
    return session


def waiting() -> Driven:
    session = listening()
    session.happens(commands.ListenCommandFrame(False))
    return session


def processing() -> Driven:
    session = listening()
    session.happens(commands.MessageCommandFrame("tell me a story", handle=1))
    session.passes(300)
    return session


def speaking() -> Driven:
    session = processing()
    session.plays()
    session.passes(1_000)
    return session


def tentative() -> Driven:
    """INTERRUPTED: silenced, and whether it is cut is to be seen."""
    session = speaking()
    session.happens(frames.UserStartedSpeakingFrame(200))
    session.passes(400)
    return session


def cut() -> Driven:
    """INTERRUPTED: cut, and the output has not said what was heard."""
    session = speaking()
    session.answers = False
    session.happens(commands.InterruptCommandFrame())
    return session


def barged_in() -> Driven:
    """INTERRUPTED: cut, and the user goes on."""
    session = tentative()
    session.happens(frames.InterimTranscriptionFrame("no wait"))
    assert session.data.user.barged_in
    return session


def paused() -> Driven:
    """PAUSED while nobody said anything."""
    session = listening()
    session.happens(commands.PauseCommandFrame())
    return session


def paused_bot() -> Driven:
    """PAUSED in the middle of an answer."""
    session = speaking()
    session.happens(commands.PauseCommandFrame())
    return session


def closing() -> Driven:
    session = speaking()
    session.happens(commands.CloseCommandFrame("user", goodbye="Goodbye."))
    return session


def closed() -> Driven:
    session = listening()
    session.happens(commands.CloseCommandFrame("user"))
    return session


def failed() -> Driven:
    session = listening()
    session.happens(commands.CloseCommandFrame("error", failed=True))
    return session


SITUATIONS: dict[str, tuple[State, Callable[[], Driven]]] = {
    "IDLE": (State.IDLE, idle),
    "CONNECTING": (State.CONNECTING, connecting),
    "LISTENING": (State.LISTENING, listening),
    "LISTENING, user speaks": (State.LISTENING, user_speaking),
    "LISTENING, words awaited": (State.LISTENING, words_awaited),
    "LISTENING, turn open": (State.LISTENING, turn_open),
    "LISTENING, guessing": (State.LISTENING, guessing),
    "WAITING_FOR_INPUT": (State.WAITING_FOR_INPUT, waiting),
    "PROCESSING": (State.PROCESSING, processing),
    "SPEAKING": (State.SPEAKING, speaking),
    "INTERRUPTED, tentative": (State.INTERRUPTED, tentative),
    "INTERRUPTED, cut": (State.INTERRUPTED, cut),
    "INTERRUPTED, barged in": (State.INTERRUPTED, barged_in),
    "PAUSED": (State.PAUSED, paused),
    "PAUSED, bot speaks": (State.PAUSED, paused_bot),
    "CLOSING": (State.CLOSING, closing),
    "CLOSED": (State.CLOSED, closed),
    "FAILED": (State.FAILED, failed),
}

# --- the events ------------------------------------------------------------------------------------------------------


def _number(session: Driven) -> int:
    """The response that is under way, or was last; 7 where there was none."""
    return len(session.sounds) or 7


EVENTS: dict[type[Frame], Callable[[Driven], Frame]] = {
    frames.UserStartedSpeakingFrame: lambda _: frames.UserStartedSpeakingFrame(200),
    frames.UserStoppedSpeakingFrame: lambda _: frames.UserStoppedSpeakingFrame(500),
    frames.InterimTranscriptionFrame: lambda _: frames.InterimTranscriptionFrame("tell me more"),
    frames.TranscriptionFrame: lambda _: frames.TranscriptionFrame("tell me more", 500),
    frames.TurnProbabilityFrame: lambda _: frames.TurnProbabilityFrame(0.5),
    frames.InputTextFrame: lambda _: frames.InputTextFrame("hello"),
    frames.InputEndedFrame: lambda _: frames.InputEndedFrame(),
    frames.ClientConnectedFrame: lambda _: frames.ClientConnectedFrame(),
    frames.ClientDisconnectedFrame: lambda _: frames.ClientDisconnectedFrame("gone"),
    frames.BotStartedSpeakingFrame: lambda session: frames.BotStartedSpeakingFrame(_number(session)),
    frames.BotStoppedSpeakingFrame: lambda session: frames.BotStoppedSpeakingFrame(_number(session)),
    frames.ResponsePlayedFrame: lambda session: frames.ResponsePlayedFrame(_number(session), 1_000, "once upon"),
    frames.ResponseCutFrame: lambda session: frames.ResponseCutFrame(_number(session), 1_000, "once upon"),
    frames.CancelFrame: lambda session: frames.CancelFrame(_number(session)),
    commands.ResponseFailedFrame: lambda session: commands.ResponseFailedFrame(
        "it does not work", "TTS", _number(session)
    ),
    frames.UsageFrame: lambda _: frames.UsageFrame(10, 20),
    frames.ToolCallFrame: lambda _: frames.ToolCallFrame("1", "weather"),
    frames.ToolResultFrame: lambda _: frames.ToolResultFrame("1", "rain"),
    commands.SessionStartedFrame: lambda _: commands.SessionStartedFrame(0),
    commands.SessionTimerFrame: lambda _: commands.SessionTimerFrame(),
    commands.SayCommandFrame: lambda _: commands.SayCommandFrame("Your taxi is here.", handle=2),
    commands.MessageCommandFrame: lambda _: commands.MessageCommandFrame("hello", handle=2),
    commands.InterruptCommandFrame: lambda _: commands.InterruptCommandFrame(),
    client_frames.InterruptRequestFrame: lambda _: client_frames.InterruptRequestFrame(),
    commands.PauseCommandFrame: lambda _: commands.PauseCommandFrame(),
    commands.ResumeCommandFrame: lambda _: commands.ResumeCommandFrame(),
    commands.ListenCommandFrame: lambda session: commands.ListenCommandFrame(not session.data.lifecycle.listening),
    commands.TalkButtonCommandFrame: lambda _: commands.TalkButtonCommandFrame(True),
    commands.TouchCommandFrame: lambda _: commands.TouchCommandFrame(),
    commands.UpdateCommandFrame: lambda _: commands.UpdateCommandFrame(
        Driven(idle_timeout_s=5).data.settings.model_dump_json()
    ),
    commands.CloseCommandFrame: lambda _: commands.CloseCommandFrame("user", goodbye="Goodbye."),
    commands.SessionStoppedFrame: lambda _: commands.SessionStoppedFrame("ended"),
}
"""One of each; `SessionTimerFrame` when the first of what can be due is."""


def registered() -> set[type]:
    base = commands.SessionCommandFrame
    classes = [one for one in vars(commands).values() if isinstance(one, type) and issubclass(one, base)]
    return {*RULES, *classes} - {base}


def test_no_event_is_left_out():
    assert set(EVENTS) == registered()
    assert {state for state, _ in SITUATIONS.values()} == set(State)
    assert list(FOLLOWS) == list(SITUATIONS)
    named = {name for events in FOLLOWS.values() for names in events.values() for name in names.split()}
    assert named <= {event.__name__.removesuffix("Frame").removesuffix("Command") for event in EVENTS}


# --- the table -------------------------------------------------------------------------------------------------------

FOLLOWS: dict[str, dict[str, str]] = {
    "IDLE": {
        "LISTENING": "SessionStarted",
        "CLOSED": "Close SessionStopped",
    },
    "CONNECTING": {
        "LISTENING": "ClientConnected",
        "CLOSED": "Close SessionStopped",
        "FAILED": "SessionTimer",
    },
    "LISTENING": {
        "WAITING_FOR_INPUT": "Listen",
        "PROCESSING": "InputText Say Message",
        "PAUSED": "Pause",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "LISTENING, user speaks": {
        "WAITING_FOR_INPUT": "Listen",
        "PROCESSING": "InputText Message",
        "PAUSED": "Pause",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "LISTENING, words awaited": {
        "WAITING_FOR_INPUT": "Listen",
        "PROCESSING": "InputText Message",
        "PAUSED": "Pause",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "LISTENING, turn open": {
        "WAITING_FOR_INPUT": "Listen",
        "PROCESSING": "InputText SessionTimer Message",
        "PAUSED": "Pause",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "LISTENING, guessing": {
        "WAITING_FOR_INPUT": "Listen",
        "PROCESSING": "InputText SessionTimer Message",
        "PAUSED": "Pause",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "WAITING_FOR_INPUT": {
        "LISTENING": "Listen",
        "PROCESSING": "InputText Say Message",
        "PAUSED": "Pause",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "PROCESSING": {
        "LISTENING": "ResponsePlayed ResponseCut Cancel SessionTimer Interrupt InterruptRequest",
        "SPEAKING": "BotStartedSpeaking",
        "INTERRUPTED": "UserStartedSpeaking InterimTranscription Transcription",
        "PAUSED": "Pause",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "SPEAKING": {
        "LISTENING": "ResponsePlayed ResponseCut Interrupt InterruptRequest",
        "PROCESSING": "InputText BotStoppedSpeaking Message",
        "INTERRUPTED": "UserStartedSpeaking InterimTranscription Transcription Cancel",
        "PAUSED": "Pause",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "INTERRUPTED, tentative": {
        "LISTENING": "ResponsePlayed ResponseCut Interrupt InterruptRequest",
        "PROCESSING": "InputText Message",
        "SPEAKING": "Listen",
        "PAUSED": "Pause",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "INTERRUPTED, cut": {
        "LISTENING": "ResponsePlayed ResponseCut SessionTimer",
        "PAUSED": "Pause",
        "CLOSING": "ClientDisconnected Close",
        "CLOSED": "SessionStopped",
    },
    "INTERRUPTED, barged in": {
        "WAITING_FOR_INPUT": "Listen",
        "PROCESSING": "InputText Message",
        "PAUSED": "Pause",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "PAUSED": {
        "LISTENING": "Resume",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "PAUSED, bot speaks": {
        "SPEAKING": "Resume",
        "CLOSING": "Close",
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "CLOSING": {
        "CLOSED": "ClientDisconnected SessionStopped",
    },
    "CLOSED": {},
    "FAILED": {},
}
"""In which state, after which event, a session stands in which other state, with what the output answers at once.

After all other events of `EVENTS`, it stands where it stood. ``Time``: when what is due first is due.
"""


def following(situation: str, event: type[Frame]) -> State:
    """What the table says."""
    for name, events in FOLLOWS[situation].items():
        if event.__name__.removesuffix("Frame").removesuffix("Command") in events.split():
            return State[name]
    return SITUATIONS[situation][0]


PAIRS = [
    pytest.param(situation, event, id=f"{situation}-{event.__name__}") for situation in SITUATIONS for event in EVENTS
]


def prepared(situation: str, event: type[Frame]) -> tuple[Driven, Frame]:
    """A session in a state, and the event that comes now."""
    state, make = SITUATIONS[situation]
    session = make()
    assert session.data.state is state
    if event is commands.SessionTimerFrame:
        session.now_ns = max(session.now_ns, limits.next_ns(session.data) or 0)
    else:
        session.now_ns += 20 * NS_PER_MS
    return session, EVENTS[event](session)


def check_the_state_is_true(data: SessionData) -> None:
    """The state says what is so."""
    response = data.bot.response
    match data.state:
        case State.SPEAKING:
            assert response is not None
            assert response.playing
            assert response.guess is None
            assert not data.bot.playout_paused
        case State.PROCESSING:
            assert response is not None
            assert not response.playing
            assert response.guess is None
        case State.LISTENING:
            assert data.hears
            assert response is None or response.guess is not None
        case State.WAITING_FOR_INPUT:
            assert not data.hears
            assert response is None or response.guess is not None
        case State.INTERRUPTED:
            assert data.bot.tentative or data.bot.cut or data.user.barged_in
        case State.PAUSED:
            assert data.lifecycle.paused_ns is not None
            assert data.bot.playout_paused
        case State.CONNECTING:
            assert not data.lifecycle.connected
            assert response is None
        case State.CLOSING:
            assert data.lifecycle.ending is not None
            assert response is not None or data.bot.cut is not None or data.bot.queue or data.lifecycle.ending.goodbye
        case State.CLOSED | State.FAILED:
            assert data.lifecycle.closed_ns is not None
            assert data.lifecycle.ending is not None
            assert data.lifecycle.ending.failed is (data.state is State.FAILED)
            assert response is None
            assert data.bot.cut is None
            assert not data.bot.queue
            assert not data.bot.playout_paused
        case State.IDLE:
            assert data.lifecycle.started_ns is None


@pytest.mark.parametrize(("situation", "event"), PAIRS)
def test_every_pair_of_state_and_event(situation: str, event: type[Frame]):
    session, frame = prepared(situation, event)
    before, state = session.data, session.data.state
    kept = copy.deepcopy(before)

    after, effects = step(before, frame, session.now_ns, len(session.sounds) + 1)

    assert before == kept, "the argument was changed"
    assert (after, effects) == step(before, frame, session.now_ns, len(session.sounds) + 1), (
        "the same arguments gave another result"
    )
    stood = state
    for transition in after.history.transitions[len(before.history.transitions) :]:
        assert transition.before is stood
        assert transition.after in ALLOWED[stood]
        stood = transition.after
    assert after.state is stood
    if state in OVER:
        assert after == before
        assert all(isinstance(effect, Resolve) for effect in effects)

    session.happens(frame)
    check_the_state_is_true(session.data)
    assert session.data.state is following(situation, event)


@pytest.mark.parametrize(("situation", "event"), PAIRS)
def test_nothing_is_due_twice(situation: str, event: type[Frame]):
    """What is due is dealt with when it is due: no timer goes round in circles."""
    session, frame = prepared(situation, event)
    session.happens(frame)
    for _ in range(200):
        due_ns = limits.next_ns(session.data)
        if due_ns is None:
            break
        session.now_ns = max(session.now_ns, due_ns)
        session.due()
    session.happens(commands.SessionStoppedFrame("ended"))
    assert session.data.state in OVER
    assert all(len(outcomes) == 1 for outcomes in session.outcomes.values())


def test_what_a_session_knows_nothing_of_is_an_error():
    with pytest.raises(Exception, match="no rule for TextFrame"):
        step(listening().data, frames.TextFrame("what?"), 0, 1)


# --- pairs that take two events --------------------------------------------------------------------------------------


def test_a_client_that_is_there_before_the_pipeline_runs():
    session = Driven(start=False, wait_for_client=True)
    session.happens(frames.ClientConnectedFrame(), commands.SessionStartedFrame(0))
    assert session.data.state is State.LISTENING


def test_a_client_that_came_and_went_before_the_pipeline_runs():
    session = Driven(start=False, wait_for_client=True)
    session.happens(frames.ClientConnectedFrame(), frames.ClientDisconnectedFrame(), commands.SessionStartedFrame(0))
    assert session.data.state is State.CONNECTING


def test_to_interrupt_one_speech_leaves_the_next():
    session = listening()
    session.happens(
        commands.SayCommandFrame("one", 1), commands.SayCommandFrame("two", 2), commands.SayCommandFrame("three", 3)
    )
    session.plays()
    session.passes(100)
    session.happens(commands.InterruptCommandFrame(handle=1))
    assert session.outcomes == {1: [SpeechOutcome.INTERRUPTED]}
    session.happens(commands.InterruptCommandFrame(handle=3))
    assert session.outcomes == {1: [SpeechOutcome.INTERRUPTED], 3: [SpeechOutcome.DROPPED]}
    session.plays()
    session.passes(100)
    session.finishes()
    assert session.outcomes[2] == [SpeechOutcome.PLAYED]


def test_what_was_typed_in_a_pause_did_not_come_after_it():
    session = paused()
    session.passes(1_000)
    session.happens(commands.MessageCommandFrame("hello", handle=1))
    session.passes(3_000)
    session.happens(commands.ResumeCommandFrame())
    assert session.data.history.turns[-1].start_ns <= session.now_ns


def test_an_interim_that_no_words_follow_does_not_keep_the_bot_silent():
    session = Driven(preemptive={"enabled": True})
    session.happens(frames.InterimTranscriptionFrame("tell me"))
    session.passes(1_000)
    assert session.paused
    assert session.data.bot.response is not None
    session.happens(commands.SayCommandFrame("hello", 1))
    session.passes(3_000)
    assert not session.paused
    assert session.data.bot.response.speech is None or session.data.state is State.PROCESSING


def test_a_turn_that_is_over_when_its_guess_is_due_is_not_guessed():
    session = Driven(preemptive={"enabled": True})
    session.happens(frames.UserStartedSpeakingFrame(200), frames.UserStoppedSpeakingFrame(300))
    session.happens(frames.TranscriptionFrame("tell me a story"), frames.InterimTranscriptionFrame("and more of it"))
    session.now_ns += 900 * NS_PER_MS
    session.happens(commands.SessionTimerFrame())
    assert session.data.state is State.PROCESSING
    asked = [effect for effect in session.effects if isinstance(effect, Ask)]
    assert [one.speculative for one in asked] == [True, False]


def test_an_output_that_says_late_that_it_is_silent():
    session = speaking()
    after, _ = step(session.data, commands.PauseCommandFrame(), session.now_ns, len(session.sounds) + 1)
    after, _ = step(after, commands.ResumeCommandFrame(), session.now_ns, len(session.sounds) + 1)
    assert after.state is State.SPEAKING
    after, _ = step(after, frames.BotStoppedSpeakingFrame(1), session.now_ns, len(session.sounds) + 1)
    after, _ = step(after, frames.BotStartedSpeakingFrame(1), session.now_ns, len(session.sounds) + 1)
    assert after.state is State.SPEAKING


@pytest.mark.parametrize("cuts", [True, False])
def test_the_first_piece_of_what_is_said_over_the_bot_is_not_lost(cuts: bool):
    session = Driven(interruption={"min_words": 3})
    session.happens(commands.MessageCommandFrame("hello", handle=1))
    session.plays()
    session.passes(1_000)
    session.happens(frames.UserStartedSpeakingFrame(200))
    session.passes(400)
    session.happens(frames.TranscriptionFrame("tell me"))
    assert session.data.state is State.INTERRUPTED
    session.passes(600)
    session.happens(frames.UserStoppedSpeakingFrame(300))
    session.happens(frames.TranscriptionFrame("something else" if cuts else ""))
    session.passes(1_000)
    said = [turn.text for turn in session.data.history.turns if turn.kind is TurnKind.USER_AUDIO]
    ignored = [effect.event.text for effect in session.effects if _ignored(effect)]
    assert (said, ignored) == ((["tell me something else"], []) if cuts else ([], ["tell me"]))


def _ignored(effect: Effect) -> TypeGuard[Any]:
    return isinstance(effect, Tell) and isinstance(effect.event, SpeechIgnored)


def test_the_output_is_not_told_to_go_on_before_it_has_answered_a_cut():
    """Its answer comes first, and may lead to a guess, which must not be heard."""
    session = tentative()
    after, effects = step(session.data, commands.InterruptCommandFrame(), session.now_ns, len(session.sounds) + 1)
    assert after.bot.cut is not None
    assert not any(isinstance(effect, Pause) for effect in effects)
    after, effects = step(
        after, frames.ResponseCutFrame(1, 1_000, "once upon"), session.now_ns, len(session.sounds) + 1
    )
    assert Pause(False) in effects

"""What a session does about what happens: `step`, a pure function.

Events are frames (facts) and the commands of `commands.py`. The rules are in files of their own: `interruptions.py` for
the user's speech, `turns.py` for the user's turns, `responses.py`, `limits.py` for deadlines, `lifecycle.py` for the
beginning and the end. Each rule writes facts. `_next` decides once, at the end of every step, what follows from them.
"""

from __future__ import annotations

from dataclasses import replace
from functools import singledispatch

from ...pipeline import client_frames, frames
from ...pipeline.errors import ProcessorError
from ...pipeline.frames import Frame
from . import commands, interruptions, lifecycle, limits, responses, turns
from .data import InterruptionKind, SessionData, Speech, SpeechKind, SpeechOutcome, Turn, TurnKind
from .events import SessionClosed, ToolCalled, ToolReturned
from .settings import SessionSettings
from .speech_intent import words_of
from .states import OVER
from .transition import Button, Effect, Step

MOST = 100
"""Decisions in one step: more are a circle, which would be a mistake in this package."""


def step(data: SessionData, event: Frame, now_ns: int) -> tuple[SessionData, tuple[Effect, ...]]:
    """What ``event`` makes of a session at ``now_ns``, and what is to be done about it. Changes nothing itself.

    Raises `ProcessorError` for an event that sessions know nothing of, and where that would be a transition which
    `ALLOWED` does not have: a mistake in this package.
    """
    st = Step(data, now_ns, type(event).__name__)
    if data.state in OVER:
        _after_the_end(st, event)
        return st.s, tuple(st.effects)
    happened(event, st)
    st.move()
    for _ in range(MOST):
        if not _next(st):
            break
        st.move()
    else:
        raise ProcessorError(f"A session in {st.s.state.name} comes to no end with {event!r}.")
    st.pace_output()
    st.move()
    if st.s.state in OVER:
        assert st.s.ending is not None
        st.tell(SessionClosed(now_ns, st.s.ending.reason, st.s.ending.failed))
    return st.s, tuple(st.effects)


def _next(st: Step) -> bool:
    """Decide what follows from the facts. False where nothing does."""
    s = st.s
    if s.closed_ns is not None or not s.connected or s.paused_ns is not None:
        if s.ending is not None and s.closed_ns is None and s.free:
            lifecycle.finish(st)
            return True
        return False
    guessing = s.guessed is not None
    if s.pieces and (s.response is None or guessing):
        interruptions.take_pieces(st)
        return True
    if not s.free and not guessing:
        return False
    over_ns = turns.over_ns(s) if s.ending is None else None
    if over_ns is not None and over_ns <= st.now:
        turns.end(st)
        return True
    if guessing:
        return False
    if s.ending is None and (s.turn or s.awaited or s.user_speaking):
        if s.turn.text and s.interim == "" and turns.guessable(s) is not None and not s.user_speaking:
            # The words are there, and only the silence is not long enough yet.
            turns.guess(st)
            return s.response is not None
        return False
    if s.barged_in and s.ending is None:
        return False
    if s.queue:
        speech, *rest = s.queue
        s.queue = tuple(rest)
        responses.say(st, speech)
        return True
    if s.ending is not None:
        _end(st)
        return True
    limit = s.settings.max_messages
    if limit is not None and s.counts.messages >= limit:
        lifecycle.close(st, "messages")
        return True
    return False


def _end(st: Step) -> None:
    """Nothing is left to be said but the goodbye."""
    s = st.s
    assert s.ending is not None
    words = s.ending.goodbye
    if words:
        s.ending = replace(s.ending, goodbye="")
        responses.say(st, Speech(SpeechKind.GOODBYE, words, interruptible=False))
    else:
        lifecycle.finish(st)


def _after_the_end(st: Step, event: Frame) -> None:
    """Nothing changes any more; but nobody waits in vain."""
    match event:
        case commands.SayFrame() | commands.MessageFrame():
            st.resolve((event.handle,), SpeechOutcome.DROPPED)
        case _:
            pass


# --- events ----------------------------------------------------------------------------------------------------------


@singledispatch
def happened(event: Frame, st: Step) -> None:
    """Write down what an event says."""
    raise ProcessorError(f"A session knows nothing of {type(event).__name__}.")


@happened.register
def _(event: frames.UserStartedSpeakingFrame, st: Step) -> None:
    interruptions.speech_began(st, event.onset_ms)


@happened.register
def _(event: frames.UserStoppedSpeakingFrame, st: Step) -> None:
    interruptions.speech_ended(st, event.silence_ms)


@happened.register
def _(event: frames.InterimTranscriptionFrame, st: Step) -> None:
    interruptions.interim(st, event.text)


@happened.register
def _(event: frames.TranscriptionFrame, st: Step) -> None:
    counts = interruptions.transcript(st, event.text, event.audio_ms, more=event.more)
    if event.failed:
        turns.lost(st, counts=counts)


@happened.register
def _(event: frames.TurnProbabilityFrame, st: Step) -> None:
    if not st.s.user_speaking:
        # Else it is about a silence that is over.
        st.s.probability = min(1.0, max(0.0, event.probability))


@happened.register
def _(event: frames.InputTextFrame, st: Step) -> None:
    _typed(st, event.text, 0, interrupt=event.interrupt)


@happened.register
def _(event: client_frames.InterruptRequestFrame, st: Step) -> None:
    st.active()
    st.s.idle_step = 0
    interruptions.button(st, event.reason)


@happened.register
def _(event: commands.MessageFrame, st: Step) -> None:
    _typed(st, event.text, event.handle, interrupt=event.interrupt)


def _typed(st: Step, text: str, handle: int, *, interrupt: bool) -> None:
    """The user typed."""
    s = st.s
    if s.ending is not None or not text.strip():
        st.resolve((handle,), SpeechOutcome.DROPPED)
        return
    st.active()
    s.idle_step = 0
    if interrupt and s.response is not None and s.response.interruptible:
        interruptions.button(st, "the user typed")
    turns.add(st, text, typed=True, handle=handle)


@happened.register
def _(event: frames.InputEndedFrame, st: Step) -> None:
    st.s.input_ended = True


@happened.register
def _(event: frames.ClientConnectedFrame, st: Step) -> None:
    st.s.announced = True
    lifecycle.connect(st)


@happened.register
def _(event: frames.ClientDisconnectedFrame, st: Step) -> None:
    lifecycle.disconnect(st, event.reason)


@happened.register
def _(event: frames.BotStartedSpeakingFrame, st: Step) -> None:
    responses.started(st, event.response)


@happened.register
def _(event: frames.BotStoppedSpeakingFrame, st: Step) -> None:
    responses.stopped(st, event.response)


@happened.register
def _(event: frames.ResponsePlayedFrame, st: Step) -> None:
    s = st.s
    response = s.response
    responses.played(st, event.response, event.heard_ms, event.heard_text)
    if s.response is not None or response is None or response.number != event.response or s.ending is not None:
        return
    if response.speech is None and _said_farewell(s):
        lifecycle.close(st, "user", "")


def _said_farewell(s: SessionData) -> bool:
    """Whether what the user said last is said by who goes."""
    said = next((one.text for one in reversed(s.turns) if one.kind in (TurnKind.USER_AUDIO, TurnKind.USER_TEXT)), "")
    return any(words_of(said) == words_of(farewell) for farewell in s.settings.farewells)


@happened.register
def _(event: frames.ResponseCutFrame, st: Step) -> None:
    s = st.s
    if s.response is not None and s.response.number == event.response:
        responses.cut_elsewhere(st, event.response, event.reason)
    responses.cut_recorded(st, event.response, event.heard_ms, event.heard_text)


@happened.register
def _(event: frames.CancelFrame, st: Step) -> None:
    responses.cut_elsewhere(st, event.response, event.reason)


@happened.register
def _(event: commands.FailedFrame, st: Step) -> None:
    st.error(event.message, event.source)
    responses.failed(st, event.response)


@happened.register
def _(event: frames.UsageFrame, st: Step) -> None:
    counts = st.s.counts
    st.s.counts = replace(
        counts,
        input_tokens=counts.input_tokens + event.input_tokens,
        output_tokens=counts.output_tokens + event.output_tokens,
    )


@happened.register
def _(event: frames.ToolCallFrame, st: Step) -> None:
    s = st.s
    number = s.response.number if s.response is not None else 0
    if s.response is not None:
        s.response = replace(s.response, tools=s.response.tools + 1, since_ns=st.now)
    s.tools = (*s.tools, event.call_id)
    text = f"{event.name} {event.arguments}"
    turn = Turn(0, TurnKind.TOOL_CALL, st.now, st.now, text, response=number, call_id=event.call_id)
    st.tell(ToolCalled(st.now, st.write(turn)))


@happened.register
def _(event: frames.ToolResultFrame, st: Step) -> None:
    s = st.s
    s.tools = tuple(call for call in s.tools if call != event.call_id)
    called = next(
        (one for one in reversed(s.turns) if one.kind is TurnKind.TOOL_CALL and one.call_id == event.call_id), None
    )
    if s.response is not None:
        s.response = replace(s.response, since_ns=st.now)
    start_ns, response = (called.start_ns, called.response) if called is not None else (st.now, 0)
    turn = Turn(0, TurnKind.TOOL_RESULT, start_ns, st.now, event.text, response=response, call_id=event.call_id)
    st.tell(ToolReturned(st.now, st.write(turn)))


# --- orders ----------------------------------------------------------------------------------------------------------


@happened.register
def _(event: commands.StartFrame, st: Step) -> None:
    lifecycle.start(st, event.created_ns)


@happened.register
def _(event: commands.TimeFrame, st: Step) -> None:
    limits.run_due(st)


@happened.register
def _(event: commands.OpenedFrame, st: Step) -> None:
    responses.opened(st, event.response)


@happened.register
def _(event: commands.SayFrame, st: Step) -> None:
    s = st.s
    if s.ending is not None or not event.text.strip():
        st.resolve((event.handle,), SpeechOutcome.DROPPED)
        return
    s.queue = (*s.queue, Speech(SpeechKind.SAY, event.text, event.handle, event.interruptible))


@happened.register
def _(event: commands.InterruptOrderFrame, st: Step) -> None:
    s = st.s
    if not event.handle:
        interruptions.button(st, event.reason)
    elif s.response is not None and event.handle in s.response.handles:
        # That, and nothing else: what waits is said.
        responses.cut(st, InterruptionKind.MANUAL, event.reason, alone=True)
    else:
        st.resolve([one.handle for one in s.queue if one.handle == event.handle], SpeechOutcome.DROPPED)
        s.queue = tuple(one for one in s.queue if one.handle != event.handle)


@happened.register
def _(event: commands.PauseFrame, st: Step) -> None:
    lifecycle.pause(st)


@happened.register
def _(event: commands.ResumeFrame, st: Step) -> None:
    lifecycle.resume(st)


@happened.register
def _(event: commands.ListenOrderFrame, st: Step) -> None:
    lifecycle.listen(st, on=event.on)


@happened.register
def _(event: commands.ButtonFrame, st: Step) -> None:
    st.do(Button(event.pressed))


@happened.register
def _(event: commands.TouchFrame, st: Step) -> None:
    st.active()
    st.quiet()
    st.s.idle_step = 0


@happened.register
def _(event: commands.SettingsFrame, st: Step) -> None:
    st.s.settings = SessionSettings.model_validate_json(event.settings)


@happened.register
def _(event: commands.CloseFrame, st: Step) -> None:
    lifecycle.close(st, event.reason, event.goodbye, now=event.now, failed=event.failed)


@happened.register
def _(event: commands.StopFrame, st: Step) -> None:
    lifecycle.stop(st, event.reason, failed=event.failed)

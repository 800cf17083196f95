"""`step`, the pure function that decides everything a session does.

Events are frames: facts, whose rules are in the table `RULES` below, and commands, which carry their own rule
(`commands.py`). A rule writes down what its event says; the modules `interruptions`, `turns`, `responses`, `limits` and
`lifecycle` contain the parts that several rules share. After the rule, `_next` decides what follows from the facts,
until nothing follows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ...pipeline import client_frames, frames
from ...pipeline.errors import ProcessorError
from ...pipeline.frames import Frame
from . import commands, interruptions, lifecycle, responses, turns
from .data import SessionData, Speech, SpeechKind, Turn, TurnKind
from .events import SessionClosed, ToolCalled, ToolReturned
from .speech_intent import words_of
from .states import OVER
from .transition import Effect, Transition

MAX_DECISIONS = 100
"""Limit for the decisions in one step. More are an endless loop, which is a bug of this package."""


def step(data: SessionData, event: Frame, now_ns: int, next_response: int) -> tuple[SessionData, tuple[Effect, ...]]:
    """Return the session's data after ``event`` at ``now_ns``, and the effects to carry out. Changes no argument.

    ``next_response`` is the number of the next response that the kernel opens: a step that asks for a response names it
    at once, so that carrying out an effect never needs another step.

    Raises `ProcessorError` for an event without a rule, and for a state transition that `ALLOWED` does not list (a bug
    of this package).
    """
    transition = Transition(data, now_ns, type(event).__name__, next_response)
    if data.state in OVER:
        if isinstance(event, commands.SessionCommandFrame):
            event.refuse(transition)
        return transition.data, tuple(transition.effects)
    rule_of(event)(transition, event)
    transition.update_state()
    for _ in range(MAX_DECISIONS):
        if not _next(transition):
            break
        transition.update_state()
    else:
        raise ProcessorError(f"A session in {transition.data.state.name} finds no end to the step for {event!r}.")
    transition.pace_output()
    transition.update_state()
    ending = transition.data.lifecycle.ending
    if transition.data.state in OVER:
        assert ending is not None
        transition.tell(SessionClosed(now_ns, ending.reason, ending.failed))
    return transition.data, tuple(transition.effects)


def _next(transition: Transition) -> bool:
    """Make the next decision that follows from the facts. Returns False if nothing follows."""
    data, user, bot, state = transition.data, transition.data.user, transition.data.bot, transition.data.lifecycle
    if state.closed_ns is not None or not state.connected or state.paused_ns is not None:
        if state.ending is not None and state.closed_ns is None and bot.free:
            lifecycle.finish(transition)
            return True
        return False
    guessing = bot.guess is not None
    if user.overlap and (bot.response is None or guessing):
        interruptions.take_overlap(transition)
        return True
    if not bot.free and not guessing:
        return False
    turn_end_ns = turns.end_ns(data) if state.ending is None else None
    if turn_end_ns is not None and turn_end_ns <= transition.now:
        turns.end(transition)
        return True
    if guessing:
        return False
    if state.ending is None and (user.turn or user.words_awaited or user.speaking):
        if user.turn.text and user.interim == "" and turns.guessable(data) is not None and not user.speaking:
            # All words are there; only the silence is not long enough yet.
            turns.guess(transition)
            return bot.response is not None
        return False
    if user.barged_in and state.ending is None:
        return False
    return _speak_or_close(transition)


def _speak_or_close(transition: Transition) -> bool:
    """Say the next queued speech; with an empty queue, continue to close or check the message limit."""
    data, bot, state = transition.data, transition.data.bot, transition.data.lifecycle
    if bot.queue:
        speech, *rest = bot.queue
        bot.queue = tuple(rest)
        responses.say(transition, speech)
        return True
    if state.ending is not None:
        words = state.ending.goodbye
        if words:
            state.ending = replace(state.ending, goodbye="")
            responses.say(transition, Speech(SpeechKind.GOODBYE, words, interruptible=False))
        else:
            lifecycle.finish(transition)
        return True
    limit = data.settings.max_messages
    if limit is not None and data.history.counts.messages >= limit:
        lifecycle.close(transition, "messages")
        return True
    return False


# --- rules for facts -------------------------------------------------------------------------------------------------

Rule = Callable[[Transition, Any], None]
"""A rule writes what an event says into the transition's data, and adds effects."""


def rule_of(event: Frame) -> Rule:
    """Return the rule for an event: a command's own, or that of the nearest class in `RULES`."""
    if isinstance(event, commands.SessionCommandFrame):
        return apply_command
    for kind in type(event).__mro__:
        rule = RULES.get(kind)
        if rule is not None:
            return rule
    raise ProcessorError(
        f"A session has no rule for {type(event).__name__}. Add one to RULES in step.py, or make the frame a "
        "SessionCommandFrame."
    )


def apply_command(transition: Transition, command: commands.SessionCommandFrame) -> None:
    """Apply a command by its own rule."""
    command.apply(transition)


def user_started_speaking(transition: Transition, event: frames.UserStartedSpeakingFrame) -> None:
    """Start an utterance; over the bot, start a tentative interruption."""
    interruptions.speech_started(transition, event.onset_ms)


def user_stopped_speaking(transition: Transition, event: frames.UserStoppedSpeakingFrame) -> None:
    """End the utterance."""
    interruptions.speech_stopped(transition, event.silence_ms)


def interim_transcript_came(transition: Transition, event: frames.InterimTranscriptionFrame) -> None:
    """Take words that may still change."""
    interruptions.interim(transition, event.text)


def transcript_came(transition: Transition, event: frames.TranscriptionFrame) -> None:
    """Take final words, or the report that they are lost."""
    counts = interruptions.transcript(transition, event.text, event.audio_ms, more=event.more)
    if event.failed:
        turns.lost(transition, counts=counts)


def turn_probability_came(transition: Transition, event: frames.TurnProbabilityFrame) -> None:
    """Take the turn model's probability, unless the user speaks again: then it is about a silence that is over."""
    if not transition.data.user.speaking:
        transition.data.user.turn_probability = min(1.0, max(0.0, event.probability))


def user_typed(transition: Transition, event: frames.InputTextFrame) -> None:
    """Take text that the client sent."""
    commands.MessageCommandFrame(event.text, 0, event.interrupt).apply(transition)


def client_asked_to_interrupt(transition: Transition, event: client_frames.InterruptRequestFrame) -> None:
    """Cut the bot for the client's button."""
    transition.note_activity()
    transition.data.lifecycle.idle_step = 0
    interruptions.interrupt(transition, event.reason)


def input_ended(transition: Transition, event: frames.InputEndedFrame) -> None:
    """Note that the input has ended: the reason of the session's end is then "hung up"."""
    transition.data.lifecycle.input_ended = True


def client_connected(transition: Transition, event: frames.ClientConnectedFrame) -> None:
    """Connect."""
    transition.data.lifecycle.announced = True
    lifecycle.connect(transition)


def client_disconnected(transition: Transition, event: frames.ClientDisconnectedFrame) -> None:
    """Disconnect."""
    lifecycle.disconnect(transition, event.reason)


def bot_started_speaking(transition: Transition, event: frames.BotStartedSpeakingFrame) -> None:
    """Mark the response as audible."""
    responses.started(transition, event.response)


def bot_stopped_speaking(transition: Transition, event: frames.BotStoppedSpeakingFrame) -> None:
    """Mark the response as silent."""
    responses.stopped(transition, event.response)


def response_played(transition: Transition, event: frames.ResponsePlayedFrame) -> None:
    """Record the response; close the session if it answered a farewell."""
    data = transition.data
    response = data.bot.response
    responses.played(transition, event.response, event.heard_ms, event.heard_text)
    ended = data.bot.response is None and response is not None and response.number == event.response
    if not ended or response is None or data.lifecycle.ending is not None:
        return
    if response.speech is None and _said_farewell(data):
        lifecycle.close(transition, "user", "")


def _said_farewell(data: SessionData) -> bool:
    """Tell if the user's newest turn is one of the settings' farewells."""
    kinds = (TurnKind.USER_AUDIO, TurnKind.USER_TEXT)
    said = next((one.text for one in reversed(data.history.turns) if one.kind in kinds), "")
    return any(words_of(said) == words_of(farewell) for farewell in data.settings.farewells)


def response_cut(transition: Transition, event: frames.ResponseCutFrame) -> None:
    """Record the heard part of a cut response."""
    response = transition.data.bot.response
    if response is not None and response.number == event.response:
        responses.cut_elsewhere(transition, event.response, event.reason)
    responses.cut_recorded(transition, event.response, event.heard_ms, event.heard_text)


def bot_cancelled(transition: Transition, event: frames.CancelFrame) -> None:
    """Record that the bot was cut outside of the session."""
    responses.cut_elsewhere(transition, event.response, event.reason)


def tokens_used(transition: Transition, event: frames.UsageFrame) -> None:
    """Count tokens."""
    history = transition.data.history
    history.counts = replace(
        history.counts,
        input_tokens=history.counts.input_tokens + event.input_tokens,
        output_tokens=history.counts.output_tokens + event.output_tokens,
    )


def tool_called(transition: Transition, event: frames.ToolCallFrame) -> None:
    """Record a tool call as a turn."""
    bot, now = transition.data.bot, transition.now
    number = bot.response.number if bot.response is not None else 0
    if bot.response is not None:
        bot.response = replace(bot.response, tools=bot.response.tools + 1, since_ns=now)
    bot.tools = (*bot.tools, event.call_id)
    text = f"{event.name} {event.arguments}"
    turn = Turn(0, TurnKind.TOOL_CALL, now, now, text, response=number, call_id=event.call_id)
    transition.tell(ToolCalled(now, transition.record_turn(turn)))


def tool_returned(transition: Transition, event: frames.ToolResultFrame) -> None:
    """Record a tool's result as a turn."""
    bot, now, kind = transition.data.bot, transition.now, TurnKind.TOOL_CALL
    bot.tools = tuple(call for call in bot.tools if call != event.call_id)
    recorded = reversed(transition.data.history.turns)
    called = next((one for one in recorded if one.kind is kind and one.call_id == event.call_id), None)
    if bot.response is not None:
        bot.response = replace(bot.response, since_ns=now)
    start_ns, response = (called.start_ns, called.response) if called is not None else (now, 0)
    turn = Turn(0, TurnKind.TOOL_RESULT, start_ns, now, event.text, response=response, call_id=event.call_id)
    transition.tell(ToolReturned(now, transition.record_turn(turn)))


RULES: Mapping[type[Frame], Rule] = {
    frames.UserStartedSpeakingFrame: user_started_speaking,
    frames.UserStoppedSpeakingFrame: user_stopped_speaking,
    frames.InterimTranscriptionFrame: interim_transcript_came,
    frames.TranscriptionFrame: transcript_came,
    frames.TurnProbabilityFrame: turn_probability_came,
    frames.InputTextFrame: user_typed,
    frames.InputEndedFrame: input_ended,
    client_frames.InterruptRequestFrame: client_asked_to_interrupt,
    frames.ClientConnectedFrame: client_connected,
    frames.ClientDisconnectedFrame: client_disconnected,
    frames.BotStartedSpeakingFrame: bot_started_speaking,
    frames.BotStoppedSpeakingFrame: bot_stopped_speaking,
    frames.ResponsePlayedFrame: response_played,
    frames.ResponseCutFrame: response_cut,
    frames.CancelFrame: bot_cancelled,
    frames.UsageFrame: tokens_used,
    frames.ToolCallFrame: tool_called,
    frames.ToolResultFrame: tool_returned,
}
"""The rule for each class of facts. Commands carry their own: `SessionCommandFrame.apply`."""

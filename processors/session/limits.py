"""Deadlines of a session: every time-out and limit, computed from the session's data.

No deadline is stored. A limit that `Session.update` changes counts from the same time as before, and a session has one
timer, for its first deadline.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from ...pipeline.clock import NS_PER_MS, NS_PER_S
from . import interruptions, lifecycle, responses, turns
from .data import Fate, InterruptionKind, SessionData, Speech, SpeechKind
from .speech_intent import SpeechIntent, classify
from .transition import KeepAlive, Transition


class Due(enum.Enum):
    """The kinds of deadline."""

    CONNECTION = "connection"
    DURATION = "duration"
    IDLE = "idle"
    RESPONSE = "response"
    TURN = "turn"
    TRANSCRIPT = "transcript"
    TURN_OVER = "turn over"
    GUESS = "guess"
    CONFIRM = "confirm"
    DISMISS = "dismiss"
    RECORD = "record"
    CLOSING = "closing"
    KEEP_ALIVE = "keep alive"


RECORD_NS = NS_PER_S
"""Time-out for the output's report of a cut response. The outputs of voxline report in the same step."""


def deadlines(data: SessionData) -> Iterator[tuple[int, Due]]:
    """Yield every deadline, in no order."""
    rules, bot, state = data.settings, data.bot, data.lifecycle
    if state.closed_ns is not None or state.started_ns is None:
        return
    if state.ending is not None and bot.cut is None:
        yield state.ending.since_ns + _s(rules.closing_timeout_s), Due.CLOSING
    if not state.connected and state.ending is None:
        yield state.away_ns + _s(rules.connection_timeout_s), Due.CONNECTION
    if bot.cut is not None:
        yield bot.cut.decided_ns + RECORD_NS, Due.RECORD
    if rules.keep_alive_s is not None and state.connected:
        yield state.kept_alive_ns + _s(rules.keep_alive_s), Due.KEEP_ALIVE
    if state.connected_ns is not None and rules.max_duration_s is not None and state.ending is None:
        yield state.connected_ns + _s(rules.max_duration_s), Due.DURATION
    if state.connected and state.paused_ns is None:
        yield from _bot_deadlines(data)
        if state.ending is None:
            yield from _user_deadlines(data)


def _bot_deadlines(data: SessionData) -> Iterator[tuple[int, Due]]:
    rules, user, bot, state = data.settings, data.user, data.bot, data.lifecycle
    response = bot.answer
    waits = response is not None and not response.playing and bot.tentative is None
    if response is not None and waits and (limit_s := _response_limit_s(data)) is not None:
        yield response.since_ns + _s(limit_s), Due.RESPONSE
    silent = bot.free and not user.turn and not user.speaking and not user.words_awaited and not bot.queue
    if silent and state.ending is None:
        ladder = rules.idle_ladder
        if state.idle_step < len(ladder):
            yield state.idle_ns + _s(ladder[state.idle_step].after_s), Due.IDLE
        elif rules.idle_timeout_s is not None:
            yield state.idle_ns + _s(rules.idle_timeout_s), Due.IDLE


def _response_limit_s(data: SessionData) -> float | None:
    """Return the time-out of the current response: the shorter one after an error in it."""
    rules, response = data.settings, data.bot.response
    limits_s = [rules.response_timeout_s]
    if response is not None and response.failed:
        limits_s.append(rules.error_timeout_s)
    return min((limit_s for limit_s in limits_s if limit_s is not None), default=None)


def _user_deadlines(data: SessionData) -> Iterator[tuple[int, Due]]:
    rules, user, bot = data.settings.endpointing, data.user, data.bot
    turn = user.turn
    over_bot = bot.answer is not None
    start_ns = turn.start_ns
    if start_ns is None and user.speaking and user.utterances:
        # The speech started over the bot or while nobody listened, and continues.
        start_ns = user.utterances[-1].onset_ns
    running = (turn and not turn.forced) or user.speaking
    if start_ns is not None and rules.turn_timeout_s is not None and not over_bot and running:
        yield start_ns + _s(rules.turn_timeout_s), Due.TURN
    elif user.barged_in and not turn and rules.turn_timeout_s is not None:
        yield data.state_since_ns + _s(rules.turn_timeout_s), Due.TURN
    waiting = [one.stopped_ns for one in user.utterances if one.stopped_ns is not None and one.fate is not Fate.LATE]
    if waiting and not user.speaking:
        yield waiting[0] + _ms(rules.transcript_timeout_ms), Due.TRANSCRIPT
    elif user.interim and not turn and not user.words_awaited and not over_bot:
        # An interim transcript without detected speech waits for its final one no longer than other speech.
        yield user.interim_ns + _ms(rules.transcript_timeout_ms), Due.TRANSCRIPT
    turn_end_ns = turns.end_ns(data)
    if turn_end_ns is not None and (bot.free or bot.response is not None) and not over_bot:
        yield turn_end_ns, Due.TURN_OVER
    if bot.tentative is not None:
        yield from _tentative_deadlines(data)
    elif turns.guessable(data) is not None and user.interim:
        yield user.interim_ns + _ms(data.settings.preemptive.stable_ms), Due.GUESS


def _tentative_deadlines(data: SessionData) -> Iterator[tuple[int, Due]]:
    rules, user, tentative = data.settings.interruption, data.user, data.bot.tentative
    assert tentative is not None
    if user.speaking:
        if classify(rules, user.interim, None) is SpeechIntent.BACKCHANNEL:
            # The sound after the "yeah" may be noise: the bot does not wait for its end.
            yield max(tentative.since_ns, user.interim_ns) + _ms(rules.false_timeout_ms), Due.DISMISS
        else:
            enough_ms = rules.speech_alone_ms if rules.min_words else rules.min_speech_ms
            yield tentative.onset_ns + _ms(enough_ms), Due.CONFIRM
        return
    stopped = [one.stopped_ns for one in user.utterances if one.stopped_ns is not None]
    yield max(tentative.since_ns, *stopped, 0) + _ms(rules.false_timeout_ms), Due.DISMISS


def next_ns(data: SessionData) -> int | None:
    """Return the first deadline; None if there is none."""
    return min((at for at, _ in deadlines(data)), default=None)


# --- deadlines that have passed --------------------------------------------------------------------------------------


def run_due(transition: Transition) -> None:
    """Handle the deadlines that have passed, one at a time: each may change the others."""
    timer = transition.event
    for due in Due:
        if any(at <= transition.now and which is due for at, which in deadlines(transition.data)):
            if due is not Due.TURN_OVER or transition.event == timer:
                transition.event = due.value if due in (Due.TURN_OVER, Due.GUESS) else f"{due.value} time-out"
            _handle(transition, due)
            transition.update_state()


def _handle(transition: Transition, due: Due) -> None:
    data, state = transition.data, transition.data.lifecycle
    match due:
        case Due.CONNECTION:
            transition.error(f"No client connected within {data.settings.connection_timeout_s:g} s.")
            first = state.connected_ns is None
            lifecycle.close(transition, "connection" if first else "disconnected", "", failed=first)
        case Due.DURATION:
            lifecycle.close(transition, "duration")
        case Due.IDLE:
            _idle(transition)
        case Due.RESPONSE:
            _no_response(transition)
        case Due.TURN:
            turns.force_end(transition)
        case Due.TRANSCRIPT:
            _no_transcript(transition)
        case Due.GUESS:
            turns.guess(transition)
        case Due.CONFIRM:
            interruptions.confirm(transition, InterruptionKind.SPEECH, data.user.interim)
        case Due.DISMISS:
            interruptions.dismiss(transition)
        case Due.RECORD:
            assert data.bot.cut is not None
            transition.error(
                "The output did not report the heard part of a cut response within 1 s. The history contains "
                "nothing of it."
            )
            responses.cut_recorded(transition, data.bot.cut.response.number, 0.0, "")
        case Due.CLOSING:
            lifecycle.close(transition, "closing", now=True)
        case Due.KEEP_ALIVE:
            state.kept_alive_ns = transition.now
            transition.do(KeepAlive())
        case Due.TURN_OVER:
            pass  # `step` ends the turn after every event.


def _idle(transition: Transition) -> None:
    data, state = transition.data, transition.data.lifecycle
    if state.idle_step >= len(data.settings.idle_ladder):
        lifecycle.close(transition, "idle")
        return
    step = data.settings.idle_ladder[state.idle_step]
    state.idle_step += 1
    transition.restart_idle_time()
    data.bot.queue = (*data.bot.queue, Speech(SpeechKind.PROMPT, step.say))


def _no_response(transition: Transition) -> None:
    """Give up a response that was silent for too long, and apologise."""
    data = transition.data
    response = data.bot.response
    assert response is not None
    transition.error(f"Nothing was heard of response {response.number} for {_response_limit_s(data) or 0:g} s.")
    responses.give_up(transition, "response time-out", failed=True)
    responses.apologise(transition, response)


def _no_transcript(transition: Transition) -> None:
    """Handle speech whose transcript is overdue."""
    data, user = transition.data, transition.data.user
    timeout_ms = data.settings.endpointing.transcript_timeout_ms
    overdue = [
        one
        for one in user.utterances
        if one.fate is not Fate.LATE
        and one.stopped_ns is not None
        and one.stopped_ns + _ms(timeout_ms) <= transition.now
    ]
    kept = any(one.fate is Fate.KEPT for one in overdue)
    if kept:
        transition.error(f"The STT has said nothing within {timeout_ms:g} ms after the user spoke. Is it alive?")
    over_bot = data.bot.answer is not None
    if kept and not over_bot and (user.turn.words or data.settings.answer_unclear):
        # A transcript that comes later joins this turn.
        turns.force_end(transition)
        return
    user.utterances = tuple(one for one in user.utterances if one not in overdue)
    if user.words_awaited:
        return
    if kept and not over_bot and not user.turn:
        responses.apologise(transition)
    if not over_bot and not user.turn:
        turns.forget(transition)
    interruptions.dismiss(transition)


def _s(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def _ms(ms: float) -> int:
    return round(ms * NS_PER_MS)

"""What is due when: every time-out and limit of a session, as a function of what it knows.

Nothing here is stored. A limit that `Session.update` changes counts from the same moment as before, and a session has
one timer, for the first of all.
"""

from __future__ import annotations

import enum
from collections.abc import Iterator

from ...pipeline.clock import NS_PER_MS, NS_PER_S
from . import interruptions, lifecycle, responses, turns
from .data import Fate, InterruptionKind, SessionData, Speech, SpeechKind
from .speech_intent import Gate, judge
from .transition import KeepAlive, Step


class Due(enum.Enum):
    """What can be due."""

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
"""How long an output may take to say what was heard of what was cut; the ones of voxline do it in the same step."""


def deadlines(s: SessionData) -> Iterator[tuple[int, Due]]:
    """What is due when, in no order."""
    rules = s.settings
    if s.closed_ns is not None or s.started_ns is None:
        return
    if s.ending is not None and s.cut is None:
        yield s.ending.since_ns + _s(rules.closing_timeout_s), Due.CLOSING
    if not s.connected and s.ending is None:
        yield s.away_ns + _s(rules.connection_timeout_s), Due.CONNECTION
    if s.cut is not None:
        yield s.cut.decided_ns + RECORD_NS, Due.RECORD
    if rules.keep_alive_s is not None and s.connected:
        yield s.kept_alive_ns + _s(rules.keep_alive_s), Due.KEEP_ALIVE
    if s.connected_ns is not None and rules.max_duration_s is not None and s.ending is None:
        yield s.connected_ns + _s(rules.max_duration_s), Due.DURATION
    if s.connected and s.paused_ns is None:
        yield from _of_the_bot(s)
        if s.ending is None:
            yield from _of_the_user(s)


def _of_the_bot(s: SessionData) -> Iterator[tuple[int, Due]]:
    rules, response = s.settings, s.answer
    waits = response is not None and not response.playing and s.tentative is None
    if response is not None and waits and (limit_s := _patience_s(s)) is not None:
        yield response.since_ns + _s(limit_s), Due.RESPONSE
    silent = s.free and not s.turn and not s.user_speaking and not s.awaited and not s.queue
    if silent and s.ending is None:
        ladder = rules.idle_ladder
        if s.idle_step < len(ladder):
            yield s.idle_ns + _s(ladder[s.idle_step].after_s), Due.IDLE
        elif rules.idle_timeout_s is not None:
            yield s.idle_ns + _s(rules.idle_timeout_s), Due.IDLE


def _patience_s(s: SessionData) -> float | None:
    """How long nothing may be heard of the response under way. Less where something has failed in it."""
    rules = s.settings
    limits_s = [rules.response_timeout_s]
    if s.response is not None and s.response.failed:
        limits_s.append(rules.error_timeout_s)
    return min((limit_s for limit_s in limits_s if limit_s is not None), default=None)


def _of_the_user(s: SessionData) -> Iterator[tuple[int, Due]]:
    ends, turn = s.settings.endpointing, s.turn
    over_bot = s.answer is not None
    start_ns = turn.start_ns
    if start_ns is None and s.user_speaking and s.utterances:
        # It began over the bot, or while nobody listened, and goes on.
        start_ns = s.utterances[-1].onset_ns
    begun = (turn and not turn.forced) or s.user_speaking
    if start_ns is not None and ends.turn_timeout_s is not None and not over_bot and begun:
        yield start_ns + _s(ends.turn_timeout_s), Due.TURN
    elif s.barged_in and not turn and ends.turn_timeout_s is not None:
        yield s.since_ns + _s(ends.turn_timeout_s), Due.TURN
    waiting = [one.stopped_ns for one in s.utterances if one.stopped_ns is not None and one.fate is not Fate.LATE]
    if waiting and not s.user_speaking:
        yield waiting[0] + _ms(ends.transcript_timeout_ms), Due.TRANSCRIPT
    elif s.interim and not s.turn and not s.awaited and not over_bot:
        # Of speech that nobody detected. What it seemed to be is not waited for any longer than that.
        yield s.interim_ns + _ms(ends.transcript_timeout_ms), Due.TRANSCRIPT
    over_ns = turns.over_ns(s)
    if over_ns is not None and (s.free or s.response is not None) and not over_bot:
        yield over_ns, Due.TURN_OVER
    if s.tentative is not None:
        yield from _of_the_tentative(s)
    elif turns.guessable(s) is not None and s.interim:
        yield s.interim_ns + _ms(s.settings.preemptive.stable_ms), Due.GUESS


def _of_the_tentative(s: SessionData) -> Iterator[tuple[int, Due]]:
    rules, tentative = s.settings.interruption, s.tentative
    assert tentative is not None
    if s.user_speaking:
        if judge(rules, s.interim, None) is Gate.BACKCHANNEL:
            # Noise, perhaps, after the "yeah": the bot does not wait for its end.
            yield max(tentative.since_ns, s.interim_ns) + _ms(rules.false_timeout_ms), Due.DISMISS
        else:
            enough_ms = rules.speech_alone_ms if rules.min_words else rules.min_speech_ms
            yield tentative.onset_ns + _ms(enough_ms), Due.CONFIRM
        return
    stopped = [one.stopped_ns for one in s.utterances if one.stopped_ns is not None]
    yield max(tentative.since_ns, *stopped, 0) + _ms(rules.false_timeout_ms), Due.DISMISS


def next_ns(s: SessionData) -> int | None:
    """When the first of all is due."""
    return min((at for at, _ in deadlines(s)), default=None)


# --- what happens then -----------------------------------------------------------------------------------------------


def run_due(st: Step) -> None:
    """Do what is due by now, one at a time: each may change what else is."""
    for due in Due:
        if any(at <= st.now and which is due for at, which in deadlines(st.s)):
            if due is not Due.TURN_OVER or st.event == "TimeFrame":
                st.event = f"{due.value} time-out" if due not in (Due.TURN_OVER, Due.GUESS) else due.value
            _fall_due(st, due)
            st.move()


def _fall_due(st: Step, due: Due) -> None:
    s = st.s
    match due:
        case Due.CONNECTION:
            st.error(f"No client connected within {s.settings.connection_timeout_s:g} s.")
            first = s.connected_ns is None
            lifecycle.close(st, "connection" if first else "disconnected", "", failed=first)
        case Due.DURATION:
            lifecycle.close(st, "duration")
        case Due.IDLE:
            _idle(st)
        case Due.RESPONSE:
            _no_response(st)
        case Due.TURN:
            turns.force(st)
        case Due.TRANSCRIPT:
            _no_transcript(st)
        case Due.GUESS:
            turns.guess(st)
        case Due.CONFIRM:
            interruptions.confirm(st, InterruptionKind.SPEECH, s.interim)
        case Due.DISMISS:
            interruptions.dismiss(st)
        case Due.RECORD:
            assert s.cut is not None
            st.error("The output has not said what was heard of a response that was cut; nothing, for the history.")
            responses.cut_recorded(st, s.cut.response.number, 0.0, "")
        case Due.CLOSING:
            lifecycle.close(st, "closing", now=True)
        case Due.KEEP_ALIVE:
            s.kept_alive_ns = st.now
            st.do(KeepAlive())
        case Due.TURN_OVER:
            pass  # Seen to at the end of every step.


def _idle(st: Step) -> None:
    s = st.s
    if s.idle_step >= len(s.settings.idle_ladder):
        lifecycle.close(st, "idle")
        return
    step = s.settings.idle_ladder[s.idle_step]
    s.idle_step += 1
    st.quiet()
    s.queue = (*s.queue, Speech(SpeechKind.PROMPT, step.say))


def _no_response(st: Step) -> None:
    """Nothing was heard of an answer for too long: give it up, and say so where that is wanted."""
    s = st.s
    response = s.response
    assert response is not None
    st.error(f"Nothing was heard of response {response.number} for {_patience_s(s) or 0:g} s.")
    responses.give_up(st, "response time-out", failed=True)
    responses.apologise(st, response)


def _no_transcript(st: Step) -> None:
    """The recogniser says nothing about speech that it heard."""
    s = st.s
    timeout_ms = s.settings.endpointing.transcript_timeout_ms
    overdue = [
        one
        for one in s.utterances
        if one.fate is not Fate.LATE and one.stopped_ns is not None and one.stopped_ns + _ms(timeout_ms) <= st.now
    ]
    kept = any(one.fate is Fate.KEPT for one in overdue)
    if kept:
        st.error(f"The STT has said nothing within {timeout_ms:g} ms after the user spoke. Is it alive?")
    over_bot = s.answer is not None
    if kept and not over_bot and (s.turn.words or s.settings.answer_unclear):
        # Should they come nevertheless, they join their turn.
        turns.force(st)
        return
    s.utterances = tuple(one for one in s.utterances if one not in overdue)
    if s.awaited:
        return
    if kept and not over_bot and not s.turn:
        responses.apologise(st)
    if not over_bot and not s.turn:
        turns.forget(st)
    interruptions.dismiss(st)


def _s(seconds: float) -> int:
    return round(seconds * NS_PER_S)


def _ms(ms: float) -> int:
    return round(ms * NS_PER_MS)

"""A session's life: it starts, its client comes and goes, it is paused, it closes."""

from __future__ import annotations

from dataclasses import replace

from . import interruptions, responses, turns
from .data import Ending, Fate, OpenTurn, Speech, SpeechKind, SpeechOutcome
from .transition import End, Listen, Step


def start(st: Step, created_ns: int) -> None:
    """The pipeline runs."""
    s = st.s
    if s.started_ns is not None:
        return
    s.created_ns = created_ns
    s.started_ns = s.away_ns = s.kept_alive_ns = s.active_ns = st.now
    if s.settings.greeting:
        s.queue = (Speech(SpeechKind.GREETING, s.settings.greeting), *s.queue)
    st.move()
    if not s.settings.wait_for_client or s.connected_ns is not None:
        connect(st)


def connect(st: Step) -> None:
    """The client is there, for the first time or again."""
    s = st.s
    if s.connected:
        return
    if s.connected_ns is None:
        s.connected_ns = st.now
    if s.started_ns is None:
        # A transport that was quicker: it counts when the pipeline runs.
        return
    s.connected = True
    st.active()
    st.quiet()


def disconnect(st: Step, reason: str) -> None:
    """The client is gone: nobody hears the bot, so what it says is given up."""
    s = st.s
    if s.started_ns is None:
        s.connected_ns = None
    if not s.connected:
        return
    s.connected, s.away_ns = False, st.now
    _forget_user(st)
    turns.drop_guess(st)
    responses.give_up(st, reason or "the client is gone")
    if s.settings.wait_for_client or s.announced:
        # A transport that tells when its client comes ends the conversation when it does not come back.
        return
    close(st, "disconnected", "")


def _forget_user(st: Step) -> None:
    s = st.s
    st.resolve(s.turn.handles, SpeechOutcome.DROPPED)
    if s.turn.words:
        # Nobody will answer it, but it was said.
        turns.write_down(st)
    s.turn, s.utterances, s.user_speaking, s.barged_in, s.interim = OpenTurn(), (), False, False, ""
    s.tentative, s.pieces = None, ()


# --- pausing, and listening ------------------------------------------------------------------------------------------


def pause(st: Step) -> None:
    """Both sides wait."""
    s = st.s
    if s.paused_ns is None and s.ending is None:
        s.paused_ns = st.now
        _stop_hearing(st)
        st.do(Listen(False))


def resume(st: Step) -> None:
    """Go on. What was counted goes on from where it stood: the pause does not count."""
    s = st.s
    if s.paused_ns is None:
        return
    paused_ns, s.paused_ns = s.paused_ns, None

    def later(ns: int) -> int:
        """What was during the pause is now."""
        return ns + st.now - max(ns, paused_ns)

    s.idle_ns = later(s.idle_ns)
    if s.response is not None:
        s.response = replace(s.response, since_ns=later(s.response.since_ns))
    if s.turn.start_ns is not None:
        s.turn = replace(s.turn, start_ns=later(s.turn.start_ns))
    if s.speech_end_ns is not None:
        s.speech_end_ns = later(s.speech_end_ns)
    if s.final_ns is not None:
        s.final_ns = later(s.final_ns)
    s.utterances = tuple(
        one if one.stopped_ns is None else replace(one, stopped_ns=later(one.stopped_ns)) for one in s.utterances
    )
    if s.listening:
        st.do(Listen(True))


def listen(st: Step, *, on: bool) -> None:
    """Listen to the user, or do not. What they were saying when it went off is not taken."""
    s = st.s
    if s.listening is on:
        return
    s.listening = on
    if not on:
        _stop_hearing(st)
    if s.paused_ns is None:
        st.do(Listen(on))


def _stop_hearing(st: Step) -> None:
    """What was said before counts; what is being said does not."""
    s = st.s
    if s.user_speaking:
        s.user_speaking = False
        s.utterances = tuple(
            one if one.stopped_ns is not None else replace(one, fate=Fate.DROPPED, stopped_ns=st.now)
            for one in s.utterances
        )
        s.speech_end_ns = st.now
        if not s.turn and not s.awaited:
            turns.forget(st)
    interruptions.ignore_pieces(st)
    s.tentative = None


# --- the end ---------------------------------------------------------------------------------------------------------


def close(st: Step, reason: str, goodbye: str | None = None, *, now: bool = False, failed: bool = False) -> None:
    """Begin to end: what is being said is played, then a goodbye, and nothing new is taken."""
    s = st.s
    if s.closed_ns is not None:
        return
    if s.ending is None:
        words = s.settings.goodbyes.get(reason, "") if goodbye is None else goodbye
        s.ending = Ending(reason, st.now, "" if now or not s.connected else words, failed)
        turns.drop_guess(st)
        _forget_user(st)
        s.paused_ns = None
    if now:
        s.ending = replace(s.ending, goodbye="")
        st.drop_queue(all_of_it=True)
        responses.give_up(st, reason)


def stop(st: Step, reason: str, *, failed: bool = False) -> None:
    """The pipeline has ended; the session with it."""
    s = st.s
    if s.closed_ns is not None:
        return
    if s.ending is None:
        s.ending = Ending("hung up" if s.input_ended and not failed else reason, st.now, failed=failed)
    elif failed:
        s.ending = replace(s.ending, failed=True)
    finish(st)


def finish(st: Step) -> None:
    """It is over. Whoever waits for a speech is told."""
    s = st.s
    assert s.ending is not None
    responses.give_up(st, s.ending.reason)
    if s.cut is not None:
        # Nobody will tell any more what was heard of it.
        responses.cut_recorded(st, s.cut.response.number, 0.0, "")
    st.drop_queue(all_of_it=True)
    _forget_user(st)
    s.closed_ns = st.now
    st.do(End(s.ending.reason))

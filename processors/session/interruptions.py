"""What the user says, and what that means while the bot speaks: barge-in, backchannels, and speech while muted.

An interruption is tentative first. When the user begins to speak, the output is silenced at once; then words, or the
length of the speech, decide: the bot is cut, or goes on with the very next sample.
"""

from __future__ import annotations

from dataclasses import replace

from ...pipeline.clock import NS_PER_MS
from . import responses, turns
from .data import Fate, InterruptionKind, SessionData, Tentative, Utterance
from .events import InterruptionDismissed, SpeechIgnored
from .speech_intent import Gate, judge
from .transition import Step

UTTERANCES = 8
"""How many utterances may wait for their words. A recogniser that is further behind has lost them."""


# --- the user begins and stops ---------------------------------------------------------------------------------------


def speech_began(st: Step, onset_ms: float) -> None:
    """The user speaks."""
    s = st.s
    if s.user_speaking or not s.connected:
        return
    onset_ns = st.now - round(onset_ms * NS_PER_MS)
    fate = Fate.DROPPED if not s.hears else Fate.MUTED if s.muted else Fate.KEPT
    s.user_speaking = True
    s.utterances = (*s.utterances, Utterance(fate, onset_ns))[-UTTERANCES:]
    if fate is not Fate.KEPT:
        return
    st.active()
    s.idle_step = 0
    if s.speech_end_ns is not None and s.turn:
        _learn_pause(s, s.speech_end_ns, onset_ns)
    s.speech_end_ns = s.probability = None
    s.interim = ""
    response = s.answer
    if response is None:
        s.turn = replace(s.turn, start_ns=onset_ns if s.turn.start_ns is None else s.turn.start_ns)
        return
    if response.playing and response.begun_ns is not None:
        grace_ns = round(s.settings.interruption.grace_ms * NS_PER_MS)
        # What began before the bot did is no echo of it.
        if 0 <= onset_ns - response.begun_ns < grace_ns:
            return
    s.tentative = Tentative(response.number, st.now, onset_ns)


def _learn_pause(s: SessionData, began_ns: int, ended_ns: int) -> None:
    """A silence was a pause, and not the end of the turn."""
    if ended_ns > began_ns:
        s.pauses = s.pauses.plus((ended_ns - began_ns) / NS_PER_MS)


def speech_ended(st: Step, silence_ms: float) -> None:
    """The user is silent."""
    s = st.s
    if not s.user_speaking:
        return
    s.user_speaking = False
    end_ns = st.now - round(silence_ms * NS_PER_MS)
    if not s.utterances:
        return
    # Words that are later than this are lost: what comes now is of this utterance.
    *before, newest = (one for one in s.utterances if one.fate is not Fate.LATE or one is s.utterances[-1])
    fate = newest.fate
    if fate is Fate.MUTED:
        fate = Fate.DROPPED if s.muted or not s.hears else Fate.KEPT
        if fate is Fate.KEPT and s.turn.start_ns is None:
            s.turn = replace(s.turn, start_ns=newest.onset_ns)
    if fate is Fate.KEPT:
        s.speech_end_ns = end_ns
        st.active()
        st.quiet()
    words_ns = newest.words_ns
    if fate is Fate.KEPT and words_ns is not None and words_ns >= end_ns and (s.turn or s.tentative is not None):
        # A recogniser with an endpointing of its own was quicker: its words are here already, and judged.
        s.utterances = tuple(before)
        if not s.awaited:
            dismiss(st)
        return
    s.utterances = (*before, replace(newest, fate=fate, stopped_ns=st.now))


# --- words -----------------------------------------------------------------------------------------------------------


def interim(st: Step, text: str) -> None:
    """What the user seems to be saying. Enough to know that they want the turn, or to begin a guess."""
    s = st.s
    utterance = next((one for one in s.utterances if one.fate is not Fate.LATE), None)
    if not s.hears or s.muted or (utterance is not None and utterance.fate is not Fate.KEPT):
        return
    if text != s.interim:
        s.interim, s.interim_ns = text, st.now
    if s.answer is not None:
        _decide(st, text, utterance, final=False)
    else:
        turns.check_guess(st)


def transcript(st: Step, text: str, audio_ms: float, *, more: bool = False) -> bool:
    """What the user said. ``more``: that is a piece, and there is more of the same utterance to come.

    False where nobody waits for it: nobody listened when they said it, or their turn was ended without it.
    """
    s = st.s
    utterance = _take_utterance(st, more=more)
    fate = utterance.fate if utterance is not None else None
    if fate is Fate.LATE:
        if text and s.ending is None:
            turns.join(st, text)
        return False
    if s.ending is not None or (fate is not Fate.KEPT and (fate is Fate.DROPPED or not s.hears or s.muted)):
        if text:
            _ignore(st, text, "muted" if s.hears else "nobody listens")
        return False
    s.interim = ""
    st.active()
    s.idle_step = 0
    if utterance is not None and text and s.turn.start_ns is None and s.answer is None:
        s.turn = replace(s.turn, start_ns=utterance.onset_ns)
    if s.answer is not None:
        _decide(st, text, utterance, final=True, audio_ms=audio_ms)
    elif text:
        s.final_ns = st.now
        turns.add(st, text, audio_ms=audio_ms)
        turns.check_guess(st)
    elif not s.awaited and not s.user_speaking:
        _not_understood(st)
    return utterance is not None


def _take_utterance(st: Step, *, more: bool) -> Utterance | None:
    """The utterance whose words have come; None where nobody detects speech."""
    s = st.s
    # What is so late will not come any more: these are the words of another one.
    late_ns = st.now - round(2 * s.settings.endpointing.transcript_timeout_ms * NS_PER_MS)
    s.utterances = tuple(one for one in s.utterances if one.late_ns is None or one.late_ns >= late_ns)
    if not s.utterances:
        return None
    first = s.utterances[0]
    if more:
        return first
    if first.stopped_ns is not None or first.fate is Fate.LATE:
        s.utterances = s.utterances[1:]
    else:
        # It goes on: this is a piece of it, and there will be more.
        s.utterances = (replace(first, words_ns=st.now), *s.utterances[1:])
    return first


def _not_understood(st: Step) -> None:
    """Speech without a word. A turn of its own where that is wanted, if nothing else was said."""
    s = st.s
    if s.turn.words:
        return
    if s.settings.answer_unclear:
        s.final_ns = st.now
        s.turn = replace(s.turn, unclear=True, start_ns=st.now if s.turn.start_ns is None else s.turn.start_ns)
    else:
        turns.forget(st)


# --- the decision ----------------------------------------------------------------------------------------------------


def _decide(st: Step, text: str, utterance: Utterance | None, *, final: bool, audio_ms: float = 0.0) -> None:
    """Words over the bot: is it cut, or does it go on?"""
    s = st.s
    response = s.response
    assert response is not None
    words = " ".join(filter(None, [*(said for said, _ in s.pieces), text]))
    gate = judge(s.settings.interruption, words, _speech_ms(st))
    unheard = response.begun_ns is None
    if unheard and (gate in (Gate.SHORT, Gate.FEW) or (gate is Gate.BACKCHANNEL and final)):
        # The bot has not said anything: the user is not over it, their turn goes on.
        gate = Gate.SPEECH
    match gate:
        case Gate.REQUEST | Gate.SPEECH:
            kind = InterruptionKind.REQUEST if gate is Gate.REQUEST and not unheard else InterruptionKind.SPEECH
            confirm(st, kind, words, utterance.onset_ns if utterance is not None else None)
            take_pieces(st)
            if final:
                s.final_ns = st.now
                turns.add(st, text, audio_ms=audio_ms)
        case _ if final and not s.user_speaking and not s.awaited:
            dismiss(st)
            if text:
                _ignore(st, text, gate.value)
        case _ if final and text:
            # More is to come: it may be the beginning of something.
            s.pieces = (*s.pieces, (text, audio_ms))
        case _:
            pass


def take_pieces(st: Step) -> None:
    """What was said over the bot so far is the user's turn: the bot is cut, or was done before it was decided."""
    s = st.s
    pieces, s.pieces = s.pieces, ()
    for text, audio_ms in pieces:
        s.final_ns = st.now
        turns.add(st, text, audio_ms=audio_ms)


def ignore_pieces(st: Step) -> None:
    """It is nothing."""
    s = st.s
    pieces, s.pieces = s.pieces, ()
    gate = judge(s.settings.interruption, " ".join(text for text, _ in pieces), _speech_ms(st))
    for text, _ in pieces:
        _ignore(st, text, gate.value)


def _speech_ms(st: Step) -> float | None:
    """The length of the speech over the bot; None where nobody measures it."""
    s = st.s
    if s.tentative is None:
        return None
    end_ns = s.speech_end_ns if s.speech_end_ns is not None else st.now
    return (end_ns - s.tentative.onset_ns) / NS_PER_MS


def confirm(st: Step, kind: InterruptionKind, text: str = "", onset_ns: int | None = None) -> None:
    """It is an interruption: the bot is cut. Where nothing of it was heard yet, the user's turn goes on instead."""
    s = st.s
    response = s.response
    assert response is not None
    if s.tentative is not None:
        onset_ns = s.tentative.onset_ns
    elif onset_ns is None:
        onset_ns = st.now
    if response.begun_ns is None and not response.tools and turns.reopen(st, response) and s.turn.again is not None:
        _learn_pause(s, s.turn.again.end_ns, onset_ns)
    if kind is not InterruptionKind.MANUAL:
        s.barged_in = True
        s.turn = replace(s.turn, start_ns=onset_ns if s.turn.start_ns is None else s.turn.start_ns)
    responses.cut(st, kind, REASONS[kind], text)


REASONS = {
    InterruptionKind.SPEECH: "the user spoke",
    InterruptionKind.REQUEST: "the user asked for it",
    InterruptionKind.MANUAL: "interrupted",
}


def dismiss(st: Step) -> None:
    """It was none: the bot goes on where it was silenced."""
    s = st.s
    ignore_pieces(st)
    s.interim = ""
    if s.tentative is None:
        return
    s.counts = replace(s.counts, false_interruptions=s.counts.false_interruptions + 1)
    st.tell(InterruptionDismissed(st.now, st.ms_since(s.tentative.since_ns)))
    s.tentative = None
    s.speech_end_ns = None
    if s.response is not None:
        # It has been silent for want of nothing: the time does not count against it.
        s.response = replace(s.response, since_ns=st.now)


def _ignore(st: Step, text: str, why: str) -> None:
    st.s.counts = replace(st.s.counts, ignored=st.s.counts.ignored + 1)
    st.tell(SpeechIgnored(st.now, text, why))


def button(st: Step, reason: str) -> None:
    """A client's button, or code: cut the bot, and what waits to be said."""
    response = st.s.response
    if response is None:
        st.drop_queue()
        return
    if response.guess is not None:
        turns.drop_guess(st)
        return
    responses.cut(st, InterruptionKind.MANUAL, reason)

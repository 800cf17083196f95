"""Rules for the user's speech and words: interruptions, backchannels, and speech while muted.

An interruption is tentative first. The start of the user's speech pauses the output at once. Then the words, or the
length of the speech, decide: the bot is cut, or continues with the very next sample.
"""

from __future__ import annotations

from dataclasses import replace

from ...pipeline.clock import NS_PER_MS
from . import responses, turns
from .data import Fate, InterruptionKind, PendingUtterance, Tentative, UserData
from .events import InterruptionDismissed, SpeechIgnored
from .speech_intent import SpeechIntent, classify
from .transition import Transition

MAX_UTTERANCES = 8
"""Limit for utterances that wait for their transcript. A recogniser that is further behind has lost them."""


# --- start and end of speech -----------------------------------------------------------------------------------------


def speech_started(transition: Transition, onset_ms: float) -> None:
    """Start an utterance, and pause the bot if it speaks. ``onset_ms``: age of the first sound."""
    data, user = transition.data, transition.data.user
    if user.speaking or not data.lifecycle.connected:
        return
    onset_ns = transition.now - round(onset_ms * NS_PER_MS)
    fate = Fate.DROPPED if not data.hears else Fate.MUTED if data.muted else Fate.KEPT
    user.speaking = True
    user.utterances = (*user.utterances, PendingUtterance(fate, onset_ns))[-MAX_UTTERANCES:]
    if fate is not Fate.KEPT:
        return
    transition.note_activity()
    data.lifecycle.idle_step = 0
    if user.speech_end_ns is not None and user.turn:
        _learn_pause(user, user.speech_end_ns, onset_ns)
    user.speech_end_ns = user.turn_probability = None
    user.interim = ""
    response = data.bot.answer
    if response is None:
        user.turn = replace(user.turn, start_ns=onset_ns if user.turn.start_ns is None else user.turn.start_ns)
        return
    if response.playing and response.first_sample_ns is not None:
        grace_ns = round(data.settings.interruption.grace_ms * NS_PER_MS)
        # Speech that started before the bot's first sample is no echo of it.
        if 0 <= onset_ns - response.first_sample_ns < grace_ns:
            return
    data.bot.tentative = Tentative(response.number, transition.now, onset_ns)


def _learn_pause(user: UserData, start_ns: int, end_ns: int) -> None:
    """Add a silence within a turn to the pause estimator."""
    if end_ns > start_ns:
        user.pauses = user.pauses.plus((end_ns - start_ns) / NS_PER_MS)


def speech_stopped(transition: Transition, silence_ms: float) -> None:
    """End the current utterance. ``silence_ms``: the silence that the detector waited for."""
    data, user = transition.data, transition.data.user
    if not user.speaking:
        return
    user.speaking = False
    end_ns = transition.now - round(silence_ms * NS_PER_MS)
    if not user.utterances:
        return
    # Forget late utterances: the next transcript belongs to this one.
    *before, newest = (one for one in user.utterances if one.fate is not Fate.LATE or one is user.utterances[-1])
    fate = newest.fate
    if fate is Fate.MUTED:
        fate = Fate.DROPPED if data.muted or not data.hears else Fate.KEPT
        if fate is Fate.KEPT and user.turn.start_ns is None:
            user.turn = replace(user.turn, start_ns=newest.onset_ns)
    if fate is Fate.KEPT:
        user.speech_end_ns = end_ns
        transition.note_activity()
        transition.restart_idle_time()
    words_ns = newest.words_ns
    undecided = data.bot.tentative is not None
    if fate is Fate.KEPT and words_ns is not None and words_ns >= end_ns and (user.turn or undecided):
        # A recogniser with its own endpointing was quicker: the words are here, and were classified.
        user.utterances = tuple(before)
        if not user.words_awaited:
            dismiss(transition)
        return
    user.utterances = (*before, replace(newest, fate=fate, stopped_ns=transition.now))


# --- words -----------------------------------------------------------------------------------------------------------


def interim(transition: Transition, text: str) -> None:
    """Take an interim transcript: it may confirm an interruption, or start a guess."""
    data, user = transition.data, transition.data.user
    utterance = next((one for one in user.utterances if one.fate is not Fate.LATE), None)
    if not data.hears or data.muted or (utterance is not None and utterance.fate is not Fate.KEPT):
        return
    if text != user.interim:
        user.interim, user.interim_ns = text, transition.now
    if data.bot.answer is not None:
        _decide(transition, text, utterance, final=False)
    else:
        turns.check_guess(transition)


def transcript(transition: Transition, text: str, audio_ms: float, *, more: bool = False) -> bool:
    """Take a final transcript. ``more``: a part of an utterance, with more parts to come.

    Returns False if no turn waits for the words: nobody listened to them, or their turn ended without them.
    """
    data, user = transition.data, transition.data.user
    utterance = _take_utterance(transition, more=more)
    fate = utterance.fate if utterance is not None else None
    ending = data.lifecycle.ending is not None
    if fate is Fate.LATE:
        if text and not ending:
            turns.join(transition, text)
        return False
    if ending or (fate is not Fate.KEPT and (fate is Fate.DROPPED or not data.hears or data.muted)):
        if text:
            _ignore(transition, text, "muted" if data.hears else "nobody listens")
        return False
    user.interim = ""
    transition.note_activity()
    data.lifecycle.idle_step = 0
    if utterance is not None and text and user.turn.start_ns is None and data.bot.answer is None:
        user.turn = replace(user.turn, start_ns=utterance.onset_ns)
    if data.bot.answer is not None:
        _decide(transition, text, utterance, final=True, audio_ms=audio_ms)
    elif text:
        user.final_ns = transition.now
        turns.add(transition, text, audio_ms=audio_ms)
        turns.check_guess(transition)
    elif not user.words_awaited and not user.speaking:
        _not_understood(transition)
    return utterance is not None


def _take_utterance(transition: Transition, *, more: bool) -> PendingUtterance | None:
    """Return the utterance that a transcript belongs to; None if no detector reported one."""
    data, user = transition.data, transition.data.user
    # Past this age a transcript is treated as lost: the next one belongs to another utterance.
    late_ns = transition.now - round(2 * data.settings.endpointing.transcript_timeout_ms * NS_PER_MS)
    user.utterances = tuple(one for one in user.utterances if one.late_ns is None or one.late_ns >= late_ns)
    if not user.utterances:
        return None
    first = user.utterances[0]
    if more:
        return first
    if first.stopped_ns is not None or first.fate is Fate.LATE:
        user.utterances = user.utterances[1:]
    else:
        # The user still speaks: this is a part of the utterance, and more parts will follow.
        user.utterances = (replace(first, words_ns=transition.now), *user.utterances[1:])
    return first


def _not_understood(transition: Transition) -> None:
    """Handle speech without an intelligible word: an empty turn if the settings ask for one, otherwise no turn."""
    user = transition.data.user
    if user.turn.words:
        return
    if transition.data.settings.answer_unclear:
        user.final_ns = transition.now
        start_ns = transition.now if user.turn.start_ns is None else user.turn.start_ns
        user.turn = replace(user.turn, unclear=True, start_ns=start_ns)
    else:
        turns.forget(transition)


# --- the decision ----------------------------------------------------------------------------------------------------


def _decide(
    transition: Transition, text: str, utterance: PendingUtterance | None, *, final: bool, audio_ms: float = 0.0
) -> None:
    """Decide from words over the bot whether to cut it, to let it continue, or to wait for more words."""
    data, user = transition.data, transition.data.user
    response = data.bot.response
    assert response is not None
    words = " ".join(filter(None, [*(said for said, _ in user.overlap), text]))
    intent = classify(data.settings.interruption, words, _speech_ms(transition))
    unheard = response.first_sample_ns is None
    too_little = intent in (SpeechIntent.SHORT, SpeechIntent.FEW)
    if unheard and (too_little or (intent is SpeechIntent.BACKCHANNEL and final)):
        # The bot has not said anything, so the user does not talk over it: their turn continues.
        intent = SpeechIntent.SPEECH
    match intent:
        case SpeechIntent.REQUEST | SpeechIntent.SPEECH:
            request = intent is SpeechIntent.REQUEST and not unheard
            kind = InterruptionKind.REQUEST if request else InterruptionKind.SPEECH
            confirm(transition, kind, words, utterance.onset_ns if utterance is not None else None)
            take_overlap(transition)
            if final:
                user.final_ns = transition.now
                turns.add(transition, text, audio_ms=audio_ms)
        case _ if final and not user.speaking and not user.words_awaited:
            dismiss(transition)
            if text:
                _ignore(transition, text, intent.value)
        case _ if final and text:
            # More words are to come: these may be the start of a sentence that interrupts.
            user.overlap = (*user.overlap, (text, audio_ms))
        case _:
            pass


def take_overlap(transition: Transition) -> None:
    """Move the words over the bot to the user's turn: the bot was cut, or ended before the decision."""
    user = transition.data.user
    overlap, user.overlap = user.overlap, ()
    for text, audio_ms in overlap:
        user.final_ns = transition.now
        turns.add(transition, text, audio_ms=audio_ms)


def ignore_overlap(transition: Transition) -> None:
    """Drop the words over the bot: they are no interruption."""
    user = transition.data.user
    overlap, user.overlap = user.overlap, ()
    words = " ".join(text for text, _ in overlap)
    intent = classify(transition.data.settings.interruption, words, _speech_ms(transition))
    for text, _ in overlap:
        _ignore(transition, text, intent.value)


def _speech_ms(transition: Transition) -> float | None:
    """Return the length of the speech over the bot; None if no detector measured it."""
    data = transition.data
    if data.bot.tentative is None:
        return None
    end_ns = data.user.speech_end_ns if data.user.speech_end_ns is not None else transition.now
    return (end_ns - data.bot.tentative.onset_ns) / NS_PER_MS


def confirm(transition: Transition, kind: InterruptionKind, text: str = "", onset_ns: int | None = None) -> None:
    """Cut the bot. If nothing of its answer was heard, the user's turn that it answers continues."""
    data, user = transition.data, transition.data.user
    response = data.bot.response
    assert response is not None
    if data.bot.tentative is not None:
        onset_ns = data.bot.tentative.onset_ns
    elif onset_ns is None:
        onset_ns = transition.now
    if response.first_sample_ns is None and not response.tools:
        reopened = turns.reopen(transition, response)
        if reopened and user.turn.reopened is not None:
            _learn_pause(user, user.turn.reopened.end_ns, onset_ns)
    if kind is not InterruptionKind.MANUAL:
        user.barged_in = True
        user.turn = replace(user.turn, start_ns=onset_ns if user.turn.start_ns is None else user.turn.start_ns)
    responses.cut(transition, kind, REASONS[kind], text)


REASONS = {
    InterruptionKind.SPEECH: "the user spoke",
    InterruptionKind.REQUEST: "the user asked for it",
    InterruptionKind.MANUAL: "interrupted",
}


def dismiss(transition: Transition) -> None:
    """End a tentative interruption: the bot continues where it was paused."""
    data, user, bot = transition.data, transition.data.user, transition.data.bot
    ignore_overlap(transition)
    user.interim = ""
    if bot.tentative is None:
        return
    counts = data.history.counts
    data.history.counts = replace(counts, false_interruptions=counts.false_interruptions + 1)
    transition.tell(InterruptionDismissed(transition.now, transition.ms_since(bot.tentative.since_ns)))
    bot.tentative = None
    user.speech_end_ns = None
    if bot.response is not None:
        # The pause must not count against the response time-out.
        bot.response = replace(bot.response, since_ns=transition.now)


def _ignore(transition: Transition, text: str, why: str) -> None:
    history = transition.data.history
    history.counts = replace(history.counts, ignored=history.counts.ignored + 1)
    transition.tell(SpeechIgnored(transition.now, text, why))


def interrupt(transition: Transition, reason: str) -> None:
    """Cut the bot and drop its queue for a client's button or for code."""
    response = transition.data.bot.response
    if response is None:
        transition.drop_queue()
    elif response.guess is not None:
        turns.drop_guess(transition)
    else:
        responses.cut(transition, InterruptionKind.MANUAL, reason)

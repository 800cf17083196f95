"""Rules for the user's turns: collect their words, detect the end of the turn, ask for the answer, and guess ahead."""

from __future__ import annotations

from dataclasses import replace

from . import responses
from .data import Counts, Fate, InterruptionKind, OpenTurn, Response, SessionData, SpeechKind, Turn, TurnKind
from .endpointing import STRATEGIES, Evidence
from .events import UserSaid
from .speech_intent import agreement
from .transition import Cancel, Commit, Transition

GUESS_DROPPED = "not what was said after all"


def add(transition: Transition, text: str, *, typed: bool = False, audio_ms: float = 0.0, handle: int = 0) -> None:
    """Add words to the user's turn."""
    user = transition.data.user
    turn = user.turn
    user.turn = replace(
        turn,
        words=(*turn.words, text) if text else turn.words,
        start_ns=transition.now if turn.start_ns is None else turn.start_ns,
        audio_ms=turn.audio_ms + audio_ms,
        typed=turn.typed or typed,
        handles=(*turn.handles, handle) if handle else turn.handles,
    )
    limit = transition.data.settings.endpointing.turn_words
    if limit is not None and len(user.turn.text.split()) >= limit:
        force_end(transition)


def force_end(transition: Transition) -> None:
    """End a turn that lasts too long, with the words that are there."""
    data, user = transition.data, transition.data.user
    user.speaking = False
    # Ignored speech ends with the turn as well: the next turn does not wait for its words.
    user.utterances = tuple(
        one
        if one.fate is Fate.KEPT or one.stopped_ns is not None
        else replace(one, fate=Fate.DROPPED, stopped_ns=transition.now)
        for one in user.utterances
    )
    if not user.turn.words and not data.settings.answer_unclear:
        # Words that come later start a turn of their own.
        user.utterances = tuple(one for one in user.utterances if one.fate is not Fate.KEPT)
        forget(transition)
        return
    user.turn = replace(user.turn, forced=True, unclear=True)
    user.utterances = tuple(
        replace(one, fate=Fate.LATE, late_ns=transition.now) if one.fate is Fate.KEPT else one
        for one in user.utterances
    )


def forget(transition: Transition) -> None:
    """Discard the user's turn: it has no words."""
    user = transition.data.user
    drop_guess(transition)
    user.turn, user.interim, user.barged_in = OpenTurn(), "", False
    transition.restart_idle_time()


def lost(transition: Transition, *, counts: bool) -> None:
    """Report that every recogniser failed to transcribe an utterance. ``counts``: the session waited for its words."""
    data, user = transition.data, transition.data.user
    transition.error("What the user said is lost: every speech recogniser failed.", "STT")
    if not counts or user.turn.text or data.muted or not data.hears:
        return
    responses.apologise(transition)
    if user.turn and not user.speaking and any(speech.kind is SpeechKind.APOLOGY for speech in data.bot.queue):
        # The apology answers the empty turn; the model is not asked.
        forget(transition)


def reopen(transition: Transition, response: Response) -> bool:
    """Continue the newest turn, if it belongs to ``response`` and nothing of that answer was heard."""
    history, user = transition.data.history, transition.data.user
    last = history.turns[-1] if history.turns else None
    if (
        last is None
        or last.kind not in (TurnKind.USER_AUDIO, TurnKind.USER_TEXT)
        or last.response != response.number
        or response.speech is not None
    ):
        return False
    history.turns = history.turns[:-1]
    history.counts = _without(history.counts, last)
    turn = user.turn
    user.turn = replace(
        turn,
        words=(last.text, *turn.words) if last.text else turn.words,
        start_ns=last.start_ns,
        audio_ms=last.audio_ms + turn.audio_ms,
        reopened=last,
    )
    return True


def _without(counts: Counts, turn: Turn) -> Counts:
    counts = counts.plus_turn(turn.kind, -1)
    return replace(
        counts, user_audio_ms=counts.user_audio_ms - turn.audio_ms, user_chars=counts.user_chars - len(turn.text)
    )


def join(transition: Transition, text: str) -> None:
    """Add late words to the turn that ended without them, and not to the next turn."""
    history, response = transition.data.history, transition.data.bot.answer
    # Reopening would run the tools of the answer a second time.
    reopenable = response is not None and response.first_sample_ns is None and not response.tools
    if response is not None and reopenable and reopen(transition, response):
        responses.cut(transition, InterruptionKind.SPEECH, "the turn went on", text)
        add(transition, text)
        return
    for n in range(len(history.turns) - 1, -1, -1):
        turn = history.turns[n]
        if turn.kind is TurnKind.USER_AUDIO:
            # Its answer was heard and stays. The next request contains the words.
            changed = replace(turn, text=f"{turn.text} {text}".strip())
            history.turns = (*history.turns[:n], changed, *history.turns[n + 1 :])
            history.counts = replace(history.counts, user_chars=history.counts.user_chars + len(text))
            transition.tell(UserSaid(transition.now, changed))
            return
    add(transition, text)


# --- the end of a turn -----------------------------------------------------------------------------------------------


def end_ns(data: SessionData) -> int | None:
    """Return the time at which the turn ends if the user says no more; None while that is not known."""
    user, turn = data.user, data.user.turn
    if not turn or (turn.unclear and not turn.words and not data.settings.answer_unclear):
        return None
    if turn.forced or turn.typed:
        return 0
    if user.speaking or user.words_awaited:
        return None
    strategy = data.endpointing or STRATEGIES[data.settings.endpointing.strategy]
    final_ns = user.final_ns if user.final_ns is not None else 0
    evidence = Evidence(turn.text, user.speech_end_ns, final_ns, user.turn_probability, user.pauses)
    return strategy(data.settings.endpointing, evidence)


def record(transition: Transition) -> int:
    """Record the user's turn in the history. Returns its end, in ns."""
    user, history = transition.data.user, transition.data.history
    turn = user.turn
    kind = TurnKind.USER_TEXT if turn.typed else TurnKind.USER_AUDIO
    start_ns = transition.now if turn.start_ns is None else turn.start_ns
    spoken_ns = user.speech_end_ns if user.speech_end_ns is not None else user.final_ns
    stop_ns = spoken_ns if spoken_ns is not None and not turn.typed else transition.now
    number = turn.reopened.id if turn.reopened is not None else 0
    history.counts = replace(
        history.counts,
        user_audio_ms=history.counts.user_audio_ms + turn.audio_ms,
        user_chars=history.counts.user_chars + len(turn.text),
    )
    recorded = Turn(number, kind, start_ns, max(start_ns, stop_ns), turn.text, turn.audio_ms)
    transition.tell(UserSaid(transition.now, transition.record_turn(recorded)))
    if user.barged_in and history.interruptions:
        *before, newest = history.interruptions
        history.interruptions = (*before, replace(newest, user_text=turn.text))
    user.turn, user.interim, user.barged_in = OpenTurn(), "", False
    user.final_ns = user.turn_probability = None
    return recorded.end_ns


def end(transition: Transition) -> None:
    """End the user's turn: record it, and ask for the answer or release the guess."""
    data, bot, turn = transition.data, transition.data.bot, transition.data.user.turn
    # The user already repeated their words, so drop the apology for the lost ones.
    bot.queue = tuple(speech for speech in bot.queue if speech.kind is not SpeechKind.APOLOGY)
    asked_ns = record(transition)
    guessed = bot.response
    if guessed is not None and guessed.guess is not None:
        if not guessed.failed and agreement(guessed.guess, turn.text) >= data.settings.preemptive.agreement:
            _commit(transition, turn.handles, asked_ns)
            return
        drop_guess(transition)
    responses.ask(transition, handles=turn.handles, asked_ns=asked_ns)


# --- guesses ---------------------------------------------------------------------------------------------------------


def guessable(data: SessionData) -> str | None:
    """Return the words to guess an answer for; None if a guess is not allowed or not useful now."""
    rules, user = data.settings.preemptive, data.user
    turn = user.turn
    text = " ".join(filter(None, [turn.text, user.interim]))
    if (
        not rules.enabled
        or not text
        or not data.bot.free
        or data.bot.queue
        or not data.hears
        or data.muted
        # The last try is reserved for the silence after the speech, when the guess is most likely right.
        or turn.tries >= rules.max_tries - user.speaking
        or turn.typed
    ):
        return None
    return text


def guess(transition: Transition) -> None:
    """Ask for an answer before the turn ends, from the words so far."""
    data, user = transition.data, transition.data.user
    text = guessable(data)
    start_ns = user.turn.start_ns if user.turn.start_ns is not None else transition.now
    ends_ns = end_ns(data)
    if text is None or (ends_ns is not None and ends_ns <= transition.now):
        # A turn that ends in this step is answered without a guess.
        return
    limits = data.settings.preemptive
    if transition.ms_since(start_ns) > limits.max_speech_s * 1_000:
        # The turn only grows longer: make no further guess in it.
        user.turn = replace(user.turn, tries=limits.max_tries)
        return
    user.turn = replace(user.turn, tries=user.turn.tries + 1)
    data.history.counts = replace(data.history.counts, guesses=data.history.counts.guesses + 1)
    responses.ask(transition, guess=text)


def check_guess(transition: Transition) -> None:
    """Drop the guess if the newest words differ too much from it."""
    data, user = transition.data, transition.data.user
    response = data.bot.response
    if response is None or response.guess is None:
        return
    text = " ".join(filter(None, [user.turn.text, user.interim]))
    if agreement(response.guess, text) < data.settings.preemptive.agreement:
        drop_guess(transition)


def drop_guess(transition: Transition) -> None:
    """Cancel the guessed response, if there is one. Nothing of it was heard, so no interruption is recorded."""
    response = transition.data.bot.guess
    if response is not None:
        transition.data.bot.response = None
        transition.do(Cancel(response.number, GUESS_DROPPED))


def _commit(transition: Transition, handles: tuple[int, ...], asked_ns: int) -> None:
    """Release the guessed response as the answer to the turn."""
    bot, history = transition.data.bot, transition.data.history
    response = bot.response
    assert response is not None
    bot.response = replace(response, guess=None, handles=handles, asked_ns=asked_ns, since_ns=transition.now)
    history.counts = replace(history.counts, guesses_played=history.counts.guesses_played + 1)
    history.turns = (*history.turns[:-1], replace(history.turns[-1], response=response.number))
    transition.do(Commit(response.number))

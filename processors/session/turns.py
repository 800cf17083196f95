"""The user's turns: what was said is collected, and asked about when the turn is over."""

from __future__ import annotations

from dataclasses import replace

from . import responses
from .data import Counts, Fate, InterruptionKind, OpenTurn, Response, SessionData, SpeechKind, Turn, TurnKind
from .endpointing import STRATEGIES, Evidence
from .events import UserSaid
from .speech_intent import agreement
from .transition import Cancel, Commit, Step

FORGET = "not what was said after all"


def add(st: Step, text: str, *, typed: bool = False, audio_ms: float = 0.0, handle: int = 0) -> None:
    """More words of the user's turn."""
    turn = st.s.turn
    st.s.turn = replace(
        turn,
        words=(*turn.words, text) if text else turn.words,
        start_ns=st.now if turn.start_ns is None else turn.start_ns,
        audio_ms=turn.audio_ms + audio_ms,
        typed=turn.typed or typed,
        handles=(*turn.handles, handle) if handle else turn.handles,
    )
    words = st.s.settings.endpointing.turn_words
    if words is not None and len(st.s.turn.text.split()) >= words:
        force(st)


def force(st: Step) -> None:
    """The turn has gone on for too long: it is over, with the words that are there."""
    s = st.s
    s.user_speaking = False
    # What was not taken is over with the turn, too: its words are not waited for in the next.
    s.utterances = tuple(
        one
        if one.fate is Fate.KEPT or one.stopped_ns is not None
        else replace(one, fate=Fate.DROPPED, stopped_ns=st.now)
        for one in s.utterances
    )
    if not s.turn.words and not s.settings.answer_unclear:
        # Whatever comes of it later begins a turn of its own.
        s.utterances = tuple(one for one in s.utterances if one.fate is not Fate.KEPT)
        forget(st)
        return
    s.turn = replace(s.turn, forced=True, unclear=True)
    s.utterances = tuple(
        replace(one, fate=Fate.LATE, late_ns=st.now) if one.fate is Fate.KEPT else one for one in s.utterances
    )


def forget(st: Step) -> None:
    """There is no turn after all."""
    s = st.s
    drop_guess(st)
    s.turn, s.interim, s.barged_in = OpenTurn(), "", False
    st.quiet()


def lost(st: Step, *, counts: bool) -> None:
    """No recogniser could be asked what the user said. ``counts``: whether anybody listened to it."""
    s = st.s
    st.error("What the user said is lost: no speech recogniser could be asked.", "STT")
    if not counts or s.turn.text or s.muted or not s.hears:
        return
    responses.apologise(st)
    if s.turn and not s.user_speaking and any(speech.kind is SpeechKind.APOLOGY for speech in s.queue):
        # It is answered with that, and the model is not asked about nothing.
        forget(st)


def reopen(st: Step, response: Response) -> bool:
    """The newest turn has not ended after all, if nothing of its answer was heard: it goes on."""
    s = st.s
    last = s.turns[-1] if s.turns else None
    if (
        last is None
        or last.kind not in (TurnKind.USER_AUDIO, TurnKind.USER_TEXT)
        or last.response != response.number
        or response.speech is not None
    ):
        return False
    s.turns = s.turns[:-1]
    s.counts = _uncounted(s, last)
    turn = s.turn
    s.turn = replace(
        turn,
        words=(last.text, *turn.words) if last.text else turn.words,
        start_ns=last.start_ns,
        audio_ms=last.audio_ms + turn.audio_ms,
        again=last,
    )
    return True


def _uncounted(s: SessionData, turn: Turn) -> Counts:
    counts = s.counts.plus_turn(turn.kind, -1)
    return replace(
        counts, user_audio_ms=counts.user_audio_ms - turn.audio_ms, user_chars=counts.user_chars - len(turn.text)
    )


def join(st: Step, text: str) -> None:
    """Words that come after their turn was ended without them: they belong to it, and not to the next."""
    s = st.s
    response = s.answer
    # Where tools have run for it already, they would run again.
    if response is not None and response.begun_ns is None and not response.tools and reopen(st, response):
        responses.cut(st, InterruptionKind.SPEECH, "the turn went on", text)
        add(st, text)
        return
    for n in range(len(s.turns) - 1, -1, -1):
        turn = s.turns[n]
        if turn.kind is TurnKind.USER_AUDIO:
            # Its answer is being heard, or was: that stays as it is, but the next one knows what was said.
            changed = replace(turn, text=f"{turn.text} {text}".strip())
            s.turns = (*s.turns[:n], changed, *s.turns[n + 1 :])
            s.counts = replace(s.counts, user_chars=s.counts.user_chars + len(text))
            st.tell(UserSaid(st.now, changed))
            return
    add(st, text)


# --- the end of a turn -----------------------------------------------------------------------------------------------


def over_ns(s: SessionData) -> int | None:
    """When the turn is over, if nothing more is said; None while that cannot be known."""
    turn = s.turn
    if not turn or (turn.unclear and not turn.words and not s.settings.answer_unclear):
        return None
    if turn.forced or turn.typed:
        return 0
    if s.user_speaking or s.awaited:
        return None
    strategy = s.endpointing or STRATEGIES[s.settings.endpointing.strategy]
    final_ns = s.final_ns if s.final_ns is not None else 0
    evidence = Evidence(turn.text, s.speech_end_ns, final_ns, s.probability, s.pauses)
    return strategy(s.settings.endpointing, evidence)


def write_down(st: Step) -> int:
    """The user's turn is over: write it down. Returns when it ended, in ns."""
    s, turn = st.s, st.s.turn
    kind = TurnKind.USER_TEXT if turn.typed else TurnKind.USER_AUDIO
    start_ns = st.now if turn.start_ns is None else turn.start_ns
    said_ns = s.speech_end_ns if s.speech_end_ns is not None else s.final_ns
    end_ns = said_ns if said_ns is not None and not turn.typed else st.now
    number = turn.again.id if turn.again is not None else 0
    s.counts = replace(
        s.counts,
        user_audio_ms=s.counts.user_audio_ms + turn.audio_ms,
        user_chars=s.counts.user_chars + len(turn.text),
    )
    written = Turn(number, kind, start_ns, max(start_ns, end_ns), turn.text, turn.audio_ms)
    st.tell(UserSaid(st.now, st.write(written)))
    if s.barged_in and s.interruptions:
        s.interruptions = (*s.interruptions[:-1], replace(s.interruptions[-1], user_text=turn.text))
    s.turn, s.interim, s.barged_in = OpenTurn(), "", False
    s.final_ns = s.probability = None
    return written.end_ns


def end(st: Step) -> None:
    """The user's turn is over: write it down, and ask for the answer."""
    s, turn = st.s, st.s.turn
    # Who has said something since need not be asked to: it would be said after the answer to that.
    s.queue = tuple(speech for speech in s.queue if speech.kind is not SpeechKind.APOLOGY)
    asked_ns = write_down(st)
    guess = s.response
    if guess is not None and guess.guess is not None:
        if not guess.failed and agreement(guess.guess, turn.text) >= s.settings.preemptive.agreement:
            _commit(st, turn.handles, asked_ns)
            return
        drop_guess(st)
    responses.ask(st, handles=turn.handles, asked_ns=asked_ns)


# --- guesses ---------------------------------------------------------------------------------------------------------


def guessable(s: SessionData) -> str | None:
    """What the user will have said, where that is worth a guess."""
    rules, turn = s.settings.preemptive, s.turn
    text = " ".join(filter(None, [turn.text, s.interim]))
    if (
        not rules.enabled
        or not text
        or not s.free
        or s.queue
        or not s.hears
        or s.muted
        # The last one is for when they are silent: it is the one that comes true.
        or turn.tries >= rules.max_tries - s.user_speaking
        or turn.typed
    ):
        return None
    return text


def guess(st: Step) -> None:
    """Begin an answer to what the user will have said."""
    s = st.s
    text = guessable(s)
    begun_ns = s.turn.start_ns if s.turn.start_ns is not None else st.now
    end_ns = over_ns(s)
    if text is None or (end_ns is not None and end_ns <= st.now):
        # The turn is over with this step: then it is asked for what was said.
        return
    if st.ms_since(begun_ns) > s.settings.preemptive.max_speech_s * 1_000:
        # It stays too long: no guess is due any more.
        s.turn = replace(s.turn, tries=s.settings.preemptive.max_tries)
        return
    s.turn = replace(s.turn, tries=s.turn.tries + 1)
    s.counts = replace(s.counts, guesses=s.counts.guesses + 1)
    responses.ask(st, guess=text)


def check_guess(st: Step) -> None:
    """More was said: is the guess still what it will have been?"""
    s = st.s
    if s.response is None or s.response.guess is None:
        return
    text = " ".join(filter(None, [s.turn.text, s.interim]))
    if agreement(s.response.guess, text) < s.settings.preemptive.agreement:
        drop_guess(st)


def drop_guess(st: Step) -> None:
    """The guess was wrong, or is not needed: nothing of it was heard, and nothing of it is told."""
    response = st.s.guessed
    if response is not None:
        st.s.response = None
        st.do(Cancel(response.number, FORGET))


def _commit(st: Step, handles: tuple[int, ...], asked_ns: int) -> None:
    """The guess was right: it is the answer."""
    s = st.s
    response = s.response
    assert response is not None
    s.response = replace(response, guess=None, handles=handles, asked_ns=asked_ns, since_ns=st.now)
    s.counts = replace(s.counts, guesses_played=s.counts.guesses_played + 1)
    s.turns = (*s.turns[:-1], replace(s.turns[-1], response=response.number))
    st.do(Commit(response.number))

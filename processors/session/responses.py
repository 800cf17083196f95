"""The bot's side: responses begin, are heard, and end. What was heard is what the playout ledger says."""

from __future__ import annotations

from dataclasses import replace

from ...pipeline.clock import NS_PER_MS
from ...pipeline.frames import Message
from .data import (
    KEPT_TRANSITIONS,
    Cut,
    Interruption,
    InterruptionKind,
    Response,
    Speech,
    SpeechKind,
    SpeechOutcome,
    Turn,
    TurnKind,
)
from .events import BotSaid, Interrupted
from .transition import Ask, Cancel, Pause, Say, Step


def ask(st: Step, *, handles: tuple[int, ...] = (), guess: str | None = None, asked_ns: int | None = None) -> None:
    """Ask the model for its answer to the history; or, for a guess, to what the user will have said."""
    s = st.s
    messages = s.messages if guess is None else (*s.messages, Message("user", guess))
    s.response = Response(
        0, st.now, handles=handles, asked_ns=asked_ns, guess=guess,
        interruptible=s.settings.interruption.allow,
    )  # fmt: skip
    if guess is not None and not s.playout_paused:
        # Before anything of it can come there.
        s.playout_paused = True
        st.do(Pause(True))
    st.do(Ask(messages, speculative=guess is not None))


def say(st: Step, speech: Speech) -> None:
    """Say something that no model made."""
    interruptible = speech.interruptible and st.s.settings.interruption.allow and st.s.ending is None
    st.s.response = Response(0, st.now, speech, (speech.handle,), interruptible)
    recorded = st.s.settings.apology_file if speech.kind is SpeechKind.APOLOGY else None
    st.do(Say(speech.text, recorded))


def opened(st: Step, number: int) -> None:
    """The response has its number."""
    s = st.s
    assert s.response is not None
    s.response = replace(s.response, number=number)
    last = s.turns[-1] if s.turns else None
    if s.response.speech is None and s.response.guess is None and last is not None and not last.response:
        s.turns = (*s.turns[:-1], replace(last, response=number))


# --- what the ledger tells -------------------------------------------------------------------------------------------


def started(st: Step, number: int) -> None:
    """The first sample of a response is being played, or it is heard again."""
    response = st.s.response
    if response is not None and response.number == number:
        begun_ns = response.begun_ns if response.begun_ns is not None else st.now
        st.s.response = replace(response, playing=True, begun_ns=begun_ns)
        st.active()


def stopped(st: Step, number: int) -> None:
    """Nothing of a response is being played; it is not over, or there would be a record of it."""
    response = st.s.response
    if response is not None and response.number == number:
        st.s.response = replace(response, playing=False, since_ns=st.now)


def played(st: Step, number: int, heard_ms: float, heard_text: str) -> None:
    """A response was played to its end."""
    s = st.s
    if s.cut is not None and s.cut.response.number == number:
        # It was over before the interruption reached it: what was decided stands, and all of it was heard.
        cut_recorded(st, number, heard_ms, heard_text)
        return
    response = s.response
    if response is None or response.number != number:
        return
    _written(st, response, st.now, heard_ms, heard_text, interrupted=False)
    failed = response.failed or not heard_ms
    st.resolve(response.handles, SpeechOutcome.FAILED if failed else SpeechOutcome.PLAYED, heard_text)
    s.response, s.bot_spoke, s.tentative = None, True, None
    st.quiet()
    if heard_ms:
        st.active()
    if response.failed:
        apologise(st, response)


def _written(st: Step, response: Response, end_ns: int, heard_ms: float, heard_text: str, *, interrupted: bool) -> None:
    """Write the bot's turn down, if anything was heard of it."""
    if not heard_ms and not heard_text:
        return
    s, counts = st.s, st.s.counts
    begun_ns = response.begun_ns if response.begun_ns is not None else st.now
    latency = None if response.asked_ns is None else max(0.0, (begun_ns - response.asked_ns) / NS_PER_MS)
    s.counts = replace(
        counts,
        bot_audio_ms=counts.bot_audio_ms + heard_ms,
        bot_chars=counts.bot_chars + len(heard_text),
        latency_ms=counts.latency_ms + (latency or 0.0),
        latencies=counts.latencies + (latency is not None),
        answers_cut=counts.answers_cut + interrupted,
    )
    end_ns = max(begun_ns, end_ns)
    turn = Turn(0, TurnKind.ASSISTANT, begun_ns, end_ns, heard_text, heard_ms, interrupted, response.number, latency)
    st.tell(BotSaid(st.now, st.write(turn)))


# --- cutting ---------------------------------------------------------------------------------------------------------


def cut(
    st: Step, kind: InterruptionKind, reason: str, user_text: str = "", *, done: bool = False, alone: bool = False
) -> None:
    """Interrupt the response under way, and what waits to be said after it. ``done``: somebody else cut it already.
    ``alone``: what waits is said.

    Where nothing of it was heard, that is the record; where something was, the ledger's answer is waited for.
    """
    if not alone:
        st.drop_queue()
    _cut(st, kind, reason, user_text, SpeechOutcome.INTERRUPTED, done=done)


def give_up(st: Step, reason: str, *, failed: bool = False) -> None:
    """Cut the response under way, which is no interruption: nobody can hear it, or it is broken."""
    response = st.s.response
    if response is None:
        return
    if failed:
        outcome = SpeechOutcome.FAILED
    else:
        outcome = SpeechOutcome.DROPPED if response.begun_ns is None else SpeechOutcome.INTERRUPTED
    _cut(st, None, reason, "", outcome)


def _cut(
    st: Step, kind: InterruptionKind | None, reason: str, text: str, outcome: SpeechOutcome, *, done: bool = False
) -> None:
    s = st.s
    response = s.response
    assert response is not None
    silent_ns = st.now if s.tentative is None else s.tentative.since_ns
    # A tool that was called for it may never return.
    s.response, s.tentative, s.tools = None, None, ()
    if not done:
        st.do(Cancel(response.number, reason))
    s.cut = Cut(response, kind, st.now, silent_ns, text, outcome)
    if response.begun_ns is None:
        cut_recorded(st, response.number, 0.0, "")


def cut_recorded(st: Step, number: int, heard_ms: float, heard_text: str) -> None:
    """The ledger says what was heard of a response that was cut."""
    s, made = st.s, st.s.cut
    if made is None or made.response.number != number:
        return
    s.cut = None
    response = made.response
    _written(st, response, made.silent_ns, heard_ms, heard_text, interrupted=True)
    st.quiet()
    s.bot_spoke = True
    st.resolve(response.handles, made.outcome, heard_text)
    if made.kind is None:
        return
    record = Interruption(made.kind, made.silent_ns, response.number, heard_ms, len(heard_text), made.user_text)
    s.interruptions = (*s.interruptions, record)[-KEPT_TRANSITIONS:]
    s.counts = replace(
        s.counts.plus_interruption(made.kind), heard_ms_at_cut=s.counts.heard_ms_at_cut + heard_ms
    )  # fmt: skip
    st.tell(Interrupted(st.now, record))


def cut_elsewhere(st: Step, through: int, reason: str) -> None:
    """Somebody else cut the bot: `PipelineWorker.interrupt`, another processor."""
    response = st.s.response
    # One that has no number yet is opened after that cut.
    if response is not None and 0 < response.number <= through:
        if response.guess is not None:
            st.s.response = None
            return
        cut(st, InterruptionKind.MANUAL, reason, done=True)


def failed(st: Step, number: int) -> None:
    """An error was told of a response."""
    response = st.s.response
    if response is not None and response.number == number:
        st.s.response = replace(response, failed=True, since_ns=st.now)


def apologise(st: Step, response: Response | None = None) -> None:
    """Something was lost: an answer, or what the user said. Say so next, if that is wanted; never twice for one."""
    s = st.s
    wanted = s.settings.apology or s.settings.apology_file is not None
    again = response is not None and response.speech is not None and response.speech.kind is SpeechKind.APOLOGY
    waits = any(speech.kind is SpeechKind.APOLOGY for speech in s.queue)
    if wanted and s.ending is None and not again and not waits:
        s.queue = (Speech(SpeechKind.APOLOGY, s.settings.apology), *s.queue)

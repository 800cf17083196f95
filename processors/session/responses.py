"""Rules for the bot's responses: open them, follow their playback, cut them. Heard text is what the ledger reports."""

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
from .transition import Ask, Cancel, Pause, Say, Transition


def ask(
    transition: Transition, *, handles: tuple[int, ...] = (), guess: str | None = None, asked_ns: int | None = None
) -> None:
    """Ask the model to answer the history. ``guess``: words to add to it, which the user will probably have said."""
    data, bot = transition.data, transition.data.bot
    messages = data.messages if guess is None else (*data.messages, Message("user", guess))
    number = transition.open_response()
    bot.response = Response(
        number, transition.now, handles=handles, asked_ns=asked_ns, guess=guess,
        interruptible=data.settings.interruption.allow,
    )  # fmt: skip
    turns = data.history.turns
    if guess is None and turns and not turns[-1].response:
        data.history.turns = (*turns[:-1], replace(turns[-1], response=number))
    if guess is not None and not bot.playout_paused:
        # Pause the output before its first audio can arrive there.
        bot.playout_paused = True
        transition.do(Pause(True))
    transition.do(Ask(number, messages, speculative=guess is not None))


def say(transition: Transition, speech: Speech) -> None:
    """Say a text that no model made."""
    data = transition.data
    interruptible = speech.interruptible and data.settings.interruption.allow and data.lifecycle.ending is None
    number = transition.open_response()
    data.bot.response = Response(number, transition.now, speech, (speech.handle,), interruptible)
    recorded = data.settings.apology_file if speech.kind is SpeechKind.APOLOGY else None
    transition.do(Say(number, speech.text, recorded))


# --- reports of the playout ledger -----------------------------------------------------------------------------------


def started(transition: Transition, number: int) -> None:
    """Record that a response is audible: its first sample, or the next one after a silence."""
    response = transition.data.bot.response
    if response is not None and response.number == number:
        first_ns = response.first_sample_ns if response.first_sample_ns is not None else transition.now
        transition.data.bot.response = replace(response, playing=True, first_sample_ns=first_ns)
        transition.note_activity()


def stopped(transition: Transition, number: int) -> None:
    """Record that a response is silent. It has not ended: its end is reported as played or cut."""
    response = transition.data.bot.response
    if response is not None and response.number == number:
        transition.data.bot.response = replace(response, playing=False, since_ns=transition.now)


def played(transition: Transition, number: int, heard_ms: float, heard_text: str) -> None:
    """Record that a response was played to its end."""
    bot = transition.data.bot
    if bot.cut is not None and bot.cut.response.number == number:
        # The response ended before the cut reached the output: the cut stands, and all of the text was heard.
        cut_recorded(transition, number, heard_ms, heard_text)
        return
    response = bot.response
    if response is None or response.number != number:
        return
    _record_bot_turn(transition, response, transition.now, heard_ms, heard_text, interrupted=False)
    failed = response.failed or not heard_ms
    transition.resolve(response.handles, SpeechOutcome.FAILED if failed else SpeechOutcome.PLAYED, heard_text)
    bot.response, bot.has_spoken, bot.tentative = None, True, None
    transition.restart_idle_time()
    if heard_ms:
        transition.note_activity()
    if response.failed:
        apologise(transition, response)


def _record_bot_turn(
    transition: Transition, response: Response, end_ns: int, heard_ms: float, heard_text: str, *, interrupted: bool
) -> None:
    """Record the bot's turn, if any part of it was heard."""
    if not heard_ms and not heard_text:
        return
    history = transition.data.history
    counts = history.counts
    start_ns = response.first_sample_ns if response.first_sample_ns is not None else transition.now
    latency = None if response.asked_ns is None else max(0.0, (start_ns - response.asked_ns) / NS_PER_MS)
    history.counts = replace(
        counts,
        bot_audio_ms=counts.bot_audio_ms + heard_ms,
        bot_chars=counts.bot_chars + len(heard_text),
        latency_ms=counts.latency_ms + (latency or 0.0),
        latencies=counts.latencies + (latency is not None),
        answers_cut=counts.answers_cut + interrupted,
    )
    end_ns = max(start_ns, end_ns)
    turn = Turn(0, TurnKind.ASSISTANT, start_ns, end_ns, heard_text, heard_ms, interrupted, response.number, latency)
    transition.tell(BotSaid(transition.now, transition.record_turn(turn)))


# --- cutting ---------------------------------------------------------------------------------------------------------


def cut(
    transition: Transition,
    kind: InterruptionKind,
    reason: str,
    user_text: str = "",
    *,
    already_cancelled: bool = False,
    keep_queue: bool = False,
) -> None:
    """Interrupt the current response, and drop the queue unless ``keep_queue``.

    ``already_cancelled``: another processor cancelled the response. If nothing of the response was heard, the
    interruption is recorded at once; otherwise the ledger's report is awaited.
    """
    if not keep_queue:
        transition.drop_queue()
    _cut(transition, kind, reason, user_text, SpeechOutcome.INTERRUPTED, already_cancelled=already_cancelled)


def give_up(transition: Transition, reason: str, *, failed: bool = False) -> None:
    """Cut the current response without an interruption: nobody can hear it, or it failed."""
    response = transition.data.bot.response
    if response is None:
        return
    if failed:
        outcome = SpeechOutcome.FAILED
    else:
        outcome = SpeechOutcome.DROPPED if response.first_sample_ns is None else SpeechOutcome.INTERRUPTED
    _cut(transition, None, reason, "", outcome)


def _cut(
    transition: Transition,
    kind: InterruptionKind | None,
    reason: str,
    text: str,
    outcome: SpeechOutcome,
    *,
    already_cancelled: bool = False,
) -> None:
    bot = transition.data.bot
    response = bot.response
    assert response is not None
    silent_ns = transition.now if bot.tentative is None else bot.tentative.since_ns
    # The tools of a cut response may never return.
    bot.response, bot.tentative, bot.tools = None, None, ()
    if not already_cancelled:
        transition.do(Cancel(response.number, reason))
    bot.cut = Cut(response, kind, transition.now, silent_ns, text, outcome)
    if response.first_sample_ns is None:
        cut_recorded(transition, response.number, 0.0, "")


def cut_recorded(transition: Transition, number: int, heard_ms: float, heard_text: str) -> None:
    """Record the heard part of a cut response, as the ledger reports it."""
    bot, history = transition.data.bot, transition.data.history
    decided = bot.cut
    if decided is None or decided.response.number != number:
        return
    bot.cut = None
    response = decided.response
    _record_bot_turn(transition, response, decided.silent_ns, heard_ms, heard_text, interrupted=True)
    transition.restart_idle_time()
    bot.has_spoken = True
    transition.resolve(response.handles, decided.outcome, heard_text)
    if decided.kind is None:
        return
    record = Interruption(
        decided.kind, decided.silent_ns, response.number, heard_ms, len(heard_text), decided.user_text
    )
    history.interruptions = (*history.interruptions, record)[-KEPT_TRANSITIONS:]
    counts = history.counts.plus_interruption(decided.kind)
    history.counts = replace(counts, heard_ms_at_cut=counts.heard_ms_at_cut + heard_ms)
    transition.tell(Interrupted(transition.now, record))


def cut_elsewhere(transition: Transition, through: int, reason: str) -> None:
    """Record that `PipelineWorker.interrupt` or another processor cut all responses up to ``through``."""
    bot = transition.data.bot
    if bot.response is not None and bot.response.number <= through:
        if bot.response.guess is not None:
            bot.response = None
            return
        cut(transition, InterruptionKind.MANUAL, reason, already_cancelled=True)


def failed(transition: Transition, number: int) -> None:
    """Mark the current response as failed, if the error names it."""
    response = transition.data.bot.response
    if response is not None and response.number == number:
        transition.data.bot.response = replace(response, failed=True, since_ns=transition.now)


def apologise(transition: Transition, response: Response | None = None) -> None:
    """Queue the apology for a lost answer or lost words, if the settings have one and none is queued.

    A failed apology is not apologised for.
    """
    data, bot = transition.data, transition.data.bot
    wanted = data.settings.apology or data.settings.apology_file is not None
    again = response is not None and response.speech is not None and response.speech.kind is SpeechKind.APOLOGY
    queued = any(speech.kind is SpeechKind.APOLOGY for speech in bot.queue)
    if wanted and data.lifecycle.ending is None and not again and not queued:
        bot.queue = (Speech(SpeechKind.APOLOGY, data.settings.apology), *bot.queue)

"""Rules for the lifecycle: start, connection, pause, listening, and the end of a session."""

from __future__ import annotations

from dataclasses import replace

from . import interruptions, responses, turns
from .data import Ending, Fate, OpenTurn, Speech, SpeechKind, SpeechOutcome
from .transition import EndPipeline, Listen, Transition


def start(transition: Transition, created_ns: int) -> None:
    """Start the session: the pipeline runs. ``created_ns``: the time at which its processors started."""
    data, lifecycle = transition.data, transition.data.lifecycle
    if lifecycle.started_ns is not None:
        return
    now = transition.now
    lifecycle.created_ns = created_ns
    lifecycle.started_ns = lifecycle.away_ns = lifecycle.kept_alive_ns = lifecycle.active_ns = now
    if data.settings.greeting:
        data.bot.queue = (Speech(SpeechKind.GREETING, data.settings.greeting), *data.bot.queue)
    transition.update_state()
    if not data.settings.wait_for_client or lifecycle.connected_ns is not None:
        connect(transition)


def connect(transition: Transition) -> None:
    """Mark the client as connected, for the first time or again."""
    lifecycle = transition.data.lifecycle
    if lifecycle.connected:
        return
    if lifecycle.connected_ns is None:
        lifecycle.connected_ns = transition.now
    if lifecycle.started_ns is None:
        # The transport was quicker than the pipeline: `start` connects.
        return
    lifecycle.connected = True
    transition.note_activity()
    transition.restart_idle_time()


def disconnect(transition: Transition, reason: str) -> None:
    """Mark the client as away, and give up the current response: nobody hears it."""
    data, lifecycle = transition.data, transition.data.lifecycle
    if lifecycle.started_ns is None:
        lifecycle.connected_ns = None
    if not lifecycle.connected:
        return
    lifecycle.connected, lifecycle.away_ns = False, transition.now
    _forget_user(transition)
    turns.drop_guess(transition)
    responses.give_up(transition, reason or "the client is gone")
    if data.settings.wait_for_client or lifecycle.announced:
        # The client of such a transport may return; `connection_timeout_s` closes the session if it does not.
        return
    close(transition, "disconnected", "")


def _forget_user(transition: Transition) -> None:
    user, bot = transition.data.user, transition.data.bot
    transition.resolve(user.turn.handles, SpeechOutcome.DROPPED)
    if user.turn.words:
        # The turn will not be answered, but belongs to the history.
        turns.record(transition)
    user.turn, user.utterances, user.speaking, user.barged_in, user.interim = OpenTurn(), (), False, False, ""
    bot.tentative, user.overlap = None, ()


# --- pause and listening ---------------------------------------------------------------------------------------------


def pause(transition: Transition) -> None:
    """Pause both sides."""
    lifecycle = transition.data.lifecycle
    if lifecycle.paused_ns is None and lifecycle.ending is None:
        lifecycle.paused_ns = transition.now
        _stop_hearing(transition)
        transition.do(Listen(False))


def resume(transition: Transition) -> None:
    """Resume both sides. Time-outs do not count the pause."""
    user, bot, lifecycle = transition.data.user, transition.data.bot, transition.data.lifecycle
    if lifecycle.paused_ns is None:
        return
    paused_ns, lifecycle.paused_ns = lifecycle.paused_ns, None

    def shifted(ns: int) -> int:
        """Move a time before the pause by the pause's length, and a time within the pause to now."""
        return ns + transition.now - max(ns, paused_ns)

    lifecycle.idle_ns = shifted(lifecycle.idle_ns)
    if bot.response is not None:
        bot.response = replace(bot.response, since_ns=shifted(bot.response.since_ns))
    if user.turn.start_ns is not None:
        user.turn = replace(user.turn, start_ns=shifted(user.turn.start_ns))
    if user.speech_end_ns is not None:
        user.speech_end_ns = shifted(user.speech_end_ns)
    if user.final_ns is not None:
        user.final_ns = shifted(user.final_ns)
    user.utterances = tuple(
        one if one.stopped_ns is None else replace(one, stopped_ns=shifted(one.stopped_ns)) for one in user.utterances
    )
    if lifecycle.listening:
        transition.do(Listen(True))


def listen(transition: Transition, *, on: bool) -> None:
    """Turn the microphone on or off. An utterance that is not over when it goes off is dropped."""
    lifecycle = transition.data.lifecycle
    if lifecycle.listening is on:
        return
    lifecycle.listening = on
    if not on:
        _stop_hearing(transition)
    if lifecycle.paused_ns is None:
        transition.do(Listen(on))


def _stop_hearing(transition: Transition) -> None:
    """Drop the current utterance; keep the words before it."""
    user = transition.data.user
    if user.speaking:
        user.speaking = False
        user.utterances = tuple(
            one if one.stopped_ns is not None else replace(one, fate=Fate.DROPPED, stopped_ns=transition.now)
            for one in user.utterances
        )
        user.speech_end_ns = transition.now
        if not user.turn and not user.words_awaited:
            turns.forget(transition)
    interruptions.ignore_overlap(transition)
    transition.data.bot.tentative = None


# --- the end ---------------------------------------------------------------------------------------------------------


def close(
    transition: Transition, reason: str, goodbye: str | None = None, *, now: bool = False, failed: bool = False
) -> None:
    """Begin to close: current and queued speech is played, then a goodbye, and nothing new is taken.

    ``goodbye``: None takes the settings' goodbye for the reason. ``now``: cut all speech, and say no goodbye.
    """
    data, lifecycle = transition.data, transition.data.lifecycle
    if lifecycle.closed_ns is not None:
        return
    if lifecycle.ending is None:
        words = data.settings.goodbyes.get(reason, "") if goodbye is None else goodbye
        silent = now or not lifecycle.connected
        lifecycle.ending = Ending(reason, transition.now, "" if silent else words, failed)
        turns.drop_guess(transition)
        _forget_user(transition)
        lifecycle.paused_ns = None
    if now:
        lifecycle.ending = replace(lifecycle.ending, goodbye="")
        transition.drop_queue(everything=True)
        responses.give_up(transition, reason)


def stop(transition: Transition, reason: str, *, failed: bool = False) -> None:
    """End the session at once: its pipeline has ended."""
    lifecycle = transition.data.lifecycle
    if lifecycle.closed_ns is not None:
        return
    if lifecycle.ending is None:
        hung_up = lifecycle.input_ended and not failed
        lifecycle.ending = Ending("hung up" if hung_up else reason, transition.now, failed=failed)
    elif failed:
        lifecycle.ending = replace(lifecycle.ending, failed=True)
    finish(transition)


def finish(transition: Transition) -> None:
    """Close the session: resolve every speech handle, and end the pipeline."""
    bot, lifecycle = transition.data.bot, transition.data.lifecycle
    assert lifecycle.ending is not None
    responses.give_up(transition, lifecycle.ending.reason)
    if bot.cut is not None:
        # The ledger's report will not come any more.
        responses.cut_recorded(transition, bot.cut.response.number, 0.0, "")
    transition.drop_queue(everything=True)
    _forget_user(transition)
    lifecycle.closed_ns = transition.now
    transition.do(EndPipeline(lifecycle.ending.reason))

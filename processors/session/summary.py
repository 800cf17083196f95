"""Statistics and the summary of a session, as text and as JSON."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass

from ...pipeline.clock import NS_PER_MS, NS_PER_S
from .data import Counts, InterruptionKind, SessionData, TurnKind


@dataclass(frozen=True, slots=True)
class SessionStatistics:
    """Counts, rates and means over all turns. The mean of no values is 0."""

    turns: dict[str, int]
    """By `TurnKind`."""
    interruptions: dict[str, int]
    """By `InterruptionKind`."""
    interrupted_turns: int
    """Turns of the bot that were cut after a part of them was heard."""
    interrupt_rate: float
    """Interruptions per started turn of the bot: 0 to 1."""
    mean_heard_ms_at_interruption: float
    false_interruptions: int
    ignored_utterances: int
    mean_latency_ms: float
    """From the end of the user's turn to the bot's first sample."""
    mean_user_chars: float
    mean_bot_chars: float
    user_audio_ms: float
    """Length of the transcribed speech."""
    bot_audio_ms: float
    """Length of the heard speech."""
    input_tokens: int
    output_tokens: int
    errors: int
    """Errors that reached the session. Errors of STT and VAD travel upstream, and do not pass it."""
    guesses: int
    """Answers that were started before the end of the user's turn."""
    guesses_played: int


def statistics_of(counts: Counts) -> SessionStatistics:
    """Compute the statistics from the counters."""
    cut = counts.interrupted()
    user = counts.of(TurnKind.USER_AUDIO) + counts.of(TurnKind.USER_TEXT)
    bot = counts.of(TurnKind.ASSISTANT)
    # An answer that was cut before its first sample is no turn, but it was started.
    started = bot + max(0, cut - counts.answers_cut)
    return SessionStatistics(
        turns={kind.value: counts.of(kind) for kind in TurnKind},
        interruptions={kind.value: counts.interrupted(kind) for kind in InterruptionKind},
        interrupted_turns=counts.answers_cut,
        interrupt_rate=_mean(cut, started),
        mean_heard_ms_at_interruption=_mean(counts.heard_ms_at_cut, cut),
        false_interruptions=counts.false_interruptions,
        ignored_utterances=counts.ignored,
        mean_latency_ms=_mean(counts.latency_ms, counts.latencies),
        mean_user_chars=_mean(counts.user_chars, user),
        mean_bot_chars=_mean(counts.bot_chars, bot),
        user_audio_ms=counts.user_audio_ms,
        bot_audio_ms=counts.bot_audio_ms,
        input_tokens=counts.input_tokens,
        output_tokens=counts.output_tokens,
        errors=counts.errors,
        guesses=counts.guesses,
        guesses_played=counts.guesses_played,
    )


def _mean(total: float, count: int) -> float:
    return total / count if count else 0.0


@dataclass(frozen=True, slots=True)
class SessionSummary:
    """The summary of a session. Times are ms since the session was created; None if the event did not happen."""

    state: str
    reason: str
    """Reason of the end; empty while the session runs."""
    connected_ms: float | None
    ready_ms: float | None
    """Time from which the user was first heard."""
    last_activity_ms: float
    closed_ms: float | None
    duration_s: float
    """From the connection to the end, or until now if the session runs."""
    statistics: SessionStatistics

    def to_json(self) -> str:
        """Return the summary as a JSON object."""
        return json.dumps(asdict(self), indent=2)

    def __str__(self) -> str:
        counted = self.statistics
        turns = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in counted.turns.items() if count)
        cuts = ", ".join(f"{count} {kind}" for kind, count in counted.interruptions.items() if count)
        lines = [
            f"{self.state}{f' ({self.reason})' if self.reason else ''} after {self.duration_s:.1f} s",
            f"turns: {turns or 'none'}",
            f"interruptions: {cuts or 'none'}; {counted.false_interruptions} false, "
            f"{counted.ignored_utterances} ignored",
            f"answers: {counted.mean_latency_ms:.0f} ms after the user on average, "
            f"{counted.bot_audio_ms / 1000:.1f} s heard; the user spoke for {counted.user_audio_ms / 1000:.1f} s",
        ]
        if counted.guesses:
            lines.append(f"guesses: {counted.guesses}, of which {counted.guesses_played} were played")
        if counted.input_tokens or counted.output_tokens:
            lines.append(f"tokens: {counted.input_tokens} in, {counted.output_tokens} out")
        if counted.errors:
            lines.append(f"errors: {counted.errors}")
        return "\n".join(lines)


def summary_of(data: SessionData, now_ns: int) -> SessionSummary:
    """Summarise a session so far."""

    def since(ns: int | None) -> float | None:
        return None if ns is None else (ns - data.lifecycle.created_ns) / NS_PER_MS

    end_ns = now_ns if data.lifecycle.closed_ns is None else data.lifecycle.closed_ns
    begin_ns = end_ns if data.lifecycle.connected_ns is None else data.lifecycle.connected_ns
    return SessionSummary(
        state=data.state.value,
        reason=data.lifecycle.ending.reason if data.lifecycle.ending is not None else "",
        connected_ms=since(data.lifecycle.connected_ns),
        ready_ms=since(data.lifecycle.ready_ns),
        last_activity_ms=since(max(data.lifecycle.active_ns, data.lifecycle.created_ns)) or 0.0,
        closed_ms=since(data.lifecycle.closed_ns),
        duration_s=(end_ns - begin_ns) / NS_PER_S,
        statistics=statistics_of(data.history.counts),
    )

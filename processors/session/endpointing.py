"""Endpointing: strategies that decide when the user's turn has ended. They are pure functions of their evidence."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ...pipeline.clock import NS_PER_MS
from .pause_estimator import PauseEstimator
from .settings import EndpointingSettings


@dataclass(frozen=True, slots=True)
class Evidence:
    """The facts about the user's turn while nobody speaks."""

    text: str
    speech_end_ns: int | None
    """End of speech; None without a speech detector."""
    final_ns: int
    """Time of the newest final transcript."""
    probability: float | None
    """The turn model's probability that the turn has ended; None without a turn model."""
    pauses: PauseEstimator
    """The pauses that this caller made within turns."""

    @property
    def silence_ns(self) -> int:
        """Start of the silence."""
        return self.final_ns if self.speech_end_ns is None else self.speech_end_ns


class Endpointing(Protocol):
    """A strategy: returns the time at which the turn ends if nothing more is said."""

    def __call__(self, settings: EndpointingSettings, evidence: Evidence, /) -> int:
        """Return the time in ns of the worker's clock. A time that has passed ends the turn now."""
        ...


def after_silence(settings: EndpointingSettings, evidence: Evidence) -> int:
    """``vad``: a fixed silence."""
    return evidence.silence_ns + _ns(settings.min_delay_ms)


def after_transcript(settings: EndpointingSettings, evidence: Evidence) -> int:
    """``transcript``: a delay after the final transcript, for a recogniser with its own endpointing."""
    return evidence.final_ns + _ns(settings.transcript_delay_ms)


def by_model(settings: EndpointingSettings, evidence: Evidence) -> int:
    """``model``: between the two delays, in proportion to the turn model's doubt; without a model as ``vad``."""
    if evidence.probability is None:
        return after_silence(settings, evidence)
    least, most = settings.min_delay_ms, max(settings.min_delay_ms, settings.max_delay_ms)
    return evidence.silence_ns + _ns(least + (most - least) * (1 - evidence.probability))


def by_pauses(settings: EndpointingSettings, evidence: Evidence) -> int:
    """``dynamic``: longer than this caller's usual pauses."""
    delay_ms = evidence.pauses.delay_ms(settings.min_delay_ms, settings.max_delay_ms)
    return evidence.silence_ns + _ns(delay_ms)


def at_once(settings: EndpointingSettings, evidence: Evidence) -> int:
    """``push_to_talk`` and ``text``: the user ends the turn explicitly."""
    return 0


STRATEGIES: Mapping[str, Endpointing] = {
    "vad": after_silence,
    "transcript": after_transcript,
    "model": by_model,
    "dynamic": by_pauses,
    "push_to_talk": at_once,
    "text": at_once,
}


def _ns(ms: float) -> int:
    return round(ms * NS_PER_MS)

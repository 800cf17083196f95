"""Endpointing: how long after the user's speech their turn is over. Strategies are pure: evidence in, delay out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ...pipeline.clock import NS_PER_MS
from .pause_estimator import Pauses
from .settings import EndpointingSettings


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known of the user's turn while nobody speaks."""

    text: str
    speech_end_ns: int | None
    """When speech ended; None where nobody detects speech."""
    final_ns: int
    """When the newest transcript came."""
    probability: float | None
    """What the turn model thinks, if there is one: is the turn over?"""
    pauses: Pauses
    """The pauses that this caller made within turns."""

    @property
    def silence_ns(self) -> int:
        """Since when nothing is said."""
        return self.final_ns if self.speech_end_ns is None else self.speech_end_ns


class Endpointing(Protocol):
    """A strategy: when is the turn over, if nothing more is said?"""

    def __call__(self, settings: EndpointingSettings, evidence: Evidence, /) -> int:
        """The moment, in ns of the worker's clock. One that has passed means now."""
        ...


def after_silence(settings: EndpointingSettings, evidence: Evidence) -> int:
    """``vad``: after a fixed silence."""
    return evidence.silence_ns + _ns(settings.min_delay_ms)


def with_transcript(settings: EndpointingSettings, evidence: Evidence) -> int:
    """``transcript``: the recogniser is sure, so is the turn."""
    return evidence.final_ns + _ns(settings.transcript_delay_ms)


def by_model(settings: EndpointingSettings, evidence: Evidence) -> int:
    """``model``: between the two delays, in proportion to how unsure the model is; if it says nothing, `vad`."""
    if evidence.probability is None:
        return after_silence(settings, evidence)
    least, most = settings.min_delay_ms, max(settings.min_delay_ms, settings.max_delay_ms)
    return evidence.silence_ns + _ns(least + (most - least) * (1 - evidence.probability))


def learnt(settings: EndpointingSettings, evidence: Evidence) -> int:
    """``dynamic``: longer than this caller's pauses usually are."""
    delay_ms = evidence.pauses.delay_ms(settings.min_delay_ms, settings.max_delay_ms)
    return evidence.silence_ns + _ns(delay_ms)


def at_once(settings: EndpointingSettings, evidence: Evidence) -> int:
    """``push_to_talk`` and ``text``: the user says when."""
    return 0


STRATEGIES: Mapping[str, Endpointing] = {
    "vad": after_silence,
    "transcript": with_transcript,
    "model": by_model,
    "dynamic": learnt,
    "push_to_talk": at_once,
    "text": at_once,
}


def _ns(ms: float) -> int:
    return round(ms * NS_PER_MS)

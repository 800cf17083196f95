"""The promise: how long a user waits at most, after their turn, for the first sound of an answer or of an apology.

It follows from the settings of the services and of the session, and from nothing else. `promised_s` is the sum; what a
chaos run measures is compared with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from voxline.pipeline.tasks import AGAIN_S
from voxline.processors.service.base import CLOSE_TIMEOUT_S, ServiceSettings
from voxline.processors.session.settings import SessionSettings

CHUNK_S = 0.02
"""An output plays in steps of 20 ms."""


@dataclass(frozen=True, slots=True)
class Load:
    """What a turn asks of the services, as far as it takes time."""

    pieces: int = 1
    """How many pieces of an answer come before the first that can be heard: each may take ``between_timeout_s``."""
    sentences: int = 1
    """How many are spoken, one after another: each may fail by itself."""
    tools: int = 0
    stubborn: int = 0
    """How often a service goes on when it is told to stop: it is told again after `AGAIN_S`."""


def attempt_s(rules: ServiceSettings, load: Load) -> float:
    """One attempt: a new connection, the first piece, further ones, and the end of an answer that is given up."""
    waits = rules.connect_timeout_s + rules.first_timeout_s + load.pieces * rules.between_timeout_s + CLOSE_TIMEOUT_S
    # In each of these waits it may be told again.
    return waits + 3 * load.stubborn * AGAIN_S


def service_s(members: Sequence[ServiceSettings], load: Load) -> float:
    """Until a service has answered or has failed: one with its attempts, and several with one each."""
    if len(members) == 1:
        (rules,) = members
        return rules.attempts * attempt_s(rules, load) + (rules.attempts - 1) * rules.backoff_max_s
    return sum(attempt_s(rules, load) for rules in members)


def answer_s(
    session: SessionSettings, llm: Sequence[ServiceSettings], tts: Sequence[ServiceSettings], load: Load, tool_s: float
) -> float:
    """From the question to the first sound, or to the apology: what the services may take, or the session's patience.

    The session waits ``response_timeout_s``, anew from each call of a tool and from each result; after an error it
    waits ``error_timeout_s``, anew from each.
    """
    services_s = service_s(llm, load) * (1 + load.tools) + tool_s * load.tools + load.sentences * service_s(tts, load)
    limit_s, error_s = session.response_timeout_s, session.error_timeout_s
    if limit_s is None:
        return services_s
    errors = load.sentences + 1
    patience_s = limit_s * (1 + 2 * load.tools) + errors * min(limit_s, error_s if error_s is not None else limit_s)
    return min(services_s, patience_s)


def promised_s(
    session: SessionSettings,
    stt: Sequence[ServiceSettings],
    llm: Sequence[ServiceSettings],
    tts: Sequence[ServiceSettings],
    load: Load,
    tool_s: float = 0.0,
) -> float:
    """How long after "user stopped speaking" (or after a typed message: ``stt`` is empty) there is sound at the latest.

    That is so while an ``apology_file`` is set, and where nothing else is being said at the moment. ``tool_s``: how
    long a tool may run.
    """
    hearing_s = service_s(stt, load) + session.endpointing.min_delay_ms / 1000 if stt else 0.0
    return hearing_s + answer_s(session, llm, tts, load, tool_s) + 2 * CHUNK_S

"""The session: whose turn it is, what was said and heard, and when it is over."""

from .controller import SessionController
from .data import (
    Interruption,
    InterruptionKind,
    SessionData,
    SpeechOutcome,
    Transition,
    Turn,
    TurnKind,
)
from .endpointing import Endpointing, Evidence
from .events import (
    BotSaid,
    EventsLost,
    Interrupted,
    InterruptionDismissed,
    SessionClosed,
    SessionErrorTold,
    SessionEvent,
    SpeechIgnored,
    StateChanged,
    ToolCalled,
    ToolReturned,
    UserSaid,
)
from .listeners import EventStream
from .session import Session
from .settings import (
    EndpointingSettings,
    IdleStep,
    InterruptionSettings,
    PreemptiveSettings,
    SessionSettings,
)
from .snapshot import SessionSnapshot
from .speech_handle import SpeechHandle
from .states import ALLOWED, State, diagram
from .step import step
from .summary import SessionSummary, Statistics

__all__ = [
    "ALLOWED",
    "BotSaid",
    "Endpointing",
    "EndpointingSettings",
    "EventStream",
    "EventsLost",
    "Evidence",
    "IdleStep",
    "Interrupted",
    "Interruption",
    "InterruptionDismissed",
    "InterruptionKind",
    "InterruptionSettings",
    "PreemptiveSettings",
    "Session",
    "SessionClosed",
    "SessionController",
    "SessionData",
    "SessionErrorTold",
    "SessionEvent",
    "SessionSettings",
    "SessionSnapshot",
    "SessionSummary",
    "SpeechHandle",
    "SpeechIgnored",
    "SpeechOutcome",
    "State",
    "StateChanged",
    "Statistics",
    "ToolCalled",
    "ToolReturned",
    "Transition",
    "Turn",
    "TurnKind",
    "UserSaid",
    "diagram",
    "step",
]

"""Sessions: turn-taking, interruptions, the history, and the end of a conversation."""

from .controller import SessionController
from .data import (
    Interruption,
    InterruptionKind,
    SessionData,
    SpeechOutcome,
    StateTransition,
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
    SessionErrorReported,
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
from .summary import SessionStatistics, SessionSummary

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
    "SessionErrorReported",
    "SessionEvent",
    "SessionSettings",
    "SessionSnapshot",
    "SessionStatistics",
    "SessionSummary",
    "SpeechHandle",
    "SpeechIgnored",
    "SpeechOutcome",
    "State",
    "StateChanged",
    "StateTransition",
    "ToolCalled",
    "ToolReturned",
    "Turn",
    "TurnKind",
    "UserSaid",
    "diagram",
    "step",
]

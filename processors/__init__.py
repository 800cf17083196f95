"""Processors: what hears, understands, decides and speaks."""

from .commitment import AwaitsCommitment
from .push_to_talk import PushToTalk
from .responder import RuleResponder
from .scripted import HANG, ScriptedLLM, ScriptedSTT, ScriptedTool, ScriptedTTS
from .session.controller import SessionController
from .session.data import SpeechOutcome
from .session.session import Session
from .session.settings import SessionSettings
from .session.speech import SpeechHandle
from .session.states import State
from .smart_turn import SmartTurn
from .stt.pocketsphinx import PocketSphinxSTT
from .tts.espeak_ng import EspeakTTS
from .turns import TurnDetector, TurnModel
from .vad import SileroVAD

__all__ = [
    "HANG",
    "AwaitsCommitment",
    "EspeakTTS",
    "PocketSphinxSTT",
    "PushToTalk",
    "RuleResponder",
    "ScriptedLLM",
    "ScriptedSTT",
    "ScriptedTTS",
    "ScriptedTool",
    "Session",
    "SessionController",
    "SessionSettings",
    "SileroVAD",
    "SmartTurn",
    "SpeechHandle",
    "SpeechOutcome",
    "State",
    "TurnDetector",
    "TurnModel",
]

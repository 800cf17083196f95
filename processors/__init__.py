"""Processors: what hears, understands, decides and speaks."""

from .responder import RuleResponder
from .scripted import ScriptedLLM, ScriptedSTT, ScriptedTTS
from .session.controller import SessionController
from .session.states import State
from .stt.pocketsphinx import PocketSphinxSTT
from .tts.espeak_ng import EspeakTTS
from .vad import SileroVAD

__all__ = [
    "EspeakTTS",
    "PocketSphinxSTT",
    "RuleResponder",
    "ScriptedLLM",
    "ScriptedSTT",
    "ScriptedTTS",
    "SessionController",
    "SileroVAD",
    "State",
]

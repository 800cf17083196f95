"""Testing conversations: a session bench in virtual time, and scripted stand-ins for models and voices."""

from .scripted import HANG, ScriptedLLM, ScriptedSTT, ScriptedTool, ScriptedTTS
from .session_bench import ScriptedPlayout, SessionBench

__all__ = ["HANG", "ScriptedLLM", "ScriptedPlayout", "ScriptedSTT", "ScriptedTTS", "ScriptedTool", "SessionBench"]

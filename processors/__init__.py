"""Processors: what hears, understands, decides and speaks.

Each is loaded when it is first asked for: the processes that some of them start need only their own. What type
checkers read stands in `__init__.pyi`; a test compares the two.
"""

from importlib import import_module

_WHERE = {
    ".service.commitment": ("AwaitsCommitment",),
    ".conversation_pipeline": ("Conversation", "conversation"),
    ".vad.energy": ("EnergyModel",),
    ".fallback.fallback": ("Fallback",),
    ".fallback.models": ("FallbackTurnModel",),
    ".llm.base": ("LLM", "LLMSettings", "Piece", "ToolSpec", "Usage"),
    ".audio.noise": ("NoiseModel", "NoiseSuppressor"),
    ".audio.noise_webrtc": ("WebRTCNoise",),
    ".openai.llm": ("OpenAILLM",),
    ".openai.stt": ("OpenAISTT",),
    ".openai.tts": ("OpenAITTS",),
    ".turn_detection.push_to_talk": ("PushToTalk",),
    ".llm.responder": ("RuleResponder",),
    ".testing.scripted": ("HANG", "ScriptedLLM", "ScriptedSTT", "ScriptedTTS", "ScriptedTool"),
    ".service.base": ("Limits", "Service", "ServiceSettings", "settings_of"),
    ".session.controller": ("SessionController",),
    ".session.data": ("SpeechOutcome",),
    ".session.session": ("Session",),
    ".session.settings": ("SessionSettings",),
    ".session.speech_handle": ("SpeechHandle",),
    ".session.states": ("State",),
    ".turn_detection.smart_turn": ("SmartTurn",),
    ".stt.base": ("STT", "STTLimits", "STTSettings"),
    ".stt.pocketsphinx": ("PocketSphinxSTT",),
    ".stt.sherpa": ("SherpaSTT",),
    ".stt.utterance": ("Transcript",),
    ".stt.whisper": ("WhisperSTT",),
    ".text.sentences": ("SentenceCutter",),
    ".text.speakable": ("Spoken", "speakable"),
    ".tools.tool": ("Tool", "ToolContext", "ToolError", "tool"),
    ".tts.base": ("TTS",),
    ".tts.espeak_tts": ("EspeakTTS",),
    ".tts.piper": ("PiperTTS",),
    ".tts.word_timing": ("SpeechChunk", "WordStart"),
    ".turn_detection.base": ("TurnDetector", "TurnModel"),
    ".vad.base": ("EnergyVAD", "SileroVAD", "VAD"),
    ".vad.models": ("SpeechModel",),
}
_HOME = {name: module for module, names in _WHERE.items() for name in names}

__all__ = sorted(_HOME)  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> object:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(_HOME[name], __name__), name)
    return found


def __dir__() -> list[str]:
    return [*globals(), *__all__]

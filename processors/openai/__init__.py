"""The OpenAI protocol, which many servers speak: language models, speech to text, text to speech.

The package `openai` is imported when the first of them is made (`pip install 'voxline[openai]'`).
"""

from .llm import OpenAILLM
from .stt import OpenAISTT
from .tts import OpenAITTS

__all__ = ["OpenAILLM", "OpenAISTT", "OpenAITTS"]

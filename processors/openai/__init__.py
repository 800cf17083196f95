"""Services of the OpenAI protocol, which many servers speak: language model, speech to text, text to speech.

The first instance imports the package `openai` (`pip install 'voxline[openai]'`).
"""

from .llm import OpenAILLM
from .stt import OpenAISTT
from .tts import OpenAITTS

__all__ = ["OpenAILLM", "OpenAISTT", "OpenAITTS"]

"""Contract suites: what any STT, LLM, TTS, voice detector, turn model or noise suppressor has to do, as tests to run.

::

    async def test_it_keeps_the_contract_of_a_voice():
        await check_tts(lambda: MyTTS(voice="ada"))

Each rule that is broken fails with what was expected, what came, and which rule it is. See docs/guide/services.md.
"""

from ...pipeline.testing.failures import ContractFailure
from .llm import check_llm
from .models import check_noise_suppressor, check_turn_model, check_vad
from .stt import check_stt
from .tts import check_tts

__all__ = [
    "ContractFailure",
    "check_llm",
    "check_noise_suppressor",
    "check_stt",
    "check_tts",
    "check_turn_model",
    "check_vad",
]

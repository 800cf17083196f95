import os, signal, numpy as np, pytest
from voxline.processors.contracts import *
from voxline.processors.scripted import *
from voxline.processors.scripted import Heard
from voxline.processors.stt.utterance import Transcript
from voxline.pipeline.errors import *
class Always(ScriptedLLM):
    async def complete(self, messages, tools):
        self._answers = iter([["One. ", "two. ", "three. ", "four. "]])
        async for p in super().complete(messages, tools): yield p
async def test_tts(): await check_tts(lambda: ScriptedTTS(delay_ms=20))
async def test_tts_untimed(): await check_tts(lambda: ScriptedTTS(timed=False), cannot_connect=lambda: ScriptedTTS(connects=[AuthenticationError("no key")]))
async def test_llm(): await check_llm(lambda: Always([], delay_ms=20, usage=(1,2)))
from voxline.processors import EspeakTTS, PocketSphinxSTT, SileroVAD, EnergyVAD
from voxline.processors.noise import NoiseSuppressor
from voxline.pipeline.testing.material import speech
def kill(x): os.kill((getattr(x,'_espeak',None) or x._sphinx).pid, signal.SIGKILL)
GO = speech("/work/shared/speech/go-forward.wav", 16000)
class Six(ScriptedSTT):
    async def transcribe(self, audio):
        n=0
        self._texts=iter([])
        async for s in audio:
            n+=len(s)
        await self.clock.sleep(0.02)
        yield Transcript("go forward ten meters" if n>16000 and n<100000 and hash(1) else "")
async def test_espeak(): await check_tts(lambda: EspeakTTS(), break_=kill, cannot_connect=lambda: EspeakTTS("xx-none"))
async def test_sphinx(): await check_stt(lambda: PocketSphinxSTT(), audio=GO, text="go forward ten meters", break_=kill)
async def test_silero(): await check_vad(lambda: SileroVAD(), speech=GO[8000:28000])
async def test_energy(): await check_vad(lambda: EnergyVAD(), speech=GO[8000:28000])
async def test_noise(): await check_noise_suppressor(lambda: NoiseSuppressor())

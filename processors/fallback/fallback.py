"""`Fallback`: several services or models of a kind, used as one. The best comes first.

::

    tts = Fallback([OpenAITTS("tts-1", "alloy"), EspeakTTS()])

If a member fails or misses a deadline, the next one takes over in the middle: speech continues with the last word that
began, a transcript loses no audio, an answer continues where it stopped. The failed member rests for a second (then
two, four, up to a minute, or as long as its service asks for), and is used again after that. If all fail, an
`ErrorFrame` is pushed; `SessionSettings.apology` is what the user hears then.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, overload

from ...pipeline.errors import SettingsError
from ...pipeline.frames import Frame, OutputAudioFrame
from ...pipeline.processor import AudioFormat
from ..audio.noise import NoiseSuppressor
from ..llm.base import LLM, LLMSettings
from ..service.base import Service
from ..stt.base import STT, STTSettings
from ..tts.base import TTS
from ..turn_detection.base import FallbackTurnModel, TurnModel
from ..vad.base import VAD
from .models import FallbackNoise, FallbackVAD, fallback_of


class _HasMembers:
    _members: Sequence[Service[Any]]

    def members(self) -> Sequence[Service[Any]]:
        """Members, the best first."""
        return self._members


class FallbackSTT(_HasMembers, STT[STTSettings]):
    """Recognisers, the best first. The preroll of the first applies to all."""

    def __init__(self, members: Sequence[STT[Any]]) -> None:
        self._members = _flat(members)
        first: STT[Any] = self._members[0]
        rates = {member.sample_rate for member in self._members}
        if len(rates) > 1:
            raise SettingsError(f"Fallback: all members take audio of one rate, but these take {sorted(rates)} Hz.")
        self.sample_rate = first.sample_rate
        self.settings = STTSettings(preroll_ms=first.settings.preroll_ms, replay_s=first.settings.replay_s)

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Formats of the members."""
        return self._members[0].accepts()


class FallbackLLM(_HasMembers, LLM[LLMSettings]):
    """Language models, the best first. The tools of all are offered. Context settings, ``summarize`` and
    ``count_tokens`` of the first are copied and apply to all; change them here, with `update` and the attributes.
    """

    def __init__(self, members: Sequence[LLM[Any]]) -> None:
        self._members = _flat(members)
        first: LLM[Any] = self._members[0]
        self.settings = LLMSettings(**first.settings.model_dump(include=set(LLMSettings.model_fields)))
        self.sentences, self.summarize, self.count_tokens = first.sentences, first.summarize, first.count_tokens


class FallbackTTS(_HasMembers, TTS):
    """Voices, the best first."""

    def __init__(self, members: Sequence[TTS[Any]]) -> None:
        self._members = _flat(members)
        first: TTS[Any] = self._members[0]
        self.language = first.language

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Rates of all members: audio of one rate may follow audio of another."""
        formats = [member.makes().get(OutputAudioFrame) for member in self._members]
        if any(one is None or not one.sample_rates for one in formats):
            return super().makes()
        rates = sorted({rate for one in formats if one is not None for rate in one.sample_rates})
        return {OutputAudioFrame: AudioFormat(tuple(rates), (1,))}


def _flat(members: Sequence[Service[Any]]) -> tuple[Any, ...]:
    flat = [inner for member in members for inner in member.members()]
    if len(set(map(id, flat))) < len(flat):
        raise SettingsError("Fallback: a member is listed twice. Make a second object of it.")
    return tuple(flat)


@overload
def Fallback(members: Sequence[STT[Any]]) -> FallbackSTT: ...
@overload
def Fallback(members: Sequence[LLM[Any]]) -> FallbackLLM: ...
@overload
def Fallback(members: Sequence[TTS[Any]]) -> FallbackTTS: ...
@overload
def Fallback(members: Sequence[VAD]) -> FallbackVAD: ...
@overload
def Fallback(members: Sequence[NoiseSuppressor]) -> FallbackNoise: ...
@overload
def Fallback(members: Sequence[TurnModel]) -> FallbackTurnModel: ...
def Fallback(members: Sequence[Any]) -> Any:
    """Use several STT, LLM, TTS, VAD, noise suppressors or turn models as one, the best first.

    Raises `SettingsError` for an empty list, and for members of different kinds.
    """
    if not isinstance(members, Sequence) or isinstance(members, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise SettingsError(f"Fallback takes a list, the best first, as in Fallback([{members!r}, ...]).")
    for kind, fallback in ((STT, FallbackSTT), (LLM, FallbackLLM), (TTS, FallbackTTS)):
        if members and all(isinstance(member, kind) for member in members):
            return fallback(members)
    found = fallback_of(members)
    if found is None:
        if not members:
            raise SettingsError("Fallback: the list is empty. Pass at least one member, the best first.")
        names = ", ".join(
            f"the class {member.__name__}" if isinstance(member, type) else type(member).__name__ for member in members
        )
        raise SettingsError(
            f"Fallback takes several of one kind (STT, LLM, TTS, VAD, noise suppressors or turn models), not {names}."
        )
    return found

"""`conversation`: the usual parts of a voice bot, in the usual order."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from difflib import get_close_matches
from typing import Any, Protocol

from ..pipeline.errors import SettingsError
from ..pipeline.graph import Pipeline
from ..pipeline.processor import FrameProcessor
from .audio.noise import NoiseSuppressor
from .llm.responder import RuleResponder
from .session.controller import SessionController
from .session.session import Session
from .session.settings import SessionSettings
from .stt.pocketsphinx import PocketSphinxSTT
from .tts.espeak_tts import EspeakTTS
from .turn_detection.base import FallbackTurnModel, TurnDetector, TurnModel
from .vad.base import SileroVAD

PARTS = ("llm", "stt", "tts", "vad", "noise", "turns", "session")


class TransportEnds(Protocol):
    """A transport, as `conversation` needs it: an input and an output."""

    def input(self) -> FrameProcessor:
        """Return the head of the pipeline."""
        ...

    def output(self) -> FrameProcessor:
        """Return the tail of the pipeline."""
        ...


class Conversation(Pipeline):
    """A pipeline with a session, made by `conversation`.

    To change it, take its ``elements``, in order, and make your own `Pipeline` of them.
    """

    def __init__(self, processors: list[FrameProcessor], controller: SessionController) -> None:
        super().__init__(processors, "conversation")
        self.controller = controller

    @property
    def session(self) -> Session:
        """The session, for code outside of the pipeline."""
        return self.controller.session


def conversation(
    transport: TransportEnds,
    *,
    llm: FrameProcessor | Callable[[str], str],
    stt: FrameProcessor | None = None,
    tts: FrameProcessor | None = None,
    vad: FrameProcessor | None = None,
    noise: NoiseSuppressor | None = None,
    turns: TurnModel | FallbackTurnModel | None = None,
    session: SessionSettings | SessionController | None = None,
    **settings: Any,
) -> Conversation:
    """The usual parts in the usual order: input, noise, VAD, turn model, STT, session, LLM, TTS, output.

    ``llm``: a model, or a function from the user's words to the answer. The others have defaults that work offline
    (extra ``speech``): `SileroVAD`, `PocketSphinxSTT`, `EspeakTTS`; noise suppressor and turn model are left out
    unless given. ``session``: its settings, or your own controller; ``settings`` are fields of `SessionSettings`::

        talk = conversation(transport, llm=OpenAILLM("gpt-4.1-mini"), greeting="Hello.", apology="Sorry, once more?")
        await PipelineRunner().run(PipelineWorker(talk))

    Raises `SettingsError`, and `MissingExtraError` if a default is not installed.
    """
    _check(llm, settings)
    if isinstance(session, SessionController):
        if settings:
            raise SettingsError(
                f"conversation(): {', '.join(settings)} are settings of a session, but session= is a "
                "SessionController: pass them to that controller."
            )
        controller = session
    else:
        controller = SessionController(session, **settings)
    parts = [
        transport.input(),
        noise,
        vad if vad is not None else SileroVAD(),
        None if turns is None else TurnDetector(turns),
        stt if stt is not None else PocketSphinxSTT(),
        controller,
        llm if isinstance(llm, FrameProcessor) else RuleResponder(llm),
        tts if tts is not None else EspeakTTS(),
        transport.output(),
    ]
    return Conversation([part for part in parts if part is not None], controller)


def _check(llm: object, settings: Mapping[str, Any]) -> None:
    """Raise `SettingsError` for common mistakes."""
    if isinstance(llm, type) or not (isinstance(llm, FrameProcessor) or callable(llm)):
        raise SettingsError(
            f"conversation(): llm is a language model, as in llm=OpenAILLM(...), or a function from words to words; "
            f"not {llm!r}."
        )
    if "tools" in settings:
        raise SettingsError("conversation(): tools belong to the model, as in llm=OpenAILLM(..., tools=[...]).")
    for name in settings.keys() - SessionSettings.model_fields.keys():
        if meant := get_close_matches(name, PARTS, n=1):
            raise SettingsError(f"conversation() has no {name}. Did you mean {meant[0]}?")

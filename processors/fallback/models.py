"""Fall-backs for what hears: voice detectors, noise suppressors and turn models. `Fallback` is what users type.

In the place of one, several: the first that works does the work. One that raises, or is late, rests for a second (then
two, four, up to a minute), and the next takes over in the middle; when its rest is over, it takes its place again.
Whoever takes over first hears what came just before, so it does not begin deaf. When nobody works, one `ErrorFrame`
says so, and the conversation goes on: without a voice detector nobody is heard to speak, and speech that is under
way ends after ``stop_ms``; without a noise suppressor audio passes as it is; without a turn model the session waits
as it does where there is none.
"""

from __future__ import annotations

import inspect
from collections import deque
from collections.abc import Sequence
from typing import cast

from ...pipeline.errors import ServiceError, SettingsError
from ...pipeline.frames import UPSTREAM, InputAudioFrame
from ...pipeline.processor import handles
from ..audio.noise import NoiseSuppressor
from ..service.chain import LateAnswerFrame, ModelChain
from ..turn_detection.base import FallbackTurnModel, TurnModel
from ..vad.base import VAD
from ..vad.models import Window

WARM_WINDOWS = 15
"""How much a model hears of the past when it takes over: 0.5 s, which costs Silero's 1.5 ms, or 15 where it is slow."""


class FallbackVAD(VAD):
    """Voice detectors, the best first, as one; the first one's settings hold for all.

    Raises `SettingsError` where they do not take the same rate.
    """

    def __init__(self, members: Sequence[VAD]) -> None:
        if not members:
            raise SettingsError("FallbackVAD: give it at least one voice detector, the best first.")
        first = members[0]
        flat: list[VAD] = []
        for member in members:
            flat += member._members if isinstance(member, FallbackVAD) else [member]
        rates = sorted({member._rate for member in flat})
        if len(rates) > 1:
            raise SettingsError(
                f"FallbackVAD: all members take the same sample_rate, not {' and '.join(map(str, rates))}."
            )
        while_speaking = first._threshold_while_speaking
        super().__init__(
            first._model,
            start_ms=first._start_ms,
            stop_ms=first._stop_ms,
            threshold=first._threshold,
            threshold_while_speaking=while_speaking if while_speaking > first._threshold else None,
            sample_rate=first._rate,
        )
        # Kept, because a SileroVAD that is gone has given its model back.
        self._members = tuple(flat)
        self._chain = ModelChain([type(member).__name__ for member in flat], "No speech is detected.")
        self._active = -1
        """Whose model works; -1: none, and whoever begins has to hear the past first."""
        self._heard: deque[Window] = deque(maxlen=WARM_WINDOWS)

    @handles(LateAnswerFrame)
    async def give_up(self, frame: LateAnswerFrame) -> None:
        """A model has held the event loop up too often."""
        self._chain.late(self, frame)
        self._active = -1

    def _reset(self) -> None:
        self._active = -1
        self._heard.clear()

    def _ask(self, window: Window) -> float:
        probability = self._chain.first_answer(self, lambda index: self._answer(index, window))
        self._heard.append(window.copy())
        if probability is None:
            self._active = -1
            return 0.0
        return probability

    def _answer(self, index: int, window: Window) -> float:
        model = self._members[index]._model
        if index != self._active:
            self._active = -1
            model.reset()
            for earlier in self._heard:
                model.probability(earlier)
        probability = model.probability(window)
        if not 0 <= probability <= 1:
            raise ServiceError(f"it gave {probability}, which is no probability.")
        self._active = index
        return probability

    async def _judge(self, samples_after: int) -> None:
        await super()._judge(samples_after)
        if self._active < 0 and (error := self._chain.error_frame(self, InputAudioFrame.__name__)):
            await self.push(error, UPSTREAM)


class FallbackNoise(NoiseSuppressor):
    """Noise suppressors, the best first, as one. Raises `SettingsError` where they do not take the same rate."""

    def __init__(self, members: Sequence[NoiseSuppressor]) -> None:
        if not members:
            raise SettingsError("FallbackNoise: give it at least one noise suppressor, the best first.")
        self._set_up([model for member in members for model in member._models])


def fallback_of(members: Sequence[object]) -> FallbackVAD | FallbackNoise | FallbackTurnModel | None:
    """The fall-back for members of one of these kinds; None where they are of another, or mixed."""
    if members and all(isinstance(member, VAD) for member in members):
        return FallbackVAD(cast(Sequence[VAD], members))
    if members and all(isinstance(member, NoiseSuppressor) for member in members):
        return FallbackNoise(cast(Sequence[NoiseSuppressor], members))
    if members and all(inspect.iscoroutinefunction(getattr(member, "probability", None)) for member in members):
        return FallbackTurnModel(cast(Sequence[TurnModel], members))
    return None

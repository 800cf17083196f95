"""Fall-backs for models of the input: voice detectors, noise suppressors and turn models. Users call `Fallback`.

Of several members the first working one is used. A member that raises or is late rests for a second (then two, four, up
to a minute), and the next takes over in the middle; after its rest it is used again. A member that takes over first
gets the latest audio, so that it knows the context. If no member works, one `ErrorFrame` is pushed and the conversation
continues: without a voice detector no speech is detected, and current speech ends after ``stop_ms``; without a noise
suppressor audio passes unchanged; without a turn model the session waits as if it had none.
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
"""Past audio for a model that takes over: 0.5 s, which costs Silero's model 1.5 ms, or 15 with a slow package."""


class FallbackVAD(VAD):
    """Voice detectors as one, the best first. The settings of the first apply to all.

    Raises `SettingsError` if their rates differ.
    """

    def __init__(self, members: Sequence[VAD]) -> None:
        if not members:
            raise SettingsError("FallbackVAD: pass at least one voice detector, the best first.")
        first = members[0]
        flat: list[VAD] = []
        for member in members:
            flat += member.members if isinstance(member, FallbackVAD) else [member]
        rates = sorted({member.sample_rate for member in flat})
        if len(rates) > 1:
            raise SettingsError(
                f"FallbackVAD: all members take the same sample_rate, not {' and '.join(map(str, rates))}."
            )
        super().__init__(
            first.model,
            start_ms=first.start_ms,
            stop_ms=first.stop_ms,
            threshold=first.threshold,
            threshold_while_speaking=first.threshold_while_speaking,
            sample_rate=first.sample_rate,
        )
        # Referenced, because a collected SileroVAD returns its model to the pool.
        self.members = tuple(flat)
        self._chain = ModelChain([type(member).__name__ for member in flat], "No speech is detected.")
        self._active = -1
        """Index of the member in use; -1: none, so the next one gets the past audio first."""
        self._recent: deque[Window] = deque(maxlen=WARM_WINDOWS)

    @handles(LateAnswerFrame)
    async def give_up(self, frame: LateAnswerFrame) -> None:
        """Fail the member that has blocked the event loop too often."""
        self._chain.late(self, frame)
        self._active = -1

    def reset_model(self) -> None:
        """Forget the stream."""
        self._active = -1
        self._recent.clear()

    def probability(self, window: Window) -> float:
        """Ask the first working member; 0 if none works."""
        probability = self._chain.first_answer(self, lambda index: self._ask_member(index, window))
        self._recent.append(window.copy())
        if probability is None:
            self._active = -1
            return 0.0
        return probability

    def _ask_member(self, index: int, window: Window) -> float:
        model = self.members[index].model
        if index != self._active:
            self._active = -1
            model.reset()
            for earlier in self._recent:
                model.probability(earlier)
        probability = model.probability(window)
        if not 0 <= probability <= 1:
            raise ServiceError(f"it returned {probability}, which is not a probability.")
        self._active = index
        return probability

    async def window_judged(self) -> None:
        """Report once if no member works."""
        if self._active < 0 and (error := self._chain.error_frame(self, InputAudioFrame.__name__)):
            await self.push(error, UPSTREAM)


class FallbackNoise(NoiseSuppressor):
    """Noise suppressors as one, the best first. Raises `SettingsError` if their rates differ."""

    def __init__(self, members: Sequence[NoiseSuppressor]) -> None:
        if not members:
            raise SettingsError("FallbackNoise: pass at least one noise suppressor, the best first.")
        self.use_models([model for member in members for model in member.models])


def fallback_of(members: Sequence[object]) -> FallbackVAD | FallbackNoise | FallbackTurnModel | None:
    """Make the fall-back for members of one of these kinds; None for other or mixed kinds."""
    if members and all(isinstance(member, VAD) for member in members):
        return FallbackVAD(cast(Sequence[VAD], members))
    if members and all(isinstance(member, NoiseSuppressor) for member in members):
        return FallbackNoise(cast(Sequence[NoiseSuppressor], members))
    if members and all(inspect.iscoroutinefunction(getattr(member, "probability", None)) for member in members):
        return FallbackTurnModel(cast(Sequence[TurnModel], members))
    return None

"""Turn detection: predict from the sound of the speech whether the user's turn is over.

A voice detector knows only that the user is silent. A model that analyses the speech knows more, so a bot can answer
"yes" sooner than "I would like". `TurnDetector` asks such a model in each silence, or several in turn
(`FallbackTurnModel`), and waits for the answer only as long as it is useful.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Protocol

import numpy as np
import numpy.typing as npt

from ...pipeline.errors import ServiceError, ServiceTimeout, SettingsError
from ...pipeline.frames import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    Frame,
    InputAudioFrame,
    Samples,
    TurnProbabilityFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from ...pipeline.jobs import Stream
from ...pipeline.processor import AudioFormat, FrameProcessor, handles, streams
from ...pipeline.tasks import Deadline
from ..service.chain import ModelChain

SAMPLE_RATE = 16_000
AUDIO_SAMPLES = 8 * SAMPLE_RATE


class TurnModel(Protocol):
    """Computes the probability that a turn is over, from its sound."""

    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        """Return the probability that the turn is over, 0 to 1.

        ``audio``: shape ``(n,)``, mono at 16 kHz in [-1, 1], at most 8 s, with the current silence at its end. Long
        work must be awaited: in a service, or in a thread of the model.
        """
        ...


class FallbackTurnModel:
    """Several turn models for a `TurnDetector`, the best first: if one fails or is late, the next is asked.

    A failed model rests, at first for a second. Each `TurnDetector` keeps its own record of the failures. Raises
    `SettingsError` for an empty list.
    """

    def __init__(self, models: Sequence[TurnModel]) -> None:
        if not models:
            raise SettingsError("FallbackTurnModel: pass at least one model, the best first.")
        self.models = tuple(models)


class TurnDetector(FrameProcessor):
    """Asks a turn model after each stop of the user, and pushes the answer as a `TurnProbabilityFrame`.

    Place it behind the voice detector, whose ``stop_ms`` may then be short (200). Audio and events pass at once and in
    order; the answer follows when it is ready, unless the user speaks again by then.

    The model gets the last 8 s of the user's audio since the bot's last answer; earlier speech belongs to another turn.
    If the model fails, or does not answer within ``deadline_ms``, the session waits as if it had no model, and one
    `ErrorFrame` is pushed until the model works again. In a `FallbackTurnModel` each member has that long, and the
    `ErrorFrame` is pushed when all have failed.
    """

    def __init__(self, model: TurnModel | FallbackTurnModel, *, deadline_ms: float = 500) -> None:
        if not deadline_ms > 0:
            raise SettingsError(f"deadline_ms is the longest wait for an answer, above 0, not {deadline_ms}.")
        self._models = model.models if isinstance(model, FallbackTurnModel) else (model,)
        self._deadline_ms = deadline_ms
        names = [type(model).__name__ for model in self._models]
        self._chain = ModelChain(names, "The end of the user's turn is not predicted.", steady=1)
        self._last_event: Frame | None = None
        """Last event of the voice detector."""
        self._bot_starts = 0
        """Number of times that the bot has started to speak."""

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono audio at 16 kHz."""
        return {InputAudioFrame: AudioFormat((SAMPLE_RATE,), (1,))}

    @handles(UserStartedSpeakingFrame, UserStoppedSpeakingFrame)
    async def watch(self, frame: UserStartedSpeakingFrame | UserStoppedSpeakingFrame) -> None:
        """Record the last event: an answer to an earlier one is dropped."""
        self._last_event = frame
        await self.push(frame)

    @handles(BotStartedSpeakingFrame, direction=UPSTREAM)
    async def start_turn(self, frame: BotStartedSpeakingFrame) -> None:
        """Start another turn of the user."""
        self._bot_starts += 1
        await self.push(frame, UPSTREAM)

    @streams(InputAudioFrame, UserStoppedSpeakingFrame)
    async def listen(self, frames: Stream[Frame]) -> AsyncIterator[Frame]:
        """Collect the audio, and ask the model at each stop."""
        recent = _RecentAudio()
        bot_starts = self._bot_starts
        async for frame in frames:
            if bot_starts != self._bot_starts:
                bot_starts = self._bot_starts
                recent = _RecentAudio()
            if isinstance(frame, InputAudioFrame):
                recent.add(frame.samples)
            elif frame is self._last_event:
                probability = await self._ask(recent.audio(), frame)
                if probability is not None and frame is self._last_event:
                    yield TurnProbabilityFrame(probability)

    async def _ask(self, audio: npt.NDArray[np.float32], frame: Frame) -> float | None:
        """Return the first answer of a model; None if all fail, or if the user speaks again."""
        for index in self._chain.health.order(self.clock.now_ns()):
            if frame is not self._last_event:
                return None
            late = ServiceTimeout(f"it did not answer within {self._deadline_ms:g} ms.")
            try:
                with Deadline(self.clock, self._deadline_ms / 1000, lambda late=late: late):
                    probability = await self._models[index].probability(audio)
                if not 0 <= probability <= 1:
                    raise ServiceError(f"it returned {probability}, which is not a probability.")
            except Exception as error:
                self._chain.failed(self, index, error, self.clock.now_ns())
            else:
                self._chain.worked(index)
                return probability
        if error := self._chain.error_frame(self, type(frame).__name__):
            await self.push(error, UPSTREAM)
        return None


class _RecentAudio:
    """The last 8 s of audio."""

    def __init__(self) -> None:
        self._parts: deque[Samples] = deque()  # bound: 8 s of audio, then the oldest goes
        self._length = 0

    def add(self, samples: Samples) -> None:
        self._parts.append(samples)
        self._length += len(samples)
        while self._length - len(self._parts[0]) >= AUDIO_SAMPLES:
            self._length -= len(self._parts.popleft())

    def audio(self) -> npt.NDArray[np.float32]:
        parts = np.concatenate(self._parts) if self._parts else np.zeros(0, np.int16)
        return parts[-AUDIO_SAMPLES:].astype(np.float32) / np.float32(32_768)

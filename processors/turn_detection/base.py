"""Turn models: was that all that the user wanted to say, or do they only draw breath?

A voice detector knows that the user is silent. A model that has listened to how they spoke knows more, and so a bot
need not wait as long after "yes" as it does after "I would like". `TurnDetector` asks such a model in each silence, or
one after the other of several (`FallbackTurnModel`), and waits for an answer no longer than it is worth something.
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
HEARD_SAMPLES = 8 * SAMPLE_RATE


class TurnModel(Protocol):
    """Says whether a turn is over, from how it sounds."""

    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        """Of the turn being over, 0 to 1.

        ``audio``: shape ``(n,)``, mono at 16 kHz in [-1, 1], at most 8 s; the silence that the question is about is at
        its end. What takes long must be awaited: a service, a thread of the model's own.
        """
        ...


class FallbackTurnModel:
    """Several turn models for a `TurnDetector`, the best first: where one fails, or is late, the next is asked.

    It rests then, at first for a second, and is asked again after that. Which of them work is known for each
    `TurnDetector`. Raises `SettingsError` where there is none.
    """

    def __init__(self, models: Sequence[TurnModel]) -> None:
        if not models:
            raise SettingsError("FallbackTurnModel: give it at least one model, the best first.")
        self.models = tuple(models)


class TurnDetector(FrameProcessor):
    """Asks a turn model whenever the user has stopped, and tells its answer as a `TurnProbabilityFrame`.

    Stands behind the voice detector, whose ``stop_ms`` may then be short (200). Audio and events pass at once and
    in order; the answer comes behind them when it is there, unless the user speaks again by then.

    The model hears the last 8 s of the user's side, from the bot's last answer on: what was said before that belongs
    to another turn. Where it fails, or gives no answer within ``deadline_ms``, the session waits as it does without a
    model, and an `ErrorFrame` says so, once until it works again. Of a `FallbackTurnModel` each member has that long,
    and the `ErrorFrame` comes when all have failed.
    """

    def __init__(self, model: TurnModel | FallbackTurnModel, *, deadline_ms: float = 500) -> None:
        if not deadline_ms > 0:
            raise SettingsError(f"deadline_ms is how long an answer may take, above 0, not {deadline_ms}.")
        self._models = model.models if isinstance(model, FallbackTurnModel) else (model,)
        self._deadline_ms = deadline_ms
        names = [type(model).__name__ for model in self._models]
        self._chain = ModelChain(names, "Nothing is known of whether the user's turn is over.", steady=1)
        self._last: Frame | None = None
        """The last that the voice detector said."""
        self._answers = 0
        """How often the bot has begun to speak."""

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """16 kHz, mono."""
        return {InputAudioFrame: AudioFormat((SAMPLE_RATE,), (1,))}

    @handles(UserStartedSpeakingFrame, UserStoppedSpeakingFrame)
    async def watch(self, frame: UserStartedSpeakingFrame | UserStoppedSpeakingFrame) -> None:
        """An answer to what is no longer the last is worth nothing."""
        self._last = frame
        await self.push(frame)

    @handles(BotStartedSpeakingFrame, direction=UPSTREAM)
    async def mind(self, frame: BotStartedSpeakingFrame) -> None:
        """A turn is over."""
        self._answers += 1
        await self.push(frame, UPSTREAM)

    @streams(InputAudioFrame, UserStoppedSpeakingFrame)
    async def listen(self, frames: Stream[Frame]) -> AsyncIterator[Frame]:
        """Read along, and ask."""
        heard = _Heard()
        answers = self._answers
        async for frame in frames:
            if answers != self._answers:
                answers = self._answers
                heard = _Heard()
            if isinstance(frame, InputAudioFrame):
                heard.add(frame.samples)
            elif frame is self._last:
                probability = await self._ask(heard.audio(), frame)
                if probability is not None and frame is self._last:
                    yield TurnProbabilityFrame(probability)

    async def _ask(self, audio: npt.NDArray[np.float32], frame: Frame) -> float | None:
        """The first answer that there is. None where nobody gives one, or it is not wanted any more."""
        for index in self._chain.health.order(self.clock.now_ns()):
            if frame is not self._last:
                return None
            late = ServiceTimeout(f"it gave no answer within {self._deadline_ms:g} ms.")
            try:
                with Deadline(self.clock, self._deadline_ms / 1000, lambda late=late: late):
                    probability = await self._models[index].probability(audio)
                if not 0 <= probability <= 1:
                    raise ServiceError(f"it gave {probability}, which is no probability.")
            except Exception as error:
                self._chain.failed(self, index, error, self.clock.now_ns())
            else:
                self._chain.worked(index)
                return probability
        if error := self._chain.error_frame(self, type(frame).__name__):
            await self.push(error, UPSTREAM)
        return None


class _Heard:
    """The last 8 s."""

    def __init__(self) -> None:
        self._parts: deque[Samples] = deque()  # bound: 8 s of audio, then the oldest goes
        self._length = 0

    def add(self, samples: Samples) -> None:
        self._parts.append(samples)
        self._length += len(samples)
        while self._length - len(self._parts[0]) >= HEARD_SAMPLES:
            self._length -= len(self._parts.popleft())

    def audio(self) -> npt.NDArray[np.float32]:
        parts = np.concatenate(self._parts) if self._parts else np.zeros(0, np.int16)
        return parts[-HEARD_SAMPLES:].astype(np.float32) / np.float32(32_768)

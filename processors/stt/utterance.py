"""The audio of an utterance: read as it comes, and again after a failure."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pipeline.frames import (
    Frame,
    HeardWord,
    InputAudioFrame,
    InputEndedFrame,
    Samples,
    TranscriptionFrame,
    UserStoppedSpeakingFrame,
)
from ...pipeline.jobs import Stream
from ..service.base import ServiceCall


@dataclass(frozen=True, slots=True)
class Transcript:
    """What was understood. ``final``: it will not change, and what is said next comes in another one.

    ``end_ms``: how much of the audio a final one covers, None for all that was read; ``words``: when they were said.
    Both are in ms from the beginning of the audio that `STT.transcribe` got.
    """

    text: str
    final: bool = True
    end_ms: float | None = None
    words: tuple[HeardWord, ...] = ()


class Before:
    """The last audio before the start of speech."""

    def __init__(self) -> None:
        self._frames: deque[InputAudioFrame] = deque()  # bound: `kept_ms` of audio, then the oldest goes
        self._ms = 0.0

    def add(self, frame: InputAudioFrame, kept_ms: float) -> None:
        """One more frame; the oldest that are not needed go."""
        self._frames.append(frame)
        self._ms += frame.duration_ms
        while self._ms - self._frames[0].duration_ms >= kept_ms:
            self._ms -= self._frames.popleft().duration_ms

    def last(self, ms: float) -> Samples:
        """The audio of the frames that hold the last ``ms``."""
        found: list[Samples] = []
        for frame in reversed(self._frames):
            if ms <= 0:
                break
            found.append(frame.samples)
            ms -= frame.duration_ms
        return np.concatenate(found[::-1]) if found else np.zeros(0, np.int16)


class Utterance:
    """What the user says between a start and a stop. Positions are in samples from its beginning."""

    def __init__(
        self, frames: Stream[Frame], before: Before, onset: Samples, replay_s: float, kept_ms: float, sample_rate: int
    ) -> None:
        self._frames = frames
        self._before = before
        self._kept_ms = kept_ms
        self._rate = sample_rate
        # bound: `replay_s` of audio, then the oldest goes
        self._audio: deque[Samples] = deque([onset] if len(onset) else [])
        self._most = max(1, round(replay_s * sample_rate))
        self._start = 0
        """Where `_audio` begins: what comes before is told, or too old."""
        self._asked = 0
        """Where the audio of this attempt begins."""
        self._read = 0
        """Up to where this attempt has read."""
        self._end = len(onset)
        self._told = 0
        """Up to where a final text has told."""
        self.ended = False
        """Whether the user has stopped."""

    @property
    def audio_ms(self) -> float:
        """Its length so far."""
        return self._ms(self._end)

    def audio(self, asking: ServiceCall[Any]) -> AsyncGenerator[Samples]:
        """The audio that no final text has told of, from its beginning to the end of the utterance."""
        # At once, and not when it is first read: a text may come before that.
        self._asked = self._read = self._start
        return self._reading(asking)

    async def _reading(self, asking: ServiceCall[Any]) -> AsyncGenerator[Samples]:
        if self._audio:
            self._read = self._end
            yield np.concatenate(self._audio)
        while not self.ended:
            samples = await self._more(asking)
            if len(samples):
                self._read = self._end
                yield samples

    async def rest(self, asking: ServiceCall[Any]) -> None:
        """Wait for its end."""
        while not self.ended:
            await self._more(asking)
        self._read = self._end

    async def _more(self, asking: ServiceCall[Any]) -> Samples:
        if asking.deadline is not None:
            # The user may speak as long as they like.
            asking.deadline.pause()
        frame = await anext(self._frames, None)
        if asking.deadline is not None:
            asking.deadline.resume()
        if isinstance(frame, InputAudioFrame):
            self._before.add(frame, self._kept_ms)
            self._audio.append(frame.samples)
            self._end += len(frame.samples)
            while self._end - self._start - len(self._audio[0]) >= self._most:
                self._start += len(self._audio.popleft())
            return frame.samples
        if frame is None or isinstance(frame, UserStoppedSpeakingFrame | InputEndedFrame):
            self.ended = True
            asking.restart_clock()
        return np.zeros(0, np.int16)

    def told(self, heard: Transcript, asking: ServiceCall[Any]) -> TranscriptionFrame:
        """A final text as a frame; the audio that it covers is not needed again."""
        end = self._read if heard.end_ms is None else self._asked + round(heard.end_ms * self._rate / 1000)
        end = min(max(end, self._told), self._end)
        audio_ms, self._told = self._ms(end - self._told), end
        while self._audio and self._start + len(self._audio[0]) <= end:
            self._start += len(self._audio.popleft())
        if self._audio and self._start < end:
            self._audio[0], self._start = self._audio[0][end - self._start :], end
        late_ms = self._ms(self._asked)
        words = tuple(HeardWord(word.text, word.start_ms + late_ms, word.end_ms + late_ms) for word in heard.words)
        return TranscriptionFrame(heard.text, audio_ms, asking.total_ms if self.ended else 0.0, words=words)

    def _ms(self, samples: int) -> float:
        return samples * 1000 / self._rate

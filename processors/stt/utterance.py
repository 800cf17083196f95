"""Audio of an utterance: read as it arrives, and again after a failure."""

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
    """Text of speech. ``final``: it will not change, and further speech has its own transcript.

    ``end_ms``: end of the audio that a final one covers, None for all audio so far; ``words``: the words with their
    times. Both are in ms from the start of the audio that `STT.transcribe` got.
    """

    text: str
    final: bool = True
    end_ms: float | None = None
    words: tuple[HeardWord, ...] = ()


class PrerollBuffer:
    """The last audio before the start of speech."""

    def __init__(self) -> None:
        self._frames: deque[InputAudioFrame] = deque()  # bound: `kept_ms` of audio, then the oldest goes
        self._ms = 0.0

    def add(self, frame: InputAudioFrame, kept_ms: float) -> None:
        """Add a frame, and drop the oldest beyond ``kept_ms``."""
        self._frames.append(frame)
        self._ms += frame.duration_ms
        while self._ms - self._frames[0].duration_ms >= kept_ms:
            self._ms -= self._frames.popleft().duration_ms

    def last(self, ms: float) -> Samples:
        """Return the audio of the frames that contain the last ``ms``."""
        found: list[Samples] = []
        for frame in reversed(self._frames):
            if ms <= 0:
                break
            found.append(frame.samples)
            ms -= frame.duration_ms
        return np.concatenate(found[::-1]) if found else np.zeros(0, np.int16)


class Utterance:
    """Speech between a start and a stop. Positions are in samples from its start."""

    def __init__(
        self,
        frames: Stream[Frame],
        preroll: PrerollBuffer,
        onset: Samples,
        replay_s: float,
        kept_ms: float,
        sample_rate: int,
    ) -> None:
        self._frames = frames
        self._preroll = preroll
        self._kept_ms = kept_ms
        self._rate = sample_rate
        # bound: `replay_s` of audio, then the oldest goes
        self._audio: deque[Samples] = deque([onset] if len(onset) else [])
        self._most = max(1, round(replay_s * sample_rate))
        self._start = 0
        """Position at which `_audio` starts: earlier audio is transcribed, or too old."""
        self._attempt_start = 0
        """Position at which this attempt's audio starts."""
        self._read = 0
        """Position up to which this attempt has read."""
        self._end = len(onset)
        self._transcribed = 0
        """Position up to which final texts cover the audio."""
        self.ended = False
        """True once the user has stopped."""

    @property
    def audio_ms(self) -> float:
        """Length so far."""
        return self._ms(self._end)

    def audio(self, call: ServiceCall[Any]) -> AsyncGenerator[Samples]:
        """Yield the audio that no final text covers, up to the end of the utterance."""
        # Set here and not at the first read, because a text may arrive before that.
        self._attempt_start = self._read = self._start
        return self._reading(call)

    async def _reading(self, call: ServiceCall[Any]) -> AsyncGenerator[Samples]:
        if self._audio:
            self._read = self._end
            yield np.concatenate(self._audio)
        while not self.ended:
            samples = await self._more(call)
            if len(samples):
                self._read = self._end
                yield samples

    async def rest(self, call: ServiceCall[Any]) -> None:
        """Wait for the end of the utterance."""
        while not self.ended:
            await self._more(call)
        self._read = self._end

    async def _more(self, call: ServiceCall[Any]) -> Samples:
        if call.deadline is not None:
            # The deadline does not run while the user speaks.
            call.deadline.pause()
        frame = await anext(self._frames, None)
        if call.deadline is not None:
            call.deadline.resume()
        if isinstance(frame, InputAudioFrame):
            self._preroll.add(frame, self._kept_ms)
            self._audio.append(frame.samples)
            self._end += len(frame.samples)
            while self._end - self._start - len(self._audio[0]) >= self._most:
                self._start += len(self._audio.popleft())
            return frame.samples
        if frame is None or isinstance(frame, UserStoppedSpeakingFrame | InputEndedFrame):
            self.ended = True
            call.restart_clock()
        return np.zeros(0, np.int16)

    def transcription(self, transcript: Transcript, call: ServiceCall[Any]) -> TranscriptionFrame:
        """Make a frame of a final text, and drop the audio that it covers."""
        end = (
            self._read
            if transcript.end_ms is None
            else self._attempt_start + round(transcript.end_ms * self._rate / 1000)
        )
        end = min(max(end, self._transcribed), self._end)
        audio_ms, self._transcribed = self._ms(end - self._transcribed), end
        while self._audio and self._start + len(self._audio[0]) <= end:
            self._start += len(self._audio.popleft())
        if self._audio and self._start < end:
            self._audio[0], self._start = self._audio[0][end - self._start :], end
        offset_ms = self._ms(self._attempt_start)
        words = tuple(
            HeardWord(word.text, word.start_ms + offset_ms, word.end_ms + offset_ms) for word in transcript.words
        )
        return TranscriptionFrame(transcript.text, audio_ms, call.total_ms if self.ended else 0.0, words=words)

    def _ms(self, samples: int) -> float:
        return samples * 1000 / self._rate

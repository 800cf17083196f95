"""Voice activity detection: find when the user speaks.

A `VAD` passes the audio through, and pushes `UserStartedSpeakingFrame` and `UserStoppedSpeakingFrame` after the frame
in which the change became certain. Its model (a `SpeechModel`) computes a probability of speech for every 32 ms;
`SpeechRule`, which is pure, derives the two events. `SileroVAD` and `EnergyVAD` include a model.

Two facts reach it from downstream: the bot is audible (then speech may have to be clearer), and the session wants the
user's audio or not.
"""

from __future__ import annotations

import weakref
from collections.abc import Mapping

import numpy as np

from ...pipeline.errors import FrameError, SettingsError
from ...pipeline.frames import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    InputAudioFrame,
    InputEndedFrame,
    ListenFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from ...pipeline.processor import AudioFormat, FrameProcessor, handles
from .energy import EnergyModel
from .models import WINDOW_MS, SpeechModel, Window, give_back, take, warm

HYSTERESIS = 0.15
"""Silence is a probability below the threshold minus this. From `VADIterator` in snakers4/silero-vad (utils_vad.py)."""


class SpeechRule:
    """Speech probabilities in, starts and ends of speech out. All durations are in ms of audio.

    Speech starts ``start_ms`` after the first window at or above ``threshold``, if no window of silence follows; it
    ends ``stop_ms`` after the first window of silence, if no window at or above the threshold follows. A window in
    between (from ``threshold - HYSTERESIS`` to ``threshold``) changes nothing: a hiss or a closed "t" does not end a
    word.
    """

    def __init__(self, *, start_ms: float = 200, stop_ms: float = 500, threshold: float = 0.5) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold is a probability between 0 and 1, not {threshold}.")
        if start_ms < 0 or stop_ms < 0:
            raise ValueError(f"start_ms and stop_ms are durations, not {start_ms} and {stop_ms}.")
        self._next_threshold = threshold
        self._apply_threshold()
        # Rounded to whole windows: 200 ms are 6 of them.
        self._start_windows = max(1, round(start_ms / WINDOW_MS))
        self._stop_windows = max(1, round(stop_ms / WINDOW_MS))
        self.speaking = False
        self._changing = 0
        """Number of windows since the start of a possible change; 0: none."""

    def set_threshold(self, threshold: float) -> None:
        """Change the threshold: lower it at once, raise it after current speech or its start. So speech that a low
        threshold admitted is never cut short by a higher one.
        """
        self._next_threshold = threshold
        if threshold < self.threshold:
            self._apply_threshold()

    def _apply_threshold(self) -> None:
        self.threshold = self._next_threshold
        self.silence = max(0.01, self.threshold - HYSTERESIS)

    def hear(self, probability: float) -> int:
        """Add the probability of the next window. If that makes a change certain (see `speaking`), returns the number
        of windows since it began, else 0.
        """
        if self.threshold != self._next_threshold and not (self.speaking or self._changing):
            self._apply_threshold()
        changes, settles = probability >= self.threshold, probability < self.silence
        if self.speaking:
            changes, settles = settles, changes
        if settles:
            self._changing = 0
        elif changes or self._changing:
            self._changing += 1
        if self._changing < (self._stop_windows if self.speaking else self._start_windows):
            return 0
        since, self._changing = self._changing, 0
        self.speaking = not self.speaking
        return since

    def stop(self) -> int:
        """End the stream, and speech with it. Returns the number of windows of silence before."""
        silent, self._changing = self._changing, 0
        self.speaking = False
        return silent


class VAD(FrameProcessor):
    """A voice detector with a ``model`` of yours: one object for each conversation.

    ``start_ms`` of speech are a start, ``stop_ms`` of silence an end. Takes mono audio at ``sample_rate`` (Hz), in
    frames of any length, and calls the model for every 32 ms. If the input ends while the user speaks, the end of
    speech is pushed first.

    ``threshold_while_speaking``, which is higher, replaces ``threshold`` while the bot is audible, because the rest of
    its voice in the microphone is not the user. Speech that began before keeps the lower one to its end. A
    `ListenFrame` from downstream stops the detector: no audio passes, none is judged, and current speech ends.

    Hooks for subclasses: `probability`, `reset_model`, `window_judged`.
    """

    def __init__(
        self,
        model: SpeechModel,
        *,
        start_ms: float = 200,
        stop_ms: float = 500,
        threshold: float = 0.5,
        threshold_while_speaking: float | None = None,
        sample_rate: int = 16_000,
    ) -> None:
        if threshold_while_speaking is not None and not threshold < threshold_while_speaking < 1:
            raise SettingsError(
                f"threshold_while_speaking is a probability above threshold ({threshold}) and below 1, "
                f"not {threshold_while_speaking}."
            )
        if sample_rate < 1000 / WINDOW_MS:
            raise SettingsError(f"sample_rate is a rate in Hz, such as 16000, not {sample_rate}.")
        self.start_ms, self.stop_ms = start_ms, stop_ms
        self.threshold = threshold
        self.threshold_while_speaking = threshold_while_speaking
        self._listens = True
        self.sample_rate = sample_rate
        self._rule = SpeechRule(start_ms=start_ms, stop_ms=stop_ms, threshold=threshold)
        self.model = model
        self._window: Window = np.zeros(WINDOW_MS * sample_rate // 1000, np.float32)
        self._filled = 0

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono audio at `sample_rate`."""
        return {InputAudioFrame: AudioFormat((self.sample_rate,), (1,))}

    @handles(InputAudioFrame)
    async def listen(self, frame: InputAudioFrame) -> None:
        """Pass the audio on, and then the events that it makes certain."""
        if not self._listens:
            return
        if frame.sample_rate != self.sample_rate or frame.samples.ndim != 1:
            raise FrameError(
                f"{self.path} takes mono at {self.sample_rate} Hz, and got {frame!r}. "
                f"Put a Resampler({self.sample_rate}) in front of it."
            )
        await self.push(frame)
        samples, window = frame.samples, self._window
        at = 0
        while at < len(samples):
            taken = min(len(window) - self._filled, len(samples) - at)
            np.multiply(samples[at : at + taken], 1 / 32768, out=window[self._filled : self._filled + taken])
            at += taken
            self._filled += taken
            if self._filled == len(window):
                self._filled = 0
                await self._judge(len(samples) - at)

    @handles(InputEndedFrame)
    async def hang_up(self, frame: InputEndedFrame) -> None:
        """End speech with the input."""
        await self._forget()
        await self.push(frame)

    @handles(ListenFrame, direction=UPSTREAM)
    async def switch_listening(self, frame: ListenFrame) -> None:
        """Start listening, like a new stream; or stop."""
        if not frame.on:
            await self._forget()
        self._listens = frame.on
        await self.push(frame, UPSTREAM)

    @handles(BotStartedSpeakingFrame, BotStoppedSpeakingFrame, direction=UPSTREAM)
    async def adapt_threshold(self, frame: BotStartedSpeakingFrame | BotStoppedSpeakingFrame) -> None:
        """Raise the threshold while the bot's own voice may be in the microphone."""
        audible = isinstance(frame, BotStartedSpeakingFrame)
        while_speaking = self.threshold_while_speaking or self.threshold
        self._rule.set_threshold(while_speaking if audible else self.threshold)
        await self.push(frame, UPSTREAM)

    def probability(self, window: Window) -> float:
        """Hook: return the probability of speech in a window."""
        return self.model.probability(window)

    def reset_model(self) -> None:
        """Hook: forget the stream, because another one begins."""
        self.model.reset()

    async def window_judged(self) -> None:
        """Hook: called after each window, when its event has been pushed."""

    async def _forget(self) -> None:
        """End current speech, and forget the stream."""
        speaking = self._rule.speaking
        silent = self._rule.stop()
        self._filled = 0
        self.reset_model()
        if speaking:
            await self.push(UserStoppedSpeakingFrame(silent * WINDOW_MS))

    async def _judge(self, samples_after: int) -> None:
        """Judge a full window; ``samples_after`` is the number of later samples in the current frame."""
        windows = self._rule.hear(self.probability(self._window))
        if windows:
            # Measured to the end of the frame, because the event follows it.
            since_ms = windows * WINDOW_MS + samples_after * 1000 / self.sample_rate
            event = UserStartedSpeakingFrame if self._rule.speaking else UserStoppedSpeakingFrame
            await self.push(event(since_ms))
        await self.window_judged()


class SileroVAD(VAD):
    """`VAD` with Silero's model. See `vad/models.py` for the packages that run it, and their cost.

    At 16,000 or 8,000 Hz; 90-120 µs for every 32 ms. `warm` loads models before the first call.

    Raises `MissingExtraError` without the package.
    """

    def __init__(
        self,
        *,
        start_ms: float = 200,
        stop_ms: float = 500,
        threshold: float = 0.5,
        threshold_while_speaking: float | None = None,
        sample_rate: int = 16_000,
    ) -> None:
        model, pool = take(sample_rate)
        weakref.finalize(self, give_back, model, pool).atexit = False
        super().__init__(
            model,
            start_ms=start_ms,
            stop_ms=stop_ms,
            threshold=threshold,
            threshold_while_speaking=threshold_while_speaking,
            sample_rate=sample_rate,
        )

    @staticmethod
    def warm(count: int = 1, sample_rate: int = 16_000) -> None:
        """Load models until ``count`` are ready. For a server, before the first call."""
        warm(count, sample_rate)


class EnergyVAD(VAD):
    """`VAD` with `EnergyModel`: needs no package, and takes any sound above the noise for speech.

    For a `Fallback`, or for a user who is alone. Rates of at least 8,000 Hz.
    """

    def __init__(
        self,
        *,
        start_ms: float = 200,
        stop_ms: float = 500,
        threshold: float = 0.5,
        threshold_while_speaking: float | None = None,
        sample_rate: int = 16_000,
    ) -> None:
        super().__init__(
            EnergyModel(sample_rate),
            start_ms=start_ms,
            stop_ms=stop_ms,
            threshold=threshold,
            threshold_while_speaking=threshold_while_speaking,
            sample_rate=sample_rate,
        )

"""Voice activity detection: when the user speaks, and when not.

A `VAD` hands the audio on as it is, and puts `UserStartedSpeakingFrame` and `UserStoppedSpeakingFrame`
behind the frame in which it became sure. Its model (a `SpeechModel`) gives a probability of speech for every 32 ms;
`SpeechRule`, which is pure, makes the two events of it. `SileroVAD` and `EnergyVAD` bring a model with them.

Two things that others know reach it from downstream: that the bot is heard (then speech may be asked to be clearer),
and whether the session wants the user to be listened to at all.
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
"""Silence is a probability below the threshold less this. From `VADIterator` in snakers4/silero-vad
(utils_vad.py).
"""


class SpeechRule:
    """Speech probabilities in, "it began" and "it ended" out. All lengths are in ms of audio.

    Speech begins when ``start_ms`` have passed since the first window at or above ``threshold``, with none of
    silence between; it ends when ``stop_ms`` have passed since the first of silence, with none at or above
    the threshold between. A window that is neither (between ``threshold - HYSTERESIS`` and ``threshold``)
    changes nothing: a hiss or a closed "t" in mid-word is not the end of it.
    """

    def __init__(self, *, start_ms: float = 200, stop_ms: float = 500, threshold: float = 0.5) -> None:
        if not 0 < threshold < 1:
            raise ValueError(f"threshold is a probability between 0 and 1, not {threshold}.")
        if start_ms < 0 or stop_ms < 0:
            raise ValueError(f"start_ms and stop_ms are lengths, not {start_ms} and {stop_ms}.")
        self._wanted = threshold
        self._adopt()
        # In whole windows, the nearest: 200 ms are 6 of them.
        self._start_windows = max(1, round(start_ms / WINDOW_MS))
        self._stop_windows = max(1, round(stop_ms / WINDOW_MS))
        self.speaking = False
        self._changing = 0
        """How many windows ago the change that is being watched began; 0: there is none."""

    def move(self, threshold: float) -> None:
        """Put the threshold elsewhere: lower at once; higher when nothing is under way, neither speech nor a start
        of it. So what a low threshold let in is never cut short by a high one that comes later.
        """
        self._wanted = threshold
        if threshold < self.threshold:
            self._adopt()

    def _adopt(self) -> None:
        self.threshold = self._wanted
        self.silence = max(0.01, self.threshold - HYSTERESIS)

    def hear(self, probability: float) -> int:
        """Take the next window. Where it makes a change sure (see `speaking`): how many windows ago that
        began, else 0.
        """
        if self.threshold != self._wanted and not (self.speaking or self._changing):
            self._adopt()
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
        """Nothing more comes: end speech. Returns how many windows of silence there were."""
        silent, self._changing = self._changing, 0
        self.speaking = False
        return silent


class VAD(FrameProcessor):
    """A voice detector with a ``model`` of yours: one object for each conversation.

    ``start_ms`` of speech make a start, ``stop_ms`` of silence an end. Takes mono audio at ``sample_rate`` (Hz), in
    frames of any length, and asks the model about every 32 ms of it. Where the input ends while the user speaks, the
    end of speech comes first.

    ``threshold_while_speaking``, which is higher, takes the place of ``threshold`` while the bot is heard: what is
    left of its voice in the microphone is no user. Speech that began before keeps the lower one to its end.
    A `ListenFrame` from downstream stops it: no audio passes, none is judged, and speech that is under way ends.
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
            raise SettingsError(f"sample_rate is a rate in Hz, as 16000, not {sample_rate}.")
        self._start_ms, self._stop_ms = start_ms, stop_ms
        self._threshold = threshold
        self._threshold_while_speaking = threshold_while_speaking or threshold
        self._listens = True
        self._rate = sample_rate
        self._rule = SpeechRule(start_ms=start_ms, stop_ms=stop_ms, threshold=threshold)
        self._model = model
        self._window: Window = np.zeros(WINDOW_MS * sample_rate // 1000, np.float32)
        self._filled = 0

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono, at its rate."""
        return {InputAudioFrame: AudioFormat((self._rate,), (1,))}

    @handles(InputAudioFrame)
    async def listen(self, frame: InputAudioFrame) -> None:
        """Hand the audio on, and after it what it makes sure."""
        if not self._listens:
            return
        if frame.sample_rate != self._rate or frame.samples.ndim != 1:
            raise FrameError(
                f"{self.path} takes mono at {self._rate} Hz, and got {frame!r}. "
                f"Put a Resampler({self._rate}) before it."
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
        """Nobody is left to speak."""
        await self._forget()
        await self.push(frame)

    @handles(ListenFrame, direction=UPSTREAM)
    async def heed(self, frame: ListenFrame) -> None:
        """Listen from here on, as if nothing had been heard before; or do not."""
        if not frame.on:
            await self._forget()
        self._listens = frame.on
        await self.push(frame, UPSTREAM)

    @handles(BotStartedSpeakingFrame, BotStoppedSpeakingFrame, direction=UPSTREAM)
    async def mind(self, frame: BotStartedSpeakingFrame | BotStoppedSpeakingFrame) -> None:
        """Ask more of what may be the bot's own voice."""
        heard = isinstance(frame, BotStartedSpeakingFrame)
        self._rule.move(self._threshold_while_speaking if heard else self._threshold)
        await self.push(frame, UPSTREAM)

    def _ask(self, window: Window) -> float:
        """The probability of speech in a window."""
        return self._model.probability(window)

    def _reset(self) -> None:
        """Another stream begins."""
        self._model.reset()

    async def _forget(self) -> None:
        """End speech that is under way, and forget all that was heard."""
        speaking = self._rule.speaking
        silent = self._rule.stop()
        self._filled = 0
        self._reset()
        if speaking:
            await self.push(UserStoppedSpeakingFrame(silent * WINDOW_MS))

    async def _judge(self, samples_after: int) -> None:
        """Ask the model about a full window; ``samples_after`` of the frame under way come after it."""
        windows = self._rule.hear(self._ask(self._window))
        if windows:
            # Counted to the end of the frame, because that is when anybody can know.
            since_ms = windows * WINDOW_MS + samples_after * 1000 / self._rate
            event = UserStartedSpeakingFrame if self._rule.speaking else UserStoppedSpeakingFrame
            await self.push(event(since_ms))


class SileroVAD(VAD):
    """`VAD` with Silero's model: which package runs it, and what that costs, is told in `vad_models.py`.

    At 16,000 or 8,000 Hz; 90-120 µs for every 32 ms. `warm` loads models before the first call comes in.

    Raises `MissingExtraError` where the package is missing.
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
        model, waiting = take(sample_rate)
        weakref.finalize(self, give_back, model, waiting).atexit = False
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
        """Load models, until ``count`` stand ready. For a server, before the first call."""
        warm(count, sample_rate)


class EnergyVAD(VAD):
    """`VAD` with `EnergyModel`: needs no package, and takes whatever stands out of the noise for speech.

    For a `Fallback`, or where nobody else is in the room. Rates from 8,000 Hz on.
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

"""The contracts of what judges and cleans the microphone's audio: voice detectors, turn models, noise suppressors."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ...pipeline.frames import (
    UPSTREAM,
    Frame,
    InputAudioFrame,
    InputEndedFrame,
    InputFrame,
    ListenFrame,
    Samples,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from ...pipeline.processor import FrameProcessor, handles
from ...pipeline.testing.failures import BenchFailure, ContractFailure
from ...pipeline.testing.harness import Bench
from ...pipeline.testing.material import noise, silence, tone
from ..audio.noise import NoiseSuppressor
from ..turn_detection.base import AUDIO_SAMPLES, TurnModel
from ..vad.base import VAD
from .common import PATIENCE_S

NS_PER_S = 1_000_000_000
QUIET_MS = 3_000
LATE_MS = 300.0
"""By how much the events of the same speech may differ, where it comes in other pieces."""


class _Rules:
    """The rule that is looked at, and who has to keep it."""

    def __init__(self, kind: str, who: str) -> None:
        self.kind, self.who, self.rule = kind, who, ""

    def expect(self, holds: bool, expected: str, came: object) -> None:
        """Fail unless it holds."""
        if not holds:
            raise ContractFailure(
                f"{self.who} breaks the contract of {self.kind}.\n"
                f"rule:     {self.rule}\nexpected: {expected}\ncame:     {came}"
            )


async def _through(
    processor: FrameProcessor, frames: Sequence[Frame], rules: _Rules, patience_s: float, *, off_at: int = -1
) -> list[Frame]:
    """Return the frames at the tail. ``off_at``: listening is off from that frame on."""
    bench = Bench(processor, patience_s=patience_s)
    try:
        await bench.start()
        for number, frame in enumerate(frames):
            if number == off_at:
                await bench.send(ListenFrame(False), direction=UPSTREAM)
            await bench.advance(getattr(frame, "duration_ms", 0.0))
            await bench.send(frame)
        errors = [error.message for error in bench.errors]
        rules.expect(not errors, "no error", " ".join(errors))
        return [*bench.down]
    except BenchFailure as failure:
        rules.expect(False, "audio that is dealt with", str(failure).partition("\n\n")[0])
        raise
    finally:
        await bench.stop()


def _frames(samples: Samples, rate: int, sizes_ms: Sequence[float]) -> list[InputAudioFrame]:
    """Audio in frames of these lengths, again and again."""
    found: list[InputAudioFrame] = []
    at = 0
    while at < len(samples):
        size = max(1, round(sizes_ms[len(found) % len(sizes_ms)] * rate / 1000))
        found.append(InputAudioFrame(samples[at : at + size], rate, round(at * NS_PER_S / rate)))
        at += size
    return found


# --- voice detectors --------------------------------------------------------------------------------------------------


async def check_vad(
    make: Callable[[], VAD], *, speech: Samples, sample_rate: int = 16_000, patience_s: float = PATIENCE_S
) -> None:
    """Check a voice detector. Raises `ContractFailure`.

    ``make`` gives a fresh one. ``speech``: int16 mono at ``sample_rate``, shape (n,), at least 1 s in which somebody
    speaks from the beginning to the end, without a pause.
    """
    await _Detector(make, speech, sample_rate, patience_s).check()


class _Detector:
    """The rules of a voice detector: 3 s of silence, speech, 3 s of silence."""

    def __init__(self, make: Callable[[], VAD], speech: Samples, rate: int, patience_s: float) -> None:
        self.make, self.rate, self.patience_s = make, rate, patience_s
        self.rules = _Rules("a voice detector", type(make()).__name__)
        self.pause = silence(QUIET_MS, rate)
        self.talk = np.concatenate([self.pause, speech, self.pause])
        self.length_ms = len(speech) * 1000 / rate

    async def told(
        self, samples: Samples, sizes_ms: Sequence[float] = (20.0,), *, off_at: int = -1, ended: bool = False
    ) -> list[Frame]:
        """Return the frames at the tail. ``off_at``: listening is off from that frame on; ``ended``: the input ends."""
        frames: list[Frame] = [*_frames(samples, self.rate, sizes_ms), *[InputEndedFrame()] * ended]
        out = await _through(self.make(), frames, self.rules, self.patience_s, off_at=off_at)
        if off_at < 0:
            self.rules.rule = "all frames pass, the same objects in the same order"
            passed = [frame for frame in out if isinstance(frame, InputAudioFrame)]
            sent = [frame for frame in frames if isinstance(frame, InputAudioFrame)]
            same = len(passed) == len(sent) and all(one is other for one, other in zip(passed, sent, strict=True))
            self.rules.expect(same, f"{len(sent)} frames as they were", f"{len(passed)} frames")
        return out

    async def check(self) -> None:
        """Go through them."""
        rules = self.rules
        quiet = _events(await self.told(self.pause))
        rules.rule = "silence is no speech"
        rules.expect(not quiet, "no event", f"{len(quiet)} events")
        first = _events(await self.told(self.talk))
        rules.rule = "speech between silence is one start and one stop"
        names = [type(event).__name__ for _, event in first]
        wanted = [UserStartedSpeakingFrame.__name__, UserStoppedSpeakingFrame.__name__]
        rules.expect(names == wanted, "one start, one stop", names)
        self._places(*first)
        for sizes_ms in [(10.0,), (60.0,), (7.0, 33.0, 1.0)]:
            other = _events(await self.told(self.talk, sizes_ms))
            rules.rule = "the length of the frames makes no difference"
            late = [abs(one - two) for (one, _), (two, _) in zip(first, other, strict=False)]
            same = len(other) == 2 and max(late) <= LATE_MS
            rules.expect(same, "the same events", f"{len(other)} events, {late} ms off")
        await self._ends(round(QUIET_MS + self.length_ms * 0.8))

    def _places(self, started: tuple[float, Frame], stopped: tuple[float, Frame]) -> None:
        self.rules.rule = "an event says how long ago it was: where the speech began and ended"
        begin = started[0] - getattr(started[1], "onset_ms", 0.0)
        end = stopped[0] - getattr(stopped[1], "silence_ms", 0.0)
        self.rules.expect(abs(begin - QUIET_MS) <= LATE_MS, f"a start at about {QUIET_MS:g} ms", f"{begin:g} ms")
        wanted = QUIET_MS + self.length_ms
        # Speech dies away.
        self.rules.expect(abs(end - wanted) <= LATE_MS + 200, f"an end at about {wanted:g} ms", f"{end:g} ms")

    async def _ends(self, in_speech_ms: int) -> None:
        """Check the events that end speech besides silence."""
        rules = self.rules
        out = await self.told(self.talk[: in_speech_ms * self.rate // 1000], ended=True)
        rules.rule = "where the input ends in the middle of speech, the stop comes before the end"
        last = [type(frame).__name__ for frame in out[-2:]]
        wanted = [UserStoppedSpeakingFrame.__name__, InputEndedFrame.__name__]
        rules.expect(last == wanted, "a stop, and the end", last)
        rules.rule = "who is not to be listened to is not heard, and speech under way ends"
        out = await self.told(self.talk, off_at=in_speech_ms // 20)
        names = [type(event).__name__ for _, event in _events(out)]
        rules.expect(names[-1:] == [UserStoppedSpeakingFrame.__name__], "a stop", names)
        heard_ms = sum(frame.duration_ms for frame in out if isinstance(frame, InputAudioFrame))
        rules.expect(heard_ms <= in_speech_ms + 20, "no audio after that", f"{heard_ms:g} ms of audio")


def _events(frames: Sequence[Frame]) -> list[tuple[float, Frame]]:
    """Starts and stops, each with the ms of audio before it."""
    at_ms = 0.0
    found: list[tuple[float, Frame]] = []
    for frame in frames:
        if isinstance(frame, InputAudioFrame):
            at_ms += frame.duration_ms
        elif isinstance(frame, UserStartedSpeakingFrame | UserStoppedSpeakingFrame):
            found.append((at_ms, frame))
    return found


# --- noise suppressors ------------------------------------------------------------------------------------------------


async def check_noise_suppressor(make: Callable[[], NoiseSuppressor], *, patience_s: float = PATIENCE_S) -> None:
    """Check a noise suppressor: that no sample is lost, doubled or told at a wrong time. Raises `ContractFailure`."""
    one = make()
    rules = _Rules("a noise suppressor", type(one).__name__)
    rate = one.sample_rate
    audio = np.concatenate([noise(700, rate, dbfs=-30), tone(440, 1_500, rate, dbfs=-20), silence(333, rate)])
    for samples in (audio, audio[: rate // 100 - 1], audio[:1]):
        for sizes_ms in [(20.0,), (10.0,), (7.0, 33.0, 1.0)]:
            rules.rule = "audio is dealt with in frames of any length"
            frames: list[Frame] = [*_frames(samples, rate, sizes_ms), InputEndedFrame()]
            out = await _through(make(), frames, rules, patience_s)
            cleaned = [frame for frame in out if isinstance(frame, InputAudioFrame)]
            rules.rule = "what came in comes out: as many samples, int16 mono, at the same rate"
            count = sum(len(frame.samples) for frame in cleaned)
            rules.expect(count == len(samples), f"{len(samples)} samples", f"{count}")
            kinds = {(str(frame.samples.dtype), frame.samples.ndim, frame.sample_rate) for frame in cleaned}
            rules.expect(kinds == {("int16", 1, rate)}, f"int16, one dimension, {rate} Hz", kinds)
            rules.rule = "the input's end comes last"
            rules.expect(isinstance(out[-1], InputEndedFrame), "the end", type(out[-1]).__name__)
            rules.rule = "times are those of the samples: each frame begins where the last one ended"
            at = 0
            for frame in cleaned:
                wanted = round(at * NS_PER_S / rate)
                close = frame.pts_ns is not None and abs(frame.pts_ns - wanted) <= NS_PER_S / rate
                rules.expect(close, f"pts_ns {wanted}", frame.pts_ns)
                at += len(frame.samples)


# --- turn models ------------------------------------------------------------------------------------------------------


async def check_turn_model(make: Callable[[], TurnModel], *, patience_s: float = PATIENCE_S) -> None:
    """Check a turn model: that it answers whatever it hears, and changes none of it. Raises `ContractFailure`."""
    model = make()
    rules = _Rules("a turn model", type(model).__name__)
    sounds = {
        "no audio at all": np.zeros(0, np.float32),
        "one sample": np.zeros(1, np.float32),
        "silence": np.zeros(AUDIO_SAMPLES // 4, np.float32),
        "noise": _floats(noise(3_000)),
        "a tone of 8 s": _floats(tone(440, 8_000)),
        "full scale": np.tile(np.array([1, -1], np.float32), 8_000),
    }

    async def asked(who: TurnModel, what: str) -> float:
        audio = sounds[what].copy()
        rules.rule = f"a probability for {what}"
        answer = await _ask(who, audio, rules, patience_s)
        number = _is_probability(answer)
        rules.expect(number, "a number from 0 to 1", repr(answer))
        rules.rule = "the audio is only read"
        rules.expect(np.array_equal(audio, sounds[what]), "audio as it was", "it has changed")
        return float(answer)

    first = {what: await asked(model, what) for what in sounds}
    again = {what: await asked(model, what) for what in reversed(sounds)}
    rules.rule = "an answer depends on the audio of its question alone"
    for what, answer in first.items():
        rules.expect(abs(answer - again[what]) < 1e-3, f"{answer:g} for {what} each time", f"{again[what]:g}")
        other = await asked(make(), what)
        rules.rule = "an answer depends on the audio of its question alone"
        rules.expect(abs(answer - other) < 1e-3, f"{answer:g} for {what} of another instance", f"{other:g}")


def _is_probability(answer: Any) -> bool:
    try:
        return 0 <= float(answer) <= 1
    except (TypeError, ValueError):
        return False


def _floats(samples: Samples) -> npt.NDArray[np.float32]:
    return (samples / 32768).astype(np.float32)


@dataclass(frozen=True, slots=True)
class AnswerFrame(InputFrame):
    """The asker's own: what the model said."""

    answer: Any


class _Asker(FrameProcessor):
    """Asks a model in a job, as a `TurnDetector` does."""

    def __init__(self, model: TurnModel, audio: npt.NDArray[np.float32]) -> None:
        self._model, self._audio = model, audio

    @handles(UserStoppedSpeakingFrame)
    async def ask(self, frame: UserStoppedSpeakingFrame) -> AsyncIterator[Frame]:
        """Ask it."""
        yield AnswerFrame(await self._model.probability(self._audio))


async def _ask(model: TurnModel, audio: npt.NDArray[np.float32], rules: _Rules, patience_s: float) -> Any:
    out = await _through(_Asker(model, audio), [UserStoppedSpeakingFrame(200)], rules, patience_s)
    answers = [frame.answer for frame in out if isinstance(frame, AnswerFrame)]
    rules.expect(len(answers) == 1, "an answer", f"{len(answers)}")
    return answers[0]

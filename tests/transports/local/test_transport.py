"""The local transport on a sound card that is none: which is chosen, what is heard and played, and what goes wrong."""

from __future__ import annotations

import logging
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import (
    UPSTREAM,
    AudioFormat,
    ClientDisconnectedFrame,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    LifecycleError,
    MissingExtraError,
    Outcome,
    OutputAudioFrame,
    Pipeline,
    PipelineWorker,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    Samples,
    TransportError,
    VirtualClock,
    handles,
    source,
)
from voxline.pipeline.errors import install_command
from voxline.tests.transports.local.card import CARDS, Crystal, FakeCard, plug_in
from voxline.transports.local import Device, LocalTransport
from voxline.transports.local.devices import LOST_MS, find

RATE = 24_000


def ramp(ms: float) -> Samples:
    return (np.arange(round(ms * 24)) % 30_000 + 1).astype(np.int16)


class Bot(FrameProcessor):
    """Says ``answer`` after so many frames of the microphone, cuts it after so many, and ends after so many."""

    def __init__(self, answer: Samples, at: int = 10, cut_at: int = 0, end_at: int = 0) -> None:
        self.answer = answer
        self.at, self.cut_at, self.end_at = at, cut_at, end_at
        self.heard: list[InputAudioFrame] = []
        self.facts: list[Frame] = []
        self.gone: list[str] = []

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((RATE,), (1,))}

    @handles(InputAudioFrame)
    async def listen(self, frame: InputAudioFrame) -> None:
        self.heard.append(frame)
        if len(self.heard) == self.at and len(self.answer):
            response = self.new_response()
            await self.push(OutputAudioFrame(self.answer, RATE), response=response)
            await self.push(ResponseEndFrame(), response=response)
        if len(self.heard) == self.cut_at:
            self.interrupt("cut")
        if len(self.heard) == self.end_at:
            self.end("enough")

    @handles(ClientDisconnectedFrame)
    async def leave(self, frame: ClientDisconnectedFrame) -> None:
        self.gone.append(frame.reason)

    @handles(ResponsePlayedFrame, ResponseCutFrame, direction=UPSTREAM)
    async def note(self, frame: Frame) -> None:
        self.facts.append(frame)


async def run(transport: LocalTransport, *parts: FrameProcessor) -> Outcome:
    worker = PipelineWorker(Pipeline([transport.input(), *parts, transport.output()]), clock=VirtualClock(), seed=1)
    return await worker.run()


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> FakeCard:
    return plug_in(monkeypatch)


# --- which device -------------------------------------------------------------------------------------------------


def test_devices_are_listed_with_the_default_ones(card: FakeCard) -> None:
    listed = LocalTransport.devices()
    assert [device.name for device in listed] == [name for name, *_ in CARDS]
    assert listed[0] == Device(0, "Built-in Audio", 2, 2, 48_000, default_input=True, default_output=True)
    assert str(listed[0]) == "  0  Built-in Audio: 2 in, 2 out, 48000 Hz (default input and output)"
    assert str(listed[2]) == "  2  USB Camera: 1 in, 0 out, 16000 Hz"


def test_a_device_is_found_by_index_by_a_part_of_its_name_or_is_the_default(card: FakeCard) -> None:
    assert find(None, output=True).index == 0
    assert find(3, output=True).name == "Screen"
    assert find("headset", output=False).index == 1
    # The camera is no loudspeaker, so there is one of that name.
    assert find("usb", output=True).index == 1


def test_a_name_that_is_whole_is_meant_though_others_have_it_as_a_part(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, [("pulse (2)", 2, 2, 48_000), ("pulse", 2, 2, 48_000)])
    assert find("pulse", output=True).index == 1


@pytest.mark.parametrize(
    ("wanted", "says"),
    [
        ("usb", "2 microphones have 'usb' in their names; give the index of one"),
        ("radio", "There is no microphone 'radio'. There are"),
        (3, "There is no microphone 3. There are"),
    ],
)
def test_an_unclear_or_unknown_device_is_an_error_that_lists_what_there_is(
    card: FakeCard, wanted: int | str, says: str
) -> None:
    with pytest.raises(TransportError, match="USB Camera: 1 in, 0 out") as raised:
        find(wanted, output=False)
    assert says in str(raised.value)
    assert "Screen" not in str(raised.value)


async def test_no_device_at_all_is_said_when_the_worker_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    plug_in(monkeypatch, [("Screen", 0, 8, 48_000)])
    with pytest.raises(LifecycleError, match="There is no microphone: PortAudio finds no device"):
        await run(LocalTransport(), Bot(ramp(20)))


async def test_a_card_that_somebody_else_holds_is_said_and_what_was_opened_is_closed(card: FakeCard) -> None:
    card.refuses = "Device unavailable"
    with pytest.raises(LifecycleError, match="loudspeaker 'Built-in Audio' cannot be opened: Device unavailable"):
        await run(LocalTransport(), Bot(ramp(20)))
    assert all(stream.closed for stream in card.streams)


def test_an_echo_that_there_is_not_is_refused(card: FakeCard) -> None:
    with pytest.raises(TransportError, match='"cancel", "gate" or "off"'):
        LocalTransport(echo="remove")  # pyright: ignore[reportArgumentType]


# --- what has to be installed -----------------------------------------------------------------------------------------


def test_a_missing_package_says_what_to_install() -> None:
    """In a process of its own: here it is loaded."""
    script = (
        "import sys; sys.modules['sounddevice'] = None\n"
        "from voxline.transports.local import LocalTransport\n"
        "try: LocalTransport()\nexcept ImportError as error: print(error)"
    )
    out = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert install_command("local") in out


def test_the_missing_library_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    class Finder:
        """Finds a sounddevice that does what it does without PortAudio."""

        @staticmethod
        def find_spec(name: str, path: Any = None, target: Any = None) -> None:
            if name == "sounddevice":
                raise OSError("PortAudio library not found")

    monkeypatch.delitem(sys.modules, "sounddevice", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Finder, *sys.meta_path])
    with pytest.raises(TransportError, match="needs the library PortAudio: install it with") as raised:
        LocalTransport()
    assert not isinstance(raised.value, MissingExtraError)


def test_without_the_canceller_it_is_a_gate_and_that_is_said(
    card: FakeCard, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("voxline.transports.local.transport.installed", lambda: False)
    with caplog.at_level(logging.WARNING, "voxline"):
        assert LocalTransport().echo == "gate"
    assert install_command("local") in caplog.text


# --- audio ------------------------------------------------------------------------------------------------------------


async def test_what_the_bot_says_is_played_to_the_sample_and_told_as_played(card: FakeCard) -> None:
    bot, crystal, transport = Bot(ramp(500), end_at=50), Crystal(card), LocalTransport(echo="off")
    await run(transport, crystal, bot)
    heard = crystal.heard()
    (sounding,) = np.nonzero(heard)
    assert (heard[sounding[0] : sounding[-1] + 1] == ramp(500)).all()
    (played,) = bot.facts
    assert isinstance(played, ResponsePlayedFrame)
    assert transport.underruns == 0
    assert all(stream.closed for stream in card.streams)


async def test_what_the_microphone_hears_comes_at_the_pipelines_rate_in_20_ms(card: FakeCard) -> None:
    said = np.arange(320, dtype=np.int16)
    bot = Bot(ramp(0), end_at=20)
    await run(LocalTransport(echo="off"), Crystal(card, lambda _played, _count: said), bot)
    assert {(frame.sample_rate, len(frame.samples)) for frame in bot.heard} == {(16_000, 320)}
    assert (bot.heard[3].samples == said).all()
    assert [frame.pts_ns for frame in bot.heard[:3]] == [0, 20_000_000, 40_000_000]


@pytest.mark.parametrize("echo", ["cancel", "gate", "off"])
async def test_a_card_of_another_rate_and_two_channels_is_resampled(monkeypatch: pytest.MonkeyPatch, echo: Any) -> None:
    if echo == "cancel":
        pytest.importorskip("livekit.rtc")
    card = plug_in(monkeypatch, rates=(44_100,))
    card.least_channels = 2
    hum = (np.sin(2 * np.pi * 300 * np.arange(882) / 44_100) * 6_000).astype(np.int16)
    answer = (np.sin(2 * np.pi * 600 * np.arange(RATE) / RATE) * 6_000).astype(np.int16)
    bot, crystal = Bot(answer, at=40, end_at=100), Crystal(card, lambda _played, _count: hum)
    await run(LocalTransport(echo=echo), crystal, bot)
    assert (card.loudspeaker.rate, card.loudspeaker.channels) == (44_100, 2)
    assert {(frame.sample_rate, len(frame.samples)) for frame in bot.heard} == {(16_000, 320)}
    assert len(bot.heard) == pytest.approx(100, abs=3)
    assert _peak_hz(bot.heard[30].samples, 16_000) == pytest.approx(300, abs=50)
    (sounding,) = np.nonzero(crystal.heard())
    heard = crystal.heard()[sounding[0] : sounding[-1] + 1]
    assert len(heard) == pytest.approx(44_100, abs=60)
    assert _peak_hz(heard, 44_100) == pytest.approx(600, abs=2)


def _peak_hz(samples: Samples, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(samples.astype(np.float64) * np.hanning(len(samples))))
    return float(np.argmax(spectrum)) * rate / len(samples)


async def test_a_cut_is_silent_with_the_next_block_and_what_was_heard_is_told_within_60_ms(card: FakeCard) -> None:
    bot, crystal = Bot(ramp(1_900), at=10, cut_at=40, end_at=60), Crystal(card)
    await run(LocalTransport(echo="off"), crystal, bot)
    heard_ms = np.count_nonzero(crystal.heard()) / 24
    (cut,) = bot.facts
    assert isinstance(cut, ResponseCutFrame)
    assert heard_ms == pytest.approx(600, abs=41)
    assert heard_ms <= cut.heard_ms <= heard_ms + 61


class Talker(FrameProcessor):
    """Half a minute of sound in each minute."""

    def __init__(self, minutes: int) -> None:
        self.minutes = minutes

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat((RATE,), (1,))}

    @source
    async def talk(self) -> AsyncIterator[Frame]:
        for minute in range(self.minutes):
            for _ in range(30):
                yield OutputAudioFrame(ramp(1_000), RATE)
            yield ResponseEndFrame()
            await self.clock.sleep((minute + 1) * 60 - self.now_ns / 1e9)
        self.end("enough")


@pytest.mark.parametrize("ppm", [-200, 200])
async def test_a_card_whose_clock_is_another_plays_every_answer_whole(card: FakeCard, ppm: float) -> None:
    crystal, transport = Crystal(card, ppm=ppm), LocalTransport()
    worker = PipelineWorker(Pipeline([Talker(5), crystal, transport.output()]), clock=VirtualClock(), seed=1)
    await worker.run()
    assert transport.underruns == 0
    assert np.count_nonzero(crystal.heard()) / RATE == pytest.approx(150, rel=0.001)


# --- what goes wrong --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("which", ["microphone", "loudspeaker"])
async def test_an_unplugged_card_is_the_conversations_end(
    card: FakeCard, caplog: pytest.LogCaptureFixture, which: str
) -> None:
    def room(played: Samples, count: int) -> Samples:
        if count == 30:
            getattr(card, which).unplug()
        return np.zeros(320, np.int16)

    bot = Bot(ramp(0))
    with caplog.at_level(logging.ERROR, "voxline"):
        outcome = await run(LocalTransport(echo="off"), Crystal(card, room), bot)
    assert bot.gone == [f"The {which} 'Built-in Audio' has stopped. Was it unplugged?"]
    assert "The conversation ends" in caplog.text
    assert outcome == Outcome("ended")


async def test_a_card_that_hangs_is_noticed(card: FakeCard) -> None:
    crystal, bot = Crystal(card), Bot(ramp(0), end_at=10_000)

    def room(played: Samples, count: int) -> Samples:
        crystal.stopped = count == 30
        return np.zeros(320, np.int16)

    crystal.room = room
    await run(LocalTransport(echo="off"), crystal, bot)
    assert bot.gone == [
        f"The loudspeaker 'Built-in Audio' has not answered for {LOST_MS / 1000:g} s. Was it unplugged?"
    ]


async def test_an_error_in_a_callback_ends_the_conversation_and_says_which(card: FakeCard) -> None:
    bot, transport = Bot(ramp(0)), LocalTransport(echo="off")
    deliver = transport.deliver_threadsafe

    def damaged(frame: Frame) -> None:
        if len(bot.heard) > 20:
            raise ValueError("no such sound")
        deliver(frame)

    transport.deliver_threadsafe = damaged
    await run(transport, Crystal(card), bot)
    assert bot.gone == [
        "The microphone 'Built-in Audio' was stopped by an error in its callback: ValueError: no such sound."
    ]


async def test_a_bot_that_only_speaks_ends_when_the_loudspeaker_goes(
    card: FakeCard, caplog: pytest.LogCaptureFixture
) -> None:
    crystal, transport = Crystal(card), LocalTransport()
    worker = PipelineWorker(Pipeline([Talker(5), crystal, transport.output()]), clock=VirtualClock(), seed=1)
    crystal.stopped = True
    with caplog.at_level(logging.ERROR, "voxline"):
        assert await worker.run() == Outcome("ended")
    assert "has not answered" in caplog.text


async def test_it_can_be_used_for_a_second_conversation(card: FakeCard) -> None:
    transport = LocalTransport(echo="off")
    for _ in range(2):
        bot, crystal = Bot(ramp(100), end_at=40), Crystal(card)
        await run(transport, crystal, bot)
        assert np.count_nonzero(crystal.heard()) == 2_400
    assert all(stream.closed for stream in card.streams)

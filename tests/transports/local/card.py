"""A sound card that is none: what the package sounddevice looks like, and a loudspeaker and a microphone to drive."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest
from voxline.pipeline import Frame, FrameProcessor, Samples, source

CARDS = [
    ("Built-in Audio", 2, 2, 48_000),
    ("USB Headset", 1, 2, 48_000),
    ("USB Camera", 1, 0, 16_000),
    ("Screen", 0, 8, 48_000),
]


class PortAudioError(Exception):
    """As sounddevice names it."""


class CallbackAbort(Exception):
    """As sounddevice names it."""


class FakeStream:
    """One direction, open."""

    def __init__(self, card: FakeCard, output: bool, settings: dict[str, Any]) -> None:
        self.card = card
        self.output = output
        self.settings = settings
        self.callback: Callable[..., None] = settings["callback"]
        self.rate: int = settings["samplerate"]
        self.channels: int = settings["channels"]
        self.latency: float = settings["latency"]
        self.running = self.closed = False
        card.streams.append(self)

    def start(self) -> None:
        """Begin."""
        if self.card.refuses:
            raise PortAudioError(self.card.refuses)
        self.running = True

    def close(self) -> None:
        """End."""
        self.running, self.closed = False, True

    def unplug(self) -> None:
        """As when somebody draws the plug, and PortAudio notices."""
        self.running = False
        self.settings["finished_callback"]()

    def call(self, samples: Samples | None = None, status: str = "") -> Samples:
        """What PortAudio's thread does each 20 ms. What is played, or what was heard."""
        frames: int = self.settings["blocksize"]
        given = np.zeros(frames, np.int16) if samples is None else samples
        data = bytearray(np.repeat(given, self.channels).tobytes())
        if self.running:
            try:
                self.callback(memoryview(data), frames, None, status)
            except CallbackAbort:
                self.unplug()
        return np.frombuffer(bytes(data), np.int16).reshape(-1, self.channels)[:, 0]


class FakeCard:
    """The module, with ``cards``: name, inputs, outputs, rate. ``rates``: those that it takes; None: all."""

    PortAudioError = PortAudioError
    CallbackAbort = CallbackAbort

    def __init__(self, cards: list[tuple[str, int, int, int]], rates: tuple[int, ...] | None = None) -> None:
        self.cards = cards
        self.rates = rates
        self.least_channels = 1
        self.refuses = ""
        self.streams: list[FakeStream] = []

    def query_devices(self, kind: str | None = None) -> Any:
        """All, or the default one, which is the first that can."""
        found = [
            {
                "index": index,
                "name": name,
                "max_input_channels": inputs,
                "max_output_channels": outputs,
                "default_samplerate": float(rate),
            }
            for index, (name, inputs, outputs, rate) in enumerate(self.cards)
        ]
        if kind is None:
            return found
        able = [device for device in found if device[f"max_{kind}_channels"]]
        if not able:
            raise PortAudioError(f"no default {kind} device")
        return able[0]

    def _check(self, channels: int, samplerate: int) -> None:
        if self.rates is not None and samplerate not in self.rates:
            raise PortAudioError("Invalid sample rate")
        if channels < self.least_channels:
            raise PortAudioError("Invalid number of channels")

    def check_output_settings(self, device: int, channels: int, dtype: str, samplerate: int) -> None:
        """Whether it can."""
        self._check(channels, samplerate)

    def check_input_settings(self, device: int, channels: int, dtype: str, samplerate: int) -> None:
        """Whether it can."""
        self._check(channels, samplerate)

    def RawOutputStream(self, **settings: Any) -> FakeStream:
        """A loudspeaker."""
        return FakeStream(self, True, settings)

    def RawInputStream(self, **settings: Any) -> FakeStream:
        """A microphone."""
        return FakeStream(self, False, settings)

    @property
    def loudspeaker(self) -> FakeStream:
        """The one that was opened last."""
        return [stream for stream in self.streams if stream.output][-1]

    @property
    def microphone(self) -> FakeStream:
        """The one that was opened last."""
        return [stream for stream in self.streams if not stream.output][-1]


def plug_in(
    monkeypatch: pytest.MonkeyPatch,
    cards: list[tuple[str, int, int, int]] = CARDS,
    rates: tuple[int, ...] | None = None,
) -> FakeCard:
    """This is the machine's sound card from here on."""
    card = FakeCard(cards, rates)
    monkeypatch.setitem(sys.modules, "sounddevice", card)
    return card


class Crystal(FrameProcessor):
    """Drives the card in the worker's time: each 20 ms of its own clock, which runs ``ppm`` beside the worker's.

    ``room``: what the microphone hears, of what is played and how many blocks that were.
    """

    def __init__(self, card: FakeCard, room: Callable[[Samples, int], Samples] | None = None, ppm: float = 0) -> None:
        self.card = card
        self.room = room
        self.period_ns = 20_000_000 * (1 - ppm / 1e6)
        self.played: list[Samples] = []
        self.stopped = False
        """The card hangs: it calls no more, and says nothing."""

    def heard(self) -> Samples:
        """All that was played, silence too."""
        return np.concatenate([np.zeros(0, np.int16), *self.played])

    @source
    async def tick(self) -> AsyncIterator[Frame]:
        """Call and call."""
        begun_ns, count = self.now_ns, 0
        while not self.stopped:
            count += 1
            await self.clock.sleep((begun_ns + count * self.period_ns - self.clock.now_ns()) / 1e9)
            streams = self.card.streams
            samples = np.zeros(480, np.int16)
            if any(stream.output for stream in streams):
                samples = self.card.loudspeaker.call()
                self.played.append(samples)
            if any(not stream.output for stream in streams):
                self.card.microphone.call(None if self.room is None else self.room(samples, count))
        for nothing in ():
            yield nothing

"""What stands at the ends of a transport: peers for `check_transport`, and ears in the pipeline."""

from __future__ import annotations

import wave
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from voxline.pipeline import (
    AudioFormat,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    InputFrame,
    OutputAudioFrame,
    Samples,
    handles,
)
from voxline.transports.contracts import ContractPeer, HeardAudio
from voxline.transports.contracts.check import INPUT, RESTART
from voxline.transports.contracts.rules import RULES
from voxline.transports.file import FileTransport
from voxline.transports.memory import MemoryTransport

CHUNK_NS = 20_000_000
CONTRACT = [*(rule.text for rule in RULES), INPUT, RESTART]
"""The rules that any pair of a transport and a peer is checked by, for tests that try them one by one."""


class Ears(FrameProcessor):
    """Notes what comes from the caller, with the time in ms. ``bot``: an output comes after it."""

    def __init__(self, *, bot: bool = False) -> None:
        self._bot = bot
        self.notes: list[tuple[float, Frame]] = []

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        return {OutputAudioFrame: AudioFormat()} if self._bot else {}

    @handles(InputFrame)
    async def note(self, frame: InputFrame) -> None:
        self.notes.append((self.now_ns / 1e6, frame))

    @property
    def frames(self) -> list[Frame]:
        return [frame for _, frame in self.notes]

    @property
    def at_ms(self) -> list[float]:
        return [at_ms for at_ms, _ in self.notes]

    def audio(self) -> list[tuple[float, InputAudioFrame]]:
        return [(at_ms, frame) for at_ms, frame in self.notes if isinstance(frame, InputAudioFrame)]


class MemoryPeer(ContractPeer):
    """Says whole chunks of 20 ms, as a microphone does, and hears what the transport noted."""

    def __init__(self, transport: MemoryTransport, late_ms: float = 0) -> None:
        self.transport = transport
        self.late_ms = late_ms
        self.rates = (transport.sample_rate,)
        self._rest = np.zeros(0, np.int16)

    async def say(self, samples: Samples, sample_rate: int) -> None:
        samples = np.concatenate([self._rest, samples])
        size = self.transport.sample_rate // 50
        end = len(samples) - len(samples) % size
        self._rest = samples[end:]
        self.transport.say(samples[:end])

    def heard(self) -> Sequence[HeardAudio]:
        return self.transport.heard

    async def close(self) -> None:
        self.transport.hang_up()


class CallbackPeer(MemoryPeer):
    """Delivers pieces as they come, at any rate, as a device's callback does."""

    def __init__(self, transport: MemoryTransport) -> None:
        super().__init__(transport)
        self.rates = (8_000, 11_025, 16_000, 22_050, 44_100, 48_000)
        self._said = 0

    async def say(self, samples: Samples, sample_rate: int) -> None:
        pts_ns = self._said * 1_000_000_000 // sample_rate
        self._said += len(samples)
        self.transport.deliver(InputAudioFrame(samples, sample_rate, pts_ns))


class FilePeer(ContractPeer):
    """A file that is played, and one that was recorded: looked at when it is closed."""

    says_first = True
    restarts = False

    def __init__(self, folder: Path, rates: Sequence[int] = (16_000,), **options: Any) -> None:
        self.said = folder / "caller.wav"
        self.talk = folder / "talk.wav"
        self.rates = rates
        self.rate = options.get("output_rate", 24_000)
        self._write(np.zeros(60 * 16_000, np.int16), 16_000)
        self.transport = FileTransport(input=self.said, output=self.talk, **options)

    def _write(self, samples: Samples, sample_rate: int) -> None:
        with wave.open(str(self.said), "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(sample_rate)
            file.writeframes(samples.tobytes())

    async def say(self, samples: Samples, sample_rate: int) -> None:
        self._write(samples, sample_rate)

    def heard(self) -> Sequence[HeardAudio]:
        if not self.talk.exists():
            return []
        with wave.open(str(self.talk)) as file:
            both = np.frombuffer(file.readframes(file.getnframes()), np.int16).reshape(-1, 2)
        size = self.rate // 200
        right = np.concatenate([both[:, 1], np.zeros(-len(both) % size, np.int16)]).reshape(-1, size)
        return [HeardAudio(number * CHUNK_NS // 4, chunk) for number, chunk in enumerate(right) if chunk.any()]

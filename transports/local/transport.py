"""`LocalTransport`: this machine's microphone and loudspeaker."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Literal

import numpy as np

from ...pipeline.audio import StreamResampler
from ...pipeline.clock import NS_PER_MS, NS_PER_S, Clock, TimerHandle
from ...pipeline.errors import TransportError, install_command
from ...pipeline.frames import ClientDisconnectedFrame, InputAudioFrame, Samples
from ...pipeline.tasks import THREADS
from ..base import Transport
from ..transport_api import CHUNK_NS, samples_in_chunk
from .devices import Device, DeviceStream, devices, portaudio
from .echo import EchoCanceller, EchoGate, EchoModel, installed
from .ring import PlayoutRing

log = logging.getLogger("voxline")

Echo = Literal["cancel", "gate", "off"]
LOOK_MS = 500
"""How often it is looked at whether the sound card is still there."""


class LocalTransport(Transport):
    """A conversation at a desk, with a sound card (or two). Needs the extra ``local``, and the library PortAudio.

    ``input_device``, ``output_device``: an index of `devices`, or a part of a name; None: the system's default.
    ``echo``: what is done about the bot's voice in the microphone. ``"cancel"`` takes it out (see `EchoCanceller`;
    where its package is missing, a warning says so, and it is ``"gate"``). ``"gate"`` hears silence while the bot
    speaks, unless somebody is clearly louder (see `EchoGate`). ``"off"`` is for headphones.
    ``latency_ms``: what PortAudio is asked to buffer, each way. ``lead_ms``: how much of the bot waits in the ring
    before the card; what is in there when the bot is interrupted is dropped, and does not count as heard. The other
    settings are those of `Transport`.

    A card that goes in mid-conversation is a `ClientDisconnectedFrame` that says so, and the conversation's end.
    """

    def __init__(
        self,
        *,
        input_device: int | str | None = None,
        output_device: int | str | None = None,
        echo: Echo = "cancel",
        sample_rate: int = 16_000,
        output_rate: int = 24_000,
        latency_ms: float = 40,
        lead_ms: float = 60,
        buffer_ms: float = 2_000,
        gap_ms: float = 300,
    ) -> None:
        super().__init__(
            sample_rate=sample_rate, output_rate=output_rate, buffer_ms=buffer_ms, gap_ms=gap_ms, lead_ms=lead_ms
        )
        if echo not in ("cancel", "gate", "off"):
            raise TransportError(f'echo is "cancel", "gate" or "off", not {echo!r}.')
        portaudio()
        if echo == "cancel" and not installed():
            log.warning(
                'LocalTransport: the echo canceller needs the package livekit, and echo="gate" is used in its place. '
                "Install it with: %s",
                install_command("local"),
            )
            echo = "gate"
        self.echo: Echo = echo
        self.latency_ms = latency_ms
        self._wanted = (input_device, output_device)
        self._streams: list[DeviceStream] = []
        self._next_check: TimerHandle | None = None
        self._ring = PlayoutRing(output_rate)
        self._to_card: StreamResampler | None = None
        self._free_ns = 0
        """When what was sent last is over."""

    @staticmethod
    def devices() -> list[Device]:
        """All sound cards that there are. Raises `MissingExtraError`, and `TransportError` without PortAudio."""
        return devices()

    @property
    def underruns(self) -> int:
        """How often the bot's voice had a hole: it came too late, or the sound card was not served in time."""
        return self._ring.underruns + sum(stream.xruns for stream in self._streams if stream.output)

    # --- the verbs ----------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Open the sound card. Raises `TransportError` where there is none that can be used."""
        clock = self.clock
        self._streams = []
        # In a thread, because a card may take its time: one by Bluetooth takes seconds.
        await THREADS.run(lambda: self._open(clock), self._too_late)
        self._check()

    def _open(self, clock: Clock) -> None:
        microphone, loudspeaker = self._wanted
        echo: EchoModel | None = None
        if self.speaks:
            card = self._add(DeviceStream(loudspeaker, self.output_rate, clock, output=True))
            self._ring = ring = PlayoutRing(card.rate)
            self._to_card = None
            if self.hears and self.echo != "off":
                make = EchoCanceller if self.echo == "cancel" else EchoGate
                echo = make(self.sample_rate, card.rate)
                card.on_xrun = echo.hole
            card.play(ring.take if echo is None else _told(ring, echo), self.latency_ms)
        if self.hears:
            card = self._add(DeviceStream(microphone, self.sample_rate, clock, output=False))
            ear = MicrophoneFeed(card.rate, self.sample_rate, echo, self.deliver_threadsafe)
            if echo is not None:
                card.on_xrun = echo.hole
            card.hear(ear.heard, self.latency_ms)

    def _add(self, stream: DeviceStream) -> DeviceStream:
        self._streams.append(stream)
        return stream

    def _too_late(self, _: None, error: BaseException | None) -> None:
        """It was opened after all, when nobody waited any more."""
        for stream in self._streams:
            stream.close()

    async def close(self) -> None:
        """Give the sound card back, which may take its time as well."""
        if self._next_check is not None:
            self._next_check.cancel()
        if not self.cancelled:
            await self._heard_out()
        streams = self._streams[:]
        await THREADS.run(lambda: [stream.close() for stream in streams])

    async def _heard_out(self) -> None:
        """Wait until what was sent last is heard: a card that is closed drops what it has, the end of a goodbye."""
        card = next((stream for stream in self._streams if stream.output and not stream.trouble()), None)
        if card is not None and self._free_ns:
            # The card takes 20 ms at a time, and may have asked just before.
            over_ns = self._free_ns + CHUNK_NS + round(card.latency_ms * NS_PER_MS)
            await self.clock.sleep(max(0, over_ns - self.clock.now_ns()) / NS_PER_S)

    def send(self, samples: Samples, due_ns: int) -> None:
        """Into the ring, at the card's rate."""
        if self._ring.rate != self.output_rate:
            if self._to_card is None or due_ns != self._free_ns:
                # A sound of its own: the last millisecond of the one before is not a part of it.
                self._to_card = StreamResampler(self.output_rate, self._ring.rate)
            samples = self._to_card.push(samples)
        self._free_ns = due_ns + CHUNK_NS
        self._ring.put(samples, due_ns)

    def clear(self) -> None:
        """Empty the ring; what the card has already (`latency_ms`) is heard."""
        self._ring.clear()
        self._to_card = None
        self._free_ns = 0

    def pause(self) -> None:
        """Be silent, and keep the ring."""
        self._ring.pause()
        self._free_ns = 0

    def resume(self) -> None:
        """Play the ring."""
        self._ring.resume(self.clock.now_ns())

    # --- the card goes ------------------------------------------------------------------------------------------

    def _check(self) -> None:
        trouble = next(filter(None, (stream.trouble() for stream in self._streams)), "")
        if trouble:
            log.error("LocalTransport: %s The conversation ends.", trouble)
            self.deliver(ClientDisconnectedFrame(trouble))
            self.hang_up()
            # Whatever else may go on in the pipeline: nobody is there any more.
            (self.input() if self.hears else self.output()).end(trouble)
        else:
            self._next_check = self.clock.call_at(self.clock.now_ns() + LOOK_MS * NS_PER_MS, self._check)


class MicrophoneFeed:
    """Delivers the microphone's audio as frames, without the bot where there is an `EchoModel`, in its own thread."""

    def __init__(
        self, rate: int, sample_rate: int, echo: EchoModel | None, deliver: Callable[[InputAudioFrame], None]
    ) -> None:
        self._rate = rate if echo is None else sample_rate
        self._echo = echo
        self._deliver = deliver
        self._resampler = StreamResampler(rate, self._rate)
        self._rest = np.zeros(0, np.int16)
        self._given = 0

    def heard(self, samples: Samples) -> None:
        """The next samples."""
        samples = self._resampler.push(samples)
        if self._echo is not None:
            samples = np.concatenate([self._rest, samples])
            end = len(samples) - len(samples) % samples_in_chunk(self._rate)
            samples, self._rest = samples[:end], samples[end:]
            if not end:
                return
            samples = self._echo.clean(samples)
        pts_ns = self._given * NS_PER_S // self._rate
        self._given += len(samples)
        self._deliver(InputAudioFrame(samples, self._rate, pts_ns))


def _told(ring: PlayoutRing, echo: EchoModel) -> Callable[[int, int], Samples]:
    """Samples for the card, of which the echo model hears as well."""

    def take(count: int, now_ns: int) -> Samples:
        samples = ring.take(count, now_ns)
        echo.played(samples)
        return samples

    return take

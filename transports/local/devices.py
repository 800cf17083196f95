"""Sound cards, by the package sounddevice (PortAudio): which there are, and one of them opened.

A stream's callback runs in a thread of PortAudio's. It must be quick and must not raise; what goes wrong in it is
kept, and `DeviceStream.trouble` says so.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pipeline.audio import mono
from ...pipeline.clock import NS_PER_MS, Clock
from ...pipeline.errors import MissingExtraError, TransportError
from ...pipeline.frames import Samples
from ..transport_api import CHUNK_MS

LOST_MS = 3_000
"""A sound card that has not called for so long has gone. (PulseAudio may take 2 s from the first call to the next.)"""


@dataclass(frozen=True, slots=True)
class Device:
    """A sound card as PortAudio sees it; ``sample_rate``: the one that it prefers, in Hz."""

    index: int
    name: str
    inputs: int
    """How many channels its microphones have; 0: it has none."""
    outputs: int
    """How many channels its loudspeakers have; 0: it has none."""
    sample_rate: int
    default_input: bool
    default_output: bool

    def __str__(self) -> str:
        marks = [what for what, is_one in (("input", self.default_input), ("output", self.default_output)) if is_one]
        default = f" (default {' and '.join(marks)})" if marks else ""
        return f"{self.index:3}  {self.name}: {self.inputs} in, {self.outputs} out, {self.sample_rate} Hz{default}"


def portaudio() -> Any:
    """The package sounddevice. Raises `MissingExtraError`, and `TransportError` where PortAudio is missing."""
    try:
        return importlib.import_module("sounddevice")
    except ImportError as error:
        raise MissingExtraError("LocalTransport", "sounddevice", "local") from error
    except OSError as error:
        # The package is there, and the library that it is for is not.
        install = "brew install portaudio" if sys.platform == "darwin" else "apt-get install libportaudio2"
        raise TransportError(f"LocalTransport needs the library PortAudio: install it with: {install}") from error


def devices() -> list[Device]:
    """All sound cards that there are. What is plugged in later is seen by the next process."""
    sounddevice = portaudio()
    default_input, default_output = _default(sounddevice, "input"), _default(sounddevice, "output")
    return [
        Device(
            index,
            str(found["name"]),
            int(found["max_input_channels"]),
            int(found["max_output_channels"]),
            round(found["default_samplerate"]),
            index == default_input,
            index == default_output,
        )
        for index, found in enumerate(sounddevice.query_devices())
    ]


def _default(sounddevice: Any, kind: str) -> int:
    try:
        return int(sounddevice.query_devices(kind=kind)["index"])
    except (sounddevice.PortAudioError, ValueError):
        return -1


def find(wanted: int | str | None, *, output: bool) -> Device:
    """The device of that index, or the one that has this in its name; None: the default one.

    Raises `TransportError` where there is none, or more than one, and says which there are.
    """
    kind = "loudspeaker" if output else "microphone"
    able = [device for device in devices() if (device.outputs if output else device.inputs)]
    if not able:
        raise TransportError(
            f"There is no {kind}: PortAudio finds no device that has one. Plug one in, and look whether the system "
            "itself has it (in a container, on a server and under another user it may not)."
        )
    if wanted is None:
        found = [device for device in able if (device.default_output if output else device.default_input)] or able[:1]
    elif isinstance(wanted, int):
        found = [device for device in able if device.index == wanted]
    else:
        found = [device for device in able if device.name == wanted]
        found = found or [device for device in able if wanted.lower() in device.name.lower()]
    if len(found) == 1:
        return found[0]
    listed = "\n".join(str(device) for device in found or able)
    if found:
        raise TransportError(f"{len(found)} {kind}s have {wanted!r} in their names; give the index of one:\n{listed}")
    raise TransportError(f"There is no {kind} {wanted!r}. There are:\n{listed}")


class DeviceStream:
    """One direction of a sound card. Made, it knows its format; `hear` or `play` opens it, and `close` ends it.

    ``wanted``: see `find`; ``rate``: the one to use where the card can, in Hz (what it uses is `rate`).
    Raises `TransportError`.
    """

    def __init__(self, wanted: int | str | None, rate: int, clock: Clock, *, output: bool) -> None:
        self._sounddevice = portaudio()
        self.output = output
        self.device = find(wanted, output=output)
        self.rate, self._channels = self._format(rate)
        self.xruns = 0
        """How often the card had nothing to play, or nobody took what it heard."""
        self.on_xrun: Callable[[], None] = _nothing
        """Called at each of them, in the card's thread, before what comes after it is heard or played."""
        self._clock = clock
        self._called_ns = clock.now_ns()
        self._error: Exception | None = None
        self._finished = self._closed = False
        self._raw: Any = None

    def __str__(self) -> str:
        return f"The {'loudspeaker' if self.output else 'microphone'} {self.device.name!r}"

    def hear(self, heard: Callable[[Samples], None], latency_ms: float) -> None:
        """Open it; ``heard`` gets mono samples, about 20 ms at a time."""

        def callback(data: Any, frames: int, times: Any, status: Any) -> None:
            self._called(status)
            try:
                # Copied: the card's memory is used again.
                heard(mono(np.frombuffer(data, np.int16).copy().reshape(-1, self._channels)))
            except Exception as error:
                self._error = error
                raise self._sounddevice.CallbackAbort from error

        self._open(self._sounddevice.RawInputStream, callback, latency_ms)

    def play(self, fill: Callable[[int, int], Samples], latency_ms: float) -> None:
        """Open it; ``fill`` is asked for mono samples: how many, and when it is (ns of the clock)."""

        def callback(data: Any, frames: int, times: Any, status: Any) -> None:
            now_ns = self._called(status)
            try:
                data[:] = np.repeat(fill(frames, now_ns), self._channels).tobytes()
            except Exception as error:
                self._error = error
                raise self._sounddevice.CallbackAbort from error

        self._open(self._sounddevice.RawOutputStream, callback, latency_ms)

    def close(self) -> None:
        """Give the card back. May block where it has gone."""
        self._closed = True
        if self._raw is not None:
            self._raw.close()

    @property
    def latency_ms(self) -> float:
        """Length of the device's buffer, as PortAudio reports it."""
        return 0.0 if self._raw is None else float(self._raw.latency) * 1000

    def trouble(self) -> str:
        """Describe the device's fault in a sentence; empty without one."""
        if self._error is not None:
            return f"{self} was stopped by an error in its callback: {type(self._error).__name__}: {self._error}."
        if self._finished and not self._closed:
            return f"{self} has stopped. Was it unplugged?"
        if self._clock.now_ns() - self._called_ns > LOST_MS * NS_PER_MS:
            return f"{self} has not answered for {LOST_MS / 1000:g} s. Was it unplugged?"
        return ""

    def _called(self, status: Any) -> int:
        self._called_ns = self._clock.now_ns()
        if status:
            self.xruns += 1
            self.on_xrun()
        return self._called_ns

    def _format(self, rate: int) -> tuple[int, int]:
        """The first rate and number of channels that the card takes: ours and one, if it can."""
        check = self._sounddevice.check_output_settings if self.output else self._sounddevice.check_input_settings
        most = self.device.outputs if self.output else self.device.inputs
        problem: Exception | None = None
        for channels in (1, 2)[:most]:
            for at in (rate, self.device.sample_rate, 48_000, 44_100):
                try:
                    check(device=self.device.index, channels=channels, dtype="int16", samplerate=at)
                    return at, channels
                except (self._sounddevice.PortAudioError, ValueError) as error:
                    problem = problem or error
        raise self._unusable(problem)

    def _open(self, make: Any, callback: Any, latency_ms: float) -> None:
        try:
            self._raw = make(
                samplerate=self.rate,
                blocksize=self.rate * CHUNK_MS // 1000,
                device=self.device.index,
                channels=self._channels,
                dtype="int16",
                latency=latency_ms / 1000,
                callback=callback,
                finished_callback=self._finish,
            )
            self._called_ns = self._clock.now_ns()
            self._raw.start()
        except (self._sounddevice.PortAudioError, ValueError) as error:
            self.close()
            raise self._unusable(error) from error

    def _finish(self) -> None:
        self._finished = True

    def _unusable(self, error: Exception | None) -> TransportError:
        return TransportError(
            f"{self} cannot be opened: {error}. Another program may hold it; the command voxline devices lists what "
            "else there is."
        )


def _nothing() -> None:
    """Nobody asked to be called."""

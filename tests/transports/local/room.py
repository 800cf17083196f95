"""A room: what the microphone hears of the loudspeaker, and of who is in it."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt
from voxline.pipeline import Samples
from voxline.pipeline.audio import StreamResampler

RATE = 16_000
BLOCK = 320


class Room:
    """Called by `Crystal` with each 20 ms that are played (24 kHz); gives the 20 ms that are heard (16 kHz).

    ``delay_ms``: from the loudspeaker to the microphone, both cards' buffers and the air; ``gain_db``: how much softer
    it is there; ``reverb_ms``: how long it takes to die away by 60 dB; ``noise_dbfs``: what is always there. ``clip``:
    the loudspeaker's amplifier bends what is louder than this (of 1).
    """

    def __init__(
        self,
        delay_ms: float,
        gain_db: float,
        *,
        reverb_ms: float = 150,
        noise_dbfs: float = -65,
        clip: float = 1.0,
        played_rate: int = 24_000,
        seed: int = 1,
    ) -> None:
        self._random = np.random.default_rng(seed)
        count = round(reverb_ms * RATE / 1000)
        tail = self._random.standard_normal(count) * np.exp(-6.9 * np.arange(count) / count) * 0.1
        tail[0] = 1
        tail *= 10 ** (gain_db / 20) / np.sqrt(np.sum(tail**2))
        self._response = np.concatenate([np.zeros(round(delay_ms * RATE / 1000)), tail])
        self._past: npt.NDArray[np.float64] = np.zeros(len(self._response) - 1)
        self._resampler = StreamResampler(played_rate, RATE)
        self._rest = np.zeros(0, np.int16)
        self._noise = 10 ** (noise_dbfs / 20) * 32_768
        self._clip = clip
        self._said: deque[Samples] = deque()
        self.echo: list[Samples] = []
        """What came back of the bot, 20 ms each."""

    def say(self, samples: Samples) -> None:
        """Somebody says this, from now on, after what they said before."""
        padded = np.concatenate([samples, np.zeros(-len(samples) % BLOCK, np.int16)])
        self._said.extend(padded.reshape(-1, BLOCK))

    def __call__(self, played: Samples, count: int) -> Samples:
        """20 ms."""
        self._rest = np.concatenate([self._rest, self._resampler.push(played)])
        new = self._rest[:BLOCK].astype(np.float64)
        self._rest = self._rest[BLOCK:]
        new = np.concatenate([np.zeros(BLOCK - len(new)), new])
        bent = np.tanh(new / 32_768 / self._clip) * self._clip * 32_768 if self._clip < 1 else new
        line = np.concatenate([self._past, bent])
        self._past = line[len(line) - len(self._past) :]
        size = 1 << (len(line) + len(self._response)).bit_length()
        spectrum = np.fft.rfft(line, size) * np.fft.rfft(self._response, size)
        echo = np.fft.irfft(spectrum, size)[len(line) - BLOCK : len(line)]
        self.echo.append(np.clip(echo, -32_768, 32_767).astype(np.int16))
        person = self._said.popleft() if self._said else np.zeros(BLOCK, np.int16)
        heard = echo + person + self._random.standard_normal(BLOCK) * self._noise
        return np.clip(np.rint(heard), -32_768, 32_767).astype(np.int16)

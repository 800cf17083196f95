"""The bot's own voice in the microphone: taken out, or gated, so that the bot does not interrupt itself.

`EchoCanceller` is WebRTC's (AEC3; from the package livekit, one shared library, no download, Apache-2.0).
`EchoGate` needs no package: while the bot is heard, what is not clearly louder than its echo is silence.
"""

from __future__ import annotations

import importlib.util
import math
from collections import deque
from typing import Any, Protocol, cast

import numpy as np

from ...pipeline.audio import FULL_SCALE, SILENCE_DBFS, StreamResampler
from ...pipeline.errors import MissingExtraError, TransportError
from ...pipeline.frames import Samples

REFERENCE_BLOCKS = 100
"""Limit of played blocks that are kept: 2 s in blocks of 20 ms. A microphone silent for longer is gone."""
CANCELLER_RATES = (8_000, 16_000, 32_000, 48_000)
UNSURE_MS = 1_500
"""After a hole the echo comes later, or earlier: for so much of the bot's voice the canceller looks for it anew."""

MARGIN_DB = 6.0
"""How much louder than the echo a person has to be."""
OPEN_MS = 300
"""How long the gate stays open for: the soft sounds of a word."""
TAIL_MS = 400
"""How long the room still sounds, and how late it may come: the delay of two sound cards, and the reverb."""
WINDOW_MS = 500
"""The loudest of so much of the bot's voice is compared with the loudest of what came back."""
WINDOWS = 6
"""The room is what came back in the loudest of so many windows, and half as many are enough to begin with."""
RISE_DB = 1.0
"""How much more of the room is believed after a window that was let through: somebody has turned it up, or speaks.
Little, because who speaks over the bot must not be learnt as its echo.
"""
MOST_DB = 20.0
"""A microphone that is turned up gives more back than was played; not more than this."""
QUIET_DBFS = -60.0
"""Level below which the microphone hears no person."""


class EchoModel(Protocol):
    """Takes the bot out of what the microphone hears."""

    def played(self, samples: Samples) -> None:
        """Take a block for the loudspeaker, silence too; called in the loudspeaker's thread."""
        ...

    def clean(self, samples: Samples) -> Samples:
        """Remove the bot from microphone audio, in blocks of 10 ms; called in the microphone's thread."""
        ...

    def hole(self) -> None:
        """A card was not served in time, so what comes is no longer in step; from either thread."""
        ...


class _Reference:
    """Played audio at the microphone's rate, in step with the microphone: one sample for each of its samples.

    One thread puts, another gets. Missing audio becomes silence, and delays the rest. Audio that stays in stock for a
    whole second is surplus and dropped: the reference must not arrive later than its echo.
    """

    def __init__(self, in_rate: int, out_rate: int) -> None:
        self._blocks: deque[Samples] = deque(maxlen=REFERENCE_BLOCKS)  # bound: 2 s; then the oldest is dropped
        self._resampler = StreamResampler(in_rate, out_rate)
        self._stock = np.zeros(0, np.int16)
        self._look = out_rate
        self._asked = 0
        self._least = self._look

    def put(self, samples: Samples) -> None:
        self._blocks.append(samples)

    def look_soon(self) -> None:
        """Look for what is not needed over the next 200 ms."""
        self._asked, self._least = self._look * 4 // 5, self._look

    def get(self, count: int) -> Samples:
        """The next ``count`` samples."""
        parts = [self._stock]
        while self._blocks:
            parts.append(self._resampler.push(self._blocks.popleft()))
        stock = np.concatenate(parts)
        if len(stock) < count:
            stock = np.concatenate([np.zeros(count - len(stock), np.int16), stock])
        given, self._stock = stock[:count], stock[count:]
        self._least = min(self._least, len(self._stock))
        self._asked += count
        if self._asked >= self._look:
            self._stock = self._stock[self._least :]
            self._asked, self._least = 0, self._look
        return given


class EchoCanceller:
    """WebRTC's echo canceller. After a hole in the sound, silence while it finds the echo anew (see `UNSURE_MS`).

    ``sample_rate``: of the microphone; ``output_rate``: of what is played, in Hz. Finds delays up to 0.4 s by itself.
    Raises `MissingExtraError`, and `TransportError` for a rate that it does not take.
    """

    def __init__(self, sample_rate: int, output_rate: int) -> None:
        if sample_rate not in CANCELLER_RATES:
            rates = ", ".join(map(str, CANCELLER_RATES))
            raise TransportError(
                f'The echo canceller takes {rates} Hz, not {sample_rate}. Give another sample_rate, or echo="gate".'
            )
        if not installed():
            raise MissingExtraError("The echo canceller", "livekit", "local")
        from livekit.rtc import AudioFrame, AudioProcessingModule

        self._module: Any = cast(Any, AudioProcessingModule)(echo_cancellation=True, high_pass_filter=True)
        self._frame: Any = cast(Any, AudioFrame)
        self._rate = sample_rate
        # 10 ms is what the library takes.
        self._chunk = sample_rate // 100
        self._reference = _Reference(output_rate, sample_rate)
        self._sounds_ms = 0
        """For how long the bot can still be heard."""
        self._unsure_ms = 0

    def played(self, samples: Samples) -> None:
        """Keep it until the microphone's turn: the library is used from one thread."""
        self._reference.put(samples)

    def hole(self) -> None:
        """The echo has to be found anew."""
        self._reference.look_soon()
        self._unsure_ms = UNSURE_MS

    def clean(self, samples: Samples) -> Samples:
        """Without the echo. Late by 8 ms at 16 kHz."""
        return np.concatenate([self._cleaned(chunk) for chunk in samples.reshape(-1, self._chunk)])

    def _cleaned(self, chunk: Samples) -> Samples:
        played = self._reference.get(len(chunk))
        self._module.process_reverse_stream(self._framed(played))
        frame = self._framed(chunk)
        self._module.process_stream(frame)
        self._sounds_ms = TAIL_MS if _dbfs(played) > QUIET_DBFS else max(0, self._sounds_ms - 10)
        if self._unsure_ms and self._sounds_ms:
            self._unsure_ms -= 10
            return np.zeros_like(chunk)
        return np.array(frame.data, np.int16)

    def _framed(self, chunk: Samples) -> Any:
        # A frame of livekit's is changed where it stands, and it needs memory that can be written to.
        return self._frame(bytearray(chunk.tobytes()), self._rate, 1, len(chunk))


class EchoGate:
    """Silence in place of the echo: rougher than `EchoCanceller`, and with no package.

    While the bot is heard, and `TAIL_MS` after, 10 ms pass that are `MARGIN_DB` louder than what the bot's voice can
    be by now, and the `OPEN_MS` after them. How much of it the room gives back is learnt in the bot's first 1.5 s;
    until then it is taken for as loud as the bot, and who speaks over it has to be louder.
    """

    def __init__(self, sample_rate: int, output_rate: int) -> None:
        self._chunk = sample_rate // 100
        self._reference = _Reference(output_rate, sample_rate)
        self._played_dbfs: deque[float] = deque(
            [SILENCE_DBFS], maxlen=TAIL_MS // 10
        )  # bound: the tail; the oldest goes
        self._back_db: deque[float] = deque(maxlen=WINDOWS)  # bound: WINDOWS; the oldest goes
        self._room_db = 0.0
        self._open_ms = 0
        self._begin_window()

    def _begin_window(self) -> None:
        self._window_ms = 0
        self._loudest_played = self._loudest_heard = SILENCE_DBFS
        self._was_open = False

    def played(self, samples: Samples) -> None:
        """How loud it is says how loud its echo can be."""
        self._reference.put(samples)

    def hole(self) -> None:
        """No matter: it goes by how loud the bot is, and that is known to `TAIL_MS`."""

    def clean(self, samples: Samples) -> Samples:
        """The same samples, or silence."""
        return np.concatenate([self._gated(chunk) for chunk in samples.reshape(-1, self._chunk)])

    def _gated(self, chunk: Samples) -> Samples:
        self._played_dbfs.append(_dbfs(self._reference.get(self._chunk)))
        played = max(self._played_dbfs)
        if played < QUIET_DBFS:
            return chunk
        heard = _dbfs(chunk)
        if heard > max(played + self._room_db + MARGIN_DB, QUIET_DBFS):
            self._open_ms = OPEN_MS
        elif self._open_ms:
            self._open_ms -= 10
        self._learn(played, heard)
        return chunk if self._open_ms else np.zeros_like(chunk)

    def _learn(self, played: float, heard: float) -> None:
        self._loudest_played = max(self._loudest_played, played)
        self._loudest_heard = max(self._loudest_heard, heard)
        self._was_open |= self._open_ms > 0
        self._window_ms += 10
        if self._window_ms < WINDOW_MS:
            return
        if self._was_open:
            self._room_db = min(MOST_DB, self._room_db + RISE_DB)
            for at, back_db in enumerate(self._back_db):
                self._back_db[at] = back_db + RISE_DB
        else:
            self._back_db.append(self._loudest_heard - self._loudest_played)
        if len(self._back_db) >= WINDOWS // 2:
            self._room_db = min(MOST_DB, max(self._back_db))
        self._begin_window()


def installed() -> bool:
    """Return True where the canceller's package is installed. (Related packages create a folder of its name, too.)"""
    return importlib.util.find_spec("livekit") is not None and importlib.util.find_spec("livekit.rtc") is not None


def _dbfs(samples: Samples) -> float:
    power = float(np.mean(np.square(samples, dtype=np.float32)))
    return 10 * math.log10(power / FULL_SCALE**2) if power else SILENCE_DBFS

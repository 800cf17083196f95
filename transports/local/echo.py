"""The bot's own voice in the microphone: taken out, or gated, so that the bot does not interrupt itself.

`EchoCanceller` is WebRTC's (AEC3; from the package livekit, one shared library, no download, Apache-2.0), behind
a linear one of our own (adaptive.py) as soon as that has learnt the room: then who speaks over the bot is understood.
`EchoGate` needs no package: while the bot is heard, what is not clearly louder than its echo is silence.
"""

from __future__ import annotations

import importlib.util
import math
from collections import deque
from typing import Any, Protocol, cast

import numpy as np

from ...pipeline.audio import FULL_SCALE, SILENCE_DBFS, StreamResampler, to_float32, to_int16
from ...pipeline.errors import MissingExtraError, TransportError
from ...pipeline.frames import Samples
from ..verbs import CHUNK_MS
from .adaptive import AdaptiveFilter

REFERENCE_BLOCKS = 100
"""Of what was played: 2 s in blocks of 20 ms. A microphone that gives nothing for longer has gone."""
GOOD_DB = 12.0
GOOD_BLOCKS = 75
"""1.5 s of the bot's voice."""
GAIN_BLOCKS = 25
LOUD_POWER = 1e-6
"""-60 dBFS: what is softer is no echo to speak of."""
CANCELLER_RATES = (8_000, 16_000, 32_000, 48_000)

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
"""What is softer than this is nobody."""


class EchoModel(Protocol):
    """Takes the bot out of what the microphone hears."""

    def played(self, samples: Samples) -> None:
        """What the loudspeaker gets, silence too, in blocks; from its thread."""
        ...

    def clean(self, samples: Samples) -> Samples:
        """What the microphone gave, in blocks of `CHUNK_MS`, with less of the bot in it; from its thread."""
        ...


class _Reference:
    """What was played, at the microphone's rate: as many samples as the microphone gives, in step with it.

    One thread puts, another one gets. What was not there in time is silence, and makes all that follows later; what was
    in stock all through a second is not needed, and dropped: it must not come later than its echo.
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
    """WebRTC's echo canceller, twice: for what the microphone gives, and for what an `AdaptiveFilter` leaves of that.

    The first is good from the first second of the bot's speech on, and takes the first sounds of who speaks over the
    bot for echo; the second does not, and is listened to once the filter takes `GOOD_DB` of the echo away.

    ``sample_rate``: of the microphone; ``output_rate``: of what is played, in Hz. Finds delays up to 0.4 s by itself.
    Costs 0.6 ms for 20 ms at 16 kHz while the bot speaks. Raises `MissingExtraError`, and `TransportError` for a rate
    that it does not take.
    """

    def __init__(self, sample_rate: int, output_rate: int) -> None:
        if sample_rate not in CANCELLER_RATES:
            rates = ", ".join(map(str, CANCELLER_RATES))
            raise TransportError(
                f'The echo canceller takes {rates} Hz, not {sample_rate}. Give another sample_rate, or echo="gate".'
            )
        if not installed():
            raise MissingExtraError("The echo canceller", "livekit", "local")
        self._block = sample_rate * CHUNK_MS // 1000
        self._filter = AdaptiveFilter(sample_rate, self._block)
        self._plain, self._behind = _WebRTC(sample_rate), _WebRTC(sample_rate)
        self._reference = _Reference(output_rate, sample_rate)
        self._good = 0
        """For how many blocks the filter was good, less those in which it was not."""
        self._gain = 1.0
        """How much of the power is left by the filter, on average. Above 1 it has lost the room."""
        self.learnt = False
        """Whether the filter is listened to."""

    def played(self, samples: Samples) -> None:
        """Keep it until the microphone's turn: the library is used from one thread."""
        self._reference.put(samples)

    def clean(self, samples: Samples) -> Samples:
        """Without the echo. Late by 8 ms at 16 kHz."""
        return np.concatenate([self._cleaned(block) for block in samples.reshape(-1, self._block)])

    def _cleaned(self, block: Samples) -> Samples:
        played = self._reference.get(self._block)
        heard = to_float32(block)
        left = self._filter.subtract(heard, to_float32(played))
        self._judge(float(np.mean(heard**2)), float(np.mean(left**2)))
        plain, behind = self._plain(block, played), self._behind(to_int16(left), played)
        return behind if self.learnt else plain

    def _judge(self, heard: float, left: float) -> None:
        if heard == left or heard < LOUD_POWER:
            return
        ratio = left / heard
        self._gain += (min(ratio, 4.0) - self._gain) / GAIN_BLOCKS
        self._good = max(0, self._good + (1 if ratio < 10 ** (-GOOD_DB / 10) else -1))
        if self._gain > 1.1:
            self.learnt, self._good = False, 0
        elif self._good >= GOOD_BLOCKS:
            self.learnt, self._good = True, GOOD_BLOCKS


class _WebRTC:
    """The canceller of livekit's package, for 20 ms at a time."""

    def __init__(self, sample_rate: int) -> None:
        from livekit.rtc import AudioFrame, AudioProcessingModule

        self._module: Any = cast(Any, AudioProcessingModule)(echo_cancellation=True, high_pass_filter=True)
        self._frame: Any = cast(Any, AudioFrame)
        self._rate = sample_rate

    def __call__(self, heard: Samples, played: Samples) -> Samples:
        # 10 ms is what the library takes.
        for chunk in played.reshape(2, -1):
            self._module.process_reverse_stream(self._framed(chunk))
        frames = [self._framed(chunk) for chunk in heard.reshape(2, -1)]
        for frame in frames:
            self._module.process_stream(frame)
        return np.concatenate([np.array(frame.data, np.int16) for frame in frames])

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
    """Whether the canceller's package is there. (Packages beside it put something else into a folder of its name.)"""
    return importlib.util.find_spec("livekit") is not None and importlib.util.find_spec("livekit.rtc") is not None


def _dbfs(samples: Samples) -> float:
    power = float(np.mean(np.square(samples, dtype=np.float32)))
    return 10 * math.log10(power / FULL_SCALE**2) if power else SILENCE_DBFS

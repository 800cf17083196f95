"""Opus (RFC 6716) by libopus: encode 20 ms to one packet, and decode packets.

libopus comes with PyAV's wheel; without the wheel, the system's library is used. Calls go through ctypes: a call costs
a microsecond, and avoids the resampling to 48 kHz stereo that FFmpeg's wrapper needs.

There are two encodings. Without packet loss, Opus's transform codec (CELT): it delays by 2.5 ms, and its silence is
digital silence. With packet loss, its speech codec (SILK, alone or with CELT above 8 kHz), which can put a copy of each
packet into the next one (`Encoder`'s ``loss_percent``); it delays by 6.5 ms.

Measured with dense speech, 24 kHz mono, in µs of one core for 20 ms, warm caches: CELT at 40 kbit/s 27 with complexity
1, 45 with 3, 61 with 5; SILK at 32 kbit/s 80 with complexity 1, 155 with 2; decoding to 16 kHz mono 20. Encoding
*silence* costs up to 400, because the encoder then computes with denormal numbers: see `Encoder.silence`.
"""

from __future__ import annotations

import ctypes
import ctypes.util
import sys
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ...pipeline.errors import SettingsError, TransportError
from ...pipeline.frames import Samples

RATES = (8_000, 12_000, 16_000, 24_000, 48_000)
"""Sample rates of Opus, in Hz (RFC 6716, section 2)."""
CLOCK_RATE = 48_000
"""Rate of RTP timestamps, for any audio rate (RFC 7587, section 4.1)."""
FRAME_MS = 20
FRAME_TICKS = CLOCK_RATE * FRAME_MS // 1000
"""20 ms of RTP timestamps."""
MAX_PACKET = 1275
"""Largest frame, in bytes (RFC 6716, section 3.2.1)."""
MAX_MS = 120
"""Longest packet (RFC 6716, section 3.2.5)."""
SETTLE = 10
"""Frames of silence after which an encoder's packets of silence no longer change."""

# From opus_defines.h.
_VOIP = 2048
_LOW_DELAY = 2051
_RESET_STATE = 4028
_SET_BITRATE = 4002
_SET_COMPLEXITY = 4010
_SET_INBAND_FEC = 4012
_SET_PACKET_LOSS = 4014
_SET_DTX = 4016
_SET_SIGNAL = 4024
_SIGNAL_VOICE = 3001

_SILK_MS = (10, 20, 40, 60)
_CELT_MS = (2.5, 5, 10, 20)


def _candidates() -> list[str]:
    """List possible paths of libopus, those in PyAV's wheel first."""
    found: list[str] = []
    try:
        import av
    except ImportError:
        pass
    else:
        package = Path(av.__file__).parent
        for folder in (package.parent / "av.libs", package / ".dylibs", package.parent / "av.dylibs"):
            found += sorted(str(path) for path in folder.glob("*opus*") if "opusfile" not in path.name)
    system = ctypes.util.find_library("opus")
    return [*found, system] if system else found


@cache
def library() -> Any:
    """Load libopus. Raises `TransportError` where there is none."""
    for name in _candidates():
        try:
            # Keeps the GIL: a call is shorter than the time to get it back from a busy thread.
            opus = ctypes.PyDLL(name)
            opus.opus_encoder_create.restype = ctypes.c_void_p
        except (OSError, AttributeError):
            continue
        return _declared(opus)
    install = "brew install opus" if sys.platform == "darwin" else "apt install libopus0"
    raise TransportError(
        "libopus is missing: PyAV has none (PyAV was built from source), and this machine has none. "
        f"Install PyAV's wheel (pip install --force-reinstall --only-binary av av), or the library ({install})."
    )


def _declared(opus: Any) -> Any:
    c_int, pointer, error = ctypes.c_int, ctypes.c_void_p, ctypes.POINTER(ctypes.c_int)
    opus.opus_encoder_create.argtypes = [ctypes.c_int32, c_int, c_int, error]
    opus.opus_encoder_destroy.argtypes = [pointer]
    opus.opus_encoder_destroy.restype = None
    # One argument fewer than the call has: ctypes then passes the last as variadic, as Apple's ARM requires.
    opus.opus_encoder_ctl.argtypes = [pointer, c_int]
    opus.opus_encode.argtypes = [pointer, pointer, c_int, pointer, ctypes.c_int32]
    opus.opus_decoder_create.restype = ctypes.c_void_p
    opus.opus_decoder_create.argtypes = [ctypes.c_int32, c_int, error]
    opus.opus_decoder_destroy.argtypes = [pointer]
    opus.opus_decoder_destroy.restype = None
    opus.opus_decode.argtypes = [pointer, ctypes.c_char_p, ctypes.c_int32, pointer, c_int, c_int]
    opus.opus_strerror.restype = ctypes.c_char_p
    return opus


def _check(sample_rate: int, channels: int) -> None:
    if sample_rate not in RATES or channels not in (1, 2):
        raise SettingsError(
            f"Opus supports {', '.join(str(rate) for rate in RATES)} Hz and 1 or 2 channels, not {sample_rate} Hz "
            f"with {channels} channels. Set the transport to one of these rates."
        )


def packet_ticks(packet: bytes) -> int:
    """Return the length of a packet's audio in RTP timestamps (48 kHz); 0 for a malformed packet (RFC 6716, 3.1)."""
    if not packet:
        return 0
    toc = packet[0]
    config = toc >> 3
    if config < 12:
        ms: float = _SILK_MS[config & 3]
    elif config < 16:
        ms = 20 if config & 1 else 10
    else:
        ms = _CELT_MS[config & 3]
    code = toc & 3
    frames = 1 if code == 0 else 2
    if code == 3:
        frames = packet[1] & 63 if len(packet) > 1 else 0
    total = ms * frames
    return round(total * CLOCK_RATE / 1000) if total <= MAX_MS else 0


class Encoder:
    """Encodes 20 ms of int16 at ``sample_rate`` to one packet.

    ``bit_rate`` in bit/s, ``complexity`` 0 to 10. ``loss_percent``: the expected loss, for which forward error
    correction is added; 0 turns it off and selects the transform codec. Raises `SettingsError` for values outside of
    Opus's ranges, `TransportError` without libopus.
    """

    def __init__(
        self,
        sample_rate: int = 24_000,
        channels: int = 1,
        *,
        bit_rate: int = 40_000,
        complexity: int = 1,
        loss_percent: int = 0,
    ) -> None:
        _check(sample_rate, channels)
        if not (6_000 <= bit_rate <= 510_000 and 0 <= complexity <= 10 and 0 <= loss_percent <= 100):
            raise SettingsError(
                f"Opus takes 6000 to 510000 bit/s, a complexity of 0 to 10 and a loss of 0 to 100 %, not {bit_rate} "
                f"bit/s, {complexity} and {loss_percent} %."
            )
        self.sample_rate = sample_rate
        self.channels = channels
        self.frame_samples = sample_rate * FRAME_MS // 1000
        self._opus = opus = library()
        error = ctypes.c_int()
        self._state: int | None = opus.opus_encoder_create(
            sample_rate, channels, _VOIP if loss_percent else _LOW_DELAY, ctypes.byref(error)
        )
        if not self._state:
            raise TransportError(f"libopus makes no encoder: {opus.opus_strerror(error.value).decode()}.")
        self._settings = (bit_rate, complexity, loss_percent)
        for request, value in (
            (_SET_BITRATE, bit_rate),
            (_SET_COMPLEXITY, complexity),
            (_SET_INBAND_FEC, 1 if loss_percent else 0),
            (_SET_PACKET_LOSS, loss_percent),
            (_SET_DTX, 0),
            (_SET_SIGNAL, _SIGNAL_VOICE),
        ):
            self._ctl(request, value)
        # Fixed buffers, so that a call need not ask for their addresses.
        self._in = np.zeros(self.frame_samples * channels, np.int16)
        self._in_at = self._in.ctypes.data
        self._out = ctypes.create_string_buffer(MAX_PACKET)
        self._out_at = ctypes.addressof(self._out)

    def _ctl(self, request: int, value: int) -> None:
        self._opus.opus_encoder_ctl(self._state, request, ctypes.c_int32(value))

    def encode(self, samples: Samples) -> bytes:
        """Encode one packet. ``samples``: 20 ms, shape ``(n,)`` or ``(n, 2)``; mono goes into both of two channels."""
        if self.channels == 2 and samples.ndim == 1:
            self._in.reshape(-1, 2)[:] = samples[:, None]
        else:
            self._in[:] = samples.reshape(-1)
        return self._encode()

    def _encode(self) -> bytes:
        size = self._opus.opus_encode(self._state, self._in_at, self.frame_samples, self._out_at, MAX_PACKET)
        if size < 0:
            raise TransportError(f"libopus cannot encode: {self._opus.opus_strerror(size).decode()}.")
        return ctypes.string_at(self._out_at, size)

    def encode_silence(self) -> bytes:
        """Encode 20 ms of silence, which begin with the encoder's rest of the sound before."""
        self._in[:] = 0
        return self._encode()

    def silence(self) -> bytes:
        """Return the packet for lasting silence; it is encoded once per setting and then reused."""
        return _silence(self.sample_rate, self.channels, *self._settings)

    def reset(self) -> None:
        """Reset the encoder's state."""
        self._opus.opus_encoder_ctl(self._state, _RESET_STATE)

    def close(self) -> None:
        """Free the encoder. It cannot be used afterwards."""
        if self._state:
            self._opus.opus_encoder_destroy(self._state)
            self._state = None

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self.close()


@cache
def _silence(sample_rate: int, channels: int, bit_rate: int, complexity: int, loss_percent: int) -> bytes:
    encoder = Encoder(sample_rate, channels, bit_rate=bit_rate, complexity=complexity, loss_percent=loss_percent)
    return [encoder.encode_silence() for _ in range(SETTLE)][-1]


class Decoder:
    """Decodes packets of any rate to mono int16 at ``sample_rate``: Opus resamples and mixes itself."""

    def __init__(self, sample_rate: int = 16_000) -> None:
        _check(sample_rate, 1)
        self.sample_rate = sample_rate
        self._opus = opus = library()
        error = ctypes.c_int()
        self._state: int | None = opus.opus_decoder_create(sample_rate, 1, ctypes.byref(error))
        if not self._state:
            raise TransportError(f"libopus makes no decoder: {opus.opus_strerror(error.value).decode()}.")
        self._out = np.zeros(sample_rate * MAX_MS // 1000, np.int16)
        self._out_at = self._out.ctypes.data

    def decode(self, packet: bytes) -> Samples | None:
        """Decode a packet, shape ``(n,)``; None for a broken or empty one."""
        if not packet:
            return None
        return self._decode(packet, len(self._out), 0)

    def conceal(self, ticks: int) -> Samples:
        """Conceal ``ticks`` of 48 kHz of lost audio (a multiple of 2.5 ms), extrapolated from the audio before."""
        count = ticks * self.sample_rate // CLOCK_RATE
        guess = self._decode(None, count, 0)
        return np.zeros(count, np.int16) if guess is None else guess

    def recover(self, following: bytes, ticks: int) -> Samples:
        """Recover the ``ticks`` of 48 kHz before a packet from its copy of them, if any (in-band error correction)."""
        samples = self._decode(following, ticks * self.sample_rate // CLOCK_RATE, 1)
        return self.conceal(ticks) if samples is None else samples

    def _decode(self, packet: bytes | None, count: int, fec: int) -> Samples | None:
        size = 0 if packet is None else len(packet)
        got = self._opus.opus_decode(self._state, packet, size, self._out_at, min(count, len(self._out)), fec)
        return self._out[:got].copy() if got > 0 else None

    def close(self) -> None:
        """Free the decoder. It cannot be used afterwards."""
        if self._state:
            self._opus.opus_decoder_destroy(self._state)
            self._state = None

    def __del__(self) -> None:
        if getattr(self, "_state", None):
            self.close()

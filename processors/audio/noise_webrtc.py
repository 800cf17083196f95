"""WebRTC's noise suppressor, from the package livekit: one shared library, no download, Apache-2.0.

The suppressor estimates the noise in each band during pauses, and attenuates bands that contain little else (a Wiener
filter, with a high-pass at 80 Hz in front). So it helps against steady noise (fans, hum, hiss, a car), and not against
other people's voices. Measured with livekit 1.2.1 on x86-64: 18-40 µs for 10 ms at 16 kHz, during which the library
releases the GIL; 0.2 ms to make one; the import takes 0.1 s and 28 MB, and starts four threads that sleep.
"""

from __future__ import annotations

import importlib.util
from typing import Any, cast

import numpy as np

from ...pipeline.errors import MissingExtraError, SettingsError
from ...pipeline.frames import Samples

DELAY_SAMPLES = {8_000: 71, 16_000: 93, 32_000: 190, 48_000: 330}
"""Delay of the output by rate in Hz: 6-9 ms. Measured with speech, as the maximum of the correlation."""


class WebRTCNoise:
    """A `NoiseModel` of fixed strength: steady noise is attenuated by 13-17 dB, a babble of voices by 9 dB, and speech
    by 0.5 dB at an SNR of 15 dB, 2-3 dB at 0 dB.

    At 8,000, 16,000, 32,000 or 48,000 Hz. Raises `SettingsError` for other rates, and `MissingExtraError`.
    """

    def __init__(self, sample_rate: int = 16_000) -> None:
        if sample_rate not in DELAY_SAMPLES:
            rates = ", ".join(map(str, DELAY_SAMPLES))
            raise SettingsError(
                f"WebRTC's noise suppressor takes {rates} Hz, not {sample_rate}. Put a Resampler in front of it."
            )
        # Other packages install their own modules into the same namespace package.
        if importlib.util.find_spec("livekit") is None or importlib.util.find_spec("livekit.rtc") is None:
            raise MissingExtraError("NoiseSuppressor", "livekit", "noise")
        from livekit.rtc import AudioFrame, AudioProcessingModule

        self.sample_rate = sample_rate
        self.chunk_samples = sample_rate // 100
        self.delay_samples = DELAY_SAMPLES[sample_rate]
        self._make: Any = cast(Any, AudioProcessingModule)
        self._frame: Any = cast(Any, AudioFrame)
        self.reset()

    def reset(self) -> None:
        """Make a new module, the only way to reset one."""
        self._module: Any = self._make(noise_suppression=True, high_pass_filter=True)

    def clean(self, chunk: Samples) -> Samples:
        """Clean 10 ms: int16, shape ``(sample_rate // 100,)``."""
        # livekit changes the frame in place, so it needs writable memory.
        frame = self._frame(bytearray(chunk.tobytes()), self.sample_rate, 1, len(chunk))
        self._module.process_stream(frame)
        return np.array(frame.data, np.int16)

# pyright: basic
"""aiortc's Opus encoder with the settings of our transport: mono, 32 kbit/s, complexity 1, forward error correction."""

from __future__ import annotations

from typing import Any

import aiortc.codecs
import aiortc.rtcrtpsender
from aiortc.codecs.opus import TIME_BASE, OpusEncoder
from av import AudioResampler, CodecContext

BIT_RATE, COMPLEXITY = 32_000, 1


class MonoEncoder(OpusEncoder):
    """aiortc's encoder with other settings."""

    def __init__(self) -> None:
        super().__init__()
        self.codec = CodecContext.create("libopus", "w")
        self.codec.bit_rate = BIT_RATE
        self.codec.format = "s16"
        self.codec.layout = "mono"
        self.codec.options = {
            "application": "voip", "compression_level": str(COMPLEXITY), "fec": "1", "packet_loss": "10"
        }  # fmt: skip
        self.codec.sample_rate = 48_000
        self.codec.time_base = TIME_BASE
        self.resampler = AudioResampler(format="s16", layout="mono", rate=48_000, frame_size=960)


def send_mono() -> None:
    """From now on aiortc sends so, in this process."""
    make = aiortc.codecs.get_encoder

    def encoder(codec: Any) -> Any:
        return MonoEncoder() if codec.mimeType.lower() == "audio/opus" else make(codec)

    aiortc.rtcrtpsender.get_encoder = encoder  # pyright: ignore[reportPrivateImportUsage]

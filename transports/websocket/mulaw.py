"""µ-law, the 8-bit code of telephony: ITU-T Recommendation G.711, tables 2a and 2b.

A byte is a sign, a segment of three bits and a step of four, all inverted. Segment *s* has 16 steps of ``8 * 2**s``
(at 16 bits; the Recommendation uses 14). A bias makes the segments start at powers of two.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...pipeline.frames import Samples

BIAS = 132
"""33 at the Recommendation's 14 bits: with it, segment s starts at ``128 * 2**s``."""
CLIP = 32_635
"""Largest value below 8159 at 14 bits, where the Recommendation's table ends: louder samples get the last code."""


def _decoding() -> Samples:
    code = ~np.arange(256, dtype=np.uint8)
    segment, step = (code >> 4) & 7, (code & 15).astype(np.int32)
    magnitude = (((step << 3) + BIAS) << segment) - BIAS
    return np.where(code & 0x80, -magnitude, magnitude).astype(np.int16)


def _encoding() -> npt.NDArray[np.uint8]:
    # In the order of the samples' bit patterns, which serve as the index.
    samples = np.arange(65_536, dtype=np.uint16).view(np.int16).astype(np.int32)
    biased = np.minimum(np.abs(samples), CLIP) + BIAS
    segment = np.frexp(biased)[1] - 8
    step = (biased >> (segment + 3)) & 15
    sign = np.where(samples < 0, 0x80, 0)
    return (~(sign | (segment << 4) | step) & 0xFF).astype(np.uint8)


_DECODED = _decoding()
_ENCODED = _encoding()


def decode(data: bytes) -> Samples:
    """Decode each byte to int16, shape ``(n,)``: the middle of its step."""
    return _DECODED[np.frombuffer(data, np.uint8)]


def encode(samples: Samples) -> bytes:
    """Encode int16 samples, shape ``(n,)``, to one byte each."""
    return _ENCODED[samples.view(np.uint16)].tobytes()

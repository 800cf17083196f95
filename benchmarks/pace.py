"""The pace of what the bot says, on the real clock: when each 20 ms leave, and how a stall of the event loop ends.

::

    python benchmarks/pace.py                           # ten minutes, and a minute of each of the others
    python benchmarks/pace.py --minutes 1 --transport webrtc

A chunk that leaves more than 20 ms after it was due is an *underrun*: whoever plays has nothing left by then. *Drift*
is how much later the chunks of the last seconds leave than those of the first. *Bare timers* are asyncio's, doing
nothing, for comparison: so late are they on this machine. With ``webrtc``, what is measured is RTP packets on their way
into the socket, and the callers are a process of their own, on another core where there is one. *Ours* leaves out what
was due or left while the core was not ours (`gaps.py`): a virtual machine's host gives its time to others.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import os
import statistics
import struct
import sys
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from gaps import Gaps, watch
from voxline.pipeline import (
    AudioFormat,
    ClientConnectedFrame,
    Frame,
    FrameProcessor,
    InputAudioFrame,
    OutputAudioFrame,
    Pipeline,
    PipelineRunner,
    PipelineWorker,
    ResponseEndFrame,
    Samples,
    handles,
)
from voxline.transports.base import Transport

MS = 1_000_000
RATE = 24_000
CHUNK_MS = 20
STALL_MS = 100
STALLS = 20
CONVERSATIONS = 10
CORES = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else {0}
CORE, OTHER = min(CORES), max(CORES)
EDGE_S = 5.0
"""How much of the beginning and of the end drift is measured over."""


@dataclass
class Track:
    """The chunks of one conversation: when each left, and when it was due (ns).

    ``relative``: only the distances of the latter are known. Then the most punctual in a hundred were in time.
    """

    relative: bool = False
    left: list[int] = field(default_factory=list[int])
    due: list[int] = field(default_factory=list[int])

    def dues(self) -> list[int]:
        """When each was due, on the clock."""
        if not self.relative or not self.due:
            return self.due
        late = sorted(left - due for left, due in zip(self.left, self.due, strict=True))
        return [due + late[len(late) // 100] for due in self.due]

    def late_ms(self) -> list[float]:
        """How late each was."""
        return [(left - due) / MS for left, due in zip(self.left, self.dues(), strict=True)]


class Speaker(FrameProcessor):
    """Speaks from the moment on at which the client is there, for so long; then the worker ends."""

    def __init__(self, seconds: float, *, stereo: bool) -> None:
        self._chunks = round(seconds * 10)
        at = np.arange(RATE // 10)
        tone = np.rint(8_000 * np.sin(2 * np.pi * 440 * at / RATE)).astype(np.int16)
        self._tone = np.stack([tone, tone], axis=1) if stereo else tone

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Audio, at the output's rate."""
        return {OutputAudioFrame: AudioFormat((RATE,))}

    @handles(InputAudioFrame)
    async def hear(self, frame: InputAudioFrame) -> None:
        """Nobody listens."""

    @handles(ClientConnectedFrame)
    async def speak(self, frame: ClientConnectedFrame) -> AsyncIterator[Frame]:
        """Speak."""
        for _ in range(self._chunks):
            yield OutputAudioFrame(self._tone, RATE)
        yield ResponseEndFrame()
        self.end()


# --- transports -----------------------------------------------------------------------------------------------------


class Stopwatch(Transport):
    """Plays to nobody, and notes when."""

    def __init__(self, lead_ms: float) -> None:
        super().__init__(output_rate=RATE, lead_ms=lead_ms)
        self.track = Track()

    async def open(self) -> None:
        """The client is there at once."""
        self.deliver(ClientConnectedFrame())

    def send(self, samples: Samples, due_ns: int) -> None:
        """Note it."""
        self.track.left.append(time.monotonic_ns())
        self.track.due.append(due_ns - round(self.lead_ms * MS))


@contextlib.asynccontextmanager
async def in_memory(count: int, stereo: bool, lead_ms: float) -> AsyncGenerator[tuple[list[Transport], list[Track]]]:
    """Conversations with nobody."""
    transports = [Stopwatch(lead_ms) for _ in range(count)]
    yield [*transports], [transport.track for transport in transports]


@contextlib.asynccontextmanager
async def over_webrtc(count: int, stereo: bool, lead_ms: float) -> AsyncGenerator[tuple[list[Transport], list[Track]]]:
    """Conversations with callers in a process of their own."""
    from voxline.transports.webrtc import WebRTCTransport
    from voxline.transports.webrtc.aiortc_adapter import DtlsConnection

    tracks: dict[int, Track] = {}
    first: dict[int, int] = {}
    whole = DtlsConnection.send_rtp

    def send_rtp(wire: DtlsConnection, packet: bytes) -> bool:
        sent = whole(wire, packet)
        now_ns = time.monotonic_ns()
        _, _, timestamp, ssrc = struct.unpack("!BxHII", packet[:12])
        if ssrc not in tracks:
            first[ssrc] = timestamp
            tracks[ssrc] = next(free)
        track = tracks[ssrc]
        track.left.append(now_ns)
        track.due.append(((timestamp - first[ssrc]) & 0xFFFFFFFF) * 1_000_000 // 48)
        return sent

    made = [Track(relative=True) for _ in range(count)]
    free = iter(made)
    transports = [
        WebRTCTransport(output_rate=RATE, stereo=stereo, lead_ms=lead_ms, loopback=True) for _ in range(count)
    ]
    # A pipe on a path: a file name is all that the other side needs.
    callers = await asyncio.create_subprocess_exec(
        sys.executable,
        str(Path(__file__)),
        "--callers",
        f"{count}",
        f"{OTHER}",
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        limit=1 << 22,
    )
    assert callers.stdin is not None
    assert callers.stdout is not None
    DtlsConnection.send_rtp = send_rtp  # type: ignore[method-assign]
    try:
        offers: list[str] = json.loads(await callers.stdout.readline())
        answers = [await transport.answer(offer) for transport, offer in zip(transports, offers, strict=True)]
        callers.stdin.write(json.dumps(answers).encode() + b"\n")
        await callers.stdin.drain()
        yield [*transports], made
    finally:
        DtlsConnection.send_rtp = whole  # type: ignore[method-assign]
        callers.stdin.close()
        await callers.wait()


async def callers(count: int, core: int) -> None:
    """The other process: clients that hear, and say silence."""
    import aiortc
    from voxline.tests.transports.webrtc.client import Client

    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    clients = [Client() for _ in range(count)]
    for client in clients:
        # What they hear is of no interest, and its decoding of another process's time.
        receiver: Any = client.pc.getReceivers()[0]
        receiver._handle_rtp_packet = _ignore
    print(json.dumps([await client.offer() for client in clients]), flush=True)
    loop = asyncio.get_running_loop()
    answers = json.loads(await loop.run_in_executor(None, sys.stdin.readline))
    for client, answer in zip(clients, answers, strict=True):
        await client.pc.setRemoteDescription(aiortc.RTCSessionDescription(answer, "answer"))
    await loop.run_in_executor(None, sys.stdin.read)
    for client in clients:
        await client.close()


async def _ignore(packet: Any, arrival_time_ms: int) -> None:
    pass


# --- what is measured -----------------------------------------------------------------------------------------------

Pairs = Callable[[int, bool, float], Any]


async def speak(pairs: Pairs, count: int, seconds: float, *, stereo: bool, lead_ms: float, stalls: int = 0) -> Result:
    """Some conversations at the same time, in all of which the bot speaks all the time."""
    async with watch(CORE) as gaps, pairs(count, stereo, lead_ms) as (transports, tracks):
        workers = [
            PipelineWorker(
                Pipeline([transport.input(), Speaker(seconds, stereo=stereo), transport.output()]), name=f"{number}"
            )
            for number, transport in enumerate(transports)
        ]
        ended: list[int] = []
        staller = asyncio.create_task(_stall(ended, stalls, seconds))
        await PipelineRunner().run(*workers)
        await staller
    return Result(tracks, ended, gaps)


async def bare(count: int, seconds: float) -> Result:
    """Timers of asyncio that do nothing, as many and as often."""
    loop = asyncio.get_running_loop()
    tracks = [Track() for _ in range(count)]
    begun_ns, begun = time.monotonic_ns(), loop.time()

    def tick(track: Track, number: int) -> None:
        track.left.append(time.monotonic_ns())
        track.due.append(begun_ns + number * CHUNK_MS * MS)
        if number * CHUNK_MS < seconds * 1_000:
            loop.call_at(begun + (number + 1) * CHUNK_MS / 1_000, tick, track, number + 1)

    async with watch(CORE) as gaps:
        for track in tracks:
            tick(track, 0)
        await asyncio.sleep(seconds)
    return Result(tracks, [], gaps)


async def _stall(ended: list[int], stalls: int, seconds: float) -> None:
    """Hold the event loop up now and then."""
    for _ in range(stalls):
        await asyncio.sleep(seconds / (stalls + 2))
        time.sleep(STALL_MS / 1_000)  # noqa: ASYNC251  # that is what a stall is
        ended.append(time.monotonic_ns())


@dataclass
class Result:
    """The chunks of some conversations, when stalls ended, and when the core was not ours."""

    tracks: list[Track]
    stalls: list[int]
    gaps: Gaps

    def late_ms(self) -> list[float]:
        """Lateness of all chunks."""
        return sorted(late for track in self.tracks for late in track.late_ms())

    def ours_ms(self) -> list[float]:
        """Lateness of the chunks that no gap delayed."""
        return sorted(late for track in self.tracks for late in self._ours_of(track))

    def _ours_of(self, track: Track) -> list[float]:
        return [
            (left - due) / MS
            for left, due in zip(track.left, track.dues(), strict=True)
            if not self.gaps.between(min(left, due), left)
        ]

    def jitter_ms(self) -> list[float]:
        """How far from 20 ms each is after the one before, of the same conversation."""
        return sorted(
            abs((after - before) / MS - CHUNK_MS)
            for track in self.tracks
            for before, after in zip(track.left, track.left[1:], strict=False)
        )

    def drift_ms(self) -> float:
        """The worst of the conversations, without what gaps held up."""
        worst = 0.0
        count = round(EDGE_S * 1_000 / CHUNK_MS)
        for track in self.tracks:
            late = self._ours_of(track)
            if len(late) >= 3 * count:
                worst = max(worst, abs(statistics.median(late[-count:]) - statistics.median(late[:count])))
        return worst

    def recovered_ms(self) -> list[float]:
        """How long after the end of each stall all was gone that had fallen due by then, of all conversations."""
        found: list[float] = []
        for end_ns in self.stalls:
            last_ns = end_ns
            for track in self.tracks:
                for left, due in zip(track.left, track.dues(), strict=True):
                    if end_ns - STALL_MS * MS <= due <= end_ns <= left:
                        last_ns = max(last_ns, left)
            found.append((last_ns - end_ns) / MS)
        return sorted(found)


def quantile(values: list[float], share: float) -> float:
    """Return a quantile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * share))] if values else float("nan")


def row(name: str, values: list[float], rest: str = "") -> str:
    """A line of the table."""
    figures = " ".join(
        f"{value:9.3f}" for value in (quantile(values, 0.5), quantile(values, 0.99), quantile(values, 1))
    )
    return f"{name:44} {len(values):7} {figures}  {rest}"


def not_ours(gaps: Gaps) -> str:
    """Describe the time that the host took."""
    return f"core not ours: {len(gaps.found)} gaps, {gaps.share:.1%}{'' if gaps.sure else ' (some may be of our own)'}"


async def measure(pairs: Pairs, minutes: float, lead_ms: float) -> None:
    """All of it, as a table."""
    print(f"{'ms':44} {'count':>7} {'median':>9} {'p99':>9} {'worst':>9}")
    short_s = max(3 * EDGE_S, min(60.0, minutes * 60))
    for count in (1, CONVERSATIONS):
        result = await asyncio.create_task(bare(count, short_s))
        name = f"{count} bare timer{'s' * (count > 1)}"
        print(row(f"{name}: late", result.late_ms()))
        print(row(f"{name}: late, ours", result.ours_ms(), not_ours(result.gaps)), flush=True)
    for name, count, seconds, stereo in [
        ("1 conversation, mono", 1, max(3 * EDGE_S, minutes * 60), False),
        ("1 conversation, stereo", 1, short_s, True),
        (f"{CONVERSATIONS} conversations, mono", CONVERSATIONS, short_s, False),
        (f"{CONVERSATIONS} conversations, stereo", CONVERSATIONS, short_s, True),
    ]:
        result = await speak(pairs, count, seconds, stereo=stereo, lead_ms=lead_ms)
        late = result.late_ms()
        # What is measured of WebRTC is the wire, on which nothing is ahead of its time.
        ahead_ms = 0 if pairs is over_webrtc else lead_ms
        ours = result.ours_ms()
        underruns, our_underruns = (sum(value > CHUNK_MS + ahead_ms for value in values) for values in (late, ours))
        print(row(f"{name}: late", late, f"underruns {underruns}"))
        rest = f"drift {result.drift_ms():.3f} ms, underruns {our_underruns}; {not_ours(result.gaps)}"
        print(row(f"{name}: late, ours", ours, rest))
        print(row(f"{name}: off 20 ms", result.jitter_ms()), flush=True)
    for count in (1, CONVERSATIONS):
        result = await speak(pairs, count, 3 * EDGE_S, stereo=False, lead_ms=lead_ms, stalls=STALLS)
        name = f"{count} conversation{'s' * (count > 1)}: a stall of {STALL_MS} ms caught up after"
        print(row(name, result.recovered_ms()), flush=True)


def main() -> None:
    """Read the arguments."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0, help="of the long conversation (10)")
    parser.add_argument("--transport", choices=["memory", "webrtc"], default="memory")
    parser.add_argument("--lead-ms", type=float, help="of the transport (memory: 0, webrtc: 40)")
    parser.add_argument("--callers", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.callers:
        asyncio.run(callers(*arguments.callers))
        return
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {CORE})
    webrtc = arguments.transport == "webrtc"
    lead_ms = arguments.lead_ms if arguments.lead_ms is not None else (40.0 if webrtc else 0.0)
    asyncio.run(measure(over_webrtc if webrtc else in_memory, arguments.minutes, lead_ms))


if __name__ == "__main__":
    main()

# pyright: basic
"""How many calls one core holds: real WebRTC calls, beside bare aiortc and the peer.

    .venv/bin/python benchmarks/calls.py --quick      # a look: one round, short probes, about 5 minutes
    .venv/bin/python benchmarks/calls.py              # 2 rounds, about 20 minutes; writes RESULTS-transports.md

A server of each side runs on one core, the callers on another. Every call has Opus both ways over UDP on the loopback
interface; the caller speaks (sentences with pauses), a voice activity model hears each call, and the bot speaks all
the time. Calls are added until the packets of the bot come late: the 99th percentile of lateness above 20 ms, or one
packet in a hundred missing or silent. Lateness is a packet's arrival against its RTP timestamp, the earliest packet of
its call as zero.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import soundfile
from measure import pin, processor_ticks
from peer_env import PINS_CALLS, WHERE_CALLS, peer_python

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "bench"
VOICE = BUILD / "calls-voice.npy"
BOUND_MS = 20.0
LOST = 0.01
DISTURBED = 0.04
"""Share of the server's core that other programs may have had in a probe that failed."""
PATIENCE = 8
"""So many probes of one number of calls, then even the disturbed ones count, and the result says so."""
SILENT_BYTES = 14
"""A smaller packet has no speech in it: the voice has noise in its pauses, which takes more."""


@dataclass(frozen=True)
class Row:
    """One side in one configuration."""

    label: str
    side: str
    config: str
    start: int
    """So many calls to begin with."""
    peer: bool = False


ROWS = (
    Row("bare aiortc", "bare", "stereo", 10),
    Row("bare aiortc, mono 32 kbit/s", "bare", "mono", 14),
    Row("pipecat leanest", "peer", "leanest", 6, peer=True),
    Row("pipecat leanest, mono 32 kbit/s", "peer", "mono", 8, peer=True),
    Row("pipecat as documented", "peer", "documented", 6, peer=True),
    Row("voxline", "ours", "default", 16),
    Row("voxline, shared model", "ours", "shared", 16),
    Row("voxline, stereo 96 kbit/s", "ours", "stereo", 12),
)


@dataclass
class Plan:
    """How a measurement goes."""

    side: str
    config: str
    python: str
    server_core: int
    caller_core: int
    start: int = 8
    window_s: float = 4.0
    settle_s: float = 1.0
    most: int = 120


# --- what is said -----------------------------------------------------------------------------------------------------


def spoken() -> tuple[Any, int]:
    """The recorded sentences, one voice."""
    samples, rate = soundfile.read(HERE / "speech" / "kal16.ogg", dtype="int16")
    return samples, rate


def make_voice() -> None:
    """The bot's: 24 kHz mono, the sentences with hardly a pause, and noise that keeps packets from being empty."""
    from av import AudioFrame, AudioResampler

    samples, rate = spoken()
    frame = AudioFrame.from_ndarray(samples[: 40 * rate][None, :], layout="mono")
    frame.sample_rate = rate
    resampler = AudioResampler("s16", "mono", 24_000)
    parts = [np.frombuffer(bytes(made.planes[0])[: made.samples * 2], np.int16) for made in resampler.resample(frame)]
    voice = np.concatenate(parts).astype(np.float64)
    voice = 3 * voice + np.random.default_rng(1).normal(0, 300, len(voice))
    VOICE.parent.mkdir(parents=True, exist_ok=True)
    np.save(VOICE, np.clip(voice, -32768, 32767).astype(np.int16))


def make_packets() -> list[bytes]:
    """The callers': each sentence, then 0.9 s of a quiet room; Opus, mono, 32 kbit/s, as a browser sends it."""
    from av import AudioFrame, AudioResampler, CodecContext

    samples, rate = spoken()
    index = json.loads((HERE / "speech" / "speech.json").read_text(encoding="utf-8"))["kal16"]
    noise = np.random.default_rng(2)
    parts: list[Any] = []
    for sentence in index[:12]:
        said = samples[sentence["start_ms"] * rate // 1000 : sentence["end_ms"] * rate // 1000]
        parts += [2 * said.astype(np.float64), np.zeros(rate * 9 // 10)]
    whole = np.concatenate(parts)
    whole = np.clip(whole + noise.normal(0, 20, len(whole)), -32768, 32767).astype(np.int16)
    codec = CodecContext.create("libopus", "w")
    codec.bit_rate, codec.format, codec.layout, codec.sample_rate = 32_000, "s16", "mono", 48_000
    codec.options = {"application": "voip"}
    resampler = AudioResampler("s16", "mono", 48_000, frame_size=960)
    frame = AudioFrame.from_ndarray(whole[None, :], layout="mono")
    frame.sample_rate = rate
    return [bytes(packet) for made in resampler.resample(frame) for packet in codec.encode(made)]


# --- one measurement, in a process of its own -------------------------------------------------------------------------


@dataclass
class Exchange:
    """The server's process."""

    plan: Plan
    process: Any = None
    version: str = ""
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    async def start(self) -> None:
        """Run it on its core."""
        plan = self.plan
        command = ("-m", "calls_sides.server", plan.side, plan.config, str(plan.server_core), str(VOICE))
        self.process = await asyncio.create_subprocess_exec(
            plan.python, *command, cwd=HERE, stdin=subprocess.PIPE, stdout=subprocess.PIPE, limit=1 << 20
        )
        self.version = (await self._line())["version"]

    async def _line(self) -> dict[str, Any]:
        while line := await self.process.stdout.readline():
            if line.startswith(b"{"):
                return json.loads(line)
        raise RuntimeError("the server has ended; its own words stand above")

    async def ask(self, **question: Any) -> dict[str, Any]:
        """A question, and its answer."""
        async with self._lock:
            self.process.stdin.write(json.dumps(question).encode() + b"\n")
            return await self._line()

    async def offer(self, sdp: str) -> str:
        """A call."""
        return (await self.ask(offer=sdp))["answer"]

    async def stop(self) -> None:
        """End it."""
        if self.process.returncode is None:
            self.process.kill()
        await self.process.wait()


def busy_s(core: int) -> float:
    """How long a core has been busy with anything (Linux), in s."""
    user, nice, system, _, _, irq, soft, steal = processor_ticks(core)
    return (user + nice + system + irq + soft + steal) / os.sysconf("SC_CLK_TCK")


async def probe(board: Any, exchange: Exchange, seconds: float) -> dict[str, Any]:
    """Listen for so long."""
    before, since = await exchange.ask(), time.time_ns()
    cpu, busy = time.process_time_ns(), busy_s(exchange.plan.server_core)
    board.late_ns.clear()
    await asyncio.sleep(seconds)
    until, after = time.time_ns(), await exchange.ask()
    await asyncio.sleep(0.05)  # for what the kernel has stamped already
    said = board.heard(since, until, SILENT_BYTES)
    wall = after["wall_ns"] - before["wall_ns"]
    said["calls"] = len(board.calls)
    said["core"] = (after["cpu_ns"] - before["cpu_ns"]) / wall
    said["others"] = max(0.0, (busy_s(exchange.plan.server_core) - busy) * 1e9 / wall - said["core"])
    said["rss"] = after["rss"]
    said["vad_per_call_minute"] = (after["vad_events"] - before["vad_events"]) / len(board.calls) / (wall / 60e9)
    said["caller_core"] = (time.process_time_ns() - cpu) / wall
    said["caller_p99_ms"] = sorted(board.late_ns)[int(0.99 * len(board.late_ns))] / 1e6 if board.late_ns else 0.0
    said["held"] = said["p99_ms"] <= BOUND_MS and said["missing"] + said["holes"] <= LOST
    return said


def verdict(tries: list[dict[str, Any]]) -> bool | None:
    """Decide whether this number of calls is held: by the first probe, or by two of three; None while undecided.

    Failed probes in which another process used the server's core do not count, up to a limit.
    """
    fair = [said for said in tries if said["held"] or said["others"] <= DISTURBED] if len(tries) < PATIENCE else tries
    held, failed = sum(said["held"] for said in fair), sum(not said["held"] for said in fair)
    if (tries and tries[0]["held"]) or held >= 2:
        return True
    return False if failed >= 2 else None


async def one(plan: Plan) -> None:
    """Add calls until they are late; a line for each probe, the last one is the result."""
    from calls_sides.callers import Switchboard, bypass_media

    pin(plan.caller_core)
    bypass_media()
    exchange, board = Exchange(plan), Switchboard(make_packets())
    await exchange.start()
    best: dict[str, Any] | None = None
    target, disturbed = plan.start, False
    try:
        while target <= plan.most:
            while len(board.calls) < target:
                await board.add(exchange.offer)
            await asyncio.sleep(plan.settle_s)
            tries: list[dict[str, Any]] = []
            while verdict(tries) is None:
                tries.append(await probe(board, exchange, plan.window_s))
                print(json.dumps({"probe": tries[-1]}), flush=True)
            if not verdict(tries):
                disturbed = len(tries) >= PATIENCE
                break
            best = min((said for said in tries if said["held"]), key=lambda said: said["p99_ms"])
            busy = best["core"]
            target += 4 if busy < 0.5 else 2 if busy < 0.75 else 1
    finally:
        await exchange.stop()
    print(json.dumps({"result": best, "version": exchange.version, "disturbed": disturbed}), flush=True)
    os._exit(0)  # nobody is left to hang up to


# --- all of them ------------------------------------------------------------------------------------------------------


def line_of(said: dict[str, Any]) -> str:
    """A probe in a line."""
    return (
        f"    {said['calls']:3d} calls: p99 {said['p99_ms']:6.1f} ms, missing {said['missing']:.2%}, silent "
        f"{said['holes']:.2%}, server {said['core']:.0%} (others {said['others']:.0%}), callers "
        f"{said['caller_core']:.0%} (p99 {said['caller_p99_ms']:.1f} ms){'' if said['held'] else '  - too late'}"
    )


def measure(plan: Plan) -> dict[str, Any]:
    """One side, in a process of its own; starts lower where even the start was too much."""
    while True:
        command = [sys.executable, __file__, "--one", json.dumps(asdict(plan))]
        result: dict[str, Any] | None = None
        with subprocess.Popen(command, cwd=HERE, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout is not None
            for line in process.stdout:
                said = json.loads(line) if line.startswith("{") else {}
                if "probe" in said:
                    print(line_of(said["probe"]), flush=True)
                elif "result" in said:
                    result = said
        if result is None:
            raise SystemExit(f"{plan.side} ({plan.config}) did not come to an end; its own words stand above.")
        if result["result"] is not None or plan.start == 1:
            return {
                **(result["result"] or {"calls": 0}),
                "version": result["version"],
                "disturbed": result["disturbed"],
            }
        plan.start = max(1, plan.start // 2)


def spread(values: list[float], form: str = "{:.0f}") -> str:
    """Median, and the extremes where they differ."""
    middle, low, high = (form.format(f(values)) for f in (statistics.median, min, max))
    return middle if low == high else f"{middle} ({low} to {high})"


def table(results: dict[str, list[dict[str, Any]]]) -> str:
    """Format the results."""
    lines = [
        "| side | calls held | p99 late at that, ms | CPU per call, % of a core | RSS, MB | kbit/s | Opus |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for label, rounds in results.items():
        rounds = [said for said in rounds if said["calls"]]
        if not rounds:
            lines.append(f"| {label} | 0 | | | | | |")
            continue
        mark = " (disturbed: may hold more)" if any(said["disturbed"] for said in rounds) else ""
        lines.append(
            f"| {label}{mark} | {spread([said['calls'] for said in rounds])} "
            f"| {spread([said['p99_ms'] for said in rounds], '{:.1f}')} "
            f"| {spread([100 * said['core'] / said['calls'] for said in rounds], '{:.2f}')} "
            f"| {spread([said['rss'] / 1e6 for said in rounds])} "
            f"| {spread([said['kbit_s'] for said in rounds])} | {rounds[0]['encoding']} |"
        )
    return "\n".join(lines)


def report(results: dict[str, list[dict[str, Any]]], rounds: int, window_s: float) -> str:
    """The section of RESULTS-transports.md."""
    versions = sorted({said["version"] for kept in results.values() for said in kept if said.get("version")})
    pages = [
        "## Calls one core holds",
        "",
        (__doc__ or "").split("\n\n", 2)[2].strip(),
        "",
        f"Medians of {rounds} rounds (in brackets the extremes), the sides one after another in each; {window_s:g} s "
        f"for each number of calls. Server on one core, callers on another. {'; '.join(versions)}.",
        "",
        table(results),
        "",
        "The same voice speaks on every side (24 kHz mono). What its packets are stands on the right, as seen on the "
        "wire: rows named *mono* have our transport's bit rate and complexity, *voxline, stereo* has aiortc's. "
        "A voice activity model hears every call: Silero's, one for each call (*shared model*: one session of "
        "onnxruntime for all of them); the peer's is its own analyzer, which adds a measure of loudness and a thread "
        "for each call. Neither the peer nor ours has context aggregators, a recogniser or a language model here.",
    ]
    return "\n".join(pages) + "\n"


def write(section: str) -> None:
    """Put the section into the page, in place of the one that stands there."""
    page = HERE / "RESULTS-transports.md"
    text = page.read_text(encoding="utf-8") if page.exists() else "# Transports, measured\n"
    title = section.split("\n", 1)[0]
    before, found, rest = text.partition(title)
    if found:
        at = rest.find("\n## ")
        text = before.rstrip("\n") + "\n\n" + section + (rest[at:] if at >= 0 else "")
    else:
        text = text.rstrip("\n") + "\n\n" + section
    page.write_text(text, encoding="utf-8")


def main() -> None:
    """All rows, round by round."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one round, short probes; writes no page")
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--only", help="rows whose label contains this; writes no page")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        asyncio.run(one(Plan(**json.loads(options.one))))
        return
    rows = [row for row in ROWS if not (options.no_peer and row.peer) and (options.only or "") in row.label]
    python = str(peer_python(WHERE_CALLS, PINS_CALLS)) if any(row.peer for row in rows) else ""
    cores = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else [0, 1]
    rounds, window_s = (1, 2.5) if options.quick else (options.rounds, 4.0)
    make_voice()
    results: dict[str, list[dict[str, Any]]] = {row.label: [] for row in rows}
    minutes = len(rows) * (0.7 if options.quick else 1.2)
    print(f"{rounds} round(s) of {len(rows)} rows, about {minutes:.0f} minutes each", flush=True)
    began = time.monotonic()
    for number in range(rounds):
        for row in rows if number % 2 == 0 else rows[::-1]:
            print(f"[{(time.monotonic() - began) / 60:4.1f} min] round {number + 1}: {row.label}", flush=True)
            known = [said["calls"] for said in results[row.label]]
            plan = Plan(row.side, row.config, python if row.peer else sys.executable, cores[0], cores[-1])
            plan.window_s = window_s
            plan.start = max(2, int(statistics.median(known) * 0.7)) if known else row.start
            results[row.label].append(measure(plan))
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "calls.json").write_text(json.dumps(results, indent=1), encoding="utf-8")
    print(table(results))
    if not options.quick and not options.only:
        write(report(results, rounds, window_s))


if __name__ == "__main__":
    main()

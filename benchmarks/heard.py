# pyright: basic
"""Measures the sound of a real page: headless Chromium, WebRTC, speech recognition, rules and a voice, all offline.

    .venv/bin/python benchmarks/heard.py --quick     # 5 turns and 6 interruptions, once: a minute
    .venv/bin/python benchmarks/heard.py             # 16 and 20 of each kind: an hour at most; writes results

The page records its microphone and the bot as two channels of one recording, in which everything is located: the
begin and end of sound by loudness, its content by correlation. Needs Chromium and flite, and the extras `webrtc` and
`speech`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import re
import statistics
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

import numpy as np
from calls import BUILD, make_voice, write
from heard_beside import SIDES, beside
from heard_bot import Bot, Response
from heard_call import compose
from heard_calm import BEFORE_S, ENOUGH, GAP_MS, INTERRUPTIONS, KEPT, MOST, SHARE, TURNS, Calm, collect
from heard_recording import Recording, Script, record
from heard_signal import COARSE, RATE, first_sound, locate, silence_from, to_rate
from voxline.pipeline import (
    BotStartedSpeakingFrame,
    ResponseCutFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)

SURE_MS = 20
"""So close to the cut, nobody can hear whether a word has begun."""
QUIET_MS = 600
"""So long a silence is an end: longer than any pause in the long answers, shorter than what the caller says."""


@dataclass(frozen=True)
class Arrangement:
    """One run."""

    label: str
    settings: dict[str, Any] = field(default_factory=dict)
    stop_ms: float = 500
    words: bool = True
    processing: bool = False
    """The browser's echo canceller, noise suppression and gain control."""
    target_ms: float | None = None
    """The page's `jitterBufferTarget`."""
    lead_ms: float | None = None


AT_ONCE = {"endpointing": {"min_delay_ms": 0}}
RUNS = (
    Arrangement("turn over with the detector, stop 200 ms; echo canceller off", AT_ONCE, stop_ms=200),
    Arrangement("defaults, echo canceller on", processing=True),
    Arrangement("defaults, echo canceller off, a voice without word times", words=False),
)


async def call(arrangement: Arrangement, script: Script) -> dict[str, Any]:
    """One call, and what was heard in it."""
    bot = Bot(arrangement.settings, stop_ms=arrangement.stop_ms, words=arrangement.words, lead_ms=arrangement.lead_ms)
    async with bot:
        recording = await record(
            script,
            bot.transport.answer,
            bot.go_long,
            processing=arrangement.processing,
            target_ms=arrangement.target_ms,
        )
    return Heard(arrangement, recording, bot).figures()


# --- what was heard ---------------------------------------------------------------------------------------------------


class Heard:
    """The figures of one run."""

    def __init__(self, arrangement: Arrangement, recording: Recording, bot: Bot) -> None:
        self.arrangement = arrangement
        self.recording = recording
        self.bot = bot
        self.facts = bot.log.facts
        self.mask = recording.mask
        self.turns: list[dict[str, float]] = []
        self.cuts: list[dict[str, Any]] = []
        self.missed: list[str] = []
        for number, utterance in enumerate(recording.script.said):
            if utterance.interrupts:
                self._interruption(number, recording.until(number))
            else:
                self._turn(number, recording.until(number))

    def _fact(self, kind: type, after_ms: float, before_ms: float, last: bool = False) -> tuple[float, Any] | None:
        """The first (or last) fact of a kind between two moments of the server's clock."""
        found = [(t / 1e6, frame) for t, frame in self.facts if isinstance(frame, kind)]
        found = [one for one in found if after_ms <= one[0] < before_ms]
        return None if not found else found[-1 if last else 0]

    def _turn(self, number: int, until: int) -> None:
        clock = self.recording.clock
        begin, end = self.recording.spans[number]
        stopped = self._fact(UserStoppedSpeakingFrame, clock.ms(begin), clock.ms(until), last=True)
        if stopped is None:
            self.missed.append(f"turn {number}: no end of speech found")
            return
        at_ms = stopped[0]
        onset = first_sound(self.mask, clock.sample(at_ms), until)
        if onset is None:
            self.missed.append(f"turn {number}: no answer heard")
            return
        words = self._fact(TranscriptionFrame, at_ms, clock.ms(until))
        response = self._fact(BotStartedSpeakingFrame, at_ms, clock.ms(until))
        sent = next((t / 1e6 for t in self.bot.log.sent_ns if t / 1e6 >= at_ms), None)
        if words is None or response is None or sent is None:
            self.missed.append(f"turn {number}: no words or no answer at the server")
            return
        made = self.bot.log.responses[response[1].response]
        lead = np.flatnonzero(np.abs(made.audio[0]) > 104)
        onset_ms = clock.ms(onset)
        self.turns.append(
            {
                "sure": not clock.stumbles(begin, onset),
                "from_ms": clock.ms(end),
                "until_ms": onset_ms,
                "heard": onset_ms - at_ms,
                "from_last_sample": onset_ms - clock.ms(end),
                "detector": at_ms - clock.ms(end),
                "transcript": words[0] - at_ms,
                "reply": made.text_ns / 1e6 - words[0],
                "voice": (made.audio_ns - made.text_ns) / 1e6,
                "sent": sent - made.audio_ns / 1e6,
                "line_and_page": onset_ms - sent,
                "quiet_in_front": float(lead[0]) / made.rate * 1e3 if len(lead) else 0.0,
            }
        )

    def _interruption(self, number: int, until: int) -> None:
        clock = self.recording.clock
        begin, end = self.recording.spans[number]
        begin_ms = clock.ms(begin)
        if not self.recording.speaks_at(begin):
            self.missed.append(f"interruption {number}: the bot was not speaking")
            return
        started = self._fact(UserStartedSpeakingFrame, begin_ms, clock.ms(end) + 1_000)
        cut = self._cut_between(begin_ms, clock.ms(end) + 2_500)
        silent = silence_from(self.mask, begin, QUIET_MS, until)
        if started is None or cut is None or silent is None:
            self.missed.append(f"interruption {number} ({self.recording.script.said[number].text}): not interrupted")
            return
        again = self._fact(BotStartedSpeakingFrame, clock.ms(silent) + 100, clock.ms(until))
        stale_until = clock.sample(again[0]) if again is not None else until
        stale = int(self.mask[(silent + 240) // 240 : stale_until // 240].sum()) * 5
        self.cuts.append(
            {
                "sure": not clock.stumbles(begin, silent),
                "from_ms": begin_ms,
                "until_ms": clock.ms(silent),
                "onset_to_silence": clock.ms(silent) - begin_ms,
                "detected_to_silence": clock.ms(silent) - started[0],
                "detector": started[0] - begin_ms,
                "stale_ms": stale,
                **self._words(cut, silent),
            }
        )

    def _cut_between(self, after_ms: float, before_ms: float) -> int | None:
        found = self._fact(ResponseCutFrame, after_ms, before_ms)
        return None if found is None else found[1].response

    def _words(self, response: int, silent: int) -> dict[str, Any]:
        """Compare the session's record of a cut response with the page's recording."""
        made: Response = self.bot.log.responses[response]
        audio = to_rate(np.concatenate(made.audio), made.rate, RATE // COARSE).astype(np.float64)
        alike, position_ms = self._position(audio, silent // COARSE)
        remembered = re.findall(r"[\w']+", self.bot.said(response))
        counts = [self._begun(made, position_ms + by) for by in (0, -SURE_MS, SURE_MS)]
        nearest = min((abs(start - position_ms) for start, _ in made.words), default=0.0)
        wanted = counts[0]
        return {
            "as_good_as": remembered in counts,
            "alike": alike,
            "page_ms": position_ms,
            "ledger_ms": made.cut.heard_ms if made.cut else 0.0,
            "words": len(wanted),
            "remembered": len(remembered),
            "exact": remembered == wanted,
            "nearest_boundary_ms": nearest,
        }

    def _position(self, audio: Any, end: int) -> tuple[float, float]:
        """How far into a response's audio the page came: how sure that is, and in ms.

        By its last 400 ms, or less, where the page's buffer has stretched them.
        """
        per_ms = RATE // COARSE // 1000
        piece = self.recording.bot_coarse[max(0, end - 400 * per_ms) : end]
        at, best = locate(piece, audio)
        until = at + len(piece)
        for shorter_ms in (250, 150):
            part = piece[-shorter_ms * per_ms :]
            low = max(0, until - len(part) - 150 * per_ms)
            at, alike = locate(part, audio[low : until + 150 * per_ms])
            if alike > best + 0.03:
                best, until = alike, low + at + len(part)
        return best, until / per_ms

    @staticmethod
    def _begun(made: Response, position_ms: float) -> list[str]:
        """The words that have begun by then."""
        return re.findall(r"[\w']+", " ".join(word for start, word in made.words if start < position_ms))

    # --- figures ------------------------------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """All of it, for JSON."""
        return {
            "label": self.arrangement.label,
            "turns": self.turns,
            "cuts": self.cuts,
            "missed": self.missed,
            "page": self.recording.delay_ms(),
            "clock_uncertain_ms": self.recording.clock.uncertain_ms,
            "clock_drift_ms": self.recording.clock.drift_ms,
            "interruptions": sum(utterance.interrupts for utterance in self.recording.script.said),
        }


def spread(values: list[float]) -> str:
    """Median, 90th percentile and worst."""
    if not values:
        return "-"
    ordered = sorted(values)
    return f"{statistics.median(ordered):.0f} / {ordered[int(0.9 * (len(ordered) - 1))]:.0f} / {ordered[-1]:.0f}"


def row(figures: dict[str, Any]) -> list[tuple[str, str]]:
    """Return a run's headings and values."""
    turns = [turn for turn in figures["turns"] if turn["sure"]]
    sure = [cut for cut in figures["cuts"] if cut["sure"]]
    cuts = figures["cuts"]
    steps = ("detector", "transcript", "reply", "voice", "sent", "line_and_page")
    return [
        ("end of speech known to bot heard, ms", spread([turn["heard"] for turn in turns])),
        ("last sample of speech to bot heard, ms", spread([turn["from_last_sample"] for turn in turns])),
        ("onset of an interruption to silence, ms", spread([cut["onset_to_silence"] for cut in sure])),
        ("detected to silence, ms", spread([cut["detected_to_silence"] for cut in sure])),
        (
            "turns and interruptions timed (not where the host or the page stood still)",
            f"{share_of(figures['turns'], 'sure')}, {share_of(cuts, 'sure')}",
        ),
        ("interrupted", f"{len(cuts)} of {figures['interruptions']}"),
        ("audio of the cut response after that, ms", f"{sum(cut['stale_ms'] for cut in cuts)}"),
        ("history exact to the word; of those timed", f"{share_of(cuts, 'exact')}; {share_of(sure, 'exact')}"),
        (
            f"or off by a word that begins within {SURE_MS} ms of the cut",
            f"{share_of(cuts, 'as_good_as')}; {share_of(sure, 'as_good_as')}",
        ),
        ("words off, at most", f"{max((abs(cut['words'] - cut['remembered']) for cut in cuts), default=0)}"),
        (
            "steps of a turn, medians, ms: " + ", ".join(steps),
            ", ".join(f"{statistics.median([turn[step] for turn in turns]):.0f}" for step in steps) if turns else "-",
        ),
        (
            "page's buffer: mean delay, target, ms",
            f"{figures['page']['buffer']:.0f}, {figures['page']['target']:.0f}",
        ),
        ("calls", str(figures.get("calls", 1))),
    ]


def share_of(events: list[dict[str, Any]], what: str) -> str:
    """Format the share of events with a property."""
    return f"{sum(event[what] for event in events)} of {len(events)}"


def show(figures: dict[str, Any]) -> None:
    """A run, in lines."""
    print(f"  {figures['label']}")
    for heading, value in row(figures):
        print(f"    {heading:45} {value}")
    for missed in figures["missed"]:
        print(f"    MISSED {missed}")
    for cut in figures["cuts"]:
        if not cut["exact"]:
            print(f"    HISTORY {cut}")


def table(columns: dict[str, list[tuple[str, str]]]) -> list[str]:
    """A column for each run, a line for each heading."""
    lines = [
        f"| {cells[0][0]} | " + " | ".join(value for _, value in cells) + " |"
        for cells in zip(*columns.values(), strict=True)
    ]
    return ["| | " + " | ".join(columns) + " |", "| --- |" + " --- |" * len(columns), *lines]


def report(runs: list[dict[str, Any]]) -> str:
    """The section of RESULTS-transports.md."""
    lines = [
        "## Heard in a page",
        "",
        "Real headless Chromium, on the machine of the bot. The page records its microphone and the bot's track as two "
        "channels of one recording (before its sound card). Offline parts: SileroVAD, PocketSphinx, rules, eSpeak NG. "
        "Median / 90th percentile / worst. A voice is *heard* from the first 5 ms above -50 dBFS on. Short calls; "
        f"*timed* are those turns and interruptions in which (and {BEFORE_S} s before) the machine was ours: "
        f"no gap of more than {GAP_MS} ms on a core (`gaps.py`), and all together {SHARE:.0%} of the time at most. "
        "The history is compared in all calls in which anything was timed.",
        "",
        *table({figures["label"]: row(figures) for figures in runs}),
    ]
    return "\n".join(lines) + "\n"


def report_beside(sides: list[dict[str, Any]]) -> str:
    """And of the transports alone."""
    lines = [
        "## Heard in a page, the transport alone, beside the peer",
        "",
        "A bot that answers with recorded speech as soon as its detector (Silero, start and stop after 200 ms) says "
        "that the user has stopped, and is silent as soon as it says that they speak. Echo canceller off, all else as "
        "above.",
        "",
        *table({side["version"]: beside_row(side) for side in sides}),
    ]
    return "\n".join(lines) + "\n"


def beside_row(side: dict[str, Any]) -> list[tuple[str, str]]:
    """Heading and value."""
    cuts = side["cuts"]
    turns, sure = ([one for one in found if one["sure"]] for found in (side["turns"], cuts))
    return [
        ("last sample of speech to bot heard, ms", spread([turn["from_last_sample"] for turn in turns])),
        ("end of speech known to bot heard, ms", spread([turn["heard"] for turn in turns])),
        ("onset of an interruption to silence, ms", spread([cut["onset_to_silence"] for cut in sure])),
        ("detected to silence, ms", spread([cut["detected_to_silence"] for cut in sure])),
        ("interrupted", f"{len(cuts)} of {len(cuts) + sum('interruption' in missed for missed in side['missed'])}"),
        ("page's buffer: mean delay, target, ms", f"{side['page']['buffer']:.0f}, {side['page']['target']:.0f}"),
        ("turns and interruptions timed", f"{share_of(side['turns'], 'sure')}, {share_of(cuts, 'sure')}"),
        ("calls", str(side["calls"])),
    ]


async def main() -> None:
    """All arrangements."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--quick", action="store_true", help="one call of the first arrangement; writes nothing")
    parser.add_argument("--run", type=int, help="only this arrangement, from 0")
    parser.add_argument("--beside", action="store_true", help="only the transports alone, beside the peer")
    parser.add_argument("--no-peer", action="store_true")
    parser.add_argument("--minutes", type=float, default=60.0, help="in all, with waiting for the machine to be ours")
    parser.add_argument("--resume", action="store_true", help="with the calls of the run before")
    parser.add_argument("--target-ms", type=float, help="the page's jitterBufferTarget")
    parser.add_argument("--lead-ms", type=float, help="the transport's")
    options = parser.parse_args()
    changed = {"target_ms": options.target_ms, "lead_ms": options.lead_ms}
    changed = {name: value for name, value in changed.items() if value is not None}
    runs = () if options.beside else RUNS if options.run is None else RUNS[options.run : options.run + 1]
    if options.quick:
        show(await call(replace(RUNS[0], **changed), Script(*compose(TURNS, INTERRUPTIONS))))
        return
    everything = options.run is None and not options.beside
    sides = [] if options.no_peer or not (everything or options.beside) else list(SIDES)
    kinds = len(runs) + len(sides)
    print(f"{kinds} kinds of calls, each until {ENOUGH} are timed, {MOST} calls at most; 1.3 minutes each", flush=True)
    if not options.resume:
        KEPT.unlink(missing_ok=True)
    if sides:
        make_voice()
    calls = {one.label: partial(call, replace(one, **changed)) for one in runs}
    heard = await collect({**calls, **{label: partial(beside, label) for label in sides}}, Calm(options.minutes))
    done = [heard[label] for label in calls]
    compared = [heard[label] for label in sides]
    for figures in done:
        show(figures)
    for side in compared:
        print(f"  the transport alone: {side['version']}")
        for heading, value in beside_row(side):
            print(f"    {heading:45} {value}")
        print("".join(f"    MISSED {missed}\n" for missed in side["missed"]), end="", flush=True)
    BUILD.mkdir(parents=True, exist_ok=True)
    (BUILD / "heard.json").write_text(json.dumps({"calls": done, "beside": compared}, indent=1), encoding="utf-8")
    if everything:
        write(report(done))
        if compared:
            write(report_beside(compared))


if __name__ == "__main__":
    asyncio.run(main())

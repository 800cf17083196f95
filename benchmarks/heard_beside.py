# pyright: basic
"""The transport alone, in a page, beside the peer's: a bot that answers as soon as its detector says that the user has
stopped, with recorded speech, and is silent as soon as it says that they speak. No recognition, no model, no voice.
"""

from __future__ import annotations

import sys
from typing import Any

from calls import Exchange, Plan
from heard_recording import Recording, Script, record
from heard_signal import RATE, first_sound, silence_from
from peer_env import PINS_CALLS, WHERE_CALLS, peer_python

QUIET_MS = 400
"""The recorded speech has no pause as long."""
SIDES = {"voxline": "ours", "pipecat": "peer"}


async def beside(label: str, script: Script) -> dict[str, Any]:
    """One side."""
    side = SIDES[label]
    python = str(peer_python(WHERE_CALLS, PINS_CALLS)) if side == "peer" else sys.executable
    exchange = Exchange(Plan(side, "answers", python, -1, -1))
    await exchange.start()
    try:

        async def go_long() -> None:
            await exchange.ask(long=True)

        recording = await record(script, exchange.offer, go_long, processing=False, target_ms=None)
        facts = [(t / 1e6, kind) for t, kind in (await exchange.ask(facts=True))["facts"]]
    finally:
        await exchange.stop()
    return {"label": label, "version": exchange.version, **found(recording, facts), "page": recording.delay_ms()}


def found(recording: Recording, facts: list[tuple[float, str]]) -> dict[str, Any]:
    """Collect the heard events: from the page, except the detector's decisions."""
    clock, mask = recording.clock, recording.mask
    turns: list[dict[str, float]] = []
    cuts: list[dict[str, float]] = []
    missed: list[str] = []
    for number, utterance in enumerate(recording.script.said):
        begin, end = recording.spans[number]
        until = recording.until(number)
        if not utterance.interrupts:
            stopped = [t for t, kind in facts if kind == "stopped" and clock.ms(begin) < t < clock.ms(until)]
            onset = None if not stopped else first_sound(mask, clock.sample(stopped[-1]), until)
            if onset is None:
                missed.append(f"turn {number}: no answer")
                continue
            heard_ms = clock.ms(onset)
            turns.append(
                {
                    "sure": not clock.stumbles(begin, onset),
                    "from_ms": clock.ms(end),
                    "until_ms": heard_ms,
                    "heard": heard_ms - stopped[-1],
                    "from_last_sample": heard_ms - clock.ms(end),
                }
            )
        elif recording.speaks_at(begin):
            started = [t for t, kind in facts if kind == "started" and clock.ms(begin) < t < clock.ms(end) + 300]
            silent = silence_from(mask, begin, QUIET_MS, until)
            if not started or silent is None or silent > end + RATE // 2:
                missed.append(f"interruption {number} ({utterance.text}): the bot went on")
                continue
            silent_ms = clock.ms(silent)
            cuts.append(
                {
                    "sure": not clock.stumbles(begin, silent),
                    "from_ms": clock.ms(begin),
                    "until_ms": silent_ms,
                    "onset_to_silence": silent_ms - clock.ms(begin),
                    "detected_to_silence": silent_ms - started[0],
                }
            )
        else:
            missed.append(f"interruption {number}: the bot was not speaking")
    return {"turns": turns, "cuts": cuts, "missed": missed}

"""The rules of a transport's contract, one function each. Each has a call of its own, and returns figures."""

from __future__ import annotations

import itertools
import tracemalloc
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...pipeline.clock import NS_PER_MS
from ...pipeline.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    InputAudioFrame,
    ResponseCutFrame,
    ResponsePlayedFrame,
    Samples,
)
from ..transport_api import CHUNK_MS, CHUNK_NS
from .call import ContractCall, RuleBroken, expect
from .sound import TONE_MS, Take, pitches_in, tones

STALL_MS = 130
CUT_MS = 505
"""Not at the border of a chunk."""
CODEC_MS = 40
"""A tone's edges are that unsure after a codec."""
SLOW_RESPONSES = 15
SLOW_BYTES = 5 << 20
PIECES_MS = (20, 7.3, 33, 0.1, 100, 1, 61.7, 20, 20, 250)
"""Lengths of the chunks in which the user's audio arrives, in ms."""


Checker = Callable[[ContractCall], Coroutine[Any, Any, str]]


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule: what it says, and what finds out."""

    text: str
    check: Checker


RULES: list[Rule] = []


def rule(text: str) -> Callable[[Checker], Checker]:
    """Declare a rule."""

    def add(check: Checker) -> Checker:
        RULES.append(Rule(text, check))
        return check

    return add


def _tolerance_ms(call: ContractCall) -> float:
    """How much a length may be off."""
    return 0.0 if call.peer.exact else call.peer.late_ms + CODEC_MS


def _sound(call: ContractCall, ms: float, *, first: int = 0) -> Samples:
    return tones(ms, call.transport.output_rate, first=first)


async def _heard_out(call: ContractCall, ms: float) -> None:
    """Wait until what was said has been heard."""
    await call.wait(ms + call.peer.late_ms + 100)


def _same(call: ContractCall, take: Take, sound: Samples, what: str) -> None:
    """Fail unless exactly this was heard."""
    sound_ms = len(sound) * 1000 / call.transport.output_rate
    expect(take.ms > 0, f"{what}, {sound_ms:g} ms", "silence")
    off_ms = abs(take.ms - sound_ms)
    expect(off_ms <= _tolerance_ms(call), f"{what}, {sound_ms:g} ms", f"{take.ms:g} ms")
    if call.peer.exact and take.rate == call.transport.output_rate:
        wrong = np.flatnonzero(take.sound != sound)
        at = 0 if not len(wrong) else wrong[0] * 1000 / take.rate
        expect(not len(wrong), f"{what}, each sample as it was sent", f"others from {at:g} ms on")
    wanted = pitches_in(sound, call.transport.output_rate)
    expect(take.pitches == wanted, f"{what}: tones of {wanted} Hz", f"{take.pitches}")


# --- what the bot says --------------------------------------------------------------------------------------------


@rule("what the bot says is heard: all of it, in order, once")
async def _order(call: ContractCall) -> str:
    sound, more = _sound(call, 1_430), _sound(call, 600, first=3)
    call.speak(sound)
    await _heard_out(call, 1_440)
    call.speak(more, response=2)
    await _heard_out(call, 600)
    _same(call, await call.end(), np.concatenate([sound, more]), "two responses")
    return "2030 ms"


@rule("20 ms are heard each 20 ms, from the first on: no drift, no hole, no burst")
async def _pace(call: ContractCall) -> str:
    await call.wait(100)
    began_ns, ms = call.now_ns, 50_000 if call.peer.exact else 4_000
    call.speak(_sound(call, ms))
    await _heard_out(call, ms)
    take = await call.end()
    late_ms = call.peer.late_ms
    first_ms = (take.begun_ns - began_ns) / NS_PER_MS
    expect(
        -1 <= first_ms <= CHUNK_MS + late_ms, f"the first sound within {CHUNK_MS + late_ms:g} ms", f"{first_ms:g} ms"
    )
    worst_ms = max((abs(late) for _, late in take.lateness_ms()), default=0.0)
    expect(
        worst_ms <= late_ms, f"each piece at its time, give or take {late_ms:g} ms", f"one that is {worst_ms:g} ms off"
    )
    expect(take.hole_ms <= late_ms, "no silence in it", f"{take.hole_ms:g} ms")
    return f"first after {first_ms:.1f} ms, worst {worst_ms:.1f} ms off in {ms / 1_000:g} s"


@rule("after a stall of the event loop it is back on its schedule, and nothing is lost")
async def _stall(call: ContractCall) -> str:
    sound = _sound(call, 2_000)
    call.speak(sound)
    await call.wait(CUT_MS)
    stalled_ns = call.now_ns
    await call.stall(STALL_MS)
    back_ns = call.now_ns
    await _heard_out(call, 2_000)
    take = await call.end()
    _same(call, take, sound, "what was said")
    after = [late for at_ns, late in take.lateness_ms() if at_ns > back_ns + call.late_ns + CHUNK_NS]
    worst_ms = max((abs(late) for late in after), default=0.0)
    expect(bool(after), "sound after the stall", "none")
    limit_ms = call.peer.late_ms + (0 if call.peer.catches_up else STALL_MS)
    expect(worst_ms <= limit_ms, f"at most {limit_ms:g} ms off after it", f"{worst_ms:g} ms")
    return f"worst {worst_ms:.1f} ms off after {(back_ns - stalled_ns) / NS_PER_MS:.0f} ms"


# --- interruptions --------------------------------------------------------------------------------------------------


async def _cut(call: ContractCall, ms: float = CUT_MS) -> int:
    """Have it speak, and cut that. Returns when."""
    call.speak(_sound(call, 3_000))
    await call.wait(ms)
    cut_ns = call.now_ns
    call.worker.interrupt()
    return cut_ns


@rule("a cut is silence within one step of 20 ms, and nothing of the response is heard after it")
async def _cut_is_silence(call: ContractCall) -> str:
    cut_ns = await _cut(call)
    call.speak(_sound(call, 400), end=False)
    await call.wait(2_500 + call.peer.late_ms)
    call.speak(_sound(call, 400, first=3), response=2)
    begun_ns = call.now_ns
    await _heard_out(call, 400)
    take = await call.end()
    limit_ns = cut_ns + CHUNK_NS + call.late_ns
    late = [one for one in take.loud if one.at_ns < begun_ns and one.end_ns > limit_ns]
    expect(
        not late,
        f"silence {CHUNK_MS + call.peer.late_ms:g} ms after the cut",
        f"{len(late)} pieces after it, the last {(late[-1].at_ns - cut_ns) / NS_PER_MS if late else 0:g} ms later",
    )
    _same(call, take.since(begun_ns), _sound(call, 400, first=3), "the next response, and nothing of the old one")
    ended_ns = max((one.at_ns for one in take.loud if one.at_ns < begun_ns), default=cut_ns)
    return f"the last piece began {(ended_ns - cut_ns) / NS_PER_MS:.1f} ms after the cut"


@rule("the next response is heard at once after a cut, from its first sample")
async def _next_after_cut(call: ContractCall) -> str:
    cut_ns = await _cut(call)
    sound = _sound(call, 600, first=3)
    call.speak(sound, response=2)
    await _heard_out(call, 620)
    take = (await call.end()).since(cut_ns)
    if call.peer.exact and call.peer.late_ms == 0:
        _same(call, take, sound, "the next response")
    wanted = pitches_in(sound, call.transport.output_rate)
    found = take.pitches[-len(wanted) :]
    expect(found == wanted, f"tones of {wanted} Hz", take.pitches)
    played = call.noted(ResponsePlayedFrame)
    expect([one.response for one in played] == [2], "a record that response 2 was played", played)
    return f"{take.ms:g} ms"


@rule("the record of a cut says what was heard: how much, and which words")
async def _ledger_of_a_cut(call: ContractCall) -> str:
    await _cut(call)
    await call.wait(500 + call.peer.late_ms)
    cuts = call.noted(ResponseCutFrame)
    take = await call.end()
    expect(len(cuts) == 1, "one ResponseCutFrame", f"{len(cuts)}")
    told_ms = cuts[0].heard_ms
    expect(
        abs(take.ms - told_ms) <= _tolerance_ms(call), f"{told_ms:g} ms heard, as the record says", f"{take.ms:g} ms"
    )
    words = [f"w{number}" for number in range(int(told_ms // TONE_MS) + (1 if told_ms % TONE_MS else 0))]
    expect(cuts[0].heard_text.split() == words, f"the words {words}", cuts[0].heard_text)
    return f"{told_ms:g} ms told, {take.ms:g} ms heard"


@rule("the record of a response that was played says so when it is over, and speaking begins and ends with it")
async def _ledger_of_a_response(call: ContractCall) -> str:
    call.speak(_sound(call, 1_000))
    await _heard_out(call, 1_000)
    take, played = await call.end(), call.noted(ResponsePlayedFrame)
    expect([one.heard_ms for one in played] == [1_000.0], "one record of 1000 ms", played)
    expect(abs(take.ms - 1_000) <= _tolerance_ms(call), "1000 ms heard", f"{take.ms:g} ms")
    told = [type(one) for one in call.noted(BotStartedSpeakingFrame) + call.noted(BotStoppedSpeakingFrame)]
    expect(told == [BotStartedSpeakingFrame, BotStoppedSpeakingFrame], "started, and stopped", told)
    for kind, at_ns, what in [
        (BotStartedSpeakingFrame, take.begun_ns, "begins"),
        (BotStoppedSpeakingFrame, take.ended_ns, "ends"),
    ]:
        off_ms = (at_ns - call.noted_at(kind)[0]) / NS_PER_MS
        limit_ms = call.peer.late_ms + (0 if call.peer.exact else CHUNK_MS)
        expect(-CHUNK_MS <= off_ms <= limit_ms + 0.001, f"told when it {what}", f"told {off_ms:g} ms before")
    return f"{take.ms:g} ms"


@rule("a pause is silence within one step, and nothing is lost or played twice by it")
async def _pause(call: ContractCall) -> str:
    sound = _sound(call, 2_000)
    call.speak(sound)
    await call.wait(CUT_MS)
    paused_ns = call.now_ns
    call.pause()
    await call.wait(1_000)
    resumed_ns = call.now_ns
    call.resume()
    await _heard_out(call, 1_600)
    take = await call.end()
    limit_ns = paused_ns + CHUNK_NS + call.late_ns
    late = [one for one in take.loud if one.end_ns > limit_ns and one.at_ns < resumed_ns]
    limit_ms = CHUNK_MS + call.peer.late_ms
    expect(not late, f"silence {limit_ms:g} ms after the pause", f"{len(late)} pieces of sound")
    if call.peer.exact:
        _same(call, take, sound, "all of it")
    else:
        # The tone that was being heard is heard in two parts.
        off_ms = abs(take.ms - 2_000)
        expect(off_ms <= 2 * _tolerance_ms(call), "2000 ms in all", f"{take.ms:g} ms")
        wanted = pitches_in(sound, call.transport.output_rate)
        found = [one for number, one in enumerate(take.pitches) if not number or one != take.pitches[number - 1]]
        expect(found == wanted, f"tones of {wanted} Hz", found)
    told = len(call.noted(BotStartedSpeakingFrame)), len(call.noted(BotStoppedSpeakingFrame))
    expect(told == (2, 2), "started and stopped speaking, twice", told)
    first_ns = min((one.at_ns for one in take.loud if one.at_ns >= resumed_ns), default=0)
    first_ms = (first_ns - resumed_ns) / NS_PER_MS
    expect(0 <= first_ms <= limit_ms, f"sound again within {limit_ms:g} ms", f"{first_ms:g} ms")
    return f"again after {first_ms:.1f} ms"


@rule("a response that is cut in a pause is not heard after it")
async def _cut_in_a_pause(call: ContractCall) -> str:
    call.speak(_sound(call, 2_000))
    await call.wait(CUT_MS)
    call.pause()
    await call.wait(300 + call.peer.late_ms)
    call.worker.interrupt()
    await call.wait(20)
    call.resume()
    call.speak(_sound(call, 400, first=3), response=2)
    begun_ns = call.now_ns
    await _heard_out(call, 400)
    take = await call.end()
    _same(call, take.since(begun_ns), _sound(call, 400, first=3), "the next response, and nothing of the old one")
    return f"{take.ms:g} ms in all"


# --- what the user says ---------------------------------------------------------------------------------------------


async def say(call: ContractCall, rate: int) -> Samples:
    """Have the peer say something, in odd pieces. Returns what."""
    sound, at = tones(1_200, rate), 0
    number = 0
    while at < len(sound):
        size = max(1, round(PIECES_MS[number % len(PIECES_MS)] * rate / 1_000))
        await call.peer.say(sound[at : at + size], rate)
        at += size
        number += 1
    return sound


async def check_input(call: ContractCall, said: Samples, rate: int) -> str:
    """Check that all of the user's audio arrived: in mono chunks of 20 ms, at the transport's rate, with its times."""
    await call.wait(1_600 + 2 * call.peer.late_ms)
    frames, wanted = call.audio(), call.transport.sample_rate
    expect(bool(frames), "audio", "none")
    for frame in frames:
        shape = frame.sample_rate, frame.samples.shape
        expect(shape == (wanted, (wanted * CHUNK_MS // 1_000,)), f"20 ms of mono at {wanted} Hz", f"{shape}")
    joined = np.concatenate([frame.samples for frame in frames])
    if call.peer.exact and rate == wanted:
        sound = joined[joined != 0]
        missing = len(said) - len(sound)
        # Less than 20 ms wait for the rest of their chunk.
        short = 0 <= missing < wanted * CHUNK_MS // 1_000
        expect(short and np.array_equal(sound, said[: len(sound)]), f"{len(said)} samples as said", f"{len(sound)}")
    found, told = pitches_in(joined, wanted), pitches_in(said, rate)
    expect(found == told, f"tones of {told} Hz, in real time", found)
    loud = [n for n, frame in enumerate(frames) if np.abs(frame.samples).max() > 3_000]
    ms = (loud[-1] - loud[0] + 1) * CHUNK_MS
    limit_ms = CHUNK_MS + _tolerance_ms(call)
    expect(abs(ms - 1_200) <= limit_ms, f"1200 ms, give or take {limit_ms:g}", f"{ms} ms")
    _times(call, frames)
    return f"{rate} Hz: {len(frames)} chunks"


def _times(call: ContractCall, frames: list[InputAudioFrame]) -> None:
    """`InputAudioFrame.pts_ns` grows with the audio."""
    known = [(number, frame.pts_ns) for number, frame in enumerate(frames) if frame.pts_ns is not None]
    slack_ns = 1_000 if call.peer.exact else call.late_ns + CHUNK_NS
    for (before, at_ns), (after, then_ns) in itertools.pairwise(known):
        step_ns = then_ns - at_ns - (after - before) * CHUNK_NS
        if not -slack_ns <= step_ns <= slack_ns:
            raise RuleBroken(
                f"pts_ns that grows by {(after - before) * CHUNK_MS} ms", f"{(then_ns - at_ns) / NS_PER_MS:g} ms"
            )


# --- the end --------------------------------------------------------------------------------------------------------


@rule("the worker can be stopped while nothing is said")
async def _stop(call: ContractCall) -> str:
    await call.wait(200)
    await call.end(drain=True)
    expect(call.outcome is not None and call.outcome.reason == "stopped", "the outcome 'stopped'", call.outcome)
    return "stopped"


@rule("a worker that is stopped while the bot speaks lets it finish")
async def _drain(call: ContractCall) -> str:
    sound = _sound(call, 1_000)
    call.speak(sound)
    await call.wait(300)
    _same(call, await call.end(drain=True), sound, "all of the response")
    return "1000 ms"


@rule("a worker that is cancelled while the bot speaks is silent at once")
async def _cancel(call: ContractCall) -> str:
    call.speak(_sound(call, 3_000))
    await call.wait(CUT_MS)
    take = await call.end()
    limit_ms = CUT_MS + 2 * CHUNK_MS + call.peer.late_ms + _tolerance_ms(call)
    expect(take.ms <= limit_ms, f"at most {limit_ms:g} ms", f"{take.ms:g} ms")
    return f"{take.ms:g} ms"


@rule("a user who hangs up ends the worker, or is told of")
async def _hang_up(call: ContractCall) -> str:
    return await _left(call, call.peer.close, call.peer.end_s)


@rule("a user who vanishes ends the worker, or is told of, within a bound")
async def _vanish(call: ContractCall) -> str:
    return await _left(call, call.peer.vanish, call.peer.gone_s)


async def _left(call: ContractCall, leave: Callable[[], Coroutine[Any, Any, None]], within_s: float) -> str:
    """The user leaves while the bot speaks."""
    call.speak(_sound(call, 400))
    await call.wait(200)
    began_ns = call.now_ns
    await leave()
    ended = await call.until(lambda: call.ended_or_told, within_s * 1_000)
    expect(ended, f"the end of the worker or a ClientDisconnectedFrame within {within_s:g} s", "neither")
    return f"after {(call.now_ns - began_ns) / NS_PER_MS:.0f} ms"


@rule("a user who does not read costs nothing but their own audio")
async def _slow(call: ContractCall) -> str:
    call.peer.stall(on=True)
    if call.peer.exact:
        # An hour of it would be 170 MB at 24 kHz.
        tracemalloc.start()
        try:
            for response in range(1, SLOW_RESPONSES + 1):
                call.speak(_sound(call, 40_000), response)
                await call.wait(40_100)
            held = tracemalloc.get_traced_memory()[0]
        finally:
            tracemalloc.stop()
        expect(held <= SLOW_BYTES, f"less than {SLOW_BYTES >> 20} MiB kept", f"{held / 2**20:.1f} MiB")
        return f"{held / 1024:.0f} KiB kept after {SLOW_RESPONSES * 40} s"
    began_ns = call.now_ns
    call.speak(_sound(call, 4_000))
    await call.wait(4_500)
    told = call.ended_or_told or [one.heard_ms for one in call.noted(ResponsePlayedFrame)] == [4_000.0]
    expect(told, "the response played in its time, or the end", "neither")
    call.peer.stall(on=False)
    if not call.ended_or_told:
        await call.wait(1_000)
        call.speak(_sound(call, 600, first=3), response=2)
        await call.until(lambda: call.ended_or_told or bool(call.noted_at(ResponsePlayedFrame)[1:]), 5_000)
        await call.wait(call.peer.late_ms)
        wanted = pitches_in(_sound(call, 600, first=3), call.transport.output_rate)
        found = (await call.end()).pitches[-len(wanted) :]
        expect(found == wanted, f"tones of {wanted} Hz when it reads again", found)
    return f"{(call.now_ns - began_ns) / NS_PER_MS:.0f} ms"

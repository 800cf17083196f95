"""Transports: where a conversation meets the world.

A transport has two processors, `Transport.input` for the head of a pipeline and `Transport.output` for its
tail. To write one, derive both: an input calls `InputTransport.receive` for what a device hands it (or has a
``@source`` that reads), and an output overrides `OutputTransport.write`, which gets 20 ms when 20 ms are due.
Pacing, the buffer and its bound, interruptions, pauses and the account of what was heard are `OutputTransport`'s.
See `docs/design/playout.md`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from ..pipeline.audio import StreamResampler, load_resampler, mono
from ..pipeline.clock import NS_PER_MS, TimerHandle
from ..pipeline.errors import FrameError, QueueOverflowError, TransportError
from ..pipeline.frames import (
    UPSTREAM,
    CancelFrame,
    Frame,
    InputAudioFrame,
    InputFrame,
    OutputAudioFrame,
    PausePlayoutFrame,
    ResponseEndFrame,
    ResumePlayoutFrame,
    Samples,
    SpokenWord,
)
from ..pipeline.processor import AudioFormat, FrameProcessor, handles
from .playout import Facts, PlayoutLedger

CHUNK_MS = 20
CHUNK_NS = CHUNK_MS * NS_PER_MS
HARD_BOUND_MS = 60_000
"""Beyond this much waiting audio, what comes from nobody who can be held is an error."""


@dataclass(frozen=True, slots=True)
class PlayoutTickFrame(InputFrame):
    """The output's own: the slot ``slot`` of its schedule number ``schedule`` is due."""

    schedule: int
    slot: int


@dataclass(frozen=True, slots=True)
class PlayoutGapFrame(InputFrame):
    """The output's own: the response has had no audio since schedule number ``schedule`` ran dry."""

    schedule: int


def samples_in_chunk(sample_rate: int) -> int:
    """How many samples `CHUNK_MS` has. Raises `TransportError` where that is no whole number."""
    if sample_rate <= 0 or sample_rate * CHUNK_MS % 1000:
        raise TransportError(
            f"A transport works in chunks of {CHUNK_MS} ms, and {sample_rate} Hz does not divide into them. "
            "Use 8000, 16000, 22050, 24000, 44100 or 48000 Hz."
        )
    return sample_rate * CHUNK_MS // 1000


class Transport:
    """One connection to the world: a file, a sound card, a call."""

    def input(self) -> FrameProcessor:
        """The head of the pipeline: what the user says. The same processor each time."""
        raise NotImplementedError

    def output(self) -> FrameProcessor:
        """The tail of the pipeline: what the user hears. The same processor each time."""
        raise NotImplementedError


class InputTransport(FrameProcessor):
    """Makes `InputAudioFrame` of 20 ms, mono, at ``sample_rate``."""

    is_transport_input: ClassVar[bool] = True
    """A pipeline has one of these."""

    def __init__(self, *, sample_rate: int = 16_000) -> None:
        load_resampler()
        self.sample_rate = sample_rate
        self.chunk_samples = samples_in_chunk(sample_rate)

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Mono audio of the user."""
        return {InputAudioFrame: AudioFormat((self.sample_rate,), (1,))}

    def receive(self, samples: Samples, pts_ns: int | None = None) -> None:
        """Put what a device captured into the inbox, from a callback in the worker's event loop."""
        self.post(InputAudioFrame(samples, self.sample_rate, pts_ns))


class OutputTransport(FrameProcessor):
    """Plays the bot's audio in time, and says what was heard.

    ``sample_rate``: of what `write` gets; other rates are resampled, stereo is mixed to mono. ``buffer_ms``:
    with so much waiting, the job that makes the audio is held. ``gap_ms``: a response that has had nothing to
    play for so long counts as silent until it goes on.

    Upstream it says `BotStartedSpeakingFrame` with the first sample of a response, `BotStoppedSpeakingFrame`
    after the last, and of each response that has begun to arrive once what became of it:
    `ResponsePlayedFrame` or `ResponseCutFrame`.

    `PausePlayoutFrame` is silence at once, until `ResumePlayoutFrame`; nothing is lost by it, and both are facts
    like any other: the bot stopped speaking, and started again.
    """

    def __init__(self, *, sample_rate: int = 24_000, buffer_ms: float = 2_000, gap_ms: float = 300) -> None:
        self.sample_rate = sample_rate
        self.chunk_samples = samples_in_chunk(sample_rate)
        self.buffer_ms = buffer_ms
        self.gap_ms = gap_ms
        self.refused = 0
        """Audio frames that came after a newer response had begun to arrive."""
        self._schedule = 0
        self._begin_anew()

    def _begin_anew(self) -> None:
        self._ledger = PlayoutLedger(self.sample_rate)
        self._resampler: tuple[int, StreamResampler] | None = None
        self._holding = False
        self._refused_response = 0
        self._start_ns = 0
        self._slot: int | None = None
        """The slot of 20 ms since `_start_ns` that is played next; None while nothing is."""
        self._free_ns = 0
        """When what was written last is over."""
        self._waited = False
        """The last slot was left empty, for want of half a chunk that may be on its way."""
        self._paused = False
        self._tick: TimerHandle | None = None
        self._gap: TimerHandle | None = None

    # --- for a transport to write ---------------------------------------------------------------------------

    def write(self, samples: Samples, due_ns: int) -> None:
        """Play 20 ms: int16 mono at `sample_rate`, due at ``due_ns`` on the worker's clock. Must not wait.

        Called once for each 20 ms in which the bot is heard, not for silence between; a chunk that is not
        full is padded with silence. After a stall of the event loop it is called for all that are due by
        then.
        """
        raise NotImplementedError

    def clear(self) -> None:
        """What was written and is not heard yet is not wanted any more: the response was cut."""

    def halt(self) -> None:
        """Be silent now, and keep what was written and is not heard yet: the playout is paused.

        For a device that has more than a chunk in hand. Without it, the 20 ms that were written last are heard.
        """

    def go_on(self) -> None:
        """The pause is over: play what `halt` kept. What follows is written after it."""

    # --- lifecycle ------------------------------------------------------------------------------------------

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Any audio of the bot."""
        return {OutputAudioFrame: AudioFormat()}

    def idle(self) -> bool:
        """False while something waits to be played (for the end of a pause, too), or is being heard."""
        return self._slot is None and not self._ledger.buffered and not self._ledger.speaking

    async def stop(self) -> None:
        """Forget what was not played, and a pause. Call it from yours."""
        self._cancel_timers()
        self._begin_anew()

    # --- what comes -----------------------------------------------------------------------------------------

    @handles(OutputAudioFrame)
    async def play(self, frame: OutputAudioFrame) -> None:
        """Buffer it; begin to play where nothing is being played."""
        response = self.open_response()
        self._check_bound(frame)
        self._flush_resampler(unless=(response, frame.sample_rate))
        samples, words = self._convert(response, frame)
        if not self._ledger.append(response, samples, words):
            self._refuse(response)
            return
        if self._ledger.buffered_ms >= self.buffer_ms and self.hold():
            self._holding = True
        if self._slot is None or (self._waited and self._ledger.buffered >= self.chunk_samples):
            await self._begin()

    @handles(ResponseEndFrame)
    async def finish(self, frame: ResponseEndFrame) -> None:
        """Nothing more comes of the response."""
        response = self.open_response()
        self._flush_resampler()
        self._ledger.end(response)
        if self._ledger.buffered and (self._slot is None or self._waited):
            await self._begin()
        elif self._slot is None:
            await self._tell(self._ledger.settle())

    @handles(CancelFrame)
    async def cut(self, frame: CancelFrame) -> None:
        """Silence, at once, and an answer: what was heard of what was cut."""
        if self._resampler is not None and self._resampler[0] <= frame.response:
            self._resampler = None
        known = self._ledger.has(frame.response)
        facts = self._ledger.cut(frame.response, frame.reason)
        if not self._ledger:
            self._rest()
        self._let_go()
        await self._tell(facts)
        if known:
            self._free_ns = 0
            self.clear()

    @handles(PausePlayoutFrame)
    async def pause(self, frame: PausePlayoutFrame) -> None:
        """Silence, at once. What is not played yet is kept, and more is buffered."""
        if self._paused:
            return
        self._paused = True
        self._slot = None
        self._cancel_timers()
        await self._tell(self._ledger.pause())
        self.halt()

    @handles(ResumePlayoutFrame)
    async def resume(self, frame: ResumePlayoutFrame) -> None:
        """Go on with the next sample, on a schedule that begins now."""
        if not self._paused:
            return
        self._paused = False
        try:
            self.go_on()
        finally:
            if self._ledger.buffered:
                await self._begin()

    @handles(PlayoutTickFrame)
    async def tick(self, frame: PlayoutTickFrame) -> None:
        """Play what is due."""
        if frame.schedule == self._schedule and self._slot is not None:
            await self._play_due()

    @handles(PlayoutGapFrame)
    async def stall(self, frame: PlayoutGapFrame) -> None:
        """The gap has become a pause."""
        if frame.schedule == self._schedule and self._slot is None:
            await self._tell(self._ledger.stall())

    # --- the pacer ------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Begin a schedule now: slot k is due 20 k ms from this moment, however late each tick comes."""
        if self._paused:
            # Not before its end; but what is over is told now.
            await self._tell(self._ledger.settle())
            return
        self._cancel_timers()
        self._schedule += 1
        # Not into the last chunk: a pause may be shorter than what of that was left.
        self._start_ns = max(self.now_ns, self._free_ns)
        self._slot, self._waited = 0, False
        await self._play_due()

    async def _play_due(self) -> None:
        try:
            while self._slot is not None and self._start_ns + self._slot * CHUNK_NS <= self.now_ns:
                await self._play_slot(self._slot)
        finally:
            if self._slot is not None:
                due_ns = self._start_ns + self._slot * CHUNK_NS
                self._tick = self.post_at(due_ns, PlayoutTickFrame(self._schedule, self._slot))
            self._let_go()

    async def _play_slot(self, slot: int) -> None:
        ledger = self._ledger
        if not ledger.buffered:
            facts = ledger.settle()
            self._rest()
            await self._tell(facts)
            return
        # First, so that a write that raises costs its own 20 ms and not the schedule.
        self._slot = slot + 1
        if ledger.buffered < self.chunk_samples and ledger.more_comes and not self._waited:
            # The rest of these 20 ms may be on its way: one slot's wait is better than a hole in a word.
            self._waited = True
            return
        self._waited = False
        samples, facts = ledger.take(self.chunk_samples)
        await self._tell(facts)
        due_ns = self._start_ns + slot * CHUNK_NS
        self._free_ns = due_ns + CHUNK_NS
        self.write(samples, due_ns)

    def _rest(self) -> None:
        """Nothing is left to play: no more ticks, until there is."""
        self._slot = None
        if self._tick is not None:
            self._tick.cancel()
        if self._ledger.speaking:
            self._gap = self.post_after(self.gap_ms, PlayoutGapFrame(self._schedule))

    def _cancel_timers(self) -> None:
        for timer in (self._tick, self._gap):
            if timer is not None:
                timer.cancel()

    async def _tell(self, facts: Facts) -> None:
        for fact in facts:
            await self.push(fact, UPSTREAM)

    # --- the buffer -----------------------------------------------------------------------------------------

    def _check_bound(self, frame: OutputAudioFrame) -> None:
        waiting_ms = self._ledger.buffered_ms
        if waiting_ms >= HARD_BOUND_MS and not self.hold():
            raise QueueOverflowError(
                f"{self.path}: {waiting_ms / 1000:.1f} s of audio wait to be played, and the bound is "
                f"{HARD_BOUND_MS / 1000:g} s; {frame.duration_ms:g} ms more do not fit and are dropped. "
                "Audio is pushed from a plain handler, or posted from outside, faster than it is heard. "
                "Yield it from a job instead (a generator): that one waits while the buffer is full."
            )

    def _let_go(self) -> None:
        if self._holding and self._ledger.buffered_ms < self.buffer_ms:
            self._holding = False
            self.release()

    def _refuse(self, response: int) -> None:
        self.refused += 1
        if response != self._refused_response:
            self._refused_response = response
            raise FrameError(
                f"{self.path}: audio of response {response} came after that of a newer response, and is "
                "dropped: an older response is never heard after a newer one. Finish a response before the "
                "next is begun, or cut it with interrupt()."
            )

    def _convert(self, response: int, frame: OutputAudioFrame) -> tuple[Samples, tuple[SpokenWord, ...]]:
        """The frame's samples and words at the output's rate."""
        samples = mono(frame.samples)
        if frame.sample_rate == self.sample_rate:
            return samples, frame.words
        if self._resampler is None:
            self._resampler = (response, StreamResampler(frame.sample_rate, self.sample_rate))
        resampler = self._resampler[1]
        # What the resampler still holds comes out before this frame's own samples.
        late_ms = resampler.held_ms
        words = tuple(SpokenWord(word.text, word.start_ms + late_ms, word.glued) for word in frame.words)
        return resampler.push(samples), words

    def _flush_resampler(self, unless: tuple[int, int] | None = None) -> None:
        """Play out what a resampler holds back, unless the stream (response, rate in Hz) goes on."""
        if self._resampler is not None:
            response, resampler = self._resampler
            if (response, resampler.in_rate) != unless:
                self._resampler = None
                self._ledger.append(response, resampler.flush())

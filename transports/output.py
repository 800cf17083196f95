"""The tail of a pipeline: plays the bot's audio in time, and says what was heard.

Pacing, the buffer and its bound, interruptions and pauses are here, once for all transports. See
`docs/design/playout.md`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..pipeline.audio import SILENCE_DBFS, StreamResampler, load_resampler, mono, rms_dbfs
from ..pipeline.client_frames import ServerMessageFrame
from ..pipeline.clock import NS_PER_MS, TimerHandle
from ..pipeline.errors import FrameError, QueueOverflowError
from ..pipeline.frames import (
    UPSTREAM,
    CancelFrame,
    Frame,
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
from .transport_api import CHUNK_NS, samples_in_chunk

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


class OutputOwner(Protocol):
    """The transport, as its output uses it; see `TransportApi`."""

    async def processor_started(self) -> None:
        """One of the two ends starts."""
        ...

    async def processor_stopped(self) -> None:
        """One of the two ends has stopped."""
        ...

    def send(self, samples: Samples, due_ns: int) -> None:
        """Play 20 ms."""
        ...

    def clear(self) -> None:
        """Forget what is not heard yet."""
        ...

    def pause(self) -> None:
        """Keep what is not heard yet."""
        ...

    def resume(self) -> None:
        """Play what was kept."""
        ...

    def tell(self, message: ServerMessageFrame) -> None:
        """A message for the client's program."""
        ...


class OutputTransport(FrameProcessor):
    """Plays the bot's audio in time, and says what was heard. `Transport.output` makes it.

    ``sample_rate``: of what `TransportApi.send` gets; other rates are resampled, stereo is mixed to mono.
    ``buffer_ms``: with so much waiting, the job that makes the audio is held. ``gap_ms``: a response that has had
    nothing to play for so long counts as silent until it goes on. ``lead_ms``: `TransportApi.send` gets each 20 ms so
    long before they are due. ``on_grid``: they are due at multiples of 20 ms of the clock, where what is sent has
    places like that: so the account of what was heard and the wire agree to the packet.

    Upstream it says `BotStartedSpeakingFrame` with the first sample of a response, `BotStoppedSpeakingFrame`
    after the last, and of each response that has begun to arrive once what became of it:
    `ResponsePlayedFrame` or `ResponseCutFrame`.

    `PausePlayoutFrame` is silence at once, until `ResumePlayoutFrame`; nothing is lost by it, and both are facts
    like any other: the bot stopped speaking, and started again.
    """

    def __init__(
        self,
        transport: OutputOwner,
        name: str,
        *,
        sample_rate: int = 24_000,
        buffer_ms: float = 2_000,
        gap_ms: float = 300,
        lead_ms: float = 0,
        on_grid: bool = False,
    ) -> None:
        load_resampler()
        self.name = name
        self.sample_rate = sample_rate
        self.chunk_samples = samples_in_chunk(sample_rate)
        self.buffer_ms = buffer_ms
        self.gap_ms = gap_ms
        self._lead_ns = round(lead_ms * NS_PER_MS)
        self._on_grid = on_grid
        self._transport = transport
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
        # bound: the lead, in chunks
        self._ahead: deque[tuple[int, int]] = deque()
        """Audio sent ahead of time: due time and number of samples. The oldest may be due by now."""
        self._waited = False
        """The last slot was left empty, for want of half a chunk that may be on its way."""
        self._newest: Samples | None = None
        self._paused = False
        self._tick: TimerHandle | None = None
        self._gap: TimerHandle | None = None

    # --- lifecycle ------------------------------------------------------------------------------------------

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Any audio of the bot."""
        return {OutputAudioFrame: AudioFormat()}

    def idle(self) -> bool:
        """False while something waits to be played (for the end of a pause, too), or is being heard."""
        kept = self._paused and self._ahead
        return self._slot is None and not self._ledger.buffered and not self._ledger.speaking and not kept

    async def start(self) -> None:
        """Open the transport."""
        await self._transport.processor_started()

    async def stop(self) -> None:
        """Forget what was not played, and a pause; close the transport, where the other end is done with it too."""
        self._cancel_timers()
        self._begin_anew()
        await self._transport.processor_stopped()

    @property
    def level_dbfs(self) -> float:
        """How loud the 20 ms are that were sent last; see `rms_dbfs`."""
        return SILENCE_DBFS if self._slot is None or self._newest is None else rms_dbfs(self._newest)

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
        elif self._lead_ns:
            await self._play_due()

    @handles(ResponseEndFrame)
    async def finish(self, frame: ResponseEndFrame) -> None:
        """Nothing more comes of the response."""
        response = self.open_response()
        self._flush_resampler()
        self._ledger.end(response)
        if self._ledger.buffered and (self._slot is None or self._waited):
            await self._begin()
        elif self._slot is None:
            await self._settle()
        elif self._lead_ns:
            await self._play_due()

    @handles(CancelFrame)
    async def cut(self, frame: CancelFrame) -> None:
        """Silence, at once, and an answer: what was heard of what was cut."""
        if self._resampler is not None and self._resampler[0] <= frame.response:
            self._resampler = None
        known = self._ledger.has(frame.response)
        unheard = sum(samples for due_ns, samples in self._ahead if self._paused or due_ns > self.now_ns)
        facts = self._ledger.cut(frame.response, frame.reason, unheard)
        if not self._ledger:
            self._rest()
        self._let_go()
        await self._tell(facts)
        if known:
            self._free_ns = 0
            self._ahead.clear()
            self._transport.clear()

    @handles(PausePlayoutFrame)
    async def pause(self, frame: PausePlayoutFrame) -> None:
        """Silence, at once. What is not played yet is kept, and more is buffered."""
        if self._paused:
            return
        self._paused = True
        self._slot = None
        self._cancel_timers()
        self._forget_due()
        await self._tell(self._ledger.stall() if self._ahead else self._ledger.pause())
        self._transport.pause()

    @handles(ResumePlayoutFrame)
    async def resume(self, frame: ResumePlayoutFrame) -> None:
        """Go on with the next sample, on a schedule that begins now."""
        if not self._paused:
            return
        self._paused = False
        # What the transport kept comes first.
        now_ns = self.next_due_ns(self.now_ns)
        kept = [(now_ns + number * CHUNK_NS, samples) for number, (_, samples) in enumerate(self._ahead)]
        self._ahead.clear()
        self._ahead.extend(kept)
        self._free_ns = max(self._free_ns, now_ns + len(kept) * CHUNK_NS)
        try:
            self._transport.resume()
        finally:
            if self._ledger.buffered or self._ahead:
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

    @handles(ServerMessageFrame)
    async def tell(self, frame: ServerMessageFrame) -> None:
        """A message for the client's program."""
        self._transport.tell(frame)

    # --- the pacer ------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Begin a schedule now: slot k is due 20 k ms from this moment, however late each tick comes."""
        if self._paused:
            # Not before its end; but what is over is told now.
            await self._settle()
            return
        self._cancel_timers()
        self._schedule += 1
        # Not into the last chunk: a pause may be shorter than what of that was left.
        self._start_ns = self.next_due_ns(max(self.now_ns, self._free_ns))
        self._slot, self._waited = 0, False
        await self._play_due()

    def next_due_ns(self, when_ns: int) -> int:
        """The first moment from then on at which 20 ms can be due."""
        return when_ns - when_ns % -CHUNK_NS if self._on_grid else when_ns

    def _next_ns(self, slot: int) -> int:
        """When a slot is to be sent: ahead of time where there is something for it. Else not before it is due, for
        until then more may come, and what was sent is not over.
        """
        lead_ns = self._lead_ns if self._ledger.may_lead(self.chunk_samples) else 0
        return self._start_ns + slot * CHUNK_NS - lead_ns

    async def _play_due(self) -> None:
        try:
            while self._slot is not None and self._next_ns(self._slot) <= self.now_ns:
                await self._play_slot(self._slot)
        finally:
            if self._slot is not None:
                if self._tick is not None:
                    self._tick.cancel()
                self._tick = self.post_at(self._next_ns(self._slot), PlayoutTickFrame(self._schedule, self._slot))
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
        waiting = ledger.buffered
        samples, facts = ledger.take(self.chunk_samples)
        await self._tell(facts)
        due_ns = self._start_ns + slot * CHUNK_NS
        self._free_ns = due_ns + CHUNK_NS
        if due_ns > self.now_ns:
            self._forget_due()
            self._ahead.append((due_ns, waiting - ledger.buffered))
        self._newest = samples
        self._transport.send(samples, due_ns)

    def _forget_due(self) -> None:
        while self._ahead and self._ahead[0][0] <= self.now_ns:
            self._ahead.popleft()

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

    async def _settle(self) -> None:
        """Tell what is over. Not what a transport keeps in a pause: that may still be cut."""
        if not (self._paused and self._ahead):
            await self._tell(self._ledger.settle())

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

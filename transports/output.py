"""`OutputTransport`, the last processor of a pipeline: plays the bot's audio in time and reports what was heard.

Pacing, the bounded buffer, interruptions and pauses are implemented here once, for all transports. See
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
"""Hard bound on buffered audio. Audio of a job is held back earlier (``buffer_ms``); other audio raises here."""


@dataclass(frozen=True, slots=True)
class PlayoutTickFrame(InputFrame):
    """Timer of the output: slot number ``slot`` of schedule number ``schedule`` is due."""

    schedule: int
    slot: int


@dataclass(frozen=True, slots=True)
class PlayoutGapFrame(InputFrame):
    """Timer of the output: no audio of the response since schedule number ``schedule`` ran dry."""

    schedule: int


class OutputOwner(Protocol):
    """Interface of the transport, as far as its output uses it: see `TransportApi`."""

    async def processor_started(self) -> None:
        """Note that one of the two processors starts."""
        ...

    async def processor_stopped(self) -> None:
        """Note that one of the two processors has stopped."""
        ...

    def send(self, samples: Samples, due_ns: int) -> None:
        """Play 20 ms."""
        ...

    def clear(self) -> None:
        """Drop audio not heard yet."""
        ...

    def pause(self) -> None:
        """Fall silent and keep audio not heard yet."""
        ...

    def resume(self) -> None:
        """Play the kept audio."""
        ...

    def tell(self, message: ServerMessageFrame) -> None:
        """Send a message to the client's program."""
        ...


class OutputTransport(FrameProcessor):
    """Plays the bot's audio in time and reports what was heard. Made by `Transport.output`.

    ``sample_rate``: rate of the audio passed to `TransportApi.send`; other rates are resampled, stereo is mixed to
    mono. ``buffer_ms``: with this much audio buffered, the job that produces it is held. ``gap_ms``: a response
    without audio for this long counts as silent until it continues. ``lead_ms``: `TransportApi.send` receives each
    20 ms this long before they are due. ``on_grid``: due times are multiples of 20 ms of the clock, for transports
    that send packets at such times; the record of what was heard then matches the wire to the packet.

    Pushed upstream: `BotStartedSpeakingFrame` with the first sample of a response, `BotStoppedSpeakingFrame` after the
    last, and one record per response that has started to arrive: `ResponsePlayedFrame` or `ResponseCutFrame`.

    `PausePlayoutFrame` silences the bot at once, until `ResumePlayoutFrame`. No audio is lost, and both are reported:
    the bot stopped speaking, and started again.
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
        """Audio frames dropped because a newer response had already started to arrive."""
        self._schedule = 0
        self._reset()

    def _reset(self) -> None:
        self._ledger = PlayoutLedger(self.sample_rate)
        self._resampler: tuple[int, StreamResampler] | None = None
        self._holding = False
        self._refused_response = 0
        self._start_ns = 0
        self._slot: int | None = None
        """Number of the next slot of 20 ms since `_start_ns`; None while nothing plays."""
        self._free_ns = 0
        """End of the last chunk sent."""
        # bound: the lead, in chunks
        self._ahead: deque[tuple[int, int]] = deque()
        """Chunks sent ahead of time: due time and number of samples. The oldest may be due by now."""
        self._waited = False
        """The last slot was left empty, because the rest of a partial chunk may still arrive."""
        self._newest: Samples | None = None
        self._paused = False
        self._tick: TimerHandle | None = None
        self._gap: TimerHandle | None = None

    # --- lifecycle ------------------------------------------------------------------------------------------

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Return the input format: any audio of the bot."""
        return {OutputAudioFrame: AudioFormat()}

    def idle(self) -> bool:
        """False while audio waits to be played (also during a pause) or is being heard."""
        kept = self._paused and self._ahead
        return self._slot is None and not self._ledger.buffered and not self._ledger.speaking and not kept

    async def start(self) -> None:
        """Open the transport."""
        await self._transport.processor_started()

    async def stop(self) -> None:
        """Drop unplayed audio, end a pause, and close the transport once the input has stopped too."""
        self._cancel_timers()
        self._reset()
        await self._transport.processor_stopped()

    @property
    def level_dbfs(self) -> float:
        """Level of the last 20 ms sent, in dB of full scale; see `rms_dbfs`."""
        return SILENCE_DBFS if self._slot is None or self._newest is None else rms_dbfs(self._newest)

    # --- handlers -------------------------------------------------------------------------------------------

    @handles(OutputAudioFrame)
    async def play(self, frame: OutputAudioFrame) -> None:
        """Buffer audio; start playing if nothing plays."""
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
            await self._start_schedule()
        elif self._lead_ns:
            await self._play_due()

    @handles(ResponseEndFrame)
    async def finish(self, frame: ResponseEndFrame) -> None:
        """Mark the response as complete."""
        response = self.open_response()
        self._flush_resampler()
        self._ledger.end(response)
        if self._ledger.buffered and (self._slot is None or self._waited):
            await self._start_schedule()
        elif self._slot is None:
            await self._settle()
        elif self._lead_ns:
            await self._play_due()

    @handles(CancelFrame)
    async def cut(self, frame: CancelFrame) -> None:
        """Fall silent at once, and report how much of each cut response was heard."""
        if self._resampler is not None and self._resampler[0] <= frame.response:
            self._resampler = None
        known = self._ledger.has(frame.response)
        unheard = sum(samples for due_ns, samples in self._ahead if self._paused or due_ns > self.now_ns)
        facts = self._ledger.cut(frame.response, frame.reason, unheard)
        if not self._ledger:
            self._rest()
        self._release_job()
        await self._report(facts)
        if known:
            self._free_ns = 0
            self._ahead.clear()
            self._transport.clear()

    @handles(PausePlayoutFrame)
    async def pause(self, frame: PausePlayoutFrame) -> None:
        """Fall silent at once. Unplayed audio is kept, and more is buffered."""
        if self._paused:
            return
        self._paused = True
        self._slot = None
        self._cancel_timers()
        self._forget_due()
        await self._report(self._ledger.stall() if self._ahead else self._ledger.pause())
        self._transport.pause()

    @handles(ResumePlayoutFrame)
    async def resume(self, frame: ResumePlayoutFrame) -> None:
        """Continue with the next sample, on a schedule that starts now."""
        if not self._paused:
            return
        self._paused = False
        # Audio that the transport kept comes first.
        now_ns = self.next_due_ns(self.now_ns)
        kept = [(now_ns + number * CHUNK_NS, samples) for number, (_, samples) in enumerate(self._ahead)]
        self._ahead.clear()
        self._ahead.extend(kept)
        self._free_ns = max(self._free_ns, now_ns + len(kept) * CHUNK_NS)
        try:
            self._transport.resume()
        finally:
            if self._ledger.buffered or self._ahead:
                await self._start_schedule()

    @handles(PlayoutTickFrame)
    async def tick(self, frame: PlayoutTickFrame) -> None:
        """Play the slots that are due."""
        if frame.schedule == self._schedule and self._slot is not None:
            await self._play_due()

    @handles(PlayoutGapFrame)
    async def stall(self, frame: PlayoutGapFrame) -> None:
        """Report that the bot stopped speaking: its gap has reached ``gap_ms``."""
        if frame.schedule == self._schedule and self._slot is None:
            await self._report(self._ledger.stall())

    @handles(ServerMessageFrame)
    async def tell(self, frame: ServerMessageFrame) -> None:
        """Send a message to the client's program."""
        self._transport.tell(frame)

    # --- the pacer ------------------------------------------------------------------------------------------

    async def _start_schedule(self) -> None:
        """Start a schedule now: slot k is due k * 20 ms from now, however late each tick comes."""
        if self._paused:
            # Playing waits for the end of the pause; finished responses are reported now.
            await self._settle()
            return
        self._cancel_timers()
        self._schedule += 1
        # Not into the last chunk sent: a pause may be shorter than its remainder.
        self._start_ns = self.next_due_ns(max(self.now_ns, self._free_ns))
        self._slot, self._waited = 0, False
        await self._play_due()

    def next_due_ns(self, when_ns: int) -> int:
        """Return the first time at or after ``when_ns`` at which a chunk can be due."""
        return when_ns - when_ns % -CHUNK_NS if self._on_grid else when_ns

    def _next_ns(self, slot: int) -> int:
        """Time at which to send a slot: ahead of its due time if audio for it is complete. Otherwise not before the due
        time, since more may arrive until then and the chunk before is still playing.
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
            self._release_job()

    async def _play_slot(self, slot: int) -> None:
        ledger = self._ledger
        if not ledger.buffered:
            facts = ledger.settle()
            self._rest()
            await self._report(facts)
            return
        # Set first, so that a send that raises costs its own 20 ms and not the schedule.
        self._slot = slot + 1
        if ledger.buffered < self.chunk_samples and ledger.more_comes and not self._waited:
            # The rest of these 20 ms may still arrive: waiting one slot is better than a hole in a word.
            self._waited = True
            return
        self._waited = False
        waiting = ledger.buffered
        samples, facts = ledger.take(self.chunk_samples)
        await self._report(facts)
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
        """Stop the ticks: the buffer is empty."""
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
        """Report finished responses, except audio that the transport keeps during a pause: it may still be cut."""
        if not (self._paused and self._ahead):
            await self._report(self._ledger.settle())

    async def _report(self, facts: Facts) -> None:
        for fact in facts:
            await self.push(fact, UPSTREAM)

    # --- the buffer -----------------------------------------------------------------------------------------

    def _check_bound(self, frame: OutputAudioFrame) -> None:
        waiting_ms = self._ledger.buffered_ms
        if waiting_ms >= HARD_BOUND_MS and not self.hold():
            raise QueueOverflowError(
                f"{self.path}: {waiting_ms / 1000:.1f} s of audio wait to be played; the bound is "
                f"{HARD_BOUND_MS / 1000:g} s; {frame.duration_ms:g} ms more do not fit and are dropped. "
                "A plain handler pushes audio, or the app posts it, faster than it is played. "
                "Yield it from a job (a generator) instead: a job waits while the buffer is full."
            )

    def _release_job(self) -> None:
        if self._holding and self._ledger.buffered_ms < self.buffer_ms:
            self._holding = False
            self.release()

    def _refuse(self, response: int) -> None:
        self.refused += 1
        if response != self._refused_response:
            self._refused_response = response
            raise FrameError(
                f"{self.path}: audio of response {response} came after that of a newer response, and is "
                "dropped: an older response is never played after a newer one. Finish a response before "
                "starting the next, or cut it with interrupt()."
            )

    def _convert(self, response: int, frame: OutputAudioFrame) -> tuple[Samples, tuple[SpokenWord, ...]]:
        """Return the frame's samples and words at the output's rate."""
        samples = mono(frame.samples)
        if frame.sample_rate == self.sample_rate:
            return samples, frame.words
        if self._resampler is None:
            self._resampler = (response, StreamResampler(frame.sample_rate, self.sample_rate))
        resampler = self._resampler[1]
        # Samples still held by the resampler come out before those of this frame.
        late_ms = resampler.held_ms
        words = tuple(SpokenWord(word.text, word.start_ms + late_ms, word.glued) for word in frame.words)
        return resampler.push(samples), words

    def _flush_resampler(self, unless: tuple[int, int] | None = None) -> None:
        """Buffer the samples held by the resampler, unless the stream (response, rate in Hz) continues."""
        if self._resampler is not None:
            response, resampler = self._resampler
            if (response, resampler.in_rate) != unless:
                self._resampler = None
                self._ledger.append(response, resampler.flush())

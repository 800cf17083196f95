"""The playout ledger: which samples of which response have been played, and which words they carried.

Pure: no clock and no asyncio. The history and the session's state take as said by the bot only the text that this
ledger reports as heard. See `docs/design/playout.md`.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from ..pipeline.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    InputFrame,
    ResponseCutFrame,
    ResponsePlayedFrame,
    Samples,
    SpokenWord,
)

Facts = list[InputFrame]
"""Events in order, as the frames that report them."""

CHARACTERS_PER_S = 15.0
"""Assumed speed of text without word times: 180 words a minute of five characters (the typist's word) each."""


@dataclass(slots=True)
class _QueuedResponse:
    """Buffered audio and words of one response. Counts are in samples at the ledger's rate."""

    number: int
    recorded: bool = False
    """Already reported as finished: this audio came later and gets no second record."""
    ended: bool = False
    """No more audio will come."""
    appended: int = 0
    played: int = 0
    waiting: deque[Samples] = field(default_factory=deque[Samples])
    """Unplayed chunks."""
    words: list[tuple[int, str, bool]] = field(default_factory=list[tuple[int, str, bool]])
    """First sample and text of each word; True if it joins the previous word without a space."""

    def append(self, samples: Samples, words: Sequence[SpokenWord], rate: int) -> None:
        for word in words:
            self.words.append((self.appended + round(word.start_ms * rate / 1000), word.text, word.glued))
        if len(samples):
            self.waiting.append(samples)
            self.appended += len(samples)

    def take(self, count: int) -> Samples:
        """Remove and return at most ``count`` samples; at least one if any is left."""
        samples = self.waiting.popleft()
        if len(samples) > count:
            self.waiting.appendleft(samples[count:])
            samples = samples[:count]
        self.played += len(samples)
        return samples

    def text(self) -> str:
        return _joined([(text, glued) for _, text, glued in self.words])

    def heard_text(self, rate: int) -> str:
        """Return the words that have started to sound. Several words in one `SpokenWord` share its time."""
        if not self.words:
            return ""
        start, text, _ = self.words[-1]
        end = self.appended
        if not self.ended:
            # More audio of the last word may still arrive.
            end = max(end, start + round(len(text) * rate / CHARACTERS_PER_S))
        ends = [*(start for start, _, _ in self.words[1:]), end]
        return _joined(
            [
                (started_words(text, self.played - start, end - start), glued)
                for (start, text, glued), end in zip(self.words, ends, strict=True)
                if start < self.played
            ]
        )


def _joined(words: list[tuple[str, bool]]) -> str:
    """Join words with spaces, except those glued to the word before."""
    return "".join(text if glued or not number else f" {text}" for number, (text, glued) in enumerate(words))


def started_words(text: str, played: float, length: float) -> str:
    """Return the words of a text that have started after ``played`` of its ``length``, estimated by the number of
    characters: at least the first word.
    """
    words = list(re.finditer(r"\S+", text))
    if len(words) < 2:
        return text
    first, characters = words[0].start(), words[-1].end() - words[0].start()
    heard = max(1, sum((word.start() - first) * length < played * characters for word in words))
    return text if heard == len(words) else text[: words[heard - 1].end()]


class PlayoutLedger:
    """Buffers audio in playing order and records how much of it was played.

    Responses are played one after another, by number. The first frame of a newer response ends all older ones; their
    later audio is refused, so an older response is never heard after a newer one. Each response that has started to
    arrive gets exactly one record, `ResponsePlayedFrame` or `ResponseCutFrame`.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.buffered = 0
        """Number of samples waiting to be played."""
        self.speaking = 0
        """Number of the response being heard; 0: none."""
        # bound: the responses without a record; a newer one ends those before it
        self._queue: deque[_QueuedResponse] = deque()
        self._newest = 0
        self._cut = 0

    @property
    def buffered_ms(self) -> float:
        """Audio waiting to be played, in ms."""
        return self.buffered * 1000.0 / self.sample_rate

    @property
    def more_comes(self) -> bool:
        """True if the newest buffered response has not ended."""
        return bool(self._queue) and not self._queue[-1].ended

    def may_lead(self, count: int) -> bool:
        """True if the next ``count`` samples may be taken before they are due.

        False if they span the end of one response and the start of the next, which is reported when heard; false
        too if fewer samples are buffered and more of the response may come.
        """
        if not self._queue:
            return False
        head = self._queue[0]
        rest = head.appended - head.played
        return rest >= count or (rest > 0 and head.ended and len(self._queue) == 1)

    def __bool__(self) -> bool:
        """True if any response has no record yet."""
        return bool(self._queue)

    def has(self, through: int) -> bool:
        """True if a response up to number ``through`` has no record yet."""
        return bool(self._queue) and self._queue[0].number <= through

    def append(self, response: int, samples: Samples, words: Sequence[SpokenWord] = ()) -> bool:
        """Add audio of a response (mono, at the ledger's rate), and the words that start in it.

        False if it comes too late: the response was cut, or a newer one has started to arrive.
        """
        entry = self._entry(response)
        if entry is None:
            return False
        entry.append(samples, words, self.sample_rate)
        self.buffered += len(samples)
        return True

    def end(self, response: int) -> bool:
        """Mark a response as complete. False if it already was, or was cut."""
        entry = self._entry(response, ending=True)
        if entry is None:
            return False
        entry.ended = True
        return True

    def _entry(self, response: int, *, ending: bool = False) -> _QueuedResponse | None:
        if response <= self._cut or response < self._newest:
            return None
        last = self._queue[-1] if self._queue else None
        if last is not None and last.number == response:
            return last
        recorded = response == self._newest
        if recorded and ending:
            return None
        for older in self._queue:
            older.ended = True
        self._newest = response
        self._queue.append(_QueuedResponse(response, recorded))
        return self._queue[-1]

    def take(self, count: int) -> tuple[Samples, Facts]:
        """Return the next ``count`` samples (padded with silence), and the events that playing them causes.

        A response ends with the first `take` after its last sample was taken (or with the same one, if the next
        response follows in it), so "stopped" is reported when the bot is silent and not before.
        """
        facts = self.settle()
        parts: list[Samples] = []
        missing = count
        while missing and self.buffered:
            head = self._queue[0]
            if not head.waiting:
                facts += self._finish()
                continue
            if self.speaking != head.number:
                self.speaking = head.number
                facts.append(BotStartedSpeakingFrame(head.number))
            part = head.take(missing)
            parts.append(part)
            missing -= len(part)
            self.buffered -= len(part)
        if len(parts) == 1 and not missing:
            return parts[0], facts
        return np.concatenate([*parts, np.zeros(missing, np.int16)]), facts

    def settle(self) -> Facts:
        """Record the responses that were played to their end. Call it when the samples taken last have been played."""
        facts: Facts = []
        while self._queue and self._queue[0].ended and not self._queue[0].waiting:
            facts += self._finish()
        return facts

    def stall(self) -> Facts:
        """Report that the current response has run out of audio and counts as silent."""
        return self._stopped(self.speaking)

    def pause(self) -> Facts:
        """Report a pause: finished responses are recorded, and the current one stops sounding."""
        return self.settle() + self.stall()

    def cut(self, through: int, reason: str = "interrupted", unheard: int = 0) -> Facts:
        """Drop the buffered audio of responses up to number ``through``; their later audio is refused.

        ``unheard``: number of the samples taken last that will not be heard.

        Returns a `ResponseCutFrame` for each response that had started to arrive and was not finished.
        """
        self._cut = max(self._cut, through)
        facts: Facts = []
        while self._queue and self._queue[0].number <= through:
            entry = self._queue.popleft()
            self.buffered -= entry.appended - entry.played
            entry.played = max(0, entry.played - unheard)
            if not entry.recorded:
                heard = entry.heard_text(self.sample_rate)
                facts.append(ResponseCutFrame(entry.number, self._ms(entry.played), heard, reason))
            facts += self._stopped(entry.number)
        return facts

    def _finish(self) -> Facts:
        entry = self._queue.popleft()
        facts: Facts = []
        if not entry.recorded:
            # All words, also those that start in the last ms or in audio that was never made.
            facts.append(ResponsePlayedFrame(entry.number, self._ms(entry.played), entry.text()))
        return facts + self._stopped(entry.number)

    def _stopped(self, response: int) -> Facts:
        if not self.speaking or response != self.speaking:
            return []
        self.speaking = 0
        return [BotStoppedSpeakingFrame(response)]

    def _ms(self, samples: int) -> float:
        return samples * 1000.0 / self.sample_rate

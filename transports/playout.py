"""The playout ledger: which samples of which response have been played, and which words they carried.

Pure: no clock, no asyncio, nothing but numbers. What the bot has said, for its history and for the session's
state, is what this ledger says was heard, and nothing else. See `docs/design/playout.md`.
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
"""Playout facts in order, as frames."""

CHARACTERS_PER_S = 15.0
"""How fast text is spoken that has no times: 180 words a minute of five characters, the typist's word, each."""


@dataclass(slots=True)
class _QueuedResponse:
    """Audio of one response. Counts are in samples at the ledger's rate."""

    number: int
    recorded: bool = False
    """Its end was told already: this is sound that came after it, and gets no second record."""
    ended: bool = False
    """Nothing more will come."""
    appended: int = 0
    played: int = 0
    waiting: deque[Samples] = field(default_factory=deque[Samples])
    """Audio that is not played yet."""
    words: list[tuple[int, str, bool]] = field(default_factory=list[tuple[int, str, bool]])
    """First sample and text of each, and whether it is glued to the one before."""

    def append(self, samples: Samples, words: Sequence[SpokenWord], rate: int) -> None:
        for word in words:
            self.words.append((self.appended + round(word.start_ms * rate / 1000), word.text, word.glued))
        if len(samples):
            self.waiting.append(samples)
            self.appended += len(samples)

    def take(self, count: int) -> Samples:
        """At most ``count`` samples, in order; at least one where there is one."""
        samples = self.waiting.popleft()
        if len(samples) > count:
            self.waiting.appendleft(samples[count:])
            samples = samples[:count]
        self.played += len(samples)
        return samples

    def text(self) -> str:
        return _joined([(text, glued) for _, text, glued in self.words])

    def heard_text(self, rate: int) -> str:
        """The words that have begun to sound. Several in one `SpokenWord` share the time until the next begins."""
        if not self.words:
            return ""
        start, text, _ = self.words[-1]
        end = self.appended
        if not self.ended:
            # Its audio is still coming, so there may be more of it than is here.
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
    """Words as a text; a word may be glued to the one before."""
    return "".join(text if glued or not number else f" {text}" for number, (text, glued) in enumerate(words))


def started_words(text: str, played: float, length: float) -> str:
    """The words of a text that have begun when ``played`` of its ``length`` were played, by their letters: at least
    the first.
    """
    words = list(re.finditer(r"\S+", text))
    if len(words) < 2:
        return text
    first, characters = words[0].start(), words[-1].end() - words[0].start()
    heard = max(1, sum((word.start() - first) * length < played * characters for word in words))
    return text if heard == len(words) else text[: words[heard - 1].end()]


class PlayoutLedger:
    """Buffers what is to be played, in order, and keeps account of what was.

    Responses are played one after another, by number. Whatever comes of a newer one ends those before it, and
    audio of an older one that comes then is refused: an older response is never heard after a newer. Of each
    response that has begun to arrive there is exactly one record, `ResponsePlayedFrame` or
    `ResponseCutFrame`.
    """

    def __init__(self, sample_rate: int) -> None:
        self.sample_rate = sample_rate
        self.buffered = 0
        """Samples that wait to be played."""
        self.speaking = 0
        """The response that is being heard; 0 for none."""
        # bound: the responses of which there is no record yet; a newer one ends those before it
        self._queue: deque[_QueuedResponse] = deque()
        self._newest = 0
        self._cut = 0

    @property
    def buffered_ms(self) -> float:
        """How much waits to be played, in ms."""
        return self.buffered * 1000.0 / self.sample_rate

    @property
    def more_comes(self) -> bool:
        """True where the last response in the ledger has not ended."""
        return bool(self._queue) and not self._queue[-1].ended

    def may_lead(self, count: int) -> bool:
        """Return True where the next ``count`` samples may be taken ahead of their due time.

        False where one response would end and the next begin in them: that is reported when it is heard. False also
        where fewer samples are there, and more of the response may follow.
        """
        if not self._queue:
            return False
        head = self._queue[0]
        rest = head.appended - head.played
        return rest >= count or (rest > 0 and head.ended and len(self._queue) == 1)

    def __bool__(self) -> bool:
        """Return True where some audio has no record yet."""
        return bool(self._queue)

    def has(self, through: int) -> bool:
        """Return True where audio of a response up to ``through`` has no record yet."""
        return bool(self._queue) and self._queue[0].number <= through

    def append(self, response: int, samples: Samples, words: Sequence[SpokenWord] = ()) -> bool:
        """Add audio of a response (mono, at the ledger's rate), and the words that begin in it.

        False where it comes too late: the response is cut, or a newer one has begun to arrive.
        """
        entry = self._entry(response)
        if entry is None:
            return False
        entry.append(samples, words, self.sample_rate)
        self.buffered += len(samples)
        return True

    def end(self, response: int) -> bool:
        """Nothing more comes of a response. False where that is old news."""
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
        """The next ``count`` samples to be played (silence after the last), and what that makes true.

        A response is over with the first `take` after its last sample was taken (or with the same one, where
        the next response goes on in it), so "stopped" is said when it is silent and not before.
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
        """Close the account of what has ended and been played. Call it when what was taken last is over."""
        facts: Facts = []
        while self._queue and self._queue[0].ended and not self._queue[0].waiting:
            facts += self._finish()
        return facts

    def stall(self) -> Facts:
        """The response that is being heard has had no audio for so long that it counts as silent."""
        return self._stopped(self.speaking)

    def pause(self) -> Facts:
        """Nothing is taken for a while: what has been played is over, and what is being heard is not any more."""
        return self.settle() + self.stall()

    def cut(self, through: int, reason: str = "interrupted", unheard: int = 0) -> Facts:
        """Drop what waits of the responses up to ``through``; later audio of them is refused.

        ``unheard``: how many of the samples that were taken last were not heard, and will not be.

        One `ResponseCutFrame` for each that had begun to arrive and was not over.
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
            # To its end: the words too that begin in the last ms, or in a sound that was never made.
            facts.append(ResponsePlayedFrame(entry.number, self._ms(entry.played), entry.text()))
        return facts + self._stopped(entry.number)

    def _stopped(self, response: int) -> Facts:
        if not self.speaking or response != self.speaking:
            return []
        self.speaking = 0
        return [BotStoppedSpeakingFrame(response)]

    def _ms(self, samples: int) -> float:
        return samples * 1000.0 / self.sample_rate

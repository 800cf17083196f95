"""A session without a pipeline: `step`, a small model of an output that answers it, and time that the test moves."""

from __future__ import annotations

import operator
from collections import deque
from dataclasses import dataclass, fields
from typing import Any

from voxline.pipeline.clock import NS_PER_MS
from voxline.pipeline.frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    Frame,
    ResponseCutFrame,
    ResponsePlayedFrame,
)
from voxline.processors.session import limits
from voxline.processors.session.commands import SessionStartedFrame, SessionTimerFrame
from voxline.processors.session.data import SessionData, SpeechOutcome
from voxline.processors.session.settings import SessionSettings
from voxline.processors.session.step import step
from voxline.processors.session.transition import Ask, Cancel, Effect, Pause, Resolve, Say

RECORDS = ("user", "bot", "lifecycle", "history")
NAMES = tuple(
    name
    for field in fields(SessionData)
    for name in (
        [f"{field.name}.{part.name}" for part in fields(getattr(SessionData(), field.name))]
        if field.name in RECORDS
        else [field.name]
    )
)
"""The names of all facts, as in ``user.speaking``."""
FACTS = operator.attrgetter(*NAMES)
WORD_MS = 100
"""How long a word of the bot takes."""
AT_ONCE = 3
"""How often something may be due that follows from what was due at the same moment."""


@dataclass(slots=True)
class Sound:
    """A response, as the output has it."""

    number: int
    arrived: bool = False
    waits: bool = False
    """It has samples, and the output is paused."""
    playing_ns: int | None = None
    """Since when it is heard."""
    heard_ns: int = 0
    over: bool = False

    @property
    def words(self) -> str:
        """The words that have begun."""
        return " ".join(f"{self.number}.{n}" for n in range(-(-self.heard_ns // (WORD_MS * NS_PER_MS))))


class Driven:
    """`step`, and what carries its effects out. ``answers``: whether the output says what became of what was cut."""

    def __init__(self, *, answers: bool = True, start: bool = True, **settings: Any) -> None:
        self.data = SessionData(SessionSettings(**settings))
        self.now_ns = 0
        self.answers = answers
        self.paused = False
        self.sounds: list[Sound] = []
        self.cut_through = 0
        self.effects: list[Effect] = []
        self.outcomes: dict[int, list[SpeechOutcome]] = {}
        self.events: list[str] = []
        self._facts: deque[Frame] = deque()
        if start:
            self.happens(SessionStartedFrame(0))

    # --- events -----------------------------------------------------------------------------------------------------

    def happens(self, *events: Frame) -> None:
        """Let something happen, and the output answer."""
        for event in events:
            self._decide(event)
            while self._facts:
                self._decide(self._facts.popleft())

    def _decide(self, event: Frame) -> None:
        self.events.append(f"{self.now_ns / NS_PER_MS:g} ms {event}")
        before = self.data
        facts = FACTS(before)
        self.data, effects = step(before, event, self.now_ns, len(self.sounds) + 1)
        assert all(map(operator.is_, FACTS(before), facts)), f"the argument was changed:\n{self.story()}"
        self.check(event, effects)
        for effect in effects:
            self.effects.append(effect)
            self._do(effect)

    def check(self, event: Frame, effects: tuple[Effect, ...]) -> None:
        """After each step: for a test to say more."""

    def _do(self, effect: Effect) -> None:
        match effect:
            case Ask(response) | Say(response):
                self.sounds.append(Sound(len(self.sounds) + 1))
                assert response == len(self.sounds), f"the step named another response:\n{self.story()}"
            case Cancel(response):
                self.cuts(response)
            case Pause(on):
                self._pause(on=on)
            case Resolve(handle, outcome):
                self.outcomes.setdefault(handle, []).append(outcome)
            case _:
                pass

    # --- time -------------------------------------------------------------------------------------------------------

    def passes(self, ms: float) -> None:
        """Let time pass, and do what falls due."""
        end_ns = self.now_ns + round(ms * NS_PER_MS)
        while (due_ns := limits.next_ns(self.data)) is not None and due_ns <= end_ns:
            self.now_ns = max(self.now_ns, due_ns)
            self.due()
        self.now_ns = end_ns

    def due(self) -> None:
        """Do what is due by now. What follows may be due at once; but not in circles."""
        for _ in range(AT_ONCE):
            self.happens(SessionTimerFrame())
            again_ns = limits.next_ns(self.data)
            if again_ns is None or again_ns > self.now_ns:
                return
        raise AssertionError(f"what was due is due again and again:\n{self.story()}")

    def story(self) -> str:
        """What has happened."""
        blank = SessionData()
        changed = [
            f"  {name} = {fact!r}"
            for name, fact, usual in zip(NAMES, FACTS(self.data), FACTS(blank), strict=True)
            if fact != usual and name not in ("settings", "history.transitions", "history.counts")
        ]
        return "\n".join([*self.events[-40:], *changed])

    # --- the output -------------------------------------------------------------------------------------------------

    @property
    def newest(self) -> Sound | None:
        """The newest response, if the output may still play it."""
        last = self.sounds[-1] if self.sounds else None
        return None if last is None or last.over or last.number <= self.cut_through else last

    def plays(self) -> None:
        """Samples of the newest response come: they are heard, unless the output is paused."""
        sound = self.newest
        if sound is None:
            return
        sound.arrived = True
        if self.paused:
            sound.waits = True
        elif sound.playing_ns is None:
            sound.playing_ns = self.now_ns
            self.happens(BotStartedSpeakingFrame(sound.number))

    def stalls(self) -> None:
        """Nothing more has come, for now."""
        sound = self.newest
        if sound is not None and sound.playing_ns is not None:
            self._silent(sound)
            self._settle()

    def finishes(self) -> None:
        """The newest response is over: nothing more of it comes, and what came was played."""
        sound = self.newest
        if sound is None or (self.paused and sound.waits):
            return
        sound.over = True
        playing = sound.playing_ns is not None
        self._count(sound)
        self._facts.append(ResponsePlayedFrame(sound.number, sound.heard_ns / NS_PER_MS, sound.words))
        if playing:
            self._facts.append(BotStoppedSpeakingFrame(sound.number))
        self._settle()

    def cuts(self, through: int, reason: str = "") -> None:
        """Drop everything of the responses up to ``through``; the answer comes after the step."""
        assert through > 0, f"nothing has the number {through}:\n{self.story()}"
        assert through > self.cut_through, f"{through} was cut already:\n{self.story()}"
        self.cut_through = through
        for sound in self.sounds:
            if sound.number <= through and not sound.over:
                sound.over = True
                playing = sound.playing_ns is not None
                self._count(sound)
                sound.waits = False
                if sound.arrived and self.answers:
                    self._facts.append(ResponseCutFrame(sound.number, sound.heard_ns / NS_PER_MS, sound.words, reason))
                if playing:
                    self._facts.append(BotStoppedSpeakingFrame(sound.number))

    def cut_by_others(self, through: int) -> None:
        """Another processor cuts the bot: everybody is told."""
        self.cuts(through, "elsewhere")
        self._facts.appendleft(CancelFrame(through, "elsewhere"))
        self._settle()

    def _pause(self, *, on: bool) -> None:
        assert on is not self.paused, f"paused or resumed twice:\n{self.story()}"
        self.paused = on
        sound = self.newest
        if sound is None:
            return
        if on and sound.playing_ns is not None:
            self._silent(sound)
            sound.waits = True
        elif not on and sound.waits:
            sound.waits = False
            sound.playing_ns = self.now_ns
            self._facts.append(BotStartedSpeakingFrame(sound.number))

    def _silent(self, sound: Sound) -> None:
        self._count(sound)
        self._facts.append(BotStoppedSpeakingFrame(sound.number))

    def _count(self, sound: Sound) -> None:
        if sound.playing_ns is not None:
            sound.heard_ns += self.now_ns - sound.playing_ns
            sound.playing_ns = None

    def _settle(self) -> None:
        while self._facts:
            self._decide(self._facts.popleft())

"""What has to hold after every step of a session, whatever happened."""

from __future__ import annotations

from collections import Counter
from typing import Any

from voxline.pipeline.frames import Frame, TranscriptionFrame
from voxline.processors.session import limits
from voxline.processors.session.commands import (
    CloseCommandFrame,
    MessageCommandFrame,
    SayCommandFrame,
    SessionStoppedFrame,
)
from voxline.processors.session.data import SessionData, TurnKind
from voxline.processors.session.events import BotSaid, Interrupted, SessionClosed, SpeechIgnored, StateChanged, UserSaid
from voxline.processors.session.limits import Due
from voxline.processors.session.states import ALLOWED, OVER, State
from voxline.processors.session.transition import Ask, Cancel, Commit, Effect, EndPipeline, Resolve, Tell, state_of
from voxline.tests.processors.session.conversation import Driven

CUTS = ("the user spoke", "the user asked for it", "the turn went on", "the user typed", "button", "elsewhere")
"""Why a response is cut that is an interruption."""


class Checked(Driven):
    """A session that is looked at after every step."""

    def __init__(self, **settings: Any) -> None:
        self.handles: set[int] = set()
        self.cut: set[int] = set()
        """Responses that were cut."""
        self.interrupted: set[int] = set()
        """Those of them that have a record coming."""
        self.recorded: list[int] = []
        self.bot_said: list[int] = []
        self.user_said: dict[int, str] = {}
        """By the number of the turn; the last that was said of it."""
        self.ignored: list[str] = []
        self.tokens: list[str] = []
        """The transcripts, each of which has a word of its own."""
        self.stood = State.IDLE
        self.ends = 0
        super().__init__(**settings)

    def check(self, event: Frame, effects: tuple[Effect, ...]) -> None:
        data = self.data
        match event:
            case SayCommandFrame() | MessageCommandFrame():
                self.handles.add(event.handle)
            case TranscriptionFrame():
                self.tokens += [word for word in event.text.split() if word.startswith("#")]
            case _:
                pass
        for effect in effects:
            self._check_effect(effect)
        self._check_data(data)

    def _check_effect(self, effect: Effect) -> None:
        match effect:
            case Resolve(handle):
                assert handle in self.handles, f"nobody has the handle {handle}"
                assert handle not in self.outcomes, f"handle {handle} is resolved twice:\n{self.story()}"
            case Cancel(response, reason):
                assert response not in self.cut, f"{response} is cut twice:\n{self.story()}"
                self.cut.add(response)
                if reason in CUTS:
                    self.interrupted.add(response)
            case Commit(response):
                assert response not in self.cut, f"{response} is wanted after it was cut:\n{self.story()}"
                assert response == len(self.sounds)
            case Ask(_, messages, speculative):
                assert self.stood not in (*OVER, State.CLOSING)
                assert speculative or any(one.role == "user" for one in messages)
            case Tell(StateChanged(_, was, becomes)):
                assert was is self.stood
                assert becomes in ALLOWED[was]
                self.stood = becomes
            case Tell(Interrupted(_, record)):
                assert record.at_ns <= self.now_ns
                assert record.response not in self.recorded, f"{record.response} has two records:\n{self.story()}"
                self.recorded.append(record.response)
            case Tell(BotSaid(_, turn)):
                assert not self.bot_said or turn.response > self.bot_said[-1], f"out of order:\n{self.story()}"
                assert turn.text == self.sounds[turn.response - 1].words or turn.text == ""
                assert turn.start_ns <= turn.end_ns <= self.now_ns, f"{turn}\n{self.story()}"
                assert turn.latency_ms is None or turn.latency_ms >= 0
                self.bot_said.append(turn.response)
            case Tell(UserSaid(_, turn)):
                assert turn.start_ns <= turn.end_ns <= self.now_ns, f"{turn}\n{self.story()}"
                self.user_said[turn.id] = turn.text
            case Tell(SpeechIgnored(_, text)):
                self.ignored.append(text)
            case Tell(SessionClosed()):
                assert self.stood in OVER
                self.ends += 1
            case EndPipeline():
                assert self.ends == 0
            case _:
                pass

    def _check_data(self, data: SessionData) -> None:
        response = data.bot.response
        assert data.state is state_of(data), f"the state is not what the facts make:\n{self.story()}"
        assert data.state is self.stood
        if response is not None:
            assert response.number not in self.cut, f"{response.number} was cut, and goes on:\n{self.story()}"
            assert response.guess is None or not response.handles
        silenced = data.lifecycle.paused_ns is not None or data.bot.tentative is not None
        guessing = response is not None and response.guess is not None
        wanted = data.lifecycle.closed_ns is None and (silenced or guessing)
        assert data.bot.playout_paused is wanted or (data.bot.playout_paused and data.bot.cut is not None), self.story()
        if data.bot.tentative is not None:
            assert response is not None
            assert data.bot.tentative.response == response.number
            assert not guessing
        assert data.bot.cut is None or response is None
        answers = [turn.response for turn in data.history.turns if turn.kind is TurnKind.ASSISTANT]
        assert answers == sorted(set(answers)), f"history has a response twice, or out of order:\n{self.story()}"
        ids = [turn.id for turn in data.history.turns]
        assert len(ids) == len(set(ids)), f"two turns have one number:\n{self.story()}"
        counts = data.history.counts
        assert counts.interrupted() == len(self.recorded)
        assert min(counts.user_audio_ms, counts.user_chars, counts.bot_chars, counts.bot_audio_ms) >= 0
        said = counts.of(TurnKind.USER_AUDIO) + counts.of(TurnKind.USER_TEXT)
        assert said <= len(self.user_said)
        assert len({one.response for one in data.history.interruptions}) == len(data.history.interruptions)

    # --- at the end -------------------------------------------------------------------------------------------------

    def comes_to_rest(self) -> None:
        """Nothing more comes from outside: in bounded time, nothing waits any more."""
        began_ns = self.now_ns
        for _ in range(2_000):
            sound = self.newest
            rules = self.data.settings
            if sound is not None and (sound.playing_ns is not None or rules.response_timeout_s is None):
                self.finishes()
            waits = {due for _, due in limits.deadlines(self.data)} - {Due.KEEP_ALIVE, Due.DURATION}
            due_ns = limits.next_ns(self.data)
            if due_ns is None or not waits:
                if (
                    rules.response_timeout_s is None
                    and self.newest is not None
                    and self.data.lifecycle.paused_ns is None
                ):
                    continue
                break
            self.now_ns = max(self.now_ns, due_ns)
            self.due()
        else:
            raise AssertionError(f"it comes to no rest:\n{self.story()}")
        assert (self.now_ns - began_ns) / 1e9 < 3_600, f"it takes too long to come to rest:\n{self.story()}"
        data = self.data
        assert data.state in (State.IDLE, State.LISTENING, State.WAITING_FOR_INPUT, State.PAUSED, *OVER), self.story()
        if data.state is not State.PAUSED:
            assert data.bot.response is None, self.story()
            assert data.state is State.IDLE or not data.bot.queue, self.story()
            assert data.bot.cut is None
            assert data.bot.tentative is None
            assert not data.bot.playout_paused

    def ended(self) -> None:
        """The pipeline ends; then everything is accounted for."""
        over = self.data.state in OVER
        self.happens(SessionStoppedFrame("ended"))
        assert self.data.state in OVER
        assert self.ends == 1
        assert not self.data.bot.playout_paused
        missing = self.handles - set(self.outcomes)
        assert not missing, f"nobody was told what became of {missing}:\n{self.story()}"
        assert all(len(outcomes) == 1 for outcomes in self.outcomes.values())
        assert set(self.recorded) == self.interrupted, f"{self.recorded} {self.interrupted}\n{self.story()}"
        assert all(effect.response > 0 for effect in self.effects if isinstance(effect, Cancel | Commit))
        after = len(self.effects)
        self.happens(CloseCommandFrame("again"), SayCommandFrame("too late", 9_999))
        assert len(self.effects) == after + 1
        assert limits.next_ns(self.data) is None
        assert over or self.data.lifecycle.ending is not None

    def check_the_words(self) -> None:
        """No transcript is lost, and none is there twice. For sessions that nobody closed or left."""
        turn = self.data.user.turn
        over = [text for number, text in self.user_said.items() if turn.reopened is None or turn.reopened.id != number]
        found = Counter(
            word
            for text in [*over, *self.ignored, *turn.words, *(text for text, _ in self.data.user.overlap)]
            for word in text.split()
            if word.startswith("#")
        )
        assert found == Counter(self.tokens), f"{found} {self.tokens}\n{self.story()}"

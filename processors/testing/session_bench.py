"""A bench for sessions: a whole conversation by events, without audio, in virtual time.

::

    async def test_the_bot_stops_when_it_is_told_to():
        async with SessionBench(["Once upon a time there was a rover."], model_ms=300) as bench:
            await bench.user_says("tell me a story")
            await bench.quiet(1_200)
            await bench.user_says("stop")
            assert bench.states[-3:] == [State.SPEAKING, State.INTERRUPTED, State.PROCESSING]
            assert bench.said == [...]

::

    user_says(), types() --> | SessionController --> ScriptedLLM --> ScriptedPlayout | --> what is heard
                             '-------- virtual time: `await bench.quiet(ms)` --------'

The session controller is the real one. The model is `ScriptedLLM`, and `ScriptedPlayout` stands for voice and output:
it says a word every ``word_ms``, and tells what was heard as an output does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Self

from ...pipeline.clock import NS_PER_MS, TimerHandle
from ...pipeline.frames import (
    UPSTREAM,
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    CancelFrame,
    Frame,
    InputEndedFrame,
    InputFrame,
    InputTextFrame,
    InterimTranscriptionFrame,
    PausePlayoutFrame,
    ResponseCutFrame,
    ResponseEndFrame,
    ResponsePlayedFrame,
    ResumePlayoutFrame,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from ...pipeline.processor import FrameProcessor, handles
from ...pipeline.testing.harness import Bench
from ..session.controller import SessionController
from ..session.events import SessionEvent
from ..session.session import Session
from ..session.speech_handle import SpeechHandle
from ..session.states import State
from .scripted import ScriptedLLM


@dataclass(frozen=True, slots=True)
class WordFrame(InputFrame):
    """`ScriptedPlayout`'s own: a word is over."""

    number: int


@dataclass(slots=True)
class _Response:
    number: int
    words: list[str] = field(default_factory=list[str])
    heard: int = 0
    """How many words have begun to sound."""
    heard_ns: int = 0
    ended: bool = False
    told: bool = False
    """That it speaks."""


class ScriptedPlayout(FrameProcessor):
    """Voice and output in one, without audio: every word of the bot takes ``word_ms``, ``delay_ms`` after its text.

    Says what an output says: `BotStartedSpeakingFrame`, `BotStoppedSpeakingFrame`, and of each response one
    `ResponsePlayedFrame` or `ResponseCutFrame`. A word counts as heard when it has begun.
    """

    def __init__(self, *, word_ms: float = 300) -> None:
        self._word_ns = round(word_ms * NS_PER_MS)
        self._queue: list[_Response] = []
        self._newest = self._cut = 0
        self._paused = False
        self._timer: TimerHandle | None = None
        self._number = 0
        self._ends_ns: int | None = None
        """When the word that is heard ends."""
        self._left_ns = 0
        """What is left of a word that was paused."""

    def idle(self) -> bool:
        """False while it has something to say."""
        return not self._queue

    @handles(TextFrame)
    async def speak(self, frame: TextFrame) -> None:
        """Say a text, after what was to be said before."""
        entry = self._entry()
        if entry is not None:
            entry.words += frame.text.split()
            await self._go_on()

    @handles(ResponseEndFrame)
    async def finish(self, frame: ResponseEndFrame) -> None:
        """Nothing more comes of it."""
        entry = self._entry()
        if entry is not None:
            entry.ended = True
            await self._go_on()

    def _entry(self) -> _Response | None:
        number = self.open_response()
        if number <= self._cut or number < self._newest:
            return None
        if not self._queue or self._queue[-1].number != number:
            for older in self._queue:
                older.ended = True
            self._queue.append(_Response(number))
            self._newest = number
        return self._queue[-1]

    @handles(WordFrame)
    async def next_word(self, frame: WordFrame) -> None:
        """A word is over."""
        if frame.number == self._number and not self._paused:
            self._queue[0].heard_ns += self._word_ns
            self._ends_ns = None
            await self._go_on()

    async def _go_on(self) -> None:
        while self._queue and not self._paused and self._ends_ns is None:
            entry = self._queue[0]
            if entry.heard < len(entry.words):
                entry.heard += 1
                await self._tell_speaking(entry)
                self._wait(self._word_ns)
                return
            if not entry.ended:
                await self._tell_silent(entry)
                return
            self._queue.pop(0)
            text = " ".join(entry.words)
            await self.push(ResponsePlayedFrame(entry.number, entry.heard_ns / NS_PER_MS, text), UPSTREAM)
            await self._tell_silent(entry)

    async def _tell_speaking(self, entry: _Response) -> None:
        if not entry.told:
            entry.told = True
            await self.push(BotStartedSpeakingFrame(entry.number), UPSTREAM)

    async def _tell_silent(self, entry: _Response) -> None:
        if entry.told:
            entry.told = False
            await self.push(BotStoppedSpeakingFrame(entry.number), UPSTREAM)

    def _wait(self, ns: int) -> None:
        self._number += 1
        self._ends_ns = self.now_ns + ns
        self._timer = self.post_at(self._ends_ns, WordFrame(self._number))

    @handles(PausePlayoutFrame)
    async def pause(self, frame: PausePlayoutFrame) -> None:
        """Be silent, in the middle of a word if need be."""
        self._paused = True
        self._left_ns = 0
        if self._ends_ns is not None:
            self._left_ns, self._ends_ns = self._ends_ns - self.now_ns, None
            self._number += 1
            await self._tell_silent(self._queue[0])

    @handles(ResumePlayoutFrame)
    async def resume(self, frame: ResumePlayoutFrame) -> None:
        """Say the rest of it."""
        self._paused = False
        if self._left_ns:
            await self._tell_speaking(self._queue[0])
            self._wait(self._left_ns)
            self._left_ns = 0
        else:
            await self._go_on()

    @handles(CancelFrame)
    async def cut(self, frame: CancelFrame) -> None:
        """Silence, and what was heard."""
        self._cut = max(self._cut, frame.response)
        while self._queue and self._queue[0].number <= frame.response:
            entry = self._queue.pop(0)
            part_ns = self._word_ns - self._left_ns if self._left_ns else 0
            if self._ends_ns is not None:
                part_ns = self._word_ns - (self._ends_ns - self.now_ns)
                self._ends_ns = None
                self._number += 1
            self._left_ns = 0
            heard_ms = (entry.heard_ns + part_ns) / NS_PER_MS
            text = " ".join(entry.words[: entry.heard])
            await self.push(ResponseCutFrame(entry.number, heard_ms, text, frame.reason), UPSTREAM)
            await self._tell_silent(entry)
        await self._go_on()


class SessionBench:
    """A session on a bench. ``answers``, ``model_ms`` and ``between_ms`` go to `ScriptedLLM`, ``word_ms`` to
    `ScriptedPlayout`, everything else to `SessionController`: settings, ``mute``, ``endpointing``.

    ``start_ms`` and ``stop_ms``: how long the speech detector takes; ``stt_ms``: the recogniser, after that.
    """

    def __init__(
        self,
        answers: Sequence[Any] = (),
        *,
        model_ms: float = 200,
        between_ms: float = 0,
        word_ms: float = 300,
        start_ms: float = 200,
        stop_ms: float = 500,
        stt_ms: float = 50,
        model: FrameProcessor | None = None,
        **session: Any,
    ) -> None:
        self.controller = SessionController(**session)
        self.session: Session = self.controller.session
        self.model = model or ScriptedLLM(answers, delay_ms=model_ms, between_ms=between_ms)
        self.playout = ScriptedPlayout(word_ms=word_ms)
        self.events: list[SessionEvent] = []
        """All that the session told."""
        self._start_ms, self._stop_ms, self._stt_ms = start_ms, stop_ms, stt_ms
        self._bench = Bench([self.controller, self.model, self.playout])
        self.session.on(SessionEvent, self.events.append)

    async def __aenter__(self) -> Self:
        await self._bench.start()
        await self._bench.settle()
        return self

    async def __aexit__(self, kind: object, error: object, trace: object) -> None:
        failures = await self._bench.stop()
        if failures and error is None:
            raise self._bench.failure("\n".join(failures))

    @property
    def states(self) -> list[State]:
        """The states that the session has stood in, in order."""
        return [State.IDLE, *(transition.after for transition in self.session.transitions)]

    @property
    def said(self) -> list[tuple[str, str]]:
        """What was said, as (role, text); what was cut ends with "...": ``("assistant", "Once upon...")``."""
        said = [one for one in self.session.history if one.role != "tool" and not one.calls]
        return [(one.role, one.text + "..." * one.cut) for one in said]

    @property
    def now_ms(self) -> float:
        """Virtual ms since the bench was made."""
        return self._bench.now_ms

    @property
    def errors(self) -> list[Any]:
        """Errors that processors had. Who looks at them has dealt with them."""
        return [*self._bench.errors]

    async def send(self, *frames: Frame) -> None:
        """Any frame, at the controller."""
        await self._bench.send(*frames)

    async def tell(self, *frames: Frame, response: int = 0) -> None:
        """Any frame from the bot's side: a tool, usage, an error; ``response``: of which response it is."""
        await self._bench.send(*frames, direction=UPSTREAM, response=response)

    async def settle(self) -> None:
        """After something was asked of the session: return when nothing is left to do at this moment."""
        await self._bench.settle()

    async def quiet(self, ms: float) -> None:
        """Let time pass."""
        await self._bench.advance(ms)

    async def until(self, wanted: State | SpeechHandle | Callable[[], bool], within_ms: float = 60_000) -> None:
        """Let time pass until the session stands in a state, a speech is decided, or a function says True.

        Fails after ``within_ms`` of virtual time. (``await handle`` and `Session.wait_for` only wait, and nobody would
        move the clock.)
        """
        __tracebackhide__ = True
        limit_ms = self.now_ms + within_ms
        while not self._is_there(wanted):
            due_ns = self._bench.clock.next_ns
            if due_ns is None or due_ns / NS_PER_MS > limit_ms:
                raise self._bench.failure(f"There was no {wanted} within {within_ms:g} ms; {self.session.state}.")
            await self.quiet(max(0.0, due_ns / NS_PER_MS - self.now_ms))

    def _is_there(self, wanted: State | SpeechHandle | Callable[[], bool]) -> bool:
        if isinstance(wanted, State):
            return self.session.state is wanted
        return wanted.done if isinstance(wanted, SpeechHandle) else wanted()

    async def user_starts(self) -> None:
        """The user speaks; the detector is sure ``start_ms`` later, which is when this returns."""
        await self.quiet(self._start_ms)
        await self.send(UserStartedSpeakingFrame(self._start_ms))

    async def user_stops(self, text: str | None = None) -> None:
        """The user is silent; the detector is sure ``stop_ms`` later, and the words come after that."""
        await self.quiet(self._stop_ms)
        await self.send(UserStoppedSpeakingFrame(self._stop_ms))
        if text is not None:
            await self.quiet(self._stt_ms)
            await self.send(TranscriptionFrame(text))

    async def user_says(self, text: str, *, speech_ms: float | None = None, interims: Sequence[str] = ()) -> None:
        """The user says something, from the first sound until its transcript is there.

        ``speech_ms``: 300 for each word, if not given. ``interims`` come evenly while they speak. An empty text is
        speech of which nothing was understood: a cough.
        """
        length_ms = 300 * max(1, len(text.split())) if speech_ms is None else speech_ms
        if length_ms < self._start_ms:
            await self.quiet(length_ms)
            return
        await self.user_starts()
        rest_ms = length_ms - self._start_ms
        for interim in interims:
            await self.quiet(rest_ms / len(interims))
            await self.send(InterimTranscriptionFrame(interim))
        if not interims:
            await self.quiet(rest_ms)
        await self.user_stops(text)

    async def types(self, text: str) -> None:
        """The user types."""
        await self.send(InputTextFrame(text))

    async def hangs_up(self) -> None:
        """Nothing more comes from the user."""
        await self.send(InputEndedFrame())

"""A bench for sessions: a complete conversation of events, without audio, in virtual time.

::

    async def test_the_bot_stops():
        async with SessionBench(["Once upon a time there was a rover."], model_ms=300) as bench:
            await bench.user_says("tell me a story")
            await bench.advance(1_200)
            await bench.user_says("stop")
            assert bench.states[-3:] == [State.SPEAKING, State.INTERRUPTED, State.PROCESSING]
            assert bench.said == [...]

::

    user_says(), types() --> | SessionController --> ScriptedLLM --> ScriptedPlayout | --> heard text
                             '-------- virtual time: `await bench.advance(ms)` --------'

The session controller is the real one. The model is `ScriptedLLM`, and `ScriptedPlayout` stands for voice and output:
it says a word every ``word_ms``, and reports the heard text as an output does.
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
    """Timer of `ScriptedPlayout`: a word has ended."""

    number: int


@dataclass(slots=True)
class _PlayoutEntry:
    number: int
    words: list[str] = field(default_factory=list[str])
    heard: int = 0
    """Number of words that have started."""
    heard_ns: int = 0
    ended: bool = False
    announced: bool = False
    """`BotStartedSpeakingFrame` was pushed."""


class ScriptedPlayout(FrameProcessor):
    """Voice and output in one, without audio: every word of the bot takes ``word_ms``, ``delay_ms`` after its text.

    Reports as an output does: `BotStartedSpeakingFrame`, `BotStoppedSpeakingFrame`, and one `ResponsePlayedFrame` or
    `ResponseCutFrame` for each response. A word counts as heard from its start.
    """

    def __init__(self, *, word_ms: float = 300) -> None:
        self._word_ns = round(word_ms * NS_PER_MS)
        self._queue: list[_PlayoutEntry] = []
        self._newest = self._cut = 0
        self._paused = False
        self._timer: TimerHandle | None = None
        self._number = 0
        self._ends_ns: int | None = None
        """End of the current word."""
        self._left_ns = 0
        """Rest of a word that was paused."""

    def idle(self) -> bool:
        """False while words are queued."""
        return not self._queue

    @handles(TextFrame)
    async def speak(self, frame: TextFrame) -> None:
        """Queue a text."""
        entry = self._entry()
        if entry is not None:
            entry.words += frame.text.split()
            await self._play()

    @handles(ResponseEndFrame)
    async def finish(self, frame: ResponseEndFrame) -> None:
        """Note that the response has no more text."""
        entry = self._entry()
        if entry is not None:
            entry.ended = True
            await self._play()

    def _entry(self) -> _PlayoutEntry | None:
        number = self.open_response()
        if number <= self._cut or number < self._newest:
            return None
        if not self._queue or self._queue[-1].number != number:
            for older in self._queue:
                older.ended = True
            self._queue.append(_PlayoutEntry(number))
            self._newest = number
        return self._queue[-1]

    @handles(WordFrame)
    async def next_word(self, frame: WordFrame) -> None:
        """Play the next word."""
        if frame.number == self._number and not self._paused:
            self._queue[0].heard_ns += self._word_ns
            self._ends_ns = None
            await self._play()

    async def _play(self) -> None:
        while self._queue and not self._paused and self._ends_ns is None:
            entry = self._queue[0]
            if entry.heard < len(entry.words):
                entry.heard += 1
                await self._report_speaking(entry)
                self._wait(self._word_ns)
                return
            if not entry.ended:
                await self._report_silent(entry)
                return
            self._queue.pop(0)
            text = " ".join(entry.words)
            await self.push(ResponsePlayedFrame(entry.number, entry.heard_ns / NS_PER_MS, text), UPSTREAM)
            await self._report_silent(entry)

    async def _report_speaking(self, entry: _PlayoutEntry) -> None:
        if not entry.announced:
            entry.announced = True
            await self.push(BotStartedSpeakingFrame(entry.number), UPSTREAM)

    async def _report_silent(self, entry: _PlayoutEntry) -> None:
        if entry.announced:
            entry.announced = False
            await self.push(BotStoppedSpeakingFrame(entry.number), UPSTREAM)

    def _wait(self, ns: int) -> None:
        self._number += 1
        self._ends_ns = self.now_ns + ns
        self._timer = self.post_at(self._ends_ns, WordFrame(self._number))

    @handles(PausePlayoutFrame)
    async def pause(self, frame: PausePlayoutFrame) -> None:
        """Pause at once, within a word if necessary."""
        self._paused = True
        self._left_ns = 0
        if self._ends_ns is not None:
            self._left_ns, self._ends_ns = self._ends_ns - self.now_ns, None
            self._number += 1
            await self._report_silent(self._queue[0])

    @handles(ResumePlayoutFrame)
    async def resume(self, frame: ResumePlayoutFrame) -> None:
        """Play the rest."""
        self._paused = False
        if self._left_ns:
            await self._report_speaking(self._queue[0])
            self._wait(self._left_ns)
            self._left_ns = 0
        else:
            await self._play()

    @handles(CancelFrame)
    async def cut(self, frame: CancelFrame) -> None:
        """Drop the queue, and report the heard part of each response."""
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
            await self._report_silent(entry)
        await self._play()


class SessionBench:
    """A session with a scripted model and output.

    ``answers``, ``model_ms`` and ``between_ms`` go to `ScriptedLLM`, ``word_ms`` to `ScriptedPlayout`. Everything
    else goes to `SessionController`: settings, ``mute``, ``endpointing``.

    ``start_ms`` and ``stop_ms``: delays of the speech detector; ``stt_ms``: delay of the recogniser after that.
    ``controller``: a controller with its own settings.
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
        controller: SessionController | None = None,
        **session: Any,
    ) -> None:
        self.controller = SessionController(**session) if controller is None else controller
        self.session: Session = self.controller.session
        self.model = model or ScriptedLLM(answers, delay_ms=model_ms, between_ms=between_ms)
        self.playout = ScriptedPlayout(word_ms=word_ms)
        self.events: list[SessionEvent] = []
        """All events of the session."""
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
        """All states of the session, in order."""
        return [State.IDLE, *(transition.after for transition in self.session.transitions)]

    @property
    def said(self) -> list[tuple[str, str]]:
        """The history as (role, text). A cut text ends with "...": ``("assistant", "Once upon...")``."""
        said = [one for one in self.session.history if one.role != "tool" and not one.calls]
        return [(one.role, one.text + "..." * one.cut) for one in said]

    @property
    def now_ms(self) -> float:
        """Virtual time since the start of the bench, in ms."""
        return self._bench.now_ms

    @property
    def errors(self) -> list[Any]:
        """Errors of processors. Reading them marks them as expected."""
        return [*self._bench.errors]

    async def send(self, *frames: Frame) -> None:
        """Send frames to the controller, downstream."""
        await self._bench.send(*frames)

    async def send_upstream(self, *frames: Frame, response: int = 0) -> None:
        """Send frames from the bot's side, such as tool calls and errors. ``response``: number of their response."""
        await self._bench.send(*frames, direction=UPSTREAM, response=response)

    async def settle(self) -> None:
        """Return when everything at this moment of virtual time is done, such as a command to the session."""
        await self._bench.settle()

    async def advance(self, ms: float) -> None:
        """Advance virtual time."""
        await self._bench.advance(ms)

    async def until(self, wanted: State | SpeechHandle | Callable[[], bool], within_ms: float = 60_000) -> None:
        """Advance virtual time until the session is in a state, a speech has an outcome, or a function returns True.

        Fails after ``within_ms`` of virtual time. (``await handle`` and `Session.wait_for` wait without advancing the
        clock.)
        """
        __tracebackhide__ = True
        limit_ms = self.now_ms + within_ms
        while not self._reached(wanted):
            next_ns = self._bench.clock.next_ns
            if next_ns is None or next_ns / NS_PER_MS > limit_ms:
                raise self._bench.failure(
                    f"{wanted} was not reached within {within_ms:g} ms; the session is {self.session.state}."
                )
            await self.advance(max(0.0, next_ns / NS_PER_MS - self.now_ms))

    def _reached(self, wanted: State | SpeechHandle | Callable[[], bool]) -> bool:
        if isinstance(wanted, State):
            return self.session.state is wanted
        return wanted.done if isinstance(wanted, SpeechHandle) else wanted()

    async def user_starts(self) -> None:
        """Start the user's speech. Returns ``start_ms`` later, when the detector reports it."""
        await self.advance(self._start_ms)
        await self.send(UserStartedSpeakingFrame(self._start_ms))

    async def user_stops(self, text: str | None = None) -> None:
        """End the user's speech. The detector reports it ``stop_ms`` later, and the transcript follows."""
        await self.advance(self._stop_ms)
        await self.send(UserStoppedSpeakingFrame(self._stop_ms))
        if text is not None:
            await self.advance(self._stt_ms)
            await self.send(TranscriptionFrame(text))

    async def user_says(self, text: str, *, speech_ms: float | None = None, interims: Sequence[str] = ()) -> None:
        """Let the user say a text. Returns when its transcript has come.

        ``speech_ms``: length of the speech, by default 300 for each word. ``interims`` are spread over the speech. An
        empty text is speech without an intelligible word, such as a cough.
        """
        length_ms = 300 * max(1, len(text.split())) if speech_ms is None else speech_ms
        if length_ms < self._start_ms:
            await self.advance(length_ms)
            return
        await self.user_starts()
        rest_ms = length_ms - self._start_ms
        for interim in interims:
            await self.advance(rest_ms / len(interims))
            await self.send(InterimTranscriptionFrame(interim))
        if not interims:
            await self.advance(rest_ms)
        await self.user_stops(text)

    async def types(self, text: str) -> None:
        """Send typed text of the user."""
        await self.send(InputTextFrame(text))

    async def hangs_up(self) -> None:
        """End the user's input."""
        await self.send(InputEndedFrame())

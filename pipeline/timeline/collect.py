"""Timelines: speech of the user and the bot over time, and the duration of each step of a turn.

`TimelineTap` collects a `Timeline` from the frames of a running worker. ::

    tap = TimelineTap()
    worker.add_tap(tap)
    await worker.run()
    for turn in tap.timeline.turns: print(turn.text, turn.steps)

`text.py` prints a timeline, `plot.py` draws it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from ..clock import NS_PER_MS
from ..frames import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Direction,
    Frame,
    InputAudioFrame,
    InputFrame,
    OutputAudioFrame,
    ResponseCutFrame,
    ResponsePlayedFrame,
    TextFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from ..processor import Hop
from ..taps import Tap

FACTS = (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    ResponseCutFrame,
    ResponsePlayedFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
STEPS = ("silence", "transcript", "reply", "voice", "heard")
"""Steps of a turn, in order.

``silence``: from the end of speech until the detector reports it. ``transcript``: until the transcript arrives.
``reply``: until the first text of the response. ``voice``: until its first audio. ``heard``: until that audio is
played.
"""


@dataclass(slots=True)
class UserSpeech:
    """One stretch of the user's speech. Times in ms since the start of the timeline."""

    start_ms: float
    end_ms: float | None = None
    """None while the user speaks."""
    text: str = ""


@dataclass(slots=True)
class HeardResponse:
    """A response of the bot, as far as the user heard it. Times in ms since the start of the timeline."""

    response: int
    start_ms: float | None = None
    """Time of the first sample played; None if none was played."""
    end_ms: float | None = None
    pauses: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """Start and end of each silence inside the response: the user seemed to speak, or audio was late."""
    words: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """Each word with its start, in ms of the response's audio."""
    made_ms: float = 0.0
    """Length of the audio that was synthesised."""
    text: str = ""
    """Text that was heard."""
    cut: bool = False
    reason: str = ""
    """Reason for the cut."""

    def at_ms(self, audio_ms: float) -> float:
        """Convert a position in the audio to the time at which it was heard."""
        at = (self.start_ms or 0.0) + audio_ms
        for begin, end in self.pauses:
            if at >= begin:
                at += end - begin
        return at


@dataclass(slots=True)
class TimedTurn:
    """One turn of the user, with the time at which each step of the response ended, in ms since the start."""

    number: int
    speech: list[UserSpeech] = field(default_factory=list[UserSpeech])
    texts: list[str] = field(default_factory=list[str])
    speech_end_ms: float | None = None
    stopped_ms: float | None = None
    transcript_ms: float | None = None
    reply_ms: float | None = None
    voice_ms: float | None = None
    heard_ms: float | None = None
    answer: HeardResponse | None = None

    @property
    def text(self) -> str:
        """Transcripts of the turn, joined."""
        return " ".join(filter(None, self.texts))

    @property
    def steps(self) -> dict[str, float] | None:
        """Duration of each of `STEPS`, in ms; None if no response was heard."""
        marks = (
            self.speech_end_ms,
            self.stopped_ms,
            self.transcript_ms,
            self.reply_ms,
            self.voice_ms,
            self.heard_ms,
        )
        times = [mark for mark in marks if mark is not None]
        if len(times) < len(marks):
            return None
        return {step: times[n + 1] - times[n] for n, step in enumerate(STEPS)}

    @property
    def voice_to_voice_ms(self) -> float | None:
        """Time from the user's last sound to the bot's first."""
        if self.heard_ms is None or self.speech_end_ms is None:
            return None
        return self.heard_ms - self.speech_end_ms


@dataclass(slots=True)
class Timeline:
    """Speech, responses and turns of a conversation. Time 0 is the first audio from the user."""

    duration_ms: float = 0.0
    speech: list[UserSpeech] = field(default_factory=list[UserSpeech])
    responses: list[HeardResponse] = field(default_factory=list[HeardResponse])
    turns: list[TimedTurn] = field(default_factory=list[TimedTurn])


OnFact = Callable[[Timeline, Frame], None]


class TimelineTap(Tap):
    """Collect a `Timeline`. ``on_fact`` is called once for each of `FACTS`, after the timeline has taken it in."""

    def __init__(self, on_fact: OnFact | None = None) -> None:
        self.timeline = Timeline()
        self._on_fact = on_fact
        self._start_ns: int | None = None
        self._answers: dict[int, HeardResponse] = {}
        self._turn: TimedTurn | None = None
        """Turn that has no response yet."""
        self._last: dict[type[Frame], Frame] = {}

    # --- tap ---------------------------------------------------------------------------------------

    def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
        """Note audio of the user, and text and audio of responses: the kernel knows their response only here."""
        if isinstance(frame, InputAudioFrame):
            if self._start_ns is None:
                self._start_ns = t_ns - round(frame.duration_ms * NS_PER_MS)
        elif isinstance(frame, TextFrame):
            self._made(response, self._ms(t_ns), None)
        elif isinstance(frame, OutputAudioFrame):
            self._made(response, self._ms(t_ns), frame)
        self.timeline.duration_ms = self._ms(t_ns)

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        """Note a fact. It is seen once for each processor that handles it."""
        if isinstance(frame, InputFrame) and isinstance(frame, FACTS):
            self._fact(t_ns, frame)

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        """Note a fact that no processor handles."""
        if isinstance(frame, InputFrame) and isinstance(frame, FACTS):
            self._fact(t_ns, frame)

    # --- events --------------------------------------------------------------------------------

    def _ms(self, t_ns: int) -> float:
        if self._start_ns is None:
            self._start_ns = t_ns
        return (t_ns - self._start_ns) / NS_PER_MS

    def _fact(self, t_ns: int, frame: InputFrame) -> None:
        if self._last.get(type(frame)) is frame:
            return
        self._last[type(frame)] = frame
        now = self._ms(t_ns)
        match frame:
            case UserStartedSpeakingFrame():
                self.timeline.speech.append(UserSpeech(now - frame.onset_ms))
            case UserStoppedSpeakingFrame():
                self._stopped(now, now - frame.silence_ms)
            case TranscriptionFrame():
                self._understood(now, frame.text)
            case BotStartedSpeakingFrame():
                self._heard(now, frame.response)
            case BotStoppedSpeakingFrame():
                self._answer(frame.response).end_ms = now
            case ResponsePlayedFrame():
                self._answer(frame.response).text = frame.heard_text
            case ResponseCutFrame():
                answer = self._answer(frame.response)
                answer.text, answer.cut, answer.reason = frame.heard_text, True, frame.reason
            case _:
                return
        if self._on_fact is not None:
            self._on_fact(self.timeline, frame)

    def _stopped(self, now: float, end_ms: float) -> None:
        turn = self._open_turn()
        turn.stopped_ms, turn.speech_end_ms = now, end_ms
        if self.timeline.speech:
            self.timeline.speech[-1].end_ms = end_ms
            turn.speech.append(self.timeline.speech[-1])

    def _understood(self, now: float, text: str) -> None:
        turn = self._open_turn()
        turn.texts.append(text)
        turn.transcript_ms = now
        if turn.speech:
            turn.speech[-1].text = text

    def _made(self, response: int, now: float, audio: OutputAudioFrame | None) -> None:
        answer = self._answer(response)
        if self._turn is not None and self._turn.answer is None and self._turn.transcript_ms is not None:
            self._turn.answer = answer
        turn = self._turn_of(answer)
        if turn is not None and turn.reply_ms is None:
            turn.reply_ms = now
        if audio is not None:
            if turn is not None and turn.voice_ms is None:
                turn.voice_ms = now
            answer.words += [(answer.made_ms + word.start_ms, word.text) for word in audio.words]
            answer.made_ms += audio.duration_ms

    def _heard(self, now: float, response: int) -> None:
        answer = self._answer(response)
        if answer.start_ms is None:
            answer.start_ms = now
        elif answer.end_ms is not None:
            answer.pauses.append((answer.end_ms, now))
            answer.end_ms = None
            self._was_no_turn()
        turn = self._turn_of(answer)
        if turn is not None and turn.heard_ms is None:
            turn.heard_ms = now
            if turn is self._turn:
                self._turn = None

    def _was_no_turn(self) -> None:
        """Drop the open turn: the bot resumed, so the sound was a cough or an "uh huh"."""
        if self._turn is not None and self._turn.answer is None:
            self.timeline.turns.remove(self._turn)
            self._turn = None

    def _answer(self, response: int) -> HeardResponse:
        answer = self._answers.get(response)
        if answer is None:
            answer = self._answers[response] = HeardResponse(response)
            self.timeline.responses.append(answer)
        return answer

    def _turn_of(self, answer: HeardResponse) -> TimedTurn | None:
        return next((turn for turn in reversed(self.timeline.turns) if turn.answer is answer), None)

    def _open_turn(self) -> TimedTurn:
        if self._turn is None or self._turn.answer is not None:
            self._turn = TimedTurn(len(self.timeline.turns) + 1)
            self.timeline.turns.append(self._turn)
        return self._turn

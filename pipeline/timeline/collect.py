"""Who spoke when, what was heard of it, and where the time of each turn went.

`TalkTap` collects it from a running worker, out of the facts that flow past; `Talk` is what it collects. ::

    tap = TalkTap()
    worker.add_tap(tap)
    await worker.run()
    for turn in tap.talk.turns: print(turn.text, turn.steps)

`narrator.py` tells a talk in lines, `picture.py` draws it.
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
"""What a turn's time goes into, one after the other.

``silence``: from the end of speech until the detector is sure. ``transcript``: until the words are there.
``reply``: until the first text of the answer. ``voice``: until its first audio. ``heard``: until that is
played.
"""


@dataclass(slots=True)
class Speech:
    """A stretch of the user's speech. Times in ms since the talk began."""

    start_ms: float
    end_ms: float | None = None
    """None while they speak."""
    text: str = ""


@dataclass(slots=True)
class Answer:
    """A response of the bot, as far as it was heard. Times in ms since the talk began."""

    response: int
    start_ms: float | None = None
    """When its first sample was played; None where none was."""
    end_ms: float | None = None
    pauses: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    """From when until when it was silent in between: the user seemed to speak, or its audio was late."""
    words: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    """Each word, and when it begins, in ms of the response's audio."""
    made_ms: float = 0.0
    """How much audio was made."""
    text: str = ""
    """What was heard."""
    cut: bool = False
    reason: str = ""
    """Why it was cut."""

    def at_ms(self, audio_ms: float) -> float:
        """When that moment of its audio was heard."""
        at = (self.start_ms or 0.0) + audio_ms
        for begin, end in self.pauses:
            if at >= begin:
                at += end - begin
        return at


@dataclass(slots=True)
class Turn:
    """What the user said, and when each step of the answer to it was done, in ms since the talk began."""

    number: int
    speech: list[Speech] = field(default_factory=list[Speech])
    texts: list[str] = field(default_factory=list[str])
    speech_end_ms: float | None = None
    stopped_ms: float | None = None
    transcript_ms: float | None = None
    reply_ms: float | None = None
    voice_ms: float | None = None
    heard_ms: float | None = None
    answer: Answer | None = None

    @property
    def text(self) -> str:
        """All that was understood."""
        return " ".join(filter(None, self.texts))

    @property
    def steps(self) -> dict[str, float] | None:
        """How long each of `STEPS` took, in ms; None where nothing was heard of an answer."""
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
        """From the user's last sound to the bot's first."""
        if self.heard_ms is None or self.speech_end_ms is None:
            return None
        return self.heard_ms - self.speech_end_ms


@dataclass(slots=True)
class Talk:
    """A conversation, in time. It begins with the first sound of the user's side."""

    duration_ms: float = 0.0
    speech: list[Speech] = field(default_factory=list[Speech])
    answers: list[Answer] = field(default_factory=list[Answer])
    turns: list[Turn] = field(default_factory=list[Turn])


Told = Callable[[Talk, Frame], None]


class TalkTap(Tap):
    """Collects a `Talk`. ``told`` is called with each fact, once, when the talk knows it."""

    def __init__(self, told: Told | None = None) -> None:
        self.talk = Talk()
        self._told = told
        self._begun_ns: int | None = None
        self._answers: dict[int, Answer] = {}
        self._turn: Turn | None = None
        """The turn that has no answer yet."""
        self._last: dict[type[Frame], Frame] = {}

    # --- what it sees ---------------------------------------------------------------------------------------

    def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
        """What was made for a response says so here."""
        if isinstance(frame, InputAudioFrame):
            if self._begun_ns is None:
                self._begun_ns = t_ns - round(frame.duration_ms * NS_PER_MS)
        elif isinstance(frame, TextFrame):
            self._made(response, self._ms(t_ns), None)
        elif isinstance(frame, OutputAudioFrame):
            self._made(response, self._ms(t_ns), frame)
        self.talk.duration_ms = self._ms(t_ns)

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        """Facts come by here, once for each processor that names them."""
        if isinstance(frame, InputFrame) and isinstance(frame, FACTS):
            self._fact(t_ns, frame)

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        """And those that no processor names, here."""
        if isinstance(frame, InputFrame) and isinstance(frame, FACTS):
            self._fact(t_ns, frame)

    # --- what it makes of it --------------------------------------------------------------------------------

    def _ms(self, t_ns: int) -> float:
        if self._begun_ns is None:
            self._begun_ns = t_ns
        return (t_ns - self._begun_ns) / NS_PER_MS

    def _fact(self, t_ns: int, frame: InputFrame) -> None:
        if self._last.get(type(frame)) is frame:
            return
        self._last[type(frame)] = frame
        now = self._ms(t_ns)
        match frame:
            case UserStartedSpeakingFrame():
                self.talk.speech.append(Speech(now - frame.onset_ms))
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
        if self._told is not None:
            self._told(self.talk, frame)

    def _stopped(self, now: float, end_ms: float) -> None:
        turn = self._open_turn()
        turn.stopped_ms, turn.speech_end_ms = now, end_ms
        if self.talk.speech:
            self.talk.speech[-1].end_ms = end_ms
            turn.speech.append(self.talk.speech[-1])

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
        """The bot goes on after what was said over it: that was a cough, or an "uh huh"."""
        if self._turn is not None and self._turn.answer is None:
            self.talk.turns.remove(self._turn)
            self._turn = None

    def _answer(self, response: int) -> Answer:
        answer = self._answers.get(response)
        if answer is None:
            answer = self._answers[response] = Answer(response)
            self.talk.answers.append(answer)
        return answer

    def _turn_of(self, answer: Answer) -> Turn | None:
        return next((turn for turn in reversed(self.talk.turns) if turn.answer is answer), None)

    def _open_turn(self) -> Turn:
        if self._turn is None or self._turn.answer is not None:
            self._turn = Turn(len(self.talk.turns) + 1)
            self.talk.turns.append(self._turn)
        return self._turn

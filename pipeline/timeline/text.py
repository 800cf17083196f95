"""Tells a conversation in lines, as it happens: who said what, and how long each step of the answer took."""

from __future__ import annotations

import contextlib
import statistics
from pathlib import Path
from typing import TextIO

from ..frames import (
    BotStartedSpeakingFrame,
    Frame,
    ResponseCutFrame,
    ResponsePlayedFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
)
from .collect import Answer, Talk, Turn

WIDTH = 78
NOT_UNDERSTOOD = "(not understood)"


class Narrator:
    """Writes to ``out``. `told` is for a `TalkTap`.

    ``live``: keep a last line that says who is speaking, which the next one takes the place of; for a
    terminal. ``in_time``: False where the clock is virtual: then the steps of a turn take no time, and
    nothing is said of them.
    """

    def __init__(self, out: TextIO, *, live: bool = False, in_time: bool = True, bot: str = "bot") -> None:
        self._out = out
        self._live = live
        self._in_time = in_time
        self._bot = bot
        self._wide = max(len("caller"), len(bot))

    def told(self, talk: Talk, frame: Frame) -> None:
        """One more fact."""
        match frame:
            case UserStartedSpeakingFrame():
                self._status("caller speaks ...")
            case TranscriptionFrame():
                speech = talk.speech[-1] if talk.speech else None
                at_ms = speech.start_ms if speech is not None else talk.duration_ms
                self._line(at_ms, "caller", frame.text or NOT_UNDERSTOOD)
            case BotStartedSpeakingFrame():
                turn = _turn_of(talk, frame.response)
                if not self._resumed(talk, frame.response) and turn is not None:
                    self._steps(turn)
                self._status(f"{self._bot} speaks ...")
            case ResponsePlayedFrame() | ResponseCutFrame():
                answer = next(answer for answer in talk.answers if answer.response == frame.response)
                self._answer(answer)
            case _:
                pass

    def summary(self, talk: Talk) -> None:
        """The middle of what the turns took."""
        self._status("")
        answered = [turn for turn in talk.turns if turn.steps is not None]
        cuts = sum(answer.cut for answer in talk.answers)
        parts = [
            _count(len(answered), "answer"),
            _count(cuts, "interruption"),
            f"{talk.duration_ms / 1000:.1f} s",
        ]
        if answered and self._in_time:
            whole = statistics.median(turn.voice_to_voice_ms or 0.0 for turn in answered)
            rest = statistics.median(_without_silence(turn) for turn in answered)
            parts.append(f"voice to voice {whole:.0f} ms, {rest:.0f} ms without the silence (medians)")
        said = ", ".join(parts)
        self._write(said)

    def wrote(self, path: Path, what: str) -> None:
        """Where something was written, and what it is."""
        self._write(f"  {path!s:28}  {what}")

    # --- the lines ------------------------------------------------------------------------------------------

    def _answer(self, answer: Answer) -> None:
        text = answer.text
        if answer.cut:
            text = f"{text} -- ({answer.reason})".strip()
        if text:
            self._line(answer.start_ms or 0.0, self._bot, text)

    def _resumed(self, talk: Talk, response: int) -> bool:
        answer = next(answer for answer in talk.answers if answer.response == response)
        if answer.pauses:
            begin, end = answer.pauses[-1]
            self._line(begin, self._bot, f"(silent for {(end - begin) / 1000:.1f} s, and goes on)")
        return bool(answer.pauses)

    def _steps(self, turn: Turn) -> None:
        steps = turn.steps
        if steps is None or not self._in_time:
            return
        parts = " + ".join(f"{step} {ms:.0f}" for step, ms in steps.items())
        self._write(f"{'':8}  {'':{self._wide}}  [{parts} = {turn.voice_to_voice_ms:.0f} ms]")

    def _line(self, at_ms: float, who: str, text: str) -> None:
        self._write(f"{at_ms / 1000:6.2f} s  {who:{self._wide}}  {text}")

    def _write(self, line: str) -> None:
        self._put(f"\r\x1b[K{line}\n" if self._live else f"{line}\n")

    def _status(self, text: str) -> None:
        if self._live:
            self._put(f"\r\x1b[K{text[:WIDTH]}")

    def _put(self, text: str) -> None:
        # Nobody may be listening any more (`| head`), which is no reason for the conversation to end.
        with contextlib.suppress(OSError):
            self._out.write(text)
            self._out.flush()


def _turn_of(talk: Talk, response: int) -> Turn | None:
    return next((turn for turn in talk.turns if turn.answer and turn.answer.response == response), None)


def _without_silence(turn: Turn) -> float:
    return (turn.voice_to_voice_ms or 0.0) - (turn.steps or {}).get("silence", 0.0)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

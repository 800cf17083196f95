"""Print a conversation line by line while it runs: each utterance, and the duration of each step of a turn."""

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
from .collect import HeardResponse, TimedTurn, Timeline

WIDTH = 78
NOT_UNDERSTOOD = "(not understood)"


class TimelinePrinter:
    """Print to ``out``. Pass `add` to a `TimelineTap`.

    ``live``: keep a status line with the current speaker, which the next line overwrites; for a terminal.
    ``in_time``: False with a virtual clock. The steps of a turn take no virtual time and are not printed.
    """

    def __init__(self, out: TextIO, *, live: bool = False, in_time: bool = True, bot: str = "bot") -> None:
        self._out = out
        self._live = live
        self._in_time = in_time
        self._bot = bot
        self._wide = max(len("caller"), len(bot))

    def add(self, timeline: Timeline, frame: Frame) -> None:
        """Print the line for one fact, if it has one."""
        match frame:
            case UserStartedSpeakingFrame():
                self._status("caller speaks ...")
            case TranscriptionFrame():
                speech = timeline.speech[-1] if timeline.speech else None
                at_ms = speech.start_ms if speech is not None else timeline.duration_ms
                self._line(at_ms, "caller", frame.text or NOT_UNDERSTOOD)
            case BotStartedSpeakingFrame():
                turn = _turn_of(timeline, frame.response)
                if not self._resumed(timeline, frame.response) and turn is not None:
                    self._steps(turn)
                self._status(f"{self._bot} speaks ...")
            case ResponsePlayedFrame() | ResponseCutFrame():
                answer = next(answer for answer in timeline.responses if answer.response == frame.response)
                self._answer(answer)
            case _:
                pass

    def summary(self, timeline: Timeline) -> None:
        """Print the number of responses and interruptions, and the median durations."""
        self._status("")
        answered = [turn for turn in timeline.turns if turn.steps is not None]
        cuts = sum(answer.cut for answer in timeline.responses)
        parts = [
            _count(len(answered), "answer"),
            _count(cuts, "interruption"),
            f"{timeline.duration_ms / 1000:.1f} s",
        ]
        if answered and self._in_time:
            whole = statistics.median(turn.voice_to_voice_ms or 0.0 for turn in answered)
            rest = statistics.median(_without_silence(turn) for turn in answered)
            parts.append(f"voice to voice {whole:.0f} ms, {rest:.0f} ms without the silence (medians)")
        said = ", ".join(parts)
        self._write(said)

    def wrote(self, path: Path, what: str) -> None:
        """Print the path of a file that was written, and its content."""
        self._write(f"  {path!s:28}  {what}")

    # --- the lines ------------------------------------------------------------------------------------------

    def _answer(self, answer: HeardResponse) -> None:
        text = answer.text
        if answer.cut:
            text = f"{text} -- ({answer.reason})".strip()
        if text:
            self._line(answer.start_ms or 0.0, self._bot, text)

    def _resumed(self, timeline: Timeline, response: int) -> bool:
        answer = next(answer for answer in timeline.responses if answer.response == response)
        if answer.pauses:
            begin, end = answer.pauses[-1]
            self._line(begin, self._bot, f"(silent for {(end - begin) / 1000:.1f} s, and goes on)")
        return bool(answer.pauses)

    def _steps(self, turn: TimedTurn) -> None:
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
        # The reader may be gone (`| head`). The conversation continues without it.
        with contextlib.suppress(OSError):
            self._out.write(text)
            self._out.flush()


def _turn_of(timeline: Timeline, response: int) -> TimedTurn | None:
    return next((turn for turn in timeline.turns if turn.answer and turn.answer.response == response), None)


def _without_silence(turn: TimedTurn) -> float:
    return (turn.voice_to_voice_ms or 0.0) - (turn.steps or {}).get("silence", 0.0)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"

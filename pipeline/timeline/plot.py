"""Draw a timeline: speech over time, and the steps of each turn. Matplotlib is imported when `draw` is called."""

from __future__ import annotations

import importlib.util
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import MissingExtraError, VoxlineError
from .collect import STEPS, HeardResponse, TimedTurn, Timeline, UserSpeech

INCHES_PER_S = 0.48
NARROWEST, WIDEST = 11.0, 100.0
"""Limits of the picture's width, in inches."""
INCHES_PER_CHAR = 0.067
"""Width of a character of the labels, with some room for a gap between two labels."""
MARGIN_S = 1.2
"""Room at the right for the label of the last response."""
TURNS_SHOWN = 60

CALLER, BOT, CUT, GREY = "#3b6ea5", "#d9822b", "#c0392b", "#8a8f98"
STEP_COLOURS: dict[str, str] = dict(zip(STEPS, ("#cfd4da", "#3b6ea5", "#7a5aa6", "#d9822b", "#3d8b5f"), strict=True))


def require_matplotlib() -> None:
    """Raise `MissingExtraError` if matplotlib is not installed."""
    if importlib.util.find_spec("matplotlib") is None:
        raise MissingExtraError("The timeline picture", "matplotlib", "demo")


def draw(timeline: Timeline, path: Path, *, title: str = "", bot: str = "bot") -> None:
    """Write the picture of a timeline to a PNG file. Raises `VoxlineError` if it cannot be written."""
    require_matplotlib()
    # The Agg canvas needs no window system and leaves the caller's pyplot alone.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    turns = [turn for turn in timeline.turns if turn.speech_end_ms is not None][:TURNS_SHOWN]
    seconds = max(timeline.duration_ms / 1000, 1.0) + MARGIN_S
    width = min(WIDEST, max(NARROWEST, seconds * INCHES_PER_S + 1.2))
    timed = any(turn.steps is not None and any(turn.steps[step] >= 1 for step in STEPS[1:]) for turn in turns)
    lanes, bars = 3.1, 0.9 + 0.3 * max(1, len(turns)) if timed else 0.0
    figure: Any = Figure(figsize=(width, lanes + bars + 0.5), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(
        2 if timed else 1, 2, height_ratios=(lanes, bars) if timed else (1,), width_ratios=(3, 2)
    )
    _lanes(figure.add_subplot(grid[0, :]), timeline, seconds, width / seconds, bot)
    if timed:  # In virtual time the steps take no time.
        _bars(figure.add_subplot(grid[1, 0]), turns, STEPS, "From the caller's last sound to the bot's first")
        # The silence that ends a turn is far longer than the other steps, so those get a second scale.
        _bars(figure.add_subplot(grid[1, 1]), turns, STEPS[1:], "The same without the silence that ends a turn")
    if title:
        figure.suptitle(title, fontsize=11, x=0.01, ha="left")
    try:
        figure.savefig(path)
    except OSError as error:
        raise VoxlineError(f"{path} cannot be written: {error.strerror or error}.") from error


# --- who spoke when -----------------------------------------------------------------------------------------


def _lanes(axes: Any, timeline: Timeline, seconds: float, inches_per_s: float, bot: str) -> None:
    axes.set(xlim=(0, seconds), ylim=(0.2, 3.4), yticks=(2.55, 1.45), xlabel="s")
    axes.set_yticklabels(["caller", bot])
    axes.set_title("Who spoke when", fontsize=9, loc="left")
    axes.grid(axis="x", color="#e6e8eb", linewidth=0.6)
    axes.set_axisbelow(True)
    starts = [speech.start_ms / 1000 for speech in timeline.speech]
    for number, speech in enumerate(timeline.speech):
        room = ([*starts, seconds][number + 1] - starts[number]) * inches_per_s
        _speech(axes, speech, seconds, room)
    responses = [answer for answer in timeline.responses if answer.start_ms is not None]
    starts = [(answer.start_ms or 0.0) / 1000 for answer in responses]
    for number, answer in enumerate(responses):
        room = ([*starts, seconds][number + 1] - starts[number]) * inches_per_s
        _answer(axes, answer, seconds, room)
    _tidy(axes)


def _speech(axes: Any, speech: UserSpeech, seconds: float, inches: float) -> None:
    start = speech.start_ms / 1000
    end = seconds if speech.end_ms is None else speech.end_ms / 1000
    axes.broken_barh([(start, end - start)], (2.3, 0.5), facecolors=CALLER)
    _words(axes, start, 2.9, speech.text or "(not understood)", inches, "bottom", CALLER)


def _answer(axes: Any, answer: HeardResponse, seconds: float, inches: float) -> None:
    start = (answer.start_ms or 0.0) / 1000
    end = seconds if answer.end_ms is None else answer.end_ms / 1000
    edges = [start, *(ms / 1000 for pause in answer.pauses for ms in pause), end]
    heard = [(edges[n], edges[n + 1] - edges[n]) for n in range(0, len(edges), 2)]
    axes.broken_barh(heard, (1.2, 0.5), facecolors=BOT)
    for begin, after in answer.pauses:
        axes.plot([begin / 1000, after / 1000], [1.45, 1.45], color=BOT, linewidth=1.2, linestyle=":")
    for at_ms, _ in answer.words:
        at = answer.at_ms(at_ms) / 1000
        if at < end:
            axes.plot([at, at], [1.2, 1.7], color="white", linewidth=0.6)
    text = answer.text
    if answer.cut:
        rest = min(seconds, answer.at_ms(answer.made_ms) / 1000) - end
        if rest > 0:
            axes.broken_barh(
                [(end, rest)],
                (1.2, 0.5),
                facecolors="none",
                edgecolors=BOT,
                linestyle=":",
                hatch="////",
                alpha=0.5,
            )
        axes.plot([end, end], [1.1, 2.8], color=CUT, linewidth=1.6)
        axes.plot([end], [2.0], marker="x", color=CUT, markersize=7, markeredgewidth=2)
        text = f"{text} ✂ {answer.reason}"
    _words(axes, start, 1.1, text, inches, "top", CUT if answer.cut else BOT)


def _words(axes: Any, x: float, y: float, text: str, inches: float, side: str, colour: str) -> None:
    lines = textwrap.wrap(text, max(9, int(inches / INCHES_PER_CHAR)))
    axes.text(x, y, "\n".join(lines), fontsize=7.5, va=side, color=colour, linespacing=1.15)


# --- where the time went ------------------------------------------------------------------------------------


def _bars(axes: Any, turns: list[TimedTurn], shown: Sequence[str], title: str) -> None:
    axes.set_title(title, fontsize=9, loc="left")
    axes.set(xlabel="ms", yticks=range(len(turns)), ylim=(len(turns) - 0.4, -0.6))
    axes.set_yticklabels([f"{turn.number}  {_short(turn.text)}" for turn in turns])
    longest = 1.0
    for row, turn in enumerate(turns):
        steps = turn.steps
        if steps is None:
            axes.text(0, row, " no answer was heard", va="center", fontsize=7.5, color=GREY)
            continue
        at = 0.0
        for step in shown:
            axes.barh(row, steps[step], left=at, height=0.62, color=STEP_COLOURS[step])
            at += steps[step]
        longest = max(longest, at)
        axes.text(at, row, f"  {at:.0f} ms", va="center", fontsize=7.5, color="#333333")
    axes.set_xlim(0, longest * 1.3)
    handles = [axes.barh(0, 0, color=STEP_COLOURS[step]) for step in shown]
    axes.legend(handles, shown, fontsize=7.5, frameon=False, loc="center right")
    _tidy(axes)


def _short(text: str) -> str:
    return textwrap.shorten(text, 34, placeholder=" …") or "(not understood)"


def _tidy(axes: Any) -> None:
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.tick_params(length=0, labelsize=8)

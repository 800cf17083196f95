"""Diagnosis of a failing bench: a log of deliveries, and the line and the call at which a task waits."""

from __future__ import annotations

import asyncio
import contextvars
import sys
from collections import deque
from collections.abc import Coroutine
from dataclasses import dataclass
from pathlib import Path
from types import AsyncGeneratorType, CoroutineType, FrameType, GeneratorType
from typing import Any, cast

from ..frames import DOWNSTREAM, Direction, Frame

KEPT_EVENTS = 400
"""Events that a log keeps."""
SHOWN_EVENTS = 25
"""Events that a failure shows."""
SHOWN_CHARS = 90
_ARROWS = {True: "v", False: "^"}


def short(value: object, limit: int = SHOWN_CHARS) -> str:
    """A repr that fits a line."""
    text = repr(value)
    return text if len(text) <= limit else text[: limit - 3] + "..."


@dataclass(slots=True)
class LoggedEvent:
    """One line of the log."""

    t_ns: int
    what: str
    frame: Frame | None = None
    processor: str = ""
    """Processor that received the frame."""
    origin: str = ""
    """Processor that sent the frame."""
    moves: bool = False
    """True for a delivery or an exit."""


class EventLog:
    """The last `KEPT_EVENTS` events of a bench."""

    def __init__(self) -> None:
        self._events: deque[LoggedEvent] = deque(maxlen=KEPT_EVENTS)

    def note(self, t_ns: int, what: str, frame: Frame | None = None) -> None:
        """Log an event."""
        self._events.append(LoggedEvent(t_ns, what, frame))

    def delivered(self, t_ns: int, origin: str, processor: str, direction: Direction, frame: Frame) -> None:
        """Log a delivery to a handler."""
        arrow = _ARROWS[direction is DOWNSTREAM]
        self._events.append(LoggedEvent(t_ns, f"{arrow} {processor}", frame, processor, origin, moves=True))

    def left(self, t_ns: int, direction: Direction, frame: Frame) -> None:
        """Log a frame that leaves the pipeline."""
        end = "v out at the tail" if direction is DOWNSTREAM else "^ out at the head"
        self._events.append(LoggedEvent(t_ns, end, frame, moves=True))

    def last_taker(self, frame: Frame) -> str:
        """Return the path of the processor that received a frame last."""
        return next(
            (event.processor for event in reversed(self._events) if event.frame is frame and event.processor), ""
        )

    def __str__(self) -> str:
        events = list(self._events)
        shown = events[-SHOWN_EVENTS:]
        lines = [
            f"  {event.t_ns / 1e6:>10.3f} ms  {event.what:<24} {short(event.frame) if event.frame else ''}".rstrip()
            for event in shown
        ]
        if len(events) > len(shown):
            lines.insert(0, f"  ... {len(events) - len(shown)} earlier events")
        return "\n".join(["What happened (virtual time):", *(lines or ["  nothing"])])


# --- tasks -----------------------------------------------------------------------------------------------------------

owner: contextvars.ContextVar[TaskWatch | None] = contextvars.ContextVar("voxline_bench", default=None)
"""Set in the context of a bench's worker and inherited by every task that it starts."""
_ENGINE = Path(__file__).parent.parent
_STDLIB = Path(asyncio.__file__).parent.parent


class TaskWatch:
    """Knows every asyncio task that was made by, or because of, the pipeline of a bench, and where."""

    def __init__(self) -> None:
        self._made: dict[asyncio.Task[Any], str] = {}

    def install(self) -> None:
        """Watch the running loop. Its task factory stays: others may have been put on top of it by then."""
        loop = asyncio.get_running_loop()
        before: Any = loop.get_task_factory()
        if getattr(before, "voxline", False):
            return

        def factory(loop: asyncio.AbstractEventLoop, work: Coroutine[Any, Any, Any], **options: Any) -> Any:
            task = before(loop, work, **options) if before else asyncio.Task(work, loop=loop, **options)
            watch = owner.get()
            if watch is not None:
                watch.add(task)
            return task

        factory.voxline = True  # type: ignore[attr-defined]  # pyright: ignore[reportFunctionMemberAccess]
        loop.set_task_factory(cast(Any, factory))

    def add(self, task: asyncio.Task[Any]) -> None:
        """A task was made."""
        self._made[task] = _made_at(sys._getframe(2))
        task.add_done_callback(lambda _: self._made.pop(task, None))

    def alive(self) -> list[asyncio.Task[Any]]:
        """Those that have not ended."""
        return [task for task in self._made if not task.done()]

    def describe(self, task: asyncio.Task[Any]) -> str:
        """Which task, where it was made and what it waits for."""
        made = self._made.get(task, "")
        return f"task {task.get_name()!r}{made and f', made at {made}'}, {waits_for(task.get_coro())}"


def _made_at(frame: FrameType | None) -> str:
    """The nearest line that is neither asyncio's nor the engine's."""
    while frame is not None:
        name = frame.f_code.co_filename
        path = Path(name)
        engine = path.is_relative_to(_ENGINE)
        if not engine and "asyncio" not in path.parts and "contextlib" not in path.name:
            return f"{path.name}:{frame.f_lineno} in {frame.f_code.co_name}()"
        if engine and path.name == "crew.py":
            return ""
        frame = frame.f_back
    return ""


def waits_for(work: object) -> str:
    """Where a coroutine or generator stands and in what: ``waits in Event.wait(), at bot.py:12 in Bot.ask()``."""
    place, inside, awaited = "", "", None
    current: Any = work
    for _ in range(100):
        frame, beyond = _look(current)
        if frame is not None and not Path(frame.f_code.co_filename).is_relative_to(_ENGINE):
            code = frame.f_code
            if Path(code.co_filename).is_relative_to(_STDLIB):
                inside = f" in {code.co_qualname}()"
            else:
                place = f", at {Path(code.co_filename).name}:{frame.f_lineno} in {code.co_qualname}()"
                inside = ""
        inner = frame and frame.f_locals
        if not _is_coroutine(beyond) and inner:
            # The engine drives handlers and jobs by hand: there they are locals, and nothing that it awaits.
            held = next((inner[name] for name in ("frames", "work") if _is_coroutine(inner.get(name))), None)
            beyond = held if held is not None and held is not current else beyond
        if beyond is None or beyond is current:
            break
        current = awaited = beyond
        if not _is_coroutine(beyond):
            break
    if not inside and awaited is not None and not _is_coroutine(awaited):
        # A future's own iterator says nothing about the future.
        what = "a future" if type(awaited).__name__ == "FutureIter" else short(awaited, 140)
        inside = f" for {what}"
    return f"waits{inside}{place}"


def _is_coroutine(value: object) -> bool:
    return isinstance(value, CoroutineType | GeneratorType | AsyncGeneratorType)


def _look(work: Any) -> tuple[FrameType | None, Any]:
    if isinstance(work, CoroutineType):
        return work.cr_frame, work.cr_await  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(work, AsyncGeneratorType):
        return work.ag_frame, work.ag_await  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    if isinstance(work, GeneratorType):
        return work.gi_frame, work.gi_yieldfrom  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    return None, None

"""Frame fixtures: what goes into a processor and what has to come out, in a file that people can read and edit.

::

    {"voxline": "fixture", "version": 1, "processor": "Brain", "seed": 1}
    # The user asks twice.
    {"at_ms": 0, "send": {"type": "TranscriptionFrame", "text": "where are you"}}
    {"at_ms": 0, "expect": {"type": "TextFrame", "text": "At home."}}
    {"at_ms": 500, "interrupt": "barge-in"}
    {"at_ms": 520, "send": {"type": "BotStoppedSpeakingFrame", "response": 1}, "direction": "up"}

A test of the processor is then two lines::

    fixture = Fixture.load("brain.jsonl")
    assert await bench.play(fixture) == fixture.expected

`cut` makes one from a recording: what came in at a processor's door, and what it pushed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from os import PathLike
from pathlib import Path
from typing import Any

from ..clock import NS_PER_MS
from ..engine.kernel import Kernel
from ..errors import RecordingError
from ..frames import DOWNSTREAM, UPSTREAM, CancelFrame, Direction, ErrorFrame, Frame
from ..graph import Pipeline
from ..processor import Hop
from ..recording.codec import dumps, from_plain, to_plain
from ..recording.flac import FlacReader, FlacWriter
from ..recording.names import forget_names
from ..recording.recording import VERSION, Recording, check_header, direction_in, number_in, read_lines, text_in
from ..recording.replay import replay
from ..recording.schema import Plain, checked, show
from ..taps import Tap


@dataclass(frozen=True, slots=True)
class Send:
    """A frame that is put in, ``at_ms`` after the beginning; from the head, or upstream from the tail."""

    at_ms: float
    frame: Frame
    direction: Direction = DOWNSTREAM
    response: int = 0
    late: bool = False
    """After the processor's own timers and jobs that fall due at the same moment; before them, if not."""


@dataclass(frozen=True, slots=True)
class Interrupt:
    """Somebody else cuts the responses up to ``response`` (0: all)."""

    at_ms: float
    reason: str = "interrupted"
    response: int = 0
    late: bool = False


@dataclass(frozen=True, slots=True)
class Expect:
    """A frame that has to come out. The time is for people; what is compared is the order at each end."""

    at_ms: float
    frame: Frame
    direction: Direction = DOWNSTREAM


Step = Send | Interrupt | Expect


@dataclass(frozen=True, slots=True)
class Output:
    """Frames that left, or have to leave, at the tail and at the head, without the kernel's cancel frames."""

    down: list[Frame]
    up: list[Frame]
    errors: list[ErrorFrame]

    @property
    def count(self) -> int:
        """How many frames it is."""
        return len(self.down) + len(self.up) + len(self.errors)


class Fixture:
    """Frames to send, frames to expect, and their times."""

    def __init__(self, steps: Sequence[Step], *, processor: str = "", seed: int = 0) -> None:
        self.steps = list(steps)
        self.processor = processor
        """The name of the processor that it is for."""
        self.seed = seed
        """For `harness(..., seed=fixture.seed)`, where the processor draws random numbers."""

    @property
    def expected(self) -> Output:
        """Expected output."""
        return output((step.frame, step.direction) for step in self.steps if isinstance(step, Expect))

    @property
    def duration_ms(self) -> float:
        """When the last of it happens."""
        return max((step.at_ms for step in self.steps), default=0.0)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Fixture) and (self.steps, self.processor, self.seed) == (
            other.steps,
            other.processor,
            other.seed,
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        return f"<Fixture of {self.processor or 'any processor'}: {len(self.steps)} steps, {self.duration_ms:g} ms>"

    # --- files ------------------------------------------------------------------------------------------------------

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Fixture:
        """Read a fixture. Raises `RecordingError` with the line, the field and what is allowed."""
        path = Path(path)
        forget_names()
        lines = read_lines(path)
        first = next(lines, None)
        if first is None:
            raise RecordingError(f"{path} is empty.")
        header = check_header(path, first[1], "fixture", {})
        audio = FlacReader(path)
        steps: list[Step] = []
        try:
            for number, plain in lines:
                try:
                    steps.append(_step(plain, audio))
                except RecordingError as error:
                    raise RecordingError(f"{path}, line {number}: {error}.") from error
            seed = number_in(header, "seed", 0, least=0)
            return cls(steps, processor=text_in({"processor": "", **header}, "processor"), seed=seed)
        finally:
            audio.close()

    def save(self, path: str | PathLike[str]) -> None:
        """Write it, with its audio in FLAC files beside it."""
        path = Path(path)
        forget_names()
        audio = FlacWriter(path)
        header = {"voxline": "fixture", "version": VERSION, "processor": self.processor, "seed": self.seed}
        try:
            lines = [dumps(header), *(dumps(_plain(step, audio)) for step in self.steps)]
        finally:
            audio.close()
        path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def output(frames: Any) -> Output:
    """Sort pairs of a frame and its direction by the end that they leave at."""
    down: list[Frame] = []
    up: list[Frame] = []
    errors: list[ErrorFrame] = []
    for frame, direction in frames:
        if isinstance(frame, ErrorFrame) and direction is UPSTREAM:
            errors.append(frame)
        elif not isinstance(frame, CancelFrame):
            (down if direction is DOWNSTREAM else up).append(frame)
    return Output(down, up, errors)


_VERBS = ("send", "expect", "interrupt")
_KEYS = ("at_ms", *_VERBS, "direction", "response", "late")


def _step(plain: Plain, audio: FlacReader) -> Step:
    for key in plain:
        if key not in _KEYS:
            raise RecordingError(f"there is no field {key!r}; allowed are: {', '.join(_KEYS)}")
    verbs = [verb for verb in _VERBS if verb in plain]
    if len(verbs) != 1:
        raise RecordingError(f"wants one of {', '.join(map(repr, _VERBS))}, not {len(verbs)} of them")
    at_ms = number_in(plain, "at_ms", 0, least=0, whole=False)
    response = number_in(plain, "response", 0, least=0)
    late = plain.get("late", False)
    if not isinstance(late, bool):
        raise RecordingError(f"field 'late' wants true or false, not {show(late)}")
    if verbs == ["interrupt"]:
        return Interrupt(at_ms, text_in(plain, "interrupt"), response, late)
    frame = checked(verbs[0], lambda value: from_plain(value, audio), plain[verbs[0]])
    if verbs == ["send"]:
        return Send(at_ms, frame, direction_in(plain), response, late)
    return Expect(at_ms, frame, direction_in(plain))


def _plain(step: Step, audio: FlacWriter) -> Plain:
    plain: Plain = {"at_ms": int(step.at_ms) if step.at_ms == int(step.at_ms) else step.at_ms}
    if isinstance(step, Interrupt):
        plain["interrupt"] = step.reason
    else:
        plain["send" if isinstance(step, Send) else "expect"] = to_plain(step.frame, audio)
        if step.direction is UPSTREAM:
            plain["direction"] = "up"
    if not isinstance(step, Expect):
        if step.response:
            plain["response"] = step.response
        if step.late:
            plain["late"] = True
    return plain


# --- cutting ---------------------------------------------------------------------------------------------------------


async def cut(recording: Recording, pipeline: Pipeline, at: str, *, strict: bool = True) -> Fixture:
    """Cut a recording at a processor's door: a fixture of what came in there and what the processor pushed.

    The recording is replayed through ``pipeline`` for it. ``at`` is the processor's path, or its name where only one
    has it. What the processor posted to itself (timers, facts of its device) is not put in: on a bench it does that
    again. Raises `RecordingError` where there is no such processor, or the recording does not fit.
    """
    path = _find(recording, at)
    door = _Door(path, recording.start_ns)
    await replay(recording, pipeline, door, strict=strict, prepare=door.watch)
    return Fixture(door.steps, processor=_bare(path), seed=recording.seed)


def _bare(path: str) -> str:
    return path.rpartition("/")[2].partition("#")[0]


def _find(recording: Recording, at: str) -> str:
    found = [path for path in recording.pipeline if at in (path, _bare(path))]
    if at in found:
        return at
    if len(found) != 1:
        what = f"{len(found)} processors {at!r}" if found else f"no processor {at!r}"
        raise RecordingError(f"{recording.path} has {what}; it has {', '.join(recording.pipeline)}.")
    return found[0]


class _Door(Tap):
    """Watches what comes to a processor and what it pushes."""

    def __init__(self, path: str, start_ns: int) -> None:
        self.steps: list[Step] = []
        self._path = path
        self._start_ns = start_ns
        self._cut = 0
        self._own_ns = -1
        """When the processor's own timers and jobs were last seen."""
        self._kernel: Kernel | None = None

    def _at_ms(self, t_ns: int) -> float:
        return (t_ns - self._start_ns) / NS_PER_MS

    def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
        if hop.origin == self._path:
            self._own_ns = t_ns

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        # A cancel frame leaves at both ends whoever decided it; one that the processor itself decided does no harm.
        if isinstance(frame, CancelFrame) and frame.response > self._cut:
            self._cut = frame.response
            self.steps.append(Interrupt(self._at_ms(t_ns), frame.reason, frame.response, t_ns == self._own_ns))

    def watch(self, kernel: Kernel) -> None:
        """Observe the processor: before anything runs."""
        self._kernel = kernel
        kernel.observe_node(self._path, self.comes_in, self.goes_out)

    def comes_in(self, frame: Frame, direction: Direction) -> None:
        """A frame is at the door."""
        assert self._kernel is not None
        t_ns, response = self._kernel.step_ns, self._kernel.response
        self.steps.append(Send(self._at_ms(t_ns), frame, direction, response, t_ns == self._own_ns))

    def goes_out(self, frame: Frame, direction: Direction) -> None:
        """The processor has pushed a frame."""
        assert self._kernel is not None
        if isinstance(frame, ErrorFrame):
            frame = replace(frame, processor=_bare(frame.processor))
        self.steps.append(Expect(self._at_ms(self._kernel.step_ns), frame, direction))

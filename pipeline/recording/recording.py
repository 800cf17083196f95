"""Recordings: the inbox of a conversation, written down.

A recording is a file that people can read, one JSON object a line, with its audio in FLAC files beside it::

    {"voxline": "recording", "version": 1, "seed": 7, "start_ns": 0, "pipeline": ["VAD", "STT"], ...}
    {"t_ns": 20000000, "origin": "(head)", "direction": "down", "frame": {"type": "InputAudioFrame", ...}}
    {"t_ns": 31000000, "origin": "STT", "direction": "down", "job": 2, "frame": {"type": "TranscriptionFrame", ...}}
    {"t_ns": 31000000, "at": "Controller", "frame": {"type": "TurnEndedFrame"}}

``origin`` says whence the frame goes on: from a processor (its job made it), ``(head)`` or ``(tail)``; ``at`` says that
it begins at that processor: its timer, its device's fact, the end of its job. `Recorder` writes it and `Recording`
reads it; `voxline.pipeline.recording.replay` runs it again.
"""

from __future__ import annotations

import json
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any, TextIO

from ..errors import RecordingError
from ..frames import DOWNSTREAM, Direction, Frame
from ..processor import Hop
from ..taps import Run, Tap
from .codec import dumps, from_plain, to_plain
from .flac import FlacReader, FlacWriter, MissingAudio
from .names import forget_names
from .schema import Plain, checked, is_object, show

log = logging.getLogger("voxline")

VERSION = 1
FLUSH_NS = 1_000_000_000
"""A recorder writes out what it holds at least this often, in the time of the worker's clock."""
_ENTRY_KEYS = ("t_ns", "origin", "at", "direction", "response", "job", "frame")


class RecordingWarning(UserWarning):
    """A recording is damaged, and was read as far as it goes."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry of the inbox, as it was taken.

    ``origin`` is the path that the frame goes on from, or (``begins_here``) begins at. ``response`` and ``job`` are
    numbers; 0 means none.
    """

    t_ns: int
    origin: str
    direction: Direction
    begins_here: bool
    response: int
    job: int
    frame: Frame


class Recorder(Tap):
    """Writes a run down: ``worker.add_tap(Recorder("talk.jsonl"))``, before it runs.

    It never disturbs the run: where something cannot be written (a full disk, a field that JSON cannot hold), that is
    logged, and replaying the recording says what is missing. It holds at most a second of a conversation in memory.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self.path = Path(path)
        self.entries = 0
        """How many entries were taken."""
        self._file: TextIO | None = None
        self._audio = FlacWriter(self.path)
        self._flushed_ns = 0
        self._complained: set[type[Frame]] = set()

    def opened(self, run: Run) -> None:
        """Write the header. Raises `RecordingError` where the run is under way, or the file cannot be written."""
        if run.running:
            raise RecordingError(
                f"{run.name} is running already: a recording that lacks the beginning cannot be replayed. "
                "Add the Recorder before run()."
            )
        if self._file is not None:
            raise RecordingError(f"The Recorder of {self.path} is in use. Make one for each worker.")
        forget_names()
        try:
            self._file = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise RecordingError(f"The recording {self.path} cannot be written: {error.strerror}.") from error
        header = {"voxline": "recording", "version": VERSION, "seed": run.seed, "start_ns": run.start_ns}
        self._flushed_ns = run.start_ns
        self._write({**header, "pipeline": list(run.processors), "name": run.name})

    def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
        """Write an entry."""
        if self._file is None:
            return
        plain: Plain = {"t_ns": t_ns}
        # A hop that leads to where it comes from is the way of a processor's own fact, command or end of a job.
        if hop.origin == hop.processor:
            plain["at"] = hop.origin
        else:
            plain["origin"] = hop.origin
            plain["direction"] = hop.direction.value
        if response:
            plain["response"] = response
        if job:
            plain["job"] = job
        try:
            plain["frame"] = to_plain(frame, self._audio)
        except (RecordingError, TypeError, ValueError) as error:
            plain["frame"] = {"type": type(frame).__name__}
            plain["unrecorded"] = str(error)
            if type(frame) not in self._complained:
                self._complained.add(type(frame))
                log.warning("%s cannot be recorded, so %s will not replay", type(frame).__name__, self.path)
        except OSError as error:
            self._give_up(error)
            return
        self.entries += 1
        self._write(plain)
        if t_ns - self._flushed_ns >= FLUSH_NS:
            self._flushed_ns = t_ns
            self.flush()

    def flush(self) -> None:
        """Write out what is held."""
        if self._file is not None:
            try:
                self._audio.flush()
                self._file.flush()
            except OSError as error:
                self._give_up(error)

    def closed(self) -> None:
        """The run is over."""
        self.close()

    def close(self) -> None:
        """Close the files. The worker does it when it ends."""
        if self._file is not None:
            self.flush()
        if self._file is not None:
            file, self._file = self._file, None
            self._audio.close()
            file.close()

    def _write(self, plain: Plain) -> None:
        if self._file is not None:
            try:
                self._file.write(dumps(plain) + "\n")
            except OSError as error:
                self._give_up(error)

    def _give_up(self, error: OSError) -> None:
        log.error("The recording %s ends here: %s", self.path, error)
        file, self._file = self._file, None
        for close in (self._audio.close, *([file.close] if file is not None else [])):
            try:
                close()
            except OSError as another:
                log.debug("%s", another)


class Recording:
    """A recording on disk. Iterate over it for its entries: they are read as you go, so memory stays flat.

    One that was cut off in the middle of a line, or whose audio is shorter than it should be, is read up to there,
    with a `RecordingWarning`.
    """

    def __init__(self, path: Path, header: Plain) -> None:
        self.path = path
        self.seed: int = header["seed"]
        """Seed of the worker's random numbers."""
        self.start_ns: int = header["start_ns"]
        """Time of the worker's clock at the start."""
        self.pipeline: tuple[str, ...] = tuple(header["pipeline"])
        """The paths of the processors that it was made with, in order."""
        self.name: str = header.get("name", "")

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Recording:
        """Open a recording. Raises `RecordingError` where it is none, or of another version."""
        path = Path(path)
        header = next(read_lines(path), None)
        if header is None:
            raise RecordingError(f"{path} is empty.")
        return cls(path, check_header(path, header[1], "recording", {"seed": int, "start_ns": int, "pipeline": list}))

    def __iter__(self) -> Iterator[Entry]:
        forget_names()
        audio = FlacReader(self.path)
        try:
            lines = read_lines(self.path)
            next(lines)
            for number, plain in lines:
                try:
                    yield self._entry(plain, audio)
                except MissingAudio as error:
                    _warn(f"{self.path}, line {number}: {error}. It was read up to there.")
                    return
                except RecordingError as error:
                    raise RecordingError(f"{self.path}, line {number}: {error}.") from error
        finally:
            audio.close()

    def __repr__(self) -> str:
        return f"<Recording {self.path}>"

    def _entry(self, plain: Plain, audio: FlacReader) -> Entry:
        for key in plain:
            if key not in (*_ENTRY_KEYS, "unrecorded"):
                raise RecordingError(f"there is no field {key!r}; allowed are: {', '.join(_ENTRY_KEYS)}")
        if "unrecorded" in plain:
            raise RecordingError(
                f"{plain['frame']['type']} could not be recorded, so it cannot be replayed: {plain['unrecorded']}"
            )
        if ("at" in plain) == ("origin" in plain):
            raise RecordingError("an entry has either 'origin' (it goes on from there) or 'at' (it begins there)")
        begins_here = "at" in plain
        return Entry(
            number_in(plain, "t_ns", least=0),
            text_in(plain, "at" if begins_here else "origin"),
            DOWNSTREAM if begins_here else direction_in(plain),
            begins_here,
            number_in(plain, "response", 0, least=0),
            number_in(plain, "job", 0, least=-1),
            checked("frame", lambda value: from_plain(value, audio), plain.get("frame")),
        )


# --- lines, for recordings and fixtures ------------------------------------------------------------------------------


def read_lines(path: Path) -> Iterator[tuple[int, Plain]]:
    """The objects of a file of JSON lines, with the numbers of their lines; empty lines and ``#`` comments are skipped.

    Raises `RecordingError` for a file that is not there or a line that is none; warns of a last line that was cut off.
    """
    try:
        file = path.open("rb")
    except OSError as error:
        raise RecordingError(f"{path} cannot be read: {error.strerror}.") from error
    with file:
        for number, raw in enumerate(file, 1):
            text = raw.strip()
            if not text or text.startswith(b"#"):
                continue
            try:
                plain: Any = json.loads(text)
            except ValueError as error:
                if not raw.endswith(b"\n"):
                    _warn(f"{path} was cut off in the middle of line {number}. It was read up to there.")
                    return
                raise RecordingError(f"{path}, line {number}: not a line of JSON: {error}.") from error
            if not is_object(plain):
                raise RecordingError(f"{path}, line {number}: wants an object in braces, not {show(plain)}.")
            yield number, plain


def check_header(path: Path, header: Plain, kind: str, wanted: dict[str, type]) -> Plain:
    """See that a first line is the header of a recording or fixture of our version."""
    if header.get("voxline") != kind:
        raise RecordingError(
            f'{path} is no {kind}: its first line has to be {{"voxline": "{kind}", "version": {VERSION}, ...}}.'
        )
    if header.get("version") != VERSION:
        raise RecordingError(f"{path} has version {show(header.get('version'))}; this is version {VERSION}.")
    for key, cls in wanted.items():
        if type(header.get(key)) is not cls:
            raise RecordingError(f"{path}, line 1: field {key!r} wants a {cls.__name__}, not {show(header.get(key))}.")
    return header


_NEEDED: Any = object()


def number_in(plain: Plain, key: str, default: Any = _NEEDED, *, least: float, whole: bool = True) -> Any:
    """A field that is a number."""
    value = plain.get(key, default)
    if type(value) not in ((int,) if whole else (int, float)) or value < least:
        kind = "a whole number" if whole else "a number"
        found = "nothing" if value is _NEEDED else show(value)
        raise RecordingError(f"field {key!r} wants {kind} from {least} on, not {found}")
    return value


def text_in(plain: Plain, key: str) -> str:
    """A field that is text."""
    value = plain.get(key)
    if not isinstance(value, str):
        raise RecordingError(f"field {key!r} wants text, not {show(value)}")
    return value


def direction_in(plain: Plain) -> Direction:
    """The field ``direction``: ``down``, which is what is meant where it is missing, or ``up``."""
    value = plain.get("direction", "down")
    try:
        return Direction(value)
    except ValueError:
        raise RecordingError(f"field 'direction' wants 'down' or 'up', not {show(value)}") from None


def _warn(message: str) -> None:
    warnings.warn(message, RecordingWarning, stacklevel=3)

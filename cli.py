"""The command line: `voxline run` and `voxline demo`.

The composition root, and the one module of the package that may know both wings.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from .pipeline.clock import SystemClock, VirtualClock
from .pipeline.errors import VoxlineError
from .pipeline.graph import Pipeline
from .pipeline.narrator import Narrator
from .pipeline.picture import draw, require_matplotlib
from .pipeline.recording import Recorder
from .pipeline.runner import PipelineRunner
from .pipeline.talk import TalkTap
from .pipeline.worker import Outcome, PipelineWorker
from .transports.base import Transport
from .transports.file import FileTransport

FACTORY = "make_pipeline"
"""What a bot's file must have: ``def make_pipeline(transport: Transport) -> Pipeline``."""
EXAMPLES = Path(__file__).parent / "examples"

MakePipeline = Callable[[Transport], Pipeline]


class UsageError(VoxlineError):
    """What was asked for cannot be done; the text says why, in one sentence."""


@dataclass(frozen=True, slots=True)
class Job:
    """One conversation to run."""

    bot: Path
    input: Path
    output: Path | None
    realtime: bool
    record: Path | None = None
    timeline: Path | None = None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `voxline`. The exit code: 0 done, 1 the bot failed, 2 it could not be run, 130 cancelled."""
    options = _parser().parse_args(arguments)
    logging.basicConfig(level=logging.WARNING, format="voxline: %(message)s")
    logging.getLogger("voxline").setLevel(logging.INFO)
    command = cast(Callable[[argparse.Namespace], int], options.command)
    try:
        return command(options)
    except VoxlineError as error:
        # A start that failed tells of a hook; what the user can do about it stands in its cause.
        cause = error.__cause__ if isinstance(error.__cause__, VoxlineError) else error
        print(f"voxline: {cause}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        _flush()


def _flush() -> None:
    """Where nobody reads what is printed (`| head`), Python would complain about it when it ends."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="voxline", description="Voice bots that run and are tested offline.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a bot", description=f"Run a bot: a file with {FACTORY}(transport).")
    run.add_argument("bot", type=Path, metavar="BOT.py", help=f"a file with a function {FACTORY}(transport)")
    run.add_argument("--transport", choices=["file"], default="file", help="where the caller is (file)")
    run.add_argument("--input", type=Path, required=True, metavar="WAV", help="what the caller says: any sound file")
    run.add_argument("--output", type=Path, metavar="WAV", help="record both: stereo, caller left, bot right")
    run.add_argument("--realtime", action="store_true", help="take as long as the sound does")
    run.add_argument("--record", type=Path, metavar="JSONL", help="write down everything, for a replay")
    run.add_argument("--timeline", type=Path, metavar="PNG", help="draw who spoke when")
    run.set_defaults(command=_run)

    demo = commands.add_parser("demo", help="let a recorded caller talk with the rover of examples/")
    demo.add_argument(
        "--out", type=Path, default=Path("out"), metavar="FOLDER", help="where to put what it makes (out)"
    )
    demo.add_argument("--fast", action="store_true", help="as fast as it goes, not in real time")
    demo.set_defaults(command=_demo)
    return parser


# --- the commands -------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    job = Job(options.bot, options.input, options.output, options.realtime, options.record, options.timeline)
    return _converse(job)


def _demo(options: argparse.Namespace) -> int:
    bot, caller = EXAMPLES / "rover.py", EXAMPLES / "audio" / "caller.wav"
    if not (bot.is_file() and caller.is_file()):
        raise UsageError(
            f"The demo needs the examples of the repository, and {EXAMPLES} has none: run it in a checkout."
        )
    out = cast(Path, options.out)
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UsageError(f"The folder {out} cannot be made: {error.strerror}.") from error
    job = Job(bot, caller, out / "talk.wav", not options.fast, out / "talk.jsonl", out / "timeline.png")
    return _converse(job)


def _converse(job: Job) -> int:
    make_pipeline = _load(job.bot)
    if job.timeline is not None:
        require_matplotlib()
    for path in (job.output, job.record, job.timeline):
        if path is not None:
            _check_writable(path)
    name = job.bot.stem
    narrator = Narrator(sys.stdout, live=sys.stdout.isatty(), in_time=job.realtime, bot=name)
    tap = TalkTap(narrator.told)
    transport = FileTransport(input=job.input, output=job.output)
    pipeline = _make(make_pipeline, transport, job.bot)
    # The same run every time, where time is virtual.
    clock, seed = (SystemClock(), None) if job.realtime else (VirtualClock(), 0)
    worker = PipelineWorker(pipeline, clock=clock, seed=seed, name=name)
    worker.add_tap(tap)
    if job.record is not None:
        worker.add_tap(Recorder(job.record))
    outcome = asyncio.run(PipelineRunner().run(worker))[0]
    narrator.summary(tap.talk)
    if job.timeline is not None:
        draw(tap.talk, job.timeline, title=f"{job.input.name} talks with {name}", bot=name)
    for path, what in (
        (job.output, "both voices: caller left, bot right"),
        (job.record, "all that happened, for a replay"),
        (job.timeline, "who spoke when, and where the time went"),
    ):
        if path is not None and path.exists():
            narrator.wrote(path, what)
    return _exit_code(outcome)


def _exit_code(outcome: Outcome) -> int:
    for error in outcome.errors:
        print(f"voxline: {error}", file=sys.stderr)
    if outcome.reason == "cancelled":
        return 130
    return 1 if outcome.reason == "failed" or outcome.errors else 0


# --- what is given ------------------------------------------------------------------------------------------


def _load(path: Path) -> MakePipeline:
    """The factory in a bot's file."""
    if not path.is_file():
        raise UsageError(f"There is no file {path}: voxline run needs the file of a bot.")
    spec = importlib.util.spec_from_file_location(f"voxline_bot_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is no Python file: the name of a bot's file ends in .py.")
    module = importlib.util.module_from_spec(spec)
    # As Python does for a script: what stands beside it can be imported.
    sys.path.insert(0, str(path.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"{path} cannot be loaded: {type(error).__name__}: {error}") from error
    finally:
        sys.path.pop(0)
    factory = getattr(module, FACTORY, None)
    if not callable(factory):
        raise UsageError(
            f"{path} has no function {FACTORY}(transport): write one that returns the bot's Pipeline, with "
            "transport.input() at its head and transport.output() at its tail."
        )
    return cast(MakePipeline, factory)


def _make(make_pipeline: MakePipeline, transport: Transport, bot: Path) -> Pipeline:
    try:
        pipeline = cast(object, make_pipeline(transport))
    except VoxlineError:
        raise
    except Exception as error:
        raise UsageError(f"{FACTORY}() of {bot} failed: {type(error).__name__}: {error}") from error
    if not isinstance(pipeline, Pipeline):
        raise UsageError(f"{FACTORY}() of {bot} returned {type(pipeline).__name__}, and has to return a Pipeline.")
    return pipeline


def _check_writable(path: Path) -> None:
    folder = path.parent
    if not folder.is_dir():
        raise UsageError(f"{path} cannot be written: there is no folder {folder}.")
    if path.is_dir():
        raise UsageError(f"{path} cannot be written: it is a folder.")
    if not os.access(path if path.exists() else folder, os.W_OK):
        raise UsageError(f"{path} cannot be written: no permission.")


if __name__ == "__main__":
    sys.exit(main())

"""The command line: `voxline run`, `voxline demo` and `voxline devices`.

The composition root, and the one module of the package that may know both wings.
"""

from __future__ import annotations

import argparse
import importlib.util
import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from .pipeline.clock import Clock, SystemClock, VirtualClock
from .pipeline.errors import VoxlineError
from .pipeline.graph import Pipeline
from .pipeline.recording.recording import Recorder
from .pipeline.runner import PipelineRunner, run
from .pipeline.taps import Run, Tap
from .pipeline.timeline.collect import TimelineTap
from .pipeline.timeline.plot import draw, require_matplotlib
from .pipeline.timeline.text import TimelinePrinter
from .pipeline.worker import Outcome, PipelineWorker
from .transports.base import Transport
from .transports.file.transport import FileTransport
from .transports.memory import MemoryTransport

FACTORY = "make_pipeline"
"""Function that a bot's file must define: ``def make_pipeline(transport: Transport) -> Pipeline``."""
EXAMPLES = Path(__file__).parent / "examples"

MakePipeline = Callable[[Transport], Pipeline]


class UsageError(VoxlineError):
    """A command cannot be carried out. The message says why, in one sentence."""


TOKEN = "VOXLINE_TOKEN"
"""Environment variable with a server's token. A command line would show the token to every user of the machine."""
BELONGS = {
    "input": ("file",),
    "output": ("file",),
    "realtime": ("file",),
    "timeline": ("file", "local"),
    "microphone": ("local",),
    "speaker": ("local",),
    "echo": ("local",),
    "host": ("webrtc", "websocket"),
    "port": ("webrtc", "websocket"),
    "max_connections": ("webrtc", "websocket"),
}
"""Options that only some transports accept."""


@dataclass(frozen=True, slots=True)
class RunOptions:
    """Options of one conversation with a file or a sound card."""

    bot: Path
    transport: Transport
    clock: Clock
    title: str
    """Title of the timeline picture."""
    output: Path | None = None
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
        # A failed start names a hook. Its cause says what the user can do.
        cause = error.__cause__ if isinstance(error.__cause__, VoxlineError) else error
        print(f"voxline: {cause}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130
    finally:
        _flush()


def _flush() -> None:
    """Flush stdout. With a closed reader (`| head`) point it at /dev/null, or Python prints an error at its exit."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="voxline", description="Voice bots that run and are tested offline.")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    run = commands.add_parser("run", help="run a bot", description=f"Run a bot: a file with {FACTORY}(transport).")
    run.add_argument("bot", type=Path, metavar="BOT.py", help=f"a file with a function {FACTORY}(transport)")
    run.add_argument(
        "--transport",
        choices=["file", "local", "webrtc", "websocket"],
        default="file",
        help="source of the user's voice: a sound file (default), this machine's sound card, a browser, a WebSocket",
    )
    run.add_argument("--record", type=Path, metavar="JSONL", help="record all frames, for a replay")
    file = run.add_argument_group("a sound file")
    file.add_argument("--input", type=Path, metavar="WAV", help="sound file with the caller's voice")
    file.add_argument("--output", type=Path, metavar="WAV", help="write both voices: stereo, caller left, bot right")
    file.add_argument("--realtime", action="store_true", default=None, help="run in real time")
    file.add_argument("--timeline", type=Path, metavar="PNG", help="draw the timeline (also for a sound card)")
    card = run.add_argument_group("the sound card")
    card.add_argument("--microphone", metavar="NAME", help="number or part of the name: see voxline devices")
    card.add_argument("--speaker", metavar="NAME", help="the same for the loudspeaker")
    card.add_argument(
        "--echo",
        choices=["cancel", "gate", "off"],
        help="echo of the bot (default: cancel)",
    )
    server = run.add_argument_group(
        "a browser, or a WebSocket", f"Set {TOKEN} in the environment to require a token from every client."
    )
    server.add_argument("--host", metavar="ADDRESS", help="address to listen on (127.0.0.1: this machine only)")
    server.add_argument("--port", type=int, metavar="N", help="port (default: 8000; 0: any free port)")
    server.add_argument("--max-connections", type=int, metavar="N", help="most conversations at a time (50)")
    run.set_defaults(command=_run)

    cards = commands.add_parser("devices", help="list the sound cards")
    cards.set_defaults(command=_devices)

    demo = commands.add_parser("demo", help="run the rover of examples/ with a recorded caller")
    demo.add_argument(
        "--out", type=Path, default=Path("out"), metavar="FOLDER", help="folder for the results (default: out)"
    )
    demo.add_argument("--fast", action="store_true", help="as fast as possible, not in real time")
    demo.set_defaults(command=_demo)
    return parser


# --- the commands -------------------------------------------------------------------------------------------


def _run(options: argparse.Namespace) -> int:
    kind = cast(str, options.transport)
    for name, kinds in BELONGS.items():
        if getattr(options, name) is not None and kind not in kinds:
            option = "--" + name.replace("_", "-")
            raise UsageError(f"{option} is for --transport {' or '.join(kinds)}, and this is --transport {kind}.")
    bot = cast(Path, options.bot)
    if kind in ("webrtc", "websocket"):
        return _serve(options, kind)
    if kind == "local":
        return _converse(
            RunOptions(
                bot, _card(options), SystemClock(), f"you talk with {bot.stem}", None, options.record, options.timeline
            )
        )
    return _converse(_with_file(bot, options.input, options.output, options.record, options.timeline, options.realtime))


def _with_file(
    bot: Path, input: Path | None, output: Path | None, record: Path | None, timeline: Path | None, realtime: bool
) -> RunOptions:
    if input is None:
        raise UsageError(
            "No input. Name a sound file with --input WAV, or talk to the bot yourself: with --transport webrtc (in a "
            "browser) or --transport local (with this machine's microphone)."
        )
    clock = SystemClock() if realtime else VirtualClock()
    title = f"{input.name} talks with {bot.stem}"
    return RunOptions(bot, FileTransport(input=input, output=output), clock, title, output, record, timeline)


def _card(options: argparse.Namespace) -> Transport:
    from .transports.local.transport import LocalTransport

    def device(name: str | None) -> int | str | None:
        return int(name) if name is not None and name.isdigit() else name

    return LocalTransport(
        input_device=device(options.microphone),
        output_device=device(options.speaker),
        echo=options.echo or "cancel",
    )


def _devices(options: argparse.Namespace) -> int:
    from .transports.local.devices import devices

    found = devices()
    print("\n".join(str(device) for device in found) if found else "No sound card found.")
    return 0 if found else 1


def _serve(options: argparse.Namespace, kind: str) -> int:
    from .transports.server.serving import serve
    from .transports.server.settings import PAGE, ServerSettings

    bot = cast(Path, options.bot)
    make_pipeline = _load(bot)
    # Build one pipeline now, so that a fault in the bot is reported at the start and not to the first caller.
    _make(make_pipeline, MemoryTransport(), bot)
    given = {name: getattr(options, name) for name in ("host", "port", "max_connections")}
    browser = kind == "webrtc"
    settings = ServerSettings(
        name=bot.stem,
        webrtc=browser,
        websocket=not browser,
        page=PAGE if browser else None,
        token=os.environ.get(TOKEN) or None,
        **{name: value for name, value in given.items() if value is not None},
    )
    conversation_log = ConversationLog(options.record)

    def announce(line: str) -> None:
        says, _, url = line.rpartition(" ")
        print(f"{says} {url if browser else 'ws' + url.removeprefix('http') + 'ws'}", flush=True)

    def make(transport: Transport) -> Pipeline:
        return _make(make_pipeline, transport, bot)

    run(serve(make, settings, on_worker=conversation_log.begin, announce=announce))
    return 0


class ConversationLog:
    """Print the start and the end of each conversation of a server, and record it. Transcripts are not printed."""

    def __init__(self, record: Path | None) -> None:
        if record is not None:
            _check_writable(record)
        self._record = record
        self._count = 0

    def begin(self, worker: PipelineWorker, transport: Transport) -> None:
        """Watch a conversation that starts."""
        self._count += 1
        tap = TimelineTap()
        worker.add_tap(tap)
        worker.add_tap(_ConversationReporter(f"conversation {self._count}", tap))
        if self._record is not None:
            path = self._record.with_name(f"{self._record.stem}-{self._count}{self._record.suffix}")
            worker.add_tap(Recorder(path))


class _ConversationReporter(Tap):
    """Print a line at the start and at the end of a conversation."""

    def __init__(self, name: str, tap: TimelineTap) -> None:
        self._name = name
        self._tap = tap

    def opened(self, run: Run) -> None:
        print(f"{self._name} begins", flush=True)

    def closed(self) -> None:
        timeline = self._tap.timeline
        said = sum(answer.start_ms is not None for answer in timeline.responses)
        cuts = sum(answer.cut for answer in timeline.responses)
        seconds = timeline.duration_ms / 1000
        print(
            f"{self._name} is over after {seconds:.0f} s; heard from the bot: {said}, interrupted: {cuts}", flush=True
        )


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
    return _converse(
        _with_file(bot, caller, out / "talk.wav", out / "talk.jsonl", out / "timeline.png", not options.fast)
    )


def _converse(options: RunOptions) -> int:
    make_pipeline = _load(options.bot)
    if options.timeline is not None:
        require_matplotlib()
    for path in (options.output, options.record, options.timeline):
        if path is not None:
            _check_writable(path)
    name = options.bot.stem
    in_time = not isinstance(options.clock, VirtualClock)
    printer = TimelinePrinter(sys.stdout, live=sys.stdout.isatty(), in_time=in_time, bot=name)
    tap = TimelineTap(printer.add)
    pipeline = _make(make_pipeline, options.transport, options.bot)
    # With virtual time every run is the same.
    worker = PipelineWorker(pipeline, clock=options.clock, seed=None if in_time else 0, name=name)
    worker.add_tap(tap)
    if options.record is not None:
        worker.add_tap(Recorder(options.record))
    outcome = run(PipelineRunner().run(worker))[0]
    printer.summary(tap.timeline)
    if options.timeline is not None:
        draw(tap.timeline, options.timeline, title=options.title, bot=name)
    for path, what in (
        (options.output, "both voices: caller left, bot right"),
        (options.record, "recording, for a replay"),
        (options.timeline, "timeline of the conversation"),
    ):
        if path is not None and path.exists():
            printer.wrote(path, what)
    return _exit_code(outcome)


def _exit_code(outcome: Outcome) -> int:
    for error in outcome.errors:
        print(f"voxline: {error}", file=sys.stderr)
    if outcome.reason == "cancelled":
        return 130
    return 1 if outcome.reason == "failed" or outcome.errors else 0


# --- what is given ------------------------------------------------------------------------------------------


def _load(path: Path) -> MakePipeline:
    """Load a bot's file and return its factory."""
    if not path.is_file():
        raise UsageError(f"There is no file {path}: voxline run needs the file of a bot.")
    spec = importlib.util.spec_from_file_location(f"voxline_bot_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"{path} is not a Python file: the name must end in .py.")
    module = importlib.util.module_from_spec(spec)
    # As for a script: the modules beside it can be imported.
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

"""Record a conversation, and run it again: bit for bit, in a moment, with no service running.

    python examples/replaying.py

A caller talks with the rover; `rover.jsonl` and its sound are everything that happened. Take such a recording home from
production, put a breakpoint into a handler, and replay it as often as you like. The last step makes a frame fixture of
it: what one processor was given, to be fed to that processor alone in a test.
"""

import asyncio
import sys
from pathlib import Path

from voxline.pipeline import Pipeline, PipelineWorker, TranscriptionFrame, VirtualClock
from voxline.pipeline.recording import Recorder, Recording, Trace, replay
from voxline.processors import SessionController
from voxline.transports.file import FileTransport

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))
from rover import make_pipeline  # noqa: E402  (an example is no package)


def session_of(pipeline: Pipeline) -> SessionController:
    """The controller in a pipeline."""
    return next(part for part in pipeline.processors() if isinstance(part, SessionController))


async def main() -> None:
    """Record, replay, compare."""
    recording = Path("rover.jsonl")
    live = make_pipeline(FileTransport(input=HERE / "audio" / "caller.wav"))
    worker = PipelineWorker(live, clock=VirtualClock(), seed=0)
    worker.add_tap(Recorder(recording))
    await worker.run()
    history = session_of(live).session.history
    print(f"recorded {len(history)} messages in {recording}; the last: {history[-1].text!r}")

    again, trace = make_pipeline(FileTransport(input="nobody.wav")), Trace()
    await replay(Recording.load(recording), again, trace)
    assert session_of(again).session.history == history
    print(f"replayed {len(trace.lines)} deliveries: the same history, and no recogniser, no voice, no file")

    heard = [entry.frame.text for entry in Recording.load(recording) if isinstance(entry.frame, TranscriptionFrame)]
    print("what the recogniser said:", ", ".join(heard))


if __name__ == "__main__":
    asyncio.run(main())

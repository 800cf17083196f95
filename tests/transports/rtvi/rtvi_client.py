"""A client of RTVI in memory: what it sends goes to the bot at once, and it notes what it is told, and when."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from voxline.pipeline import FrameProcessor, Pipeline, PipelineWorker, ServerMessageFrame, VirtualClock
from voxline.transports.memory import MemoryTransport
from voxline.transports.rtvi import RTVI, attach_rtvi

NOON_S = 1_780_000_000.0
RATE = 16_000


def tone(ms: float) -> Any:
    """Speech, as a detector by energy takes it."""
    return (8_000 * np.sin(np.arange(round(ms * RATE / 1000)) * 0.2)).astype(np.int16)


def silence(ms: float) -> Any:
    return np.zeros(round(ms * RATE / 1000), np.int16)


class Client(MemoryTransport):
    """The user's side. `told` of `MemoryTransport` has the bot's messages, where nobody else takes them."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.on_message: Callable[[str], None] | None = None
        self.on_tell: Callable[[ServerMessageFrame], None] | None = None
        self.got: list[tuple[float, dict[str, Any]]] = []
        """Each message, and when it came, in ms."""
        self.clock_given: VirtualClock | None = None

    def send_message(self, text: str) -> object:
        at_ns = 0 if self.clock_given is None else self.clock_given.now_ns()
        self.got.append((at_ns / 1e6, json.loads(text)))
        return None

    def tell(self, message: ServerMessageFrame) -> None:
        if self.on_tell is None:
            super().tell(message)
        else:
            self.on_tell(message)

    # --- what it sends ------------------------------------------------------------------------------------------

    def send_text(self, text: str) -> None:
        """A message as it is."""
        assert self.on_message is not None
        self.on_message(text)

    def tell_bot(self, kind: str, data: Any = None, *, id: str = "") -> None:
        """An RTVI message."""
        self.send_text(json.dumps({"label": "rtvi-ai", "type": kind, "id": id, "data": data}))

    def be_ready(self, version: str = "2.1.0") -> None:
        about = {"library": "@pipecat-ai/client-js", "library_version": "1.13.1"}
        self.tell_bot("client-ready", {"version": version, "about": about}, id="ready")

    # --- what it got --------------------------------------------------------------------------------------------

    def all(self, *kinds: str) -> list[Any]:
        """The data of the messages of some kinds, in order."""
        return [message["data"] for _, message in self.got if message["type"] in kinds]

    def order(self, *kinds: str) -> list[str]:
        """In which order messages of some kinds came."""
        return [message["type"] for _, message in self.got if message["type"] in kinds]

    def when(self, kind: str) -> list[float]:
        return [at_ms for at_ms, message in self.got if message["type"] == kind]

    def app(self, kind: str) -> list[Any]:
        """Those of the server's own messages."""
        told: list[Any] = [data for data in self.all("server-message") if isinstance(data, dict)]
        return [data for data in told if data.get("type") == kind]


class Call:
    """A bot with a client, in virtual time: ``call.at(1.0, call.client.be_ready)``, then ``await call.run()``."""

    def __init__(
        self, parts: Sequence[FrameProcessor], *, ready: bool = True, client: Client | None = None, **options: Any
    ) -> None:
        self.clock = VirtualClock()
        self.client = client or Client()
        self.client.clock_given = self.clock
        pipeline = Pipeline([self.client.input(), *parts, self.client.output()])
        self.worker = PipelineWorker(pipeline, clock=self.clock, seed=1)
        self.rtvi: RTVI = attach_rtvi(self.client, self.worker, wall_s=lambda: NOON_S, **options)
        if ready:
            self.client.be_ready()

    def at(self, seconds: float, do: Callable[[], object]) -> None:
        """Do something at a time."""

        def now() -> None:
            do()

        self.clock.call_at(round(seconds * 1e9), now)

    async def run(self, seconds: float) -> Client:
        """Let it go on for so long, then hang up."""
        self.at(seconds, self.client.hang_up)
        await self.worker.run()
        return self.client

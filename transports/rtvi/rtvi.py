"""RTVI for one connection: a tap reports events to the client, and the client's messages become frames.

::

    transport = WebRTCTransport()
    worker = PipelineWorker(Pipeline([transport.input(), ..., transport.output()]))
    attach_rtvi(transport, worker)

See `docs/guide/rtvi.md` for the messages and their causes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal, Protocol

from ...pipeline.client_frames import ClientMessageFrame, ServerMessageFrame
from ...pipeline.clock import wall_s
from ...pipeline.frames import Direction, Frame, InputAudioFrame, OutputAudioFrame
from ...pipeline.processor import Hop
from ...pipeline.taps import Run, Tap
from ...pipeline.worker import PipelineWorker
from .channel import Channel
from .event_mapper import EventMapper, Observation
from .requests import ClientRequests, ClientTransport

ToolDetails = Literal["none", "name", "full"]
"""Details sent to the client about a running tool: that one runs; its name; its name, arguments and result."""


class RTVI(Tap):
    """One client. Attach it to the worker as a tap, give `received` the client's messages, and `tell` the bot's.

    ``transport``: receives the client's frames. ``send``: sends a text to the client. ``about``: JSON about the bot for
    ``bot-ready``. ``tools``: see `ToolDetails`. ``levels``: send the levels of both sides, ten times a second.
    ``keep``: keep messages until the client is ready (the newest 500); False: drop them. ``wall_s``: time of day, for
    timestamps.

    It never raises, whatever the client sends or the pipeline does.
    """

    def __init__(
        self,
        transport: ClientTransport,
        send: Callable[[str], object],
        *,
        about: dict[str, Any] | None = None,
        tools: ToolDetails = "name",
        levels: bool = False,
        keep: bool = True,
        wall_s: Callable[[], float] = wall_s,
    ) -> None:
        self._channel = Channel(send, keep=keep)
        self._mapper = EventMapper(self._channel, transport, tools=tools, levels=levels, wall_s=wall_s)
        self._requests = ClientRequests(transport, self._channel, about or {"library": "voxline"}, self._ready)
        self._response: Callable[[], int] = lambda: 0
        self._tail = ""
        self.on_ready: Callable[[], None] | None = None
        """Called each time the client reports that it is ready."""

    # --- the client ---------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """True once the client has sent ``client-ready``."""
        return self._channel.ready

    @property
    def dropped(self) -> int:
        """Messages to the client that were not sent."""
        return self._channel.dropped

    @property
    def refused(self) -> int:
        """Messages of the client that were refused."""
        return self._requests.refused

    def received(self, text: str) -> None:
        """Process a text message of the client. Anything but RTVI is answered with an ``error``."""
        self._requests.received(text)

    def tell(self, message: ServerMessageFrame) -> None:
        """Send a message of the bot to the client's program, or its answer to one."""
        self._requests.answer(message)

    def _ready(self) -> None:
        self._mapper.send_state()
        if self.on_ready is not None:
            self.on_ready()

    # --- the tap ------------------------------------------------------------------------------------------------

    def opened(self, run: Run) -> None:
        """Note the name of the output: the last processor."""
        self._response = run.response
        self._tail = run.processors[-1] if run.processors else ""

    def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
        """Observe frames of jobs, devices and timers."""
        self._mapper.pass_time(t_ns)
        handler = self._mapper.handler(type(frame))
        if handler is not None:
            handler(Observation(t_ns, response, (hop.origin, "")), frame)

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        """Observe frames that handlers push; audio only at the output."""
        if isinstance(frame, OutputAudioFrame):
            if hop.processor == self._tail:
                self._mapper.buffered(t_ns, frame, self._response())
        elif isinstance(frame, ClientMessageFrame):
            self._requests.seen(frame)
        elif not isinstance(frame, InputAudioFrame):
            handler = self._mapper.handler(type(frame))
            if handler is not None:
                to = hop.processor
                handler(Observation(t_ns, self._response(), (hop.origin, to), to == self._tail), frame)

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        """Observe frames that left the pipeline."""
        if isinstance(frame, ClientMessageFrame):
            self._requests.unseen(frame)
        elif not isinstance(frame, InputAudioFrame):
            handler = self._mapper.handler(type(frame))
            if handler is not None:
                handler(Observation(t_ns, response, None), frame)

    def closed(self) -> None:
        """Drop the reference to the kernel at the end of a run; the transport may be used again."""
        self._response = lambda: 0


class MessagingTransport(ClientTransport, Protocol):
    """A transport that carries text messages, as those of WebRTC and WebSocket do."""

    on_message: Callable[[str], None] | None
    on_tell: Callable[[ServerMessageFrame], None] | None

    def send_message(self, text: str) -> object:
        """Send a text message to the client."""
        ...


def attach_rtvi(
    transport: MessagingTransport, worker: PipelineWorker, *, only_if_asked: bool = False, **options: Any
) -> RTVI:
    """Connect the client of a transport to the bot of a worker by RTVI. ``options``: those of `RTVI`.

    ``only_if_asked``: for transports with messages of their own (a WebSocket with `RawSerializer`): used until a client
    sends ``client-ready``.
    """
    rtvi = RTVI(transport, transport.send_message, keep=not only_if_asked, **options)

    def take_over() -> None:
        transport.on_tell = rtvi.tell

    transport.on_message = rtvi.received
    if only_if_asked:
        rtvi.on_ready = take_over
    else:
        take_over()
    worker.add_tap(rtvi)
    return rtvi

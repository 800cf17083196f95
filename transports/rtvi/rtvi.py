"""RTVI for one connection: a tap tells the client what happens, and the client's messages become frames.

::

    transport = WebRTCTransport()
    worker = PipelineWorker(Pipeline([transport.input(), ..., transport.output()]))
    attach_rtvi(transport, worker)

See `docs/guide/rtvi.md` for which message comes from what.
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
"""What the client is told of a tool that runs: that one does; which; and with what arguments and result."""


class RTVI(Tap):
    """One client. Attach it to the worker as a tap, give `received` the client's messages, and `tell` the bot's.

    ``transport``: the transport, which gets frames. ``send``: sends a text to the client. ``about``: what ``bot-ready``
    tells of the bot, JSON. ``tools``: see `ToolDetails`. ``levels``: tell how loud both sides are, ten times a second.
    ``keep``: what is to be told before the client is ready is kept for it (the newest 500); False: it is dropped.
    ``wall_s``: the time of day, for what is told with it.

    Neither a message of a client nor anything in the pipeline makes it raise.
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
        """Called each time that the client says it is ready."""

    # --- the client ---------------------------------------------------------------------------------------------

    @property
    def ready(self) -> bool:
        """Whether the client has said ``client-ready``."""
        return self._channel.ready

    @property
    def dropped(self) -> int:
        """Messages to the client that were not sent."""
        return self._channel.dropped

    @property
    def refused(self) -> int:
        """Messages of the client that were not taken."""
        return self._requests.refused

    def received(self, text: str) -> None:
        """A text message of the client. One that is no RTVI message is answered with an ``error``."""
        self._requests.received(text)

    def tell(self, message: ServerMessageFrame) -> None:
        """A message of the bot for the client's program, or its answer to one."""
        self._requests.answer(message)

    def _ready(self) -> None:
        self._mapper.tell_state()
        if self.on_ready is not None:
            self.on_ready()

    # --- the tap ------------------------------------------------------------------------------------------------

    def opened(self, run: Run) -> None:
        """The output is the last of the processors."""
        self._response = run.response
        self._tail = run.processors[-1] if run.processors else ""

    def taken(self, t_ns: int, hop: Hop, frame: Frame, response: int, job: int) -> None:
        """What jobs, devices and timers bring."""
        self._mapper.pass_time(t_ns)
        way = self._mapper.way(type(frame))
        if way is not None:
            way(Observation(t_ns, response, (hop.origin, "")), frame)

    def delivered(self, t_ns: int, hop: Hop, frame: Frame) -> None:
        """And what handlers push; audio, where it is buffered to be played."""
        if isinstance(frame, OutputAudioFrame):
            if hop.processor == self._tail:
                self._mapper.buffered(t_ns, frame, self._response())
        elif isinstance(frame, ClientMessageFrame):
            self._requests.seen(frame)
        elif not isinstance(frame, InputAudioFrame):
            way = self._mapper.way(type(frame))
            if way is not None:
                to = hop.processor
                way(Observation(t_ns, self._response(), (hop.origin, to), to == self._tail), frame)

    def left(self, t_ns: int, frame: Frame, direction: Direction, response: int) -> None:
        """What no processor took."""
        if isinstance(frame, ClientMessageFrame):
            self._requests.unseen(frame)
        elif not isinstance(frame, InputAudioFrame):
            way = self._mapper.way(type(frame))
            if way is not None:
                way(Observation(t_ns, response, None), frame)

    def closed(self) -> None:
        """The run is over; the transport may live on, and the kernel need not."""
        self._response = lambda: 0


class MessagingTransport(ClientTransport, Protocol):
    """A transport that carries text messages, as those of WebRTC and WebSocket do."""

    on_message: Callable[[str], None] | None
    on_tell: Callable[[ServerMessageFrame], None] | None

    def send_message(self, text: str) -> object:
        """To the client."""
        ...


def attach_rtvi(
    transport: MessagingTransport, worker: PipelineWorker, *, only_if_asked: bool = False, **options: Any
) -> RTVI:
    """Let the client of a transport speak RTVI with the bot of a worker. ``options``: those of `RTVI`.

    ``only_if_asked``: the transport has messages of its own for its client (a WebSocket with `RawSerializer`), which
    are left as they are until a client says ``client-ready``.
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

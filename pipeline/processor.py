"""The base of all processors, and the four ways in which a method takes part.

::

    class Louder(FrameProcessor):
        @handles(InputAudioFrame)                      # a plain handler: quick, in order, may push
        async def amplify(self, frame: InputAudioFrame) -> None:
            await self.push(frame.with_samples(gain(frame.samples, 2.0)))

    class Translator(FrameProcessor):
        @handles(TranscriptionFrame)                   # with `yield` it is a job: it may wait as long as needed
        async def translate(self, frame: TranscriptionFrame) -> AsyncIterator[Frame]:
            yield TextFrame(await self.client.translate(frame.text))

    class Recogniser(FrameProcessor):
        @streams(InputAudioFrame)                      # one long job that reads along; the frames pass on
        async def listen(self, frames: Stream[InputAudioFrame]) -> AsyncIterator[Frame]:
            async for frame in frames: ...

    class Tone(FrameProcessor):
        @source                                        # one long job that makes frames of its own
        async def play(self) -> AsyncIterator[Frame]:
            yield ...

Handling a frame takes it: push it to pass it on. A frame that a processor does not name passes it unseen, at no cost.
"""

from __future__ import annotations

import inspect
import random
from abc import ABC, abstractmethod
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any, ClassVar, Protocol, Self, TypeVar

from .clock import NS_PER_MS, Clock, TimerHandle
from .errors import ProcessorError
from .frames import DOWNSTREAM, AtBound, Direction, Frame, Lane

Deliver = Callable[[Any], Coroutine[Any, Any, None]]


class Place(Protocol):
    """A place for frames: a processor in its pipeline, or one of the pipeline's ends."""

    path: str


class Hop:
    """One step of a frame's way: from ``origin`` to ``processor`` (both are paths), in ``direction``."""

    __slots__ = ("call", "direction", "numbered", "of_microphone", "origin", "place", "quick", "shown", "survives")

    def __init__(self, origin: str, place: Place, direction: Direction, call: Deliver, *, shown: bool = False) -> None:
        self.origin = origin
        self.place = place
        self.direction = direction
        self.call = call
        self.shown = shown
        """True to show it to taps: a handler of a processor runs, not only a fork on the way."""
        self.quick = False
        self.of_microphone = False
        self.numbered = True
        self.survives = True

    def of(self, frame_type: type[Frame]) -> Self:
        """Copy the class's answers to the hop, whose attributes are quicker to read.

        ``quick``: the frame enters the output lane. ``numbered``: it has to belong to a response. ``survives``: no
        interruption drops it. ``of_microphone``: it enters the input lane, whose oldest frames may be dropped.
        """
        output = frame_type.lane is Lane.OUTPUT
        self.quick = output and frame_type.at_bound is AtBound.HOLD
        self.numbered = output and not frame_type.survives
        self.survives = frame_type.survives
        self.of_microphone = frame_type.lane is Lane.INPUT and frame_type.at_bound is AtBound.DROP_OLDEST
        return self

    @property
    def processor(self) -> str:
        """The path of the processor that gets the frame."""
        return self.place.path

    def __repr__(self) -> str:
        return f"<{self.origin} -> {self.place.path} ({self.direction.value})>"


class Host(ABC):
    """The kernel, as a processor sees it. `next_hop`, `next_frame` and `completed` make the usual push quick."""

    __slots__ = ("clock", "completed", "ending", "next_frame", "next_hop")

    clock: Clock
    next_hop: Hop | None
    """The hop of the frame that the running handler pushed; also set where a push must go the general way."""
    next_frame: Frame
    """The frame that the running handler pushed."""
    completed: Awaitable[None]
    """Awaited, it returns at once."""
    ending: str
    """The reason for which the run ends, as in the worker's `Outcome`; empty while it runs."""

    @abstractmethod
    def route(self, processor: object, frame_type: type[Frame]) -> Hop | None:
        """Return the hop for frames that a processor pushes downstream; None where they leave the pipeline unseen."""

    @property
    @abstractmethod
    def random(self) -> random.Random:
        """The worker's random numbers, seeded."""

    @abstractmethod
    def push(self, processor: object, frame: Frame, direction: Direction, response: int | None) -> Awaitable[None]:
        """Push a frame the general way: upstream, a second one, for another response, from a job."""

    @abstractmethod
    def post(self, processor: object, frame: Frame, response: int | None) -> None:
        """Put a frame into the inbox, to be handled by the processor itself."""

    @abstractmethod
    def post_threadsafe(self, processor: object, frame: Frame, response: int | None) -> None:
        """`post` from another thread."""

    @abstractmethod
    def post_at(self, processor: object, when_ns: int, frame: Frame) -> TimerHandle:
        """`post` at a time."""

    @abstractmethod
    def interrupt(self, processor: object, reason: str, response: int | None) -> bool:
        """Cut all responses up to ``response``."""

    @abstractmethod
    def new_response(self) -> int:
        """Open the next response."""

    @abstractmethod
    def next_response(self) -> int:
        """Return the number that `new_response` would return now, without opening a response."""

    @abstractmethod
    def current_response(self) -> int:
        """Return the number of the current response, or 0."""

    @abstractmethod
    def open_response(self) -> int:
        """Return the current response; without one, the newest that is not cut, or a new one."""

    @abstractmethod
    def now_ns(self) -> int:
        """Return the moment at which the current frame was taken."""

    @abstractmethod
    def hold(self, processor: object) -> bool:
        """Make the job that fills a processor wait."""

    @abstractmethod
    def release(self, processor: object) -> None:
        """Release the jobs that were held for a processor."""

    @abstractmethod
    def path(self, processor: object) -> str:
        """Return the path of a processor in the running pipeline."""

    @abstractmethod
    def end(self, processor: object, reason: str) -> None:
        """Ask the worker to drain and end."""


_Method = TypeVar("_Method", bound=Callable[..., Any])
_MARK = "__voxline_takes__"


class PartKind(Enum):
    """The four ways in which a method takes part."""

    PLAIN = "plain handler"
    JOB = "job"
    STREAM = "stream"
    SOURCE = "source"


@dataclass(frozen=True, slots=True)
class Part:
    """One method's part, as its decorator declares it."""

    method: str
    kind: PartKind
    types: tuple[type[Frame], ...]
    direction: Direction
    bound: int = 0
    """For a stream: the number of frames that it may be behind."""


@dataclass(frozen=True, slots=True)
class AudioFormat:
    """Audio that a processor accepts or makes: rates in Hz and numbers of channels; an empty tuple means any."""

    sample_rates: tuple[int, ...] = ()
    channels: tuple[int, ...] = ()

    def __str__(self) -> str:
        rates = " or ".join(str(rate) for rate in self.sample_rates)
        names = {1: "mono", 2: "stereo"}
        channels = " or ".join(names.get(count, f"{count} channels") for count in self.channels)
        return ", ".join(filter(None, [f"{rates} Hz" if rates else "", channels])) or "any audio"

    def takes(self, other: AudioFormat) -> bool:
        """Decide whether audio of the ``other`` format is accepted. Unknown rates and channels are accepted."""
        return all(
            not mine or not theirs or set(theirs) <= set(mine)
            for mine, theirs in [(self.sample_rates, other.sample_rates), (self.channels, other.channels)]
        )


def handles(*types: type[Frame], direction: Direction = DOWNSTREAM) -> Callable[[_Method], _Method]:
    """Declare that a method handles frames of these classes (and of those derived from them).

    The method is ``async def``. Without ``yield`` it runs inline, one at a time, and should be quick; with ``yield``
    it runs as a job beside the pipeline, and each frame it yields goes on from this processor. Stack the decorator
    to name both directions.
    """
    return _mark(types, direction, None, 0)


def streams(
    *types: type[Frame], bound_frames: int = 500, direction: Direction = DOWNSTREAM
) -> Callable[[_Method], _Method]:
    """Declare a long-lived job that reads along: ``async def listen(self, frames: Stream[...])``, with ``yield``.

    The frames pass on unchanged; reading holds nothing back. A reader that is ``bound_frames`` behind loses the
    oldest of a microphone's frames (counted, and reported as an error); other frames are kept up to four times the
    bound.
    """
    return _mark(types, direction, PartKind.STREAM, bound_frames)


def source(method: _Method) -> _Method:
    """Declare a job that makes frames of its own, from the start of the pipeline to its end."""
    return _mark((), DOWNSTREAM, PartKind.SOURCE, 0)(method)


def _mark(
    types: tuple[type[Frame], ...], direction: Direction, kind: PartKind | None, bound: int
) -> Callable[[_Method], _Method]:
    for declared in types:
        if not (isinstance(declared, type) and issubclass(declared, Frame)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ProcessorError(f"@handles takes classes of frames, not {declared!r}.")

    def mark(method: _Method) -> _Method:
        name = method.__name__
        if inspect.isasyncgenfunction(method):
            part = Part(name, kind or PartKind.JOB, types, direction, bound)
        elif kind is None and inspect.iscoroutinefunction(method):
            part = Part(name, PartKind.PLAIN, types, direction)
        else:
            need = "async def" if kind is None else "async def with yield"
            raise ProcessorError(f"{method.__qualname__}: a method that takes frames is `{need}`.")
        needed = 1 if part.kind is PartKind.SOURCE else 2
        if len(inspect.signature(method).parameters) != needed:
            takes = (
                "self"
                if needed == 1
                else "self and the frame"
                if part.kind is not PartKind.STREAM
                else "self and frames"
            )
            raise ProcessorError(f"{method.__qualname__}: it is called with {takes}, so write it with just these.")
        if not types and part.kind is not PartKind.SOURCE:
            raise ProcessorError(
                f"{method.__qualname__}: name at least one class of frames, as in @handles(TextFrame)."
            )
        setattr(method, _MARK, [*getattr(method, _MARK, []), part])
        return method

    return mark


class FrameProcessor:
    """A step of a pipeline. Derive, and write methods with `handles`, `streams` or `source`.

    ``super().__init__()`` need not be called. State belongs into ``__init__`` and is changed by handlers only: they run
    one at a time, so it needs no lock, and a recording replays it.
    """

    name: str = ""
    """Its name in errors and recordings; the class's name where it is empty."""
    max_jobs: ClassVar[int] = 1
    """The number of jobs of this processor that may run at a time."""
    queue_frames: int = 256
    """The number of frames of a lane that may wait behind its job before their sender is held."""
    start_timeout_ms: float = 10_000
    stop_timeout_ms: float = 5_000

    _parts: ClassVar[tuple[Part, ...]] = ()
    _host: Host
    _down: dict[type[Frame], Hop | None]

    def __new__(cls, *args: Any, **kwargs: Any) -> Self:
        # Here and not in __init__, which need not be called; and not on the class, which would slow every push down.
        self = super().__new__(cls)
        self._host = NOT_RUNNING
        return self

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        own = [part for member in vars(cls).values() for part in getattr(member, _MARK, ())]
        if "process_frame" in vars(cls) and not own:
            raise ProcessorError(
                f"{cls.__name__}.process_frame is called by nobody. Say what the processor takes by a decorator, as "
                "@handles(TextFrame) above a method for each class of frames: see docs/guide/coming-from-pipecat.md."
            )
        for part in own:
            if hasattr(FrameProcessor, part.method):
                raise ProcessorError(
                    f"{cls.__name__}.{part.method} handles frames, and {part.method} is a name of FrameProcessor's "
                    "own, which it would replace. Give it another name."
                )
        seen: dict[tuple[type[Frame], Direction], str] = {}
        for part in own:
            if part.kind is PartKind.STREAM:
                continue
            for declared in part.types:
                other = seen.setdefault((declared, part.direction), part.method)
                if other != part.method:
                    raise ProcessorError(
                        f"{cls.__name__}: both {other}() and {part.method}() handle {declared.__name__} "
                        f"{part.direction.name.lower()}. One of them has to go."
                    )
        # A derived class overrides its bases, so the most derived parts come first. For a method that is declared
        # again, the new declaration counts.
        inherited: list[Part] = []
        declared_in = {part.method for part in own}
        for base in cls.__mro__[1:]:
            parts: tuple[Part, ...] = vars(base).get("_own_parts", ())
            inherited += [part for part in parts if part.method not in declared_in]
            declared_in |= {part.method for part in parts}
        for part in inherited:
            cls._check_kind(part)
        cls._own_parts = tuple(own)  # pyright: ignore[reportAttributeAccessIssue]
        cls._parts = (*own, *inherited)

    @classmethod
    def _check_kind(cls, part: Part) -> None:
        """Check a method that is overridden without a decorator: it keeps its part, so it must be of the same kind."""
        method = getattr(cls, part.method, None)
        generator = inspect.isasyncgenfunction(method)
        if generator != (part.kind is not PartKind.PLAIN) or not (generator or inspect.iscoroutinefunction(method)):
            need = "`async def` without `yield`" if part.kind is PartKind.PLAIN else "`async def` with `yield`"
            raise ProcessorError(
                f"{cls.__name__}.{part.method} overrides a {part.kind.value}, which is {need}. "
                "Write it so, or declare it anew with @handles."
            )

    # --- for you to write -------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open connections and start processes, before the first frame flows. All processors start at once.

        Not called in a replay: state that handlers depend on belongs into ``__init__``.
        """

    async def stop(self) -> None:
        """Release everything that `start` opened. Called once, also after a failed start."""

    def idle(self) -> bool:
        """Return True where no work is left. A draining worker waits for it: an output returns False while it plays."""
        return True

    def accepts(self) -> Mapping[type[Frame], AudioFormat]:
        """Return the audio formats that it accepts, by class of frame. Checked when a pipeline is built."""
        return {}

    def makes(self) -> Mapping[type[Frame], AudioFormat]:
        """Return the audio formats that it makes, by class of frame. Checked when a pipeline is built."""
        return {}

    # --- for you to call --------------------------------------------------------------------------------------------

    def push(self, frame: Frame, direction: Direction = DOWNSTREAM, response: int | None = None) -> Awaitable[None]:
        """Send a frame on, to the next processor that names its class.

        In a plain handler it never waits: the frame is delivered, before anything else, when the handler has ended.
        In a job it is a ``yield`` that can go upstream, and waits while the place downstream is full. The frame
        belongs to the current response, unless ``response`` names another.
        """
        host = self._host
        if host.next_hop is None and direction is DOWNSTREAM and response is None:
            try:
                host.next_hop = self._down[type(frame)]
            except KeyError:
                host.next_hop = self._down[type(frame)] = host.route(self, type(frame))
            host.next_frame = frame
            return host.completed
        return host.push(self, frame, direction, response)

    def post(self, frame: Frame, *, response: int | None = None) -> None:
        """Put a frame into the inbox for this processor's own handler: from a job, a device's callback, a protocol."""
        self._host.post(self, frame, response)

    def post_threadsafe(self, frame: Frame, *, response: int | None = None) -> None:
        """`post` from another thread."""
        self._host.post_threadsafe(self, frame, response)

    def post_after(self, delay_ms: float, frame: Frame) -> TimerHandle:
        """`post` in ``delay_ms``, counted from the moment of the frame that is being handled."""
        host = self._host
        return host.post_at(self, host.now_ns() + round(delay_ms * NS_PER_MS), frame)

    def post_at(self, when_ns: int, frame: Frame) -> TimerHandle:
        """`post` when the clock shows ``when_ns``."""
        return self._host.post_at(self, when_ns, frame)

    def interrupt(self, reason: str = "interrupted", *, response: int | None = None) -> bool:
        """Cut every response up to ``response`` (default: the newest). Returns False where there was nothing to cut.

        One step: their jobs are closed, their queued frames dropped, later ones refused, and one `CancelFrame` goes
        from here to the head and one to the tail.
        """
        return self._host.interrupt(self, reason, response)

    def new_response(self) -> int:
        """Open the bot's next response, and return its number. Push its first frame with ``response=`` this."""
        return self._host.new_response()

    @property
    def next_response(self) -> int:
        """The number that `new_response` would return now."""
        return self._host.next_response()

    @property
    def response(self) -> int:
        """The number of the current response; 0 where the current frame belongs to none."""
        return self._host.current_response()

    def open_response(self) -> int:
        """Return `response`; where that is 0, the newest response that is not cut, or a new one.

        Output without a number belongs to it, so that an interruption finds it.
        """
        return self._host.open_response()

    def hold(self) -> bool:
        """Make the job of the current frame wait, after its next ``yield``, until `release`.

        Returns False where the frame came from no job, so that no sender can wait.
        """
        return self._host.hold(self)

    def release(self) -> None:
        """Release the jobs that this processor holds."""
        self._host.release(self)

    def end(self, reason: str = "ended") -> None:
        """Ask the worker to drain and end: queued frames are delivered and played first."""
        self._host.end(self, reason)

    @property
    def ending(self) -> str:
        """In `stop`: the reason of the end, as in `Outcome.reason`. Empty while it runs."""
        return self._host.ending

    @property
    def now_ns(self) -> int:
        """The moment at which the current frame was taken; in a job, the clock's time."""
        return self._host.now_ns()

    @property
    def clock(self) -> Clock:
        """The worker's clock."""
        return self._host.clock

    @property
    def random(self) -> random.Random:
        """The worker's generator of random numbers. Its seed is in the recording."""
        return self._host.random

    @property
    def path(self) -> str:
        """Its path in the running pipeline; its name before it runs."""
        return self._host.path(self)

    def __repr__(self) -> str:
        return f"<{self.path}>"


class _NotRunning(Host):
    """The host of a processor whose pipeline does not run: all calls but `path` raise `ProcessorError`."""

    __slots__ = ()

    def __init__(self) -> None:
        self.next_hop = Hop("", _Nowhere(), DOWNSTREAM, _nowhere)

    def __getattr__(self, name: str) -> Any:
        """Called for attributes that only a kernel sets, such as `clock`."""
        raise _not_running(name)

    def route(self, processor: object, frame_type: type[Frame]) -> Hop | None:
        raise _not_running("push")

    @property
    def random(self) -> random.Random:
        raise _not_running("random")

    def push(self, processor: object, frame: Frame, direction: Direction, response: int | None) -> Awaitable[None]:
        raise _not_running("push")

    def post(self, processor: object, frame: Frame, response: int | None) -> None:
        raise _not_running("post")

    def post_threadsafe(self, processor: object, frame: Frame, response: int | None) -> None:
        raise _not_running("post_threadsafe")

    def post_at(self, processor: object, when_ns: int, frame: Frame) -> TimerHandle:
        raise _not_running("post_at")

    def interrupt(self, processor: object, reason: str, response: int | None) -> bool:
        raise _not_running("interrupt")

    def new_response(self) -> int:
        raise _not_running("new_response")

    def next_response(self) -> int:
        raise _not_running("next_response")

    def current_response(self) -> int:
        raise _not_running("response")

    def open_response(self) -> int:
        raise _not_running("open_response")

    def now_ns(self) -> int:
        raise _not_running("now_ns")

    def hold(self, processor: object) -> bool:
        raise _not_running("hold")

    def release(self, processor: object) -> None:
        raise _not_running("release")

    def path(self, processor: object) -> str:
        return getattr(processor, "name", "") or type(processor).__name__

    def end(self, processor: object, reason: str) -> None:
        raise _not_running("end")


def _not_running(name: str) -> ProcessorError:
    return ProcessorError(
        f"FrameProcessor.{name} works only while the pipeline runs. In start() it does; in __init__() it does "
        "not yet; in a test, use the `harness` fixture."
    )


class _Nowhere:
    path = ""


async def _nowhere(frame: Frame) -> None:
    pass


NOT_RUNNING: Host = _NotRunning()

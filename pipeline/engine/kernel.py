"""The kernel of a running pipeline: one task, one inbox, one delivery at a time.

Everything that happens to a conversation is an entry of the inbox. The kernel takes one entry (a *step*) and runs the
handlers that the entry leads to, one after another. A frame that a handler pushes is delivered when that handler has
ended, before anything else (run to completion). Nothing inside a conversation races, an interruption is one step, and
the recorded inbox replays. Slow work runs beside the kernel, as jobs.

All of it is one file because it is one object: every method reads and changes the same state. Sections, in order:
the state, the way in, the slice (the hot path), pushed frames, the `Host` that processors call, interruption, the
ports of hops and jobs, errors, and the interface for recordings and test benches.

`docs/design/kernel.md` explains the rules, `docs/design/frame-path.md` draws a frame's way.
"""

from __future__ import annotations

import asyncio
import logging
import random
import traceback
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from types import coroutine
from typing import Any, cast

from ..clock import Clock, TimerHandle
from ..errors import ProcessorError, QueueOverflowError
from ..frames import DOWNSTREAM, UPSTREAM, AtBound, CancelFrame, Direction, ErrorFrame, Frame, Lane
from ..graph import Graph, GraphNode, PipelineEnd
from ..jobs import Hold, Job, JobEndedFrame, Origin, Timer, current_job
from ..processor import NOT_RUNNING, Hop, Host, Part
from ..taps import Taps
from .inbox import Entry, Inbox, InterruptFrame, kept_entries
from .job_runner import JobRunner
from .node import JobHop, Node
from .router import ObservedRoutes, Router, Routes
from .waiting import WaitingHandler

log = logging.getLogger("voxline")

SLICE_STEPS = 32
"""Steps between two turns of the event loop: a burst in one conversation does not starve the others."""
SLICE_DELIVERIES = 1_000
"""Further deliveries between two turns: two processors that answer each other for ever stop nobody else."""
WAITING_FACTOR = 4
"""A queue behind a held job still accepts what one frame became on its way there: up to this factor of its bound."""

INPUT, OUTPUT, DROP_OLDEST = Lane.INPUT, Lane.OUTPUT, AtBound.DROP_OLDEST


@coroutine
def _completed() -> Generator[Any, None, None]:
    return
    yield


COMPLETED = _completed()
"""Returned by a push in a plain handler. An exhausted generator: of all objects that can be awaited more than once, it
returns soonest (a third of a finished future's time)."""
next(cast(Generator[Any, None, None], COMPLETED), None)


async def _never_delivered(frame: Frame) -> None:
    raise AssertionError("a marker is not delivered")  # pragma: no cover


_NOWHERE = GraphNode("(kernel)")
SEVERAL = Hop("", _NOWHERE, DOWNSTREAM, _never_delivered)
"""In `Host.next_hop`: the running handler's pushes are in the list `_pushed`."""
NO_HANDLER = Hop("", _NOWHERE, DOWNSTREAM, _never_delivered)
"""In `Host.next_hop`: no handler runs, so a push comes from a job or from outside."""
RELEASE = JobEndedFrame(0)
"""Travels with the hop that checks a queue behind a job again. It survives an interruption, as the queue does."""


class Kernel(Host):
    """Runs one pipeline. The worker makes it; a `KernelLoop` calls `run_slice`."""

    __slots__ = (
        "_event_loop",
        "_nodes_by_id",
        "_now",
        "_pushed",
        "_random",
        "_random_outside",
        "_timers",
        "cancelled",
        "frame",
        "graph",
        "head_routes",
        "hop",
        "inbox",
        "job_runner",
        "nodes",
        "on_end",
        "on_failure",
        "on_sources_ended",
        "origin",
        "replaying",
        "response",
        "responses",
        "router",
        "seed",
        "stack",
        "step_ns",
        "tail_routes",
        "taps",
        "waiting_handler",
        "wake_loop",
    )

    def __init__(
        self, graph: Graph, clock: Clock, *, seed: int, inbox_frames: int = 10_000, replaying: bool = False
    ) -> None:
        self.graph = graph
        self.clock = clock
        self.seed = seed
        self.replaying = replaying
        self.inbox = Inbox(inbox_frames)
        self.taps = Taps()
        self.stack: list[Entry] = []
        """Entries to deliver before the next one is taken from the inbox; the next delivery is last."""
        self.response = 0
        """The response of the current delivery; 0 where it belongs to none."""
        self.origin: Origin | None = None
        """The job or timer that put in the entry of the current delivery."""
        self.hop: Hop = NO_HANDLER
        """The hop of the current delivery."""
        self.frame: Frame = RELEASE
        """The frame of the current delivery."""
        self.responses: int = 0
        """The number of the newest response."""
        self.cancelled = 0
        """All responses up to this number are cut."""
        self.step_ns = clock.now_ns()
        """The moment at which the current entry was taken."""
        self.wake_loop: Callable[[], None] | None = None
        """Wakes the kernel's loop; None while the loop does not sleep."""
        self.waiting_handler: WaitingHandler | None = None
        """The plain handler that waits for something, with the time since when."""
        self.on_failure: Callable[[Node], None] | None = None
        self.on_end: Callable[[str], None] | None = None
        self.on_sources_ended: Callable[[], None] | None = None
        self.next_hop = NO_HANDLER
        self.completed = COMPLETED
        self.ending = ""
        self._event_loop = asyncio.get_running_loop()
        self._now = clock.now_ns
        self._pushed: list[Entry] = []
        self._timers: set[Timer] = set()
        """Timers that have not fired. They end with the conversation."""
        self._random: random.Random | None = None
        self._random_outside: random.Random | None = None
        self.nodes: dict[GraphNode, Node] = {graph_node: Node(graph_node) for graph_node in graph.nodes}
        self._nodes_by_id: dict[int, Node] = {}
        """By the identity of the processor: some processors compare as equal."""
        self.router = Router(graph, self.nodes, self)
        self.head_routes = Routes(self.router, graph.head, DOWNSTREAM)
        self.tail_routes = Routes(self.router, graph.tail, UPSTREAM)
        self.job_runner = JobRunner(self)
        for node in self.nodes.values():
            if node.processor._host is not NOT_RUNNING:
                raise ProcessorError(
                    f"{node.path} belongs to another pipeline that is running. A processor has one place: make a "
                    f"second {type(node.processor).__name__}(...)."
                )
        for node in self.nodes.values():
            self._adopt(node)
        self.taps.changed = self._forget_routes

    def _adopt(self, node: Node) -> None:
        processor = node.processor
        node.bind(Routes(self.router, node.graph_node, DOWNSTREAM), Routes(self.router, node.graph_node, UPSTREAM))
        self._nodes_by_id[id(processor)] = node
        processor._host = self
        processor._down = {}

    def dissolve(self) -> None:
        """Release the processors, so that they can run again in another pipeline."""
        for node in self.nodes.values():
            node.processor._host = NOT_RUNNING
        for timer in list(self._timers):
            timer.cancel()

    def _forget_routes(self) -> None:
        """A tap may now want to see the frames that leave the pipeline."""
        for node in self.nodes.values():
            node.processor._down.clear()

    # --- the way in -------------------------------------------------------------------------------------------------

    def enter_inbox(self, hop: Hop, frame: Frame, response: int = 0, origin: Origin | None = None) -> None:
        """Put an entry into the inbox. Everything that happens to a conversation comes in here.

        Posts and sends from outside, jobs' frames, timers, interruptions and the ends of jobs are entries. An entry of
        a response that is cut is refused. Raises `QueueOverflowError` where the lane is full.
        """
        inbox = self.inbox
        if hop.quick:
            queue = inbox.output
            if len(queue) >= inbox.bound:
                inbox.make_room(queue, hop, frame, origin)
        elif hop.of_microphone:
            queue = inbox.input
            inbox.make_room_for_audio(frame)
            response = 0
        else:
            queue = inbox.queue(frame.lane)
            if len(queue) >= inbox.bound:
                inbox.make_room(queue, hop, frame, origin)
            if frame.lane is INPUT:
                response = 0
        if 0 < response <= self.cancelled:
            if not frame.survives:
                inbox.refused += 1
                return
            response = 0
        queue.append((hop, frame, response, origin))
        if origin is not None and isinstance(origin, Job):
            origin.undelivered += 1
            inbox.from_jobs += 1
        if self.wake_loop is not None:
            self.wake_loop()

    def wake(self) -> None:
        """Wake the kernel's loop: there is something to do."""
        if self.wake_loop is not None:
            self.wake_loop()

    # --- the slice --------------------------------------------------------------------------------------------------

    async def run_slice(self) -> None:
        """Take and deliver until nothing is left, or for `SLICE_STEPS` steps.

        This is the hot path. It is written for CPython: local variables, and no call that is not needed.
        """
        stack, inbox, taps, now, several = self.stack, self.inbox, self.taps, self._now, SEVERAL
        steps = deliveries = 0
        while True:
            if stack:
                deliveries += 1
                if deliveries == SLICE_DELIVERIES:
                    return
                hop, frame, self.response, self.origin = stack.pop()
            else:
                if steps == SLICE_STEPS:
                    return
                steps += 1
                if inbox.urgent:
                    hop, frame, response, origin = inbox.urgent.popleft()
                elif inbox.input:
                    hop, frame, response, origin = inbox.input.popleft()
                    if hop.of_microphone:
                        inbox.microphone_ms -= frame.queue_ms
                elif inbox.output:
                    hop, frame, response, origin = inbox.output.popleft()
                else:
                    return
                self.step_ns = now()
                self.response, self.origin = response, origin
                if origin is not None or taps.taken is not None:
                    if not self._accept(hop, frame):
                        continue
                elif not response and hop.numbered:
                    self.response = self.responses if self.responses > self.cancelled else self.new_response()
            delivered, step_ns = taps.delivered, self.step_ns
            while True:
                self.hop, self.frame = hop, frame
                try:
                    if delivered is not None and hop.shown:
                        delivered(step_ns, hop, frame)
                    call = hop.call
                    await call(frame)
                except Exception as error:
                    self.handler_failed(hop, frame, error)
                next_hop = self.next_hop
                if next_hop is None:
                    break
                self.next_hop = None
                if next_hop is several:
                    stack.extend(reversed(self._pushed))
                    self._pushed = []
                    break
                hop, frame = next_hop, self.next_frame

    def _accept(self, hop: Hop, frame: Frame) -> bool:
        """Do what few taken entries need. Returns False where the entry is no longer wanted."""
        origin = self.origin
        if origin is not None:
            if origin.dead and (isinstance(origin, Timer) or not frame.survives):
                self.inbox.refused += 1
                if isinstance(origin, Job):
                    self.inbox.from_jobs -= 1
                return False
            if self.response > self.responses:
                self.responses = self.response
            if isinstance(origin, Job):
                self.inbox.from_jobs -= 1
                origin.undelivered -= 1
                if origin.waiting is not None:
                    origin.wake_if_free()
        if not self.response and hop.numbered:
            self.open_response()
            if isinstance(origin, Job) and origin.frame:
                origin.response = self.response
        if self.taps.taken is not None:
            job = origin.number if isinstance(origin, Job) else 0
            self.taps.taken(self.step_ns, hop, frame, self.response, job)
        return True

    # --- frames that the running handler has pushed -----------------------------------------------------------------

    def deliver_next(self, hop: Hop, frame: Frame) -> None:
        """Deliver a frame when the running handler has ended."""
        if self.next_hop is None:
            self.next_hop, self.next_frame = hop, frame
        else:
            self._push_entry((hop, frame, self.response, self.origin))

    def fan_out(self, hops: list[Hop], frame: Frame) -> None:
        """Deliver a frame along each hop, in order."""
        for hop in hops:
            self.deliver_next(hop, frame)

    def schedule_pushed(self) -> None:
        """Move what was pushed to the stack, where a slice has ended early."""
        self.stack.extend(reversed(self._pushed_so_far()))
        self._pushed = []
        self.next_hop = NO_HANDLER

    def _pushed_so_far(self) -> list[Entry]:
        if self.next_hop is None:
            return []
        if self.next_hop is SEVERAL:
            return self._pushed
        return [(self.next_hop, self.next_frame, self.response, self.origin)]

    def _push_entry(self, entry: Entry) -> None:
        if self.next_hop is not SEVERAL:
            self._pushed = self._pushed_so_far()
            self.next_hop = SEVERAL
        self._pushed.append(entry)

    # --- Host: pushing and posting ----------------------------------------------------------------------------------

    def _node(self, processor: object) -> Node:
        return self._nodes_by_id[id(processor)]

    def route(self, processor: object, frame_type: type[Frame]) -> Hop | None:
        """Return the hop for frames that a processor pushes downstream; None where they leave the pipeline unseen."""
        hop = self._node(processor).routes(DOWNSTREAM)[frame_type]
        return None if isinstance(hop.place, PipelineEnd) and self.taps.left is None else hop

    def push(self, processor: object, frame: Frame, direction: Direction, response: int | None) -> Awaitable[None]:
        """Push a frame the general way; `FrameProcessor.push` does the usual case itself."""
        hop = self._node(processor).routes(direction)[type(frame)]
        if self.next_hop is NO_HANDLER:
            self._check_thread("push")
            job = current_job.get()
            if job is not None:
                return self.job_runner.push(job, hop, frame, response)
            self.enter_inbox(hop, frame, response or 0)
            return self.completed
        number = self._checked(response) if response is not None else self.response
        if frame.lane is INPUT:
            number = 0
        if 0 < number <= self.cancelled and not frame.survives:
            self.inbox.refused += 1
        else:
            self._push_entry((hop, frame, number, self.origin))
        return self.completed

    def post(self, processor: object, frame: Frame, response: int | None) -> None:
        """Put a frame into the inbox, to be handled by the processor itself."""
        if not self.replaying:
            self._check_thread("post")
            number = self.current_response() if response is None else response
            self.enter_inbox(self._hop_at(processor, frame), frame, number)

    def post_threadsafe(self, processor: object, frame: Frame, response: int | None) -> None:
        """`post` from another thread."""
        if not self.replaying:
            self._event_loop.call_soon_threadsafe(self.post, processor, frame, response or 0)

    def post_at(self, processor: object, when_ns: int, frame: Frame) -> TimerHandle:
        """`post` at a time. A full inbox accepts the frame, too: a processor that goes from tick to tick goes on."""
        timer = Timer()
        if not self.replaying:
            hop, response = self._hop_at(processor, frame), self.current_response()

            def fire() -> None:
                self._timers.discard(timer)
                self.enter_inbox(hop, frame, response, timer)

            timer.handle = self.clock.call_at(when_ns, fire)
            timer.pending = self._timers
            self._timers.add(timer)
        return timer

    def _hop_at(self, processor: object, frame: Frame) -> Hop:
        return self.router.at(self._node(processor).graph_node, type(frame), DOWNSTREAM)

    def _check_thread(self, method: str) -> None:
        if asyncio._get_running_loop() is not self._event_loop:
            raise ProcessorError(
                f"{method}() was called from another thread, and may be called in the event loop only: use "
                "post_threadsafe(), whose frame comes to the processor's own handler."
            )

    # --- Host: the rest ---------------------------------------------------------------------------------------------

    def now_ns(self) -> int:
        """Return the moment of the step; outside of a step, the clock's time."""
        return self._now() if self.next_hop is NO_HANDLER and not self.replaying else self.step_ns

    @property
    def random(self) -> random.Random:
        """The worker's seeded random numbers. Made on first use: a generator takes 2.5 KB.

        Handlers have a sequence of their own: a replay, where nothing else runs, draws the same numbers.
        """
        if self.next_hop is NO_HANDLER:
            if self._random_outside is None:
                self._random_outside = random.Random(f"{self.seed} outside")
            return self._random_outside
        if self._random is None:
            self._random = random.Random(self.seed)
        return self._random

    def hold(self, processor: object) -> bool:
        """Make the job that fills a processor wait."""
        return self._hold_origin(self._node(processor).hold)

    def release(self, processor: object) -> None:
        """Release the jobs that were held for a processor."""
        self._node(processor).hold.release()

    def _hold_origin(self, hold: Hold) -> bool:
        if isinstance(self.origin, Job):
            hold.add(self.origin)
            return True
        return False

    def _release_where_room(self, node: Node) -> None:
        if node.queue_hold and node.waiting < node.processor.queue_frames:
            node.queue_hold.release()

    def path(self, processor: object) -> str:
        """Return the path of a processor."""
        return self._node(processor).path

    def end(self, processor: object, reason: str) -> None:
        """Ask the worker to drain and end."""
        if self.on_end is not None:
            self.on_end(reason)

    # --- responses, and their interruption --------------------------------------------------------------------------

    def new_response(self) -> int:
        """Open the next response."""
        if self.next_hop is NO_HANDLER:
            raise ProcessorError(
                "new_response() works in a plain handler only: what a job changed, a replay would not know. "
                "Open the response in the handler, and push the job's request with it."
            )
        self.responses += 1
        return self.responses

    def next_response(self) -> int:
        """Return the number that `new_response` would return now."""
        return self.responses + 1

    def current_response(self) -> int:
        """Return the number of the current response, or 0."""
        if self.next_hop is NO_HANDLER:
            job = current_job.get()
            return 0 if job is None else job.current_response
        return self.response

    def open_response(self) -> int:
        """Return the current response; without one, the newest that is not cut, or a new one."""
        if self.next_hop is NO_HANDLER:
            return self.current_response()
        if not self.response:
            self.response = self.responses if self.responses > self.cancelled else self.new_response()
        return self.response

    def _checked(self, response: int) -> int:
        if not 0 < response <= self.responses:
            raise ProcessorError(
                f"There is no response {response}: the newest is {self.responses}. new_response() opens the next one."
            )
        return response

    def interrupt(self, processor: object, reason: str, response: int | None) -> bool:
        """Cut all responses up to ``response``. In a handler it is done at once, from elsewhere by the inbox."""
        through = self.responses if response is None else self._checked(response)
        if through <= self.cancelled:
            return False
        node = self._nodes_by_id.get(id(processor))
        if self.next_hop is NO_HANDLER:
            if not self.replaying:
                path = node.path if node is not None else ""
                self.enter_inbox(self.interrupt_hop(node), InterruptFrame(reason, through, path))
            return True
        self._cut(node, CancelFrame(through, reason))
        return True

    def interrupt_hop(self, node: Node | None) -> Hop:
        """Return the hop of an `InterruptFrame` that a processor (or, for None, somebody outside) decided."""

        async def interrupt(frame: InterruptFrame) -> None:
            if frame.response > self.cancelled:
                self.responses = max(self.responses, frame.response)
                self._cut(node, CancelFrame(frame.response, frame.reason))

        place = self.graph.head if node is None else node
        return Hop(place.path, place, DOWNSTREAM, interrupt).of(InterruptFrame)

    def _cut(self, node: Node | None, cancel: CancelFrame) -> None:
        """Cut all responses up to the cancel frame's. One step, in this order:

        (a) close their jobs, (b) drop their queued frames, (c) refuse later ones, (d) send the cancel frames.
        """
        through = self.cancelled = cancel.response
        old = [self.inbox.output]
        for job in self.inbox.drop(through):
            job.undelivered -= 1
            if job.response == 0 and job.frame:
                # Its frames had no number yet. They belonged to what is cut here, and so does the rest of them.
                job.response = through
            job.wake_if_free()
        pushed = kept_entries(self._pushed_so_far(), through)
        self.stack[:] = kept_entries(self.stack, through)
        for other in self.nodes.values():
            old += other.drop(through)
            self._release_where_room(other)
        # To free thousands of frames takes longer than all else here, and can wait until the cancel frames are out.
        self._event_loop.call_soon(old.clear)
        self.job_runner.close(through, self.nodes.values())
        # From here on the running handler's pushes go the general way, which refuses frames of cut responses.
        self._pushed = [*((hop, cancel, 0, None) for hop in self.router.everyone(node, cancel)), *pushed]
        self.next_hop = SEVERAL

    # --- the port of hops -------------------------------------------------------------------------------------------

    def enter_node(self, node: Node, inner: Hop, frame: Frame) -> None:
        """Deliver a frame next, or let it wait behind the node's jobs."""
        if not node.must_wait(inner, frame.lane):
            self.deliver_next(inner, frame)
            return
        if frame.lane is OUTPUT and not frame.survives:
            self.open_response()
        bound = node.processor.queue_frames
        waiting = node.waiting_in(frame.lane)
        if waiting >= bound:
            if frame.at_bound is DROP_OLDEST and node.drop_oldest(frame.lane):
                self.inbox.dropped += 1
            elif (
                self.origin in node.running
                or not self._hold_origin(node.queue_hold)
                or waiting >= bound * WAITING_FACTOR
            ):
                raise QueueOverflowError(
                    f"{waiting} frames wait behind a job of {node.path}, its bound is {bound}, and the sender cannot "
                    f"be made to wait; {type(frame).__name__} does not fit. Send it from a job (a generator is "
                    f"held) or with `await worker.send(frame)`, or raise {node.path}.queue_frames."
                )
        elif waiting + 1 == bound and self.origin not in node.running:
            self._hold_origin(node.queue_hold)
        node.wait((inner, frame, self.response, self.origin), frame.lane)

    def begin_job(self, node: Node, part: Part, frame: Frame) -> Job:
        """Start a job for a frame. Its first part runs now, and its frames enter the inbox."""
        if not self.response and frame.lane is OUTPUT and not frame.survives:
            self.open_response()
        pushed, self.next_hop = self.next_hop, NO_HANDLER
        try:
            return self.job_runner.begin(node, part, frame)
        finally:
            self.next_hop = pushed

    def read_along(self, node: Node, part: Part, frame: Frame) -> None:
        """Add a frame to a stream; start the stream's job where it does not run."""
        pushed, self.next_hop = self.next_hop, NO_HANDLER
        try:
            stream = self.job_runner.stream(node, part)
        finally:
            self.next_hop = pushed
        if self.replaying:
            return  # no job reads, and an overflow of the original run is in the recording
        if not stream.put(frame, self.response) and stream.dropped & (stream.dropped - 1) == 0:
            # Reported at 1, 2, 4, 8 ... lost frames: early, and not once per frame.
            error = QueueOverflowError(
                f"{node.path}.{part.method} is {len(stream)} frames behind, its bound is {part.bound}; "
                f"{stream.dropped} were lost so far. It reads slower than the audio comes."
            )
            # A reader's delay is a fact from outside, so it comes in by the inbox.
            self.overflowed(node, frame, error)

    def leave(self, frame: Frame, direction: Direction) -> None:
        """Note that a frame has left the pipeline at an end."""
        if self.taps.left is not None:
            self.taps.left(self.step_ns, frame, direction, self.response)

    # --- the port of jobs -------------------------------------------------------------------------------------------

    def sources_ended(self) -> None:
        """Note that no source is left: nothing more comes from outside."""
        if self.on_sources_ended is not None:
            self.on_sources_ended()

    def job_failed(self, node: Node, error: BaseException) -> None:
        """Log a job's exception, and notify taps. The `JobEndedFrame` comes by the inbox."""
        log_error(node.path, error, "")
        self.taps.failed(self._now(), node.path, error)

    def ended_hop(self, node: Node) -> Hop:
        """Return the hop of a node's `JobEndedFrame`s."""
        if node.ended_hop is None:

            async def ended(frame: JobEndedFrame) -> None:
                self._job_ended(node, frame)

            node.ended_hop = Hop(node.path, node, DOWNSTREAM, ended).of(JobEndedFrame)
        return node.ended_hop

    def _job_ended(self, node: Node, frame: JobEndedFrame) -> None:
        job = self.job_runner.dismiss(node, frame.job)
        if frame.error:
            had, response = ("", 0) if job is None else (job.frame, job.response)
            self._send_error(node, ErrorFrame(frame.message, node.path, had, frame.error), response)
            # The waiting frames go on after the error and all that follows from it.
            self._push_entry((self._release_hop(node), RELEASE, 0, None))
        else:
            node.failures = 0
            if node.has_queue:
                self._release_waiting(node)

    def _release_waiting(self, node: Node) -> None:
        """Deliver the frames behind a node's jobs that need not wait any longer."""
        entry = node.next_waiting()
        if entry is not None:
            self._push_entry(entry)
            if node.waiting:
                self._push_entry((self._release_hop(node), RELEASE, 0, None))
        self._release_where_room(node)

    def _release_hop(self, node: Node) -> Hop:
        if node.release_hop is None:

            async def release(frame: Frame) -> None:
                self._release_waiting(node)

            node.release_hop = Hop(node.path, node, DOWNSTREAM, release)
        return node.release_hop

    # --- errors -----------------------------------------------------------------------------------------------------

    def handler_failed(self, hop: Hop, frame: Frame, error: BaseException) -> None:
        """Send a handler's exception upstream from its processor, as an `ErrorFrame`; the conversation goes on."""
        if isinstance(hop.place, Node):
            self._watch_for_success(hop, hop.place)
            self._report(hop.place, frame, error)
        else:
            log.error("an error at %s: %s", hop.place.path, type(error).__name__, exc_info=error)

    def _watch_for_success(self, hop: Hop, node: Node) -> None:
        """End the row of errors with the next success. Only a hop that has failed pays for that."""
        if isinstance(hop, JobHop) or not hop.shown or hop in node.watched:
            return
        call = hop.call

        async def watched(frame: Frame) -> None:
            await call(frame)
            hop.call = call
            node.watched -= {hop}
            node.failures = 0

        node.watched |= {hop}
        hop.call = watched

    def _report(self, node: Node, frame: Frame, error: BaseException) -> None:
        log_error(node.path, error, type(frame).__name__)
        self.taps.failed(self.step_ns, node.path, error)
        self._send_error(
            node,
            ErrorFrame(str(error) or type(error).__name__, node.path, type(frame).__name__, type(error).__name__),
            self.response,
        )

    def _send_error(self, node: Node, error: ErrorFrame, response: int) -> None:
        hop = node.routes(UPSTREAM)[ErrorFrame]
        self._pushed = [(hop, error, response, None), *self._pushed_so_far()]
        self.next_hop = SEVERAL
        if self.on_failure is not None:
            self.on_failure(node)

    def overflowed(self, node: Node, frame: Frame, error: QueueOverflowError) -> None:
        """Report an overflow that was found outside of a handler. At most one such report waits in the inbox."""
        log.error("%s", error)
        if not self.inbox.urgent:
            message = ErrorFrame(str(error), node.path, type(frame).__name__, type(error).__name__)
            self.enter_inbox(node.routes(UPSTREAM)[ErrorFrame], message)

    # --- for recordings and test benches ----------------------------------------------------------------------------
    # The documented interface of `pipeline/recording` and `pipeline/testing`, with `clock`, `graph`, `step_ns`,
    # `response`, `waiting_handler`, `ended_hop` and `interrupt_hop`. They use nothing else of the engine.

    @property
    def busy(self) -> bool:
        """True while jobs run, or frames wait behind them."""
        return any(node.running or node.waiting or node.long_jobs for node in self.nodes.values())

    @property
    def jobs(self) -> dict[int, Job]:
        """All jobs that have not ended, by number."""
        return self.job_runner.jobs

    @property
    def jobs_started(self) -> int:
        """The number of the newest job."""
        return self.job_runner.started

    def recorded_hop(
        self, origin: str, frame_type: type[Frame], direction: Direction, *, begins_here: bool
    ) -> Hop | None:
        """Return the hop of a recorded entry. None where the pipeline has no processor of the path ``origin``.

        ``begins_here``: the entry began *at* the processor (its timer, its posted fact) and was not pushed by it.
        """
        if origin in (self.graph.head.path, self.graph.tail.path):
            if frame_type is InterruptFrame:
                return self.interrupt_hop(None)
            return (self.head_routes if origin == self.graph.head.path else self.tail_routes)[frame_type]
        node = self.node_at(origin)
        if node is None:
            return None
        if not begins_here:
            return node.routes(direction)[frame_type]
        if frame_type is InterruptFrame:
            return self.interrupt_hop(node)
        if frame_type is JobEndedFrame:
            return self.ended_hop(node)
        return self.router.at(node.graph_node, frame_type, DOWNSTREAM)

    def node_at(self, path: str) -> Node | None:
        """Return the node of a path."""
        return next((node for node in self.nodes.values() if node.path == path), None)

    def feed(self, hop: Hop, frame: Frame, response: int, origin: Origin) -> None:
        """Put in an entry of a recording. It was accepted and numbered when it was taken, so nothing is checked."""
        if response > self.responses:
            self.responses = response
        self.inbox.output.append((hop, frame, response, origin))
        if isinstance(origin, Job):
            origin.undelivered += 1
            self.inbox.from_jobs += 1

    def interrupt_from_outside(self, reason: str, response: int) -> None:
        """Cut responses up to ``response`` from outside, also where this pipeline has not opened it yet."""
        self.enter_inbox(self.interrupt_hop(None), InterruptFrame(reason, response))

    def observe_node(
        self,
        path: str,
        arriving: Callable[[Frame, Direction], None],
        pushed: Callable[[Frame, Direction], None],
    ) -> None:
        """Call ``arriving`` for each frame that comes to a processor from elsewhere, ``pushed`` for each it pushes.

        To be called before any frame flows: hops are made once.
        """
        node = self.node_at(path)
        assert node is not None
        self.router.observe(node.graph_node, arriving)
        down, up = (ObservedRoutes(node.routes(direction), pushed) for direction in (DOWNSTREAM, UPSTREAM))
        node.bind(down, up)
        node.processor._down = down  # pyright: ignore[reportAttributeAccessIssue]


def log_error(path: str, error: BaseException, frame: str) -> None:
    """Log an exception, and where in the code it was raised.

    Its message may contain what somebody said, so only `debug` shows it.
    """
    raised_at = traceback.extract_tb(error.__traceback__, limit=-1)
    where = f" ({Path(raised_at[0].filename).name}, line {raised_at[0].lineno})" if raised_at else ""
    log.warning("%s failed with %s while it had %s%s", path, type(error).__name__, frame or "no frame", where)
    log.debug("%s failed", path, exc_info=error)

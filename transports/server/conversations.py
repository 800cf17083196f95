"""The conversations of a server: a worker each, no more than so many, and an end for all of them."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ...pipeline.clock import NS_PER_S, Clock, Wait
from ...pipeline.errors import VoxlineError
from ...pipeline.graph import Pipeline
from ...pipeline.tasks import Deadline, spawn
from ...pipeline.worker import PipelineWorker
from ..base import Transport
from .caller import Caller
from .limits import key_of
from .refusals import Refusal, busy, too_many
from .settings import is_loopback

log = logging.getLogger("voxline.server")

MakePipeline = Callable[[Transport], Pipeline | Awaitable[Pipeline]]
"""Makes the pipeline of one conversation, with ``transport.input()`` at its head and ``transport.output()`` at its
tail. Called once for each."""
OnWorker = Callable[[PipelineWorker, Transport], None]
"""Called with each worker before it runs: attach taps, recorders, metrics."""

AGAIN_S = 5
"""Who is refused since all places are taken may ask again after so long."""
LAST_S = 10
"""After they were cancelled, workers may take so long to close; the deadlines of their processors are shorter."""


@dataclass(eq=False)
class Conversation:
    """One that is under way."""

    name: str
    """In logs. It gives no access."""
    transport: Transport
    worker: PipelineWorker
    caller: Caller
    """Who it is for."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Conversations:
    """Begins conversations, keeps account of them, and ends them.

    ``limit``: at a time; one more is refused with 503. ``per_address``: the same of one address, with 429. A place is
    taken before anything is made.
    """

    def __init__(
        self,
        make_pipeline: MakePipeline,
        *,
        clock: Clock,
        limit: int,
        per_address: int | None = None,
        factory_timeout_s: float,
        on_worker: OnWorker | None = None,
    ) -> None:
        self._make_pipeline = make_pipeline
        self._clock = clock
        self._limit = limit
        self._per_address = per_address
        self._factory_timeout_s = factory_timeout_s
        self._on_worker = on_worker
        self._running: dict[Transport, Conversation] = {}  # bound: ``limit``, then Refusal
        self._coming: list[Caller] = []  # bound: ``limit``, with those under way
        """Who has the places of those that are being made."""
        self._begun = 0
        self._waiting: list[Wait] = []
        self._cancelled = False
        self.draining = False
        """No more are begun."""

    def __len__(self) -> int:
        return len(self._running) + len(self._coming)

    @property
    def running(self) -> list[Conversation]:
        """Those under way."""
        return list(self._running.values())

    @property
    def full(self) -> bool:
        """Whether all places are taken."""
        return len(self) >= self._limit

    def of(self, transport: Transport) -> Conversation | None:
        """The one that a transport carries; None where it is over."""
        return self._running.get(transport)

    def check(self, caller: Caller | None = None) -> None:
        """Raises `Refusal` where no conversation can begin now: 503, or 429 where ``caller``'s address has too many."""
        self._check_still_wanted()
        if self.full:
            raise busy(f"All {self._limit} places are taken.", AGAIN_S)
        if caller is not None and self._per_address is not None and (key := _counted(caller)) is not None:
            callers = [*self._coming, *(conversation.caller for conversation in self._running.values())]
            if sum(key_of(other.address) == key for other in callers) >= self._per_address:
                raise too_many(f"{self._per_address} conversations of this address are under way.", AGAIN_S)

    async def begin(
        self, transport: Transport, caller: Caller, prepare: Callable[[PipelineWorker], None] | None = None
    ) -> Conversation:
        """Make a pipeline for a transport and run it. ``prepare`` is called with the worker before it runs.

        Returns when it is under way. Raises `Refusal`: 503 where there is no place or the factory takes too long, 429
        where the caller's address has too many, 500 where the factory raises or the pipeline does not start.
        """
        self.check(caller)
        self._coming.append(caller)
        try:
            self._begun += 1
            name = f"conversation {self._begun}"
            worker = await self._make(transport, name)
            self._check_still_wanted()
            if prepare is not None:
                prepare(worker)
            if self._on_worker is not None:
                self._call_hook(self._on_worker, worker, transport)
            conversation = Conversation(name, transport, worker, caller)
            self._running[transport] = conversation
            conversation.task = spawn(self._run(conversation), name)
        finally:
            self._coming.remove(caller)
            self._changed()
        if not await worker.started():
            self._check_still_wanted()
            raise Refusal(500, "The bot did not start; the server's log says why.")
        log.info("%s begins; %d of %d", name, len(self), self._limit)
        return conversation

    def _check_still_wanted(self) -> None:
        if self.draining:
            raise busy("The server is about to end, and begins no conversation.", AGAIN_S)

    async def _make(self, transport: Transport, name: str) -> PipelineWorker:
        try:
            made = self._make_pipeline(transport)
            if inspect.isawaitable(made):
                with Deadline(self._clock, self._factory_timeout_s, TimeoutError):
                    made = await made
            return PipelineWorker(made, clock=self._clock, name=name)
        except TimeoutError:
            log.error("make_pipeline took longer than %g s for %s", self._factory_timeout_s, name)
            raise busy("The bot takes too long to start.", AGAIN_S) from None
        except Refusal:
            raise
        except Exception:
            log.exception("make_pipeline failed for %s", name)
            raise Refusal(500, "The bot could not be made; the server's log says why.") from None

    def _call_hook(self, hook: OnWorker, worker: PipelineWorker, transport: Transport) -> None:
        try:
            hook(worker, transport)
        except Exception:
            log.exception("on_worker failed for %s", worker.name)
            raise Refusal(500, "The bot could not be made; the server's log says why.") from None

    async def _run(self, conversation: Conversation) -> None:
        how = "cancelled"
        try:
            outcome = await conversation.worker.run()
            how = " ".join([outcome.reason, *outcome.errors])
        except VoxlineError as error:
            how = "did not start"
            log.error("%s did not start: %s", conversation.name, error)
        except Exception:
            how = "failed"
            log.exception("%s failed", conversation.name)
        finally:
            del self._running[conversation.transport]
            log.info("%s is over (%s); %d left", conversation.name, how, len(self))
            self._changed()

    # --- the end -------------------------------------------------------------------------------------------------

    async def drain(self, drain_s: float, stop_s: float) -> None:
        """Let them come to an end, then stop them, then cancel them. Returns when none is left."""
        self.draining = True
        if await self._over_within(drain_s):
            return
        log.info("%d conversations go on after %g s, and are stopped", len(self), drain_s)
        stopping = [spawn(_stop(c.worker, stop_s), f"stop {c.name}") for c in self._running.values()]
        # A little more than they have themselves: who is in time is not cancelled.
        await self._over_within(stop_s + 0.5)
        self.cancel()
        await self._over_within(LAST_S)
        left = [c.task for c in self._running.values() if c.task is not None]
        for task in left:
            task.cancel()
        if tasks := [*left, *stopping]:
            await asyncio.wait(tasks)

    def cancel(self) -> None:
        """End all now."""
        self.draining = self._cancelled = True
        for conversation in self.running:
            conversation.worker.cancel()
        self._changed()

    async def _over_within(self, seconds: float) -> bool:
        """Wait for all to be over; ended early by `cancel`, the first time. Whether they are."""
        late = False
        cancelled = self._cancelled

        def wake() -> None:
            nonlocal late
            late = True
            self._changed()

        timer = self._clock.call_at(self._clock.now_ns() + round(seconds * NS_PER_S), wake)
        try:
            while len(self) and not late and self._cancelled == cancelled:
                waiting = Wait()
                self._waiting.append(waiting)
                await waiting
        finally:
            timer.cancel()
        return not len(self)

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, []
        for wait in waiting:
            wait.wake()


async def _stop(worker: PipelineWorker, stop_s: float) -> None:
    await worker.stop(timeout_ms=stop_s * 1_000)


def _counted(caller: Caller) -> str | None:
    """What is counted of an address. Not this machine's own: it may be that of a proxy that nobody told us of."""
    key = key_of(caller.address)
    return None if not key or caller.shared or is_loopback(key) or is_loopback(caller.address) else key

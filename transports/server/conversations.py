"""The conversations of a server: one worker each, a limited number, and an orderly end."""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Awaitable, Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ...pipeline.clock import NS_PER_S, Clock, Wait
from ...pipeline.errors import VoxlineError
from ...pipeline.graph import Pipeline
from ...pipeline.tasks import Deadline, spawn
from ...pipeline.worker import PipelineWorker
from ..base import Transport
from ..caller import Caller
from .credentials import NOBODY, Grant
from .limits import key_of
from .refusals import RETRY_S, Refusal, busy, too_many
from .settings import is_loopback

log = logging.getLogger("voxline.server")

MakePipeline = Callable[[Transport], Pipeline | Awaitable[Pipeline]]
"""Makes the pipeline of one conversation, with ``transport.input()`` at its head and ``transport.output()`` at its
tail. Called once for each."""
OnWorker = Callable[[PipelineWorker, Transport], None]
"""Called with each worker before it runs: attach taps, recorders, metrics."""

CLOSE_TIMEOUT_S = 10
"""Limit for cancelled workers to close; the deadlines of their processors are shorter."""


@dataclass(eq=False)
class ReservedPlace:
    """A place for one conversation, reserved before anything is made for it."""

    caller: Caller
    grant: Grant


@dataclass(eq=False)
class ServedConversation:
    """A running conversation of a server."""

    name: str
    """Name in logs. The name gives no access."""
    transport: Transport
    worker: PipelineWorker
    caller: Caller
    grant: Grant = field(default=NOBODY, repr=False)
    """The grant that admitted the caller."""
    task: asyncio.Task[None] | None = field(default=None, repr=False)


class Conversations:
    """Starts, counts and ends conversations.

    ``limit``: conversations at a time; a further one is refused with 503. ``per_address``: conversations at a time of
    one address; a further one is refused with 429. A conversation takes its place before anything is made for it. The
    place is free as soon as the client is gone, while the pipeline may still be ending; pipelines that run or end are
    at most twice ``limit``.
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
        self._running: dict[Transport, ServedConversation] = {}  # bound: ``limit``, then Refusal
        self._ending: dict[Transport, ServedConversation] = {}  # bound: 2 * limit with those that run; refuse
        """Conversations without a client, whose pipelines are ending."""
        self._reserved: list[ReservedPlace] = []  # bound: ``limit``, together with those that run
        """Places of conversations that are being made."""
        self._begun = 0
        self._waiting: list[Wait] = []
        self._cancelled = False
        self.draining = False
        """True from the beginning of `drain` on: no conversation begins any more."""

    def __len__(self) -> int:
        """Count the places that are taken."""
        return len(self._running) + len(self._reserved)

    @property
    def running(self) -> list[ServedConversation]:
        """Conversations that run, and have a client."""
        return list(self._running.values())

    @property
    def full(self) -> bool:
        """True where no place is free."""
        return len(self) >= self._limit or len(self) + len(self._ending) >= 2 * self._limit

    def of(self, transport: Transport) -> ServedConversation | None:
        """Return the conversation of a transport; None where it is over."""
        return self._running.get(transport)

    def check(self, caller: Caller | None = None) -> None:
        """Raise `Refusal` where no conversation can begin: 503, or 429 where ``caller``'s address has too many."""
        self._check_still_wanted()
        if self.full:
            raise busy(f"All {self._limit} places are taken.", RETRY_S)
        if caller is not None and self._per_address is not None and (key := _counted(caller)) is not None:
            callers = [place.caller for place in self._reserved]
            callers += [conversation.caller for conversation in self._running.values()]
            if sum(key_of(other.address) == key for other in callers) >= self._per_address:
                raise too_many(f"This address has {self._per_address} conversations, the limit.", RETRY_S)

    @contextmanager
    def reserve(self, caller: Caller, grant: Grant = NOBODY) -> Generator[ReservedPlace]:
        """Reserve a place for a conversation; it is free again at the end, unless `begin` took it.

        Raises `Refusal` as `check` does.
        """
        self.check(caller)
        place = ReservedPlace(caller, grant)
        self._reserved.append(place)
        try:
            yield place
        finally:
            self._free(place)

    async def begin(
        self, transport: Transport, place: ReservedPlace, prepare: Callable[[PipelineWorker], None] | None = None
    ) -> ServedConversation:
        """Make a pipeline for a transport, and run it in a reserved place.

        ``prepare`` is called with the worker before it runs. Returns when the pipeline runs. Raises `Refusal`: 503
        where the factory takes too long or the server ends, 500 where the factory raises or the pipeline does not
        start.
        """
        transport.caller = place.caller
        try:
            self._begun += 1
            name = f"conversation {self._begun}"
            worker = await self._make(transport, name)
            self._check_still_wanted()
            if prepare is not None:
                prepare(worker)
            if self._on_worker is not None:
                self._call_hook(self._on_worker, worker, transport)
            conversation = ServedConversation(name, transport, worker, place.caller, place.grant)
            self._running[transport] = conversation
            transport.on_hang_up = lambda: self.release(transport)
            conversation.task = spawn(self._run(conversation), name)
        finally:
            self._free(place)
        if not await worker.started():
            self._check_still_wanted()
            raise Refusal(500, "The bot did not start; the server's log says why.")
        log.info("%s begins; %d of %d", name, len(self), self._limit)
        return conversation

    def release(self, transport: Transport) -> None:
        """Free the place of a transport whose client is gone; its pipeline ends in its own time."""
        conversation = self._running.pop(transport, None)
        if conversation is not None:
            self._ending[transport] = conversation

    def _free(self, place: ReservedPlace) -> None:
        if place in self._reserved:
            self._reserved.remove(place)
            self._changed()

    def _check_still_wanted(self) -> None:
        if self.draining:
            raise busy("The server is shutting down, and begins no conversation.", RETRY_S)

    async def _make(self, transport: Transport, name: str) -> PipelineWorker:
        try:
            made = self._make_pipeline(transport)
            if inspect.isawaitable(made):
                with Deadline(self._clock, self._factory_timeout_s, TimeoutError):
                    made = await made
            return PipelineWorker(made, clock=self._clock, name=name)
        except TimeoutError:
            log.error("make_pipeline took longer than %g s for %s", self._factory_timeout_s, name)
            raise busy("The bot takes too long to start.", RETRY_S) from None
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

    async def _run(self, conversation: ServedConversation) -> None:
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
            self._running.pop(conversation.transport, None)
            self._ending.pop(conversation.transport, None)
            log.info("%s is over (%s); %d left", conversation.name, how, len(self))
            self._changed()

    # --- the end -------------------------------------------------------------------------------------------------

    async def drain(self, drain_s: float, stop_s: float) -> None:
        """Wait ``drain_s`` for the conversations to end, stop the rest, cancel the rest. Returns when none is left."""
        self.draining = True
        if await self._over_within(drain_s):
            return
        log.info("%d conversations still run after %g s, and are stopped", len(self._left), drain_s)
        stopping = [spawn(_stop(c.worker, stop_s), f"stop {c.name}") for c in self._left]
        # A little longer than their own deadline, so that those that meet it are not cancelled.
        await self._over_within(stop_s + 0.5)
        self.cancel()
        await self._over_within(CLOSE_TIMEOUT_S)
        left = [c.task for c in self._left if c.task is not None]
        for task in left:
            task.cancel()
        if tasks := [*left, *stopping]:
            await asyncio.wait(tasks)

    def cancel(self) -> None:
        """Cancel all conversations now."""
        self.draining = self._cancelled = True
        for conversation in self._left:
            conversation.worker.cancel()
        self._changed()

    @property
    def _left(self) -> list[ServedConversation]:
        """Conversations whose pipelines have not ended."""
        return [*self._running.values(), *self._ending.values()]

    async def _over_within(self, seconds: float) -> bool:
        """Wait until all have ended; the first `cancel` ends the wait. Returns True where all have."""
        late = False
        cancelled = self._cancelled

        def wake() -> None:
            nonlocal late
            late = True
            self._changed()

        timer = self._clock.call_at(self._clock.now_ns() + round(seconds * NS_PER_S), wake)
        try:
            while (self._left or self._reserved) and not late and self._cancelled == cancelled:
                waiting = Wait()
                self._waiting.append(waiting)
                await waiting
        finally:
            timer.cancel()
        return not self._left and not self._reserved

    def _changed(self) -> None:
        waiting, self._waiting = self._waiting, []
        for wait in waiting:
            wait.wake()


async def _stop(worker: PipelineWorker, stop_s: float) -> None:
    await worker.stop(timeout_ms=stop_s * 1_000)


def _counted(caller: Caller) -> str | None:
    """Return the key by which an address is limited; None for this machine's own, which may be an unlisted proxy's."""
    key = key_of(caller.address)
    return None if not key or caller.shared or is_loopback(key) or is_loopback(caller.address) else key

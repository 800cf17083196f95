"""The base of all services: connections, deadlines, retries, fall-back members and metrics.

A service is asked a question and answers it piece by piece, as an async generator. This module handles every failure
on the way, once for all services; an adapter only sends its question (see `stt/base.py`, `llm/base.py`,
`tts/base.py`)::

    class Beeps(TTS):
        async def connect(self) -> None: ...           # before the first frame flows, and again after a failure
        async def disconnect(self) -> None: ...
        async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
            yield SpeechChunk(beep(len(text)), 16_000)

`ServiceCall` is one question. It goes through the attempts, and through the members of a `Fallback`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Generic, TypedDict, cast

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from typing_extensions import TypeVar

from ...pipeline.clock import NS_PER_MS
from ...pipeline.errors import (
    BadRequestError,
    ProcessorError,
    ServiceDownError,
    ServiceError,
    ServiceTimeout,
    SettingsError,
    VoxlineError,
)
from ...pipeline.frames import UPSTREAM, ErrorFrame, ServiceMetricsFrame, UrgentFrame
from ...pipeline.jobs import current_job
from ...pipeline.processor import NOT_RUNNING, FrameProcessor, handles
from ...pipeline.settings import explain
from ...pipeline.tasks import Deadline
from .health import Health

log = logging.getLogger("voxline")

CLOSE_TIMEOUT_S = 0.5
"""Longest time that an abandoned answer may take to close."""
DISCONNECT_TIMEOUT_S = 3.0
"""Longest time that `disconnect` may take. After that the connection is abandoned."""


class ServiceSettings(BaseModel):
    """Settings of every service. Derive to add an adapter's own; `Service.update` changes them at run time."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    connect_timeout_s: float = Field(default=10.0, gt=0)
    first_timeout_s: float = Field(default=8.0, gt=0)
    """Longest wait for the first piece of an answer, per attempt. For an STT it counts from the end of speech."""
    between_timeout_s: float = Field(default=8.0, gt=0)
    """Longest wait for each further piece."""
    attempts: int = Field(default=3, ge=1)
    """Attempts before the question counts as failed. A `Fallback` asks each member once."""
    backoff_s: float = Field(default=0.25, ge=0)
    """Wait before the second attempt; it doubles each time. The actual wait is random, between half and all of it
    ("equal jitter": M. Brooker, Exponential Backoff and Jitter, AWS 2015).
    """
    backoff_max_s: float = Field(default=2.0, ge=0)
    """Upper bound of a wait. A service that asks for a longer one counts as failed."""


class Limits(TypedDict, total=False):
    """The fields of `ServiceSettings`, for the constructors of adapters: ``**limits: Unpack[Limits]``."""

    connect_timeout_s: float
    first_timeout_s: float
    between_timeout_s: float
    attempts: int
    backoff_s: float
    backoff_max_s: float


@dataclass(frozen=True, slots=True)
class ServiceUpdateFrame(UrgentFrame):
    """New values of some settings, as JSON. `Service.update` posts it, so that a recording contains the change.

    ``member``: index of the member that changes; -1: the service itself.
    """

    changes: str
    member: int = -1


S = TypeVar("S", bound=ServiceSettings, default=ServiceSettings)
S2 = TypeVar("S2", bound=ServiceSettings)
T = TypeVar("T")


def settings_of(service: str, kind: type[S2], **fields: Any) -> S2:
    """Make settings from their fields. Raises `SettingsError`, which says what is allowed."""
    try:
        return kind(**fields)
    except ValidationError as error:
        raise SettingsError(f"{service}: {explain(error, kind)}.") from None


class Service(FrameProcessor, Generic[S]):
    """A processor that asks a service: the base of `STT`, `LLM` and `TTS`.

    An adapter writes `connect`, `disconnect` and its question, and `translate` if its library has exceptions of its
    own. If it has settings of its own, its constructor sets ``self.settings``.
    """

    kind: ClassVar[str] = "service"
    settings: S = cast(S, ServiceSettings())
    """Current settings; `update` changes them."""
    reconnect_for: ClassVar[frozenset[str]] = frozenset()
    """Settings that a connection is made with: after a change, the next question makes a new connection."""

    connected = False
    """True after `connect`, until a failure that a new connection may repair."""
    health: Health | None = None
    """Records which members work."""
    _stale = False
    _owner: Service[Any] | None = None
    _member_index = -1
    _connect_called = False
    """True from the call of `connect` to the end of `disconnect`, even if `connect` failed half-way."""

    # --- hooks of an adapter ------------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Acquire the resources for questions: a process, a model, a connection. Raises `ServiceError`.

        Called before the first frame flows, and again before a question if a failure has broken the connection.
        """

    async def disconnect(self) -> None:
        """Release what `connect` acquired, in whatever state it is."""

    def alive(self) -> bool:
        """Return False if the connection is gone, for example because its process has ended."""
        return True

    def translate(self, error: Exception) -> ServiceError | None:
        """Map an exception of the library to a `ServiceError`; None for an unknown one."""
        return None

    # --- for users ----------------------------------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """Name of the service in messages."""
        return self.name or type(self).__name__

    def members(self) -> Sequence[Service[Any]]:
        """Services that are asked, the best first. Only a `Fallback` has several."""
        return (self,)

    def update(self, **changes: Any) -> None:
        """Change settings at run time, from the next question on. Raises `SettingsError`."""
        theirs = sorted(ServiceSettings.model_fields.keys() & changes) if self.members()[0] is not self else []
        if theirs:
            raise SettingsError(f"{self.label}: each member has its own {', '.join(theirs)}. Update the members.")
        changed = settings_of(self.label, type(self.settings), **{**self.settings.model_dump(), **changes})
        frame = ServiceUpdateFrame(changed.model_dump_json(include=set(changes)), self._member_index)
        (self._owner or self).post(frame)

    @handles(ServiceUpdateFrame)
    async def adopt_settings(self, frame: ServiceUpdateFrame) -> None:
        """Apply a change that `update` has checked."""
        changes = json.loads(frame.changes)
        target = cast("Service[Any]", self) if frame.member < 0 else self.members()[frame.member]
        before: ServiceSettings = target.settings
        target.settings = type(before).model_validate({**before.model_dump(), **changes})
        target._stale = target._stale or not target.reconnect_for.isdisjoint(changes)

    # --- lifecycle ----------------------------------------------------------------------------------------------------

    @property
    def start_timeout_ms(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Sum of the members' own connection deadlines, which expire before this one."""
        return 1_000 * sum(member.settings.connect_timeout_s + DISCONNECT_TIMEOUT_S for member in self.members())

    @property
    def stop_timeout_ms(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Members disconnect one after the other, each with its own deadline."""
        return 1_000 * (DISCONNECT_TIMEOUT_S * len(self.members()) + 2)

    async def start(self) -> None:
        """Connect all members. One of them has to succeed."""
        failures: list[ServiceError] = []
        members = self.members()
        self.health = Health(len(members))
        for index, member in enumerate(members):
            member.attach(self, index)
            try:
                await member.ensure_connected()
            except ServiceError as error:
                self.health.failed(index, self.clock.now_ns(), error.wait_s)
                failures.append(error)
        if len(failures) == len(members):
            raise failures[0]
        for error in failures:
            log.warning("%s starts without one member: %s", self.path, error)

    async def stop(self) -> None:
        """Disconnect all members."""
        for member in self.members():
            if member is not self and member._owner is not self:
                # `attach` failed: the member belongs to another service.
                continue
            await member.close_connection()
            if member is not self:
                # The member may become a processor or another service's member next.
                member._host, member._owner, member._member_index = NOT_RUNNING, None, -1

    def attach(self, owner: Service[Any], member_index: int) -> None:
        """Take part in a run as a member of ``owner``. A member of a `Fallback` has no place in the pipeline."""
        if owner is not self:
            if self._host is not NOT_RUNNING:
                raise ProcessorError(
                    f"{self.label} in {owner.path} already runs in another place. A service has one place: "
                    f"make a second {type(self).__name__}(...)."
                )
            self._host, self._owner, self._member_index = owner._host, owner, member_index

    async def ensure_connected(self) -> None:
        """Connect if necessary, within ``connect_timeout_s``. Raises `ServiceError`."""
        if self.connected and not self._stale and self.alive():
            return
        timeout_s = self.settings.connect_timeout_s
        message = f"{self.label} was not ready within {timeout_s:g} s. If it is running, raise connect_timeout_s."
        try:
            with Deadline(self.clock, timeout_s, lambda: ServiceTimeout(message)):
                await self.close_connection()
                self._connect_called = True
                # Cleared before `connect`: a setting that changes meanwhile may come too late for this connection.
                self._stale = False
                await self.connect()
        except VoxlineError:
            raise
        except Exception as error:
            raise self.service_error(error) from error
        except asyncio.CancelledError as error:
            if job_is_ending():
                raise
            raise ServiceError(f"{self.label} failed: its library cancelled its own work.") from error
        self.connected = True

    async def close_connection(self) -> None:
        """Disconnect, if `connect` was called. Failures are logged, not raised."""
        self.connected = False
        if not self._connect_called:
            return
        message = f"{self.label} did not disconnect within {DISCONNECT_TIMEOUT_S:g} s and was abandoned."
        try:
            with Deadline(self.clock, DISCONNECT_TIMEOUT_S, lambda: ServiceTimeout(message)):
                await self.disconnect()
        except Exception as error:
            # No path in this message: a member of a `Fallback` has none.
            log.warning("%s", self.service_error(error))
        except asyncio.CancelledError:
            if job_is_ending():
                raise
        self._connect_called = False

    def service_error(self, error: Exception) -> ServiceError:
        """Convert an exception to a `ServiceError`."""
        if isinstance(error, ServiceError):
            return error
        known = self.translate(error)
        if known is not None:
            return known
        # The library's own message may contain credentials or a user's words, so it is left out.
        if isinstance(error, OSError):
            return ServiceDownError(f"{self.label} cannot be reached ({type(error).__name__}). Is it running?")
        return ServiceError(f"{self.label} failed: its library raised {type(error).__name__}.")

    # --- questions ----------------------------------------------------------------------------------------------------

    async def push_metrics(self, call: ServiceCall[Any], amount: float, response: int = 0) -> None:
        """Report upstream how a question went."""
        names = tuple(type(error).__name__ for error in call.errors)
        frame = ServiceMetricsFrame(
            call.answered_by, self.kind, response, call.first_ms, call.total_ms, amount, names
        )  # fmt: skip
        await self.push(frame, UPSTREAM)

    async def push_error(self, error: ServiceError, frame: str, response: int | None = None) -> None:
        """Report upstream that a question has no answer, while the job continues."""
        log.warning("%s: %s", self.path, error)
        await self.push(ErrorFrame(str(error), self.path, frame, type(error).__name__), UPSTREAM, response)


def require_generator(member: Service[Any], answer: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """Return the adapter's answer. Raises `BadRequestError` if it is not an async generator but, say, a list."""
    returned = cast("object", answer)
    if not isinstance(returned, AsyncGenerator):
        if isinstance(returned, Coroutine):
            returned.close()
        raise BadRequestError(f"{member.label} returns instead of yielding: an adapter is an async generator.")
    return answer


def job_is_ending() -> bool:
    """Tell why a `CancelledError` was raised: True if this job is being ended, False if a library cancelled itself."""
    job, task = current_job.get(), asyncio.current_task()
    return (job is not None and job.closing) or task is None or task.cancelling() > 0


class ServiceCall(Generic[T]):
    """One question with all its attempts: ``async for piece in call.answer()``, and `aclose` the generator.

    ``ask`` asks one member. It is called for each attempt, so it can leave out what was already answered. Raises
    `ServiceError` when no member is left.
    """

    def __init__(self, service: Service[Any], ask: Callable[[Any], AsyncGenerator[T]]) -> None:
        self._service = service
        self._ask = ask
        self.errors: list[ServiceError] = []
        self.answered_by = ""
        """Label of the member that answers; empty if all have failed."""
        self.first_ms: float | None = None
        self.deadline: Deadline | None = None
        """Deadline of the piece that is awaited."""
        self._asked_ns = service.clock.now_ns()

    @property
    def total_ms(self) -> float:
        """Time since the question was asked."""
        return (self._service.clock.now_ns() - self._asked_ns) / NS_PER_MS

    def restart_clock(self) -> None:
        """Restart the measurement, because the question is complete only now."""
        self.first_ms = None
        self._asked_ns = self._service.clock.now_ns()

    async def answer(self) -> AsyncGenerator[T]:
        """Yield the pieces of the answer."""
        service = self._service
        members = service.members()
        health = service.health = service.health or Health(len(members))
        for index in self._plan(members, health):
            member = members[index]
            if self.errors and len(members) == 1 and not await self._worth_another(member.settings):
                break
            pieces = self._attempt(member)
            try:
                async for piece in pieces:
                    if self.first_ms is None:
                        self.first_ms = self.total_ms
                    yield piece
            except ServiceError as error:
                self.errors.append(error)
                if len(members) > 1 or member.settings.attempts > 1:
                    log.warning("%s: attempt %d failed: %s", service.path, len(self.errors), error)
                health.failed(index, service.clock.now_ns(), error.wait_s)
            else:
                health.worked(index)
                return
            finally:
                await pieces.aclose()
        self.answered_by = ""
        raise self.errors[-1]

    def _plan(self, members: Sequence[Service[Any]], health: Health) -> list[int]:
        """List the members to ask, in order, one entry per attempt."""
        if len(members) == 1:
            return [0] * members[0].settings.attempts
        first = health.order(self._service.clock.now_ns())
        return [*first, *(other for other in range(len(members)) if other not in first)]

    async def _worth_another(self, rules: ServiceSettings) -> bool:
        """Wait before the next attempt. Returns False if another attempt is pointless."""
        error = self.errors[-1]
        wait_s = error.wait_s or 0.0
        if not error.retryable or wait_s > rules.backoff_max_s:
            return False
        # The exponent is capped, because 2.0 ** 1024 raises OverflowError.
        pause_s = min(rules.backoff_s * 2.0 ** min(len(self.errors) - 1, 64), rules.backoff_max_s)
        await self._service.clock.sleep(max(pause_s * self._service.random.uniform(0.5, 1), wait_s))
        return True

    async def _attempt(self, member: Service[Any]) -> AsyncGenerator[T]:
        """Ask one member once."""
        clock = self._service.clock
        try:
            await member.ensure_connected()
        except ServiceError:
            raise
        except VoxlineError as error:
            # A changed setting turned out to be invalid: fail this member, not the whole question.
            raise BadRequestError(f"{member.label}: {error}") from error
        self.answered_by = member.label
        rules = member.settings
        pieces = self._ask(member)
        limit_s, what = rules.first_timeout_s, "first_timeout_s"

        def late() -> ServiceTimeout:
            return ServiceTimeout(f"{member.label} sent nothing for {limit_s:g} s ({what}). Is it overloaded?")

        try:
            while True:
                try:
                    with Deadline(clock, limit_s, late) as self.deadline:
                        piece = await anext(pieces)
                except StopAsyncIteration:
                    return
                yield piece
                limit_s, what = rules.between_timeout_s, "between_timeout_s"
        except Exception as error:
            typed = member.service_error(error)
            if isinstance(typed, ServiceDownError | ServiceTimeout):
                member.connected = False
            if typed is error:
                raise
            raise typed from error
        except asyncio.CancelledError as error:
            if job_is_ending():
                raise
            raise ServiceError(f"{member.label} failed: its library cancelled its own work.") from error
        finally:
            self.deadline = None
            await self._close(member, pieces)

    async def _close(self, member: Service[Any], pieces: AsyncGenerator[T]) -> None:
        """Close an answer. If that takes too long, abandon it with its connection."""

        def stuck() -> ServiceTimeout:
            return ServiceTimeout(f"{member.label} did not close an answer within {CLOSE_TIMEOUT_S:g} s.")

        try:
            with Deadline(self._service.clock, CLOSE_TIMEOUT_S, stuck):
                await pieces.aclose()
        except asyncio.CancelledError:
            if job_is_ending():
                raise
            member.connected = False
        except Exception as error:
            log.warning("%s: %s", self._service.path, member.service_error(error))
            member.connected = False

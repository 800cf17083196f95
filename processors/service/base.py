"""What all services have in common: connections, deadlines, attempts, the next one in line, and metrics.

A service is asked a question and gives its answer piece by piece, as an async generator. All that can go wrong with
that is dealt with here, once; an adapter only asks (see `stt/base.py`, `llm/base.py`, `tts/base.py`)::

    class Beeps(TTS):
        async def connect(self) -> None: ...           # before the first frame flows, and again after a failure
        async def disconnect(self) -> None: ...
        async def speak(self, text: str) -> AsyncGenerator[SpeechChunk]:
            yield SpeechChunk(beep(len(text)), 16_000)

`Asking` is one question: it goes through the attempts, and through the members where there are several.
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
from ...pipeline.tasks import Deadline
from .health import Health

log = logging.getLogger("voxline")

CLOSING_S = 0.5
"""How long an answer that is given up may take to end."""
LEAVING_S = 3.0
"""How long a connection that is given back may take; one that takes longer is left as it is."""


class ServiceSettings(BaseModel):
    """What every service can be told. Derive to add an adapter's own; `Service.update` changes them while it runs."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    connect_timeout_s: float = Field(default=10.0, gt=0)
    first_timeout_s: float = Field(default=8.0, gt=0)
    """How long the first of an answer may take, in each attempt. Of an STT: after the end of the speech."""
    between_timeout_s: float = Field(default=8.0, gt=0)
    """How long each further piece of it may take."""
    attempts: int = Field(default=3, ge=1)
    """How often it is asked before it counts as failed. In a `Fallback`, each member is asked once."""
    backoff_s: float = Field(default=0.25, ge=0)
    """The wait before the second attempt; it doubles each time. Of each wait, between half and all is waited
    ("equal jitter": M. Brooker, Exponential Backoff and Jitter, AWS 2015).
    """
    backoff_max_s: float = Field(default=2.0, ge=0)
    """No wait is longer; a service that asks for a longer one has failed."""


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
    """New values of some settings, as JSON: the order that `Service.update` posts, so that a recording has it.

    ``member``: of which member; -1: of the service itself.
    """

    changes: str
    member: int = -1


S = TypeVar("S", bound=ServiceSettings, default=ServiceSettings)
S2 = TypeVar("S2", bound=ServiceSettings)
T = TypeVar("T")


def settings_of(service: str, kind: type[S2], **fields: Any) -> S2:
    """Settings from their fields. Raises `SettingsError`, which says what is allowed."""
    try:
        return kind(**fields)
    except ValidationError as error:
        problems = [_sentence(one, kind) for one in error.errors()]
        raise SettingsError(f"{service}: {'; '.join(problems)}.") from None


def _sentence(problem: Any, kind: type[BaseModel]) -> str:
    field = ".".join(map(str, problem["loc"])) or "settings"
    if problem["type"] == "extra_forbidden":
        return f"there is no setting {field}; there are {', '.join(sorted(kind.model_fields))}"
    message = str(problem["msg"])
    for before in ("Value error, ", "Input ", "String ", "should "):
        message = message.removeprefix(before)
    return f"{field} is {problem['input']!r}, and should {message}"


class Service(FrameProcessor, Generic[S]):
    """A processor that asks a service: the base of `STT`, `LLM` and `TTS`.

    An adapter writes `connect`, `disconnect` and its question; it may write `translate`. It sets ``self.settings`` in
    its constructor, where it has settings of its own.
    """

    kind: ClassVar[str] = "service"
    settings: S = cast(S, ServiceSettings())
    """As they are now; `update` changes them."""
    reconnect_for: ClassVar[frozenset[str]] = frozenset()
    """The settings that a connection is made with: where one changes, the next question has a new one."""

    connected = False
    """Whether `connect` has worked, and nothing has failed since that a new connection may mend."""
    health: Health | None = None
    """Which of its members work."""
    _stale = False
    _owner: Service[Any] | None = None
    _place = -1
    _begun = False
    """Whether `connect` was called, and `disconnect` not since: also where it failed in the middle."""

    # --- for an adapter to write --------------------------------------------------------------------------------------

    async def connect(self) -> None:
        """Get what a question needs: a process, a model, a connection. Raises `ServiceError`.

        Called before the first frame flows; and before a question, where a failure has cost it.
        """

    async def disconnect(self) -> None:
        """Give back what `connect` took, whatever state it is in."""

    def alive(self) -> bool:
        """Whether what `connect` got is still there; a process may have ended since."""
        return True

    def translate(self, error: Exception) -> ServiceError | None:
        """What an exception of the library's means; None where it is not known."""
        return None

    # --- for users ----------------------------------------------------------------------------------------------------

    @property
    def label(self) -> str:
        """What messages call it."""
        return self.name or type(self).__name__

    def members(self) -> Sequence[Service[Any]]:
        """Who is asked, the best first. Of a `Fallback` there are several."""
        return (self,)

    def update(self, **changes: Any) -> None:
        """Change settings while it runs: they hold from the next question on. Raises `SettingsError`."""
        theirs = sorted(ServiceSettings.model_fields.keys() & changes) if self.members()[0] is not self else []
        if theirs:
            raise SettingsError(f"{self.label}: {', '.join(theirs)} is what each member has its own of. Update those.")
        changed = settings_of(self.label, type(self.settings), **{**self.settings.model_dump(), **changes})
        frame = ServiceUpdateFrame(changed.model_dump_json(include=set(changes)), self._place)
        (self._owner or self).post(frame)

    @handles(ServiceUpdateFrame)
    async def adopt_settings(self, frame: ServiceUpdateFrame) -> None:
        """Take over what `update` has checked."""
        changes = json.loads(frame.changes)
        who = cast("Service[Any]", self) if frame.member < 0 else self.members()[frame.member]
        before: ServiceSettings = who.settings
        who.settings = type(before).model_validate({**before.model_dump(), **changes})
        who._stale = who._stale or not who.reconnect_for.isdisjoint(changes)

    # --- life ---------------------------------------------------------------------------------------------------------

    @property
    def start_timeout_ms(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """Connections have deadlines of their own, which come before this one."""
        return 1_000 * sum(member.settings.connect_timeout_s + LEAVING_S for member in self.members())

    @property
    def stop_timeout_ms(self) -> float:  # pyright: ignore[reportIncompatibleVariableOverride]
        """They are given back one after the other, each with a deadline of its own; all have to come to it."""
        return 1_000 * (LEAVING_S * len(self.members()) + 2)

    async def start(self) -> None:
        """Connect. Of several members, one has to be there."""
        failures: list[ServiceError] = []
        members = self.members()
        self.health = Health(len(members))
        for index, member in enumerate(members):
            member.live_in(self, index)
            try:
                await member.ready()
            except ServiceError as error:
                self.health.failed(index, self.clock.now_ns(), error.wait_s)
                failures.append(error)
        if len(failures) == len(members):
            raise failures[0]
        for error in failures:
            log.warning("%s begins without one: %s", self.path, error)

    async def stop(self) -> None:
        """Disconnect."""
        for member in self.members():
            if member is not self and member._owner is not self:
                # It was not had: it belongs to somebody else.
                continue
            await member.leave()
            if member is not self:
                # It may have a place of its own next.
                member._host, member._owner, member._place = NOT_RUNNING, None, -1

    def live_in(self, owner: Service[Any], place: int) -> None:
        """Take part in the run of a service as one of its members: of a `Fallback`, they have no place of their own."""
        if owner is not self:
            if self._host is not NOT_RUNNING:
                raise ProcessorError(
                    f"{self.label} in {owner.path} is part of something else that is running. A service has one "
                    f"place: make a second {type(self).__name__}(...)."
                )
            self._host, self._owner, self._place = owner._host, owner, place

    async def ready(self) -> None:
        """See that it is connected, by its deadline. Raises `ServiceError`."""
        if self.connected and not self._stale and self.alive():
            return
        timeout_s = self.settings.connect_timeout_s
        message = f"{self.label} was not ready within {timeout_s:g} s. Is it running? Then raise connect_timeout_s."
        try:
            with Deadline(self.clock, timeout_s, lambda: ServiceTimeout(message)):
                await self.leave()
                self._begun = True
                # Before, and not after: what is changed while it connects may come too late for this connection.
                self._stale = False
                await self.connect()
        except VoxlineError:
            raise
        except Exception as error:
            raise self.typed(error) from error
        except asyncio.CancelledError as error:
            if being_cancelled():
                raise
            raise ServiceError(f"{self.label} failed: its library cancelled its own work.") from error
        self.connected = True

    async def leave(self) -> None:
        """Give back what an earlier `connect` took, if there was one. What goes wrong with that stops nobody."""
        self.connected = False
        if not self._begun:
            return
        message = f"{self.label} did not disconnect within {LEAVING_S:g} s, and is left as it is."
        try:
            with Deadline(self.clock, LEAVING_S, lambda: ServiceTimeout(message)):
                await self.disconnect()
        except Exception as error:
            # A member of a `Fallback` has no path.
            log.warning("%s", self.typed(error))
        except asyncio.CancelledError:
            if being_cancelled():
                raise
        self._begun = False

    def typed(self, error: Exception) -> ServiceError:
        """An error as what it means."""
        if isinstance(error, ServiceError):
            return error
        known = self.translate(error)
        if known is not None:
            return known
        # Not its message: nobody knows what stands in there.
        if isinstance(error, OSError):
            return ServiceDownError(f"{self.label} cannot be reached ({type(error).__name__}). Is it running?")
        return ServiceError(f"{self.label} failed: its library raised {type(error).__name__}.")

    # --- asking -------------------------------------------------------------------------------------------------------

    async def tell(self, asking: Asking[Any], amount: float, response: int = 0) -> None:
        """Say how a question went: metrics."""
        names = tuple(type(error).__name__ for error in asking.errors)
        await self.push(
            ServiceMetricsFrame(
                asking.by, self.kind, response, asking.first_ms, asking.total_ms, amount, names
            ),
            UPSTREAM,
        )  # fmt: skip

    async def complain(self, error: ServiceError, frame: str, response: int | None = None) -> None:
        """Say upstream that a question has no answer, where the job is to go on."""
        log.warning("%s: %s", self.path, error)
        await self.push(ErrorFrame(str(error), self.path, frame, type(error).__name__), UPSTREAM, response)


def yielding(member: Service[Any], answer: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """What an adapter has given, which has to be a generator; it is easy to write one that returns a list."""
    given = cast("object", answer)
    if not isinstance(given, AsyncGenerator):
        if isinstance(given, Coroutine):
            given.close()
        raise BadRequestError(f"{member.label} returns in the place of yielding: an adapter is an async generator.")
    return answer


def being_cancelled() -> bool:
    """Where a `CancelledError` is caught: whether somebody ends this job. If not, a library cancelled its own work."""
    job, task = current_job.get(), asyncio.current_task()
    return (job is not None and job.closing) or task is None or task.cancelling() > 0


class Asking(Generic[T]):
    """One question, through all its attempts: ``async for piece in asking``, and `aclose` it in the end.

    ``ask`` asks a member: it is called for each attempt, so it can leave out what was answered already. Raises
    `ServiceError` when there is nobody left to ask.
    """

    def __init__(self, service: Service[Any], ask: Callable[[Any], AsyncGenerator[T]]) -> None:
        self._service = service
        self._ask = ask
        self.errors: list[ServiceError] = []
        self.by = ""
        """Who answers."""
        self.first_ms: float | None = None
        self.deadline: Deadline | None = None
        """Of the piece that is being waited for."""
        self._asked_ns = service.clock.now_ns()

    @property
    def total_ms(self) -> float:
        """How long it has been going on."""
        return (self._service.clock.now_ns() - self._asked_ns) / NS_PER_MS

    def begin(self) -> None:
        """Count from now on: the question is complete only now."""
        self.first_ms = None
        self._asked_ns = self._service.clock.now_ns()

    async def answer(self) -> AsyncGenerator[T]:
        """The pieces of the answer."""
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
        self.by = ""
        raise self.errors[-1]

    def _plan(self, members: Sequence[Service[Any]], health: Health) -> list[int]:
        """Whom to ask, one after the other."""
        if len(members) == 1:
            return [0] * members[0].settings.attempts
        first = health.order(self._service.clock.now_ns())
        return [*first, *(other for other in range(len(members)) if other not in first)]

    async def _worth_another(self, rules: ServiceSettings) -> bool:
        """Wait before the next attempt. False where that is in vain."""
        error = self.errors[-1]
        wait_s = error.wait_s or 0.0
        if not error.retryable or wait_s > rules.backoff_max_s:
            return False
        # The exponent has a bound of its own: 2.0 ** 1024 is an error.
        pause_s = min(rules.backoff_s * 2.0 ** min(len(self.errors) - 1, 64), rules.backoff_max_s)
        await self._service.clock.sleep(max(pause_s * self._service.random.uniform(0.5, 1), wait_s))
        return True

    async def _attempt(self, member: Service[Any]) -> AsyncGenerator[T]:
        """Ask one member once."""
        clock = self._service.clock
        try:
            await member.ready()
        except ServiceError:
            raise
        except VoxlineError as error:
            # A setting that was changed, and cannot be: it costs this member, and not the whole question.
            raise BadRequestError(f"{member.label}: {error}") from error
        self.by = member.label
        rules = member.settings
        pieces = self._ask(member)
        limit_s, what = rules.first_timeout_s, "first_timeout_s"

        def late() -> ServiceTimeout:
            return ServiceTimeout(f"{member.label} gave nothing for {limit_s:g} s ({what}). Is it overloaded?")

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
            typed = member.typed(error)
            if isinstance(typed, ServiceDownError | ServiceTimeout):
                member.connected = False
            if typed is error:
                raise
            raise typed from error
        except asyncio.CancelledError as error:
            if being_cancelled():
                raise
            raise ServiceError(f"{member.label} failed: its library cancelled its own work.") from error
        finally:
            self.deadline = None
            await self._close(member, pieces)

    async def _close(self, member: Service[Any], pieces: AsyncGenerator[T]) -> None:
        """End an answer; one that does not end in time is left, with its connection."""

        def stuck() -> ServiceTimeout:
            return ServiceTimeout(f"{member.label} did not end an answer within {CLOSING_S:g} s.")

        try:
            with Deadline(self._service.clock, CLOSING_S, stuck):
                await pieces.aclose()
        except asyncio.CancelledError:
            if being_cancelled():
                raise
            member.connected = False
        except Exception as error:
            log.warning("%s: %s", self._service.path, member.typed(error))
            member.connected = False

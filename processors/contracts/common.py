"""Rules that all services must keep."""

from __future__ import annotations

import inspect
import logging
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any, ClassVar, Generic, TypeVar

from ...pipeline.errors import ServiceError, VoxlineError
from ...pipeline.testing.failures import BenchFailure, ContractFailure
from ...pipeline.testing.harness import Bench
from ..service.base import Service
from .lab import Ask, Lab, Probe, Stopper, said
from .resources import held, settled

A = TypeVar("A", bound=Service[Any])
CLOSING_MS = 1_000
"""How long an answer that is interrupted may take to end: the kernel leaves a job behind that takes longer."""
PATIENCE_S = 30.0
"""Real seconds without any progress after which an adapter hangs."""
LONGEST_MESSAGE = 500


class Suite(Generic[A]):
    """The rules of a contract. `check` goes through those of all services, and then `rules`.

    ``make``: a fresh adapter, not connected. ``break_``: makes the service of a connected one fail. ``cannot_connect``:
    an adapter whose `connect` must fail, because of a wrong key or a missing model. ``secrets``: keys and the like,
    which must not be told to anybody.
    """

    kind: ClassVar[str] = "a service"
    pieces: ClassVar[tuple[type, ...]] = (object,)
    """Classes of which its answers consist."""

    def __init__(
        self,
        make: Callable[[], A],
        *,
        break_: Callable[[A], Any] | None,
        cannot_connect: Callable[[], A] | None,
        secrets: Sequence[str],
        patience_s: float,
    ) -> None:
        self.make = make
        self.break_ = break_
        self.cannot_connect = cannot_connect
        self.secrets = tuple(filter(None, secrets))
        self.patience_s = patience_s
        self.who = "?"
        self.rule = ""

    # --- for a suite to write -----------------------------------------------------------------------------------------

    def sample(self) -> Ask:
        """A question that any adapter answers."""
        raise NotImplementedError

    def long(self) -> Ask:
        """One whose answer has several pieces, to be interrupted in."""
        raise NotImplementedError

    def amount(self, pieces: Sequence[Any]) -> float:
        """How much an answer is: of the same question about the same."""
        raise NotImplementedError

    def spoken(self) -> Sequence[str]:
        """Words of users in this suite, which no log may contain."""
        return ()

    async def rules(self) -> None:
        """The rules of this kind alone."""
        raise NotImplementedError

    # --- failing ------------------------------------------------------------------------------------------------------

    def fail(self, expected: str, came: str) -> None:
        """Fail, by the rule that is looked at."""
        raise ContractFailure(
            f"{self.who} breaks the contract of {self.kind}.\n"
            f"rule:     {self.rule}\nexpected: {expected}\ncame:     {came}"
        )

    def expect(self, holds: bool, expected: str, came: object) -> None:
        """Fail unless it holds."""
        if not holds:
            self.fail(expected, str(came))

    def only_pieces(self, pieces: Sequence[Any]) -> None:
        """Fail where an answer is made of something else."""
        for piece in pieces:
            names = " or ".join(kind.__name__ for kind in self.pieces)
            self.expect(isinstance(piece, self.pieces), f"pieces that are {names}", type(piece).__name__)

    # --- asking -------------------------------------------------------------------------------------------------------

    def fresh(self) -> A:
        """An adapter."""
        adapter = self.make()
        self.who = adapter.label
        return adapter

    @asynccontextmanager
    async def lab(self, *adapters: Service[Any]) -> AsyncGenerator[Lab]:
        """Adapters on a bench, connected; disconnected in the end."""
        probe = Probe(adapters)
        bench = Bench([probe, Stopper(probe)], patience_s=self.patience_s)
        try:
            await bench.start()
        except BenchFailure as failure:
            self.fail("connect() that works", str(failure).partition("\n\n")[0])
        for adapter in adapters:
            # Of several a pipeline needs one only; here it is each.
            if not adapter.connected:
                await bench.stop()
                self.fail("connect() that works", f"{adapter.label} did not connect")
        try:
            yield Lab(self, probe, bench)
        except BaseException:
            await bench.stop()
            raise
        if failures := await bench.stop():
            self.fail("nothing of it left when it is disconnected", " ".join(failures))

    # --- the rules of all ---------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Go through all rules."""
        log = _Listener()
        logging.getLogger().addHandler(log)
        try:
            await self._answers_again_and_again()
            await self._interruptions()
            await self._connections()
            await self._two_at_once()
            await self._errors()
            await self.rules()
            await self._gives_back()
        finally:
            logging.getLogger().removeHandler(log)
        self.rule = "no log record above debug has a secret, or what somebody said"
        for message in log.messages:
            self._keeps_quiet(message, [*self.secrets, *self.spoken()])

    def _keeps_quiet(self, message: str, words: Sequence[str]) -> None:
        for word in words:
            self.expect(word not in message, "a message without it", message.replace(word, "(it)"))

    async def _answers_again_and_again(self) -> None:
        self.rule = "the same question gets an answer each time"
        async with self.lab(self.fresh()) as lab:
            first = self.amount(await lab.good(self.sample()))
            self.expect(first > 0, "an answer with something in it", "nothing")
            self._alike(self.amount(await lab.good(self.sample())), first)

    def _alike(self, amount: float, alone: float) -> None:
        """Adapters need not be exact: the same text is not always the same sound."""
        self.expect(
            alone * 0.5 <= amount <= alone * 1.5, f"about {alone:g}, as it was alone", f"{amount:g}"
        )  # fmt: skip

    async def _interruptions(self) -> None:
        async with self.lab(self.fresh()) as lab:
            self.rule = "the same question gets an answer each time"
            alone = self.amount(await lab.good(self.sample()))
            for stop_after in (0, 1):
                self.rule = "an interruption ends an answer within 1 s, and nothing of it comes afterwards"
                answer = await lab.ask(self.long(), stop_after=stop_after)
                await lab.bench.advance(CLOSING_MS + 100)
                late = [error.message for error in lab.bench.errors]
                self.expect(answer.ended and not late, "an answer that ends when it is closed", " ".join(late))
                self.expect(answer.error is None, "no error for an answer that is closed", _maybe(answer.error))
                count = len(answer.pieces)
                self.rule = "after an interruption, the next question works at once and is answered alone"
                self._alike(self.amount(await lab.good(self.sample())), alone)
                self.expect(len(answer.pieces) == count, "no further piece of the old answer", len(answer.pieces))

    async def _connections(self) -> None:
        self.rule = "disconnect() without connect(), and twice, does nothing"
        adapter = self.fresh()
        async with self.lab(self.make()) as lab:
            adapter.attach(lab.probe, 0)
            for _ in range(2):
                await lab.do(type(adapter).disconnect, adapter)
            self.rule = "after disconnect(), connect() works again"
            other: A = lab.adapter
            for _ in range(2):
                await lab.do(_reconnect)
                pieces = await lab.good(self.sample())
                self.expect(self.amount(pieces) > 0, "an answer with something in it", "nothing")
        self.rule = "an adapter that was stopped can run again, in another pipeline"
        async with self.lab(other) as lab:
            self.expect(self.amount(await lab.good(self.sample())) > 0, "an answer with something in it", "nothing")

    async def _two_at_once(self) -> None:
        self.rule = "two of them work at the same time, each for itself"
        one, two = self.fresh(), self.make()
        async with self.lab(one, two) as lab:
            alone = self.amount(await lab.good(self.sample(), one))
            answers = await lab.ask_all([(self.sample(), one), (self.sample(), two)])
            for answer in answers:
                self.expect(answer.error is None, "an answer", _maybe(answer.error))
                self._alike(self.amount(answer.pieces), alone)
            self.rule = "an interruption of one does nothing to the other"
            await lab.ask(self.long(), one, stop_after=1)
            self._alike(self.amount(await lab.good(self.sample(), two)), alone)

    async def _errors(self) -> None:
        self.rule = "settings have no secret in them"
        adapter = self.fresh()
        self._keeps_quiet(repr(adapter.settings) + adapter.settings.model_dump_json(), self.secrets)
        if self.cannot_connect is not None:
            await self._cannot_connect(self.cannot_connect())
        if self.break_ is None:
            return
        async with self.lab(adapter) as lab:
            await lab.good(self.sample())
            result = self.break_(adapter)
            if inspect.isawaitable(result):
                await result
            self.rule = "a service that fails raises a ServiceError, or what translate() makes one of"
            answer = await lab.ask(self.sample())
            self.expect(answer.error is not None, "an error, since the service was broken", "none")
            assert answer.error is not None
            self._typed(adapter, answer.error)
            self.rule = "after a failure, disconnect() and connect() make it work again"
            await lab.do(_reconnect)
            self.expect(self.amount(await lab.good(self.sample())) > 0, "an answer with something in it", "nothing")

    async def _cannot_connect(self, adapter: A) -> None:
        self.rule = "connect() finds out what is wrong, and says it in a sentence"
        probe = Probe([adapter])
        bench = Bench([probe], patience_s=self.patience_s)
        try:
            await bench.start()
        except BenchFailure:
            pass
        else:
            await bench.stop()
            self.fail("a start that fails", "one that works")
        error = bench._start_error
        cause = error.__cause__ if error is not None else None
        # What no adapter knows, the base makes a ServiceError of, which cannot say what to do.
        origin = cause if cause is None or cause.__cause__ is None else cause.__cause__
        if isinstance(origin, Exception) and not isinstance(origin, VoxlineError):
            self._typed(adapter, origin)
        self._message(str(error))

    def _typed(self, adapter: Service[Any], error: Exception) -> None:
        known = isinstance(error, ServiceError | OSError) or adapter.translate(error) is not None
        self.expect(known, "a ServiceError, an OSError, or what translate() knows", said(error))
        self._message(str(adapter.service_error(error)))

    def _message(self, message: str) -> None:
        self.expect(0 < len(message) <= LONGEST_MESSAGE and "\n" not in message, "a sentence", repr(message))
        self.rule = "no message of an error has a secret, or what somebody said"
        self._keeps_quiet(message, [*self.secrets, *self.spoken()])

    async def odd(self, what: str, ask: Ask, lab: Lab, *, answered: bool = False) -> None:
        """A question that is odd: it ends, in an answer or a typed error, and the next one works."""
        self.rule = f"a question that is odd ({what}) has an answer or a typed error, and the next one works"
        answer = await lab.ask(ask)
        if answer.error is not None:
            self.expect(not answered, "an answer", said(answer.error))
            self._typed(answer.adapter, answer.error)
            await lab.do(type(answer.adapter).ensure_connected)
        self.rule = f"a question that is odd ({what}) has an answer or a typed error, and the next one works"
        self.expect(self.amount(await lab.good(self.sample())) > 0, "an answer with something in it", "nothing")

    async def _gives_back(self) -> None:
        """Last, when all that is made once for the process is there."""
        self.rule = "after disconnect() nothing is left: no task, no process, no open file, no socket"
        before = held()
        for stop_after in (None, 1):
            async with self.lab(self.fresh()) as lab:
                await lab.ask(self.long(), stop_after=stop_after)
        self.expect(not (left := await settled(before)), "what was there before", ", ".join(left))


async def _reconnect(adapter: Service[Any]) -> None:
    await adapter.close_connection()
    await adapter.ensure_connected()


def _maybe(error: BaseException | None) -> str:
    return "no error" if error is None else said(error)


class _Listener(logging.Handler):
    """Keeps what is logged above debug."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG + 1)
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """One more."""
        self.messages.append(record.getMessage())

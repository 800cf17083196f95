"""Where adapters are asked by themselves: a bench, without the base's attempts and deadlines.

::

    Lab:   bench( Probe -> Stopper )     the probe asks the adapter itself, without the base around it,
                                         and the stopper interrupts, where a rule wants that
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol

from ...pipeline.clock import NS_PER_MS
from ...pipeline.frames import Frame, OutputFrame
from ...pipeline.processor import FrameProcessor, handles
from ...pipeline.testing.failures import BenchFailure
from ...pipeline.testing.harness import Bench
from ..service.base import Service

Ask = Callable[[Any], AsyncGenerator[Any]]
"""Asks an adapter, and gives the pieces of its answer."""


@dataclass(frozen=True, slots=True)
class AskFrame(OutputFrame):
    """The probe's own: ask this question."""

    number: int


@dataclass(frozen=True, slots=True)
class PieceFrame(OutputFrame):
    """The probe's own: a piece of an answer came."""

    number: int


@dataclass(slots=True, eq=False)
class Answer:
    """A question, and what has come of it."""

    ask: Ask
    adapter: Service[Any]
    stop_after: int | None = None
    """Interrupt it after so many pieces; 0: at once."""
    pieces: list[Any] = field(default_factory=list[Any])
    error: Exception | None = None
    ended: bool = False


class Probe(Service[Any]):
    """Asks adapters by themselves. It connects and disconnects them as a pipeline does."""

    max_jobs: ClassVar[int] = 8

    def __init__(self, adapters: Sequence[Service[Any]]) -> None:
        self.adapters = adapters
        self.answers: list[Answer] = []

    def members(self) -> Sequence[Service[Any]]:
        """The adapters."""
        return self.adapters

    @handles(AskFrame)
    async def ask(self, frame: AskFrame) -> AsyncIterator[Frame]:
        """Ask a question."""
        answer = self.answers[frame.number]
        try:
            async with aclosing(answer.ask(answer.adapter)) as pieces:
                async for piece in pieces:
                    answer.pieces.append(piece)
                    yield PieceFrame(frame.number)
        except Exception as error:
            answer.error = error
        finally:
            answer.ended = True


class Stopper(FrameProcessor):
    """Interrupts where a question says so."""

    def __init__(self, probe: Probe) -> None:
        self._probe = probe

    @handles(PieceFrame)
    async def count(self, frame: PieceFrame) -> None:
        """A piece has come."""
        answer = self._probe.answers[frame.number]
        if answer.stop_after is not None and len(answer.pieces) >= answer.stop_after:
            self.interrupt()


class Judge(Protocol):
    """Raises the failure of a broken rule."""

    def fail(self, expected: str, came: str) -> None:
        """Fail, by the rule that is looked at."""
        ...

    def only_pieces(self, pieces: Sequence[Any]) -> None:
        """Fail where an answer is made of something else than it should be."""
        ...


class Lab:
    """Adapters that are connected, and can be asked. Made by `Suite.lab`."""

    def __init__(self, judge: Judge, probe: Probe, bench: Bench) -> None:
        self._judge = judge
        self._probe = probe
        self.bench = bench
        self._response = 0

    @property
    def adapter(self) -> Any:
        """The first of them."""
        return self._probe.adapters[0]

    @property
    def probe(self) -> Probe:
        """The probe that sends the requests."""
        return self._probe

    async def ask(self, ask: Ask, adapter: Service[Any] | None = None, *, stop_after: int | None = None) -> Answer:
        """Ask, and return when the answer has ended, or was interrupted."""
        (answer,) = await self.ask_all([(ask, adapter)], stop_after=stop_after)
        return answer

    async def ask_all(
        self, asks: Sequence[tuple[Ask, Service[Any] | None]], *, stop_after: int | None = None
    ) -> list[Answer]:
        """Ask several at once."""
        answers = [Answer(ask, adapter or self._probe.adapters[0], stop_after) for ask, adapter in asks]
        self._response += 1
        for answer in answers:
            self._probe.answers.append(answer)
            self.bench.worker.post(AskFrame(len(self._probe.answers) - 1), response=self._response)
        if stop_after == 0:
            self.bench.worker.interrupt()
        try:
            await self.bench.settle()
            while not all(answer.ended for answer in answers) and (due_ns := self.bench.clock.next_ns) is not None:
                await self.bench.advance(max(0.0, (due_ns - self.bench.clock.now_ns()) / NS_PER_MS))
        except BenchFailure as failure:
            self._judge.fail("an answer that ends", str(failure).partition("\n\n")[0])
        if stop_after is None and not all(answer.ended for answer in answers):
            self._judge.fail("an answer that ends", "one that waits for ever")
        if stop_after is not None:
            self.forget()
        return answers

    def forget(self) -> None:
        """An answer was interrupted: what is asked next is of another response."""
        self._response += 1

    async def do(self, work: Callable[[Any], Awaitable[None]], adapter: Service[Any] | None = None) -> None:
        """Do something with an adapter, in a job, where it has its clock. It must not fail."""

        async def ask(who: Any) -> AsyncGenerator[Any]:
            await work(who)
            for nothing in ():
                yield nothing

        answer = await self.ask(ask, adapter)
        if answer.error is not None:
            self._judge.fail("no error", said(answer.error))

    async def good(self, ask: Ask, adapter: Service[Any] | None = None) -> list[Any]:
        """Ask what can be answered. Returns the pieces."""
        answer = await self.ask(ask, adapter)
        if answer.error is not None:
            self._judge.fail("an answer", said(answer.error))
        self._judge.only_pieces(answer.pieces)
        return answer.pieces


async def until_quiet(bench: Bench, within_ms: float = 120_000) -> None:
    """Let virtual time pass, from timer to timer, until nothing is due any more."""
    limit_ns = bench.clock.now_ns() + within_ms * NS_PER_MS
    while (due_ns := bench.clock.next_ns) is not None and due_ns <= limit_ns:
        await bench.advance(max(0.0, (due_ns - bench.clock.now_ns()) / NS_PER_MS))


def said(error: BaseException) -> str:
    """An error in words."""
    return f"{type(error).__name__}: {error}"

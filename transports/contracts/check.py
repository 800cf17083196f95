"""`check_transport`: goes through the rules, and tells what it found."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any

from ...pipeline.testing.failures import ContractFailure
from ..base import Transport
from .call import ContractCall, RuleBroken, cause_of, expect
from .peer import ContractPeer
from .rules import RULES, Checker, check_input, say, tones

PATIENCE_S = 20.0
"""Real seconds after which a single step hangs."""
INPUT = "what the user says arrives: all of it, mono, at the transport's rate, in chunks of 20 ms"
RESTART = "when a worker has ended, another one may use the transport"
FAILS = "an open() that fails says why in a sentence or two, as a TransportError, and leaves nothing"
LEFT = "when it is over nothing is left: no task, no timer, no error"
LONGEST_MESSAGE = 500
ATTEMPTS = 5
"""How often a rule is looked at in real time, where the machine is too busy to tell."""


@dataclass(slots=True)
class Report:
    """Result of `check_transport`; as a text, one line per rule."""

    transport: str
    checked: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Rules that hold, and figures."""
    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    """Rules that were not checked, and why."""
    broken: list[tuple[str, str, str]] = field(default_factory=list[tuple[str, str, str]])
    """Rules that do not hold, what was expected, and what came. Empty in a report that is returned."""

    def __str__(self) -> str:
        lines = [f"{self.transport}: {len(self.checked)} rules hold."]
        lines += [f"  {rule} ({figures})" for rule, figures in self.checked]
        lines += [f"  not checked: {rule} ({why})" for rule, why in self.skipped]
        return "\n".join(lines)


class _Check:
    def __init__(
        self, make_pair: Callable[[], tuple[Transport, ContractPeer]], patience_s: float = PATIENCE_S, only: str = ""
    ) -> None:
        self._only = only
        self._make_pair = make_pair
        self._patience_s = patience_s
        self._calls = 0
        self._held_up_ms = 0.0
        transport, self._peer = make_pair()
        self.report = Report(type(transport).__name__)

    async def all(self, cannot_open: Callable[[], Transport] | None) -> None:
        for rule in RULES:
            await self._try(rule.text, lambda check=rule.check: self._in_a_call(check))
        for rate in self._peer.rates:
            await self._try(f"{INPUT}; from {rate} Hz", lambda rate=rate: self._input(rate))
        if self._peer.restarts:
            await self._try(RESTART, self._restart)
        else:
            self.report.skipped.append((RESTART, "the peer says that it cannot"))
        if cannot_open is not None:
            await self._try(FAILS, lambda: self._fails(cannot_open()))
        else:
            self.report.skipped.append((FAILS, "cannot_open is not given"))
        if not any(rule == LEFT for rule, _, _ in self.report.broken):
            self.report.checked.append((LEFT, f"{self._calls} calls"))

    async def _try(self, rule: str, check: Callable[[], Coroutine[Any, Any, str]]) -> None:
        """Check a rule. What fails in real time while the machine is held up says nothing, and is looked at again."""
        if not rule.startswith(self._only):
            return
        for _ in range(ATTEMPTS):
            self._held_up_ms = 0.0
            broken = await self._check(rule, check())
            if broken is None:
                return
            if self._peer.exact or self._held_up_ms <= self._peer.late_ms / 2:
                self.report.broken.append(broken)
                return
        busy = f"the event loop was held up for {self._held_up_ms:.0f} ms meanwhile: the machine is too busy"
        self.report.skipped.append((rule, busy))

    async def _check(self, rule: str, check: Coroutine[Any, Any, str]) -> tuple[str, str, str] | None:
        """How the rule is broken; None where it is not."""
        report = self.report
        try:
            report.checked.append((rule, await check))
        except RuleBroken as broken:
            return rule, *broken.args
        except NotImplementedError as missing:
            report.skipped.append((rule, f"{type(self._peer).__name__} has no {missing}()"))
        except Exception as error:
            return rule, "no exception", f"{type(error).__name__}: {error}"
        return None

    async def _in_a_call(self, check: Checker) -> str:
        call = ContractCall(*self._make_pair(), self._patience_s)
        try:
            await call.start()
            return await check(call)
        finally:
            await self._end(call)

    async def _end(self, call: ContractCall) -> None:
        try:
            await call.end()
        except RuleBroken as broken:
            call.left.append(f"{broken.args[1]}, instead of {broken.args[0]}.")
        self._calls += 1
        self._held_up_ms = max(self._held_up_ms, call.held_up_ms)
        found = (LEFT, "nothing", " ".join(call.left))
        if call.left and found not in self.report.broken:
            self.report.broken.append(found)

    async def _input(self, rate: int) -> str:
        transport, peer = self._make_pair()
        call = ContractCall(transport, peer, self._patience_s)
        try:
            if peer.says_first:
                await peer.say(said := tones(1_200, rate), rate)
                await call.start()
            else:
                await call.start()
                said = await say(call, rate)
            return await check_input(call, said, rate)
        finally:
            await self._end(call)

    async def _restart(self) -> str:
        transport, peer = self._make_pair()
        sound = tones(600, transport.output_rate)
        for number in ("first", "second", "third"):
            call = ContractCall(transport, peer, self._patience_s)
            try:
                await call.start()
                call.speak(sound)
                await call.wait(700 + peer.late_ms)
                take = await call.end()
                off_ms = abs(take.ms - 600)
                limit_ms = 0 if peer.exact else peer.late_ms + 40
                expect(off_ms <= limit_ms, f"600 ms heard in the {number} run", f"{take.ms:g} ms")
            finally:
                await self._end(call)
        return "three runs"

    async def _fails(self, transport: Transport) -> str:
        call = ContractCall(transport, self._peer, self._patience_s)
        try:
            await call.begin()
            expect(call.start_error is not None, "a worker that does not start", "one that does")
            assert call.start_error is not None
            cause = cause_of(call.start_error)
            expect(cause is not None, "a TransportError", repr(call.start_error.__cause__))
            message = str(cause)
            good = 0 < len(message) <= LONGEST_MESSAGE and "\n" not in message
            expect(good, "a sentence or two", repr(message))
            return message
        finally:
            await self._end(call)


async def check_transport(
    make_pair: Callable[[], tuple[Transport, ContractPeer]],
    *,
    cannot_open: Callable[[], Transport] | None = None,
    patience_s: float = PATIENCE_S,
    only: str = "",
) -> Report:
    """Check a transport. Raises `ContractFailure` with all that it breaks; returns what was checked.

    ``make_pair``: a fresh transport, not running, and the far end of it. ``cannot_open``: a transport whose `open` must
    fail, because of a missing device or a port that is taken. ``patience_s``: real seconds after which a step hangs.
    ``only``: just the rules that begin so.

    An exact peer is checked in virtual time, within seconds; one that is not in real time, within about a minute.
    """
    check = _Check(make_pair, patience_s, only)
    await check.all(cannot_open)
    report = check.report
    if report.broken:
        rules = [f"rule:     {rule}\nexpected: {expected}\ncame:     {came}" for rule, expected, came in report.broken]
        head = f"{report.transport} breaks the contract of a transport."
        raise ContractFailure("\n\n".join([head, *rules]))
    return report

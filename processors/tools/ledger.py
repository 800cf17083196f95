"""Ledger of tool calls: requested calls, current runs and results. Pure: no clock, no task.

A *call* is a request of the model and ends exactly once. A *run* is one execution of a function. Usually each call has
its own run. Calls with the same key share a run. A call may end before its run (deadline), or without one (the result
of an earlier run with the same key is remembered).

::

    add ──► refused (unknown tool, wrong arguments)           ──► ended
        ──► remembered (a run with its key succeeded)         ──► ended
        ──► joined (a run with its key is running)    ─┐
        ──► started (a new run)                       ─┴► run_ended / give_up ──► ended

The reasons are in docs/design/tools.md.
"""

from __future__ import annotations

import enum
from collections import OrderedDict
from collections.abc import Collection
from dataclasses import dataclass, field

from ...pipeline.clock import NS_PER_S
from ...pipeline.errors import ProcessorError
from ...pipeline.frames import ToolCall

KEPT_CALLS = 1_000
"""Number of ended calls, and of remembered results, that are kept. Open calls are always kept."""


class ToolOutcome(enum.Enum):
    """ToolOutcome of a call."""

    DONE = "done"
    FAILED = "failed"
    """The tool raised."""
    REFUSED = "refused"
    """The tool did not run: its name is unknown, or the arguments do not fit."""
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    """The user interrupted the answer, or the pipeline ended."""


@dataclass(slots=True)
class Call:
    """A tool call. ``call_id`` is unique in the ledger, even if the model repeats its ids."""

    call_id: str
    name: str
    arguments: str
    response: int
    requested_ns: int
    run: int = 0
    """Number of the run that the call waits or waited for; 0 for none."""
    outcome: ToolOutcome | None = None
    """None while the call is open."""
    text: str = ""
    """Result for the model; empty while the call is open."""
    ended_ns: int | None = None
    said: list[str] = field(default_factory=list[str])
    """Texts that the bot said during the call."""

    @property
    def open(self) -> bool:
        """True until the call ends."""
        return self.outcome is None


@dataclass(slots=True)
class _LedgerRun:
    """Current execution of a function, with the ``calls`` that wait for it."""

    number: int
    key: str | None
    remember_s: float | None
    calls: list[Call]


@dataclass(frozen=True, slots=True)
class _RememberedResult:
    text: str
    expires_ns: int | None


class CallLedger:
    """Calls of one conversation. Methods that end calls return them, each call exactly once."""

    def __init__(self) -> None:
        # bound: KEPT_CALLS ended calls; the oldest is dropped
        self._calls: OrderedDict[str, Call] = OrderedDict()
        self._runs: dict[int, _LedgerRun] = {}
        self._by_key: dict[str, _LedgerRun] = {}
        # bound: KEPT_CALLS; the oldest is dropped
        self._remembered: OrderedDict[str, _RememberedResult] = OrderedDict()
        self._count = self._run_count = 0
        self.late_results = 0
        """Number of runs that ended after all their calls."""

    # --- queries ------------------------------------------------------------------------------------------------------

    def get(self, call_id: str) -> Call | None:
        """Return a call; None for an unknown or forgotten id."""
        return self._calls.get(call_id)

    @property
    def calls(self) -> list[Call]:
        """All calls that are kept, in the order of their requests."""
        return list(self._calls.values())

    @property
    def open(self) -> list[Call]:
        """Calls that have not ended, in the order of their requests."""
        return [call for call in self._calls.values() if call.open]

    @property
    def running(self) -> int:
        """Number of current runs, including those that no call waits for."""
        return len(self._runs)

    def waiting_for(self, run: int) -> list[Call]:
        """Return the open calls that wait for a run."""
        found = self._runs.get(run)
        return [] if found is None else list(found.calls)

    # --- requests -----------------------------------------------------------------------------------------------------

    def add(
        self,
        wanted: ToolCall,
        response: int,
        now_ns: int,
        *,
        key: str | None = None,
        remember_s: float | None = None,
        refused: str | None = None,
        taken: Collection[str] = (),
    ) -> tuple[Call, bool]:
        """Add a call. Return it, and True if the caller must start the run ``call.run``.

        ``refused``: a text for the model; the call then ends without a run. ``taken``: ids in the history from before
        this ledger.
        """
        call = Call(self._unique(wanted.call_id, taken), wanted.name, wanted.arguments, response, now_ns)
        self._calls[call.call_id] = call
        self._forget()
        if refused is not None:
            self._end(call, ToolOutcome.REFUSED, refused, now_ns)
            return call, False
        remembered = None if key is None else self._remembered.get(key)
        if remembered is not None and (remembered.expires_ns is None or now_ns < remembered.expires_ns):
            self._end(call, ToolOutcome.DONE, remembered.text, now_ns)
            return call, False
        current = None if key is None else self._by_key.get(key)
        if current is not None:
            call.run = current.number
            current.calls.append(call)
            return call, False
        self._run_count += 1
        call.run = self._run_count
        run = self._runs[call.run] = _LedgerRun(call.run, key, remember_s, [call])
        if key is not None:
            self._by_key[key] = run
        return call, True

    def _unique(self, call_id: str, taken: Collection[str]) -> str:
        """Make an id unique. Some servers restart the numbers of calls in each answer, others send no ids."""
        while not call_id or call_id in self._calls or call_id in taken:
            self._count += 1
            base = call_id.partition("#")[0]
            call_id = f"{base}#{self._count}" if base else f"call-{self._count}"
        return call_id

    def _forget(self) -> None:
        if len(self._calls) > KEPT_CALLS:
            oldest = next((call_id for call_id, call in self._calls.items() if not call.open), None)
            if oldest is not None:
                del self._calls[oldest]

    # --- ending -------------------------------------------------------------------------------------------------------

    def run_ended(self, number: int, outcome: ToolOutcome, text: str, now_ns: int) -> list[Call]:
        """End a run and the calls that still wait for it. A successful result is remembered for the key of the run.

        Raises `ProcessorError` for an unknown run.
        """
        run = self._runs.pop(number, None)
        if run is None:
            raise ProcessorError(f"No tool run {number} is running.")
        if run.key is not None:
            del self._by_key[run.key]
            if outcome is ToolOutcome.DONE:
                expires_ns = None if run.remember_s is None else now_ns + round(run.remember_s * NS_PER_S)
                self._remembered[run.key] = _RememberedResult(text, expires_ns)
                self._remembered.move_to_end(run.key)
                if len(self._remembered) > KEPT_CALLS:
                    self._remembered.popitem(last=False)
        self.late_results += not run.calls
        for call in run.calls:
            self._end(call, outcome, text, now_ns)
        return run.calls

    def give_up(self, call_id: str, outcome: ToolOutcome, text: str, now_ns: int) -> Call | None:
        """End a call before its run, which continues. Return None if the call has already ended."""
        call = self._calls.get(call_id)
        if call is None or not call.open:
            return None
        self._runs[call.run].calls.remove(call)
        self._end(call, outcome, text, now_ns)
        return call

    def _end(self, call: Call, outcome: ToolOutcome, text: str, now_ns: int) -> None:
        call.outcome, call.text, call.ended_ns = outcome, text, now_ns

    def speak(self, call_id: str, text: str) -> bool:
        """Record a text that the bot says during a call. Return False if the call has ended: then do not say it."""
        call = self._calls.get(call_id)
        if call is None or not call.open:
            return False
        call.said.append(text)
        return True

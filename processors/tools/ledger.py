"""The ledger of calls: which tools were asked for, which run, and what has come of each. Pure: no clock, no task.

A *call* is what a model asks for, and ends exactly once. A *run* is one execution of a function. Mostly a call has a
run of its own; with a key, several calls share one, and a call may be over before its run (its deadline) or after
it (a run that has succeeded is remembered).

::

    ask ──► refused (no such tool, wrong arguments)           ──► ended
        ──► known (a run with its key has succeeded)          ──► ended
        ──► joined (a run with its key is under way)  ─┐
        ──► begun (a run of its own)                  ─┴► run_ended / give_up ──► ended

docs/design/tools.md says why.
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
"""Of ended calls and of remembered results. Open calls are never forgotten."""


class Outcome(enum.Enum):
    """How a call has ended."""

    DONE = "done"
    FAILED = "failed"
    """The tool raised."""
    REFUSED = "refused"
    """It was not run: there is no such tool, or the arguments do not fit."""
    TIMED_OUT = "timed out"
    CANCELLED = "cancelled"
    """The answer was cut, or the pipeline has ended."""


@dataclass(slots=True)
class Call:
    """One call. ``call_id`` is unique in the ledger, whatever the model calls it."""

    call_id: str
    name: str
    arguments: str
    response: int
    asked_ns: int
    run: int = 0
    """The run that it waits for, or has waited for; 0 for none."""
    outcome: Outcome | None = None
    """None while it is open."""
    text: str = ""
    """What the model is told of it, once it has ended."""
    ended_ns: int | None = None
    said: list[str] = field(default_factory=list[str])
    """What the bot said while it ran."""

    @property
    def open(self) -> bool:
        """Whether it has not ended."""
        return self.outcome is None


@dataclass(slots=True)
class _Run:
    """An execution under way. ``calls``: who waits for it."""

    number: int
    key: str | None
    remember_s: float | None
    calls: list[Call]


@dataclass(frozen=True, slots=True)
class _Known:
    text: str
    forget_ns: int | None


class CallLedger:
    """The calls of one conversation. Every method that ends calls returns those that it ended, each exactly once.

    Raises `ProcessorError` for what cannot be: a run that there is not.
    """

    def __init__(self) -> None:
        # bound: KEPT_CALLS that have ended, then the oldest of them goes
        self._calls: OrderedDict[str, Call] = OrderedDict()
        self._runs: dict[int, _Run] = {}
        self._by_key: dict[str, _Run] = {}
        # bound: KEPT_CALLS, then the oldest goes
        self._known: OrderedDict[str, _Known] = OrderedDict()
        self._count = self._run_count = 0
        self.late = 0
        """Results that came when nobody waited for them any more."""

    # --- what is there ------------------------------------------------------------------------------------------------

    def get(self, call_id: str) -> Call | None:
        """A call; None where there was none, or it is forgotten."""
        return self._calls.get(call_id)

    @property
    def calls(self) -> list[Call]:
        """All that are kept, in the order in which they were asked for."""
        return list(self._calls.values())

    @property
    def open(self) -> list[Call]:
        """Those that have not ended, in that order."""
        return [call for call in self._calls.values() if call.open]

    @property
    def running(self) -> int:
        """How many runs are under way, those that nobody waits for among them."""
        return len(self._runs)

    def waiting_for(self, run: int) -> list[Call]:
        """The open calls that wait for a run."""
        found = self._runs.get(run)
        return [] if found is None else list(found.calls)

    # --- asking -------------------------------------------------------------------------------------------------------

    def ask(
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
        """A model asks for a call. Returns it, and whether a run has to be begun for it: ``call.run``.

        ``refused``: what the model is told in the place of running it. A call that has ended already needs nothing.
        ``taken``: ids that the history has, from before this ledger.
        """
        call = Call(self._unique(wanted.call_id, taken), wanted.name, wanted.arguments, response, now_ns)
        self._calls[call.call_id] = call
        self._forget()
        if refused is not None:
            self._end(call, Outcome.REFUSED, refused, now_ns)
            return call, False
        known = None if key is None else self._known.get(key)
        if known is not None and (known.forget_ns is None or now_ns < known.forget_ns):
            self._end(call, Outcome.DONE, known.text, now_ns)
            return call, False
        under_way = None if key is None else self._by_key.get(key)
        if under_way is not None:
            call.run = under_way.number
            under_way.calls.append(call)
            return call, False
        self._run_count += 1
        call.run = self._run_count
        run = self._runs[call.run] = _Run(call.run, key, remember_s, [call])
        if key is not None:
            self._by_key[key] = run
        return call, True

    def _unique(self, call_id: str, taken: Collection[str]) -> str:
        """Some servers number the calls of each answer anew, and some give them no name."""
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

    def run_ended(self, number: int, outcome: Outcome, text: str, now_ns: int) -> list[Call]:
        """A run is over. Ends the calls that still wait for it; its success is remembered for its key."""
        run = self._runs.pop(number, None)
        if run is None:
            raise ProcessorError(f"There is no run {number} of a tool under way.")
        if run.key is not None:
            del self._by_key[run.key]
            if outcome is Outcome.DONE:
                forget_ns = None if run.remember_s is None else now_ns + round(run.remember_s * NS_PER_S)
                self._known[run.key] = _Known(text, forget_ns)
                self._known.move_to_end(run.key)
                if len(self._known) > KEPT_CALLS:
                    self._known.popitem(last=False)
        self.late += not run.calls
        for call in run.calls:
            self._end(call, outcome, text, now_ns)
        return run.calls

    def give_up(self, call_id: str, outcome: Outcome, text: str, now_ns: int) -> Call | None:
        """A call ends without its run, which goes on. None where it has ended already."""
        call = self._calls.get(call_id)
        if call is None or not call.open:
            return None
        self._runs[call.run].calls.remove(call)
        self._end(call, outcome, text, now_ns)
        return call

    def _end(self, call: Call, outcome: Outcome, text: str, now_ns: int) -> None:
        call.outcome, call.text, call.ended_ns = outcome, text, now_ns

    def speak(self, call_id: str, text: str) -> bool:
        """The bot says something while a call runs. False where that is over: then it is not said."""
        call = self._calls.get(call_id)
        if call is None or not call.open:
            return False
        call.said.append(text)
        return True

"""Runs tools beside the pipeline: for whoever stands in the place of a language model.

::

    a job of the model                            the pipeline
        ask_tool() ── ToolCallFrame ────────────► upstream
                   └─ RunToolFrame, to itself ──► a job for the run, which no interruption closes
        await ended()  ◄── wakes ──────────────┐      │ or its deadline, or a cut
                       ToolResultFrame ◄───────┴──────┘
                       └────────────────────────► upstream

Whoever waits for a call never depends on the function: a call ends by its deadline, whatever the function does.
docs/design/tools.md tells the whole.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from contextvars import Context
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from ...pipeline.clock import NS_PER_MS, NS_PER_S, Clock, TimerHandle, Wait
from ...pipeline.errors import QueueOverflowError
from ...pipeline.frames import (
    DOWNSTREAM,
    UPSTREAM,
    CancelFrame,
    Frame,
    TextFrame,
    ToolCall,
    ToolCallFrame,
    ToolResultFrame,
    UrgentFrame,
)
from ...pipeline.jobs import current_job
from ...pipeline.processor import handles
from ...pipeline.tasks import THREADS, Deadline
from ..service.commitment import AwaitsCommitment
from .ledger import Call, CallLedger, Outcome
from .tool import Tool, ToolContext, ToolError, ToolLike, as_tools

log = logging.getLogger(__name__)

MOST_RUNS = 32
"""Functions that run for one conversation at a time. A call beyond that is refused, and the model told so."""
CUT = "It was cancelled: the user interrupted. It has no result."
ENDED = "It was cut off: the conversation has ended. It has no result."


@dataclass(frozen=True, slots=True)
class RunToolFrame(UrgentFrame):
    """`RunsTools`' own: a function is to run. Urgent, so that it waits for nobody, and no interruption closes it."""

    run: int


class _Stopped(Exception):
    """Nobody waits for a run any more."""


@dataclass(slots=True)
class _Run:
    """A function that runs, or is about to."""

    number: int
    tool: Tool
    arguments: Mapping[str, Any]
    call_id: str
    clock: Clock
    deadline: Deadline | None = None
    """By which it is stopped; None while it has not begun."""
    stopped: bool = False
    left: bool = False
    """Its thread tells when it is over."""

    def stop(self) -> None:
        """Cancel it, as far as that goes."""
        self.stopped = True
        if self.deadline is not None:
            self.deadline.fail(_Stopped)


@dataclass(slots=True)
class _Open:
    """What goes with a call that has not ended."""

    tool: Tool
    timers: list[TimerHandle] = field(default_factory=list[TimerHandle])
    waiting: Wait | None = None


class SayOnce:
    """Of calls that are asked for together, one says what is said meanwhile."""

    said = False


class RunsTools(AwaitsCommitment):
    """A base for processors that call tools. `use_tools` gives it some; there is no constructor to be called.

    Of each call, upstream: one `ToolCallFrame`, and one `ToolResultFrame`, whatever becomes of it, as long as frames
    flow. Who derives calls `end_calls` in its ``stop()``.
    """

    _offered: Mapping[str, Tool] = MappingProxyType({})
    _call_ledger: CallLedger | None = None
    _open_calls: dict[str, _Open] | None = None
    _tool_runs: dict[int, _Run] | None = None
    _cut_response = 0
    """The newest response that was cut."""
    _over_response = 0
    """The newest response that ended while calls of its were open: nothing is said in it any more."""

    async def start(self) -> None:
        """The numbers of responses begin anew in each run."""
        self._cut_response = self._over_response = 0
        await super().start()

    # --- for users and adapters ---------------------------------------------------------------------------------------

    def use_tools(self, tools: Iterable[ToolLike]) -> None:
        """Offer these functions and `Tool`s to the model, from its next answer on, and no others.

        Raises `SettingsError` for what a model could not be told of.
        """
        self._offered = MappingProxyType(as_tools(tools))

    @property
    def tools(self) -> Mapping[str, Tool]:
        """The tools that it was given, by name. Setting it is `use_tools`."""
        return self._offered

    @tools.setter
    def tools(self, tools: Iterable[ToolLike]) -> None:
        self.use_tools(tools)

    @property
    def call_ledger(self) -> CallLedger:
        """What was called in this conversation, and what came of it."""
        if self._call_ledger is None:
            self._call_ledger = CallLedger()
        return self._call_ledger

    # --- asking, from a job -------------------------------------------------------------------------------------------

    def ask_tool(self, tools: Mapping[str, Tool], wanted: ToolCall, once: SayOnce, taken: Iterable[str] = ()) -> Call:
        """Begin a call, in a job. It never fails: what is wrong with it is its result. Wait for that with `ended`.

        ``taken``: ids of calls that the conversation had before.
        """
        tool, now_ns = tools.get(wanted.name), self.clock.now_ns()
        arguments: Mapping[str, Any] = {}
        key = refused = None
        if tool is None:
            refused = f"There is no tool {wanted.name}. There are: {', '.join(tools) or 'none'}."
        else:
            try:
                arguments = tool.arguments(wanted.arguments)
                key = tool.key_of(arguments)
            except Exception as error:
                refused = self._told(tool, error)[1]
        if refused is None and self.call_ledger.running >= MOST_RUNS:
            refused = f"{wanted.name} was not called: {MOST_RUNS} calls are running already. Wait for their results."
        call, begins = self.call_ledger.ask(
            wanted, self.response, now_ns, key=key, remember_s=None if tool is None else tool.remember_s,
            refused=refused, taken=set(taken),
        )  # fmt: skip
        self.post(ToolCallFrame(call.call_id, call.name, call.arguments))
        if tool is None or not call.open:
            self._tell(call)
            return call
        self._watch(call, tool, arguments, once)
        if begins:
            if self._tool_runs is None:
                self._tool_runs = {}
            self._tool_runs[call.run] = _Run(call.run, tool, arguments, call.call_id, self.clock)
            self.post(RunToolFrame(call.run))
        return call

    def _watch(self, call: Call, tool: Tool, arguments: Mapping[str, Any], once: SayOnce) -> None:
        """Set its deadline, and when something is said of it."""

        def expire() -> None:
            self._give_up(call, Outcome.TIMED_OUT, f"{call.name} gave no result within {tool.timeout_s:g} s.")

        def speak() -> None:
            if not once.said and call.open:
                once.said = True
                try:
                    self._say(call, tool.words_for(arguments))
                except Exception as error:
                    log.warning("%s: say= of tool %s raised %s", self.path, tool.name, type(error).__name__)

        entry = _Open(tool)
        if self._open_calls is None:
            self._open_calls = {}
        self._open_calls[call.call_id] = entry
        now_ns, clock = self.clock.now_ns(), self.clock
        entry.timers.append(clock.call_at(now_ns + round(tool.timeout_s * NS_PER_S), expire))
        if tool.says:
            entry.timers.append(clock.call_at(now_ns + round(tool.say_after_ms * NS_PER_MS), speak))

    async def ended(self, call: Call) -> str:
        """Wait, in a job, until a call has ended. Returns what the model is told of it."""
        entry = (self._open_calls or {}).get(call.call_id)
        if call.open and entry is not None:
            entry.waiting = Wait()
            try:
                await entry.waiting
            finally:
                entry.waiting = None
        return call.text

    # --- running ------------------------------------------------------------------------------------------------------

    @handles(RunToolFrame)
    async def run_tool(self, frame: RunToolFrame) -> AsyncIterator[Frame]:
        """Run a function, beside everything else."""
        run = (self._tool_runs or {}).get(frame.run)
        if run is None:
            return
        outcome, text = Outcome.CANCELLED, ENDED
        try:
            if not run.stopped:
                with Deadline(run.clock, None, _Stopped) as run.deadline:
                    outcome, text = await self._carry_out(run)
        except _Stopped:
            pass
        finally:
            if run.left:
                # The thread works on. Whoever still waits for it does so in vain: the conversation ends.
                for call in self.call_ledger.waiting_for(run.number):
                    self._give_up(call, Outcome.CANCELLED, ENDED)
            else:
                self._over(run, outcome, text)
        for nothing in ():
            yield nothing

    async def _carry_out(self, run: _Run) -> tuple[Outcome, str]:
        tool, loop = run.tool, asyncio.get_running_loop()

        def say(text: str) -> None:
            waiting = self.call_ledger.waiting_for(run.number)
            if waiting:
                self._say(waiting[0], text)

        def say_from_a_thread(text: str) -> None:
            loop.call_soon_threadsafe(say, text)

        context = ToolContext(run.call_id, tool.name, run.clock, say if tool.is_async else say_from_a_thread)
        try:
            if tool.is_async:
                return Outcome.DONE, tool.text_of(await tool.call(run.arguments, context))
            run.left = True
            text = await THREADS.run(lambda: tool.text_of(tool.call(run.arguments, context)), self._late(run))
            run.left = False
            return Outcome.DONE, text
        except asyncio.CancelledError as error:
            job = current_job.get()
            if run.stopped or job is None or job.closing:
                raise
            # Something that it waited for was cancelled, which is its own affair.
            run.left = False
            return self._told(tool, error)
        except (Exception, SystemExit) as error:
            run.left = False
            return self._told(tool, error)

    def _late(self, run: _Run) -> Callable[[str | None, BaseException | None], None]:
        """What is done when the thread of a call that nobody waits for has come to an end."""

        def late(text: str | None, error: BaseException | None) -> None:
            if isinstance(error, asyncio.CancelledError):
                run.left = False
            elif text is not None:
                self._over(run, Outcome.DONE, text)
            else:
                self._over(run, Outcome.FAILED, "")

        return late

    def _told(self, tool: Tool, error: BaseException) -> tuple[Outcome, str]:
        """What a model is told of a function that raised."""
        if isinstance(error, ToolError):
            return Outcome.FAILED, str(error)
        if isinstance(error, QueueOverflowError):
            log.error("%s: tool %s: %s", self.path, tool.name, error)
            return Outcome.FAILED, f"{tool.name} was not called: too many tools are running."
        log.warning("%s: tool %s failed with %s", self.path, tool.name, type(error).__name__)
        log.debug("%s: tool %s failed", self.path, tool.name, exc_info=error)
        return Outcome.FAILED, f"{tool.name} failed ({type(error).__name__})."

    # --- ending -------------------------------------------------------------------------------------------------------

    def _over(self, run: _Run, outcome: Outcome, text: str) -> None:
        """A function has come to its end."""
        if self._tool_runs is not None and self._tool_runs.pop(run.number, None) is not None:
            for call in self.call_ledger.run_ended(run.number, outcome, text, run.clock.now_ns()):
                self._tell(call)

    def _give_up(self, call: Call, outcome: Outcome, text: str) -> None:
        """A call ends without its function, which is stopped if nobody else waits for it."""
        if self.call_ledger.give_up(call.call_id, outcome, text, self.clock.now_ns()) is not None:
            self._tell(call)
            run = (self._tool_runs or {}).get(call.run)
            if run is not None and not self.call_ledger.waiting_for(call.run):
                run.stop()

    def _tell(self, call: Call) -> None:
        """A call has ended: whoever waits goes on, and the fact goes upstream."""
        entry = (self._open_calls or {}).pop(call.call_id, None)
        if entry is not None:
            for timer in entry.timers:
                timer.cancel()
            if entry.waiting is not None:
                entry.waiting.wake()
        # By the inbox: what a job pushes that is being closed would not be taken.
        self.post(ToolResultFrame(call.call_id, call.text))

    def end_calls(self) -> None:
        """The pipeline has ended: nothing is called any more, and no timer is left."""
        for call in self.call_ledger.open:
            self._give_up(call, Outcome.CANCELLED, ENDED)

    @handles(ToolCallFrame, ToolResultFrame)
    async def tell_calls(self, frame: ToolCallFrame | ToolResultFrame) -> None:
        """Tell the session what has begun and what has ended."""
        await self.push(frame, UPSTREAM)

    @handles(CancelFrame)
    async def cut_calls(self, frame: CancelFrame) -> None:
        """An answer was cut. What only looks something up for it is cancelled; the rest goes on."""
        self._cut_response = max(self._cut_response, frame.response)
        for call in self.call_ledger.open:
            entry = (self._open_calls or {}).get(call.call_id)
            if call.response <= frame.response and entry is not None and entry.tool.on_interruption == "cancel":
                self._give_up(call, Outcome.CANCELLED, CUT)

    # --- saying -------------------------------------------------------------------------------------------------------

    def _say(self, call: Call, text: str) -> None:
        """Let the bot say something for a call."""
        over = max(self._cut_response, self._over_response)
        if text.strip() and call.response > over and self.call_ledger.speak(call.call_id, text):
            # In nobody's name: as the push of a job, it would have to wait where there is no room.
            Context().run(self.push, TextFrame(text), DOWNSTREAM, call.response)

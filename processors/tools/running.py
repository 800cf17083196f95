"""Execution of tools beside the pipeline, for language models and processors that replace one.

::

    job of the model                               pipeline
        start_call() ── ToolCallFrame ───────────► upstream
                     └─ RunToolFrame, to itself ─► a job for the run, which no interruption closes
        await result_of()  ◄── wakes ──────────┐      │ or the deadline, or an interruption
                       ToolResultFrame ◄───────┴──────┘
                       └─────────────────────────► upstream

A call ends by its deadline, whatever the function does, so waiting for a call never depends on the function.
The reasons are in docs/design/tools.md.
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
from .ledger import Call, CallLedger, ToolOutcome
from .tool import Tool, ToolContext, ToolError, ToolLike, as_tools

log = logging.getLogger(__name__)

MAX_RUNS = 32
"""Maximum number of concurrent runs in one conversation. Further calls are refused, with a text for the model."""
INTERRUPTED = "It was cancelled: the user interrupted. It has no result."
ENDED = "It was cut off: the conversation has ended. It has no result."


@dataclass(frozen=True, slots=True)
class RunToolFrame(UrgentFrame):
    """Internal frame of `RunsTools`: starts a run. Urgent: it never waits, and no interruption closes its job."""

    run: int


class _RunStopped(Exception):
    """Raised in a run that no call waits for any more."""


@dataclass(slots=True)
class _ToolRun:
    """Run of a function, before and during its execution."""

    number: int
    tool: Tool
    arguments: Mapping[str, Any]
    call_id: str
    clock: Clock
    deadline: Deadline | None = None
    """Deadline through which `stop` cancels the run; None before the run starts."""
    stopped: bool = False
    left: bool = False
    """True while the thread of the run works; `_on_late_result` reports its end."""

    def stop(self) -> None:
        """Cancel the run. A thread cannot be cancelled and is left behind."""
        self.stopped = True
        if self.deadline is not None:
            self.deadline.fail(_RunStopped)


@dataclass(slots=True)
class _OpenCall:
    """Timers and waiting job of an open call."""

    tool: Tool
    timers: list[TimerHandle] = field(default_factory=list[TimerHandle])
    waiting: Wait | None = None


class SayOnce:
    """Flag shared by the calls of one round: only one of them says its ``say`` text."""

    said = False


class RunsTools(AwaitsCommitment):
    """Base class of processors that call tools. `use_tools` sets the tools; there is no constructor to call.

    Each call sends one `ToolCallFrame` and one `ToolResultFrame` upstream, whatever its outcome, as long as frames
    flow. A subclass must call `end_calls` in its ``stop()``.
    """

    _offered: Mapping[str, Tool] = MappingProxyType({})
    _call_ledger: CallLedger | None = None
    _open_calls: dict[str, _OpenCall] | None = None
    _tool_runs: dict[int, _ToolRun] | None = None
    _cut_response = 0
    """Newest response that was interrupted."""
    _failed_response = 0
    """Newest response that failed while its calls were open. Tools can no longer speak in it."""

    async def start(self) -> None:
        """Forget the response numbers of an earlier run: they restart in each run of the pipeline."""
        self._cut_response = self._failed_response = 0
        await super().start()

    # --- for users and adapters ---------------------------------------------------------------------------------------

    def use_tools(self, tools: Iterable[ToolLike]) -> None:
        """Replace the tools of the model, from its next answer on.

        Raises `SettingsError` for a function that cannot be described to a model.
        """
        self._offered = MappingProxyType(as_tools(tools))

    @property
    def tools(self) -> Mapping[str, Tool]:
        """Tools of this processor, by name. Assignment calls `use_tools`."""
        return self._offered

    @tools.setter
    def tools(self, tools: Iterable[ToolLike]) -> None:
        self.use_tools(tools)

    @property
    def call_ledger(self) -> CallLedger:
        """Ledger of the calls in this conversation, with their results."""
        if self._call_ledger is None:
            self._call_ledger = CallLedger()
        return self._call_ledger

    # --- calls, from a job --------------------------------------------------------------------------------------------

    def start_call(self, tools: Mapping[str, Tool], wanted: ToolCall, once: SayOnce, taken: Iterable[str] = ()) -> Call:
        """Start a call, from a job. Problems become the result of the call and are not raised. Wait with `result_of`.

        ``taken``: ids of earlier calls in the conversation.
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
                refused = self._failure(tool, error)[1]
        if refused is None and self.call_ledger.running >= MAX_RUNS:
            refused = f"{wanted.name} was not called: {MAX_RUNS} calls are running already. Wait for their results."
        call, is_new_run = self.call_ledger.add(
            wanted, self.response, now_ns, key=key, remember_s=None if tool is None else tool.remember_s,
            refused=refused, taken=set(taken),
        )  # fmt: skip
        self.post(ToolCallFrame(call.call_id, call.name, call.arguments))
        if tool is None or not call.open:
            self._report_end(call)
            return call
        self._set_timers(call, tool, arguments, once)
        if is_new_run:
            if self._tool_runs is None:
                self._tool_runs = {}
            self._tool_runs[call.run] = _ToolRun(call.run, tool, arguments, call.call_id, self.clock)
            self.post(RunToolFrame(call.run))
        return call

    def _set_timers(self, call: Call, tool: Tool, arguments: Mapping[str, Any], once: SayOnce) -> None:
        """Set the timers of a call: its deadline, and the time of its ``say`` text."""

        def expire() -> None:
            self._give_up(call, ToolOutcome.TIMED_OUT, f"{call.name} gave no result within {tool.timeout_s:g} s.")

        def speak() -> None:
            if not once.said and call.open:
                once.said = True
                try:
                    self._say(call, tool.words_for(arguments))
                except Exception as error:
                    log.warning("%s: say= of tool %s raised %s", self.path, tool.name, type(error).__name__)

        entry = _OpenCall(tool)
        if self._open_calls is None:
            self._open_calls = {}
        self._open_calls[call.call_id] = entry
        now_ns, clock = self.clock.now_ns(), self.clock
        entry.timers.append(clock.call_at(now_ns + round(tool.timeout_s * NS_PER_S), expire))
        if tool.says:
            entry.timers.append(clock.call_at(now_ns + round(tool.say_after_ms * NS_PER_MS), speak))

    async def result_of(self, call: Call) -> str:
        """Wait, in a job, until a call ends. Return the result for the model."""
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
        """Run a function, concurrently with all other jobs."""
        run = (self._tool_runs or {}).get(frame.run)
        if run is None:
            return
        outcome, text = ToolOutcome.CANCELLED, ENDED
        try:
            if not run.stopped:
                with Deadline(run.clock, None, _RunStopped) as run.deadline:
                    outcome, text = await self._execute(run)
        except _RunStopped:
            pass
        finally:
            if run.left:
                # The thread continues. The conversation ends, so the calls that wait for it end without a result.
                for call in self.call_ledger.waiting_for(run.number):
                    self._give_up(call, ToolOutcome.CANCELLED, ENDED)
            else:
                self._end_run(run, outcome, text)
        for nothing in ():
            yield nothing

    async def _execute(self, run: _ToolRun) -> tuple[ToolOutcome, str]:
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
                return ToolOutcome.DONE, tool.text_of(await tool.call(run.arguments, context))
            run.left = True
            text = await THREADS.run(lambda: tool.text_of(tool.call(run.arguments, context)), self._on_late_result(run))
            run.left = False
            return ToolOutcome.DONE, text
        except asyncio.CancelledError as error:
            job = current_job.get()
            if run.stopped or job is None or job.closing:
                raise
            # The function awaited a task that was cancelled. The run itself was not, so this is a failure of the tool.
            run.left = False
            return self._failure(tool, error)
        except (Exception, SystemExit) as error:
            run.left = False
            return self._failure(tool, error)

    def _on_late_result(self, run: _ToolRun) -> Callable[[str | None, BaseException | None], None]:
        """Return the callback for the end of a thread that was left behind."""

        def late(text: str | None, error: BaseException | None) -> None:
            if isinstance(error, asyncio.CancelledError):
                run.left = False
            elif text is not None:
                self._end_run(run, ToolOutcome.DONE, text)
            else:
                self._end_run(run, ToolOutcome.FAILED, "")

        return late

    def _failure(self, tool: Tool, error: BaseException) -> tuple[ToolOutcome, str]:
        """Return the outcome and the text for the model of a function that raised."""
        if isinstance(error, ToolError):
            return ToolOutcome.FAILED, str(error)
        if isinstance(error, QueueOverflowError):
            log.error("%s: tool %s: %s", self.path, tool.name, error)
            return ToolOutcome.FAILED, f"{tool.name} was not called: too many tools are running."
        log.warning("%s: tool %s failed with %s", self.path, tool.name, type(error).__name__)
        log.debug("%s: tool %s failed", self.path, tool.name, exc_info=error)
        return ToolOutcome.FAILED, f"{tool.name} failed ({type(error).__name__})."

    # --- ending -------------------------------------------------------------------------------------------------------

    def _end_run(self, run: _ToolRun, outcome: ToolOutcome, text: str) -> None:
        """End a run, and the calls that wait for it."""
        if self._tool_runs is not None and self._tool_runs.pop(run.number, None) is not None:
            for call in self.call_ledger.run_ended(run.number, outcome, text, run.clock.now_ns()):
                self._report_end(call)

    def _give_up(self, call: Call, outcome: ToolOutcome, text: str) -> None:
        """End a call before its function; stop the function if no other call waits for it."""
        if self.call_ledger.give_up(call.call_id, outcome, text, self.clock.now_ns()) is not None:
            self._report_end(call)
            run = (self._tool_runs or {}).get(call.run)
            if run is not None and not self.call_ledger.waiting_for(call.run):
                run.stop()

    def _report_end(self, call: Call) -> None:
        """Wake the job that waits for an ended call, and send the result upstream."""
        entry = (self._open_calls or {}).pop(call.call_id, None)
        if entry is not None:
            for timer in entry.timers:
                timer.cancel()
            if entry.waiting is not None:
                entry.waiting.wake()
        # Through the inbox, because pushes of a job that is being closed are dropped.
        self.post(ToolResultFrame(call.call_id, call.text))

    def end_calls(self) -> None:
        """Cancel all open calls and their timers at the end of the pipeline."""
        for call in self.call_ledger.open:
            self._give_up(call, ToolOutcome.CANCELLED, ENDED)

    @handles(ToolCallFrame, ToolResultFrame)
    async def push_calls(self, frame: ToolCallFrame | ToolResultFrame) -> None:
        """Report the start and the end of calls to the session."""
        await self.push(frame, UPSTREAM)

    @handles(CancelFrame)
    async def cancel_calls(self, frame: CancelFrame) -> None:
        """Cancel the calls of an interrupted answer whose tools have ``on_interruption="cancel"``."""
        self._cut_response = max(self._cut_response, frame.response)
        for call in self.call_ledger.open:
            entry = (self._open_calls or {}).get(call.call_id)
            if call.response <= frame.response and entry is not None and entry.tool.on_interruption == "cancel":
                self._give_up(call, ToolOutcome.CANCELLED, INTERRUPTED)

    # --- speech -------------------------------------------------------------------------------------------------------

    def _say(self, call: Call, text: str) -> None:
        """Say a text during a call, unless its response was interrupted or has failed."""
        over = max(self._cut_response, self._failed_response)
        if text.strip() and call.response > over and self.call_ledger.speak(call.call_id, text):
            # An empty context detaches the push from the current job, whose pushes wait if a queue is full.
            Context().run(self.push, TextFrame(text), DOWNSTREAM, call.response)

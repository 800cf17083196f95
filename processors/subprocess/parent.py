"""The parent's side of a service in a process of its own (`child.py` is the other side).

For libraries that hold the GIL for long or have global state. One question at a time: a new one replaces a question
that was withdrawn, and two tasks that ask at once get an error. No task is created here: the event loop's callbacks
receive the child's answers, and a reader awaits them in its own coroutine.

Cancelling a reader at any await leaves the protocol in a known state. Answers carry their question's number, and
late answers to a withdrawn question are dropped on arrival. So a child that is asked to stop never blocks on a pipe
that nobody reads.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
import re
import signal
import sys
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Generic, Protocol, Self, TypeVar

from ...pipeline.errors import MissingExtraError, ServiceDownError, ServiceError
from .pipes import ChildPipes
from .wire import WireMessage, encode

Sleep = Callable[[float], Awaitable[None]]
"""The clock's sleep, in seconds, passed in so that virtual time works."""

EXIT_GRACE_S = 0.5
"""Time that `close()` grants the child after closing its stdin, and again after SIGTERM."""

_STDERR_LINES = 6
_RAISED = re.compile(r"([A-Za-z_][\w.]*)(?::|$)")

log = logging.getLogger("voxline")


class ServiceCrashed(ServiceDownError):
    """The service's process ended by itself, or broke the protocol and was killed. `start()` makes a new one."""

    def __init__(self, message: str, *, exit_code: int | None = None, last_words: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        """Negative: the signal that killed it. None if the parent killed it."""
        self.last_words = tuple(last_words)
        """Last lines on its stderr; empty once it has worked on what users say."""


class ServiceRefused(ServiceError):
    """The child refused a request. ``answer``: its message, with the facts of `Refused`."""

    def __init__(self, message: str, answer: WireMessage) -> None:
        super().__init__(message)
        self.answer = answer


class ServiceProcess(Protocol):
    """A child process, seen by its service: `EspeakProcess`, `PocketSphinxProcess`, `ModelProcess`."""

    @property
    def pid(self) -> int | None:
        """Process id while the process runs, else None."""
        ...

    async def close(self) -> None:
        """End the process and wait until it is gone."""
        ...


P = TypeVar("P", bound=ServiceProcess)


class OwnsProcess(Generic[P]):
    """Mixin of a `Service` that works in a process of its own. ``connect`` sets `_process`."""

    _process: P | None = None

    async def disconnect(self) -> None:
        """End the process."""
        if self._process is not None:
            await self._process.close()

    def alive(self) -> bool:
        """Return False once the process has ended."""
        return self._process is not None and self._process.pid is not None


def require_package(service: str, module: str, package: str, extra: str) -> None:
    """Raise `MissingExtraError` unless ``module`` can be imported. Only the child imports it."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(service, package, extra)


class Replies:
    """Answers to one question, oldest first. `async for` ends before the last answer, which is then in `end`.

    `close()`, the end of a `with` block and a cancel while waiting withdraw the question. Raises `ServiceRefused` if
    the child refuses, `ServiceCrashed` if it dies.
    """

    def __init__(self, child: ChildProcess, number: int) -> None:
        self.end: WireMessage | None = None
        self._child = child
        self._number = number

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> WireMessage:
        if self.end is not None:
            raise StopAsyncIteration
        try:
            message = await self._child.reply_to(self._number)
        except ServiceError:
            raise
        except BaseException:
            self.close()
            raise
        if not message.header.get("end"):
            return message
        self.end = message
        self._child.withdraw(self._number, finished=True)
        if error := message.text("error"):
            raise ServiceRefused(f"{self._child.name}: {error}", message)
        raise StopAsyncIteration

    async def last(self) -> WireMessage:
        """Wait for the last answer and skip the earlier ones."""
        async for _ in self:
            pass
        assert self.end is not None
        return self.end

    def close(self) -> None:
        """Withdraw the question unless it is completely answered. Never waits."""
        if self.end is None:
            self._child.withdraw(self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ChildProcess:
    """A process that runs ``python -m module``, whose ``main`` is a `ChildHost`, and answers questions.

    ``name``: the service's name in errors. ``sleep``: the clock's, in seconds; only `close()` uses it. The process is
    killed when this object is garbage-collected or the interpreter ends; if the interpreter is killed, the process
    ends by itself.
    """

    def __init__(self, name: str, module: str, *, sleep: Sleep) -> None:
        self.name = name
        self._module = module
        self._sleep = sleep
        self._pipes: ChildPipes | None = None
        self._finalizer: weakref.finalize[[int], ChildProcess] | None = None
        self._last_number = 0
        self._served = False
        """True once it has answered a question: later ones, and its tracebacks, contain what people say."""

    @property
    def pid(self) -> int | None:
        """Process id while the process runs, else None."""
        return self._pipes.pid if self._pipes and self.running else None

    @property
    def running(self) -> bool:
        """True from `start` until the process ends."""
        pipes = self._pipes
        return pipes is not None and not pipes.lost and not pipes.closing and pipes.exit_code is None

    async def start(self) -> None:
        """Start the process; it is ready once it answers. Raises `ServiceError` if it cannot start."""
        if self.running:
            raise ServiceError(f"{self.name} is running already")
        await self.close()
        self._served = False
        pipes = ChildPipes()
        try:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: pipes,
                sys.executable,
                "-P",  # so that a queue.py in the current folder does not replace the standard library's
                "-m",
                self._module,
                # Ctrl-C in the terminal must reach the parent only, even before the child ignores it.
                start_new_session=True,
            )
        except OSError as error:
            raise ServiceError(f"{self.name} could not be started: {error}") from error
        self._pipes = pipes
        self._finalizer = weakref.finalize(self, pipes.kill, signal.SIGKILL)

    async def send(self, op: str, payload: bytes | memoryview = b"", **fields: object) -> None:
        """Send a request that has no answer. Waits while the pipe is full (some 250 kB).

        If the child refuses it, the next question raises the refusal.
        """
        pipes = self._alive()
        await pipes.writable()
        self._alive().write(encode({"id": 0, "op": op, **fields}, payload))

    async def request(self, op: str, payload: bytes | memoryview = b"", **fields: object) -> WireMessage:
        """Ask, and wait for the last answer."""
        with self.stream(op, payload, **fields) as replies:
            return await replies.last()

    def stream(self, op: str, payload: bytes | memoryview = b"", **fields: object) -> Replies:
        """Ask now, and read the answers as they come. Withdraws a question that is still open."""
        pipes = self._alive()
        if pipes.reading is not None:
            raise ServiceError(f"{self.name} is in use by another task: it answers one question at a time")
        if pipes.expected:
            self.withdraw(pipes.expected)
        self._last_number += 1
        pipes.expect(self._last_number)
        pipes.write(encode({"id": self._last_number, "op": op, **fields}, payload))
        return Replies(self, self._last_number)

    async def reply_to(self, number: int) -> WireMessage:
        """Wait for the next answer to question ``number``. For `Replies`."""
        pipes = self._pipes
        if pipes is not None and pipes.expected == number:
            if pipes.reading is not None:
                raise ServiceError(f"{self.name} is read by another task: it answers one question at a time")
            message = await pipes.next_reply(number)
            if message is not None:
                return message
            if pipes.expected == number:
                raise self._crash(pipes)
        raise ServiceError(f"{self.name}: this question was withdrawn, by a newer one or by close()")

    def withdraw(self, number: int, *, finished: bool = False) -> None:
        """Expect no more answers to question ``number``, and notify the child. For `Replies`."""
        pipes = self._pipes
        if pipes is not None and pipes.expected == number:
            pipes.expect(0)
            self._served = self._served or finished
            if not finished:
                pipes.write(encode({"cancel": number}))

    def kill(self) -> None:
        """Kill the process without waiting. `close()` afterwards waits until it is gone."""
        if self._pipes is not None:
            self._pipes.kill(signal.SIGKILL)

    async def close(self) -> None:
        """End the process and wait until it and its pipes are gone: close its stdin, then SIGTERM, then SIGKILL.

        Does nothing if there is none. Being cancelled, kills the process first.
        """
        pipes = self._pipes
        if pipes is None:
            return
        pipes.expect(0)
        pipes.close_stdin()
        try:
            if not await self._gone_within(pipes, EXIT_GRACE_S):
                pipes.kill(signal.SIGTERM)
                if not await self._gone_within(pipes, EXIT_GRACE_S):
                    pipes.kill(signal.SIGKILL)
            await pipes.gone()
        except BaseException:
            pipes.kill(signal.SIGKILL)
            raise
        if self._pipes is pipes:
            self._pipes = None
            if self._finalizer is not None:
                self._finalizer.detach()

    async def _gone_within(self, pipes: ChildPipes, seconds: float) -> bool:
        # Sleeps in doubling steps, because waiting for either of two events would need a task.
        step = 0.002
        while not pipes.lost and seconds > 0:
            await self._sleep(min(step, seconds))
            seconds -= step
            step *= 2
        return pipes.lost

    def _alive(self) -> ChildPipes:
        pipes = self._pipes
        if pipes is None or pipes.closing:
            raise ServiceError(f"{self.name} is not running: call start() first")
        if pipes.lost:
            raise self._crash(pipes)
        return pipes

    def _crash(self, pipes: ChildPipes) -> ServiceCrashed:
        if pipes.fault is not None:
            fault = "not its protocol" if self._served else pipes.fault
            return ServiceCrashed(f"{self.name} was killed because of its output: {fault}")
        code = pipes.exit_code
        how = f"exit code {code}"
        if code is not None and code < 0:
            with suppress(ValueError):
                how += f", {signal.Signals(-code).name}"
        lines = pipes.stderr.decode(errors="replace").strip().splitlines()[-_STDERR_LINES:]
        if not lines:
            said = "Its stderr is empty."
        elif self._served:
            # Its traceback may contain what a user said: log it at debug only.
            log.debug("%s ended; its last words:\n%s", self.name, "\n".join(lines))
            raised = _RAISED.match(lines[-1])
            said = f"It raised {raised[1]}." if raised else "Its last words on stderr are logged at debug level."
        else:
            said = "\n  ".join(["Its last words:", *lines])
        return ServiceCrashed(
            f"{self.name} ended unexpectedly ({how}). {said}", exit_code=code, last_words=() if self._served else lines
        )

"""A service in a process of its own: the parent's side (the child's is `child_host.py`).

For libraries that hold the GIL for long or have global state. One user at a time: a new question takes the
place of one that was given up, and two tasks asking at once is an error. No task is made here: the event
loop's callbacks take in what the child says, and a reader waits for that in its own coroutine.

Cancelling a reader at any await leaves the protocol in a known state. Answers carry their question's number,
and what comes late for a question that was given up is dropped where it arrives. So a child that is told to
stop never blocks on a pipe that nobody reads.
"""

import asyncio
import importlib.util
import logging
import re
import signal
import sys
import weakref
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Self

from ...pipeline.errors import MissingExtraError, ServiceDownError, ServiceError
from .pipes import Link
from .wire import Message, encode

Sleep = Callable[[float], Awaitable[None]]
"""Waits for so many seconds: the worker's clock's, so that no part of voxline sleeps by itself."""

EXIT_GRACE_S = 0.5
"""How long `close()` waits for a child's end after closing its stdin, and again after SIGTERM."""

_STDERR_LINES = 6
_RAISED = re.compile(r"([A-Za-z_][\w.]*)(?::|$)")

log = logging.getLogger("voxline")


class ServiceCrashed(ServiceDownError):
    """The service's process ended by itself, or spoke nonsense and was ended. `start()` makes a new one."""

    def __init__(self, message: str, *, exit_code: int | None = None, last_words: Sequence[str] = ()) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        """Negative: the signal that killed it. None where it was ended."""
        self.last_words = tuple(last_words)
        """The last lines that it wrote to its standard error."""


def require_package(service: str, module: str, package: str, extra: str) -> None:
    """Raise MissingExtraError unless `module` can be imported. Does not import it: that is the child's to do."""
    if importlib.util.find_spec(module) is None:
        raise MissingExtraError(service, package, extra)


class Replies:
    """The answers to one question, oldest first; `async for` ends before the last one, which is then in
    `end`.

    Leave it by `close()`, or by the end of a `with` block, or by being cancelled while waiting: all withdraw
    the question. Raises ServiceError where the service refuses, ServiceCrashed where it dies.
    """

    def __init__(self, child: "ChildProcess", number: int) -> None:
        self.end: Message | None = None
        self._child = child
        self._number = number

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Message:
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
            raise ServiceError(f"{self._child.name}: {error}")
        raise StopAsyncIteration

    async def last(self) -> Message:
        """Wait for the last answer, passing over what comes before it."""
        async for _ in self:
            pass
        assert self.end is not None
        return self.end

    def close(self) -> None:
        """Withdraw the question, if it is not answered in full. Never waits."""
        if self.end is None:
            self._child.withdraw(self._number)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class ChildProcess:
    """Runs `python -m module`, whose `main` is a `ChildHost`, and asks it.

    `name` is what errors call the service. `sleep` is the clock's, in seconds; only `close()` uses it. If
    this object is forgotten, or the interpreter ends, the process is killed; if the interpreter is killed, it
    ends by itself.
    """

    def __init__(self, name: str, module: str, *, sleep: Sleep) -> None:
        self.name = name
        self._module = module
        self._sleep = sleep
        self._link: Link | None = None
        self._finalizer: weakref.finalize[[int], ChildProcess] | None = None
        self._last_number = 0
        self._served = False
        """Whether it has answered a question: from the second on, they are about what people say."""

    @property
    def pid(self) -> int | None:
        """The process's number while it runs, else None."""
        return self._link.pid if self._link and self.running else None

    @property
    def running(self) -> bool:
        """Whether the process was started and has not ended."""
        link = self._link
        return link is not None and not link.lost and not link.closing and link.exit_code is None

    async def start(self) -> None:
        """Start the process; it is ready when it answers. Raises ServiceError if it cannot start."""
        if self.running:
            raise ServiceError(f"{self.name} is running already")
        await self.close()
        self._served = False
        link = Link()
        try:
            await asyncio.get_running_loop().subprocess_exec(
                lambda: link,
                sys.executable,
                "-P",  # a queue.py in the current folder is not the standard library's
                "-m",
                self._module,
                # Ctrl-C in the terminal is for the parent, even before the child ignores it
                start_new_session=True,
            )
        except OSError as error:
            raise ServiceError(f"{self.name} could not be started: {error}") from error
        self._link = link
        self._finalizer = weakref.finalize(self, link.kill, signal.SIGKILL)

    async def send(self, op: str, payload: bytes | memoryview = b"", **fields: object) -> None:
        """Tell the child something that has no answer. Waits while its pipe is full (some 250 kB).

        If the child refuses, the next question is told why.
        """
        link = self._alive()
        await link.writable()
        self._alive().write(encode({"id": 0, "op": op, **fields}, payload))

    async def request(self, op: str, payload: bytes | memoryview = b"", **fields: object) -> Message:
        """Ask, and wait for the (last) answer."""
        with self.stream(op, payload, **fields) as replies:
            return await replies.last()

    def stream(self, op: str, payload: bytes | memoryview = b"", **fields: object) -> Replies:
        """Ask now, and read the answers as they come. A question that is still open is withdrawn."""
        link = self._alive()
        if link.reading is not None:
            raise ServiceError(f"{self.name} is being asked by another task: it serves one at a time")
        if link.expected:
            self.withdraw(link.expected)
        self._last_number += 1
        link.expect(self._last_number)
        link.write(encode({"id": self._last_number, "op": op, **fields}, payload))
        return Replies(self, self._last_number)

    async def reply_to(self, number: int) -> Message:
        """The next answer to question `number`. For `Replies`."""
        link = self._link
        if link is not None and link.expected == number:
            if link.reading is not None:
                raise ServiceError(f"{self.name} is being read by another task: it serves one at a time")
            message = await link.next_reply(number)
            if message is not None:
                return message
            if link.expected == number:
                raise self._crash(link)
        raise ServiceError(f"{self.name}: this question was withdrawn, by a newer one or by close()")

    def withdraw(self, number: int, *, finished: bool = False) -> None:
        """Expect no more answers to question `number`, and tell the child so. For `Replies`."""
        link = self._link
        if link is not None and link.expected == number:
            link.expect(0)
            self._served = self._served or finished
            if not finished:
                link.write(encode({"cancel": number}))

    def kill(self) -> None:
        """End the process at once, without waiting. `close()` afterwards waits until it is gone."""
        if self._link is not None:
            self._link.kill(signal.SIGKILL)

    async def close(self) -> None:
        """End the process and wait until it and its pipes are gone: its stdin is closed, then SIGTERM, then
        SIGKILL.

        Does nothing if there is none. If cancelled, kills the process before it goes.
        """
        link = self._link
        if link is None:
            return
        link.expect(0)
        link.close_stdin()
        try:
            if not await self._gone_within(link, EXIT_GRACE_S):
                link.kill(signal.SIGTERM)
                if not await self._gone_within(link, EXIT_GRACE_S):
                    link.kill(signal.SIGKILL)
            await link.gone()
        except BaseException:
            link.kill(signal.SIGKILL)
            raise
        if self._link is link:
            self._link = None
            if self._finalizer is not None:
                self._finalizer.detach()

    async def _gone_within(self, link: Link, seconds: float) -> bool:
        # In steps that double, because waiting for either of two things would need a task.
        step = 0.002
        while not link.lost and seconds > 0:
            await self._sleep(min(step, seconds))
            seconds -= step
            step *= 2
        return link.lost

    def _alive(self) -> Link:
        link = self._link
        if link is None or link.closing:
            raise ServiceError(f"{self.name} is not running: call start() first")
        if link.lost:
            raise self._crash(link)
        return link

    def _crash(self, link: Link) -> ServiceCrashed:
        if link.fault is not None:
            fault = "nonsense" if self._served else link.fault
            return ServiceCrashed(f"{self.name} was ended because it sent something that is {fault}")
        code = link.exit_code
        how = f"exit code {code}"
        if code is not None and code < 0:
            with suppress(ValueError):
                how += f", {signal.Signals(-code).name}"
        lines = link.stderr.decode(errors="replace").strip().splitlines()[-_STDERR_LINES:]
        if not lines:
            said = "It said nothing on stderr."
        elif self._served:
            # What it works on is what somebody said, and may stand in its traceback: at debug only.
            log.debug("%s ended; its last words:\n%s", self.name, "\n".join(lines))
            raised = _RAISED.match(lines[-1])
            said = f"It raised {raised[1]}." if raised else "What it said on stderr is logged at debug."
        else:
            said = "\n  ".join(["Its last words:", *lines])
        return ServiceCrashed(
            f"{self.name} ended unexpectedly ({how}). {said}", exit_code=code, last_words=() if self._served else lines
        )

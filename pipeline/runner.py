"""The runner runs workers, and ends them on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import importlib
import logging
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from typing import Any, TypeVar

from .tasks import spawn
from .worker import Outcome, PipelineWorker

log = logging.getLogger("voxline")

T = TypeVar("T")


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a program's main coroutine, as `asyncio.run` does; on uvloop where that is installed (extra ``speed``).

    ::

        run(PipelineRunner().run(worker))
    """
    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        return importlib.import_module("uvloop").new_event_loop
    except ImportError:
        return None


class PipelineRunner:
    """Runs one worker or many. The first Ctrl-C (or SIGTERM) drains them, the second cancels.

    ``handle_signals=False`` leaves the signals alone, for a server with handlers of its own.

    While it runs, the garbage collector leaves out all older objects (`gc.freeze`): a full collection walks through
    every imported module, which delays the event loop by 30 ms and more, twice in ten minutes of conversation.
    ``freeze_garbage=False`` leaves the collector alone.
    """

    def __init__(self, *, handle_signals: bool = True, freeze_garbage: bool = True) -> None:
        self._freeze_garbage = freeze_garbage
        self._handle_signals = handle_signals
        self._workers: list[PipelineWorker] = []
        self._stopping: list[asyncio.Task[None]] = []

    async def run(self, *workers: PipelineWorker) -> list[Outcome]:
        """Run all workers to their ends. The first error of a worker that does not start is raised, after all ended."""
        self._workers = list(workers)
        self._stopping = []
        with contextlib.ExitStack() as stack:
            if self._handle_signals:
                stack.enter_context(on_signals(self.signalled))
            if self._freeze_garbage:
                stack.enter_context(frozen_garbage())
            try:
                if len(workers) == 1:
                    return [await workers[0].run()]
                return await self._run_many() if workers else []
            finally:
                if self._stopping:
                    await asyncio.wait(self._stopping)

    async def _run_many(self) -> list[Outcome]:
        outcomes: dict[PipelineWorker, Outcome] = {}
        errors: list[BaseException] = []

        async def run(worker: PipelineWorker) -> None:
            try:
                outcomes[worker] = await worker.run()
            except Exception as error:
                errors.append(error)

        tasks = [spawn(run(worker), worker.name) for worker in self._workers]
        try:
            # Not `await task`: that would pass a cancellation on to one of the tasks, and not wait for the others.
            await asyncio.wait(tasks)
        except asyncio.CancelledError:
            for worker in self._workers:
                worker.cancel()
            await asyncio.wait(tasks)
            raise
        if errors:
            raise errors[0]
        return [outcomes[worker] for worker in self._workers]

    def signalled(self) -> None:
        """Drain the workers the first time, cancel them the second."""
        if self._stopping:
            log.info("cancelling")
            for worker in self._workers:
                worker.cancel()
            return
        log.info("draining; once more to cancel")
        for worker in self._workers:
            self._stopping.append(spawn(_stop(worker), f"stop {worker.name}"))


@contextlib.contextmanager
def on_signals(signalled: Callable[[], None]) -> Generator[None]:
    """Call ``signalled`` for each Ctrl-C and SIGTERM. Has no effect outside of the main thread, which alone gets
    signals.
    """
    loop = asyncio.get_running_loop()
    with contextlib.ExitStack() as stack:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                with contextlib.suppress(NotImplementedError, RuntimeError):
                    loop.add_signal_handler(number, signalled)
                    stack.callback(loop.remove_signal_handler, number)
        yield


@contextlib.contextmanager
def frozen_garbage() -> Generator[None]:
    """Leave objects that exist now out of garbage collections: a full one would delay every conversation."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _stop(worker: PipelineWorker) -> None:
    await worker.stop()

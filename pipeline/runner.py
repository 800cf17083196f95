"""Runs workers, and ends them on a signal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import signal
import threading
from collections.abc import Callable, Generator

from .tasks import spawn
from .worker import Outcome, PipelineWorker

log = logging.getLogger("voxline")


class PipelineRunner:
    """Runs one worker or many. The first Ctrl-C (or SIGTERM) drains them, the second cancels.

    ``handle_signals=False`` leaves the signals alone, which is right inside a server that has its own.

    While it runs, the garbage collector leaves out what was there before (`gc.freeze`): a full collection walks through
    all that was ever imported, which holds the event loop up for 30 ms and more, twice in ten minutes of conversation.
    ``freeze_garbage=False``: for a program that has reasons of its own.
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
            # Not `await task`: that would pass a cancelling on to one of them, and not wait for the others.
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
        """What a signal does: drain the first time, cancel the second."""
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
    """Call this for each Ctrl-C and SIGTERM. Nothing changes outside the main thread, which alone gets signals."""
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
    """A full collection would walk through all that was imported, and hold every conversation up for so long."""
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()


async def _stop(worker: PipelineWorker) -> None:
    await worker.stop()

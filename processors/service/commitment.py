"""Wait for a speculative response to be committed before doing something that cannot be undone."""

from __future__ import annotations

from ...pipeline.clock import Wait
from ...pipeline.frames import LLMRequestFrame, ResponseCommittedFrame
from ...pipeline.processor import FrameProcessor, handles


class AwaitsCommitment(FrameProcessor):
    """Base of processors that answer an `LLMRequestFrame`, as a language model does.

    The answer to a ``speculative`` request may contain text at once, because nobody hears it yet. Before any other
    effect (a tool, a movement), a job calls ``await self.committed(frame)``. If the response is dropped instead, the
    job is closed there.
    """

    _newest_commitment = 0
    _waiting: dict[int, Wait] | None = None

    async def start(self) -> None:
        """Forget the last run, because response numbers start again. A subclass with a ``start()`` calls this one."""
        self._newest_commitment = 0

    @handles(ResponseCommittedFrame)
    async def commit(self, frame: ResponseCommittedFrame) -> None:
        """Wake the job of the response that was committed."""
        self._newest_commitment = frame.response
        waiting = (self._waiting or {}).pop(frame.response, None)
        if waiting is not None:
            waiting.wake()
        await self.push(frame)

    async def committed(self, request: LLMRequestFrame) -> None:
        """Wait, in a job, until its response is committed."""
        response = self.response
        if not request.speculative or response <= self._newest_commitment:
            return
        if self._waiting is None:
            self._waiting = {}
        waiting = self._waiting[response] = Wait()
        try:
            await waiting
        finally:
            self._waiting.pop(response, None)

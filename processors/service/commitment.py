"""For whoever does something for a response that cannot be undone: wait until the response is wanted."""

from __future__ import annotations

from ...pipeline.clock import Wait
from ...pipeline.frames import LLMRequestFrame, ResponseCommittedFrame
from ...pipeline.processor import FrameProcessor, handles


class AwaitsCommitment(FrameProcessor):
    """A base for processors in the place of a language model.

    A request that is ``speculative`` may be answered in words, which are not heard yet. Before anything that is more
    than words (a tool, a movement), a job writes ``await self.committed(frame)``. Where the response is not wanted
    after all, the job is closed there.
    """

    _newest_commitment = 0
    _waiting: dict[int, Wait] | None = None

    async def start(self) -> None:
        """The numbers of responses begin anew in each run. Who derives and has a ``start()`` calls this one."""
        self._newest_commitment = 0

    @handles(ResponseCommittedFrame)
    async def commit(self, frame: ResponseCommittedFrame) -> None:
        """A guess was right."""
        self._newest_commitment = frame.response
        waiting = (self._waiting or {}).pop(frame.response, None)
        if waiting is not None:
            waiting.wake()
        await self.push(frame)

    async def committed(self, request: LLMRequestFrame) -> None:
        """In a job: wait until the response that it works for is wanted."""
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

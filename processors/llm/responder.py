"""A responder by rule, in the place of a language model: small, quick, and it knows only what it was told."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

from ...pipeline.frames import UPSTREAM, ErrorFrame, Frame, LLMRequestFrame, ResponseEndFrame, TextFrame
from ...pipeline.processor import handles
from ..service.commitment import AwaitsCommitment
from ..text.sentences import SentenceCutter

log = logging.getLogger("voxline")


class RuleResponder(AwaitsCommitment):
    """Answers with what ``reply`` makes of the user's last words, a `TextFrame` for each sentence.

    ``reply`` is an ordinary function: words in, answer out, quickly. It may do something, so it is called when the
    user's turn is over, and not for a guess. Where it raises, the error goes upstream as an `ErrorFrame`, and the
    response ends: see `SessionSettings.apology`.
    """

    def __init__(self, reply: Callable[[str], str]) -> None:
        self._reply = reply

    @handles(LLMRequestFrame)
    async def respond(self, frame: LLMRequestFrame) -> AsyncIterator[Frame]:
        """Answer a request."""
        await self.committed(frame)
        words = next((message.text for message in reversed(frame.messages) if message.role == "user"), "")
        try:
            cutter = SentenceCutter(first_chars=None)
            for sentence in [*cutter.add(self._reply(words).strip()), *cutter.end()]:
                yield TextFrame(sentence.strip())
        except Exception as error:
            # Before the end of the response: who hears of that has to know that it has failed.
            log.warning("%s: reply() raised %s", self.path, type(error).__name__)
            log.debug("%s: reply()", self.path, exc_info=error)
            await self.push(ErrorFrame(str(error), self.path, type(frame).__name__, type(error).__name__), UPSTREAM)
        yield ResponseEndFrame()

"""Responder by rule, a simple replacement for a language model."""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable

from ...pipeline.frames import UPSTREAM, ErrorFrame, Frame, LLMRequestFrame, ResponseEndFrame, TextFrame
from ...pipeline.processor import handles
from ..service.commitment import AwaitsCommitment
from ..text.sentences import SentenceCutter

log = logging.getLogger("voxline")


class RuleResponder(AwaitsCommitment):
    """Answers the user's last message with the text that ``reply`` returns, one `TextFrame` per sentence.

    ``reply`` is an ordinary, quick function from the user's words to an answer. It may have side effects, so it is
    called only after the user's turn is committed, never for a speculative request. If it raises, an `ErrorFrame` goes
    upstream and the response ends: see `SessionSettings.apology`.
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
            # The error precedes the end of the response, so that receivers of the end know of the failure.
            log.warning("%s: reply() raised %s", self.path, type(error).__name__)
            log.debug("%s: reply()", self.path, exc_info=error)
            await self.push(ErrorFrame(str(error), self.path, type(frame).__name__, type(error).__name__), UPSTREAM)
        yield ResponseEndFrame()

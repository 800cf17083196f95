"""Messages about each response of the bot, and about the time that the user waited for it. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from ...pipeline.clock import NS_PER_MS
from ...pipeline.timeline.collect import STEPS
from .spoken import Progress, Segment, SpokenProgress

HELD = 2_000
"""Bound on messages held for a speculative response until it is committed; later ones are dropped."""

Tell = Callable[[str, Any], None]


@dataclass(slots=True)
class Reply:
    """One response, from the request to its end."""

    response: int
    position_ms: float
    """Audio heard so far; negative while its start is on its way."""
    asked: bool = False
    """True if a language model was asked for it."""
    held: list[tuple[str, Any]] | None = None
    """Messages held until the response is committed; None: it is."""
    source: tuple[str, str] | None = None
    """Place where its text was first observed; text is counted only there."""
    model_works: bool = False
    voice_works: bool = False
    spoken: SpokenProgress = field(default_factory=SpokenProgress)


class ReplyReporter:
    """Sends messages about replies, in the RTVI version of the client."""

    def __init__(self, tell: Tell, major: Callable[[], int]) -> None:
        self._tell = tell
        self._major = major
        self._segments = 0

    def tell(self, reply: Reply, kind: str, data: Any = None) -> None:
        """Send a message now, or when the reply is committed."""
        if reply.held is None:
            self._tell(kind, data)
        elif len(reply.held) < HELD:
            reply.held.append((kind, data))

    def commit(self, reply: Reply) -> None:
        """Send the messages held for a speculative reply."""
        held, reply.held = reply.held, None
        for kind, data in held or ():
            self._tell(kind, data)

    def text(self, reply: Reply, text: str) -> None:
        """Report a piece of text that will be spoken."""
        self._segments += 1
        segment = reply.spoken.add(self._segments, text)
        self.tell(reply, "bot-transcription", {"text": text})
        if self._major() < 2:
            self.tell(reply, "bot-output", {"text": text, "spoken": False, "aggregated_by": "sentence"})
        else:
            self.tell(reply, "bot-output", _output(segment, "new"))

    def progress(self, reply: Reply, news: Iterable[Progress]) -> None:
        """Report words that were heard."""
        for one in news:
            if one.word:
                self.tell(reply, "bot-tts-text", {"text": one.word})
            if self._major() < 2:
                if one.word:
                    self.tell(reply, "bot-output", {"text": one.word, "spoken": True, "aggregated_by": "word"})
                continue
            segment = one.segment
            status = "completed" if one.done else "in-progress"
            parts = {
                "text": one.word,
                "accumulated_text": segment.text[: segment.spoken],
                "remaining_text": segment.text[segment.spoken :],
            }
            self.tell(reply, "bot-output", {**_output(segment, status), "spoken_progress": parts})


def _output(segment: Segment, status: str) -> dict[str, Any]:
    return {
        "text": segment.text,
        "aggregated_by": "sentence",
        "segment_id": segment.id,
        "will_be_spoken": True,
        "spoken_status": status,
    }


class TurnLatency:
    """Time between the user's last word and the bot's first, by `STEPS`, for each turn."""

    def __init__(self) -> None:
        self._marks: dict[str, int] = {}
        self._number = 0

    def spoke(self, end_ns: int, t_ns: int) -> None:
        """Note the end of the user's speech; the last sound was at ``end_ns``."""
        self._marks = {"": end_ns, "silence": t_ns}

    def understood(self, t_ns: int, text: str) -> None:
        """Note the transcript; an empty one ends the turn."""
        if not text.strip():
            self.over()
        elif self._marks:
            self._marks["transcript"] = t_ns

    def typed(self, t_ns: int) -> None:
        """Note typed text: the turn starts with the answer."""
        self._marks = {"": t_ns, "silence": t_ns, "transcript": t_ns}

    def mark(self, step: str, t_ns: int) -> None:
        """Note the first text or the first audio of an answer."""
        if self._marks:
            self._marks.setdefault(step, t_ns)

    def over(self) -> None:
        """Discard the turn: no answer follows."""
        self._marks = {}

    def heard(self, t_ns: int) -> dict[str, Any] | None:
        """Note that the answer is heard. Return the steps in ms; None unless all are known."""
        marks, self._marks = self._marks | {"heard": t_ns}, {}
        if any(step not in marks for step in ("", *STEPS)):
            return None
        self._number += 1
        steps: dict[str, float] = {}
        # A speculative answer may be ready before the words are final: that step took no time.
        at_ns = marks[""]
        for step in STEPS:
            steps[step] = round(max(0, marks[step] - at_ns) / NS_PER_MS, 1)
            at_ns = max(at_ns, marks[step])
        total = round((t_ns - marks[""]) / NS_PER_MS, 1)
        return {"type": "voxline.turn", "turn": self._number, "steps": steps, "voice_to_voice_ms": total}

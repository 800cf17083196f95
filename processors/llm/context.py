"""What a model is told of a conversation: pure functions from messages to messages.

Protocols of models want that each call of a tool is followed by its result, and nothing stands between. A history of
facts is not so: calls begin and end while other things are said, and some of it is older than what is kept.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...pipeline.frames import Message, ToolCall

STILL_RUNNING = "It is still running: there is no result yet."
CUT_OFF = "It was cut off: there is no result."
MESSAGE_TOKENS = 4
"""What a message costs beside its text (OpenAI's cookbook, "How to count tokens", has 3, and 1 for a name)."""


def estimate_tokens(text: str) -> int:
    """About how many tokens a text has: one for each four bytes of UTF-8.

    Four letters of English are a token, by OpenAI's rule of thumb; a letter of Chinese has three bytes, and is between
    half a token and one. Count with your model's own tokenizer where it matters.
    """
    return math.ceil(len(text.encode("utf-8", "replace")) / 4)


# --- calls and their results ------------------------------------------------------------------------------------------


def repaired(messages: Sequence[Message]) -> list[Message]:
    """Each message with calls, directly followed by the results of these, in order.

    Calls that follow one another without anything between are one message. A result that came later is moved to its
    call, one without a call is dropped. A call without a result gets one: it still runs, or was cut off, if something
    the model knows has been said since. A call's second result, and a second call with the same id, are dropped.
    Arguments that are no JSON object are told as none: servers fail with others.
    """
    results: dict[str, Message] = {}
    for message in messages:
        if message.role == "tool":
            results.setdefault(message.call_id, message)
    told: list[Message] = []
    calling: Message | None = None
    seen: set[str] = set()

    def close() -> None:
        nonlocal calling
        if calling is not None:
            told.append(calling)
            told.extend(
                results.get(call.call_id) or Message("tool", STILL_RUNNING, call_id=call.call_id)
                for call in calling.calls
            )
            calling = None

    for message in messages:
        if message.role == "tool":
            continue
        calls = tuple(_sound(call) for call in _new(message.calls, seen))
        if message.calls and not calls and not message.text:
            continue
        if calling is not None and calls and not message.text and not message.cut:
            calling = replace(calling, calls=calling.calls + calls)
            continue
        close()
        if calls:
            calling = replace(message, calls=calls)
        else:
            told.append(replace(message, calls=()) if message.calls else message)
    close()
    return told


def _new(calls: Sequence[ToolCall], seen: set[str]) -> list[ToolCall]:
    found: list[ToolCall] = []
    for call in calls:
        if call.call_id not in seen:
            seen.add(call.call_id)
            found.append(call)
    return found


def _sound(call: ToolCall) -> ToolCall:
    try:
        fits = isinstance(json.loads(call.arguments), dict)
    except ValueError:
        fits = False
    return call if fits else replace(call, arguments="{}")


def told_cuts(messages: Sequence[Message], note: str) -> list[Message]:
    """With ``note``, as the system, behind each message in which the bot was interrupted; none where it is empty."""
    told: list[Message] = []
    for message in messages:
        told.append(message)
        if message.cut and note and message.role == "assistant":
            told.append(Message("system", note))
    return told


# --- what fits --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a model is told: ``messages`` that are not the system's, ``tokens`` of all. None for no bound."""

    messages: int | None = None
    tokens: int | None = None
    count_tokens: Callable[[str], int] = estimate_tokens

    def tokens_of(self, message: Message) -> int:
        """What a message costs."""
        called = sum(self.count_tokens(f"{call.name} {call.arguments}") for call in message.calls)
        return MESSAGE_TOKENS + self.count_tokens(message.text) + called


def trimmed(messages: Sequence[Message], bounds: Bounds) -> tuple[list[Message], list[Message]]:
    """What fits of `repaired` messages, and what does not: the oldest, and nothing of the system.

    What is kept begins with a message of the user, where it can: a model that is told an answer without its question
    takes it for its own idea. A call is never parted from its results. The newest turn, from the user's last words
    on, is kept whatever its length.
    """
    blocks = _blocks(messages)
    system = [block for block in blocks if block[0].role == "system"]
    others = [block for block in blocks if block[0].role != "system"]
    last_turn = max((at for at, block in enumerate(others) if block[0].role == "user"), default=len(others) - 1)
    left = None if bounds.tokens is None else bounds.tokens - sum(bounds.tokens_of(one) for b in system for one in b)
    room = bounds.messages
    first = len(others)
    for at in range(len(others) - 1, -1, -1):
        block = others[at]
        if room is not None:
            room -= len(block)
        if left is not None:
            left -= sum(map(bounds.tokens_of, block))
        if at < last_turn and ((room is not None and room < 0) or (left is not None and left < 0)):
            break
        first = at
    while first < last_turn and first > 0 and others[first][0].role != "user":
        first += 1
    dropped = {id(block) for block in others[:first]}
    kept = [one for block in blocks if id(block) not in dropped for one in block]
    return kept, [one for block in others[:first] for one in block]


def _blocks(messages: Sequence[Message]) -> list[list[Message]]:
    """Messages that may not be parted: a call, and its results."""
    blocks: list[list[Message]] = []
    for message in messages:
        if message.role == "tool" and blocks:
            blocks[-1].append(message)
        else:
            blocks.append([message])
    return blocks


# --- what was said before ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Summary:
    """The oldest messages of a conversation, in short. ``covers``: which ones, those of the system left out."""

    text: str
    covers: tuple[Message, ...]


def summarised(
    messages: Sequence[Message], summary: Summary | None, prefix: str
) -> tuple[list[Message], list[Message]]:
    """With the summary, as the system, in the place of the messages that it covers; and these.

    The history may have lost its oldest messages since; but where it does not have the newest of the covered ones,
    and before that what they say, it is another conversation, and the summary is left out.
    """
    system = [message for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    count = 0 if summary is None else _covered(others, summary.covers)
    if summary is None or not count:
        return [*messages], []
    covered = {id(message) for message in others[:count]}
    told: list[Message] = []
    first = len(system) and messages[0].role == "system"
    if first:
        told.append(messages[0])
    told.append(Message("system", prefix + summary.text))
    told += [message for message in messages[1 if first else 0 :] if id(message) not in covered]
    return told, others[:count]


def _covered(messages: Sequence[Message], covers: Sequence[Message]) -> int:
    """How many of the first messages are the last of the covered ones."""
    here, there = [_known_by(one) for one in messages], [_known_by(one) for one in covers]
    for count in range(min(len(here), len(there)), 0, -1):
        if here[:count] == there[len(there) - count :]:
            return count
    return 0


def _known_by(message: Message) -> tuple[object, ...]:
    # Not the text of a result: that may have come since.
    return message.role, message.calls, message.call_id, message.text if message.role != "tool" else ""

"""Context of a request to a model: pure functions from messages to messages.

Model protocols require that the result of each tool call directly follows the call. In a session's history, calls start
and end while other things are said, and the history may have dropped one half of a pair.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ...pipeline.frames import Message, ToolCall

STILL_RUNNING = "It is still running: there is no result yet."
MESSAGE_TOKENS = 4
"""Tokens of a message in addition to its text (OpenAI's cookbook, "How to count tokens": 3, and 1 for a name)."""


def estimate_tokens(text: str) -> int:
    """Estimate the number of tokens of a text: one per four bytes of UTF-8.

    OpenAI's rule of thumb is four English letters per token. A Chinese character has three bytes and is between half a
    token and one. Use the model's own tokenizer if precision matters.
    """
    return math.ceil(len(text.encode("utf-8", "replace")) / 4)


# --- calls and their results ------------------------------------------------------------------------------------------


def repaired(messages: Sequence[Message]) -> list[Message]:
    """Reorder messages so that the results of calls directly follow the calls, in order.

    Consecutive calls become one message. A later result moves to its call; a result without a call is dropped. A call
    without a result gets the text `STILL_RUNNING`. Second results of a call, and second calls with the same id, are
    dropped. Arguments that are not a JSON object become ``{}``, because servers fail with others.
    """
    results: dict[str, Message] = {}
    for message in messages:
        if message.role == "tool":
            results.setdefault(message.call_id, message)
    output: list[Message] = []
    calling: Message | None = None
    seen: set[str] = set()

    def close() -> None:
        nonlocal calling
        if calling is not None:
            output.append(calling)
            output.extend(
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
            output.append(replace(message, calls=()) if message.calls else message)
    close()
    return output


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


def with_cut_notes(messages: Sequence[Message], note: str) -> list[Message]:
    """Add a system message with ``note`` after each interrupted message of the bot. An empty note adds none."""
    output: list[Message] = []
    for message in messages:
        output.append(message)
        if message.cut and note and message.role == "assistant":
            output.append(Message("system", note))
    return output


# --- trimming ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Bounds:
    """Bounds of the context: ``messages`` without those of the system, ``tokens`` of all. None: no bound."""

    messages: int | None = None
    tokens: int | None = None
    count_tokens: Callable[[str], int] = estimate_tokens

    def tokens_of(self, message: Message) -> int:
        """Count the tokens of a message with its calls."""
        called = sum(self.count_tokens(f"{call.name} {call.arguments}") for call in message.calls)
        return MESSAGE_TOKENS + self.count_tokens(message.text) + called


def trimmed(messages: Sequence[Message], bounds: Bounds) -> tuple[list[Message], list[Message]]:
    """Split `repaired` messages into those that fit the bounds and the oldest ones, which do not.

    System messages always stay. The kept part starts with a message of the user if possible: a model that sees an
    answer without its question takes the answer for its own idea. A call is never separated from its results. The
    newest turn, from the user's last message on, stays whatever its length.
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
    """Group messages that must stay together: a call and its results."""
    blocks: list[list[Message]] = []
    for message in messages:
        if message.role == "tool" and blocks:
            blocks[-1].append(message)
        else:
            blocks.append([message])
    return blocks


# --- summaries --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Summary:
    """Summary of the oldest messages of a conversation: those in ``covers``, which has no system messages."""

    text: str
    covers: tuple[Message, ...]


def with_summary(
    messages: Sequence[Message], summary: Summary | None, prefix: str
) -> tuple[list[Message], list[Message]]:
    """Replace the covered messages by a system message with the summary. Return the messages and the covered ones.

    The history may have dropped its oldest messages since the summary was made. But if it does not start with the last
    of the covered messages, it belongs to another conversation, and the summary is not used.
    """
    system = [message for message in messages if message.role == "system"]
    others = [message for message in messages if message.role != "system"]
    count = 0 if summary is None else _covered(others, summary.covers)
    if summary is None or not count:
        return [*messages], []
    covered = {id(message) for message in others[:count]}
    output: list[Message] = []
    first = len(system) and messages[0].role == "system"
    if first:
        output.append(messages[0])
    output.append(Message("system", prefix + summary.text))
    output += [message for message in messages[1 if first else 0 :] if id(message) not in covered]
    return output, others[:count]


def _covered(messages: Sequence[Message], covers: Sequence[Message]) -> int:
    """Count the first messages that equal the last of the covered ones."""
    here, there = [_identity(one) for one in messages], [_identity(one) for one in covers]
    for count in range(min(len(here), len(there)), 0, -1):
        if here[:count] == there[len(there) - count :]:
            return count
    return 0


def _identity(message: Message) -> tuple[object, ...]:
    # The text of a result is left out: the result may have arrived after the summary.
    return message.role, message.calls, message.call_id, message.text if message.role != "tool" else ""

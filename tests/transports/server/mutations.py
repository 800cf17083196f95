"""Random damage, the same each time: what transmission, old clients and attackers make of a message."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

COUNT = 1_000
ODD = [
    "",
    "\0",
    "\r",
    "\n",
    "\x7f",
    "é",
    "🙂",
    "٣",
    "%s",
    "{}",
    "../",
    '"',
    "\\",
    ":",
    "=",
    " ",
    "-",
    "1e309",
    "999999999999",
]
VALUES: list[Any] = [
    None, True, False, 0, -1, 7, 1.5, 1e308, 2**63, 2**200, "", "x", "x" * 3_000, "\0", "é🙂", [], [[]], {}, {"a": {}},
    [None] * 50, "null", "offer", "v=0",
]  # fmt: skip


def mutated_text(text: str, chance: random.Random) -> str:
    """A text with one to four things wrong with it."""
    for _ in range(chance.randint(1, 4)):
        at, to = sorted(chance.randrange(len(text) + 1) for _ in range(2))
        to = min(to, at + chance.choice([1, 2, 8, 64, 512]))
        lines = text.split("\n")
        line = chance.randrange(len(lines))
        match chance.randrange(9):
            case 0:
                text = text[:at] + text[to:]
            case 1:
                text = text[:at] + text[at:to] * chance.choice([2, 3, 50]) + text[to:]
            case 2:
                text = text[:at] + chance.choice(ODD) * chance.choice([1, 1, 3, 200]) + text[to:]
            case 3:
                text = text[:at] + "".join(chr(chance.randrange(32, 0x2FF)) for _ in range(to - at)) + text[to:]
            case 4:
                text = "\n".join([*lines[:line], *lines[line + 1 :]])
            case 5:
                text = "\n".join([*lines[:line], lines[line], *lines[line:]])
            case 6:
                other = chance.randrange(len(lines))
                lines[line], lines[other] = lines[other], lines[line]
                text = "\n".join(lines)
            case 7:
                text = text[:at]
            case _:
                digits = [index for index, letter in enumerate(text) if letter.isdigit()]
                if digits:
                    index = chance.choice(digits)
                    text = text[:index] + chance.choice(ODD) + text[index + 1 :]
    return text


def mutated_value(value: Any, chance: random.Random) -> Any:
    """A JSON value with something in it that is not what it was."""
    if isinstance(value, dict) and value and chance.random() < 0.9:
        changed: dict[str, Any] = dict(value)  # pyright: ignore[reportUnknownArgumentType]
        key = chance.choice([*changed])
        match chance.randrange(4):
            case 0:
                del changed[key]
            case 1:
                changed[chance.choice([*ODD, key.upper(), key + "x"])] = changed[key]
            case _:
                changed[key] = mutated_value(changed[key], chance)
        return changed
    if isinstance(value, list) and value and chance.random() < 0.7:
        items: list[Any] = list(value)  # pyright: ignore[reportUnknownArgumentType]
        index = chance.randrange(len(items))
        items[index] = mutated_value(items[index], chance)
        return items * chance.choice([1, 1, 1, 100])
    if isinstance(value, str) and value and chance.random() < 0.6:
        return mutated_text(value, chance)
    return chance.choice(VALUES)


def mutated_json(value: Any, chance: random.Random) -> str:
    """The same as text; sometimes the text itself is damaged."""
    for _ in range(chance.randint(1, 2)):
        value = mutated_value(value, chance)
    text = json.dumps(value)
    return mutated_text(text, chance) if chance.random() < 0.3 else text


def mutated_bytes(data: bytes, chance: random.Random) -> bytes:
    """Bytes with one to four things wrong with them."""
    for _ in range(chance.randint(1, 4)):
        at = chance.randrange(len(data) + 1)
        to = min(len(data), at + chance.choice([1, 3, 100]))
        data = (
            data[:at] + chance.choice([b"", b"\0", b"\xff" * 7, chance.randbytes(to - at), data[at:to] * 3]) + data[to:]
        )
    return data


def texts(good: list[str], seed: int, count: int = COUNT) -> Iterator[str]:
    """Damaged texts."""
    chance = random.Random(seed)
    for _ in range(count):
        yield mutated_text(chance.choice(good), chance)


def objects(good: list[Any], seed: int, count: int = COUNT) -> Iterator[str]:
    """Damaged JSON."""
    chance = random.Random(seed)
    for _ in range(count):
        yield mutated_json(chance.choice(good), chance)

"""What the tests of the contract suites share."""

import asyncio
import re
from typing import Any

import pytest
from voxline.processors.contracts import (
    ContractFailure,
)

AGAIN = "the same question gets an answer each time"
ENDS = "an interruption ends an answer within 1 s"
ALONE = "after an interruption, the next question works at once"
WORDS = "words come in their order"
ODD = "a question that is odd"
LEFT = "after disconnect() nothing is left"
NO_LOG = "no log record above debug"


async def caught(check: Any, rule: str, *parts: str) -> None:
    """It fails, by this rule, and says what was expected and what came."""
    with pytest.raises(ContractFailure) as failure:
        await check
    message = str(failure.value)
    assert re.search(r"breaks the contract of an? ", message)
    assert rule in re.findall(r"rule: +(.*)", message)[0]
    assert re.search(r"expected: .", message)
    assert re.search(r"came: +.", message)
    assert [part for part in parts if part not in message] == []


def break_it(adapter: Any) -> None:
    adapter.broken = True


async def break_it_later(adapter: Any) -> None:
    await asyncio.sleep(0)
    adapter.broken = True

"""What the tests of the transports share."""

from __future__ import annotations

from typing import Any

import pytest
from voxline.tests.transports.stage import RATE, Notes, Stage
from voxline.transports.memory import MemoryTransport


@pytest.fixture
async def stage(harness: Any) -> Stage:
    """An output on a bench."""
    notes, transport = Notes(), MemoryTransport(output_rate=RATE)
    return Stage(await harness([notes, transport.output()]), notes, transport)

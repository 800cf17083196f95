"""A server for each test that names one."""

from collections.abc import AsyncIterator

import pytest

pytest.importorskip("openai")
pytest.importorskip("aiohttp")

import pytest_asyncio
from voxline.tests.processors.openai.server import FakeOpenAI


@pytest_asyncio.fixture
async def server() -> AsyncIterator[FakeOpenAI]:
    """It has the models parrot, whisper-1, gpt-4o-mini-transcribe and tts, and wants no key."""
    async with FakeOpenAI(["parrot", "whisper-1", "gpt-4o-mini-transcribe", "tts"]) as fake:
        yield fake
